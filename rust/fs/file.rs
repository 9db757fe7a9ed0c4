// SPDX-License-Identifier: GPL-2.0

//! Open files and directories.

use super::{
    mapped,
    notes::{capture_unlocked, WHOLE},
    remap, space, write, ReelFs,
};
use crate::vfs::{File, FileOperations, Kiocb, Mapping, Pipe, Remap, SyncKind};
use core::ops::Range;
use kernel::{
    iov::{IovIterDest, IovIterSource},
    prelude::*,
};

/// Makes everything durable that concerns an open object: below and in the log, both at once. Stores through mappings are
/// to be captured before.
///
/// Holds no lock. An error below is reported once for each open file, as it is there.
pub(super) fn sync(file: &File<ReelFs>, range: Range<i64>, how: SyncKind) -> Result {
    let inode = file.inode();
    let log = inode.superblock().data().log();
    let last = inode.data().last();
    log.want(last);
    let lower = file.lower().fsync(range, how);
    let durable = log.wait_durable(last);
    lower.and(durable)
}

/// Operations on open regular files.
pub(crate) struct RegularFile;

#[vtable]
impl FileOperations for RegularFile {
    type Fs = ReelFs;

    fn read_iter(kiocb: &mut Kiocb<'_, ReelFs>, to: &mut IovIterDest<'_>) -> Result<usize> {
        kiocb.read_lower(to)
    }

    fn write_iter(kiocb: &mut Kiocb<'_, ReelFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
        write::write(kiocb, from)
    }

    fn splice_write(pipe: &mut Pipe<'_>, file: &File<ReelFs>, pos: i64, len: usize) -> Result<usize> {
        write::splice(pipe, file, pos, len)
    }

    /// A mapping through which stores may come is watched. One through which they may not, but which is shared, gets a
    /// file of its own below that is not open for writing, or `remap_file_pages(2)` would map the writable one anew.
    fn mmap(file: &File<ReelFs>, mapping: &mut Mapping<'_>) -> Result {
        if !mapping.is_shared() {
            return mapping.map(file.lower());
        }
        if mapping.may_be_written() {
            return mapped::map(file, mapping);
        }
        let lower = file.open_readonly()?;
        mapping.map(&lower)
    }

    fn fsync(file: &File<ReelFs>, range: Range<i64>, how: SyncKind) -> Result {
        let bytes = match (u64::try_from(range.start), u64::try_from(range.end)) {
            (Ok(start), Ok(last)) if range.end < i64::MAX => start..last.saturating_add(1),
            _ => WHOLE,
        };
        let captured = capture_unlocked(file.inode(), bytes);
        sync(file, range, how).and(captured)
    }

    fn fallocate(file: &File<ReelFs>, mode: i32, offset: i64, len: i64) -> Result {
        space::fallocate(file, mode, offset, len)
    }

    fn remap(request: &Remap<'_, ReelFs>) -> Result<i64> {
        remap::remap(request)
    }

    fn fadvise(file: &File<ReelFs>, offset: i64, len: i64, advice: i32) -> Result {
        file.lower().fadvise(offset, len, advice)
    }
}

/// Operations on open directories.
pub(crate) struct DirectoryFile;

#[vtable]
impl FileOperations for DirectoryFile {
    type Fs = ReelFs;

    fn fsync(file: &File<ReelFs>, range: Range<i64>, how: SyncKind) -> Result {
        sync(file, range, how)
    }
}
