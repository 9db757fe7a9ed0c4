// SPDX-License-Identifier: GPL-2.0-or-later

//! Where gaps begin and end, and what is on which side.

use super::{
    acknowledge_all, attach, discard_all, done, entry, filesystem, is_degraded, mounted, number, options, records,
    until_degraded, until_recording,
};
use crate::background::Background;
use crate::check::{ensure, same, Check, Failure};
use crate::machine::Frozen;
use crate::pattern::pattern;
use crate::rig::Rig;
use crate::{Context, TestResult};
use reelfs_format::mark::Mark;
use reelfs_format::record::{RecordType, GAP_DEGRADED, MOUNT_GAP};
use reelfs_format::view::{Event, RecordView};
use reelfs_sys::device::Ring;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The consumer is gone, and there is room: what happens is recorded all the same.
pub fn no_consumer_is_no_gap_yet(_: &Context) -> TestResult {
    let rig = mounted("no-gap", "onstall=degrade,stall=1")?;
    let mut ring = attach(&rig, 0)?;
    let end = acknowledge_all(&mut ring)?;
    drop(ring);
    let before = entry(&rig)?.records;
    for number in 0..20 {
        fs::write(rig.mnt.join(format!("file-{number}")), pattern(1000, number))?;
    }
    std::thread::sleep(Duration::from_millis(1500));
    fs::create_dir(rig.mnt.join("later"))?;
    let now = entry(&rig)?;
    ensure!(now.gaps == 0 && now.unrecorded == 0 && now.records >= before + 41, "{now:?}");
    ensure!(!options(&rig)?.iter().any(|option| option.starts_with("gaps")), "gaps in /proc/mounts");
    let ring = attach(&rig, end)?;
    done(rig, Some(ring))
}

/// What the record of a gap's end says of changes and bytes.
fn end_of(ring: &Ring, begin: u64) -> Check<(u64, u64)> {
    for record in ring.records()? {
        let record = record?;
        let view = RecordView::parse(record.bytes, Some(record.lsn)).map_err(|e| Failure::new(e.to_string()))?;
        if let Event::GapEnd { body } = view.event().map_err(|e| Failure::new(e.to_string()))? {
            same!(body.reason.get(), GAP_DEGRADED);
            same!(body.begin.get(), begin);
            ensure!(body.since.get() > 0 && body.since.get() <= view.header().time.get(), "since {}", body.since);
            return Ok((body.changes.get(), body.bytes.get()));
        }
    }
    Err(Failure::new("the end of the gap is not in the log"))
}

fn mark_of(rig: &Rig) -> Check<Mark> {
    let mut value = [0; 200];
    let length = rustix::fs::getxattr(&rig.lower, "trusted.reelfs", &mut value[..])?;
    Mark::parse(&value[..length]).map_err(|error| Failure::new(error.to_string()))
}

pub fn fsync_that_nobody_answers(_: &Context) -> TestResult {
    let rig = mounted("fsync", "onstall=degrade,stall=2")?;
    let mut ring = attach(&rig, 0)?;
    let acknowledged = acknowledge_all(&mut ring)?;
    drop(ring);
    let file = File::create(rig.mnt.join("file"))?;
    file.write_all_at(b"in the log", 0)?;
    let begin = Instant::now();
    file.sync_all()?;
    let took = begin.elapsed();
    ensure!(took >= Duration::from_millis(1900), "fsync gave up after {took:?}");
    until_degraded(&rig)?;
    // From here on nobody waits for anybody, and nothing is recorded.
    let then = entry(&rig)?;
    same!((then.gaps, then.unrecorded), (1, 0));
    let begin = Instant::now();
    file.write_all_at(b"in no log!", 10)?;
    file.sync_all()?;
    fs::create_dir(rig.mnt.join("directory"))?;
    fs::write(rig.mnt.join("directory/other"), "x")?;
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(1) * crate::harness::slowness(), "{took:?} in a gap");
    same!(fs::read(rig.lower.join("file"))?, b"in the login no log!");
    let now = entry(&rig)?;
    same!((now.records, now.unrecorded), (then.records, 4));
    // It shows, and will be remembered.
    same!(number(&rig, "gaps")?, Some(1));
    same!(number(&rig, "unrecorded")?, Some(4));
    ensure!(number(&rig, "degraded_since")?.is_some_and(|since| since > 1_000_000), "since when");
    let mark = mark_of(&rig)?;
    ensure!(!mark.is_clean() && mark.gap() == Some(now.gap_lsn), "{mark:?}");
    // The consumer is back: first it gets what it has not, then the log goes on.
    let mut ring = attach(&rig, acknowledged)?;
    same!(ring.gap(), Some(now.gap_lsn));
    let kinds: Vec<_> = records(&ring)?.iter().map(|record| record.0).collect();
    same!(kinds, [RecordType::Create, RecordType::Write, RecordType::Gap]);
    same!(records(&ring)?.last().map(|record| record.1), Some(now.gap_lsn));
    ensure!(is_degraded(&rig), "the log went on before the consumer had caught up");
    let first_end = records(&ring)?[0].2;
    ring.acknowledge(first_end)?;
    ensure!(is_degraded(&rig), "the log went on before the consumer had caught up");
    acknowledge_all(&mut ring)?;
    until_recording(&rig)?;
    fs::write(rig.mnt.join("directory/after"), "x")?;
    let kinds: Vec<_> = records(&ring)?.iter().map(|record| record.0).collect();
    same!(kinds, [RecordType::GapEnd, RecordType::Create, RecordType::Write]);
    let (changes, bytes) = end_of(&ring, now.gap_lsn)?;
    same!(changes, 4);
    same!(bytes, now.unrecorded_bytes);
    same!(number(&rig, "degraded_since")?, None);
    // fsync means both again.
    let fsync = Background::start("fsync after the gap", move || {
        file.write_all_at(b"!", 0)?;
        file.sync_all()
    });
    fsync.waits()?;
    acknowledge_all(&mut ring)?;
    fsync.ends()??;
    done(rig, Some(ring))
}

/// Many writers with long writes: each of them is in the log as a whole, or not at all; and nothing is in the log between
/// the gap's beginning and its end.
pub fn a_full_ring(_: &Context) -> TestResult {
    let rig = mounted("full", "onstall=degrade,stall=1,ring=1m")?;
    let mut ring = attach(&rig, 0)?;
    const LENGTH: usize = 300_000;
    let writers: Vec<_> = (0..3)
        .map(|number| {
            let path = rig.mnt.join(format!("file-{number}"));
            Background::start("a writer", move || -> Check<Vec<(u64, u64)>> {
                let mut file = File::create(path)?;
                let (bytes, mut at, mut done) = (pattern(LENGTH, number), 0, Vec::new());
                while at < 3_000_000 {
                    let length = file.write(&bytes)? as u64;
                    done.push((at, at + length));
                    at += length;
                }
                Ok(done)
            })
        })
        .collect();
    let mut calls = Vec::new();
    for writer in writers {
        calls.push(writer.ends()??);
    }
    ensure!(is_degraded(&rig), "9 MB went into a ring of 1 MB");
    same!(entry(&rig)?.refused, 0);
    for (number, calls) in calls.iter().enumerate() {
        let size = fs::metadata(rig.lower.join(format!("file-{number}")))?.len();
        same!(Some(size), calls.last().map(|call| call.1));
    }
    // Which bytes of which file are in the log: a file is known by where its Create stands among them.
    let mut logged: Vec<(reelfs_format::record::Identity, u64)> = Vec::new();
    let mut names = Vec::new();
    for record in ring.records()? {
        let record = record?;
        let view = RecordView::parse(record.bytes, Some(record.lsn)).map_err(|e| Failure::new(e.to_string()))?;
        match view.event().map_err(|e| Failure::new(e.to_string()))? {
            Event::Create { name, .. } => names.push((view.header().object, name.to_vec())),
            Event::Write { body, data } => {
                logged.push((view.header().object, body.offset.get() + data.len() as u64));
            }
            _ => {}
        }
    }
    let found = records(&ring)?;
    same!(found.last().map(|record| record.0), Some(RecordType::Gap));
    same!(found.iter().filter(|record| record.0 == RecordType::Gap).count(), 1);
    for (number, calls) in calls.iter().enumerate() {
        let name = format!("file-{number}").into_bytes();
        let Some((object, _)) = names.iter().find(|(_, known)| *known == name) else { continue };
        let end = logged.iter().filter(|(of, _)| of == object).map(|(_, end)| *end).max().unwrap_or(0);
        let whole = end == 0 || calls.iter().any(|call| call.1 == end);
        ensure!(whole, "file-{number}: a write is in the log up to {end:#x} and in the gap behind it: {calls:x?}");
    }
    acknowledge_all(&mut ring)?;
    until_recording(&rig)?;
    done(rig, Some(ring))
}

pub fn before_the_first_consumer(_: &Context) -> TestResult {
    let mut rig = mounted("first", "onstall=degrade,stall=1")?;
    let begin = Instant::now();
    fs::create_dir(rig.mnt.join("before anybody came"))?;
    ensure!(begin.elapsed() >= Duration::from_millis(900), "not even waited");
    fs::write(rig.mnt.join("file"), "x")?;
    same!(entry(&rig)?.unrecorded, 3);
    let mut ring = attach(&rig, 0)?;
    let kinds: Vec<_> = records(&ring)?.iter().map(|record| record.0).collect();
    same!(kinds, [RecordType::Mount, RecordType::Gap]);
    let begin = records(&ring)?[1].1;
    acknowledge_all(&mut ring)?;
    until_recording(&rig)?;
    same!(end_of(&ring, begin)?.0, 3);
    let end = acknowledge_all(&mut ring)?;
    ensure!(mark_of(&rig)?.gap().is_some(), "{:?}", mark_of(&rig)?);
    drop(ring);
    rig.unmount()?;
    let end = drain_the_rest(end)?;

    // A later mount, in order, whose log goes on; and once more without anybody.
    rig.mount("onstall=degrade,stall=1")?;
    fs::write(rig.mnt.join("another"), "x")?;
    let mark = mark_of(&rig)?;
    ensure!(mark.is_clean() && mark.next_lsn.get() == end && mark.gap().is_some(), "{mark:?}");
    let ring = attach(&rig, end)?;
    ensure!(!ring.is_unclean() && ring.gap().is_some(), "{ring:?}");
    done(rig, Some(ring))
}

/// Drains the one ring that outlived its mount. Where its log ends.
fn drain_the_rest(next_lsn: u64) -> Check<u64> {
    use reelfs_sys::device::{Consumer, Device, Target};
    let device = Device::open()?;
    let rings = device.list()?;
    let Some(left) = rings.iter().find(|ring| ring.state & reelfs_format::uapi::RING_MOUNTED == 0) else {
        return Ok(next_lsn);
    };
    let consumer = Consumer { stream: left.stream, next_lsn, adopt: false };
    let mut ring = device.attach(Target::Ring(left.ring), &consumer)?;
    acknowledge_all(&mut ring)
}

/// Somebody sleeps below with room in the ring while the gap begins: his change is in the log, before the gap.
pub fn under_way_at_the_beginning(_: &Context) -> TestResult {
    let rig = mounted("under-way", "onstall=degrade,stall=1")?;
    let mut ring = attach(&rig, 0)?;
    let (one, two) = (rig.mnt.join("one"), rig.mnt.join("two"));
    fs::write(&one, "x")?;
    fs::write(&two, "y")?;
    let other = File::open(&two)?;
    let frozen = Frozen::new(filesystem(&rig)?)?;
    let file = File::options().write(true).open(&one)?;
    let asleep =
        Background::start("a write into a frozen filesystem", move || file.write_all_at(&pattern(10_000, 1), 0));
    asleep.waits()?;
    // (fsync would sleep below as well; waiting for the log alone is what O_SYNC of nothing new does.)
    let waiter = Background::start("somebody who waits for the log", move || other.sync_all());
    std::thread::sleep(Duration::from_secs(2));
    let kinds = records(&ring)?;
    ensure!(
        !kinds.iter().any(|record| record.0 == RecordType::Gap),
        "the gap began with a change under way: {kinds:?}"
    );
    drop(frozen);
    asleep.ends()??;
    waiter.ends()??;
    until_degraded(&rig)?;
    let found = records(&ring)?;
    let last = &found[found.len() - 2..];
    same!((last[0].0, last[1].0), (RecordType::Write, RecordType::Gap));
    acknowledge_all(&mut ring)?;
    until_recording(&rig)?;
    done(rig, Some(ring))
}

/// The same at the other end: his change is in the gap, which does not end before.
pub fn under_way_at_the_end(_: &Context) -> TestResult {
    let rig = mounted("under-way-too", "onstall=degrade,stall=1")?;
    let mut ring = attach(&rig, 0)?;
    let file = File::create(rig.mnt.join("file"))?;
    file.sync_all()?;
    until_degraded(&rig)?;
    let begin = entry(&rig)?.gap_lsn;
    let frozen = Frozen::new(filesystem(&rig)?)?;
    let asleep =
        Background::start("a write into a frozen filesystem", move || file.write_all_at(&pattern(10_000, 1), 0));
    asleep.waits()?;
    acknowledge_all(&mut ring)?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(records(&ring)?.is_empty(), "{:?}", records(&ring)?);
    ensure!(is_degraded(&rig), "the gap ended with a change under way in it");
    drop(frozen);
    asleep.ends()??;
    until_recording(&rig)?;
    let kinds: Vec<_> = records(&ring)?.iter().map(|record| record.0).collect();
    same!(kinds, [RecordType::GapEnd]);
    same!(end_of(&ring, begin)?.0, 1);
    done(rig, Some(ring))
}

/// A consumer that does something now and then is none that does nothing.
pub fn a_consumer_in_time(_: &Context) -> TestResult {
    let rig = mounted("in-time", "onstall=degrade,stall=3,ring=1m")?;
    let mut ring = attach(&rig, 0)?;
    let path = rig.mnt.join("file");
    let writer = Background::start("a writer", move || fs::write(path, pattern(4_000_000, 1)));
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(400));
        let found = records(&ring)?;
        match found.first() {
            Some(first) => ring.acknowledge(first.2)?,
            None => break,
        }
        if fs::metadata(rig.lower.join("file"))?.len() == 4_000_000 {
            break;
        }
    }
    writer.ends()??;
    same!(entry(&rig)?.gaps, 0);
    done(rig, Some(ring))
}

/// Who has waited too long and waits for another one's change below is killed: the next one sees to it.
pub fn who_begins_it_can_be_killed(_: &Context) -> TestResult {
    let rig = mounted("killed", "onstall=degrade,stall=1")?;
    let mut ring = attach(&rig, 0)?;
    for name in ["one", "two"] {
        fs::write(rig.mnt.join(name), "x")?;
    }
    let frozen = Frozen::new(filesystem(&rig)?)?;
    let file = File::options().write(true).open(rig.mnt.join("one"))?;
    let asleep = Background::start("a write into a frozen filesystem", move || file.write_all_at(b"later", 0));
    asleep.waits()?;
    let syncer = |path: std::path::PathBuf| {
        Command::new("sync").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let mut first = syncer(rig.mnt.join("two"))?;
    std::thread::sleep(Duration::from_secs(3));
    first.kill()?;
    drop(frozen);
    first.wait()?;
    asleep.ends()??;
    let mut second = syncer(rig.mnt.join("two"))?;
    until_degraded(&rig)?;
    ensure!(second.wait()?.success(), "sync in a gap");
    acknowledge_all(&mut ring)?;
    until_recording(&rig)?;
    done(rig, Some(ring))
}

/// In a gap everything works as it does else, and leaves no record.
pub fn every_kind_of_operation(_: &Context) -> TestResult {
    let rig = mounted("kinds", "onstall=degrade,stall=1")?;
    let mut ring = attach(&rig, 0)?;
    fs::write(rig.mnt.join("known"), pattern(100_000, 1))?;
    File::open(rig.mnt.join("known"))?.sync_all()?;
    until_degraded(&rig)?;
    let before = entry(&rig)?;
    let script = r#"
        cd "$1"
        mkdir d d/e; echo text >d/f; ln d/f d/g; ln -s f d/h; mkfifo d/p
        mv d/f d/e/f; chmod 640 d/g; touch -d 2001-01-01 d/e; truncate -s 50000 known
        dd if=/dev/zero of=known bs=4k seek=3 count=100 conv=notrunc status=none
        dd if=/dev/zero of=direct bs=64k count=3 oflag=direct status=none
        fallocate -l 1m known; fallocate -p -o 4096 -l 8192 known
        setfattr -n user.x -v y d/g; setfattr -x user.x d/g; setfacl -m u:1:r d/g; setfacl -b d/g
        chattr +i d/g; chattr -i d/g; cp -r d copy; rm -r copy; cat known | tail -c 5 >piped; rm d/h
        sync -f d
    "#;
    let done_it = Command::new("sh").args(["-euc", script, "sh"]).arg(&rig.mnt).output()?;
    ensure!(done_it.status.success(), "{}", String::from_utf8_lossy(&done_it.stderr));
    let now = entry(&rig)?;
    same!(now.records, before.records);
    ensure!(now.unrecorded > 30 && now.unrecorded_bytes > 500_000, "{now:?}");
    let differences = rig.differences(&rig.mnt, &rig.lower)?;
    crate::rig::none("mount and lower differ", &differences)?;
    acknowledge_all(&mut ring)?;
    until_recording(&rig)?;
    done(rig, Some(ring))
}

pub fn unmounted_in_it(_: &Context) -> TestResult {
    let mut rig = mounted("unmounted", "onstall=degrade,stall=1")?;
    let mut ring = attach(&rig, 0)?;
    let end = acknowledge_all(&mut ring)?;
    drop(ring);
    let file = File::create(rig.mnt.join("file"))?;
    file.sync_all()?;
    fs::create_dir(rig.mnt.join("lost"))?;
    drop(file);
    let gap = entry(&rig)?.gap_lsn;
    rig.unmount()?;
    let mark = mark_of(&rig)?;
    ensure!(mark.is_clean() && mark.gap() == Some(gap), "{mark:?}");
    {
        use reelfs_sys::device::{Consumer, Device, Target};
        let left = entry(&rig)?;
        let consumer = Consumer { stream: left.stream, next_lsn: end, adopt: false };
        let ring = Device::open()?.attach(Target::Ring(left.ring), &consumer)?;
        let kinds: Vec<_> = records(&ring)?.iter().map(|record| record.0).collect();
        same!(kinds, [RecordType::Create, RecordType::Gap, RecordType::GapEnd, RecordType::Unmount]);
        same!(end_of(&ring, gap)?.0, 1);
    }
    let end = drain_the_rest(end)?;
    // The next mount knows, and says so in its log; and so do all after it.
    for _ in 0..2 {
        rig.mount("onstall=degrade,stall=1")?;
        let ring = attach(&rig, end)?;
        same!(ring.gap(), Some(gap));
        let first = ring.records()?.next().ok_or_else(|| Failure::new("no record"))??;
        let view = RecordView::parse(first.bytes, Some(first.lsn)).map_err(|e| Failure::new(e.to_string()))?;
        match view.event().map_err(|e| Failure::new(e.to_string()))? {
            Event::Mount { body, .. } => same!(body.flags.get(), MOUNT_GAP),
            other => return Err(format!("{other:?}").into()),
        }
        // As if it had never been read: the log goes on where it did.
        drop(ring);
        rig.unmount()?;
        discard_all()?;
        let left = mark_of(&rig)?;
        same!(left.gap(), Some(gap));
        let root = File::open(&rig.lower)?;
        let again = Mark::new(reelfs_format::mark::MARK_CLEAN, left.stream, 1, end, 0, left.gap());
        let value: [u8; reelfs_format::mark::MARK_LEN] = zerocopy::transmute!(again);
        rustix::fs::fsetxattr(&root, "trusted.reelfs", &value, rustix::fs::XattrFlags::empty())?;
    }
    done(rig, None)
}

pub fn again_and_again(_: &Context) -> TestResult {
    let rig = mounted("again", "onstall=degrade,stall=1,ring=1m")?;
    let mut ring = attach(&rig, 0)?;
    let mut begins = Vec::new();
    for round in 1..=4 {
        let path = rig.mnt.join(format!("file-{round}"));
        // A full ring once, an unanswered fsync once.
        match round % 2 {
            0 => fs::write(&path, pattern(2_000_000, round))?,
            _ => {
                fs::write(&path, "x")?;
                File::open(&path)?.sync_all()?;
            }
        }
        until_degraded(&rig)?;
        let now = entry(&rig)?;
        same!(now.gaps, round);
        begins.push(now.gap_lsn);
        acknowledge_all(&mut ring)?;
        until_recording(&rig)?;
        let kinds: Vec<_> = records(&ring)?.iter().map(|record| record.0).collect();
        same!(kinds, [RecordType::GapEnd]);
        acknowledge_all(&mut ring)?;
    }
    begins.dedup();
    same!(begins.len(), 1);
    done(rig, Some(ring))
}
