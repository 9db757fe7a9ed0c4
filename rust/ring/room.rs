// SPDX-License-Identifier: GPL-2.0

//! Room in a log: what a writer holds between taking it and committing a record.

use core::marker::PhantomData;

use kernel::prelude::*;

use super::book::Taken;
use super::log::{Entry, Log};
use crate::format::crc32c_append;
use crate::format::record::{Body, Identity, Lsn, RecordType};
use crate::vfs::zeros;

/// Room in the log for one record of a type: neither copied nor cloned, abandoned when dropped.
///
/// In a gap it is memory elsewhere, and what is committed is counted and dropped: see [`gap`](super::gap).
#[must_use = "room that is dropped is abandoned: the change would not be recorded"]
pub(crate) struct Room<'l, B: Body> {
    log: &'l Log,
    place: Place,
    payload_max: usize,
    /// Length and CRC32C of the beginning of the payload that was summed up.
    sum: Option<(usize, u32)>,
    _body: PhantomData<B>,
}

/// Where the bytes are.
enum Place {
    /// In the ring.
    Ring(Taken),
    /// Nowhere that a record could be: a payload from an offset on, aligned as was asked for.
    Aside(KVVec<u8>, usize),
    /// Committed.
    Gone,
}

impl<'l, B: Body> Room<'l, B> {
    pub(super) fn new(log: &'l Log, taken: Taken, payload_max: usize) -> Self {
        Self { log, place: Place::Ring(taken), payload_max, sum: None, _body: PhantomData }
    }

    /// Room for an operation that has [entered](super::gap::Gaps::enter) a gap. `ENOMEM`.
    pub(super) fn aside(log: &'l Log, payload_max: usize, align: usize) -> Result<Self> {
        // From here on it is given back in any case.
        let mut room = Self { log, place: Place::Aside(KVVec::new(), 0), payload_max, sum: None, _body: PhantomData };
        if payload_max > 0 {
            let bytes = zeros(payload_max.checked_add(align).ok_or(ENOMEM)?)?;
            let start = bytes.as_ptr().align_offset(align.max(1)).min(align);
            room.place = Place::Aside(bytes, start);
        }
        Ok(room)
    }

    /// Whether what is committed will be in the log.
    pub(crate) fn is_recorded(&self) -> bool {
        matches!(self.place, Place::Ring(_))
    }

    /// Where the payload goes: `payload_max` contiguous bytes, with whatever was in them before.
    pub(crate) fn payload(&mut self) -> &mut [u8] {
        self.sum = None;
        self.bytes()
    }

    fn bytes(&mut self) -> &mut [u8] {
        let length = self.payload_max;
        let (bytes, start) = match &mut self.place {
            Place::Ring(taken) => (self.log.memory.bytes(taken), B::HEAD_LEN),
            Place::Aside(bytes, start) => (bytes.as_mut_slice(), *start),
            Place::Gone => return &mut [],
        };
        bytes.get_mut(start..start + length).unwrap_or(&mut [])
    }

    /// Computes the checksum over the first `length` bytes of the payload, which are in their place: best done right
    /// after they were copied, while they are in the cache. [`Room::commit`] does it where it was not done.
    pub(crate) fn sum_up(&mut self, length: usize) -> u32 {
        if let Some((summed, crc)) = self.sum {
            if summed == length {
                return crc;
            }
        }
        // What is in no log needs no checksum.
        let crc = if self.is_recorded() { crc32c_append(0, self.bytes().get(..length).unwrap_or(&[])) } else { 0 };
        self.sum = Some((length, crc));
        crc
    }

    /// Commits the record, with the first `payload_len` bytes of the payload. Never sleeps and never fails. Returns
    /// the LSN behind the record.
    ///
    /// To be called under the locks under which the change was made, so that the log has the changes of an object in
    /// their order. Room that is not used is free again.
    pub(crate) fn commit(
        mut self,
        kind: RecordType,
        flags: u32,
        object: Identity,
        body: &B,
        payload_len: usize,
    ) -> Lsn {
        if !self.is_recorded() {
            self.place = Place::Gone;
            self.log.passed::<B>(Some(payload_len));
            return self.log.committed();
        }
        let payload_crc = self.sum_up(payload_len);
        let Place::Ring(taken) = core::mem::replace(&mut self.place, Place::Gone) else { return self.log.committed() };
        let entry = Entry { kind, flags, object, body, payload_len, payload_crc };
        self.log.commit(taken, &entry)
    }
}

impl<B: Body> Drop for Room<'_, B> {
    fn drop(&mut self) {
        match core::mem::replace(&mut self.place, Place::Gone) {
            Place::Ring(taken) => self.log.abandon(taken),
            Place::Aside(..) => self.log.passed::<B>(None),
            Place::Gone => {}
        }
    }
}
