// SPDX-License-Identifier: GPL-2.0-or-later

//! Ring to spool, on real files and with a ring that is none.

mod common;

use common::*;
use reeld::capture::Ended;
use reeld::status::Stall;
use reelfs_spool::{Records, Spool};

/// Every byte of the log that `ring` committed from `start` on is in the spool.
fn read_back(spool: &Spool, start: u64, end: u64) {
    let mut records = Records::new(spool, start, 0);
    let mut lsn = start;
    loop {
        let (at, run) = records.next_run(end).unwrap();
        assert_eq!(at, lsn);
        if run.is_empty() {
            break;
        }
        lsn += run.len() as u64;
    }
    assert_eq!(lsn, end);
}

#[test]
fn records_are_acknowledged_once_they_are_in_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, ring) = Daemon::start(dir.path(), None, 100);
    let mut end = 0;
    for n in 0..2000usize {
        end = ring.commit((n * 7919) % 9000);
    }
    eventually("everything is acknowledged", || ring.acknowledged() == end);
    assert_eq!(daemon.status.spooled(), end);
    assert!(end > SEGMENT);
    read_back(&daemon.spool, 0, end);
    // Group commit: far fewer writes than records.
    let (batches, records) = daemon.status.counts();
    assert_eq!(records, 2000);
    assert!(batches < 1000, "{batches}");
    let last = ring.commit(5);
    assert!(matches!(daemon.stop(), Ended::Stopped(lsn) if lsn == last));
    // The floor was raised on the way out, and the next start goes on.
    let (daemon, ring) = Daemon::start(dir.path(), Some(&ring), 100);
    assert_eq!(daemon.spool.floor(), last);
    let end = ring.commit(100);
    eventually("the daemon goes on", || ring.acknowledged() == end);
    daemon.stop();
}

#[test]
fn a_mount_that_goes_ends_the_capture_when_all_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, ring) = Daemon::start(dir.path(), None, 100);
    let end = ring.commit(100_000);
    ring.end();
    assert!(matches!(daemon.finish(), Ended::Unmounted));
    assert_eq!(ring.acknowledged(), end);
}

#[test]
fn a_full_spool_stops_acknowledging_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, ring) = Daemon::start(dir.path(), None, 4);
    let mut end = 0;
    while end < 6 * SEGMENT {
        end = ring.commit(500_000);
    }
    eventually("the spool is full", || daemon.status.stall() == Stall::NoSegment);
    let acknowledged = ring.acknowledged();
    assert!(acknowledged <= 4 * SEGMENT && acknowledged > 3 * SEGMENT - 500_000, "{acknowledged:#x}");
    assert!(daemon.status.shared().spool.full.is_some());
    eventually("a warning", || daemon.status.shared().spool.warning);
    assert!(std::fs::read_dir(dir.path()).unwrap().count() <= 4 + 5);
    // What was acknowledged is on media: there is room again.
    daemon.status.set_on_media(acknowledged);
    eventually("the rest is acknowledged", || ring.acknowledged() == end);
    assert_eq!(daemon.status.stall(), Stall::None);
    daemon.status.set_on_media(end);
    eventually("there is room for more", || daemon.status.shared().spool.full.is_none());
    assert!(matches!(daemon.stop(), Ended::Stopped(lsn) if lsn == end));
}

#[test]
fn stopping_with_a_full_spool_leaves_the_rest_in_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, ring) = Daemon::start(dir.path(), None, 4);
    let mut end = 0;
    while end < 6 * SEGMENT {
        end = ring.commit(500_000);
    }
    eventually("the spool is full", || daemon.status.stall() == Stall::NoSegment);
    assert!(matches!(daemon.stop(), Ended::StoppedStalled(Stall::NoSegment)));
    let (daemon, ring) = Daemon::start(dir.path(), Some(&ring), 100);
    eventually("the rest is acknowledged", || ring.acknowledged() == end);
    read_back(&daemon.spool, 0, end);
    daemon.stop();
}

#[test]
fn a_record_that_is_not_right_is_never_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let ring = FakeRing::new(0);
    let good = ring.commit(100);
    let end = ring.commit(50);
    ring.flip();
    let (daemon, _) = Daemon::start(dir.path(), Some(&ring), 100);
    eventually("the bad one is noticed", || daemon.status.stall() == Stall::BadRecord);
    assert_eq!(ring.acknowledged(), good);
    // A fault that passes, passes.
    ring.flip();
    eventually("it goes on", || ring.acknowledged() == end);
    assert_eq!(daemon.status.stall(), Stall::None);
    daemon.stop();
}
