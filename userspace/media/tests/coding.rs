// SPDX-License-Identifier: GPL-2.0-or-later

//! Compressed and encrypted volumes: what goes in comes out, what was altered is noticed, what is lost is no more than
//! the block that is lost.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use common::*;
use proptest::prelude::*;
use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::crc32c_append;
use reelfs_format::record::{Identity, RecordType, WriteBody};
use reelfs_format::volume::{
    plain_length_max, seal_block, BlockHeader, BlockKind, BlockView, Codec, VolumeError, BLOCK_HEADER_LEN,
    FEATURE_COMPRESSED, FEATURE_ENCRYPTED, LABEL_LEN, NO_RECORD, SEAL_LEN, TRAILER_CLOSED,
};
use reelfs_media::codec::{self, Decoder, Shape, Workshop};
use reelfs_media::directory::VolumeFile;
use reelfs_media::key::{Lock, VolumeKey, WrappedKey};
use reelfs_media::label::{self, NewLabel};
use reelfs_media::library::{volume_files, Library, Supply};
use reelfs_media::pool::Pool;
use reelfs_media::reader::{OnGap, ReadError, VolumeReader};
use reelfs_media::writer::{Coding, Progress, VolumeWriter, WriteError};
use reelfs_media::LogState;
use zerocopy::FromZeros;

fn key() -> VolumeKey {
    VolumeKey::from_bytes([0x5a; 32])
}

/// A lock; what is wrapped is not looked at here.
fn lock() -> Lock {
    let wrapped = b"age-encryption.org/v1\nwrapped".to_vec();
    let wrapped = WrappedKey { fingerprint: key().fingerprint(), wrapped, recipients: "age1somebody\n".into() };
    Lock { key: key(), wrapped }
}

fn coding(level: Option<i32>, encrypted: bool, threads: usize) -> Coding {
    let pool = if threads == 0 { Pool::inline() } else { Pool::with_threads(threads).unwrap() };
    Coding { pool, level, lock: encrypted.then(lock) }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A log of which so many in ten records cannot be compressed.
fn mixed_log(size: usize, noisy: usize) -> LogBuilder {
    let mut log = LogBuilder::new();
    let object = Identity::new(1, b"object").unwrap();
    let mut n = 0;
    while log.bytes.len() < size {
        n += 1;
        let length = n * 7919 % 150_000 + 1;
        let data = if n * 3 % 10 < noisy { noise(length, n as u64) } else { vec![n as u8; length] };
        log.push(RecordType::Write, 0, object, &WriteBody::new_zeroed(), &Payload::of(&data)).unwrap();
    }
    log
}

/// The blocks of a volume file, in order.
fn blocks(path: &Path) -> Vec<Vec<u8>> {
    fs::read(path).unwrap()[LABEL_LEN..].chunks(BLOCK).map(<[u8]>::to_vec).collect()
}

fn only_volume(directory: &Path) -> std::path::PathBuf {
    let mut files = volume_files(directory).unwrap();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

fn put_block(path: &Path, number: usize, block: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(block, (LABEL_LEN + number * BLOCK) as u64).unwrap();
}

fn reseal(block: &mut [u8]) {
    block[16..20].fill(0);
    let crc = crc32c_append(0, block);
    block[16..20].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn what_is_written_is_read_back_however_it_is_coded() {
    let log = mixed_log(13 << 20, 5);
    for (level, encrypted, threads) in
        [(Some(3), false, 0), (Some(1), false, 3), (None, true, 2), (Some(3), true, 3), (Some(19), true, 0)]
    {
        let directory = tempfile::tempdir().unwrap();
        let coding = coding(level, encrypted, threads);
        drop(write_all(directory.path(), Some(3 << 20), &log.bytes, (333_333, 2 << 20), &coding));
        assert!(volume_files(directory.path()).unwrap().len() > 1);
        assert!(read_all_with(directory.path(), encrypted.then(key)).unwrap() == log.bytes, "{level:?} {encrypted}");
    }
}

#[test]
fn what_compresses_takes_less_and_what_does_not_takes_no_more() {
    let count = |noisy: usize, level: Option<i32>| {
        let directory = tempfile::tempdir().unwrap();
        let log = mixed_log(8 << 20, noisy);
        drop(write_all(directory.path(), None, &log.bytes, (1 << 20, usize::MAX), &coding(level, false, 0)));
        assert!(read_all(directory.path()).unwrap() == log.bytes);
        blocks(&only_volume(directory.path())).len()
    };
    let plain = count(0, None);
    let zeros = count(0, Some(3));
    // No block holds more than sixteen times its length.
    assert!(zeros * 8 < plain && zeros * 17 > plain, "{zeros} blocks instead of {plain}");
    let (plain, half) = (count(5, None), count(5, Some(3)));
    assert!(half * 10 < plain * 7, "{half} blocks instead of {plain}");
    let (plain, noise) = (count(10, None), count(10, Some(3)));
    assert!(noise <= plain + 1, "{noise} blocks instead of {plain}");
}

#[test]
fn blocks_are_full() {
    let directory = tempfile::tempdir().unwrap();
    // Text of even entropy, so that only the cutting decides how full blocks become.
    let object = Identity::new(1, b"object").unwrap();
    let mut log = LogBuilder::new();
    let half: Vec<u8> = noise(24 << 20, 9).into_iter().map(|byte| byte & 0x0f).collect();
    for data in half.chunks(100_000) {
        log.push(RecordType::Write, 0, object, &WriteBody::new_zeroed(), &Payload::of(data)).unwrap();
    }
    drop(write_all(directory.path(), None, &log.bytes, (1 << 20, usize::MAX), &coding(Some(3), false, 0)));
    let (mut used, mut room) = (0, 0);
    for block in blocks(&only_volume(directory.path())) {
        let view = BlockView::parse(&block).unwrap();
        if view.kind == Some(BlockKind::Data) {
            used += view.payload.len();
            room += BLOCK - BLOCK_HEADER_LEN;
        }
    }
    assert!(used * 100 > room * 94, "{used} of {room} bytes are used");
}

fn sealed_block(compressed: bool) -> Vec<u8> {
    let size = 4096;
    let shape = Shape { block_size: size, sealed: true, level: compressed.then_some(3) };
    let bytes = Arc::new(if compressed { vec![7; 30_000] } else { noise(2000, 5) });
    let piece = shape.cut(&mut Workshop::default(), bytes).pieces.remove(0);
    assert_eq!(piece.compressed, compressed);
    let mut block = piece.block;
    let mut header = BlockHeader::new_zeroed();
    header.kind = (BlockKind::Data as u32).into();
    header.number = 77.into();
    header.volume = [3; 16];
    header.stream = [4; 16];
    header.lsn_start = 1000.into();
    header.lsn_end = (1000 + piece.plain.len() as u64).into();
    header.plain_length = (piece.plain.len() as u32).into();
    header.first_record = NO_RECORD.into();
    let codec = if compressed { Codec::ZstdEncrypted } else { Codec::Encrypted };
    codec::finish(&mut block, header, piece.stored, codec, Some(&key())).unwrap();
    block
}

/// Whoever alters a block can make its checksum right; the key he has not.
#[test]
fn every_flipped_bit_of_an_encrypted_block_is_noticed() {
    for compressed in [false, true] {
        let mut block = sealed_block(compressed);
        let view = BlockView::parse(&block).unwrap();
        Decoder::default().decode(&view, Some(&key())).unwrap();
        let used = BLOCK_HEADER_LEN + view.header.payload_length.get() as usize;
        assert!(used > BLOCK_HEADER_LEN + SEAL_LEN);
        for bit in 0..used * 8 {
            if (16 * 8..20 * 8).contains(&bit) {
                continue;
            }
            block[bit / 8] ^= 1 << (bit % 8);
            reseal(&mut block);
            let taken = BlockView::parse(&block)
                .and_then(|view| view.fits(FEATURE_COMPRESSED | FEATURE_ENCRYPTED, true).map(|()| view))
                .and_then(|view| Decoder::default().decode(&view, Some(&key())));
            assert!(taken.is_err(), "bit {bit} of {used} bytes");
            block[bit / 8] ^= 1 << (bit % 8);
        }
        reseal(&mut block);
        let view = BlockView::parse(&block).unwrap();
        let other = VolumeKey::from_bytes([0x5b; 32]);
        assert_eq!(Decoder::default().decode(&view, Some(&other)), Err(VolumeError::Seal));
        assert_eq!(Decoder::default().decode(&view, None), Err(VolumeError::Seal));
    }
}

#[test]
fn other_blocks_of_an_encrypted_volume_are_authenticated() {
    let directory = tempfile::tempdir().unwrap();
    let log = mixed_log(9 << 20, 5);
    let mut writer = write_all(directory.path(), None, &log.bytes, (1 << 20, usize::MAX), &coding(Some(3), true, 0));
    writer.finish(TRAILER_CLOSED).unwrap();
    drop(writer);
    let path = only_volume(directory.path());
    let mut kinds = Vec::new();
    for (number, block) in blocks(&path).into_iter().enumerate() {
        let kind = BlockView::parse(&block).unwrap().kind.unwrap();
        if kind == BlockKind::Data {
            continue;
        }
        kinds.push(kind);
        // The last byte of what the block says, and the LSN of its header.
        let last = BlockView::parse(&block).unwrap().payload.len() - 1;
        for at in [BLOCK_HEADER_LEN + last, 66] {
            let mut altered = block.clone();
            altered[at] ^= 0x01;
            if at == 66 {
                altered[74] ^= 0x01;
            }
            reseal(&mut altered);
            BlockView::parse(&altered).unwrap();
            put_block(&path, number, &altered);
            let mut reader = reader_with(directory.path(), OnGap::Skip, Some(key()));
            let mut result = reader.next().map(|_| ());
            while matches!(reader.next(), Ok(Some(_))) {}
            for note in reader.log().take_notes() {
                if let reelfs_media::reader::Note::Damaged(damage) = note {
                    result = Err(ReadError::Start(damage));
                }
            }
            match result {
                Err(ReadError::Start(damage)) => {
                    assert_eq!(damage.place.block, number as u64, "{kind:?}");
                    assert!(damage.why.contains("authentication"), "{kind:?}: {}", damage.why);
                }
                other => panic!("{kind:?}, byte {at}: {other:?}"),
            }
        }
        put_block(&path, number, &block);
    }
    let first = &kinds[..2];
    assert_eq!(first, [BlockKind::VolumeStart, BlockKind::VolumeKey]);
    assert_eq!(kinds[kinds.len() - 2..], [BlockKind::VolumeKey, BlockKind::Trailer]);
    assert!(kinds.contains(&BlockKind::SegmentEnd));
    assert!(read_all_with(directory.path(), Some(key())).unwrap() == log.bytes);
}

#[test]
fn a_damaged_block_costs_only_what_it_held() {
    for (level, encrypted) in [(Some(3), false), (Some(3), true)] {
        let directory = tempfile::tempdir().unwrap();
        let log = mixed_log(1 << 20, 5);
        drop(write_all(directory.path(), None, &log.bytes, (500_000, usize::MAX), &coding(level, encrypted, 0)));
        let path = only_volume(directory.path());
        let mut seen = 0;
        for (number, block) in blocks(&path).into_iter().enumerate() {
            let view = BlockView::parse(&block).unwrap();
            if view.kind != Some(BlockKind::Data) {
                continue;
            }
            seen += 1;
            let (from, to) = (view.header.lsn_start.get(), view.header.lsn_end.get());
            let mut damaged = block.clone();
            damaged[BLOCK_HEADER_LEN + 9] ^= 0x10;
            put_block(&path, number, &damaged);
            match read_all_with(directory.path(), encrypted.then(key)) {
                Err(ReadError::MissingRange { from: missing, to: behind, damages }) => {
                    assert_eq!((missing, damages[0].place.block), (from, number as u64));
                    assert!(behind.is_none_or(|behind| behind == to), "{behind:?} and not {to}");
                }
                other => panic!("{:?}", other.map(|bytes| bytes.len())),
            }
            // What lies behind it is read: only records that were not whole without it are missing.
            let mut reader = reader_with(directory.path(), OnGap::Skip, encrypted.then(key));
            let mut bytes = Vec::new();
            while let Some(record) = reader.next().unwrap() {
                bytes.push((record.lsn(), record.next_lsn()));
            }
            let mut at = 0;
            while at < log.bytes.len() {
                let length = reelfs_format::view::peek_length(&log.bytes[at..]).unwrap();
                let (start, end) = (at as u64, (at + length) as u64);
                let whole = end <= from || start >= to;
                assert_eq!(bytes.contains(&(start, end)), whole, "record at {start}, damage {from}..{to}");
                at += length;
            }
            put_block(&path, number, &block);
        }
        assert!(seen > 3);
    }
}

#[test]
fn without_the_key_nothing_is_read_and_the_volume_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let log = mixed_log(1 << 20, 5);
    drop(write_all(directory.path(), None, &log.bytes, (500_000, usize::MAX), &coding(Some(3), true, 0)));
    match read_all(directory.path()) {
        Err(error @ ReadError::Locked { .. }) => {
            let said = error.to_string();
            for word in ["test-000001", "age1somebody", &reelfs_media::key::shown(&key().fingerprint())] {
                assert!(said.contains(word), "{said}");
            }
        }
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
    let other = VolumeKey::from_bytes([1; 32]);
    assert!(matches!(read_all_with(directory.path(), Some(other)), Err(ReadError::Locked { .. })));
    // No byte of the contents can be seen, neither here nor there.
    let path = only_volume(directory.path());
    let bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(64).any(|window| log.bytes[1000..].starts_with(window)));
    // What is where can be, and who has the key.
    let mut reader = VolumeReader::open(Box::new(VolumeFile::open(&path).unwrap())).unwrap();
    assert_eq!(reader.wrapped_key().unwrap().recipients, "age1somebody\n");
    assert!(reader.is_encrypted());
}

#[test]
fn one_bad_block_does_not_cost_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let log = mixed_log(5 << 20, 5);
    drop(write_all(directory.path(), Some(2 << 20), &log.bytes, (500_000, usize::MAX), &coding(None, true, 0)));
    let files = volume_files(directory.path()).unwrap();
    assert!(files.len() >= 2);
    let good = blocks(&files[0]);
    let mut bad = good[1].clone();
    bad[200] ^= 1;
    put_block(&files[0], 1, &bad);
    assert!(read_all_with(directory.path(), Some(key())).unwrap() == log.bytes);
    // Both bad: nothing can be done, and that is said.
    let last = good.len() - 2;
    assert_eq!(BlockView::parse(&good[last]).unwrap().kind, Some(BlockKind::VolumeKey));
    put_block(&files[0], last, &bad);
    match read_all_with(directory.path(), Some(key())) {
        Err(ReadError::Start(damage)) => assert!(damage.why.contains("key"), "{damage}"),
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

/// Somebody without the key puts a block of his own on the volume.
#[test]
fn a_block_that_is_not_encrypted_is_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let log = mixed_log(1 << 20, 5);
    drop(write_all(directory.path(), None, &log.bytes, (500_000, usize::MAX), &coding(None, true, 0)));
    let path = only_volume(directory.path());
    let all = blocks(&path);
    let (number, block) = all
        .iter()
        .enumerate()
        .find(|(_, block)| BlockView::parse(block).unwrap().kind == Some(BlockKind::Data))
        .unwrap();
    let mut header = *BlockView::parse(block).unwrap().header;
    let plain = header.plain_length.get() as usize;
    header.codec = 0.into();
    header.payload_length = header.plain_length;
    let mut forged = vec![0; BLOCK];
    forged[BLOCK_HEADER_LEN..BLOCK_HEADER_LEN + plain].copy_from_slice(&log.bytes[..plain]);
    seal_block(&mut forged, header).unwrap();
    BlockView::parse(&forged).unwrap();
    put_block(&path, number, &forged);
    match read_all_with(directory.path(), Some(key())) {
        Err(ReadError::MissingRange { damages, .. }) => {
            assert!(damages[0].why.contains("not encrypted"), "{damages:?}")
        }
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn a_hostile_payload_takes_no_memory_that_was_not_announced() {
    let size = 4096;
    let bomb = zstd_of(&vec![0; 64 << 20]);
    assert!(bomb.len() < size - BLOCK_HEADER_LEN);
    let make = |announced: u32, payload: &[u8]| {
        let mut block = vec![0; size];
        block[BLOCK_HEADER_LEN..BLOCK_HEADER_LEN + payload.len()].copy_from_slice(payload);
        let mut header = BlockHeader::new_zeroed();
        header.kind = (BlockKind::Data as u32).into();
        header.codec = (Codec::Zstd as u32).into();
        header.payload_length = (payload.len() as u32).into();
        header.plain_length = announced.into();
        header.lsn_end = u64::from(announced).into();
        header.first_record = NO_RECORD.into();
        seal_block(&mut block, header).unwrap();
        block
    };
    let most = plain_length_max(size) as u32;
    assert_eq!(most, 65536);
    for announced in [64 << 20, most + 1, u32::MAX] {
        let error = BlockView::parse(&make(announced, &bomb)).unwrap_err();
        assert_eq!(error, VolumeError::PlainLength(announced));
    }
    let decode = |announced: u32, payload: &[u8]| {
        let block = make(announced, payload);
        let mut decoder = Decoder::default();
        let result = decoder.decode(&BlockView::parse(&block).unwrap(), None);
        assert!(result.is_ok() || decoder.plain().is_empty());
        result
    };
    assert_eq!(decode(most, &bomb), Err(VolumeError::Compression));
    let short = zstd_of(&[1; 1000]);
    assert_eq!(decode(1000, &short), Ok(()));
    assert_eq!(decode(1001, &short), Err(VolumeError::PlainLength(1000)));
    assert_eq!(decode(999, &short), Err(VolumeError::Compression));
    assert_eq!(decode(1000, &short[..short.len() - 1]), Err(VolumeError::Compression));
    assert_eq!(decode(1000, b"no frame at all"), Err(VolumeError::Compression));
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    let mut to = vec![0; zstd_safe::compress_bound(bytes.len())];
    let length = zstd_safe::compress(&mut to[..], bytes, 3).unwrap();
    to.truncate(length);
    to
}

#[test]
fn a_label_says_what_may_be_on_its_volume() {
    let log = mixed_log(1 << 20, 0);
    let write = |features: u64, coding: Coding| {
        let directory = tempfile::tempdir().unwrap();
        let mut new = NewLabel::new("labelled", POOL);
        (new.features, new.block_size) = (features, BLOCK);
        let medium = VolumeFile::create(directory.path(), &new.build().unwrap(), None).unwrap();
        let pool = label::pool_uuid(POOL);
        let mut writer = VolumeWriter::begin(medium, pool, stream(), None, LogState::origin(SEGMENT), coding)?;
        assert_eq!(writer.append(&log.bytes).unwrap(), Progress::Open);
        assert_eq!(writer.sync().unwrap(), Progress::Open);
        Ok::<_, WriteError>(directory)
    };
    // Not compressed where that was not announced.
    let directory = write(FEATURE_ENCRYPTED, coding(Some(3), false, 0)).unwrap();
    assert!(read_all(directory.path()).unwrap() == log.bytes);
    let path = only_volume(directory.path());
    assert!(fs::metadata(&path).unwrap().len() > log.bytes.len() as u64);
    // But never left unencrypted.
    let refused = write(FEATURE_COMPRESSED, coding(None, true, 0)).unwrap_err();
    assert!(matches!(refused, WriteError::Unsuitable { .. }), "{refused}");
    // A block that uses what the label does not announce is refused.
    let directory = write(FEATURE_COMPRESSED, coding(Some(3), false, 0)).unwrap();
    let path = only_volume(directory.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[16] = 0;
    bytes[12..16].fill(0);
    let crc = crc32c_append(0, &bytes[..LABEL_LEN]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    match read_all(directory.path()) {
        Err(ReadError::MissingRange { damages, .. }) => assert!(damages[0].why.contains("label"), "{damages:?}"),
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn an_encrypted_volume_is_gone_on_with_by_whoever_has_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let log = mixed_log(6 << 20, 5);
    let mut library = library(directory.path(), None);
    let coding = coding(Some(3), true, 2);
    let mut writer = begin(&mut library, None, LogState::origin(SEGMENT), &coding).unwrap();
    let _ = writer.append(&log.bytes[..3 << 20]).unwrap();
    let _ = writer.sync().unwrap();
    drop(writer);
    let other = Lock { key: VolumeKey::from_bytes([1; 32]), ..lock() };
    for (lock, fits) in [(Some(other), false), (None, false), (Some(lock()), true)] {
        let Supply::Volume(medium, found) = library.unfinished(POOL, &stream().uuid, None).unwrap() else { panic!() };
        assert_eq!(found.next_lsn, 3 << 20);
        let mut state = LogState::origin(SEGMENT);
        state.feed(&log.bytes[..3 << 20]).unwrap();
        let coding = Coding { lock, ..coding.clone() };
        match VolumeWriter::resume(medium, *found, stream(), state, coding) {
            Ok(mut writer) => {
                assert!(fits);
                let _ = writer.append(&log.bytes[3 << 20..]).unwrap();
                // As if an error had come in between.
                writer.recover().unwrap();
                let from = writer.next_lsn() as usize;
                assert_eq!(from, 3 << 20);
                let _ = writer.append(&log.bytes[from..]).unwrap();
                let _ = writer.sync().unwrap();
            }
            Err(error) => assert!(!fits && error.to_string().contains("key"), "{error}"),
        }
    }
    assert!(read_all_with(directory.path(), Some(key())).unwrap() == log.bytes);
    // Blocks were written again under the same numbers: no nonce was used twice.
    let mut nonces: Vec<_> = blocks(&only_volume(directory.path()))
        .iter()
        .map(|block| BlockView::parse(block).unwrap().seal.unwrap().nonce)
        .collect();
    let count = nonces.len();
    nonces.sort();
    nonces.dedup();
    assert!(count > 10 && nonces.len() == count);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the contents, the level, the lengths and the sizes: what comes out is what went in.
    #[test]
    fn any_coding_reads_back(
        noisy in 0_usize..11,
        level in prop::option::of(1_i32..10),
        encrypted in any::<bool>(),
        threads in 0_usize..3,
        portion in 1_000_usize..900_000,
        burst in 1_usize..4_000_000,
        blocks in 16_u64..80,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let log = mixed_log(5 << 20, noisy);
        let capacity = LABEL_LEN as u64 + blocks * BLOCK as u64;
        let coding = coding(level, encrypted, threads);
        drop(write_all(directory.path(), Some(capacity), &log.bytes, (portion, burst), &coding));
        prop_assert!(read_all_with(directory.path(), encrypted.then(key)).unwrap() == log.bytes);
    }

    /// A run of bytes is cut into blocks that hold just it.
    #[test]
    fn cutting_loses_nothing(
        parts in prop::collection::vec((0_usize..60_000, any::<bool>()), 1..8),
        level in prop::option::of(1_i32..6),
        sealed in any::<bool>(),
    ) {
        let bytes: Vec<u8> = parts
            .iter()
            .enumerate()
            .flat_map(|(n, (length, noisy))| if *noisy { noise(*length, n as u64) } else { vec![n as u8; *length] })
            .collect();
        let shape = Shape { block_size: 8192, sealed, level };
        let pieces = shape.cut(&mut Workshop::default(), Arc::new(bytes.clone()));
        let mut at = 0;
        let key = key();
        for piece in pieces.pieces {
            prop_assert_eq!(piece.plain.start, at);
            prop_assert!(piece.plain.end > at);
            at = piece.plain.end;
            let mut header = BlockHeader::new_zeroed();
            header.kind = (BlockKind::Data as u32).into();
            header.lsn_end = (piece.plain.len() as u64).into();
            header.plain_length = (piece.plain.len() as u32).into();
            header.first_record = NO_RECORD.into();
            let codec = match (piece.compressed, sealed) {
                (false, false) => Codec::Plain,
                (true, false) => Codec::Zstd,
                (false, true) => Codec::Encrypted,
                (true, true) => Codec::ZstdEncrypted,
            };
            let mut block = piece.block;
            codec::finish(&mut block, header, piece.stored, codec, sealed.then_some(&key)).unwrap();
            let mut decoder = Decoder::default();
            decoder.decode(&BlockView::parse(&block).unwrap(), sealed.then_some(&key)).unwrap();
            prop_assert!(decoder.plain() == &bytes[piece.plain]);
        }
        prop_assert_eq!(at, bytes.len());
    }
}
