// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree as the records tell it: objects by identity, names, attributes. No contents of files, no I/O.
//!
//! [`tree`] is what can be done to it. Which record does what is said three times: by [`records`] for a tree of which
//! everything is known, by [`states`] for one that a checkpoint is telling of, and by [`gap`] for what a gap leaves of
//! the former.

mod gap;
mod records;
mod states;
mod tree;

use std::path::PathBuf;

use reelfs_format::record::{Identity, Lsn};
use reelfs_format::view::RecordView;

pub use super::object::{Kind, Object, ObjectId, XattrMap};
use super::objects::{Cursor, Displaced, Objects, Page, Spill};
use super::store::{Entry, StoreError};
use super::{Problem, ReplayError};

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
    /// A checkpoint tells a range of the contents, or that what was told of them does not count.
    State {
        /// The file.
        file: ObjectId,
        /// What there is of the file's contents goes first.
        anew: bool,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// The bytes; `None` for a hole.
        data: Option<&'a [u8]>,
        /// Where all has been told now: how long the file is.
        size: Option<u64>,
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
    /// The checkpoint that is telling of the tree: until its end, not everything is known.
    telling: Option<Lsn>,
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

    /// The checkpoint that the tree is being learned from, while it has not come to its end: LSN of its begin record.
    pub fn telling(&self) -> Option<Lsn> {
        self.counts.telling
    }

    /// Says whose log it is, where that is known before the log says it.
    pub fn set_stream(&mut self, stream: [u8; 16]) {
        self.counts.stream = stream;
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

    /// Applies a record and says what it demands of the contents of files.
    ///
    /// The first record is a mount of an empty tree, or the begin record of a checkpoint that is known to be complete.
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
        let applied = match self.counts.telling {
            Some(checkpoint) => self.apply_sides(record, &event, checkpoint),
            None => self.apply_event(record, &event),
        };
        let change = match applied {
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
}
