// SPDX-License-Identifier: GPL-2.0

//! Work of a superblock that is put off, and done by a task of the kernel's.
//!
//! C header: `include/linux/workqueue.h`.

use super::bindings;
use core::ptr::NonNull;
use kernel::{prelude::*, time::Jiffies};

/// Work that can be asked for at any time, and runs at most once at a time.
///
/// # Invariants
///
/// `work` was made by `rvfs_work_new` and is freed by this alone.
pub(super) struct Work {
    work: NonNull<bindings::rvfs_work>,
}

// SAFETY: Work may be asked for, and stopped, by any task.
unsafe impl Send for Work {}
// SAFETY: As above, and by several at once.
unsafe impl Sync for Work {}

impl Work {
    /// Work that calls `run` with the superblock.
    ///
    /// # Safety
    ///
    /// `sb` stays until the work is stopped or dropped, and `run` may be called with it by then.
    pub(super) unsafe fn new(
        sb: *mut bindings::super_block,
        run: unsafe extern "C" fn(*mut bindings::super_block),
    ) -> Result<Self> {
        // SAFETY: The caller's promise.
        let work = NonNull::new(unsafe { bindings::rvfs_work_new(sb, Some(run)) }).ok_or(ENOMEM)?;
        Ok(Self { work })
    }

    /// Has it done after this time, unless it is to be done anyway, sooner or later. Never sleeps.
    pub(super) fn run_in(&self, delay: Jiffies) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::rvfs_work_queue(self.work.as_ptr(), delay, false) };
    }

    /// Has it done as soon as possible. Never sleeps.
    pub(super) fn run(&self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::rvfs_work_queue(self.work.as_ptr(), 0, true) };
    }

    /// Waits until all that was asked for without a delay is done; it does not run any more, whoever asks. Sleeps.
    pub(super) fn stop(&self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::rvfs_work_stop(self.work.as_ptr()) };
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants; nobody can ask for it any more.
        unsafe { bindings::rvfs_work_free(self.work.as_ptr()) };
    }
}
