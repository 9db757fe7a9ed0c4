// SPDX-License-Identifier: GPL-2.0-or-later

//! Who could change the lower tree without the log seeing it, or would be cut off from it.
//!
//! The mount records what goes through it. A descriptor, a mapping, a working directory or another mount that leads to
//! the lower tree goes past it. What can be seen from here is looked for; what cannot (other mount namespaces, exports
//! over the network, processes that start between the survey and the mount) is in mount.reelfs(8).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::mounts::{self, Mount};

/// Something that stands in the way. Its text says what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle(pub String);

/// Everything that stands in the way of mounting `lower` at `target`; both are without links.
pub fn survey(lower: &Path, target: &Path) -> Result<Vec<Obstacle>> {
    let mut obstacles = Vec::new();
    let mounts = mounts::list().context("cannot list the mounts")?;
    below(&mounts, lower, target, &mut obstacles);
    if let Some(home) = mounts::containing(lower).with_context(|| format!("cannot look at {}", lower.display()))? {
        beside(&mounts, &home, lower, &mut obstacles);
        let device = fs::metadata(lower)?.dev();
        processes(Path::new("/proc"), lower, device, lower == target, &mut obstacles)?;
    }
    Ok(obstacles)
}

/// Mounts below the lower directory are not part of what is mounted; mounts below the target would be covered.
fn below(mounts: &[Mount], lower: &Path, target: &Path, obstacles: &mut Vec<Obstacle>) {
    for mount in mounts {
        let point = mount.point.display();
        if strictly_below(&mount.point, lower) {
            obstacles.push(Obstacle(format!(
                "{point} is mounted below {}; it would be cut off, and not recorded. Unmount it first",
                lower.display()
            )));
        } else if strictly_below(&mount.point, target) {
            obstacles.push(Obstacle(format!(
                "{point} is mounted below {}; it would be covered. Unmount it first",
                target.display()
            )));
        }
    }
}

fn strictly_below(path: &Path, directory: &Path) -> bool {
    path != directory && path.starts_with(directory)
}

/// Other mounts of the lower filesystem through which the lower tree can be changed.
fn beside(mounts: &[Mount], home: &Mount, lower: &Path, obstacles: &mut Vec<Obstacle>) {
    let inside = match lower.strip_prefix(&home.point) {
        Ok(rest) => home.root.join(rest),
        Err(_) => return,
    };
    for other in mounts {
        let same = other.device == home.device && other.id != home.id && !other.read_only;
        if same && (inside.starts_with(&other.root) || other.root.starts_with(&inside)) {
            obstacles.push(Obstacle(format!(
                "{} is another mount of the same filesystem and leads to {}; changes there would not be recorded. Unmount \
                 it, or make it read-only",
                other.point.display(),
                lower.display()
            )));
        }
    }
}

/// Processes that hold something open through which the lower tree can be changed. `over_itself`: the lower path leads
/// to the mount afterwards, so that holding a directory is the only way left to go behind it.
fn processes(
    proc: &Path,
    lower: &Path,
    device: u64,
    over_itself: bool,
    obstacles: &mut Vec<Obstacle>,
) -> io::Result<()> {
    for entry in fs::read_dir(proc)? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let Some(what) = holds(&path, lower, device, over_itself) else { continue };
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        obstacles.push(Obstacle(format!(
            "process {pid} ({}) {what}; what it changes there would not be recorded. End it first",
            name.trim_end()
        )));
    }
    Ok(())
}

/// What a process holds of the lower tree, if it does. Whatever of it disappears while we look is no obstacle any more.
fn holds(process: &Path, lower: &Path, device: u64, over_itself: bool) -> Option<String> {
    let inside = |link: &Path| -> Option<PathBuf> {
        let target = fs::read_link(link).ok()?;
        // A file that was removed ends in " (deleted)"; it is still one of the tree's.
        let same = target.starts_with(lower) && fs::metadata(link).ok()?.dev() == device;
        same.then_some(target)
    };
    if over_itself {
        for (link, what) in [("cwd", "works in"), ("root", "has its root in")] {
            if let Some(target) = inside(&process.join(link)) {
                return Some(format!("{what} {}", target.display()));
            }
        }
    }
    for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let Some(target) = inside(&entry.path()) else { continue };
        let directory = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        if directory && over_itself {
            return Some(format!("has the directory {} open", target.display()));
        }
        if !directory && writable(&process.join("fdinfo").join(entry.file_name())) {
            return Some(format!("has {} open for writing", target.display()));
        }
    }
    mapping(&fs::read(process.join("maps")).unwrap_or_default(), lower)
        .map(|target| format!("has {} mapped, shared and writable", target.display()))
}

/// Whether a descriptor may write, by its line `flags:` in octal (proc_pid_fdinfo(5)).
fn writable(fdinfo: &Path) -> bool {
    let text = fs::read_to_string(fdinfo).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & 3 != 0)
}

/// A file below `lower` that is mapped shared and writable, in the text of `/proc/PID/maps`.
fn mapping(maps: &[u8], lower: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    maps.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(6, |&byte| byte == b' ');
        let permissions = fields.nth(1)?;
        let path = Path::new(std::ffi::OsStr::from_bytes(fields.nth(3)?.trim_ascii_start()));
        let shared_and_writable = permissions.get(1) == Some(&b'w') && permissions.get(3) == Some(&b's');
        (shared_and_writable && path.starts_with(lower)).then(|| path.to_path_buf())
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn mount(id: u64, device: u64, root: &str, point: &str, read_only: bool) -> Mount {
        Mount {
            id,
            device,
            root: root.into(),
            point: point.into(),
            read_only,
            filesystem: "ext4".into(),
            source: "/dev/vdb".into(),
        }
    }

    #[test]
    fn submounts_and_other_mounts_are_found() {
        let mounts = [
            mount(1, 1, "/", "/", false),
            mount(2, 2, "/", "/data", false),
            mount(3, 3, "/", "/data/tree/sub", false),
            mount(4, 2, "/", "/elsewhere", false),
            mount(5, 2, "/tree/part", "/part", false),
            mount(6, 2, "/other", "/other", false),
            mount(7, 2, "/", "/look", true),
            mount(8, 4, "/", "/mnt/x", false),
        ];
        let mut found = Vec::new();
        below(&mounts, Path::new("/data/tree"), Path::new("/mnt"), &mut found);
        beside(&mounts, &mounts[1], Path::new("/data/tree"), &mut found);
        let begins: Vec<_> = found.iter().map(|Obstacle(text)| text.split(' ').next().unwrap()).collect();
        assert_eq!(begins, ["/data/tree/sub", "/mnt/x", "/elsewhere", "/part"]);
    }

    #[test]
    fn mappings() {
        let maps = b"7f00-7f01 rw-s 00000000 08:01 17                         /srv/a b\n\
            7f01-7f02 r--s 00000000 08:01 17                         /srv/c\n\
            7f02-7f03 rw-p 00000000 08:01 17                         /srv/d\n\
            7f03-7f04 rw-p 00000000 00:00 0 \n";
        assert_eq!(mapping(maps, Path::new("/srv")), Some("/srv/a b".into()));
        assert_eq!(mapping(&maps[60..], Path::new("/srv")), None);
        assert_eq!(mapping(maps, Path::new("/sr")), None);
    }

    /// Looks at this very process, as at another one.
    #[test]
    fn descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let lower = fs::canonicalize(dir.path()).unwrap();
        let device = fs::metadata(&lower).unwrap().dev();
        let this = PathBuf::from("/proc/self");
        assert_eq!(holds(&this, &lower, device, true), None);
        let written = File::create(lower.join("file")).unwrap();
        assert!(holds(&this, &lower, device, false).unwrap().contains("open for writing"));
        drop(written);
        let read = File::open(lower.join("file")).unwrap();
        assert_eq!(holds(&this, &lower, device, true), None);
        drop(read);
        let _directory = File::open(&lower).unwrap();
        assert_eq!(holds(&this, &lower, device, false), None);
        assert!(holds(&this, &lower, device, true).unwrap().contains("directory"));
    }
}
