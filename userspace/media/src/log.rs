// SPDX-License-Identifier: GPL-2.0-or-later

//! Following the log byte by byte: where segments end, where records begin, what the hashes are.
//!
//! Writer and reader share it, so that what one promises is what the other checks.

use reelfs_format::record::{
    Body, CheckpointEndBody, Lsn, RecordType, HEADER_LEN, RECORD_ALIGN, RECORD_MAGIC, RECORD_MAX, RECORD_MIN,
    TRAILER_LEN,
};
use reelfs_format::view::{peek_kind, RecordError};
use reelfs_format::volume::SegmentEnd;
use zerocopy::little_endian::U64;

/// The part of a record's header that tells how long it is, and of which type.
const HEAD: usize = 12;
/// Length of the record that ends a checkpoint: it is looked at whole.
const CHECKPOINT_END: usize = CheckpointEndBody::HEAD_LEN + TRAILER_LEN;

/// A checkpoint that is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// LSN of its begin record.
    pub begin: Lsn,
    /// LSN behind its end record; zero: there is none.
    pub end: Lsn,
}

impl Checkpoint {
    /// What the end of a segment says, if it knows of one.
    pub fn said(end: &SegmentEnd) -> Option<Self> {
        let said = Checkpoint { begin: end.checkpoint_begin.get(), end: end.checkpoint_end.get() };
        (said.begin < said.end).then_some(said)
    }
}

/// What feeding some bytes brought.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fed {
    /// LSN of the first record that starts in the bytes.
    pub first_record: Option<Lsn>,
    /// The bytes completed a segment: what the block behind it has to say. `None` too where the hashes are not known.
    pub end: Option<SegmentEnd>,
}

/// Follows the records by their lengths: where they begin.
#[derive(Clone, Debug)]
pub struct Follower {
    position: Lsn,
    next_record: Lsn,
    head: [u8; CHECKPOINT_END],
    checkpoint: Checkpoint,
}

impl Follower {
    /// LSN behind the last byte that was followed.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// LSN of the next record to begin, or of the one whose first bytes have been followed.
    pub fn next_record(&self) -> Lsn {
        self.next_record
    }

    /// Goes on by `bytes`; the LSN of the first record that starts in them. Errors: there is no record where one has to
    /// begin.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Lsn>, RecordError> {
        let end = self.position + bytes.len() as u64;
        let mut first = None;
        while self.next_record < end {
            if self.next_record >= self.position {
                first = first.or(Some(self.next_record));
            }
            // The head may have begun in bytes fed earlier.
            let have = self.position.saturating_sub(self.next_record) as usize;
            let from = self.next_record.saturating_sub(self.position) as usize;
            let rest = &bytes[from..];
            let take = rest.len().min(CHECKPOINT_END - have);
            self.head[have..have + take].copy_from_slice(&rest[..take]);
            if have + take < HEAD {
                break;
            }
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| self.head[at + i]));
            if word(0) != RECORD_MAGIC {
                return Err(RecordError::Magic(word(0)));
            }
            let length = word(8);
            if !(RECORD_MIN..=RECORD_MAX).contains(&(length as usize)) || length as usize % RECORD_ALIGN != 0 {
                return Err(RecordError::Length(length));
            }
            let record = self.next_record;
            let next = record.saturating_add(u64::from(length));
            if peek_kind(&self.head) == Some(RecordType::CheckpointEnd) && length as usize == CHECKPOINT_END {
                if have + take < CHECKPOINT_END {
                    break;
                }
                let begin = self.head[HEADER_LEN..].first_chunk::<8>().map_or(0, |begin| u64::from_le_bytes(*begin));
                self.checkpoint = Checkpoint { begin, end: next };
            }
            self.next_record = next;
        }
        self.position = end;
        Ok(first)
    }
}

/// A place in the log, with everything needed to go on from there: segment, hash so far, next record.
///
/// Cheap to clone (about 2 KiB), and cloned wherever one may have to come back.
#[derive(Clone, Debug)]
pub struct LogState {
    segment_size: u64,
    records: Follower,
    hasher: blake3::Hasher,
    /// The hash covers the current segment from its first byte.
    whole: bool,
    chain: Option<[u8; 32]>,
}

impl LogState {
    /// The beginning of a log.
    pub fn origin(segment_size: u64) -> Self {
        Self::at_segment(segment_size, 0, 0, [0; 32])
    }

    /// The beginning of segment `number`. `first_record` is the LSN of the first record that starts in it (from the
    /// spool's segment header), `chain` the chain hash after the segment before.
    pub fn at_segment(segment_size: u64, number: u64, first_record: Lsn, chain: [u8; 32]) -> Self {
        LogState {
            segment_size,
            records: Follower {
                position: number.saturating_mul(segment_size),
                next_record: first_record,
                head: [0; CHECKPOINT_END],
                checkpoint: Checkpoint::default(),
            },
            hasher: blake3::Hasher::new(),
            whole: true,
            chain: Some(chain),
        }
    }

    /// Anywhere in the log: the hashes begin to be known with the next whole segment. `first_record` is the LSN of
    /// the first record that starts at or behind `position`.
    pub fn anywhere(segment_size: u64, position: Lsn, first_record: Lsn, chain: Option<[u8; 32]>) -> Self {
        let start = position % segment_size.max(1) == 0;
        LogState {
            records: Follower {
                position,
                next_record: first_record,
                head: [0; CHECKPOINT_END],
                checkpoint: Checkpoint::default(),
            },
            whole: start,
            chain: if start { chain } else { None },
            ..Self::at_segment(segment_size, 0, 0, [0; 32])
        }
    }

    /// LSN behind the last byte that was fed.
    pub fn position(&self) -> Lsn {
        self.records.position
    }

    /// The same with a checkpoint that is known to be complete below the position.
    pub fn with_checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.records.checkpoint = checkpoint;
        self
    }

    /// The last checkpoint that is known to be complete below the position; its end is zero if none is.
    pub fn checkpoint(&self) -> Checkpoint {
        self.records.checkpoint
    }

    /// The same place, without the hashes.
    pub fn follower(&self) -> Follower {
        self.records.clone()
    }

    /// LSN of the first record that starts at or behind the position, or of the one before if the position is in the
    /// middle of its first bytes.
    pub fn next_record(&self) -> Lsn {
        self.records.next_record
    }

    /// Length of a segment in bytes.
    pub fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Number of the segment that the position is in.
    pub fn segment(&self) -> u64 {
        self.position() / self.segment_size.max(1)
    }

    /// Chain hash after the last complete segment, if it is known.
    pub fn chain(&self) -> Option<[u8; 32]> {
        self.chain
    }

    /// Bytes up to the end of the segment; never zero.
    pub fn room(&self) -> usize {
        let room = self.segment_size - self.position() % self.segment_size.max(1);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Goes on by `bytes`, which must not be more than [`LogState::room`]. Errors: there is no record
    /// where one has to begin.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Fed, RecordError> {
        debug_assert!(bytes.len() <= self.room());
        let segment = self.segment();
        let first_record = self.records.feed(bytes)?;
        self.hasher.update(bytes);
        if self.position() % self.segment_size.max(1) != 0 || bytes.is_empty() {
            return Ok(Fed { first_record, end: None });
        }
        let hash = *self.hasher.finalize().as_bytes();
        self.hasher.reset();
        let whole = std::mem::replace(&mut self.whole, true);
        self.chain = match self.chain {
            Some(before) if whole => Some(link(&before, &hash)),
            _ => None,
        };
        let checkpoint = self.checkpoint();
        let end = self.chain.map(|chain| SegmentEnd {
            segment: U64::new(segment),
            reserved: U64::ZERO,
            hash,
            chain,
            checkpoint_begin: U64::new(checkpoint.begin),
            checkpoint_end: U64::new(checkpoint.end),
        });
        Ok(Fed { first_record, end })
    }

    /// Takes over the chain hash of a segment end that cannot be checked, because reading began in that segment.
    pub fn trust(&mut self, chain: [u8; 32]) {
        if self.chain.is_none() && self.whole {
            self.chain = Some(chain);
        }
    }
}

/// The chain hash after a segment: BLAKE3 of the chain hash before it and the segment's own.
pub fn link(before: &[u8; 32], hash: &[u8; 32]) -> [u8; 32] {
    *blake3::Hasher::new().update(before).update(hash).finalize().as_bytes()
}
