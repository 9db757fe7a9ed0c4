// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel module's arithmetic, where it can be tested.
//!
//! The files behind [`book`], [`ranges`] and [`shares`] are the module's own. The stock kernel has no KUnit, and a
//! mistake here would overwrite records, or lose stores; so their tests run in user space.

#[path = "../../../rust/ring/book.rs"]
pub mod book;
#[path = "../../../rust/fs/ranges.rs"]
pub mod ranges;
#[path = "../../../rust/ring/shares.rs"]
pub mod shares;

/// What the kernel module calls `crate::format`.
mod format {
    pub(crate) use reelfs_format::{record, uapi};
}
