// SPDX-License-Identifier: GPL-2.0-or-later

//! Volumes written and read back through volume files: spanning, resuming, repeating, damage, absence.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::*;
use proptest::prelude::*;
use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::crc32c_append;
use reelfs_format::record::{CheckpointEndBody, EmptyBody, Identity, RecordHeader, RecordType, HEADER_LEN};
use reelfs_format::volume::{
    seal_block, BlockKind, BlockView, SegmentEnd, BLOCK_HEADER_LEN, LABEL_LEN, TRAILER_CLOSED,
};
use reelfs_media::directory::VolumeFile;
use reelfs_media::label::{self, NewLabel};
use reelfs_media::library::{volume_files, Library, Supply};
use reelfs_media::reader::{Begin, LogReader, Note, OnGap, ReadError, RecordReader, VolumeReader};
use reelfs_media::writer::{inspect, Coding, Progress, VolumeWriter, WriteError};
use reelfs_media::{Checkpoint, LogState, Medium};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

#[test]
fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(11 << 20);
    let writer = write_plain(directory.path(), None, &log.bytes, 333_333, 2 << 20);
    assert_eq!(writer.proven().position(), log.lsn);
    drop(writer);
    assert!(read_all(directory.path()).unwrap() == log.bytes);
}

#[test]
fn the_log_spans_volumes() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(20 << 20);
    drop(write_plain(directory.path(), Some(3 << 20), &log.bytes, 100_000, 1 << 20));
    let files = volume_files(directory.path()).unwrap();
    assert!(files.len() >= 7, "{files:?}");
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= 3 << 20);
    }
    assert!(read_all(directory.path()).unwrap() == log.bytes);

    let mut reader = reader(directory.path(), OnGap::Search);
    while reader.next().unwrap().is_some() {}
    let end = reader.end().unwrap();
    assert_eq!((end.lsn, end.cut, end.closed), (log.lsn, 0, false));
    assert!(end.goes_on.is_none());
}

#[test]
fn a_missing_volume_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(12 << 20);
    drop(write_plain(directory.path(), Some(3 << 20), &log.bytes, 100_000, 1 << 20));
    let files = volume_files(directory.path()).unwrap();
    fs::remove_file(&files[1]).unwrap();
    match read_all(directory.path()) {
        Err(ReadError::MissingVolume { wanted }) => {
            assert_eq!(wanted.sequence, 2);
            assert!(wanted.lsn > 2 << 20);
        }
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
    // All there is can still be looked at.
    let mut reader = reader(directory.path(), OnGap::Skip);
    let mut records = 0;
    while reader.next().unwrap().is_some() {
        records += 1;
    }
    assert!(records > 10);
    assert_eq!(reader.log().missing().len(), 1);
    assert_eq!(reader.end().unwrap().lsn, log.lsn);
}

#[test]
fn the_last_volume_missing_shows() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(7 << 20);
    drop(write_plain(directory.path(), Some(3 << 20), &log.bytes, 100_000, 1 << 20));
    fs::remove_file(volume_files(directory.path()).unwrap().last().unwrap()).unwrap();
    let mut reader = reader(directory.path(), OnGap::Search);
    while reader.next().unwrap().is_some() {}
    let end = reader.end().unwrap();
    assert_eq!(end.goes_on.unwrap().sequence, 3);
    assert!(end.lsn < log.lsn);
}

#[test]
fn every_damaged_block_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(6 << 20);
    drop(write_plain(directory.path(), None, &log.bytes, 500_000, 1 << 20));
    let path = volume_files(directory.path()).unwrap().remove(0);
    let length = fs::metadata(&path).unwrap().len();
    let blocks = (length - LABEL_LEN as u64) / BLOCK as u64;
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for block in 0..blocks {
        let start = LABEL_LEN as u64 + block * BLOCK as u64;
        let mut bytes = vec![0; BLOCK];
        file.read_exact_at(&mut bytes, start).unwrap();
        let view = BlockView::parse(&bytes).unwrap();
        let (kind, from) = (view.kind.unwrap(), view.header.lsn_start.get());
        // A byte of the header, of the payload, of the rest: in turn.
        let at = start + [0, 30, 200, 1000, BLOCK as u64 - 1][block as usize % 5];
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        let opened = VolumeReader::open(Box::new(VolumeFile::open(&path).unwrap()));
        match (kind, opened.and_then(|_| read_all(directory.path()))) {
            (BlockKind::VolumeStart, Err(ReadError::Start(damage))) => assert_eq!(damage.place.block, 0),
            (BlockKind::Data, Err(ReadError::MissingRange { from: missing, damages, .. })) => {
                assert_eq!((missing, damages[0].place.block), (from, block));
            }
            // Nothing but a check was lost, unless it was the last thing on the volume.
            (BlockKind::SegmentEnd, Ok(bytes)) => assert!(bytes == log.bytes),
            (kind, other) => panic!("block {block} {kind:?}: {:?}", other.map(|bytes| bytes.len())),
        }
        file.write_all_at(&byte, at).unwrap();
    }
    assert!(read_all(directory.path()).unwrap() == log.bytes);
}

/// The first block of this kind on the only volume there is, its bytes changed by `alter` and sealed again.
fn forge(path: &Path, kind: BlockKind, alter: impl Fn(&mut [u8])) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let blocks = (file.metadata().unwrap().len() - LABEL_LEN as u64) / BLOCK as u64;
    for block in 0..blocks {
        let start = LABEL_LEN as u64 + block * BLOCK as u64;
        let mut bytes = vec![0; BLOCK];
        file.read_exact_at(&mut bytes, start).unwrap();
        let view = BlockView::parse(&bytes).unwrap();
        if view.kind == Some(kind) {
            let header = *view.header;
            alter(&mut bytes[BLOCK_HEADER_LEN..]);
            seal_block(&mut bytes, header).unwrap();
            file.write_all_at(&bytes, start).unwrap();
            return;
        }
    }
    panic!("no block of kind {kind:?}");
}

/// Another time in the first record, with the checksum that belongs to it.
fn alter_first_record(log: &mut [u8]) {
    let (mut header, _) = RecordHeader::read_from_prefix(log).unwrap();
    header.time = (header.time.get() + 1).into();
    header.head_crc = 0.into();
    let crc = crc32c_append(crc32c_append(0, header.as_bytes()), &log[HEADER_LEN..header.head_length.get() as usize]);
    header.head_crc = crc.into();
    log[..HEADER_LEN].copy_from_slice(header.as_bytes());
}

/// Checksums tell accidents; that the log is the one that was written, only the hashes do.
#[test]
fn an_altered_log_does_not_match_its_hashes() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(6 << 20);
    drop(write_plain(directory.path(), None, &log.bytes, 500_000, 1 << 20));
    let path = volume_files(directory.path()).unwrap().remove(0);
    forge(&path, BlockKind::Data, alter_first_record);
    match read_all(directory.path()) {
        Err(ReadError::Hash { segment: 0, what: "segment", .. }) => {}
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn an_altered_chain_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(6 << 20);
    drop(write_plain(directory.path(), None, &log.bytes, 500_000, 1 << 20));
    let path = volume_files(directory.path()).unwrap().remove(0);
    forge(&path, BlockKind::SegmentEnd, |end| end[offset_of!(SegmentEnd, chain)] ^= 1);
    match read_all(directory.path()) {
        Err(ReadError::Hash { segment: 0, what: "chain", .. }) => {}
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn a_writer_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(13 << 20);
    let mut library = library(directory.path(), None);
    let mut writer = begin(&mut library, None, LogState::origin(SEGMENT), &Coding::plain()).unwrap();
    let mut given = 0;
    for stop in [100, 5_000_001, 8 << 20, (8 << 20) + 1, log.bytes.len()] {
        while given < stop {
            let part = &log.bytes[given..stop.min(given + 777_777)];
            assert_eq!(writer.append(part).unwrap(), Progress::Open);
            given += part.len();
        }
        assert_eq!(writer.sync().unwrap(), Progress::Open);
        drop(writer);

        let Supply::Volume(medium, found) = library.unfinished(POOL, &stream().uuid, None).unwrap() else {
            panic!("no volume")
        };
        assert_eq!(found.next_lsn as usize, given);
        let (segment, chain) = found.resume_segment().unwrap();
        assert_eq!(segment, given as u64 / SEGMENT);
        // As the spool says it: where the first record of the segment starts.
        let from = (segment * SEGMENT) as usize;
        let mut first = 0;
        while first < from {
            first += reelfs_format::view::peek_length(&log.bytes[first..]).unwrap();
        }
        let mut state = LogState::at_segment(SEGMENT, segment, first as u64, chain);
        state.feed(&log.bytes[from..given]).unwrap();
        writer = VolumeWriter::resume(medium, *found, stream(), state, Coding::plain()).unwrap();
    }
    drop(writer);
    assert!(read_all(directory.path()).unwrap() == log.bytes);
    assert_eq!(volume_files(directory.path()).unwrap().len(), 1);
}

#[test]
fn what_was_not_proven_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(6 << 20);
    let mut library = library(directory.path(), None);
    let mut writer = begin(&mut library, None, LogState::origin(SEGMENT), &Coding::plain()).unwrap();
    let _ = writer.append(&log.bytes[..1 << 20]).unwrap();
    let _ = writer.sync().unwrap();
    let _ = writer.append(&log.bytes[1 << 20..3 << 20]).unwrap();
    // As if an error had come: what is not proven goes again.
    writer.recover().unwrap();
    assert_eq!(writer.next_lsn(), 1 << 20);
    let _ = writer.append(&log.bytes[1 << 20..]).unwrap();
    let _ = writer.sync().unwrap();
    drop(writer);
    assert!(read_all(directory.path()).unwrap() == log.bytes);

    // A block that was damaged and repeated costs nothing.
    let path = volume_files(directory.path()).unwrap().remove(0);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 100], LABEL_LEN as u64 + 25 * BLOCK as u64 + 500).unwrap();
    assert!(read_all(directory.path()).unwrap() == log.bytes);
    let mut reader = reader(directory.path(), OnGap::Skip);
    let mut notes = Vec::new();
    while reader.next().unwrap().is_some() {
        notes.extend(reader.log().take_notes());
    }
    assert!(notes.iter().any(|note| matches!(note, Note::Damaged(damage) if damage.place.block == 25)));
    assert!(reader.log().missing().is_empty());
}

#[test]
fn only_blank_volumes_of_the_pool_are_begun() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(1 << 20);
    drop(write_plain(directory.path(), None, &log.bytes, 500_000, 1 << 20));
    let path = volume_files(directory.path()).unwrap().remove(0);
    let before = fs::read(&path).unwrap();
    let open = || Box::new(VolumeFile::open_writable(&path, None).unwrap()) as Box<dyn Medium>;
    let again =
        VolumeWriter::begin(open(), label::pool_uuid(POOL), stream(), None, LogState::origin(SEGMENT), Coding::plain());
    assert!(matches!(again.err(), Some(WriteError::Used { .. })));
    let other = VolumeWriter::begin(
        open(),
        label::pool_uuid("other"),
        stream(),
        None,
        LogState::origin(SEGMENT),
        Coding::plain(),
    );
    assert!(matches!(other.err(), Some(WriteError::NotOurs { .. })));
    let label = NewLabel::new("x", POOL).build().unwrap();
    assert!(label::write(&mut open(), &label, false).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::write(&path, b"a file of mine").unwrap();
    assert!(inspect(&mut open()).is_err());
    assert!(label::write(&mut open(), &label, false).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"a file of mine");
}

/// Bytes that this thread has read so far.
fn bytes_read() -> u64 {
    let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
    counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn finding_a_volume_does_not_read_those_that_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(12 << 20);
    write_plain(directory.path(), Some(1 << 20), &log.bytes, 70_000, 400_000);
    let used = volume_files(directory.path()).unwrap().len() as u64;
    assert!(used > 10);
    let mut library = library(directory.path(), None);
    let before = bytes_read();
    blank(&mut library, used + 1);
    assert!(bytes_read() - before < used * 2 * LABEL_LEN as u64 + 64 * 1024);
    // The last one, by how each begins; it alone is read.
    let before = bytes_read();
    let Supply::Volume(_, found) = library.unfinished(POOL, &stream().uuid, None).unwrap() else { panic!() };
    assert_eq!(found.start.unwrap().sequence.get(), used);
    assert!(bytes_read() - before < used * (LABEL_LEN + 2 * BLOCK) as u64 + (2 << 20));
}

#[test]
fn a_closed_volume_takes_no_more_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(1 << 20);
    let mut writer = write_plain(directory.path(), None, &log.bytes, 500_000, 1 << 20);
    writer.finish(TRAILER_CLOSED).unwrap();
    assert!(writer.append(b"more").is_err());
    drop(writer);
    let mut reader = reader(directory.path(), OnGap::Search);
    while reader.next().unwrap().is_some() {}
    assert!(reader.end().unwrap().closed);
    let path = volume_files(directory.path()).unwrap().remove(0);
    let mut medium = VolumeFile::open_writable(&path, None).unwrap();
    let found = inspect(&mut medium).unwrap();
    assert!(VolumeWriter::resume(medium, found, stream(), LogState::origin(SEGMENT), Coding::plain()).is_err());
}

#[test]
fn a_volume_has_one_writer() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(1 << 20);
    let writer = write_plain(directory.path(), None, &log.bytes, 500_000, 1 << 20);
    let path = volume_files(directory.path()).unwrap().remove(0);
    assert!(matches!(VolumeFile::open_writable(&path, None), Err(reelfs_media::MediumError::Busy { .. })));
    drop(writer);
    assert!(VolumeFile::open_writable(&path, None).is_ok());
}

#[test]
fn a_torn_tail_is_named_and_left_out_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(2 << 20);
    drop(write_plain(directory.path(), None, &log.bytes, 500_000, 1 << 20));
    let path = volume_files(directory.path()).unwrap().remove(0);
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    // The last block lost its second half.
    file.set_len(length - BLOCK as u64 / 2).unwrap();
    assert!(matches!(read_all(directory.path()), Err(ReadError::MissingRange { to: None, .. })));
    let mut reader = reader(directory.path(), OnGap::Search);
    reader.log().accept_end(true);
    let mut bytes = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        bytes.extend_from_slice(record.bytes());
    }
    assert!(log.bytes.starts_with(&bytes) && bytes.len() < log.bytes.len());
    assert_eq!(reader.end().unwrap().lsn as usize, bytes.len());
    // A writer goes on in its place.
    let mut medium = VolumeFile::open_writable(&path, None).unwrap();
    let found = inspect(&mut medium).unwrap();
    let mut state = LogState::origin(SEGMENT);
    state.feed(&log.bytes[..found.next_lsn as usize]).unwrap();
    let mut writer = VolumeWriter::resume(medium, found, stream(), state, Coding::plain()).unwrap();
    let from = writer.next_lsn() as usize;
    let _ = writer.append(&log.bytes[from..]).unwrap();
    let _ = writer.sync().unwrap();
    assert!(read_all(directory.path()).unwrap() == log.bytes);
}

#[test]
fn reading_can_begin_with_any_volume() {
    let directory = tempfile::tempdir().unwrap();
    let log = make_log(12 << 20);
    drop(write_plain(directory.path(), Some(3 << 20), &log.bytes, 100_000, 1 << 20));
    let files = Files(volume_files(directory.path()).unwrap(), None);
    let mut reader = RecordReader::new(LogReader::new(files, Begin::Volume(3), OnGap::Search));
    let mut first = None;
    let mut bytes = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        first.get_or_insert(record.lsn());
        bytes.extend_from_slice(record.bytes());
    }
    let first = first.unwrap() as usize;
    assert!(first > 5 << 20);
    assert!(log.bytes[first..] == bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the portions, bursts and volume sizes: what comes out is what went in.
    #[test]
    fn any_cut_reads_back(portion in 1_000_usize..900_000, burst in 1_usize..4_000_000, blocks in 12_u64..80) {
        let directory = tempfile::tempdir().unwrap();
        let log = make_log(5 << 20);
        let capacity = LABEL_LEN as u64 + blocks * BLOCK as u64;
        drop(write_plain(directory.path(), Some(capacity), &log.bytes, portion, burst));
        prop_assert!(read_all(directory.path()).unwrap() == log.bytes);
    }

    /// Whatever is overwritten: an error, or the log; never something else, never a panic.
    #[test]
    fn damage_is_never_taken_for_the_log(at in 0_u64..3_000_000, length in 1_usize..300_000, byte in any::<u8>()) {
        let directory = tempfile::tempdir().unwrap();
        let log = make_log(3 << 20);
        drop(write_plain(directory.path(), Some(2 << 20), &log.bytes, 300_000, 1 << 20));
        let files = volume_files(directory.path()).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&files[(at % 2) as usize]).unwrap();
        file.write_all_at(&vec![byte; length], at).unwrap();
        if let Ok(bytes) = read_all(directory.path()) {
            prop_assert!(log.bytes.starts_with(&bytes));
        }
        let mut reader = reader(directory.path(), OnGap::Skip);
        while let Ok(Some(_)) = reader.next() {}
    }
}

/// Fills a log with records that say nothing, up to `to`.
fn fill(log: &mut LogBuilder, to: u64) {
    while log.lsn < to {
        let rest = (to - log.lsn) as usize;
        // What is left has to be long enough for another one.
        let length = if rest > 1 << 20 { 1 << 19 } else { rest };
        log.push(RecordType::Noop, 0, Identity::NONE, &EmptyBody {}, &Payload::of(&vec![0; length - 104])).unwrap();
    }
}

fn end_checkpoint(log: &mut LogBuilder, begin: u64) -> u64 {
    let mut body = CheckpointEndBody::new_zeroed();
    body.checkpoint = begin.into();
    log.push(RecordType::CheckpointEnd, 0, Identity::NONE, &body, &Payload::new()).unwrap();
    log.lsn
}

/// However the bytes come, and wherever the record lies.
#[test]
fn the_end_of_a_segment_tells_of_the_last_checkpoint() {
    let mut log = LogBuilder::new();
    fill(&mut log, SEGMENT);
    fill(&mut log, SEGMENT + 4096);
    let first = end_checkpoint(&mut log, 104);
    // Across the end of a segment: complete in the next one.
    fill(&mut log, 3 * SEGMENT - 64);
    let second = end_checkpoint(&mut log, SEGMENT + 8);
    fill(&mut log, 4 * SEGMENT - 136);
    let third = end_checkpoint(&mut log, 3 * SEGMENT);
    assert_eq!(third, 4 * SEGMENT);
    fill(&mut log, 5 * SEGMENT);
    let wanted = [None, Some((104, first)), Some((104, first)), Some((3 * SEGMENT, third)), Some((3 * SEGMENT, third))];
    for piece in [7, 137, 4096, usize::MAX] {
        let mut state = LogState::origin(SEGMENT);
        let (mut at, mut said) = (0, Vec::new());
        while at < log.bytes.len() {
            let end = log.bytes.len().min(at.saturating_add(piece.min(state.room())));
            let fed = state.feed(&log.bytes[at..end]).unwrap();
            said.extend(fed.end.map(|end| Checkpoint::said(&end).map(|found| (found.begin, found.end))));
            at = end;
        }
        assert_eq!(said, wanted, "in pieces of {piece}");
    }
    assert!(second > 3 * SEGMENT);
}
