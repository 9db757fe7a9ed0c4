// SPDX-License-Identifier: GPL-2.0-or-later

//! Which volume the log goes on: the one that was written last, where it can be gone on with, or a new one.

use anyhow::{anyhow, bail, Result};
use reelfs_format::record::Lsn;
use reelfs_format::volume::TRAILER_FULL;
use reelfs_keys::Recipients;
use reelfs_media::key::Lock;
use reelfs_media::label;
use reelfs_media::library::Supply;
use reelfs_media::writer::{Inspection, Stream, VolumeWriter, WriteError};
use reelfs_media::{Checkpoint, LogState, Medium};
use uuid::Uuid;

use super::{fatal, Fault, Streamer, Writer, CHUNK};
use crate::keyring;
use crate::state::{State, Volume, VolumeState};

impl Streamer {
    /// The volume to write on, or `None` when told to stop while waiting for one.
    pub(super) fn open(&mut self, state: &mut State) -> Result<Option<Writer>, Fault> {
        let geometry = *self.spool.geometry();
        let stream = Stream { uuid: geometry.stream, timeline: geometry.timeline, origin: self.origin.clone() };
        let writing = |last: &&Volume| matches!(last.state, VolumeState::Open | VolumeState::Planned);
        keyring::sweep(self.spool.path(), state.last().filter(writing).map(|last| last.uuid));
        let unfinished = state.last().filter(|last| last.state == VolumeState::Open).map(|last| last.uuid);
        if let Some(uuid) = unfinished {
            let pool = self.pool.clone();
            let Some((medium, found)) =
                self.wait_for(|library| library.unfinished(&pool, &geometry.stream, Some(uuid)))?
            else {
                return Ok(None);
            };
            if found.trailer.is_some() {
                self.adopt(state, &found)?;
            } else if let Some(writer) = self.go_on(state, medium, found, &stream)? {
                return Ok(Some(writer));
            }
        }
        let pool = self.pool.clone();
        let planned = state.last().filter(|last| last.state == VolumeState::Planned).map(|last| last.uuid);
        if let Some(uuid) = planned {
            state.volumes.pop();
            // We ended when it was about to be begun: it was, or it is as good as any other.
            if let Ok(Supply::Volume(medium, found)) = self.library.unfinished(&pool, &geometry.stream, Some(uuid)) {
                if let Some(writer) = self.go_on(state, medium, *found, &stream)? {
                    return Ok(Some(writer));
                }
            }
        }
        let sequence = state.last().map_or(1, |last| last.sequence + 1);
        let Some((medium, found)) = self.wait_for(|library| library.blank(&pool, sequence))? else { return Ok(None) };
        let (chain, predecessor) = (state.chain().map_err(fatal)?, state.predecessor());
        let log = self.log_at(state.proven, geometry.number(state.proven), chain, state.checkpoint())?;
        let uuid = Uuid::from_bytes(found.label.volume);
        state.volumes.push(Volume {
            uuid,
            name: label::name(&found.label),
            sequence,
            first: state.proven,
            proven: state.proven,
            state: VolumeState::Planned,
        });
        self.keep(state)?;
        let lock = self.coders.recipients.as_ref().map(Recipients::lock).transpose().map_err(fatal)?;
        if let Some(lock) = &lock {
            // First here: a volume that was begun with a key that nobody has could not be gone on with.
            keyring::save(self.spool.path(), uuid, lock).map_err(fatal)?;
        }
        fail::fail_point!("volume-before-begin");
        let (pool, coding) = (label::pool_uuid(&pool), self.coders.with(lock));
        let writer = VolumeWriter::begin(medium, pool, stream, predecessor.as_ref(), log, coding)?;
        fail::fail_point!("volume-after-begin");
        log::info!("volume '{}' begins at LSN {:#x}", writer.name(), state.proven);
        self.save(state, &writer, VolumeState::Open)?;
        Ok(Some(writer))
    }

    /// Goes on with a volume that is not finished. `None` if it is left behind as it is: because its key is lost, or
    /// because the log is to be encrypted from now on and it is not.
    fn go_on(
        &self,
        state: &mut State,
        medium: Box<dyn Medium>,
        found: Inspection,
        stream: &Stream,
    ) -> Result<Option<Writer>, Fault> {
        let fingerprint = found.start.map(|start| start.key).filter(|key| *key != [0; 32]);
        let Some(fingerprint) = fingerprint else {
            let mut writer = self.resume(state, medium, found, stream, None)?;
            if self.coders.recipients.is_none() {
                return Ok(Some(writer));
            }
            log::info!("volume '{}' is not encrypted: it is closed, and the next one is", writer.name());
            writer.finish(TRAILER_FULL)?;
            self.save(state, &writer, VolumeState::Finished)?;
            return Ok(None);
        };
        let lock = keyring::load(self.spool.path(), Uuid::from_bytes(found.label.volume));
        match lock.filter(|lock| lock.key.fingerprint() == fingerprint) {
            Some(lock) => self.resume(state, medium, found, stream, Some(lock)).map(Some),
            None => self.leave(state, medium, &found).map(|()| None),
        }
    }

    /// Leaves an encrypted volume behind whose key is lost here. What is on it can be read by those for whom it was
    /// encrypted.
    fn leave(&self, state: &mut State, mut medium: Box<dyn Medium>, found: &Inspection) -> Result<(), Fault> {
        let geometry = *self.spool.geometry();
        let chain = state.chain().map_err(fatal)?;
        let log = match self.log_at(state.proven, geometry.number(state.proven), chain, state.checkpoint()) {
            Ok(log) => log,
            // The spool no longer has that; what the volume holds has to be taken on its word.
            Err(_) => {
                let log = self.reached(state, found)?;
                medium.write_filemark().map_err(WriteError::from)?;
                log
            }
        };
        let Some(start) = found.start.as_ref() else { return Ok(()) };
        let name = label::name(&found.label);
        self.status.error(format!(
            "the key of volume '{name}' is not in {}: the volume is left as it is, and the log goes on from LSN {:#x} on the              next one. Whoever it was encrypted for can read it",
            self.spool.path().display(),
            log.position()
        ));
        let volume = Volume {
            uuid: Uuid::from_bytes(found.label.volume),
            name,
            sequence: start.sequence.get(),
            first: start.first_lsn.get(),
            proven: log.position(),
            state: VolumeState::Abandoned,
        };
        state.note(volume, &log);
        self.keep(state)
    }

    fn resume(
        &self,
        state: &mut State,
        medium: Box<dyn Medium>,
        found: Inspection,
        stream: &Stream,
        lock: Option<Lock>,
    ) -> Result<Writer, Fault> {
        let log = self.reached(state, &found)?;
        log::info!("volume '{}' is gone on with at LSN {:#x}", label::name(&found.label), found.next_lsn);
        let writer = VolumeWriter::resume(medium, found, stream.clone(), log, self.coders.with(lock))?;
        self.save(state, &writer, VolumeState::Open)?;
        Ok(writer)
    }

    /// The end of what is on a volume, which has to be within what is known of the log.
    fn reached(&self, state: &State, found: &Inspection) -> Result<LogState, Fault> {
        let (segment, chain) = found
            .resume_segment()
            .ok_or_else(|| fatal(anyhow!("volume '{}' has no start", label::name(&found.label))))?;
        if found.next_lsn < state.proven {
            return Err(fatal(anyhow!(
                "volume '{}' reaches LSN {:#x}, but {:#x} had been proven to be on it; start with --new-volume to go on \
                 with another one",
                label::name(&found.label),
                found.next_lsn,
                state.proven
            )));
        }
        if found.next_lsn > self.status.spooled() {
            return Err(fatal(anyhow!(
                "volume '{}' reaches LSN {:#x}, beyond the end of the spool, {:#x}: this is not the spool it was \
                 written from",
                label::name(&found.label),
                found.next_lsn,
                self.status.spooled()
            )));
        }
        self.log_at(found.next_lsn, segment, chain, known_checkpoint(state, found))
    }

    /// Notes a volume that was finished without our remembering it.
    fn adopt(&self, state: &mut State, found: &Inspection) -> Result<(), Fault> {
        let Some((start, trailer)) = found.start.as_ref().zip(found.trailer.as_ref()) else { return Ok(()) };
        let position = trailer.last_lsn.get();
        let geometry = self.spool.geometry();
        let volume = Volume {
            uuid: Uuid::from_bytes(found.label.volume),
            name: label::name(&found.label),
            sequence: start.sequence.get(),
            first: start.first_lsn.get(),
            proven: position,
            state: VolumeState::Finished,
        };
        let log = self.log_at(position, geometry.number(position), trailer.chain, known_checkpoint(state, found))?;
        state.note(volume, &log);
        self.keep(state)
    }

    /// The place `lsn` in the log, with the hash of its segment up to there. `chain` is the chain hash after the
    /// segment before `segment`, which is the segment of `lsn` or an earlier one.
    /// `checkpoint` is the last one known to be complete below `lsn`.
    fn log_at(&self, lsn: Lsn, segment: u64, chain: [u8; 32], checkpoint: Checkpoint) -> Result<LogState, Fault> {
        let geometry = *self.spool.geometry();
        let start = geometry.start(segment);
        if lsn == start && lsn == 0 {
            return Ok(LogState::origin(geometry.segment_size));
        }
        let first = self.spool.segments().map_err(fatal)?.into_iter().find(|found| found.number == segment);
        let first = match first.and_then(|found| found.first_record) {
            Some(first) => first,
            // Exactly at the end of the log, and of a segment.
            None if lsn == start && lsn == self.status.spooled() => lsn,
            None => {
                return Err(fatal(anyhow!(
                    "segment {segment} is needed to go on at LSN {lsn:#x} and is not in the spool"
                )))
            }
        };
        let mut log = LogState::at_segment(geometry.segment_size, segment, first, chain).with_checkpoint(checkpoint);
        let mut buffer = vec![0; CHUNK];
        while log.position() < lsn {
            let length = usize::try_from(lsn - log.position()).unwrap_or(CHUNK).min(CHUNK).min(log.room());
            self.read_exactly(log.position(), &mut buffer[..length])?;
            log.feed(&buffer[..length])
                .map_err(|error| fatal(anyhow!("spool at LSN {:#x}: {error}", log.position())))?;
        }
        Ok(log)
    }

    /// What is known about the media from the file, or, where it is lost, from the media.
    pub(super) fn find_state(&mut self) -> Result<Option<State>> {
        let geometry = *self.spool.geometry();
        let stream = Uuid::from_bytes(geometry.stream);
        if let Some(state) = State::load(self.spool.path())? {
            if state.stream != stream || state.timeline != geometry.timeline {
                bail!("media.json belongs to stream {}, the spool to {stream}", state.stream);
            }
            if state.pool != self.pool {
                bail!(
                    "the log has been going to pool '{}', not '{}'; changing pools is not possible yet",
                    state.pool,
                    self.pool
                );
            }
            return Ok(Some(state));
        }
        let mut state = State::new(stream, geometry.timeline, &self.pool);
        let oldest = self.spool.segments()?.first().map_or(0, |segment| segment.number);
        if self.status.spooled() > 0 {
            log::warn!("media.json is not there; looking for the last volume of the stream");
            let pool = self.pool.clone();
            let found = match self.library.unfinished(&pool, &geometry.stream, None) {
                Ok(Supply::Volume(_, found)) => Some(*found),
                // All of the log is still here: begin anew, and readers accept the repetition.
                Ok(Supply::Waiting(_)) if oldest == 0 => None,
                Ok(Supply::Waiting(_)) | Err(_) => {
                    match self.wait_for(|library| library.unfinished(&pool, &geometry.stream, None)) {
                        Ok(Some((_, found))) => Some(found),
                        Ok(None) => return Ok(None),
                        Err(Fault::Fatal(error)) => return Err(error),
                        Err(Fault::Medium(error)) => return Err(error.into()),
                    }
                }
            };
            if let Some((found, start)) = found.as_ref().and_then(|found| Some((found, found.start.as_ref()?))) {
                let volume = Volume {
                    uuid: Uuid::from_bytes(found.label.volume),
                    name: label::name(&found.label),
                    sequence: start.sequence.get(),
                    first: start.first_lsn.get(),
                    proven: start.first_lsn.get(),
                    state: VolumeState::Open,
                };
                // No more than where the volume begins is taken on trust; resuming it finds the rest.
                state.proven = start.first_lsn.get();
                state.chain = hex::encode(start.chain);
                state.volumes.push(volume);
            }
        }
        state.save(self.spool.path())?;
        Ok(Some(state))
    }
}

/// The last checkpoint complete below where a volume ends, by what is remembered and by what the volume says.
fn known_checkpoint(state: &State, found: &Inspection) -> Checkpoint {
    let said = found.segment_end.as_ref().and_then(Checkpoint::said).unwrap_or_default();
    [said, state.checkpoint()].into_iter().max_by_key(|checkpoint| checkpoint.end).unwrap_or_default()
}
