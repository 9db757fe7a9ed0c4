// SPDX-License-Identifier: GPL-2.0-or-later

//! Putting the log on a volume.
//!
//! A [`VolumeWriter`] holds one volume from its start to its trailer. It cuts the log into blocks that never cross a
//! segment, closes each segment with its hashes, and knows two places in the log: what the medium took, and what a
//! filemark has proven to be stored. After anything that goes wrong only the second counts; what lies between is
//! written again, here or on the next volume, and readers accept the repetition.
//!
//! The rules of tape hold for every medium: the label is read before anything is written and nothing but a volume
//! of the pool is touched; writing happens at the end of the data alone; before each burst and after each error the
//! place is verified by reading back what was written last.

mod error;
mod inspect;
mod line;

use std::sync::Arc;

use reelfs_format::record::Lsn;
use reelfs_format::volume::{
    text_field, BlockHeader, BlockKind, Codec, Label, Trailer, VolumeStart, BLOCK_HEADER_LEN, FEATURE_COMPRESSED,
    FEATURE_ENCRYPTED, NO_RECORD, TRAILER_FULL,
};
use uuid::Uuid;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

pub use self::error::WriteError;
pub use self::inspect::{inspect, Inspection};
use self::inspect::{not_resumable, parse_own};
use self::line::{Line, LineError, Ready};
use crate::codec;
use crate::key::Lock;
use crate::label;
use crate::log::LogState;
use crate::medium::{Medium, Position, Read, Written};
use crate::pool::Pool;

/// Whose log it is.
#[derive(Clone, Debug)]
pub struct Stream {
    /// UUID of the stream.
    pub uuid: [u8; 16],
    /// Its timeline.
    pub timeline: u32,
    /// The machine that writes.
    pub origin: String,
}

/// How a volume is written.
#[derive(Clone)]
pub struct Coding {
    /// Who does the coding.
    pub pool: Arc<Pool>,
    /// The level of compression, if there is to be any.
    pub level: Option<i32>,
    /// The key, if the volume is to be encrypted.
    pub lock: Option<Lock>,
}

impl Coding {
    /// The log as it is.
    pub fn plain() -> Self {
        Coding { pool: Pool::inline(), level: None, lock: None }
    }
}

/// The volume that was written before, for the start of the next.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// UUID of the volume.
    pub volume: [u8; 16],
    /// Name of the volume.
    pub name: String,
    /// Its place in the set.
    pub sequence: u64,
}

/// Whether a volume takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Everything was taken.
    Open,
    /// The volume is full and finished: the log goes on, from [`VolumeWriter::proven`], on the next one.
    Full,
}

/// One volume being written.
pub struct VolumeWriter<M: Medium = Box<dyn Medium>> {
    medium: M,
    label: Label,
    stream: Stream,
    start: VolumeStart,
    lock: Option<Lock>,
    /// What was given and is not on the medium yet.
    line: Line,
    /// Number of the next block.
    number: u64,
    /// End of what the medium took.
    stored: LogState,
    /// End of what a filemark proved.
    proven: LogState,
    /// The last block that was written, and where.
    last: (Position, BlockHeader),
    /// Where the medium has to be.
    expected: Position,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Blocks may be written; what was written last has been verified or was written just now.
    Writing,
    /// A filemark ended the burst: verify before the next block.
    Idle,
    /// Something went wrong: recover first.
    Broken,
    /// Full or closed.
    Finished,
}

impl<M: Medium> VolumeWriter<M> {
    /// Begins a volume that was labelled and never used. The log goes on at `log`, whose chain hash has to be known.
    /// Compression is left out where the label does not announce it; encryption never is.
    ///
    /// The volume start, and the key of an encrypted volume, are proven to be stored when this returns.
    pub fn begin(
        mut medium: M,
        pool: Uuid,
        stream: Stream,
        predecessor: Option<&Predecessor>,
        log: LogState,
        coding: Coding,
    ) -> Result<Self, WriteError> {
        let found = inspect(&mut medium)?;
        let volume = label::name(&found.label);
        if found.label.pool != *pool.as_bytes() {
            return Err(WriteError::NotOurs {
                medium: medium.describe(),
                found: format!("volume '{volume}' of pool '{}'", label::pool_name(&found.label)),
            });
        }
        if found.start.is_some() || found.next_number != 0 {
            return Err(WriteError::Used { volume });
        }
        if coding.lock.is_some() && found.label.incompatible.get() & FEATURE_ENCRYPTED == 0 {
            let why = "its label does not allow for encryption; label it again".to_owned();
            return Err(WriteError::Unsuitable { volume, why });
        }
        let mut start = VolumeStart::new_zeroed();
        start.sequence = U64::new(predecessor.map_or(1, |before| before.sequence.saturating_add(1)));
        start.first_lsn = U64::new(log.position());
        start.segment_size = U64::new(log.segment_size());
        start.started = I64::new(label::now());
        start.chain = log.chain().ok_or_else(|| not_resumable(&volume, "the chain hash is not known"))?;
        start.key = coding.lock.as_ref().map_or([0; 32], |lock| lock.wrapped.fingerprint);
        start.origin = text_field(&stream.origin).unwrap_or([0; 64]);
        if let Some(before) = predecessor {
            start.predecessor = before.volume;
            start.predecessor_name = text_field(&before.name).unwrap_or([0; 64]);
        }
        let mut writer = Self::assemble(medium, found, stream, start, log, coding);
        let too_small = || not_resumable(&volume, "it is too small for a single block");
        if writer.put(BlockKind::VolumeStart, start.as_bytes())? != Written::Taken {
            return Err(too_small());
        }
        if writer.put_key()?.is_some_and(|written| written != Written::Taken) {
            return Err(too_small());
        }
        writer.line.restart(&writer.stored, writer.number);
        writer.filemark()?;
        Ok(writer)
    }

    /// Goes on with a volume that [`inspect`] has looked at, on the medium just inspected. `log` has to lie within what
    /// the volume holds, at its end ([`Inspection::next_lsn`]) where possible, and its chain hash has to be known.
    /// `coding` has to have the key with which the volume was begun, and none if it is not encrypted.
    pub fn resume(
        medium: M,
        found: Inspection,
        stream: Stream,
        log: LogState,
        coding: Coding,
    ) -> Result<Self, WriteError> {
        let volume = label::name(&found.label);
        let Some(start) = found.start else {
            return Err(not_resumable(&volume, "it was never used"));
        };
        if found.trailer.is_some() {
            return Err(not_resumable(&volume, "it is finished"));
        }
        if found.stream != stream.uuid || found.timeline != stream.timeline {
            return Err(not_resumable(&volume, "it belongs to another stream or timeline"));
        }
        if start.segment_size.get() != log.segment_size() {
            return Err(not_resumable(&volume, "its segments have another size"));
        }
        if start.key != coding.lock.as_ref().map_or([0; 32], |lock| lock.key.fingerprint()) {
            return Err(not_resumable(&volume, "the key that was given is not the one it was begun with"));
        }
        if !(start.first_lsn.get()..=found.next_lsn).contains(&log.position()) || log.chain().is_none() {
            let why = format!("it reaches LSN {:#x} and cannot go on at {:#x}", found.next_lsn, log.position());
            return Err(not_resumable(&volume, why));
        }
        if found.last.is_none() {
            return Err(not_resumable(&volume, "none of its blocks can be read"));
        }
        Ok(Self::assemble(medium, found, stream, start, log, coding))
    }

    fn assemble(
        medium: M,
        found: Inspection,
        stream: Stream,
        start: VolumeStart,
        log: LogState,
        mut coding: Coding,
    ) -> Self {
        if found.label.incompatible.get() & FEATURE_COMPRESSED == 0 {
            coding.level = None;
        }
        let lock = coding.lock.clone();
        let template = BlockHeader {
            kind: U32::new(BlockKind::Data as u32),
            volume: found.label.volume,
            stream: stream.uuid,
            timeline: U32::new(stream.timeline),
            ..BlockHeader::new_zeroed()
        };
        let block_size = found.label.block_size.get() as usize;
        VolumeWriter {
            medium,
            label: found.label,
            stream,
            start,
            lock,
            line: Line::new(coding, template, block_size, &log, found.next_number),
            number: found.next_number,
            stored: log.clone(),
            proven: log,
            last: found.last.unwrap_or((Position(0), BlockHeader::new_zeroed())),
            expected: found.end,
            state: State::Writing,
        }
    }

    /// Name of the volume.
    pub fn name(&self) -> String {
        label::name(&self.label)
    }

    /// The label of the volume.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// How the volume begins.
    pub fn start(&self) -> &VolumeStart {
        &self.start
    }

    /// This volume as the predecessor of the next.
    pub fn as_predecessor(&self) -> Predecessor {
        Predecessor { volume: self.label.volume, name: self.name(), sequence: self.start.sequence.get() }
    }

    /// LSN of the next byte to give to [`VolumeWriter::append`].
    pub fn next_lsn(&self) -> Lsn {
        self.line.next_lsn()
    }

    /// The end of what is proven to be stored.
    pub fn proven(&self) -> &LogState {
        &self.proven
    }

    /// Number of blocks on the volume so far.
    pub fn blocks(&self) -> u64 {
        self.number
    }

    /// Whether an error has to be recovered from.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether the volume has been finished.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// The medium, with whatever state it is in.
    pub fn into_medium(self) -> M {
        self.medium
    }

    /// Appends bytes of the log that begin at [`VolumeWriter::next_lsn`]. They need not end where a record does.
    ///
    /// Nothing is promised about them until [`VolumeWriter::sync`] or a full volume moves [`VolumeWriter::proven`].
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<Progress, WriteError> {
        self.ready()?;
        while !bytes.is_empty() {
            bytes = &bytes[self.line.give(bytes)..];
            if self.advance(false)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        Ok(Progress::Open)
    }

    /// Writes everything that was given and a filemark: it is proven to be stored when this returns [`Progress::Open`].
    pub fn sync(&mut self) -> Result<Progress, WriteError> {
        if self.state == State::Finished {
            return Ok(Progress::Full);
        }
        if self.line.next_lsn() == self.proven.position() && self.state != State::Broken {
            return Ok(Progress::Open);
        }
        self.ready()?;
        self.line.flush();
        if self.advance(true)? == Progress::Full {
            return Ok(Progress::Full);
        }
        self.filemark()?;
        Ok(Progress::Open)
    }

    /// Ends the volume with a trailer, `reason` being one of `TRAILER_*`. What had not been stored is forgotten.
    pub fn finish(&mut self, reason: u32) -> Result<(), WriteError> {
        if self.state == State::Finished {
            return Ok(());
        }
        self.ready()?;
        self.line.restart(&self.stored, self.number);
        let trailer = Trailer {
            last_lsn: U64::new(self.stored.position()),
            next_sequence: U64::new(self.start.sequence.get().saturating_add(1)),
            reason: U32::new(reason),
            reserved: U32::ZERO,
            chain: self.stored.chain().unwrap_or(self.start.chain),
        };
        // The first copy of the key is at the other end; one bad block must not cost the volume.
        let _ = self.put_key()?;
        // Where it does not fit the volume ends without: readers see that the log goes on elsewhere all the same.
        let _ = self.put_reserved(BlockKind::Trailer, trailer.as_bytes())?;
        self.filemark()?;
        self.state = State::Finished;
        Ok(())
    }

    /// Finds the way back after an error: reads the label and the last part of the volume, goes to the end of the
    /// data. What was not proven has to be given again, from [`VolumeWriter::next_lsn`].
    pub fn recover(&mut self) -> Result<(), WriteError> {
        self.state = State::Broken;
        let found = inspect(&mut self.medium)?;
        if found.label.volume != self.label.volume {
            return Err(WriteError::WrongVolume {
                medium: self.medium.describe(),
                expected: self.name(),
                found: label::name(&found.label),
            });
        }
        let proven = self.proven.position();
        if found.next_lsn < proven {
            return Err(WriteError::Lost { volume: self.name(), proven, found: found.next_lsn });
        }
        let Some(last) = found.last else {
            return Err(WriteError::Lost { volume: self.name(), proven, found: 0 });
        };
        self.last = last;
        self.expected = found.end;
        self.number = found.next_number;
        self.stored = self.proven.clone();
        self.line.restart(&self.stored, self.number);
        self.state = if found.trailer.is_some() { State::Finished } else { State::Writing };
        Ok(())
    }

    /// Whether blocks may be written; verifies the place at the beginning of a burst.
    fn ready(&mut self) -> Result<(), WriteError> {
        match self.state {
            State::Writing => Ok(()),
            State::Broken => Err(WriteError::Broken { volume: self.name() }),
            State::Finished => Err(WriteError::Misuse { volume: self.name(), why: "it is finished" }),
            State::Idle => {
                self.state = State::Broken;
                self.verify_place()?;
                self.state = State::Writing;
                Ok(())
            }
        }
    }

    /// Reads back the last block: every block names its volume and its number, so this tells that neither the drive
    /// lost its place nor the volume was changed, without the minutes that rewinding to the label would take.
    fn verify_place(&mut self) -> Result<(), WriteError> {
        let misplaced = |found: String, writer: &Self| WriteError::Misplaced {
            volume: writer.name(),
            number: writer.last.1.number.get(),
            found,
        };
        let here = self.medium.position()?;
        if here != self.expected {
            return Err(misplaced(format!("position {}, not {}", here.0, self.expected.0), self));
        }
        self.medium.seek(self.last.0)?;
        let mut block = Vec::with_capacity(self.label.block_size.get() as usize);
        match self.medium.read_block(&mut block)? {
            Read::Block => {}
            other => return Err(misplaced(format!("{other:?}"), self)),
        }
        let view = parse_own(&block, &self.label).map_err(|found| misplaced(found, self))?;
        if *view.header != self.last.1 {
            return Err(misplaced(format!("block {}", view.header.number), self));
        }
        let end = self.medium.seek_end_of_data()?;
        if end != self.expected {
            return Err(misplaced(format!("the data ends at position {}, not {}", end.0, self.expected.0), self));
        }
        Ok(())
    }

    /// Writes the blocks that are ready, or, with `all`, everything that was given, and segment ends where there are any.
    fn advance(&mut self, all: bool) -> Result<Progress, WriteError> {
        loop {
            let ready = self.line.next(all).map_err(|error| {
                self.state = State::Broken;
                match error {
                    LineError::Log { lsn, error } => WriteError::Log { lsn, error },
                    LineError::Died => self.misuse("a thread that codes blocks has died"),
                }
            })?;
            let Some(ready) = ready else { return Ok(Progress::Open) };
            if self.put_data(ready)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
    }

    fn full(&mut self) -> Result<Progress, WriteError> {
        self.finish(TRAILER_FULL)?;
        Ok(Progress::Full)
    }

    fn put_data(&mut self, ready: Ready) -> Result<Progress, WriteError> {
        if self.write(&ready.block, ready.header)? != Written::Taken {
            return self.full();
        }
        let lsn = self.stored.position();
        let fed = self.stored.feed(ready.plain()).map_err(|error| WriteError::Log { lsn, error })?;
        if let Some(end) = fed.end {
            match self.put_reserved(BlockKind::SegmentEnd, end.as_bytes())? {
                Written::Taken => {}
                Written::EarlyWarning | Written::Full => return self.full(),
            }
        }
        Ok(Progress::Open)
    }

    /// Writes the wrapped key of an encrypted volume.
    fn put_key(&mut self) -> Result<Option<Written>, WriteError> {
        let Some(payload) = self.lock.as_ref().map(|lock| lock.wrapped.payload()) else { return Ok(None) };
        self.put_reserved(BlockKind::VolumeKey, &payload[..]).map(Some)
    }

    /// Writes a block that early warning must not keep out.
    fn put_reserved<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        kind: BlockKind,
        payload: &T,
    ) -> Result<Written, WriteError> {
        match self.put(kind, payload)? {
            // Nothing was written, and there is room behind the warning.
            Written::EarlyWarning => self.put(kind, payload),
            other => Ok(other),
        }
    }

    /// Writes a block of another kind than data. On an encrypted volume it can be read without the key and is
    /// authenticated.
    fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, kind: BlockKind, payload: &T) -> Result<Written, WriteError> {
        let bytes = payload.as_bytes();
        let at = U64::new(self.stored.position());
        let header = BlockHeader {
            kind: U32::new(kind as u32),
            number: U64::new(self.number),
            volume: self.label.volume,
            stream: self.stream.uuid,
            timeline: U32::new(self.stream.timeline),
            lsn_start: at,
            lsn_end: at,
            first_record: U32::new(NO_RECORD),
            plain_length: U32::new(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            ..BlockHeader::new_zeroed()
        };
        let mut block = vec![0; self.label.block_size.get() as usize];
        let (codec, key) = match &self.lock {
            Some(lock) => (Codec::Authenticated, Some(&lock.key)),
            None => (Codec::Plain, None),
        };
        let header = block
            .get_mut(BLOCK_HEADER_LEN..BLOCK_HEADER_LEN + bytes.len())
            .map(|place| place.copy_from_slice(bytes))
            .and_then(|()| codec::finish(&mut block, header, bytes.len(), codec, key))
            .ok_or_else(|| self.misuse("a payload does not fit a block"))?;
        self.write(&block, header)
    }

    fn write(&mut self, block: &[u8], header: BlockHeader) -> Result<Written, WriteError> {
        if header.number.get() != self.number {
            return Err(self.misuse("blocks would be numbered wrongly"));
        }
        let state = std::mem::replace(&mut self.state, State::Broken);
        let written = self.medium.write_block(block)?;
        self.state = state;
        if written == Written::Taken {
            self.last = (self.expected, header);
            self.expected.0 += 1;
            self.number += 1;
        }
        Ok(written)
    }

    fn misuse(&self, why: &'static str) -> WriteError {
        WriteError::Misuse { volume: self.name(), why }
    }

    fn filemark(&mut self) -> Result<(), WriteError> {
        self.state = State::Broken;
        self.medium.write_filemark()?;
        // Filemarks count on a tape and do not exist in a file: ask.
        self.expected = self.medium.position()?;
        self.proven = self.stored.clone();
        self.state = State::Idle;
        Ok(())
    }
}
