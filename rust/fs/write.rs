// SPDX-License-Identifier: GPL-2.0

//! Writing: the bytes are copied once, into the log, and the file below is written from there.
//!
//! So what the log has and what the file has are the same bytes, however the caller's buffer
//! changes meanwhile; and a short write is recorded as far as it went. The page that a buffer is
//! in is brought into memory before room is taken, never while it is held.

use super::{
    contents::salvage,
    file::sync,
    notes::resized,
    state::{change, differs},
    ReelFs,
};
use crate::capture::{self, Log, Outcome, Room};
use crate::format::record::WriteBody;
use crate::vfs::{File, Kiocb, Locked, Pipe, Source, WriteMode};
use kernel::{iov::IovIterSource, prelude::*};

/// Alignment, in bytes, of memory and of lengths that any supported filesystem takes for direct
/// I/O.
const DIRECT_ALIGN: usize = 4096;

/// Writes what the caller's buffers hold.
///
/// Large writes become several records; they are not interleaved with other writes unless the
/// log runs out of room in between. If a gap of the log begins or ends in between, the write ends
/// there: it is in the log as a whole, or not at all.
pub(super) fn write(kiocb: &mut Kiocb<'_, ReelFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    if kiocb.is_nowait() && kiocb.wants_sync().is_some() {
        // It would wait for the disks, here and below.
        return Err(EAGAIN);
    }
    let file = kiocb.file();
    let log = file.inode().superblock().data().log();
    let mut written = 0;
    let mut recorded = None;
    let mut result = Ok(Progress::Done);
    while !from.is_empty() {
        result = write_locked(kiocb, from, log, &mut written, &mut recorded);
        match result {
            Ok(Progress::OutOfRoom) => {}
            _ => break,
        }
        if kiocb.is_nowait() {
            result = Err(EAGAIN);
            break;
        }
        // Nothing is held here. There was no room a moment ago, or this would not be asked for.
        if let Err(e) = log.wait_room::<WriteBody>(from.len().min(log.write_max()), alignment(kiocb)) {
            result = Err(e);
            break;
        }
    }
    match result {
        Err(e) if written == 0 => return Err(e),
        // What was written was written; the error comes with the next write.
        _ => {}
    }
    let end = kiocb.pos();
    if let (Some(how), true) = (kiocb.wants_sync(), written > 0) {
        sync(file, end.saturating_sub(written as i64)..end.saturating_sub(1), how)?;
    }
    Ok(written)
}

/// How the payload has to be aligned.
fn alignment(kiocb: &Kiocb<'_, ReelFs>) -> usize {
    if kiocb.is_direct() {
        DIRECT_ALIGN
    } else {
        0
    }
}

/// Why writing stopped without an error.
enum Progress {
    /// There is no more to write, or no more was taken.
    Done,
    /// The log has no room now.
    OutOfRoom,
}

/// Writes as much as the log has room for, under the file's lock. `recorded` is whether the parts
/// before are in the log, once there is one.
fn write_locked(
    kiocb: &mut Kiocb<'_, ReelFs>,
    from: &mut IovIterSource<'_>,
    log: &Log,
    total: &mut usize,
    recorded: &mut Option<bool>,
) -> Result<Progress> {
    let file = kiocb.file();
    let how = WriteMode { direct: kiocb.is_direct(), nowait: kiocb.is_nowait(), held: None };
    let align = alignment(kiocb);
    let inode = if how.nowait { file.inode().try_lock().ok_or(EAGAIN)? } else { file.inode().lock_killable()? };
    inode.refresh_if_resized();
    if kiocb.write_checks(&inode, from)? == 0 {
        return Ok(Progress::Done);
    }
    kiocb.remove_privs(&inode)?;
    let before = inode.lower().size();

    let mut source = Source::new(from);
    let mut progress = Ok(Progress::Done);
    let mut piece_max = log.write_max();
    while source.len() > 0 {
        let ready = source.fault_in(source.len().min(piece_max));
        let len = match ready {
            Ok(len) => len,
            Err(e) => {
                progress = Err(e);
                break;
            }
        };
        let mut room = match log.try_reserve::<WriteBody>(len, align) {
            Ok(Some(room)) => room,
            Ok(None) => {
                progress = Ok(Progress::OutOfRoom);
                break;
            }
            Err(e) => {
                progress = Err(e);
                break;
            }
        };
        if *recorded.get_or_insert(room.is_recorded()) != room.is_recorded() {
            break;
        }
        let mut copied = source.copy(room.payload().get_mut(..len).unwrap_or(&mut []));
        if how.direct && copied < len {
            let odd = copied % DIRECT_ALIGN;
            source.revert(odd);
            copied -= odd;
        }
        if copied == 0 {
            // The page left again before it could be copied: once more, with less at a time.
            piece_max = piece_max.min(DIRECT_ALIGN);
            continue;
        }
        let pos = kiocb.pos();
        match store(file, &inode, room, copied, pos, &how) {
            Ok(written) => {
                kiocb.set_pos(pos.saturating_add(written as i64));
                *total += written;
                if written < copied {
                    source.revert(copied - written);
                    break;
                }
            }
            Err(e) => {
                source.revert(copied);
                progress = Err(e);
                break;
            }
        }
    }
    inode.refresh();
    resized(&inode, before);
    progress
}

/// Stores the first `len` bytes of a room's payload in the file, and commits what became of it.
fn store(
    file: &File<ReelFs>,
    inode: &Locked<'_, ReelFs>,
    mut room: Room<'_, WriteBody>,
    len: usize,
    pos: i64,
    how: &WriteMode<'_>,
) -> Result<usize> {
    let payload = room.payload().get_mut(..len).ok_or(EIO)?;
    let result = file.lower().write_at(payload, pos, how);
    // Ours has the attributes from before: every operation leaves it with those of the object below.
    let before = inode.attr();
    let (written, outcome) = match result {
        Ok(written) => (written, Outcome::Done),
        Err(e) if how.direct => {
            // A part may have reached the device.
            drop(room);
            salvage(file, inode, e, &before, Some(pos..pos.saturating_add(len as i64)));
            return Err(e);
        }
        // Through the page cache nothing was stored, or it would be a short write; but the times may have changed.
        Err(e) if !differs(&before, &inode.lower().attr()) => return Err(e),
        Err(_) => (0, Outcome::Partial),
    };
    let lsn = capture::write(room, &change(inode), u64::try_from(pos)?, written, outcome);
    inode.data().recorded(lsn);
    result
}

/// Writes what comes out of a pipe.
///
/// Lock order: the file's lock, write protection of the filesystem below, the pipe's lock. (The
/// filesystem below takes the pipe's lock inside its write protection when it is spliced to
/// itself; so must we.)
pub(super) fn splice(pipe: &mut Pipe<'_>, file: &File<ReelFs>, pos: i64, len: usize) -> Result<usize> {
    let log = file.inode().superblock().data().log();
    let written = loop {
        log.wait_room::<WriteBody>(len.min(log.write_max()), 0)?;
        let inode = file.inode().lock_killable()?;
        inode.refresh();
        file.remove_privs(&inode)?;
        let before = inode.lower().size();
        let held = file.lower().write_protection();
        let how = WriteMode { held: Some(&held), ..WriteMode::default() };
        let mut at = pos;
        let mut out_of_room = false;
        let mut recorded = None;
        let result = pipe.drain(len, pos, &mut |piece| {
            let piece = piece.get(..log.write_max()).unwrap_or(piece);
            let Some(mut room) = log.try_reserve::<WriteBody>(piece.len(), 0)? else {
                out_of_room = true;
                return Err(EAGAIN);
            };
            // In the log as a whole, or not at all; the rest comes in another call.
            if *recorded.get_or_insert(room.is_recorded()) != room.is_recorded() {
                out_of_room = true;
                return Err(EAGAIN);
            }
            room.payload().get_mut(..piece.len()).ok_or(EIO)?.copy_from_slice(piece);
            let n = store(file, &inode, room, piece.len(), at, &how)?;
            at = at.saturating_add(n as i64);
            Ok(n)
        });
        drop(held);
        inode.refresh();
        resized(&inode, before);
        match result {
            Err(_) if out_of_room => {}
            other => break other?,
        }
    };
    if let (Some(how), true) = (file.wants_sync(), written > 0) {
        let end = pos.saturating_add(written as i64);
        sync(file, pos..end.saturating_sub(1), how)?;
    }
    Ok(written)
}
