// SPDX-License-Identifier: GPL-2.0-or-later
//! The operations, one at a time: prepare, do it `count` times, clean up. Only the doing is measured.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use rustix::fs::{openat, renameat, statat, syncfs, unlinkat, AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::cost;

const PAGE: usize = 4 << 10;
const MEBI: usize = 1 << 20;
/// Files in a directory: about what directories of sources have. In large ones the lower's search for a free place
/// costs more than everything else, and would make whatever stacks on it look cheap.
const PER_DIRECTORY: u64 = 64;
/// Length in bytes of the file that is read and written in place; small enough to stay in the page cache.
const FILE: usize = 16 * MEBI;

/// An operation whose cost is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Read 4 KiB that are in the page cache.
    Read4k,
    /// Write 4 KiB over bytes that are there and in the page cache.
    Write4k,
    /// Write 4 KiB at the end of a file.
    Append4k,
    /// Write 1 MiB over bytes that are there and in the page cache.
    Write1m,
    /// Look at the attributes of a file by its name.
    Stat,
    /// Open a file for reading and close it.
    OpenClose,
    /// Make an empty file and close it.
    CreateClose,
    /// Remove an empty file.
    Unlink,
    /// Make an empty file, close and remove it.
    CreateCloseUnlink,
    /// Give a file another name in the same directory.
    Rename,
    /// Unpack an archive of sources with `tar`; counted by its members.
    Untar,
}

impl Op {
    /// All of them, in the order of the report.
    pub const ALL: [Op; 11] = [
        Op::Read4k,
        Op::Write4k,
        Op::Append4k,
        Op::Write1m,
        Op::Stat,
        Op::OpenClose,
        Op::CreateClose,
        Op::Unlink,
        Op::CreateCloseUnlink,
        Op::Rename,
        Op::Untar,
    ];

    /// What the report calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Op::Read4k => "read 4 KiB",
            Op::Write4k => "write 4 KiB, in place",
            Op::Append4k => "write 4 KiB, append",
            Op::Write1m => "write 1 MiB",
            Op::Stat => "stat",
            Op::OpenClose => "open+close",
            Op::CreateClose => "create+close",
            Op::Unlink => "unlink",
            Op::CreateCloseUnlink => "create+close+unlink",
            Op::Rename => "rename",
            Op::Untar => "untar, a member",
        }
    }

    /// The cost to aim at, as a ratio of the caller's instructions to those on ext4 directly.
    pub const fn aim(self) -> Option<f64> {
        match self {
            Op::Read4k => Some(1.15),
            Op::Stat => Some(1.10),
            Op::Write4k | Op::Append4k => Some(1.50),
            Op::CreateClose => Some(1.45),
            Op::Untar => Some(1.25),
            _ => None,
        }
    }

    /// How many times a round does it.
    const fn count(self) -> u64 {
        match self {
            Op::Read4k | Op::Stat | Op::OpenClose => 8192,
            Op::Write4k | Op::Append4k | Op::Rename => 4096,
            Op::CreateClose | Op::Unlink | Op::CreateCloseUnlink => 2048,
            Op::Write1m => 64,
            Op::Untar => 0,
        }
    }
}

/// A directory in which operations are done, and what they need.
pub struct Bench {
    dir: PathBuf,
    root: OwnedFd,
    archive: Option<(PathBuf, u64)>,
    daemon: Option<u32>,
}

/// What one round of an operation cost.
pub struct Round {
    /// How often the operation was done.
    pub count: u64,
    /// Processor time of the caller, in nanoseconds.
    pub caller_ns: u64,
    /// Processor time of the daemon until all of it was acknowledged, in nanoseconds, by the names of its threads.
    pub daemon_ns: BTreeMap<String, u64>,
}

impl Bench {
    /// Works in `dir`, which has to be empty or at least free of the names used here; `archive` is what
    /// [`Op::Untar`] unpacks, `daemon` the process that is charged for its part.
    pub fn new(dir: &Path, archive: Option<&Path>, daemon: Option<u32>) -> Result<Self> {
        let root = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("{}: cannot be opened", dir.display()))?;
        let archive = archive.map(|path| Ok::<_, anyhow::Error>((path.to_owned(), members(path)?))).transpose()?;
        Ok(Bench { dir: dir.to_owned(), root, archive, daemon })
    }

    /// Does one round of `op`. `scale` divides how often it is done; 1 measures, more warms up.
    pub fn round(&self, op: Op, scale: u64) -> Result<Round> {
        self.prepare_and_do(op, op.count() / scale).with_context(|| format!("{} in {}", op.title(), self.dir.display()))
    }

    fn prepare_and_do(&self, op: Op, count: u64) -> Result<Round> {
        match op {
            Op::Read4k => self.in_place(|file| {
                let mut buffer = vec![0; PAGE];
                self.repeat(count, |turn| Ok(file.read_exact_at(&mut buffer, offset(turn, PAGE))?))
            }),
            Op::Write4k => self.in_place(|file| {
                let buffer = vec![0x5a; PAGE];
                self.repeat(count, |turn| Ok(file.write_all_at(&buffer, offset(turn, PAGE))?))
            }),
            Op::Write1m => self.in_place(|file| {
                let buffer = vec![0xa5; MEBI];
                self.repeat(count, |turn| Ok(file.write_all_at(&buffer, offset(turn, MEBI))?))
            }),
            Op::Append4k => self.append(count),
            Op::Stat => {
                self.with_file(|| self.repeat(count, |_| Ok(statat(&self.root, c"file", AtFlags::empty()).map(drop)?)))
            }
            Op::OpenClose => self.with_file(|| {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                self.repeat(count, |_| Ok(openat(&self.root, c"file", flags, Mode::empty()).map(drop)?))
            }),
            Op::Rename => self.with_file(|| {
                let mut names = (c"file", c"renamed");
                // An even number, so that the file ends under the name by which it is removed.
                self.repeat(count / 2 * 2, |_| {
                    renameat(&self.root, names.0, &self.root, names.1)?;
                    names = (names.1, names.0);
                    Ok(())
                })
            }),
            Op::CreateCloseUnlink => self.repeat(count, |_| {
                create(&self.root, c"short-lived")?;
                Ok(unlinkat(&self.root, c"short-lived", AtFlags::empty())?)
            }),
            Op::CreateClose => self.many(count).map(|(created, _)| created),
            Op::Unlink => self.many(count).map(|(_, removed)| removed),
            Op::Untar => self.untar(),
        }
    }

    /// What it costs to do `work`, which says what it cost the caller itself.
    fn measure(&self, count: u64, work: impl FnOnce() -> Result<u64>) -> Result<Round> {
        let daemon = || self.daemon.map_or_else(|| Ok(BTreeMap::new()), cost::process);
        // What was done to prepare is not to be charged to what is measured, nor written back in the middle of it.
        syncfs(&self.root)?;
        let before = daemon()?;
        let caller_ns = work()?;
        // Through reelfs this waits for the acknowledgement, which ends the daemon's part.
        syncfs(&self.root)?;
        Ok(Round { count, caller_ns, daemon_ns: cost::since(&before, &daemon()?) })
    }

    /// What it costs to do something `count` times.
    fn repeat(&self, count: u64, mut action: impl FnMut(u64) -> Result<()>) -> Result<Round> {
        self.measure(count, || {
            let start = cost::thread();
            for turn in 0..count {
                action(turn)?;
            }
            Ok(cost::thread() - start)
        })
    }

    /// With a file of [`FILE`] bytes whose pages are cached and whose blocks are allocated.
    fn in_place(&self, work: impl FnOnce(&File) -> Result<Round>) -> Result<Round> {
        let path = self.dir.join("data");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() < FILE as u64 {
            file.write_all_at(&vec![1; FILE], 0)?;
        }
        // Blocks that are only promised (delayed allocation) would be allocated in the middle of a round.
        file.sync_all()?;
        file.read_exact_at(&mut vec![0; FILE], 0)?;
        work(&file)
    }

    fn append(&self, count: u64) -> Result<Round> {
        let path = self.dir.join("growing");
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let buffer = vec![0x3c; PAGE];
        let round = self.repeat(count, |_| {
            ensure!(rustix::io::write(&file, &buffer)? == PAGE, "short write");
            Ok(())
        })?;
        fs::remove_file(&path)?;
        Ok(round)
    }

    fn with_file(&self, work: impl FnOnce() -> Result<Round>) -> Result<Round> {
        let path = self.dir.join("file");
        fs::write(&path, b"contents")?;
        let round = work()?;
        fs::remove_file(&path)?;
        Ok(round)
    }

    /// Makes files in new directories, [`PER_DIRECTORY`] in each, then removes them: what each half costs.
    fn many(&self, count: u64) -> Result<(Round, Round)> {
        let paths: Vec<PathBuf> =
            (0..count.div_ceil(PER_DIRECTORY)).map(|number| self.dir.join(format!("many-{number}"))).collect();
        let mut dirs = Vec::new();
        for path in &paths {
            fs::create_dir(path)?;
            dirs.push(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
        }
        let names: Vec<CString> =
            (0..count).map(|turn| CString::new(format!("file-{turn:06}"))).collect::<Result<_, _>>()?;
        let place = |turn: u64| (&dirs[(turn / PER_DIRECTORY) as usize], names[turn as usize].as_c_str());
        let created = self.repeat(count, |turn| {
            let (dir, name) = place(turn);
            create(dir, name)
        })?;
        let removed = self.repeat(count, |turn| {
            let (dir, name) = place(turn);
            Ok(unlinkat(dir, name, AtFlags::empty())?)
        })?;
        for path in &paths {
            fs::remove_dir(path)?;
        }
        Ok((created, removed))
    }

    fn untar(&self) -> Result<Round> {
        let (archive, members) = self.archive.as_ref().context("untar needs --archive")?;
        let path = self.dir.join("unpacked");
        fs::create_dir(&path)?;
        let mut tar = Command::new("tar");
        tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(&path);
        let round = self.measure(*members, || cost::child(&mut tar))?;
        fs::remove_dir_all(path)?;
        Ok(round)
    }
}

/// Where the `turn`-th block of `size` bytes goes: round and round the file.
fn offset(turn: u64, size: usize) -> u64 {
    turn * size as u64 % FILE as u64
}

fn create(dir: &OwnedFd, name: &CStr) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}

fn members(archive: &Path) -> Result<u64> {
    let listing = Command::new("tar").arg("--list").arg("--file").arg(archive).output().context("tar")?;
    ensure!(listing.status.success(), "{}: tar cannot list it", archive.display());
    Ok(listing.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count() as u64)
}
