// SPDX-License-Identifier: GPL-2.0-or-later

//! What can be wrong with the log on its volumes, and how it is named: volume, block, position.

use std::sync::Arc;

use reelfs_format::record::Lsn;
use reelfs_format::view::RecordError;

use super::source::Wanted;
use crate::medium::MediumError;

/// A block, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the volume.
    pub volume: Arc<str>,
    /// Number of the block.
    pub block: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "volume '{}', block {}", self.volume, self.block)
    }
}

/// A block that could not be used.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Which; the number follows from the block before.
    pub place: Place,
    /// What is wrong with it.
    pub why: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The medium failed as a whole.
    #[error(transparent)]
    Medium(#[from] MediumError),
    /// The volume has no label of ours.
    #[error("{medium}: not a volume of reelfs: {why}")]
    NotOurs {
        /// The medium.
        medium: String,
        /// What is wrong with its label.
        why: String,
    },
    /// The first block cannot be used.
    #[error("{}", .0)]
    Start(Damage),
    /// A volume belongs to something else.
    #[error("volume '{volume}' does not belong here: {why}")]
    Stranger {
        /// The volume.
        volume: String,
        /// What does not fit.
        why: String,
    },
    /// A volume of the set is not there.
    #[error("{wanted} is missing; the log goes on there at LSN {:#x}", wanted.lsn)]
    MissingVolume {
        /// Which.
        wanted: Wanted,
    },
    /// A part of the log is on none of the volumes.
    #[error("LSN {from:#x} to {} cannot be read{}", shown_end(.to), shown_damages(.damages))]
    MissingRange {
        /// First position that is missing.
        from: Lsn,
        /// First position behind it that is there again, if there is one.
        to: Option<Lsn>,
        /// Blocks that could not be used.
        damages: Vec<Damage>,
    },
    /// The volume is encrypted, and its key is not to be had.
    #[error("volume '{volume}' is encrypted (key {fingerprint}){}: {why}", shown_recipients(.recipients))]
    Locked {
        /// The volume.
        volume: Arc<str>,
        /// What its key is called.
        fingerprint: String,
        /// Who can unwrap the key, one on each line; empty if that is not known.
        recipients: String,
        /// Why there is no key, and what to do.
        why: String,
    },
    /// What was read is not what was hashed.
    #[error(
        "{place}: {what} hash of segment {segment} does not match what was read: the log was altered or miswritten"
    )]
    Hash {
        /// The block that says otherwise.
        place: Place,
        /// The segment.
        segment: u64,
        /// `segment` or `chain`.
        what: &'static str,
    },
    /// A record breaks the format.
    #[error("{place}: record at LSN {lsn:#x}: {error}")]
    Record {
        /// Where the record begins.
        place: Place,
        /// Its position.
        lsn: Lsn,
        /// The rule that it breaks.
        error: RecordError,
    },
}

fn shown_end(to: &Option<Lsn>) -> String {
    to.map_or("the end".into(), |to| format!("{to:#x}"))
}

fn shown_recipients(recipients: &str) -> String {
    let known: Vec<_> = recipients.lines().map(|line| line.escape_default().to_string()).collect();
    if known.is_empty() {
        String::new()
    } else {
        format!(" for {}", known.join(", "))
    }
}

fn shown_damages(damages: &[Damage]) -> String {
    let mut text = String::new();
    for damage in damages.iter().take(8) {
        text.push_str("; ");
        text.push_str(&damage.to_string());
    }
    if damages.len() > 8 {
        text.push_str(&format!("; and {} more blocks", damages.len() - 8));
    }
    text
}
