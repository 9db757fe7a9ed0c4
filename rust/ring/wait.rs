// SPDX-License-Identifier: GPL-2.0

//! Waiting for a log: for room, for a user's share of it, for durability; and when the policy ends that.
//!
//! A wait is killable. It ends by the policy where the consumer has acknowledged nothing for too long while somebody
//! waited; those who come after the first one wait no longer than he does.

use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Relaxed};
use kernel::time::{msecs_to_jiffies, Instant};

use super::book::{Claim, Need};
use super::gap::Spell;
use super::log::{Log, Onstall, Phase, Policy, State};
use super::sys;
use crate::format::record::{Body, Lsn};
use crate::vfs::wait::{Check, Turn};

/// How an operation may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// With room in the ring.
    Record,
    /// Without being recorded.
    Aside,
    /// Not yet.
    Wait,
}

/// How a wait for the log ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be tried again.
    Go,
    /// It has lasted too long: the caller is to begin a gap.
    Degrade,
}

impl State {
    /// How an operation may go on. `EIO`: not at all, by policy or for good.
    pub(super) fn admits(&self) -> Result<Admission> {
        let onstall = self.policy.onstall;
        let alone = self.consumer.is_none();
        match (self.phase, self.gaps.spell) {
            (Phase::Closed | Phase::Gone, _) => Err(EIO),
            _ if self.broken => Err(EIO),
            (_, Spell::Degraded) if onstall == Onstall::Degrade => Ok(Admission::Aside),
            _ if alone && (onstall == Onstall::Fail || (self.closing && onstall == Onstall::Block)) => Err(EIO),
            // Nothing may be left out any more, and the log may not go on before the gap has its end.
            (_, Spell::Degraded) if onstall == Onstall::Fail => Err(EIO),
            (Phase::Open, Spell::None) => Ok(Admission::Record),
            _ => Ok(Admission::Wait),
        }
    }

    /// Whether a record with this need keeps its user within his limit.
    pub(super) fn within(&self, uid: u32, need: &Need) -> bool {
        match self.policy.uid_limit {
            Some(limit) if uid != 0 => self.book.within(uid, need, limit),
            _ => true,
        }
    }

    /// Nobody is left who waited for the consumer in vain.
    fn settle(&mut self) {
        if self.line.count() == 0 && self.crowd == 0 {
            self.stalled = None;
        }
    }
}

impl Log {
    /// Waits until a record with a payload of up to `payload_max` bytes would fit, or the policy says no.
    ///
    /// Sleeps, killable; to be called without room, and without any lock if that can be helped. What was waited for
    /// may be gone again when it returns: [`Log::try_reserve`], and start over. Whoever waits longest comes first.
    /// With `onstall=degrade` it may find that nothing comes, and begin a gap; then the tree below is synced here.
    ///
    /// Errors: `EINTR` killed; `EIO` by policy; `E2BIG` never fits.
    pub(crate) fn wait_room<B: Body>(&self, payload_max: usize, align: usize) -> Result {
        let need = self.need::<B>(payload_max, align)?;
        let mut verdict = self.wait_share(&need)?;
        if verdict == Verdict::Go {
            verdict = self.wait_in_line(&need, &|_| Ok(()))?;
        }
        match verdict {
            Verdict::Go => Ok(()),
            Verdict::Degrade => self.degrade(),
        }
    }

    /// Waits until the caller's user has no more of the ring than he may have.
    fn wait_share(&self, need: &Need) -> Result<Verdict> {
        let uid = sys::current_fsuid();
        {
            let mut state = self.state.lock();
            if state.within(uid, need) {
                return Ok(Verdict::Go);
            }
            state.waits += 1;
            state.book.shares().waits(uid);
            state.crowd += 1;
            state.tell();
        }
        let result = self.crowd.wait_killable(Turn::All, || {
            let mut state = self.state.lock();
            match state.admits() {
                Err(error) => Check::Done(Err(error)),
                Ok(Admission::Aside) => Check::Done(Ok(Verdict::Go)),
                Ok(_) if state.within(uid, need) => Check::Done(Ok(Verdict::Go)),
                Ok(_) => self.patience(&mut state),
            }
        });
        let result = result.and_then(|inner| inner);
        let mut state = self.state.lock();
        state.crowd -= 1;
        if result.is_err() {
            state.refused += 1;
        }
        if result == Ok(Verdict::Go) || result == Err(EINTR) {
            state.settle();
        }
        result
    }

    /// Waits for room, in the line, for as long as `allowed` has nothing against it.
    pub(super) fn wait_in_line(&self, need: &Need, allowed: &dyn Fn(&State) -> Result) -> Result<Verdict> {
        {
            let mut state = self.state.lock();
            allowed(&state)?;
            if !state.book.possible(need) {
                return Err(E2BIG);
            }
            match state.admits() {
                Ok(Admission::Aside) => return Ok(Verdict::Go),
                Ok(Admission::Record) if state.book.fits_beside(need, &state.line) => return Ok(Verdict::Go),
                Ok(_) => {}
                Err(error) => {
                    state.refused += 1;
                    return Err(error);
                }
            }
            state.waits += 1;
            state.line = state.line.with(need);
            state.tell();
        }
        let mut new = true;
        let result = self.room.wait_killable(Turn::Queue, || {
            let mut state = self.state.lock();
            // Whoever is new leaves what there is to the first in line, and has that one look in case it was woken
            // for nothing before; the first one may be this one by now.
            let yields = core::mem::take(&mut new) && !state.book.fits_beside(need, &state.line.without(need));
            if yields {
                self.room.wake_one();
            }
            match allowed(&state).and_then(|()| state.admits()) {
                Err(error) => Check::Done(Err(error)),
                Ok(Admission::Aside) => Check::Done(Ok(Verdict::Go)),
                Ok(Admission::Record) if !yields && state.book.fits(need, Claim::Ordinary) => {
                    Check::Done(Ok(Verdict::Go))
                }
                Ok(_) => self.patience(&mut state),
            }
        });
        let result = result.and_then(|inner| inner);
        let mut state = self.state.lock();
        state.line = state.line.without(need);
        if result.is_err() {
            state.refused += 1;
        }
        if result == Ok(Verdict::Go) || result == Err(EINTR) {
            state.settle();
        }
        // The next in line may fit too, and was not woken if this one was.
        if state.line.count() > 0 {
            self.room.wake_one();
        }
        result
    }

    /// Waits until all below `lsn` is on the consumer's stable storage; in a gap, not at all.
    ///
    /// Sleeps, killable, and wakes the consumer; to be called without room and without locks. With `onstall=degrade` it
    /// may begin a gap, as [`Log::wait_room`] may. Errors: `EINTR` killed;
    /// `EIO` by policy, or because the mount is on its way out and there is no consumer.
    pub(crate) fn wait_durable(&self, lsn: Lsn) -> Result {
        let control = self.memory.control();
        if control.acknowledged.load(Acquire) >= lsn {
            return Ok(());
        }
        self.want(lsn);
        let result = self.durable.wait_killable(Turn::All, || {
            let mut state = self.state.lock();
            if state.book.acknowledged() >= lsn.min(state.book.committed()) {
                return Check::Done(Ok(Verdict::Go));
            }
            if state.broken || state.phase == Phase::Gone {
                return Check::Done(Err(EIO));
            }
            let onstall = state.policy.onstall;
            if state.gaps.spell == Spell::Degraded && onstall == Onstall::Degrade {
                return Check::Done(Ok(Verdict::Go));
            }
            if state.consumer.is_none() && (state.closing || onstall == Onstall::Fail) {
                return Check::Done(Err(EIO));
            }
            self.patience(&mut state)
        });
        match result.and_then(|inner| inner)? {
            Verdict::Go => Ok(()),
            Verdict::Degrade => self.degrade(),
        }
    }

    /// Asks the consumer for all below `lsn`, without waiting: what else has to be done may be done meanwhile.
    pub(crate) fn want(&self, lsn: Lsn) {
        let mut state = self.state.lock();
        let lsn = lsn.min(state.book.committed());
        if state.book.acknowledged() >= lsn {
            return;
        }
        if lsn > state.wanted {
            state.wanted = lsn;
            self.memory.control().wanted.store(lsn, Relaxed);
        }
        state.tell();
    }

    /// How long whoever waits goes on doing so. Those who come while the consumer is known to do nothing do not wait
    /// as long as the first one did.
    fn patience(&self, state: &mut State) -> Check<Result<Verdict>> {
        let Policy { onstall, stall, .. } = state.policy;
        if state.gaps.spell != Spell::None || (onstall == Onstall::Block && !state.closing) {
            return Check::Sleep;
        }
        let stalled = state.stalled.get_or_insert_with(Instant::now).elapsed().as_millis();
        // Unmounting waits for no consumer that is not there.
        let stall = if state.closing && state.consumer.is_none() { 0 } else { i64::from(stall) * 1000 };
        match stall - stalled {
            left @ 1.. => Check::SleepFor(msecs_to_jiffies(u32::try_from(left).unwrap_or(u32::MAX))),
            _ if onstall != Onstall::Degrade => Check::Done(Err(EIO)),
            _ if state.gaps.claim() => Check::Done(Ok(Verdict::Degrade)),
            _ => Check::Sleep,
        }
    }

    /// Wakes all who wait for something to change with the consumer, or with the log as a whole.
    pub(super) fn wake_everybody(&self) {
        self.room.wake_all();
        self.crowd.wake_all();
        self.durable.wake_all();
    }
}
