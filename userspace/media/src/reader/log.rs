// SPDX-License-Identifier: GPL-2.0-or-later

//! The log, put together from the blocks of its volumes.
//!
//! A position in the log is written once, so every valid copy of it holds the same bytes, and the first valid one is
//! taken; the segment's hash proves that. What is repeated is dropped; what is unreadable costs nothing when a later
//! block repeats it.

use std::sync::Arc;

use reelfs_format::record::Lsn;
use reelfs_format::spool::{SEGMENT_SIZE_MAX, SEGMENT_SIZE_MIN};
use reelfs_format::volume::{BlockKind, SegmentEnd, Trailer, VolumeError, NO_RECORD, TRAILER_CLOSED, TRAILER_FULL};
use uuid::Uuid;

use super::error::{Damage, Place, ReadError};
use super::source::{VolumeSource, Wanted};
use super::volume::{Item, VolumeReader};
use crate::log::LogState;
use crate::medium::Position;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the beginning of the log: the first volume of the set has to be there.
    Log,
    /// With the volume that has this place in its set, at the first record that starts there.
    Volume(u64),
    /// The same, but at the first record that starts in the block at this position or behind it.
    Within(u64, Position),
}

/// What is done about a part of the log that is not where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Look for it in what follows, and fail if it is nowhere: the log comes out whole or not at all.
    Search,
    /// Note it and go on behind it: everything is looked at, in one pass.
    Skip,
}

/// How the log ended.
#[derive(Clone, Debug)]
pub struct LogEnd {
    /// LSN behind the last byte.
    pub lsn: Lsn,
    /// The last volume is full: the log went on, on a volume that is not there.
    pub goes_on: Option<Wanted>,
    /// The last volume was closed on request.
    pub closed: bool,
    /// Bytes of a record that is not complete: it was being written when the writing stopped. Not part of the log.
    pub cut: u64,
}

/// Something that is worth telling and did not stop the reading.
#[derive(Clone, Debug)]
pub enum Note {
    /// A block could not be used; whether anything is missing because of it is another question.
    Damaged(Damage),
    /// A part of the log was missing where it belonged and has been passed over ([`OnGap::Skip`]).
    Skipped {
        /// First position that is missing.
        from: Lsn,
        /// First position that is there again.
        to: Lsn,
    },
    /// A block repeats what had been read, as after an error on the medium.
    Repeated {
        /// The block.
        place: Place,
        /// Where its contents begin.
        from: Lsn,
        /// Where they end.
        to: Lsn,
    },
    /// The volume ends without a trailer although the log goes on, on the next: the medium took no more.
    NoTrailer(Arc<str>),
    /// Something that would have ended reading with [`OnGap::Search`].
    Wrong(String),
}

/// What one step through the blocks brought.
pub(super) enum Step {
    /// Bytes `start..end` of what the volume's block holds. `fresh`: they begin with a record and do not continue what came before.
    Bytes { lsn: Lsn, start: usize, end: usize, fresh: bool, place: Place },
    /// There is no more.
    End,
}

/// The log, off the volumes of one stream.
pub struct LogReader<S: VolumeSource> {
    source: S,
    begin: Begin,
    on_gap: OnGap,
    volume: Option<VolumeReader>,
    /// The volume before, which its successor has to name.
    before: Option<([u8; 16], Arc<str>)>,
    wanted: Wanted,
    stream: Option<([u8; 16], u32)>,
    segment_size: u64,
    /// `None` until a place is known at which a record starts.
    log: Option<LogState>,
    /// Position up to which the log has been seen or passed over.
    pub(super) seen: Lsn,
    /// Bytes have been given out.
    started: bool,
    /// What the last complete segment amounts to, as computed here.
    computed: Option<SegmentEnd>,
    trailer: Option<Trailer>,
    /// A block that has been read and not been dealt with.
    again: Option<Place>,
    /// Damage that may turn out to have cost something.
    damages: Vec<Damage>,
    /// First position seen behind a gap that is being searched for.
    behind_gap: Option<Lsn>,
    /// Parts that were passed over and have not been seen since.
    missing: Vec<(Lsn, Lsn)>,
    notes: Vec<Note>,
    pub(super) end: Option<LogEnd>,
    accept_end: bool,
    blocks: u64,
}

impl<S: VolumeSource> LogReader<S> {
    /// A reader of the log that `source` has the volumes of.
    pub fn new(source: S, begin: Begin, on_gap: OnGap) -> Self {
        let sequence = match begin {
            Begin::Log => 1,
            Begin::Volume(sequence) | Begin::Within(sequence, _) => sequence,
        };
        LogReader {
            source,
            begin,
            on_gap,
            volume: None,
            before: None,
            wanted: Wanted { sequence, name: None, lsn: 0 },
            stream: None,
            segment_size: 1,
            log: None,
            seen: 0,
            started: false,
            computed: None,
            trailer: None,
            again: None,
            damages: Vec::new(),
            behind_gap: None,
            missing: Vec::new(),
            notes: Vec::new(),
            end: None,
            accept_end: false,
            blocks: 0,
        }
    }

    /// Takes the log to end where it can no longer be read, behind the last volume that there is.
    pub fn accept_end(&mut self, accept: bool) {
        self.accept_end = accept;
    }

    /// LSN behind the last byte given out or passed over.
    pub fn position(&self) -> Lsn {
        self.seen
    }

    /// The stream and its timeline, once a volume has been opened.
    pub fn stream(&self) -> Option<([u8; 16], u32)> {
        self.stream
    }

    /// Name of the volume being read.
    pub fn volume_name(&self) -> Option<&Arc<str>> {
        self.volume.as_ref().map(VolumeReader::name)
    }

    /// Place in the set of the volume being read, or of the one that is due.
    pub fn sequence(&self) -> u64 {
        self.wanted.sequence
    }

    /// Number of blocks looked at so far.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// What was found on the way, since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Parts of the log that were passed over and were on no later block either ([`OnGap::Skip`]).
    pub fn missing(&self) -> &[(Lsn, Lsn)] {
        &self.missing
    }

    /// Blocks that could not be used and that nothing has made good so far.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// The source of the volumes.
    pub fn source(&mut self) -> &mut S {
        &mut self.source
    }

    pub(super) fn data(&self) -> &[u8] {
        self.volume.as_ref().map_or(&[], VolumeReader::data)
    }

    /// Fails, or notes it and goes on, as was asked for.
    pub(super) fn wrong(&mut self, error: ReadError) -> Result<(), ReadError> {
        match self.on_gap {
            OnGap::Search => Err(error),
            OnGap::Skip => {
                self.notes.push(Note::Wrong(error.to_string()));
                Ok(())
            }
        }
    }

    pub(super) fn step(&mut self) -> Result<Step, ReadError> {
        loop {
            if self.end.is_some() {
                return Ok(Step::End);
            }
            let place = match (self.again.take(), self.volume.as_mut()) {
                (Some(place), _) => place,
                (None, None) => {
                    self.open_next()?;
                    continue;
                }
                (None, Some(volume)) => match volume.step()? {
                    Item::Block(place) => {
                        self.blocks += 1;
                        place
                    }
                    Item::Damaged(damage) => {
                        self.blocks += 1;
                        self.notes.push(Note::Damaged(damage.clone()));
                        self.damages.push(damage);
                        continue;
                    }
                    Item::End => {
                        self.leave_volume();
                        continue;
                    }
                },
            };
            if let Some(step) = self.take_block(place)? {
                return Ok(step);
            }
        }
    }

    /// Deals with the block that was just read.
    fn take_block(&mut self, place: Place) -> Result<Option<Step>, ReadError> {
        let Some(volume) = self.volume.as_ref() else {
            return Ok(None);
        };
        let of_block = |error: VolumeError| ReadError::Start(Damage { place: place.clone(), why: error.to_string() });
        let view = volume.view().map_err(of_block)?;
        match view.kind {
            Some(BlockKind::Data) => {
                let (start, end) = (view.header.lsn_start.get(), view.header.lsn_end.get());
                let first = Some(view.header.first_record.get()).filter(|first| *first != NO_RECORD);
                self.take_data(place, start, end, first.map(|offset| start + u64::from(offset)))
            }
            Some(BlockKind::SegmentEnd) => {
                let (lsn, body) = (view.header.lsn_start.get(), *view.body::<SegmentEnd>().map_err(of_block)?);
                self.settled(lsn);
                self.check_segment(place, &body)?;
                Ok(None)
            }
            Some(BlockKind::Trailer) => {
                let (lsn, body) = (view.header.lsn_start.get(), *view.body::<Trailer>().map_err(of_block)?);
                self.settled(lsn);
                self.trailer = Some(body);
                self.leave_volume();
                Ok(None)
            }
            Some(BlockKind::VolumeStart) => {
                let kind = view.header.kind.get();
                self.wrong(of_block(VolumeError::Kind(kind)))?;
                Ok(None)
            }
            Some(BlockKind::VolumeKey) | None => Ok(None),
        }
    }

    /// A sound block says that the log reached `lsn`: if it has been read up to there, damage before cost nothing.
    fn settled(&mut self, lsn: Lsn) {
        if lsn <= self.seen {
            self.damages.clear();
        }
    }

    fn take_data(&mut self, place: Place, start: Lsn, end: Lsn, first: Option<Lsn>) -> Result<Option<Step>, ReadError> {
        if start / self.segment_size != (end - 1) / self.segment_size {
            let why = "its contents cross the end of a segment".to_owned();
            self.wrong(ReadError::Start(Damage { place, why }))?;
            return Ok(None);
        }
        if self.started && start > self.seen {
            match self.on_gap {
                OnGap::Search => self.behind_gap = Some(self.behind_gap.map_or(start, |seen| seen.min(start))),
                OnGap::Skip => {
                    self.pass_over(start);
                    self.again = Some(place);
                }
            }
            return Ok(None);
        }
        if self.started && start < self.seen {
            self.notes.push(Note::Repeated { place: place.clone(), from: start, to: end });
            self.found(start, end);
        }
        if end <= self.seen {
            return Ok(None);
        }
        let fresh = self.log.is_none();
        if fresh {
            match first {
                Some(first) if start >= self.seen => self.log = Some(self.track(start, first)),
                _ => {
                    self.pass_over(end);
                    return Ok(None);
                }
            }
        }
        let from = if fresh { start } else { self.seen };
        let (Some(log), Some(volume)) = (self.log.as_mut(), self.volume.as_ref()) else {
            return Ok(None);
        };
        let offset = |lsn: Lsn| (lsn - start) as usize;
        let lsn = log.next_record();
        match log.feed(&volume.data()[offset(from)..offset(end)]) {
            Ok(fed) => self.computed = fed.end.or(self.computed),
            Err(error) => {
                self.wrong(ReadError::Record { place, lsn, error })?;
                self.pass_over(end);
                return Ok(None);
            }
        }
        // Bytes before the first record belong to one whose beginning is not here: hashed, but not given out.
        let from = if fresh { first.unwrap_or(start) } else { from };
        if self.started && fresh && from > self.seen {
            self.pass_over_to(from);
        }
        self.seen = end;
        self.started = true;
        self.damages.clear();
        self.behind_gap = None;
        Ok(Some(Step::Bytes { lsn: from, start: offset(from), end: offset(end), fresh, place }))
    }

    /// The log from a block at `start` on, in which the first record starts at `first`.
    fn track(&self, start: Lsn, first: Lsn) -> LogState {
        let begun = self.volume.as_ref().and_then(VolumeReader::start);
        let chain = begun.filter(|begun| begun.first_lsn.get() == start).map(|begun| begun.chain);
        LogState::anywhere(self.segment_size, start, first, chain)
    }

    /// Gives up what lies between what has been seen and `to`, and forgets where records start: the next block that
    /// tells is where reading goes on.
    pub(super) fn pass_over(&mut self, to: Lsn) {
        if self.started {
            self.pass_over_to(to);
        }
        self.seen = self.seen.max(to);
        self.log = None;
        self.computed = None;
    }

    fn pass_over_to(&mut self, to: Lsn) {
        let from = self.seen;
        self.notes.push(Note::Skipped { from, to });
        match self.missing.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => self.missing.push((from, to)),
        }
    }

    /// `start..end` is there after all.
    fn found(&mut self, start: Lsn, end: Lsn) {
        let parts = std::mem::take(&mut self.missing);
        for (from, to) in parts {
            for (from, to) in [(from, to.min(start)), (from.max(end), to)] {
                if from < to {
                    self.missing.push((from, to));
                }
            }
        }
    }

    fn check_segment(&mut self, place: Place, said: &SegmentEnd) -> Result<(), ReadError> {
        let segment = said.segment.get();
        match (self.computed, self.log.as_mut()) {
            (Some(computed), _) if computed.segment.get() == segment => {
                let what = if computed.hash != said.hash {
                    "segment"
                } else if computed.chain != said.chain {
                    "chain"
                } else {
                    return Ok(());
                };
                self.wrong(ReadError::Hash { place, segment, what })
            }
            (_, Some(log))
                if segment.checked_add(1).and_then(|next| next.checked_mul(self.segment_size))
                    == Some(log.position()) =>
            {
                log.trust(said.chain);
                Ok(())
            }
            // Of a segment that has been passed, or not been reached.
            _ => Ok(()),
        }
    }

    fn leave_volume(&mut self) {
        let Some(volume) = self.volume.take() else { return };
        self.before = Some((volume.label.volume, volume.name.clone()));
        self.wanted = Wanted { sequence: self.wanted.sequence.saturating_add(1), name: None, lsn: self.seen };
    }

    fn open_next(&mut self) -> Result<(), ReadError> {
        self.wanted.lsn = self.seen;
        self.wanted.name = self.source.name_of(self.wanted.sequence);
        let Some(medium) = self.source.volume(&self.wanted)? else {
            return self.no_volume();
        };
        let mut volume = VolumeReader::open(medium)?;
        let mut within = Begin::Log;
        self.blocks += 1;
        if volume.is_encrypted() {
            let name = volume.name().clone();
            let key = self.source.key(&name, volume.wrapped_key()?)?;
            volume.unlock(key)?;
        }
        let stranger = |why: String| ReadError::Stranger { volume: volume.name.to_string(), why };
        let Some(start) = volume.start.as_ref() else {
            return Err(stranger("it was never used".into()));
        };
        if !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&start.segment_size.get()) {
            return Err(stranger(format!("its segments have the impossible size {}", start.segment_size)));
        }
        if start.sequence.get() != self.wanted.sequence {
            let why = format!("it is number {} of its set, not {}", start.sequence, self.wanted.sequence);
            return Err(stranger(why));
        }
        match self.stream {
            None => {
                self.stream = Some((volume.stream, volume.timeline));
                self.segment_size = start.segment_size.get();
                if self.begin == Begin::Log {
                    if start.first_lsn.get() != 0 {
                        return Err(stranger(format!("it begins at LSN {:#x}, not with the log", start.first_lsn)));
                    }
                    self.log = Some(LogState::origin(self.segment_size));
                    self.started = true;
                } else {
                    self.seen = start.first_lsn.get();
                    within = self.begin;
                }
            }
            Some((stream, timeline)) if stream != volume.stream || timeline != volume.timeline => {
                let uuid = Uuid::from_bytes(volume.stream);
                return Err(stranger(format!("it belongs to stream {uuid}, timeline {}", volume.timeline)));
            }
            Some(_) if start.segment_size.get() != self.segment_size => {
                return Err(stranger("its segments have another size".into()));
            }
            Some(_) => {}
        }
        let (first_lsn, chain, predecessor) = (start.first_lsn.get(), start.chain, start.predecessor);
        let place = Place { volume: volume.name.clone(), block: 0 };
        if let Some((uuid, name)) = &self.before {
            if *uuid != predecessor {
                let why = format!("it was written after another volume than '{name}'");
                return Err(stranger(why));
            }
            if self.trailer.is_none() {
                self.notes.push(Note::NoTrailer(name.clone()));
            }
        }
        self.trailer = None;
        if let Begin::Within(_, position) = within {
            volume.seek(position)?;
        }
        self.volume = Some(volume);
        if self.on_gap == OnGap::Search && first_lsn > self.seen {
            return Err(self.missing_range(Some(first_lsn)));
        }
        if let Some(log) = self.log.as_ref() {
            let same = log.position() >= first_lsn && first_lsn / self.segment_size == log.segment();
            if let (true, Some(known)) = (same, log.chain()) {
                if known != chain {
                    let segment = log.segment().saturating_sub(1);
                    return self.wrong(ReadError::Hash { place, segment, what: "chain" });
                }
            }
        }
        Ok(())
    }

    fn missing_range(&mut self, to: Option<Lsn>) -> ReadError {
        let to = self.behind_gap.into_iter().chain(to).min();
        ReadError::MissingRange { from: self.seen, to, damages: std::mem::take(&mut self.damages) }
    }

    /// The volume that is due is not to be had: the end, or a hole.
    fn no_volume(&mut self) -> Result<(), ReadError> {
        let wanted = self.wanted.clone();
        if let Some(next) = self.source.next_after(wanted.sequence) {
            self.wrong(ReadError::MissingVolume { wanted })?;
            self.before = None;
            self.wanted.sequence = next;
            return Ok(());
        }
        if self.before.is_none() {
            return Err(ReadError::MissingVolume { wanted });
        }
        let damaged = self.behind_gap.is_some() || !self.damages.is_empty();
        if self.on_gap == OnGap::Search && damaged && !self.accept_end {
            return Err(self.missing_range(None));
        }
        let reason = self.trailer.map(|trailer| trailer.reason.get());
        self.end = Some(LogEnd {
            lsn: self.seen,
            goes_on: (reason == Some(TRAILER_FULL)).then_some(wanted),
            closed: reason == Some(TRAILER_CLOSED),
            cut: 0,
        });
        Ok(())
    }
}
