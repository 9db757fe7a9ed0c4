// SPDX-License-Identifier: GPL-2.0-or-later

//! A tree with something of everything, and changes to it.

use crate::check::{Check, Failure};
use crate::machine::run;
use crate::pattern::pattern;
use rustix::fs::{
    fallocate, ioctl_getflags, ioctl_setflags, mknodat, setxattr, utimensat, AtFlags, FallocateFlags, FileType, IFlags,
    Mode, Timespec, Timestamps, XattrFlags, CWD,
};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// Makes it in a directory that is there.
pub fn make(root: &Path) -> Check {
    let at = |name: &str| root.join(name);
    for name in ["small", "many", "deep", "kinds", "holes", "links"] {
        fs::create_dir(at(name))?;
    }
    for number in 0..40 {
        fs::write(at(&format!("small/file-{number}")), pattern(number * 300, number as u64))?;
    }
    // More than one part of a directory.
    for number in 0..1500 {
        File::create(at(&format!("many/an entry with a long name, number {number}")))?;
    }
    let mut below = at("deep");
    for number in 0..30 {
        below.push(format!("level-{number}"));
        fs::create_dir(&below)?;
        fs::write(below.join("here"), number.to_string())?;
    }
    // More than one part of a file.
    fs::write(at("large"), pattern((9 << 20) + 123, 5))?;
    sparse(&at("holes"))?;
    fs::write(at("links/one"), "several names")?;
    for name in ["links/two", "small/three", "deep/level-0/four"] {
        fs::hard_link(at("links/one"), at(name))?;
    }
    kinds(&at("kinds"))?;
    attributes(root)
}

fn sparse(at: &Path) -> Check {
    let file = File::create(at.join("ends-in-a-hole"))?;
    file.write_all_at(&pattern(8192, 1), 0)?;
    file.set_len(3 << 20)?;
    let file = File::create(at.join("begins-with-one"))?;
    file.write_all_at(&pattern(5000, 2), 1 << 20)?;
    let file = File::create(at.join("many"))?;
    for number in 0..50 {
        file.write_all_at(&pattern(4096, number), number * 65_536)?;
    }
    File::create(at.join("nothing-else"))?.set_len(1 << 30)?;
    let file = File::create(at.join("set-aside"))?;
    file.write_all_at(b"some", 0)?;
    // Not every filesystem can.
    let _ = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20);
    Ok(())
}

fn kinds(at: &Path) -> Check {
    let mode = Mode::from_raw_mode(0o640);
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("disk", FileType::BlockDevice, rustix::fs::makedev(8, 0x12345)),
    ] {
        mknodat(CWD, at.join(name), kind, mode, device)?;
    }
    std::os::unix::fs::symlink("../links/one", at.join("short"))?;
    std::os::unix::fs::symlink("x/".repeat(400), at.join("long"))?;
    File::create(at.join("empty"))?;
    File::create(at.join(OsStr::from_bytes(b"\xff no text \n")))?;
    Ok(())
}

fn attributes(root: &Path) -> Check {
    let at = |name: &str| root.join(name);
    for number in 0..5 {
        let name = at(&format!("small/file-{number}"));
        for (key, value) in [("trusted.one", &b"1"[..]), ("trusted.none", b""), ("security.label", b"some label")] {
            setxattr(&name, key, value, XattrFlags::empty())?;
        }
    }
    setxattr(at("deep"), "trusted.directory", &pattern(2000, 3), XattrFlags::empty())?;
    for (name, acl) in [("small/file-2", "u:1234:rw"), ("small", "g:77:rx,d:u:1234:rwx")] {
        run("setfacl", &["-m".as_ref(), acl.as_ref(), at(name).as_os_str()]).map_err(Failure::of)?;
    }
    std::os::unix::fs::lchown(at("kinds/short"), Some(7), Some(8))?;
    std::os::unix::fs::chown(at("small/file-3"), Some(1234), Some(4321))?;
    fs::set_permissions(at("small/file-3"), Permissions::from_mode(0o6711))?;
    fs::set_permissions(at("deep"), Permissions::from_mode(0o1777))?;
    let file = File::open(at("small/file-4"))?;
    // Not every filesystem has them.
    if let Ok(flags) = ioctl_getflags(&file) {
        let _ = ioctl_setflags(&file, flags | IFlags::NODUMP);
    }
    let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    for name in ["deep/level-0", "links/one", "kinds/short"] {
        utimensat(CWD, at(name), &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Changes something of everything.
pub fn change(root: &Path) -> Check {
    let at = |name: &str| root.join(name);
    fs::write(at("new"), "since")?;
    fs::rename(at("small/file-5"), at("many/moved"))?;
    fs::rename(at("deep/level-0/level-1"), at("links/level-1"))?;
    fs::remove_file(at("links/two"))?;
    fs::hard_link(at("links/one"), at("kinds/five"))?;
    for number in 0..200 {
        fs::remove_file(at(&format!("many/an entry with a long name, number {number}")))?;
    }
    let large = File::options().write(true).open(at("large"))?;
    large.write_all_at(b"changed", 5 << 20)?;
    large.set_len(7 << 20)?;
    let _ = fallocate(&large, FallocateFlags::COLLAPSE_RANGE, 1 << 20, 4096);
    setxattr(at("small/file-0"), "trusted.one", b"2", XattrFlags::empty())?;
    rustix::fs::removexattr(at("small/file-1"), "trusted.one")?;
    run("setfacl", &["-b".as_ref(), at("small/file-2").as_os_str()]).map_err(Failure::of)?;
    Ok(())
}

/// And once more.
pub fn change_again(root: &Path) -> Check {
    let at = |name: &str| root.join(name);
    fs::remove_dir_all(at("many"))?;
    fs::write(at("large"), pattern(4_000_000, 77))?;
    fs::rename(at("links/level-1"), at("back"))?;
    fs::write(at("back/here"), "again")?;
    Ok(())
}
