// SPDX-License-Identifier: GPL-2.0-or-later

//! The way of the log from bytes to blocks: bytes are cut and compressed, blocks are numbered, encrypted and sealed,
//! and come out in order. The first and the last but one step are done by a [`Pool`](crate::pool::Pool).
//!
//! How much is under way is bounded: for each thread one piece of the log of some MiB, its blocks, and as many blocks
//! again.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use reelfs_format::record::Lsn;
use reelfs_format::view::RecordError;
use reelfs_format::volume::{BlockHeader, Codec, NO_RECORD};
use zerocopy::little_endian::{U32, U64};

use super::Coding;
use crate::codec::{self, Pieces, Shape};
use crate::log::{Follower, LogState};
use crate::pool::Ticket;

/// Bytes of the log that are compressed by one thread, at least; a few blocks make one.
const PORTION: usize = 4 << 20;
/// In blocks, where those are large.
const PORTION_BLOCKS: usize = 8;

/// Why no block comes out.
pub(super) enum LineError {
    /// The bytes are no log.
    Log { lsn: Lsn, error: RecordError },
    /// A thread is gone, or the system has no random numbers.
    Died,
}

/// A block that can be written.
pub(super) struct Ready {
    /// The block.
    pub block: Vec<u8>,
    /// Its header.
    pub header: BlockHeader,
    bytes: Arc<Vec<u8>>,
    plain: Range<usize>,
}

impl Ready {
    /// The bytes of the log that it holds.
    pub fn plain(&self) -> &[u8] {
        &self.bytes[self.plain.clone()]
    }
}

/// Bytes that were given and blocks that are being made of them.
pub(super) struct Line {
    coding: Coding,
    shape: Shape,
    /// What the headers of data blocks have in common.
    template: BlockHeader,
    segment_size: u64,
    /// Bytes of the log that no thread has yet.
    waiting: Vec<u8>,
    /// LSN behind them.
    end: Lsn,
    /// What is being cut, in order.
    cutting: VecDeque<Ticket<Pieces>>,
    /// Behind the last block that has a number.
    records: Follower,
    /// The next number.
    number: u64,
    /// What is being sealed, in order.
    sealing: VecDeque<Ticket<Option<Ready>>>,
    /// How much of the log a block is expected to hold.
    fill: usize,
}

impl Line {
    pub fn new(coding: Coding, template: BlockHeader, block_size: usize, log: &LogState, number: u64) -> Self {
        let compressed = coding.level.is_some();
        let shape = Shape { block_size, sealed: coding.lock.is_some(), level: coding.level };
        Line {
            coding,
            shape,
            template,
            segment_size: log.segment_size(),
            waiting: Vec::new(),
            end: log.position(),
            cutting: VecDeque::new(),
            records: log.follower(),
            number,
            sealing: VecDeque::new(),
            fill: if compressed { 2 * shape.room() } else { shape.room() },
        }
    }

    /// Forgets everything that was given: the log goes on at `log`, with block `number`.
    pub fn restart(&mut self, log: &LogState, number: u64) {
        self.waiting.clear();
        self.cutting.clear();
        self.sealing.clear();
        self.end = log.position();
        self.records = log.follower();
        self.number = number;
    }

    /// LSN behind what was given.
    pub fn next_lsn(&self) -> Lsn {
        self.end
    }

    /// Takes some bytes from the front of `bytes`; how many.
    pub fn give(&mut self, bytes: &[u8]) -> usize {
        let portion = self.portion();
        let segment = usize::try_from(self.segment_size - self.end % self.segment_size).unwrap_or(usize::MAX);
        let taken = bytes.len().min(segment).min(portion.saturating_sub(self.waiting.len()));
        self.waiting.extend_from_slice(&bytes[..taken]);
        self.end += taken as u64;
        if taken == segment || self.waiting.len() >= portion {
            self.flush();
        }
        taken
    }

    /// How much is cut at once: a little less than what fills some blocks, so that no small rest needs another one.
    fn portion(&self) -> usize {
        if self.shape.level.is_none() {
            return self.shape.room();
        }
        let blocks = (PORTION.max(PORTION_BLOCKS * self.shape.block_size) / self.fill).max(1);
        (blocks * self.fill - self.fill / 8).max(self.shape.room())
    }

    /// Has everything that was given made into blocks.
    pub fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let bytes = Arc::new(std::mem::take(&mut self.waiting));
        let shape = self.shape;
        self.cutting.push_back(self.coding.pool.run(move |workshop| shape.cut(workshop, bytes)));
    }

    /// The next block, once enough is under way to keep the threads busy; with `all`, as long as there is one.
    pub fn next(&mut self, all: bool) -> Result<Option<Ready>, LineError> {
        let threads = self.coding.pool.threads();
        loop {
            let enough = self.sealing.len() > threads || (all && self.cutting.is_empty());
            if enough {
                let Some(ticket) = self.sealing.pop_front() else { return Ok(None) };
                return ticket.wait().flatten().map(Some).ok_or(LineError::Died);
            }
            if self.cutting.len() <= threads && !all {
                return Ok(None);
            }
            let Some(ticket) = self.cutting.pop_front() else { return Ok(None) };
            let pieces = ticket.wait().ok_or(LineError::Died)?;
            self.seal(pieces)?;
        }
    }

    /// Numbers blocks and has them sealed.
    fn seal(&mut self, pieces: Pieces) -> Result<(), LineError> {
        self.fill = pieces.fill;
        for piece in pieces.pieces {
            let lsn = self.records.position();
            let first = self
                .records
                .feed(&pieces.bytes[piece.plain.clone()])
                .map_err(|error| LineError::Log { lsn: self.records.next_record(), error })?;
            let end = self.records.position();
            let first = first.and_then(|first| u32::try_from(first - lsn).ok()).unwrap_or(NO_RECORD);
            let header = BlockHeader {
                number: U64::new(self.number),
                lsn_start: U64::new(lsn),
                lsn_end: U64::new(end),
                first_record: U32::new(first),
                plain_length: U32::new(u32::try_from(piece.plain.len()).unwrap_or(u32::MAX)),
                ..self.template
            };
            // A segment end follows the block that ends a segment.
            self.number += 1 + u64::from(end % self.segment_size == 0);
            let codec = match (piece.compressed, self.shape.sealed) {
                (false, false) => Codec::Plain,
                (true, false) => Codec::Zstd,
                (false, true) => Codec::Encrypted,
                (true, true) => Codec::ZstdEncrypted,
            };
            let key = self.coding.lock.as_ref().map(|lock| lock.key.clone());
            let bytes = pieces.bytes.clone();
            self.sealing.push_back(self.coding.pool.run(move |_| {
                let mut block = piece.block;
                let header = codec::finish(&mut block, header, piece.stored, codec, key.as_ref())?;
                Some(Ready { block, header, bytes, plain: piece.plain })
            }));
        }
        Ok(())
    }
}
