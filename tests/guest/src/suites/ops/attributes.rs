// SPDX-License-Identifier: GPL-2.0-or-later

//! Operations on attributes: modes, owners, times, xattrs, ACLs, file attributes; and what changes them unasked.

use super::place::{cases, Place};
use crate::check::{ensure, same, Check};
use crate::worker;
use crate::Test;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, CWD};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::{symlink, FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

pub const CASES: &[Test] = cases![attributes:
    "chmod" chmod,
    "chown" chown,
    "chown-clears-set-id-bits" chown_clears,
    "chown-clears-capability" chown_clears_capability,
    "utimens" utimens,
    "utimens-of-a-directory" utimens_directory,
    "utimens-of-all-kinds" utimens_kinds,
    "utimens-by-others" utimens_others,
    "times-of-directories-follow-their-names" parents,
    "attributes-of-the-root-of-the-test" own_directory,
    "set-id-bits-cleared-by-write" write_clears_set_id,
    "set-id-bits-cleared-by-truncate" truncate_clears_set_id,
    "capability-cleared-by-write" write_clears_capability,
    "capability-cleared-by-truncate" truncate_clears_capability,
    "xattr" xattr,
    "xattr-flags" xattr_flags,
    "xattr-namespaces" xattr_namespaces,
    "xattr-large" xattr_large,
    "xattr-many" xattr_many,
    "xattr-of-symlink-and-nodes" xattr_elsewhere,
    "xattr-refused" xattr_refused,
    "mark-is-invisible" mark,
    "acl" acl,
    "acl-removed" acl_removed,
    "acl-and-chmod" acl_chmod,
    "acl-inherited" acl_inherited,
    "acl-default-changed-and-inherited" acl_default,
    "file-attributes" file_attributes,
    "file-attributes-that-bind" binding_attributes,
    "capability-kept" capability_kept,
    "project-id" project,
    "attribute-operations-refused" refused,
    "race-of-attributes" race,
];

fn mode_of(path: &Path) -> Check<u32> {
    Ok(path.symlink_metadata()?.mode() & 0o7777)
}

fn set_mode(path: &Path, mode: u32) -> Check {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
}

fn has_xattr(path: &Path, name: &str) -> bool {
    rustix::fs::lgetxattr(path, name, &mut [0; 4096][..]).is_ok()
}

/// Runs a program; it has to succeed.
fn run(program: &str, arguments: &[&str], path: &Path) -> Check {
    let done = Command::new(program).args(arguments).arg(path).output()?;
    ensure!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

/// Runs a shell command as somebody who may do little.
fn as_user(script: &str, path: &Path) -> Check {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups", "--inh-caps=-all", "sh", "-c", script, "sh"]);
    let done = command.arg(path).output()?;
    ensure!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

fn chmod(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    fs::create_dir(p.at("d"))?;
    for mode in [0, 0o4711, 0o2755, 0o1777, 0o7777, 0o640] {
        p.recorded(|| set_mode(&p.at("f"), mode))?;
        p.recorded(|| set_mode(&p.at("d"), mode))?;
        same!(mode_of(&p.below("f"))?, mode);
    }
    let file = File::open(p.at("f"))?;
    file.set_permissions(fs::Permissions::from_mode(0o604))?;
    Ok(())
}

fn chown(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    symlink("f", p.at("s"))?;
    fs::create_dir(p.at("d"))?;
    for (name, uid, gid) in [("f", 1, 2), ("s", 3, 4), ("d", 5, 6), ("f", u32::MAX - 1, 65_536)] {
        p.recorded(|| Ok(std::os::unix::fs::lchown(p.at(name), Some(uid), Some(gid))?))?;
        let found = p.below(name).symlink_metadata()?;
        same!((found.uid(), found.gid()), (uid, gid));
    }
    std::os::unix::fs::lchown(p.at("d"), None, Some(7))?;
    same!(p.at("d").metadata()?.uid(), 5);
    Ok(())
}

fn chown_clears(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    set_mode(&p.at("f"), 0o6755)?;
    std::os::unix::fs::chown(p.at("f"), Some(1), Some(1))?;
    same!(mode_of(&p.below("f"))?, 0o755);
    Ok(())
}

/// `security.capability`, revision 2: `cap_net_raw` permitted and effective (`include/uapi/linux/capability.h`).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn chown_clears_capability(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    set_xattr(&p.at("f"), "security.capability", &CAPABILITY)?;
    std::os::unix::fs::chown(p.at("f"), Some(1), None)?;
    ensure!(!has_xattr(&p.below("f"), "security.capability"), "the capability survived");
    Ok(())
}

fn set_times(path: &Path, access: Timespec, modification: Timespec) -> Result<(), Errno> {
    let times = Timestamps { last_access: access, last_modification: modification };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

const fn at(tv_sec: i64, tv_nsec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec }
}

fn utimens(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    symlink("f", p.at("s"))?;
    for (name, sec, nsec) in [("f", 1, 1), ("s", 2, 999_999_999), ("f", 4_000_000_000, 5), ("f", 0, 0)] {
        p.recorded(|| Ok(set_times(&p.at(name), at(7, 7), at(sec, nsec))?))?;
        let found = p.below(name).symlink_metadata()?;
        same!((found.mtime(), found.mtime_nsec()), (sec, nsec));
    }
    set_times(&p.at("f"), at(0, rustix::fs::UTIME_OMIT), at(0, rustix::fs::UTIME_NOW))?;
    ensure!(p.at("f").metadata()?.mtime() > 1_000_000_000, "UTIME_NOW set another time");
    // Left as it is by a write of nothing and by reading.
    set_times(&p.at("f"), at(9, 9), at(9, 9))?;
    fs::read(p.at("f"))?;
    Ok(())
}

/// Each way to say it, on each kind of object, and times that few filesystems hold.
fn utimens_kinds(p: &Place) -> Check {
    let now = |tv_nsec| at(0, tv_nsec);
    fs::write(p.at("f"), "x")?;
    fs::create_dir(p.at("d"))?;
    symlink("f", p.at("s"))?;
    rustix::fs::mknodat(CWD, p.at("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)?;
    for name in ["f", "d", "s", "fifo"] {
        let mtime = || Ok::<_, crate::check::Failure>(p.below(name).symlink_metadata()?.mtime());
        for sec in [-1, -2_000_000_000, 1, 2_147_483_647, 2_147_483_648, 5_000_000_000] {
            p.recorded(|| Ok(set_times(&p.at(name), at(1, 1), at(sec, 123_456_789))?))?;
            same!(p.at(name).symlink_metadata()?.mtime(), mtime()?);
        }
        // Beyond what the lower holds: it says what became of it.
        set_times(&p.at(name), at(1, 1), at(1 << 40, 0))?;
        same!(p.at(name).symlink_metadata()?.mtime(), mtime()?);
        set_times(&p.at(name), at(5, 5), at(1000, 5))?;
        set_times(&p.at(name), at(6, 6), now(rustix::fs::UTIME_OMIT))?;
        same!(mtime()?, 1000);
        p.unrecorded(|| Ok(set_times(&p.at(name), now(rustix::fs::UTIME_OMIT), now(rustix::fs::UTIME_OMIT))?))?;
        set_times(&p.at(name), now(rustix::fs::UTIME_OMIT), at(7, 7))?;
        same!(mtime()?, 7);
    }
    // Through a link, and by descriptor.
    let times = Timestamps { last_access: at(1, 1), last_modification: at(77, 77) };
    rustix::fs::utimensat(CWD, p.at("s"), &times, AtFlags::empty())?;
    same!((p.below("f").metadata()?.mtime(), p.below("s").symlink_metadata()?.mtime()), (77, 7));
    let times = Timestamps { last_access: at(1, 1), last_modification: at(88, 999_999_999) };
    rustix::fs::futimens(File::open(p.at("d"))?, &times)?;
    same!(p.below("d").metadata()?.mtime_nsec(), 999_999_999);
    let bad = Timestamps { last_access: at(1, 1), last_modification: at(1, 1_000_000_000) };
    p.refused(&[Errno::INVAL], || rustix::fs::utimensat(CWD, p.at("f"), &bad, AtFlags::empty()))
}

/// Whoever may write may set the time to now, and to nothing else.
fn utimens_others(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    set_mode(&p.dir, 0o755)?;
    set_mode(&p.at("f"), 0o666)?;
    set_times(&p.at("f"), at(1, 1), at(1, 1))?;
    as_user("touch -c \"$1\"", &p.at("f"))?;
    ensure!(p.below("f").metadata()?.mtime() > 1_000_000_000, "the time is not now");
    p.unrecorded(|| as_user("! touch -c -d 2001-01-01 \"$1\" 2>/dev/null", &p.at("f")))
}

fn utimens_directory(p: &Place) -> Check {
    fs::create_dir(p.at("d"))?;
    fs::write(p.at("d/f"), "x")?;
    set_times(&p.at("d"), at(1, 2), at(1_234_567_890, 987_654_321))?;
    Ok(())
}

fn parents(p: &Place) -> Check {
    for name in ["a", "b", "c"] {
        fs::create_dir(p.at(name))?;
    }
    let time = |name: &str| {
        Ok::<_, crate::check::Failure>((p.at(name).metadata()?.mtime(), p.at(name).metadata()?.mtime_nsec()))
    };
    let old = at(1_000_000_000, 1);
    fs::write(p.at("a/f"), "x")?;
    for name in ["a", "b", "c"] {
        set_times(&p.at(name), old, old)?;
    }
    fs::rename(p.at("a/f"), p.at("b/f"))?;
    ensure!(
        time("a")? != (old.tv_sec, old.tv_nsec as _) && time("b")? != (old.tv_sec, old.tv_nsec as _),
        "times stayed"
    );
    fs::hard_link(p.at("b/f"), p.at("c/f"))?;
    ensure!(time("c")? != (old.tv_sec, old.tv_nsec as _), "time of c stayed");
    for name in ["a", "b", "c"] {
        set_times(&p.at(name), old, old)?;
    }
    fs::remove_file(p.at("c/f"))?;
    Ok(())
}

fn own_directory(p: &Place) -> Check {
    set_mode(&p.dir, 0o710)?;
    std::os::unix::fs::chown(&p.dir, Some(11), Some(12))?;
    set_xattr(&p.dir, "user.on-a-directory", b"value")?;
    Ok(())
}

fn write_clears_set_id(p: &Place) -> Check {
    for (name, script) in [
        ("append", "echo y >>\"$1\""),
        ("truncate", ": >\"$1\""),
        ("dd", "dd if=/dev/zero of=\"$1\" conv=notrunc count=1"),
    ] {
        fs::write(p.at(name), "x")?;
        set_mode(&p.at(name), 0o6777)?;
        set_mode(&p.dir, 0o755)?;
        as_user(script, &p.at(name))?;
        same!(mode_of(&p.below(name))?, 0o777);
    }
    // Root's write keeps them.
    fs::write(p.at("root"), "x")?;
    set_mode(&p.at("root"), 0o6755)?;
    File::options().write(true).open(p.at("root"))?.write_all_at(b"y", 0)?;
    same!(mode_of(&p.below("root"))?, 0o6755);
    Ok(())
}

fn truncate_clears_set_id(p: &Place) -> Check {
    fs::write(p.at("f"), "some contents")?;
    set_mode(&p.at("f"), 0o6777)?;
    as_user("truncate -s 3 \"$1\"", &p.at("f"))?;
    same!(mode_of(&p.below("f"))?, 0o777);
    Ok(())
}

fn write_clears_capability(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    set_xattr(&p.at("f"), "security.capability", &CAPABILITY)?;
    let file = File::options().write(true).open(p.at("f"))?;
    file.write_all_at(b"y", 0)?;
    ensure!(!has_xattr(&p.below("f"), "security.capability"), "the capability survived a write");
    Ok(())
}

fn truncate_clears_capability(p: &Place) -> Check {
    fs::write(p.at("f"), "some contents")?;
    set_xattr(&p.at("f"), "security.capability", &CAPABILITY)?;
    File::options().write(true).open(p.at("f"))?.set_len(2)?;
    ensure!(!has_xattr(&p.below("f"), "security.capability"), "the capability survived a truncate");
    Ok(())
}

fn xattr(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    fs::create_dir(p.at("d"))?;
    for name in ["f", "d"] {
        p.recorded(|| Ok(set_xattr(&p.at(name), "user.one", b"first")?))?;
        p.recorded(|| Ok(set_xattr(&p.at(name), "user.one", b"second, longer than the first")?))?;
        p.recorded(|| Ok(set_xattr(&p.at(name), "user.empty", b"")?))?;
        p.recorded(|| Ok(set_xattr(&p.at(name), "user.binary", &[0, 255, 0, 10])?))?;
        p.recorded(|| Ok(set_xattr(&p.at(name), "user.going", b"x")?))?;
        p.recorded(|| Ok(rustix::fs::lremovexattr(p.at(name), "user.going")?))?;
        ensure!(!has_xattr(&p.below(name), "user.going"), "not removed");
    }
    let mut value = [0; 64];
    same!(rustix::fs::lgetxattr(p.at("f"), "user.binary", &mut value[..])?, 4);
    Ok(())
}

fn xattr_flags(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    let set = |flags| rustix::fs::lsetxattr(p.at("f"), "user.x", b"v", flags);
    p.refused(&[Errno::NODATA], || set(XattrFlags::REPLACE))?;
    p.recorded(|| Ok(set(XattrFlags::CREATE)?))?;
    p.refused(&[Errno::EXIST], || set(XattrFlags::CREATE))?;
    p.recorded(|| Ok(set(XattrFlags::REPLACE)?))?;
    p.refused(&[Errno::NODATA], || rustix::fs::lremovexattr(p.at("f"), "user.not-there"))
}

fn xattr_namespaces(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    for name in ["user.x", "trusted.x", "security.x", "security.capability"] {
        let value: &[u8] = if name.ends_with("capability") { &CAPABILITY } else { b"value" };
        p.recorded(|| Ok(set_xattr(&p.at("f"), name, value)?))?;
        ensure!(has_xattr(&p.below("f"), name), "{name} is not in the lower");
    }
    p.refused(&[Errno::OPNOTSUPP, Errno::INVAL], || set_xattr(&p.at("f"), "system.x", b"v"))?;
    p.refused(&[Errno::OPNOTSUPP], || set_xattr(&p.at("f"), "no-namespace", b"v"))
}

fn xattr_large(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    for length in [1000, 3000, 4000, 16_000, 60_000, 65_536] {
        let value = crate::pattern::pattern(length, length as u64);
        p.either(&[Errno::NOSPC, Errno::TOOBIG, Errno::RANGE], || set_xattr(&p.at("f"), "user.large", &value))?;
    }
    p.refused(&[Errno::TOOBIG], || set_xattr(&p.at("f"), "user.large", &vec![1; 65_537]))?;
    fs::write(p.at("g"), "x")?;
    let name = format!("user.{}", "n".repeat(250));
    p.recorded(|| Ok(set_xattr(&p.at("g"), &name, b"longest name")?))
}

fn xattr_many(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    for number in 0..40 {
        set_xattr(&p.at("f"), &format!("user.number-{number}"), format!("value {number}").as_bytes())?;
    }
    for number in (0..40).step_by(2) {
        rustix::fs::lremovexattr(p.at("f"), format!("user.number-{number}"))?;
    }
    Ok(())
}

fn xattr_elsewhere(p: &Place) -> Check {
    symlink("f", p.at("s"))?;
    p.recorded(|| Ok(set_xattr(&p.at("s"), "trusted.on-the-link", b"v")?))?;
    rustix::fs::mknodat(CWD, p.at("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)?;
    p.recorded(|| Ok(set_xattr(&p.at("fifo"), "trusted.on-the-fifo", b"v")?))?;
    p.refused(&[Errno::PERM, Errno::OPNOTSUPP], || set_xattr(&p.at("s"), "user.on-the-link", b"v"))
}

fn xattr_refused(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    set_mode(&p.dir, 0o755)?;
    p.unrecorded(|| {
        as_user("! setfattr -n user.x -v y \"$1\" 2>/dev/null", &p.at("f"))?;
        as_user("! setfattr -n trusted.x -v y \"$1\" 2>/dev/null", &p.at("f"))?;
        as_user("! chmod 777 \"$1\" 2>/dev/null", &p.at("f"))?;
        as_user("! chown 1000 \"$1\" 2>/dev/null", &p.at("f"))?;
        as_user("! touch -d 2000-01-01 \"$1\" 2>/dev/null", &p.at("f"))
    })
}

/// The mark that reelfs keeps on the lower root is not there to be seen, set or removed.
fn mark(p: &Place) -> Check {
    const MARK: &str = "trusted.reelfs";
    if p.plain() {
        return Ok(());
    }
    let root = p.root();
    let mut names = [0; 4096];
    let length = rustix::fs::llistxattr(root, &mut names[..])?;
    ensure!(!String::from_utf8_lossy(&names[..length]).contains(MARK), "listed");
    p.refused(&[Errno::NODATA, Errno::OPNOTSUPP, Errno::PERM], || {
        rustix::fs::lgetxattr(root, MARK, &mut [0; 200][..])
    })?;
    p.refused(&[Errno::PERM, Errno::OPNOTSUPP, Errno::ACCESS], || set_xattr(root, MARK, b"x"))?;
    p.refused(&[Errno::PERM, Errno::OPNOTSUPP, Errno::NODATA, Errno::ACCESS], || rustix::fs::lremovexattr(root, MARK))
}

fn acl(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    fs::create_dir(p.at("d"))?;
    p.recorded(|| run("setfacl", &["-m", "u:1000:rw,g:1001:r,m::rw"], &p.at("f")))?;
    p.recorded(|| run("setfacl", &["-m", "u:1000:rwx,d:u:1000:rwx,d:g:1001:rx"], &p.at("d")))?;
    ensure!(has_xattr(&p.below("f"), "system.posix_acl_access"), "not in the lower");
    ensure!(has_xattr(&p.below("d"), "system.posix_acl_default"), "not in the lower");
    // One that says no more than the mode bits do is stored as a mode.
    fs::write(p.at("same-as-mode"), "x")?;
    run("setfacl", &["--set", "u::rwx,g::rx,o::-"], &p.at("same-as-mode"))?;
    same!(mode_of(&p.below("same-as-mode"))?, 0o750);
    // And it counts.
    set_mode(&p.dir, 0o755)?;
    fs::write(p.at("secret"), "x")?;
    set_mode(&p.at("secret"), 0o600)?;
    as_user("! cat \"$1\" 2>/dev/null", &p.at("secret"))?;
    run("setfacl", &["-m", "u:1000:r"], &p.at("secret"))?;
    as_user("cat \"$1\"", &p.at("secret"))
}

fn acl_removed(p: &Place) -> Check {
    fs::create_dir(p.at("d"))?;
    run("setfacl", &["-m", "u:1000:rwx,d:u:1000:rwx"], &p.at("d"))?;
    p.recorded(|| run("setfacl", &["-k"], &p.at("d")))?;
    ensure!(!has_xattr(&p.below("d"), "system.posix_acl_default"), "still there");
    p.recorded(|| run("setfacl", &["-b"], &p.at("d")))?;
    ensure!(!has_xattr(&p.below("d"), "system.posix_acl_access"), "still there");
    Ok(())
}

/// chmod(2) changes the mask of an ACL.
fn acl_chmod(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    run("setfacl", &["-m", "u:1000:rwx"], &p.at("f"))?;
    set_mode(&p.at("f"), 0o640)?;
    let shown = Command::new("getfacl").arg("-cp").arg(p.at("f")).output()?;
    ensure!(String::from_utf8_lossy(&shown.stdout).contains("mask::r--"), "the mask did not follow");
    Ok(())
}

fn acl_inherited(p: &Place) -> Check {
    fs::create_dir(p.at("d"))?;
    run("setfacl", &["-m", "d:u:1000:rwx,d:g:1001:rx,d:o::-"], &p.at("d"))?;
    fs::write(p.at("d/file"), "x")?;
    fs::create_dir(p.at("d/sub"))?;
    fs::create_dir(p.at("d/sub/sub"))?;
    symlink("x", p.at("d/link"))?;
    rustix::fs::mknodat(CWD, p.at("d/fifo"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
    rustix::fs::open(p.at("d/opened"), OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600))?;
    for name in ["d/file", "d/sub", "d/sub/sub", "d/fifo", "d/opened"] {
        ensure!(has_xattr(&p.below(name), "system.posix_acl_access"), "{name} inherited nothing");
    }
    ensure!(has_xattr(&p.below("d/sub/sub"), "system.posix_acl_default"), "default ACL not handed down");
    ensure!(!has_xattr(&p.below("d/link"), "system.posix_acl_access"), "a symlink has an ACL");
    Ok(())
}

/// A default ACL binds what is made after it was set, not before; directories hand on what they have at that moment.
fn acl_default(p: &Place) -> Check {
    for (name, acl) in [("a", "d:u:1000:rwx"), ("b", "d:u:1000:r,d:u:1002:rwx,d:m::rx,d:g::-,d:o::-")] {
        fs::create_dir(p.at(name))?;
        fs::write(p.at(&format!("{name}/before")), "x")?;
        run("setfacl", &["-m", acl], &p.at(name))?;
        fs::create_dir_all(p.at(&format!("{name}/x/y/z")))?;
        fs::write(p.at(&format!("{name}/x/y/z/f")), "x")?;
        run("setfacl", &["-k"], &p.at(&format!("{name}/x")))?;
        fs::write(p.at(&format!("{name}/x/without")), "x")?;
        fs::write(p.at(&format!("{name}/x/y/with")), "x")?;
        ensure!(!has_xattr(&p.below(&format!("{name}/before")), "system.posix_acl_access"), "inherited before");
        ensure!(!has_xattr(&p.below(&format!("{name}/x/without")), "system.posix_acl_access"), "inherited nothing");
        ensure!(has_xattr(&p.below(&format!("{name}/x/y/with")), "system.posix_acl_access"), "not inherited");
        // Moving inherits nothing.
        fs::rename(p.at(&format!("{name}/before")), p.at(&format!("{name}/x/y/moved")))?;
        ensure!(!has_xattr(&p.below(&format!("{name}/x/y/moved")), "system.posix_acl_access"), "inherited by moving");
    }
    Ok(())
}

/// Files and directories that are left so: a restore has to put this on last.
fn binding_attributes(p: &Place) -> Check {
    fs::create_dir_all(p.at("fixed-directory/sub"))?;
    fs::write(p.at("fixed-directory/sub/f"), "x")?;
    fs::create_dir(p.at("growing-directory"))?;
    for name in ["fixed", "growing"] {
        fs::write(p.at(name), "x")?;
        fs::hard_link(p.at(name), p.at(&format!("fixed-directory/{name}")))?;
        set_xattr(&p.at(name), "user.x", b"before")?;
        set_times(&p.at(name), at(1, 1), at(1_000_000, 5))?;
    }
    let set = |flag: &str, name: &str| p.either_program("chattr", &[flag], &p.at(name));
    if !set("+i", "fixed")? {
        return Ok(());
    }
    ensure!(set("+a", "growing")? && set("+i", "fixed-directory")? && set("+a", "growing-directory")?, "chattr failed");
    p.refused(&[Errno::PERM], || rustix::fs::link(p.at("fixed"), p.at("another")))?;
    p.refused(&[Errno::PERM], || rustix::fs::open(p.at("fixed"), OFlags::WRONLY, Mode::empty()))?;
    p.refused(&[Errno::PERM], || rustix::fs::chmod(p.at("fixed"), Mode::RWXU))?;
    p.refused(&[Errno::PERM], || set_times(&p.at("fixed"), at(1, 1), at(1, 1)))?;
    p.refused(&[Errno::PERM], || set_xattr(&p.at("fixed"), "user.x", b"after"))?;
    p.refused(&[Errno::PERM], || rustix::fs::unlink(p.at("fixed-directory/growing")))?;
    let flags = OFlags::CREATE | OFlags::WRONLY;
    p.refused(&[Errno::PERM, Errno::ACCESS], || rustix::fs::open(p.at("fixed-directory/new"), flags, Mode::RUSR))?;
    p.refused(&[Errno::PERM], || rustix::fs::rename(p.at("fixed-directory"), p.at("moved")))?;
    // What is below a fixed directory is not fixed; what grows, grows.
    fs::write(p.at("fixed-directory/sub/f"), "changed")?;
    p.recorded(|| Ok(std::io::Write::write_all(&mut File::options().append(true).open(p.at("growing"))?, b"more")?))?;
    p.refused(&[Errno::PERM], || rustix::fs::open(p.at("growing"), OFlags::WRONLY, Mode::empty()))?;
    p.recorded(|| Ok(fs::write(p.at("growing-directory/new"), "x")?))?;
    p.refused(&[Errno::PERM], || rustix::fs::unlink(p.at("growing-directory/new")))?;
    let growing = File::options().append(true).open(p.at("growing"))?;
    p.refused(&[Errno::PERM], || rustix::fs::ftruncate(&growing, 0))
}

/// Capabilities that stay: after renaming, linking, reading and running; set by setcap(8).
fn capability_kept(p: &Place) -> Check {
    fs::copy("/bin/true", p.at("true"))?;
    p.recorded(|| run("setcap", &["cap_net_raw,cap_net_admin=ep"], &p.at("true")))?;
    fs::rename(p.at("true"), p.at("moved"))?;
    fs::hard_link(p.at("moved"), p.at("linked"))?;
    let status = Command::new(p.at("linked")).status()?;
    ensure!(status.success(), "it does not run");
    let shown = Command::new("getcap").arg(p.at("moved")).output()?;
    ensure!(String::from_utf8_lossy(&shown.stdout).contains("cap_net_admin,cap_net_raw=ep"), "{shown:?}");
    Ok(())
}

/// chattr(1): recorded or refused.
fn file_attributes(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    fs::create_dir(p.at("d"))?;
    for (name, flags) in [("f", "+d"), ("f", "+S"), ("f", "-S"), ("f", "+A"), ("d", "+A")] {
        p.either_program("chattr", &[flags], &p.at(name))?;
    }
    // Flags that bind: a file that may only grow, and one that may not change.
    for (name, flag) in [("append", "a"), ("fixed", "i")] {
        fs::write(p.at(name), "x")?;
        if p.either_program("chattr", &[&format!("+{flag}")], &p.at(name))? {
            p.refused(&[Errno::PERM], || rustix::fs::unlink(p.at(name)))?;
            let overwrite = OFlags::WRONLY | OFlags::TRUNC;
            p.refused(&[Errno::PERM], || rustix::fs::open(p.at(name), overwrite, Mode::empty()))?;
            run("chattr", &[&format!("-{flag}")], &p.at(name))?;
            fs::write(p.at(name), "changed again")?;
        }
    }
    Ok(())
}

fn project(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    fs::create_dir(p.at("d"))?;
    // chattr(1) sets the file attributes, as they are, before the project id: a refusal may leave that record.
    let project = |arguments: &[&str], name: &str| Command::new("chattr").args(arguments).arg(p.at(name)).output();
    project(&["-p", "1234"], "f")?;
    if project(&["-p", "77", "+P"], "d")?.status.success() {
        fs::write(p.at("d/inherits"), "x")?;
        fs::create_dir(p.at("d/sub"))?;
    }
    Ok(())
}

fn refused(p: &Place) -> Check {
    p.refused(&[Errno::NOENT], || rustix::fs::chmod(p.at("no"), Mode::RWXU))?;
    let root = (Some(Uid::ROOT), Some(Gid::ROOT));
    p.refused(&[Errno::NOENT], || rustix::fs::chownat(CWD, p.at("no"), root.0, root.1, AtFlags::empty()))?;
    p.refused(&[Errno::NOENT], || set_times(&p.at("no"), at(1, 1), at(1, 1)))?;
    symlink("x", p.at("s"))?;
    let mode = Mode::RWXU;
    p.refused(&[Errno::OPNOTSUPP], || rustix::fs::chmodat(CWD, p.at("s"), mode, AtFlags::SYMLINK_NOFOLLOW))
}

fn race(p: &Place) -> Check {
    fs::write(p.at("f"), "x")?;
    fs::create_dir(p.at("d"))?;
    worker::together(3, |number| worker::fiddle(&p.dir, number, 150))?;
    Ok(())
}
