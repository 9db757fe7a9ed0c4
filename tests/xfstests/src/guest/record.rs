// SPDX-License-Identifier: GPL-2.0-or-later
//! What is mounted over what: the memory of the program that takes `mount`'s and `umount`'s place, from one call to the next.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::stage::TOP;

/// A device with its filesystem on a directory, and reelfs over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where both are mounted.
    pub directory: PathBuf,
    /// The device, as it was named.
    pub device: PathBuf,
    /// Number of the daemon's spool.
    pub spool: u32,
    /// The daemon's process.
    pub process: u32,
}

fn home() -> PathBuf {
    Path::new(TOP).join("mounts")
}

fn file(directory: &Path) -> PathBuf {
    home().join(directory.display().to_string().replace('/', "-"))
}

impl Record {
    /// Remembers this.
    pub fn keep(&self) -> Result<()> {
        fs::create_dir_all(home())?;
        let text =
            format!("{}\n{}\n{}\n{}\n", self.directory.display(), self.device.display(), self.spool, self.process);
        let path = file(&self.directory);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Forgets it.
    pub fn forget(&self) -> Result<()> {
        let path = file(&self.directory);
        fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        Some(Record {
            directory: lines.next()?.into(),
            device: lines.next()?.into(),
            spool: lines.next()?.parse().ok()?,
            process: lines.next()?.parse().ok()?,
        })
    }

    /// All that are still mounted.
    pub fn all() -> Vec<Record> {
        let entries = fs::read_dir(home()).into_iter().flatten().flatten();
        let records = entries.filter_map(|entry| Record::parse(&fs::read_to_string(entry.path()).ok()?));
        records.filter(Record::is_mounted).collect()
    }

    /// The one that a word of a command line means: its directory, or its device.
    pub fn meant_by(word: &Path) -> Option<Record> {
        let path = fs::canonicalize(word).ok()?;
        let same = |device: &Path| fs::canonicalize(device).is_ok_and(|device| device == path);
        Record::all().into_iter().find(|record| record.directory == path || same(&record.device))
    }

    /// Whether reelfs is there, on whatever there may be over it.
    fn is_mounted(&self) -> bool {
        mounts().iter().any(|(kind, at)| kind == "reelfs" && *at == self.directory)
    }

    /// Whether reelfs is what one sees there.
    pub fn is_on_top(&self) -> bool {
        mounts().iter().rfind(|(_, at)| *at == self.directory).is_some_and(|(kind, _)| kind == "reelfs")
    }
}

/// Type and directory of every mount, in the order in which they were made.
pub fn mounts() -> Vec<(String, PathBuf)> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| fields.len() > 2).map(|fields| (fields[2].to_owned(), fields[1].into())).collect()
}
