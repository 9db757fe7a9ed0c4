// SPDX-License-Identifier: GPL-2.0

//! Records of a checkpoint: what is, where [`records`](super::records) says what was done.
//!
//! As there: attributes are those of the moment, read under the object's lock, which is held until the record is
//! committed. Each function returns the LSN behind its record.

use kernel::alloc::flags::GFP_NOWAIT;
use kernel::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::payload::{Parts, XattrBuffer};
use super::records::{len, padded, Change};
use crate::format::record::{
    pad, DirectoryEntry, DirectoryStateBody, Identity, Lsn, ObjectDataBody, ObjectStateBody, RecordType,
};
use crate::ring::{Log, Room};

/// The payload that [`object_state`] needs, in bytes.
pub(crate) fn object_state_max(target: &[u8], xattrs: &XattrBuffer) -> usize {
    padded(target.len()).saturating_add(xattrs.bytes().len())
}

/// What an object is like. `target` is empty for what is no symbolic link.
pub(crate) fn object_state(
    mut room: Room<'_, ObjectStateBody>,
    checkpoint: Lsn,
    object: &Change,
    target: &[u8],
    xattrs: &XattrBuffer,
) -> Lsn {
    let body = ObjectStateBody {
        checkpoint: checkpoint.into(),
        attr: object.attr,
        target_len: len(target).into(),
        xattrs_len: len(xattrs.bytes()).into(),
        xattrs: xattrs.count().into(),
        reserved: 0.into(),
    };
    let length = Parts::new(room.payload()).padded(target).last(xattrs.bytes()).length();
    room.commit(RecordType::ObjectState, 0, object.object, &body, length)
}

/// A range of a file.
pub(crate) struct Piece {
    /// Where it begins.
    pub(crate) offset: u64,
    /// How long it is, in bytes.
    pub(crate) length: u64,
    /// `STATE_*`.
    pub(crate) flags: u32,
}

/// What a range of a file holds: the first `payload_len` bytes of the payload, none for a hole.
pub(crate) fn object_data(
    room: Room<'_, ObjectDataBody>,
    checkpoint: Lsn,
    file: &Change,
    piece: &Piece,
    payload_len: usize,
) -> Lsn {
    let body = ObjectDataBody {
        checkpoint: checkpoint.into(),
        offset: piece.offset.into(),
        length: piece.length.into(),
        attr: file.attr,
        flags: piece.flags.into(),
        reserved: 0.into(),
    };
    room.commit(RecordType::ObjectData, 0, file.object, &body, payload_len)
}

/// Some entries of a directory, as they stand in a payload. First their names are gathered, then each gets its object.
pub(crate) struct Entries {
    bytes: KVVec<u8>,
    count: u32,
    most: u32,
}

impl Entries {
    /// No entries, with memory for `capacity` bytes of them, and for `most` of them. May sleep.
    pub(crate) fn new(capacity: usize, most: u32) -> Result<Self> {
        Ok(Self { bytes: KVVec::with_capacity(capacity, GFP_KERNEL)?, count: 0, most })
    }

    /// Adds a name. Returns whether there was memory for it. Never sleeps.
    pub(crate) fn add(&mut self, name: &[u8]) -> bool {
        let entry = DirectoryEntry { object: Identity::NONE, mode: 0.into(), name_len: len(name).into() };
        let end = pad(name.len()).and_then(|padded| padded.checked_add(self.bytes.len() + entry.as_bytes().len()));
        let Some(end) = end.filter(|end| *end <= self.bytes.capacity() && self.count < self.most) else {
            return false;
        };
        // There is memory for all of it.
        let added = self.bytes.extend_from_slice(entry.as_bytes(), GFP_NOWAIT).is_ok()
            && self.bytes.extend_from_slice(name, GFP_NOWAIT).is_ok()
            && self.bytes.resize(end, 0, GFP_NOWAIT).is_ok();
        self.count += u32::from(added);
        added
    }

    /// Has `find` say for each name what object it is of, and the type and permission bits of that.
    pub(crate) fn resolve(&mut self, mut find: impl FnMut(&[u8]) -> Result<(Identity, u32)>) -> Result {
        let mut rest = self.bytes.as_mut_slice();
        while !rest.is_empty() {
            let (entry, behind) = DirectoryEntry::mut_from_prefix(rest).map_err(|_| EIO)?;
            let length = entry.name_len.get() as usize;
            let (name, behind) = behind.split_at_mut_checked(padded(length)).ok_or(EIO)?;
            let (object, mode) = find(name.get(..length).ok_or(EIO)?)?;
            (entry.object, entry.mode) = (object, mode.into());
            rest = behind;
        }
        Ok(())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Takes room for them, and puts them into the log; `None`, and nothing done, without room. `flags` are `STATE_*`.
    pub(crate) fn record(&self, log: &Log, checkpoint: Lsn, dir: &Change, flags: u32) -> Result<Option<Lsn>> {
        let Some(mut room) = log.try_reserve_for::<DirectoryStateBody>(checkpoint, self.length())? else {
            return Ok(None);
        };
        let body = DirectoryStateBody {
            checkpoint: checkpoint.into(),
            attr: dir.attr,
            entries: self.count.into(),
            flags: flags.into(),
            reserved: 0.into(),
        };
        let length = Parts::new(room.payload()).last(&self.bytes).length();
        Ok(Some(room.commit(RecordType::DirectoryState, 0, dir.object, &body, length)))
    }

    /// The payload that they need, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.bytes.len()
    }
}
