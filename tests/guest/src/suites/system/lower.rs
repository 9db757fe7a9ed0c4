// SPDX-License-Identifier: GPL-2.0-or-later

//! A lower that runs into limits, goes read-only, or dies: what programs are told, and what the log then holds.

use super::{done, kind, mounted, mounted_on, perl, shell};
use crate::check::{ensure, same, Check};
use crate::dm::{self, Dm};
use crate::machine::{run, Mounted};
use crate::pattern::pattern;
use crate::rig::{none, Rig};
use crate::{Context, TestResult};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// statfs is the lower's, but for the type.
pub fn size_and_room(_: &Context) -> TestResult {
    let rig = mounted("statfs", "")?;
    fs::write(rig.mnt.join("file"), pattern(3_000_000, 1))?;
    rustix::fs::syncfs(File::open(&rig.lower)?)?;
    let (upper, lower) = (rustix::fs::statfs(&rig.mnt)?, rustix::fs::statfs(&rig.lower)?);
    same!(upper.f_type as u64, 0x5245_454c);
    same!((upper.f_bsize, upper.f_blocks, upper.f_bfree), (lower.f_bsize, lower.f_blocks, lower.f_bfree));
    same!((upper.f_bavail, upper.f_files, upper.f_ffree), (lower.f_bavail, lower.f_files, lower.f_ffree));
    same!(upper.f_namelen, lower.f_namelen);
    let upper = rustix::fs::statvfs(&rig.mnt)?;
    same!(upper.f_frsize, rustix::fs::statvfs(&rig.lower)?.f_frsize);
    done(rig)
}

/// A user comes to the end of what he may have, in the middle of a write: what was taken is in the log, and no more.
pub fn quota(context: &Context) -> TestResult {
    let kind = kind()?;
    let disk = context.disk("other");
    // ext4 keeps count when it is made to; Mounted::fresh does not, so this is added.
    let (mut rig, lower) = if kind == "ext4" {
        let at = PathBuf::from("/run/stage/quota.disk");
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-O".as_ref(), "quota".as_ref(), disk.as_os_str()])?;
        let lower = Mounted::new("ext4", &disk, &at, "usrquota,grpquota")?;
        let mut rig = Rig::on_stage("quota", false)?;
        rig.lower = at.join("lower");
        fs::create_dir(&rig.lower)?;
        rig.mount("")?;
        rig.start_daemon()?;
        (rig, lower)
    } else {
        mounted_on("quota", &disk, "usrquota", "")?
    };
    fs::set_permissions(&rig.mnt, fs::Permissions::from_mode(0o777))?;
    // A limit of 1000 KiB and 10 files: with quotactl_fd(2), 443, QCMD(Q_SETQUOTA 0x800008, USRQUOTA 0), or for xfs
    // with its own tool.
    if kind == "ext4" {
        let script = r#"
            open(my $f, "<", $ARGV[0]) or die;
            my $limits = pack("Q8 L x4", 1000, 1000, 0, 10, 10, 0, 0, 0, 0x5);
            syscall(443, fileno($f), 0x800008 << 8, 4000, $limits) == 0 or die "quotactl: $!";
        "#;
        perl(script, &[lower.path().as_os_str()])?;
    } else {
        shell(r#"xfs_quota -x -c 'limit -u bsoft=1000k bhard=1000k isoft=10 ihard=10 4000' "$1""#, &[lower.path()])?;
    }
    let user = r#"exec setpriv --reuid 4000 --regid 4000 --clear-groups sh -c "$2" sh "$1""#;
    let script = r#"
        cd "$1"; mkdir d
        dd if=/dev/urandom of=d/whole bs=100k count=5 status=none || exit 1
        if said=$(dd if=/dev/urandom of=d/cut bs=700k count=3 status=none 2>&1); then exit 2; fi
        case "$said" in *"quota exceeded"*) ;; *) echo "$said" >&2; exit 3 ;; esac
        if dd if=/dev/urandom of=d/direct bs=64k count=30 oflag=direct status=none 2>/dev/null; then exit 4; fi
        rm d/direct d/cut
        for i in 1 2 3 4 5 6 7 8 9 10 11 12; do mkdir d/d$i 2>/dev/null || break; done
        [ ! -e d/d11 ] || exit 6
        rmdir d/d1; mv d/d2 d/moved; echo "room again" >d/again
        # ext4 has done a part of it when it comes to the limit.
        if fallocate -l 10m d/whole 2>/dev/null; then exit 5; fi
    "#;
    shell(user, &[&rig.mnt, Path::new(script)])?;
    none("mount and lower differ", &rig.differences(&rig.mnt, &rig.lower)?)?;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    rig.close()?;
    lower.unmount()
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

/// A tree on which the last thing that has gone well is known.
fn settle(rig: &Rig) -> Check<File> {
    shell(r#"cd "$1"; mkdir d; echo text >d/f; ln d/f g; cp -r /etc/default d/copy"#, &[&rig.mnt])?;
    let file = File::create(rig.mnt.join("open"))?;
    file.write_all_at(&pattern(100_000, 1), 0)?;
    file.sync_all()?;
    rustix::fs::syncfs(&file)?;
    Ok(file)
}

/// Nothing can be changed any more, and no change is recorded that was not made.
fn dead(rig: &Rig, file: &File, how: &[Errno]) -> Check {
    let before = rig.records()?;
    let tried = [
        ("write", errno(file.write_all_at(&pattern(5000, 2), 0))),
        ("mkdir", errno(fs::create_dir(rig.mnt.join("new")))),
        ("unlink", errno(fs::remove_file(rig.mnt.join("g")))),
        ("rename", errno(fs::rename(rig.mnt.join("g"), rig.mnt.join("h")))),
        ("chmod", errno(fs::set_permissions(rig.mnt.join("g"), fs::Permissions::from_mode(0o600)))),
        ("truncate", errno(file.set_len(7))),
    ];
    for (what, error) in tried {
        ensure!(error.is_some_and(|error| how.contains(&error)), "{what}: {error:?}, should be one of {how:?}");
    }
    same!(rig.records()?, before);
    Ok(())
}

/// The lower with its journal replayed, against what the media have.
fn revived(mut rig: Rig, lower: Mounted, device: &Path) -> TestResult {
    let kind = kind()?;
    rig.unmount()?;
    rig.drain()?;
    let at = lower.path().to_owned();
    lower.unmount()?;
    let lower = Mounted::new(kind, device, &at, "")?;
    // It stays on the disk where there is room.
    rig.restored_equals_lower()?;
    rig.close()?;
    lower.unmount()
}

/// `FS_IOC_SHUTDOWN`: as if the power had gone, but for the kernel.
pub fn shut_down(context: &Context) -> TestResult {
    let disk = context.disk("other");
    let (rig, lower) = mounted_on("shut-down", &disk, "", "")?;
    let file = settle(&rig)?;
    // Through the mount it is refused.
    let script = r#"
        open(my $f, "<", $ARGV[0]) or die "open: $!";
        my $flags = pack("L", 0);
        print ioctl($f, 0x8004587d, $flags) ? 0 : $! + 0;
    "#;
    same!(perl(script, &[rig.mnt.as_os_str()])?, "25");
    same!(perl(script, &[lower.path().as_os_str()])?, "0");
    dead(&rig, &file, &[Errno::IO, Errno::ROFS])?;
    ensure!(file.sync_all().is_err(), "fsync on a filesystem that was shut down");
    drop(file);
    revived(rig, lower, &disk)
}

/// The lower is remounted read-only under the mount, as an operator does it and as ext4 does after an error.
pub fn gone_read_only(context: &Context) -> TestResult {
    let disk = context.disk("other");
    let (rig, lower) = mounted_on("read-only", &disk, "", "")?;
    let file = settle(&rig)?;
    drop(file);
    if kind()? == "ext4" {
        run("mount", &["-o".as_ref(), "remount,abort".as_ref(), lower.path().as_os_str()])?;
        let opened = File::options().write(true).open(rig.mnt.join("open"));
        match opened {
            Ok(file) => dead(&rig, &file, &[Errno::ROFS, Errno::IO])?,
            Err(error) => same!(Errno::from_io_error(&error), Some(Errno::ROFS)),
        }
        ensure!(errno(fs::create_dir(rig.mnt.join("new"))).is_some(), "mkdir");
    } else {
        // (Our mount of it keeps it from being remounted read-only, which says so.)
        let tried = run("mount", &["-o".as_ref(), "remount,ro".as_ref(), lower.path().as_os_str()]);
        if tried.is_ok() {
            same!(errno(fs::create_dir(rig.mnt.join("new"))), Some(Errno::ROFS));
            run("mount", &["-o".as_ref(), "remount,rw".as_ref(), lower.path().as_os_str()])?;
        }
    }
    ensure!(fs::read(rig.mnt.join("open"))? == pattern(100_000, 1), "reading");
    revived(rig, lower, &disk)
}

/// The disk below fails. What had been promised before is in the log; fsync says that the lower has failed.
pub fn with_errors(context: &Context) -> TestResult {
    let disk = context.disk("other");
    let sectors = dm::sectors(&disk)?;
    let good = format!("0 {sectors} linear {} 0", disk.display());
    let device = Dm::new("errors", &good)?;
    let (mut rig, lower) = mounted_on("errors", &device.path(), "", "")?;
    let file = settle(&rig)?;
    device.load(&format!("0 {sectors} error"))?;
    file.write_all_at(&pattern(200_000, 3), 0).ok();
    ensure!(file.sync_all().is_err(), "fsync to a dead disk");
    let made = fs::create_dir(rig.mnt.join("made or not")).is_ok();
    drop(file);
    // What went into the lower's memory was recorded: the log may be ahead of the disk, never behind.
    rig.unmount()?;
    rig.drain()?;
    lower.unmount()?;
    device.load(&good)?;
    let lower = Mounted::new(kind()?, &device.path(), Path::new("/run/stage/errors.disk"), "")?;
    rig.restore()?;
    ensure!(!made || rig.restored.join("made or not").is_dir(), "what was told to be made is not in the log");
    none("restored tree and lower differ", &rig.differences(&rig.lower.join("d"), &rig.restored.join("d"))?)?;
    let restored = fs::read(rig.restored.join("open"))?;
    let (old, new) = (pattern(100_000, 1), pattern(200_000, 3));
    let whole = restored == new || restored == old || (restored.len() >= 100_000 && new.starts_with(&restored));
    ensure!(whole, "{} bytes that nobody wrote", restored.len());
    fs::remove_dir_all(&rig.restored)?;
    rig.close()?;
    lower.unmount()
}
