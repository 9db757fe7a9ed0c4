// SPDX-License-Identifier: GPL-2.0

//! Changes of names in the filesystem below.
//!
//! Each guard holds the lock of the directory or directories below, taken only if the dentries
//! still are what they were; an operation is a method of the guard. The caller's credentials
//! count, and the filesystem's own checks are made.
//!
//! Lock order: our directories (by the VFS), write access to the mount below, the directories
//! below (these guards).
//!
//! C header: `include/linux/namei.h`.

use super::{bindings, dentry::LowerDentry, estale, mount::WriteAccess};
use core::{marker::PhantomData, mem::ManuallyDrop, ptr::NonNull};
use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
    sync::aref::ARef,
    types::NotThreadSafe,
};

/// A dentry that is no longer where it was: the path is to be walked again.
fn moved(e: Error) -> Error {
    if e == EINVAL {
        estale()
    } else {
        e
    }
}

/// A directory below is locked in order to make a name in it.
///
/// # Invariants
///
/// `dentry` is referenced and its parent locked.
pub(crate) struct Creating<'a> {
    dentry: NonNull<bindings::dentry>,
    _access: PhantomData<&'a ()>,
    _nts: NotThreadSafe,
}

impl<'a> Creating<'a> {
    /// Locks `parent`. [`EEXIST`] if `child` exists, [`ESTALE`] if it is elsewhere by now.
    pub(crate) fn start(_access: &'a WriteAccess<'_>, parent: &'a LowerDentry, child: &LowerDentry) -> Result<Self> {
        // SAFETY: Both dentries are valid, and the parent has an inode or the child no parent.
        let ptr = unsafe { bindings::start_creating_dentry(parent.as_ptr(), child.as_ptr()) };
        Ok(Self {
            dentry: NonNull::new(from_err_ptr(ptr).map_err(moved)?).ok_or(EINVAL)?,
            _access: PhantomData,
            _nts: NotThreadSafe,
        })
    }

    /// Returns the name; it has an inode once something was made.
    pub(crate) fn dentry(&self) -> &LowerDentry {
        // SAFETY: By the type's invariants.
        unsafe { LowerDentry::from_raw(self.dentry.as_ptr()) }
    }

    /// Makes a regular file.
    pub(crate) fn create(&mut self, mode: u16) -> Result {
        // SAFETY: By the type's invariants.
        to_result(unsafe { bindings::rvfs_vfs_create(self.dentry.as_ptr(), mode) })
    }

    /// Makes a directory. Gives the locks back if that fails.
    pub(crate) fn mkdir(self, mode: u16) -> Result<Self> {
        let this = ManuallyDrop::new(self);
        // SAFETY: By the type's invariants. `vfs_mkdir` releases lock and dentry when it fails,
        // and the dentry alone when it returns another, hence no drop of what was.
        let ptr = unsafe { bindings::rvfs_vfs_mkdir(this.dentry.as_ptr(), mode) };
        Ok(Self { dentry: NonNull::new(from_err_ptr(ptr)?).ok_or(EINVAL)?, _access: PhantomData, _nts: NotThreadSafe })
    }

    /// Makes a device, fifo or socket.
    pub(crate) fn mknod(&mut self, mode: u16, dev: u32) -> Result {
        // SAFETY: By the type's invariants.
        to_result(unsafe { bindings::rvfs_vfs_mknod(self.dentry.as_ptr(), mode, dev) })
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(&mut self, target: &CStr) -> Result {
        // SAFETY: By the type's invariants; the target ends in NUL.
        to_result(unsafe { bindings::rvfs_vfs_symlink(self.dentry.as_ptr(), target.as_char_ptr()) })
    }

    /// Makes another name of an object.
    pub(crate) fn link(&mut self, old: &LowerDentry) -> Result {
        // SAFETY: By the type's invariants.
        to_result(unsafe { bindings::rvfs_vfs_link(old.as_ptr(), self.dentry.as_ptr()) })
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::end_dirop(self.dentry.as_ptr()) };
    }
}

/// A directory below is locked in order to remove a name from it.
///
/// # Invariants
///
/// `dentry` is referenced and its parent locked.
pub(crate) struct Removing<'a> {
    dentry: NonNull<bindings::dentry>,
    _access: PhantomData<&'a ()>,
    _nts: NotThreadSafe,
}

impl<'a> Removing<'a> {
    /// Locks `parent`. [`ENOENT`] if `child` is gone, [`ESTALE`] if it is elsewhere by now.
    pub(crate) fn start(_access: &'a WriteAccess<'_>, parent: &'a LowerDentry, child: &LowerDentry) -> Result<Self> {
        // SAFETY: Both dentries are valid.
        let ptr = unsafe { bindings::start_removing_dentry(parent.as_ptr(), child.as_ptr()) };
        Ok(Self {
            dentry: NonNull::new(from_err_ptr(ptr).map_err(moved)?).ok_or(EINVAL)?,
            _access: PhantomData,
            _nts: NotThreadSafe,
        })
    }

    /// Removes a name that is not a directory's.
    pub(crate) fn unlink(&mut self) -> Result {
        // SAFETY: By the type's invariants.
        to_result(unsafe { bindings::rvfs_vfs_unlink(self.dentry.as_ptr()) })
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&mut self) -> Result {
        // SAFETY: By the type's invariants.
        to_result(unsafe { bindings::rvfs_vfs_rmdir(self.dentry.as_ptr()) })
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::end_dirop(self.dentry.as_ptr()) };
    }
}

/// How a name is moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenameMode {
    /// What has the new name is replaced.
    Replace,
    /// Nothing may have the new name.
    NoReplace,
    /// Both change names.
    Exchange,
    /// What has the new name is replaced, and a whiteout gets the old one.
    Whiteout,
    /// Nothing may have the new name, and a whiteout gets the old one.
    WhiteoutNoReplace,
}

impl RenameMode {
    /// Reads `RENAME_*` flags; [`EINVAL`] for what is not offered.
    pub(crate) fn from_flags(flags: u32) -> Result<Self> {
        const ALL: [RenameMode; 5] = [
            RenameMode::Replace,
            RenameMode::NoReplace,
            RenameMode::Exchange,
            RenameMode::Whiteout,
            RenameMode::WhiteoutNoReplace,
        ];
        ALL.into_iter().find(|mode| mode.flags() == flags).ok_or(EINVAL)
    }

    fn flags(self) -> u32 {
        match self {
            Self::Replace => 0,
            Self::NoReplace => bindings::RENAME_NOREPLACE,
            Self::Exchange => bindings::RENAME_EXCHANGE,
            Self::Whiteout => bindings::RENAME_WHITEOUT,
            Self::WhiteoutNoReplace => bindings::RENAME_WHITEOUT | bindings::RENAME_NOREPLACE,
        }
    }

    /// Returns whether something new gets the old name.
    pub(crate) fn leaves_whiteout(self) -> bool {
        matches!(self, Self::Whiteout | Self::WhiteoutNoReplace)
    }
}

/// Directories below are locked in order to move a name.
///
/// # Invariants
///
/// `rd` was filled by `start_renaming_two_dentries`, which succeeded.
pub(crate) struct Renaming<'a> {
    rd: bindings::renamedata,
    _access: PhantomData<&'a ()>,
    _nts: NotThreadSafe,
}

impl<'a> Renaming<'a> {
    /// Locks both parents. [`EINVAL`] if a dentry is elsewhere by now.
    pub(crate) fn start(
        _access: &'a WriteAccess<'_>,
        old_parent: &'a LowerDentry,
        new_parent: &'a LowerDentry,
        old: &LowerDentry,
        new: &LowerDentry,
        mode: RenameMode,
    ) -> Result<Self> {
        let mut rd = bindings::renamedata::default();
        // SAFETY: All dentries are valid.
        to_result(unsafe {
            bindings::rvfs_start_renaming(
                &mut rd,
                old_parent.as_ptr(),
                new_parent.as_ptr(),
                old.as_ptr(),
                new.as_ptr(),
                mode.flags(),
            )
        })?;
        // INVARIANT: It succeeded.
        Ok(Self { rd, _access: PhantomData, _nts: NotThreadSafe })
    }

    /// Moves the name.
    pub(crate) fn rename(&mut self) -> Result {
        // SAFETY: By the type's invariants.
        to_result(unsafe { bindings::vfs_rename(&mut self.rd) })
    }

    /// Looks up what got the old name, `name`. Sleeps.
    pub(crate) fn left_behind(&self, name: &[u8]) -> Result<ARef<LowerDentry>> {
        let len = name.len().try_into()?;
        // SAFETY: The name is valid during the call; by the type's invariants the directory is locked.
        let ptr = unsafe {
            let mut qstr = bindings::rvfs_qstr(name.as_ptr(), len);
            bindings::lookup_noperm(&mut qstr, self.rd.old_parent)
        };
        let ptr = NonNull::new(from_err_ptr(ptr)?).ok_or(ENOENT)?;
        // SAFETY: The lookup returned a reference of ours.
        Ok(unsafe { ARef::from_raw(ptr.cast()) })
    }
}

impl Drop for Renaming<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::end_renaming(&mut self.rd) };
    }
}
