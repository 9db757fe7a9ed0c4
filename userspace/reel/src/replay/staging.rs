// SPDX-License-Identifier: GPL-2.0-or-later

//! Contents of files while the log is replayed, in directories that nobody else can enter.
//!
//! Every directory of the tree that gets a file has a directory of its own in staging, called by its number, and a file is
//! made there under the name that it has when its first bytes come: if it keeps that name, nothing is left to be done but
//! to move the directory. Files that cannot be made so, because the name is somebody else's still, are called by their
//! number. Attributes are given when a file is closed. What the log does not store is never written, so holes come out as
//! they were.
//!
//! **Checkpoints.** What happens to files between two checkpoints may happen twice: after a crash the log is replayed from
//! the last one, onto files that are ahead of it. Writing, cutting and punching give the same in the end, because every byte
//! that was changed is changed again. What would not - a shift, a removal - is not done to a file that the checkpoint
//! knows, but to a copy of it; the file itself goes when the next checkpoint has been made.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    fallocate, ioctl_ficlone, mkdirat, openat, renameat, seek, unlinkat, AtFlags, FallocateFlags, Mode, OFlags,
    SeekFrom,
};
use rustix::io::Errno;

use super::dress;
use super::namespace::{Change, Namespace, Object, ObjectId};
use super::object::{lapse, Staged};
use super::store::StoreError;
use crate::select::Selection;

/// Objects per directory, so that none grows beyond what any filesystem likes.
const PER_DIRECTORY: u64 = 4096;
/// Bytes moved at a time where the filesystem cannot shift contents itself.
const COPY: usize = 1 << 20;

/// A file that nobody needs once the next checkpoint has been made.
#[derive(Debug)]
enum Condemned {
    Pool(Vec<u8>),
    Named(ObjectId, Box<[u8]>),
}

/// An open file, and when it was used last.
#[derive(Debug)]
struct Open {
    file: File,
    last: u64,
}

/// Files without names.
#[derive(Debug)]
pub struct Staging {
    directory: OwnedFd,
    /// Directories for so many objects each that are known to be there.
    shelves: HashSet<u64>,
    open: HashMap<ObjectId, Open>,
    by_use: BTreeMap<u64, ObjectId>,
    uses: u64,
    open_max: usize,
    /// Attributes are given when a file is closed. Without privileges they could lock us out of it.
    eager: bool,
    /// Number of checkpoints so far.
    interval: u32,
    /// What an earlier run left behind may be in the way.
    resumed: bool,
    condemned: Vec<Condemned>,
    /// Objects whose contents are wanted; all without it.
    wanted: Option<Selection>,
    written: u64,
}

fn error(errno: Errno) -> io::Error {
    errno.into()
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        io::Error::other(error)
    }
}

fn unknown(id: ObjectId) -> io::Error {
    io::Error::other(format!("object {} is not known", id.0))
}

impl Staging {
    /// Staging in a directory that is ours alone. `interval` is the number of the checkpoint that it is to go on from.
    pub fn new(directory: OwnedFd, open_max: usize, interval: Option<u32>) -> Self {
        Staging {
            directory,
            shelves: HashSet::new(),
            open: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            open_max: open_max.max(1),
            eager: rustix::process::geteuid().is_root(),
            interval: interval.unwrap_or(0),
            resumed: interval.is_some(),
            condemned: Vec::new(),
            wanted: None,
            written: 0,
        }
    }

    /// Takes contents of these objects only.
    pub fn select(&mut self, wanted: Option<Selection>) {
        self.wanted = wanted;
    }

    /// The directory.
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Whether an earlier run may have left something behind.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Sets the bytes that were written before.
    pub fn set_written(&mut self, written: u64) {
        self.written = written;
    }

    /// Number of checkpoints so far.
    pub fn interval(&self) -> u32 {
        self.interval
    }

    /// The name of an object's file, or of a directory's, relative to the staging directory.
    pub fn pool(id: ObjectId, copy: u32) -> Vec<u8> {
        let shelf = id.0 / PER_DIRECTORY;
        match copy {
            0 => format!("{shelf:x}/{:x}", id.0),
            _ => format!("{shelf:x}/{:x}.{copy}", id.0),
        }
        .into_bytes()
    }

    /// The path of a name in a directory, relative to the staging directory.
    pub fn named(directory: ObjectId, name: &[u8]) -> Vec<u8> {
        let mut path = Self::pool(directory, 0);
        path.push(b'/');
        path.extend_from_slice(name);
        path
    }

    /// Where an object's file is, if it was made.
    pub fn place(id: ObjectId, staged: &Staged) -> Option<Vec<u8>> {
        match staged {
            Staged::No => None,
            Staged::Pool(copy) => Some(Self::pool(id, *copy)),
            Staged::Named(directory, name) => Some(Self::named(*directory, name)),
        }
    }

    /// Makes sure that the directory in which this object would be called by its number is there.
    pub fn shelve(&mut self, id: ObjectId) -> io::Result<()> {
        let shelf = id.0 / PER_DIRECTORY;
        if self.shelves.insert(shelf) {
            match mkdirat(&self.directory, format!("{shelf:x}"), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(error(errno)),
            }
        }
        Ok(())
    }

    /// Makes sure that a directory has its directory here.
    pub fn make_directory(&mut self, namespace: &mut Namespace, id: ObjectId) -> io::Result<()> {
        if namespace.object(id)?.is_none_or(|object| object.staged != Staged::No) {
            return Ok(());
        }
        self.mkdir(id)?;
        let interval = self.interval;
        if let Some(object) = namespace.object_mut(id)? {
            (object.staged, object.made) = (Staged::Pool(0), interval);
        }
        Ok(())
    }

    fn mkdir(&mut self, id: ObjectId) -> io::Result<()> {
        self.shelve(id)?;
        match mkdirat(&self.directory, Self::pool(id, 0), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(error(errno)),
        }
    }

    fn is_wanted(&self, id: ObjectId) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.has(id))
    }

    /// Applies what a record demands.
    pub fn apply(&mut self, namespace: &mut Namespace, change: &Change<'_>) -> io::Result<()> {
        for (id, object) in namespace.take_gone() {
            self.remove(namespace, id, &object)?;
        }
        let id = match *change {
            Change::None | Change::Gone { .. } => return Ok(()),
            Change::Write { file, .. }
            | Change::Truncate { file, .. }
            | Change::Fallocate { file, .. }
            | Change::State { file, .. } => file,
        };
        let Some(object) = namespace.object(id)? else { return Err(unknown(id)) };
        let (made, given_up) = (object.staged != Staged::No, object.lapses & lapse::TOO_LARGE != 0);
        let settled = object.settled;
        if given_up || !self.is_wanted(id) {
            return Ok(());
        }
        // What changes the file here changes its times, whatever the record says of them.
        if let (true, Some(object)) = (settled, namespace.object_mut(id)?) {
            object.settled = false;
        }
        let result = match *change {
            Change::Write { offset, data, .. } => {
                self.written += data.len() as u64;
                self.file(namespace, id)?.write_all_at(data, offset)
            }
            // An empty file is made when the tree is.
            Change::Truncate { size: 0, .. } if !made => Ok(()),
            Change::Truncate { size, .. } => self.file(namespace, id)?.set_len(size),
            Change::Fallocate { mode, offset, length, size, .. } => {
                self.fallocate(namespace, id, mode, offset, length, size)
            }
            Change::State { anew, offset, length, data, size, .. } => {
                self.written += data.map_or(0, |data| data.len() as u64);
                self.tell(namespace, id, anew, offset, length, data, size)
            }
            Change::None | Change::Gone { .. } => Ok(()),
        };
        match result {
            Err(error) if error.raw_os_error() == Some(Errno::FBIG.raw_os_error()) => {
                self.lapse(namespace, id, lapse::TOO_LARGE)
            }
            other => other,
        }
    }

    /// What a checkpoint says of a file. An empty one is made when the tree is.
    #[allow(clippy::too_many_arguments)] // The parts of a [`Change::State`].
    fn tell(
        &mut self,
        namespace: &mut Namespace,
        id: ObjectId,
        anew: bool,
        offset: u64,
        length: u64,
        data: Option<&[u8]>,
        size: Option<u64>,
    ) -> io::Result<()> {
        let made = |namespace: &mut Namespace| {
            namespace.object(id).map(|object| object.is_some_and(|object| object.staged != Staged::No))
        };
        if anew && made(namespace)? {
            self.file(namespace, id)?.set_len(0)?;
        }
        match data {
            Some(data) if !data.is_empty() => self.file(namespace, id)?.write_all_at(data, offset)?,
            // Behind what was told before there is nothing that would have to go.
            None if length > 0 && made(namespace)? && self.file(namespace, id)?.metadata()?.len() > offset => {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                self.fallocate(namespace, id, punch.bits(), offset, length, size.unwrap_or(offset))?;
            }
            _ => {}
        }
        match size {
            Some(size) if size > 0 || made(namespace)? => self.file(namespace, id)?.set_len(size),
            _ => Ok(()),
        }
    }

    /// The object's file, opened, made if it is not there.
    pub fn file(&mut self, namespace: &mut Namespace, id: ObjectId) -> io::Result<&File> {
        self.uses += 1;
        let uses = self.uses;
        if let Some(open) = self.open.get_mut(&id) {
            self.by_use.remove(&std::mem::replace(&mut open.last, uses));
        } else {
            while self.open.len() >= self.open_max {
                let Some((_, oldest)) = self.by_use.pop_first() else { break };
                self.close(namespace, oldest)?;
            }
            let object = namespace.object(id)?.ok_or_else(|| unknown(id))?;
            let file = match Self::place(id, &object.staged) {
                Some(path) => self.reopen(namespace, id, &path)?,
                None => self.create(namespace, id)?,
            };
            self.open.insert(id, Open { file, last: uses });
        }
        self.by_use.insert(uses, id);
        self.open.get(&id).map(|open| &open.file).ok_or_else(|| unknown(id))
    }

    fn reopen(&mut self, namespace: &mut Namespace, id: ObjectId, path: &[u8]) -> io::Result<File> {
        match openat(&self.directory, path, FILE, Mode::empty()) {
            // An interrupted run had begun to put things in order.
            Err(Errno::NOENT) if self.resumed => {
                let pool = Self::pool(id, 0);
                let file = openat(&self.directory, pool, FILE, Mode::empty()).map_err(error)?;
                if let Some(object) = namespace.object_mut(id)? {
                    object.staged = Staged::Pool(0);
                }
                Ok(file.into())
            }
            other => other.map(File::from).map_err(error),
        }
    }

    fn create(&mut self, namespace: &mut Namespace, id: ObjectId) -> io::Result<File> {
        let object = namespace.object(id)?.ok_or_else(|| unknown(id))?;
        let mode = if self.eager { object.attr.mode.get() & 0o777 } else { 0o600 };
        let (mut home, mode) = (object.home.clone(), Mode::from_raw_mode(mode));
        if let (true, Some((directory, name))) = (self.resumed, &home) {
            // Somebody else's still, though an interrupted run may have moved the file away already.
            if namespace.displaced(*directory, name)?.is_some() {
                home = None;
            }
        }
        let mut made = None;
        if let Some((directory, name)) = home {
            self.make_directory(namespace, directory)?;
            let path = Self::named(directory, &name);
            let mut tried = false;
            loop {
                match openat(&self.directory, &path, FILE | OFlags::CREATE | OFlags::EXCL, mode) {
                    Ok(file) => {
                        made = Some((file, Staged::Named(directory, name)));
                        break;
                    }
                    // A directory that was removed, and is there again for the second time.
                    Err(Errno::NOENT) if !tried => self.mkdir(directory)?,
                    // Left behind by an earlier run: the log will make it again, here and now.
                    Err(Errno::EXIST) if !tried && self.resumed => {
                        discard(&self.directory, &path);
                    }
                    // Somebody else's still, or not a name for this filesystem.
                    Err(Errno::EXIST | Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL) => break,
                    Err(errno) => return Err(error(errno)),
                }
                tried = true;
            }
        }
        let (file, staged) = match made {
            Some(made) => made,
            None => (self.create_in_pool(id, 0, mode)?, Staged::Pool(0)),
        };
        let interval = self.interval;
        if let Some(object) = namespace.object_mut(id)? {
            (object.staged, object.made, object.settled) = (staged, interval, false);
        }
        Ok(file.into())
    }

    fn create_in_pool(&mut self, id: ObjectId, copy: u32, mode: Mode) -> io::Result<OwnedFd> {
        self.shelve(id)?;
        let path = Self::pool(id, copy);
        if self.resumed {
            discard(&self.directory, &path);
        }
        openat(&self.directory, path, FILE | OFlags::CREATE | OFlags::EXCL, mode).map_err(error)
    }

    /// Closes a file and gives it its attributes, if that can be done already.
    fn close(&mut self, namespace: &mut Namespace, id: ObjectId) -> io::Result<()> {
        let Some(open) = self.open.remove(&id) else { return Ok(()) };
        self.by_use.remove(&open.last);
        if !self.eager {
            return Ok(());
        }
        let Some(object) = namespace.object(id)?.filter(|object| !object.settled) else { return Ok(()) };
        let mut whole = true;
        let stat = dress::give(&open.file, object, &mut |_| whole = false)?;
        // What does not fit, and what the target refused, is told when the tree is made.
        whole &= stat.st_size as u64 == object.attr.size.get();
        let dressed = !object.xattrs.is_empty();
        if let Some(object) = namespace.object_mut(id)? {
            object.settled = whole;
            object.dressed |= dressed;
        }
        Ok(())
    }

    /// Calls a staged file by its number. `again`: that may have been done.
    pub fn move_to_pool(
        &mut self,
        namespace: &mut Namespace,
        id: ObjectId,
        path: &[u8],
        again: bool,
    ) -> io::Result<()> {
        self.shelve(id)?;
        match renameat(&self.directory, path, &self.directory, Self::pool(id, 0)) {
            Ok(()) => {}
            Err(Errno::NOENT) if again || self.resumed => {}
            Err(errno) => return Err(error(errno)),
        }
        if let Some(object) = namespace.object_mut(id)? {
            object.staged = Staged::Pool(0);
        }
        Ok(())
    }

    /// The log has been followed: closes all files, and moves those out of the way that lie under names that are not
    /// theirs any more. Afterwards every file that bears a name bears its own; but for those that the last checkpoint
    /// needs: if there are such, it returns true, and they go with the next one.
    pub fn settle(&mut self, namespace: &mut Namespace) -> io::Result<bool> {
        let needed: HashSet<(ObjectId, Box<[u8]>)> = self
            .condemned
            .iter()
            .filter_map(|condemned| match condemned {
                Condemned::Pool(_) => None,
                Condemned::Named(directory, name) => Some((*directory, name.clone())),
            })
            .collect();
        while let Some((_, id)) = self.by_use.pop_first() {
            self.close(namespace, id)?;
        }
        let mut cursor = None;
        loop {
            let (displaced, next) = namespace.all_displaced(cursor)?;
            for (directory, name, id) in displaced {
                let path = Self::named(directory, &name);
                let staged = namespace.object(id)?.map(|object| object.staged.clone());
                if staged == Some(Staged::Named(directory, name.clone())) {
                    self.move_to_pool(namespace, id, &path, false)?;
                } else if needed.contains(&(directory, name.clone())) {
                    continue;
                } else {
                    discard(&self.directory, &path);
                }
                namespace.set_displaced(directory, &name, None);
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(!needed.is_empty());
            }
        }
    }

    /// The checkpoint has been made: what only the one before needed goes.
    pub fn committed(&mut self, namespace: &mut Namespace) {
        self.interval += 1;
        for condemned in std::mem::take(&mut self.condemned) {
            self.execute(namespace, condemned);
        }
    }

    /// An object is gone for ever.
    fn remove(&mut self, namespace: &mut Namespace, id: ObjectId, object: &Object) -> io::Result<()> {
        if let Some(open) = self.open.remove(&id) {
            self.by_use.remove(&open.last);
        }
        if object.is_directory() {
            // Something may still be staged in it: then it stays, and goes with everything at the end.
            if object.staged != Staged::No {
                let _ = unlinkat(&self.directory, Self::pool(id, 0), AtFlags::REMOVEDIR);
            }
            return Ok(());
        }
        let Some(condemned) = condemned(id, &object.staged) else { return Ok(()) };
        if object.made != self.interval {
            self.condemned.push(condemned);
            return Ok(());
        }
        // No checkpoint knows it.
        self.execute(namespace, condemned);
        Ok(())
    }

    fn execute(&mut self, namespace: &mut Namespace, condemned: Condemned) {
        match condemned {
            Condemned::Pool(path) => discard(&self.directory, &path),
            Condemned::Named(directory, name) => {
                discard(&self.directory, &Self::named(directory, &name));
                namespace.set_displaced(directory, &name, None);
            }
        }
    }

    fn lapse(&mut self, namespace: &mut Namespace, id: ObjectId, bit: u8) -> io::Result<()> {
        if let Some(object) = namespace.object_mut(id)? {
            object.lapses |= bit;
        }
        Ok(())
    }

    /// Makes the file one that no checkpoint knows: a copy, if need be.
    fn own(&mut self, namespace: &mut Namespace, id: ObjectId) -> io::Result<()> {
        let object = namespace.object(id)?.ok_or_else(|| unknown(id))?.clone();
        if object.staged == Staged::No || object.made == self.interval {
            return Ok(());
        }
        let copy = match object.staged {
            Staged::Pool(copy) => copy + 1,
            _ => 0,
        };
        let old = self.file(namespace, id)?.try_clone()?;
        let new = File::from(self.create_in_pool(id, copy, Mode::RUSR | Mode::WUSR)?);
        if ioctl_ficlone(&new, &old).is_err() {
            let size = old.metadata()?.len();
            new.set_len(size)?;
            copy_pieces(&old, &new, &[(0, size, 0)])?;
        }
        if let Staged::Named(directory, name) = &object.staged {
            namespace.set_displaced(*directory, name, Some(id));
        }
        self.condemned.extend(condemned(id, &object.staged));
        let interval = self.interval;
        if let Some(object) = namespace.object_mut(id)? {
            (object.staged, object.made, object.settled) = (Staged::Pool(copy), interval, false);
            object.dressed = false;
        }
        if let Some(open) = self.open.get_mut(&id) {
            open.file = new;
        }
        Ok(())
    }

    fn fallocate(
        &mut self,
        namespace: &mut Namespace,
        id: ObjectId,
        mode: u32,
        offset: u64,
        length: u64,
        size: u64,
    ) -> io::Result<()> {
        let flags = FallocateFlags::from_bits_retain(mode);
        if flags.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE) {
            self.own(namespace, id)?;
        }
        let file = self.file(namespace, id)?;
        match fallocate(file, flags, offset, length) {
            Ok(()) => Ok(()),
            // Not every filesystem can, and shifts have to be whole blocks of whatever size it has.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.imitate(namespace, id, flags, offset, length)?;
                self.file(namespace, id)?.set_len(size)
            }
            // Space that was only set aside, and perhaps given back later in the log, is no content.
            Err(Errno::NOSPC | Errno::DQUOT) if flags.difference(FallocateFlags::KEEP_SIZE).is_empty() => {
                self.lapse(namespace, id, lapse::PREALLOCATION)?;
                self.file(namespace, id)?.set_len(size)
            }
            Err(errno) => Err(error(errno)),
        }
    }

    /// The same contents by other means.
    fn imitate(
        &mut self,
        namespace: &mut Namespace,
        id: ObjectId,
        flags: FallocateFlags,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let end = offset.saturating_add(length);
        if flags.contains(FallocateFlags::COLLAPSE_RANGE) {
            self.shift(namespace, id, &[(0, offset, 0), (end, u64::MAX, offset)])
        } else if flags.contains(FallocateFlags::INSERT_RANGE) {
            self.shift(namespace, id, &[(0, offset, 0), (offset, u64::MAX, end)])
        } else if flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE | WRITE_ZEROES) {
            let file = self.file(namespace, id)?;
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
            self.lapse(namespace, id, lapse::HOLES)
        } else if flags.contains(FallocateFlags::UNSHARE_RANGE) {
            Ok(())
        } else {
            self.lapse(namespace, id, lapse::PREALLOCATION)
        }
    }

    /// Makes the file anew of pieces of itself: from, up to, and where to. No checkpoint may know it.
    fn shift(&mut self, namespace: &mut Namespace, id: ObjectId, pieces: &[(u64, u64, u64)]) -> io::Result<()> {
        let old = self.file(namespace, id)?.try_clone()?;
        let object = namespace.object(id)?.ok_or_else(|| unknown(id))?.clone();
        let copy = match object.staged {
            Staged::Pool(copy) => copy + 1,
            _ => 0,
        };
        let new = File::from(self.create_in_pool(id, copy, Mode::RUSR | Mode::WUSR)?);
        copy_pieces(&old, &new, pieces)?;
        if let Some(condemned) = condemned(id, &object.staged) {
            self.execute(namespace, condemned);
        }
        if let Some(object) = namespace.object_mut(id)? {
            (object.staged, object.settled, object.dressed) = (Staged::Pool(copy), false, false);
        }
        if let Some(open) = self.open.get_mut(&id) {
            open.file = new;
        }
        Ok(())
    }
}

fn condemned(id: ObjectId, staged: &Staged) -> Option<Condemned> {
    match staged {
        Staged::No => None,
        Staged::Pool(copy) => Some(Condemned::Pool(Staging::pool(id, *copy))),
        Staged::Named(directory, name) => Some(Condemned::Named(*directory, name.clone())),
    }
}

/// How files here are opened.
const FILE: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// `FALLOC_FL_WRITE_ZEROES` of `linux/falloc.h`.
const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);

/// Removes a file, or an empty directory, that nobody needs. If it stays, it goes with staging.
pub fn discard(directory: &OwnedFd, path: &[u8]) {
    if unlinkat(directory, path, AtFlags::empty()) == Err(Errno::ISDIR) {
        let _ = unlinkat(directory, path, AtFlags::REMOVEDIR);
    }
}

/// Copies pieces of a file, as far as they are stored: from, up to, and where to.
fn copy_pieces(old: &File, new: &File, pieces: &[(u64, u64, u64)]) -> io::Result<()> {
    let size = old.metadata()?.len();
    let mut buffer = vec![0; COPY];
    for &(from, upto, to) in pieces {
        let mut at = from;
        while let Some((start, end)) = stored(old, at, size.min(upto))? {
            at = start;
            while at < end {
                let count = (end - at).min(COPY as u64) as usize;
                old.read_exact_at(&mut buffer[..count], at)?;
                new.write_all_at(&buffer[..count], to + (at - from))?;
                at += count as u64;
            }
        }
    }
    Ok(())
}

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
