// SPDX-License-Identifier: GPL-2.0-or-later

//! Where the next volume comes from: a directory that makes volume files as they are needed, or drives into which
//! somebody, or something, puts labelled tapes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use reelfs_format::volume::{Label, FEATURE_ENCRYPTED};
use uuid::Uuid;

use crate::directory::{VolumeFile, SUFFIX};
use crate::label::{self, LabelError, LabelState, NewLabel};
use crate::medium::{Medium, MediumError};
use crate::reader::VolumeReader;
use crate::tape::Tape;
use crate::writer::{inspect, Inspection, WriteError};

/// What a library has to offer.
pub enum Supply {
    /// A volume, ready to be written.
    Volume(Box<dyn Medium>, Box<Inspection>),
    /// None: what the operator has to do.
    Waiting(String),
}

/// Where volumes for writing come from. Calls never wait for an operator: ask again later.
pub trait Library: Send {
    /// A volume of the pool that was never used. `sequence` is the place it will have in its set: a hint for its name.
    fn blank(&mut self, pool: &str, sequence: u64) -> Result<Supply, WriteError>;

    /// The volume of this stream that was written last and is not finished, to go on with after a restart. `volume` is
    /// the one that it should be, where that is known.
    fn unfinished(&mut self, pool: &str, stream: &[u8; 16], volume: Option<Uuid>) -> Result<Supply, WriteError>;
}

/// A directory of volume files.
#[derive(Clone, Debug)]
pub struct DirectoryLibrary {
    /// The directory.
    pub path: PathBuf,
    /// Bytes at which a volume file is full.
    pub capacity: Option<u64>,
    /// Block size of new volume files, in bytes.
    pub block_size: usize,
    /// What new volumes shall be able to hold: `FEATURE_*`.
    pub features: u64,
}

/// The volume files in a directory, by name.
pub fn volume_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension() == Some(OsStr::new(SUFFIX)) && !hidden {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl DirectoryLibrary {
    fn files(&self) -> Result<Vec<PathBuf>, WriteError> {
        volume_files(&self.path).map_err(|source| {
            let medium = self.path.display().to_string();
            if source.kind() == std::io::ErrorKind::NotFound {
                WriteError::Medium(MediumError::NoVolume { medium })
            } else {
                WriteError::Medium(MediumError::Io { medium, doing: "reading the directory", source })
            }
        })
    }
}

/// A volume is begun only where it can hold at least this many blocks: one on a full disk would hold nothing, and be
/// used up.
const BEGIN_BLOCKS: u64 = 16;

impl DirectoryLibrary {
    /// What the operator has to do before a volume can be begun, if something.
    fn lacks_room(&self) -> Option<String> {
        let stat = rustix::fs::statvfs(&self.path).ok()?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let needed = BEGIN_BLOCKS.saturating_mul(self.block_size as u64);
        let path = self.path.display();
        (free < needed).then(|| format!("make room in {path}: {free} bytes are free, a volume needs {needed} to begin"))
    }
}

impl Library for DirectoryLibrary {
    fn blank(&mut self, pool: &str, sequence: u64) -> Result<Supply, WriteError> {
        if let Some(what) = self.lacks_room() {
            return Ok(Supply::Waiting(what));
        }
        // One that was labelled by hand, or was made and not used because of a crash, comes first.
        for path in self.files()? {
            if !looks_unused(&path, pool) {
                continue;
            }
            let Ok(mut medium) = VolumeFile::open_writable(&path, self.capacity) else {
                continue;
            };
            if let Ok(found) = inspect(&mut medium) {
                if found.start.is_none() && is_of_pool(&found.label, pool) && will_do(&found.label, self.features) {
                    return Ok(Supply::Volume(Box::new(medium), Box::new(found)));
                }
            }
        }
        let mut number = sequence;
        loop {
            let name = format!("{pool}-{number:06}");
            let mut new = NewLabel::new(&name, pool);
            new.block_size = self.block_size;
            new.features = self.features;
            let label = new.build().map_err(of_label)?;
            match VolumeFile::create(&self.path, &label, self.capacity) {
                Ok(mut medium) => {
                    let found = inspect(&mut medium)?;
                    return Ok(Supply::Volume(Box::new(medium), Box::new(found)));
                }
                // Somebody else was quicker to use what was free.
                Err(MediumError::Io { medium, source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
                    return Ok(Supply::Waiting(format!("make room for {medium}: {source}")));
                }
                // The name is taken, by another stream's volume perhaps.
                Err(MediumError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                    number += 1
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn unfinished(&mut self, pool: &str, stream: &[u8; 16], volume: Option<Uuid>) -> Result<Supply, WriteError> {
        // How each begins says which is the last: only that one is looked at in full.
        let mut candidates = Vec::new();
        for path in self.files()? {
            let mut file = VolumeFile::open(&path)?;
            let Ok(LabelState::Labelled(label)) = file.read_label() else {
                continue;
            };
            if !is_of_pool(&label, pool) || volume.is_some_and(|wanted| *wanted.as_bytes() != label.volume) {
                continue;
            }
            if volume.is_some() {
                candidates.push((0, path));
            } else if let Ok(reader) = VolumeReader::open(Box::new(file)) {
                if let (Some(start), true) = (reader.start(), reader.stream() == *stream) {
                    candidates.push((start.sequence.get(), path));
                }
            }
        }
        candidates.sort();
        while let Some((_, path)) = candidates.pop() {
            let mut medium = VolumeFile::open_writable(&path, self.capacity)?;
            match inspect(&mut medium) {
                Ok(found) if found.stream == *stream && found.start.is_some() => {
                    return Ok(Supply::Volume(Box::new(medium), Box::new(found)));
                }
                Err(error) if volume.is_some() => return Err(error),
                _ => {}
            }
        }
        Ok(Supply::Waiting(format!("no volume file of this stream in {}", self.path.display())))
    }
}

/// Whether a volume file may be one of the pool that was never used, judged by its label and its length alone: a
/// directory may hold thousands that are full.
fn looks_unused(path: &Path, pool: &str) -> bool {
    let Ok(mut file) = VolumeFile::open(path) else { return false };
    let Ok(LabelState::Labelled(label)) = file.read_label() else { return false };
    let behind_label = file.position().ok();
    is_of_pool(&label, pool) && file.seek_end_of_data().ok() == behind_label
}

/// Tape drives.
#[derive(Clone, Debug)]
pub struct TapeLibrary {
    /// The non-rewinding devices, in the order in which they are tried.
    pub drives: Vec<PathBuf>,
    /// What new volumes shall be able to hold: `FEATURE_*`.
    pub features: u64,
}

impl TapeLibrary {
    /// The first tape that `wanted` accepts, and what the other drives hold.
    fn find(
        &self,
        pool: &str,
        mut wanted: impl FnMut(&Inspection) -> Result<(), String>,
    ) -> Result<Result<Supply, Vec<String>>, WriteError> {
        let mut reasons = Vec::new();
        for drive in &self.drives {
            let shown = drive.display();
            let mut tape = match Tape::open_writable(drive) {
                Ok(tape) => tape,
                Err(MediumError::NoVolume { .. }) => {
                    reasons.push(format!("{shown} is empty"));
                    continue;
                }
                Err(error @ (MediumError::Busy { .. } | MediumError::WriteProtected { .. })) => {
                    reasons.push(error.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match inspect(&mut tape) {
                Ok(found) if !is_of_pool(&found.label, pool) => {
                    let (name, other) = (label::name(&found.label), label::pool_name(&found.label));
                    reasons.push(format!("{shown} holds '{name}' of pool '{other}'"));
                }
                Ok(found) => match wanted(&found) {
                    Ok(()) => return Ok(Ok(Supply::Volume(Box::new(tape), Box::new(found)))),
                    Err(why) => reasons.push(format!("{shown} holds '{}', {why}", label::name(&found.label))),
                },
                Err(WriteError::NotOurs { found, .. }) => {
                    reasons.push(format!("{shown} holds no labelled tape ({found})"))
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Ok(Err(reasons))
    }
}

impl Library for TapeLibrary {
    fn blank(&mut self, pool: &str, sequence: u64) -> Result<Supply, WriteError> {
        let features = self.features;
        let found = self.find(pool, |found| match found.start {
            None if !will_do(&found.label, features) => {
                Err("whose label does not allow for encryption: label it again".into())
            }
            None => Ok(()),
            Some(_) => Err("which has been used".into()),
        })?;
        Ok(found.unwrap_or_else(|reasons| {
            let why = reasons.join("; ");
            Supply::Waiting(format!("load an unused tape of pool '{pool}' for place {sequence} of the set ({why})"))
        }))
    }

    fn unfinished(&mut self, pool: &str, stream: &[u8; 16], volume: Option<Uuid>) -> Result<Supply, WriteError> {
        let found = self.find(pool, |found| match volume {
            Some(wanted) if *wanted.as_bytes() != found.label.volume => Err("another volume".into()),
            _ if found.start.is_none() => Err("which was never used".into()),
            _ if found.stream != *stream => Err("which belongs to another stream".into()),
            _ => Ok(()),
        })?;
        Ok(found.unwrap_or_else(|reasons| {
            let which = volume.map_or("the last tape of this stream".into(), |uuid| format!("tape {uuid}"));
            Supply::Waiting(format!("load {which} of pool '{pool}' ({})", reasons.join("; ")))
        }))
    }
}

/// Whether a volume with this label can be used. One that cannot be compressed can; one that cannot be encrypted, where
/// that was asked for, never.
fn will_do(label: &Label, features: u64) -> bool {
    features & !label.incompatible.get() & FEATURE_ENCRYPTED == 0
}

fn is_of_pool(label: &Label, pool: &str) -> bool {
    label.pool == *label::pool_uuid(pool).as_bytes()
}

fn of_label(error: LabelError) -> WriteError {
    match error {
        LabelError::Medium(error) => error.into(),
        other => WriteError::NotOurs { medium: String::new(), found: other.to_string() },
    }
}
