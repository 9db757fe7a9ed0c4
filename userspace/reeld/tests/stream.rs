// SPDX-License-Identifier: GPL-2.0-or-later

//! Ring to spool to volume files, with volumes that fill up, daemons that die, and media that come back.

mod common;

use std::fs;
use std::time::Duration;

use common::*;
use reeld::state::{State, VolumeState, NAME};
use reeld::status::MediaState;
use reeld::streamer::Marks;

#[test]
fn the_log_spans_volumes_and_segments_leave_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let media = dir.path().join("media");
    let (daemon, ring) = Daemon::start(&dir.path().join("spool"), None, 6);
    let (streamer, orders) = daemon.streamer(library(&media, Some(7 << 20)), EAGER);
    let payloads = || (0..300).map(|n| (n * 7919) % 200_000);
    let mut end = 0;
    for payload in payloads() {
        end = ring.commit(payload);
    }
    assert!(end > 6 * SEGMENT);
    eventually("everything is on media", || daemon.status.on_media() == end);
    orders.stop();
    streamer.join().unwrap().unwrap();
    let (log, volumes) = read_volumes(&media);
    assert!(log == expected(payloads()));
    assert!(volumes >= 4, "{volumes}");
    eventually("segments are removed", || daemon.spool.numbers().unwrap().len() <= 4);
    let state = State::load(daemon.spool.path()).unwrap().unwrap();
    assert_eq!(state.proven, end);
    assert_eq!(state.volumes.len(), volumes);
    assert!(state.volumes[..volumes - 1].iter().all(|volume| volume.state == VolumeState::Finished));
    assert_eq!(state.last().unwrap().state, VolumeState::Open);
    daemon.stop();
}

#[test]
fn nothing_is_written_before_a_mark_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let media = dir.path().join("media");
    let (daemon, ring) = Daemon::start(&dir.path().join("spool"), None, 100);
    let marks = Marks { high: 1_000_000, low: 0, age: Duration::from_secs(1000) };
    let (streamer, orders) = daemon.streamer(library(&media, None), marks);
    ring.commit(500_000);
    eventually("it is in the spool", || daemon.status.spooled() > 500_000);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(daemon.status.on_media(), 0);
    assert_eq!(daemon.status.shared().media.state, MediaState::Idle);
    let end = ring.commit(600_000);
    eventually("the high mark starts a burst", || daemon.status.on_media() == end);
    let end = ring.commit(10);
    eventually("it is in the spool", || daemon.status.spooled() == end);
    orders.flush(end);
    eventually("a flush is an order", || daemon.status.on_media() == end);
    orders.stop();
    streamer.join().unwrap().unwrap();
    daemon.stop();
    assert_eq!(read_volumes(&media).1, 1);
}

#[test]
fn something_old_is_written_however_little() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, ring) = Daemon::start(&dir.path().join("spool"), None, 100);
    let marks = Marks { high: 1 << 40, low: 0, age: Duration::from_millis(300) };
    let (streamer, orders) = daemon.streamer(library(&dir.path().join("media"), None), marks);
    let end = ring.commit(10);
    eventually("age starts a burst", || daemon.status.on_media() == end);
    orders.stop();
    streamer.join().unwrap().unwrap();
    daemon.stop();
}

/// Ends and starts again, in the middle of segments and volumes; with the state file as it was, as it was earlier, and
/// gone: one unbroken log on the volumes each time.
#[test]
fn restarts_go_on_with_the_volume_whatever_is_known_about_it() {
    for (lose_state, capacity) in [(false, None), (true, None), (true, Some(3 << 20))] {
        let dir = tempfile::tempdir().unwrap();
        let (spool, media) = (dir.path().join("spool"), dir.path().join("media"));
        let mut ring: Option<FakeRing> = None;
        let mut end = 0;
        let mut earlier = None;
        for round in 0..6 {
            let (daemon, same) = Daemon::start(&spool, ring.as_ref(), 100);
            for n in 0..20 {
                end = same.commit((n * 7919 + round * 13) % 100_000);
            }
            ring = Some(same);
            let (streamer, orders) = daemon.streamer(library(&media, capacity), LAZY);
            eventually("all is in the spool", || daemon.status.spooled() == end);
            orders.flush(end);
            eventually("all is on media", || daemon.status.on_media() == end);
            orders.stop();
            streamer.join().unwrap().unwrap();
            daemon.stop();
            if lose_state && round % 2 == 0 {
                fs::remove_file(spool.join(NAME)).unwrap();
            } else if let Some(earlier) = earlier.replace(fs::read(spool.join(NAME)).unwrap()) {
                // As after a crash between the filemark and the file.
                if !lose_state {
                    fs::write(spool.join(NAME), earlier).unwrap();
                }
            }
        }
        let payloads = (0..6).flat_map(|round| (0..20).map(move |n| (n * 7919 + round * 13) % 100_000));
        let (log, volumes) = read_volumes(&media);
        assert!(log == expected(payloads), "lose_state {lose_state}, capacity {capacity:?}");
        assert_eq!(volumes > 1, capacity.is_some());
    }
}

#[test]
fn media_that_are_away_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (media, away) = (dir.path().join("media"), dir.path().join("away"));
    let (daemon, ring) = Daemon::start(&dir.path().join("spool"), None, 100);
    let library = library(&media, None);
    fs::rename(&media, &away).unwrap();
    let (streamer, orders) = daemon.streamer(library, EAGER);
    let end = ring.commit(100);
    eventually("it waits", || daemon.status.shared().media.state == MediaState::Waiting);
    assert!(daemon.status.shared().media.waiting_for.is_some());
    eventually("the log is acknowledged all the same", || ring.acknowledged() == end);
    fs::rename(&away, &media).unwrap();
    eventually("it goes on", || daemon.status.on_media() == end);
    orders.stop();
    streamer.join().unwrap().unwrap();
    daemon.stop();
}

#[test]
fn a_damaged_spool_is_never_streamed() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, ring) = Daemon::start(&dir.path().join("spool"), None, 100);
    let good = ring.commit(50_000);
    let end = ring.commit(50_000);
    eventually("all is in the spool", || daemon.status.spooled() == end);
    let mut bytes = fs::read(daemon.spool.segment_path(0)).unwrap();
    bytes[4096 + good as usize + 1000] ^= 1;
    fs::write(daemon.spool.segment_path(0), bytes).unwrap();
    let media = dir.path().join("media");
    let (streamer, _) = daemon.streamer(library(&media, None), EAGER);
    let error = format!("{:#}", streamer.join().unwrap().unwrap_err());
    assert!(error.contains(&format!("{good:#x}")), "{error}");
    assert_eq!(daemon.status.shared().media.state, MediaState::Failed);
    assert!(daemon.status.on_media() <= good);
    daemon.stop();
    assert!(read_volumes(&media).0.len() as u64 <= good);
}
