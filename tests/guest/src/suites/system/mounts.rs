// SPDX-License-Identifier: GPL-2.0-or-later

//! Freezing, remounting, and other ways to one and the same mount.

use super::{done, kind, mounted, mounted_on, shell};
use crate::background::Background;
use crate::check::{ensure, same, Check, Failure};
use crate::dm::{self, Dm};
use crate::machine::{run, wait_until, Frozen, Mounted};
use crate::pattern::pattern;
use crate::rig::{none, Rig};
use crate::{worker, Context, TestResult};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Six processes that do everything at once.
fn load(rig: &Rig, rounds: u32) -> Check<Background<Check>> {
    for name in ["d1", "d2", "d3", "d"] {
        fs::create_dir(rig.mnt.join(name))?;
    }
    fs::write(rig.mnt.join("f"), "x")?;
    fs::write(rig.mnt.join("shared"), "x")?;
    let mnt = rig.mnt.clone();
    Ok(Background::start("the load", move || {
        worker::together(6, |number| match number % 3 {
            0 => worker::shuffle(&mnt, number, rounds),
            1 => worker::scribble(&mnt.join("shared"), number, rounds),
            _ => worker::fiddle(&mnt, number, rounds),
        })
    }))
}

fn rounds(context: &Context) -> u32 {
    if context.short {
        60
    } else {
        200
    }
}

/// While the mount is frozen nothing changes, in the log or below; reading goes on.
pub fn upper_frozen(context: &Context) -> TestResult {
    let rig = mounted("upper-frozen", "")?;
    let load = load(&rig, rounds(context))?;
    for _ in 0..5 {
        let frozen = Frozen::new(&rig.mnt)?;
        let before = rig.records()?;
        std::thread::sleep(Duration::from_millis(300));
        // (An object that leaves memory now is still told of.)
        let now = rig.records()?;
        ensure!(now <= before + 3, "{} records while frozen", now - before);
        ensure!(fs::read_dir(&rig.mnt)?.count() >= 6, "reading while frozen");
        // All of it is where it should be: a snapshot of the lower would be whole.
        let entry = *rig.ring()?.entry();
        ensure!(entry.committed - entry.acknowledged < 1000, "frozen, and not in the spool: {entry:?}");
        drop(frozen);
        std::thread::sleep(Duration::from_millis(100));
    }
    load.ends()??;
    done(rig)
}

pub fn lower_frozen(context: &Context) -> TestResult {
    let rig = mounted("lower-frozen", "ring=1m")?;
    let load = load(&rig, rounds(context))?;
    for _ in 0..5 {
        let frozen = Frozen::new(rig.lower.parent().ok_or("no parent")?)?;
        std::thread::sleep(Duration::from_millis(300));
        drop(frozen);
        std::thread::sleep(Duration::from_millis(100));
    }
    load.ends()??;
    done(rig)
}

/// The one inside the other, and thawed in the order that is wrong.
pub fn frozen_both_ways(_: &Context) -> TestResult {
    let rig = mounted("both-frozen", "")?;
    let below = rig.lower.parent().ok_or("no parent")?.to_owned();
    for upper_first in [true, false] {
        let mut frozen = vec![Frozen::new(&rig.mnt)?, Frozen::new(&below)?];
        let path = rig.mnt.join(format!("file-{upper_first}"));
        let writer = Background::start("a writer", move || fs::write(path, pattern(10_000, 1)));
        writer.waits()?;
        drop(frozen.remove(usize::from(!upper_first)));
        writer.waits()?;
        drop(frozen);
        writer.ends()??;
    }
    // The lower first: freezing the mount has to sync it, which waits.
    let frozen = Frozen::new(&below)?;
    let path = rig.mnt.join("asleep");
    let writer = Background::start("a writer", move || fs::write(path, "x"));
    writer.waits()?;
    let mnt = rig.mnt.clone();
    let upper = Background::start("freezing the mount", move || Frozen::new(&mnt).map(drop).map_err(Failure::of));
    upper.waits()?;
    drop(frozen);
    writer.ends()??;
    upper.ends()??;
    done(rig)
}

fn remount(at: &Path, options: &str) -> Check {
    let options = format!("remount,{options}");
    run("mount", &["-o".as_ref(), options.as_ref(), at.as_os_str()]).map(drop).map_err(Failure::of)
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

pub fn remounted(_: &Context) -> TestResult {
    let rig = mounted("ro-rw", "")?;
    let file = File::create(rig.mnt.join("open"))?;
    file.write_all_at(b"x", 0)?;
    ensure!(remount(&rig.mnt, "ro").is_err(), "read-only with a file open for writing");
    file.write_all_at(b"still", 0)?;
    drop(file);
    for round in 0..3 {
        remount(&rig.mnt, "ro")?;
        let records = rig.records()?;
        same!(errno(fs::write(rig.mnt.join("open"), "y")), Some(Errno::ROFS));
        same!(errno(fs::create_dir(rig.mnt.join("d"))), Some(Errno::ROFS));
        same!(errno(fs::remove_file(rig.mnt.join("open"))), Some(Errno::ROFS));
        ensure!(fs::read(rig.mnt.join("open"))?.len() >= 4, "reading");
        same!(rig.records()?, records);
        remount(&rig.mnt, "rw")?;
        fs::write(rig.mnt.join("open"), format!("round {round}"))?;
    }
    // One mount of several can be read-only by itself.
    done(rig)
}

/// What is open goes on, and is recorded, until it is closed; then the mount ends in order.
pub fn unmounted_lazily(_: &Context) -> TestResult {
    let mut rig = mounted("lazy", "")?;
    fs::create_dir(rig.mnt.join("d"))?;
    let file = File::create(rig.mnt.join("d/file"))?;
    let unlinked = File::create(rig.mnt.join("unlinked"))?;
    fs::remove_file(rig.mnt.join("unlinked"))?;
    run("umount", &["-l".as_ref(), rig.mnt.as_os_str()])?;
    ensure!(!rig.mnt.join("d").exists(), "still to be seen");
    let before = rig.records()?;
    file.write_all_at(&pattern(300_000, 1), 0)?;
    unlinked.write_all_at(&pattern(300_000, 1), 0)?;
    file.sync_all()?;
    ensure!(rig.records()? >= before + 2, "what went on was not recorded");
    ensure!(rig.ring()?.mounted(), "the ring thinks that the mount is gone");
    drop((file, unlinked));
    let gone = || !rig.ring().is_ok_and(|ring| ring.mounted());
    wait_until("the mount ends", Duration::from_secs(20), gone)?;
    // The mark says that it did so in order.
    let mut value = [0; 200];
    let length = rustix::fs::getxattr(&rig.lower, "trusted.reelfs", &mut value[..])?;
    let mark = reelfs_format::mark::Mark::parse(&value[..length]).map_err(|error| error.to_string())?;
    ensure!(mark.is_clean(), "{mark:?}");
    rig.was_unmounted();
    done(rig)
}

pub fn bind_mounts(context: &Context) -> TestResult {
    let rig = mounted("bind", "")?;
    shell(r#"mkdir -p "$1/d/e"; echo 1 >"$1/d/e/file""#, &[&rig.mnt])?;
    let (one, two) = (context.scratch.join("one"), context.scratch.join("two"));
    for directory in [&one, &two] {
        fs::create_dir(directory)?;
    }
    run("mount", &["--bind".as_ref(), rig.mnt.join("d").as_os_str(), one.as_os_str()])?;
    run("mount", &["--bind".as_ref(), rig.mnt.as_os_str(), two.as_os_str()])?;
    run("mount", &["-o".as_ref(), "remount,bind,ro".as_ref(), two.as_os_str()])?;
    let checked = (|| -> Check {
        fs::write(one.join("e/file"), "through the first")?;
        same!(fs::read(rig.mnt.join("d/e/file"))?, b"through the first");
        same!(errno(fs::write(two.join("d/e/file"), "x")), Some(Errno::ROFS));
        fs::write(rig.mnt.join("beside"), "x")?;
        same!(fs::read(two.join("beside"))?, b"x");
        // Between two mounts of it nothing can be moved or linked, as everywhere.
        same!(errno(fs::rename(rig.mnt.join("beside"), one.join("beside"))), Some(Errno::XDEV));
        fs::create_dir(one.join("made"))?;
        fs::rename(one.join("made"), one.join("e/moved"))?;
        none("bind mount and mount differ", &rig.differences(&rig.mnt.join("d"), &one)?)?;
        Ok(())
    })();
    for directory in [&one, &two] {
        run("umount", &[directory])?;
    }
    checked?;
    done(rig)
}

/// A container's layers: overlayfs with its upper layer on the mount. Copied up, whited out, made opaque, redirected,
/// linked; and seen again by another overlay of the same layers.
pub fn overlay_upper(context: &Context) -> TestResult {
    let rig = mounted("overlay", "")?;
    let base = context.scratch.join("base");
    let merged = context.scratch.join("merged");
    shell(
        r#"mkdir -p "$1" "$2" "$3/upper" "$3/work"; cd "$1"; mkdir -p a/b c gone kept; for i in 1 2 3 4; do seq $i 900 >a/f$i; done
           echo one >a/b/one; echo two >c/two; echo x >gone/x; echo y >kept/y; ln -s a/f1 link; ln a/f2 a/hard"#,
        &[&base, &merged, &rig.mnt],
    )?;
    let at = rig.mnt.display();
    let options = format!("lowerdir={},upperdir={at}/upper,workdir={at}/work,redirect_dir=on", base.display());
    let mount = || run("mount", &["-t", "overlay", "-o", &options, "overlay", &merged.to_string_lossy()]);
    const LIST: &str = r#"find . | sort | xargs stat -c '%n %F %a %s %h'; cat a/f1 elsewhere/two"#;
    mount()?;
    let work = r#"cd "$1"; echo more >>a/f1; chmod 600 a/f2; rm a/f3; mv a/f4 c/moved; rm -r gone; mkdir gone; echo new >gone/new
        mv c elsewhere; rm -r kept; ln a/f1 linked; truncate -s 10 a/b/one; mkfifo pipe; setfattr -n user.a -v b a/b/one
        mkdir -p deep/er; echo made >deep/er/made; rm link; "#;
    let worked = shell(&[work, LIST].concat(), &[&merged]);
    run("umount", &[&merged])?;
    let before = worked?;
    mount()?;
    let again = shell(&[r#"cd "$1"; [ ! -e gone/x ]; [ ! -e kept ]; "#, LIST].concat(), &[&merged]);
    run("umount", &[&merged])?;
    same!(again?, before);
    done(rig)
}

/// A snapshot of the lower's device under load, as LVM makes one: nobody is stuck, and the snapshot is a filesystem in good
/// order.
pub fn lower_snapshot(context: &Context) -> TestResult {
    let disk = context.disk("other");
    // Half for the lower, and half for what the snapshot keeps of it.
    let half = dm::sectors(&disk)? / 2;
    let part = |from: u64| format!("0 {half} linear {} {from}", disk.display());
    let (real, store) = (Dm::new("real", &part(0))?, Dm::new("store", &part(half))?);
    run("modprobe", &["dm-snapshot"])?;
    let origin = Dm::new("origin", &format!("0 {half} snapshot-origin {}", real.path().display()))?;
    let (rig, lower) = mounted_on("snapshot", &origin.path(), "", "")?;
    let load = load(&rig, rounds(context))?;
    std::thread::sleep(Duration::from_millis(500));
    origin.suspend_frozen()?;
    let table = format!("0 {half} snapshot {} {} P 8", real.path().display(), store.path().display());
    let snapshot = Dm::new("snapshot", &table);
    origin.resume()?;
    let snapshot = snapshot?;
    load.ends()??;
    let device = snapshot.path();
    match kind()? {
        "ext4" => run("e2fsck", &["-fn".as_ref(), device.as_os_str()])?,
        _ => {
            // Its log is replayed first: freezing leaves something in it.
            Mounted::new("xfs", &device, &context.scratch.join("snapshot"), "nouuid")?.unmount()?;
            run("xfs_repair", &["-n".as_ref(), device.as_os_str()])?
        }
    };
    drop(snapshot);
    done(rig)?;
    lower.unmount()
}

/// Another namespace has the mount too; the superblock lives until the last one is gone.
pub fn namespaces(_: &Context) -> TestResult {
    let mut rig = mounted("namespaces", "")?;
    let ready = PathBuf::from("/run/stage/namespace.ready");
    let go = PathBuf::from("/run/stage/namespace.go");
    for path in [&ready, &go] {
        let _ = fs::remove_file(path);
    }
    let script = r#"
        echo inside >"$1/inside"; : >"$2"
        while [ ! -e "$3" ]; do sleep 0.1; done
        echo "after the other was unmounted" >"$1/after"; mkdir "$1/made"; sync -f "$1"
    "#;
    let mut child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"])
        .args([&rig.mnt, &ready, &go])
        .spawn()?;
    wait_until("the namespace is there", Duration::from_secs(20), || ready.exists())?;
    same!(fs::read(rig.mnt.join("inside"))?, b"inside\n");
    rig.unmount()?;
    ensure!(rig.ring()?.mounted(), "unmounted, although another namespace has it");
    fs::write(&go, "")?;
    ensure!(child.wait()?.success(), "in the namespace");
    wait_until("the mount ends", Duration::from_secs(20), || !rig.ring().is_ok_and(|ring| ring.mounted()))?;
    ensure!(rig.lower.join("made").is_dir() && rig.lower.join("after").exists(), "not below");
    done(rig)
}

/// A mount below the lower would be cut off: the helper names it.
pub fn submounts_below(_: &Context) -> TestResult {
    let rig = Rig::on_stage("submounts", false)?;
    let (one, two) = (rig.lower.join("sub one"), rig.lower.join("d/two"));
    for directory in [&one, &two] {
        fs::create_dir_all(directory)?;
        run("mount", &["-t".as_ref(), "tmpfs".as_ref(), "tmpfs".as_ref(), directory.as_os_str()])?;
    }
    let tried = Command::new("mount").args(["-t", "reelfs"]).arg(&rig.lower).arg(&rig.mnt).output()?;
    let said = String::from_utf8_lossy(&tried.stderr).into_owned();
    if tried.status.success() {
        run("umount", &[&rig.mnt])?;
    }
    for directory in [&one, &two] {
        run("umount", &[directory])?;
    }
    ensure!(!tried.status.success(), "mounted over what it cuts off");
    for directory in [&one, &two] {
        ensure!(said.contains(&*directory.to_string_lossy()), "{} is not named:\n{said}", directory.display());
    }
    Ok(rig.close()?)
}
