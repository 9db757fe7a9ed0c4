// SPDX-License-Identifier: GPL-2.0-or-later

//! The oracle: whether replaying the log gives the tree, as it is now and as it was at any moment.
//!
//! A *note* says what the lower tree was at one LSN: the mount is frozen, so that nothing changes any more and stores
//! through shared mappings are in the log; what was under way is committed; then the position of the log and a listing
//! of the tree are taken, and the mount is thawed. The workload goes on all the while and notices a pause. *Judging*
//! restores from the media alone to each noted LSN, into an empty directory, and compares with the listing in
//! everything that a restore promises (`treecmp`, which shares no code with what it judges).

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use reelfs_sys::device::Device;
use treecmp::{compare, walk, Listing, Options};

/// What the names of notes end with; they begin with the LSN, in hexadecimal.
const SUFFIX: &str = "listing";
/// Between two looks at the position of the log.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why there is no verdict. (That a restore fails, or differs, is a verdict.)
#[derive(Debug)]
pub struct OracleError(String);

impl std::fmt::Display for OracleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OracleError {}

fn failed(what: impl std::fmt::Display, error: impl std::fmt::Display) -> OracleError {
    OracleError(format!("{what}: {error}"))
}

/// One mount that is watched.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// The lower directory, by a path that does not lead through the mount.
    pub lower: PathBuf,
    /// What is frozen: the mount; or a directory of the lower filesystem, where nobody stores through mappings.
    pub frozen: PathBuf,
    /// Where the notes go; not on the lower filesystem.
    pub notes: PathBuf,
    /// For how long the position of the log has to stand still before it is believed. Nothing that was begun before the
    /// freeze takes longer than that from the change to the commit.
    pub still: Duration,
}

/// What one restore came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The moment; `None` for the end of the log.
    pub lsn: Option<u64>,
    /// Names that were compared.
    pub names: usize,
    /// What differs, or why there is nothing to compare. Empty: the restored tree is the tree.
    pub faults: Vec<String>,
}

/// What is compared: everything but the mark on the lower root, which is not the tree's.
pub fn options() -> Options {
    Options { ignore: vec![b"xattr:trusted.reelfs".to_vec()], ..Options::default() }
}

/// The listing of a tree, all of it or an error.
pub fn listing(root: &Path) -> Result<Listing, OracleError> {
    let (listing, errors) = walk(root, &options()).map_err(|error| failed(root.display(), error))?;
    match errors.first() {
        None => Ok(listing),
        Some(error) => Err(failed(root.display(), error)),
    }
}

/// A frozen filesystem; thawed when this is dropped, whatever happens.
struct Frozen<'a>(&'a Path);

impl<'a> Frozen<'a> {
    fn freeze(directory: &'a Path) -> Result<Self, OracleError> {
        fsfreeze("-f", directory)?;
        Ok(Frozen(directory))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = fsfreeze("-u", self.0) {
            eprintln!("reelfs-oracle: {error}");
        }
    }
}

fn fsfreeze(option: &str, directory: &Path) -> Result<(), OracleError> {
    let done = Command::new("fsfreeze").arg(option).arg(directory).output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(failed("fsfreeze", String::from_utf8_lossy(&done.stderr).trim())),
        Err(error) => Err(failed("fsfreeze", error)),
    }
}

impl Oracle {
    /// LSN behind the last record that the mount has committed.
    fn committed(&self) -> Result<u64, OracleError> {
        let list = Device::open().and_then(|device| device.list()).map_err(|error| failed("/dev/reelfs", error))?;
        let source = self.lower.as_os_str().as_bytes();
        let newest = list.iter().filter(|entry| entry.source_path() == source).max_by_key(|entry| entry.ring);
        newest.map(|entry| entry.committed).ok_or_else(|| failed(self.lower.display(), "no ring of this directory"))
    }

    /// Takes a note while the workload goes on; the LSN.
    pub fn note(&self) -> Result<u64, OracleError> {
        fs::create_dir_all(&self.notes).map_err(|error| failed(self.notes.display(), error))?;
        let frozen = Frozen::freeze(&self.frozen)?;
        let mut lsn = self.committed()?;
        let mut since = Instant::now();
        while since.elapsed() < self.still {
            std::thread::sleep(LOOK_EVERY);
            let now = self.committed()?;
            if now != lsn {
                (lsn, since) = (now, Instant::now());
            }
        }
        let listing = listing(&self.lower)?;
        // Nobody else's word: had anything been committed meanwhile, tree and position would not belong together.
        let after = self.committed()?;
        drop(frozen);
        if after != lsn {
            return Err(OracleError(format!("LSN {lsn:#x}: the log went on to {after:#x} on a frozen filesystem")));
        }
        let path = self.notes.join(format!("{lsn:016x}.{SUFFIX}"));
        let write = |file: File| {
            let mut file = BufWriter::new(file);
            listing.write(&mut file)?;
            file.flush()
        };
        File::create(&path).and_then(write).map_err(|error| failed(path.display(), error))?;
        Ok(lsn)
    }

    /// The moments that were noted.
    pub fn noted(&self) -> Result<Vec<u64>, OracleError> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.notes) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(failed(self.notes.display(), error)),
        };
        for entry in entries {
            let name = entry.map_err(|error| failed(self.notes.display(), error))?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.strip_suffix('.'));
            found.extend(stem.and_then(|stem| u64::from_str_radix(stem, 16).ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Restores from `media` to every moment that was noted, each into a new directory in `work`, and compares. `work`
    /// has to be on a filesystem that can hold what the lower can.
    pub fn judge(&self, media: &Path, work: &Path) -> Result<Vec<Verdict>, OracleError> {
        let mut verdicts = Vec::new();
        for lsn in self.noted()? {
            let path = self.notes.join(format!("{lsn:016x}.{SUFFIX}"));
            let noted = File::open(&path).and_then(|file| Listing::read(BufReader::new(file)));
            let noted = noted.map_err(|error| failed(path.display(), error))?;
            verdicts.push(verdict(Some(lsn), &noted, media, work)?);
        }
        Ok(verdicts)
    }

    /// Restores all of the log and compares with the lower as it is. Nothing may be changing it, and everything has to
    /// be on the media.
    pub fn judge_end(&self, media: &Path, work: &Path) -> Result<Verdict, OracleError> {
        verdict(None, &listing(&self.lower)?, media, work)
    }
}

fn verdict(lsn: Option<u64>, wanted: &Listing, media: &Path, work: &Path) -> Result<Verdict, OracleError> {
    let name = lsn.map_or("end".to_owned(), |lsn| format!("at-{lsn:x}"));
    let target = work.join(format!("oracle-{name}"));
    let mut command = Command::new("reel");
    command.args(["restore", "--quiet", "--no-identity-map", "--to"]).arg(&target);
    if let Some(lsn) = lsn {
        command.args(["--at", &lsn.to_string()]);
    }
    let done = command.arg(media).output().map_err(|error| failed("reel", error))?;
    let mut faults = Vec::new();
    if done.status.success() {
        faults.extend(compare(wanted, &listing(&target)?).iter().map(ToString::to_string));
    } else {
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).trim().to_owned();
        faults.push(format!("reel restore: {}: {said}", done.status));
    }
    // What was right is of no further use; what was not may be looked at.
    if faults.is_empty() {
        remove(&target)?;
    }
    Ok(Verdict { lsn, names: wanted.entries.len(), faults })
}

/// Removes a restored tree, whatever attributes forbid it.
fn remove(tree: &Path) -> Result<(), OracleError> {
    if fs::remove_dir_all(tree).is_ok() {
        return Ok(());
    }
    let _ = Command::new("chattr").args(["-R", "-f", "-i", "-a"]).arg(tree).output();
    fs::remove_dir_all(tree).map_err(|error| failed(tree.display(), error))
}
