// SPDX-License-Identifier: GPL-2.0

//! Checkpoints: the consumer has the state of the tree put into the log, an object at a time.
//!
//! One is open at a time. It is void as soon as the log is not the whole story from its beginning on: when a gap
//! begins, when the consumer goes, when the mount does.
//!
//! What is put into the log for it is no change. So it stands in the line for room like everybody, and is refused where
//! changes are refused or go unrecorded, but it never makes a gap begin.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::attach::{errno, Consumer, ENOTCONN, EPROTO, ESTALE};
use super::book::{Claim, Need};
use super::gap::Spell;
use super::log::{Log, Phase, State};
use super::room::Room;
use super::wait::{Admission, Verdict};
use crate::format::record::{Body, CheckpointBeginBody, CheckpointEndBody, Lsn, RecordType, RECORD_ALIGN};
use crate::format::uapi::{Checkpoint, State as Request, Unnamed, CHECKPOINT_BEGIN, CHECKPOINT_END, CHECKPOINT_STOP};

/// What a log asks of the objects whose changes it has. All of it may sleep.
///
/// Called from the consumer's tasks, without locks and without room. It outlives the mount; then the answer is `ENODEV`.
pub(crate) trait Objects: Send + Sync {
    /// Puts the state of an object, or a part of it, into the log, under the object's lock: what `REELFS_IOC_STATE` does,
    /// the checkpoint looked at before. Room is taken with [`Log::try_reserve_for`].
    fn tell(&self, log: &Log, request: &mut Request) -> Result;
    /// The objects in use that have no name: what `REELFS_IOC_UNNAMED` does.
    fn unnamed(&self, request: &mut Unnamed) -> Result;
}

impl State {
    /// What keeps this consumer from having something put into the log: `ENOTCONN`, `ENODEV`.
    fn serves(&self, consumer: &Arc<Consumer>) -> Result {
        if !self.is_consumer(consumer) {
            return Err(errno(ENOTCONN));
        }
        if self.phase != Phase::Open {
            return Err(ENODEV);
        }
        Ok(())
    }

    /// What keeps a record that is no change out of the log: `ENODEV` the mount is gone; `EIO` for good; `EAGAIN` changes
    /// are not recorded now.
    fn takes_states(&self) -> Result {
        if self.phase != Phase::Open {
            return Err(ENODEV);
        }
        if self.broken {
            return Err(EIO);
        }
        match self.admits() {
            Ok(Admission::Record | Admission::Wait) => Ok(()),
            Ok(Admission::Aside) | Err(_) => Err(EAGAIN),
        }
    }

    /// The same for a record of this checkpoint; `ESTALE` if it is not the open one.
    fn takes_states_of(&self, checkpoint: Lsn) -> Result {
        if self.phase == Phase::Open && self.checkpoint != Some(checkpoint) {
            return Err(errno(ESTALE));
        }
        self.takes_states()
    }
}

impl Log {
    /// What `REELFS_IOC_CHECKPOINT` does. Sleeps, killable.
    pub(crate) fn checkpoint(&self, consumer: &Arc<Consumer>, request: &mut Checkpoint) -> Result {
        if request.reserved != 0 {
            return Err(errno(EPROTO));
        }
        match request.operation {
            CHECKPOINT_BEGIN => {
                let body = CheckpointBeginBody { flags: 0.into(), reserved: 0.into() };
                let vacant = |state: &State| {
                    state.serves(consumer)?;
                    if state.checkpoint.is_some() {
                        return Err(EBUSY);
                    }
                    state.takes_states()
                };
                self.publish_when(&vacant, RecordType::CheckpointBegin, &body, |state, begin, end| {
                    state.checkpoint = Some(begin);
                    request.begin = begin;
                    request.lsn = end;
                    request.root = zerocopy::transmute!(state.root);
                })
            }
            CHECKPOINT_END => {
                let checkpoint = request.begin;
                let body = CheckpointEndBody {
                    checkpoint: checkpoint.into(),
                    objects: request.objects.into(),
                    bytes: request.bytes.into(),
                    reserved: 0.into(),
                };
                let open = |state: &State| {
                    state.serves(consumer)?;
                    state.takes_states_of(checkpoint)
                };
                self.publish_when(&open, RecordType::CheckpointEnd, &body, |state, _, end| {
                    state.checkpoint = None;
                    // The log has all of the tree, from the begin record on. (The mark says so when it is written next, at
                    // the unmount: by then whoever believes it has the end record, too.)
                    state.populated = false;
                    state.gaps.lacks = None;
                    request.lsn = end;
                })
            }
            CHECKPOINT_STOP => {
                let mut state = self.state.lock();
                state.serves(consumer)?;
                state.checkpoint = None;
                request.lsn = state.book.committed();
                Ok(())
            }
            _ => Err(errno(EPROTO)),
        }
    }

    /// Commits a record about the root that is no change, as soon as there is room for it, and has `done` note that, told
    /// where it begins and ends: nobody else commits anything in between. Sleeps, killable.
    fn publish_when<B: Body>(
        &self,
        allowed: &dyn Fn(&State) -> Result,
        kind: RecordType,
        body: &B,
        done: impl FnOnce(&mut State, Lsn, Lsn),
    ) -> Result {
        let need = self.need::<B>(0, RECORD_ALIGN)?;
        // Whoever comes now stands behind those who wait already.
        let mut last = true;
        loop {
            {
                let mut state = self.state.lock();
                allowed(&state)?;
                let turn = !last || state.book.fits_beside(&need, &state.line);
                if turn && state.admits() == Ok(Admission::Record) {
                    let (root, begin) = (state.root, state.book.committed());
                    if let Some(end) = self.publish_own(&mut state, Claim::Ordinary, kind, root, body) {
                        done(&mut state, begin, end);
                        return Ok(());
                    }
                }
            }
            self.wait_without_gap(&need, allowed)?;
            last = false;
        }
    }

    /// What `REELFS_IOC_STATE` does. Sleeps, killable.
    pub(crate) fn tell(&self, consumer: &Arc<Consumer>, request: &mut Request) -> Result {
        {
            let state = self.state.lock();
            state.serves(consumer)?;
            state.takes_states_of(request.checkpoint)?;
        }
        self.objects.tell(self, request)
    }

    /// What `REELFS_IOC_UNNAMED` does. Sleeps, killable.
    pub(crate) fn unnamed(&self, consumer: &Arc<Consumer>, request: &mut Unnamed) -> Result {
        self.state.lock().serves(consumer)?;
        self.objects.unnamed(request)
    }

    /// [`Log::wait_room`] for a record of this checkpoint. `ESTALE` it is not open any more; `EAGAIN` changes are not
    /// recorded now; `ENODEV`, `EINTR`, `E2BIG`.
    pub(crate) fn wait_room_for<B: Body>(&self, checkpoint: Lsn, payload_max: usize) -> Result {
        let need = self.need::<B>(payload_max, RECORD_ALIGN)?;
        self.wait_without_gap(&need, &|state| state.takes_states_of(checkpoint))
    }

    /// [`Log::try_reserve`] for a record of this checkpoint: the room is in the ring. Errors as above.
    pub(crate) fn try_reserve_for<B: Body>(&self, checkpoint: Lsn, payload_max: usize) -> Result<Option<Room<'_, B>>> {
        self.state.lock().takes_states_of(checkpoint)?;
        match self.try_reserve(payload_max, RECORD_ALIGN) {
            // A gap began just now.
            Ok(Some(room)) if !room.is_recorded() => Err(EAGAIN),
            Err(EIO) => Err(self.why_not(&|state| state.takes_states_of(checkpoint))),
            other => other,
        }
    }

    /// Waits for room, and where it would be time to begin a gap, gives up instead: `EAGAIN`.
    fn wait_without_gap(&self, need: &Need, allowed: &dyn Fn(&State) -> Result) -> Result {
        match self.wait_in_line(need, allowed) {
            Ok(Verdict::Go) => allowed(&self.state.lock()),
            Ok(Verdict::Degrade) => {
                // It was claimed for this caller, and the next one who waits for a change is to have it.
                self.state.lock().gaps.spell = Spell::None;
                self.wake_everybody();
                Err(EAGAIN)
            }
            Err(EIO) => Err(self.why_not(allowed)),
            Err(error) => Err(error),
        }
    }

    /// The policy said no a moment ago.
    fn why_not(&self, allowed: &dyn Fn(&State) -> Result) -> Error {
        allowed(&self.state.lock()).err().unwrap_or(EAGAIN)
    }
}
