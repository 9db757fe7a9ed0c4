// SPDX-License-Identifier: GPL-2.0-or-later

//! Appending: records are gathered in a batch, and a batch becomes durable as one.
//!
//! Writes are whole blocks of [`SPOOL_BLOCK`] bytes, so the last block of a batch is usually written again with the
//! next one, and it holds bytes that have been acknowledged. That is safe because those bytes are *the same* in the old
//! and in the new block: whichever mixture of the two an interruption leaves behind, sector by sector or even byte by
//! byte, they are there. It rests on one property of the disk, that a sector whose rewriting is interrupted reads as
//! old or new and not as an error; `reeld --check` looks at the sector size that the disk reports. Databases' logs rest
//! on the same.
//!
//! The header of a segment travels in front of the segment's first bytes, in the same write.

use std::fs::File;
use std::io::{self, IoSlice};

use reelfs_format::record::{Lsn, RECORD_MAX};
use reelfs_format::spool::{SEGMENT_HEADER_LEN, SPOOL_BATCH_MAX, SPOOL_BLOCK};
use reelfs_format::view::RecordView;
use rustix::io::{pread, pwritev};
use zerocopy::IntoBytes;

use crate::buffer::AlignedBuf;
use crate::directory::Spool;
use crate::error::SpoolError;
use crate::recovery::Recovered;
use crate::segment::Geometry;

/// Where the writer gets segment files from; see [`crate::Spool::prepare`].
pub trait SegmentSource {
    /// The file of segment `number`, prepared, or `None` if it is not there yet. Does not sleep.
    fn take(&mut self, number: u64) -> Option<File>;
}

impl<F: FnMut(u64) -> Option<File>> SegmentSource for F {
    fn take(&mut self, number: u64) -> Option<File> {
        self(number)
    }
}

/// Appends to the log. All memory is taken when it is made.
pub struct Writer {
    geometry: Geometry,
    /// The segment that the last byte went to.
    current: Option<(u64, File)>,
    /// Header of the current segment; the same bytes whenever it is written again.
    header: AlignedBuf,
    /// The log from the block boundary at or below `durable` on.
    batch: AlignedBuf,
    /// Bytes of `batch` in use.
    used: usize,
    /// All below is on stable storage.
    durable: Lsn,
    /// The record boundary at which the newest segment that a record reached has its first record.
    boundary: Lsn,
}

impl Writer {
    /// A writer that goes on at the end that recovery found.
    pub fn new(spool: &Spool, recovered: &Recovered) -> Result<Writer, SpoolError> {
        let (geometry, end) = (*spool.geometry(), recovered.end);
        let mut writer = Writer {
            geometry,
            header: AlignedBuf::new(SEGMENT_HEADER_LEN),
            batch: AlignedBuf::new(SPOOL_BATCH_MAX),
            used: usize::try_from(end % SPOOL_BLOCK as u64).unwrap_or(0),
            durable: end,
            boundary: end,
            current: None,
        };
        // At a segment's very beginning there is nothing to go on with.
        if end > geometry.start(geometry.number(end)) {
            let number = geometry.number(end);
            let path = spool.segment_path(number);
            let file = spool.open_segment(number)?;
            let base = writer.base();
            read_block(&file, &mut writer.header, 0).map_err(SpoolError::io("read", &path))?;
            read_block(&file, &mut writer.batch[..SPOOL_BLOCK], geometry.offset(base))
                .map_err(SpoolError::io("read", &path))?;
            writer.current = Some((number, file));
        }
        Ok(writer)
    }

    /// LSN behind the last byte that is on stable storage.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// LSN behind the last record of the batch.
    pub fn end(&self) -> Lsn {
        self.base() + self.used as u64
    }

    /// Whether the batch holds a record that is not on stable storage.
    pub fn is_dirty(&self) -> bool {
        self.end() > self.durable
    }

    /// LSN of the first byte of the batch.
    fn base(&self) -> Lsn {
        self.durable - self.durable % SPOOL_BLOCK as u64
    }

    /// Forgets what is in the batch and not on stable storage.
    pub fn discard(&mut self) {
        self.used = usize::try_from(self.durable - self.base()).unwrap_or(0);
        self.boundary = self.durable;
    }

    /// Whether a record of `length` bytes fits into the batch.
    pub fn has_room(&self, length: usize) -> bool {
        length <= self.batch.len() - self.used
    }

    /// Takes a record into the batch, after checking the copy: format, checksums, and that it is the one that follows.
    ///
    /// Errors: [`SpoolError::BatchFull`] when it does not fit; [`SpoolError::Record`] when it is not right, and then the
    /// batch is as before. Does not sleep.
    pub fn push(&mut self, record: &[u8]) -> Result<Lsn, SpoolError> {
        let lsn = self.end();
        if !self.has_room(record.len()) {
            return Err(SpoolError::BatchFull);
        }
        let copy = &mut self.batch[self.used..self.used + record.len()];
        copy.copy_from_slice(record);
        let view = RecordView::parse(copy, Some(lsn)).map_err(|source| SpoolError::Record { lsn, source })?;
        self.used += view.bytes().len();
        let end = self.end();
        if self.geometry.number(end) != self.geometry.number(lsn) {
            self.boundary = end;
        }
        Ok(end)
    }

    /// Writes the batch and returns when it is on stable storage: LSN behind it.
    ///
    /// [`SpoolError::Full`] when the batch reaches into a segment that `source` does not have; then and after any other
    /// error the batch is kept, nothing in it counts as durable, and calling again tries again. `now` is the time for a
    /// new segment's header, in nanoseconds since 1970. Sleeps.
    pub fn flush(&mut self, source: &mut dyn SegmentSource, now: i64) -> Result<Lsn, SpoolError> {
        let (base, end) = (self.base(), self.end());
        if !self.is_dirty() {
            return Ok(end);
        }
        let padded = self.used.next_multiple_of(SPOOL_BLOCK);
        self.batch[self.used..padded].fill(0);
        let mut at = 0;
        while at < padded {
            let lsn = base + at as u64;
            let number = self.geometry.number(lsn);
            let room = self.geometry.start(number) + self.geometry.segment_size - lsn;
            let part = usize::try_from(room).unwrap_or(usize::MAX).min(padded - at);
            self.enter(number, source, now)?;
            self.write(number, lsn, at, part)?;
            at += part;
        }
        // The block that is not full yet begins the next batch.
        let tail = usize::try_from(end % SPOOL_BLOCK as u64).unwrap_or(0);
        self.batch.copy_within(self.used - tail..self.used, 0);
        self.used = tail;
        self.durable = end;
        Ok(end)
    }

    /// Makes `number` the current segment.
    fn enter(&mut self, number: u64, source: &mut dyn SegmentSource, now: i64) -> Result<(), SpoolError> {
        if self.current.as_ref().is_some_and(|(current, _)| *current == number) {
            return Ok(());
        }
        fail::fail_point!("rollover-before-take");
        let file = source.take(number).ok_or(SpoolError::Full)?;
        // The boundary lies in another segment only where a batch fills this one exactly, from its first byte on.
        let first_record = match self.geometry.number(self.boundary) == number {
            true => self.boundary,
            false => self.geometry.start(number),
        };
        self.header.copy_from_slice(self.geometry.header(number, first_record, now).as_bytes());
        self.current = Some((number, file));
        fail::fail_point!("rollover-after-take");
        Ok(())
    }

    fn write(&self, number: u64, lsn: Lsn, at: usize, length: usize) -> Result<(), SpoolError> {
        let Some((_, file)) = &self.current else {
            return Err(SpoolError::Full);
        };
        let data = &self.batch[at..at + length];
        let first = lsn == self.geometry.start(number);
        let result = if first {
            write_all(file, &[&self.header, data], 0)
        } else {
            write_all(file, &[data], self.geometry.offset(lsn))
        };
        if first {
            fail::fail_point!("rollover-after-header");
        }
        result.map_err(SpoolError::io("write", crate::segment::file_name(number)))
    }
}

// A record that arrives when the batch holds no more than an unfinished block always fits.
const _: () = assert!(RECORD_MAX + SPOOL_BLOCK <= SPOOL_BATCH_MAX);

/// Reads one whole block.
fn read_block(file: &File, block: &mut [u8], offset: u64) -> io::Result<()> {
    match pread(file, &mut *block, offset)? {
        length if length == block.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes `parts`, which are whole blocks, one behind the other from `offset` on.
fn write_all(file: &File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut done = 0;
    while done < total {
        let mut skip = done;
        let mut slices = [IoSlice::new(&[]), IoSlice::new(&[])];
        let mut count = 0;
        for part in parts {
            let rest = part.get(skip..).unwrap_or(&[]);
            skip = skip.saturating_sub(part.len());
            if !rest.is_empty() {
                slices[count] = IoSlice::new(rest);
                count += 1;
            }
        }
        match pwritev(file, &slices[..count], offset + done as u64) {
            Ok(written) if written == total - done => done = total,
            // A short direct write ends at a sector; go on from the block that it did not finish.
            Ok(written) if written >= SPOOL_BLOCK => done += written - written % SPOOL_BLOCK,
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
