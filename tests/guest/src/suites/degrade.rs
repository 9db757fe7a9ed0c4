// SPDX-License-Identifier: GPL-2.0-or-later

//! `degrade-*`: a mount that goes on without its log, and comes back to it; and what the log says of that.
//!
//! Mostly the test is the consumer, so that it knows what was acknowledged when. What an operator gets to see, from the
//! daemon and from a restore, is looked at in the end.

mod gap;
mod operator;
mod policy;

use crate::check::{Check, Failure};
use crate::consumer::stream_of;
use crate::machine::wait_until;
use crate::rig::{Rig, Stage};
use crate::{Context, Suite, Test, TestResult, When};
use reelfs_format::record::{Lsn, RecordType};
use reelfs_format::uapi::{ListEntry, RING_DEGRADED};
use reelfs_format::view::RecordView;
use reelfs_sys::device::{Consumer, Device, Ring, Target};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

const TESTS: &[Test] = &[
    Test::new("no-consumer-is-no-gap-yet", gap::no_consumer_is_no_gap_yet),
    Test::new("fsync-that-nobody-answers", gap::fsync_that_nobody_answers),
    Test::new("a-full-ring", gap::a_full_ring),
    Test::new("before-the-first-consumer", gap::before_the_first_consumer),
    Test::new("an-operation-under-way-is-in-the-log", gap::under_way_at_the_beginning),
    Test::new("an-operation-under-way-is-in-the-gap", gap::under_way_at_the_end),
    Test::new("a-consumer-in-time-is-no-gap", gap::a_consumer_in_time),
    Test::new("who-begins-it-can-be-killed", gap::who_begins_it_can_be_killed),
    Test::new("every-kind-of-operation", gap::every_kind_of_operation),
    Test::new("unmounted-in-it", gap::unmounted_in_it),
    Test::new("again-and-again", gap::again_and_again),
    Test::new("policy-by-remount", policy::by_remount),
    Test::new("a-user-has-his-limit", policy::a_user_has_his_limit),
    Test::new("users-are-counted", policy::users_are_counted),
    Test::new("the-operator-is-told", operator::is_told).limit(400),
    Test::new("a-gap-is-closed", operator::is_closed).limit(400),
];

const SUITE: Suite = Suite {
    timeout: 1500,
    disks: &[("lower", 1024), ("spool", 1024), ("media", 1024)],
    tear_down: |_| {
        let stage = STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        Ok(stage.ok_or("no stage")?.close()?)
    },
    tests: TESTS,
    ..Suite::DEFAULT
};

pub const EXT4: Suite = Suite { name: "degrade-ext4", set_up: |c| set_up(c, "ext4"), ..SUITE };
pub const XFS: Suite = Suite { name: "degrade-xfs", when: When::Long, set_up: |c| set_up(c, "xfs"), ..SUITE };

fn set_up(context: &Context, kind: &str) -> TestResult {
    let stage = Stage::new(context, kind)?;
    *STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(stage);
    Ok(())
}

/// What is bound to happen, happens within this.
const SOON: Duration = Duration::from_secs(30);

/// A mount with these options that nobody reads the log of yet.
fn mounted(name: &str, options: &str) -> Check<Rig> {
    let mut rig = Rig::on_stage(name, false)?;
    rig.mount(options)?;
    Ok(rig)
}

/// Becomes the consumer, whose log ends here.
fn attach(rig: &Rig, next_lsn: Lsn) -> Check<Ring> {
    let root = rustix::fs::open(&rig.mnt, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
    let consumer = Consumer { stream: stream_of(&rig.mnt), next_lsn, adopt: false };
    Ok(Device::open()?.attach(Target::Mount(root.as_fd()), &consumer)?)
}

/// What is there and not acknowledged: type, LSN, where it ends.
fn records(ring: &Ring) -> Check<Vec<(RecordType, Lsn, Lsn)>> {
    let mut found = Vec::new();
    for record in ring.records()? {
        let record = record?;
        let view = RecordView::parse(record.bytes, Some(record.lsn)).map_err(|e| Failure::new(e.to_string()))?;
        let kind = view.kind().ok_or_else(|| Failure::new("a type that is not known"))?;
        found.push((kind, record.lsn, record.end()));
    }
    Ok(found)
}

/// Acknowledges all there is. Where that ends.
fn acknowledge_all(ring: &mut Ring) -> Check<Lsn> {
    let end = records(ring)?.last().map_or(ring.acknowledged(), |last| last.2);
    ring.acknowledge(end)?;
    Ok(end)
}

fn entry(rig: &Rig) -> Check<ListEntry> {
    Ok(*rig.ring()?.entry())
}

fn is_degraded(rig: &Rig) -> bool {
    entry(rig).is_ok_and(|entry| entry.state & RING_DEGRADED != 0)
}

/// Waits until changes go unrecorded.
fn until_degraded(rig: &Rig) -> Check {
    wait_until("the gap begins", SOON, || is_degraded(rig)).map_err(Failure::of)
}

/// Waits until changes are recorded again.
fn until_recording(rig: &Rig) -> Check {
    wait_until("the gap ends", SOON, || !is_degraded(rig)).map_err(Failure::of)
}

/// The options of a mount as `/proc/mounts` has them.
fn options(rig: &Rig) -> Check<Vec<String>> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let at = rig.mnt.to_string_lossy();
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&at));
    let options = line.and_then(|line| line.split(' ').nth(3)).ok_or_else(|| Failure::new("not mounted"))?;
    Ok(options.split(',').map(str::to_owned).collect())
}

/// The value of an option that is a number.
fn number(rig: &Rig, name: &str) -> Check<Option<u64>> {
    let options = options(rig)?;
    let value = options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    Ok(value.map(str::parse).transpose()?)
}

/// Unmounts, with a consumer that takes everything if there is one, and throws away what is left.
fn done(mut rig: Rig, ring: Option<Ring>) -> TestResult {
    if let Some(mut ring) = ring {
        while !records(&ring)?.is_empty() {
            acknowledge_all(&mut ring)?;
        }
        drop(ring);
    }
    rig.unmount()?;
    discard_all()?;
    Ok(rig.close()?)
}

/// Throws away the rings that outlived their mounts.
fn discard_all() -> Check {
    let device = Device::open()?;
    for ring in device.list()? {
        if ring.state & reelfs_format::uapi::RING_MOUNTED == 0 {
            device.discard(ring.ring, ring.committed)?;
        }
    }
    Ok(())
}

/// The filesystem that a lower directory is on.
fn filesystem(rig: &Rig) -> Check<&Path> {
    rig.lower.parent().ok_or_else(|| Failure::new("the lower has no parent"))
}
