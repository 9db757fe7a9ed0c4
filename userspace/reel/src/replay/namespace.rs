// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree as the records tell it: objects by identity, names, attributes. No contents of files, no I/O.

use std::collections::{BTreeMap, HashMap};

use reelfs_format::record::{Attributes, Identity, Lsn, GAP_DEGRADED, MOUNT_GAP, MOUNT_UNCLEAN, RECORD_PARTIAL};
use reelfs_format::view::{check_name, Event, RecordView};

use super::{file_type, Problem, ReplayError, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK};

/// An object's number here; never used for two objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u32);

/// Extended attributes by name.
pub type XattrMap = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What is particular about an object of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory, with its entries.
    Directory(BTreeMap<Box<[u8]>, ObjectId>),
    /// A symbolic link, with its target.
    Symlink(Box<[u8]>),
    /// A device, a fifo or a socket.
    Node,
}

impl Kind {
    /// What an object with these attributes is when it has just been made. `target` is that of a symbolic link.
    fn of(attr: &Attributes, target: &[u8]) -> Result<Self, Problem> {
        match file_type(attr) {
            S_IFREG => Ok(Kind::File),
            S_IFDIR => Ok(Kind::Directory(BTreeMap::new())),
            S_IFLNK => Ok(Kind::Symlink(target.into())),
            S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK => Ok(Kind::Node),
            _ => Err(Problem::Mode(attr.mode.get())),
        }
    }
}

/// One object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its identity in the log.
    pub identity: Identity,
    /// Its attributes after the last record about it.
    pub attr: Attributes,
    /// What it is.
    pub kind: Kind,
    /// Extended attributes, access control lists among them.
    pub xattrs: XattrMap,
    /// How many names it has; the root has one that nobody sees.
    pub names: u32,
    /// One of the directories it is in, under one of its names: the only one, for a directory.
    pub parent: Option<ObjectId>,
    /// Epoch of the record that made it.
    epoch: u64,
}

/// What a record demands of the contents of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Nothing.
    None,
    /// Bytes are stored.
    Write {
        /// The file.
        file: ObjectId,
        /// Where they begin.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// The size is set.
    Truncate {
        /// The file.
        file: ObjectId,
        /// The size in bytes.
        size: u64,
    },
    /// `fallocate(2)`.
    Fallocate {
        /// The file.
        file: ObjectId,
        /// `FALLOC_FL_*`.
        mode: u32,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// Size of the file after it.
        size: u64,
    },
    /// The object is gone for ever.
    Gone {
        /// The object.
        object: ObjectId,
    },
}

/// Something in the log that whoever restores should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The log lacks changes here.
    Gap {
        /// Where.
        lsn: Lsn,
        /// When, nanoseconds since 1970-01-01 UTC.
        time: i64,
        /// The stream.
        stream: [u8; 16],
        /// `GAP_*`.
        reason: u32,
        /// Bytes of records that were dropped, zero if not known.
        bytes: u64,
    },
    /// A gap ends here: from here on the log has everything again.
    GapEnd {
        /// Where.
        lsn: Lsn,
        /// When, nanoseconds since 1970-01-01 UTC.
        time: i64,
        /// The stream.
        stream: [u8; 16],
        /// Where the gap began.
        begin: Lsn,
        /// When it began.
        since: i64,
        /// Changes that were made meanwhile.
        changes: u64,
        /// Bytes of the records that they would have been.
        bytes: u64,
    },
    /// The tree had changes at this mount that are in no log, and no record before says so.
    GapBefore {
        /// Where.
        lsn: Lsn,
        /// When, nanoseconds since 1970-01-01 UTC.
        time: i64,
        /// The stream.
        stream: [u8; 16],
    },
    /// Behind a gap, a record presupposes what is missing, and was left out.
    LeftOut {
        /// Where.
        lsn: Lsn,
        /// What is missing.
        problem: Problem,
    },
    /// The mount before did not end cleanly: from here on, log and tree may have disagreed.
    Unclean {
        /// Where.
        lsn: Lsn,
    },
    /// After an unclean mount, a record did not fit what was known; the record was followed.
    Followed {
        /// Where.
        lsn: Lsn,
        /// What did not fit.
        problem: Problem,
    },
}

/// The tree.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    objects: Vec<Option<Object>>,
    by_identity: HashMap<Identity, ObjectId>,
    root: Option<ObjectId>,
    /// A mount was not clean, or there was a gap: what does not fit may be the writer's honest loss.
    doubtful: bool,
    /// There was a gap in which objects and names came and went.
    missing: bool,
    /// The log lacks changes.
    gap: bool,
    /// Records left out behind a gap.
    left_out: u64,
    stream: [u8; 16],
    remarks: Vec<Remark>,
    records: u64,
}

/// How many records that were left out are named; more are counted.
const LEFT_OUT_NAMED: u64 = 100;
/// Of `renameat2(2)`.
const RENAME_EXCHANGE: u32 = 1 << 1;

impl Namespace {
    /// A tree of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The root, once a mount has been seen.
    pub fn root(&self) -> Option<ObjectId> {
        self.root
    }

    /// An object that exists.
    pub fn object(&self, id: ObjectId) -> Option<&Object> {
        self.objects.get(id.0 as usize)?.as_ref()
    }

    /// The object with this identity.
    pub fn find(&self, identity: &Identity) -> Option<ObjectId> {
        self.by_identity.get(identity).copied()
    }

    /// All objects that exist, those without a name included.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        let numbered = self.objects.iter().zip(0_u32..);
        numbered.filter_map(|(object, number)| Some((ObjectId(number), object.as_ref()?)))
    }

    /// Number of objects that exist.
    pub fn len(&self) -> usize {
        self.by_identity.len()
    }

    /// Whether there is nothing, not even a root.
    pub fn is_empty(&self) -> bool {
        self.by_identity.is_empty()
    }

    /// Number of records applied.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether the log itself says that it may lack something.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether the log lacks changes, by its own word.
    pub fn has_gap(&self) -> bool {
        self.gap
    }

    /// Number of records behind a gap that were left out, because they presuppose what is missing.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What whoever restores should know.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// A path of the object, for messages. Objects without a name are called by their identity.
    pub fn path(&self, id: ObjectId) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = id;
        while Some(at) != self.root {
            let parent = self.object(at).and_then(|object| object.parent);
            let entry = parent.and_then(|parent| match &self.object(parent)?.kind {
                Kind::Directory(entries) => entries.iter().find(|(_, child)| **child == at),
                _ => None,
            });
            match (entry, parent) {
                (Some((name, _)), Some(parent)) if parts.len() < 4096 => {
                    parts.push(name);
                    at = parent;
                }
                _ => {
                    let known =
                        self.object(id).map_or_else(String::new, |object| crate::show::identity(&object.identity));
                    return format!("<{known}>").into_bytes();
                }
            }
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        path
    }

    /// Applies a record and says what it demands of the contents of files.
    pub fn apply<'a>(&mut self, record: &RecordView<'a>) -> Result<Change<'a>, ReplayError> {
        let header = record.header();
        let failed = |problem| ReplayError {
            lsn: record.lsn(),
            kind: record.kind().map_or("unknown", |kind| kind.name()),
            object: header.object,
            problem,
        };
        let event = record.event().map_err(|_| failed(Problem::Unsupported("a record of this type")))?;
        if self.missing {
            self.make_way(&event, &header.object, header.epoch.get());
        }
        let change = match self.apply_event(record, &event) {
            Ok(change) => change,
            Err(problem) if self.missing => {
                self.left_out += 1;
                if self.left_out <= LEFT_OUT_NAMED {
                    self.remarks.push(Remark::LeftOut { lsn: record.lsn(), problem });
                }
                Change::None
            }
            Err(problem) => return Err(failed(problem)),
        };
        self.records += 1;
        Ok(change)
    }

    /// Behind a gap: what contradicts a record is older than it, and must have gone in between.
    fn make_way(&mut self, event: &Event<'_>, object: &Identity, epoch: u64) {
        match *event {
            Event::Create { body, name, .. } => {
                if let Some(known) = self.find(object).filter(|known| !self.is_stale(*known, epoch)) {
                    self.discard(known);
                }
                self.free(&body.parent, name, None);
            }
            Event::Link { body, name } => self.free(&body.parent, name, None),
            Event::Rename { body, new_name, .. } if body.flags.get() & RENAME_EXCHANGE == 0 => {
                self.free(&body.new_parent, new_name, Some(&body.other));
            }
            Event::ObjectGone => {
                if let Some(known) = self.find(object).filter(|known| self.object(*known).is_some_and(|o| o.names > 0))
                {
                    self.discard(known);
                }
            }
            _ => {}
        }
    }

    /// Takes a name from whatever has it, `but` this one.
    fn free(&mut self, parent: &Identity, name: &[u8], but: Option<&Identity>) {
        let Ok(parent) = self.directory(parent) else { return };
        let Ok(Some(there)) = self.entry(parent, name) else { return };
        if self.object(there).is_some_and(|object| but == Some(&object.identity)) {
            return;
        }
        let _ = self.remove(parent, name, there);
        if self.object(there).is_some_and(|object| object.names == 0) {
            self.discard(there);
        }
    }

    /// Forgets an object, its names, and what is only reached through it.
    fn discard(&mut self, id: ObjectId) {
        if Some(id) == self.root {
            return;
        }
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            if self.object(id).is_some_and(|object| object.names > 0) {
                for directory in self.objects.iter_mut().flatten() {
                    if let Kind::Directory(entries) = &mut directory.kind {
                        entries.retain(|_, child| *child != id);
                    }
                }
            }
            let children = match self.objects.get_mut(id.0 as usize).and_then(Option::as_mut).map(|o| &mut o.kind) {
                Some(Kind::Directory(entries)) => std::mem::take(entries).into_values().collect(),
                _ => Vec::new(),
            };
            for child in children {
                let Ok(object) = self.slot(child) else { continue };
                object.names = object.names.saturating_sub(1);
                if object.names == 0 {
                    doomed.push(child);
                }
            }
            self.forget(id);
        }
    }

    fn apply_event<'a>(&mut self, record: &RecordView<'a>, event: &Event<'a>) -> Result<Change<'a>, Problem> {
        let header = record.header();
        let (object, lsn) = (header.object, record.lsn());
        if self.root.is_none() && !matches!(event, Event::Mount { .. } | Event::Noop | Event::Skipped) {
            return Err(Problem::NoMount);
        }
        match *event {
            Event::Noop | Event::Unmount | Event::Skipped => Ok(Change::None),
            Event::Gap { body } => {
                (self.doubtful, self.gap) = (true, true);
                self.missing |= body.reason.get() == GAP_DEGRADED;
                let (time, stream) = (header.time.get(), self.stream);
                let (reason, bytes) = (body.reason.get(), body.bytes.get());
                self.remarks.push(Remark::Gap { lsn, time, stream, reason, bytes });
                Ok(Change::None)
            }
            Event::GapEnd { body } => {
                (self.doubtful, self.gap, self.missing) = (true, true, true);
                self.remarks.push(Remark::GapEnd {
                    lsn,
                    time: header.time.get(),
                    stream: self.stream,
                    begin: body.begin.get(),
                    since: body.since.get(),
                    changes: body.changes.get(),
                    bytes: body.bytes.get(),
                });
                Ok(Change::None)
            }
            Event::Mount { body, xattrs } => {
                if body.flags.get() & MOUNT_UNCLEAN != 0 {
                    self.doubtful = true;
                    self.remarks.push(Remark::Unclean { lsn });
                }
                self.stream = body.stream;
                if body.flags.get() & MOUNT_GAP != 0 {
                    if !self.gap {
                        self.remarks.push(Remark::GapBefore { lsn, time: header.time.get(), stream: body.stream });
                    }
                    (self.doubtful, self.gap, self.missing) = (true, true, true);
                }
                let xattrs = owned(xattrs);
                if file_type(&body.root) != S_IFDIR {
                    return Err(Problem::NotDirectory(object));
                }
                match self.root {
                    None => {
                        let kind = Kind::Directory(BTreeMap::new());
                        let root = self.add(object, body.root, kind, xattrs, header.epoch.get())?;
                        self.slot(root)?.names = 1;
                        self.root = Some(root);
                    }
                    Some(root) => {
                        let known = self.slot(root)?;
                        if known.identity != object {
                            return Err(Problem::OtherRoot(known.identity));
                        }
                        known.xattrs = xattrs;
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
                if self.find(&object).is_some_and(|known| !self.is_stale(known, header.epoch.get())) {
                    return Err(Problem::Exists);
                }
                let id = self.add(object, body.attr, kind, owned(xattrs), header.epoch.get())?;
                self.enter(parent, name, id)?;
                self.set_attr(lsn, parent, &body.parent_attr)?;
                self.check_links(lsn, id)?;
                Ok(Change::None)
            }
            Event::Link { body, name } => {
                let id = self.known(&object)?;
                if matches!(self.slot(id)?.kind, Kind::Directory(_)) {
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
                    (None, false) if self.missing && flags & RENAME_EXCHANGE == 0 => None,
                    (Some(there), false) => {
                        let found = self.slot(there)?.identity;
                        if found != body.other {
                            return Err(Problem::OtherObject(new_name.to_vec(), found));
                        }
                        Some(there)
                    }
                    (None, false) => return Err(Problem::NoName(new_name.to_vec())),
                    (Some(_), true) => return Err(Problem::NameExists(new_name.to_vec())),
                };
                self.not_below(id, new_parent)?;
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
                let names = self.slot(id)?.names;
                if names > 0 {
                    return Err(Problem::StillNamed(names));
                }
                self.forget(id);
                Ok(Change::Gone { object: id })
            }
            Event::Reidentified { body } => {
                let id = self.known(&body.old)?;
                if self.find(&object).is_some() {
                    return Err(Problem::Exists);
                }
                self.by_identity.remove(&body.old);
                self.by_identity.insert(object, id);
                self.slot(id)?.identity = object;
                Ok(Change::None)
            }
            Event::Write { body, data } => {
                let file = self.file(&object)?;
                let offset = body.offset.get();
                let end = offset.checked_add(data.len() as u64).ok_or(Problem::Unsupported("an offset this large"))?;
                let before = self.slot(file)?.attr.size.get();
                let size = if data.is_empty() { before } else { before.max(end) };
                let recorded = body.attr.size.get();
                self.take_attr(file, &body.attr)?;
                if recorded != size {
                    self.doubt(lsn, Problem::Size { recorded, known: size })?;
                }
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
                if offset.checked_add(length).is_none_or(|end| end > i64::MAX as u64) {
                    return Err(Problem::Unsupported("a range this large"));
                }
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
                self.slot(id)?.xattrs.insert(name.into(), value.into());
                Ok(Change::None)
            }
            Event::RemoveXattr { body, name } => {
                let id = self.known(&object)?;
                self.set_attr(lsn, id, &body.attr)?;
                if self.slot(id)?.xattrs.remove(name).is_none() {
                    self.doubt(lsn, Problem::NoName(name.to_vec()))?;
                }
                Ok(Change::None)
            }
        }
    }

    /// Where the log may lawfully be incomplete, notes what does not fit; else it is an error.
    fn doubt(&mut self, lsn: Lsn, problem: Problem) -> Result<(), Problem> {
        if !self.doubtful {
            return Err(problem);
        }
        self.remarks.push(Remark::Followed { lsn, problem });
        Ok(())
    }

    fn slot(&mut self, id: ObjectId) -> Result<&mut Object, Problem> {
        let object = self.objects.get_mut(id.0 as usize).and_then(Option::as_mut);
        object.ok_or(Problem::Unknown(Identity::NONE))
    }

    fn known(&self, identity: &Identity) -> Result<ObjectId, Problem> {
        self.find(identity).ok_or(Problem::Unknown(*identity))
    }

    fn file(&mut self, identity: &Identity) -> Result<ObjectId, Problem> {
        let id = self.known(identity)?;
        match self.slot(id)?.kind {
            Kind::File => Ok(id),
            _ => Err(Problem::NotFile),
        }
    }

    fn directory(&self, identity: &Identity) -> Result<ObjectId, Problem> {
        let id = self.known(identity)?;
        match self.object(id).map(|object| &object.kind) {
            Some(Kind::Directory(_)) => Ok(id),
            _ => Err(Problem::NotDirectory(*identity)),
        }
    }

    fn entries(&mut self, directory: ObjectId) -> Result<&mut BTreeMap<Box<[u8]>, ObjectId>, Problem> {
        let object = self.slot(directory)?;
        let identity = object.identity;
        match &mut object.kind {
            Kind::Directory(entries) => Ok(entries),
            _ => Err(Problem::NotDirectory(identity)),
        }
    }

    fn entry(&mut self, directory: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, Problem> {
        Ok(self.entries(directory)?.get(name).copied())
    }

    /// The directory, in which the name must be free.
    fn vacant(&mut self, parent: &Identity, name: &[u8]) -> Result<ObjectId, Problem> {
        let parent = self.directory(parent)?;
        if !check_name(name) {
            return Err(Problem::Name(name.to_vec()));
        }
        match self.entry(parent, name)? {
            None => Ok(parent),
            Some(_) => Err(Problem::NameExists(name.to_vec())),
        }
    }

    /// The directory, in which the name must be the object's.
    fn holding(&mut self, parent: &Identity, name: &[u8], id: ObjectId) -> Result<ObjectId, Problem> {
        let parent = self.directory(parent)?;
        match self.entry(parent, name)? {
            None => Err(Problem::NoName(name.to_vec())),
            Some(found) if found == id => Ok(parent),
            Some(found) => Err(Problem::OtherObject(name.to_vec(), self.slot(found)?.identity)),
        }
    }

    fn must_be_empty(&mut self, id: ObjectId) -> Result<(), Problem> {
        match &self.slot(id)?.kind {
            Kind::Directory(entries) if !entries.is_empty() => Err(Problem::NotEmpty),
            _ => Ok(()),
        }
    }

    /// `id`, if it is a directory, must not be `below` or above it.
    fn not_below(&mut self, id: ObjectId, below: ObjectId) -> Result<(), Problem> {
        if !matches!(self.slot(id)?.kind, Kind::Directory(_)) {
            return Ok(());
        }
        let mut at = Some(below);
        while let Some(directory) = at {
            if directory == id {
                return Err(Problem::Cycle);
            }
            at = self.slot(directory)?.parent;
        }
        Ok(())
    }

    /// Whether an object without a name can only be a leftover of an earlier epoch, whose end nobody recorded.
    fn is_stale(&self, id: ObjectId, epoch: u64) -> bool {
        self.object(id).is_some_and(|object| object.names == 0 && object.epoch < epoch)
    }

    fn add(
        &mut self,
        identity: Identity,
        attr: Attributes,
        kind: Kind,
        xattrs: XattrMap,
        epoch: u64,
    ) -> Result<ObjectId, Problem> {
        if identity.is_none() {
            return Err(Problem::Unknown(identity));
        }
        if let Some(known) = self.find(&identity) {
            if !self.is_stale(known, epoch) {
                return Err(Problem::Exists);
            }
            self.forget(known);
        }
        let id = ObjectId(u32::try_from(self.objects.len()).map_err(|_| Problem::Unsupported("so many objects"))?);
        self.objects.push(Some(Object { identity, attr, kind, xattrs, names: 0, parent: None, epoch }));
        self.by_identity.insert(identity, id);
        Ok(id)
    }

    fn forget(&mut self, id: ObjectId) {
        if let Some(object) = self.objects.get_mut(id.0 as usize).and_then(Option::take) {
            self.by_identity.remove(&object.identity);
        }
    }

    fn enter(&mut self, parent: ObjectId, name: &[u8], id: ObjectId) -> Result<(), Problem> {
        self.entries(parent)?.insert(name.into(), id);
        let object = self.slot(id)?;
        object.names += 1;
        object.parent = Some(parent);
        Ok(())
    }

    fn remove(&mut self, parent: ObjectId, name: &[u8], id: ObjectId) -> Result<(), Problem> {
        self.entries(parent)?.remove(name);
        let object = self.slot(id)?;
        object.names = object.names.saturating_sub(1);
        if matches!(object.kind, Kind::Directory(_)) {
            object.parent = None;
        }
        Ok(())
    }

    /// Takes over attributes, in a record that does not change the size.
    fn set_attr(&mut self, lsn: Lsn, id: ObjectId, attr: &Attributes) -> Result<(), Problem> {
        let object = self.slot(id)?;
        let (recorded, known) = (attr.size.get(), object.attr.size.get());
        let sized = matches!(object.kind, Kind::File);
        self.take_attr(id, attr)?;
        if sized && recorded != known {
            self.doubt(lsn, Problem::Size { recorded, known })?;
        }
        Ok(())
    }

    fn take_attr(&mut self, id: ObjectId, attr: &Attributes) -> Result<(), Problem> {
        let object = self.slot(id)?;
        if file_type(attr) != file_type(&object.attr) {
            return Err(Problem::TypeChanged { before: object.attr.mode.get(), after: attr.mode.get() });
        }
        let before = std::mem::replace(&mut object.attr, *attr);
        // A record that does not say what the file attributes are has not changed them.
        if attr.valid.get() & Attributes::FILEATTR_VALID == 0 {
            object.attr.fileattr = before.fileattr;
            object.attr.projid = before.projid;
            object.attr.valid = before.valid;
        }
        Ok(())
    }

    /// The links of what is no directory have to be as many as its names. (What a directory counts, its filesystem decides.)
    fn check_links(&mut self, lsn: Lsn, id: ObjectId) -> Result<(), Problem> {
        let object = self.slot(id)?;
        let (recorded, known) = (object.attr.nlink.get(), object.names);
        if matches!(object.kind, Kind::Directory(_)) || recorded == known {
            return Ok(());
        }
        self.doubt(lsn, Problem::Links { recorded, known })
    }
}

fn owned<'a>(xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> XattrMap {
    xattrs.map(|(name, value)| (name.into(), value.into())).collect()
}
