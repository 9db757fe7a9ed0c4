// SPDX-License-Identifier: GPL-2.0-or-later
//! The arithmetic of the kernel's ring, where it can be tested.
//!
//! The file behind [`book`] is the kernel module's own. The stock kernel has no KUnit, and a
//! mistake here would overwrite records; so its tests run in user space.

#[path = "../../../rust/ring/book.rs"]
pub mod book;

/// What the kernel module calls `crate::format`.
mod format {
    pub(crate) use reelfs_format::{record, uapi};
}
