// SPDX-License-Identifier: GPL-2.0-or-later
//! Boots test machines under QEMU and brings back what happened in them.
//!
//! A [`Machine`] is described, started, and ends as an [`Outcome`]: the exit status of
//! the one command that ran in it, its output, the files it left in `/results`, every
//! kernel message that is not on the allow-list, and everything that was left behind
//! (processes, mounts, loaded modules, device-mapper and target devices).
//!
//! The machine boots a stock or debug kernel with an initramfs that holds `reelvm-init`
//! and the few modules needed to find the disks. Its root is a read-only Debian image
//! under a tmpfs, so every run starts from the same state. What the run brings along
//! (the module, programs, data) is a second read-only image at `/payload`.
//!
//! The library does not build anything and does not know what reelfs is; the suites and
//! the demo are written on it.

mod cpio;
mod initramfs;
pub mod kernel_log;
mod machine;
mod outcome;
mod payload;
pub mod protocol;
mod setup;

pub use machine::{Machine, Running};
pub use outcome::{Ending, Outcome};
pub use setup::{Kernel, Setup};

/// What went wrong while describing, starting or watching a machine; the text names the
/// object and is meant for a person.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Adds to an I/O error which object it was about.
pub(crate) trait Context<T> {
    /// Turns the error into one that starts with `what`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| Error(format!("{}: {e}", what())))
    }
}
