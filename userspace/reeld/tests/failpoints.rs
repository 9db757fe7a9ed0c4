// SPDX-License-Identifier: GPL-2.0-or-later

//! Deaths of threads at every step of the protocol. Compiled with the feature `failpoints` alone, and in a file of its
//! own, because failpoints are the whole process's.
#![cfg(feature = "failpoints")]

mod common;

use common::*;
use fail::FailScenario;

fn points(prefixes: &[&str]) -> Vec<&'static str> {
    let wanted = |name: &&str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    reeld::FAILPOINTS.iter().copied().filter(wanted).collect()
}

/// Dies at every step between spool and media, at the first and at later passings, with volumes that fill up: the next
/// start goes on, and the volumes hold one unbroken log.
#[test]
fn a_death_at_any_step_leaves_an_unbroken_log() {
    let scenario = FailScenario::setup();
    for point in points(&["volume-", "stream-", "state-"]) {
        for passings in [0, 1, 5] {
            let dir = tempfile::tempdir().unwrap();
            let (spool, media) = (dir.path().join("spool"), dir.path().join("media"));
            let mut ring: Option<FakeRing> = None;
            let mut payloads = Vec::new();
            fail::cfg(point, &format!("{passings}*off->1*panic->off")).unwrap();
            for round in 0..4 {
                let (daemon, same) = Daemon::start(&spool, ring.as_ref(), 100);
                let mut end = 0;
                for n in 0..20 {
                    payloads.push((n * 7919 + round * 13) % 100_000);
                    end = same.commit(*payloads.last().unwrap());
                }
                ring = Some(same);
                let (streamer, orders) = daemon.streamer(library(&media, Some(3 << 20)), LAZY);
                eventually("all is in the spool", || daemon.status.spooled() == end);
                orders.flush(end);
                eventually("it is done or dead", || daemon.status.on_media() == end || streamer.is_finished());
                orders.stop();
                // A panic is the death that was ordered.
                if let Ok(outcome) = streamer.join() {
                    outcome.unwrap();
                }
                daemon.stop();
            }
            fail::cfg(point, "off").unwrap();
            let (daemon, _) = Daemon::start(&spool, ring.as_ref(), 100);
            let (streamer, orders) = daemon.streamer(library(&media, Some(3 << 20)), EAGER);
            eventually("all is on media", || daemon.status.on_media() == daemon.status.spooled());
            orders.stop();
            streamer.join().unwrap().unwrap();
            daemon.stop();
            assert!(read_volumes(&media).0 == expected(payloads.into_iter()), "{point}, passed {passings} times");
        }
    }
    scenario.teardown();
}

/// Dies at every step between ring and spool: what was acknowledged is in the spool, the spool goes on from a place that
/// the kernel accepts, and in the end all of the log is there.
#[test]
fn a_death_at_any_step_loses_nothing_that_was_acknowledged() {
    let scenario = FailScenario::setup();
    for point in points(&["capture-", "rollover-", "prepare-"]) {
        for passings in [0, 3] {
            let dir = tempfile::tempdir().unwrap();
            let mut ring: Option<FakeRing> = None;
            let mut payloads = Vec::new();
            fail::cfg(point, &format!("{passings}*off->1*panic->off")).unwrap();
            for round in 0..4 {
                let (mut daemon, same) = Daemon::start(dir.path(), ring.as_ref(), 100);
                let mut end = 0;
                for n in 0..40 {
                    payloads.push((n * 104_729 + round * 13) % 200_000);
                    end = same.commit(*payloads.last().unwrap());
                    if n % 8 == 0 {
                        std::thread::sleep(std::time::Duration::from_millis(2));
                    }
                }
                eventually("it is done or dead", || same.acknowledged() == end || daemon.has_died());
                daemon.kill();
                ring = Some(same);
            }
            fail::cfg(point, "off").unwrap();
            let (daemon, ring) = Daemon::start(dir.path(), ring.as_ref(), 100);
            let log = expected(payloads.into_iter());
            eventually("all is acknowledged", || ring.acknowledged() == log.len() as u64);
            let mut records = reelfs_spool::Records::new(daemon.spool.clone(), 0, 0);
            let mut spooled = Vec::new();
            loop {
                let (_, run) = records.next_run(log.len() as u64).unwrap();
                if run.is_empty() {
                    break;
                }
                spooled.extend_from_slice(run);
            }
            assert!(spooled == log, "{point}, passed {passings} times");
            daemon.stop();
        }
    }
    scenario.teardown();
}
