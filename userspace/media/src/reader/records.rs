// SPDX-License-Identifier: GPL-2.0-or-later

//! Records, cut out of the log as it comes off the volumes.

use std::collections::VecDeque;

use reelfs_format::record::Lsn;
use reelfs_format::view::{peek_length, RecordError, RecordView};

use super::error::{Place, ReadError};
use super::log::{LogEnd, LogReader, Step};
use super::source::VolumeSource;

/// Records, off the volumes of one stream.
pub struct RecordReader<S: VolumeSource> {
    log: LogReader<S>,
    /// Bytes of the log that have not been consumed, from `at` on.
    buffer: Vec<u8>,
    at: usize,
    /// LSN of the first byte at `at`.
    lsn: Lsn,
    /// Length of the record that was given out last, to be consumed by the next call.
    given: usize,
    /// Where the bytes in the buffer came from: each place and the LSN from which on it counts.
    places: VecDeque<(Lsn, Place)>,
}

impl<S: VolumeSource> RecordReader<S> {
    /// Records of the log that `log` reads.
    pub fn new(log: LogReader<S>) -> Self {
        RecordReader { log, buffer: Vec::new(), at: 0, lsn: 0, given: 0, places: VecDeque::new() }
    }

    /// The log below.
    pub fn log(&mut self) -> &mut LogReader<S> {
        &mut self.log
    }

    /// LSN behind the record that was given out last.
    pub fn position(&self) -> Lsn {
        self.lsn + self.given as u64
    }

    /// How the log ended, once [`RecordReader::next`] has returned `None`.
    pub fn end(&self) -> Option<LogEnd> {
        let mut end = self.log.end.clone()?;
        end.cut = (self.buffer.len() - self.at) as u64;
        end.lsn = self.lsn;
        Some(end)
    }

    /// Where the byte at `lsn` was read.
    pub fn place(&self, lsn: Lsn) -> Place {
        let found = self.places.iter().rev().find(|(from, _)| *from <= lsn).or(self.places.front());
        found.map_or_else(|| Place { volume: "?".into(), block: 0 }, |(_, place)| place.clone())
    }

    /// The next record, checked, or `None` at the end of the log.
    #[allow(clippy::should_implement_trait)] // A record borrows the reader's buffer, which an iterator cannot say.
    pub fn next(&mut self) -> Result<Option<RecordView<'_>>, ReadError> {
        loop {
            self.consume();
            match self.complete() {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    let place = self.place(self.lsn);
                    self.log.wrong(ReadError::Record { place, lsn: self.lsn, error })?;
                    self.clear();
                    self.log.pass_over(self.log.seen);
                    continue;
                }
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(RecordView::again(&self.buffer[self.at..]).ok())
    }

    /// Whether a whole and sound record lies at the front; notes its length for the next call.
    fn complete(&mut self) -> Result<bool, RecordError> {
        let bytes = &self.buffer[self.at..];
        match peek_length(bytes) {
            Ok(length) if length <= bytes.len() => {
                RecordView::parse(bytes, Some(self.lsn))?;
                self.given = length;
                Ok(true)
            }
            Ok(_) | Err(RecordError::Truncated { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn consume(&mut self) {
        self.at += self.given;
        self.lsn += self.given as u64;
        self.given = 0;
        while self.places.get(1).is_some_and(|(from, _)| *from <= self.lsn) {
            self.places.pop_front();
        }
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.places.clear();
        (self.at, self.given) = (0, 0);
    }

    fn fill(&mut self) -> Result<bool, ReadError> {
        let Step::Bytes { lsn, start, end, fresh, place } = self.log.step()? else {
            return Ok(false);
        };
        if fresh || self.buffer.len() == self.at {
            self.clear();
            self.lsn = lsn;
        } else {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(&self.log.data()[start..end]);
        self.places.push_back((lsn, place));
        Ok(true)
    }
}
