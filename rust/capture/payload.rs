// SPDX-License-Identifier: GPL-2.0

//! Putting a payload together from its parts.

use kernel::prelude::*;
use zerocopy::IntoBytes;

use crate::format::record::{pad, XattrEntry};

/// Writes parts one behind the other, each padded with zeros.
///
/// What does not fit is left out, and remembered: [`Parts::length`] is then more than there is room for, and the
/// record cannot be committed with it.
pub(super) struct Parts<'a> {
    payload: &'a mut [u8],
    length: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn new(payload: &'a mut [u8]) -> Self {
        Self { payload, length: 0 }
    }

    /// Adds a part and the padding behind it.
    pub(super) fn padded(mut self, part: &[u8]) -> Self {
        self = self.last(part);
        let end = pad(self.length).unwrap_or(usize::MAX);
        if let Some(padding) = self.payload.get_mut(self.length..end) {
            padding.fill(0);
        }
        self.length = end;
        self
    }

    /// Adds the last part, which needs no padding.
    pub(super) fn last(mut self, part: &[u8]) -> Self {
        let end = self.length.saturating_add(part.len());
        if let Some(place) = self.payload.get_mut(self.length..end) {
            place.copy_from_slice(part);
        }
        self.length = end;
        self
    }

    /// Length of all parts so far, in bytes.
    pub(super) fn length(&self) -> usize {
        self.length
    }
}

/// Extended attributes as they stand in a payload. All memory is taken when it is made.
pub(crate) struct XattrBuffer {
    bytes: KVVec<u8>,
    count: u32,
}

impl XattrBuffer {
    /// A buffer for `capacity` bytes of entries; with none it takes no memory. May sleep.
    pub(crate) fn new(capacity: usize) -> Result<Self> {
        Ok(Self { bytes: KVVec::with_capacity(capacity, GFP_KERNEL)?, count: 0 })
    }

    /// How much of the capacity an attribute takes, in bytes.
    pub(crate) fn entry_len(name_len: usize, value_len: usize) -> usize {
        let both = name_len.saturating_add(value_len);
        pad(both).unwrap_or(usize::MAX).saturating_add(size_of::<XattrEntry>())
    }

    /// Adds an attribute; `name` is the whole name, namespace included. `E2BIG`, and nothing done, if it does not fit.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result {
        let length = Self::entry_len(name.len(), value.len());
        if length > self.bytes.capacity() - self.bytes.len() {
            return Err(E2BIG);
        }
        let entry = XattrEntry {
            name_len: u32::try_from(name.len()).map_err(|_| E2BIG)?.into(),
            value_len: u32::try_from(value.len()).map_err(|_| E2BIG)?.into(),
        };
        let start = self.bytes.len();
        for part in [entry.as_bytes(), name, value] {
            self.bytes.extend_from_slice(part, GFP_KERNEL)?;
        }
        self.bytes.resize(start + length, 0, GFP_KERNEL)?;
        self.count += 1;
        Ok(())
    }

    /// The entries.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The entries and how many there are.
    pub(crate) fn into_parts(self) -> (KVVec<u8>, u32) {
        (self.bytes, self.count)
    }
}
