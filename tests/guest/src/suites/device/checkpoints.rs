// SPDX-License-Identifier: GPL-2.0-or-later

//! When a checkpoint is open and when not, what it keeps from happening (nothing), and who asks for what is not there.

use super::stage::{at, drain, errno, look_over, Stage, SOON};
use super::states::check_tree;
use super::telling::{checkpoint, identity, take, tell, unnamed, Telling, Told};
use super::Outcome;
use crate::machine::{sh, wait_until};
use crate::pattern::Random;
use crate::Context;
use reelfs_format::mark::Mark;
use reelfs_format::record::{Identity, RecordType, MOUNT_FIRST, MOUNT_GAP, MOUNT_POPULATED, MOUNT_UNCLEAN};
use reelfs_format::uapi::{
    Checkpoint, State, CHECKPOINT_BEGIN, CHECKPOINT_END, CHECKPOINT_STOP, RING_ATTACHED, RING_DEGRADED, RING_GAP,
    RING_MOUNTED, RING_POPULATED, TELL_DATA, TELL_ENTRIES, TELL_OBJECT,
};
use reelfs_format::view::{Event, RecordView};
use reelfs_sys::device::{Consumer, Device, Target, Wakeup};
use reelfs_sys::trial::{command_at, Nowhere};
use rustix::io::Errno;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn begin(device: impl AsFd) -> std::io::Result<Checkpoint> {
    checkpoint(device, Checkpoint { operation: CHECKPOINT_BEGIN, ..Checkpoint::default() })
}

fn end(device: impl AsFd, begin: u64) -> std::io::Result<Checkpoint> {
    checkpoint(device, Checkpoint { operation: CHECKPOINT_END, begin, ..Checkpoint::default() })
}

fn stop(device: impl AsFd) -> std::io::Result<Checkpoint> {
    checkpoint(device, Checkpoint { operation: CHECKPOINT_STOP, ..Checkpoint::default() })
}

/// A request for the root of an open checkpoint.
fn root_of(begun: &Checkpoint) -> State {
    State { what: TELL_OBJECT, checkpoint: begun.begin, object: begun.root, ..State::default() }
}

/// The flags of the mount record, which is the first of these.
fn mount_flags(records: &[Vec<u8>]) -> Told<u64> {
    let view = RecordView::parse(records.first().ok_or("no records")?, None)?;
    let Event::Mount { body, .. } = view.event()? else { return Err("no mount record".into()) };
    Ok(body.flags.get())
}

fn mark(root: &Path) -> Told<Mark> {
    let mut value = [0; 256];
    let length = rustix::fs::getxattr(root, "trusted.reelfs", &mut value[..])?;
    Ok(Mark::parse(&value[..length]).map_err(|e| format!("{e:?}"))?)
}

pub fn begin_and_end(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let idle = Device::open()?;
    assert_eq!(errno(begin(&idle)), Some(Errno::NOTCONN));
    assert_eq!(errno(tell(&idle, State::default())), Some(Errno::NOTCONN));
    assert_eq!(errno(unnamed(&idle, Identity::NONE)), Some(Errno::NOTCONN));
    let mut ring = stage.attach(&at(0))?;
    take(&mut ring)?;
    // Nothing is open yet.
    assert_eq!(errno(end(&ring, 0)), Some(Errno::STALE));
    assert_eq!(errno(tell(&ring, State { what: TELL_OBJECT, ..State::default() })), Some(Errno::STALE));
    for operation in [0, 4, u32::MAX] {
        let request = Checkpoint { operation, ..Checkpoint::default() };
        assert_eq!(errno(checkpoint(&ring, request)), Some(Errno::PROTO), "{operation}");
    }
    let request = Checkpoint { operation: CHECKPOINT_BEGIN, reserved: 1, ..Checkpoint::default() };
    assert_eq!(errno(checkpoint(&ring, request)), Some(Errno::PROTO));
    assert_eq!(stop(&ring)?.lsn, ring.committed()?, "there is none to stop, and that is what was wanted");
    assert!(take(&mut ring)?.is_empty());

    let begun = begin(&ring)?;
    assert_eq!(errno(begin(&ring)), Some(Errno::BUSY));
    for what in [0, 4, u32::MAX] {
        assert_eq!(errno(tell(&ring, State { what, ..root_of(&begun) })), Some(Errno::PROTO), "{what}");
    }
    for other in [0, begun.begin - 8, begun.begin + 8, begun.lsn, u64::MAX] {
        assert_eq!(errno(end(&ring, other)), Some(Errno::STALE), "{other}");
        assert_eq!(errno(tell(&ring, State { checkpoint: other, ..root_of(&begun) })), Some(Errno::STALE), "{other}");
    }
    tell(&ring, root_of(&begun))?;
    let ended = end(&ring, begun.begin)?;
    assert_eq!(errno(end(&ring, begun.begin)), Some(Errno::STALE), "twice");
    assert_eq!(errno(tell(&ring, root_of(&begun))), Some(Errno::STALE), "it has ended");
    let kinds: Vec<_> = look_over(&ring)?.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [RecordType::CheckpointBegin, RecordType::ObjectState, RecordType::CheckpointEnd]);
    assert_eq!(ring.committed()?, ended.lsn);
    take(&mut ring)?;

    // The next one, given up; and one whose name its caller does not get to know.
    let begun = begin(&ring)?;
    assert!(begun.begin == ended.lsn);
    stop(&ring)?;
    assert_eq!(errno(end(&ring, begun.begin)), Some(Errno::STALE));
    assert_eq!(errno(tell(&ring, root_of(&begun))), Some(Errno::STALE), "it was stopped");
    for address in [Nowhere::Null, Nowhere::Kernel, Nowhere::NonCanonical] {
        for request in
            [reelfs_format::uapi::IOC_CHECKPOINT, reelfs_format::uapi::IOC_STATE, reelfs_format::uapi::IOC_UNNAMED]
        {
            assert_eq!(errno(command_at(&ring, request, address)), Some(Errno::FAULT), "{request:#x} {address:?}");
        }
    }
    let begun = begin(&ring)?;
    end(&ring, begun.begin)?;
    assert!(ring_state(&stage)? & RING_POPULATED == 0, "it was empty");
    stage.close(Some(ring))
}

fn ring_state(stage: &Stage) -> Told<u32> {
    Ok(stage.ring()?.state)
}

pub fn populated_trees(context: &Context) -> Outcome {
    let mut stage = Stage::bare(context, "tmpfs", "populated")?;
    sh(&format!(
        "cd {} && mkdir -p a/b/c && echo one >a/one && ln a/one a/b/two && ln -s one a/link && seq 1 100000 >a/b/c/three",
        stage.lower().display()
    ))?;
    // The mark says that the log lacks what was there, until a checkpoint is complete: over a clean unmount, too.
    stage.mount("")?;
    let mut ring = stage.attach(&at(4096))?;
    assert_eq!(mount_flags(&take(&mut ring)?)?, MOUNT_FIRST | MOUNT_POPULATED);
    assert_eq!(ring_state(&stage)?, RING_MOUNTED | RING_ATTACHED | RING_POPULATED);
    let began = ring.acknowledged();
    let first = mark(stage.lower())?;
    assert_eq!((first.is_clean(), first.gap()), (false, Some(4096)));
    let begun = begin(&ring)?;
    stop(&ring)?;
    assert!(begun.begin == began && ring_state(&stage)? & RING_POPULATED != 0, "none was complete");
    let end = stage.finish(ring)?;
    assert_eq!((mark(stage.lower())?.is_clean(), mark(stage.lower())?.gap()), (true, Some(4096)));

    // The next mount has a gap from there on. Changes go on while all is told; and then it has none.
    stage.mount("")?;
    let mut ring = stage.attach(&at(end))?;
    assert_eq!(mount_flags(&take(&mut ring)?)?, MOUNT_GAP);
    assert_eq!((ring_state(&stage)?, ring.gap()), (RING_MOUNTED | RING_ATTACHED | RING_GAP, Some(4096)));
    fs::write(stage.path("a/new"), "recorded")?;
    let mut telling = Telling::begin(ring)?;
    let told = telling.walk()?;
    check_tree(stage.lower(), &told)?;
    assert_eq!(told.len(), 9);
    let ring = telling.end(8, 588_895)?;
    assert_eq!(ring_state(&stage)?, RING_MOUNTED | RING_ATTACHED);
    let end = stage.finish(ring)?;
    assert_eq!((mark(stage.lower())?.is_clean(), mark(stage.lower())?.gap()), (true, None));

    // Adopted into another stream, it is not in that one's log.
    stage.mount("")?;
    let mut ring = stage.attach(&Consumer { stream: *b"another's stream", next_lsn: 0, adopt: true })?;
    assert_eq!(mount_flags(&take(&mut ring)?)?, MOUNT_UNCLEAN | MOUNT_POPULATED);
    assert!(ring_state(&stage)? & RING_POPULATED != 0 && end > 0);
    let telling = Telling::begin(ring)?;
    let ring = telling.end(0, 0)?;
    assert!(ring_state(&stage)? & RING_POPULATED == 0);
    stage.close(Some(ring))
}

pub fn detaching_voids(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let ring = stage.attach(&at(0))?;
    let begun = begin(&ring)?;
    let device = ring.detach()?;
    assert_eq!(errno(end(&device, begun.begin)), Some(Errno::NOTCONN));
    let ring = device.attach(Target::Mount(stage.fd()?.as_fd()), &at(0))?;
    assert_eq!(errno(end(&ring, begun.begin)), Some(Errno::STALE));
    assert_eq!(errno(tell(&ring, root_of(&begun))), Some(Errno::STALE));
    let begun = begin(&ring)?;
    tell(&ring, root_of(&begun))?;
    stage.close(Some(ring))
}

pub fn unmounting_voids(context: &Context) -> Outcome {
    let mut stage = Stage::new(context, "ring=1M")?;
    let mut ring = stage.attach(&at(0))?;
    take(&mut ring)?;
    fs::write(stage.path("file"), vec![1; 100_000])?;
    take(&mut ring)?;
    let begun = begin(&ring)?;
    let file = identity(&stage.lower().join("file"))?;
    // Somebody who asks all the time keeps nobody from unmounting; he waits for room too, now and then.
    let device = ring.as_fd().try_clone_to_owned()?;
    let asked = AtomicU64::new(0);
    let last = std::thread::scope(|scope| -> Told<Option<Errno>> {
        let asking = scope.spawn(|| loop {
            let request = State { what: TELL_DATA, object: zerocopy::transmute!(file), ..root_of(&begun) };
            match errno(tell(&device, request)) {
                None | Some(Errno::NOENT) => asked.fetch_add(1, Ordering::Relaxed),
                other => break other,
            };
        });
        let unmounting = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            let begin = Instant::now();
            let status = std::process::Command::new("umount").arg(stage.mnt()).status();
            (status.is_ok_and(|status| status.success()), begin.elapsed())
        });
        let begin = Instant::now();
        loop {
            if drain(&mut ring, Duration::ZERO)? == Wakeup::Ended {
                break;
            }
            assert!(begin.elapsed() < SOON * 5, "it does not come to an end");
        }
        let (unmounted, took) = unmounting.join().map_err(|_| "it panicked")?;
        assert!(unmounted, "the mount was busy");
        assert!(took < Duration::from_secs(15), "{took:?}");
        asking.join().map_err(|_| "it panicked".into())
    })?;
    assert_eq!(last, Some(Errno::NODEV));
    assert!(asked.load(Ordering::Relaxed) > 10, "{asked:?}");
    assert_eq!(errno(end(&ring, begun.begin)), Some(Errno::NODEV));
    assert_eq!(errno(begin(&ring)), Some(Errno::NODEV));
    assert_eq!(errno(unnamed(&ring, Identity::NONE)), Some(Errno::NODEV));
    drop((ring, device));
    let _ = stage.unmount();
    stage.close(None)
}

pub fn a_gap_voids(context: &Context) -> Outcome {
    let stage = Stage::new(context, "ring=1M,onstall=degrade,stall=1")?;
    let mut ring = stage.attach(&at(0))?;
    take(&mut ring)?;
    let begun = begin(&ring)?;
    tell(&ring, root_of(&begun))?;
    // Nobody acknowledges, and so many changes come that the log has a gap.
    fs::write(stage.path("file"), vec![1; 3 << 20])?;
    assert!(ring_state(&stage)? & RING_DEGRADED != 0);
    assert_eq!(errno(tell(&ring, root_of(&begun))), Some(Errno::STALE));
    assert_eq!(errno(end(&ring, begun.begin)), Some(Errno::STALE), "changes are missing in it");
    assert_eq!(errno(begin(&ring)), Some(Errno::AGAIN), "changes go unrecorded");
    // When the log goes on, nothing is open; and another one closes the gap.
    take(&mut ring)?;
    wait_until("the log goes on", SOON, || ring_state(&stage).is_ok_and(|state| state & RING_DEGRADED == 0))?;
    assert_eq!(errno(end(&ring, begun.begin)), Some(Errno::STALE));
    assert!(ring_state(&stage)? & RING_GAP != 0);
    take(&mut ring)?;
    let mut telling = Telling::begin(ring)?;
    let told = telling.walk()?;
    check_tree(stage.lower(), &told)?;
    let ring = telling.end(2, 3 << 20)?;
    assert_eq!((ring_state(&stage)? & RING_GAP, stage.ring()?.gap_lsn), (0, 0));
    stage.close(Some(ring))
}

pub fn waits_and_makes_no_gap(context: &Context) -> Outcome {
    // With a ring that is full, a call waits for room; it goes on when there is some, and can be killed.
    let stage = Stage::named(context, "blocks", "ring=1M")?;
    let mut ring = stage.attach(&at(0))?;
    fs::write(stage.path("file"), vec![1; 200_000])?;
    take(&mut ring)?;
    let begun = begin(&ring)?;
    let file = identity(&stage.lower().join("file"))?;
    let request = State { what: TELL_DATA, object: zerocopy::transmute!(file), length: 1 << 30, ..root_of(&begun) };
    let before = stage.ring()?.waits;
    let device = ring.as_fd().try_clone_to_owned()?;
    std::thread::scope(|scope| -> Outcome {
        let filling = scope.spawn(|| -> std::io::Result<u32> {
            let mut told = 0;
            while told < 20 {
                let mut at = State::default();
                while at.flags == 0 {
                    let State { position, shifts, .. } = at;
                    at = tell(&device, State { position, shifts, ..request })?;
                }
                told += 1;
            }
            Ok(told)
        });
        wait_until("the ring is full", SOON, || stage.ring().is_ok_and(|ring| ring.waits > before))?;
        // The object is not locked by who waits, and the mount is as usable as ever.
        assert_eq!(fs::read(stage.path("file"))?.len(), 200_000);
        while !filling.is_finished() {
            drain(&mut ring, Duration::ZERO)?;
        }
        assert_eq!(filling.join().map_err(|_| "it panicked")??, 20);
        Ok(())
    })?;
    assert_eq!(stage.ring()?.refused, 0);
    drop(device);
    stage.close(Some(ring))?;

    // Where changes would go unrecorded by now, a call gives up instead: it is no change.
    let stage = Stage::named(context, "degrades", "ring=1M,onstall=degrade,stall=1")?;
    let mut ring = stage.attach(&at(0))?;
    fs::write(stage.path("file"), vec![1; 200_000])?;
    take(&mut ring)?;
    let begun = begin(&ring)?;
    let file = identity(&stage.lower().join("file"))?;
    let request = State { what: TELL_DATA, object: zerocopy::transmute!(file), length: 1 << 30, ..root_of(&begun) };
    let gave_up = loop {
        if let Err(error) = tell(&ring, request) {
            break errno::<()>(Err(error));
        }
    };
    assert_eq!(gave_up, Some(Errno::AGAIN));
    assert_eq!((ring_state(&stage)? & RING_DEGRADED, stage.ring()?.gaps), (0, 0));
    take(&mut ring)?;
    tell(&ring, request)?;
    end(&ring, begun.begin)?;
    stage.close(Some(ring))?;

    // With `fail`, too.
    let stage = Stage::named(context, "fails", "ring=1M,onstall=fail,stall=1")?;
    let mut ring = stage.attach(&at(0))?;
    fs::write(stage.path("file"), vec![1; 200_000])?;
    take(&mut ring)?;
    let begun = begin(&ring)?;
    let file = identity(&stage.lower().join("file"))?;
    let request = State { what: TELL_DATA, object: zerocopy::transmute!(file), length: 1 << 30, ..root_of(&begun) };
    let gave_up = loop {
        if let Err(error) = tell(&ring, request) {
            break errno::<()>(Err(error));
        }
    };
    assert_eq!(gave_up, Some(Errno::AGAIN));
    take(&mut ring)?;
    end(&ring, begun.begin)?;
    stage.close(Some(ring))
}

pub fn hostile_identities(context: &Context) -> Outcome {
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        let mut stage = Stage::bare(context, kind, kind)?;
        fs::write(stage.lower().join("file"), "contents")?;
        stage.mount("")?;
        let mut ring = stage.attach(&at(0))?;
        take(&mut ring)?;
        let begun = begin(&ring)?;
        take(&mut ring)?;
        let good: [u8; 32] = zerocopy::transmute!(identity(&stage.lower().join("file"))?);
        let mut random = Random::new(7);
        let ask = |object: [u8; 32], position: u64, what: u32| {
            errno(tell(&ring, State { what, object, position, length: u64::MAX, ..root_of(&begun) }))
        };
        assert_eq!(ask(good, 0, TELL_OBJECT), None);
        // One bit at a time, then everything: what is not just this object is none.
        for bit in 0..256 {
            let mut object = good;
            object[bit / 8] ^= 1 << (bit % 8);
            let answer = ask(object, 0, TELL_OBJECT);
            assert!(matches!(answer, None | Some(Errno::NOENT | Errno::STALE)), "{kind}: bit {bit}: {answer:?}");
            let behind = bit / 8 >= 4 + usize::from(good[2]) || bit / 8 == 3;
            assert!(!behind || answer.is_some(), "{kind}: bit {bit} means nothing, and was taken");
        }
        for round in 0..5000 {
            let mut object = if round % 2 == 0 { good } else { [0; 32] };
            for _ in 0..=random.below(8) {
                object[random.below(32) as usize] = random.next() as u8;
            }
            let what = [TELL_OBJECT, TELL_DATA, TELL_ENTRIES][random.below(3) as usize];
            let position = if round % 3 == 0 { random.next() } else { 0 };
            let answer = ask(object, position, what);
            let known = [Errno::NOENT, Errno::NOTDIR, Errno::INVAL, Errno::AGAIN];
            assert!(answer.is_none_or(|answer| known.contains(&answer)), "{kind}: {object:?}: {answer:?}");
        }
        assert_eq!(ask([0; 32], 0, TELL_OBJECT), Some(Errno::NOENT));
        assert_eq!(ask([0xff; 32], 0, TELL_OBJECT), Some(Errno::NOENT));
        // Places in a directory that are none.
        for position in [1, 3, 12_345, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            let answer = ask(begun.root, position, TELL_ENTRIES);
            assert!(matches!(answer, None | Some(Errno::INVAL)), "{kind}: {position}: {answer:?}");
        }
        let records = take(&mut ring)?;
        assert!(records.len() < 5000);
        drop(records);
        stage.close(Some(ring))?;
    }
    Ok(())
}

pub fn objects_elsewhere(context: &Context) -> Outcome {
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        let mut stage = Stage::bare(context, kind, kind)?;
        let all = stage.lower().to_owned();
        sh(&format!(
            "cd {} && mkdir -p inside/below outside/below && echo secret >outside/file && echo in >inside/file &&
            echo both >outside/both && ln outside/both inside/both",
            all.display()
        ))?;
        stage.choose("inside");
        stage.mount("")?;
        let ring = stage.attach(&at(0))?;
        let begun = begin(&ring)?;
        let ask = |path: &str| -> Told<Option<Errno>> {
            let object = zerocopy::transmute!(identity(&all.join(path))?);
            Ok(errno(tell(&ring, State { object, ..root_of(&begun) })))
        };
        let root: [u8; 32] = zerocopy::transmute!(identity(&all.join("inside"))?);
        assert_eq!(root, begun.root);
        // With their names in memory, and without.
        for round in 0..2 {
            for path in ["inside", "inside/below", "inside/file", "inside/both", "outside/both"] {
                assert_eq!(ask(path)?, None, "{kind}: {path}");
            }
            for path in ["outside", "outside/below"] {
                assert_eq!(ask(path)?, Some(Errno::NOENT), "{kind}: {path}");
            }
            if round == 0 {
                fs::metadata(all.join("outside/file"))?;
                assert_eq!(ask("outside/file")?, Some(Errno::NOENT), "{kind}");
            }
            sh("sync; echo 2 >/proc/sys/vm/drop_caches")?;
        }
        stage.close(Some(ring))?;
    }
    Ok(())
}
