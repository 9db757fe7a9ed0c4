// SPDX-License-Identifier: GPL-2.0-or-later

//! What is mounted where: `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::{makedev, statx, AtFlags, StatxFlags, CWD};

/// Name of our filesystem type.
pub const FILESYSTEM: &str = "reelfs";
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Id of the mount; `stx_mnt_id` of statx(2) names it.
    pub id: u64,
    /// Device number of the filesystem.
    pub device: u64,
    /// The directory of the filesystem that is mounted, from the filesystem's own root.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type of the filesystem.
    pub filesystem: String,
    /// Nothing can be changed through this mount.
    pub read_only: bool,
    /// What is mounted; for our own type the lower directory.
    pub source: PathBuf,
}

/// All mounts, in the order in which the kernel lists them: of those on one place the last is on top.
pub fn list() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read(MOUNTINFO)?))
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (major, minor) = std::str::from_utf8(fields.nth(1)?).ok()?.split_once(':')?;
    let device = makedev(major.parse().ok()?, minor.parse().ok()?);
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let read_only = fields.next()?.split(|&byte| byte == b',').any(|option| option == b"ro");
    // Optional fields end with a dash.
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let filesystem = String::from_utf8(rest.next()?.to_vec()).ok()?;
    let source = unescape(rest.next()?);
    Some(Mount { id, device, root, point, read_only, filesystem, source })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// The mount on top at `point`, if it is one of ours.
pub fn ours_at(point: &Path) -> io::Result<Option<Mount>> {
    let top = list()?.into_iter().rfind(|mount| mount.point == point);
    Ok(top.filter(|mount| mount.filesystem == FILESYSTEM))
}

/// The mount of ours that `path` lies in, if it does. Of a path that does not exist yet, the directory counts in which
/// it would be made.
pub fn containing_ours(path: &Path) -> io::Result<Option<Mount>> {
    let Some(existing) = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()) else {
        return Ok(None);
    };
    Ok(containing(existing)?.filter(|mount| mount.filesystem == FILESYSTEM))
}

/// The mount that `path` lies in, links followed.
pub fn containing(path: &Path) -> io::Result<Option<Mount>> {
    let id = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id;
    Ok(list()?.into_iter().find(|mount| mount.id == id))
}

/// Calls `changed` whenever something was mounted or unmounted, until it returns false. Sleeps in between.
pub fn watch(mut changed: impl FnMut() -> bool) -> io::Result<()> {
    let file = File::open(MOUNTINFO)?;
    loop {
        let mut descriptors = [PollFd::new(&file, PollFlags::PRI)];
        match poll(&mut descriptors, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !changed() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            47 22 0:41 / /srv/my\\040data rw - reelfs /srv/my\\040data rw,ring=4194304\n\
            bad line\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].device, makedev(8, 1));
        assert_eq!(mounts[1].point, Path::new("/srv/my data"));
        assert!(!mounts[1].read_only);
        assert_eq!(mounts[1].root, Path::new("/"));
        assert_eq!(mounts[1].filesystem, "reelfs");
        assert_eq!(mounts[1].source, Path::new("/srv/my data"));
        assert_eq!(unescape(b"a\\134b\\9"), Path::new("a\\b\\9"));
    }

    #[test]
    fn this_machine_has_a_root_that_is_not_ours() {
        assert!(list().unwrap().iter().any(|mount| mount.point == Path::new("/")));
        assert_eq!(ours_at(Path::new("/")).unwrap(), None);
        assert_eq!(containing_ours(Path::new("/does/not/exist")).unwrap(), None);
    }
}
