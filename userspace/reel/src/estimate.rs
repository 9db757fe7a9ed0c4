// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel estimate`: what a checkpoint of a directory will put into the log, and how long reading it takes.
//!
//! The directory is walked, and some of its files are read. Nothing else of reelfs is needed, so it can be asked before
//! the first mount. What it says of sizes follows from the format of records; time is what was measured here and now.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use reelfs_format::record::{
    pad, record_len, Body, DirectoryEntry, DirectoryStateBody, ObjectDataBody, ObjectStateBody, XattrEntry, WRITE_MAX,
};
use rustix::fs::Advice;
use serde_json::json;

use crate::args::Estimate;
use crate::outcome::Failure;
use crate::progress::Progress;
use crate::show;

/// Bytes of entries in one record, about.
const ENTRIES_RECORD: u64 = 64 << 10;
/// How much of a file is read at once.
const READ: usize = 1 << 20;
/// Of so many files one is read, until there has been enough of it.
const ONE_IN: u64 = 16;

/// What was found and measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// Names.
    pub names: u64,
    /// Directories among them.
    pub directories: u64,
    /// Bytes that files hold, holes not among them; what has several names counts once in all.
    pub contents: f64,
    /// Bytes of records.
    pub log: f64,
    /// What could not be looked at.
    pub failed: u64,
    /// Seconds that the walk took.
    walked: f64,
    /// Bytes read from some of the files.
    read: u64,
    /// Seconds that this took.
    reading: f64,
}

impl Found {
    /// Seconds for reading all contents and looking at all objects, by what was measured; `None` if no file was read.
    pub fn seconds(&self) -> Option<f64> {
        let rate = (self.read > 0 && self.reading > 0.0).then(|| self.read as f64 / self.reading)?;
        Some(self.walked + self.contents / rate)
    }
}

/// Runs the command.
pub fn run(args: &Estimate) -> Result<(), Failure> {
    let mut progress = Progress::new("looking", None, false, args.quiet || args.json);
    let found = look(&args.directory, Duration::from_secs(args.seconds), &mut |names, path| {
        progress.set(names, || path.display().to_string());
    })
    .map_err(|error| Failure::io(args.directory.display(), error))?;
    progress.finish();
    if args.json {
        let value = json!({
            "names": found.names,
            "directories": found.directories,
            "contents": found.contents as u64,
            "log": found.log as u64,
            "failed": found.failed,
            "seconds": found.seconds().map(|seconds| seconds as u64),
        });
        println!("{value}");
    } else {
        let directory = args.directory.display();
        println!(
            "{directory}: {} names, {} of them directories; {} of contents",
            found.names,
            found.directories,
            show::bytes(found.contents as u64)
        );
        println!("a checkpoint puts about {} into the log", show::bytes(found.log as u64));
        match found.seconds() {
            Some(seconds) => println!(
                "reading it takes about {} ({} a second, {} names a second, measured with nothing else to do)",
                show::span(seconds),
                show::bytes((found.read as f64 / found.reading) as u64),
                (found.names as f64 / found.walked.max(0.001)) as u64
            ),
            None => println!("how long reading it takes is not known: there was no file to measure that with"),
        }
    }
    match found.failed {
        0 => Ok(()),
        failed => Err(Failure::Failed(format!(
            "{failed} objects could not be looked at and are not counted; run it as root, or see to the filesystem"
        ))),
    }
}

/// Walks a directory, this filesystem alone, and reads some of the files for that long.
pub fn look(root: &Path, measure: Duration, shown: &mut dyn FnMut(u64, &Path)) -> io::Result<Found> {
    let begun = Instant::now();
    let device = fs::metadata(root)?.dev();
    let mut found = Found { names: 1, directories: 1, ..Found::default() };
    let mut measured = Duration::ZERO;
    let mut files = 0u64;
    let mut buffer = vec![0; READ];
    let mut pending = vec![root.to_path_buf()];
    found.add_object(root, &fs::metadata(root)?);
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if directory == root => return Err(error),
            Err(_) => {
                found.failed += 1;
                continue;
            }
        };
        let mut bytes = 0u64;
        for entry in entries {
            let path = entry.map(|entry| entry.path());
            let Ok((path, data)) = path.and_then(|path| fs::symlink_metadata(&path).map(|data| (path, data))) else {
                found.failed += 1;
                continue;
            };
            found.names += 1;
            bytes += entry_len(&path);
            shown(found.names, &path);
            if data.dev() != device {
                // A mount on it, which is not part of the tree.
                continue;
            }
            found.add_object(&path, &data);
            if data.is_dir() {
                found.directories += 1;
                pending.push(path);
            } else if data.is_file() && data.blocks() > 0 {
                files += 1;
                // The first few, so that a small tree is measured too.
                if measured < measure && (files <= ONE_IN || files % ONE_IN == 0) {
                    let before = Instant::now();
                    match read(&path, measure - measured, &mut buffer) {
                        Ok(read) => found.read += read,
                        Err(_) => found.failed += 1,
                    }
                    measured += before.elapsed();
                }
            }
        }
        let head = record_len(DirectoryStateBody::HEAD_LEN, 0).unwrap_or(0) as u64;
        found.log += (bytes + (1 + bytes / ENTRIES_RECORD) * head) as f64;
    }
    found.reading = measured.as_secs_f64();
    found.walked = (begun.elapsed() - measured).as_secs_f64();
    Ok(found)
}

impl Found {
    /// Counts what is told of an object; of one with several names a part with each.
    fn add_object(&mut self, path: &Path, data: &Metadata) {
        let share = if data.is_dir() { 1.0 } else { 1.0 / data.nlink().max(1) as f64 };
        let target = if data.is_symlink() { data.size() } else { 0 };
        let payload = pad(target as usize).unwrap_or(0) + xattrs_len(path);
        self.log += share * record_len(ObjectStateBody::HEAD_LEN, payload).unwrap_or(payload) as f64;
        if data.is_file() {
            let stored = (data.blocks() * 512).min(data.size());
            let records = stored.div_ceil(WRITE_MAX as u64).max(1);
            let head = record_len(ObjectDataBody::HEAD_LEN, 0).unwrap_or(0) as u64;
            self.contents += share * stored as f64;
            self.log += share * (stored + records * head) as f64;
        }
    }
}

fn entry_len(path: &Path) -> u64 {
    let name = path.file_name().map_or(0, |name| name.as_bytes().len());
    (size_of::<DirectoryEntry>() + pad(name).unwrap_or(0)) as u64
}

/// Bytes that an object's extended attributes take in a record, as far as the caller may see them.
fn xattrs_len(path: &Path) -> usize {
    let mut names = vec![0u8; 64 << 10];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names) else { return 0 };
    let names = names.get(..len).unwrap_or(&[]).split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let value_len = |name: &[u8]| rustix::fs::lgetxattr(path, name, &mut [0u8; 0]).unwrap_or(0);
    names.map(|name| size_of::<XattrEntry>() + pad(name.len() + value_len(name)).unwrap_or(0)).sum()
}

/// Reads a file from its disk for as long as this; how much.
fn read(path: &Path, time: Duration, buffer: &mut [u8]) -> io::Result<u64> {
    let begun = Instant::now();
    let mut file = File::open(path)?;
    // What is in memory would be read faster than the rest.
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut total = 0;
    while begun.elapsed() < time {
        match file.read(buffer)? {
            0 => break,
            n => total += n as u64,
        }
    }
    Ok(total)
}
