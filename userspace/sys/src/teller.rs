// SPDX-License-Identifier: GPL-2.0-or-later
//! `/dev/reelfs`: having the kernel put the state of the tree into the log.
//!
//! A [`Teller`] speaks for an attached ring from another thread than the one that reads it. It
//! holds nothing: when the ring is given back, its calls fail.

use std::fs::File;
use std::io;
use std::sync::{Arc, Weak};

use reelfs_format::record::Lsn;
use reelfs_format::uapi::{
    Checkpoint, State, Unnamed, CHECKPOINT_BEGIN, CHECKPOINT_END, CHECKPOINT_STOP, IOC_CHECKPOINT, IOC_STATE,
    IOC_UNNAMED, UNNAMED_MAX,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::device::command;

/// An object's identity, as records have it.
pub type Identity = [u8; 32];

/// See the page.
#[derive(Clone, Debug)]
pub struct Teller {
    file: Weak<File>,
}

impl Teller {
    pub(crate) fn of(file: &Arc<File>) -> Self {
        Self { file: Arc::downgrade(file) }
    }

    fn ask<T: FromBytes + IntoBytes>(&self, request: u32, argument: &mut T) -> io::Result<()> {
        let file = self.file.upgrade().ok_or(io::Error::from(rustix::io::Errno::NOTCONN))?;
        Ok(command(&file, request, argument)?)
    }

    /// Begins a checkpoint: LSN of its begin record, and the root's identity.
    ///
    /// # Errors
    ///
    /// Those that `reelfs_format::uapi::Checkpoint` lists.
    pub fn begin(&self) -> io::Result<(Lsn, Identity)> {
        let mut argument = Checkpoint { operation: CHECKPOINT_BEGIN, ..Checkpoint::default() };
        self.ask(IOC_CHECKPOINT, &mut argument)?;
        Ok((argument.begin, argument.root))
    }

    /// Says that the checkpoint is complete: so many objects and bytes of contents were told. LSN
    /// behind the end record.
    ///
    /// # Errors
    ///
    /// Those that `reelfs_format::uapi::Checkpoint` lists.
    pub fn end(&self, begin: Lsn, objects: u64, bytes: u64) -> io::Result<Lsn> {
        let mut argument = Checkpoint { operation: CHECKPOINT_END, begin, objects, bytes, ..Checkpoint::default() };
        self.ask(IOC_CHECKPOINT, &mut argument)?;
        Ok(argument.lsn)
    }

    /// Gives the checkpoint up.
    ///
    /// # Errors
    ///
    /// Those that `reelfs_format::uapi::Checkpoint` lists.
    pub fn stop(&self, begin: Lsn) -> io::Result<()> {
        self.ask(IOC_CHECKPOINT, &mut Checkpoint { operation: CHECKPOINT_STOP, begin, ..Checkpoint::default() })
    }

    /// Puts the state of an object, or a part of it, into the log. `state` says what is wanted,
    /// and afterwards what was told.
    ///
    /// # Errors
    ///
    /// Those that `reelfs_format::uapi::State` lists.
    pub fn tell(&self, state: &mut State) -> io::Result<()> {
        self.ask(IOC_STATE, state)
    }

    /// Objects that are in use and have no name, a part of them: those behind `after`, in the
    /// order of their bytes. An empty answer is the last one.
    ///
    /// # Errors
    ///
    /// Those that `reelfs_format::uapi::Unnamed` lists.
    pub fn unnamed(&self, after: &Identity) -> io::Result<Vec<Identity>> {
        let mut part = Unnamed { after: *after, count: 0, objects: [[0; 32]; UNNAMED_MAX] };
        self.ask(IOC_UNNAMED, &mut part)?;
        let count = usize::try_from(part.count).unwrap_or(usize::MAX).min(UNNAMED_MAX);
        Ok(part.objects.iter().take(count).copied().collect())
    }
}
