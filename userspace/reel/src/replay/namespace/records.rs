// SPDX-License-Identifier: GPL-2.0-or-later

//! What each record does to a tree of which everything is known; what does not fit is an error.

use reelfs_format::record::{Lsn, WriteBody, GAP_DEGRADED, MOUNT_GAP, MOUNT_POPULATED, MOUNT_UNCLEAN, RECORD_PARTIAL};
use reelfs_format::view::{check_name, Event, RecordView};

use super::{Change, Kind, Namespace, ObjectId, Remark, XattrMap};
use crate::replay::{file_type, Problem, S_IFDIR};

/// Of `renameat2(2)`.
pub(super) const RENAME_EXCHANGE: u32 = 1 << 1;

impl Namespace {
    pub(super) fn apply_event<'a>(
        &mut self,
        record: &RecordView<'a>,
        event: &Event<'a>,
    ) -> Result<Change<'a>, Problem> {
        let header = record.header();
        let (object, lsn) = (header.object, record.lsn());
        match event {
            Event::Noop | Event::Skipped | Event::Mount { .. } => {}
            Event::CheckpointBegin { .. } if self.root().is_none() => return self.begin_checkpoint(record),
            _ if self.root().is_none() => return Err(Problem::NoMount),
            _ => {}
        }
        match *event {
            Event::Noop | Event::Unmount | Event::Skipped => Ok(Change::None),
            // Everything is known: a checkpoint says nothing new.
            Event::ObjectState { .. }
            | Event::ObjectData { .. }
            | Event::DirectoryState { .. }
            | Event::CheckpointBegin { .. }
            | Event::CheckpointEnd { .. } => Ok(Change::None),
            Event::Gap { body } => {
                (self.counts.doubtful, self.counts.gap) = (true, true);
                self.counts.missing |= body.reason.get() == GAP_DEGRADED;
                let (time, stream) = (header.time.get(), self.counts.stream);
                let (reason, bytes) = (body.reason.get(), body.bytes.get());
                self.remarks.push(Remark::Gap { lsn, time, stream, reason, bytes });
                Ok(Change::None)
            }
            Event::GapEnd { body } => {
                (self.counts.doubtful, self.counts.gap, self.counts.missing) = (true, true, true);
                self.remarks.push(Remark::GapEnd {
                    lsn,
                    time: header.time.get(),
                    stream: self.counts.stream,
                    begin: body.begin.get(),
                    since: body.since.get(),
                    changes: body.changes.get(),
                    bytes: body.bytes.get(),
                });
                Ok(Change::None)
            }
            Event::Mount { body, xattrs } => {
                if body.flags.get() & MOUNT_UNCLEAN != 0 {
                    self.counts.doubtful = true;
                    self.remarks.push(Remark::Unclean { lsn });
                }
                self.counts.stream = body.stream;
                if body.flags.get() & MOUNT_GAP != 0 {
                    if !self.counts.gap {
                        self.remarks.push(Remark::GapBefore { lsn, time: header.time.get(), stream: body.stream });
                    }
                    (self.counts.doubtful, self.counts.gap, self.counts.missing) = (true, true, true);
                }
                let xattrs = owned(xattrs);
                if file_type(&body.root) != S_IFDIR {
                    return Err(Problem::NotDirectory(object));
                }
                match self.root() {
                    // A tree of which the log has nothing.
                    _ if body.flags.get() & MOUNT_POPULATED != 0 => return Err(Problem::Populated),
                    None => {
                        let root = self.add(object, body.root, Kind::Directory(0), xattrs, header.epoch.get())?;
                        self.slot(root)?.names = 1;
                        self.counts.names += 1;
                        self.counts.unnamed = self.counts.unnamed.saturating_sub(1);
                        self.counts.root = Some(root.0);
                    }
                    Some(root) => {
                        let known = self.slot(root)?;
                        if known.identity != object {
                            return Err(Problem::OtherRoot(known.identity));
                        }
                        known.xattrs = xattrs;
                        known.settled = false;
                        self.take_attr(root, &body.root)?;
                    }
                }
                Ok(Change::None)
            }
            Event::Create { body, name, target, xattrs } => {
                let kind = Kind::of(&body.attr, target)?;
                if body.parent.is_none() {
                    let _ = self.add(object, body.attr, kind, owned(xattrs), header.epoch.get())?;
                    return Ok(Change::None);
                }
                let parent = self.vacant(&body.parent, name)?;
                if let Some(known) = self.find(&object)? {
                    if !self.is_stale(known, header.epoch.get())? {
                        return Err(Problem::Exists);
                    }
                }
                let id = self.add(object, body.attr, kind, owned(xattrs), header.epoch.get())?;
                self.enter(parent, name, id)?;
                self.set_attr(lsn, parent, &body.parent_attr)?;
                self.check_links(lsn, id)?;
                Ok(Change::None)
            }
            Event::Link { body, name } => {
                let id = self.known(&object)?;
                if self.seen(id)?.is_directory() {
                    return Err(Problem::Unsupported("a second name for a directory"));
                }
                let parent = self.vacant(&body.parent, name)?;
                self.enter(parent, name, id)?;
                self.set_attr(lsn, parent, &body.parent_attr)?;
                self.set_attr(lsn, id, &body.attr)?;
                self.check_links(lsn, id)?;
                Ok(Change::None)
            }
            Event::Unlink { body, name } => {
                let id = self.known(&object)?;
                let parent = self.holding(&body.parent, name, id)?;
                self.must_be_empty(id)?;
                self.tell(parent, name, None, record)?;
                self.remove(parent, name, id)?;
                self.set_attr(lsn, parent, &body.parent_attr)?;
                self.set_attr(lsn, id, &body.attr)?;
                self.check_links(lsn, id)?;
                Ok(Change::None)
            }
            Event::Rename { body, old_name, new_name, whiteout } => {
                let flags = body.flags.get();
                let id = self.known(&object)?;
                let old_parent = self.holding(&body.old_parent, old_name, id)?;
                let new_parent = self.directory(&body.new_parent)?;
                if !check_name(new_name) {
                    return Err(Problem::Name(new_name.to_vec()));
                }
                let there = self.entry(new_parent, new_name)?;
                let other = match (there, body.other.is_none()) {
                    (None, true) => None,
                    // What was replaced came and went in a gap.
                    (None, false) if self.counts.missing && flags & RENAME_EXCHANGE == 0 => None,
                    (Some(there), false) => {
                        let found = self.seen(there)?.identity;
                        if found != body.other {
                            return Err(Problem::OtherObject(new_name.to_vec(), found));
                        }
                        Some(there)
                    }
                    (None, false) => return Err(Problem::NoName(new_name.to_vec())),
                    (Some(_), true) => return Err(Problem::NameExists(new_name.to_vec())),
                };
                self.not_below(id, new_parent)?;
                self.tell(old_parent, old_name, Some((new_parent, new_name)), record)?;
                if other.is_some() {
                    self.tell(new_parent, new_name, None, record)?;
                }
                match other {
                    // Two names of one object: rename(2) leaves both.
                    Some(other) if other == id => {}
                    Some(other) if flags & RENAME_EXCHANGE != 0 => {
                        self.not_below(other, old_parent)?;
                        self.remove(old_parent, old_name, id)?;
                        self.remove(new_parent, new_name, other)?;
                        self.enter(new_parent, new_name, id)?;
                        self.enter(old_parent, old_name, other)?;
                    }
                    None if flags & RENAME_EXCHANGE != 0 => return Err(Problem::NoName(new_name.to_vec())),
                    Some(other) => {
                        self.must_be_empty(other)?;
                        self.remove(new_parent, new_name, other)?;
                        self.remove(old_parent, old_name, id)?;
                        self.enter(new_parent, new_name, id)?;
                    }
                    None => {
                        self.remove(old_parent, old_name, id)?;
                        self.enter(new_parent, new_name, id)?;
                    }
                }
                if let Some(whiteout) = whiteout {
                    let kind = Kind::of(whiteout.attr, &[])?;
                    let epoch = header.epoch.get();
                    let left = self.add(body.whiteout, *whiteout.attr, kind, owned(whiteout.xattrs), epoch)?;
                    self.vacant(&body.old_parent, old_name)?;
                    self.enter(old_parent, old_name, left)?;
                    self.check_links(lsn, left)?;
                }
                self.set_attr(lsn, old_parent, &body.old_parent_attr)?;
                self.set_attr(lsn, new_parent, &body.new_parent_attr)?;
                if let Some(other) = other {
                    self.set_attr(lsn, other, &body.other_attr)?;
                }
                self.set_attr(lsn, id, &body.attr)?;
                if let Some(other) = other {
                    self.check_links(lsn, other)?;
                }
                self.check_links(lsn, id)?;
                Ok(Change::None)
            }
            Event::ObjectGone => {
                let id = self.known(&object)?;
                let names = self.seen(id)?.names;
                if names > 0 {
                    return Err(Problem::StillNamed(names));
                }
                self.forget(id)?;
                Ok(Change::Gone { object: id })
            }
            Event::Reidentified { body } => {
                let id = self.known(&body.old)?;
                if self.find(&object)?.is_some() {
                    return Err(Problem::Exists);
                }
                self.objects.rename_identity(body.old, object, id);
                self.slot(id)?.identity = object;
                Ok(Change::None)
            }
            Event::Write { body, data } => {
                let file = self.file(&object)?;
                let offset = self.wrote(lsn, file, body, data.len())?;
                Ok(Change::Write { file, offset, data })
            }
            Event::Truncate { body } => {
                let file = self.file(&object)?;
                self.take_attr(file, &body.attr)?;
                Ok(Change::Truncate { file, size: body.attr.size.get() })
            }
            Event::Fallocate { body } => {
                let file = self.file(&object)?;
                let (offset, length) = (body.offset.get(), body.length.get());
                self.check_range(offset, length)?;
                if header.flags.get() & RECORD_PARTIAL != 0 {
                    return Err(Problem::Unsupported("a fallocate that stopped midway"));
                }
                self.take_attr(file, &body.attr)?;
                Ok(Change::Fallocate { file, mode: body.mode.get(), offset, length, size: body.attr.size.get() })
            }
            Event::Setattr { body } | Event::SetFileattr { body } => {
                let id = self.known(&object)?;
                self.set_attr(lsn, id, &body.attr)?;
                Ok(Change::None)
            }
            Event::SetXattr { body, name, value } => {
                let id = self.known(&object)?;
                self.set_attr(lsn, id, &body.attr)?;
                let object = self.slot(id)?;
                object.settled = false;
                object.xattrs.insert(name.into(), value.into());
                Ok(Change::None)
            }
            Event::RemoveXattr { body, name } => {
                let id = self.known(&object)?;
                self.set_attr(lsn, id, &body.attr)?;
                let object = self.slot(id)?;
                object.settled = false;
                if object.xattrs.remove(name).is_none() {
                    self.doubt(lsn, Problem::NoName(name.to_vec()))?;
                }
                Ok(Change::None)
            }
        }
    }

    /// Takes over what a file is after a write of `length` bytes. Where they begin.
    pub(super) fn wrote(&mut self, lsn: Lsn, file: ObjectId, body: &WriteBody, length: usize) -> Result<u64, Problem> {
        let offset = body.offset.get();
        let end = self.check_range(offset, length as u64)?;
        let before = self.seen(file)?.attr.size.get();
        let size = if length == 0 { before } else { before.max(end) };
        let recorded = body.attr.size.get();
        self.take_attr(file, &body.attr)?;
        if recorded != size {
            self.doubt(lsn, Problem::Size { recorded, known: size })?;
        }
        Ok(offset)
    }

    /// Where the range ends, if a file can have it.
    pub(super) fn check_range(&self, offset: u64, length: u64) -> Result<u64, Problem> {
        let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64);
        end.ok_or(Problem::Unsupported("a range this large"))
    }

    /// Where the log may lawfully be incomplete, notes what does not fit; else it is an error.
    pub(super) fn doubt(&mut self, lsn: Lsn, problem: Problem) -> Result<(), Problem> {
        if !self.counts.doubtful {
            return Err(problem);
        }
        self.remarks.push(Remark::Followed { lsn, problem });
        Ok(())
    }
}

/// The extended attributes of a record.
pub(super) fn owned<'a>(xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> XattrMap {
    xattrs.map(|(name, value)| (name.into(), value.into())).collect()
}
