// SPDX-License-Identifier: GPL-2.0-or-later

//! Contents of files, before the files have names: one file per object, called by its number, in a directory that
//! nobody else can enter. What the log does not store is never written, so holes come out as they were.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    fallocate, mkdirat, openat, renameat, seek, unlinkat, AtFlags, FallocateFlags, Mode, OFlags, SeekFrom,
};
use rustix::io::Errno;

use super::namespace::{Change, ObjectId};

/// Objects per directory, so that none grows beyond what any filesystem likes.
const PER_DIRECTORY: u32 = 4096;
/// Bytes moved at a time where the filesystem cannot shift contents itself.
const COPY: usize = 1 << 20;

/// Something about one file that the target could not do exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// The file.
    pub object: ObjectId,
    /// What could not be done.
    pub what: String,
}

/// Files without names.
#[derive(Debug)]
pub struct Staging {
    directory: OwnedFd,
    directories: HashSet<u32>,
    /// Files that exist.
    staged: HashSet<ObjectId>,
    /// Files that are open, and when they were used last.
    open: HashMap<ObjectId, (File, u64)>,
    by_use: BTreeMap<u64, ObjectId>,
    uses: u64,
    open_max: usize,
    /// Files whose contents the target cannot hold.
    given_up: HashSet<ObjectId>,
    lapses: Vec<Lapse>,
    written: u64,
}

fn error(errno: Errno) -> io::Error {
    errno.into()
}

impl Staging {
    /// Staging in a directory that is empty and ours alone.
    pub fn new(directory: OwnedFd, open_max: usize) -> Self {
        Staging {
            directory,
            directories: HashSet::new(),
            staged: HashSet::new(),
            open: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            open_max: open_max.max(1),
            given_up: HashSet::new(),
            lapses: Vec::new(),
            written: 0,
        }
    }

    /// The directory.
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// What the target could not do exactly.
    pub fn lapses(&self) -> &[Lapse] {
        &self.lapses
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether the object has contents here.
    pub fn has(&self, object: ObjectId) -> bool {
        self.staged.contains(&object)
    }

    /// The name of an object's file, relative to the directory.
    pub fn name(object: ObjectId) -> String {
        format!("{:x}/{:x}", object.0 / PER_DIRECTORY, object.0)
    }

    /// Makes sure that the directory for this object's file is there.
    pub fn prepare(&mut self, object: ObjectId) -> io::Result<()> {
        let number = object.0 / PER_DIRECTORY;
        if self.directories.insert(number) {
            mkdirat(&self.directory, format!("{number:x}"), Mode::RWXU).map_err(error)?;
        }
        Ok(())
    }

    /// Applies what a record demands.
    pub fn apply(&mut self, change: &Change<'_>) -> io::Result<()> {
        let (file, result) = match *change {
            Change::None => return Ok(()),
            Change::Gone { object } => return self.remove(object),
            Change::Write { file, .. } | Change::Truncate { file, .. } | Change::Fallocate { file, .. }
                if self.given_up.contains(&file) =>
            {
                return Ok(());
            }
            Change::Write { file, offset, data } => {
                self.written += data.len() as u64;
                (file, self.file(file)?.write_all_at(data, offset))
            }
            // An empty file is made when it gets its name.
            Change::Truncate { file, size: 0 } if !self.has(file) => return Ok(()),
            Change::Truncate { file, size } => (file, self.file(file)?.set_len(size)),
            Change::Fallocate { file, mode, offset, length, size } => {
                (file, self.fallocate(file, mode, offset, length, size))
            }
        };
        match result {
            Err(error) if error.raw_os_error() == Some(Errno::FBIG.raw_os_error()) => {
                self.given_up.insert(file);
                self.lapses.push(Lapse { object: file, what: "contents: the target holds no file this large".into() });
                Ok(())
            }
            other => other,
        }
    }

    /// The object's file, opened, made if it is not there.
    pub fn file(&mut self, object: ObjectId) -> io::Result<&File> {
        self.uses += 1;
        if let Some((_, last)) = self.open.get_mut(&object) {
            self.by_use.remove(last);
            *last = self.uses;
        } else {
            while self.open.len() >= self.open_max {
                let Some((_, oldest)) = self.by_use.pop_first() else { break };
                self.open.remove(&oldest);
            }
            let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            if !self.has(object) {
                self.prepare(object)?;
                flags |= OFlags::CREATE | OFlags::EXCL;
            }
            let mode = Mode::RUSR | Mode::WUSR;
            let file = openat(&self.directory, Self::name(object), flags, mode).map_err(error)?;
            self.staged.insert(object);
            self.open.insert(object, (File::from(file), self.uses));
        }
        self.by_use.insert(self.uses, object);
        self.open.get(&object).map(|(file, _)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The object's file, as [`Staging::file`], out of the set of those that are kept open.
    pub fn take(&mut self, object: ObjectId) -> io::Result<File> {
        self.file(object)?;
        let (file, last) = self.open.remove(&object).ok_or(io::ErrorKind::NotFound)?;
        self.by_use.remove(&last);
        Ok(file)
    }

    /// Closes the object's file and forgets it; it is somebody else's from now on.
    pub fn release(&mut self, object: ObjectId) {
        if let Some((_, last)) = self.open.remove(&object) {
            self.by_use.remove(&last);
        }
        self.staged.remove(&object);
    }

    fn remove(&mut self, object: ObjectId) -> io::Result<()> {
        let staged = self.has(object);
        self.release(object);
        self.given_up.remove(&object);
        self.lapses.retain(|lapse| lapse.object != object);
        if staged {
            unlinkat(&self.directory, Self::name(object), AtFlags::empty()).map_err(error)?;
        }
        Ok(())
    }

    fn lapse(&mut self, object: ObjectId, what: &str) {
        let lapse = Lapse { object, what: what.into() };
        if !self.lapses.contains(&lapse) {
            self.lapses.push(lapse);
        }
    }

    fn fallocate(&mut self, object: ObjectId, mode: u32, offset: u64, length: u64, size: u64) -> io::Result<()> {
        let flags = FallocateFlags::from_bits_retain(mode);
        let file = self.file(object)?;
        match fallocate(file, flags, offset, length) {
            Ok(()) => Ok(()),
            // Not every filesystem can, and shifts have to be whole blocks of whatever size it has.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.imitate(object, flags, offset, length)?;
                self.file(object)?.set_len(size)
            }
            // Space that was only set aside, and perhaps given back later in the log, is no content.
            Err(Errno::NOSPC | Errno::DQUOT) if flags.difference(FallocateFlags::KEEP_SIZE).is_empty() => {
                self.lapse(object, "preallocation: the target has no room for it");
                self.file(object)?.set_len(size)
            }
            Err(errno) => Err(error(errno)),
        }
    }

    /// The same contents by other means.
    fn imitate(&mut self, object: ObjectId, flags: FallocateFlags, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.saturating_add(length);
        if flags.contains(FallocateFlags::COLLAPSE_RANGE) {
            self.shift(object, [(0, offset, 0), (end, u64::MAX, offset)])
        } else if flags.contains(FallocateFlags::INSERT_RANGE) {
            self.shift(object, [(0, offset, 0), (offset, u64::MAX, end)])
        } else if flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE | WRITE_ZEROES) {
            let file = self.file(object)?;
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if fallocate(file, punch, offset, length).is_ok() {
                return Ok(());
            }
            let stop = end.min(file.metadata()?.len());
            let zeros = vec![0; COPY];
            let mut at = offset;
            while at < stop {
                let count = (stop - at).min(COPY as u64) as usize;
                file.write_all_at(&zeros[..count], at)?;
                at += count as u64;
            }
            self.lapse(object, "holes: the target cannot punch them; they are stored as zeros");
            Ok(())
        } else if flags.contains(FallocateFlags::UNSHARE_RANGE) {
            Ok(())
        } else {
            self.lapse(object, "preallocation: the target cannot do it");
            Ok(())
        }
    }

    /// Makes the file anew of pieces of itself: from, up to, and where to.
    fn shift(&mut self, object: ObjectId, pieces: [(u64, u64, u64); 2]) -> io::Result<()> {
        let name = Self::name(object);
        let temporary = format!("{name}.shift");
        let old = self.file(object)?.try_clone()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let new = File::from(openat(&self.directory, &temporary, flags, mode).map_err(error)?);
        let size = old.metadata()?.len();
        let mut buffer = vec![0; COPY];
        for (from, upto, to) in pieces {
            let mut at = from;
            while let Some((start, end)) = stored(&old, at, size.min(upto))? {
                at = start;
                while at < end {
                    let count = (end - at).min(COPY as u64) as usize;
                    old.read_exact_at(&mut buffer[..count], at)?;
                    new.write_all_at(&buffer[..count], to + (at - from))?;
                    at += count as u64;
                }
            }
        }
        renameat(&self.directory, &temporary, &self.directory, &name).map_err(error)?;
        let uses = self.open.get(&object).map_or(0, |(_, uses)| *uses);
        self.open.insert(object, (new, uses));
        Ok(())
    }
}

/// `FALLOC_FL_WRITE_ZEROES` of `linux/falloc.h`.
const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);

/// The next range at or behind `from` that is stored and not a hole.
fn stored(file: &File, from: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if from >= size {
        return Ok(None);
    }
    let start = match seek(file.as_fd(), SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((from, size))),
        Err(errno) => return Err(error(errno)),
    };
    let end = seek(file.as_fd(), SeekFrom::Hole(start)).map_err(error)?;
    Ok((start < size).then_some((start, end.min(size))))
}
