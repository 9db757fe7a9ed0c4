// SPDX-License-Identifier: GPL-2.0-or-later

//! Fuzz targets: each takes any bytes and must neither panic nor accept what it then contradicts.
//!
//! Two drivers use them: `reelfs-fuzz` (this crate's program; stable compiler, deterministic) and cargo-fuzz
//! (`libfuzzer/`; nightly).

pub mod driver;

use reel::replay::namespace::{Namespace, Object, ObjectId};
use reelfs_format::crc32c_append;
use reelfs_format::mark::Mark;
use reelfs_format::spool::{Floor, SegmentHeader};
use reelfs_format::view::{check_name, peek_length, peek_length_back, Event, RecordView};
use reelfs_format::volume::{
    field_text, plain_length_max, seal_block, text_field, BlockKind, BlockView, Label, SegmentEnd, Trailer, VolumeStart,
};
use reelfs_media::codec::{authenticate, Decoder};
use reelfs_media::key::VolumeKey;
use reelfs_media::LogState;
use zerocopy::IntoBytes;

/// A target: its name, what it does, and how to make checksums right in an input that was changed at random, without
/// which hardly any input would get past the first check.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&[u8]),
    /// Makes checksums right.
    pub repair: fn(&mut [u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "record", run: record, repair: repair_record },
    Target { name: "log", run: log, repair: repair_log },
    Target { name: "block", run: block, repair: |bytes| repair_at(bytes, 16) },
    Target { name: "label", run: label, repair: |bytes| repair_at(bytes, 12) },
    Target { name: "segment", run: segment, repair: |bytes| repair_at(bytes, 12) },
    Target { name: "floor", run: floor, repair: |bytes| repair_at(bytes, 12) },
    Target { name: "mark", run: mark, repair: repair_mark },
];

fn repair_at(bytes: &mut [u8], field: usize) {
    if bytes.len() < field + 4 {
        return;
    }
    bytes[field..field + 4].fill(0);
    let crc = crc32c_append(0, bytes);
    bytes[field..field + 4].copy_from_slice(&crc.to_le_bytes());
}

fn repair_mark(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(4) {
        let crc = crc32c_append(0, &bytes[..at]);
        bytes[at..].copy_from_slice(&crc.to_le_bytes());
    }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

fn repair_record(record: &mut [u8]) {
    let (Some(head), Some(payload)) = (word(record, 12), word(record, 36)) else { return };
    if record.len() < 48 {
        return;
    }
    if let Some(bytes) = head.checked_add(payload).and_then(|end| record.get(head..end)) {
        let crc = crc32c_append(0, bytes);
        record[40..44].copy_from_slice(&crc.to_le_bytes());
    }
    if (48..=record.len()).contains(&head) {
        record[44..48].fill(0);
        let crc = crc32c_append(0, &record[..head]);
        record[44..48].copy_from_slice(&crc.to_le_bytes());
    }
}

fn repair_log(log: &mut [u8]) {
    let mut at = 0;
    while let Ok(length) = peek_length(&log[at..]) {
        let end = (at + length).min(log.len());
        let lsn = (at as u64).to_le_bytes();
        log[at + 16..at + 24].copy_from_slice(&lsn);
        repair_record(&mut log[at..end]);
        at = end;
        if at == log.len() {
            break;
        }
    }
}

/// One record, forwards and backwards, taken apart.
pub fn record(bytes: &[u8]) {
    let _ = peek_length_back(bytes).map(|length| RecordView::parse(&bytes[bytes.len() - length..], None));
    let Ok(view) = RecordView::parse(bytes, None) else { return };
    assert_eq!(peek_length(bytes), Ok(view.bytes().len()));
    assert_eq!(peek_length_back(view.bytes()), Ok(view.bytes().len()));
    assert!(RecordView::parse(view.bytes(), Some(view.lsn())).is_ok());
    let _ = view.header().object.handle();
    match view.event() {
        Ok(Event::Create { name, xattrs, .. }) => {
            let _ = check_name(name);
            assert_eq!(xattrs.len(), xattrs.count());
        }
        Ok(Event::Mount { xattrs, .. }) => assert_eq!(xattrs.len(), xattrs.count()),
        Ok(Event::Write { data, .. }) => assert_eq!(data.len(), view.payload().len()),
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let described = reel::dump::describe::record(&view, true);
    assert_eq!(described.is_ok(), view.event().is_ok());
    if let Ok(fields) = described {
        assert!(!reel::dump::describe::text(&fields).contains('\u{1b}'));
        let _ = reel::dump::describe::json(&fields);
    }
}

/// A log: its records applied to a tree, and followed by length alone; both have to agree.
pub fn log(bytes: &[u8]) {
    let mut tree = Namespace::new();
    let mut at = 0;
    while let Ok(view) = RecordView::parse(&bytes[at..], Some(at as u64)) {
        if tree.apply(&view).is_err() {
            break;
        }
        at += view.bytes().len();
        if at == bytes.len() {
            break;
        }
    }
    for id in (0..tree.ever()).map(ObjectId) {
        let Ok(Some(object)) = tree.object(id).map(|object| object.cloned()) else { continue };
        assert_eq!(Object::decode(&object.encode()).as_ref(), Some(&object));
        assert!(tree.find(&object.identity).is_ok_and(|found| found == Some(id)));
        assert!(tree.path(id).is_ok_and(|path| !path.is_empty()));
    }
    let mut state = LogState::origin(4 << 20);
    for part in bytes[..at].chunks(37) {
        let fed = state.feed(part);
        assert!(fed.is_ok(), "{fed:?}");
    }
    assert_eq!(state.next_record(), at as u64);
    let _ = LogState::origin(4 << 20).feed(&bytes[..bytes.len().min(4 << 20)]);
}

/// The key with which the encrypted blocks of the corpus were written.
pub const FUZZ_KEY: [u8; 32] = [0x2a; 32];

/// A block of a volume: taken apart, decoded with the key and without.
pub fn block(bytes: &[u8]) {
    let view = match BlockView::parse(bytes) {
        Ok(view) => view,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(view.payload.len() <= bytes.len());
    // Sealed again it is accepted again.
    let mut again = bytes.to_vec();
    assert!(seal_block(&mut again, *view.header).is_some());
    assert!(BlockView::parse(&again).is_ok());
    for key in [None, Some(VolumeKey::from_bytes(FUZZ_KEY))] {
        let mut decoder = Decoder::default();
        if view.kind != Some(BlockKind::Data) {
            let _ = key.map(|key| authenticate(&view, &key));
        } else if decoder.decode(&view, key.as_ref()).is_ok() {
            assert_eq!(decoder.plain().len(), view.header.plain_length.get() as usize);
        } else {
            assert!(decoder.plain().len() <= plain_length_max(bytes.len()));
        }
    }
    let _ = view.fits(0, false);
    match view.kind {
        Some(BlockKind::VolumeKey) => assert!(view.volume_key().is_ok()),
        Some(BlockKind::VolumeStart) => assert!(view.body::<VolumeStart>().is_ok()),
        Some(BlockKind::SegmentEnd) => assert!(view.body::<SegmentEnd>().is_ok()),
        Some(BlockKind::Trailer) => assert!(view.body::<Trailer>().is_ok()),
        Some(BlockKind::Data) => {
            let range = view.header.lsn_end.get().checked_sub(view.header.lsn_start.get());
            assert_eq!(range, Some(u64::from(view.header.plain_length.get())));
        }
        None => {}
    }
}

/// A label.
pub fn label(bytes: &[u8]) {
    match Label::parse(bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(label) => {
            let mut again = *label;
            again.seal();
            assert!(Label::parse(again.as_bytes()).is_ok());
            let text = field_text(&label.name).filter(|text| !text.is_empty());
            assert!(text.is_none_or(|text| text_field::<64>(text).is_some()));
            assert_shown(label);
        }
    }
}

fn assert_shown(label: &Label) {
    let shown = reelfs_media::label::name(label) + &reelfs_media::label::pool_name(label);
    assert!(!shown.chars().any(char::is_control));
}

/// The header of a spool segment.
pub fn segment(bytes: &[u8]) {
    match SegmentHeader::parse(bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(header) => {
            let mut again = *header;
            again.seal();
            assert!(SegmentHeader::parse(again.as_bytes()).is_ok());
            assert!(header.number.get().checked_mul(header.segment_size.get()).is_some());
        }
    }
}

/// Where a spool begins that has given up its first segments.
pub fn floor(bytes: &[u8]) {
    match Floor::parse(bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(floor) => {
            let again = Floor::new(floor.stream, floor.lsn.get());
            assert_eq!(Floor::parse(again.as_bytes()).map(|found| found.lsn), Ok(floor.lsn));
        }
    }
}

/// The mark on the root of a tree.
pub fn mark(bytes: &[u8]) {
    match Mark::parse(bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(mark) => {
            let (flags, epoch) = (mark.flags.get(), mark.epoch.get());
            let (next, synced) = (mark.next_lsn.get(), mark.synced_lsn.get());
            let again = Mark::new(flags, mark.stream, epoch, next, synced, mark.gap());
            let same = |found: Mark| found.is_clean() == mark.is_clean() && found.gap() == mark.gap();
            assert!(Mark::parse(again.as_bytes()).is_ok_and(same));
        }
    }
}
