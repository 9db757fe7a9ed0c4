// SPDX-License-Identifier: GPL-2.0-or-later

//! Learning the tree from a checkpoint: what each record does to what is known, from the begin record to the end record.
//!
//! A record has sides: the object, each directory, each range of a file. A side that is known is applied; one that is not
//! is skipped, because its state comes later in the log and contains it. What is known is always as it was at that place
//! in the log, so what does not fit is an error here as elsewhere.
//!
//! - **Objects** are known from their state on, or from when they were made. An entry of a directory may come first: then
//!   there is an object with a type and nothing else.
//! - **Contents** are known below the end of the last range that was told. What changes behind it is skipped, what reaches
//!   across is cut. A shift moves what is known across that end: so all of it is void, and is told anew.
//! - **Entries** are known from the first part of a directory's state on: from then, each name that comes is entered and
//!   each that goes is removed, or was not told yet.
//! - What has lost its last known name is kept: it may stand where nothing has been told. At the end there is no such place.

use std::ops::ControlFlow;

use reelfs_format::record::{
    Attributes, DirectoryStateBody, FallocateBody, Identity, Lsn, ObjectDataBody, ObjectStateBody, RenameBody,
    STATE_FIRST, STATE_HOLE, STATE_LAST,
};
use reelfs_format::view::{check_name, Entries, Event, RecordView, Whiteout, Xattrs};
use rustix::fs::FallocateFlags;

use super::records::{owned, RENAME_EXCHANGE};
use super::{Change, Kind, Namespace, ObjectId, XattrMap};
use crate::replay::object::Told;
use crate::replay::{file_type, Problem, S_IFDIR};

/// An object, as a record names it: who, and of which type.
#[derive(Clone, Copy)]
struct Who<'a> {
    identity: &'a Identity,
    mode: u32,
}

impl Namespace {
    /// Begins to learn the tree.
    pub(super) fn begin_checkpoint<'a>(&mut self, record: &RecordView<'a>) -> Result<Change<'a>, Problem> {
        let header = record.header();
        let root = self.named(Who { identity: &header.object, mode: S_IFDIR }, header.epoch.get())?;
        self.slot(root)?.names = 1;
        self.counts.names += 1;
        self.counts.unnamed = self.counts.unnamed.saturating_sub(1);
        self.counts.root = Some(root.0);
        self.counts.telling = Some(record.lsn());
        Ok(Change::None)
    }

    /// Applies those sides of a record that are known.
    pub(super) fn apply_sides<'a>(
        &mut self,
        record: &RecordView<'a>,
        event: &Event<'a>,
        checkpoint: Lsn,
    ) -> Result<Change<'a>, Problem> {
        let header = record.header();
        let (object, lsn, epoch) = (header.object, record.lsn(), header.epoch.get());
        match *event {
            Event::Noop | Event::Skipped => Ok(Change::None),
            Event::Mount { .. }
            | Event::Unmount
            | Event::Gap { .. }
            | Event::GapEnd { .. }
            | Event::CheckpointBegin { .. } => Err(Problem::Abandoned(checkpoint)),
            Event::CheckpointEnd { body } if body.checkpoint.get() != checkpoint => Err(Problem::Abandoned(checkpoint)),
            Event::CheckpointEnd { .. } => self.end_checkpoint(),
            Event::ObjectState { body, target, xattrs } if body.checkpoint.get() == checkpoint => {
                self.object_state(&object, body, target, xattrs, epoch)
            }
            Event::ObjectData { body, data } if body.checkpoint.get() == checkpoint => {
                self.object_data(lsn, &object, body, data)
            }
            Event::DirectoryState { body, entries } if body.checkpoint.get() == checkpoint => {
                self.directory_state(lsn, &object, body, entries, epoch)
            }
            // Of another one.
            Event::ObjectState { .. } | Event::ObjectData { .. } | Event::DirectoryState { .. } => Ok(Change::None),
            Event::Create { body, name, target, xattrs } => {
                let kind = Kind::of(&body.attr, target)?;
                let _ = self.add(object, body.attr, kind, owned(xattrs), epoch)?;
                if !body.parent.is_none() {
                    self.comes(&body.parent, name, Who::of(&object, &body.attr), epoch)?;
                    self.take_known(lsn, &body.parent, &body.parent_attr)?;
                }
                Ok(Change::None)
            }
            Event::Link { body, name } => {
                self.comes(&body.parent, name, Who::of(&object, &body.attr), epoch)?;
                self.take_known(lsn, &body.parent, &body.parent_attr)?;
                self.take_known(lsn, &object, &body.attr)?;
                Ok(Change::None)
            }
            Event::Unlink { body, name } => {
                self.empties(&object)?;
                self.goes(record, &body.parent, name, &object, None)?;
                self.take_known(lsn, &body.parent, &body.parent_attr)?;
                self.take_known(lsn, &object, &body.attr)?;
                self.unname(&object, &body.attr)?;
                Ok(Change::None)
            }
            Event::Rename { body, old_name, new_name, whiteout } => {
                self.renamed(record, body, old_name, new_name, whiteout)
            }
            Event::ObjectGone => {
                let Some(id) = self.find(&object)? else { return Ok(Change::None) };
                let names = self.seen(id)?.names;
                if names > 0 {
                    return Err(Problem::StillNamed(names));
                }
                self.forget(id)?;
                Ok(Change::Gone { object: id })
            }
            Event::Reidentified { body } if self.find(&body.old)?.is_none() => Ok(Change::None),
            Event::Reidentified { .. } => self.apply_event(record, event),
            Event::Write { body, data } => {
                let Some((file, known)) = self.contents(&object)? else { return Ok(Change::None) };
                let offset = self.wrote(lsn, file, body, data.len())?;
                let length = usize::try_from(known.saturating_sub(offset)).unwrap_or(usize::MAX);
                match data.get(..length.min(data.len())) {
                    Some(data) if !data.is_empty() => Ok(Change::Write { file, offset, data }),
                    _ => Ok(Change::None),
                }
            }
            Event::Truncate { body } => {
                let Some((file, known)) = self.contents(&object)? else { return Ok(Change::None) };
                self.take_attr(file, &body.attr)?;
                let size = body.attr.size.get();
                Ok(if size < known { Change::Truncate { file, size } } else { Change::None })
            }
            Event::Fallocate { body } => match self.contents(&object)? {
                None => Ok(Change::None),
                Some((_, u64::MAX)) => self.apply_event(record, event),
                Some((file, known)) => self.allocated(file, known, body),
            },
            // Nothing of these but the object.
            Event::Setattr { .. } | Event::SetFileattr { .. } | Event::SetXattr { .. } | Event::RemoveXattr { .. } => {
                match self.told(&object)? {
                    None => Ok(Change::None),
                    Some(_) => self.apply_event(record, event),
                }
            }
        }
    }

    /// The object, if more is known of it than that it is there.
    fn told(&mut self, identity: &Identity) -> Result<Option<ObjectId>, Problem> {
        let Some(id) = self.find(identity)? else { return Ok(None) };
        Ok((self.seen(id)?.told != Told::Named).then_some(id))
    }

    /// The file, if it is known, and up to where its contents are.
    fn contents(&mut self, identity: &Identity) -> Result<Option<(ObjectId, u64)>, Problem> {
        let Some(id) = self.told(identity)? else { return Ok(None) };
        let object = self.seen(id)?;
        match (&object.kind, object.told) {
            (Kind::File, Told::Upto(known)) => Ok(Some((id, known))),
            (Kind::File, _) => Ok(Some((id, u64::MAX))),
            _ => Err(Problem::NotFile),
        }
    }

    /// The directory, if its entries are known, and whether all of them are.
    fn entries(&mut self, identity: &Identity) -> Result<Option<(ObjectId, bool)>, Problem> {
        let Some(id) = self.told(identity)? else { return Ok(None) };
        let object = self.seen(id)?;
        match (&object.kind, object.told) {
            (Kind::Directory(_), Told::Upto(0)) => Ok(None),
            (Kind::Directory(_), told) => Ok(Some((id, told == Told::All))),
            _ => Err(Problem::NotDirectory(*identity)),
        }
    }

    fn take_known(&mut self, lsn: Lsn, identity: &Identity, attr: &Attributes) -> Result<(), Problem> {
        match self.told(identity)? {
            Some(id) => self.set_attr(lsn, id, attr),
            None => Ok(()),
        }
    }

    /// The object with this identity; where there is none, one of which nothing is known but this.
    fn named(&mut self, who: Who<'_>, epoch: u64) -> Result<ObjectId, Problem> {
        let mut attr = Attributes::ZERO;
        attr.mode = who.mode.into();
        if let Some(id) = self.find(who.identity)? {
            let before = &self.seen(id)?.attr;
            if file_type(before) != file_type(&attr) {
                return Err(Problem::TypeChanged { before: before.mode.get(), after: who.mode });
            }
            return Ok(id);
        }
        let id = self.add(*who.identity, attr, Kind::of(&attr, &[])?, XattrMap::new(), epoch)?;
        self.slot(id)?.told = Told::Named;
        Ok(id)
    }

    /// A name comes to be in a directory, where it was free.
    fn comes(&mut self, parent: &Identity, name: &[u8], who: Who<'_>, epoch: u64) -> Result<(), Problem> {
        if !check_name(name) {
            return Err(Problem::Name(name.to_vec()));
        }
        let Some((parent, _)) = self.entries(parent)? else { return Ok(()) };
        if self.entry(parent, name)?.is_some() {
            return Err(Problem::NameExists(name.to_vec()));
        }
        let id = self.named(who, epoch)?;
        self.enter_known(parent, name, id)
    }

    fn enter_known(&mut self, parent: ObjectId, name: &[u8], id: ObjectId) -> Result<(), Problem> {
        let object = self.seen(id)?;
        if object.is_directory() && object.names > 0 {
            return Err(Problem::Unsupported("a second name for a directory"));
        }
        self.not_below(id, parent)?;
        self.enter(parent, name, id)
    }

    /// A name of the object goes.
    fn goes(
        &mut self,
        record: &RecordView<'_>,
        parent: &Identity,
        name: &[u8],
        object: &Identity,
        to: Option<(&Identity, &[u8])>,
    ) -> Result<(), Problem> {
        if !check_name(name) {
            return Err(Problem::Name(name.to_vec()));
        }
        let Some((parent, all)) = self.entries(parent)? else { return Ok(()) };
        let Some(there) = self.entry(parent, name)? else {
            return if all { Err(Problem::NoName(name.to_vec())) } else { Ok(()) };
        };
        let found = self.seen(there)?.identity;
        if found != *object {
            return Err(Problem::OtherObject(name.to_vec(), found));
        }
        let to = match to {
            Some((directory, name)) => self.find(directory)?.map(|directory| (directory, name)),
            None => None,
        };
        self.tell(parent, name, to, record)?;
        self.remove(parent, name, there)
    }

    /// Something with this identity lost its last name, or was replaced: a directory has to be empty by then.
    fn empties(&mut self, identity: &Identity) -> Result<(), Problem> {
        match self.find(identity)? {
            Some(id) => self.must_be_empty(id),
            None => Ok(()),
        }
    }

    /// What was there and nothing more need not be told any more when it has no links: so it is forgotten.
    fn unname(&mut self, identity: &Identity, attr: &Attributes) -> Result<(), Problem> {
        let Some(id) = self.find(identity)? else { return Ok(()) };
        let object = self.seen(id)?;
        let over = object.told == Told::Named && object.names == 0;
        if over && (attr.nlink.get() == 0 || object.is_directory()) {
            self.forget(id)?;
        }
        Ok(())
    }

    fn renamed<'a>(
        &mut self,
        record: &RecordView<'a>,
        body: &RenameBody,
        old_name: &[u8],
        new_name: &[u8],
        whiteout: Option<Whiteout<'a>>,
    ) -> Result<Change<'a>, Problem> {
        let (object, epoch, lsn) = (record.header().object, record.header().epoch.get(), record.lsn());
        let (old, new, other) = (&body.old_parent, &body.new_parent, &body.other);
        let (moved, second) = (Who::of(&object, &body.attr), Who::of(other, &body.other_attr));
        if body.flags.get() & RENAME_EXCHANGE != 0 {
            if other.is_none() {
                return Err(Problem::NoName(new_name.to_vec()));
            }
            self.goes(record, old, old_name, &object, Some((new, new_name)))?;
            self.goes(record, new, new_name, other, Some((old, old_name)))?;
            self.comes(new, new_name, moved, epoch)?;
            self.comes(old, old_name, second, epoch)?;
        } else if *other != object {
            // Two names of one object: rename(2) leaves both.
            self.goes(record, old, old_name, &object, Some((new, new_name)))?;
            if !other.is_none() {
                self.empties(other)?;
                self.goes(record, new, new_name, other, None)?;
            }
            self.comes(new, new_name, moved, epoch)?;
        }
        if let Some(whiteout) = whiteout {
            let kind = Kind::of(whiteout.attr, &[])?;
            let _ = self.add(body.whiteout, *whiteout.attr, kind, owned(whiteout.xattrs), epoch)?;
            self.comes(old, old_name, Who::of(&body.whiteout, whiteout.attr), epoch)?;
        }
        self.take_known(lsn, old, &body.old_parent_attr)?;
        self.take_known(lsn, new, &body.new_parent_attr)?;
        if !other.is_none() {
            self.take_known(lsn, other, &body.other_attr)?;
            if body.flags.get() & RENAME_EXCHANGE == 0 {
                self.unname(other, &body.other_attr)?;
            }
        }
        self.take_known(lsn, &object, &body.attr)?;
        Ok(Change::None)
    }

    /// `fallocate(2)` on a file whose contents are known below `known` alone.
    fn allocated<'a>(&mut self, file: ObjectId, known: u64, body: &FallocateBody) -> Result<Change<'a>, Problem> {
        let (mode, offset) = (body.mode.get(), body.offset.get());
        let end = self.check_range(offset, body.length.get())?;
        self.take_attr(file, &body.attr)?;
        let shifts = FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE;
        if FallocateFlags::from_bits_retain(mode).intersects(shifts) {
            self.slot(file)?.told = Told::Upto(0);
            return Ok(Change::State { file, anew: true, offset: 0, length: 0, data: Some(&[]), size: None });
        }
        if offset >= known {
            return Ok(Change::None);
        }
        let size = body.attr.size.get().min(known);
        Ok(Change::Fallocate { file, mode, offset, length: end.min(known) - offset, size })
    }

    fn object_state<'a>(
        &mut self,
        identity: &Identity,
        body: &ObjectStateBody,
        target: &[u8],
        xattrs: Xattrs<'_>,
        epoch: u64,
    ) -> Result<Change<'a>, Problem> {
        let kind = Kind::of(&body.attr, target)?;
        let id = self.named(Who::of(identity, &body.attr), epoch)?;
        self.take_attr(id, &body.attr)?;
        let object = self.slot(id)?;
        object.xattrs = owned(xattrs);
        object.settled = false;
        if object.told == Told::Named {
            object.told = match kind {
                Kind::File | Kind::Directory(_) => Told::Upto(0),
                Kind::Symlink(_) | Kind::Node => Told::All,
            };
            object.kind = kind;
        }
        Ok(Change::None)
    }

    fn object_data<'a>(
        &mut self,
        lsn: Lsn,
        identity: &Identity,
        body: &ObjectDataBody,
        data: &'a [u8],
    ) -> Result<Change<'a>, Problem> {
        let (file, known) = self.contents(identity)?.ok_or(Problem::Unknown(*identity))?;
        let (flags, offset, length) = (body.flags.get(), body.offset.get(), body.length.get());
        let (anew, last) = (flags & STATE_FIRST != 0, flags & STATE_LAST != 0);
        let end = self.check_range(offset, length)?;
        let known = if anew { 0 } else { known };
        if offset > known {
            return Err(Problem::PartMissing);
        }
        self.set_attr(lsn, file, &body.attr)?;
        self.slot(file)?.told = match known.max(end) {
            u64::MAX => Told::All,
            _ if last => Told::All,
            end => Told::Upto(end),
        };
        let data = (flags & STATE_HOLE == 0).then_some(data);
        let size = last.then_some(body.attr.size.get());
        Ok(Change::State { file, anew, offset, length, data, size })
    }

    fn directory_state<'a>(
        &mut self,
        lsn: Lsn,
        identity: &Identity,
        body: &DirectoryStateBody,
        entries: Entries<'_>,
        epoch: u64,
    ) -> Result<Change<'a>, Problem> {
        let id = self.told(identity)?.ok_or(Problem::Unknown(*identity))?;
        let object = self.slot(id)?;
        if !object.is_directory() {
            return Err(Problem::NotDirectory(*identity));
        }
        let flags = body.flags.get();
        match object.told {
            Told::Upto(0) if flags & STATE_FIRST == 0 => return Err(Problem::PartMissing),
            Told::Upto(0) => object.told = Told::Upto(1),
            _ => {}
        }
        let all = object.told == Told::All;
        self.set_attr(lsn, id, &body.attr)?;
        for (entry, name) in entries {
            if !check_name(name) {
                return Err(Problem::Name(name.to_vec()));
            }
            match self.entry(id, name)? {
                Some(there) => {
                    let found = self.seen(there)?.identity;
                    if found != entry.object {
                        return Err(Problem::OtherObject(name.to_vec(), found));
                    }
                }
                None if all => return Err(Problem::NoName(name.to_vec())),
                None => {
                    let child = self.named(Who { identity: &entry.object, mode: entry.mode.get() }, epoch)?;
                    self.enter_known(id, name, child)?;
                }
            }
        }
        if flags & STATE_LAST != 0 {
            self.slot(id)?.told = Told::All;
        }
        Ok(Change::None)
    }

    /// Everything has to be known now, and every link to have its name.
    fn end_checkpoint<'a>(&mut self) -> Result<Change<'a>, Problem> {
        let mut wrong = None;
        self.objects.each(&mut |object| {
            let (identity, known) = (object.identity, object.names);
            let recorded = object.attr.nlink.get();
            let linked = if object.is_directory() { known > 0 || recorded == 0 } else { recorded == known };
            let what = match (&object.kind, object.told) {
                (_, Told::Named) => Some("the state"),
                (Kind::Directory(_), Told::Upto(_)) => Some("the last of the entries"),
                (_, Told::Upto(_)) => Some("the end of the contents"),
                (_, Told::All) => None,
            };
            wrong = match what {
                Some(what) => Some(Problem::Untold { object: identity, what }),
                None if !linked => Some(Problem::Unlinked { object: identity, recorded, known }),
                None => return ControlFlow::Continue(()),
            };
            ControlFlow::Break(())
        })?;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        self.counts.telling = None;
        Ok(Change::None)
    }
}

impl<'a> Who<'a> {
    fn of(identity: &'a Identity, attr: &Attributes) -> Self {
        Who { identity, mode: attr.mode.get() }
    }
}
