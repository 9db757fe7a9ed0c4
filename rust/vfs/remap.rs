// SPDX-License-Identifier: GPL-2.0

//! Files that share extents (`FICLONE`, `FIDEDUPERANGE`), and where a file has data and where holes.
//!
//! C header: `include/linux/fs.h`, `remap_file_range`.

use super::{
    bindings, eopnotsupp,
    file::{File, LowerFile},
    reader::LowerReader,
    FileSystem,
};
use core::ops::Range;
use kernel::{error::to_result, ffi, page::PAGE_SHIFT, prelude::*};

/// A request to make a range of one file share the extents of a range of another, or of the same.
pub(crate) struct Remap<'a, T: FileSystem> {
    /// Whose extents are shared.
    pub(crate) from: &'a File<T>,
    /// Where in it.
    pub(crate) from_pos: i64,
    /// Which gets them.
    pub(crate) to: &'a File<T>,
    /// Where in it.
    pub(crate) to_pos: i64,
    /// How many bytes; zero: all up to the end.
    pub(crate) len: i64,
    /// Only if both ranges are the same already.
    pub(crate) dedupe: bool,
    /// Doing less is allowed.
    pub(crate) can_shorten: bool,
}

impl<'a, T: FileSystem> Remap<'a, T> {
    /// # Safety
    ///
    /// Both files are ours, open regular files of one superblock, during `'a`.
    pub(super) unsafe fn from_raw(
        from: *mut bindings::file,
        from_pos: i64,
        to: *mut bindings::file,
        to_pos: i64,
        len: i64,
        flags: u32,
    ) -> Result<Self> {
        const DEDUPE: u32 = bindings::REMAP_FILE_DEDUP;
        const CAN_SHORTEN: u32 = bindings::REMAP_FILE_CAN_SHORTEN;
        if flags & !(DEDUPE | CAN_SHORTEN) != 0 {
            return Err(EINVAL);
        }
        // SAFETY: The caller's promise.
        let (from, to) = unsafe { (File::from_raw(from), File::from_raw(to)) };
        let (dedupe, can_shorten) = (flags & DEDUPE != 0, flags & CAN_SHORTEN != 0);
        Ok(Self { from, from_pos, to, to_pos, len, dedupe, can_shorten })
    }
}

/// A range of a file, as its filesystem has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Bytes are stored.
    Data,
    /// Nothing is stored, and it reads as zeros.
    Hole,
}

impl LowerFile {
    /// Shares `len` bytes of the extents of `from`. Takes write protection itself; returns how much was done.
    pub(crate) fn clone_from(&self, pos: i64, from: &LowerFile, from_pos: i64, len: i64) -> Result<i64> {
        // SAFETY: Both files are valid.
        length(unsafe { bindings::vfs_clone_file_range(from.as_ptr(), from_pos, self.as_ptr(), pos, len, 0) })
    }

    /// The same, if the contents are the same. Returns how much was done; `EBADE` if they are not.
    pub(crate) fn dedupe_from(&self, pos: i64, from: &LowerFile, from_pos: i64, len: i64) -> Result<i64> {
        // SAFETY: Both files are valid.
        length(unsafe { bindings::vfs_dedupe_file_range_one(from.as_ptr(), from_pos, self.as_ptr(), pos, len, 0) })
    }

    /// [`EOPNOTSUPP`] where the filesystem shares no extents.
    pub(crate) fn can_share(&self) -> Result {
        // SAFETY: An open file has operations.
        match unsafe { (*(*self.as_ptr()).f_op).remap_file_range } {
            Some(_) => Ok(()),
            None => Err(eopnotsupp()),
        }
    }

    /// Returns how much of `len` bytes may be written at `pos`: limits of the process and of the filesystem.
    pub(crate) fn write_limit(&self, pos: i64, len: i64) -> Result<i64> {
        let mut count = len;
        // SAFETY: The file is valid.
        to_result(unsafe { bindings::generic_write_check_limits(self.as_ptr(), pos, &mut count) })?;
        Ok(count)
    }

    /// See [`write_back`].
    pub(crate) fn write_back(&self, range: Range<i64>) -> Result {
        // SAFETY: The file is open.
        unsafe { write_back(self.as_ptr(), range) }
    }

    /// See [`LowerReader::drop_clean`].
    pub(crate) fn drop_clean(&self, range: Range<i64>) {
        // SAFETY: The file is open.
        unsafe { drop_clean(self.as_ptr(), range) };
    }

    /// See [`extent`]: for files that nobody else uses.
    pub(crate) fn extent(&self, range: Range<i64>) -> Result<(Extent, i64)> {
        // SAFETY: The file is open.
        unsafe { extent(self.as_ptr(), range) }
    }
}

impl LowerReader {
    /// See [`write_back`].
    pub(crate) fn write_back(&self, range: Range<i64>) -> Result {
        // SAFETY: The file is open.
        unsafe { write_back(self.as_ptr(), range) }
    }

    /// Drops from memory what is clean of a range. What somebody has read, or what was read ahead, of blocks that are set
    /// aside and not written would show as data.
    pub(crate) fn drop_clean(&self, range: Range<i64>) {
        // SAFETY: The file is open.
        unsafe { drop_clean(self.as_ptr(), range) };
    }

    /// See [`extent`].
    pub(crate) fn extent(&self, range: Range<i64>) -> Result<(Extent, i64)> {
        // SAFETY: The file is open.
        unsafe { extent(self.as_ptr(), range) }
    }
}

/// Writes a range to the device, and waits for that; not as `fsync` does. What is only in memory may be allocated
/// more widely than it is written, and would show as data.
///
/// # Safety
///
/// The file is open.
unsafe fn write_back(file: *mut bindings::file, range: Range<i64>) -> Result {
    let last = range.end.saturating_sub(1);
    // SAFETY: An open file has a mapping.
    to_result(unsafe { bindings::filemap_write_and_wait_range((*file).f_mapping, range.start, last) })
}

/// See [`LowerReader::drop_clean`].
///
/// # Safety
///
/// The file is open.
unsafe fn drop_clean(file: *mut bindings::file, range: Range<i64>) {
    let page = |at: i64| usize::try_from(at).unwrap_or(0) >> PAGE_SHIFT;
    // SAFETY: An open file has a mapping. Pages that are dirty, mapped or in use stay.
    unsafe {
        let mapping = (*file).f_mapping;
        bindings::invalidate_mapping_pages(mapping, page(range.start), page(range.end.saturating_sub(1)))
    };
}

/// Returns what is at the beginning of a range that is not empty, and where that ends. What lies behind the end of
/// the file is a hole. The file's own position is lost.
///
/// # Safety
///
/// The file is open.
unsafe fn extent(file: *mut bindings::file, range: Range<i64>) -> Result<(Extent, i64)> {
    // SAFETY: The caller's promise.
    let seek = |whence: u32| length(unsafe { bindings::vfs_llseek(file, range.start, whence as ffi::c_int) });
    let data = match seek(bindings::SEEK_DATA) {
        Ok(data) => data,
        Err(e) if e == ENXIO => return Ok((Extent::Hole, range.end)),
        Err(e) => return Err(e),
    };
    if data > range.start {
        return Ok((Extent::Hole, data.min(range.end)));
    }
    let hole = match seek(bindings::SEEK_HOLE) {
        Ok(hole) => hole,
        // Cut off meanwhile.
        Err(e) if e == ENXIO => return Ok((Extent::Hole, range.end)),
        Err(e) => return Err(e),
    };
    Ok((Extent::Data, hole.clamp(range.start + 1, range.end)))
}

/// Splits what a C function returned into length and error.
fn length(ret: i64) -> Result<i64> {
    if ret < 0 {
        return Err(Error::from_errno(ret as ffi::c_int));
    }
    Ok(ret)
}
