// SPDX-License-Identifier: GPL-2.0-or-later

//! What can go wrong with a spool, and what to do next.

use std::io;
use std::path::PathBuf;

use reelfs_format::record::Lsn;
use reelfs_format::spool::SegmentError;
use reelfs_format::view::RecordError;

/// Why an operation on a spool failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The kernel said so.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The directory holds no spool.
    #[error("{0} holds no spool (no spool.toml)")]
    NoSpool(PathBuf),
    /// The directory holds files that a new spool must not mix with.
    #[error("{0} is not empty and holds no spool; give the spool a directory of its own")]
    NotEmpty(PathBuf),
    /// `spool.toml` cannot be read.
    #[error("{path}: {reason}")]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the spool.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// A segment's header breaks the format.
    #[error("segment {path}: {source}")]
    Header {
        /// The file.
        path: PathBuf,
        /// The rule that is broken.
        source: SegmentError,
    },
    /// A segment belongs to another stream, or is not the one its name says.
    #[error("segment {path} is {what}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// Acknowledged bytes are missing or broken.
    #[error("the log is damaged at LSN {lsn:#x} (segment {path}, offset {offset}): {reason}")]
    Damaged {
        /// Where the log can no longer be followed.
        lsn: Lsn,
        /// The segment that the position lies in.
        path: PathBuf,
        /// Offset in that file, in bytes.
        offset: u64,
        /// What shows that this is no torn tail.
        reason: String,
    },
    /// A record breaks the format, or is not the one that belongs here.
    #[error("record at LSN {lsn:#x}: {source}")]
    Record {
        /// Where the record was expected.
        lsn: Lsn,
        /// The rule that is broken.
        source: RecordError,
    },
    /// Nothing has been kept that far back.
    #[error("LSN {lsn:#x} is no longer in the spool, which begins at {start:#x}")]
    Gone {
        /// What was asked for.
        lsn: Lsn,
        /// The oldest byte there is.
        start: Lsn,
    },
    /// The next segment is not there yet.
    #[error("no room: the next segment of the spool is not there")]
    Full,
    /// The batch does not fit; flush first.
    #[error("the batch is full")]
    BatchFull,
}

impl SpoolError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SpoolError {
        let path = path.into();
        move |source| SpoolError::Io { action, path, source }
    }

    pub(crate) fn errno(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(rustix::io::Errno) -> SpoolError {
        let path = path.into();
        move |source| SpoolError::Io { action, path, source: source.into() }
    }
}
