// SPDX-License-Identifier: GPL-2.0-or-later

//! Rules of the volume and spool formats, one by one and at random.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use proptest::prelude::*;
use reelfs_format::crc32c_append;
use reelfs_format::record::Lsn;
use reelfs_format::spool::{SegmentError, SegmentHeader, SEGMENT_SIZE_MAX};
use reelfs_format::volume::*;
use zerocopy::{FromZeros, IntoBytes};

const HEADER: usize = BLOCK_HEADER_LEN;

fn reseal(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let crc = crc32c_append(0, bytes);
    bytes[field..field + 4].copy_from_slice(&crc.to_le_bytes());
}

fn blocks() -> Vec<Vec<u8>> {
    common::volume()[LABEL_LEN..].chunks(common::BLOCK).map(<[u8]>::to_vec).collect()
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut label = common::label().as_bytes().to_vec();
    let mut segment = common::segment();
    // Every 7th bit of everything: each takes a checksum over 4 KiB.
    for bit in (0..4096 * 8).step_by(7) {
        label[bit / 8] ^= 1 << (bit % 8);
        assert!(Label::parse(&label).is_err(), "bit {bit} of the label");
        label[bit / 8] ^= 1 << (bit % 8);
        segment[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::parse(&segment).is_err(), "bit {bit} of the segment header");
        segment[bit / 8] ^= 1 << (bit % 8);
    }
    for mut block in blocks() {
        for bit in (0..block.len() * 8).step_by(7) {
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockView::parse(&block).is_err(), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
        BlockView::parse(&block).unwrap();
        for length in [0, 1, HEADER - 1, HEADER, block.len() - 1] {
            assert!(BlockView::parse(&block[..length]).is_err(), "{length}");
        }
    }
}

#[test]
fn each_rule_of_the_label_has_its_error() {
    type Change = fn(&mut Vec<u8>);
    let sealed: &[(&str, Change, VolumeError)] = &[
        ("features", |l| l[16] = 4, VolumeError::Incompatible(4)),
        ("block size small", |l| l[64..68].fill(0), VolumeError::BlockSize(0)),
        ("block size large", |l| l[64..68].fill(0xff), VolumeError::BlockSize(u32::MAX)),
    ];
    for (name, change, error) in sealed {
        let mut label = common::label().as_bytes().to_vec();
        change(&mut label);
        reseal(&mut label, 12);
        assert_eq!(Label::parse(&label).unwrap_err(), *error, "{name}");
        assert!(!error.to_string().is_empty());
    }
    let mut label = common::label().as_bytes().to_vec();
    assert_eq!(Label::parse(&label[..4095]).unwrap_err(), VolumeError::Truncated);
    label[8] = 2;
    assert_eq!(Label::parse(&label).unwrap_err(), VolumeError::Version(2));
    label[0] = 0;
    assert_eq!(Label::parse(&label).unwrap_err(), VolumeError::Magic);
    // What a reader may ignore.
    let mut label = common::label().as_bytes().to_vec();
    label[24] = 0xff;
    reseal(&mut label, 12);
    Label::parse(&label).unwrap();
}

#[test]
fn each_rule_of_the_block_has_its_error() {
    let put = |block: &mut Vec<u8>, at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let data = blocks()[1].clone();
    let length = u32::from_le_bytes(data[20..24].try_into().unwrap());
    let cases: &[(&str, usize, u32, VolumeError)] = &[
        ("kind", 8, 99, VolumeError::Kind(99)),
        ("flag", 12, 2, VolumeError::Flags(2)),
        ("payload", 20, 5000, VolumeError::PayloadLength(5000)),
        ("payload huge", 20, u32::MAX, VolumeError::PayloadLength(u32::MAX)),
        ("range", 64, 8, VolumeError::Range),
        ("first record", 84, length, VolumeError::Range),
        ("codec", 88, 9, VolumeError::Codec(9)),
        ("codec of other kinds", 88, Codec::Authenticated as u32, VolumeError::Codec(4)),
        ("plain length", 92, 1, VolumeError::PlainLength(1)),
    ];
    for (name, at, value, error) in cases {
        let mut block = data.clone();
        put(&mut block, *at, *value);
        reseal(&mut block, 16);
        assert_eq!(BlockView::parse(&block).unwrap_err(), *error, "{name}");
        assert!(!error.to_string().is_empty());
    }
    // Nothing stored, at the end of all positions.
    let mut block = data.clone();
    put(&mut block, 20, 0);
    put(&mut block, 92, 0);
    reseal(&mut block, 16);
    assert_eq!(BlockView::parse(&block).unwrap_err(), VolumeError::Range);
    let mut block = data.clone();
    block[64..80].fill(0xff);
    reseal(&mut block, 16);
    assert_eq!(BlockView::parse(&block).unwrap_err(), VolumeError::Range);
    // Kinds with a fixed body.
    let start = blocks()[0].clone();
    let mut block = start.clone();
    put(&mut block, 20, 8);
    put(&mut block, 92, 8);
    reseal(&mut block, 16);
    assert_eq!(BlockView::parse(&block).unwrap_err(), VolumeError::PayloadLength(8));
    let mut block = start;
    put(&mut block, 64, 8);
    reseal(&mut block, 16);
    assert_eq!(BlockView::parse(&block).unwrap_err(), VolumeError::Range);
    // Coded otherwise: lengths that a reader would have to provide for, a seal that does not fit.
    let most = plain_length_max(common::BLOCK) as u32;
    for (plain, error) in [(most + 1, VolumeError::PlainLength(most + 1)), (most, VolumeError::Range)] {
        let mut block = data.clone();
        put(&mut block, 88, Codec::Zstd as u32);
        put(&mut block, 92, plain);
        reseal(&mut block, 16);
        assert_eq!(BlockView::parse(&block).unwrap_err(), error);
    }
    let mut block = data.clone();
    put(&mut block, 88, Codec::Encrypted as u32);
    put(&mut block, 20, SEAL_LEN as u32 - 1);
    reseal(&mut block, 16);
    assert_eq!(BlockView::parse(&block).unwrap_err(), VolumeError::PayloadLength(SEAL_LEN as u32 - 1));
    let mut block = blocks()[0].clone();
    put(&mut block, 88, Codec::Encrypted as u32);
    put(&mut block, 20, (size_of::<VolumeStart>() + SEAL_LEN) as u32);
    reseal(&mut block, 16);
    assert_eq!(BlockView::parse(&block).unwrap_err(), VolumeError::Codec(Codec::Encrypted as u32));
    // A kind from the future that says so.
    let mut block = data;
    put(&mut block, 8, 99);
    put(&mut block, 12, BLOCK_SKIPPABLE);
    reseal(&mut block, 16);
    assert_eq!(BlockView::parse(&block).unwrap().kind, None);
    for raw in 1..=5 {
        assert_eq!(BlockKind::from_raw(raw).map(|kind| kind as u32), Some(raw));
    }
    assert_eq!((BlockKind::from_raw(0), BlockKind::from_raw(6)), (None, None));
    for codec in [Codec::Plain, Codec::Zstd, Codec::Encrypted, Codec::ZstdEncrypted, Codec::Authenticated] {
        assert_eq!(Codec::from_raw(codec as u32), Some(codec));
    }
    // A body is asked for as something else.
    let blocks = blocks();
    assert!(BlockView::parse(&blocks[0]).unwrap().body::<Trailer>().is_err());
}

#[test]
fn a_block_has_to_fit_its_volume() {
    let data = blocks()[1].clone();
    let plain = BlockView::parse(&data).unwrap();
    assert_eq!(plain.fits(0, false), Ok(()));
    assert_eq!(plain.fits(FEATURE_ENCRYPTED, true), Err(VolumeError::Unsealed));
    let coded = |codec: Codec, plain_length: u32| {
        let mut block = data.clone();
        let length = u32::from_le_bytes(block[20..24].try_into().unwrap());
        block[88] = codec as u8;
        let plain_length = if codec.is_compressed() { plain_length } else { length - SEAL_LEN as u32 };
        block[92..96].copy_from_slice(&plain_length.to_le_bytes());
        let end = u64::from_le_bytes(block[64..72].try_into().unwrap()) + u64::from(plain_length);
        block[72..80].copy_from_slice(&end.to_le_bytes());
        reseal(&mut block, 16);
        block
    };
    for (codec, features, encrypted, expected) in [
        (Codec::Zstd, FEATURE_COMPRESSED, false, Ok(())),
        (Codec::Zstd, FEATURE_ENCRYPTED, false, Err(VolumeError::Feature(FEATURE_COMPRESSED))),
        (Codec::Zstd, INCOMPATIBLE_KNOWN, true, Err(VolumeError::Unsealed)),
        (Codec::Encrypted, FEATURE_ENCRYPTED, true, Ok(())),
        (Codec::Encrypted, FEATURE_COMPRESSED, true, Err(VolumeError::Feature(FEATURE_ENCRYPTED))),
        (Codec::Encrypted, FEATURE_ENCRYPTED, false, Err(VolumeError::Sealed)),
        (Codec::ZstdEncrypted, FEATURE_ENCRYPTED, true, Err(VolumeError::Feature(FEATURE_COMPRESSED))),
        (Codec::ZstdEncrypted, INCOMPATIBLE_KNOWN, true, Ok(())),
    ] {
        let block = coded(codec, 9000);
        let view = BlockView::parse(&block).unwrap();
        assert_eq!(view.fits(features, encrypted), expected, "{codec:?}");
        assert!(expected.err().is_none_or(|error| !error.to_string().is_empty()));
    }
}

#[test]
fn the_parts_of_a_wrapped_key_have_the_lengths_they_say() {
    let mut head = VolumeKeyHead::new_zeroed();
    head.fingerprint = [7; 32];
    head.wrapped_length = 5.into();
    head.recipients_length = 4.into();
    let good = [head.as_bytes(), b"age..", b"you\n"].concat();
    let view = VolumeKeyView::parse(&good).unwrap();
    assert_eq!((view.head.fingerprint, view.wrapped, view.recipients), ([7; 32], &b"age.."[..], "you\n"));
    for length in 0..good.len() {
        assert!(VolumeKeyView::parse(&good[..length]).is_none(), "{length}");
    }
    assert!(VolumeKeyView::parse(&[&good[..], b"x"].concat()).is_none());
    for (at, value) in [(32, u32::MAX), (36, u32::MAX), (32, 0)] {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert!(VolumeKeyView::parse(&bad).is_none());
    }
    let mut bad = good.clone();
    *bad.last_mut().unwrap() = 0xff;
    assert!(VolumeKeyView::parse(&bad).is_none());
}

#[test]
fn each_rule_of_the_segment_header_has_its_error() {
    let put = |bytes: &mut Vec<u8>, at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    let cases: &[(usize, u64, SegmentError)] = &[
        (40, 0, SegmentError::Size(0)),
        (40, SEGMENT_SIZE_MAX + 4096, SegmentError::Size(SEGMENT_SIZE_MAX + 4096)),
        (40, (4 << 20) + 1, SegmentError::Size((4 << 20) + 1)),
        (48, 0, SegmentError::FirstRecord(0)),
        (32, u64::MAX, SegmentError::FirstRecord(3 * (4 << 20) + 48)),
    ];
    for (at, value, error) in cases {
        let mut header = common::segment();
        put(&mut header, *at, *value);
        reseal(&mut header, 12);
        assert_eq!(SegmentHeader::parse(&header).unwrap_err(), *error);
        assert!(!error.to_string().is_empty());
    }
    let mut header = common::segment();
    assert_eq!(SegmentHeader::parse(&header[..100]).unwrap_err(), SegmentError::Truncated);
    header[16] ^= 1;
    assert_eq!(SegmentHeader::parse(&header).unwrap_err(), SegmentError::Checksum);
    header[8] = 9;
    assert_eq!(SegmentHeader::parse(&header).unwrap_err(), SegmentError::Version(9));
    header[0] = 0;
    assert_eq!(SegmentHeader::parse(&header).unwrap_err(), SegmentError::Magic);
}

#[test]
fn texts_in_fields() {
    assert_eq!(text_field::<4>("abcd").unwrap(), *b"abcd");
    assert_eq!(text_field::<4>("ab").unwrap(), *b"ab\0\0");
    for bad in ["", "abcde", "a\0b"] {
        assert!(text_field::<4>(bad).is_none());
    }
    assert_eq!(field_text(b"abcd"), Some("abcd"));
    assert_eq!(field_text(b"ab\0d"), Some("ab"));
    assert_eq!(field_text(b"\xff\0"), None);
}

#[test]
fn a_payload_that_does_not_fit_is_not_sealed() {
    let mut header = BlockHeader::new_zeroed();
    header.payload_length = 4097.into();
    assert!(seal_block(&mut [0; 4096], header).is_none());
    header.payload_length = u32::MAX.into();
    assert!(seal_block(&mut [0; 4096], header).is_none());
    header.payload_length = 0.into();
    assert!(seal_block(&mut [0; 100], header).is_none());
}

proptest! {
    /// Blocks come out as they went in.
    #[test]
    fn blocks_come_out(data in prop::collection::vec(any::<u8>(), 1..3968), lsn in 0..Lsn::MAX / 2, number in any::<u64>()) {
        let mut block = vec![0xee; 4096];
        block[HEADER..HEADER + data.len()].copy_from_slice(&data);
        let mut header = BlockHeader::new_zeroed();
        header.kind = (BlockKind::Data as u32).into();
        header.number = number.into();
        header.lsn_start = lsn.into();
        header.lsn_end = (lsn + data.len() as u64).into();
        header.payload_length = (data.len() as u32).into();
        header.plain_length = header.payload_length;
        header.first_record = NO_RECORD.into();
        seal_block(&mut block, header).unwrap();
        let view = BlockView::parse(&block).unwrap();
        prop_assert_eq!(view.payload, &data[..]);
        prop_assert_eq!(view.header.number.get(), number);
        prop_assert!(block[HEADER + data.len()..].iter().all(|byte| *byte == 0));
    }

    /// No bytes make it panic, sealed or not.
    #[test]
    fn any_bytes_are_survived(changes in prop::collection::vec((0_usize..4096, any::<u8>()), 1..30), which in 0_usize..8) {
        let blocks = blocks();
        let mut block = blocks[which % blocks.len()].clone();
        let mut label = common::label().as_bytes().to_vec();
        let mut segment = common::segment();
        for (at, byte) in changes {
            block[at] = byte;
            label[at] = byte;
            segment[at] = byte;
        }
        let _ = (BlockView::parse(&block), Label::parse(&label), SegmentHeader::parse(&segment));
        reseal(&mut block, 16);
        reseal(&mut label, 12);
        reseal(&mut segment, 12);
        let _ = (BlockView::parse(&block), Label::parse(&label), SegmentHeader::parse(&segment));
    }
}
