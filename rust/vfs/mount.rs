// SPDX-License-Identifier: GPL-2.0

//! Mounts and paths of the filesystem below.
//!
//! C headers: `include/linux/mount.h`, `include/linux/path.h`.

use super::{bindings, dentry::LowerDentry, estale, superblock::LowerSuperBlock};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
    sync::aref::ARef,
};

/// A mount of our own, invisible in every namespace.
///
/// # Invariants
///
/// `ptr` is a mount that `clone_private_mount` made and that only this ends.
pub(crate) struct PrivateMount {
    ptr: NonNull<bindings::vfsmount>,
}

// SAFETY: Mounts may be used and released from any thread.
unsafe impl Send for PrivateMount {}
// SAFETY: As above.
unsafe impl Sync for PrivateMount {}

impl PrivateMount {
    /// Returns the superblock that is mounted.
    pub(crate) fn superblock(&self) -> &LowerSuperBlock {
        // SAFETY: A mount holds its superblock.
        unsafe { LowerSuperBlock::from_raw((*self.ptr.as_ptr()).mnt_sb) }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::vfsmount {
        self.ptr.as_ptr()
    }

    /// Returns the root of the mount.
    pub(crate) fn root(&self) -> &LowerDentry {
        // SAFETY: A mount holds its root.
        unsafe { LowerDentry::from_raw((*self.ptr.as_ptr()).mnt_root) }
    }

    /// Returns whether writes are refused.
    pub(crate) fn is_readonly(&self) -> bool {
        // SAFETY: The mount is valid.
        unsafe { bindings::rvfs_mnt_readonly(self.ptr.as_ptr()) }
    }

    /// Keeps the filesystem below writable and unfrozen while the guard lives.
    ///
    /// Waits while it is frozen. For changes of names and attributes only: data operations take
    /// this protection themselves, and taking it twice deadlocks against a freeze in between.
    pub(crate) fn want_write(&self) -> Result<WriteAccess<'_>> {
        // SAFETY: The mount is valid.
        to_result(unsafe { bindings::mnt_want_write(self.ptr.as_ptr()) })?;
        Ok(WriteAccess(self))
    }

    /// Returns whether the root has no entries. Sleeps.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        // SAFETY: The path is valid.
        let ret = unsafe { bindings::rvfs_dir_is_empty(self.path(self.root()).as_ptr()) };
        to_result(ret)?;
        Ok(ret == 1)
    }

    /// Makes the root itself durable, its attributes and entries. Sleeps.
    pub(crate) fn sync_root(&self) -> Result {
        // SAFETY: The path is valid.
        to_result(unsafe { bindings::rvfs_sync_path(self.path(self.root()).as_ptr()) })
    }

    /// Makes all of the filesystem durable. Sleeps.
    pub(crate) fn sync_filesystem(&self) -> Result {
        // SAFETY: The mount holds its superblock, and so keeps it from being unmounted.
        to_result(unsafe { bindings::rvfs_sync_fs((*self.ptr.as_ptr()).mnt_sb) })
    }

    /// Returns the object that a file handle names ([`LowerInode::encode_handle`](super::LowerInode::encode_handle)), by
    /// whatever name, if any, is in memory. [`ENOENT`] if there is none. Sleeps.
    ///
    /// A directory is below the root. Anything else is not known to be elsewhere: a name of it may be below the root.
    pub(crate) fn find(&self, kind: u8, words: &mut [u32]) -> Result<ARef<LowerDentry>> {
        let count = words.len().try_into()?;
        // SAFETY: The mount is valid, and so are that many words.
        let found = from_err_ptr(unsafe {
            bindings::rvfs_decode_handle(self.ptr.as_ptr(), words.as_mut_ptr(), count, kind.into())
        });
        let found = match found {
            // What filesystems say of handles that are not theirs, or not any more, or lead elsewhere.
            Err(e) if e == estale() || e == EACCES || e == EINVAL => return Err(ENOENT),
            other => other?,
        };
        // SAFETY: A dentry that is returned comes with a reference.
        NonNull::new(found).map(|ptr| unsafe { ARef::from_raw(ptr.cast()) }).ok_or(ENOENT)
    }

    /// The path of `dentry` in this mount.
    pub(crate) fn path<'a>(&'a self, dentry: &'a LowerDentry) -> Path<'a> {
        Path { raw: bindings::path { mnt: self.ptr.as_ptr(), dentry: dentry.as_ptr() }, _borrow: PhantomData }
    }
}

impl Drop for PrivateMount {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants; `clone_private_mount` makes what this ends.
        unsafe { bindings::kern_unmount(self.ptr.as_ptr()) };
    }
}

/// Proof that the filesystem below may be changed now.
pub(crate) struct WriteAccess<'a>(&'a PrivateMount);

impl Drop for WriteAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: Taken when the guard was made.
        unsafe { bindings::mnt_drop_write(self.0.ptr.as_ptr()) };
    }
}

/// A mount and a dentry, borrowed.
pub(crate) struct Path<'a> {
    raw: bindings::path,
    _borrow: PhantomData<&'a LowerDentry>,
}

impl Path<'_> {
    pub(super) fn as_ptr(&self) -> *const bindings::path {
        &self.raw
    }
}

/// A path that a name was resolved to; holds both its parts.
///
/// # Invariants
///
/// `raw` owns references to a mount and a positive dentry.
pub(crate) struct OwnedPath {
    raw: bindings::path,
}

impl OwnedPath {
    /// Resolves the name of a directory, following links. Sleeps.
    pub(crate) fn lookup_directory(name: &CStr) -> Result<Self> {
        let mut raw = bindings::path::default();
        let flags = bindings::LOOKUP_FOLLOW | bindings::LOOKUP_DIRECTORY;
        // SAFETY: The name ends in NUL, and `raw` is ours to write.
        to_result(unsafe { bindings::kern_path(name.as_char_ptr(), flags, &mut raw) })?;
        Ok(Self { raw })
    }

    /// Returns the dentry.
    pub(crate) fn dentry(&self) -> &LowerDentry {
        // SAFETY: By the type's invariants.
        unsafe { LowerDentry::from_raw(self.raw.dentry) }
    }

    /// Returns the superblock that is mounted here.
    pub(crate) fn superblock(&self) -> &LowerSuperBlock {
        // SAFETY: By the type's invariants.
        unsafe { LowerSuperBlock::from_raw((*self.raw.mnt).mnt_sb) }
    }

    /// Returns whether the mount maps user ids.
    pub(crate) fn is_idmapped(&self) -> bool {
        // SAFETY: By the type's invariants.
        unsafe { bindings::rvfs_is_idmapped_mnt(self.raw.mnt) }
    }

    /// Makes a private mount with this path as its root: what is mounted below is not seen.
    pub(crate) fn clone_mount(&self) -> Result<PrivateMount> {
        // SAFETY: By the type's invariants.
        let ptr = from_err_ptr(unsafe { bindings::clone_private_mount(&self.raw) })?;
        Ok(PrivateMount { ptr: NonNull::new(ptr).ok_or(EINVAL)? })
    }
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::path_put(&self.raw) };
    }
}
