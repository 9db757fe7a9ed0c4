// SPDX-License-Identifier: GPL-2.0-or-later

//! What a checkpoint of a restore says beside the tree: how far it is, and what it is a restore of.

use reelfs_format::record::Lsn;
use serde::{Deserialize, Serialize};

use crate::args::{Moment, Restore};
use crate::replay::namespace::Counts;

/// The version of [`State`], and of everything else in the file that holds it.
const VERSION: u32 = 2;

/// What was asked for. A restore can only go on as what it began as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    version: u32,
    at_lsn: Option<Lsn>,
    at_time: Option<i64>,
    paths: Vec<Vec<u8>>,
}

impl Asked {
    /// What these arguments ask for.
    pub fn of(args: &Restore) -> Self {
        let (at_lsn, at_time) = match args.at {
            Some(Moment::Lsn(lsn)) => (Some(lsn), None),
            Some(Moment::Time(time)) => (None, Some(time)),
            None => (None, None),
        };
        Asked { version: VERSION, at_lsn, at_time, paths: args.paths() }
    }
}

/// How far a restore is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// What it is a restore of.
    pub asked: Asked,
    /// The stream and its timeline.
    pub stream: Option<([u8; 16], u32)>,
    /// The checkpoint that it began with, if it did not begin with the log: LSN of its begin record.
    pub checkpoint: Option<Lsn>,
    /// LSN behind the last record that was applied.
    pub lsn: Lsn,
    /// Time of that record.
    pub time: i64,
    /// Place in the set of a volume with which reading can go on.
    pub sequence: u64,
    /// All of the log that is wanted has been applied; what is left is to put the tree together.
    pub replayed: bool,
    /// Number of the checkpoint.
    pub interval: u32,
    /// Bytes of contents written.
    pub written: u64,
    /// Blocks that could not be used although nothing was lost with them.
    pub damaged_blocks: u64,
    /// What the operator is told at the end.
    pub notes: Vec<String>,
    /// The tree as a whole.
    pub counts: Counts,
}
