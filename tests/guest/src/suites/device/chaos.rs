// SPDX-License-Identifier: GPL-2.0-or-later

//! Every call, in any order, from several threads, on the same descriptors.

use super::stage::{at, drain, look_over, Stage, STREAM};
use super::telling::{checkpoint, identity, tell, unnamed, Told};
use super::Outcome;
use crate::pattern::Random;
use crate::Context;
use reelfs_format::record::Identity;
use reelfs_format::uapi::{
    Attach, Checkpoint, Discard, List, State, ATTACH_ADOPT, ATTACH_BY_FD, ATTACH_BY_RING, IOC_ACKNOWLEDGE, IOC_ATTACH,
    IOC_DETACH, IOC_DISCARD, IOC_LIST, UAPI_VERSION,
};
use reelfs_sys::device::{Device, Wakeup};
use reelfs_sys::trial::{command, number, Mapped, Protection};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

/// What one thread does to the descriptors that it shares with others.
fn torment(devices: &[Device], mount: &File, objects: &[Identity], id: u64, seed: u64, stop: &AtomicBool) -> u64 {
    let mut begun = Checkpoint::default();
    let mut random = Random::new(seed);
    let mut done = 0;
    let mut mappings = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let device = &devices[random.below(devices.len() as u64) as usize];
        let end = device.list().ok().and_then(|rings| rings.into_iter().find(|ring| ring.ring == id));
        let Some(end) = end else { break };
        match random.below(15) {
            0..=2 => {
                let by_fd = random.below(2) == 0;
                let mut attach = Attach {
                    version: UAPI_VERSION,
                    flags: if by_fd { ATTACH_BY_FD } else { ATTACH_BY_RING }
                        | if random.below(2) == 0 { ATTACH_ADOPT } else { 0 },
                    fd: if by_fd { number(mount) } else { -1 },
                    ring: id,
                    stream: STREAM,
                    next_lsn: if random.below(3) == 0 { end.committed } else { end.acknowledged },
                    ..Attach::default()
                };
                let _ = command(device, IOC_ATTACH, attach.as_mut_bytes());
            }
            3 | 4 => {
                let lsn = match random.below(4) {
                    0 => end.acknowledged + 8 * random.below(100),
                    1 => random.below(u64::MAX),
                    _ => end.committed,
                };
                let _ = command(device, IOC_ACKNOWLEDGE, &mut lsn.to_ne_bytes());
            }
            5 => {
                let _ = command(device, IOC_DETACH, &mut []);
            }
            6 => {
                let mut discard = Discard { ring: id, committed: end.committed };
                let _ = command(device, IOC_DISCARD, discard.as_mut_bytes());
            }
            7 => {
                let start = 4096 * random.below(300);
                if let Ok(mapped) = Mapped::new(device, Protection::READ, start..start + 4096 * (1 + random.below(64)))
                {
                    let _ = mapped.byte(random.below(4096) as usize);
                    mappings.push(mapped);
                }
                if mappings.len() > 20 {
                    mappings.clear();
                }
            }
            8 => {
                let mut fds = [PollFd::new(device, PollFlags::IN | PollFlags::PRI)];
                let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 3_000_000 }));
            }
            9 => {
                let mut entry = [0; size_of::<List>()];
                entry[..8].copy_from_slice(&random.below(id + 2).to_ne_bytes());
                let _ = command(device, IOC_LIST, &mut entry);
            }
            10 => {
                let operation = 1 + random.below(3) as u32;
                let request = Checkpoint { operation, begin: begun.begin, ..Checkpoint::default() };
                begun = checkpoint(device, request).unwrap_or(begun);
            }
            11 => {
                let _ = unnamed(device, Identity::NONE);
            }
            _ => {
                let request = State {
                    what: 1 + random.below(3) as u32,
                    checkpoint: begun.begin,
                    object: match objects.get(random.below(objects.len() as u64 + 1) as usize) {
                        Some(object) => zerocopy::transmute!(*object),
                        None => begun.root,
                    },
                    position: if random.below(2) == 0 { 0 } else { random.below(1 << 20) },
                    length: random.below(1 << 22),
                    ..State::default()
                };
                let _ = tell(device, request);
            }
        }
        done += 1;
    }
    done
}

pub fn any_order_of_calls(context: &Context) -> Outcome {
    let stage = Stage::new(context, "ring=1M")?;
    let ring = stage.attach(&at(0))?;
    let id = ring.id();
    drop(ring);
    let devices: Vec<_> = (0..3).map(|_| Device::open()).collect::<Result<_, _>>()?;
    let mount = stage.fd()?;
    let objects = ["file0", "file1"].map(|name| -> Told<Identity> {
        File::create(stage.lower().join(name))?;
        identity(&stage.lower().join(name))
    });
    let objects = objects.into_iter().collect::<Result<Vec<_>, _>>()?;
    let stop = AtomicBool::new(false);
    let time = Duration::from_secs(if context.short { 10 } else { 60 });

    let (calls, written) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u64)
            .map(|which| {
                let (path, stop) = (stage.path(&format!("file{which}")), &stop);
                scope.spawn(move || -> std::io::Result<u64> {
                    let mut random = Random::new(which + 77);
                    let mut file = File::create(path)?;
                    let mut written = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let piece = vec![which as u8 + 1; 1 + random.below(40_000) as usize];
                        if random.below(200) == 0 {
                            file.set_len(0)?;
                            file.seek(SeekFrom::Start(0))?;
                            written = 0;
                        }
                        file.write_all(&piece)?;
                        written += piece.len() as u64;
                        if random.below(20) == 0 {
                            file.sync_all()?;
                        }
                    }
                    Ok(written)
                })
            })
            .collect();
        let tormentors: Vec<_> = (0..4u64)
            .map(|seed| {
                let (devices, mount, objects, stop) = (&devices, &mount, &objects, &stop);
                scope.spawn(move || torment(devices, mount, objects, id, seed, stop))
            })
            .collect();
        let begin = Instant::now();
        while begin.elapsed() < time {
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        // One that waits for room for a checkpoint waits no longer when that is void.
        while tormentors.iter().any(|thread| !thread.is_finished()) {
            for device in &devices {
                let _ = command(device, IOC_DETACH, &mut []);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let calls: u64 = tormentors.into_iter().filter_map(|thread| thread.join().ok()).sum();
        // Writers may still wait: be the consumer that lets them go.
        let mut written = Vec::new();
        for device in &devices {
            let _ = command(device, IOC_DETACH, &mut []);
        }
        let ring = stage.ring().and_then(|ring| Ok(stage.attach(&at(ring.acknowledged))?));
        if let Ok(mut ring) = ring {
            while writers.iter().any(|writer| !writer.is_finished()) {
                let _ = ring.wait(Some(Duration::from_millis(50)), Duration::ZERO, None);
                let end = look_over(&ring).ok().and_then(|seen| seen.last().map(|&(_, end)| end));
                if let Some(end) = end {
                    let _ = ring.acknowledge(end);
                }
            }
        }
        for writer in writers {
            written.push(writer.join());
        }
        (calls, written)
    });
    assert!(calls > 1000, "{calls}");
    assert!(stage.ring()?.records > 200, "{}", stage.ring()?.records);
    for (which, written) in written.into_iter().enumerate() {
        let written = written.map_err(|_| "a writer panicked")??;
        assert_eq!(fs::metadata(stage.lower().join(format!("file{which}")))?.len(), written);
    }
    // The log is as sound as before.
    let mut ring = stage.attach(&at(stage.ring()?.acknowledged))?;
    fs::write(stage.path("last"), "x")?;
    assert!(!look_over(&ring)?.is_empty());
    assert_eq!(drain(&mut ring, Duration::ZERO)?, Wakeup::Records);
    assert_eq!(stage.ring()?.used, 0, "all room came back");
    drop((devices, mount));
    stage.close(Some(ring))
}
