// SPDX-License-Identifier: GPL-2.0-or-later

//! Operations on names: what comes, goes and moves in directories.

use super::place::{cases, Place};
use crate::check::{ensure, same, Check};
use crate::worker;
use crate::Test;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, CWD};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, FileExt, MetadataExt, PermissionsExt};

pub const CASES: &[Test] = cases![names:
    "create" create,
    "create-exclusive" create_exclusive,
    "create-modes-and-umask" create_modes,
    "mkdir" mkdir,
    "mkdir-in-set-group-id-directory" mkdir_setgid,
    "symlink" symlinks,
    "mknod" mknod,
    "link" link,
    "link-to-a-symlink" link_to_symlink,
    "link-to-an-open-unlinked-file" link_from_descriptor,
    "unlink" unlink,
    "unlink-one-of-two-names" unlink_one,
    "unlinked-while-open" unlinked_while_open,
    "rmdir" rmdir,
    "rename-file" rename_file,
    "rename-between-directories" rename_between,
    "rename-directory-tree" rename_tree,
    "rename-onto-file" rename_onto_file,
    "rename-onto-open-file" rename_onto_open,
    "rename-onto-empty-directory" rename_onto_directory,
    "rename-onto-another-name-of-itself" rename_same_object,
    "rename-noreplace" rename_noreplace,
    "rename-exchange" rename_exchange,
    "rename-exchange-file-and-directory" rename_exchange_mixed,
    "rename-whiteout" rename_whiteout,
    "rename-whiteout-onto-a-file" rename_whiteout_onto,
    "rename-whiteout-inherits" rename_whiteout_inherits,
    "rename-flags" rename_flags,
    "names-of-any-bytes" names_of_any_bytes,
    "longest-name" longest_name,
    "name-used-again" name_used_again,
    "deep-tree" deep_tree,
    "many-names" many_names,
    "race-of-names" race,
    "refused-name-operations" refused,
];

fn create(p: &Place) -> Check {
    p.recorded(|| Ok(File::create(p.at("empty"))?))?;
    fs::write(p.at("file"), "contents")?;
    same!(fs::read(p.below("file"))?, b"contents");
    Ok(())
}

fn create_exclusive(p: &Place) -> Check {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let make = || rustix::fs::open(p.at("file"), flags, Mode::from_raw_mode(0o640));
    p.recorded(|| Ok(make()?))?;
    p.refused(&[Errno::EXIST], make)
}

fn create_modes(p: &Place) -> Check {
    let before = rustix::process::umask(Mode::from_raw_mode(0o027));
    let mut made = Vec::new();
    for mode in [0o0, 0o400, 0o666, 0o777, 0o4755, 0o2755, 0o1777] {
        let name = p.at(&format!("mode-{mode:o}"));
        made.push(
            rustix::fs::open(&name, OFlags::CREATE | OFlags::RDWR, Mode::from_raw_mode(mode)).map(|_| (name, mode)),
        );
    }
    rustix::process::umask(before);
    for one in made {
        let (name, mode) = one?;
        same!(name.metadata()?.mode() & 0o7777, mode & !0o027);
    }
    Ok(())
}

fn mkdir(p: &Place) -> Check {
    p.recorded(|| Ok(fs::create_dir(p.at("d"))?))?;
    fs::create_dir_all(p.at("d/e/f"))?;
    fs::write(p.at("d/e/f/g"), "x")?;
    p.refused(&[Errno::EXIST], || rustix::fs::mkdir(p.at("d"), Mode::RWXU))
}

fn mkdir_setgid(p: &Place) -> Check {
    fs::create_dir(p.at("d"))?;
    std::os::unix::fs::chown(p.at("d"), None, Some(4242))?;
    fs::set_permissions(p.at("d"), fs::Permissions::from_mode(0o2775))?;
    fs::create_dir(p.at("d/sub"))?;
    fs::write(p.at("d/file"), "x")?;
    symlink("x", p.at("d/link"))?;
    same!(p.at("d/sub").metadata()?.mode() & 0o2000, 0o2000);
    for name in ["d/sub", "d/file", "d/link"] {
        same!(p.at(name).symlink_metadata()?.gid(), 4242);
    }
    Ok(())
}

fn symlinks(p: &Place) -> Check {
    p.recorded(|| Ok(symlink("target that is not there", p.at("dangling"))?))?;
    symlink("x".repeat(59), p.at("inline"))?;
    symlink("y/".repeat(500), p.at("long"))?;
    // xfs takes 1023 bytes.
    p.either(&[Errno::NAMETOOLONG], || rustix::fs::symlink("y/".repeat(2000), p.at("longer")))?;
    symlink(OsStr::from_bytes(b"\xff\xfe\n"), p.at("bytes"))?;
    same!(fs::read_link(p.at("bytes"))?.as_os_str().as_bytes(), b"\xff\xfe\n");
    rustix::fs::chownat(CWD, p.at("inline"), Some(rustix::fs::Uid::from_raw(7)), None, AtFlags::SYMLINK_NOFOLLOW)?;
    p.refused(&[Errno::EXIST], || rustix::fs::symlink("other", p.at("dangling")))
}

fn mknod(p: &Place) -> Check {
    let make = |name: &str, kind, major, minor| {
        rustix::fs::mknodat(CWD, p.at(name), kind, Mode::from_raw_mode(0o640), rustix::fs::makedev(major, minor))
    };
    p.recorded(|| Ok(make("fifo", FileType::Fifo, 0, 0)?))?;
    p.recorded(|| Ok(make("socket", FileType::Socket, 0, 0)?))?;
    p.recorded(|| Ok(make("character", FileType::CharacterDevice, 1, 3)?))?;
    p.recorded(|| Ok(make("block", FileType::BlockDevice, 259, 65_537)?))?;
    p.recorded(|| Ok(make("regular", FileType::RegularFile, 0, 0)?))?;
    let null = p.at("character").symlink_metadata()?.rdev();
    same!((rustix::fs::major(null), rustix::fs::minor(null)), (1, 3));
    // A socket made by bind(2) is a name like any other.
    drop(std::os::unix::net::UnixListener::bind(p.at("bound"))?);
    p.refused(&[Errno::EXIST], || make("fifo", FileType::Fifo, 0, 0))
}

fn link(p: &Place) -> Check {
    fs::write(p.at("a"), "x")?;
    fs::create_dir(p.at("d"))?;
    p.recorded(|| Ok(fs::hard_link(p.at("a"), p.at("d/b"))?))?;
    fs::write(p.at("d/b"), "through the other name")?;
    same!(fs::read_to_string(p.at("a"))?, "through the other name");
    same!(p.at("a").metadata()?.nlink(), 2);
    p.refused(&[Errno::EXIST], || rustix::fs::link(p.at("a"), p.at("d/b")))?;
    p.refused(&[Errno::PERM], || rustix::fs::link(p.at("d"), p.at("e")))?;
    p.refused(&[Errno::NOENT], || rustix::fs::link(p.at("not there"), p.at("e")))
}

fn link_to_symlink(p: &Place) -> Check {
    symlink("t", p.at("s"))?;
    rustix::fs::linkat(CWD, p.at("s"), CWD, p.at("s2"), AtFlags::empty())?;
    same!(p.at("s2").symlink_metadata()?.nlink(), 2);
    Ok(())
}

/// A file without a name gets none again: only `O_TMPFILE` files may.
fn link_from_descriptor(p: &Place) -> Check {
    let file = File::create(p.at("a"))?;
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    rustix::fs::linkat(CWD, &through, CWD, p.at("b"), AtFlags::SYMLINK_FOLLOW)?;
    fs::remove_file(p.at("a"))?;
    fs::remove_file(p.at("b"))?;
    p.refused(&[Errno::NOENT], || rustix::fs::linkat(CWD, &through, CWD, p.at("c"), AtFlags::SYMLINK_FOLLOW))
}

fn unlink(p: &Place) -> Check {
    fs::write(p.at("a"), "x")?;
    fs::write(p.at("b"), "y")?;
    symlink("a", p.at("s"))?;
    p.recorded(|| Ok(fs::remove_file(p.at("a"))?))?;
    p.recorded(|| Ok(fs::remove_file(p.at("s"))?))?;
    ensure!(!p.below("a").exists(), "the lower still has the name");
    p.refused(&[Errno::NOENT], || rustix::fs::unlink(p.at("a")))?;
    fs::create_dir(p.at("d"))?;
    p.refused(&[Errno::ISDIR], || rustix::fs::unlink(p.at("d")))
}

fn unlink_one(p: &Place) -> Check {
    fs::write(p.at("a"), "x")?;
    fs::hard_link(p.at("a"), p.at("b"))?;
    fs::hard_link(p.at("a"), p.at("c"))?;
    fs::remove_file(p.at("a"))?;
    fs::write(p.at("b"), "after the first name went")?;
    same!(p.at("c").metadata()?.nlink(), 2);
    Ok(())
}

fn unlinked_while_open(p: &Place) -> Check {
    let file = File::options().create(true).read(true).write(true).truncate(true).open(p.at("gone"))?;
    file.write_all_at(b"before", 0)?;
    fs::remove_file(p.at("gone"))?;
    file.write_all_at(b"after it went", 100)?;
    file.set_len(50)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    let mut start = [0; 6];
    file.read_exact_at(&mut start, 0)?;
    same!(&start, b"before");
    // The name is taken by something else while the first is still open.
    fs::write(p.at("gone"), "another file")?;
    file.write_all_at(b"still the first", 0)?;
    drop(file);
    same!(fs::read_to_string(p.at("gone"))?, "another file");
    Ok(())
}

fn rmdir(p: &Place) -> Check {
    fs::create_dir_all(p.at("d/e"))?;
    p.refused(&[Errno::NOTEMPTY], || rustix::fs::rmdir(p.at("d")))?;
    p.recorded(|| Ok(fs::remove_dir(p.at("d/e"))?))?;
    p.recorded(|| Ok(fs::remove_dir(p.at("d"))?))?;
    p.refused(&[Errno::NOENT], || rustix::fs::rmdir(p.at("d")))?;
    fs::write(p.at("f"), "")?;
    p.refused(&[Errno::NOTDIR], || rustix::fs::rmdir(p.at("f")))?;
    // A directory that is somebody's current one goes all the same, and takes nothing more.
    fs::create_dir(p.at("held"))?;
    let held = rustix::fs::open(p.at("held"), OFlags::DIRECTORY, Mode::empty())?;
    fs::remove_dir(p.at("held"))?;
    p.refused(&[Errno::NOENT], || rustix::fs::openat(&held, "x", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU))
}

fn rename_file(p: &Place) -> Check {
    fs::write(p.at("a"), "x")?;
    p.recorded(|| Ok(fs::rename(p.at("a"), p.at("b"))?))?;
    ensure!(!p.below("a").exists() && p.below("b").exists(), "the lower has other names");
    fs::write(p.at("b"), "written under the new name")?;
    p.refused(&[Errno::NOENT], || rustix::fs::rename(p.at("a"), p.at("c")))
}

fn rename_between(p: &Place) -> Check {
    fs::create_dir(p.at("d"))?;
    fs::create_dir(p.at("e"))?;
    let file = File::create(p.at("d/a"))?;
    file.write_all_at(b"one", 0)?;
    fs::rename(p.at("d/a"), p.at("e/b"))?;
    // A descriptor follows its file.
    file.write_all_at(b"two", 3)?;
    same!(fs::read(p.at("e/b"))?, b"onetwo");
    fs::create_dir(p.at("d/sub"))?;
    fs::write(p.at("d/sub/f"), "x")?;
    fs::rename(p.at("d/sub"), p.at("e/sub"))?;
    fs::write(p.at("e/sub/f"), "y")?;
    p.refused(&[Errno::INVAL], || rustix::fs::rename(p.at("e"), p.at("e/sub/e")))
}

fn rename_tree(p: &Place) -> Check {
    fs::create_dir_all(p.at("from/a/b"))?;
    let open = File::create(p.at("from/a/b/file"))?;
    fs::hard_link(p.at("from/a/b/file"), p.at("outside"))?;
    fs::rename(p.at("from"), p.at("to"))?;
    fs::write(p.at("to/a/b/new"), "made below the new name")?;
    open.write_all_at(b"written through an old descriptor", 0)?;
    fs::rename(p.at("to/a/b"), p.at("b"))?;
    fs::remove_dir(p.at("to/a"))?;
    Ok(())
}

fn rename_onto_file(p: &Place) -> Check {
    fs::write(p.at("a"), "new")?;
    fs::write(p.at("b"), "replaced")?;
    fs::hard_link(p.at("b"), p.at("other name of b"))?;
    p.recorded(|| Ok(fs::rename(p.at("a"), p.at("b"))?))?;
    same!(fs::read(p.at("b"))?, b"new");
    same!(p.at("other name of b").metadata()?.nlink(), 1);
    fs::create_dir(p.at("d"))?;
    p.refused(&[Errno::ISDIR], || rustix::fs::rename(p.at("b"), p.at("d")))?;
    p.refused(&[Errno::NOTDIR], || rustix::fs::rename(p.at("d"), p.at("b")))
}

fn rename_onto_open(p: &Place) -> Check {
    fs::write(p.at("a"), "new")?;
    let old = File::create(p.at("b"))?;
    fs::rename(p.at("a"), p.at("b"))?;
    old.write_all_at(b"into the one that was replaced", 0)?;
    same!(fs::read(p.at("b"))?, b"new");
    Ok(())
}

fn rename_onto_directory(p: &Place) -> Check {
    fs::create_dir_all(p.at("a/inside"))?;
    fs::create_dir(p.at("b"))?;
    p.recorded(|| Ok(fs::rename(p.at("a"), p.at("b"))?))?;
    ensure!(p.below("b/inside").is_dir(), "not the directory that was moved");
    fs::create_dir(p.at("c"))?;
    p.refused(&[Errno::NOTEMPTY, Errno::EXIST], || rustix::fs::rename(p.at("c"), p.at("b")))
}

fn rename_same_object(p: &Place) -> Check {
    fs::write(p.at("a"), "x")?;
    fs::hard_link(p.at("a"), p.at("b"))?;
    // POSIX: does nothing, and both names stay.
    fs::rename(p.at("a"), p.at("b"))?;
    ensure!(p.at("a").exists() && p.at("b").exists(), "a name went");
    Ok(())
}

fn rename_noreplace(p: &Place) -> Check {
    fs::write(p.at("a"), "a")?;
    fs::write(p.at("b"), "b")?;
    let rename = |to: &str| rustix::fs::renameat_with(CWD, p.at("a"), CWD, p.at(to), RenameFlags::NOREPLACE);
    p.refused(&[Errno::EXIST], || rename("b"))?;
    p.recorded(|| Ok(rename("c")?))
}

fn rename_exchange(p: &Place) -> Check {
    fs::write(p.at("a"), "a")?;
    fs::write(p.at("b"), "b")?;
    let exchange = |to: &str| rustix::fs::renameat_with(CWD, p.at("a"), CWD, p.at(to), RenameFlags::EXCHANGE);
    p.recorded(|| Ok(exchange("b")?))?;
    same!(fs::read(p.at("a"))?, b"b");
    fs::write(p.at("b"), "written to what was a")?;
    p.refused(&[Errno::NOENT], || exchange("not there"))
}

fn rename_exchange_mixed(p: &Place) -> Check {
    fs::create_dir_all(p.at("one/d"))?;
    fs::create_dir(p.at("two"))?;
    fs::write(p.at("two/f"), "f")?;
    rustix::fs::renameat_with(CWD, p.at("one/d"), CWD, p.at("two/f"), RenameFlags::EXCHANGE)?;
    ensure!(p.below("one/d").is_file() && p.below("two/f").is_dir(), "not exchanged");
    fs::write(p.at("two/f/below"), "x")?;
    fs::write(p.at("one/d"), "y")?;
    Ok(())
}

fn rename_with(p: &Place, from: &str, to: &str, flags: RenameFlags) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, p.at(from), CWD, p.at(to), flags)
}

/// A whiteout is a character device with number 0:0.
fn is_whiteout(p: &Place, name: &str) -> Check {
    for path in [p.at(name), p.below(name)] {
        let found = path.symlink_metadata()?;
        same!((found.mode() & 0o170_000, found.rdev()), (0o020_000, 0));
    }
    Ok(())
}

fn rename_whiteout(p: &Place) -> Check {
    fs::write(p.at("a"), "x")?;
    fs::create_dir_all(p.at("d/inside"))?;
    fs::create_dir(p.at("e"))?;
    p.recorded(|| Ok(rename_with(p, "a", "b", RenameFlags::WHITEOUT)?))?;
    is_whiteout(p, "a")?;
    same!(fs::read(p.at("b"))?, b"x");
    // A directory, into another one.
    p.recorded(|| Ok(rename_with(p, "d", "e/d", RenameFlags::WHITEOUT)?))?;
    is_whiteout(p, "d")?;
    fs::write(p.at("e/d/inside/f"), "below what was moved")?;
    // Whiteouts are names like others.
    fs::remove_file(p.at("d"))?;
    fs::write(p.at("d"), "where the directory was")?;
    p.recorded(|| Ok(rename_with(p, "a", "c", RenameFlags::empty())?))?;
    is_whiteout(p, "c")?;
    rustix::fs::chownat(CWD, p.at("c"), Some(rustix::fs::Uid::from_raw(5)), None, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn rename_whiteout_onto(p: &Place) -> Check {
    for name in ["a", "b", "c"] {
        fs::write(p.at(name), name)?;
    }
    fs::hard_link(p.at("b"), p.at("other name of b"))?;
    let open = File::options().write(true).open(p.at("c"))?;
    p.recorded(|| Ok(rename_with(p, "a", "b", RenameFlags::WHITEOUT)?))?;
    is_whiteout(p, "a")?;
    same!(fs::read(p.at("b"))?, b"a");
    same!(p.at("other name of b").metadata()?.nlink(), 1);
    // Onto one that is open and goes with that, and onto the whiteout itself.
    rename_with(p, "b", "c", RenameFlags::WHITEOUT)?;
    open.write_all_at(b"into the one that was replaced", 0)?;
    rename_with(p, "c", "a", RenameFlags::WHITEOUT)?;
    is_whiteout(p, "b")?;
    is_whiteout(p, "c")?;
    same!(fs::read(p.at("a"))?, b"a");
    Ok(())
}

fn rename_whiteout_inherits(p: &Place) -> Check {
    fs::create_dir(p.at("d"))?;
    let acl = std::process::Command::new("setfacl").args(["-m", "d:u:1000:rwx,d:g:1001:rx"]).arg(p.at("d")).status()?;
    ensure!(acl.success(), "setfacl failed");
    std::os::unix::fs::chown(p.at("d"), None, Some(4242))?;
    fs::set_permissions(p.at("d"), fs::Permissions::from_mode(0o2775))?;
    fs::write(p.at("d/a"), "x")?;
    p.recorded(|| Ok(rename_with(p, "d/a", "b", RenameFlags::WHITEOUT)?))?;
    is_whiteout(p, "d/a")
}

/// Each combination of flags: done, or refused without a trace.
fn rename_flags(p: &Place) -> Check {
    const ALL: [RenameFlags; 3] = [RenameFlags::NOREPLACE, RenameFlags::EXCHANGE, RenameFlags::WHITEOUT];
    for bits in 0..8_u8 {
        let chosen = ALL.iter().enumerate().filter(|(bit, _)| bits & 1 << bit != 0);
        let flags = chosen.fold(RenameFlags::empty(), |flags, (_, flag)| flags | *flag);
        let name = |name: &str| format!("{name}-{bits}");
        let (from, onto, free) = (name("from"), name("onto"), name("free"));
        fs::write(p.at(&from), "from")?;
        fs::write(p.at(&onto), "onto")?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if exchange && flags != RenameFlags::EXCHANGE {
            p.refused(&[Errno::INVAL], || rename_with(p, &from, &onto, flags))?;
            continue;
        }
        if exchange {
            p.refused(&[Errno::NOENT], || rename_with(p, &from, &free, flags))?;
        }
        if flags.contains(RenameFlags::NOREPLACE) {
            p.refused(&[Errno::EXIST], || rename_with(p, &from, &onto, flags))?;
            p.recorded(|| Ok(rename_with(p, &from, &free, flags)?))?;
            same!(fs::read(p.at(&free))?, b"from");
        } else {
            p.recorded(|| Ok(rename_with(p, &from, &onto, flags)?))?;
            same!(fs::read(p.at(&onto))?, b"from");
        }
        let left = p.at(&from).symlink_metadata();
        same!(left.is_ok(), exchange || flags.contains(RenameFlags::WHITEOUT));
    }
    fs::write(p.at("f"), "x")?;
    p.refused(&[Errno::INVAL], || rename_with(p, "f", "g", RenameFlags::from_bits_retain(8)))
}

fn names_of_any_bytes(p: &Place) -> Check {
    for byte in (1..=255).filter(|&byte| byte != b'/') {
        let name = [b'b', byte];
        fs::write(p.dir.join(OsStr::from_bytes(&name)), [byte])?;
    }
    let odd: &[&[u8]] = &[b" ", b"\\", b"...", b"-rf", b"\"'`$(x)", b"\xf0\x9f\xa6\x80", b"\xed\xa0\x80", b"a\nb"];
    for name in odd {
        fs::write(p.dir.join(OsStr::from_bytes(name)), name)?;
    }
    fs::rename(p.dir.join(OsStr::from_bytes(b"\xed\xa0\x80")), p.dir.join(OsStr::from_bytes(b"\xff\xff")))?;
    Ok(())
}

fn longest_name(p: &Place) -> Check {
    let longest = "n".repeat(255);
    fs::write(p.at(&longest), "x")?;
    fs::create_dir(p.at(&"d".repeat(255)))?;
    symlink(&longest, p.at(&"s".repeat(255)))?;
    fs::rename(p.at(&longest), p.at(&"m".repeat(255)))?;
    fs::hard_link(p.at(&"m".repeat(255)), p.at(&longest))?;
    fs::remove_file(p.at(&longest))?;
    p.refused(&[Errno::NAMETOOLONG], || rustix::fs::mkdir(p.at(&"e".repeat(256)), Mode::RWXU))
}

/// The lower gives the inode number, and soon the same handle but for its generation, to another object.
fn name_used_again(p: &Place) -> Check {
    for round in 0..50 {
        fs::write(p.at("again"), format!("file {round}"))?;
        fs::remove_file(p.at("again"))?;
        fs::create_dir(p.at("again"))?;
        fs::write(p.at("again/file"), format!("below {round}"))?;
        fs::remove_file(p.at("again/file"))?;
        fs::remove_dir(p.at("again"))?;
    }
    fs::write(p.at("again"), "the last one")?;
    Ok(())
}

fn deep_tree(p: &Place) -> Check {
    // Longer than PATH_MAX: only steps of one directory reach the end.
    let mut at = rustix::fs::open(&p.dir, OFlags::DIRECTORY, Mode::empty())?;
    let name = "deep-".repeat(20);
    for _ in 0..60 {
        rustix::fs::mkdirat(&at, &name, Mode::RWXU)?;
        at = rustix::fs::openat(&at, &name, OFlags::DIRECTORY, Mode::empty())?;
    }
    let end = rustix::fs::openat(&at, "end", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)?;
    rustix::io::write(&end, b"far down")?;
    Ok(())
}

fn many_names(p: &Place) -> Check {
    for number in 0..1500 {
        File::create(p.at(&format!("file-{number:05}")))?;
    }
    for number in (0..1500).step_by(3) {
        fs::remove_file(p.at(&format!("file-{number:05}")))?;
    }
    for number in (1..1500).step_by(3) {
        fs::rename(p.at(&format!("file-{number:05}")), p.at(&format!("moved-{number:05}")))?;
    }
    same!(fs::read_dir(&p.dir)?.count(), 1000);
    Ok(())
}

fn race(p: &Place) -> Check {
    for name in ["d1", "d2", "d3"] {
        fs::create_dir(p.at(name))?;
    }
    worker::together(4, |number| worker::shuffle(&p.dir, number, 600))
}

/// Refused by the VFS or by the lower: none leaves a record.
fn refused(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    p.refused(&[Errno::NOTDIR], || rustix::fs::mkdir(p.at("f/d"), Mode::RWXU))?;
    p.refused(&[Errno::NOENT], || rustix::fs::mkdir(p.at("no/d"), Mode::RWXU))?;
    p.refused(&[Errno::INVAL, Errno::EXIST, Errno::BUSY, Errno::NOTEMPTY], || {
        rustix::fs::rename(p.at("."), p.at("f2"))
    })?;
    p.refused(&[Errno::XDEV], || rustix::fs::rename(p.at("f"), "/tmp/reelfs-elsewhere"))?;
    p.refused(&[Errno::XDEV], || rustix::fs::link(p.at("f"), "/tmp/reelfs-elsewhere"))?;
    p.refused(&[Errno::INVAL], || {
        rustix::fs::renameat_with(CWD, p.at("f"), CWD, p.at("g"), RenameFlags::EXCHANGE | RenameFlags::NOREPLACE)
    })
}
