// SPDX-License-Identifier: GPL-2.0

//! Sharing extents between files: `FICLONE`, `FICLONERANGE`, `FIDEDUPERANGE`, and `copy_file_range(2)` where the
//! filesystem below can do it that way.
//!
//! What the file gets is recorded by content, for the log is not to depend on the source's past. It is done in pieces,
//! each of which is one extent of the source or part of one, so that the room for its record is known and taken before
//! anything is done. Both files are locked from the first piece to the last.

use super::{
    contents::{commit_size, salvage, Contents},
    insist::insist,
    notes::resized,
    ReelFs,
};
use crate::capture::{Log, Outcome, Room};
use crate::format::record::{AttrBody, FallocateBody, WriteBody};
use crate::vfs::{Extent, Locked, Remap};
use core::ops::Range;
use kernel::prelude::*;

/// Shares extents, and records what the file got. Returns how many bytes were done.
pub(super) fn remap(request: &Remap<'_, ReelFs>) -> Result<i64> {
    request.to.lower().can_share()?;
    let (to, from) = Locked::both(request.to.inode(), request.from.inode());
    to.refresh();
    let len = settle(request, &to)?;
    if len == 0 {
        return Ok(0);
    }
    if !request.dedupe {
        request.to.remove_privs(&to)?;
    }
    let work = Work {
        request,
        to: &to,
        log: to.superblock().data().log(),
        target: Contents::of(request.to, &to)?,
        source: Contents::of(request.from, from.as_ref().unwrap_or(&to))?,
    };
    work.source.settle(request.from_pos..request.from_pos.saturating_add(len))?;
    if request.dedupe {
        work.target.settle(request.to_pos..request.to_pos.saturating_add(len))?;
    }
    let before = to.lower().size();
    let mut done = 0;
    let mut result = Ok(());
    while done < len && result.is_ok() {
        result = work.piece(done..len).map(|n| done += n);
    }
    to.refresh();
    resized(&to, before);
    match result {
        Err(e) if done == 0 || !request.can_shorten => Err(e),
        _ => Ok(done),
    }
}

/// Decides how many bytes are to be done, by the rules that every filesystem has (`generic_remap_file_range_prep` of
/// the kernel): what the filesystem below would refuse as a whole must not be done in part.
fn settle(request: &Remap<'_, ReelFs>, to: &Locked<'_, ReelFs>) -> Result<i64> {
    let block = to.superblock().block_size();
    let (from_size, to_size) = (request.from.inode().lower().size(), to.lower().size());
    let Remap { from_pos, to_pos, dedupe, .. } = *request;
    let mut wanted = request.len;
    if wanted == 0 {
        if dedupe || from_pos == from_size {
            return Ok(0);
        }
        wanted = from_size - from_pos;
    }
    let from_end = from_pos.checked_add(wanted).ok_or(EINVAL)?;
    let to_end = to_pos.checked_add(wanted).ok_or(EINVAL)?;
    if from_pos % block != 0 || to_pos % block != 0 || from_pos >= from_size {
        return Err(EINVAL);
    }
    if dedupe && (from_end > from_size || to_end > to_size) {
        return Err(EINVAL);
    }
    let mut len = request.to.lower().write_limit(to_pos, wanted.min(from_size - from_pos))?;
    // A part of a block is shared only where both files end in it.
    if from_pos + len != from_size || to_pos + len < to_size {
        len -= len % block;
    }
    if len != wanted && !request.can_shorten {
        return Err(EINVAL);
    }
    let blocks = round_up(len, block)?;
    let overlap = to_pos < from_pos.saturating_add(blocks) && from_pos < to_pos.saturating_add(blocks);
    if overlap && core::ptr::eq(request.from.inode(), request.to.inode()) {
        return Err(EINVAL);
    }
    Ok(len)
}

/// `len` rounded up to whole blocks.
fn round_up(len: i64, block: i64) -> Result<i64> {
    Ok(len.checked_add(block - 1).ok_or(EINVAL)? / block * block)
}

/// One request under way.
struct Work<'a> {
    request: &'a Remap<'a, ReelFs>,
    to: &'a Locked<'a, ReelFs>,
    log: &'a Log,
    target: Contents<'a>,
    source: Contents<'a>,
}

/// Why a piece was not done.
enum Stop {
    /// Nothing was begun, or all is recorded that can be.
    Clean(Error),
    /// The filesystem below refused, or failed midway.
    Below(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Clean(e)
    }
}

impl Work<'_> {
    /// Does one extent of what is left, `left` counted from the beginning of the request. Returns how much that was.
    ///
    /// If it fails midway, what resulted is recorded.
    fn piece(&self, left: Range<i64>) -> Result<i64> {
        let block = self.to.superblock().block_size();
        let start = self.request.from_pos + left.start;
        let (kind, upto) = self.source.extent(start..self.request.from_pos + left.end)?;
        // Extents are cut between blocks, but for the last.
        let whole = round_up(upto - start, block)?;
        let mut len = whole.min(left.end - left.start);
        if kind == Extent::Data {
            let most = i64::try_from(self.log.write_max())?;
            len = len.min(most - most % block);
        }
        let at = self.request.to_pos + left.start;
        let target = at..at + len;
        let before = self.to.lower().attr();
        let done = if self.request.dedupe && self.target.is(kind, target.clone())? {
            // The same bytes, and the same holes.
            self.apply(start, &target).and_then(|()| self.check(kind, &target))
        } else if kind == Extent::Data {
            self.share_data(start, &target)
        } else {
            self.share_hole(start, &target)
        };
        match done {
            Ok(()) => Ok(len),
            Err(Stop::Clean(e)) => Err(e),
            Err(Stop::Below(e)) => {
                salvage(self.request.to, self.to, e, &before, Some(target));
                Err(e)
            }
        }
    }

    fn share_data(&self, start: i64, target: &Range<i64>) -> Result<(), Stop> {
        let len = usize::try_from(target.end - target.start).map_err(|_| EOVERFLOW)?;
        let room = self.log.reserve::<WriteBody>(len, 0)?;
        self.apply(start, target)?;
        let recorded = match self.target.is(Extent::Data, target.clone()) {
            Ok(true) => self.target.commit_data(room, target.start, len, Outcome::Done).and_then(|end| {
                if end < target.end {
                    return Err(EIO);
                }
                Ok(())
            }),
            Ok(false) => {
                drop(room);
                self.record_all(target)
            }
            Err(e) => {
                drop(room);
                Err(e)
            }
        };
        Ok(self.sure(recorded, target)?)
    }

    /// It was thought that there was nothing to record, if what the file got is of this kind throughout.
    fn check(&self, kind: Extent, target: &Range<i64>) -> Result<(), Stop> {
        let recorded = match self.target.is(kind, target.clone()) {
            Ok(true) => Ok(()),
            Ok(false) => self.record_all(target),
            Err(e) => Err(e),
        };
        Ok(self.sure(recorded, target)?)
    }

    /// What the file got is not what the source showed: pages in memory over blocks that are allocated and not written
    /// show as data, and are not shared.
    fn record_all(&self, target: &Range<i64>) -> Result {
        commit_size(self.log.reserve::<AttrBody>(0, 0)?, self.to, Outcome::Done);
        self.target.record(target.clone())
    }

    fn share_hole(&self, start: i64, target: &Range<i64>) -> Result<(), Stop> {
        let (hole, size) = self.hole_room()?;
        let size_before = self.to.lower().size();
        self.apply(start, target)?;
        if self.to.lower().size() != size_before {
            commit_size(size, self.to, Outcome::Done);
        } else {
            drop(size);
        }
        let recorded = match self.target.is(Extent::Hole, target.clone()) {
            Ok(true) => self.target.commit_hole(hole, target.clone()),
            Ok(false) => {
                // Stored into through a mapping of the source meanwhile.
                drop(hole);
                self.target.record(target.clone())
            }
            Err(e) => {
                drop(hole);
                Err(e)
            }
        };
        Ok(self.sure(recorded, target)?)
    }

    /// Room for a hole and for the size that may come with it. Waits for neither while it holds the other.
    fn hole_room(&self) -> Result<(Room<'_, FallocateBody>, Room<'_, AttrBody>)> {
        /// Payload with which one record takes at least as much room as both.
        const BOTH: usize = 1024;
        loop {
            let hole = self.log.reserve::<FallocateBody>(0, 0)?;
            if let Some(size) = self.log.try_reserve::<AttrBody>(0, 0)? {
                return Ok((hole, size));
            }
            drop(hole);
            self.log.wait_room::<FallocateBody>(BOTH, 0)?;
        }
    }

    /// Has the filesystem below do it.
    fn apply(&self, from_pos: i64, target: &Range<i64>) -> Result<(), Stop> {
        let (to, from) = (self.request.to.lower(), self.request.from.lower());
        let (at, len) = (target.start, target.end - target.start);
        let result = if self.request.dedupe {
            to.dedupe_from(at, from, from_pos, len)
        } else {
            to.clone_from(at, from, from_pos, len)
        };
        match result {
            Ok(done) if done >= len => Ok(()),
            // Less than what was asked for: it failed midway.
            Ok(_) => Err(Stop::Below(EIO)),
            Err(e) => Err(Stop::Below(e)),
        }
    }

    /// It is done: what cannot be recorded now is lost. To be called without room.
    fn sure(&self, recorded: Result, target: &Range<i64>) -> Result {
        let recorded = match recorded {
            Err(ENOMEM) => insist(|| self.record_all(target)),
            other => other,
        };
        recorded.inspect_err(|_| {
            self.to.superblock().data().lost("what a file got by sharing extents could not be recorded");
        })
    }
}
