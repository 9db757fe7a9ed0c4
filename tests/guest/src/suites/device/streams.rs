// SPDX-License-Identifier: GPL-2.0-or-later

//! Who may attach to what, and that nothing is lost or told twice in between.

use super::stage::{at, drain, entry, errno, look_over, Stage, STREAM};
use super::Outcome;
use crate::machine::{run, sh};
use crate::Context;
use reelfs_format::record::{RecordType, RECORD_MIN};
use reelfs_format::uapi::{RING_ATTACHED, RING_MOUNTED};
use reelfs_format::view::{Event, RecordView};
use reelfs_sys::device::{Consumer, Device, Target, Wakeup};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

const OTHER: [u8; 16] = *b"another's stream";

pub fn records_are_whole_and_dense(context: &Context) -> Outcome {
    let stage = Stage::new(context, "ring=1M")?;
    let mut ring = stage.attach(&at(1 << 40))?;
    // Several times round the ring, with records that do not divide it.
    let mut written = Vec::new();
    let mut read = Vec::new();
    let mut file = File::create(stage.path("file"))?;
    for round in 0..400u32 {
        let piece: Vec<u8> = (0..(round * 337) % 30_000 + 1).map(|at| (at * 7 + round) as u8).collect();
        file.write_all(&piece)?;
        written.extend_from_slice(&piece);
        if round % 5 == 4 {
            let mut end = ring.acknowledged();
            for record in ring.records()? {
                let view = RecordView::parse(record?.bytes, Some(end))?;
                end = view.next_lsn();
                if let Event::Write { body, data } = view.event()? {
                    assert_eq!(body.offset.get(), read.len() as u64);
                    read.extend_from_slice(data);
                }
            }
            ring.acknowledge(end)?;
            assert_eq!(stage.ring()?.used, 0, "all room came back");
        }
    }
    assert!(read == written, "the log has other bytes");
    assert!(ring.acknowledged() - (1 << 40) > 5 << 20);
    drop(file);
    stage.close(Some(ring))
}

pub fn one_consumer_at_a_time(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let ring = stage.attach(&at(0))?;
    assert_eq!(stage.ring()?.state, RING_MOUNTED | RING_ATTACHED);
    assert_eq!(errno(stage.attach(&at(0))), Some(Errno::BUSY));
    assert_eq!(errno(Device::open()?.attach(Target::Ring(ring.id()), &at(0))), Some(Errno::BUSY));
    let other = Stage::named(context, "other", "")?;
    // Nor two rings for one consumer.
    let mut attach = reelfs_format::uapi::Attach {
        version: reelfs_format::uapi::UAPI_VERSION,
        flags: reelfs_format::uapi::ATTACH_BY_RING,
        fd: -1,
        ring: other.ring()?.ring,
        stream: OTHER,
        ..Default::default()
    };
    let again = reelfs_sys::trial::command(
        &ring,
        reelfs_format::uapi::IOC_ATTACH,
        zerocopy::IntoBytes::as_mut_bytes(&mut attach),
    );
    assert_eq!(errno(again), Some(Errno::BUSY));
    other.close(None)?;
    drop(ring);
    assert_eq!(stage.ring()?.state, RING_MOUNTED);
    let ring = stage.attach(&at(0))?;
    stage.close(Some(ring))
}

pub fn attaching_again_goes_on_where_it_ended(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let mut ring = stage.attach(&at(0))?;
    fs::write(stage.path("one"), "1")?;
    let ends: Vec<_> = look_over(&ring)?.into_iter().map(|(_, end)| end).collect();
    let acknowledged = ends[1];
    ring.acknowledge(acknowledged)?;
    drop(ring);
    fs::write(stage.path("two"), "2")?;

    let committed = stage.ring()?.committed;
    for lsn in [0, ends[0], acknowledged - 8, acknowledged + 8, committed + 8, committed + RECORD_MIN as u64, u64::MAX]
    {
        assert_eq!(errno(stage.attach(&at(lsn))), Some(Errno::STALE), "{lsn}");
    }
    let stranger = Consumer { stream: OTHER, next_lsn: acknowledged, adopt: true };
    assert_eq!(errno(stage.attach(&stranger)), Some(Errno::XDEV));

    let ring = stage.attach(&at(acknowledged))?;
    assert!(!ring.is_first() && ring.epoch() == 1 && ring.acknowledged() == acknowledged);
    let kinds: Vec<_> = look_over(&ring)?.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.iter().filter(|&&kind| kind == RecordType::Create).count(), if ends.len() > 2 { 1 } else { 2 });
    drop(ring);
    // A consumer that died between its storage and its acknowledgement.
    let mut ring = stage.attach(&at(ends[ends.len() - 1]))?;
    assert_eq!(ring.acknowledged(), ends[ends.len() - 1]);
    drain(&mut ring, Duration::ZERO)?;
    assert_eq!(ring.acknowledged(), committed);
    stage.close(Some(ring))
}

pub fn the_mark_tells_trees_apart(context: &Context) -> Outcome {
    let mut stage = Stage::new(context, "")?;
    let lower = stage.lower().display().to_string();
    let ring = stage.attach(&at(0))?;
    assert!(ring.is_first() && ring.epoch() == 1);
    fs::write(stage.path("file"), "contents")?;
    assert!(run("getfattr", &["-m", "-", "-d", &stage.mnt().display().to_string()])?.is_empty(), "the mark shows");
    let end = stage.finish(ring)?;

    // In order: the log goes on where the mark says, and nowhere else.
    stage.mount("")?;
    assert_eq!(errno(stage.attach(&at(end - 8))), Some(Errno::STALE));
    assert_eq!(errno(stage.attach(&at(end + 8))), Some(Errno::STALE));
    let stranger = Consumer { stream: OTHER, next_lsn: end, adopt: false };
    assert_eq!(errno(stage.attach(&stranger)), Some(Errno::XDEV));
    assert_eq!(stage.ring()?.stream, [0; 16], "a refusal begins no stream");
    let ring = stage.attach(&at(end))?;
    assert!(!ring.is_first() && !ring.is_unclean() && ring.epoch() == 2);
    let view = look_over(&ring)?;
    assert_eq!(view[0].0, RecordType::Mount);
    fs::write(stage.path("file"), "other contents")?;
    let dirty = sh(&format!("getfattr -n trusted.reelfs -e hex {lower}"))?;
    let end = stage.finish(ring)?;

    // As after a crash: the mark was never made clean.
    let dirty = dirty.split("trusted.reelfs=").nth(1).ok_or("no mark")?.trim();
    sh(&format!("setfattr -n trusted.reelfs -v {dirty} {lower}"))?;
    stage.mount("")?;
    let ring = stage.attach(&at(end))?;
    assert!(ring.is_unclean() && ring.epoch() == 3);
    let end = stage.finish(ring)?;

    // Rolled back or changed elsewhere: only with the operator's word.
    stage.mount("")?;
    assert_eq!(errno(stage.attach(&at(end + 4096))), Some(Errno::STALE));
    let ring = stage.attach(&Consumer { adopt: true, ..at(end + 4096) })?;
    assert!(ring.is_unclean() && ring.acknowledged() == end + 4096);
    stage.finish(ring)?;

    // Damaged, cut, or too long.
    for value in [format!("0x{}", "00".repeat(96)), "0x5245".to_owned(), format!("0x{}", "52".repeat(97))] {
        sh(&format!("setfattr -n trusted.reelfs -v {value} {lower}"))?;
        stage.mount("")?;
        assert_eq!(errno(stage.attach(&at(0))), Some(Errno::UCLEAN), "{value}");
        stage.unmount()?;
    }
    stage.mount("")?;
    let adopted = Consumer { stream: OTHER, next_lsn: 0, adopt: true };
    let ring = stage.attach(&adopted)?;
    assert!(ring.is_unclean());
    stage.close(Some(ring))
}

pub fn a_ring_outlives_its_mount(context: &Context) -> Outcome {
    let mut stage = Stage::new(context, "")?;
    let mut ring = stage.attach(&at(0))?;
    drain(&mut ring, Duration::ZERO)?;
    let acknowledged = ring.acknowledged();
    fs::write(stage.path("file"), "contents")?;
    let id = ring.id();
    drop(ring);
    stage.unmount()?;

    let left = entry(stage.lower())?;
    assert_eq!((left.ring, left.state, left.stream, left.acknowledged), (id, 0, STREAM, acknowledged));
    assert!(left.committed > acknowledged);
    assert!(run("rmmod", &["reelfs"]).is_err(), "the module went with the records");

    let ring = Device::open()?.attach(Target::Ring(id), &at(acknowledged))?;
    assert!(!ring.was_mounted());
    let kinds: Vec<_> = look_over(&ring)?.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.last(), Some(&RecordType::Unmount));
    assert!(kinds.contains(&RecordType::Create) && kinds.contains(&RecordType::Write));
    drop(ring);
    assert_eq!(entry(stage.lower())?.state, 0, "looking takes nothing away");

    let mut ring = Device::open()?.attach(Target::Ring(id), &at(acknowledged))?;
    drain(&mut ring, Duration::ZERO)?;
    assert_eq!(ring.wait(Some(Duration::ZERO), Duration::ZERO, None)?, Wakeup::Ended);
    assert!(Device::open()?.list()?.is_empty(), "drained and still there");
    assert_eq!(errno(Device::open()?.attach(Target::Ring(id), &at(acknowledged))), Some(Errno::NOENT));
    drop(ring);
    run("rmmod", &["reelfs"])?;
    crate::machine::insmod()?;
    stage.close(None)
}

pub fn one_history_under_one_name(context: &Context) -> Outcome {
    let mut stage = Stage::new(context, "")?;
    let ring = stage.attach(&at(0))?;
    let other = Stage::named(context, "other", "")?;
    assert_eq!(errno(other.attach(&at(0))), Some(Errno::BUSY), "the stream is mounted");
    let id = ring.id();
    drop(ring);
    assert_eq!(errno(other.attach(&at(0))), Some(Errno::BUSY), "the stream is mounted, without a consumer");
    stage.unmount()?;
    assert_eq!(errno(other.attach(&at(0))), Some(Errno::BUSY), "records of the stream are left");
    stage.mount("")?;
    let end = Device::open()?.list()?.iter().find(|ring| ring.ring == id).ok_or("gone")?.committed;
    assert_eq!(errno(stage.attach(&at(end))), Some(Errno::BUSY), "records of the mount before are left");
    let mut ring = Device::open()?.attach(Target::Ring(id), &at(0))?;
    while drain(&mut ring, Duration::ZERO)? != Wakeup::Ended {}
    assert_eq!(ring.acknowledged(), end);
    drop(ring);
    let ring = stage.attach(&at(end))?;
    assert!(!ring.is_unclean());
    other.close(None)?;
    stage.close(Some(ring))
}

pub fn discarding_wants_proof(context: &Context) -> Outcome {
    let mut stage = Stage::new(context, "")?;
    let device = Device::open()?;
    let ring = stage.attach(&at(0))?;
    let (id, end) = (ring.id(), ring.committed()?);
    assert_eq!(errno(device.discard(id, end)), Some(Errno::BUSY), "mounted");
    assert_eq!(errno(device.discard(id + 1, end)), Some(Errno::NOENT));
    drop(ring);
    stage.unmount()?;
    let ring = Device::open()?.attach(Target::Ring(id), &at(0))?;
    let end = ring.committed()?;
    assert_eq!(errno(device.discard(id, end)), Some(Errno::BUSY), "has a consumer");
    drop(ring);
    for wrong in [0, end - 8, end + 8, u64::MAX] {
        assert_eq!(errno(device.discard(id, wrong)), Some(Errno::INVAL), "{wrong}");
    }
    device.discard(id, end)?;
    assert_eq!(errno(device.discard(id, end)), Some(Errno::NOENT), "twice");
    assert!(device.list()?.is_empty());

    // The log of the tree ends where nobody has it.
    stage.mount("")?;
    assert_eq!(errno(stage.attach(&at(0))), Some(Errno::STALE));
    let ring = stage.attach(&Consumer { adopt: true, ..at(0) })?;
    assert!(ring.is_unclean());
    drop(device);
    stage.close(Some(ring))
}
