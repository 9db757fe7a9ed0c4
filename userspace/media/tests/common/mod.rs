// SPDX-License-Identifier: GPL-2.0-or-later

//! Logs, and volume files that hold them.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::record::{EmptyBody, Identity, RecordType, WriteBody};
use reelfs_format::volume::INCOMPATIBLE_KNOWN;
use reelfs_media::directory::VolumeFile;
use reelfs_media::key::{self, VolumeKey, WrappedKey};
use reelfs_media::label;
use reelfs_media::library::{volume_files, DirectoryLibrary, Library, Supply};
use reelfs_media::reader::{Begin, LogReader, OnGap, ReadError, RecordReader, VolumeReader, VolumeSource, Wanted};
use reelfs_media::writer::{Coding, Predecessor, Progress, Stream, VolumeWriter, WriteError};
use reelfs_media::{LogState, Medium};
use zerocopy::FromZeros;

pub const SEGMENT: u64 = 4 << 20;
pub const BLOCK: usize = 64 << 10;
pub const POOL: &str = "test";

pub fn stream() -> Stream {
    Stream { uuid: [7; 16], timeline: 1, origin: "here".into() }
}

/// A log of about `size` bytes, with records of many lengths.
pub fn make_log(size: usize) -> LogBuilder {
    let mut log = LogBuilder::new();
    let object = Identity::new(1, b"object").unwrap();
    let mut n = 0_u32;
    while log.bytes.len() < size {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = match n % 7 {
            0 => 0,
            1..=4 => (n >> 8) as usize % 5000,
            5 => (n >> 8) as usize % 100_000,
            _ => (n >> 8) as usize % 400_000,
        };
        if length == 0 {
            log.push(RecordType::Noop, 0, object, &EmptyBody {}, &Payload::new()).unwrap();
        } else {
            let data: Vec<u8> = (0..length).map(|i| (i as u32 ^ n) as u8).collect();
            log.push(RecordType::Write, 0, object, &WriteBody::new_zeroed(), &Payload::of(&data)).unwrap();
        }
    }
    log
}

pub fn library(path: &Path, capacity: Option<u64>) -> DirectoryLibrary {
    DirectoryLibrary { path: path.into(), capacity, block_size: BLOCK, features: INCOMPATIBLE_KNOWN }
}

pub fn blank(library: &mut DirectoryLibrary, sequence: u64) -> Box<dyn Medium> {
    match library.blank(POOL, sequence).unwrap() {
        Supply::Volume(medium, _) => medium,
        Supply::Waiting(why) => panic!("{why}"),
    }
}

pub fn begin(
    library: &mut DirectoryLibrary,
    before: Option<&Predecessor>,
    log: LogState,
    coding: &Coding,
) -> Result<VolumeWriter, WriteError> {
    let medium = blank(library, before.map_or(1, |before| before.sequence + 1));
    VolumeWriter::begin(medium, label::pool_uuid(POOL), stream(), before, log, coding.clone())
}

/// Writes the whole log in portions, syncing after each `burst`, on as many volumes as it takes.
pub fn write_all(
    path: &Path,
    capacity: Option<u64>,
    bytes: &[u8],
    (portion, burst): (usize, usize),
    coding: &Coding,
) -> VolumeWriter {
    let mut library = library(path, capacity);
    let mut writer = begin(&mut library, None, LogState::origin(SEGMENT), coding).unwrap();
    let mut unsynced = 0;
    while (writer.next_lsn() as usize) < bytes.len() {
        let at = writer.next_lsn() as usize;
        let part = &bytes[at..bytes.len().min(at + portion)];
        let mut progress = writer.append(part).unwrap();
        unsynced += part.len();
        if progress == Progress::Open && unsynced >= burst {
            progress = writer.sync().unwrap();
            unsynced = 0;
        }
        if progress == Progress::Full {
            writer = begin(&mut library, Some(&writer.as_predecessor()), writer.proven().clone(), coding).unwrap();
        }
    }
    while writer.sync().unwrap() == Progress::Full {
        let at = writer.proven().position() as usize;
        writer = begin(&mut library, Some(&writer.as_predecessor()), writer.proven().clone(), coding).unwrap();
        assert_eq!(writer.append(&bytes[at..]).unwrap(), Progress::Open);
    }
    writer
}

pub fn write_plain(path: &Path, capacity: Option<u64>, bytes: &[u8], portion: usize, burst: usize) -> VolumeWriter {
    write_all(path, capacity, bytes, (portion, burst), &Coding::plain())
}

/// The volumes in a directory, found by their starts, and the key that opens them.
pub struct Files(pub Vec<PathBuf>, pub Option<VolumeKey>);

impl Files {
    fn sequence(path: &Path) -> Option<u64> {
        let reader = VolumeReader::open(Box::new(VolumeFile::open(path).ok()?)).ok()?;
        Some(reader.start()?.sequence.get())
    }
}

impl VolumeSource for Files {
    fn volume(&mut self, wanted: &Wanted) -> Result<Option<Box<dyn Medium>>, ReadError> {
        let path = self.0.iter().find(|path| Self::sequence(path) == Some(wanted.sequence));
        path.map(|path| Ok(Box::new(VolumeFile::open(path)?) as Box<dyn Medium>)).transpose()
    }

    fn key(&mut self, volume: &Arc<str>, wrapped: &WrappedKey) -> Result<VolumeKey, ReadError> {
        self.1.clone().ok_or_else(|| ReadError::Locked {
            volume: volume.clone(),
            fingerprint: key::shown(&wrapped.fingerprint),
            recipients: wrapped.recipients.clone(),
            why: "no key".into(),
        })
    }

    fn next_after(&self, sequence: u64) -> Option<u64> {
        self.0.iter().filter_map(|path| Self::sequence(path)).filter(|found| *found > sequence).min()
    }
}

pub fn reader(path: &Path, on_gap: OnGap) -> RecordReader<Files> {
    reader_with(path, on_gap, None)
}

pub fn reader_with(path: &Path, on_gap: OnGap, key: Option<VolumeKey>) -> RecordReader<Files> {
    RecordReader::new(LogReader::new(Files(volume_files(path).unwrap(), key), Begin::Log, on_gap))
}

pub fn read_all(path: &Path) -> Result<Vec<u8>, ReadError> {
    read_all_with(path, None)
}

pub fn read_all_with(path: &Path, key: Option<VolumeKey>) -> Result<Vec<u8>, ReadError> {
    let mut reader = reader_with(path, OnGap::Search, key);
    let mut bytes = Vec::new();
    while let Some(record) = reader.next()? {
        bytes.extend_from_slice(record.bytes());
    }
    Ok(bytes)
}
