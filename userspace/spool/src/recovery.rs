// SPDX-License-Identifier: GPL-2.0-or-later

//! Finding the end of the log after any interruption, and telling a torn tail from damage.
//!
//! The records of the two newest segments are followed. Where they stop, the log ends, unless that takes away
//! something that was acknowledged. Three things show that:
//!
//! - the floor lies beyond that point;
//! - there is a whole record, carrying the LSN of the place where it stands, further on than one batch reaches: a batch
//!   is only begun when the one before it is durable;
//! - a segment's header promises a first record and nothing leads there.
//!
//! What follows the end is then overwritten with zeros, durably, before anything is appended: else a later scan
//! could take what an earlier interruption left behind for the continuation of the log.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use reelfs_format::record::{Lsn, RECORD_ALIGN, RECORD_MAGIC, RECORD_MAX};
use reelfs_format::spool::{SPOOL_BATCH_MAX, SPOOL_BLOCK};
use reelfs_format::view::{RecordError, RecordView};
use zerocopy::IntoBytes;

use crate::buffer::AlignedBuf;
use crate::directory::{sync_directory, Segment, Spool};
use crate::error::SpoolError;
use crate::reader::Reader;

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// LSN of the oldest record whose beginning is still in the spool; equals `end` where there is none.
    pub start: Lsn,
    /// LSN behind the last record.
    pub end: Lsn,
    /// What an operator may want to know; nothing that was acknowledged is concerned.
    pub notes: Vec<Note>,
}

/// Something that an interruption left behind and recovery dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An unfinished batch follows the end of the log. It was never acknowledged.
    TornTail {
        /// The end of the log.
        lsn: Lsn,
        /// The rule that the bytes there break.
        reason: RecordError,
    },
    /// A segment's header was not readable, but its records are all there. The header is written anew.
    Header {
        /// Number of the segment.
        number: u64,
    },
    /// A segment file behind the end of the log was removed; nothing in it was ever acknowledged.
    Removed {
        /// Number of the segment.
        number: u64,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::TornTail { lsn, reason } => {
                write!(f, "an unfinished batch behind LSN {lsn:#x} is dropped; it was never acknowledged ({reason})")
            }
            Note::Header { number } => write!(f, "the header of segment {number} is not readable and is written anew"),
            Note::Removed { number } => write!(f, "segment {number} lies behind the end of the log and is removed"),
        }
    }
}

impl Spool {
    /// Finds the end of the log and makes the spool ready to be appended to. Call it with the lock held, before
    /// [`crate::Writer::new`]. What it changes is on stable storage on return. Sleeps.
    pub fn recover(&self) -> Result<Recovered, SpoolError> {
        let scan = self.scan(false)?;
        self.repair(&scan)?;
        Ok(scan.recovered)
    }

    /// Finds the end of the log without changing anything; beside a writer, some end that the log had meanwhile.
    pub fn inspect(&self) -> Result<Recovered, SpoolError> {
        self.scan(self.has_writer()?).map(|scan| scan.recovered)
    }

    /// `live`: a writer is at work, so what lies behind the end that is found proves nothing.
    fn scan(&self, live: bool) -> Result<Scan, SpoolError> {
        let floor = self.floor();
        let segments = self.segments()?;
        let geometry = *self.geometry();
        let Some(newest) = segments.iter().rposition(|segment| segment.first_record.is_some()) else {
            return self.scan_unused(floor, live, &segments);
        };
        let first = newest.saturating_sub(1);
        for pair in segments[..=newest].windows(2) {
            if pair[0].number + 1 != pair[1].number {
                let lsn = geometry.start(pair[0].number + 1);
                return Err(self.damaged(lsn, "the segment's file is missing".into()));
            }
        }
        for segment in &segments[..=newest] {
            if let Some(fault) = segment.fault {
                let lsn = geometry.start(segment.number);
                return Err(self.damaged(lsn, format!("{fault}, and segments follow it")));
            }
        }
        let start = segments[0].first_record.unwrap_or(0);
        let begin = segments[first].first_record.unwrap_or(start);
        let promised = segments[newest].first_record.unwrap_or(begin);
        let (end, reason) = self.follow(begin)?;
        if end < promised {
            // The header of the newest segment was written, so the batch that took the log there was begun; it was
            // finished only if the log goes on from there.
            if end + (SPOOL_BATCH_MAX as u64) < promised {
                return Err(self.damaged(end, format!("{reason}; a later segment's first record is at {promised:#x}")));
            }
        }
        if newest == 0 && segments[0].number > 0 && end == begin {
            let reason = format!("{reason}; the segment before is missing, and this one has no whole record");
            return Err(self.damaged(end, reason));
        }
        self.judge(start, end, reason, floor, live, &segments)
    }

    /// The scan where no segment has a valid header: a spool in which nothing was ever acknowledged, or one that has
    /// lost everything.
    fn scan_unused(&self, floor: Lsn, live: bool, segments: &[Segment]) -> Result<Scan, SpoolError> {
        if let Some(segment) = segments.first().filter(|segment| segment.number != 0) {
            return Err(self.damaged(
                self.geometry().start(segment.number),
                "no segment has a readable header, and the first one is not there".into(),
            ));
        }
        let (end, reason) = self.follow(0)?;
        self.judge(0, end, reason, floor, live, segments)
    }

    /// Follows the records from `begin` on: where they stop, and why.
    fn follow(&self, begin: Lsn) -> Result<(Lsn, RecordError), SpoolError> {
        let mut window = Window::new(self);
        let mut lsn = begin;
        loop {
            let bytes = window.at(lsn, RECORD_MAX)?;
            match RecordView::parse(bytes, Some(lsn)) {
                Ok(view) => lsn = view.next_lsn(),
                Err(reason) => return Ok((lsn, reason)),
            }
        }
    }

    /// Whether the log may end at `end`, and what is to be done then.
    fn judge(
        &self,
        start: Lsn,
        end: Lsn,
        reason: RecordError,
        floor: Lsn,
        live: bool,
        segments: &[Segment],
    ) -> Result<Scan, SpoolError> {
        let geometry = *self.geometry();
        if end < floor {
            return Err(self.damaged(end, format!("{reason}; everything below {floor:#x} had been acknowledged")));
        }
        let remains = match live {
            true => Remains { last: end, record: None },
            false => self.remains(end, segments)?,
        };
        if let Some(later) = remains.record.filter(|later| *later >= end + SPOOL_BATCH_MAX as u64) {
            return Err(self.damaged(end, format!("{reason}; the log goes on at {later:#x}")));
        }
        let mut notes = Vec::new();
        let last = (end > 0).then(|| geometry.number(end - 1));
        let headers: Vec<u64> = segments
            .iter()
            .filter(|segment| segment.first_record.is_none() && Some(segment.number) <= last)
            .map(|segment| segment.number)
            .collect();
        notes.extend(headers.iter().map(|&number| Note::Header { number }));
        if remains.last > end {
            notes.push(Note::TornTail { lsn: end, reason });
        }
        let surplus: Vec<&Segment> = segments.iter().filter(|segment| Some(segment.number) > last).collect();
        // One without a header was prepared ahead, as always.
        let begun = surplus.iter().filter(|segment| segment.first_record.is_some());
        notes.extend(begun.map(|segment| Note::Removed { number: segment.number }));
        let surplus = surplus.iter().map(|segment| segment.number).collect();
        let recovered = Recovered { start: start.min(end), end, notes };
        Ok(Scan { recovered, headers, surplus, remains: remains.last })
    }

    /// Looks through everything behind `end`: how far it is not zero, and where the last whole record stands that
    /// carries the LSN of its place.
    fn remains(&self, end: Lsn, segments: &[Segment]) -> Result<Remains, SpoolError> {
        let geometry = *self.geometry();
        let mut remains = Remains { last: end, record: None };
        let Some(stop) = segments.last().map(|segment| geometry.start(segment.number + 1)) else {
            return Ok(remains);
        };
        let mut window = Window::new(self);
        let mut lsn = end;
        while lsn < stop {
            let bytes = window.at(lsn, RECORD_ALIGN)?;
            if bytes.is_empty() {
                // A hole in the numbers: go on behind it.
                lsn = geometry.start(geometry.number(lsn) + 1);
                continue;
            }
            // Zeros are the usual case, and there may be much of it.
            let zeros = zeros(bytes) / RECORD_ALIGN * RECORD_ALIGN;
            if zeros > 0 {
                lsn += zeros as u64;
                continue;
            }
            let step = bytes.len().min(RECORD_ALIGN) as u64;
            remains.last = lsn + step;
            if bytes.starts_with(&RECORD_MAGIC.to_le_bytes())
                && RecordView::parse(window.at(lsn, RECORD_MAX)?, Some(lsn)).is_ok()
            {
                remains.record = Some(lsn);
            }
            lsn += step;
        }
        Ok(remains)
    }

    fn repair(&self, scan: &Scan) -> Result<(), SpoolError> {
        let (geometry, end) = (*self.geometry(), scan.recovered.end);
        // Newest first: what is left is without holes whenever this stops.
        for &number in scan.surplus.iter().rev() {
            let path = self.segment_path(number);
            fs::remove_file(&path).map_err(SpoolError::io("remove", &path))?;
        }
        for &number in &scan.headers {
            let path = self.segment_path(number);
            let first = self.first_record(number)?;
            let header = geometry.header(number, first, 0);
            self.open_plain(number)?.write_all_at(header.as_bytes(), 0).map_err(SpoolError::io("write", &path))?;
        }
        if scan.remains > end && end > geometry.start(geometry.number(end)) {
            let number = geometry.number(end);
            let (file, path) = (self.open_plain(number)?, self.segment_path(number));
            let stop = scan.remains.min(geometry.start(number + 1));
            let zeros = vec![0; SPOOL_BATCH_MAX];
            let mut at = end;
            while at < stop {
                let piece = usize::try_from(stop - at).unwrap_or(zeros.len()).min(zeros.len());
                file.write_all_at(&zeros[..piece], geometry.offset(at)).map_err(SpoolError::io("write", &path))?;
                at += piece as u64;
            }
        }
        if end > 0 {
            // Syncs what was written above through other descriptors as well: it is the same file.
            let numbers = [geometry.number(end - 1)].into_iter().chain(scan.headers.iter().copied());
            for number in numbers {
                let path = self.segment_path(number);
                self.open_plain(number)?.sync_all().map_err(SpoolError::io("sync", &path))?;
            }
        }
        sync_directory(self.path())
    }

    /// LSN of the first record that starts in segment `number`, found by following the log.
    fn first_record(&self, number: u64) -> Result<Lsn, SpoolError> {
        let start = self.geometry().start(number);
        let before = self.segments()?.into_iter().rev().find(|segment| segment.number < number);
        let mut lsn = before.and_then(|segment| segment.first_record).unwrap_or(start);
        let mut window = Window::new(self);
        while lsn < start {
            let view = RecordView::parse(window.at(lsn, RECORD_MAX)?, Some(lsn))
                .map_err(|source| SpoolError::Record { lsn, source })?;
            lsn = view.next_lsn();
        }
        Ok(lsn)
    }

    fn open_plain(&self, number: u64) -> Result<File, SpoolError> {
        let path = self.segment_path(number);
        OpenOptions::new().read(true).write(true).open(&path).map_err(SpoolError::io("open", path))
    }

    fn damaged(&self, lsn: Lsn, reason: String) -> SpoolError {
        let geometry = self.geometry();
        let path = self.segment_path(geometry.number(lsn));
        SpoolError::Damaged { lsn, path, offset: geometry.offset(lsn), reason }
    }
}

/// What a scan found, for [`Spool::repair`].
struct Scan {
    recovered: Recovered,
    /// Segments of the log without a readable header.
    headers: Vec<u64>,
    /// Segments that hold no byte of the log.
    surplus: Vec<u64>,
    /// Behind this everything is zero.
    remains: Lsn,
}

struct Remains {
    last: Lsn,
    record: Option<Lsn>,
}

/// Number of zero bytes that `bytes` begins with.
fn zeros(bytes: &[u8]) -> usize {
    let whole = bytes.chunks(SPOOL_BLOCK).take_while(|chunk| **chunk == [0; SPOOL_BLOCK][..chunk.len()]);
    let skip = whole.map(<[u8]>::len).sum();
    skip + bytes[skip..].iter().position(|&byte| byte != 0).unwrap_or(bytes.len() - skip)
}

/// A stretch of the log in memory that moves forward.
struct Window<'a> {
    reader: Reader<&'a Spool>,
    buffer: AlignedBuf,
    base: Lsn,
    filled: usize,
    /// There are no segment files behind what is in the buffer.
    last: bool,
}

impl<'a> Window<'a> {
    fn new(spool: &'a Spool) -> Self {
        Window {
            reader: Reader::new(spool),
            buffer: AlignedBuf::new(2 * SPOOL_BATCH_MAX),
            base: 0,
            filled: 0,
            last: false,
        }
    }

    /// The bytes from `lsn` on: at least `wanted` of them, as far as there are segment files.
    fn at(&mut self, lsn: Lsn, wanted: usize) -> Result<&[u8], SpoolError> {
        let end = self.base + self.filled as u64;
        let short = lsn + wanted as u64 > end && !(self.last && lsn < end);
        if lsn < self.base || short {
            let base = lsn - lsn % SPOOL_BLOCK as u64;
            self.base = base;
            self.filled = 0;
            self.last = false;
            while self.filled < self.buffer.len() {
                let length = self.reader.read(base + self.filled as u64, &mut self.buffer[self.filled..])?;
                if length == 0 {
                    self.last = true;
                    break;
                }
                self.filled += length;
            }
        }
        let skip = usize::try_from(lsn - self.base).unwrap_or(usize::MAX);
        Ok(self.buffer.get(skip..self.filled).unwrap_or(&[]))
    }
}
