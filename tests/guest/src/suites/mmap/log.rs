// SPDX-License-Identifier: GPL-2.0-or-later

//! `mmap`: when stores through mappings reach the log, and what happens when they cannot.

use crate::background::Background;
use crate::check::{ensure, same, Check, Failure};
use crate::consumer::Tap;
use crate::machine::{run, wait_until, Frozen};
use crate::pattern::pattern;
use crate::rig::{Rig, Stage};
use crate::worker;
use crate::{Suite, Test, TestResult};
use reelfs_sys::memory::SharedMapping;
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

pub const SUITE: Suite = Suite {
    name: "mmap",
    timeout: 1200,
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
        Test::new("msync-waits-for-the-acknowledgement", |_| waits("msync", |_, mapping| Ok(mapping.sync(0..PAGE)?))),
        Test::new("fsync-waits-for-the-acknowledgement", |_| waits("fsync", |file, _| Ok(file.sync_all()?))),
        Test::new("syncfs-waits-for-the-acknowledgement", |_| waits("syncfs", |file, _| Ok(rustix::fs::syncfs(file)?))),
        Test::new("captured-when-unmapped", |_| unmapped()),
        Test::new("captured-by-the-clock", |_| clock()),
        Test::new("captured-at-unmount", |_| unmount()),
        Test::new("captured-at-unmount-without-a-daemon", |_| unmount_alone()),
        Test::new("a-lazy-unmount-waits-for-the-mapping", |_| lazy()),
        Test::new("a-mapping-keeps-the-mount-writable", |_| read_only()),
        Test::new("a-store-does-not-wait-for-the-log", |_| store_without_room()),
        Test::new("a-capture-that-failed-is-tried-again", |_| failed()),
        Test::new("more-than-the-ring-holds", |_| larger_than_the_ring()),
        Test::new("a-frozen-lower-holds-stores-back", |_| frozen()),
        Test::new("freezing-the-mount-under-stores", |_| frozen_under_stores()).limit(300),
    ],
    ..Suite::DEFAULT
};

const PAGE: usize = 4096;
const LENGTH: usize = 16 * PAGE;

fn tapped(name: &str, options: &str) -> Check<(Rig, Tap)> {
    let mut rig = Rig::on_stage(name, false)?;
    rig.mount(options)?;
    let tap = Tap::start(&rig.mnt, 0, &rig.spool.join("log"))?;
    Ok((rig, tap))
}

fn mapped(path: &Path, length: usize) -> Check<(File, SharedMapping)> {
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
    file.write_all_at(&pattern(length, 1), 0)?;
    let mapping = SharedMapping::new(&file, 0, length, true)?;
    Ok((file, mapping))
}

/// The daemon ends, and what it has written is restored and compared.
fn restored(mut rig: Rig) -> TestResult {
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

/// A mount with a daemon.
fn with_daemon(name: &str, options: &str) -> Check<Rig> {
    let mut rig = Rig::on_stage(name, false)?;
    rig.mount(options)?;
    rig.start_daemon()?;
    Ok(rig)
}

fn waits(name: &str, sync: fn(&File, &SharedMapping) -> Check) -> TestResult {
    let (mut rig, tap) = tapped(name, "ring=4m,flush=3600")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), LENGTH)?;
    file.sync_all()?;
    tap.hold();
    mapping.store(100, b"some bytes");
    let background = Background::start(name, move || {
        let done = sync(&file, &mapping);
        drop(mapping);
        done
    });
    background.waits()?;
    tap.release();
    background.ends()??;
    rig.unmount()?;
    tap.wait()?;
    Ok(rig.close()?)
}

/// Waits until the mount has more records than it had.
fn until_recorded(rig: &Rig, before: u64, seconds: u64) -> Check {
    wait_until("a record", Duration::from_secs(seconds), || rig.records().is_ok_and(|records| records > before))
        .map_err(Failure::of)
}

fn unmapped() -> TestResult {
    let rig = with_daemon("unmapped", "flush=3600")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), LENGTH)?;
    mapping.store(PAGE, b"stored");
    let before = rig.records()?;
    std::thread::sleep(Duration::from_millis(1500));
    same!(rig.records()?, before);
    drop(mapping);
    until_recorded(&rig, before, 10)?;
    drop(file);
    restored(rig)
}

fn clock() -> TestResult {
    let rig = with_daemon("clock", "flush=1")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), LENGTH)?;
    for round in 0..3u8 {
        let before = rig.records()?;
        mapping.store(PAGE, &[round]);
        until_recorded(&rig, before, 10)?;
    }
    // Nothing is recorded of a mapping through which nothing is stored; but what was is looked at twice.
    std::thread::sleep(Duration::from_secs(5));
    let before = rig.records()?;
    std::thread::sleep(Duration::from_secs(3));
    same!(rig.records()?, before);
    drop((file, mapping));
    restored(rig)
}

fn unmount() -> TestResult {
    let mut rig = with_daemon("unmount", "ring=1m,flush=3600")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), 1024 * PAGE)?;
    file.sync_all()?;
    // More than the ring holds, and nobody takes it.
    rig.signal(Signal::STOP)?;
    for page in 0..1024 {
        mapping.store(page * PAGE, b"everywhere");
    }
    drop((file, mapping));
    let mnt = rig.mnt.clone();
    let unmounting = Background::start("unmounting", move || run("umount", &[&mnt]).map_err(Failure::of));
    let waited = unmounting.waits();
    rig.signal(Signal::CONT)?;
    waited?;
    unmounting.ends()??;
    rig.was_unmounted();
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn unmount_alone() -> TestResult {
    let mut rig = with_daemon("alone", "flush=3600")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), LENGTH)?;
    rig.kill_daemon()?;
    mapping.store(PAGE, b"nobody takes this now");
    drop((file, mapping));
    rig.unmount()?;
    rig.start_daemon_for_the_rest()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn lazy() -> TestResult {
    let mut rig = with_daemon("lazy", "flush=1")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), LENGTH)?;
    drop(file);
    let busy = run("umount", &[&rig.mnt]);
    ensure!(busy.is_err(), "unmounted under a mapping");
    run("umount", &["-l".as_ref(), rig.mnt.as_os_str()])?;
    for round in 0..3u8 {
        let before = rig.records()?;
        mapping.store(2 * PAGE, &[round; 100]);
        until_recorded(&rig, before, 10)?;
    }
    mapping.store(3 * PAGE, b"last");
    drop(mapping);
    wait_until("the mount goes", Duration::from_secs(20), || !rig.ring().is_ok_and(|ring| ring.mounted()))?;
    rig.was_unmounted();
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn read_only() -> TestResult {
    let rig = with_daemon("read-only", "flush=3600")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), LENGTH)?;
    drop(file);
    let remount = || run("mount", &["-o".as_ref(), "remount,ro".as_ref(), rig.mnt.as_os_str()]);
    ensure!(remount().is_err(), "read-only under a mapping");
    mapping.store(PAGE, b"still allowed");
    drop(mapping);
    remount()?;
    restored(rig)
}

/// With a full ring and nobody to empty it, stores go on; what asks for durability waits, and can be killed.
fn store_without_room() -> TestResult {
    let (mut rig, tap) = tapped("full", "ring=1m,flush=1")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), 64 * PAGE)?;
    tap.hold();
    // The ring fills: by the clock, or by this.
    let filler = File::create(rig.mnt.join("filler"))?;
    let filling = Background::start("writing into a full ring", move || {
        (0..64).try_for_each(|n| filler.write_all_at(&[n; 65_536], u64::from(n) * 65_536))
    });
    filling.waits()?;
    let began = Instant::now();
    for round in 0..50u8 {
        for page in 0..64 {
            mapping.store(page * PAGE, &[round; 16]);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = began.elapsed();
    ensure!(took < Duration::from_secs(60), "stores took {} s", took.as_secs());
    let mut sync = std::process::Command::new("sync").arg("-f").arg(rig.mnt.join("file")).spawn()?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(sync.try_wait()?.is_none(), "sync did not wait");
    sync.kill()?;
    let killed = wait_until("sync ends", Duration::from_secs(20), || !matches!(sync.try_wait(), Ok(None)));
    tap.release();
    killed?;
    filling.ends()??;
    drop((file, mapping));
    rig.unmount()?;
    tap.wait()?;
    Ok(rig.close()?)
}

fn failed() -> TestResult {
    let mut rig = with_daemon("failed", "onstall=fail,flush=3600")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), LENGTH)?;
    file.sync_all()?;
    rig.kill_daemon()?;
    mapping.store(PAGE, b"cannot be recorded now");
    let error = file.sync_all().err().and_then(|error| error.raw_os_error());
    same!(error, Some(Errno::IO.raw_os_error()));
    let error = mapping.sync(0..LENGTH).err().and_then(|error| error.raw_os_error());
    same!(error, Some(Errno::IO.raw_os_error()));
    // This one has taken the note when it finds that there is no room.
    let error = file.set_len(LENGTH as u64 / 2).err().and_then(|error| error.raw_os_error());
    same!(error, Some(Errno::IO.raw_os_error()));
    rig.start_daemon()?;
    let before = rig.records()?;
    mapping.sync(0..LENGTH)?;
    ensure!(rig.records()? > before, "not tried again");
    drop((file, mapping));
    restored(rig)
}

fn larger_than_the_ring() -> TestResult {
    let rig = with_daemon("larger", "ring=1m,flush=3600")?;
    const MUCH: usize = 8 << 20;
    let (file, mapping) = mapped(&rig.mnt.join("file"), MUCH)?;
    for page in (0..MUCH).step_by(PAGE) {
        mapping.store(page + 7, b"everywhere");
    }
    file.sync_all()?;
    for page in (0..MUCH).step_by(PAGE) {
        mapping.store(page + 70, b"everywhere");
    }
    file.set_len(MUCH as u64 - 100)?;
    drop((file, mapping));
    restored(rig)
}

fn frozen() -> TestResult {
    let rig = with_daemon("frozen", "flush=1")?;
    let (file, mapping) = mapped(&rig.mnt.join("file"), LENGTH)?;
    file.sync_all()?;
    let lower = rig.lower.clone();
    run("fsfreeze", &["-f".as_ref(), lower.as_os_str()])?;
    let store = Background::start("a store", move || {
        mapping.store(PAGE, b"when it is thawed");
        mapping
    });
    let waited = store.waits();
    run("fsfreeze", &["-u".as_ref(), lower.as_os_str()])?;
    waited?;
    drop(store.ends()?);
    drop(file);
    restored(rig)
}

/// What the clock captures keeps out of the way of a mount that is frozen, and of its being thawed.
fn frozen_under_stores() -> TestResult {
    let rig = with_daemon("freezing", "flush=1")?;
    // In a process of its own: where a store waits for the thaw, the memory of its process is locked.
    let path = rig.mnt.join("file");
    std::fs::write(&path, pattern(LENGTH, 1))?;
    let mut storing = worker::store(&path).spawn()?;
    for _ in 0..4 {
        let mnt = rig.mnt.clone();
        let freezing = Background::start("freezing the mount", move || Frozen::new(&mnt).map_err(Failure::of));
        let frozen = freezing.ends()??;
        // The clock strikes meanwhile.
        std::thread::sleep(Duration::from_millis(2500));
        let thawing = Background::start("thawing the mount", move || drop(frozen));
        thawing.ends()?;
        std::thread::sleep(Duration::from_millis(300));
        ensure!(storing.try_wait()?.is_none(), "the stores have ended");
    }
    storing.kill()?;
    storing.wait()?;
    restored(rig)
}
