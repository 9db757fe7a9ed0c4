// SPDX-License-Identifier: GPL-2.0

//! Writing: the bytes are copied once, into the log, and the file below is written from there.

use super::ReelFs;
use crate::vfs::{File, Kiocb, Pipe, Source};
use kernel::{iov::IovIterSource, prelude::*};

/// Writes what the caller's buffers hold.
pub(super) fn write(kiocb: &mut Kiocb<'_, ReelFs>, from: &mut IovIterSource<'_>) -> Result<usize> {
    if kiocb.is_nowait() {
        return Err(EAGAIN);
    }
    let file = kiocb.file();
    let inode = file.inode().lock_killable()?;
    inode.refresh();
    let count = kiocb.write_checks(&inode, from)?;
    if count == 0 {
        return Ok(0);
    }
    file.remove_privs(&inode)?;
    let mut source = Source::new(from);
    let n = source.fault_in(count.min(1 << 20))?;
    let mut buf = KVVec::<u8>::new();
    buf.resize(n, 0, GFP_KERNEL)?;
    let n = source.copy(&mut buf);
    let result = file.lower().write_at(&mut buf[..n], kiocb.pos(), kiocb.is_direct(), None);
    inode.refresh();
    let written = result?;
    kiocb.set_pos(kiocb.pos() + written as i64);
    drop(inode);
    if let Some(how) = kiocb.wants_sync() {
        file.lower().fsync(kiocb.pos() - written as i64..kiocb.pos() - 1, how)?;
    }
    Ok(written)
}

/// Writes what comes out of a pipe.
pub(super) fn splice(
    pipe: &mut Pipe<'_>,
    file: &File<ReelFs>,
    pos: i64,
    len: usize,
) -> Result<usize> {
    let inode = file.inode().lock_killable()?;
    inode.refresh();
    file.remove_privs(&inode)?;
    let lower = file.lower();
    let held = lower.write_protection();
    let mut at = pos;
    let result = pipe.drain(len, pos, &mut |piece| {
        let mut buf = KVVec::<u8>::new();
        buf.extend_from_slice(piece, GFP_KERNEL)?;
        let n = lower.write_at(&mut buf, at, false, Some(&held))?;
        at += n as i64;
        Ok(n)
    });
    drop(held);
    inode.refresh();
    result
}
