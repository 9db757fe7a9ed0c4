// SPDX-License-Identifier: GPL-2.0-or-later
//! The mark on the root of a tree: what is written is read back, and nothing else is.

use proptest::prelude::*;
use reelfs_format::mark::{Mark, MarkError, MARK_CLEAN, MARK_LEN};
use zerocopy::{FromBytes, IntoBytes};

const STREAM: [u8; 16] = *b"0123456789abcdef";

/// The mark of `bytes` with a checksum that matches them.
fn resealed(mut bytes: [u8; MARK_LEN]) -> [u8; MARK_LEN] {
    let crc = reelfs_format::crc32c_append(0, &bytes[..92]);
    bytes[92..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn bytes_of(mark: &Mark) -> [u8; MARK_LEN] {
    mark.as_bytes().try_into().expect("as long as itself")
}

#[test]
fn a_mark_looks_as_specified() {
    let mark = Mark::new(MARK_CLEAN, STREAM, 3, 0x1122_3344_5566_7788, 4096, None);
    let bytes = bytes_of(&mark);
    assert_eq!(&bytes[..8], b"REELMARK");
    assert_eq!(bytes[8..16], [1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(bytes[16..32], STREAM);
    assert_eq!(bytes[32..40], [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[40..48], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    assert_eq!(bytes[48..56], [0, 0x10, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[56..92], [0; 36]);
    assert_eq!(mark.gap(), None);
    let lacking = bytes_of(&Mark::new(MARK_CLEAN, STREAM, 3, 8192, 4096, Some(0x0102_0304_0506_0708)));
    assert_eq!(lacking[8..16], [1, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(lacking[56..64], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(lacking[64..92], [0; 28]);
    assert_eq!(Mark::parse(&lacking).expect("sound").gap(), Some(0x0102_0304_0506_0708));
    assert_eq!(resealed(bytes), bytes, "CRC32C of all before it");
}

#[test]
fn broken_marks_are_told_apart() {
    let good = bytes_of(&Mark::new(0, STREAM, 1, 0, 0, None));
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        bytes
    };
    let cases = [
        ("magic", Mark::parse(&with(0, b'r')), MarkError::Magic),
        ("version", Mark::parse(&resealed(with(8, 2))), MarkError::Version(2)),
        ("flags", Mark::parse(&resealed(with(13, 1))), MarkError::Flags(256)),
        ("stream", Mark::parse(&with(20, 0)), MarkError::Checksum),
        ("reserved", Mark::parse(&with(60, 1)), MarkError::Checksum),
        ("checksum", Mark::parse(&with(95, !good[95])), MarkError::Checksum),
        ("empty", Mark::parse(&[]), MarkError::Length(0)),
        ("short", Mark::parse(&good[..95]), MarkError::Length(95)),
        ("long", Mark::parse(&[&good[..], &[0]].concat()), MarkError::Length(97)),
        ("zero", Mark::parse(&[0; MARK_LEN]), MarkError::Magic),
    ];
    for (name, found, wanted) in cases {
        assert_eq!(found, Err(wanted), "{name}");
        assert!(!wanted.to_string().is_empty());
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        clean in any::<bool>(), gap in any::<Option<u64>>(), stream in any::<[u8; 16]>(), epoch in any::<u64>(),
        next in any::<u64>(), synced in any::<u64>(),
    ) {
        let mark = Mark::new(if clean { MARK_CLEAN } else { 0 }, stream, epoch, next, synced, gap);
        let read = Mark::parse(mark.as_bytes()).expect("just written");
        prop_assert_eq!(read, mark);
        prop_assert_eq!(read.is_clean(), clean);
        prop_assert_eq!((read.epoch.get(), read.next_lsn.get(), read.synced_lsn.get()), (epoch, next, synced));
    }

    #[test]
    fn any_flipped_bit_is_noticed(bit in 0..MARK_LEN * 8) {
        let mut bytes = bytes_of(&Mark::new(MARK_CLEAN, STREAM, 7, 8, 0, None));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Mark::parse(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(mark) = Mark::parse(&bytes) {
            prop_assert_eq!(Mark::read_from_bytes(&bytes).ok(), Some(mark));
        }
    }
}
