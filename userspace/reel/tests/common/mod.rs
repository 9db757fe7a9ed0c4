// SPDX-License-Identifier: GPL-2.0-or-later

//! A stand-in for the kernel module: does each operation on a real directory and records it as the module would. And
//! a comparison of two trees that shares nothing with the code that restores.

#![allow(clippy::unwrap_used, missing_docs, dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::record::*;
use reelfs_format::volume::INCOMPATIBLE_KNOWN;
use reelfs_media::label;
use reelfs_media::library::{DirectoryLibrary, Library, Supply};
use reelfs_media::writer::{Coding, Progress, Stream, VolumeWriter};
use reelfs_media::LogState;
use rustix::fs::{
    fallocate, lgetxattr, linkat, llistxattr, mknodat, openat, renameat_with, seek, utimensat, AtFlags, FallocateFlags,
    FileType, Mode, OFlags, RenameFlags, SeekFrom, Timespec, Timestamps, XattrFlags, CWD,
};
use zerocopy::FromZeros;

pub const POOL: &str = "test";
pub const SEGMENT: u64 = 4 << 20;
pub const STREAM: [u8; 16] = [9; 16];

pub fn attributes(data: &fs::Metadata) -> Attributes {
    let mut attr = Attributes::ZERO;
    attr.mode = data.mode().into();
    attr.nlink = (data.nlink() as u32).into();
    attr.uid = data.uid().into();
    attr.gid = data.gid().into();
    if data.is_file() || data.is_symlink() {
        attr.size = data.size().into();
    }
    if data.file_type().is_char_device() || data.file_type().is_block_device() {
        attr.rdev_major = rustix::fs::major(data.rdev()).into();
        attr.rdev_minor = rustix::fs::minor(data.rdev()).into();
    }
    attr.mtime_sec = data.mtime().into();
    attr.mtime_nsec = (data.mtime_nsec() as u32).into();
    attr.ctime_sec = data.ctime().into();
    attr.ctime_nsec = (data.ctime_nsec() as u32).into();
    attr
}

/// A tree being worked on and its log.
pub struct Tree {
    pub root: PathBuf,
    pub log: LogBuilder,
    ids: HashMap<u64, Identity>,
    next: u64,
    /// Open without a name.
    pub unnamed: Vec<File>,
}

impl Tree {
    pub fn new(root: &Path) -> Self {
        let mut tree =
            Tree { root: root.into(), log: LogBuilder::new(), ids: HashMap::new(), next: 1, unnamed: Vec::new() };
        let data = fs::symlink_metadata(root).unwrap();
        let mut body = MountBody::new_zeroed();
        body.stream = STREAM;
        body.flags = MOUNT_FIRST.into();
        body.root = attributes(&data);
        let id = tree.id(&data);
        tree.log.push(RecordType::Mount, 0, id, &body, &Payload::new()).unwrap();
        tree
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn id(&mut self, data: &fs::Metadata) -> Identity {
        let next = &mut self.next;
        *self.ids.entry(data.ino()).or_insert_with(|| {
            *next += 1;
            Identity::new(1, &next.to_le_bytes()).unwrap()
        })
    }

    fn stat(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.path(path)).unwrap()
    }

    fn parent(&mut self, path: &str) -> (Identity, Attributes, Vec<u8>) {
        let full = self.path(path);
        let data = fs::symlink_metadata(full.parent().unwrap()).unwrap();
        (self.id(&data), attributes(&data), full.file_name().unwrap().as_bytes().to_vec())
    }

    fn created(&mut self, path: &str, target: &[u8]) {
        let data = self.stat(path);
        let id = self.id(&data);
        let (parent, parent_attr, name) = self.parent(path);
        let list = xattrs(&self.path(path));
        let list: Vec<_> = list.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        let (payload, xattrs_len, count) = Payload::of(&name).part(target).xattrs(list);
        let body = CreateBody {
            parent,
            attr: attributes(&data),
            parent_attr,
            name_len: (name.len() as u32).into(),
            target_len: (target.len() as u32).into(),
            xattrs_len: xattrs_len.into(),
            xattrs: count.into(),
        };
        let flags = if data.is_dir() { RECORD_DIRECTORY } else { 0 };
        self.log.push(RecordType::Create, flags, id, &body, &payload).unwrap();
    }

    pub fn create(&mut self, path: &str) {
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(self.path(path)).unwrap();
        self.created(path, b"");
    }

    pub fn mkdir(&mut self, path: &str) {
        fs::create_dir(self.path(path)).unwrap();
        self.created(path, b"");
    }

    pub fn symlink(&mut self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.path(path)).unwrap();
        self.created(path, target.as_bytes());
    }

    pub fn mknod(&mut self, path: &str, kind: FileType, device: u64) {
        mknodat(CWD, self.path(path), kind, Mode::from_raw_mode(0o640), device).unwrap();
        self.created(path, b"");
    }

    pub fn link(&mut self, from: &str, to: &str) {
        fs::hard_link(self.path(from), self.path(to)).unwrap();
        self.linked(to);
    }

    fn linked(&mut self, to: &str) {
        let data = self.stat(to);
        let id = self.id(&data);
        let (parent, parent_attr, name) = self.parent(to);
        let body = LinkBody {
            parent,
            attr: attributes(&data),
            parent_attr,
            name_len: (name.len() as u32).into(),
            reserved: 0.into(),
        };
        self.log.push(RecordType::Link, 0, id, &body, &Payload::of(&name)).unwrap();
    }

    /// Makes a file without a name; it gets one with [`Tree::name_unnamed`].
    pub fn create_unnamed(&mut self, contents: &[u8]) {
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let Ok(file) = openat(CWD, &self.root, flags, Mode::from_raw_mode(0o600)) else { return };
        let file = File::from(file);
        let data = file.metadata().unwrap();
        let id = self.id(&data);
        let mut body = CreateBody::new_zeroed();
        body.attr = attributes(&data);
        self.log.push(RecordType::Create, 0, id, &body, &Payload::new()).unwrap();
        file.write_all_at(contents, 0).unwrap();
        self.wrote(&file, 0, contents);
        self.unnamed.push(file);
    }

    pub fn name_unnamed(&mut self, path: &str) {
        let Some(file) = self.unnamed.pop() else { return };
        linkat(file.as_fd(), "", CWD, self.path(path), AtFlags::EMPTY_PATH).unwrap();
        self.linked(path);
    }

    pub fn drop_unnamed(&mut self) {
        if let Some(file) = self.unnamed.pop() {
            self.gone(file.metadata().unwrap().ino());
        }
    }

    fn gone(&mut self, inode: u64) {
        let id = self.ids.remove(&inode).unwrap();
        self.log.push(RecordType::ObjectGone, 0, id, &EmptyBody {}, &Payload::new()).unwrap();
    }

    /// Unlinks a file or removes a directory. `keep`: stays open.
    pub fn remove(&mut self, path: &str, keep: bool) {
        let before = self.stat(path);
        let id = self.id(&before);
        let full = self.path(path);
        let open = if before.is_file() { File::open(&full).ok() } else { None };
        if before.is_dir() {
            fs::remove_dir(&full).unwrap();
        } else {
            fs::remove_file(&full).unwrap();
        }
        let mut attr = open.as_ref().map_or(attributes(&before), |file| attributes(&file.metadata().unwrap()));
        if open.is_none() {
            attr.nlink = if before.is_dir() { 0 } else { (before.nlink() as u32) - 1 }.into();
        }
        let (parent, parent_attr, name) = self.parent(path);
        let name_len = (name.len() as u32).into();
        let body = UnlinkBody { parent, attr, parent_attr, name_len, reserved: 0.into() };
        let flags = if before.is_dir() { RECORD_DIRECTORY } else { 0 };
        self.log.push(RecordType::Unlink, flags, id, &body, &Payload::of(&name)).unwrap();
        if attr.nlink.get() == 0 {
            match open {
                Some(file) if keep => self.unnamed.push(file),
                _ => self.gone(before.ino()),
            }
        }
    }

    pub fn rename(&mut self, from: &str, to: &str, flags: RenameFlags) {
        let moved = self.stat(from);
        let other = fs::symlink_metadata(self.path(to)).ok();
        if other.as_ref().is_some_and(|other| other.ino() == moved.ino()) {
            return;
        }
        let held = other.as_ref().filter(|other| other.is_file()).and_then(|_| File::open(self.path(to)).ok());
        if renameat_with(CWD, self.path(from), CWD, self.path(to), flags).is_err() {
            return;
        }
        let mut body = RenameBody::new_zeroed();
        let (old_parent, old_parent_attr, old_name) = self.parent(from);
        let (new_parent, new_parent_attr, new_name) = self.parent(to);
        (body.old_parent, body.old_parent_attr) = (old_parent, old_parent_attr);
        (body.new_parent, body.new_parent_attr) = (new_parent, new_parent_attr);
        body.flags = flags.bits().into();
        body.old_name_len = (old_name.len() as u32).into();
        body.new_name_len = (new_name.len() as u32).into();
        body.attr = attributes(&self.stat(to));
        let mut gone = None;
        if let Some(other) = &other {
            body.other = self.id(other);
            body.other_attr = if flags.contains(RenameFlags::EXCHANGE) {
                attributes(&self.stat(from))
            } else {
                let mut attr = held.as_ref().map_or(attributes(other), |file| attributes(&file.metadata().unwrap()));
                if held.is_none() {
                    attr.nlink = if other.is_dir() { 0 } else { (other.nlink() as u32) - 1 }.into();
                }
                gone = (attr.nlink.get() == 0).then_some(other.ino());
                attr
            };
        }
        let id = self.id(&moved);
        let payload = Payload::of(&old_name).part(&new_name);
        self.log.push(RecordType::Rename, 0, id, &body, &payload).unwrap();
        if let Some(inode) = gone {
            self.gone(inode);
        }
    }

    fn wrote(&mut self, file: &File, offset: u64, data: &[u8]) {
        let now = file.metadata().unwrap();
        let id = self.id(&now);
        let body = WriteBody { offset: offset.into(), attr: attributes(&now) };
        self.log.push(RecordType::Write, 0, id, &body, &Payload::of(data)).unwrap();
    }

    pub fn write(&mut self, path: &str, offset: u64, data: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.path(path)).unwrap();
        file.write_all_at(data, offset).unwrap();
        self.wrote(&file, offset, data);
    }

    fn attr_record(&mut self, kind: RecordType, path: &str) {
        let data = self.stat(path);
        let id = self.id(&data);
        let mut body = AttrBody::new_zeroed();
        body.attr = attributes(&data);
        self.log.push(kind, 0, id, &body, &Payload::new()).unwrap();
    }

    pub fn truncate(&mut self, path: &str, size: u64) {
        OpenOptions::new().write(true).open(self.path(path)).unwrap().set_len(size).unwrap();
        self.attr_record(RecordType::Truncate, path);
    }

    pub fn fallocate(&mut self, path: &str, mode: FallocateFlags, offset: u64, length: u64) {
        let file = OpenOptions::new().write(true).open(self.path(path)).unwrap();
        if fallocate(&file, mode, offset, length).is_err() {
            // It may have set the times before it found the range impossible (ext4).
            return self.attr_record(RecordType::Setattr, path);
        }
        let data = file.metadata().unwrap();
        let id = self.id(&data);
        let body = FallocateBody {
            mode: mode.bits().into(),
            reserved: 0.into(),
            offset: offset.into(),
            length: length.into(),
            attr: attributes(&data),
        };
        self.log.push(RecordType::Fallocate, 0, id, &body, &Payload::new()).unwrap();
    }

    pub fn chmod(&mut self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
        self.attr_record(RecordType::Setattr, path);
    }

    pub fn chown(&mut self, path: &str, uid: u32, gid: u32) {
        if std::os::unix::fs::lchown(self.path(path), Some(uid), Some(gid)).is_ok() {
            self.attr_record(RecordType::Setattr, path);
        }
    }

    pub fn touch(&mut self, path: &str, seconds: i64, nanoseconds: u32) {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, self.path(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        self.attr_record(RecordType::Setattr, path);
    }

    pub fn set_xattr(&mut self, path: &str, name: &str, value: &[u8]) {
        if rustix::fs::lsetxattr(self.path(path), name, value, XattrFlags::empty()).is_err() {
            return;
        }
        self.xattr_record(RecordType::SetXattr, path, name, value);
    }

    pub fn remove_xattr(&mut self, path: &str, name: &str) {
        if rustix::fs::lremovexattr(self.path(path), name).is_ok() {
            self.xattr_record(RecordType::RemoveXattr, path, name, b"");
        }
    }

    fn xattr_record(&mut self, kind: RecordType, path: &str, name: &str, value: &[u8]) {
        let data = self.stat(path);
        let id = self.id(&data);
        let body = XattrBody {
            attr: attributes(&data),
            name_len: (name.len() as u32).into(),
            value_len: (value.len() as u32).into(),
        };
        let payload = Payload::of(name.as_bytes());
        let payload = if kind == RecordType::SetXattr { payload.part(value) } else { payload };
        self.log.push(kind, 0, id, &body, &payload).unwrap();
    }
}

/// Puts a log on volume files in `directory`.
pub fn write_volumes(directory: &Path, bytes: &[u8], capacity: Option<u64>) {
    write_coded(directory, bytes, capacity, Coding::plain);
}

/// Puts a log on volume files, each of them as `coding` says.
pub fn write_coded(directory: &Path, bytes: &[u8], capacity: Option<u64>, coding: impl Fn() -> Coding) {
    let mut library =
        DirectoryLibrary { path: directory.into(), capacity, block_size: 64 << 10, features: INCOMPATIBLE_KNOWN };
    let stream = Stream { uuid: STREAM, timeline: 1, origin: "test".into() };
    let mut state = LogState::origin(SEGMENT);
    let mut before = None;
    loop {
        let Supply::Volume(medium, _) = library.blank(POOL, 1).unwrap() else { panic!() };
        let pool = label::pool_uuid(POOL);
        let mut writer = VolumeWriter::begin(medium, pool, stream.clone(), before.as_ref(), state, coding()).unwrap();
        let at = writer.next_lsn() as usize;
        if writer.append(&bytes[at..]).unwrap() == Progress::Open && writer.sync().unwrap() == Progress::Open {
            return;
        }
        before = Some(writer.as_predecessor());
        state = writer.proven().clone();
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 65536];
    let Ok(length) = llistxattr(path, &mut names) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 65536];
        let length = lgetxattr(path, name, &mut value).unwrap();
        found.insert(name.to_vec(), value[..length].to_vec());
    }
    found
}

/// Ranges of a file that are stored.
fn extents(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = seek(file.as_fd(), SeekFrom::Data(at)) else { break };
        let end = seek(file.as_fd(), SeekFrom::Hole(start)).unwrap();
        found.push((start, end));
        at = end;
    }
    found
}

/// Every promised attribute of everything below `root`, a line each; hard links show by the first of their names.
pub fn listing(root: &Path, holes: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first_names = HashMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        let data = fs::symlink_metadata(&full).unwrap();
        let kind = data.file_type();
        let mut line = format!(
            "{} {:o} {}:{} {}.{:09}",
            path.as_os_str().as_bytes().escape_ascii(),
            data.mode(),
            data.uid(),
            data.gid(),
            data.mtime(),
            data.mtime_nsec()
        );
        for (name, value) in xattrs(&full) {
            line.push_str(&format!(" {}={}", name.escape_ascii(), value.escape_ascii()));
        }
        if kind.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.retain(|name| name != OsStr::new("lost+found"));
            names.sort();
            pending.extend(names.iter().rev().map(|name| path.join(name)));
        } else {
            let shown = path.display().to_string();
            let first = first_names.entry(data.ino()).or_insert(shown);
            line.push_str(&format!(" nlink={} first={first}", data.nlink()));
        }
        if kind.is_file() {
            line.push_str(&format!(" {} bytes {:016x}", data.size(), fingerprint(&fs::read(&full).unwrap())));
            if holes {
                line.push_str(&format!(" {:?}", extents(&full)));
            }
        } else if kind.is_symlink() {
            line.push_str(&format!(" -> {:?}", fs::read_link(&full).unwrap()));
        } else if kind.is_char_device() || kind.is_block_device() {
            line.push_str(&format!(" device {:x}", data.rdev()));
        }
        lines.push(line);
    }
    lines
}

fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

pub fn assert_same(left: &Path, right: &Path) {
    assert_same_listings(&listing(left, true), &listing(right, true));
}

/// The same without holes: which blocks over a range that was zeroed are stored depends on what has been written out, and
/// a restore that makes checkpoints writes out.
pub fn assert_same_contents(left: &Path, right: &Path) {
    assert_same_listings(&listing(left, false), &listing(right, false));
}

fn assert_same_listings(left: &[String], right: &[String]) {
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left, right);
    }
    assert_eq!(left.len(), right.len());
}
