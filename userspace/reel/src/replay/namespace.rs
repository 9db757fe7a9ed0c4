// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree as the records tell it: objects by identity, names, attributes. No contents of files, no I/O.

use std::path::PathBuf;

use reelfs_format::record::{Attributes, Identity, Lsn, GAP_DEGRADED, MOUNT_GAP, MOUNT_UNCLEAN, RECORD_PARTIAL};
use reelfs_format::view::{check_name, Event, RecordView};

use super::object::{Home, Staged};
pub use super::object::{Kind, Object, ObjectId, XattrMap};
use super::objects::{Cursor, Displaced, Objects, Page, Spill};
use super::store::{Entry, StoreError};
use super::{file_type, Problem, ReplayError, S_IFDIR};

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

/// Memory that a tree takes unless something else is asked for, in bytes.
pub const MEMORY: usize = 256 << 20;

/// The tree.
#[derive(Debug)]
pub struct Namespace {
    objects: Objects,
    counts: Counts,
    /// What happened to names, where somebody wants to know.
    watch: Option<Box<dyn Watch>>,
    /// Objects that are gone since the last call of [`Namespace::take_gone`].
    gone: Vec<(ObjectId, Object)>,
    remarks: Vec<Remark>,
}

/// What is known of the tree as a whole.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    root: Option<u64>,
    next: u64,
    objects: u64,
    names: u64,
    unnamed: u64,
    records: u64,
    /// A mount was not clean, or there was a gap: what does not fit may be the writer's honest loss.
    doubtful: bool,
    /// There was a gap in which objects and names came and went.
    missing: bool,
    /// The log lacks changes.
    gap: bool,
    /// Records left out behind a gap.
    left_out: u64,
    stream: [u8; 16],
}

/// Somebody who wants to know what becomes of names.
pub trait Watch: std::fmt::Debug {
    /// Whether this name, in whatever directory, is of interest.
    fn minds(&self, name: &[u8]) -> bool;

    /// The object called `path` lost that name, in the record at `lsn`, made at `time`. `to`: it got this one instead.
    fn lost(&mut self, path: Vec<u8>, to: Option<Vec<u8>>, lsn: Lsn, time: i64);
}

/// How many records that were left out are named; more are counted.
const LEFT_OUT_NAMED: u64 = 100;
/// Of `renameat2(2)`.
const RENAME_EXCHANGE: u32 = 1 << 1;

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Namespace {
    /// A tree of which nothing is known. What [`MEMORY`] cannot hold goes into a file without a name.
    pub fn new() -> Self {
        Self::bounded(MEMORY, Spill::Nameless(std::env::temp_dir()))
    }

    /// The same with another bound of memory, in bytes, and another place for the rest.
    pub fn bounded(memory: usize, spill: Spill) -> Self {
        Namespace {
            objects: Objects::new(memory, spill),
            counts: Counts::default(),
            watch: None,
            gone: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// The tree as it was at the last commit into this file, its counts to be set by the caller, and what that commit said
    /// about itself; `None` if there was none.
    pub fn reopen(memory: usize, path: PathBuf) -> Result<Option<(Self, Vec<u8>)>, StoreError> {
        let Some((objects, meta)) = Objects::reopen(memory, Spill::Kept(path))? else { return Ok(None) };
        Ok(Some((Namespace { objects, ..Self::new() }, meta)))
    }

    /// Tells `watch` what becomes of names.
    pub fn watch(&mut self, watch: Box<dyn Watch>) {
        self.watch = Some(watch);
    }

    /// Stops telling, and gives back who was told.
    pub fn unwatch(&mut self) -> Option<Box<dyn Watch>> {
        self.watch.take()
    }

    /// What is known as a whole, for a checkpoint.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Sets what a checkpoint has kept.
    pub fn set_counts(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// Whether memory is full and a commit is due.
    pub fn is_full(&self) -> bool {
        self.objects.is_full()
    }

    /// Commits the tree to disk, with `meta`, and makes room in memory. Durable when it returns.
    pub fn commit(&mut self, meta: &[u8]) -> Result<(), StoreError> {
        self.objects.commit(meta)
    }

    /// The root, once a mount has been seen.
    pub fn root(&self) -> Option<ObjectId> {
        self.counts.root.map(ObjectId)
    }

    /// An object that exists.
    pub fn object(&mut self, id: ObjectId) -> Result<Option<&Object>, StoreError> {
        self.objects.get(id)
    }

    /// An object that exists, to be changed.
    pub fn object_mut(&mut self, id: ObjectId) -> Result<Option<&mut Object>, StoreError> {
        self.objects.get_mut(id)
    }

    /// The object with this identity.
    pub fn find(&mut self, identity: &Identity) -> Result<Option<ObjectId>, StoreError> {
        self.objects.find(identity)
    }

    /// What a name in a directory stands for.
    pub fn name(&mut self, directory: ObjectId, name: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.objects.name(directory, name)
    }

    /// Names in a directory behind `after`, in order: some of them, and the name behind which to go on, if there may be
    /// more.
    pub fn names_after(&mut self, directory: ObjectId, after: Option<&[u8]>) -> Result<Page<Entry>, StoreError> {
        self.objects.names_after(directory, after)
    }

    /// Whose file is staged under a name that is not its own any more.
    pub fn displaced(&mut self, directory: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, StoreError> {
        self.objects.displaced(directory, name)
    }

    /// Notes whose file is staged there, or that none is any more.
    pub fn set_displaced(&mut self, directory: ObjectId, name: &[u8], id: Option<ObjectId>) {
        self.objects.set_displaced(directory, name, id);
    }

    /// Displaced files, a part of them: the directory and the name where each is staged, and whose it is. Then where to go
    /// on, if there may be more. To be asked for from the beginning (`None`), and to be cleared as they come.
    pub fn all_displaced(&mut self, cursor: Option<Cursor>) -> Result<(Vec<Displaced>, Option<Cursor>), StoreError> {
        self.objects.all_displaced(cursor)
    }

    /// Objects that are gone for ever since the last call.
    pub fn take_gone(&mut self) -> Vec<(ObjectId, Object)> {
        std::mem::take(&mut self.gone)
    }

    /// Number of objects that exist, those without a name included.
    pub fn len(&self) -> u64 {
        self.counts.objects
    }

    /// Whether there is nothing, not even a root.
    pub fn is_empty(&self) -> bool {
        self.counts.objects == 0
    }

    /// Number of objects that there have ever been: the numbers of all are below it.
    pub fn ever(&self) -> u64 {
        self.counts.next
    }

    /// Number of names, the root's included.
    pub fn names(&self) -> u64 {
        self.counts.names
    }

    /// Number of objects that have no name.
    pub fn unnamed(&self) -> u64 {
        self.counts.unnamed
    }

    /// Number of records applied.
    pub fn records(&self) -> u64 {
        self.counts.records
    }

    /// Whether the log itself says that it may lack something.
    pub fn is_doubtful(&self) -> bool {
        self.counts.doubtful
    }

    /// Whether the log lacks changes, by its own word.
    pub fn has_gap(&self) -> bool {
        self.counts.gap
    }

    /// Number of records behind a gap that were left out, because they presuppose what is missing.
    pub fn left_out(&self) -> u64 {
        self.counts.left_out
    }

    /// What whoever restores should know, of the records since the last call.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }

    /// A path of the object, for messages. Objects without a name that is known are called by their identity.
    pub fn path(&mut self, id: ObjectId) -> Result<Vec<u8>, StoreError> {
        let mut parts: Vec<Box<[u8]>> = Vec::new();
        let mut at = id;
        while Some(at) != self.root() {
            match self.object(at)?.and_then(|object| object.home.clone()) {
                Some((directory, name)) if parts.len() < 4096 => {
                    parts.push(name);
                    at = directory;
                }
                _ => {
                    let known =
                        self.object(id)?.map_or_else(String::new, |object| crate::show::identity(&object.identity));
                    return Ok(format!("<{known}>").into_bytes());
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
        Ok(path)
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
        if self.counts.missing {
            self.make_way(&event, &header.object, header.epoch.get()).map_err(failed)?;
        }
        let change = match self.apply_event(record, &event) {
            Ok(change) => change,
            Err(problem) if self.counts.missing && !matches!(problem, Problem::Store(_)) => {
                self.counts.left_out += 1;
                if self.counts.left_out <= LEFT_OUT_NAMED {
                    self.remarks.push(Remark::LeftOut { lsn: record.lsn(), problem });
                }
                Change::None
            }
            Err(problem) => return Err(failed(problem)),
        };
        self.counts.records += 1;
        Ok(change)
    }

    /// Behind a gap: what contradicts a record is older than it, and must have gone in between.
    fn make_way(&mut self, event: &Event<'_>, object: &Identity, epoch: u64) -> Result<(), Problem> {
        match *event {
            Event::Create { body, name, .. } => {
                if let Some(known) = self.find(object)? {
                    if !self.is_stale(known, epoch)? {
                        self.discard(known)?;
                    }
                }
                self.free(&body.parent, name, None)
            }
            Event::Link { body, name } => self.free(&body.parent, name, None),
            Event::Rename { body, new_name, .. } if body.flags.get() & RENAME_EXCHANGE == 0 => {
                self.free(&body.new_parent, new_name, Some(&body.other))
            }
            Event::ObjectGone => match self.find(object)? {
                Some(known) if self.seen(known)?.names > 0 => self.discard(known),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Takes a name from whatever has it, `but` this one.
    fn free(&mut self, parent: &Identity, name: &[u8], but: Option<&Identity>) -> Result<(), Problem> {
        let Some(parent) = self.find(parent)? else { return Ok(()) };
        let Some(there) = self.entry(parent, name)? else { return Ok(()) };
        if but == Some(&self.seen(there)?.identity) {
            return Ok(());
        }
        self.remove(parent, name, there)?;
        if self.seen(there)?.names == 0 {
            self.discard(there)?;
        }
        Ok(())
    }

    /// Forgets an object, its names, and what is only reached through it.
    fn discard(&mut self, id: ObjectId) -> Result<(), Problem> {
        if Some(id) == self.root() {
            return Ok(());
        }
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            while self.seen(id)?.names > 0 {
                let Some((parent, name)) = self.any_name(id)? else { break };
                self.remove(parent, &name, id)?;
            }
            let mut after: Option<Box<[u8]>> = None;
            loop {
                let (page, more) = self.names_after(id, after.as_deref())?;
                for (name, entry) in page {
                    self.remove(id, &name, entry.object)?;
                    if self.seen(entry.object)?.names == 0 {
                        doomed.push(entry.object);
                    }
                }
                match more {
                    None => break,
                    more => after = more,
                }
            }
            self.forget(id)?;
        }
        Ok(())
    }

    /// One of the names of an object. Where that is not known, all names of the tree are looked at.
    fn any_name(&mut self, id: ObjectId) -> Result<Option<Home>, Problem> {
        if let Some(home) = &self.seen(id)?.home {
            return Ok(Some(home.clone()));
        }
        let mut directories: Vec<ObjectId> = self.root().into_iter().collect();
        while let Some(directory) = directories.pop() {
            let mut after: Option<Box<[u8]>> = None;
            loop {
                let (page, more) = self.names_after(directory, after.as_deref())?;
                for (name, entry) in page {
                    if entry.object == id {
                        return Ok(Some((directory, name)));
                    }
                    if entry.directory {
                        directories.push(entry.object);
                    }
                }
                match more {
                    None => break,
                    more => after = more,
                }
            }
        }
        Ok(None)
    }

    fn apply_event<'a>(&mut self, record: &RecordView<'a>, event: &Event<'a>) -> Result<Change<'a>, Problem> {
        let header = record.header();
        let (object, lsn) = (header.object, record.lsn());
        if self.root().is_none() && !matches!(event, Event::Mount { .. } | Event::Noop | Event::Skipped) {
            return Err(Problem::NoMount);
        }
        match *event {
            Event::Noop | Event::Unmount | Event::Skipped => Ok(Change::None),
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
                let offset = body.offset.get();
                let end = offset.checked_add(data.len() as u64).ok_or(Problem::Unsupported("an offset this large"))?;
                let before = self.seen(file)?.attr.size.get();
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
                let object = self.slot(id)?;
                object.settled = false;
                object.xattrs.insert(name.into(), value.into());
                Ok(Change::None)
            }
            Event::ObjectState { .. }
            | Event::ObjectData { .. }
            | Event::DirectoryState { .. }
            | Event::CheckpointBegin { .. }
            | Event::CheckpointEnd { .. } => Err(Problem::Unsupported("a checkpoint")),
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

    /// Where the log may lawfully be incomplete, notes what does not fit; else it is an error.
    fn doubt(&mut self, lsn: Lsn, problem: Problem) -> Result<(), Problem> {
        if !self.counts.doubtful {
            return Err(problem);
        }
        self.remarks.push(Remark::Followed { lsn, problem });
        Ok(())
    }

    fn slot(&mut self, id: ObjectId) -> Result<&mut Object, Problem> {
        self.objects.get_mut(id)?.ok_or(Problem::Unknown(Identity::NONE))
    }

    fn seen(&mut self, id: ObjectId) -> Result<&Object, Problem> {
        self.objects.get(id)?.ok_or(Problem::Unknown(Identity::NONE))
    }

    fn known(&mut self, identity: &Identity) -> Result<ObjectId, Problem> {
        self.find(identity)?.ok_or(Problem::Unknown(*identity))
    }

    fn file(&mut self, identity: &Identity) -> Result<ObjectId, Problem> {
        let id = self.known(identity)?;
        match self.seen(id)?.kind {
            Kind::File => Ok(id),
            _ => Err(Problem::NotFile),
        }
    }

    fn directory(&mut self, identity: &Identity) -> Result<ObjectId, Problem> {
        let id = self.known(identity)?;
        match self.seen(id)?.kind {
            Kind::Directory(_) => Ok(id),
            _ => Err(Problem::NotDirectory(*identity)),
        }
    }

    fn entry(&mut self, directory: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, Problem> {
        Ok(self.name(directory, name)?.map(|entry| entry.object))
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
            Some(found) => Err(Problem::OtherObject(name.to_vec(), self.seen(found)?.identity)),
        }
    }

    fn must_be_empty(&mut self, id: ObjectId) -> Result<(), Problem> {
        match self.seen(id)?.kind {
            Kind::Directory(entries) if entries > 0 => Err(Problem::NotEmpty),
            _ => Ok(()),
        }
    }

    /// `id`, if it is a directory, must not be `below` or above it.
    fn not_below(&mut self, id: ObjectId, below: ObjectId) -> Result<(), Problem> {
        if !self.seen(id)?.is_directory() {
            return Ok(());
        }
        let mut at = Some(below);
        while let Some(directory) = at {
            if directory == id {
                return Err(Problem::Cycle);
            }
            at = self.seen(directory)?.home.as_ref().map(|(directory, _)| *directory);
        }
        Ok(())
    }

    /// Whether an object without a name can only be a leftover of an earlier epoch, whose end nobody recorded.
    fn is_stale(&mut self, id: ObjectId, epoch: u64) -> Result<bool, Problem> {
        let object = self.seen(id)?;
        Ok(object.names == 0 && object.epoch < epoch)
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
        if let Some(known) = self.find(&identity)? {
            if !self.is_stale(known, epoch)? {
                return Err(Problem::Exists);
            }
            self.forget(known)?;
        }
        let id = ObjectId(self.counts.next);
        self.counts.next += 1;
        self.counts.objects += 1;
        self.counts.unnamed += 1;
        self.objects.insert(id, Object::new(identity, attr, kind, xattrs, epoch));
        Ok(id)
    }

    fn forget(&mut self, id: ObjectId) -> Result<(), Problem> {
        if let Some(object) = self.objects.remove(id)? {
            self.counts.objects = self.counts.objects.saturating_sub(1);
            self.counts.unnamed = self.counts.unnamed.saturating_sub(u64::from(object.names == 0));
            self.gone.push((id, object));
        }
        Ok(())
    }

    /// Tells who watches that the name is about to go.
    fn tell(
        &mut self,
        directory: ObjectId,
        name: &[u8],
        to: Option<(ObjectId, &[u8])>,
        record: &RecordView<'_>,
    ) -> Result<(), Problem> {
        if !self.watch.as_ref().is_some_and(|watch| watch.minds(name)) {
            return Ok(());
        }
        let path = self.path_of(directory, name)?;
        let to = to.map(|(directory, name)| self.path_of(directory, name)).transpose()?;
        if let Some(watch) = self.watch.as_mut() {
            watch.lost(path, to, record.lsn(), record.header().time.get());
        }
        Ok(())
    }

    fn path_of(&mut self, directory: ObjectId, name: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut path = self.path(directory)?;
        if path != b"/" {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(path)
    }

    fn enter(&mut self, parent: ObjectId, name: &[u8], id: ObjectId) -> Result<(), Problem> {
        let object = self.slot(id)?;
        object.names += 1;
        let first = object.names == 1;
        if object.home.is_none() {
            object.home = Some((parent, name.into()));
        }
        let entry = Entry { object: id, directory: object.is_directory() };
        let back =
            matches!(&object.staged, Staged::Named(directory, staged) if *directory == parent && **staged == *name);
        self.counts.names += 1;
        self.counts.unnamed = self.counts.unnamed.saturating_sub(u64::from(first));
        self.objects.set_name(parent, name, Some(entry));
        if back {
            self.objects.set_displaced(parent, name, None);
        }
        if let Kind::Directory(entries) = &mut self.slot(parent)?.kind {
            *entries += 1;
        }
        Ok(())
    }

    fn remove(&mut self, parent: ObjectId, name: &[u8], id: ObjectId) -> Result<(), Problem> {
        let object = self.slot(id)?;
        let had = object.names;
        object.names = had.saturating_sub(1);
        let is_it = |directory: ObjectId, known: &[u8]| directory == parent && *known == *name;
        if object.home.as_ref().is_some_and(|(directory, known)| is_it(*directory, known)) {
            object.home = None;
        }
        // Its file stays where it is; whoever gets the name next is staged elsewhere.
        let displaced = matches!(&object.staged, Staged::Named(directory, known) if is_it(*directory, known));
        self.counts.names = self.counts.names.saturating_sub(1);
        self.counts.unnamed += u64::from(had == 1);
        self.objects.set_name(parent, name, None);
        if displaced {
            self.objects.set_displaced(parent, name, Some(id));
        }
        if let Kind::Directory(entries) = &mut self.slot(parent)?.kind {
            *entries = entries.saturating_sub(1);
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
        let given = |attr: &Attributes| (attr.mode, attr.uid, attr.gid, attr.mtime_sec, attr.mtime_nsec, attr.size);
        object.settled &= given(&before) == given(attr);
        Ok(())
    }

    /// The links of what is no directory have to be as many as its names. (What a directory counts, its filesystem decides.)
    fn check_links(&mut self, lsn: Lsn, id: ObjectId) -> Result<(), Problem> {
        let object = self.slot(id)?;
        let (recorded, known) = (object.attr.nlink.get(), object.names);
        if object.is_directory() || recorded == known {
            return Ok(());
        }
        self.doubt(lsn, Problem::Links { recorded, known })
    }
}

fn owned<'a>(xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> XattrMap {
    xattrs.map(|(name, value)| (name.into(), value.into())).collect()
}
