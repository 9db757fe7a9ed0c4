// SPDX-License-Identifier: GPL-2.0-or-later

//! What happens to changes while the log cannot take them, and to those who wait for it.

use super::stage::{at, consumer_process, drain, drain_to_the_end, errno, look_over, Process, Stage, SOON};
use super::Outcome;
use crate::machine::wait_until;
use crate::Context;
use reelfs_format::record::RecordType;
use reelfs_format::view::{Event, RecordView};
use reelfs_sys::device::{Device, Target, Wakeup};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

pub fn before_the_first_consumer(context: &Context) -> Outcome {
    let stage = Stage::named(context, "block", "onstall=block")?;
    assert!(fs::read_dir(stage.mnt())?.next().is_none(), "reading needs no consumer");
    let mut one = Process::shell(format!("echo x >{}/one", stage.mnt().display()))?;
    let mut two = Process::shell(format!("exec mkdir {}/two", stage.mnt().display()))?;
    // The one that came second waits for the directory's lock, and dies when it gets it.
    assert!(one.is_stuck()? && two.is_stuck()?);
    assert!(fs::read_dir(stage.lower())?.next().is_none(), "a change escaped");
    two.0.kill()?;
    let ring = stage.attach(&at(0))?;
    assert!(one.finish()?.success());
    assert!(!two.finish()?.success());
    assert_eq!(fs::read_to_string(stage.lower().join("one"))?, "x\n");
    assert_eq!(look_over(&ring)?[0].0, RecordType::Mount);
    stage.close(Some(ring))?;

    let stage = Stage::named(context, "fail", "onstall=fail")?;
    assert_eq!(errno(File::create(stage.path("one"))), Some(Errno::IO));
    assert_eq!(errno(fs::create_dir(stage.path("two"))), Some(Errno::IO));
    assert!(fs::read_dir(stage.lower())?.next().is_none(), "a change escaped");
    assert!(stage.ring()?.refused >= 2);
    let ring = stage.attach(&at(0))?;
    fs::write(stage.path("one"), "x")?;
    stage.close(Some(ring))
}

/// Writes into the ring until the writer has to wait for room.
fn fill(stage: &Stage) -> Result<Process, Box<dyn std::error::Error>> {
    let before = stage.ring()?.waits;
    let writer = Process::shell(format!("exec cat /dev/zero >{}/filler", stage.mnt().display()))?;
    wait_until("the ring is full", SOON, || stage.ring().is_ok_and(|ring| ring.waits > before))?;
    Ok(writer)
}

pub fn a_full_ring_blocks(context: &Context) -> Outcome {
    let stage = Stage::new(context, "ring=1M")?;
    let mut ring = stage.attach(&at(0))?;
    fs::write(stage.path("readable"), "contents")?;
    // A directory of its own: its lock is held for as long as the change waits.
    fs::create_dir(stage.path("parent"))?;
    let mut writer = fill(&stage)?;
    let mut other = Process::shell(format!("exec mkdir {}/parent/directory", stage.mnt().display()))?;
    assert!(writer.is_stuck()?);
    let before = stage.ring()?;
    assert!(before.waits > 0 && before.refused == 0);
    // Reading goes on, and so does whoever looks at the ring.
    assert_eq!(fs::read_to_string(stage.path("readable"))?, "contents");
    assert!(fs::read_dir(stage.mnt())?.count() >= 2);
    // A little room, for whoever comes first; and in the end for all.
    let end = look_over(&ring)?[2].1;
    ring.acknowledge(end)?;
    assert!(writer.is_stuck()?);
    writer.kill()?;
    while !stage.lower().join("parent/directory").exists() {
        drain(&mut ring, Duration::ZERO)?;
    }
    assert!(other.finish()?.success());
    stage.close(Some(ring))
}

pub fn a_full_ring_fails(context: &Context) -> Outcome {
    let stage = Stage::new(context, "ring=1M,onstall=fail")?;
    let ring = stage.attach(&at(0))?;
    // With a consumer that does nothing: not at once, but in the end.
    let begin = Instant::now();
    let mut file = File::create(stage.path("file"))?;
    let error = loop {
        if let Err(error) = file.write_all(&[1; 50_000]) {
            break error;
        }
    };
    assert_eq!(errno::<()>(Err(error)), Some(Errno::IO));
    let took = begin.elapsed();
    assert!((10..120).contains(&took.as_secs()), "{took:?}");
    assert_eq!(errno(file.sync_all()), Some(Errno::IO), "fsync of what nobody acknowledges");
    // It is known by now to do nothing, so nobody waits as long again.
    let begin = Instant::now();
    assert_eq!(errno(file.write_all(&[1; 50_000])), Some(Errno::IO));
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    // A sign of life: who comes now waits; with no consumer at all those fail at once who wait already.
    let mut ring = ring;
    let end = look_over(&ring)?[0].1;
    ring.acknowledge(end)?;
    let mut waiter = Process::shell(format!("exec dd if=/dev/zero of={}/other bs=60k", stage.mnt().display()))?;
    assert!(waiter.is_stuck()?);
    let begin = Instant::now();
    let device = ring.detach()?;
    assert!(!waiter.finish()?.success());
    assert_eq!(errno(fs::create_dir(stage.path("directory"))), Some(Errno::IO));
    assert_eq!(errno(file.sync_all()), Some(Errno::IO));
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    // And what was refused left no trace, while what was recorded is all there.
    let size = |name: &str| fs::metadata(stage.lower().join(name)).map_or(0, |found| found.len());
    let size = size("file") + size("other");
    let mut ring = device.attach(Target::Mount(std::os::fd::AsFd::as_fd(&stage.fd()?)), &at(end))?;
    let mut recorded = 0;
    for record in ring.records()? {
        let record = record?;
        let view = RecordView::parse(record.bytes, Some(record.lsn))?;
        if let Event::Write { data, .. } = view.event()? {
            recorded += data.len() as u64;
        }
    }
    assert_eq!(recorded, size);
    drain(&mut ring, Duration::ZERO)?;
    fs::write(stage.path("again"), "x")?;
    drop(file);
    stage.close(Some(ring))
}

pub fn waiters_can_be_killed(context: &Context) -> Outcome {
    let stage = Stage::new(context, "ring=1M")?;
    let ring = stage.attach(&at(0))?;
    fs::write(stage.path("file"), "contents")?;
    let mnt = stage.mnt().display();
    let mut syncers = [
        Process::shell(format!("exec sync {mnt}/file"))?,
        Process::shell(format!("exec sync -f {mnt}/file"))?,
        Process::shell(format!("exec dd if=/dev/zero of={mnt}/direct bs=4k count=1 oflag=sync"))?,
    ];
    for process in &mut syncers {
        assert!(process.is_stuck()?);
        process.kill()?;
    }
    for directory in ["one", "two"] {
        fs::create_dir(stage.path(directory))?;
    }
    let mut writer = fill(&stage)?;
    let mut waiters = [
        Process::shell(format!("exec mkdir {mnt}/one/directory"))?,
        Process::shell(format!("exec rm {mnt}/file"))?,
        Process::shell(format!("exec chmod 600 {mnt}/file"))?,
        Process::shell(format!("exec truncate -s 5 {mnt}/file"))?,
        Process::shell(format!("exec setfattr -n user.x -v y {mnt}/file"))?,
        Process::shell(format!("exec mv {mnt}/file {mnt}/two/other"))?,
    ];
    for (which, process) in waiters.iter_mut().enumerate() {
        assert!(process.is_stuck()?, "{which}: {:?}", process.0.try_wait());
    }
    // All of them at once: some wait for a lock that another one holds, and may find room when they get it, since the
    // line is shorter by then.
    let before = stage.ring()?.records;
    for process in &mut waiters {
        process.0.kill()?;
    }
    for process in &mut waiters {
        process.finish()?;
    }
    writer.kill()?;
    let untouched = fs::read_to_string(stage.lower().join("file")).is_ok_and(|found| found == "contents");
    assert!(untouched || stage.ring()?.records > before, "a change escaped");
    stage.close(Some(ring))
}

pub fn fsync_hurries_the_consumer(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let mut ring = stage.attach(&at(0))?;
    drain(&mut ring, Duration::ZERO)?;
    let path = stage.path("file");
    let rounds = 200;
    let writer = std::thread::spawn(move || -> std::io::Result<Duration> {
        let mut file = File::create(path)?;
        let begin = Instant::now();
        for _ in 0..rounds {
            file.write_all(b"a line\n")?;
            file.sync_all()?;
        }
        Ok(begin.elapsed())
    });
    // A consumer with all the time in the world, unless somebody waits.
    let lazy = Duration::from_secs(60);
    while !writer.is_finished() {
        let found = ring.wait(Some(Duration::from_millis(200)), lazy, None)?;
        if found == Wakeup::Records {
            assert!(ring.wanted()? > ring.acknowledged() || writer.is_finished(), "woken for nothing");
            let end = look_over(&ring)?.last().ok_or("nothing there")?.1;
            ring.acknowledge(end)?;
        }
    }
    let took = writer.join().map_err(|_| "the writer panicked")??;
    assert!(took < Duration::from_secs(30), "{took:?} for {rounds} times fsync");
    // Nobody waits: records gather.
    let begin = Instant::now();
    fs::write(stage.path("other"), "x")?;
    assert_eq!(ring.wait(Some(SOON), Duration::from_millis(700), None)?, Wakeup::Records);
    assert!(begin.elapsed() >= Duration::from_millis(600), "{:?}", begin.elapsed());
    stage.close(Some(ring))
}

pub fn killed_consumers_lose_nothing(context: &Context) -> Outcome {
    let stage = Stage::new(context, "ring=1M")?;
    let mut end = 0;
    let path = stage.path("file");
    let writer = std::thread::spawn(move || -> std::io::Result<u64> {
        let mut file = File::create(path)?;
        for number in 0..2000u64 {
            file.write_all(&number.to_le_bytes().repeat(300))?;
            if number % 50 == 0 {
                file.sync_all()?;
            }
        }
        Ok(2000 * 8 * 300)
    });
    // Consumers that acknowledge, and ones that sit on what they see, killed in turn.
    let mut silent = false;
    let begin = Instant::now();
    while !writer.is_finished() {
        assert!(begin.elapsed() < Duration::from_secs(100), "the writer does not get on");
        let mut consumer = consumer_process(&stage, end, !silent)?;
        std::thread::sleep(Duration::from_millis(if silent { 50 } else { 250 }));
        consumer.kill()?;
        end = stage.ring()?.acknowledged;
        silent = !silent;
    }
    let length = writer.join().map_err(|_| "the writer panicked")??;
    assert_eq!(fs::metadata(stage.lower().join("file"))?.len(), length);
    assert_eq!(stage.ring()?.refused, 0);
    let ring = stage.attach(&at(end))?;
    look_over(&ring)?;
    stage.close(Some(ring))
}

pub fn unmounting_waits_for_nobody(context: &Context) -> Outcome {
    // Without a consumer, ever.
    let mut stage = Stage::named(context, "never", "")?;
    stage.unmount()?;
    assert!(Device::open()?.list()?.is_empty());
    stage.close(None)?;

    // With a full ring and a consumer that is gone.
    let mut stage = Stage::named(context, "gone", "ring=1M")?;
    let ring = stage.attach(&at(0))?;
    let id = ring.id();
    let mut writer = fill(&stage)?;
    drop(ring);
    writer.kill()?;
    let begin = Instant::now();
    stage.unmount()?;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let ring = Device::open()?.attach(Target::Ring(id), &at(0))?;
    let kinds = look_over(&ring)?;
    assert_eq!(kinds.last().map(|last| last.0), Some(RecordType::Unmount), "room for it is always kept");
    drain_to_the_end(ring)?;
    stage.close(None)
}
