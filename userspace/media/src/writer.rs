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

use std::mem::size_of;

use reelfs_format::record::Lsn;
use reelfs_format::view::RecordError;
use reelfs_format::volume::{
    seal_block, text_field, BlockHeader, BlockKind, BlockView, Label, SegmentEnd, Trailer, VolumeError, VolumeStart,
    BLOCK_HEADER_LEN, NO_RECORD, TRAILER_FULL,
};
use uuid::Uuid;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::label::{self, LabelState};
use crate::log::LogState;
use crate::medium::{Medium, MediumError, Position, Read, Written};

/// Why the log could not be put on a volume.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The medium failed. [`VolumeWriter::recover`] may help.
    #[error(transparent)]
    Medium(#[from] MediumError),
    /// There is no label of ours on the volume.
    #[error("{medium}: no label of ours ({found}); it is not written")]
    NotOurs {
        /// The medium.
        medium: String,
        /// What was found.
        found: String,
    },
    /// The volume is another one than was expected.
    #[error("{medium}: volume '{found}' where '{expected}' belongs; it is not written")]
    WrongVolume {
        /// The medium.
        medium: String,
        /// The volume that should be there.
        expected: String,
        /// The volume that is there.
        found: String,
    },
    /// A volume that was to be new has been used.
    #[error("volume '{volume}' has been used already; it is not written")]
    Used {
        /// The volume.
        volume: String,
    },
    /// A volume that was to be resumed cannot be.
    #[error("volume '{volume}' cannot be written further: {why}")]
    NotResumable {
        /// The volume.
        volume: String,
        /// Why.
        why: String,
    },
    /// The medium is not where it was left, or what was written last does not read back.
    #[error("volume '{volume}': block {number} does not read back as it was written ({found})")]
    Misplaced {
        /// The volume.
        volume: String,
        /// The last block that was written.
        number: u64,
        /// What was found.
        found: String,
    },
    /// The volume reaches less far than a filemark had proven.
    #[error("volume '{volume}' reaches LSN {found:#x}, but {proven:#x} had been proven to be on it: it is damaged")]
    Lost {
        /// The volume.
        volume: String,
        /// What had been proven.
        proven: Lsn,
        /// What is there.
        found: Lsn,
    },
    /// The bytes that were given are no log.
    #[error("LSN {lsn:#x}: not the log: {error}")]
    Log {
        /// Where.
        lsn: Lsn,
        /// The rule that they break.
        error: RecordError,
    },
    /// An error came before; see [`VolumeWriter::recover`].
    #[error("volume '{volume}' had an error and was not recovered")]
    Broken {
        /// The volume.
        volume: String,
    },
    /// The program that calls made a mistake.
    #[error("volume '{volume}': {why}")]
    Misuse {
        /// The volume.
        volume: String,
        /// The mistake.
        why: &'static str,
    },
}

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

/// What is on a volume: the answer to "where were we".
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The label.
    pub label: Label,
    /// How the volume begins, or `None` for one that was never used.
    pub start: Option<VolumeStart>,
    /// The stream, zero for a volume that was never used.
    pub stream: [u8; 16],
    /// Timeline of the stream.
    pub timeline: u32,
    /// The log can be read from the volume up to here, as far as its last part was looked at.
    pub next_lsn: Lsn,
    /// The last segment that is complete on this volume.
    pub segment_end: Option<SegmentEnd>,
    /// Where the block lies that says so.
    pub segment_end_at: Position,
    /// The trailer, if the volume has one: nothing more is to be written.
    pub trailer: Option<Trailer>,
    /// Number of the next block.
    next_number: u64,
    /// Header of the last block that can be read, and where it lies.
    last: Option<(Position, BlockHeader)>,
    /// End of the data.
    end: Position,
}

impl Inspection {
    /// Where a [`LogState`] that is to resume this volume has to begin: number of a segment, and the chain hash after
    /// the one before it. From there the log has to be fed up to [`Inspection::next_lsn`] at most.
    pub fn resume_segment(&self) -> Option<(u64, [u8; 32])> {
        let start = self.start.as_ref()?;
        match &self.segment_end {
            Some(end) => Some((end.segment.get().checked_add(1)?, end.chain)),
            None => Some((start.first_lsn.get().checked_div(start.segment_size.get())?, start.chain)),
        }
    }
}

/// Reads the label and says what stands on the volume, reading the last part of it. Leaves the position at the end
/// of the data. Writes nothing.
pub fn inspect(medium: &mut dyn Medium) -> Result<Inspection, WriteError> {
    let not_ours = |found: String, medium: &dyn Medium| WriteError::NotOurs { medium: medium.describe(), found };
    let label = match medium.read_label()? {
        LabelState::Labelled(label) => *label,
        LabelState::Blank => return Err(not_ours("blank".into(), medium)),
        LabelState::Foreign(error) => return Err(not_ours(error.to_string(), medium)),
    };
    let mut found = Inspection {
        label,
        start: None,
        stream: [0; 16],
        timeline: 0,
        next_lsn: 0,
        segment_end: None,
        segment_end_at: Position(0),
        trailer: None,
        next_number: 0,
        last: None,
        end: Position(0),
    };
    let mut block = Vec::new();
    let first = medium.position()?;
    if matches!(medium.read_block(&mut block)?, Read::EndOfData | Read::EndOfMedium) {
        found.end = medium.seek_end_of_data()?;
        return Ok(found);
    }
    let volume = label::name(&label);
    let start = match parse_own(&block, &label) {
        Ok(view) if view.kind == Some(BlockKind::VolumeStart) => {
            found.stream = view.header.stream;
            found.timeline = view.header.timeline.get();
            *view.body::<VolumeStart>().map_err(|error| not_resumable(&volume, error))?
        }
        Ok(_) => return Err(not_resumable(&volume, "its first block is no volume start")),
        Err(error) => return Err(not_resumable(&volume, format!("its first block is damaged: {error}"))),
    };
    found.end = medium.seek_end_of_data()?;
    found.start = Some(start);

    // The last segment end lies at most a segment back, unless parts were repeated: then look at everything.
    let payload = (label.block_size.get() as usize).saturating_sub(BLOCK_HEADER_LEN).max(1) as u64;
    let window = start.segment_size.get().div_ceil(payload).saturating_add(64);
    let near = Position(found.end.0.saturating_sub(window).max(first.0));
    scan_tail(medium, &mut found, near, near == first, &mut block)?;
    if found.segment_end.is_none() && near != first {
        scan_tail(medium, &mut found, first, true, &mut block)?;
    }
    Ok(found)
}

/// Reads from `from` to the end of the data and notes what is found.
fn scan_tail(
    medium: &mut dyn Medium,
    found: &mut Inspection,
    from: Position,
    whole: bool,
    block: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let first_lsn = found.start.as_ref().map_or(0, |start| start.first_lsn.get());
    // How far the log reaches without a hole. Blocks before the part that is read are taken on the filemark's word.
    let mut reach = whole.then_some(first_lsn);
    let mut ends: Vec<(Lsn, SegmentEnd, Position)> = Vec::new();
    let mut unreadable_behind_last = 0;
    medium.seek(from)?;
    loop {
        let here = medium.position()?;
        match medium.read_block(block) {
            Ok(Read::Block) => {}
            Ok(Read::Filemark) => continue,
            Ok(Read::EndOfData | Read::EndOfMedium) => break,
            Err(MediumError::Unreadable { .. }) => {
                // What is left of a block behind the end of the data is overwritten by the next.
                unreadable_behind_last += u64::from(here < found.end);
                medium.seek(Position(here.0 + 1))?;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let Ok(view) = parse_own(block, &found.label) else {
            unreadable_behind_last += 1;
            continue;
        };
        let (start, end) = (view.header.lsn_start.get(), view.header.lsn_end.get());
        match reach {
            None => reach = Some(end),
            Some(at) if start <= at => reach = Some(at.max(end)),
            Some(_) => {}
        }
        match view.kind {
            Some(BlockKind::SegmentEnd) => {
                let body =
                    view.body::<SegmentEnd>().map_err(|error| not_resumable(&label::name(&found.label), error))?;
                ends.push((start, *body, here));
            }
            Some(BlockKind::Trailer) => found.trailer = view.body::<Trailer>().ok().copied(),
            _ => {}
        }
        found.last = Some((here, *view.header));
        unreadable_behind_last = 0;
    }
    found.next_lsn = reach.unwrap_or(first_lsn);
    found.next_number = match &found.last {
        Some((_, header)) => header.number.get().saturating_add(1 + unreadable_behind_last),
        None => unreadable_behind_last,
    };
    let last = ends.into_iter().filter(|(lsn, ..)| *lsn <= found.next_lsn).max_by_key(|(lsn, ..)| *lsn);
    if let Some((_, end, here)) = last {
        (found.segment_end, found.segment_end_at) = (Some(end), here);
    }
    found.end = medium.seek_end_of_data()?;
    Ok(())
}

/// A block of this very volume, or what is wrong with it.
fn parse_own<'a>(block: &'a [u8], label: &Label) -> Result<BlockView<'a>, String> {
    let view = BlockView::parse(block).map_err(|error: VolumeError| error.to_string())?;
    if view.header.volume != label.volume {
        return Err(format!("it belongs to another volume, {}", Uuid::from_bytes(view.header.volume)));
    }
    Ok(view)
}

fn not_resumable(volume: &str, why: impl ToString) -> WriteError {
    WriteError::NotResumable { volume: volume.to_owned(), why: why.to_string() }
}

/// One volume being written.
pub struct VolumeWriter<M: Medium = Box<dyn Medium>> {
    medium: M,
    label: Label,
    stream: Stream,
    start: VolumeStart,
    /// The block being filled, header room included.
    block: Vec<u8>,
    filled: usize,
    first_record: u32,
    /// Number of the next block.
    number: u64,
    /// End of what was given, the block being filled included.
    log: LogState,
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
    ///
    /// The volume start is proven to be stored when this returns.
    pub fn begin(
        mut medium: M,
        pool: Uuid,
        stream: Stream,
        predecessor: Option<&Predecessor>,
        log: LogState,
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
        let mut start = VolumeStart::new_zeroed();
        start.sequence = U64::new(predecessor.map_or(1, |before| before.sequence.saturating_add(1)));
        start.first_lsn = U64::new(log.position());
        start.segment_size = U64::new(log.segment_size());
        start.started = I64::new(label::now());
        start.chain = log.chain().ok_or_else(|| not_resumable(&volume, "the chain hash is not known"))?;
        start.origin = text_field(&stream.origin).unwrap_or([0; 64]);
        if let Some(before) = predecessor {
            start.predecessor = before.volume;
            start.predecessor_name = text_field(&before.name).unwrap_or([0; 64]);
        }
        let mut writer = Self::assemble(medium, found, stream, start, log);
        match writer.put(BlockKind::VolumeStart, start.as_bytes())? {
            Written::Taken => {}
            Written::EarlyWarning | Written::Full => {
                return Err(not_resumable(&writer.name(), "it is too small for a single block"))
            }
        }
        writer.filemark()?;
        Ok(writer)
    }

    /// Goes on with a volume that [`inspect`] has looked at, on the medium just inspected. `log` has to lie within what
    /// the volume holds, at its end ([`Inspection::next_lsn`]) where possible, and its chain hash has to be known.
    pub fn resume(medium: M, found: Inspection, stream: Stream, log: LogState) -> Result<Self, WriteError> {
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
        if !(start.first_lsn.get()..=found.next_lsn).contains(&log.position()) || log.chain().is_none() {
            let why = format!("it reaches LSN {:#x} and cannot go on at {:#x}", found.next_lsn, log.position());
            return Err(not_resumable(&volume, why));
        }
        if found.last.is_none() {
            return Err(not_resumable(&volume, "none of its blocks can be read"));
        }
        Ok(Self::assemble(medium, found, stream, start, log))
    }

    fn assemble(medium: M, found: Inspection, stream: Stream, start: VolumeStart, log: LogState) -> Self {
        let block = vec![0; found.label.block_size.get() as usize];
        VolumeWriter {
            medium,
            label: found.label,
            stream,
            start,
            block,
            filled: 0,
            first_record: NO_RECORD,
            number: found.next_number,
            stored: log.clone(),
            proven: log.clone(),
            log,
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
        self.log.position()
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
            let room = self.block.len() - BLOCK_HEADER_LEN - self.filled;
            let (part, rest) = bytes.split_at(room.min(self.log.room()).min(bytes.len()));
            let lsn = self.log.position();
            let fed = self.log.feed(part).map_err(|error| {
                self.state = State::Broken;
                WriteError::Log { lsn, error }
            })?;
            if let (NO_RECORD, Some(first)) = (self.first_record, fed.first_record) {
                let offset = self.filled as u64 + (first - lsn);
                self.first_record = u32::try_from(offset).unwrap_or(NO_RECORD);
            }
            let at = BLOCK_HEADER_LEN + self.filled;
            self.block[at..at + part.len()].copy_from_slice(part);
            self.filled += part.len();
            bytes = rest;
            let segment_done = self.log.position() % self.log.segment_size() == 0;
            if (segment_done || part.len() == room) && self.flush(fed.end)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        Ok(Progress::Open)
    }

    /// Writes what is left of the block being filled and a filemark: everything given so far is proven to be stored
    /// when this returns [`Progress::Open`].
    pub fn sync(&mut self) -> Result<Progress, WriteError> {
        if self.state == State::Finished {
            return Ok(Progress::Full);
        }
        if self.log.position() == self.proven.position() && self.state != State::Broken {
            return Ok(Progress::Open);
        }
        self.ready()?;
        if self.flush(None)? == Progress::Full {
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
        self.log = self.stored.clone();
        self.filled = 0;
        self.first_record = NO_RECORD;
        let trailer = Trailer {
            last_lsn: U64::new(self.stored.position()),
            next_sequence: U64::new(self.start.sequence.get().saturating_add(1)),
            reason: U32::new(reason),
            reserved: U32::ZERO,
            chain: self.stored.chain().unwrap_or(self.start.chain),
        };
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
        self.log = self.proven.clone();
        self.stored = self.proven.clone();
        self.filled = 0;
        self.first_record = NO_RECORD;
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
        let mut block = Vec::with_capacity(self.block.len());
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

    /// Writes the block being filled, and the segment end where there is one.
    fn flush(&mut self, end: Option<SegmentEnd>) -> Result<Progress, WriteError> {
        if self.filled > 0 {
            match self.put_data()? {
                Written::Taken => self.stored = self.log.clone(),
                Written::EarlyWarning => return self.full(),
                Written::Full => return self.full(),
            }
        }
        if let Some(end) = end {
            match self.put_reserved(BlockKind::SegmentEnd, end.as_bytes())? {
                Written::Taken => {}
                Written::EarlyWarning | Written::Full => return self.full(),
            }
        }
        Ok(Progress::Open)
    }

    fn full(&mut self) -> Result<Progress, WriteError> {
        self.finish(TRAILER_FULL)?;
        Ok(Progress::Full)
    }

    fn put_data(&mut self) -> Result<Written, WriteError> {
        let payload_length = u32::try_from(self.filled).unwrap_or(u32::MAX);
        let header = BlockHeader {
            lsn_start: U64::new(self.log.position() - self.filled as u64),
            lsn_end: U64::new(self.log.position()),
            first_record: U32::new(self.first_record),
            payload_length: U32::new(payload_length),
            plain_length: U32::new(payload_length),
            ..self.header(BlockKind::Data)
        };
        let written = self.put_block(header)?;
        self.filled = 0;
        self.first_record = NO_RECORD;
        Ok(written)
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

    fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, kind: BlockKind, payload: &T) -> Result<Written, WriteError> {
        let bytes = payload.as_bytes();
        let payload_length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        debug_assert!(size_of::<VolumeStart>() + BLOCK_HEADER_LEN <= self.block.len() && self.filled == 0);
        self.block[BLOCK_HEADER_LEN..BLOCK_HEADER_LEN + bytes.len()].copy_from_slice(bytes);
        let at = U64::new(self.stored.position());
        let payload_length = U32::new(payload_length);
        let header = BlockHeader {
            lsn_start: at,
            lsn_end: at,
            payload_length,
            plain_length: payload_length,
            ..self.header(kind)
        };
        self.put_block(header)
    }

    fn header(&self, kind: BlockKind) -> BlockHeader {
        BlockHeader {
            kind: U32::new(kind as u32),
            number: U64::new(self.number),
            volume: self.label.volume,
            stream: self.stream.uuid,
            timeline: U32::new(self.stream.timeline),
            first_record: U32::new(NO_RECORD),
            ..BlockHeader::new_zeroed()
        }
    }

    fn put_block(&mut self, header: BlockHeader) -> Result<Written, WriteError> {
        let misuse = WriteError::Misuse { volume: self.name(), why: "a payload does not fit a block" };
        seal_block(&mut self.block, header).ok_or(misuse)?;
        let state = std::mem::replace(&mut self.state, State::Broken);
        let written = self.medium.write_block(&self.block)?;
        self.state = state;
        if written == Written::Taken {
            let sealed = BlockView::parse(&self.block)
                .map_err(|_| WriteError::Misuse { volume: self.name(), why: "a block breaks its own format" })?;
            self.last = (self.expected, *sealed.header);
            self.expected.0 += 1;
            self.number += 1;
        }
        Ok(written)
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
