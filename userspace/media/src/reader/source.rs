// SPDX-License-Identifier: GPL-2.0-or-later

//! Where the volumes of a set come from: a directory, drives, an operator.

use std::sync::Arc;

use reelfs_format::record::Lsn;

use super::error::ReadError;
use crate::key::{self, VolumeKey, WrappedKey};
use crate::medium::Medium;

/// A volume that is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its place in the set.
    pub sequence: u64,
    /// Its name, where a volume that was read tells.
    pub name: Option<String>,
    /// LSN at which it has to go on.
    pub lsn: Lsn,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "volume '{name}' (number {} of the set)", self.sequence),
            None => write!(f, "volume number {} of the set", self.sequence),
        }
    }
}

/// Where the volumes come from. May ask an operator and wait.
pub trait VolumeSource {
    /// The volume with this place in the set of this stream, or `None` if there is none to be had.
    fn volume(&mut self, wanted: &Wanted) -> Result<Option<Box<dyn Medium>>, ReadError>;

    /// The key of an encrypted volume. May ask an operator.
    fn key(&mut self, volume: &Arc<str>, wrapped: &WrappedKey) -> Result<VolumeKey, ReadError> {
        Err(ReadError::Locked {
            volume: volume.clone(),
            fingerprint: key::shown(&wrapped.fingerprint),
            recipients: wrapped.recipients.clone(),
            why: "there is no identity to open it with".into(),
        })
    }

    /// The name of that volume, where another one tells.
    fn name_of(&self, _sequence: u64) -> Option<String> {
        None
    }

    /// The next place in the set behind this one for which there is a volume.
    fn next_after(&self, _sequence: u64) -> Option<u64> {
        None
    }
}
