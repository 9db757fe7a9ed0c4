// SPDX-License-Identifier: GPL-2.0-or-later

//! From a directory tree to its listing.
//!
//! Fields, for every name unless another is said:
//!
//! | key | value |
//! |---|---|
//! | `type` | `file`, `directory`, `symlink`, `fifo`, `socket`, `character`, `block`; `mountpoint` is not entered |
//! | `mode` | permission bits, set-id and sticky bits, octal |
//! | `uid`, `gid` | numbers |
//! | `mtime` | seconds and nanoseconds; directories too |
//! | `size` | files and symlinks, bytes |
//! | `blake3` | files: hash of the contents, holes read as zeros |
//! | `data` | files: where data are, see below |
//! | `links` | all but directories: number of hard links |
//! | `same` | all but directories, where there is another link in the tree: the first path of this object |
//! | `target` | symlinks |
//! | `rdev` | devices: major and minor |
//! | `flags`, `project` | files and directories, where not zero: `chattr(1)` flags that persist, project id |
//! | `xattr:NAME` | each extended attribute: ACLs and file capabilities are among them |
//!
//! Not listed, because they are not promised: `ctime`, birth time, `atime`, inode numbers, sizes and link counts of
//! directories.
//!
//! **Data maps.** The filesystem is synced and clean pages of the file are dropped first, so that delayed allocation and
//! cached pages over preallocated blocks do not show. Then `SEEK_DATA` and `SEEK_HOLE` give the ranges; each is
//! widened to whole blocks ([`Options::block`]) and cut at the end of the file, touching ranges become one. So filesystems
//! with smaller blocks compare equal, and a hole of at least one aligned block that one side has and the other has not
//! is a difference, whether or not the bytes read the same.

use crate::inode;
use crate::listing::{Fields, Listing};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How to list.
#[derive(Clone, Debug)]
pub struct Options {
    /// Unit of the data maps, in bytes; at least the block size of both filesystems.
    pub block: u64,
    /// Keys (or, ending in `*`, beginnings of keys) that are left out.
    pub ignore: Vec<Vec<u8>>,
}

impl Options {
    /// Whether attributes with this key are left out.
    pub fn ignores(&self, key: &[u8]) -> bool {
        self.ignore.iter().any(|pattern| match pattern.strip_suffix(b"*") {
            Some(start) => key.starts_with(start),
            None => key == pattern.as_slice(),
        })
    }
}

impl Default for Options {
    fn default() -> Self {
        Options { block: 4096, ignore: Vec::new() }
    }
}

/// What could not be read: the path, and why.
#[derive(Debug)]
pub struct WalkError {
    /// The path, relative to the root of the walk.
    pub path: Vec<u8>,
    /// The step that failed.
    pub step: &'static str,
    /// How it failed.
    pub error: Errno,
}

impl std::fmt::Display for WalkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", crate::escape::escape(&self.path), self.step, self.error)
    }
}

struct Walker<'a> {
    options: &'a Options,
    device: u64,
    entries: BTreeMap<Vec<u8>, Fields>,
    /// Inode number to the paths of an object with more than one link.
    linked: HashMap<u64, Vec<Vec<u8>>>,
    errors: Vec<WalkError>,
    buffer: Vec<u8>,
}

/// Lists the tree below `root`. What cannot be read is in the second part, and the listing lacks it.
pub fn walk(root: &Path, options: &Options) -> Result<(Listing, Vec<WalkError>), Errno> {
    let top = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // A filesystem that is mounted read-only has nothing to write.
    match rustix::fs::syncfs(&top) {
        Ok(()) | Err(Errno::ROFS) => {}
        Err(error) => return Err(error),
    }
    let stat = rustix::fs::fstat(&top)?;
    let mut walker = Walker {
        options,
        device: stat.st_dev,
        entries: BTreeMap::new(),
        linked: HashMap::new(),
        errors: Vec::new(),
        buffer: vec![0; 1 << 20],
    };
    walker.object(top.as_fd(), c".", b".", true);
    for mut paths in std::mem::take(&mut walker.linked).into_values() {
        paths.sort();
        let Some(first) = paths.first().cloned() else { continue };
        if paths.len() > 1 {
            for path in paths {
                walker.put(&path, b"same", first.clone());
            }
        }
    }
    Ok((Listing { block: options.block, entries: walker.entries }, walker.errors))
}

fn number(value: impl std::fmt::Display) -> Vec<u8> {
    value.to_string().into_bytes()
}

impl Walker<'_> {
    fn put(&mut self, path: &[u8], key: &[u8], value: Vec<u8>) {
        if !self.options.ignores(key) {
            if let Some(fields) = self.entries.get_mut(path) {
                fields.insert(key.to_vec(), value);
            }
        }
    }

    fn check<T>(&mut self, path: &[u8], step: &'static str, result: Result<T, Errno>) -> Option<T> {
        result.map_err(|error| self.errors.push(WalkError { path: path.to_vec(), step, error })).ok()
    }

    /// Lists the object called `name` in `parent`, and all below it.
    fn object(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8], root: bool) {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let Some(stat) = self.check(path, "stat", stat) else { return };
        self.entries.insert(path.to_vec(), Fields::new());
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_dev != self.device {
            self.put(path, b"type", b"mountpoint".to_vec());
            return;
        }
        let word: &[u8] = match kind {
            FileType::RegularFile => b"file",
            FileType::Directory => b"directory",
            FileType::Symlink => b"symlink",
            FileType::Fifo => b"fifo",
            FileType::Socket => b"socket",
            FileType::CharacterDevice => b"character",
            FileType::BlockDevice => b"block",
            FileType::Unknown => b"unknown",
        };
        self.put(path, b"type", word.to_vec());
        self.put(path, b"mode", format!("{:04o}", stat.st_mode & 0o7777).into_bytes());
        self.put(path, b"uid", number(stat.st_uid));
        self.put(path, b"gid", number(stat.st_gid));
        self.put(path, b"mtime", format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec).into_bytes());
        if kind != FileType::Directory {
            self.put(path, b"links", number(stat.st_nlink));
            if stat.st_nlink > 1 {
                self.linked.entry(stat.st_ino).or_default().push(path.to_vec());
            }
        }
        self.xattrs(parent, name, path);
        match kind {
            FileType::RegularFile => {
                self.put(path, b"size", number(stat.st_size));
                let opened = open(parent, name, OFlags::empty());
                if let Some(file) = self.check(path, "open", opened) {
                    self.flags(&file, path);
                    self.contents(&file, path);
                }
            }
            FileType::Directory => {
                let opened = open(parent, name, OFlags::DIRECTORY);
                if let Some(directory) = self.check(path, "open", opened) {
                    self.flags(&directory, path);
                    self.directory(directory, path, root);
                }
            }
            FileType::Symlink => {
                self.put(path, b"size", number(stat.st_size));
                let target = rustix::fs::readlinkat(parent, name, Vec::new());
                if let Some(target) = self.check(path, "readlink", target) {
                    self.put(path, b"target", target.into_bytes());
                }
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                self.put(path, b"rdev", format!("{major}:{minor}").into_bytes());
            }
            _ => {}
        }
    }

    fn directory(&mut self, directory: OwnedFd, path: &[u8], root: bool) {
        let listed = Dir::read_from(&directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name().to_owned())).collect::<Result<Vec<_>, _>>());
        let Some(mut names) = self.check(path, "readdir", listed) else { return };
        names.sort();
        for name in names {
            let bytes = name.to_bytes();
            if bytes != b"." && bytes != b".." {
                let below = if root { bytes.to_vec() } else { [path, b"/", bytes].concat() };
                self.object(directory.as_fd(), &name, &below, false);
            }
        }
    }

    fn flags(&mut self, file: &OwnedFd, path: &[u8]) {
        if let Some(flags @ 1..) = self.check(path, "file attributes", inode::flags(file)) {
            self.put(path, b"flags", format!("{flags:#x}").into_bytes());
        }
        if let Some(project @ 1..) = self.check(path, "project id", inode::project(file)) {
            self.put(path, b"project", number(project));
        }
    }

    /// The xattrs of anything, symbolic links and fifos too: by a path through the directory's descriptor, because
    /// those cannot be opened.
    fn xattrs(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) {
        let mut through = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        through.extend_from_slice(name.to_bytes());
        let Ok(through) = CString::new(through) else { return };
        let mut names = vec![0; 64 << 10];
        let length = match rustix::fs::llistxattr(&through, &mut names[..]) {
            Err(Errno::OPNOTSUPP) => return,
            other => self.check(path, "listxattr", other),
        };
        let Some(length) = length else { return };
        names.truncate(length);
        for key in names.split(|&byte| byte == 0).filter(|key| !key.is_empty()) {
            let mut value = vec![0; 64 << 10];
            let got = rustix::fs::lgetxattr(&through, key, &mut value[..]);
            if let Some(length) = self.check(path, "getxattr", got) {
                value.truncate(length);
                self.put(path, &[b"xattr:", key].concat(), value);
            }
        }
    }

    fn contents(&mut self, file: &OwnedFd, path: &[u8]) {
        let dropped = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
        self.check(path, "fadvise", dropped);
        let map = data_map(file, self.options.block);
        if let Some(map) = self.check(path, "data map", map) {
            let ranges: Vec<String> = map.iter().map(|(from, to)| format!("{from}-{to}")).collect();
            self.put(path, b"data", ranges.join(",").into_bytes());
        }
        let mut hash = blake3::Hasher::new();
        let mut at = 0;
        loop {
            match rustix::io::pread(file, &mut self.buffer[..], at) {
                Ok(0) => break,
                Ok(length) => {
                    hash.update(self.buffer.get(..length).unwrap_or_default());
                    at += length as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.errors.push(WalkError { path: path.to_vec(), step: "read", error });
                    return;
                }
            }
        }
        self.put(path, b"blake3", hash.finalize().to_hex().as_bytes().to_vec());
    }
}

/// Opens without following links, without waiting and, where allowed, without touching `atime`.
fn open(parent: BorrowedFd<'_>, name: &CStr, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    match rustix::fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(parent, name, flags, Mode::empty()),
        other => other,
    }
}

/// Where `file` has data: ranges widened to multiples of `block`, cut at the end of the file, none touching another.
fn data_map(file: &OwnedFd, block: u64) -> Result<Vec<(u64, u64)>, Errno> {
    let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let from = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?,
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(from))?;
        found.push((from, at));
    }
    Ok(normalised(&found, block, size))
}

fn normalised(ranges: &[(u64, u64)], block: u64, size: u64) -> Vec<(u64, u64)> {
    let mut map: Vec<(u64, u64)> = Vec::new();
    for &(from, to) in ranges {
        let from = from / block * block;
        let to = to.checked_next_multiple_of(block).unwrap_or(to).min(size);
        match map.last_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ if from < to => map.push((from, to)),
            _ => {}
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::normalised;

    #[test]
    fn ranges_are_widened_cut_and_joined() {
        assert_eq!(normalised(&[(1024, 2048), (5000, 5001)], 4096, 5001), [(0, 5001)]);
        assert_eq!(normalised(&[(0, 100), (8192, 9000)], 4096, 20000), [(0, 4096), (8192, 12288)]);
        assert_eq!(normalised(&[(0, 4096), (4096, 8192)], 4096, 8192), [(0, 8192)]);
        assert_eq!(normalised(&[], 4096, 1 << 30), []);
        assert_eq!(normalised(&[(4096, 4097)], 4096, 4097), [(4096, 4097)]);
    }
}
