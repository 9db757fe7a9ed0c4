// SPDX-License-Identifier: GPL-2.0-or-later

//! Replaying the log onto an empty directory.
//!
//! Three steps. [`namespace`] follows the records: which objects there are, under which names, with which attributes; it
//! checks each record against what is known and refuses to guess. Its memory is bounded; what does not fit, and what a
//! checkpoint keeps, is in a database ([`objects`], [`store`]). [`staging`] applies what concerns the contents of files, in
//! order, to files in directories that nobody else can enter. [`place`] puts everything under its names at the end, with
//! ordinary system calls.
//!
//! Everything that comes from media is hostile: names are checked before they touch the filesystem, nothing is ever
//! reached through a path of more than one component, and no symbolic link is followed.

pub mod dress;
pub mod namespace;
pub mod object;
pub mod objects;
pub mod place;
pub mod staging;
pub mod store;

use reelfs_format::record::{Attributes, Identity, Lsn};

use crate::show;

/// Why a record cannot be applied. The log is at fault, or the program that wrote it.
#[derive(Debug, thiserror::Error)]
#[error("record at LSN {lsn:#x} ({kind}, object {}): {problem}", show::identity(.object))]
pub struct ReplayError {
    /// The record.
    pub lsn: Lsn,
    /// Its type.
    pub kind: &'static str,
    /// The object it is about.
    pub object: Identity,
    /// What does not fit.
    pub problem: Problem,
}

/// What does not fit between a record and what is known from the records before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The log does not begin with a mount of an empty tree.
    #[error("the log does not begin here: no mount has been seen")]
    NoMount,
    /// A tree that was not empty was mounted, and the log has nothing of it.
    #[error(
        "the tree was not empty when the log of it began, and what was in it then is in no log before a checkpoint; \
         a restore needs a complete one, and there is none up to this moment (`reel checkpoint` has the daemon make one)"
    )]
    Populated,
    /// A checkpoint that is being followed ends in another way than by its end record.
    #[error("the checkpoint begun at LSN {0:#x} was never completed")]
    Abandoned(Lsn),
    /// A checkpoint ends, and something has not been told by then.
    #[error("the checkpoint ends, and {what} of object {} was not told", show::identity(.object))]
    Untold {
        /// The object.
        object: Identity,
        /// What is not known of it.
        what: &'static str,
    },
    /// A checkpoint ends, and an object does not have its names.
    #[error("the checkpoint ends, and object {} has {recorded} links and {known} names", show::identity(.object))]
    Unlinked {
        /// The object.
        object: Identity,
        /// Number of links that it has.
        recorded: u32,
        /// Names that are known.
        known: u32,
    },
    /// A part of what a checkpoint tells of an object is missing.
    #[error("what was told of it before does not reach up to here")]
    PartMissing,
    /// The tree was mounted with another root than before.
    #[error("another root than {}", show::identity(.0))]
    OtherRoot(Identity),
    /// An object that no record has made.
    #[error("object {} is not known", show::identity(.0))]
    Unknown(Identity),
    /// An object that is there already.
    #[error("there is such an object already")]
    Exists,
    /// The parent is no directory.
    #[error("{} is no directory", show::identity(.0))]
    NotDirectory(Identity),
    /// The object is no regular file.
    #[error("not a regular file")]
    NotFile,
    /// A name that cannot be one.
    #[error("impossible name {}", show::name(.0))]
    Name(Vec<u8>),
    /// The name is there already.
    #[error("the name {} is there already", show::name(.0))]
    NameExists(Vec<u8>),
    /// The name is not there.
    #[error("the name {} is not there", show::name(.0))]
    NoName(Vec<u8>),
    /// The name is another object's.
    #[error("the name {} belongs to object {}", show::name(.0), show::identity(.1))]
    OtherObject(Vec<u8>, Identity),
    /// The directory still has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The object still has names.
    #[error("the object still has {0} names")]
    StillNamed(u32),
    /// The directory would become its own descendant.
    #[error("a directory would be moved below itself")]
    Cycle,
    /// Number of links in the record and of names that are known.
    #[error("{recorded} links recorded, {known} names known")]
    Links {
        /// In the record.
        recorded: u32,
        /// Known.
        known: u32,
    },
    /// The size in the record and the size that follows from what came before.
    #[error("size {recorded} recorded, {known} follows from the records before")]
    Size {
        /// In the record.
        recorded: u64,
        /// Known.
        known: u64,
    },
    /// The type of an object changed.
    #[error("type of the object changed (mode {before:o}, then {after:o})")]
    TypeChanged {
        /// Before.
        before: u32,
        /// After.
        after: u32,
    },
    /// A file type that does not exist.
    #[error("impossible mode {0:o}")]
    Mode(u32),
    /// Something that this program does not know how to apply.
    #[error("{0} cannot be applied by this program")]
    Unsupported(&'static str),
    /// The tree is kept on disk, and the disk refused.
    #[error("{0}")]
    Store(String),
}

impl From<store::StoreError> for Problem {
    fn from(error: store::StoreError) -> Self {
        Problem::Store(error.to_string())
    }
}

/// Type bits of a mode.
pub fn file_type(attr: &Attributes) -> u32 {
    attr.mode.get() & S_IFMT
}

/// `S_IFMT` and the types, of `stat(2)`.
pub const S_IFMT: u32 = 0o170_000;
/// See [`S_IFMT`].
pub const S_IFREG: u32 = 0o100_000;
/// See [`S_IFMT`].
pub const S_IFDIR: u32 = 0o040_000;
/// See [`S_IFMT`].
pub const S_IFLNK: u32 = 0o120_000;
/// See [`S_IFMT`].
pub const S_IFCHR: u32 = 0o020_000;
/// See [`S_IFMT`].
pub const S_IFBLK: u32 = 0o060_000;
/// See [`S_IFMT`].
pub const S_IFIFO: u32 = 0o010_000;
/// See [`S_IFMT`].
pub const S_IFSOCK: u32 = 0o140_000;
