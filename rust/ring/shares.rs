// SPDX-License-Identifier: GPL-2.0

//! Who has how much of a ring: bytes and records by user, in a table that does not grow.
//!
//! A user has a place among [`PROBES`] neighbours of the one that his id hashes to. Where all of them belong to users
//! with records in the ring, he goes with those at index 0, who share one entry (and one limit). An entry whose user
//! has nothing in the ring may be given to another; what it counted is then added to the first one, so that the sums
//! stay right.
//!
//! As in [`book`](super::book), nothing here touches memory of the ring, locks, sleeps or allocates.

use core::ops::DerefMut;

/// The user id of the entry that those share who have none of their own: no user has it.
pub const OTHERS: u32 = u32::MAX;
/// The index that stands for no entry: of what is kept back for the log's own records.
pub const NOBODY: u32 = u32::MAX;
/// How many entries a user may have.
const PROBES: usize = 8;

/// What one user has, and had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The user.
    pub uid: u32,
    /// Bytes of the ring that are taken for him.
    pub held: u64,
    /// Bytes of the records that he committed.
    pub bytes: u64,
    /// Number of those records.
    pub records: u64,
    /// How often he had to wait because of a limit.
    pub waits: u64,
}

impl Share {
    /// What a table of shares is filled with at first.
    pub const EMPTY: Share = Share { uid: OTHERS, held: 0, bytes: 0, records: 0, waits: 0 };

    /// Whether there is anything to tell of it.
    pub fn is_empty(&self) -> bool {
        *self == Share { uid: self.uid, ..Self::EMPTY }
    }
}

/// All shares of a ring.
pub struct Shares<T> {
    table: T,
}

impl<T: DerefMut<Target = [Share]>> Shares<T> {
    /// A table of shares, all of them [`Share::EMPTY`]. `None` if it has fewer than two.
    pub fn new(table: T) -> Option<Self> {
        (table.len() >= 2 && u32::try_from(table.len()).is_ok()).then_some(Self { table })
    }

    /// Where a user may be.
    fn places(&self, uid: u32) -> impl Iterator<Item = usize> {
        let count = self.table.len() - 1;
        // Fibonacci hashing: neighbours among ids are none in the table.
        let start = (uid.wrapping_mul(0x9e37_79b1) >> 8) as usize;
        (0..PROBES.min(count)).map(move |probe| 1 + (start + probe).checked_rem(count).unwrap_or(0))
    }

    fn find(&self, uid: u32) -> Option<usize> {
        if uid == OTHERS {
            return Some(0);
        }
        self.places(uid).find(|index| self.table[*index].uid == uid)
    }

    /// The user's entry, made if there is none.
    fn place(&mut self, uid: u32) -> usize {
        if let Some(index) = self.find(uid) {
            return index;
        }
        // The one that has told least.
        let free = self.places(uid).filter(|index| self.table[*index].held == 0);
        let Some(index) = free.min_by_key(|index| self.table[*index].bytes) else { return 0 };
        let old = core::mem::replace(&mut self.table[index], Share { uid, ..Share::EMPTY });
        let others = &mut self.table[0];
        others.bytes += old.bytes;
        others.records += old.records;
        others.waits += old.waits;
        index
    }

    /// Bytes of the ring that are taken for a user, or for those he is among.
    pub fn held(&self, uid: u32) -> u64 {
        let index = self.find(uid).or_else(|| {
            let full = self.places(uid).all(|index| self.table[index].held > 0);
            full.then_some(0)
        });
        index.map_or(0, |index| self.table[index].held)
    }

    /// Takes bytes for a user. Where he is, for the other functions.
    pub fn take(&mut self, uid: u32, bytes: u64) -> u32 {
        let index = self.place(uid);
        self.table[index].held += bytes;
        index as u32
    }

    /// Gives bytes back.
    pub fn give_back(&mut self, index: u32, bytes: u64) {
        if let Some(share) = self.table.get_mut(index as usize) {
            share.held = share.held.saturating_sub(bytes);
        }
    }

    /// A record was committed.
    pub fn recorded(&mut self, index: u32, bytes: u64) {
        if let Some(share) = self.table.get_mut(index as usize) {
            share.bytes += bytes;
            share.records += 1;
        }
    }

    /// A user has to wait.
    pub fn waits(&mut self, uid: u32) {
        let index = self.place(uid);
        self.table[index].waits += 1;
    }

    /// The entries from `from` on, each with where to go on.
    pub fn list(&self, from: usize) -> impl Iterator<Item = (usize, &Share)> {
        let all = self.table.iter().enumerate().skip(from);
        all.filter(|(_, share)| !share.is_empty()).map(|(index, share)| (index + 1, share))
    }
}
