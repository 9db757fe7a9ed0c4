// SPDX-License-Identifier: GPL-2.0-or-later

//! Volume files: a medium that needs no hardware.
//!
//! `NAME.reelvol` holds a label and then blocks, byte for byte what a tape holds; filemarks leave no trace but an
//! `fsync`. A file behaves as a tape of its capacity does: early warning, then full; whole blocks at the end only.
//! Writers hold an exclusive `flock(2)`; readers take none, so a volume can be verified while it is written.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use reelfs_format::volume::{Label, LABEL_LEN};
use rustix::fs::{flock, renameat_with, FlockOperation, RenameFlags, CWD};
use zerocopy::IntoBytes;

use crate::label::LabelState;
use crate::medium::{Medium, MediumError, Position, Read, Written};

/// What the name of every volume file ends with.
pub const SUFFIX: &str = "reelvol";
/// Blocks that are kept free behind early warning, for trailer and retries.
const RESERVE: u64 = 4;

/// One volume file.
#[derive(Debug)]
pub struct VolumeFile {
    path: PathBuf,
    file: Option<File>,
    writable: bool,
    /// Bytes the file may grow to.
    capacity: Option<u64>,
    /// Known once the label has been read.
    block_size: Option<u64>,
    position: u64,
    warned: bool,
}

impl VolumeFile {
    /// Opens a volume file for reading.
    pub fn open(path: &Path) -> Result<Self, MediumError> {
        Self::new(path, OpenOptions::new().read(true), false, None)
    }

    /// Opens a volume file for reading and appending. `capacity`, in bytes, is where it is full; without it, only the
    /// filesystem below ends it. [`MediumError::Busy`] if it has a writer already.
    pub fn open_writable(path: &Path, capacity: Option<u64>) -> Result<Self, MediumError> {
        let medium = Self::new(path, OpenOptions::new().read(true).write(true), true, capacity)?;
        medium.lock()?;
        Ok(medium)
    }

    /// Makes a labelled volume file in `directory`, named after the volume. It appears whole or not at all.
    pub fn create(directory: &Path, label: &Label, capacity: Option<u64>) -> Result<Self, MediumError> {
        let name = crate::label::name(label);
        let path = directory.join(format!("{name}.{SUFFIX}"));
        let temporary = directory.join(format!(".{name}.{SUFFIX}.{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o640);
        let mut medium = Self::new(&temporary, &options, true, capacity)?;
        let made = medium.lock().and_then(|()| medium.write_label(label)).and_then(|()| {
            name_file(&temporary, &path).map_err(|error| medium.error("naming the volume file", error))?;
            sync_directory(directory).map_err(|error| medium.error("fsync of the directory", error))
        });
        if let Err(error) = made {
            // Best effort: the file has no name that anybody reads.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        medium.path = path;
        Ok(medium)
    }

    fn new(path: &Path, options: &OpenOptions, writable: bool, capacity: Option<u64>) -> Result<Self, MediumError> {
        let mut options = options.clone();
        options.custom_flags(rustix::fs::OFlags::CLOEXEC.bits() as i32);
        let medium = path.display().to_string();
        let file = options.open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => MediumError::NoVolume { medium: medium.clone() },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writable => {
                MediumError::WriteProtected { medium: medium.clone() }
            }
            _ => MediumError::Io { medium: medium.clone(), doing: "opening the volume file", source },
        })?;
        let file = Some(file);
        Ok(VolumeFile { path: path.into(), file, writable, capacity, block_size: None, position: 0, warned: false })
    }

    /// The path of the volume file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> Result<(), MediumError> {
        flock(self.file()?, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                MediumError::Busy { medium: self.describe() }
            } else {
                self.error("locking the volume file", error.into())
            }
        })
    }

    fn error(&self, doing: &'static str, source: io::Error) -> MediumError {
        MediumError::Io { medium: self.describe(), doing, source }
    }

    fn file(&self) -> Result<&File, MediumError> {
        self.file.as_ref().ok_or_else(|| MediumError::NoVolume { medium: self.describe() })
    }

    fn length(&self) -> Result<u64, MediumError> {
        let file = self.file()?;
        file.metadata().map(|data| data.len()).map_err(|source| self.error("fstat", source))
    }

    /// Length of a block: as the label says, or the smallest there is, before a label has been read.
    fn step(&self) -> u64 {
        self.block_size.unwrap_or(reelfs_format::volume::BLOCK_SIZE_MIN as u64)
    }

    fn offset(&self, position: u64) -> u64 {
        match position {
            0 => 0,
            block => LABEL_LEN as u64 + (block - 1).saturating_mul(self.step()),
        }
    }

    fn writable(&self) -> Result<&File, MediumError> {
        if !self.writable {
            return Err(MediumError::WriteProtected { medium: self.describe() });
        }
        self.file()
    }
}

/// Renames, but never onto something that is there.
fn name_file(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Filesystems without renameat2(2), vfat and NFS among them.
        Err(rustix::io::Errno::INVAL) if !to.try_exists()? => fs::rename(from, to),
        other => Ok(other?),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

impl Medium for VolumeFile {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn loaded(&mut self) -> Result<bool, MediumError> {
        Ok(self.file.is_some())
    }

    fn read_label(&mut self) -> Result<LabelState, MediumError> {
        let length = self.length()?;
        self.warned = false;
        self.position = 1;
        if length == 0 {
            return Ok(LabelState::Blank);
        }
        let mut bytes = vec![0; LABEL_LEN.min(usize::try_from(length).unwrap_or(LABEL_LEN))];
        self.file()?.read_exact_at(&mut bytes, 0).map_err(|source| self.error("reading the label", source))?;
        match Label::parse(&bytes) {
            Ok(label) => {
                self.block_size = Some(u64::from(label.block_size.get()));
                Ok(LabelState::Labelled(Box::new(*label)))
            }
            Err(error) => Ok(LabelState::Foreign(error)),
        }
    }

    fn write_label(&mut self, label: &Label) -> Result<(), MediumError> {
        let file = self.writable()?;
        file.set_len(0)
            .and_then(|()| file.write_all_at(label.as_bytes(), 0))
            .and_then(|()| file.sync_all())
            .map_err(|source| self.error("writing the label", source))?;
        self.block_size = Some(u64::from(label.block_size.get()));
        self.position = 1;
        self.warned = false;
        Ok(())
    }

    fn read_block(&mut self, block: &mut Vec<u8>) -> Result<Read, MediumError> {
        let (start, end) = (self.offset(self.position), self.offset(self.position + 1));
        if start >= self.length()? {
            block.clear();
            return Ok(Read::EndOfData);
        }
        block.resize((end - start) as usize, 0);
        let position = self.position;
        self.position += 1;
        self.file()?.read_exact_at(block, start).map_err(|source| MediumError::Unreadable {
            medium: self.describe(),
            position,
            source,
        })?;
        Ok(Read::Block)
    }

    fn write_block(&mut self, block: &[u8]) -> Result<Written, MediumError> {
        let file = self.writable()?;
        let start = self.offset(self.position);
        let end = start + block.len() as u64;
        if block.len() as u64 != self.step() {
            return Err(self.error("writing a block", io::ErrorKind::InvalidInput.into()));
        }
        if let Some(capacity) = self.capacity {
            if end > capacity {
                return Ok(Written::Full);
            }
            if !self.warned && end + RESERVE * self.step() > capacity {
                self.warned = true;
                return Ok(Written::EarlyWarning);
            }
        }
        match file.write_all_at(block, start) {
            Ok(()) => {
                self.position += 1;
                Ok(Written::Taken)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                // Not a part of a block may stay behind, or the next one would not be where blocks begin.
                file.set_len(start).map_err(|source| self.error("ftruncate", source))?;
                let first = !std::mem::replace(&mut self.warned, true);
                Ok(if first { Written::EarlyWarning } else { Written::Full })
            }
            Err(source) => Err(self.error("writing a block", source)),
        }
    }

    fn write_filemark(&mut self) -> Result<(), MediumError> {
        // sync_data covers the length too: without it the data could not be read back (fdatasync(2)).
        self.writable()?.sync_data().map_err(|source| self.error("fdatasync", source))
    }

    fn position(&mut self) -> Result<Position, MediumError> {
        self.file()?;
        Ok(Position(self.position))
    }

    fn seek(&mut self, position: Position) -> Result<(), MediumError> {
        self.file()?;
        self.position = position.0;
        Ok(())
    }

    fn seek_end_of_data(&mut self) -> Result<Position, MediumError> {
        let behind_label = self.length()?.saturating_sub(LABEL_LEN as u64);
        self.position = 1 + behind_label / self.step();
        Ok(Position(self.position))
    }

    fn unload(&mut self) -> Result<(), MediumError> {
        self.file = None;
        Ok(())
    }

    fn capacity(&self) -> Option<u64> {
        self.capacity
    }
}
