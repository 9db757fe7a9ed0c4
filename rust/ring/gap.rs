// SPDX-License-Identifier: GPL-2.0

//! Gaps: going on without the log (`onstall=degrade`), and coming back to it.
//!
//! A gap begins where the log can take no more records and the policy says that the mount goes on. Then, in this order:
//!
//! 1. nobody gets room any more, and those who have some finish: each of their changes is in the log as a whole;
//! 2. the record of the gap is committed, into room that is always kept. All before it is the whole truth;
//! 3. the mark on the tree below says that changes are missing, durably, and the tree below is synced;
//! 4. operations go on: they get memory instead of room, and what they put into it is dropped and counted.
//!
//! It ends when the consumer has acknowledged everything, the record of the gap included:
//!
//! 5. nobody gets anything, and those whose changes are not recorded finish;
//! 6. the record of its end is committed, and from there on the log has everything that follows.
//!
//! So an operation is either in the log or in the gap, never both. What changed meanwhile is in no log until the tree
//! is put into it again; the mark remembers that beyond the mount.
//!
//! Steps 1 to 4 are made by the first one who has waited too long, killable until the record is there.

use kernel::prelude::*;
use kernel::str::BStr;

use super::book::Claim;
use super::log::{Entry, Log, Lower, Phase, State};
use super::sys;
use crate::format::mark::{Mark, MARK_CLEAN, MARK_LEN};
use crate::format::record::{
    record_len, Body, GapBody, GapEndBody, Identity, Lsn, RecordType, GAP_DEGRADED, RECORD_ALIGN,
};
use crate::vfs::wait::{Check, Turn};

/// How far a gap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spell {
    /// There is none: changes are recorded.
    None,
    /// Step 1.
    Beginning,
    /// Step 3.
    Syncing,
    /// Step 4.
    Degraded,
    /// Step 5.
    Ending,
}

/// Changes that are in no log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Missing {
    pub(super) changes: u64,
    pub(super) bytes: u64,
}

impl Missing {
    fn add(&mut self, bytes: u64) {
        self.changes = self.changes.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What a log knows of its gaps.
pub(super) struct Gaps {
    pub(super) spell: Spell,
    /// The consumer gave a sign of life in step 1.
    relieved: bool,
    /// Operations under way that are not recorded.
    aside: u64,
    /// LSN of the record of the gap, once it is in the log.
    begin: Option<Lsn>,
    /// When it began, nanoseconds since 1970-01-01 UTC; zero without a gap.
    pub(super) since: i64,
    /// Of this gap.
    missing: Missing,
    /// Of all gaps of the mount.
    pub(super) total: Missing,
    /// How many there were.
    pub(super) count: u64,
    /// The tree has changes that no log has, made after the log had come to here.
    pub(super) lacks: Option<Lsn>,
}

impl Gaps {
    pub(super) const NONE: Gaps = Gaps {
        spell: Spell::None,
        relieved: false,
        aside: 0,
        begin: None,
        since: 0,
        missing: Missing { changes: 0, bytes: 0 },
        total: Missing { changes: 0, bytes: 0 },
        count: 0,
        lacks: None,
    };

    /// Whether operations are under way that go into no log, or may be at any moment.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.spell, Spell::Syncing | Spell::Degraded | Spell::Ending)
    }

    /// A gap is to begin, if none is under way. Whether the caller is the one to see to it.
    pub(super) fn claim(&mut self) -> bool {
        if self.spell != Spell::None {
            return false;
        }
        self.spell = Spell::Beginning;
        self.relieved = false;
        true
    }

    /// The consumer gave a sign of life.
    pub(super) fn relieve(&mut self) {
        self.relieved = true;
    }

    /// An operation that will not be recorded begins.
    pub(super) fn enter(&mut self) {
        self.aside += 1;
    }
}

impl Log {
    /// Begins the gap that the caller has [claimed](Gaps::claim). Sleeps, killable at first; to be called without room.
    ///
    /// `EINTR` killed before anything was done.
    pub(super) fn degrade(&self) -> Result {
        let begun = self.durable.wait_killable(Turn::All, || {
            let mut state = self.state.lock();
            if state.gaps.relieved {
                return Check::Done(false);
            }
            if state.book.held() > 0 {
                return Check::Sleep;
            }
            self.open_gap(&mut state);
            Check::Done(true)
        });
        if !matches!(begun, Ok(true)) {
            // It is not needed after all, or somebody else will see to it.
            self.state.lock().gaps.spell = Spell::None;
            self.wake_everybody();
            return begun.map(|_| ());
        }
        {
            let control = self.control.lock();
            if let Some(lower) = &*control {
                if let Err(error) = self.mark_gap(&**lower) {
                    pr_warn!("ring {}: the gap could not be noted on the tree below ({:?})\n", self.id(), error);
                }
                if let Err(error) = lower.sync() {
                    pr_warn!("ring {}: the tree below could not be synced ({:?})\n", self.id(), error);
                }
            }
        }
        let begin = {
            let mut state = self.state.lock();
            state.gaps.spell = Spell::Degraded;
            state.gaps.begin.or(state.gaps.lacks).unwrap_or(0)
        };
        self.wake_everybody();
        pr_warn!(
            "ring {}: the log of {} takes no records, so it has a gap (onstall=degrade): changes from LSN {:#x} on are in no \
             log, and fsync means the filesystem below alone. See to its spooler (reel status): when that has caught up, \
             changes are recorded again, but those of the gap stay missing\n",
            self.id(),
            BStr::from_bytes(&self.source),
            begin
        );
        Ok(())
    }

    /// Nobody holds room: the record of the gap, if there is a log yet.
    fn open_gap(&self, state: &mut State) {
        state.gaps.spell = Spell::Syncing;
        state.gaps.since = sys::real_time();
        state.gaps.missing = Missing::default();
        state.gaps.count += 1;
        state.gaps.begin = None;
        // What is put into the log for it would rest on changes that are not there.
        state.checkpoint = None;
        if state.phase == Phase::Open {
            self.publish_gap(state);
        }
    }

    /// Puts the beginning of the gap into the log. Room for it is always kept.
    pub(super) fn publish_gap(&self, state: &mut State) {
        let begin = state.book.committed();
        let body = GapBody { reason: GAP_DEGRADED.into(), reserved: 0.into(), bytes: 0.into(), changes: 0.into() };
        self.publish_kept(state, RecordType::Gap, &body);
        state.gaps.begin = Some(begin);
        state.gaps.lacks.get_or_insert(begin);
    }

    /// Puts the end of the gap into the log.
    pub(super) fn publish_gap_end(&self, state: &mut State) {
        let missing = state.gaps.missing;
        let body = GapEndBody {
            begin: state.gaps.begin.unwrap_or(0).into(),
            since: state.gaps.since.into(),
            changes: missing.changes.into(),
            bytes: missing.bytes.into(),
            reason: GAP_DEGRADED.into(),
            reserved: 0.into(),
        };
        self.publish_kept(state, RecordType::GapEnd, &body);
        state.gaps.spell = Spell::None;
        state.gaps.since = 0;
    }

    /// Commits a record of the log's own, into room that is kept.
    pub(super) fn publish_kept<B: Body>(&self, state: &mut State, kind: RecordType, body: &B) -> Option<Lsn> {
        self.publish_own(state, Claim::Kept, kind, Identity::NONE, body)
    }

    /// Takes room for a record without a payload, and commits it at once. `None`, and nothing done, without room.
    pub(super) fn publish_own<B: Body>(
        &self,
        state: &mut State,
        claim: Claim,
        kind: RecordType,
        object: Identity,
        body: &B,
    ) -> Option<Lsn> {
        let need = self.need::<B>(0, RECORD_ALIGN).ok()?;
        let taken = state.book.take(&need, claim)?;
        let entry = Entry { kind, flags: 0, object, body, payload_len: 0, payload_crc: 0 };
        self.publish(state, taken, &entry)
    }

    /// Notes on the tree below that the log lacks changes.
    fn mark_gap(&self, lower: &dyn Lower) -> Result {
        let known = {
            let state = self.state.lock();
            let lacks = state.lacks();
            (state.phase != Phase::Fresh).then(|| Mark::new(0, state.stream, state.epoch, state.first_lsn, 0, lacks))
        };
        let mark = match known {
            Some(mark) => mark,
            // There is no log yet. A tree without a mark that is not empty counts as populated when it is mounted again.
            None => {
                let mut value = [0; MARK_LEN];
                let Some(length) = lower.read_mark(&mut value)? else { return Ok(()) };
                let old = value.get(..length).and_then(|value| Mark::parse(value).ok()).ok_or(EINVAL)?;
                let lacks = old.gap().unwrap_or(old.next_lsn.get());
                self.state.lock().gaps.lacks = Some(lacks);
                let clean = if old.is_clean() { MARK_CLEAN } else { 0 };
                Mark::new(clean, old.stream, old.epoch.get(), old.next_lsn.get(), old.synced_lsn.get(), Some(lacks))
            }
        };
        lower.write_mark(&zerocopy::transmute!(mark))
    }

    /// After an acknowledgement, or with a new consumer: the gap ends if all there was is acknowledged.
    pub(super) fn catch_up(&self, state: &mut State) -> Option<Closed> {
        let caught_up = state.gaps.spell == Spell::Degraded
            && state.phase == Phase::Open
            && state.consumer.is_some()
            && state.book.backlog() == 0;
        if !caught_up {
            return None;
        }
        state.gaps.spell = Spell::Ending;
        self.close_gap(state)
    }

    /// Nothing goes unrecorded any more: the record of the end.
    fn close_gap(&self, state: &mut State) -> Option<Closed> {
        if state.gaps.spell != Spell::Ending || state.gaps.aside > 0 {
            return None;
        }
        let missing = state.gaps.missing;
        self.publish_gap_end(state);
        Some(Closed { missing, end: state.book.committed() })
    }

    /// A gap may have been closed: lets those know who wait, and the operator. To be called without locks.
    pub(super) fn closed(&self, closed: Option<Closed>) {
        let Some(Closed { missing, end }) = closed else { return };
        self.wake_everybody();
        pr_notice!(
            "ring {}: recording again from LSN {:#x} on; {} changes ({} bytes of records) are in no log\n",
            self.id(),
            end,
            missing.changes,
            missing.bytes
        );
    }

    /// An operation that is not recorded is over, with a change that would have made a record with this payload, or
    /// without one.
    pub(super) fn passed<B: Body>(&self, payload_len: Option<usize>) {
        let length = payload_len.map(|payload_len| record_len(B::HEAD_LEN, payload_len).unwrap_or(payload_len) as u64);
        let closed = {
            let mut state = self.state.lock();
            state.gaps.aside = state.gaps.aside.saturating_sub(1);
            if let Some(length) = length {
                state.gaps.missing.add(length);
                state.gaps.total.add(length);
            }
            self.close_gap(&mut state)
        };
        self.closed(closed);
    }

    /// The mount is gone: a gap that is open ends here.
    pub(super) fn end_gap_at_unmount(&self, state: &mut State) {
        if state.gaps.is_open() {
            self.publish_gap_end(state);
        }
    }
}

/// A gap that has just ended.
#[must_use]
pub(super) struct Closed {
    missing: Missing,
    /// LSN behind the record of its end.
    end: Lsn,
}
