// SPDX-License-Identifier: GPL-2.0-or-later

//! Files without a name (`O_TMPFILE`), and how they get one.

use super::place::{cases, Place};
use crate::check::{ensure, same, Check};
use crate::pattern::pattern;
use crate::Test;
use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags, CWD};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

pub const CASES: &[Test] = cases![unnamed:
    "unnamed-then-named" named,
    "unnamed-then-named-twice" named_twice,
    "unnamed-named-and-unlinked" named_and_unlinked,
    "unnamed-to-the-end" never_named,
    "unnamed-exclusive" exclusive,
    "unnamed-inherits" inherits,
    "unnamed-direct" direct,
    "unnamed-reopened" reopened,
    "unnamed-refused" refused,
    "unnamed-by-many" by_many,
];

fn unnamed(directory: &Path, more: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | more, Mode::from_raw_mode(0o666))
}

fn name(file: &impl AsRawFd, path: &Path) -> Result<(), Errno> {
    let through = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, through, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

fn named(p: &Place) -> Check {
    let before = fs::metadata(&p.dir)?.mtime_nsec();
    let file = File::from(p.recorded(|| Ok(unnamed(&p.dir, OFlags::empty())?))?);
    same!(file.metadata()?.nlink(), 0);
    same!(fs::read_dir(&p.dir)?.count(), 0);
    same!(fs::metadata(&p.dir)?.mtime_nsec(), before);
    p.recorded(|| Ok(file.write_all_at(&pattern(100_000, 1), 0)?))?;
    file.write_all_at(b"far", 1 << 20)?;
    file.set_len(900_000)?;
    file.set_permissions(fs::Permissions::from_mode(0o640))?;
    rustix::fs::fsetxattr(&file, "user.before", b"it had a name", XattrFlags::empty())?;
    file.sync_all()?;
    p.recorded(|| Ok(name(&file, &p.at("f"))?))?;
    same!(file.metadata()?.nlink(), 1);
    file.write_all_at(b"after it had a name", 50_000)?;
    same!(fs::read(p.at("f"))?, fs::read(p.below("f"))?);
    same!(p.below("f").metadata()?.mode() & 0o7777, 0o640);
    p.refused(&[Errno::EXIST], || name(&file, &p.at("f")))
}

fn named_twice(p: &Place) -> Check {
    fs::create_dir(p.at("d"))?;
    let file = File::from(unnamed(&p.at("d"), OFlags::empty())?);
    file.write_all_at(b"one object", 0)?;
    // By the descriptor itself, without /proc; and not in the directory that it was made in.
    rustix::fs::linkat(&file, "", CWD, p.at("one"), AtFlags::EMPTY_PATH)?;
    fs::hard_link(p.at("one"), p.at("d/two"))?;
    fs::remove_file(p.at("one"))?;
    drop(file);
    same!(fs::read(p.below("d/two"))?, b"one object");
    same!(p.at("d/two").metadata()?.nlink(), 1);
    Ok(())
}

/// Once it had a name and lost it, it gets none again.
fn named_and_unlinked(p: &Place) -> Check {
    let file = File::from(unnamed(&p.dir, OFlags::empty())?);
    name(&file, &p.at("f"))?;
    fs::remove_file(p.at("f"))?;
    file.write_all_at(b"nobody sees this", 0)?;
    p.refused(&[Errno::NOENT], || name(&file, &p.at("g")))
}

fn never_named(p: &Place) -> Check {
    let keep = File::from(unnamed(&p.dir, OFlags::empty())?);
    for round in 0..20 {
        let file = File::from(unnamed(&p.dir, OFlags::empty())?);
        file.write_all_at(&pattern(10_000, round), 0)?;
        let mut back = vec![0; 10_000];
        file.read_exact_at(&mut back, 0)?;
        ensure!(back == pattern(10_000, round), "other bytes");
    }
    keep.write_all_at(b"outlives the others", 0)?;
    drop(keep);
    // That it is gone is recorded, too; some lowers put inodes when they find the time.
    same!(fs::read_dir(&p.dir)?.count(), 0);
    Ok(())
}

fn exclusive(p: &Place) -> Check {
    let file = File::from(unnamed(&p.dir, OFlags::EXCL)?);
    file.write_all_at(b"never to be named", 0)?;
    p.refused(&[Errno::NOENT], || name(&file, &p.at("f")))
}

fn inherits(p: &Place) -> Check {
    let done = std::process::Command::new("setfacl").args(["-m", "d:u:1000:rwx,d:g:1001:rx"]).arg(&p.dir).status()?;
    ensure!(done.success(), "setfacl failed");
    std::os::unix::fs::chown(&p.dir, None, Some(4242))?;
    fs::set_permissions(&p.dir, fs::Permissions::from_mode(0o2775))?;
    let file = unnamed(&p.dir, OFlags::empty())?;
    name(&file, &p.at("f"))?;
    same!(p.at("f").metadata()?.gid(), 4242);
    let acl = rustix::fs::lgetxattr(p.below("f"), "system.posix_acl_access", &mut [0; 200][..]);
    ensure!(acl.is_ok(), "no ACL was inherited");
    Ok(())
}

fn direct(p: &Place) -> Check {
    match unnamed(&p.dir, OFlags::DIRECT) {
        // A lower without direct I/O says so.
        Err(Errno::INVAL) => Ok(()),
        opened => {
            let file = File::from(opened?);
            let mut memory = Vec::new();
            file.write_all_at(crate::pattern::aligned(&mut memory, &pattern(65_536, 5)), 8192)?;
            Ok(name(&file, &p.at("f"))?)
        }
    }
}

fn reopened(p: &Place) -> Check {
    let file = unnamed(&p.dir, OFlags::empty())?;
    let through = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = File::options().read(true).write(true).open(&through)?;
    again.write_all_at(b"through another descriptor", 0)?;
    drop(again);
    fs::set_permissions(&through, fs::Permissions::from_mode(0o600))?;
    Ok(name(&file, &p.at("f"))?)
}

fn refused(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    p.refused(&[Errno::NOTDIR], || unnamed(&p.at("f"), OFlags::empty()))?;
    p.refused(&[Errno::NOENT], || unnamed(&p.at("no"), OFlags::empty()))?;
    p.refused(&[Errno::INVAL], || rustix::fs::open(&p.dir, OFlags::TMPFILE | OFlags::RDONLY, Mode::RUSR))?;
    fs::create_dir(p.at("gone"))?;
    let gone = rustix::fs::open(p.at("gone"), OFlags::DIRECTORY, Mode::empty())?;
    fs::remove_dir(p.at("gone"))?;
    // A lower may make one in a directory that was removed; it can never get a name there.
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let _: bool = p.either(&[Errno::NOENT, Errno::PERM], || rustix::fs::openat(&gone, ".", flags, Mode::RUSR))?;
    Ok(())
}

fn by_many(p: &Place) -> Check {
    fs::create_dir(p.at("d"))?;
    let results: Vec<Check> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                scope.spawn(move || {
                    for round in 0..50 {
                        let file = File::from(unnamed(&p.at("d"), OFlags::empty())?);
                        file.write_all_at(&pattern(3000, thread * 100 + round), round * 100)?;
                        if round % 2 == 0 {
                            name(&file, &p.at(&format!("d/{thread}-{round}")))?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    same!(results.len(), 4);
    results.into_iter().collect::<Check<Vec<()>>>()?;
    same!(fs::read_dir(p.at("d"))?.count(), 100);
    Ok(())
}
