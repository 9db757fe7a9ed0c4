// SPDX-License-Identifier: GPL-2.0-or-later

//! `durable`: what promises durability returns when the log has it on stable storage, and not before; and waits for
//! nobody else's work.

use crate::background::Background;
use crate::check::{ensure, same, Check, Failure};
use crate::consumer::Tap;
use crate::machine::Frozen;
use crate::pattern::pattern;
use crate::rig::{Rig, Stage};
use crate::{worker, Context, Suite, Test, TestResult};
use rustix::fs::{Mode, OFlags};
use rustix::io::ReadWriteFlags;
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

pub const SUITE: Suite = Suite {
    name: "durable",
    timeout: 1800,
    disks: &[("lower", 1024), ("spool", 1024), ("media", 1024)],
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
        Test::new("fsync", |_| waits("fsync", |path| write_then(path, |file| file.sync_all()))),
        Test::new("fdatasync", |_| waits("fdatasync", |path| write_then(path, |file| file.sync_data()))),
        Test::new("o-sync", |_| waits("o-sync", |path| open_and_write(path, OFlags::SYNC))),
        Test::new("o-dsync", |_| waits("o-dsync", |path| open_and_write(path, OFlags::DSYNC))),
        Test::new("rwf-sync", |_| waits("rwf-sync", |path| write_with(path, ReadWriteFlags::SYNC))),
        Test::new("rwf-dsync", |_| waits("rwf-dsync", |path| write_with(path, ReadWriteFlags::DSYNC))),
        Test::new("syncfs", |_| waits("syncfs", |path| write_then(path, |file| Ok(rustix::fs::syncfs(file)?)))),
        Test::new("sync", |_| {
            waits("sync", |path| {
                write_then(path, |_| {
                    rustix::fs::sync();
                    Ok(())
                })
            })
        }),
        Test::new("fsync-after-truncate", |_| {
            waits("truncate", |path| change_then_fsync(path, |file| file.set_len(10)))
        }),
        Test::new("fsync-after-chmod", |_| {
            waits("chmod", |path| change_then_fsync(path, |file| Ok(rustix::fs::fchmod(file, Mode::RUSR)?)))
        }),
        Test::new("fsync-after-xattr", |_| {
            waits("xattr", |path| {
                change_then_fsync(path, |file| {
                    Ok(rustix::fs::fsetxattr(file, "user.x", b"y", rustix::fs::XattrFlags::empty())?)
                })
            })
        }),
        Test::new("fsync-of-a-new-file", |_| {
            waits("create", |path| Ok(File::create(path.with_extension("new"))?.sync_all()?))
        }),
        Test::new("fsync-of-a-directory", |_| waits("directory", fsync_directory)),
        Test::new("fsync-after-rename", |_| waits("rename", fsync_after_rename)),
        Test::new("fsync-through-another-descriptor", |_| waits("other", fsync_through_another)),
        Test::new("waits-for-the-stopped-daemon", stopped_daemon),
        Test::new("writing-does-not-wait", writing_does_not_wait),
        Test::new("what-is-acknowledged-does-not-wait", acknowledged_does_not_wait),
        Test::new("a-waiting-fsync-can-be-killed", killable),
        Test::new("acknowledged-is-in-the-log", acknowledged_is_in_the_log),
        Test::new("a-writer-asleep-below-delays-no-fsync", asleep_below),
        Test::new("a-frozen-lower-delays-no-other-mount", frozen_elsewhere),
        Test::new("freezing-under-load", freezing_under_load).limit(1200),
    ],
    ..Suite::DEFAULT
};

/// A mount with a consumer in this process.
fn tapped(name: &str) -> Check<(Rig, Tap)> {
    let mut rig = Rig::on_stage(name, false)?;
    rig.mount("ring=4m")?;
    let tap = Tap::start(&rig.mnt, 0, &rig.spool.join("log"))?;
    Ok((rig, tap))
}

fn done(mut rig: Rig, tap: Tap) -> TestResult {
    rig.unmount()?;
    tap.wait()?;
    Ok(rig.close()?)
}

/// `change` has to wait while nothing is acknowledged, and has to end when it is.
fn waits(name: &str, change: fn(&Path) -> Check) -> TestResult {
    let (rig, tap) = tapped(name)?;
    let path = rig.mnt.join("file");
    let file = File::create(&path)?;
    file.write_all_at(&pattern(10_000, 1), 0)?;
    file.sync_all()?;
    tap.hold();
    let asked = path.clone();
    let background = Background::start(name, move || change(&asked));
    background.waits()?;
    tap.release();
    background.ends()??;
    drop(file);
    done(rig, tap)
}

fn write_then(path: &Path, sync: fn(&File) -> std::io::Result<()>) -> Check {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(b"some bytes", 100)?;
    Ok(sync(&file)?)
}

fn change_then_fsync(path: &Path, change: fn(&File) -> std::io::Result<()>) -> Check {
    let file = File::options().write(true).open(path)?;
    change(&file)?;
    Ok(file.sync_all()?)
}

fn open_and_write(path: &Path, flag: OFlags) -> Check {
    let file = rustix::fs::open(path, OFlags::WRONLY | flag, Mode::empty())?;
    same!(rustix::io::pwrite(&file, b"some bytes", 100)?, 10);
    Ok(())
}

fn write_with(path: &Path, flag: ReadWriteFlags) -> Check {
    let file = File::options().write(true).open(path)?;
    same!(rustix::io::pwritev2(&file, &[IoSlice::new(b"some bytes")], 100, flag)?, 10);
    Ok(())
}

fn parent(path: &Path) -> Check<&Path> {
    path.parent().ok_or_else(|| Failure::new("no parent"))
}

fn fsync_directory(path: &Path) -> Check {
    fs::create_dir(path.with_extension("dir"))?;
    Ok(File::open(parent(path)?)?.sync_all()?)
}

fn fsync_after_rename(path: &Path) -> Check {
    fs::rename(path, path.with_extension("moved"))?;
    Ok(File::open(parent(path)?)?.sync_all()?)
}

fn fsync_through_another(path: &Path) -> Check {
    File::options().write(true).open(path)?.write_all_at(b"by one", 0)?;
    Ok(File::open(path)?.sync_all()?)
}

/// The same with the real daemon.
fn stopped_daemon(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("stopped", false)?;
    rig.mount("")?;
    rig.start_daemon()?;
    let path = rig.mnt.join("file");
    fs::write(&path, "x")?;
    File::open(&path)?.sync_all()?;
    rig.signal(Signal::STOP)?;
    let asked = path.clone();
    let background = Background::start("fsync", move || write_then(&asked, |file| file.sync_all()));
    let waited = background.waits();
    rig.signal(Signal::CONT)?;
    waited?;
    background.ends()??;
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn writing_does_not_wait(_: &Context) -> TestResult {
    let (rig, tap) = tapped("writing")?;
    tap.hold();
    let mnt = rig.mnt.clone();
    let background = Background::start("writing without fsync", move || -> Check {
        for number in 0..50 {
            fs::write(mnt.join(format!("file-{number}")), pattern(5000, number))?;
        }
        Ok(())
    });
    background.ends()??;
    tap.release();
    done(rig, tap)
}

fn acknowledged_does_not_wait(_: &Context) -> TestResult {
    let (rig, tap) = tapped("acknowledged")?;
    let (one, two) = (rig.mnt.join("one"), rig.mnt.join("two"));
    fs::write(&one, "x")?;
    fs::write(&two, "x")?;
    File::open(&one)?.sync_all()?;
    File::open(&two)?.sync_all()?;
    tap.hold();
    fs::write(&two, "y")?;
    let background = Background::start("fsync of what did not change", move || File::open(&one)?.sync_all());
    background.ends()??;
    tap.release();
    done(rig, tap)
}

fn killable(_: &Context) -> TestResult {
    let (rig, tap) = tapped("killable")?;
    tap.hold();
    let mut child = worker::append_and_sync(&rig.mnt.join("file")).spawn()?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(child.try_wait()?.is_none(), "fsync did not wait");
    child.kill()?;
    let started = Instant::now();
    let gone = Background::start("a killed process", move || child.wait()).ends();
    tap.release();
    gone??;
    ensure!(started.elapsed() < Duration::from_secs(10), "it took {} s to die", started.elapsed().as_secs());
    done(rig, tap)
}

fn acknowledged_is_in_the_log(_: &Context) -> TestResult {
    let (rig, tap) = tapped("in-the-log")?;
    for number in 0..30 {
        let file = File::create(rig.mnt.join(format!("file-{number}")))?;
        file.write_all_at(&pattern(3000, number), 0)?;
        let committed = rig.ring()?.entry().committed;
        file.sync_all()?;
        let acknowledged = rig.ring()?.entry().acknowledged;
        ensure!(acknowledged >= committed, "fsync returned with {acknowledged} acknowledged of {committed}");
        let log = fs::metadata(rig.spool.join("log"))?.len();
        ensure!(log >= committed, "the log has {log} bytes of {committed}");
    }
    done(rig, tap)
}

/// A writer sleeps in the lower, room in the ring in its hand. What others have committed is acknowledged meanwhile.
fn asleep_below(_: &Context) -> TestResult {
    let (rig, tap) = tapped("asleep")?;
    let (one, two) = (rig.mnt.join("one"), rig.mnt.join("two"));
    fs::write(&one, "x")?;
    let file = File::create(&two)?;
    tap.hold();
    file.write_all_at(b"committed, not acknowledged", 0)?;
    let frozen = Frozen::new(parent(&rig.lower)?).map_err(Failure::of)?;
    let asleep = Background::start("a write into a frozen filesystem", move || fs::write(&one, pattern(100_000, 1)));
    asleep.waits()?;
    let fsync = Background::start("fsync of another file", move || file.sync_all());
    fsync.waits()?;
    tap.release();
    let result = fsync.ends();
    drop(frozen);
    result??;
    asleep.ends()??;
    done(rig, tap)
}

fn frozen_elsewhere(_: &Context) -> TestResult {
    let (rig, tap) = tapped("frozen-one")?;
    let mut other = Rig::on_stage("frozen-other", false)?;
    // Its lower is on another disk.
    other.lower = other.media.join("lower");
    fs::create_dir_all(&other.lower)?;
    other.mount("ring=4m")?;
    let other_tap = Tap::start(&other.mnt, 0, &other.spool.join("log"))?;
    let frozen = Frozen::new(parent(&rig.lower)?).map_err(Failure::of)?;
    let path = rig.mnt.join("file");
    let asleep = Background::start("a write into a frozen filesystem", move || fs::write(&path, "x"));
    asleep.waits()?;
    let mnt = other.mnt.clone();
    let work = Background::start("work on another mount", move || -> Check {
        for number in 0..20 {
            let file = File::create(mnt.join(format!("file-{number}")))?;
            file.write_all_at(&pattern(3000, number), 0)?;
            file.sync_all()?;
        }
        Ok(())
    });
    let result = work.ends();
    drop(frozen);
    result??;
    asleep.ends()??;
    done(other, other_tap)?;
    done(rig, tap)
}

/// Freezing waits for those who write, and those who write wait for the thaw: nobody may wait for both.
fn freezing_under_load(context: &Context) -> TestResult {
    let (rig, tap) = tapped("freezing")?;
    for name in ["d1", "d2", "d3", "d"] {
        fs::create_dir(rig.mnt.join(name))?;
    }
    fs::write(rig.mnt.join("f"), "x")?;
    fs::write(rig.mnt.join("shared"), "x")?;
    let mnt = rig.mnt.clone();
    let rounds = if context.short { 300 } else { 1500 };
    let load = std::thread::spawn(move || {
        worker::together(6, |number| match number % 3 {
            0 => worker::shuffle(&mnt, number, rounds),
            1 => worker::scribble(&mnt.join("shared"), number, rounds),
            _ => worker::fiddle(&mnt, number, rounds),
        })
    });
    let lower = parent(&rig.lower)?.to_owned();
    let mut times = 0;
    while !load.is_finished() {
        drop(Frozen::new(&lower).map_err(Failure::of)?);
        times += 1;
    }
    load.join().map_err(|_| "the load died")??;
    ensure!(times > 3, "frozen only {times} times");
    done(rig, tap)
}
