// SPDX-License-Identifier: GPL-2.0

//! `fallocate(2)`: allocating, freeing and shifting ranges of a file.

use super::{
    notes::{capture, capture_unlocked, resized, shifted, Captured, Full, WHOLE},
    state::{change, differs},
    write::reread,
    ReelFs,
};
use crate::capture::{self, Outcome};
use crate::format::record::{AttrBody, FallocateBody, RecordType};
use crate::vfs::{File, Locked};
use kernel::prelude::*;

/// `FALLOC_FL_COLLAPSE_RANGE` and `FALLOC_FL_INSERT_RANGE`: everything behind the range moves.
const SHIFTS: i32 = 0x08 | 0x20;

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
    match result {
        Ok(()) => {
            let object = change(&inode);
            let mode = mode as u32;
            let lsn = capture::fallocate(room, &object, mode, from, range, Outcome::Done);
            inode.data().recorded(lsn);
        }
        Err(_) if differs(&before, &inode.lower().attr()) => {
            drop(room);
            salvage(file, &inode, mode, offset, len);
        }
        Err(_) => {}
    }
    result
}

/// It failed midway: what it was to be is not what was done. The contents are recorded as they
/// are now, as far as they may have changed, and the size with them.
fn salvage(file: &File<ReelFs>, inode: &Locked<'_, ReelFs>, mode: i32, offset: i64, len: i64) {
    let data = inode.superblock().data();
    let recorded = || -> Result {
        let room = data.log().reserve::<AttrBody>(0, 0)?;
        let object = change(inode);
        let kind = RecordType::Truncate;
        inode.data().recorded(capture::attributes(room, kind, &object, 0, Outcome::Partial));
        let end = if mode & SHIFTS != 0 { i64::MAX } else { offset.saturating_add(len) };
        reread(file, inode, offset, end)
    };
    if recorded().is_err() {
        data.lost("a file's contents could not be recorded after fallocate failed midway");
    }
}
