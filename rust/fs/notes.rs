// SPDX-License-Identifier: GPL-2.0

//! Stores through shared mappings: noted when they become possible, captured later.
//!
//! A store never enters the filesystem; what does is the fault before it. So each fault that makes memory writable notes
//! the range of its folio, and a capture takes notes, makes the memory read-only again (the next store notes anew), and
//! records what is in the file then. A note says "may differ from the log". To record a range that does not differ is
//! waste and never wrong, since what is recorded is what the file holds, under the file's lock: so notes may be merged,
//! doubled and kept.
//!
//! Who has the memory itself may store into it without a fault. What is pinned stays noted until it is not. What is just
//! referenced, as by a debugger between its fault and its store, is captured once more, a good while later: not until
//! nobody has a reference, because the kernel may keep one for long without any use for it.
//!
//! A fault waits for nothing: without memory for another note, two become one.
//!
//! Lock order: the file's lock, then the notes' (a spinlock, taken in faults under a folio's lock).

use super::{
    ranges::{Ranges, Span},
    state::change,
    ReelFs,
};
use crate::capture::{self, Log, Outcome, Room};
use crate::format::record::{AttrBody, Body, RecordType, WriteBody};
use crate::vfs::{Hold, Inode, Locked, LowerReader};
use core::ops::Range;
use kernel::{
    alloc::flags::{GFP_NOWAIT, __GFP_NOWARN},
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Full as FullOrder, Relaxed},
        Arc, SpinLock,
    },
};

/// All of a file.
pub(super) const WHOLE: Range<u64> = 0..u64::MAX;

/// Notes that a file has places for at first.
const PLACES_FIRST: usize = 32;
/// Notes that a file may have before some become one.
const PLACES_MAX: usize = 4096;
/// Notes that are many: they should be captured before there are no places left.
const MANY: usize = PLACES_MAX / 2;
/// Bytes that are made read-only, and then recorded, at a time.
const PIECE: u64 = 2 << 20;

/// What is kept with a file that was ever mapped for stores.
#[pin_data]
pub(crate) struct Notes {
    /// Areas of memory that show the file.
    areas: Atomic<i32>,
    /// Whether it is in the mount's list; changes under the list's lock alone.
    listed: Atomic<i32>,
    #[pin]
    state: SpinLock<State>,
}

struct State {
    /// Where the file may differ from the log.
    ranges: Ranges<KVec<Span>>,
    /// What is to be captured once more, because somebody had a reference: since the last [`Notes::ripen`], and the one
    /// before.
    held: [Ranges<KVec<Span>>; 2],
    /// What is to be captured once more now, and then no more.
    ripe: Ranges<KVec<Span>>,
    /// The file's times may differ from the log.
    touched: bool,
}

fn no_ranges() -> Result<Ranges<KVec<Span>>> {
    Ok(Ranges::new(KVec::from_elem(Span::default(), PLACES_FIRST, GFP_KERNEL)?))
}

/// Adds a range, with another place for it if there is memory. Never sleeps.
fn add(ranges: &mut Ranges<KVec<Span>>, range: Range<u64>) {
    let places = ranges.capacity();
    if ranges.len() == places && places < PLACES_MAX {
        let more = places.saturating_mul(2).min(PLACES_MAX);
        if let Ok(spans) = KVec::from_elem(Span::default(), more, GFP_NOWAIT | __GFP_NOWARN) {
            drop(ranges.grow(spans));
        }
    }
    ranges.add(range);
}

impl State {
    fn is_empty(&self) -> bool {
        self.is_idle() && self.held.iter().all(Ranges::is_empty)
    }

    /// Nothing is to be captured now.
    fn is_idle(&self) -> bool {
        self.ranges.is_empty() && self.ripe.is_empty() && !self.touched
    }
}

/// Which notes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those of faults, and of pinned memory.
    Fresh,
    /// Those to be captured once more.
    Ripe,
}

impl Notes {
    /// No notes. May sleep.
    pub(super) fn new() -> Result<Arc<Self>> {
        let held = [no_ranges()?, no_ranges()?];
        let state = State { ranges: no_ranges()?, held, ripe: no_ranges()?, touched: false };
        Arc::pin_init(
            pin_init!(Self {
                areas: Atomic::new(0),
                listed: Atomic::new(0),
                state <- new_spinlock!(state, "reelfs_notes"),
            }),
            GFP_KERNEL,
        )
    }

    /// One more area of memory shows the file.
    pub(super) fn add_area(&self) {
        self.areas.add(1, Relaxed);
    }

    /// One less does; returns whether it was the last one.
    pub(super) fn remove_area(&self) -> bool {
        self.areas.fetch_sub(1, FullOrder) == 1
    }

    /// Whether an area of memory shows the file.
    pub(super) fn is_mapped(&self) -> bool {
        self.areas.load(Relaxed) > 0
    }

    /// See [`Notes::set_listed`].
    pub(super) fn is_listed(&self) -> bool {
        self.listed.load(Relaxed) != 0
    }

    /// The file is in the mount's list, whose lock the caller has.
    pub(super) fn set_listed(&self, listed: bool) {
        self.listed.store(listed.into(), Relaxed);
    }

    /// Notes a range. Never sleeps.
    pub(super) fn add(&self, range: Range<u64>) {
        add(&mut self.state.lock().ranges, range);
    }

    /// Time has passed: what was referenced one time ago is to be captured once more. All that was, where nobody maps the
    /// file any more: who had a reference through a mapping has let go.
    pub(super) fn ripen(&self) {
        let all = !self.is_mapped();
        let mut state = self.state.lock();
        let State { held: [young, old], ripe, .. } = &mut *state;
        let mut move_to_ripe = |ranges: &mut Ranges<KVec<Span>>| {
            while let Some(range) = ranges.take(WHOLE, u64::MAX) {
                add(ripe, range);
            }
        };
        move_to_ripe(old);
        if all {
            move_to_ripe(young);
        }
        core::mem::swap(young, old);
    }

    /// Notes that the times may differ from the log, or not; returns whether they did. Never sleeps.
    pub(super) fn set_touched(&self, touched: bool) -> bool {
        core::mem::replace(&mut self.state.lock().touched, touched)
    }

    /// Whether nothing is noted.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().is_empty()
    }

    /// Whether nothing is to be captured now; there may be something later.
    fn is_idle(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// Whether there are so many notes that they should not wait.
    pub(super) fn are_many(&self) -> bool {
        self.state.lock().ranges.len() >= MANY
    }

    /// Forgets everything: the contents are of no use to anybody, or lost.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        let State { ranges, held: [young, old], ripe, touched } = &mut *state;
        for ranges in [ranges, young, old, ripe] {
            ranges.clear();
        }
        *touched = false;
    }

    /// Takes the first piece of what is noted within a range.
    fn take(&self, which: Which, within: Range<u64>) -> Option<Taken<'_>> {
        let mut state = self.state.lock();
        let ranges = match which {
            Which::Fresh => &mut state.ranges,
            Which::Ripe => &mut state.ripe,
        };
        let range = ranges.take(within, PIECE)?;
        drop(state);
        Some(Taken { notes: self, range })
    }

    /// Somebody has memory that is being captured.
    fn keep(&self, which: Which, range: Range<u64>, hold: Hold) {
        match (hold, which) {
            (Hold::Pinned, _) => self.add(range),
            // Nobody has one through a mapping that is gone.
            (Hold::Referenced, Which::Fresh) if self.is_mapped() => {
                let [young, _] = &mut self.state.lock().held;
                add(young, range);
            }
            (Hold::Referenced, _) => {}
        }
    }

    /// How much is noted from here on, in bytes, roughly.
    fn backlog(&self, within: Range<u64>) -> u64 {
        let state = self.state.lock();
        let left = |ranges: &Ranges<KVec<Span>>| {
            let noted = ranges.behind(within.start);
            noted.map_or(0, |noted| noted.end.min(within.end).saturating_sub(noted.start))
        };
        left(&state.ranges).max(left(&state.ripe))
    }
}

/// A noted range that is being captured; what is not done with it is noted again.
struct Taken<'a> {
    notes: &'a Notes,
    range: Range<u64>,
}

impl Taken<'_> {
    /// All up to here is recorded, or needs not be.
    fn done_to(&mut self, place: u64) {
        self.range.start = place;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.notes.add(self.range.clone());
    }
}

/// The times of a file that is being captured; where no record carries them, they are noted again.
struct Times<'a> {
    notes: &'a Notes,
    unrecorded: bool,
}

impl<'a> Times<'a> {
    /// Whoever changes them after this says so anew.
    fn take(notes: &'a Notes) -> Self {
        Self { notes, unrecorded: notes.set_touched(false) }
    }

    /// A record of the file was committed, with its times.
    fn recorded(&mut self) {
        self.unrecorded = false;
    }
}

impl Drop for Times<'_> {
    fn drop(&mut self) {
        if self.unrecorded {
            self.notes.set_touched(true);
        }
    }
}

/// What a capture does when the log has no room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// It waits, killable, with the file's lock.
    Wait,
    /// It leaves the rest noted.
    Leave,
}

impl Full {
    /// Takes room; `None` where there is none and it is not to be waited for.
    fn room<B: Body>(self, log: &Log, payload_max: usize) -> Result<Option<Room<'_, B>>> {
        match self {
            Full::Wait => log.reserve(payload_max, 0).map(Some),
            Full::Leave => log.try_reserve(payload_max, 0),
        }
    }
}

/// How far a capture came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Captured {
    /// To the end.
    All,
    /// To this place; there was no room for what is behind it.
    UpTo(u64),
    /// Nowhere yet: there was no room for all of what is captured once more.
    Ripe,
}

/// Captures the stores into a range of a file: with [`Captured::All`], all that were made before this was called are in
/// the log when it returns. Sleeps.
///
/// What was not captured stays noted, after an error too; and so does memory that a device may still write to.
pub(super) fn capture(inode: &Locked<'_, ReelFs>, range: Range<u64>, full: Full) -> Result<Captured> {
    let Some(notes) = inode.data().notes() else { return Ok(Captured::All) };
    if notes.is_idle() {
        return Ok(Captured::All);
    }
    let sb = inode.superblock();
    let reader = inode.lower().reader(sb.lower())?;
    let mut times = Times::take(notes);
    // Both from the beginning: where the first was is not where the second is.
    for which in [Which::Ripe, Which::Fresh] {
        let mut at = range.start;
        while let Some(mut taken) = notes.take(which, at..range.end) {
            at = taken.range.end;
            // What lies behind the end of the file, too: it may become part of it.
            let mut held = |range, hold| notes.keep(which, range, hold);
            inode.lower().write_protect(taken.range.clone(), &mut held);
            if !record(inode, &reader, &mut taken, &mut times, full)? {
                return Ok(if which == Which::Fresh { Captured::UpTo(taken.range.start) } else { Captured::Ripe });
            }
        }
    }
    if times.unrecorded {
        // There was a fault that failed, or stores behind the end alone.
        let Some(room) = full.room::<AttrBody>(sb.data().log(), 0)? else { return Ok(Captured::UpTo(range.end)) };
        let lsn = capture::attributes(room, RecordType::Setattr, &change(inode), 0, Outcome::Done);
        inode.data().recorded(lsn);
        times.recorded();
    }
    inode.refresh();
    Ok(Captured::All)
}

/// Records what the file below holds in a range that is read-only now. Returns whether there was room for all of it.
fn record(
    inode: &Locked<'_, ReelFs>,
    reader: &LowerReader,
    taken: &mut Taken<'_>,
    times: &mut Times<'_>,
    full: Full,
) -> Result<bool> {
    let log = inode.superblock().data().log();
    let end = taken.range.end.min(u64::try_from(inode.lower().size())?);
    while taken.range.start < end {
        // What was stored into was no hole. If it is one now, something made it one, which is recorded.
        let Some(data) = reader.next_data(taken.range.start..end)? else { break };
        let len = usize::try_from(data.end.saturating_sub(data.start))?.min(log.write_max());
        let Some(mut room) = full.room::<WriteBody>(log, len)? else { return Ok(false) };
        let n = reader.read_at(room.payload().get_mut(..len).ok_or(EIO)?, data.start)?;
        if n == 0 {
            return Err(EIO);
        }
        let lsn = capture::write(room, &change(inode), data.start, n, Outcome::Done);
        inode.data().recorded(lsn);
        times.recorded();
        taken.done_to(data.start.saturating_add(n as u64));
    }
    taken.done_to(taken.range.end);
    Ok(true)
}

/// [`capture`] for callers without the file's lock, which is not held while there is no room. Sleeps, killable.
pub(super) fn capture_unlocked(inode: &Inode<ReelFs>, range: Range<u64>) -> Result {
    let Some(notes) = inode.data().notes() else { return Ok(()) };
    let log = inode.superblock().data().log();
    let mut at = range.start;
    while !notes.is_idle() {
        let next = usize::try_from(notes.backlog(at..range.end)).unwrap_or(usize::MAX);
        log.wait_room::<WriteBody>(next.min(log.write_max()), 0)?;
        let locked = inode.lock_killable()?;
        match capture(&locked, at..range.end, Full::Leave)? {
            Captured::All => break,
            Captured::UpTo(place) => at = place,
            Captured::Ripe => {}
        }
    }
    Ok(())
}

/// The file's size was `before`. What is new of the page in which it ended may have been stored into when it was not part
/// of the file, and captured as such; not every filesystem makes it zero.
pub(super) fn resized(inode: &Locked<'_, ReelFs>, before: i64) {
    let (Some(notes), Ok(before)) = (inode.data().notes(), u64::try_from(before)) else { return };
    if inode.lower().size() as u64 > before {
        notes.add(before..inode.lower().folio_end(before));
    }
}

/// What was behind `from` is elsewhere now, and so is what was noted of it since it was captured.
pub(super) fn shifted(inode: &Locked<'_, ReelFs>, from: u64) {
    let (Some(notes), Ok(size)) = (inode.data().notes(), u64::try_from(inode.lower().size())) else { return };
    let mut state = notes.state.lock();
    if let Some(noted) = state.ranges.behind(from) {
        add(&mut state.ranges, from..noted.end.max(size));
    }
}
