// SPDX-License-Identifier: GPL-2.0-or-later

//! Making records in user space: what the kernel does in its ring, for programs and tests that make logs without one.

use zerocopy::little_endian::U32;
use zerocopy::IntoBytes;

use crate::crc32c_append;
use crate::record::{pad, record_len, seal, Body, Head, Identity, Lsn, RecordType, XattrEntry};

/// A payload being put together: each part padded with zero bytes, except the last.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// A payload without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// A payload that is one part.
    pub fn of(part: &[u8]) -> Self {
        Self::new().part(part)
    }

    /// Appends a part.
    #[must_use]
    pub fn part(mut self, part: &[u8]) -> Self {
        self.align();
        self.bytes.extend_from_slice(part);
        self
    }

    /// Appends extended attributes, names and values, and returns their length and number for the body.
    #[must_use]
    pub fn xattrs<'a>(mut self, xattrs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> (Self, u32, u32) {
        self.align();
        let start = self.bytes.len();
        let mut count = 0;
        for (name, value) in xattrs {
            let length = |bytes: &[u8]| U32::new(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            let entry = XattrEntry { name_len: length(name), value_len: length(value) };
            self.bytes.extend_from_slice(entry.as_bytes());
            self.bytes.extend_from_slice(name);
            self.bytes.extend_from_slice(value);
            self.align();
            count += 1;
        }
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        (self, length, count)
    }

    /// The payload's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn align(&mut self) {
        let padded = pad(self.bytes.len()).unwrap_or(self.bytes.len());
        self.bytes.resize(padded, 0);
    }
}

/// A log being made: gives each record its place.
#[derive(Clone, Debug)]
pub struct LogBuilder {
    /// The bytes made so far, from the first LSN on.
    pub bytes: Vec<u8>,
    /// LSN of the next record.
    pub lsn: Lsn,
    /// Time of the next record, nanoseconds since 1970-01-01 UTC; each record moves it on by a microsecond.
    pub time: i64,
    /// Epoch of the next record.
    pub epoch: u64,
}

impl Default for LogBuilder {
    fn default() -> Self {
        LogBuilder { bytes: Vec::new(), lsn: 0, time: 1_700_000_000_000_000_000, epoch: 1 }
    }
}

impl LogBuilder {
    /// A log that begins at LSN 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record and returns its LSN, or `None` if it is no possible record.
    pub fn push<B: Body>(
        &mut self,
        kind: RecordType,
        flags: u32,
        object: Identity,
        body: &B,
        payload: &Payload,
    ) -> Option<Lsn> {
        let payload = payload.bytes();
        let length = record_len(B::HEAD_LEN, payload.len())?;
        let mut record = vec![0; length];
        record.get_mut(B::HEAD_LEN..B::HEAD_LEN + payload.len())?.copy_from_slice(payload);
        let head = Head {
            kind,
            flags,
            lsn: self.lsn,
            time: self.time,
            epoch: self.epoch,
            uid: 0,
            object,
            payload_length: u32::try_from(payload.len()).ok()?,
            payload_crc: crc32c_append(0, payload),
        };
        seal(&mut record, &head, body)?;
        self.bytes.extend_from_slice(&record);
        let lsn = self.lsn;
        self.lsn += length as u64;
        self.time += 1000;
        Some(lsn)
    }
}
