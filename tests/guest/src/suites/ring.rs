// SPDX-License-Identifier: GPL-2.0-or-later

//! `ring`: a log that cannot take a record, a daemon that is not there, and mounts that are refused.

use crate::background::Background;
use crate::check::{ensure, same, Check, Failure};
use crate::consumer::Tap;
use crate::device::rings;
use crate::machine::{is_loaded, run, sh, wait_until, Mounted};
use crate::pattern::pattern;
use crate::rig::{Config, Rig, Stage};
use crate::{worker, Context, Suite, Test, TestResult};
use reelfs_format::mark::{Mark, MARK_CLEAN, MARK_XATTR};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

pub const SUITE: Suite = Suite {
    name: "ring",
    timeout: 2400,
    disks: &[("lower", 1024), ("spool", 1024), ("media", 1024), ("other", 512)],
    set_up: |context| {
        let stage = Stage::new(context, "ext4")?;
        *STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(stage);
        Ok(())
    },
    tear_down: |_| {
        let stage = STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        Ok(stage.ok_or("no stage")?.close()?)
    },
    tests: &[
        Test::new("bad-options", bad_options),
        Test::new("options-are-shown", options_are_shown),
        Test::new("remount-changes-nothing-fixed", remount),
        Test::new("lower-refused", lower_refused),
        Test::new("unsupported-filesystem-refused", unsupported),
        Test::new("mounted-twice-refused", mounted_twice),
        Test::new("mounted-over-itself", over_itself),
        Test::new("full-ring-blocks-and-goes-on", full_blocks),
        Test::new("waiting-for-room-can-be-killed", waiting_killable),
        Test::new("before-the-first-attach-changes-wait", before_attach_waits),
        Test::new("full-ring-fails", full_fails),
        Test::new("silent-consumer-fails", silent_consumer).limit(1200),
        Test::new("smallest-ring-under-load", smallest_ring).limit(1200),
        Test::new("full-spool-blocks-and-goes-on", full_spool).limit(1200),
        Test::new("full-lower", full_lower),
        Test::new("unmount-without-daemon", unmount_without_daemon),
        Test::new("module-stays-while-the-ring-holds-records", module_stays),
        Test::new("ring-discarded", ring_discarded),
        Test::new("remount-goes-on", remount_goes_on),
        Test::new("mark", mark),
        Test::new("another-stream-refused", another_stream),
        Test::new("second-consumer-refused", second_consumer),
    ],
    ..Suite::DEFAULT
};

/// mount(8) has to refuse, and to give the reason.
fn refused(source: &Path, options: &str, reason: &str) -> Check {
    let mnt = Path::new("/run/stage/refused.mnt");
    fs::create_dir_all(mnt)?;
    let mut command = Command::new("mount");
    command.args(["-t", "reelfs"]);
    if !options.is_empty() {
        command.args(["-o", options]);
    }
    let done = command.arg(source).arg(mnt).output()?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() {
        run("umount", &[mnt]).map_err(Failure::of)?;
        return Err(Failure::new(format!("{} with {options:?} was mounted", source.display())));
    }
    ensure!(said.contains(reason), "{options:?}: {said:?} does not say {reason:?}");
    Ok(())
}

fn bad_options(_: &Context) -> TestResult {
    let rig = Rig::on_stage("bad-options", false)?;
    let table = [
        ("ring=0", "ring="),
        ("ring=", "ring"),
        ("ring", "ring"),
        ("ring=banana", "ring="),
        ("ring=3m", "power of two"),
        ("ring=512k", "ring="),
        ("ring=2g", "ring="),
        ("ring=-4m", "ring="),
        ("ring=4mm", "ring="),
        ("ring=99999999999999999999", "ring="),
        ("ring=18446744073709551615g", "ring="),
        ("onstall=panic", "onstall="),
        ("onstall=", "onstall"),
        ("onstall", "onstall"),
        ("stall=0", "stall="),
        ("stall=3601", "stall="),
        ("uidlimit=4095", "uidlimit="),
        ("uidlimit=-1", "uidlimit="),
        ("gaps=1", "gaps"),
        ("flush=0", "flush="),
        ("flush=never", "flush="),
        ("flush=-1", "flush="),
        ("flush=86400", "flush="),
        ("frobnicate", "frobnicate"),
        ("frobnicate=yes", "frobnicate"),
    ];
    for (options, reason) in table {
        refused(&rig.lower, options, reason)?;
    }
    ensure!(rings()?.is_empty(), "a refused mount left a ring");
    Ok(())
}

fn tapped(name: &str, options: &str) -> Check<(Rig, Tap)> {
    let mut rig = Rig::on_stage(name, false)?;
    rig.mount(options)?;
    let tap = Tap::start(&rig.mnt, 0, &rig.spool.join("log"))?;
    Ok((rig, tap))
}

fn done(mut rig: Rig, tap: Tap) -> TestResult {
    rig.unmount()?;
    tap.wait()?;
    Ok(rig.close()?)
}

fn options_are_shown(_: &Context) -> TestResult {
    let (rig, tap) = tapped("shown", "ring=2m,onstall=fail,flush=7,stall=9,uidlimit=64k,noatime")?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let line = mounts.lines().find(|line| line.contains(" reelfs ")).ok_or("not in /proc/mounts")?;
    for wanted in ["ring=2097152", "onstall=fail", "flush=7", "stall=9", "uidlimit=65536", "noatime"] {
        ensure!(line.contains(wanted), "{wanted} is not in {line:?}");
    }
    // What is shown can be given again.
    done(rig, tap)
}

fn remount(_: &Context) -> TestResult {
    let (rig, tap) = tapped("remounted", "ring=2m")?;
    let remount =
        |options: &str| run("mount", &["-o".as_ref(), format!("remount,{options}").as_ref(), rig.mnt.as_os_str()]);
    ensure!(remount("ring=4m").is_err(), "the ring's size was changed");
    remount("ro").map_err(Failure::of)?;
    let write = fs::write(rig.mnt.join("f"), "x");
    ensure!(write.as_ref().is_err_and(|e| e.raw_os_error() == Some(30)), "write to a read-only mount: {write:?}");
    remount("rw").map_err(Failure::of)?;
    fs::write(rig.mnt.join("f"), "x")?;
    done(rig, tap)
}

fn lower_refused(context: &Context) -> TestResult {
    let rig = Rig::on_stage("refused", false)?;
    refused(&rig.lower.join("not-there"), "", "")?;
    fs::write(rig.spool.join("file"), "x")?;
    refused(&rig.spool.join("file"), "", "")?;
    // reelfs on reelfs.
    let (upper, tap) = tapped("below", "ring=1m")?;
    fs::create_dir(upper.mnt.join("inside"))?;
    refused(&upper.mnt.join("inside"), "", "reelfs")?;
    done(upper, tap)?;
    // overlayfs.
    let at = context.scratch.join("overlay");
    fs::create_dir_all(&at)?;
    for name in ["l", "u", "w"] {
        fs::create_dir(rig.spool.join(name))?;
    }
    let dirs = rig.spool.display();
    let options = format!("lowerdir={dirs}/l,upperdir={dirs}/u,workdir={dirs}/w");
    let overlay = Mounted::new("overlay", Path::new("overlay"), &at, &options)?;
    refused(overlay.path(), "", "overlay")?;
    refused(overlay.path(), "force", "stacked")?;
    overlay.unmount()?;
    // An id-mapped mount. The helper would refuse it first, because the directory is elsewhere too.
    let mapped = context.scratch.join("mapped");
    fs::create_dir_all(&mapped)?;
    run(
        "mount",
        &[
            "--bind".as_ref(),
            "-o".as_ref(),
            "X-mount.idmap=b:0:100000:65536".as_ref(),
            rig.lower.as_os_str(),
            mapped.as_os_str(),
        ],
    )?;
    let result = refused(&mapped, "allow-unrecorded", "id-mapped");
    run("umount", &[&mapped])?;
    result?;
    // A read-only mount.
    let fixed = context.scratch.join("fixed");
    fs::create_dir_all(&fixed)?;
    run("mount", &["--bind".as_ref(), rig.lower.as_os_str(), fixed.as_os_str()])?;
    run("mount", &["-o".as_ref(), "remount,bind,ro".as_ref(), fixed.as_os_str()])?;
    // Without the option mount(8) would try once more, for reading.
    let result = refused(&fixed, "rw,allow-unrecorded", "read-only");
    run("umount", &[&fixed])?;
    result?;
    // A directory whose files would use DAX.
    let direct = rig.spool.join("direct");
    fs::create_dir(&direct)?;
    run("chattr", &["+x".as_ref(), direct.as_os_str()])?;
    refused(&direct, "", "DAX")?;
    // A directory that ignores case.
    let disk = context.disk("other");
    run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-O".as_ref(), "casefold".as_ref(), disk.as_os_str()])?;
    let casefold = Mounted::new("ext4", &disk, &context.scratch.join("casefold"), "")?;
    let folded = casefold.path().join("folded");
    fs::create_dir(&folded)?;
    run("chattr", &["+F".as_ref(), folded.as_os_str()])?;
    let result = refused(&folded, "", "case");
    casefold.unmount()?;
    Ok(result?)
}

fn unsupported(context: &Context) -> TestResult {
    refused(Path::new("/proc/sys"), "", "not supported")?;
    refused(Path::new("/payload"), "", "not supported")?;
    let disk = context.disk("other");
    run("mkfs.ext2", &["-q".as_ref(), "-F".as_ref(), disk.as_os_str()])?;
    // The ext4 driver mounts it, so it is what its driver is.
    let ext2 = Mounted::new("ext2", &disk, &context.scratch.join("ext2"), "")?;
    let result = refused(ext2.path(), "", "");
    ext2.unmount()?;
    Ok(result?)
}

fn mounted_twice(_: &Context) -> TestResult {
    let (rig, tap) = tapped("twice", "ring=1m")?;
    refused(&rig.lower, "", "mounted already")?;
    fs::create_dir(rig.mnt.join("inside"))?;
    refused(&rig.lower.join("inside"), "", "mounted already")?;
    done(rig, tap)
}

/// The recommended way: nobody can go behind the mount by the old path.
fn over_itself(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("itself", false)?;
    rig.mnt = rig.lower.clone();
    rig.configure(&Config::default())?;
    rig.mount("ring=2m")?;
    rig.start_daemon()?;
    fs::write(rig.mnt.join("file"), pattern(100_000, 1))?;
    fs::create_dir(rig.mnt.join("dir"))?;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn full_blocks(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("blocks", false)?;
    rig.mount("ring=1m")?;
    rig.start_daemon()?;
    fs::write(rig.mnt.join("first"), "x")?;
    File::open(rig.mnt.join("first"))?.sync_all()?;
    let file = File::create(rig.mnt.join("large"))?;
    rig.signal(Signal::STOP)?;
    let writer = Background::start("writing into a full ring", move || -> Check {
        for number in 0..60 {
            file.write_all_at(&pattern(100_000, number), number * 100_000)?;
        }
        Ok(())
    });
    let waited = writer.waits();
    let mnt = rig.mnt.clone();
    let reader = Background::start("reading while the ring is full", move || -> Check {
        same!(fs::read(mnt.join("first"))?, b"x");
        ensure!(fs::read_dir(&mnt)?.count() > 1, "no names");
        Ok(())
    })
    .ends();
    let waits = rig.ring()?.entry().waits;
    rig.signal(Signal::CONT)?;
    waited?;
    reader??;
    writer.ends()??;
    ensure!(waits > 0, "nobody is counted as having waited");
    same!(fs::metadata(rig.lower.join("large"))?.len(), 6_000_000);
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn waiting_killable(_: &Context) -> TestResult {
    let (rig, tap) = tapped("waiting", "ring=1m")?;
    fs::write(rig.mnt.join("shared"), "x")?;
    tap.hold();
    let mut child = worker::append(&rig.mnt.join("shared"), 1, 1_000_000).spawn()?;
    let full =
        wait_until("the ring is full", Duration::from_secs(60), || rig.ring().is_ok_and(|ring| ring.entry().waits > 0));
    std::thread::sleep(Duration::from_millis(300));
    child.kill()?;
    let gone = Background::start("a killed writer", move || child.wait()).ends();
    tap.release();
    full?;
    gone??;
    done(rig, tap)
}

fn before_attach_waits(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("before", false)?;
    rig.mount("ring=1m")?;
    let mnt = rig.mnt.clone();
    let maker =
        Background::start("mkdir before the first attach", move || rustix::fs::mkdir(mnt.join("d"), Mode::RWXU));
    maker.waits()?;
    // (A change of names waits with its directory locked, so that the directory cannot be read meanwhile.)
    ensure!(!rig.lower.join("d").exists(), "it was made below all the same");
    rig.start_daemon()?;
    maker.ends()??;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

/// `onstall=fail`: nobody attached, every change is an error, and none happens.
fn full_fails(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("fails", false)?;
    rig.mount("ring=1m,onstall=fail")?;
    let io = |result: Result<(), Errno>| -> Check {
        ensure!(result == Err(Errno::IO), "{result:?}, should be EIO");
        Ok(())
    };
    io(rustix::fs::mkdir(rig.mnt.join("d"), Mode::RWXU))?;
    io(rustix::fs::symlink("x", rig.mnt.join("s")))?;
    io(rustix::fs::chmod(&rig.mnt, Mode::RWXU))?;
    io(rustix::fs::setxattr(&rig.mnt, "user.x", b"y", rustix::fs::XattrFlags::empty()))?;
    same!(fs::read_dir(&rig.mnt)?.count(), 0);
    ensure!(rig.ring()?.entry().refused >= 4, "refusals are not counted");
    rig.start_daemon()?;
    fs::write(rig.mnt.join("f"), "x")?;
    // The daemon goes: what is committed stays, what is new is refused.
    rig.kill_daemon()?;
    let file = File::options().write(true).open(rig.mnt.join("f"))?;
    io(rustix::io::pwrite(&file, b"y", 0).map(drop))?;
    io(rustix::fs::unlink(rig.mnt.join("f")))?;
    same!(fs::read(rig.lower.join("f"))?, b"x");
    drop(file);
    rig.start_daemon()?;
    fs::write(rig.mnt.join("f"), "again")?;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

/// `onstall=fail`: a consumer that acknowledges nothing for 30 seconds counts as none.
fn silent_consumer(_: &Context) -> TestResult {
    let (rig, tap) = tapped("silent", "ring=1m,onstall=fail")?;
    let file = File::create(rig.mnt.join("f"))?;
    file.sync_all()?;
    tap.hold();
    let started = Instant::now();
    let mut result = Ok(0);
    while result.is_ok() && started.elapsed() < Duration::from_secs(100) {
        result = rustix::io::pwrite(&file, &pattern(50_000, 1), 0);
    }
    let took = started.elapsed();
    tap.release();
    same!(result, Err(Errno::IO));
    ensure!(took > Duration::from_secs(20) && took < Duration::from_secs(90), "refused after {} s", took.as_secs());
    wait_until("the ring drains", Duration::from_secs(20), || {
        rig.ring().is_ok_and(|ring| ring.entry().acknowledged == ring.entry().committed)
    })?;
    file.write_all_at(b"works again", 0)?;
    file.sync_all()?;
    drop(file);
    done(rig, tap)
}

fn smallest_ring(context: &Context) -> TestResult {
    let mut rig = Rig::on_stage("smallest", false)?;
    rig.mount("ring=1m")?;
    rig.start_daemon()?;
    for name in ["d1", "d2", "d3", "d"] {
        fs::create_dir(rig.mnt.join(name))?;
    }
    fs::write(rig.mnt.join("f"), "x")?;
    fs::write(rig.mnt.join("shared"), "x")?;
    fs::write(rig.mnt.join("large"), pattern(20 << 20, 1))?;
    let (mnt, rounds) = (rig.mnt.clone(), if context.short { 150 } else { 600 });
    worker::together(8, |number| match number % 4 {
        0 => worker::shuffle(&mnt, number, rounds),
        1 => worker::fiddle(&mnt, number, rounds),
        _ => worker::scribble(&mnt.join("shared"), number, rounds),
    })?;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

/// The media take nothing, so the spool fills up to its limit; then they do.
fn full_spool(context: &Context) -> TestResult {
    let mut rig = Rig::on_stage("full-spool", false)?;
    // Volume files do not fit on it: it has next to no room.
    let small = Mounted::new("tmpfs", Path::new("small"), &context.scratch.join("small"), "size=2m")?;
    let media = rig.media.clone();
    rig.media = small.path().join("media");
    fs::create_dir(&rig.media)?;
    rig.configure(&Config { spool_limit: "32M", ..Config::default() })?;
    rig.mount("ring=1m")?;
    rig.start_daemon()?;
    let mnt = rig.mnt.clone();
    let writer = Background::start("writing more than the spool holds", move || -> Check {
        for number in 0..60 {
            fs::write(mnt.join(format!("file-{number}")), pattern(1 << 20, number))?;
        }
        Ok(())
    });
    let stuck = wait_until("the spool is full", Duration::from_secs(60), || {
        rig.ring().is_ok_and(|ring| ring.entry().waits > 0 && ring.entry().used > 500_000)
    });
    std::thread::sleep(Duration::from_secs(3));
    let waited = writer.waits();
    let spooled: u64 =
        fs::read_dir(&rig.spool)?.flatten().filter_map(|entry| entry.metadata().ok()).map(|m| m.len()).sum();
    run("mount", &["-o".as_ref(), "remount,size=200m".as_ref(), small.path().as_os_str()])?;
    stuck?;
    waited?;
    ensure!(spooled <= 34 << 20, "the spool took {spooled} bytes");
    writer.ends()??;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    rig.close()?;
    drop(media);
    small.unmount()
}

/// The lower runs out of space: short writes, `ENOSPC`, and log and tree agree.
fn full_lower(context: &Context) -> TestResult {
    for kind in ["ext4", "tmpfs", "xfs"] {
        let disk = context.disk("other");
        let at = context.scratch.join(kind);
        let small = match kind {
            "tmpfs" => Mounted::new("tmpfs", Path::new("small"), &at, "size=8m,nr_inodes=200")?,
            _ => {
                run("wipefs", &["-aq".as_ref(), disk.as_os_str()])?;
                if kind == "ext4" {
                    run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), disk.as_os_str(), "20M".as_ref()])?;
                } else {
                    run("mkfs.xfs", &["-q".as_ref(), "-f".as_ref(), "-dsize=320m".as_ref(), disk.as_os_str()])?;
                }
                Mounted::new(kind, &disk, &at, "")?
            }
        };
        let mut rig = Rig::on_stage(&format!("full-{kind}"), false)?;
        rig.lower = small.path().join("lower");
        fs::create_dir(&rig.lower)?;
        rig.mount("ring=4m")?;
        rig.start_daemon()?;
        let fill = File::create(rig.mnt.join("fill"))?;
        let mut at = 0;
        let error = loop {
            match rustix::io::pwrite(&fill, &pattern(700_001, at), at) {
                Ok(written) => at += written as u64,
                Err(error) => break error,
            }
        };
        same!(error, Errno::NOSPC);
        let mut refused = 0;
        for number in 0..400 {
            refused += usize::from(fs::write(rig.mnt.join(format!("small-{number}")), pattern(9000, number)).is_err());
            refused += usize::from(rustix::fs::mkdir(rig.mnt.join(format!("dir-{number}")), Mode::RWXU).is_err());
        }
        ensure!(refused > 0, "nothing was refused");
        fill.set_len(at / 2)?;
        fill.write_all_at(b"room again", 3)?;
        drop(fill);
        rig.unmount()?;
        rig.drain()?;
        rig.restored_equals_lower()?;
        rig.close()?;
        small.unmount()?;
    }
    Ok(())
}

fn unmount_without_daemon(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("without", false)?;
    rig.mount("ring=4m")?;
    rig.start_daemon()?;
    fs::write(rig.mnt.join("before"), "x")?;
    rig.kill_daemon()?;
    fs::write(rig.mnt.join("after"), pattern(100_000, 1))?;
    let started = Instant::now();
    rig.unmount()?;
    ensure!(started.elapsed() < Duration::from_secs(30), "umount took {} s", started.elapsed().as_secs());
    let ring = rig.ring()?;
    ensure!(!ring.mounted() && ring.entry().committed > ring.entry().acknowledged, "{:?}", ring.entry());
    rig.start_daemon_for_the_rest()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn module_stays(_: &Context) -> TestResult {
    let (mut rig, tap) = tapped("stays", "ring=1m")?;
    tap.hold();
    fs::write(rig.mnt.join("f"), "x")?;
    std::thread::sleep(Duration::from_millis(100));
    let position = rig.ring()?.entry().acknowledged;
    tap.stop()?;
    rig.unmount()?;
    ensure!(run("rmmod", &["reelfs"]).is_err() && is_loaded("reelfs"), "the module went, and records with it");
    let _ = position;
    let ring = rig.ring()?;
    reelfs_sys::device::Device::open()?.discard(ring.entry().ring, ring.entry().committed)?;
    Ok(rig.close()?)
}

/// Thrown away, the log lacks something; the mark on the tree says so to whoever attaches next.
fn ring_discarded(_: &Context) -> TestResult {
    let (mut rig, tap) = tapped("discarded", "ring=1m")?;
    fs::write(rig.mnt.join("f"), "x")?;
    File::open(rig.mnt.join("f"))?.sync_all()?;
    tap.hold();
    fs::write(rig.mnt.join("f"), "lost")?;
    std::thread::sleep(Duration::from_millis(100));
    tap.stop()?;
    let device = reelfs_sys::device::Device::open()?;
    let ring = *rig.ring()?.entry();
    ensure!(device.discard(ring.ring, ring.committed).is_err(), "a mounted ring was discarded");
    rig.unmount()?;
    let ring = *rig.ring()?.entry();
    ensure!(device.discard(ring.ring, ring.committed - 8).is_err(), "discarded by somebody who had not looked");
    device.discard(ring.ring, ring.committed)?;
    rig.mount("ring=1m")?;
    let again = Tap::start(&rig.mnt, ring.acknowledged, &rig.spool.join("log"));
    ensure!(again.is_err(), "a log with a hole goes on as if nothing were");
    rig.unmount()?;
    Ok(rig.close()?)
}

fn remount_goes_on(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("goes-on", false)?;
    for round in 0..4_u64 {
        rig.mount("ring=4m")?;
        rig.start_daemon()?;
        fs::write(rig.mnt.join(format!("file-{round}")), pattern(50_000, round))?;
        fs::write(rig.mnt.join("shared"), pattern(10_000, round))?;
        if round > 0 {
            fs::rename(rig.mnt.join(format!("file-{}", round - 1)), rig.mnt.join(format!("moved-{round}")))?;
        }
        // In either order.
        if round % 2 == 0 {
            rig.unmount()?;
            rig.drain()?;
        } else {
            rig.drain()?;
            rig.unmount()?;
            rig.start_daemon_for_the_rest()?;
            rig.drain()?;
        }
    }
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn read_mark(lower: &Path) -> Check<Mark> {
    let mut bytes = [0; 256];
    let length = rustix::fs::lgetxattr(lower, MARK_XATTR, &mut bytes[..])?;
    Mark::parse(&bytes[..length]).map_err(|error| Failure::new(format!("{error:?}")))
}

fn mark(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("marked", false)?;
    let mut epoch = 0;
    let mut position = 0;
    for round in 0..3 {
        rig.mount("ring=1m")?;
        let tap = Tap::start(&rig.mnt, position, &rig.spool.join("log"))?;
        let now = read_mark(&rig.lower)?;
        ensure!(now.flags.get() & MARK_CLEAN == 0, "clean while it is mounted");
        same!(now.stream, crate::consumer::stream_of(&rig.mnt));
        ensure!(now.epoch.get() > epoch, "epoch {} after {epoch}", now.epoch.get());
        epoch = now.epoch.get();
        fs::write(rig.mnt.join(format!("f{round}")), "x")?;
        rig.unmount()?;
        tap.wait()?;
        let after = read_mark(&rig.lower)?;
        ensure!(after.flags.get() & MARK_CLEAN != 0, "not clean after unmounting");
        position = fs::metadata(rig.spool.join("log"))?.len();
        same!(after.next_lsn.get(), position);
    }
    Ok(rig.close()?)
}

fn another_stream(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("mine", false)?;
    rig.mount("ring=1m")?;
    rig.start_daemon()?;
    fs::write(rig.mnt.join("f"), "x")?;
    rig.unmount()?;
    rig.drain()?;
    rig.mount("ring=1m")?;
    let tap = Tap::start(&rig.mnt, 0, &rig.spool.join("log"));
    ensure!(tap.as_ref().err().is_some_and(|e| e.to_string().contains("18")), "should be EXDEV (18)");
    rig.start_daemon()?;
    fs::write(rig.mnt.join("g"), "x")?;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn second_consumer(_: &Context) -> TestResult {
    let (rig, tap) = tapped("second", "ring=1m")?;
    let second = Tap::start(&rig.mnt, 0, &rig.spool.join("log2"));
    ensure!(second.as_ref().err().is_some_and(|e| e.to_string().contains("16")), "should be EBUSY (16)");
    sh(&format!("echo x >{}/f", rig.mnt.display()))?;
    done(rig, tap)
}
