// SPDX-License-Identifier: GPL-2.0

//! Room in a log: what a writer holds between taking it and committing a record.

use core::marker::PhantomData;

use super::book::Taken;
use super::log::{Entry, Log};
use crate::format::crc32c_append;
use crate::format::record::{Body, Identity, Lsn, RecordType};

/// Room in the log for one record of a type: neither copied nor cloned, abandoned when dropped.
#[must_use = "room that is dropped is abandoned: the change would not be recorded"]
pub(crate) struct Room<'l, B: Body> {
    log: &'l Log,
    taken: Option<Taken>,
    payload_max: usize,
    /// Length and CRC32C of the beginning of the payload that was summed up.
    sum: Option<(usize, u32)>,
    _body: PhantomData<B>,
}

impl<'l, B: Body> Room<'l, B> {
    pub(super) fn new(log: &'l Log, taken: Taken, payload_max: usize) -> Self {
        Self { log, taken: Some(taken), payload_max, sum: None, _body: PhantomData }
    }

    /// Where the payload goes: `payload_max` contiguous bytes of the ring, with whatever was in them before.
    pub(crate) fn payload(&mut self) -> &mut [u8] {
        self.sum = None;
        self.bytes()
    }

    fn bytes(&mut self) -> &mut [u8] {
        let length = self.payload_max;
        match &mut self.taken {
            Some(taken) => self.log.memory.bytes(taken).get_mut(B::HEAD_LEN..B::HEAD_LEN + length).unwrap_or(&mut []),
            None => &mut [],
        }
    }

    /// Computes the checksum over the first `length` bytes of the payload, which are in their place: best done right
    /// after they were copied, while they are in the cache. [`Room::commit`] does it where it was not done.
    pub(crate) fn sum_up(&mut self, length: usize) -> u32 {
        if let Some((summed, crc)) = self.sum {
            if summed == length {
                return crc;
            }
        }
        let crc = crc32c_append(0, self.bytes().get(..length).unwrap_or(&[]));
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
        let payload_crc = self.sum_up(payload_len);
        let Some(taken) = self.taken.take() else { return self.log.committed() };
        let entry = Entry { kind, flags, object, body, payload_len, payload_crc };
        self.log.commit(taken, &entry)
    }
}

impl<B: Body> Drop for Room<'_, B> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.log.abandon(taken);
        }
    }
}
