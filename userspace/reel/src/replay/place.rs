// SPDX-License-Identifier: GPL-2.0-or-later

//! Names and attributes, at the end.
//!
//! Directories are made flat in staging and filled before they are moved into their parents, children first: so depth
//! costs no descriptors, no path has more than one component, nothing is visible to others before it has its owner
//! and mode, and a directory's modification time is set when nothing in it changes any more.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use reelfs_format::record::Attributes;
use reelfs_format::view::check_name;
use reelfs_sys::inode;
use rustix::fs::{
    chmodat, chownat, fchmod, fchown, fsetxattr, fstat, futimens, ioctl_getflags, ioctl_setflags, linkat, lsetxattr,
    mkdirat, mknodat, openat, renameat_with, symlinkat, utimensat, AtFlags, FileType, Gid, IFlags, Mode, OFlags,
    RenameFlags, Timespec, Timestamps, Uid, XattrFlags, UTIME_OMIT,
};
use rustix::io::Errno;

use super::namespace::{Kind, Namespace, Object, ObjectId};
use super::staging::Staging;
use super::{file_type, S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK};
use crate::show;

/// Something that the target cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Path below the root of the tree.
    pub path: Vec<u8>,
    /// What is missing there, and why.
    pub what: String,
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
    /// What the target cannot hold.
    pub lacks: Vec<Lack>,
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

/// File attributes that `chattr(1)` sets and that can be given back; the others belong to the filesystem.
const SETTABLE: u32 = 0x1
    | 0x2
    | 0x4
    | 0x8
    | 0x10
    | 0x20
    | 0x40
    | 0x80
    | 0x400
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000
    | 0x80_0000
    | 0x2000_0000;
/// Those that forbid further changes (`FS_IMMUTABLE_FL`, `FS_APPEND_FL`).
const FREEZING: u32 = 0x10 | 0x20;

/// Places a tree.
pub struct Placer<'a> {
    namespace: &'a Namespace,
    staging: &'a mut Staging,
    /// The root of the restored tree.
    target: OwnedFd,
    /// Path of the staging directory, for the few calls that take no descriptor.
    staging_path: PathBuf,
    identity_map: Option<&'a mut dyn Write>,
    /// Names that an object still gets.
    names_left: HashMap<ObjectId, u32>,
    placed: Placed,
}

/// Where a name goes.
#[derive(Clone, Copy)]
struct Spot<'a> {
    directory: BorrowedFd<'a>,
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
}

impl<'a> Placer<'a> {
    /// Will place `namespace`, whose contents are in `staging`, into the directory `target`.
    pub fn new(
        namespace: &'a Namespace,
        staging: &'a mut Staging,
        staging_path: PathBuf,
        target: OwnedFd,
        identity_map: Option<&'a mut dyn Write>,
    ) -> Self {
        Placer {
            namespace,
            staging,
            target,
            staging_path,
            identity_map,
            names_left: HashMap::new(),
            placed: Placed::default(),
        }
    }

    /// Places everything below the root; `tick` is called once per name and may stop it by returning false.
    pub fn place(&mut self, tick: &mut dyn FnMut() -> bool) -> Result<(), PlaceError> {
        let Some(root) = self.namespace.root() else { return Ok(()) };
        let lapses = self.staging.lapses().to_vec();
        for lapse in lapses {
            self.lack_of(self.namespace.path(lapse.object), lapse.what);
        }
        for (directory, path) in self.children_first(root) {
            let failed = |doing, source| PlaceError { path: path.clone(), doing, source };
            let descriptor = if directory == root {
                self.target.try_clone().map_err(|source| failed("dup", source))?
            } else {
                self.make_directory(directory).map_err(|source| failed("making a directory", source))?
            };
            let Some(object) = self.namespace.object(directory) else { continue };
            let Kind::Directory(entries) = &object.kind else { continue };
            for (name, child) in entries {
                let spot = Spot { directory: descriptor.as_fd(), path: &path, name };
                self.place_name(&spot, *child)?;
                if !tick() {
                    return Err(spot.failed("interrupted", io::Error::from(io::ErrorKind::Interrupted)));
                }
            }
        }
        Ok(())
    }

    /// The root's own attributes: the very last thing, when staging is gone.
    pub fn finish(mut self) -> Result<Placed, PlaceError> {
        if let Some(root) = self.namespace.root() {
            if let Some(object) = self.namespace.object(root) {
                let path = b"/".to_vec();
                let failed = |source| PlaceError { path: path.clone(), doing: "dup", source };
                let target = self.target.try_clone().map_err(failed)?;
                self.placed.directories += 1;
                self.attributes(&target, object, &path)?;
                self.flags(&target, object, &path);
                self.map_identity(object, target.as_fd(), b"", &path)?;
            }
        }
        Ok(self.placed)
    }

    /// All directories below `root` and itself, each behind all that are in it, with their paths (empty for `root`).
    fn children_first(&self, root: ObjectId) -> Vec<(ObjectId, Vec<u8>)> {
        let mut order = vec![(root, Vec::new())];
        let mut next = 0;
        while let Some((directory, path)) = order.get(next).cloned() {
            next += 1;
            let Some(Kind::Directory(entries)) = self.namespace.object(directory).map(|object| &object.kind) else {
                continue;
            };
            for (name, child) in entries {
                if self.namespace.object(*child).is_some_and(|child| matches!(child.kind, Kind::Directory(_))) {
                    order.push((*child, [&path, b"/".as_slice(), name].concat()));
                }
            }
        }
        order.reverse();
        order
    }

    fn lack_of(&mut self, path: Vec<u8>, what: String) {
        self.placed.lacks.push(Lack { path, what });
    }

    fn make_directory(&mut self, id: ObjectId) -> io::Result<OwnedFd> {
        let name = Staging::name(id);
        self.staging.prepare(id)?;
        mkdirat(self.staging.directory(), &name, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(self.staging.directory(), &name, flags, Mode::empty())?)
    }

    fn place_name(&mut self, spot: &Spot<'_>, id: ObjectId) -> Result<(), PlaceError> {
        let namespace = self.namespace;
        let Some(object) = namespace.object(id) else { return Ok(()) };
        if !check_name(spot.name) {
            let what = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(spot.failed("an impossible name", what));
        }
        let left = self.names_left.remove(&id).unwrap_or(object.names);
        let first = left == object.names;
        if left > 1 {
            self.names_left.insert(id, left - 1);
        }
        if !first {
            self.placed.extra_names += 1;
        }
        let made = match &object.kind {
            Kind::Directory(_) => return self.place_directory(spot, id, object),
            _ if !first => true,
            Kind::File => self.complete_file(spot, id, object)?,
            Kind::Symlink(target) => self.make_symlink(spot, id, object, target)?,
            Kind::Node => self.make_node(spot, id, object)?,
        };
        if !made {
            return Ok(());
        }
        self.name_it(spot, id, left > 1)?;
        if left == 1 {
            self.staging.release(id);
            let path = || spot.path();
            if matches!(object.kind, Kind::File) && wants_flags(object) {
                let path = path();
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = openat(spot.directory, spot.name, flags, Mode::empty())
                    .map_err(|errno| spot.failed("opening", errno))?;
                self.flags(&file, object, &path);
            }
            if self.identity_map.is_some() {
                let path = path();
                self.map_identity(object, spot.directory, spot.name, &path)?;
            }
        }
        Ok(())
    }

    /// Gives a staged object its name: a link where it gets more names later, else the thing itself.
    fn name_it(&mut self, spot: &Spot<'_>, id: ObjectId, more: bool) -> Result<(), PlaceError> {
        let staged = Staging::name(id);
        let staging = self.staging.directory();
        if more {
            match linkat(staging, &staged, spot.directory, spot.name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(errno @ (Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP)) => {
                    let what = format!("this name: the target cannot hold so many hard links to one file ({errno})");
                    self.lack_of(spot.path(), what);
                    return Ok(());
                }
                Err(errno) => return Err(spot.failed("linking", errno)),
            }
        }
        match renameat_with(staging, &staged, spot.directory, spot.name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL) => rustix::fs::renameat(staging, &staged, spot.directory, spot.name)
                .map_err(|errno| spot.failed("naming", errno)),
            Err(errno @ (Errno::NAMETOOLONG | Errno::ILSEQ)) => {
                self.lack_of(spot.path(), format!("this name: {errno}"));
                Ok(())
            }
            Err(errno) => Err(spot.failed("naming", errno)),
        }
    }

    fn place_directory(&mut self, spot: &Spot<'_>, id: ObjectId, object: &Object) -> Result<(), PlaceError> {
        self.name_it(spot, id, false)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(spot.directory, spot.name, flags, Mode::empty()) {
            Ok(directory) => directory,
            // Not named, because the target cannot hold the name: said already.
            Err(Errno::NOENT | Errno::NAMETOOLONG | Errno::ILSEQ) => return Ok(()),
            Err(errno) => return Err(spot.failed("opening", errno)),
        };
        self.placed.directories += 1;
        let path = spot.path();
        self.attributes(&directory, object, &path)?;
        self.flags(&directory, object, &path);
        self.map_identity(object, directory.as_fd(), b"", &path)
    }

    fn complete_file(&mut self, spot: &Spot<'_>, id: ObjectId, object: &Object) -> Result<bool, PlaceError> {
        let file = self.staging.take(id).map_err(|source| spot.failed("opening", source))?;
        let path = spot.path();
        let size = file.metadata().map_err(|source| spot.failed("fstat", source))?.len();
        if size != object.attr.size.get() && !self.placed.lacks.iter().any(|lack| lack.path == path) {
            if !self.namespace.is_doubtful() {
                let what = format!("{size} bytes were restored, {} were recorded", object.attr.size);
                return Err(spot.failed("checking the size", io::Error::other(what)));
            }
            let size = object.attr.size.get();
            file.set_len(size).map_err(|source| spot.failed("ftruncate", source))?;
        }
        self.placed.files += 1;
        self.attributes(&file, object, &path)?;
        Ok(true)
    }

    fn make_symlink(
        &mut self,
        spot: &Spot<'_>,
        id: ObjectId,
        object: &Object,
        target: &[u8],
    ) -> Result<bool, PlaceError> {
        self.staging.prepare(id).map_err(|source| spot.failed("making a directory", source))?;
        match symlinkat(target, self.staging.directory(), Staging::name(id)) {
            Ok(()) => {}
            Err(errno @ (Errno::PERM | Errno::OPNOTSUPP | Errno::NAMETOOLONG | Errno::INVAL | Errno::NOENT)) => {
                self.lack_of(spot.path(), format!("the symbolic link: {errno}"));
                return Ok(false);
            }
            Err(errno) => return Err(spot.failed("making a symbolic link", errno)),
        }
        self.placed.symlinks += 1;
        self.attributes_by_name(spot, id, object)?;
        Ok(true)
    }

    fn make_node(&mut self, spot: &Spot<'_>, id: ObjectId, object: &Object) -> Result<bool, PlaceError> {
        let file_type = match file_type(&object.attr) {
            S_IFCHR => FileType::CharacterDevice,
            S_IFBLK => FileType::BlockDevice,
            S_IFIFO => FileType::Fifo,
            S_IFSOCK => FileType::Socket,
            _ => FileType::Unknown,
        };
        let device = rustix::fs::makedev(object.attr.rdev_major.get(), object.attr.rdev_minor.get());
        self.staging.prepare(id).map_err(|source| spot.failed("making a directory", source))?;
        match mknodat(self.staging.directory(), Staging::name(id), file_type, Mode::RUSR | Mode::WUSR, device) {
            Ok(()) => {}
            Err(errno @ (Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL)) => {
                self.lack_of(spot.path(), format!("the {file_type:?}: {errno}"));
                return Ok(false);
            }
            Err(errno) => return Err(spot.failed("mknod", errno)),
        }
        self.placed.nodes += 1;
        self.attributes_by_name(spot, id, object)?;
        Ok(true)
    }

    /// Owner, extended attributes, mode, modification time of an open file or directory, in the order in which none
    /// undoes another: changing the owner clears capabilities and set-id bits.
    fn attributes(&mut self, file: impl AsFd, object: &Object, path: &[u8]) -> Result<(), PlaceError> {
        let attr = &object.attr;
        let failed = |doing, errno: Errno| PlaceError { path: path.to_vec(), doing, source: errno.into() };
        let now = fstat(&file).map_err(|errno| failed("fstat", errno))?;
        if (now.st_uid, now.st_gid) != (attr.uid.get(), attr.gid.get()) {
            if let Err(errno) = fchown(&file, Some(owner(attr)), Some(group(attr))) {
                self.refused(path, "owner", errno, "fchown")?;
            }
        }
        for (name, value) in &object.xattrs {
            if let Err(errno) = fsetxattr(&file, &**name, value, XattrFlags::empty()) {
                self.refused(path, &format!("extended attribute {}", show::name(name)), errno, "fsetxattr")?;
            }
        }
        fchmod(&file, mode(attr)).or_else(|errno| self.refused(path, "mode", errno, "fchmod"))?;
        futimens(&file, &times(attr)).or_else(|errno| self.refused(path, "modification time", errno, "futimens"))
    }

    /// The same for what cannot be opened, still under its name in staging.
    fn attributes_by_name(&mut self, spot: &Spot<'_>, id: ObjectId, object: &Object) -> Result<(), PlaceError> {
        let attr = &object.attr;
        let path = spot.path();
        let name = Staging::name(id);
        let directory = self.staging.directory().try_clone();
        let directory = directory.map_err(|source| spot.failed("dup", source))?;
        chownat(&directory, &name, Some(owner(attr)), Some(group(attr)), AtFlags::SYMLINK_NOFOLLOW)
            .or_else(|errno| self.refused(&path, "owner", errno, "chown"))?;
        for (xattr, value) in &object.xattrs {
            if let Err(errno) = lsetxattr(self.staging_path.join(&name), &**xattr, value, XattrFlags::empty()) {
                self.refused(&path, &format!("extended attribute {}", show::name(xattr)), errno, "lsetxattr")?;
            }
        }
        if !matches!(object.kind, Kind::Symlink(_)) {
            chmodat(&directory, &name, mode(attr), AtFlags::empty())
                .or_else(|errno| self.refused(&path, "mode", errno, "chmod"))?;
        }
        utimensat(&directory, &name, &times(attr), AtFlags::SYMLINK_NOFOLLOW)
            .or_else(|errno| self.refused(&path, "modification time", errno, "utimensat"))
    }

    /// File attributes and project id: last, because some forbid everything else.
    fn flags(&mut self, file: impl AsFd, object: &Object, path: &[u8]) {
        let attr = &object.attr;
        if attr.valid.get() & Attributes::FILEATTR_VALID == 0 {
            return;
        }
        let projid = attr.projid.get();
        if projid != 0 {
            if let Err(error) = inode::set_project_id(&file, projid) {
                self.lack_of(path.to_vec(), format!("project id {projid}: {error}"));
            }
        }
        let wanted = attr.fileattr.get() & SETTABLE;
        if wanted == 0 {
            return;
        }
        let set = ioctl_getflags(&file).and_then(|now| {
            let kept = now.bits() & !SETTABLE;
            // In two steps: what freezes the file would forbid the rest.
            ioctl_setflags(&file, IFlags::from_bits_retain(kept | (wanted & !FREEZING)))?;
            if wanted & FREEZING != 0 {
                ioctl_setflags(&file, IFlags::from_bits_retain(kept | wanted))?;
            }
            Ok(())
        });
        if let Err(errno) = set {
            self.lack_of(path.to_vec(), format!("file attributes {wanted:#x}: {errno}"));
        }
    }

    /// A refusal that the target's nature, or the caller's lack of privilege, explains is noted; others end it all.
    fn refused(&mut self, path: &[u8], what: &str, errno: Errno, doing: &'static str) -> Result<(), PlaceError> {
        match errno {
            Errno::PERM
            | Errno::ACCESS
            | Errno::OPNOTSUPP
            | Errno::INVAL
            | Errno::TOOBIG
            | Errno::RANGE
            | Errno::NOSPC
            | Errno::DQUOT
            | Errno::OVERFLOW
            | Errno::NOSYS => {
                self.lack_of(path.to_vec(), format!("{what}: {errno}"));
                Ok(())
            }
            errno => Err(PlaceError { path: path.to_vec(), doing, source: errno.into() }),
        }
    }

    fn map_identity(
        &mut self,
        object: &Object,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), PlaceError> {
        let Some(map) = self.identity_map.as_mut() else { return Ok(()) };
        let failed = |doing, source| PlaceError { path: path.to_vec(), doing, source };
        let name = CString::new(name).map_err(|error| failed("handle", error.into()))?;
        let new = inode::handle(directory, &name).map_err(|source| failed("name_to_handle_at", source))?;
        let line = serde_json::json!({
            "old": show::identity(&object.identity),
            "new": format!("{:x}:{}", new.0, hex::encode(new.1)),
        });
        writeln!(map, "{line}").map_err(|source| failed("writing the identity map", source))
    }
}

fn wants_flags(object: &Object) -> bool {
    let attr = &object.attr;
    attr.valid.get() & Attributes::FILEATTR_VALID != 0
        && (attr.fileattr.get() & SETTABLE != 0 || attr.projid.get() != 0)
}

fn owner(attr: &Attributes) -> Uid {
    Uid::from_raw(attr.uid.get())
}

fn group(attr: &Attributes) -> Gid {
    Gid::from_raw(attr.gid.get())
}

fn mode(attr: &Attributes) -> Mode {
    Mode::from_raw_mode(attr.mode.get() & 0o7777)
}

fn times(attr: &Attributes) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: attr.mtime_sec.get(), tv_nsec: attr.mtime_nsec.get().into() },
    }
}
