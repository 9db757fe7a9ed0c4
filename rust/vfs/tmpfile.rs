// SPDX-License-Identifier: GPL-2.0

//! Files without a name (`O_TMPFILE`): made below first, then ours on top of them, open at once.
//!
//! C headers: `include/linux/backing-file.h`, `include/linux/dcache.h`.

use super::{
    bindings,
    dentry::{Dentry, LowerDentry},
    file::{adopt, Opening},
    inode::Inode,
    mount::WriteAccess,
    FileSystem,
};
use core::ptr::NonNull;
use kernel::{
    error::{from_err_ptr, to_result},
    ffi,
    prelude::*,
    sync::aref::ARef,
};

use super::file::LowerFile;

/// A file of ours that is being made without a name; there is no object yet.
///
/// # Invariants
///
/// `file` is being opened by `O_TMPFILE` and ours; its dentry is new, negative, unhashed and nobody else's.
pub(crate) struct Unnamed<'a, T: FileSystem> {
    file: *mut bindings::file,
    dir: &'a Inode<T>,
}

impl<'a, T: FileSystem> Unnamed<'a, T> {
    /// # Safety
    ///
    /// `file` satisfies the invariants, in the directory `dir`.
    pub(super) unsafe fn new(file: *mut bindings::file, dir: &'a Inode<T>) -> Self {
        Self { file, dir }
    }

    /// Makes the object below, in the directory below ours, with the caller's flags and credentials.
    ///
    /// It may be given a name later unless the caller said `O_EXCL`. It goes when what is returned is dropped.
    pub(crate) fn make(self, _access: &WriteAccess<'_>, mode: u16) -> Result<UnnamedBelow<'a, T>> {
        let opening = Opening::new(self.file, self.dir);
        // SAFETY: By the type's invariants; a dentry holds its parent. The caller's credentials are valid during the
        // call, and the file takes its own reference to them.
        let lower = unsafe {
            let parent = Dentry::<T>::from_raw((*bindings::rvfs_file_dentry(self.file)).d_parent);
            let path = self.dir.superblock().lower().path(parent.lower());
            // Whether it may be named later is decided below, too.
            let flags = opening.flags_below() | (bindings::rvfs_file_flags(self.file) & bindings::O_EXCL);
            let file = from_err_ptr(bindings::backing_tmpfile_open(
                self.file,
                flags as ffi::c_int,
                path.as_ptr(),
                mode,
                bindings::rvfs_current_cred(),
            ))?;
            ARef::from_raw(NonNull::new(file).ok_or(ENFILE)?.cast())
        };
        Ok(UnnamedBelow { file: self.file, dir: self.dir, lower })
    }
}

/// A file without a name that is there below, and not yet above.
pub(crate) struct UnnamedBelow<'a, T: FileSystem> {
    file: *mut bindings::file,
    dir: &'a Inode<T>,
    lower: ARef<LowerFile>,
}

impl<T: FileSystem> UnnamedBelow<'_, T> {
    /// Returns the dentry below, which has no name.
    pub(crate) fn dentry(&self) -> &LowerDentry {
        self.lower.dentry()
    }

    /// Makes it ours, and opens it.
    pub(crate) fn open(self) -> Result {
        let lower = self.dentry().inode().ok_or(ENOENT)?;
        let inode = ARef::into_raw(self.dir.superblock().stack(lower)?).as_ptr().cast();
        // SAFETY: By the invariants of `Unnamed` the file and its dentry are nobody else's yet. The dentry takes over
        // the references to the dentry below and to the inode; the file takes over the file below, and `release`
        // gives it back if the file got so far as to be open.
        unsafe {
            let dentry = bindings::rvfs_file_dentry(self.file);
            (*dentry).d_fsdata = bindings::rvfs_dget(self.lower.dentry().as_ptr()).cast();
            bindings::d_mark_tmpfile(self.file, inode);
            bindings::d_instantiate(dentry, inode);
            adopt(self.file, &self.lower);
            (*self.file).private_data = ARef::into_raw(self.lower).as_ptr().cast();
            let ret = bindings::finish_open(self.file, dentry, Some(opened));
            if bindings::rvfs_file_mode(self.file) & bindings::FMODE_OPENED == 0 {
                bindings::fput((*self.file).private_data.cast());
                (*self.file).private_data = core::ptr::null_mut();
            }
            to_result(ret)
        }
    }
}

/// Stands for `open`, when the file below is there already.
unsafe extern "C" fn opened(_inode: *mut bindings::inode, _file: *mut bindings::file) -> ffi::c_int {
    0
}
