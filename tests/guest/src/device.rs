// SPDX-License-Identifier: GPL-2.0-or-later

//! What `/dev/reelfs` says about the rings.

use crate::check::{Check, Failure};
use reelfs_format::uapi::{ListEntry, RING_ATTACHED, RING_MOUNTED};
use reelfs_sys::device::Device;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// One ring.
#[derive(Clone, Copy, Debug)]
pub struct Ring(ListEntry);

impl Ring {
    /// A daemon is attached.
    pub fn attached(&self) -> bool {
        self.0.state & RING_ATTACHED != 0
    }

    /// The mount is there.
    pub fn mounted(&self) -> bool {
        self.0.state & RING_MOUNTED != 0
    }

    /// What the kernel says.
    pub fn entry(&self) -> &ListEntry {
        &self.0
    }
}

/// All rings.
pub fn rings() -> Check<Vec<Ring>> {
    Ok(Device::open()?.list()?.into_iter().map(Ring).collect())
}

/// The newest ring of a mount with this lower directory.
pub fn ring_of(lower: &Path) -> Check<Ring> {
    let source = lower.as_os_str().as_bytes();
    let newest = rings()?.into_iter().filter(|ring| ring.0.source_path() == source).max_by_key(|ring| ring.0.ring);
    newest.ok_or_else(|| Failure::new(format!("no ring of {}", lower.display())))
}
