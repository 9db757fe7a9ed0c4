// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree is put together at the end.
//!
//! Directories are flat in staging and filled before they are moved into their parents, children first: so depth costs
//! no descriptors, nothing is visible to others before it has its owner and mode, and a directory's modification time is
//! set when nothing in it changes any more. Most files are where they belong already ([`super::staging`]).
//!
//! Every step can be taken twice: what an interrupted run has done is found done. A directory that is in its parent is
//! complete, and is not looked into again.

use std::ffi::{CString, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use reelfs_format::record::Identity;
use reelfs_format::view::check_name;
use reelfs_sys::inode;
use rustix::fs::{
    ftruncate, linkat, mknodat, openat, renameat, renameat_with, statat, symlinkat, syncfs, unlinkat, AtFlags,
    FileType, Mode, OFlags, RenameFlags,
};
use rustix::io::Errno;

use super::dress::{self, Refusal};
use super::namespace::{Kind, Namespace, Object, ObjectId};
use super::object::{lapse, Staged};
use super::staging::{discard, Staging};
use super::store::{Entry, StoreError};
use super::{file_type, S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK};
use crate::select::Selection;
use crate::show;

/// How many of the things that the target cannot hold are remembered; all are counted.
pub const LACKS_KEPT: usize = 20;

/// Something that the target cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Path below the root of the tree.
    pub path: Vec<u8>,
    /// What is missing there, and why.
    pub what: String,
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", show::name(&self.path), self.what)
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Directories, the root included.
    pub directories: u64,
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Devices, fifos and sockets.
    pub nodes: u64,
    /// Names beyond the first of an object.
    pub extra_names: u64,
    /// The first things that the target cannot hold.
    pub lacks: Vec<Lack>,
    /// How many there are in all.
    pub lacking: u64,
}

/// The system refused something without which restoring makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{}: {doing}: {source}", show::name(.path))]
pub struct PlaceError {
    /// Path below the root of the tree.
    pub path: Vec<u8>,
    /// What was being done.
    pub doing: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl From<StoreError> for PlaceError {
    fn from(error: StoreError) -> Self {
        PlaceError { path: b"/".to_vec(), doing: "looking it up", source: io::Error::other(error) }
    }
}

type Result<T> = std::result::Result<T, PlaceError>;

/// Where a tree goes.
#[derive(Debug)]
pub struct Ground {
    /// The root of the restored tree.
    pub target: OwnedFd,
    /// Path of the staging directory, for the one call that takes no descriptor.
    pub staging_path: PathBuf,
    /// An earlier run has begun with this.
    pub again: bool,
}

/// Places a tree.
pub struct Placer<'a> {
    namespace: &'a mut Namespace,
    staging: &'a mut Staging,
    ground: Ground,
    selection: Option<&'a Selection>,
    identity_map: Option<&'a mut dyn Write>,
    report: Option<&'a mut dyn Write>,
    /// What a commit of the tree says, where one is made to have room in memory.
    meta: Vec<u8>,
    /// Files with several names that get file attributes when they have them all.
    flagged: Vec<(ObjectId, Vec<u8>)>,
    placed: Placed,
}

/// A directory that is being filled.
struct Frame {
    id: ObjectId,
    /// Path below the root of the tree; empty for the root.
    path: Vec<u8>,
    /// Directories in it that have not been filled yet, and the name behind which there are more.
    children: Vec<(Box<[u8]>, ObjectId)>,
    next: Option<Option<Box<[u8]>>>,
}

impl Frame {
    fn new(id: ObjectId, path: Vec<u8>) -> Self {
        Frame { id, path, children: Vec::new(), next: Some(None) }
    }
}

/// Where a name goes.
#[derive(Clone, Copy)]
struct Spot<'a> {
    parent: ObjectId,
    directory: &'a OwnedFd,
    /// Path of the directory below the root of the tree, for messages.
    path: &'a [u8],
    name: &'a [u8],
}

impl Spot<'_> {
    fn path(&self) -> Vec<u8> {
        [self.path, b"/", self.name].concat()
    }

    fn failed(&self, doing: &'static str, source: impl Into<io::Error>) -> PlaceError {
        PlaceError { path: self.path(), doing, source: source.into() }
    }

    fn refused(&self, refusal: Refusal) -> PlaceError {
        self.failed(refusal.doing, refusal.errno)
    }
}

impl<'a> Placer<'a> {
    /// Will place `namespace`, or a part of it, whose contents are in `staging`.
    pub fn new(
        namespace: &'a mut Namespace,
        staging: &'a mut Staging,
        ground: Ground,
        selection: Option<&'a Selection>,
        meta: Vec<u8>,
    ) -> Self {
        Placer {
            meta,
            namespace,
            staging,
            ground,
            selection,
            identity_map: None,
            report: None,
            flagged: Vec::new(),
            placed: Placed::default(),
        }
    }

    /// Writes a line for each object there: which it was, which it is.
    pub fn map_identities(&mut self, to: Option<&'a mut dyn Write>) {
        self.identity_map = to;
    }

    /// Writes a line for each thing there that the target cannot hold.
    pub fn report(&mut self, to: Option<&'a mut dyn Write>) {
        self.report = to;
    }

    /// Places everything below the root; `tick` is called once per name and may stop it by returning false.
    pub fn place(&mut self, tick: &mut dyn FnMut() -> bool) -> Result<()> {
        let Some(root) = self.namespace.root() else { return Ok(()) };
        let mut stack = vec![Frame::new(root, Vec::new())];
        while let Some(frame) = stack.last_mut() {
            match self.child(frame)? {
                Some((name, child)) => {
                    let path = [&frame.path, b"/".as_slice(), &name].concat();
                    if !(self.ground.again && self.is_complete(frame.id, &name, child)) {
                        stack.push(Frame::new(child, path));
                    }
                }
                None => {
                    if let Some(frame) = stack.pop() {
                        self.fill(&frame, tick)?;
                    }
                }
            }
        }
        self.flag_linked();
        Ok(())
    }

    /// The root's own attributes: the very last thing, when staging is gone.
    pub fn finish(mut self) -> Result<Placed> {
        let Some(root) = self.namespace.root() else { return Ok(self.placed) };
        let Some(object) = self.namespace.object(root)?.cloned() else { return Ok(self.placed) };
        self.placed.directories += 1;
        let path = b"/".to_vec();
        let failed = |doing, source| PlaceError { path: b"/".to_vec(), doing, source };
        let target = self.ground.target.try_clone().map_err(|source| failed("dup", source))?;
        let mut lacks = Vec::new();
        dress::give(&target, &object, &mut |what| lacks.push(what))
            .map_err(|refusal| failed(refusal.doing, refusal.errno.into()))?;
        dress::flags(&target, &object, &mut |what| lacks.push(what));
        self.lacking(&path, lacks)?;
        self.map_identity(&object.identity, &target, b"", &path)?;
        if let Some(report) = self.report.as_mut() {
            report.flush().map_err(|source| failed("writing the report", source))?;
        }
        Ok(self.placed)
    }

    /// The next directory in a directory that has not been filled.
    fn child(&mut self, frame: &mut Frame) -> Result<Option<(Box<[u8]>, ObjectId)>> {
        loop {
            if let Some(child) = frame.children.pop() {
                return Ok(Some(child));
            }
            let Some(after) = frame.next.take() else { return Ok(None) };
            let (names, next) = self.namespace.names_after(frame.id, after.as_deref())?;
            frame.next = next.map(Some);
            let directories = names.into_iter().filter(|(_, entry)| entry.directory);
            for (name, entry) in directories {
                if self.has_name(frame.id, &name) {
                    frame.children.push((name, entry.object));
                }
            }
        }
    }

    fn has_name(&self, directory: ObjectId, name: &[u8]) -> bool {
        self.selection.is_none_or(|selection| selection.has_name(directory, name))
    }

    /// Whether an earlier run has put a directory into its parent.
    fn is_complete(&self, parent: ObjectId, name: &[u8], child: ObjectId) -> bool {
        let staging = self.staging.directory();
        let is_there = |directory: &OwnedFd, path: &[u8]| statat(directory, path, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if is_there(staging, &Staging::pool(child, 0)) {
            return false;
        }
        if Some(parent) == self.namespace.root() {
            return is_there(&self.ground.target, name);
        }
        is_there(staging, &Staging::named(parent, name))
    }

    /// Fills a directory, all of whose directories have been filled.
    fn fill(&mut self, frame: &Frame, tick: &mut dyn FnMut() -> bool) -> Result<()> {
        let failed = |doing, source| PlaceError { path: frame.path.clone(), doing, source };
        let directory = if Some(frame.id) == self.namespace.root() {
            self.ground.target.try_clone().map_err(|source| failed("dup", source))?
        } else {
            self.staging
                .make_directory(self.namespace, frame.id)
                .map_err(|source| failed("making a directory", source))?;
            openat(self.staging.directory(), Staging::pool(frame.id, 0), DIRECTORY, Mode::empty())
                .map_err(|errno| failed("opening a directory in staging", errno.into()))?
        };
        let mut after = None;
        loop {
            let (names, next) = self.namespace.names_after(frame.id, after.as_deref())?;
            for (name, entry) in names {
                if !self.has_name(frame.id, &name) {
                    continue;
                }
                let spot = Spot { parent: frame.id, directory: &directory, path: &frame.path, name: &name };
                self.place_name(&spot, entry)?;
                if !tick() {
                    return Err(spot.failed("interrupted", io::Error::from(io::ErrorKind::Interrupted)));
                }
            }
            after = next;
            self.make_room()?;
            if after.is_none() {
                break;
            }
        }
        // What is complete will not be looked at again.
        if let Some(report) = self.report.as_mut() {
            report.flush().map_err(|source| failed("writing the report", source))?;
        }
        Ok(())
    }

    /// Memory is full: what has been noted goes to disk. It is true there only with what it is about.
    fn make_room(&mut self) -> Result<()> {
        if !self.namespace.is_full() {
            return Ok(());
        }
        let failed = |errno: Errno| PlaceError { path: b"/".to_vec(), doing: "syncfs", source: errno.into() };
        syncfs(self.staging.directory()).map_err(failed)?;
        Ok(self.namespace.commit(&self.meta)?)
    }

    fn place_name(&mut self, spot: &Spot<'_>, entry: Entry) -> Result<()> {
        let mapping = self.identity_map.is_some();
        let is_root = Some(spot.parent) == self.namespace.root();
        let Some(object) = self.namespace.object(entry.object)? else { return Ok(()) };
        let here = !is_root
            && matches!(&object.staged, Staged::Named(parent, name) if *parent == spot.parent && **name == *spot.name);
        // Where nothing is left to be done, nothing is done.
        if here && object.settled && object.names == 1 && object.lapses == 0 && !dress::wants_flags(object) {
            self.placed.files += 1;
            if !mapping {
                return Ok(());
            }
            let identity = object.identity;
            return self.map_identity(&identity, spot.directory, spot.name, spot.path);
        }
        let object = object.clone();
        if !check_name(spot.name) {
            return Err(spot.failed("an impossible name", io::Error::from(io::ErrorKind::InvalidInput)));
        }
        let id = entry.object;
        if object.is_directory() {
            return self.place_directory(spot, id, &object);
        }
        if object.names > 1 {
            return self.place_linked(spot, id, &object);
        }
        let there = match (&object.kind, Staging::place(id, &object.staged)) {
            _ if here => true,
            (Kind::File, Some(from)) => self.move_to(spot, &from)?,
            _ if is_root => self.make_in_root(spot, id, &object)?,
            (Kind::File, None) => self.make_empty(spot, spot.directory, spot.name)?,
            _ => {
                let path = self.ground.staging_path.join(OsStr::from_bytes(&Staging::named(spot.parent, spot.name)));
                self.make_special(spot, &object, spot.directory, spot.name, &path)?
            }
        };
        if !there {
            return Ok(());
        }
        if object.kind == Kind::File {
            self.complete_file(spot, &object, spot.directory, spot.name, true)?;
        }
        self.map_identity(&object.identity, spot.directory, spot.name, &spot.path())
    }

    /// Makes something in staging and moves it to the root: what is made in the target itself would inherit what that
    /// hands down.
    fn make_in_root(&mut self, spot: &Spot<'_>, id: ObjectId, object: &Object) -> Result<bool> {
        if self.ground.again && statat(spot.directory, spot.name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(true);
        }
        let pool = Staging::pool(id, 0);
        self.staging.shelve(id).map_err(|source| spot.failed("making a directory", source))?;
        let staging = self.staging.directory().try_clone().map_err(|source| spot.failed("dup", source))?;
        let made = if object.kind == Kind::File {
            self.make_empty(spot, &staging, &pool)?
        } else {
            let path = self.ground.staging_path.join(OsStr::from_bytes(&pool));
            self.make_special(spot, object, &staging, &pool, &path)?
        };
        Ok(made && self.move_to(spot, &pool)?)
    }

    /// Another name for an object that has several: all are links to what lies in staging, and goes with it.
    fn place_linked(&mut self, spot: &Spot<'_>, id: ObjectId, object: &Object) -> Result<()> {
        let path = spot.path();
        let mut pool = Staging::pool(id, 0);
        if self.ground.again && self.is_done(spot, id, object) {
            return Ok(());
        }
        if object.placed {
            self.placed.extra_names += 1;
            if let Staged::Pool(copy) = object.staged {
                pool = Staging::pool(id, copy);
            }
        } else {
            self.staging.shelve(id).map_err(|source| spot.failed("making a directory", source))?;
            let staging = self.staging.directory().try_clone().map_err(|source| spot.failed("dup", source))?;
            match (&object.kind, &object.staged) {
                (Kind::File, Staged::No) => drop(self.make_empty(spot, &staging, &pool)?),
                (Kind::File, Staged::Pool(copy)) => pool = Staging::pool(id, *copy),
                (Kind::File, Staged::Named(parent, name)) => {
                    let from = Staging::named(*parent, name);
                    self.staging
                        .move_to_pool(self.namespace, id, &from, self.ground.again)
                        .map_err(|source| spot.failed("moving a file in staging", source))?;
                }
                _ => {
                    let path = self.ground.staging_path.join(OsStr::from_bytes(&pool));
                    if !self.make_special(spot, object, &staging, &pool, &path)? {
                        return Ok(());
                    }
                }
            }
            if let Some(object) = self.namespace.object_mut(id)? {
                object.placed = true;
                if object.staged == Staged::No {
                    object.staged = Staged::Pool(0);
                }
            }
            if object.kind == Kind::File {
                self.complete_file(spot, object, &staging, &pool, false)?;
                if dress::wants_flags(object) {
                    self.flagged.push((id, path.clone()));
                }
            }
            self.map_identity(&object.identity, &staging, &pool, &path)?;
        }
        match linkat(self.staging.directory(), &pool, spot.directory, spot.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if self.ground.again && self.is_same(&pool, spot) => Ok(()),
            Err(Errno::NOENT)
                if self.ground.again && statat(spot.directory, spot.name, AtFlags::SYMLINK_NOFOLLOW).is_ok() =>
            {
                Ok(())
            }
            Err(errno @ (Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP)) => {
                self.lack(&path, format!("this name: the target cannot hold so many hard links to one file ({errno})"))
            }
            Err(errno @ (Errno::NAMETOOLONG | Errno::ILSEQ)) => self.lack(&path, format!("this name: {errno}")),
            // What the first name could not be made of has been told.
            Err(Errno::NOENT) if object.placed && object.kind != Kind::File => Ok(()),
            Err(errno) => Err(spot.failed("linking", errno)),
        }
    }

    /// Whether an earlier run was through with all names of an object: it has this one, and staging is gone already.
    fn is_done(&self, spot: &Spot<'_>, id: ObjectId, object: &Object) -> bool {
        let staging = self.staging.directory();
        let is_there = |path: &[u8]| statat(staging, path, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        !is_there(&Staging::pool(id, 0))
            && !Staging::place(id, &object.staged).is_some_and(|path| is_there(&path))
            && statat(spot.directory, spot.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn is_same(&self, pool: &[u8], spot: &Spot<'_>) -> bool {
        let one = statat(self.staging.directory(), pool, AtFlags::SYMLINK_NOFOLLOW);
        let two = statat(spot.directory, spot.name, AtFlags::SYMLINK_NOFOLLOW);
        matches!((one, two), (Ok(one), Ok(two)) if (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino))
    }

    /// File attributes of files with several names: now that they have all of them but the one in staging.
    fn flag_linked(&mut self) {
        for (id, path) in std::mem::take(&mut self.flagged) {
            let Ok(Some(object)) = self.namespace.object(id).map(|object| object.cloned()) else { continue };
            let Some(pool) = Staging::place(id, &object.staged) else { continue };
            let staging = self.staging.directory();
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let Ok(file) = openat(staging, &pool, flags, Mode::empty()) else { continue };
            // Afterwards it might not be allowed to go.
            let _ = unlinkat(staging, &pool, AtFlags::empty());
            let mut lacks = Vec::new();
            dress::flags(&file, &object, &mut |what| lacks.push(what));
            let _ = self.lacking(&path, lacks);
        }
    }

    /// Moves something staged to its place. False: the target cannot hold the name, which is noted.
    fn move_to(&mut self, spot: &Spot<'_>, from: &[u8]) -> Result<bool> {
        let staging = self.staging.directory();
        match renameat_with(staging, from, spot.directory, spot.name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL) => {
                let moved = renameat(staging, from, spot.directory, spot.name);
                moved.map(|()| true).map_err(|errno| spot.failed("naming", errno))
            }
            Err(errno @ (Errno::NAMETOOLONG | Errno::ILSEQ)) => {
                self.lack(&spot.path(), format!("this name: {errno}"))?;
                Ok(false)
            }
            Err(Errno::NOENT)
                if self.ground.again && statat(spot.directory, spot.name, AtFlags::SYMLINK_NOFOLLOW).is_ok() =>
            {
                Ok(true)
            }
            Err(errno) => Err(spot.failed("naming", errno)),
        }
    }

    /// Makes a file that never had contents.
    fn make_empty(&mut self, spot: &Spot<'_>, directory: &OwnedFd, name: &[u8]) -> Result<bool> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let only = if self.ground.again || self.staging.is_resumed() { OFlags::empty() } else { OFlags::EXCL };
        match openat(directory, name, flags | only, Mode::RUSR | Mode::WUSR) {
            Ok(_) => Ok(true),
            // An earlier run has made it, and given it a mode.
            Err(Errno::ACCESS | Errno::PERM) if self.ground.again => Ok(true),
            Err(errno @ (Errno::NAMETOOLONG | Errno::ILSEQ)) => {
                self.lack(&spot.path(), format!("this name: {errno}"))?;
                Ok(false)
            }
            Err(errno) => Err(spot.failed("making a file", errno)),
        }
    }

    /// Attributes of a file, as far as it does not have them, and what else there is to say of it.
    fn complete_file(
        &mut self,
        spot: &Spot<'_>,
        object: &Object,
        directory: &OwnedFd,
        name: &[u8],
        alone: bool,
    ) -> Result<()> {
        self.placed.files += 1;
        let mut lacks: Vec<String> = lapse::texts(object.lapses).map(str::to_owned).collect();
        let flagged = alone && dress::wants_flags(object);
        if !object.settled || flagged {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = openat(directory, name, flags, Mode::empty()).map_err(|errno| spot.failed("opening", errno))?;
            if !(self.ground.again && dress::is_frozen(&file, object)) {
                if !object.settled {
                    self.check_size(spot, object, &file, directory, name)?;
                    dress::give(&file, object, &mut |what| lacks.push(what))
                        .map_err(|refusal| spot.refused(refusal))?;
                }
                if alone {
                    dress::flags(&file, object, &mut |what| lacks.push(what));
                }
            }
        }
        self.lacking(&spot.path(), lacks)
    }

    /// The contents have to be as long as the log says, unless the log itself has doubts.
    fn check_size(
        &mut self,
        spot: &Spot<'_>,
        object: &Object,
        file: &OwnedFd,
        directory: &OwnedFd,
        name: &[u8],
    ) -> Result<()> {
        let size = rustix::fs::fstat(file).map_err(|errno| spot.failed("fstat", errno))?.st_size as u64;
        let recorded = object.attr.size.get();
        if size == recorded || object.lapses & lapse::TOO_LARGE != 0 {
            return Ok(());
        }
        if !self.namespace.is_doubtful() {
            let what = format!("{size} bytes were restored, {recorded} were recorded");
            return Err(spot.failed("checking the size", io::Error::other(what)));
        }
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(directory, name, flags, Mode::empty())
            .and_then(|file| ftruncate(file, recorded))
            .map_err(|errno| spot.failed("ftruncate", errno))
    }

    fn place_directory(&mut self, spot: &Spot<'_>, id: ObjectId, object: &Object) -> Result<()> {
        if !self.move_to(spot, &Staging::pool(id, 0))? {
            return Ok(());
        }
        let directory = openat(spot.directory, spot.name, DIRECTORY, Mode::empty())
            .map_err(|errno| spot.failed("opening", errno))?;
        self.placed.directories += 1;
        let path = spot.path();
        let mut lacks = Vec::new();
        if !(self.ground.again && dress::is_frozen(&directory, object)) {
            dress::give(&directory, object, &mut |what| lacks.push(what)).map_err(|refusal| spot.refused(refusal))?;
            dress::flags(&directory, object, &mut |what| lacks.push(what));
        }
        self.lacking(&path, lacks)?;
        self.map_identity(&object.identity, &directory, b"", &path)
    }

    /// Makes what has no contents, with its attributes. False: the target cannot hold it, which is noted.
    fn make_special(
        &mut self,
        spot: &Spot<'_>,
        object: &Object,
        directory: &OwnedFd,
        name: &[u8],
        path: &Path,
    ) -> Result<bool> {
        let make = || match &object.kind {
            Kind::Symlink(target) => symlinkat(&**target, directory, name),
            _ => {
                let (kind, device) = node(object);
                mknodat(directory, name, kind, Mode::RUSR | Mode::WUSR, device)
            }
        };
        let mut made = make();
        if made == Err(Errno::EXIST) && (self.ground.again || self.staging.is_resumed()) {
            discard(directory, name);
            made = make();
        }
        let what = match &object.kind {
            Kind::Symlink(_) => "the symbolic link".to_owned(),
            _ => format!("the {:?}", node(object).0),
        };
        match made {
            Ok(()) => {}
            Err(errno @ (Errno::PERM | Errno::OPNOTSUPP | Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ)) => {
                self.lack(&spot.path(), format!("{what}: {errno}"))?;
                return Ok(false);
            }
            Err(errno) => return Err(spot.failed("making a symbolic link or node", errno)),
        }
        match &object.kind {
            Kind::Symlink(_) => self.placed.symlinks += 1,
            _ => self.placed.nodes += 1,
        }
        let mut lacks = Vec::new();
        dress::give_by_name(directory, name, path, object, &mut |what| lacks.push(what))
            .map_err(|refusal| spot.refused(refusal))?;
        self.lacking(&spot.path(), lacks)?;
        Ok(true)
    }

    fn lacking(&mut self, path: &[u8], lacks: Vec<String>) -> Result<()> {
        lacks.into_iter().try_for_each(|what| self.lack(path, what))
    }

    fn lack(&mut self, path: &[u8], what: String) -> Result<()> {
        let lack = Lack { path: path.to_vec(), what };
        self.placed.lacking += 1;
        if let Some(report) = self.report.as_mut() {
            writeln!(report, "{lack}").map_err(|source| PlaceError {
                path: path.to_vec(),
                doing: "writing the report",
                source,
            })?;
        }
        if self.placed.lacks.len() < LACKS_KEPT {
            self.placed.lacks.push(lack);
        }
        Ok(())
    }

    fn map_identity(&mut self, old: &Identity, directory: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let Some(map) = self.identity_map.as_mut() else { return Ok(()) };
        let failed = |doing, source| PlaceError { path: path.to_vec(), doing, source };
        let name = CString::new(name).map_err(|error| failed("handle", error.into()))?;
        let new = inode::handle(directory.as_fd(), &name).map_err(|source| failed("name_to_handle_at", source))?;
        // Handles and types in hexadecimal need no escaping.
        writeln!(map, "{{\"old\":\"{}\",\"new\":\"{:x}:{}\"}}", show::identity(old), new.0, hex::encode(new.1))
            .map_err(|source| failed("writing the identity map", source))
    }
}

/// How directories are opened.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The type and number of a device, fifo or socket.
fn node(object: &Object) -> (FileType, u64) {
    let kind = match file_type(&object.attr) {
        S_IFCHR => FileType::CharacterDevice,
        S_IFBLK => FileType::BlockDevice,
        S_IFIFO => FileType::Fifo,
        S_IFSOCK => FileType::Socket,
        _ => FileType::Unknown,
    };
    (kind, rustix::fs::makedev(object.attr.rdev_major.get(), object.attr.rdev_minor.get()))
}
