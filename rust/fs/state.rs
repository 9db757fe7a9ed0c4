// SPDX-License-Identifier: GPL-2.0

//! What a record says about an object: who it is, and what it is like after the change.
//!
//! Read from the object below, with ours locked, after the change and before the record is
//! committed.

use super::{notes::Notes, ReelFs};
use crate::capture::{Change, Entry};
use crate::format::record::{Attributes, Identity, Lsn};
use crate::vfs::{Attr, Dentry, Inode, Kind, LowerDentry, LowerInode};
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::{
    prelude::*,
    sync::{Arc, SetOnce},
};

/// What is kept with an object.
pub(crate) struct InodeData {
    identity: Identity,
    /// Everything about the object, and about its names, is in the log below this.
    last: AtomicU64,
    /// For files that were ever mapped so that stores may come.
    notes: SetOnce<Arc<Notes>>,
}

impl InodeData {
    /// `tail` is the end of the log: an object that was not in memory may have changes up to it.
    pub(super) fn new(lower: &LowerInode, tail: Lsn) -> Result<Self> {
        Ok(Self { identity: identity(lower)?, last: AtomicU64::new(tail), notes: SetOnce::new() })
    }

    /// Returns the name of the object in the log.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns what has to be durable for the object to be.
    pub(super) fn last(&self) -> Lsn {
        self.last.load(Ordering::Acquire)
    }

    /// Returns what is noted of stores through mappings, for a file that was ever mapped so.
    pub(super) fn notes(&self) -> Option<&Notes> {
        self.notes.as_ref().map(|notes| &**notes)
    }

    /// The same, made if it is not there. Callers hold a lock against each other.
    pub(super) fn notes_or(&self, make: impl FnOnce() -> Result<Arc<Notes>>) -> Result<&Notes> {
        if self.notes.as_ref().is_none() {
            self.notes.populate(make()?);
        }
        self.notes().ok_or(EBUSY)
    }

    /// A record about the object ends at `lsn`.
    pub(super) fn recorded(&self, lsn: Lsn) {
        self.last.fetch_max(lsn, Ordering::Release);
    }
}

/// Returns the name in the log of an object below: its file handle.
pub(super) fn identity(lower: &LowerInode) -> Result<Identity> {
    const WORDS: usize = Identity::CAPACITY / 4;
    let mut words = [0; WORDS];
    let (kind, len) = lower.encode_handle(&mut words)?;
    let mut handle = [0; Identity::CAPACITY];
    for (bytes, word) in handle.chunks_exact_mut(4).zip(words) {
        // As `name_to_handle_at(2)` returns it: in memory order.
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Identity::new(kind.into(), handle.get(..len).ok_or(EOVERFLOW)?).ok_or(EOVERFLOW)
}

/// Returns attributes as a record has them, file attributes not among them.
pub(super) fn attributes(attr: &Attr) -> Attributes {
    let kind = Kind::of(attr.mode);
    let has_size = matches!(kind, Kind::Regular | Kind::Symlink);
    let device = if kind == Kind::Special { (attr.rdev_major, attr.rdev_minor) } else { (0, 0) };
    Attributes {
        mode: u32::from(attr.mode).into(),
        nlink: attr.nlink.into(),
        uid: attr.uid.into(),
        gid: attr.gid.into(),
        size: if has_size { attr.size as u64 } else { 0 }.into(),
        rdev_major: device.0.into(),
        rdev_minor: device.1.into(),
        mtime_sec: attr.mtime.tv_sec.into(),
        ctime_sec: attr.ctime.tv_sec.into(),
        mtime_nsec: (attr.mtime.tv_nsec as u32).into(),
        ctime_nsec: (attr.ctime.tv_nsec as u32).into(),
        generation: attr.generation.into(),
        ..Attributes::ZERO
    }
}

/// Returns attributes as a record has them, file attributes among them.
pub(super) fn attributes_with_flags(attr: &Attr, lower: &LowerDentry) -> Attributes {
    let mut attributes = attributes(attr);
    if let Some((flags, project)) = lower.file_attributes() {
        attributes.fileattr = flags.into();
        attributes.projid = project.into();
        attributes.valid = Attributes::FILEATTR_VALID.into();
    }
    attributes
}

/// Returns an object of ours as it is now.
pub(super) fn change(inode: &Inode<ReelFs>) -> Change {
    Change { object: inode.data().identity(), attr: attributes(&inode.lower().attr()) }
}

/// Returns an entry of a directory, which is as it is now.
pub(super) fn entry<'a>(dir: &Inode<ReelFs>, name: &'a Dentry<ReelFs>) -> Entry<'a> {
    Entry { parent: dir.data().identity(), parent_attr: attributes(&dir.lower().attr()), name: name.name() }
}

/// Returns whether an operation that failed left its traces.
pub(super) fn differs(before: &Attr, after: &Attr) -> bool {
    attributes(before) != attributes(after)
}
