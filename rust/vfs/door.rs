// SPDX-License-Identifier: GPL-2.0

//! A way to a superblock for those who have nothing open on it.
//!
//! It does not keep the filesystem mounted: unmounting waits for those who are inside, and for nobody else. So nobody may
//! wait inside for anything that may take long.
//!
//! Lock order: `s_umount` of our superblock, the door, our inodes.
//!
//! C header: `include/linux/rwsem.h`.

use super::{bindings, superblock::SuperBlock, FileSystem};
use core::{marker::PhantomData, ops::Deref, ptr::NonNull};
use kernel::{error::from_err_ptr, prelude::*, sync::Arc, types::NotThreadSafe};

/// See the file.
///
/// # Invariants
///
/// `door` was made by `rvfs_door_new` and is freed by this alone. The superblock in it, if there is one, is of filesystem
/// `T`, and complete.
pub(crate) struct Door<T: FileSystem> {
    door: NonNull<bindings::rvfs_door>,
    _fs: PhantomData<fn() -> T>,
}

// SAFETY: Any task may enter, open and close it.
unsafe impl<T: FileSystem> Send for Door<T> {}
// SAFETY: As above, and several at once.
unsafe impl<T: FileSystem> Sync for Door<T> {}

impl<T: FileSystem> Door<T> {
    /// A door that leads nowhere yet.
    pub(super) fn new() -> Result<Arc<Self>> {
        // SAFETY: It may always be called.
        let door = NonNull::new(unsafe { bindings::rvfs_door_new() }).ok_or(ENOMEM)?;
        // INVARIANT: There is no superblock in it.
        Ok(Arc::new(Self { door, _fs: PhantomData }, GFP_KERNEL)?)
    }

    /// From now on it leads to `sb`.
    ///
    /// # Safety
    ///
    /// The superblock is of filesystem `T` and complete, and stays until the door is closed.
    pub(super) unsafe fn open(&self, sb: *mut bindings::super_block) {
        // INVARIANT: The caller's promise.
        // SAFETY: By the type's invariants.
        unsafe { bindings::rvfs_door_set(self.door.as_ptr(), sb) };
    }

    /// Waits until nobody is inside, and lets nobody in any more.
    pub(super) fn close(&self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::rvfs_door_set(self.door.as_ptr(), core::ptr::null_mut()) };
    }

    /// Goes inside. The task acts as the kernel there: what it finds does not depend on who it is. Sleeps, killable.
    ///
    /// [`ENODEV`] the filesystem is not mounted any more; [`EINTR`] killed.
    pub(crate) fn enter(&self) -> Result<Inside<'_, T>> {
        let mut cred = core::ptr::null();
        // SAFETY: By the type's invariants.
        let sb = from_err_ptr(unsafe { bindings::rvfs_door_enter(self.door.as_ptr(), &mut cred) })?;
        let sb = NonNull::new(sb).ok_or(ENODEV)?;
        // INVARIANT: Entered just now.
        Ok(Inside { door: self, sb, cred, _nts: NotThreadSafe })
    }
}

impl<T: FileSystem> Drop for Door<T> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants; nobody is inside, or would borrow it.
        unsafe { bindings::rvfs_door_free(self.door.as_ptr()) };
    }
}

/// Being inside: the superblock stays meanwhile.
///
/// # Invariants
///
/// The task has entered `door` and found `sb`; `cred` is what it had before.
pub(crate) struct Inside<'a, T: FileSystem> {
    door: &'a Door<T>,
    sb: NonNull<bindings::super_block>,
    cred: *const bindings::cred,
    _nts: NotThreadSafe,
}

impl<T: FileSystem> Deref for Inside<'_, T> {
    type Target = SuperBlock<T>;

    fn deref(&self) -> &SuperBlock<T> {
        // SAFETY: By the invariants of the door the superblock is of filesystem `T`; it stays until the door is closed,
        // which waits for this to be dropped.
        unsafe { SuperBlock::from_raw(self.sb.as_ptr()) }
    }
}

impl<T: FileSystem> Drop for Inside<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::rvfs_door_leave(self.door.door.as_ptr(), self.cred) };
    }
}
