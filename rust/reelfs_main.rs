// SPDX-License-Identifier: GPL-2.0

//! reelfs: a stackable filesystem that records every change to the tree below it.
//!
//! Who may depend on whom, one way only: `fs` on `vfs` and `capture`, `capture` on `ring`,
//! `ring` on `format`, `device` on `ring`.

use kernel::prelude::*;

mod capture;
mod device;
mod format;
#[deny(unsafe_code)]
mod fs;
mod ring;
mod vfs;

module! {
    type: Reelfs,
    name: "reelfs",
    authors: ["The reelfs authors"],
    description: "Stackable filesystem that records every change to an append-only log",
    license: "GPL",
    alias: ["fs-reelfs"],
}

/// Everything that is there while the module is loaded. Goes in the order of the fields: a
/// filesystem that is being mounted finds the device, and none is left when the device goes.
#[pin_data]
struct Reelfs {
    #[pin]
    filesystem: vfs::Registration<fs::ReelFs>,
    #[pin]
    device: device::Registration,
}

impl kernel::InPlaceModule for Reelfs {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Modules are initialised once, and nothing of this one was called before.
        unsafe { ring::init() };
        try_pin_init!(Self {
            device <- device::Registration::register(),
            filesystem <- vfs::Registration::new(module),
        })
    }
}
