// SPDX-License-Identifier: GPL-2.0

//! Which trees below are taken: no part of one may be mounted a second time.

use super::dentry::LowerDentry;
use kernel::{prelude::*, sync::aref::ARef};

kernel::sync::global_lock! {
    // SAFETY: `init` is called once, when the module is loaded, before any mount.
    unsafe(uninit) static CLAIMED: Mutex<KVec<ARef<LowerDentry>>> = KVec::new();
}

/// Makes the list usable.
///
/// # Safety
///
/// Called exactly once, before anything is claimed.
pub(super) unsafe fn init() {
    // SAFETY: The caller's promise.
    unsafe { CLAIMED.init() };
}

/// A directory and everything below it, taken until this is dropped.
pub(crate) struct Claim {
    root: ARef<LowerDentry>,
}

impl Claim {
    /// Takes a tree; [`EBUSY`] if any part of it is taken. Sleeps.
    pub(crate) fn new(root: &LowerDentry) -> Result<Self> {
        let mut claimed = CLAIMED.lock();
        if claimed.iter().any(|other| root.is_within(other) || other.is_within(root)) {
            return Err(EBUSY);
        }
        claimed.push(root.into(), GFP_KERNEL)?;
        Ok(Self { root: root.into() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = CLAIMED.lock();
        if let Some(i) = claimed.iter().position(|other| other.is(&self.root)) {
            let _ = claimed.remove(i);
        }
        if claimed.is_empty() {
            // A static is not dropped when the module goes: an empty list keeps no memory.
            *claimed = KVec::new();
        }
    }
}
