// SPDX-License-Identifier: GPL-2.0

//! Contents of a file recorded as they are, where no operation says how they came to be: read back from below, under
//! the file's lock, holes as holes.

use super::{
    insist::insist,
    state::{change, differs},
    ReelFs,
};
use crate::capture::{self, Outcome};
use crate::format::record::{AttrBody, FallocateBody, RecordType, WriteBody};
use crate::vfs::{ebade, eopnotsupp, Attr, Extent, File, Locked, LowerFile};
use core::ops::Range;
use kernel::{prelude::*, sync::aref::ARef};

/// `FALLOC_FL_KEEP_SIZE` and `FALLOC_FL_PUNCH_HOLE`.
const PUNCH: u32 = 0x01 | 0x02;

/// A file below, opened for looking at it alone.
pub(super) struct Contents<'a> {
    inode: &'a Locked<'a, ReelFs>,
    lower: ARef<LowerFile>,
}

impl<'a> Contents<'a> {
    /// Opens the file below once more. It is locked.
    pub(super) fn of(file: &File<ReelFs>, inode: &'a Locked<'a, ReelFs>) -> Result<Self> {
        Ok(Self { inode, lower: file.open_readonly()? })
    }

    /// Makes sure that a range shows as data and holes what is so. The filesystem below may fail to.
    pub(super) fn settle(&self, range: Range<i64>) -> Result {
        self.lower.write_back(range.clone())?;
        self.lower.drop_clean(range);
        Ok(())
    }

    /// Returns what is at the beginning of a range that is not empty, and where that ends.
    pub(super) fn extent(&self, range: Range<i64>) -> Result<(Extent, i64)> {
        self.lower.extent(range)
    }

    /// Returns whether the whole range is of this kind.
    pub(super) fn is(&self, kind: Extent, range: Range<i64>) -> Result<bool> {
        let end = range.end;
        Ok(self.lower.extent(range)? == (kind, end))
    }

    /// Records a range, as far as the file goes: what is stored as it reads, what is not as holes.
    pub(super) fn record(&self, range: Range<i64>) -> Result {
        let end = range.end.min(self.inode.lower().size());
        let mut pos = range.start;
        // What cannot be written back can still be read.
        let _ = self.settle(pos..end);
        while pos < end {
            let (kind, upto) = self.lower.extent(pos..end)?;
            match kind {
                Extent::Data => self.record_data(pos..upto)?,
                Extent::Hole => {
                    let room = self.inode.superblock().data().log().reserve::<FallocateBody>(0, 0)?;
                    self.commit_hole(room, pos..upto)?;
                }
            }
            pos = upto;
        }
        Ok(())
    }

    fn record_data(&self, range: Range<i64>) -> Result {
        let log = self.inode.superblock().data().log();
        let mut pos = range.start;
        while pos < range.end {
            let len = usize::try_from(range.end - pos)?.min(log.write_max());
            let room = log.reserve::<WriteBody>(len, 0)?;
            pos = self.commit_data(room, pos, len, Outcome::Partial)?;
        }
        Ok(())
    }

    /// Reads `len` bytes at `pos` into a record, and commits it. Returns where they end.
    pub(super) fn commit_data(
        &self,
        mut room: capture::Room<'_, WriteBody>,
        pos: i64,
        len: usize,
        outcome: Outcome,
    ) -> Result<i64> {
        let n = self.lower.read_at(room.payload().get_mut(..len).ok_or(EIO)?, pos)?;
        if n == 0 {
            return Err(EIO);
        }
        let lsn = capture::write(room, &change(self.inode), u64::try_from(pos)?, n, outcome);
        self.inode.data().recorded(lsn);
        Ok(pos.saturating_add(n as i64))
    }

    /// Commits that a range is a hole. The size of the file is not changed by it.
    pub(super) fn commit_hole(&self, room: capture::Room<'_, FallocateBody>, range: Range<i64>) -> Result {
        let (offset, length) = (u64::try_from(range.start)?, u64::try_from(range.end - range.start)?);
        let lsn = capture::fallocate(room, &change(self.inode), PUNCH, offset, length);
        self.inode.data().recorded(lsn);
        Ok(())
    }
}

/// Commits the size that the file has now, as the end of all that was behind it.
pub(super) fn commit_size(room: capture::Room<'_, AttrBody>, inode: &Locked<'_, ReelFs>, outcome: Outcome) {
    let lsn = capture::attributes(room, RecordType::Truncate, &change(inode), 0, outcome);
    inode.data().recorded(lsn);
}

/// An operation on a file's contents failed below: if it left traces, they are recorded. Attributes and size as they are
/// now; and the contents, as far as they may be others (`changed`), unless it was refused before it began with them.
/// What cannot be recorded ends the log. Returns whether the contents may be others.
///
/// Times alone do not tell whether it had begun: two changes may fall into one tick of the clock. To be called without
/// room; `before` is what the file below was like.
pub(super) fn salvage(
    file: &File<ReelFs>,
    inode: &Locked<'_, ReelFs>,
    error: Error,
    before: &Attr,
    changed: Option<Range<i64>>,
) -> bool {
    const REFUSALS: [Error; 13] =
        [EINVAL, EPERM, EACCES, EBADF, EFBIG, ENODEV, ENXIO, ESPIPE, EXDEV, EISDIR, ETXTBSY, EROFS, EAGAIN];
    let refused = REFUSALS.contains(&error) || error == eopnotsupp() || error == ebade();
    if refused && !differs(before, &inode.lower().attr()) {
        return false;
    }
    let data = inode.superblock().data();
    let recorded = || -> Result {
        let room = data.log().reserve::<AttrBody>(0, 0)?;
        commit_size(room, inode, Outcome::Partial);
        match changed.clone() {
            Some(range) if !refused => Contents::of(file, inode)?.record(range),
            _ => Ok(()),
        }
    };
    if insist(recorded).is_err() {
        data.lost("a file's contents could not be recorded after an operation failed midway");
    }
    !refused
}
