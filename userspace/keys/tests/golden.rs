// SPDX-License-Identifier: GPL-2.0-or-later

//! The golden volumes that are compressed and encrypted: what was once written has to be read for ever.
//!
//! `REELFS_GOLDEN=write` writes them. The compressed one need not come out the same then, because the next zstd may
//! compress better; the encrypted one does, with the wrapped key that it has.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../format/tests/common/mod.rs"]
mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use reelfs_format::volume::*;
use reelfs_keys::{Identities, NewIdentity, Recipients};
use reelfs_media::codec::{finish_with, Shape, Workshop};
use reelfs_media::directory::VolumeFile;
use reelfs_media::key::{VolumeKey, WrappedKey};
use reelfs_media::reader::{Begin, LogReader, OnGap, ReadError, RecordReader, VolumeReader, VolumeSource, Wanted};
use reelfs_media::Medium;
use zerocopy::{FromZeros, IntoBytes};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../format/tests/golden").join(name)
}

fn writing() -> bool {
    std::env::var_os("REELFS_GOLDEN").is_some_and(|value| value == "write")
}

fn key() -> VolumeKey {
    VolumeKey::from_bytes([0x2a; 32])
}

/// A volume file that holds the golden log: label, volume start, key, data, trailer.
fn volume(level: Option<i32>, wrapped: Option<&WrappedKey>) -> Vec<u8> {
    let log = common::log();
    let mut label = common::label();
    label.incompatible = (level.map_or(0, |_| FEATURE_COMPRESSED) | wrapped.map_or(0, |_| FEATURE_ENCRYPTED)).into();
    label.seal();
    let mut volume = label.as_bytes().to_vec();
    let mut number = 0_u64;
    let mut put = |kind: BlockKind, range: (u64, u64), first: u32, mut block: Vec<u8>, stored: usize, codec: Codec| {
        let mut header = BlockHeader::new_zeroed();
        header.kind = (kind as u32).into();
        header.number = number.into();
        header.volume = common::VOLUME;
        header.stream = common::STREAM;
        header.lsn_start = range.0.into();
        header.lsn_end = range.1.into();
        header.timeline = 1.into();
        header.first_record = first.into();
        let data = kind == BlockKind::Data;
        header.plain_length = (if data { (range.1 - range.0) as u32 } else { stored as u32 }).into();
        let key = codec.is_sealed().then(key);
        finish_with(&mut block, header, stored, codec, key.as_ref(), [number as u8 + 1; 24]).unwrap();
        volume.extend(block);
        number += 1;
    };
    let body = |bytes: &[u8]| {
        let mut block = vec![0; common::BLOCK];
        block[BLOCK_HEADER_LEN..BLOCK_HEADER_LEN + bytes.len()].copy_from_slice(bytes);
        (block, bytes.len())
    };
    let codec = if wrapped.is_some() { Codec::Authenticated } else { Codec::Plain };
    let mut start = VolumeStart::new_zeroed();
    start.sequence = 1.into();
    start.segment_size = reelfs_format::spool::SEGMENT_SIZE_MIN.into();
    start.started = 1_700_000_000_000_000_001.into();
    start.origin = text_field("golden.example").unwrap();
    start.key = wrapped.map_or([0; 32], |wrapped| wrapped.fingerprint);
    let (block, length) = body(start.as_bytes());
    put(BlockKind::VolumeStart, (0, 0), NO_RECORD, block, length, codec);
    if let Some(wrapped) = wrapped {
        let (block, length) = body(&wrapped.payload());
        put(BlockKind::VolumeKey, (0, 0), NO_RECORD, block, length, codec);
    }
    let shape = Shape { block_size: common::BLOCK, sealed: wrapped.is_some(), level };
    let pieces = shape.cut(&mut Workshop::default(), Arc::new(log.bytes.clone()));
    let mut records = reelfs_media::LogState::origin(reelfs_format::spool::SEGMENT_SIZE_MIN).follower();
    for piece in pieces.pieces {
        let (from, to) = (piece.plain.start as u64, piece.plain.end as u64);
        let first = records.feed(&log.bytes[piece.plain.clone()]).unwrap();
        let first = first.map_or(NO_RECORD, |first| (first - from) as u32);
        let codec = match (piece.compressed, wrapped.is_some()) {
            (false, false) => Codec::Plain,
            (true, false) => Codec::Zstd,
            (false, true) => Codec::Encrypted,
            (true, true) => Codec::ZstdEncrypted,
        };
        put(BlockKind::Data, (from, to), first, piece.block, piece.stored, codec);
    }
    let mut trailer = Trailer::new_zeroed();
    trailer.last_lsn = log.lsn.into();
    trailer.next_sequence = 2.into();
    trailer.reason = TRAILER_CLOSED.into();
    let (block, length) = body(trailer.as_bytes());
    put(BlockKind::Trailer, (log.lsn, log.lsn), NO_RECORD, block, length, codec);
    volume
}

struct One(PathBuf, Identities);

impl VolumeSource for One {
    fn volume(&mut self, wanted: &Wanted) -> Result<Option<Box<dyn Medium>>, ReadError> {
        if wanted.sequence > 1 {
            return Ok(None);
        }
        Ok(Some(Box::new(VolumeFile::open(&self.0)?)))
    }

    fn key(&mut self, _: &Arc<str>, wrapped: &WrappedKey) -> Result<VolumeKey, ReadError> {
        Ok(self.1.unwrap(wrapped).unwrap().unwrap())
    }
}

fn read(name: &str, identities: Identities) -> Vec<u8> {
    let source = One(path(name), identities);
    let mut reader = RecordReader::new(LogReader::new(source, Begin::Log, OnGap::Search));
    let mut bytes = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        bytes.extend_from_slice(record.bytes());
    }
    bytes
}

fn independent_reader(name: &str) -> Option<std::process::Output> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/format/readlog.py");
    let output = Command::new("python3").arg(&script).arg(path(name)).output();
    if output.is_err() {
        println!("no python3: not checked");
    }
    output.ok()
}

#[test]
fn the_compressed_volume_is_read() {
    const NAME: &str = "compressed.reelvol";
    if writing() {
        fs::write(path(NAME), volume(Some(3), None)).unwrap();
    }
    let bytes = fs::read(path(NAME)).unwrap();
    let compressed = bytes[LABEL_LEN..].chunks(common::BLOCK).filter(|block| {
        let view = BlockView::parse(block).unwrap();
        view.codec == Some(Codec::Zstd)
    });
    assert!(compressed.count() > 0);
    assert!(read(NAME, Identities::default()) == fs::read(path("log.bin")).unwrap());
    let Some(output) = independent_reader(NAME) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == fs::read(path("log.jsonl")).unwrap(), "{NAME} is read differently");
}

#[test]
fn the_encrypted_volume_is_read_with_its_identity() {
    const NAME: &str = "encrypted.reelvol";
    const IDENTITY: &str = "encrypted.identity";
    let nobody = || -> Result<_, String> { panic!("it has no passphrase") };
    if writing() {
        if !path(IDENTITY).exists() {
            let made = NewIdentity::generate().file("for the golden volume, and for nothing else", None).unwrap();
            fs::write(path(IDENTITY), &*made).unwrap();
        }
        let identities = Identities::parse(&fs::read(path(IDENTITY)).unwrap(), nobody).unwrap();
        let wrapped = Recipients::parse(&identities.recipients()).unwrap().wrap(&key()).unwrap();
        fs::write(path(NAME), volume(None, Some(&wrapped))).unwrap();
    }
    let identities = Identities::parse(&fs::read(path(IDENTITY)).unwrap(), nobody).unwrap();
    let mut reader = VolumeReader::open(Box::new(VolumeFile::open(&path(NAME)).unwrap())).unwrap();
    let wrapped = reader.wrapped_key().unwrap().clone();
    assert!(fs::read(path(NAME)).unwrap() == volume(None, Some(&wrapped)), "{NAME} is not what it was");
    assert!(read(NAME, identities.clone()) == fs::read(path("log.bin")).unwrap());
    let Some(output) = independent_reader(NAME) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("encrypted"), "{said}");
    assert!(said.contains(&identities.recipients()[0]), "{said}");
    assert!(said.contains(&reelfs_media::key::shown(&key().fingerprint())), "{said}");
}
