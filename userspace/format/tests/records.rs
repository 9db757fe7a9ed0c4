// SPDX-License-Identifier: GPL-2.0-or-later

//! Rules of the record format, one by one and at random.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use proptest::prelude::*;
use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::record::*;
use reelfs_format::view::{check_name, peek_length, peek_length_back, Event, RecordError, RecordView};
use reelfs_format::{crc32c_append, record};
use zerocopy::{FromZeros, IntoBytes};

fn boundaries(log: &[u8]) -> Vec<usize> {
    let mut found = vec![0];
    let mut at = 0;
    while at < log.len() {
        at += peek_length(&log[at..]).unwrap();
        found.push(at);
    }
    found
}

#[test]
fn the_checksum_is_the_one_that_is_specified() {
    assert_eq!(crc32c_append(0, b"123456789"), 0xe306_9283);
    assert_eq!(crc32c_append(crc32c_append(0, b"1234"), b"56789"), 0xe306_9283);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let log = common::log().bytes;
    for pair in boundaries(&log).windows(2) {
        let mut record = log[pair[0]..pair[1]].to_vec();
        for byte in 0..record.len() {
            for bit in 0..8 {
                record[byte] ^= 1 << bit;
                let parsed = RecordView::parse(&record, None);
                assert!(parsed.is_err(), "record at {}: bit {bit} of byte {byte}", pair[0]);
                record[byte] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    let log = common::log().bytes;
    for pair in boundaries(&log).windows(2) {
        let record = &log[pair[0]..pair[1]];
        for length in 0..record.len() {
            match RecordView::parse(&record[..length], None) {
                Err(RecordError::Truncated { needed }) => assert!(needed > length && needed <= record.len()),
                other => panic!("{length} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn the_log_is_the_same_backwards() {
    let log = common::log().bytes;
    let forward = boundaries(&log);
    let mut backward = vec![log.len()];
    let mut at = log.len();
    while at > 0 {
        at -= peek_length_back(&log[..at]).unwrap();
        RecordView::parse(&log[at..], Some(at as u64)).unwrap();
        backward.push(at);
    }
    backward.reverse();
    assert_eq!(forward, backward);
    assert!(matches!(peek_length_back(&log[..7]), Err(RecordError::Truncated { .. })));
    assert_eq!(peek_length_back(&log[..log.len() - 8]), Err(RecordError::Trailer));
    assert!(matches!(peek_length_back(&log[log.len() - 16..]), Err(RecordError::Truncated { .. })));
}

/// Sets the checksum of the head right again, after something in it was changed.
fn reseal(record: &mut [u8]) {
    let head = u32::from_le_bytes(record[12..16].try_into().unwrap()) as usize;
    record[44..48].fill(0);
    let crc = crc32c_append(0, &record[..head.min(record.len())]);
    record[44..48].copy_from_slice(&crc.to_le_bytes());
}

fn a_record() -> Vec<u8> {
    let mut log = LogBuilder::new();
    let body = WriteBody::new_zeroed();
    log.push(RecordType::Write, 0, common::identity(1), &body, &Payload::of(b"hello")).unwrap();
    log.bytes
}

#[test]
fn each_rule_has_its_error() {
    type Change = fn(&mut Vec<u8>);
    type Expected = fn(&RecordError) -> bool;
    let cases: &[(&str, Change, Expected)] = &[
        ("magic", |r| r[0] = b'X', |e| matches!(e, RecordError::Magic(_))),
        ("version", |r| r[4] = 2, |e| *e == RecordError::Version(2)),
        ("length zero", |r| r[8..12].fill(0), |e| *e == RecordError::Length(0)),
        ("length odd", |r| r[8] |= 1, |e| matches!(e, RecordError::Length(_))),
        ("length huge", |r| r[8..12].fill(0xf8), |e| matches!(e, RecordError::Length(_))),
        ("head too short", |r| r[12..16].copy_from_slice(&88_u32.to_le_bytes()), |e| *e == RecordError::HeadLength(88)),
        ("head too long", |r| r[14] = 1, |e| matches!(e, RecordError::HeadLength(_))),
        ("head odd", |r| r[12] += 1, |e| matches!(e, RecordError::HeadLength(_))),
        ("payload longer", |r| r[36] += 8, |e| matches!(e, RecordError::PayloadLength(_))),
        ("payload huge", |r| r[36..40].fill(0xff), |e| *e == RecordError::PayloadLength(u32::MAX)),
        ("head checksum", |r| r[24] ^= 1, |e| *e == RecordError::HeadChecksum),
        (
            "flag",
            |r| {
                r[32] = 8;
                reseal(r)
            },
            |e| *e == RecordError::Flags(8),
        ),
        (
            "type",
            |r| {
                r[6..8].copy_from_slice(&999_u16.to_le_bytes());
                reseal(r)
            },
            |e| *e == RecordError::Type(999),
        ),
        (
            "body",
            |r| {
                r[6] = RecordType::Fallocate as u8;
                reseal(r)
            },
            |e| matches!(e, RecordError::BodyLength(34)),
        ),
        (
            "trailer length",
            |r| {
                let at = r.len() - 8;
                r[at] += 8
            },
            |e| *e == RecordError::Trailer,
        ),
        (
            "trailer magic",
            |r| {
                let at = r.len() - 1;
                r[at] = 0
            },
            |e| *e == RecordError::Trailer,
        ),
        ("payload", |r| r[176] ^= 1, |e| *e == RecordError::PayloadChecksum),
        ("padding", |r| r[183] = 1, |e| *e == RecordError::Padding),
        ("cut", |r| r.truncate(100), |e| matches!(e, RecordError::Truncated { needed: 192 })),
        ("nothing", |r| r.clear(), |e| matches!(e, RecordError::Truncated { needed: 96 })),
    ];
    for (name, change, expected) in cases {
        let mut record = a_record();
        change(&mut record);
        let error = RecordView::parse(&record, None).unwrap_err();
        assert!(expected(&error), "{name}: {error:?}");
        assert!(!error.to_string().is_empty());
    }
    let record = a_record();
    let error = RecordView::parse(&record, Some(8)).unwrap_err();
    assert_eq!(error, RecordError::Lsn { expected: 8, found: 0 });
}

#[test]
fn a_type_from_the_future_is_skipped_only_if_it_says_so() {
    let mut record = a_record();
    record[6..8].copy_from_slice(&999_u16.to_le_bytes());
    record[32] = RECORD_SKIPPABLE as u8;
    reseal(&mut record);
    let view = RecordView::parse(&record, None).unwrap();
    assert_eq!(view.kind(), None);
    assert!(matches!(view.event(), Ok(Event::Skipped)));
    for kind in RecordType::ALL {
        assert_eq!(RecordType::from_raw(*kind as u16), Some(*kind));
        assert!(!kind.name().is_empty());
    }
    // Known, but reserved.
    record[6..8].copy_from_slice(&(RecordType::Synced as u16).to_le_bytes());
    record[12..16].copy_from_slice(&96_u32.to_le_bytes());
    record[36..40].copy_from_slice(&85_u32.to_le_bytes());
    let crc = crc32c_append(0, &record[96..181]);
    record[40..44].copy_from_slice(&crc.to_le_bytes());
    reseal(&mut record);
    let view = RecordView::parse(&record, None).unwrap();
    assert_eq!(view.event().unwrap_err(), RecordError::Type(RecordType::Synced as u16));
}

#[test]
fn parts_that_do_not_add_up_are_refused() {
    let event = |kind, name: u32, target: u32, xattrs: (u32, u32), payload: &Payload| {
        let mut body = CreateBody::new_zeroed();
        body.name_len = name.into();
        body.target_len = target.into();
        body.xattrs_len = xattrs.0.into();
        body.xattrs = xattrs.1.into();
        let mut log = LogBuilder::new();
        log.push(kind, 0, common::identity(1), &body, payload).unwrap();
        let view = RecordView::parse(&log.bytes, None).unwrap();
        view.event().map(|_| ())
    };
    let create = RecordType::Create;
    let payload = Payload::of(b"name").part(b"target");
    assert_eq!(event(create, 4, 6, (0, 0), &payload), Ok(()));
    for (name, target) in [(9, 6), (4, 7), (4, 5), (3, 6), (0, 0), (u32::MAX, 0), (4, u32::MAX)] {
        assert!(event(create, name, target, (0, 0), &payload).is_err(), "{name} {target}");
    }
    let (payload, length, count) = Payload::new().xattrs([(&b"user.a"[..], &b"1"[..]), (b"user.b", b"")]);
    assert_eq!(event(create, 0, 0, (length, count), &payload), Ok(()));
    for (length, count) in [(length, 1), (length, 3), (length - 8, 2), (length + 8, 2), (8, 1), (length, u32::MAX)] {
        assert!(event(create, 0, 0, (length, count), &payload).is_err(), "{length} {count}");
    }
    // A value that is longer than the rest.
    let mut bytes = payload.bytes().to_vec();
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(event(create, 0, 0, (length, 2), &Payload::of(&bytes)).is_err());
    bytes[0..8].fill(0xff);
    assert!(event(create, 0, 0, (length, 2), &Payload::of(&bytes)).is_err());
}

#[test]
fn states_that_do_not_add_up_are_refused() {
    let data = |length: u64, flags: u32, bytes: &[u8]| {
        let mut body = ObjectDataBody::new_zeroed();
        (body.length, body.flags) = (length.into(), flags.into());
        let mut log = LogBuilder::new();
        log.push(RecordType::ObjectData, 0, common::identity(1), &body, &Payload::of(bytes)).unwrap();
        RecordView::parse(&log.bytes, None).unwrap().event().map(|_| ())
    };
    assert_eq!(data(5, 0, b"bytes"), Ok(()));
    assert_eq!(data(5000, STATE_HOLE, b""), Ok(()));
    assert_eq!(data(0, STATE_LAST, b""), Ok(()));
    for (length, flags) in [(4, 0), (6, 0), (5, STATE_HOLE), (u64::MAX, 0)] {
        assert_eq!(data(length, flags, b"bytes"), Err(RecordError::Parts), "{length} {flags}");
    }

    let entries = |count: u32, name_len: u32| {
        let mut body = DirectoryStateBody::new_zeroed();
        body.entries = count.into();
        let one = |name: &[u8], name_len: u32| {
            let (object, mode) = (common::identity(2), 0o100_644.into());
            let entry = DirectoryEntry { object, mode, name_len: name_len.into() };
            [entry.as_bytes(), name].concat()
        };
        let payload = Payload::of(&one(b"first", 5)).part(&one(b"second name", name_len));
        let mut log = LogBuilder::new();
        log.push(RecordType::DirectoryState, 0, common::identity(1), &body, &payload).unwrap();
        let view = RecordView::parse(&log.bytes, None).unwrap();
        view.event().map(|event| match event {
            Event::DirectoryState { entries, .. } => entries.map(|(_, name)| name.to_vec()).collect(),
            _ => Vec::new(),
        })
    };
    assert_eq!(entries(2, 11), Ok(vec![b"first".to_vec(), b"second name".to_vec()]));
    for (count, name_len) in [(0, 11), (1, 11), (3, 11), (u32::MAX, 11), (2, 12), (2, u32::MAX)] {
        assert!(entries(count, name_len).is_err(), "{count} {name_len}");
    }
}

#[test]
fn names_that_are_no_names() {
    let long = [b'x'; 256];
    for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &long] {
        assert!(!check_name(bad), "{bad:?}");
    }
    for good in [&b"a"[..], b"...", b" ", b"\xff\xfe", &long[..255]] {
        assert!(check_name(good), "{good:?}");
    }
}

#[test]
fn lengths_that_do_not_fit() {
    assert_eq!(record::record_len(96, 0), Some(104));
    assert_eq!(record::record_len(96, 1), Some(112));
    assert_eq!(record::record_len(96, RECORD_MAX - 104), Some(RECORD_MAX));
    assert_eq!(record::record_len(96, RECORD_MAX - 103), None);
    assert_eq!(record::record_len(usize::MAX, 0), None);
    assert_eq!(record::record_len(96, usize::MAX), None);
    assert_eq!(record::pad(usize::MAX), None);
    let head = Head {
        kind: RecordType::Write,
        flags: 0,
        lsn: 0,
        time: 0,
        epoch: 1,
        uid: 0,
        object: common::identity(1),
        payload_length: 5,
        payload_crc: 0,
    };
    // Another length, another body.
    assert!(record::seal(&mut [0; 184], &head, &WriteBody::new_zeroed()).is_none());
    assert!(record::seal(&mut [0; 112], &head, &EmptyBody {}).is_none());
    assert!(Identity::new(1, &[]).is_none());
    assert!(Identity::new(1, &[0; 29]).is_none());
    assert!(Identity::new(1, &[0; 300]).is_none());
    assert_eq!(Identity::new(1, &[7; 28]).unwrap().handle(), Some(&[7; 28][..]));
    assert!(Identity::NONE.is_none());
}

proptest! {
    /// What is sealed is parsed as what it was.
    #[test]
    fn sealed_records_are_parsed(
        data in prop::collection::vec(any::<u8>(), 0..5000),
        offset in any::<u64>(),
        lsn in 0..u64::MAX / 2,
        time in any::<i64>(),
        flags in 0..RECORD_FLAGS + 1,
        junk in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut log = LogBuilder { lsn, time, ..LogBuilder::default() };
        let mut body = WriteBody::new_zeroed();
        body.offset = offset.into();
        log.push(RecordType::Write, flags, common::identity(3), &body, &Payload::of(&data)).unwrap();
        let length = log.bytes.len();
        log.bytes.extend(&junk);
        let view = RecordView::parse(&log.bytes, Some(lsn)).unwrap();
        prop_assert_eq!(view.bytes().len(), length);
        prop_assert_eq!(view.next_lsn(), lsn + length as u64);
        prop_assert_eq!(view.header().time.get(), time);
        prop_assert_eq!(view.header().flags.get(), flags);
        match view.event().unwrap() {
            Event::Write { body, data: found } => {
                prop_assert_eq!(body.offset.get(), offset);
                prop_assert_eq!(found, &data[..]);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// Extended attributes come out as they went in.
    #[test]
    fn xattrs_come_out(list in prop::collection::btree_map(
        prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        let (payload, length, count) =
            Payload::of(b"n").xattrs(list.iter().map(|(name, value)| (&name[..], &value[..])));
        let mut body = CreateBody::new_zeroed();
        body.name_len = 1.into();
        body.xattrs_len = length.into();
        body.xattrs = count.into();
        let mut log = LogBuilder::new();
        log.push(RecordType::Create, 0, common::identity(1), &body, &payload).unwrap();
        let view = RecordView::parse(&log.bytes, None).unwrap();
        let Event::Create { xattrs, .. } = view.event().unwrap() else { panic!() };
        prop_assert_eq!(xattrs.len(), list.len());
        let found: std::collections::BTreeMap<_, _> = xattrs.map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        prop_assert_eq!(found, list);
    }

    /// No bytes make it panic.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = RecordView::parse(&bytes, None);
        let _ = peek_length_back(&bytes);
    }

    /// Nor does a record whose bytes were changed and that was sealed again.
    #[test]
    fn hostile_records_are_survived(which in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let log = common::log().bytes;
        let starts = boundaries(&log);
        let index = which.index(starts.len() - 1);
        let mut record = log[starts[index]..starts[index + 1]].to_vec();
        for (at, byte) in changes {
            let at = at.index(record.len());
            record[at] = byte;
        }
        let head = u32::from_le_bytes(record[12..16].try_into().unwrap()) as usize;
        let payload = u32::from_le_bytes(record[36..40].try_into().unwrap()) as usize;
        if let Some(bytes) = head.checked_add(payload).and_then(|end| record.get(head..end)) {
            let crc = crc32c_append(0, bytes);
            record[40..44].copy_from_slice(&crc.to_le_bytes());
        }
        reseal(&mut record);
        if let Ok(view) = RecordView::parse(&record, None) {
            match view.event() {
                Ok(Event::Create { xattrs, .. } | Event::Mount { xattrs, .. } | Event::ObjectState { xattrs, .. }) => {
                    let _ = xattrs.count();
                }
                Ok(Event::DirectoryState { entries, .. }) => drop(entries.count()),
                _ => {}
            }
        }
    }
}
