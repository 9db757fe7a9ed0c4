// SPDX-License-Identifier: GPL-2.0

//! The arithmetic of a ring: which bytes are taken, which record has which LSN, what may be used again.
//!
//! Room is given out in slots, one behind the other, and comes back in the same order; records are numbered in the
//! order of their commits, which is another one. A slot whose owner sleeps keeps the room behind it from being used
//! again, and nothing else from happening.
//!
//! Nothing here touches the ring's memory, locks, sleeps or allocates: this file is compiled into the kernel and into
//! `userspace/ring-tests`, where its properties are tested. Positions are byte counts that only grow; the offset in
//! the ring is the position modulo its size.

use core::ops::DerefMut;

use super::shares::{Share, Shares, NOBODY};
use crate::format::record::{Lsn, RECORD_ALIGN};
use crate::format::uapi::QueueEntry;

/// The highest LSN that a log may begin with: 2^62 bytes then fit before one overflows, which no machine writes.
pub const FIRST_LSN_MAX: Lsn = 1 << 62;

/// [`Slot::commit`] of a slot that is neither committed nor abandoned.
const TAKEN: u64 = u64::MAX;
/// [`Slot::commit`] of a slot that will never be committed.
const ABANDONED: u64 = u64::MAX - 1;

/// One piece of room, from when it is taken until it may be used again.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Number of the commit, [`TAKEN`] or [`ABANDONED`].
    commit: u64,
    /// Bytes, those skipped for alignment included.
    length: u32,
    /// Whose share they are of.
    share: u32,
}

impl Slot {
    /// What a table of slots is filled with at first.
    pub const EMPTY: Slot = Slot { commit: ABANDONED, length: 0, share: NOBODY };
}

/// Where the entries of the commit queue are kept.
pub trait Queue {
    /// How many there are; a power of two.
    fn entries(&self) -> usize;
    /// The entry at an index below [`Queue::entries`].
    fn get(&self, index: usize) -> QueueEntry;
    /// Sets the entry at an index below [`Queue::entries`].
    fn set(&mut self, index: usize, entry: QueueEntry);
}

/// Room that somebody has taken and not yet given back.
///
/// Made by [`Book::take`] alone, neither copied nor cloned: whoever has it is the only one to touch the bytes.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "room that is forgotten is never used again"]
pub struct Taken {
    book: usize,
    slot: u64,
    position: u64,
    length: u32,
}

impl Taken {
    /// Which book it was taken from; see [`Book::new`].
    pub fn book(&self) -> usize {
        self.book
    }

    /// Position of the record; modulo the ring's size its offset.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that the record may have.
    pub fn length(&self) -> usize {
        self.length as usize
    }
}

/// How much of the ring is kept back from ordinary callers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// Bytes.
    pub bytes: usize,
    /// Slots.
    pub slots: usize,
}

/// Who asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// What is kept back stays where it is.
    Ordinary,
    /// What is kept back is kept for this one.
    Kept,
}

/// A request for room for one record.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Length of the record in bytes; a multiple of [`RECORD_ALIGN`].
    pub length: usize,
    /// Bytes before the payload; a multiple of [`RECORD_ALIGN`].
    pub head: usize,
    /// The payload begins at a multiple of this; a power of two, at least [`RECORD_ALIGN`].
    pub align: usize,
}

impl Need {
    /// The most that can go with it, in bytes; `None` for an impossible request.
    fn worst(&self) -> Option<u64> {
        if !self.align.is_power_of_two()
            || self.align < RECORD_ALIGN
            || self.length % RECORD_ALIGN != 0
            || self.head % RECORD_ALIGN != 0
            || self.head > self.length
        {
            return None;
        }
        self.length.checked_add(self.align - RECORD_ALIGN)?.try_into().ok()
    }
}

/// What some requests take together, at worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    bytes: u64,
    count: u64,
}

impl Line {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// With one request more.
    pub fn with(self, need: &Need) -> Self {
        Self { bytes: self.bytes.saturating_add(need.worst().unwrap_or(0)), count: self.count + 1 }
    }

    /// Without one of the requests that are in it.
    pub fn without(self, need: &Need) -> Self {
        Self { bytes: self.bytes.saturating_sub(need.worst().unwrap_or(0)), count: self.count.saturating_sub(1) }
    }
}

/// A commit, done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Number of the commit.
    pub sequence: u64,
    /// LSN of the record.
    pub lsn: Lsn,
    /// LSN behind it.
    pub end: Lsn,
}

/// An LSN that cannot be acknowledged: below what was, beyond what was committed, or inside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotABoundary;

/// The state of a ring's room and of its log.
///
/// # Invariants
///
/// - `tail <= head <= tail + size`; the slots numbered `oldest..newest` cover `tail..head` without overlap, in order.
/// - `newest - oldest` is at most the number of slots, which is the number of queue entries. Every commit that is not
///   acknowledged has a slot of its own, so there is always a queue entry for one more commit of a taken slot.
/// - The queue's entries numbered `acknowledged_commits..commits` cover the LSNs `acknowledged..committed`, in order.
/// - `held` is the number of slots that are neither committed nor abandoned.
/// - What a share holds is what the slots in `oldest..newest` hold that name it.
pub struct Book<S, Q, H> {
    name: usize,
    size: u64,
    kept: Kept,
    slots: S,
    queue: Q,
    shares: Shares<H>,
    head: u64,
    tail: u64,
    newest: u64,
    oldest: u64,
    commits: u64,
    acknowledged_commits: u64,
    committed: Lsn,
    acknowledged: Lsn,
    held: u64,
}

impl<S, Q, H> Book<S, Q, H>
where
    S: DerefMut<Target = [Slot]>,
    Q: Queue,
    H: DerefMut<Target = [Share]>,
{
    /// A ring of `size` bytes, a power of two, with a slot for every entry of the queue.
    ///
    /// `name` tells the [`Taken`] of one book from those of another. `None` where the numbers do not fit each other.
    pub fn new(name: usize, size: usize, kept: Kept, slots: S, queue: Q, shares: H) -> Option<Self> {
        let shares = Shares::new(shares)?;
        let fits = size.is_power_of_two()
            && u32::try_from(size).is_ok()
            && slots.len().is_power_of_two()
            && slots.len() == queue.entries()
            && kept.bytes < size
            && kept.slots < slots.len();
        fits.then_some(Self {
            name,
            size: size as u64,
            kept,
            slots,
            queue,
            shares,
            head: 0,
            tail: 0,
            newest: 0,
            oldest: 0,
            commits: 0,
            acknowledged_commits: 0,
            committed: 0,
            acknowledged: 0,
            held: 0,
        })
    }

    /// Sets the LSN of the first record. `false`, and nothing done, after the first commit or for an LSN that is no
    /// multiple of [`RECORD_ALIGN`] or above [`FIRST_LSN_MAX`].
    pub fn begin(&mut self, lsn: Lsn) -> bool {
        if self.commits != 0 || lsn > FIRST_LSN_MAX || lsn % RECORD_ALIGN as u64 != 0 {
            return false;
        }
        self.committed = lsn;
        self.acknowledged = lsn;
        true
    }

    /// The longest record that may be asked for, in bytes, what goes for alignment included.
    pub fn longest(&self) -> usize {
        (self.size as usize / 2).min(self.size as usize - self.kept.bytes)
    }

    /// Whether [`Book::take`] would ever succeed.
    pub fn possible(&self, need: &Need) -> bool {
        need.worst().is_some_and(|worst| worst <= self.longest() as u64)
    }

    /// Whether [`Book::take`] would succeed now, wherever the ring's head stands.
    pub fn fits(&self, need: &Need, claim: Claim) -> bool {
        need.worst().is_some_and(|worst| worst <= self.room(claim)) && self.has_slot(claim)
    }

    /// Whether [`Book::take`] would succeed now for this and then for everything in `line`, in whatever order.
    pub fn fits_beside(&self, need: &Need, line: &Line) -> bool {
        let kept = self.kept.slots as u64;
        let fits = |worst: u64| worst.saturating_add(line.bytes) <= self.room(Claim::Ordinary);
        need.worst().is_some_and(fits) && self.newest - self.oldest + kept + line.count < self.slots.len() as u64
    }

    /// Whether room taken for a user keeps him within a limit, in bytes. Whoever has nothing may have anything.
    pub fn within(&self, uid: u32, need: &Need, limit: u64) -> bool {
        let held = self.shares.held(uid);
        held == 0 || need.worst().is_some_and(|worst| held.saturating_add(worst) <= limit)
    }

    /// [`Book::take`] on the account of a user.
    pub fn take_for(&mut self, uid: u32, need: &Need) -> Option<Taken> {
        let taken = self.take(need, Claim::Ordinary)?;
        let length = self.slot(taken.slot).length;
        let share = self.shares.take(uid, length.into());
        self.slot(taken.slot).share = share;
        Some(taken)
    }

    /// Who has what of the ring, and had.
    pub fn shares(&mut self) -> &mut Shares<H> {
        &mut self.shares
    }

    /// How much room is taken of which nobody knows yet whether it will be a record, in pieces.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Takes room for one record, or `None` if there is not enough.
    pub fn take(&mut self, need: &Need, claim: Claim) -> Option<Taken> {
        need.worst()?;
        let (head, align) = (need.head as u64, need.align as u64);
        let payload = self.head.checked_add(head)?.checked_next_multiple_of(align)?;
        let position = payload.checked_sub(head)?;
        let length = position.checked_add(need.length as u64)?.checked_sub(self.head)?;
        if length > self.room(claim) || !self.has_slot(claim) {
            return None;
        }
        let slot = self.newest;
        *self.slot(slot) = Slot { commit: TAKEN, length: u32::try_from(length).ok()?, share: NOBODY };
        self.held += 1;
        self.newest += 1;
        self.head += length;
        Some(Taken { book: self.name, slot, position, length: u32::try_from(need.length).ok()? })
    }

    /// Commits a record of `length` bytes at the beginning of the room, and gives back the rest of the room where it
    /// is the newest. Gives back the room itself if it is not this book's or the record does not fit.
    pub fn commit(&mut self, taken: Taken, length: usize) -> Result<Committed, Taken> {
        if taken.book != self.name || length > taken.length() || length == 0 || length % RECORD_ALIGN != 0 {
            return Err(taken);
        }
        let unused = taken.length - length as u32;
        let sequence = self.commits;
        let lsn = self.committed;
        let entry =
            QueueEntry { lsn, offset: (taken.position & self.size.wrapping_sub(1)) as u32, length: length as u32 };
        let index = self.index(sequence);
        self.queue.set(index, entry);
        let newest = taken.slot + 1 == self.newest;
        let slot = self.slot(taken.slot);
        slot.commit = sequence;
        let share = slot.share;
        if newest {
            slot.length -= unused;
            self.head -= u64::from(unused);
            self.shares.give_back(share, unused.into());
        }
        self.shares.recorded(share, length as u64);
        self.held -= 1;
        self.commits += 1;
        self.committed += length as u64;
        Ok(Committed { sequence, lsn, end: self.committed })
    }

    /// Gives room back without a record. [`Book::release`] makes it usable again.
    pub fn abandon(&mut self, taken: Taken) {
        if taken.book != self.name {
            return;
        }
        self.slot(taken.slot).commit = ABANDONED;
        self.held -= 1;
        while self.newest > self.oldest {
            let slot = *self.slot(self.newest - 1);
            if slot.commit != ABANDONED {
                break;
            }
            self.newest -= 1;
            self.head -= u64::from(slot.length);
            self.shares.give_back(slot.share, slot.length.into());
        }
    }

    /// Notes that all below `lsn` is on stable storage. [`Book::release`] makes the room usable again.
    pub fn acknowledge(&mut self, lsn: Lsn) -> Result<(), NotABoundary> {
        if lsn == self.acknowledged {
            return Ok(());
        }
        if lsn < self.acknowledged || lsn > self.committed {
            return Err(NotABoundary);
        }
        // The first commit in acknowledged_commits..commits that ends at or behind the LSN; the last one does.
        let (mut low, mut high) = (self.acknowledged_commits, self.commits - 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.end_of(middle) < lsn {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if self.end_of(low) != lsn {
            return Err(NotABoundary);
        }
        self.acknowledged_commits = low + 1;
        self.acknowledged = lsn;
        Ok(())
    }

    /// Makes room usable again that was acknowledged or abandoned, `most` slots at a time. Says whether there may be
    /// more.
    pub fn release(&mut self, most: usize) -> bool {
        for _ in 0..most {
            if self.oldest == self.newest {
                return false;
            }
            let slot = *self.slot(self.oldest);
            if slot.commit != ABANDONED && slot.commit >= self.acknowledged_commits {
                return false;
            }
            self.oldest += 1;
            self.tail += u64::from(slot.length);
            self.shares.give_back(slot.share, slot.length.into());
        }
        true
    }

    /// LSN behind the last committed record.
    pub fn committed(&self) -> Lsn {
        self.committed
    }

    /// All below is acknowledged.
    pub fn acknowledged(&self) -> Lsn {
        self.acknowledged
    }

    /// Bytes committed and not acknowledged.
    pub fn backlog(&self) -> u64 {
        self.committed - self.acknowledged
    }

    /// Number of commits.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Number of the first commit that is not acknowledged.
    pub fn acknowledged_commits(&self) -> u64 {
        self.acknowledged_commits
    }

    /// Bytes that cannot be taken: committed, taken, skipped, or not released yet.
    pub fn used(&self) -> u64 {
        self.head - self.tail
    }

    fn room(&self, claim: Claim) -> u64 {
        let kept = if claim == Claim::Kept { 0 } else { self.kept.bytes as u64 };
        (self.size - self.used()).saturating_sub(kept)
    }

    fn has_slot(&self, claim: Claim) -> bool {
        let kept = if claim == Claim::Kept { 0 } else { self.kept.slots as u64 };
        self.newest - self.oldest + kept < self.slots.len() as u64
    }

    fn index(&self, number: u64) -> usize {
        number as usize & self.slots.len().wrapping_sub(1)
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        let index = self.index(number);
        &mut self.slots[index]
    }

    fn end_of(&self, sequence: u64) -> Lsn {
        let entry = self.queue.get(self.index(sequence));
        entry.lsn + u64::from(entry.length)
    }
}
