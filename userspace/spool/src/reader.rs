// SPDX-License-Identifier: GPL-2.0-or-later

//! Reading the log from the spool by LSN, beside a writer.
//!
//! [`Reader`] returns bytes; [`Records`] cuts them into records and checks each. Reads go past the page cache, as the
//! writes do: that is what makes the two agree, and what keeps streaming from driving out other pages.

use std::borrow::Borrow;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};

use reelfs_format::record::{Lsn, RECORD_MAX};
use reelfs_format::spool::SPOOL_BLOCK;
use reelfs_format::view::{peek_length, RecordError, RecordView};
use rustix::fs::OFlags;
use rustix::io::pread;

use crate::buffer::AlignedBuf;
use crate::directory::Spool;
use crate::error::SpoolError;
use crate::prepare::open_direct;

/// Reads the bytes of the log, whatever they are. `S` is a spool by reference or by `Arc`.
pub struct Reader<S: Borrow<Spool>> {
    spool: S,
    current: Option<(u64, File)>,
    block: AlignedBuf,
}

impl<S: Borrow<Spool>> Reader<S> {
    /// A reader of `spool`.
    pub fn new(spool: S) -> Self {
        Reader { spool, current: None, block: AlignedBuf::new(SPOOL_BLOCK) }
    }

    /// Fills the beginning of `buffer` with the bytes of the log from `lsn` on and returns how many: up to the end of
    /// the segment, 0 where there is no segment file. Fast where `buffer` is an [`AlignedBuf`] and `lsn` a multiple of
    /// [`SPOOL_BLOCK`]. What lies behind the end of the log is returned as it is found.
    pub fn read(&mut self, lsn: Lsn, buffer: &mut [u8]) -> Result<usize, SpoolError> {
        let geometry = *self.spool.borrow().geometry();
        let number = geometry.number(lsn);
        let path = self.spool.borrow().segment_path(number);
        if self.current.as_ref().is_none_or(|(current, _)| *current != number) {
            match open_direct(&path, OpenOptions::new().read(true), OFlags::empty()) {
                Ok(file) => self.current = Some((number, file)),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
                Err(error) => return Err(SpoolError::io("open", path)(error)),
            }
        }
        let Some((_, file)) = &self.current else {
            return Ok(0);
        };
        let room = geometry.start(number) + geometry.segment_size - lsn;
        let length = buffer.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let skip = usize::try_from(lsn % SPOOL_BLOCK as u64).unwrap_or(0);
        let aligned = skip == 0 && buffer.as_ptr().align_offset(SPOOL_BLOCK) == 0;
        let result = if aligned && length >= SPOOL_BLOCK {
            let whole = length - length % SPOOL_BLOCK;
            pread(file, &mut buffer[..whole], geometry.offset(lsn)).map(|got| got - got % SPOOL_BLOCK)
        } else {
            pread(file, &mut self.block[..], geometry.offset(lsn) - skip as u64).map(|got| {
                let length = length.min(got.saturating_sub(skip));
                buffer[..length].copy_from_slice(&self.block[skip..skip + length]);
                length
            })
        };
        match result {
            Ok(length) => Ok(length),
            Err(error) => Err(SpoolError::io("read", path)(io::Error::from(error))),
        }
    }
}

/// Reads whole records, one after the other, every check of the format made.
pub struct Records<S: Borrow<Spool>> {
    reader: Reader<S>,
    buffer: AlignedBuf,
    /// LSN of the first byte of `buffer`, a multiple of [`SPOOL_BLOCK`].
    base: Lsn,
    /// Bytes of `buffer` that hold the log.
    filled: usize,
    /// LSN of the next record.
    lsn: Lsn,
}

impl<S: Borrow<Spool>> Records<S> {
    /// The records of `spool` from the one at `lsn` on. `buffer` is how many bytes are read at once; it is raised to
    /// what the longest record needs.
    pub fn new(spool: S, lsn: Lsn, buffer: usize) -> Self {
        let buffer = buffer.max(RECORD_MAX + 2 * SPOOL_BLOCK).next_multiple_of(SPOOL_BLOCK);
        Records { reader: Reader::new(spool), buffer: AlignedBuf::new(buffer), base: 0, filled: 0, lsn }
    }

    /// LSN of the next record.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Goes on at the record at `lsn`.
    pub fn seek(&mut self, lsn: Lsn) {
        self.filled = 0;
        self.lsn = lsn;
    }

    /// Whole records from [`Records::lsn`] on, as many as one read brings, none of them reaching beyond `end`, which
    /// is a boundary of records at or below the end of the log. Empty only when that has been reached.
    ///
    /// [`SpoolError::Gone`] where the segment has been removed; [`SpoolError::Record`] at the first record that is not
    /// right, once those before it have been returned.
    pub fn next_run(&mut self, end: Lsn) -> Result<(Lsn, &[u8]), SpoolError> {
        let lsn = self.lsn;
        if lsn >= end {
            return Ok((lsn, &[]));
        }
        let start = self.fill(end)?;
        let limit = self.filled.min(usize::try_from(end - self.base).unwrap_or(usize::MAX));
        let mut at = start;
        let fault = loop {
            let Some(rest) = self.buffer.get(at..limit).filter(|rest| !rest.is_empty()) else {
                break None;
            };
            match RecordView::parse(rest, Some(self.base + at as u64)) {
                Ok(view) => at += view.bytes().len(),
                Err(RecordError::Truncated { .. }) if at > start => break None,
                Err(source) => break Some(source),
            }
        };
        match fault {
            Some(source) if at == start => Err(SpoolError::Record { lsn, source }),
            _ => {
                self.lsn = self.base + at as u64;
                Ok((lsn, &self.buffer[start..at]))
            }
        }
    }

    /// Has at least the whole record at `self.lsn` in the buffer, as far as there is log below `end`. Returns its offset.
    fn fill(&mut self, end: Lsn) -> Result<usize, SpoolError> {
        let base = self.lsn - self.lsn % SPOOL_BLOCK as u64;
        let skip = usize::try_from(self.lsn - base).unwrap_or(0);
        let have = (self.base + self.filled as u64).saturating_sub(base);
        if self.filled > 0 && self.base <= base && have > skip as u64 {
            let from = usize::try_from(base - self.base).unwrap_or(0);
            let rest = self.buffer.get(from + skip..self.filled).unwrap_or(&[]);
            if peek_length(rest).is_ok_and(|length| length <= rest.len()) {
                return Ok(from + skip);
            }
            // Blocks at the end of the log may have grown since they were read: keep none but the whole log's.
            self.buffer.copy_within(from..self.filled, 0);
            self.filled = usize::try_from(have).unwrap_or(0) / SPOOL_BLOCK * SPOOL_BLOCK;
        } else {
            self.filled = 0;
        }
        self.base = base;
        let wanted = usize::try_from(end - base).unwrap_or(usize::MAX).next_multiple_of(SPOOL_BLOCK);
        let wanted = wanted.min(self.buffer.len());
        while self.filled < wanted {
            let from = self.base + self.filled as u64;
            match self.reader.read(from, &mut self.buffer[self.filled..wanted])? {
                0 if self.filled <= skip => {
                    let start = self.reader.spool.borrow().segments()?.first().and_then(|segment| segment.first_record);
                    return Err(SpoolError::Gone { lsn: self.lsn, start: start.unwrap_or(end) });
                }
                0 => break,
                length => self.filled += length,
            }
        }
        // Nothing behind the end of the log as it is known now is worth keeping.
        self.filled = self.filled.min(usize::try_from(end - base).unwrap_or(usize::MAX));
        Ok(skip)
    }
}
