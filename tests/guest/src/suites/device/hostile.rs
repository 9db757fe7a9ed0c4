// SPDX-License-Identifier: GPL-2.0-or-later

//! Calls that have to be refused, and must change nothing.

use super::stage::{at, drain, errno, look_over, Stage, STREAM};
use super::Outcome;
use crate::machine::{run, sh};
use crate::Context;
use reelfs_format::uapi::{
    Attach, ATTACH_BY_FD, ATTACH_BY_RING, IOC_ACKNOWLEDGE, IOC_ATTACH, IOC_DETACH, IOC_DISCARD, IOC_LIST, UAPI_VERSION,
};
use reelfs_sys::device::{Device, Target};
use reelfs_sys::trial::{command, command_at, number, Mapped, Nowhere, Protection};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::time::Duration;
use zerocopy::IntoBytes;

pub fn opening_needs_the_capability(_: &Context) -> Outcome {
    let mode = run("stat", &["-c", "%a %u %g", "/dev/reelfs"])?;
    assert_eq!(mode.trim(), "600 0 0");
    // The mode alone would do; the capability is asked for in case somebody changes it.
    sh("chmod 666 /dev/reelfs")?;
    let refused = |who: &str| sh(&format!("{who} sh -c ': <>/dev/reelfs' 2>&1 && exit 1 || exit 0"));
    let answers = [
        refused("setpriv --reuid 65534 --regid 65534 --clear-groups"),
        refused("setpriv --bounding-set -sys_admin --inh-caps -sys_admin"),
        refused("unshare -Ur"),
    ];
    sh("chmod 600 /dev/reelfs")?;
    for answer in answers {
        let answer = answer?;
        assert!(answer.contains("not permitted"), "{answer}");
    }
    sh(": <>/dev/reelfs")?;
    Ok(())
}

pub fn unknown_commands_are_refused(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let mut ring = stage.attach(&at(0))?;
    let before = stage.ring()?;
    let known = [IOC_ATTACH, IOC_ACKNOWLEDGE, IOC_DETACH, IOC_DISCARD, IOC_LIST];
    let mut buffer = [0xff; 0x4000];
    let mut asked = 0;
    for number in 0..=0xffu32 {
        for direction in 0..4u32 {
            for size in [0u32, 1, 8, 16, 112, 352, 0x3fff] {
                let request = (direction << 30) | (size << 16) | (0xd2 << 8) | number;
                if known.contains(&request) {
                    continue;
                }
                buffer.fill(0xff);
                // FIOCLEX and the like, which the VFS answers itself, have another type byte.
                assert_eq!(errno(command(&ring, request, &mut buffer)), Some(Errno::NOTTY), "{request:#x}");
                asked += 1;
            }
        }
    }
    assert!(asked > 7000);
    assert_eq!(stage.ring()?, before);
    drain(&mut ring, Duration::ZERO)?;
    stage.close(Some(ring))
}

pub fn bad_addresses_are_refused(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let ring = stage.attach(&at(0))?;
    let before = stage.ring()?;
    let idle = Device::open()?;
    for address in [Nowhere::Null, Nowhere::Kernel, Nowhere::NonCanonical] {
        for request in [IOC_ATTACH, IOC_ACKNOWLEDGE, IOC_DISCARD, IOC_LIST] {
            assert_eq!(errno(command_at(&ring, request, address)), Some(Errno::FAULT), "{request:#x} {address:?}");
            assert_eq!(errno(command_at(&idle, request, address)), Some(Errno::FAULT), "{request:#x} {address:?}");
        }
    }
    assert_eq!(stage.ring()?, before);
    stage.close(Some(ring))
}

pub fn impossible_attaches_are_refused(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let device = Device::open()?;
    let (fd, elsewhere) = (stage.fd()?, File::open("/proc/self")?);
    let (here, below) = (number(&fd), File::open(stage.lower())?);
    let id = stage.ring()?.ring;
    let good = Attach {
        version: UAPI_VERSION,
        flags: ATTACH_BY_FD,
        fd: here,
        stream: STREAM,
        next_lsn: 4096,
        ..Attach::default()
    };
    let by_ring = Attach { flags: ATTACH_BY_RING, fd: -1, ..good };
    let cases = [
        ("version 0", Attach { version: 0, ..good }, Errno::PROTO),
        ("the version before", Attach { version: UAPI_VERSION - 1, ..good }, Errno::PROTO),
        ("the next version", Attach { version: UAPI_VERSION + 1, ..good }, Errno::PROTO),
        ("no name", Attach { flags: 0, ..good }, Errno::PROTO),
        ("two names", Attach { flags: ATTACH_BY_FD | ATTACH_BY_RING, ..good }, Errno::PROTO),
        ("unknown flag", Attach { flags: ATTACH_BY_FD | 0x8000_0000, ..good }, Errno::PROTO),
        ("no descriptor", Attach { fd: -1, ..good }, Errno::BADF),
        ("closed descriptor", Attach { fd: 1_000_000, ..good }, Errno::BADF),
        ("smallest number", Attach { fd: i32::MIN, ..good }, Errno::BADF),
        ("another filesystem", Attach { fd: number(&elsewhere), ..good }, Errno::NOTTY),
        ("the lower directory", Attach { fd: number(&below), ..good }, Errno::NOTTY),
        ("the device itself", Attach { fd: number(&device), ..good }, Errno::NOTTY),
        ("no such ring", Attach { ring: id + 1, ..by_ring }, Errno::NOENT),
        ("ring zero", Attach { ring: 0, ..by_ring }, Errno::NOENT),
        ("last ring", Attach { ring: u64::MAX, ..by_ring }, Errno::NOENT),
        ("no stream", Attach { stream: [0; 16], ..good }, Errno::INVAL),
        ("LSN not aligned", Attach { next_lsn: 4097, ..good }, Errno::INVAL),
        ("LSN too high", Attach { next_lsn: (1 << 62) + 8, ..good }, Errno::INVAL),
        ("highest LSN", Attach { next_lsn: u64::MAX - 7, ..good }, Errno::INVAL),
    ];
    for (name, case, wanted) in cases {
        let mut attach = case;
        let result = command(&device, IOC_ATTACH, attach.as_mut_bytes());
        assert_eq!(errno(result), Some(wanted), "{name}");
        assert_eq!(attach, case, "{name}: the structure was changed");
        let ring = stage.ring()?;
        assert_eq!((ring.stream, ring.state & !1, ring.records), ([0; 16], 0, 0), "{name}");
    }
    // The tree has no mark yet, so none of them began a stream.
    let mark = run("getfattr", &["-m", "-", "-d", &stage.lower().display().to_string()])?;
    assert!(!mark.contains("trusted.reelfs"), "{mark}");
    drop((fd, elsewhere, below));
    let ring = device.attach(Target::Ring(id), &at(4096))?;
    assert!(ring.is_first() && !ring.is_unclean() && ring.epoch() == 1);
    stage.close(Some(ring))
}

pub fn nothing_works_before_attaching(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let device = Device::open()?;
    assert_eq!(errno(command(&device, IOC_ACKNOWLEDGE, &mut [0; 8])), Some(Errno::NOTCONN));
    assert_eq!(errno(command(&device, IOC_DETACH, &mut [])), Some(Errno::NOTCONN));
    assert_eq!(errno(Mapped::new(&device, Protection::READ, 0..4096)), Some(Errno::NOTCONN));
    let mut fds = [rustix::event::PollFd::new(&device, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 }))?;
    assert_eq!(fds[0].revents(), rustix::event::PollFlags::ERR);

    let device = device.attach(Target::Mount(stage.fd()?.as_fd()), &at(0))?.detach()?;
    assert_eq!(errno(command(&device, IOC_ACKNOWLEDGE, &mut [0; 8])), Some(Errno::NOTCONN));
    assert_eq!(errno(command(&device, IOC_DETACH, &mut [])), Some(Errno::NOTCONN));
    let ring = device.attach(Target::Mount(stage.fd()?.as_fd()), &at(0))?;
    stage.close(Some(ring))
}

pub fn acknowledging_takes_boundaries_only(context: &Context) -> Outcome {
    let stage = Stage::new(context, "")?;
    let mut ring = stage.attach(&at(8192))?;
    fs::write(stage.path("file"), "some bytes")?;
    fs::create_dir(stage.path("directory"))?;
    let ends: Vec<_> = look_over(&ring)?.into_iter().map(|(_, end)| end).collect();
    assert!(ends.len() >= 4);
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    let acknowledge = |lsn: u64| command(&ring, IOC_ACKNOWLEDGE, &mut lsn.to_ne_bytes());
    for lsn in [0, 8, 8184, 8191, 8193, first - 8, first - 1, first + 1, last - 8, last + 8, last + 1, u64::MAX] {
        assert_eq!(errno(acknowledge(lsn)), Some(Errno::INVAL), "{lsn}");
    }
    acknowledge(8192)?;
    ring.acknowledge(first)?;
    ring.acknowledge(first)?;
    assert_eq!(errno(ring.acknowledge(8192)), Some(Errno::INVAL), "backwards");
    assert_eq!(look_over(&ring)?.len(), ends.len() - 1);
    ring.acknowledge(last)?;
    assert_eq!((stage.ring()?.acknowledged, stage.ring()?.used), (last, 0));
    stage.close(Some(ring))
}

pub fn mapping_is_for_reading_only(context: &Context) -> Outcome {
    let stage = Stage::new(context, "ring=1M")?;
    let ring = stage.attach(&at(0))?;
    let read = Protection::READ;
    let cases = [
        ("writable", Protection { write: true, ..read }, Errno::PERM),
        ("executable", Protection { execute: true, ..read }, Errno::PERM),
        ("private", Protection { shared: false, ..read }, Errno::INVAL),
        ("private, writable", Protection { shared: false, write: true, ..read }, Errno::PERM),
    ];
    for (name, protection, wanted) in cases {
        assert_eq!(errno(Mapped::new(&ring, protection, 0..4096)), Some(wanted), "{name}");
    }
    // Control, queue (16 bytes for 512), data.
    let end = 4096 + (1 << 20) / 512 * 16 + (1 << 20);
    for (name, range) in [
        ("one page more", 0..end + 4096),
        ("beyond", end..end + 4096),
        ("far beyond", 1 << 40..(1 << 40) + 4096),
        ("furthest", (1 << 63) - 8192..(1 << 63) - 4096),
    ] {
        let answer = errno(Mapped::new(&ring, read, range));
        assert!(matches!(answer, Some(Errno::INVAL | Errno::OVERFLOW)), "{name}: {answer:?}");
    }
    let whole = Mapped::new(&ring, read, 0..end)?;
    let mapped = Mapped::new(&ring, Protection { read: false, ..read }, end - 4096..end)?;
    for one in [&whole, &mapped] {
        assert_eq!(errno(one.protect(true, false)), Some(Errno::ACCESS));
        assert_eq!(errno(one.protect(false, true)), Some(Errno::ACCESS));
        one.protect(false, false)?;
    }
    assert_eq!(whole.byte(0), 1, "the commit of the mount");
    drop((whole, mapped));
    stage.close(Some(ring))
}

pub fn mappings_outlive_everything(context: &Context) -> Outcome {
    let stage = Stage::new(context, "ring=1M")?;
    let ring = stage.attach(&at(0))?;
    let data = 4096 + (1 << 20) / 512 * 16;
    let device = ring.detach()?;
    assert_eq!(errno(Mapped::new(&device, Protection::READ, 0..4096)), Some(Errno::NOTCONN));
    let mut ring = device.attach(Target::Mount(stage.fd()?.as_fd()), &at(0))?;
    let mapped = Mapped::new(&ring, Protection::READ, data..data + 4096)?;
    assert_eq!([0, 1, 2, 3].map(|at| mapped.byte(at)), *b"REEL");
    drain(&mut ring, Duration::ZERO)?;
    stage.close(Some(ring))?;
    // The ring is gone; its pages are the mapping's now.
    assert_eq!([0, 1, 2, 3].map(|at| mapped.byte(at)), *b"REEL");
    assert!(Device::open()?.list()?.is_empty());
    // And the descriptor behind the mapping keeps the module.
    assert!(run("rmmod", &["reelfs"]).is_err());
    Ok(())
}
