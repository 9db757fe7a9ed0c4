// SPDX-License-Identifier: GPL-2.0-or-later

//! How the command ends. The numbers are part of its interface: reel(1) lists them.

use reelfs_media::label::LabelError;
use reelfs_media::reader::ReadError;
use reelfs_media::writer::WriteError;
use reelfs_media::MediumError;

use crate::replay::place::PlaceError;
use crate::replay::store::StoreError;
use crate::replay::{Problem, ReplayError};

/// Why it did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The operation failed: exit status 1.
    #[error("{0}")]
    Failed(String),
    /// It was called wrongly: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// The media are damaged or incomplete: exit status 3.
    #[error("{0}")]
    Media(String),
    /// It was done, but the target could not hold everything: exit status 4.
    #[error("{0}")]
    Target(String),
    /// It was done, but the log itself says that it lacks changes: exit status 5.
    #[error("{0}")]
    Gap(String),
}

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Media(_) => 3,
            Failure::Target(_) => 4,
            Failure::Gap(_) => 5,
        }
    }

    /// A failure of a system call on something the operator named.
    pub fn io(what: impl std::fmt::Display, error: impl Into<std::io::Error>) -> Self {
        Failure::Failed(format!("{what}: {}", error.into()))
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Medium(error) => error.into(),
            ReadError::Locked { .. } => Failure::Failed(error.to_string()),
            other => Failure::Media(other.to_string()),
        }
    }
}

impl From<MediumError> for Failure {
    fn from(error: MediumError) -> Self {
        match error {
            MediumError::Unreadable { .. } => Failure::Media(error.to_string()),
            other => Failure::Failed(other.to_string()),
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        if error.problem == Problem::Populated {
            return Failure::Media(error.problem.to_string());
        }
        Failure::Media(format!("the log contradicts itself: {error}"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl From<PlaceError> for Failure {
    fn from(error: PlaceError) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl From<LabelError> for Failure {
    fn from(error: LabelError) -> Self {
        match error {
            LabelError::Name(_) | LabelError::BlockSize(_) => Failure::Usage(error.to_string()),
            other => Failure::Failed(other.to_string()),
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Failure::Failed(error.to_string())
    }
}
