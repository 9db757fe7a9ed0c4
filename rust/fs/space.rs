// SPDX-License-Identifier: GPL-2.0

//! `fallocate(2)`: allocating, freeing and shifting ranges of a file.

use super::{
    contents::salvage,
    notes::{capture, capture_unlocked, resized, shifted, Captured, Full, WHOLE},
    state::change,
    ReelFs,
};
use crate::capture;
use crate::format::record::FallocateBody;
use crate::vfs::File;
use core::ops::Range;
use kernel::prelude::*;

/// `FALLOC_FL_COLLAPSE_RANGE` and `FALLOC_FL_INSERT_RANGE`: everything behind the range moves.
const SHIFTS: i32 = 0x08 | 0x20;
/// `FALLOC_FL_PUNCH_HOLE`, `FALLOC_FL_ZERO_RANGE` and `FALLOC_FL_WRITE_ZEROES`: what is in the range goes.
const CONTENTS: i32 = 0x02 | 0x10 | 0x80;

/// Does it, and records it.
pub(super) fn fallocate(file: &File<ReelFs>, mode: i32, offset: i64, len: i64) -> Result {
    let (from, range) = (u64::try_from(offset)?, u64::try_from(len)?);
    let sb = file.inode().superblock();
    let log = sb.data().log();
    let mut inode;
    let room = loop {
        // What is moved or thrown away was there until now.
        capture_unlocked(file.inode(), WHOLE)?;
        log.wait_room::<FallocateBody>(0, 0)?;
        inode = file.inode().lock_killable()?;
        inode.refresh();
        file.remove_privs(&inode)?;
        if capture(&inode, WHOLE, Full::Leave)? != Captured::All {
            drop(inode);
            continue;
        }
        if let Some(room) = log.try_reserve::<FallocateBody>(0, 0)? {
            break room;
        }
        drop(inode);
    };
    let before = inode.lower().attr();
    let result = file.lower().fallocate(mode, offset, len);
    inode.refresh();
    resized(&inode, before.size);
    if mode & SHIFTS != 0 {
        shifted(&inode, from);
    }
    let done = match result {
        Ok(()) => {
            let lsn = capture::fallocate(room, &change(&inode), mode as u32, from, range);
            inode.data().recorded(lsn);
            true
        }
        Err(e) => {
            drop(room);
            salvage(file, &inode, e, &before, changed(mode, offset, len))
        }
    };
    if mode & SHIFTS != 0 && done {
        sb.data().shifts().count(&inode.data().identity());
    }
    result
}

/// Which contents may be others after it was begun.
fn changed(mode: i32, offset: i64, len: i64) -> Option<Range<i64>> {
    if mode & SHIFTS != 0 {
        return Some(offset..i64::MAX);
    }
    (mode & CONTENTS != 0).then(|| offset..offset.saturating_add(len))
}
