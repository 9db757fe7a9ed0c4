// SPDX-License-Identifier: GPL-2.0-or-later

//! What can go wrong while a volume is written.

use reelfs_format::record::Lsn;
use reelfs_format::view::RecordError;

use crate::medium::MediumError;

/// Why the log could not be put on a volume.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The medium failed. [`super::VolumeWriter::recover`] may help.
    #[error(transparent)]
    Medium(#[from] MediumError),
    /// There is no label of ours on the volume.
    #[error("{medium}: no label of ours ({found}); it is not written")]
    NotOurs {
        /// The medium.
        medium: String,
        /// What was found.
        found: String,
    },
    /// The volume is another one than was expected.
    #[error("{medium}: volume '{found}' where '{expected}' belongs; it is not written")]
    WrongVolume {
        /// The medium.
        medium: String,
        /// The volume that should be there.
        expected: String,
        /// The volume that is there.
        found: String,
    },
    /// A volume that was to be new has been used.
    #[error("volume '{volume}' has been used already; it is not written")]
    Used {
        /// The volume.
        volume: String,
    },
    /// A volume that was to be resumed cannot be.
    #[error("volume '{volume}' cannot be written further: {why}")]
    NotResumable {
        /// The volume.
        volume: String,
        /// Why.
        why: String,
    },
    /// The medium is not where it was left, or what was written last does not read back.
    #[error("volume '{volume}': block {number} does not read back as it was written ({found})")]
    Misplaced {
        /// The volume.
        volume: String,
        /// The last block that was written.
        number: u64,
        /// What was found.
        found: String,
    },
    /// The volume reaches less far than a filemark had proven.
    #[error("volume '{volume}' reaches LSN {found:#x}, but {proven:#x} had been proven to be on it: it is damaged")]
    Lost {
        /// The volume.
        volume: String,
        /// What had been proven.
        proven: Lsn,
        /// What is there.
        found: Lsn,
    },
    /// The bytes that were given are no log.
    #[error("LSN {lsn:#x}: not the log: {error}")]
    Log {
        /// Where.
        lsn: Lsn,
        /// The rule that they break.
        error: RecordError,
    },
    /// The volume cannot hold what it is to hold.
    #[error("volume '{volume}' cannot be used: {why}")]
    Unsuitable {
        /// The volume.
        volume: String,
        /// Why.
        why: String,
    },
    /// An error came before; see [`super::VolumeWriter::recover`].
    #[error("volume '{volume}' had an error and was not recovered")]
    Broken {
        /// The volume.
        volume: String,
    },
    /// The program that calls made a mistake.
    #[error("volume '{volume}': {why}")]
    Misuse {
        /// The volume.
        volume: String,
        /// The mistake.
        why: &'static str,
    },
}
