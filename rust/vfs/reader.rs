// SPDX-License-Identifier: GPL-2.0

//! Contents of a file or directory below, without an open file of ours: what is in memory, and what is on its device.
//!
//! C headers: `include/linux/pagemap.h`, `include/linux/rmap.h`.

use super::{bindings, inode::LowerInode, mount::PrivateMount};
use core::{ops::Range, ptr::NonNull};
use kernel::{
    error::{from_err_ptr, to_result},
    ffi,
    prelude::*,
};

/// A file or directory below, open for reading in the kernel's own name.
///
/// # Invariants
///
/// `file` is open for reading, and the only reference to it.
pub(crate) struct LowerReader {
    file: NonNull<bindings::file>,
}

impl LowerReader {
    pub(super) fn as_ptr(&self) -> *mut bindings::file {
        self.file.as_ptr()
    }

    /// Gives the names in a directory to `take`, from a position on (zero is the beginning), until it has no use for one.
    /// The position is then that of this one. Returns whether there are no more. Sleeps; a lock of the directory below
    /// is held while `take` runs.
    pub(crate) fn names(&self, position: &mut i64, mut take: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool> {
        unsafe extern "C" fn call(data: *mut ffi::c_void, name: *const ffi::c_char, len: ffi::c_int) -> bool {
            // SAFETY: `data` is what is passed below, and the name that long.
            let (take, name) = unsafe {
                (
                    &mut *data.cast::<&mut dyn FnMut(&[u8]) -> bool>(),
                    core::slice::from_raw_parts(name.cast::<u8>(), usize::try_from(len).unwrap_or(0)),
                )
            };
            take(name)
        }
        // SAFETY: The file is open and nobody else's, and `take` there during the call.
        let ret =
            unsafe { bindings::rvfs_read_names(self.file.as_ptr(), position, (&raw mut take).cast(), Some(call)) };
        to_result(ret)?;
        Ok(ret == 1)
    }

    /// Reads from `pos` into `out`, up to the end of the file; returns how much there was. Sleeps.
    pub(crate) fn read_at(&self, out: &mut [u8], pos: u64) -> Result<usize> {
        let pos = pos.try_into()?;
        // SAFETY: The file is open and the memory ours to write.
        let ret = unsafe { bindings::rvfs_lower_read(self.file.as_ptr(), out.as_mut_ptr().cast(), out.len(), pos) };
        usize::try_from(ret).map_err(|_| Error::from_errno(ret as ffi::c_int))
    }

    /// Returns the first part of a range that is no hole, if there is one. Sleeps.
    pub(crate) fn next_data(&self, within: Range<u64>) -> Result<Option<Range<u64>>> {
        let (mut start, mut end) = (i64::try_from(within.start)?, i64::try_from(within.end)?);
        // SAFETY: The file is open, and both are ours to write.
        match to_result(unsafe { bindings::rvfs_next_data(self.file.as_ptr(), &mut start, &mut end) }) {
            Ok(()) => Ok(Some(u64::try_from(start)?..u64::try_from(end)?)),
            Err(ENXIO) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// How somebody has the memory of a file, past all mappings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It is pinned, for a device to write to (`O_DIRECT`) or for a task (`process_vm_writev`), until that is done.
    Pinned,
    /// There is a reference to it: a debugger's, about to store, or one of those that come and go for other reasons. The
    /// latter may last, in the lists of each processor that memory waits in to be sorted by age.
    Referenced,
}

impl Drop for LowerReader {
    fn drop(&mut self) {
        // At once rather than later: it keeps the mount below busy.
        // SAFETY: By the type's invariants, this is the last reference.
        unsafe { bindings::__fput_sync(self.file.as_ptr()) };
    }
}

impl LowerInode {
    /// Opens the file or directory, whoever asks. Sleeps.
    pub(crate) fn reader(&self, mount: &PrivateMount) -> Result<LowerReader> {
        // SAFETY: Mount and inode are valid, and of the same filesystem.
        let file = from_err_ptr(unsafe { bindings::rvfs_open_reader(mount.as_ptr(), self.as_ptr()) })?;
        // INVARIANT: It was opened just now.
        Ok(LowerReader { file: NonNull::new(file).ok_or(EINVAL)? })
    }

    /// Takes the right to store from all mappings of what is in memory of a range; from now on each store is announced
    /// again ([`Watch::may_store`](super::Watch::may_store)). Sleeps.
    ///
    /// Calls `held` with ranges that this cannot be said of, because somebody has the memory itself.
    pub(crate) fn write_protect(&self, range: Range<u64>, mut held: &mut dyn FnMut(Range<u64>, Hold)) {
        unsafe extern "C" fn call(data: *mut ffi::c_void, start: u64, end: u64, pinned: bool) {
            // SAFETY: `data` is what is passed below.
            let held = unsafe { &mut *data.cast::<&mut dyn FnMut(Range<u64>, Hold)>() };
            held(start..end, if pinned { Hold::Pinned } else { Hold::Referenced });
        }
        // SAFETY: The inode is valid, and `held` there during the call.
        unsafe {
            bindings::rvfs_write_protect(self.as_ptr(), range.start, range.end, (&raw mut held).cast(), Some(call))
        };
    }

    /// Returns the end of the folio that has bytes both before `pos` and behind (of the page, where there is no folio), or
    /// `pos` if there is none such.
    pub(crate) fn folio_end(&self, pos: u64) -> u64 {
        // SAFETY: The inode is valid.
        unsafe { bindings::rvfs_folio_end(self.as_ptr(), pos) }
    }
}
