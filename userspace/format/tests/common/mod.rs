// SPDX-License-Identifier: GPL-2.0-or-later

//! A small log in which every record type occurs, and volumes and segments made of it: what the golden files hold.

#![allow(clippy::unwrap_used, missing_docs, dead_code)]

use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::record::*;
use reelfs_format::spool::{SegmentHeader, SEGMENT_SIZE_MIN};
use reelfs_format::volume::{
    seal_block, text_field, BlockHeader, BlockKind, Label, SegmentEnd, Trailer, VolumeStart, BLOCK_HEADER_LEN,
    LABEL_MAGIC, NO_RECORD, TRAILER_CLOSED, VOLUME_VERSION,
};
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

pub const STREAM: [u8; 16] = *b"0123456789abcdef";
pub const VOLUME: [u8; 16] = *b"volume-uuid-0001";
pub const BLOCK: usize = 4096;

pub fn identity(number: u8) -> Identity {
    Identity::new(1, &[number, 0, 0, 0, 0xaa, 0xbb, 0xcc, number]).unwrap()
}

pub fn attributes(mode: u32, nlink: u32, size: u64, step: i64) -> Attributes {
    Attributes {
        mode: U32::new(mode),
        nlink: U32::new(nlink),
        uid: U32::new(1000),
        gid: U32::new(100),
        size: U64::new(size),
        rdev_major: U32::ZERO,
        rdev_minor: U32::ZERO,
        mtime_sec: I64::new(1_700_000_000 + step),
        ctime_sec: I64::new(1_700_000_001 + step),
        mtime_nsec: U32::new(123_456_789),
        ctime_nsec: U32::new(987_654_321),
        fileattr: U32::new(0x0008_0040),
        projid: U32::new(42),
        valid: U32::new(Attributes::FILEATTR_VALID),
        generation: U32::new(0xdead_beef),
    }
}

fn len(bytes: &[u8]) -> U32 {
    U32::new(bytes.len() as u32)
}

/// The log. Every type that this version defines and does not reserve, with names that are not UTF-8, payloads whose
/// lengths are no multiple of 8, and one record of a type that nobody knows and that may be skipped.
pub fn log() -> LogBuilder {
    let mut log = LogBuilder::new();
    let (root, dir, file, link, node, gone) =
        (identity(1), identity(2), identity(3), identity(4), identity(5), identity(6));
    let d = |step| attributes(0o040_755, 3, 0, step);
    let (payload, xattrs_len, xattrs) = Payload::new().xattrs([(&b"user.root"[..], &b"yes"[..])]);
    let body = MountBody {
        stream: STREAM,
        lower_uuid: *b"lower-uuid-00001",
        lower_magic: U64::new(0xef53),
        flags: U64::new(MOUNT_FIRST),
        root: d(0),
        xattrs_len: U32::new(xattrs_len),
        xattrs: U32::new(xattrs),
        reserved: U64::ZERO,
    };
    log.push(RecordType::Mount, 0, root, &body, &payload).unwrap();

    let create = |log: &mut LogBuilder, flags, object, parent, name: &[u8], target: &[u8], attr: Attributes, x| {
        let list: &[(&[u8], &[u8])] = x;
        let (payload, xattrs_len, xattrs) = Payload::of(name).part(target).xattrs(list.iter().copied());
        let body = CreateBody {
            parent,
            attr,
            parent_attr: d(1),
            name_len: len(name),
            target_len: len(target),
            xattrs_len: U32::new(xattrs_len),
            xattrs: U32::new(xattrs),
        };
        log.push(RecordType::Create, flags, object, &body, &payload).unwrap();
    };
    let acl: &[(&[u8], &[u8])] =
        &[(b"system.posix_acl_default", b"\x02\0\0\0\x01\0\x07\0"), (b"user.odd", b"12345"), (b"user.none", b"")];
    create(&mut log, RECORD_DIRECTORY, dir, root, b"directory", b"", d(1), acl);
    create(&mut log, 0, file, dir, b"caf\xe9\xff", b"", attributes(0o100_644, 1, 0, 2), &[]);
    create(&mut log, 0, link, root, b"link", b"../somewhere else", attributes(0o120_777, 1, 17, 3), &[]);
    let mut device = attributes(0o020_600, 1, 0, 4);
    (device.rdev_major, device.rdev_minor) = (U32::new(5), U32::new(0x12345));
    create(&mut log, 0, node, root, b"tty", b"", device, &[]);
    create(&mut log, 0, gone, Identity::NONE, b"", b"", attributes(0o100_600, 0, 0, 5), &[]);

    let body = LinkBody {
        parent: root,
        attr: attributes(0o100_644, 2, 0, 6),
        parent_attr: d(6),
        name_len: len(b"second name"),
        reserved: U32::ZERO,
    };
    log.push(RecordType::Link, 0, file, &body, &Payload::of(b"second name")).unwrap();
    for (offset, data) in [(0, &b"hello, world\n"[..]), (8192, b""), (4096, &[0x5a; 700])] {
        let body = WriteBody { offset: U64::new(offset), attr: attributes(0o100_644, 2, 4796, 7) };
        log.push(RecordType::Write, 0, file, &body, &Payload::of(data)).unwrap();
    }
    let body = AttrBody { attr: attributes(0o100_644, 2, 5000, 8), asked: U32::new(8), reserved: U32::ZERO };
    log.push(RecordType::Truncate, 0, file, &body, &Payload::new()).unwrap();
    let body = FallocateBody {
        mode: U32::new(3),
        reserved: U32::ZERO,
        offset: U64::new(4096),
        length: U64::new(512),
        attr: attributes(0o100_644, 2, 5000, 9),
    };
    log.push(RecordType::Fallocate, RECORD_PARTIAL, file, &body, &Payload::new()).unwrap();
    let body = AttrBody { attr: attributes(0o106_755, 2, 5000, 10), asked: U32::new(1), reserved: U32::ZERO };
    log.push(RecordType::Setattr, 0, file, &body, &Payload::new()).unwrap();
    log.push(RecordType::SetFileattr, 0, file, &body, &Payload::new()).unwrap();
    let attr = attributes(0o106_755, 2, 5000, 11);
    let body = XattrBody { attr, name_len: len(b"user.comment"), value_len: len(b"\0binary\0") };
    let payload = Payload::of(b"user.comment").part(b"\0binary\0");
    log.push(RecordType::SetXattr, 0, file, &body, &payload).unwrap();
    let body = XattrBody { attr, name_len: len(b"user.comment"), value_len: U32::ZERO };
    log.push(RecordType::RemoveXattr, 0, file, &body, &Payload::of(b"user.comment")).unwrap();
    let body = RenameBody {
        old_parent: root,
        new_parent: dir,
        other: link,
        whiteout: Identity::NONE,
        attr: attributes(0o106_755, 2, 5000, 12),
        other_attr: attributes(0o120_777, 1, 17, 12),
        old_parent_attr: d(12),
        new_parent_attr: d(13),
        flags: U32::new(2),
        old_name_len: len(b"second name"),
        new_name_len: len(b"x"),
        reserved: U32::ZERO,
    };
    log.push(RecordType::Rename, 0, file, &body, &Payload::of(b"second name").part(b"x")).unwrap();
    let body = RenameBody {
        old_parent: dir,
        new_parent: root,
        other: Identity::NONE,
        whiteout: identity(8),
        attr: attributes(0o106_755, 2, 5000, 13),
        other_attr: Attributes::ZERO,
        old_parent_attr: d(13),
        new_parent_attr: d(13),
        flags: U32::new(RENAME_WHITEOUT),
        old_name_len: len(b"x"),
        new_name_len: len(b"away"),
        reserved: U32::ZERO,
    };
    let list: &[(&[u8], &[u8])] = &[(b"security.label", b"inherited")];
    let (_, xattrs_len, xattrs) = Payload::new().xattrs(list.iter().copied());
    let part = WhiteoutPart {
        attr: attributes(0o020_000, 1, 0, 13),
        xattrs_len: U32::new(xattrs_len),
        xattrs: U32::new(xattrs),
    };
    let (payload, ..) = Payload::of(b"x").part(b"away").part(part.as_bytes()).xattrs(list.iter().copied());
    log.push(RecordType::Rename, 0, file, &body, &payload).unwrap();
    let body = UnlinkBody {
        parent: root,
        attr: attributes(0o020_600, 0, 0, 14),
        parent_attr: d(14),
        name_len: len(b"tty"),
        reserved: U32::ZERO,
    };
    log.push(RecordType::Unlink, 0, node, &body, &Payload::of(b"tty")).unwrap();
    log.push(RecordType::ObjectGone, 0, node, &EmptyBody {}, &Payload::new()).unwrap();
    let body = ReidentifiedBody { old: gone };
    log.push(RecordType::Reidentified, 0, identity(7), &body, &Payload::new()).unwrap();
    checkpoint(&mut log, (root, dir, file, link));
    let body =
        GapBody { reason: U32::new(GAP_DISCARDED), reserved: U32::ZERO, bytes: U64::new(777), changes: U64::new(9) };
    log.push(RecordType::Gap, 0, Identity::NONE, &body, &Payload::new()).unwrap();
    let body = GapEndBody {
        begin: U64::new(log.lsn),
        since: I64::new(1_700_000_000_000_000_003),
        changes: U64::new(10),
        bytes: U64::new(778),
        reason: U32::new(GAP_DEGRADED),
        reserved: U32::ZERO,
    };
    log.push(RecordType::GapEnd, 0, Identity::NONE, &body, &Payload::new()).unwrap();
    log.push(RecordType::Noop, 0, Identity::NONE, &EmptyBody {}, &Payload::of(b"filler")).unwrap();
    unknown(&mut log);
    log.push(RecordType::Unmount, 0, root, &UnmountBody { reserved: U64::ZERO }, &Payload::new()).unwrap();
    log
}

/// A checkpoint that tells of a link, of a file in two parts, the second a hole, and of a directory.
fn checkpoint(log: &mut LogBuilder, (root, dir, file, link): (Identity, Identity, Identity, Identity)) {
    let body = CheckpointBeginBody { flags: U64::ZERO, reserved: U64::ZERO };
    let begin = log.push(RecordType::CheckpointBegin, 0, root, &body, &Payload::new()).unwrap();
    let checkpoint = U64::new(begin);
    let target = b"../somewhere else";
    let (payload, xattrs_len, xattrs) = Payload::of(target).xattrs([(&b"trusted.odd"[..], &b"1"[..])]);
    let body = ObjectStateBody {
        checkpoint,
        attr: attributes(0o120_777, 1, 17, 15),
        target_len: len(target),
        xattrs_len: U32::new(xattrs_len),
        xattrs: U32::new(xattrs),
        reserved: U32::ZERO,
    };
    log.push(RecordType::ObjectState, 0, link, &body, &payload).unwrap();
    for (offset, length, flags, data) in
        [(0, 13, STATE_FIRST, &b"hello, world\n"[..]), (13, 4987, STATE_LAST | STATE_HOLE, b"")]
    {
        let body = ObjectDataBody {
            checkpoint,
            offset: U64::new(offset),
            length: U64::new(length),
            attr: attributes(0o106_755, 2, 5000, 15),
            flags: U32::new(flags),
            reserved: U32::ZERO,
        };
        log.push(RecordType::ObjectData, 0, file, &body, &Payload::of(data)).unwrap();
    }
    let entry = |object, mode, name: &[u8]| DirectoryEntry { object, mode: U32::new(mode), name_len: len(name) };
    let payload = Payload::of(entry(file, 0o106_755, b"caf\xe9\xff").as_bytes())
        .part(b"caf\xe9\xff")
        .part(entry(dir, 0o040_755, b"below").as_bytes())
        .part(b"below");
    let body = DirectoryStateBody {
        checkpoint,
        attr: attributes(0o040_755, 3, 0, 15),
        entries: U32::new(2),
        flags: U32::new(STATE_FIRST | STATE_LAST),
        reserved: U64::ZERO,
    };
    log.push(RecordType::DirectoryState, 0, dir, &body, &payload).unwrap();
    let body = CheckpointEndBody { checkpoint, objects: U64::new(3), bytes: U64::new(13), reserved: U64::ZERO };
    log.push(RecordType::CheckpointEnd, 0, root, &body, &Payload::new()).unwrap();
}

/// A record of type 60000 that may be skipped: a no-operation whose type is changed and whose head is sealed anew.
fn unknown(log: &mut LogBuilder) {
    let at = log.bytes.len();
    log.push(RecordType::Noop, RECORD_SKIPPABLE, identity(9), &EmptyBody {}, &Payload::of(b"from the future")).unwrap();
    let record = &mut log.bytes[at..];
    record[6..8].copy_from_slice(&60_000_u16.to_le_bytes());
    record[44..48].fill(0);
    let crc = reelfs_format::crc32c_append(0, &record[..HEADER_LEN]);
    record[44..48].copy_from_slice(&crc.to_le_bytes());
}

pub fn label() -> Label {
    let mut label = Label::new_zeroed();
    label.magic = LABEL_MAGIC;
    label.version = U32::new(VOLUME_VERSION);
    label.volume = VOLUME;
    label.pool = *b"pool-uuid-000001";
    label.block_size = U32::new(BLOCK as u32);
    label.created = I64::new(1_700_000_000_000_000_000);
    label.name = text_field("golden-000001").unwrap();
    label.pool_name = text_field("golden").unwrap();
    label.seal();
    label
}

fn block(number: u64, kind: BlockKind, at: (u64, u64), first_record: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    bytes[BLOCK_HEADER_LEN..BLOCK_HEADER_LEN + payload.len()].copy_from_slice(payload);
    let mut header = BlockHeader::new_zeroed();
    header.kind = U32::new(kind as u32);
    header.payload_length = len(payload);
    header.plain_length = len(payload);
    header.number = U64::new(number);
    header.volume = VOLUME;
    header.stream = STREAM;
    header.lsn_start = U64::new(at.0);
    header.lsn_end = U64::new(at.1);
    header.timeline = U32::new(1);
    header.first_record = U32::new(first_record);
    seal_block(&mut bytes, header).unwrap();
    bytes
}

/// A volume file: label, volume start, the log in data blocks, a segment end whose hashes are made up, a trailer.
pub fn volume() -> Vec<u8> {
    let log = log();
    let mut volume = label().as_bytes().to_vec();
    let mut start = VolumeStart::new_zeroed();
    start.sequence = U64::new(1);
    start.segment_size = U64::new(SEGMENT_SIZE_MIN);
    start.started = I64::new(1_700_000_000_000_000_001);
    start.origin = text_field("golden.example").unwrap();
    volume.extend(block(0, BlockKind::VolumeStart, (0, 0), NO_RECORD, start.as_bytes()));
    let room = BLOCK - BLOCK_HEADER_LEN;
    let mut starts = Vec::new();
    let mut at = 0;
    while at < log.bytes.len() {
        starts.push(at);
        at += reelfs_format::view::peek_length(&log.bytes[at..]).unwrap();
    }
    let mut number = 0;
    for (index, part) in log.bytes.chunks(room).enumerate() {
        number += 1;
        let from = index * room;
        let first = starts.iter().find(|start| (from..from + part.len()).contains(start));
        let first = first.map_or(NO_RECORD, |start| (start - from) as u32);
        let range = (from as u64, (from + part.len()) as u64);
        volume.extend(block(number, BlockKind::Data, range, first, part));
    }
    let end = (log.lsn, log.lsn);
    let body = SegmentEnd {
        segment: U64::ZERO,
        reserved: U64::ZERO,
        hash: [0x11; 32],
        chain: [0x22; 32],
        checkpoint_begin: U64::new(0x1000),
        checkpoint_end: U64::new(0x2000),
    };
    volume.extend(block(number + 1, BlockKind::SegmentEnd, end, NO_RECORD, body.as_bytes()));
    let body = Trailer {
        last_lsn: U64::new(log.lsn),
        next_sequence: U64::new(2),
        reason: U32::new(TRAILER_CLOSED),
        reserved: U32::ZERO,
        chain: [0x22; 32],
    };
    volume.extend(block(number + 2, BlockKind::Trailer, end, NO_RECORD, body.as_bytes()));
    volume
}

/// The header of a segment file.
pub fn segment() -> Vec<u8> {
    let mut header = SegmentHeader::new_zeroed();
    header.stream = STREAM;
    header.number = U64::new(3);
    header.segment_size = U64::new(SEGMENT_SIZE_MIN);
    header.first_record = U64::new(3 * SEGMENT_SIZE_MIN + 48);
    header.created = I64::new(1_700_000_000_000_000_002);
    header.timeline = U32::new(1);
    header.seal();
    header.as_bytes().to_vec()
}
