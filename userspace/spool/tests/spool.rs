// SPDX-License-Identifier: GPL-2.0-or-later

//! The spool as a whole, on real files: appending, rolling over, reading, recovery after every kind of interruption.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use common::*;
use proptest::prelude::*;
use reelfs_format::spool::{SEGMENT_HEADER_LEN, SPOOL_BATCH_MAX};
use reelfs_format::view::RecordError;
use reelfs_spool::{file_name, FloorFile, Note, Records, Spool, SpoolError, Writer};

const HEADER: u64 = SEGMENT_HEADER_LEN as u64;

fn patch(spool: &Spool, number: u64, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(spool.segment_path(number)).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_new_spool_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let recovered = spool.recover().unwrap();
    assert_eq!((recovered.start, recovered.end), (0, 0));
    assert!(recovered.notes.is_empty());
    assert_eq!(read_all(&spool, 0, 0), b"");
}

#[test]
fn what_was_appended_is_read_back_after_rollovers_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let payloads: Vec<usize> = (0..200).map(|n| (n * 7919) % 150_000).collect();
    let mut expected = Vec::new();
    let mut end = 0;
    for round in 0..3 {
        let spool = open(dir.path());
        let recovered = spool.recover().unwrap();
        assert_eq!(recovered.end, end);
        assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
        end = *append(&spool, &recovered, &payloads, 5, round).last().unwrap();
        let mut lsn = expected.len() as u64;
        for &payload in &payloads {
            let record = record(lsn, payload, round);
            lsn += record.len() as u64;
            expected.extend_from_slice(&record);
        }
        assert_eq!(lsn, end);
        assert_eq!(read_all(&spool, 0, end), expected);
    }
    assert!(end > 5 * SEGMENT);
    let spool = open(dir.path());
    for segment in spool.segments().unwrap() {
        let first = segment.first_record.unwrap();
        assert_eq!(spool.geometry().number(first), segment.number);
        assert_eq!(read_all(&spool, first, end), expected[first as usize..]);
    }
    // A spool that lost its older segments to removal recovers to the same end.
    assert!(spool.remove_below(end, end).unwrap() > 0);
    assert_eq!(spool.numbers().unwrap().len(), 2);
    let recovered = spool.recover().unwrap();
    assert_eq!(recovered.end, end);
    assert!(matches!(
        Records::new(&spool, 0, 0).next_run(end),
        Err(SpoolError::Gone { lsn: 0, start }) if start == recovered.start
    ));
}

#[test]
fn records_that_end_at_the_segment_boundary() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    // Three records that fill a segment exactly; then one more. Batches of every size.
    let third = (SEGMENT as usize / 4) - 184;
    for (round, batch) in [1, 2, 3, 4, 5].into_iter().enumerate() {
        let recovered = spool.recover().unwrap();
        let boundaries = append(&spool, &recovered, &[third, third, third, third], batch, round as u8);
        let end = *boundaries.last().unwrap();
        assert_eq!(end % SEGMENT, 0);
        let recovered = spool.recover().unwrap();
        assert_eq!(recovered.end, end, "batch {batch}");
        for segment in spool.segments().unwrap() {
            assert_eq!(segment.first_record, Some(segment.number * SEGMENT));
        }
    }
}

#[test]
fn a_wrong_record_is_refused_and_leaves_the_batch_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut writer = Writer::new(&spool, &spool.recover().unwrap()).unwrap();
    let end = writer.push(&record(0, 100, 0)).unwrap();
    assert!(matches!(
        writer.push(&record(end + 8, 100, 0)),
        Err(SpoolError::Record { lsn, source: RecordError::Lsn { .. } }) if lsn == end
    ));
    let mut flipped = record(end, 100, 0);
    flipped[200] ^= 1;
    assert!(matches!(writer.push(&flipped), Err(SpoolError::Record { source: RecordError::PayloadChecksum, .. })));
    assert_eq!(writer.end(), end);
    assert_eq!(writer.push(&tiny(end)).unwrap(), end + 104);
    writer.flush(&mut prepare(&spool), 1).unwrap();
    assert_eq!(spool.recover().unwrap().end, end + 104);
}

#[test]
fn without_a_segment_nothing_becomes_durable_and_later_all_does() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut writer = Writer::new(&spool, &spool.recover().unwrap()).unwrap();
    let mut none = |_: u64| None;
    let end = writer.push(&record(0, 100, 0)).unwrap();
    assert!(matches!(writer.flush(&mut none, 1), Err(SpoolError::Full)));
    assert_eq!(writer.durable(), 0);
    assert_eq!(writer.flush(&mut prepare(&spool), 1).unwrap(), end);
    let mut last = end;
    let error = loop {
        let record = record(last, 1 << 20, 0);
        last = writer.push(&record).unwrap();
        match writer.flush(&mut none, 1) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SpoolError::Full));
    let durable = writer.durable();
    assert!(durable < SEGMENT && last > SEGMENT);
    assert_eq!(spool.inspect().unwrap().end, durable);
    assert_eq!(writer.flush(&mut prepare(&spool), 1).unwrap(), last);
    assert_eq!(spool.recover().unwrap().end, last);
}

/// The last batch of a log, interrupted after every whole block and at every place within its last block: the log ends
/// at a boundary, never below what was acknowledged before, and can be gone on with.
#[test]
fn a_torn_batch_costs_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let acknowledged = *append(&spool, &spool.recover().unwrap(), &[5000, 300, 10], 3, 0).last().unwrap();
    let before = fs::read(spool.segment_path(0)).unwrap();
    let boundaries = append(&spool, &spool.recover().unwrap(), &[0, 17, 9000, 4096, 1], 5, 1);
    let after = fs::read(spool.segment_path(0)).unwrap();
    let block = (HEADER + acknowledged) as usize / 4096 * 4096;
    let stop = (HEADER + boundaries.last().unwrap()) as usize;
    let cuts =
        (block..stop).step_by(512).chain((HEADER + acknowledged) as usize..(HEADER + acknowledged) as usize + 600);
    for cut in cuts {
        let mut torn = after.clone();
        torn[cut..].copy_from_slice(&before[cut..]);
        fs::write(spool.segment_path(0), &torn).unwrap();
        let recovered = spool.recover().unwrap();
        assert!(recovered.end >= acknowledged, "cut at {cut}");
        let expected = boundaries.iter().rfind(|&&end| (HEADER + end) as usize <= cut).copied();
        assert_eq!(recovered.end, expected.unwrap_or(acknowledged).max(acknowledged), "cut at {cut}");
        // Everything behind the end is zero now, so that it can never be taken for log.
        let repaired = fs::read(spool.segment_path(0)).unwrap();
        assert!(repaired[(HEADER + recovered.end) as usize..].iter().all(|&byte| byte == 0));
        assert_eq!(repaired[..(HEADER + recovered.end) as usize], after[..(HEADER + recovered.end) as usize]);
        assert_eq!(spool.recover().unwrap().notes, []);
    }
}

/// Blocks of an unfinished batch reach the disk in any order: whole records behind a hole are not the log.
#[test]
fn later_blocks_of_a_torn_batch_are_dropped_and_never_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    // Each record ends where a block does: no block that is written with it covers what lies behind.
    let payload = |blocks: usize| blocks * 4096 - record(0, 0, 0).len();
    let acknowledged = *append(&spool, &spool.recover().unwrap(), &[payload(2)], 1, 0).last().unwrap();
    assert_eq!((HEADER + acknowledged) % 4096, 0);
    let boundaries = append(&spool, &spool.recover().unwrap(), &[payload(5); 3], 3, 1);
    patch(&spool, 0, HEADER + boundaries[0] / 4096 * 4096 + 4096, &[0; 4096]);
    let recovered = spool.recover().unwrap();
    assert_eq!(recovered.end, acknowledged);
    assert!(matches!(recovered.notes[..], [Note::TornTail { lsn, .. }] if lsn == acknowledged));
    // A record of the same length as the torn one must not make the old one behind it part of the log again.
    let again = append(&spool, &recovered, &[payload(5)], 1, 9);
    assert_eq!(again, boundaries[..2]);
    assert_eq!(spool.recover().unwrap().end, boundaries[1]);
}

#[test]
fn damage_in_the_middle_is_named_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let payloads = [100_000; 100];
    let boundaries = append(&spool, &spool.recover().unwrap(), &payloads, 4, 0);
    let victim = 50;
    patch(&spool, spool.geometry().number(boundaries[victim]), spool.geometry().offset(boundaries[victim]) + 500, b"?");
    match spool.recover().unwrap_err() {
        SpoolError::Damaged { lsn, path, offset, .. } => {
            assert_eq!(lsn, boundaries[victim]);
            assert_eq!(path, spool.segment_path(spool.geometry().number(lsn)));
            assert_eq!(offset, HEADER + lsn % SEGMENT);
        }
        other => panic!("{other}"),
    }
}

/// Near the end only the floor can tell.
#[test]
fn damage_below_the_floor_is_refused_and_above_it_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let boundaries = append(&spool, &spool.recover().unwrap(), &[1000; 20], 20, 0);
    FloorFile::open(&spool).unwrap().raise(boundaries[10]).unwrap();
    let good = fs::read(spool.segment_path(0)).unwrap();
    for victim in [0, 9, 10, 19] {
        patch(&spool, 0, HEADER + boundaries[victim] + 300, b"?");
        match spool.recover() {
            Ok(recovered) => assert!(victim >= 10 && recovered.end == boundaries[victim]),
            Err(SpoolError::Damaged { lsn, .. }) => {
                assert!(victim < 10 && lsn == boundaries[victim])
            }
            Err(other) => panic!("{other}"),
        }
        fs::write(spool.segment_path(0), &good).unwrap();
    }
}

#[test]
fn missing_and_foreign_segments_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, &spool.recover().unwrap(), &[100_000; 150], 4, 0);
    let away = dir.path().join("away");
    for number in [1, 2] {
        fs::rename(spool.segment_path(number), &away).unwrap();
        let error = spool.recover().unwrap_err();
        assert!(matches!(&error, SpoolError::Damaged { path, .. } if *path == spool.segment_path(number)), "{error}");
        fs::rename(&away, spool.segment_path(number)).unwrap();
    }
    fs::copy(spool.segment_path(1), spool.segment_path(7)).unwrap();
    assert!(matches!(spool.recover().unwrap_err(), SpoolError::Foreign { path, .. } if path.ends_with(file_name(7))));
    fs::remove_file(spool.segment_path(7)).unwrap();

    let other = tempfile::tempdir().unwrap();
    let foreign = open(other.path());
    append(&foreign, &foreign.recover().unwrap(), &[10], 1, 0);
    fs::copy(foreign.segment_path(0), spool.segment_path(0)).unwrap();
    assert!(spool.recover().unwrap_err().to_string().contains("another stream"));
}

/// A rollover can be interrupted at every step: the header missing, the data missing, both, a file that was prepared
/// and not used.
#[test]
fn interrupted_rollovers() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let boundaries = append(&spool, &spool.recover().unwrap(), &[1_000_000; 5], 1, 0);
    let (spanning, end) = (boundaries[4], boundaries[5]);
    assert!(spanning < SEGMENT && end > SEGMENT);
    let files: Vec<Vec<u8>> = (0..2).map(|number| fs::read(spool.segment_path(number)).unwrap()).collect();
    let restore = || {
        for (number, bytes) in files.iter().enumerate() {
            fs::write(spool.segment_path(number as u64), bytes).unwrap();
        }
    };
    // The new segment's file is there and empty of everything.
    fs::write(spool.segment_path(1), vec![0; files[1].len()]).unwrap();
    let recovered = spool.recover().unwrap();
    assert_eq!(recovered.end, spanning);
    assert_eq!(spool.numbers().unwrap(), [0]);
    restore();
    // It was never made.
    fs::remove_file(spool.segment_path(1)).unwrap();
    assert_eq!(spool.recover().unwrap().end, spanning);
    restore();
    // The header is there and the data is not.
    patch(&spool, 1, HEADER + 8192, &[0; 65536]);
    let recovered = spool.recover().unwrap();
    assert_eq!(recovered.end, spanning);
    assert!(recovered.notes.contains(&Note::Removed { number: 1 }));
    restore();
    // The data is there and the header is not: the log is whole, and the header is made again.
    for garbage in [0, 0xff] {
        patch(&spool, 1, 0, &[garbage; 4096]);
        let recovered = spool.recover().unwrap();
        assert_eq!(recovered.end, end);
        assert_eq!(recovered.notes, [Note::Header { number: 1 }]);
        assert_eq!(spool.segments().unwrap()[1].first_record, Some(end));
        assert_eq!(spool.recover().unwrap().notes, []);
        restore();
    }
    // Going on works after each of them.
    fs::write(spool.segment_path(1), vec![0; files[1].len()]).unwrap();
    let recovered = spool.recover().unwrap();
    assert_eq!(*append(&spool, &recovered, &[1_000_000], 1, 5).last().unwrap(), end);
    assert_eq!(spool.recover().unwrap().end, end);
}

#[test]
fn a_spool_that_lost_its_beginning_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, &spool.recover().unwrap(), &[1_000_000; 5], 1, 0);
    fs::remove_file(spool.segment_path(0)).unwrap();
    patch(&spool, 1, 0, &[0; 4096]);
    assert!(matches!(spool.recover(), Err(SpoolError::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Any records in any batches, then any subset of the last batch's sectors lost: what was durable before the last
    /// batch is there, byte for byte, and the end is a boundary.
    #[test]
    fn any_subset_of_the_last_batch(
        payloads in prop::collection::vec(0usize..300_000, 1..40),
        last in prop::collection::vec(0usize..60_000, 1..12),
        batch in 1usize..8,
        lost in any::<[u64; 4]>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        let durable = *append(&spool, &spool.recover().unwrap(), &payloads, batch, 0).last().unwrap();
        let expected = read_all(&spool, 0, durable);
        let names = spool.numbers().unwrap();
        let before: Vec<Vec<u8>> = names.iter().map(|&n| fs::read(spool.segment_path(n)).unwrap()).collect();
        let boundaries = append(&spool, &spool.recover().unwrap(), &last, last.len(), 1);
        prop_assume!(boundaries.last().unwrap() - durable < SPOOL_BATCH_MAX as u64 - 8192);
        let mut sector = 0usize;
        for number in spool.numbers().unwrap() {
            let mut now = fs::read(spool.segment_path(number)).unwrap();
            let zeros = vec![0; now.len()];
            let old = names.iter().position(|&n| n == number).map_or(&zeros, |at| &before[at]);
            for (now, old) in now.chunks_mut(512).zip(old.chunks(512)) {
                if now != old {
                    if (lost[sector / 64 % 4] >> (sector % 64)) & 1 == 1 {
                        now.copy_from_slice(old);
                    }
                    sector += 1;
                }
            }
            fs::write(spool.segment_path(number), &now).unwrap();
        }
        let recovered = spool.recover().unwrap();
        prop_assert!(recovered.end >= durable);
        prop_assert!(boundaries.contains(&recovered.end));
        prop_assert_eq!(&read_all(&spool, 0, recovered.end)[..expected.len()], &expected[..]);
        prop_assert_eq!(spool.recover().unwrap().notes, vec![]);
    }
}
