// SPDX-License-Identifier: GPL-2.0-or-later

//! The volume: how the log lies on a tape or in a volume file.
//!
//! A volume is a label, a filemark, then blocks of one fixed size. Each block says which part of which stream it
//! carries, so that reading can begin anywhere, without catalog or neighbours. `Documentation/format/volume.md` is the
//! specification. On a tape, label and blocks are tape blocks; in a volume file the label is the first
//! [`LABEL_LEN`] bytes, the blocks follow without anything between, and filemarks leave no trace.
//!
//! This file is `core` and `zerocopy` alone, does no I/O and never panics on bytes from media.

use core::mem::{offset_of, size_of};

use super::crc32c_append;
use super::record::Lsn;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First eight bytes of a label.
pub const LABEL_MAGIC: [u8; 8] = *b"REELVOL\0";
/// First eight bytes of every other block.
pub const BLOCK_MAGIC: [u8; 8] = *b"REELBLK\0";
/// The version of the volume format that this code writes, and the only one it reads.
pub const VOLUME_VERSION: u32 = 1;
/// Length of the label in bytes, on every medium and in every version.
pub const LABEL_LEN: usize = 4096;
/// Length of a block header in bytes; the block's payload follows it.
pub const BLOCK_HEADER_LEN: usize = size_of::<BlockHeader>();
/// Smallest block size, in bytes.
pub const BLOCK_SIZE_MIN: usize = 4096;
/// Largest block size, in bytes.
pub const BLOCK_SIZE_MAX: usize = 8 << 20;
/// Block size that labelling chooses when it is not told, in bytes.
pub const BLOCK_SIZE_DEFAULT: usize = 256 << 10;
/// Incompatible features that this code understands; a volume with others is not read and not written.
pub const INCOMPATIBLE_KNOWN: u64 = 0;

/// First block of a volume; written once, by labelling, and never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Label {
    /// [`LABEL_MAGIC`].
    pub magic: [u8; 8],
    /// [`VOLUME_VERSION`].
    pub version: U32,
    /// CRC32C of the [`LABEL_LEN`] bytes, with this field taken as zero.
    pub crc: U32,
    /// Features a reader must know to read anything behind the label.
    pub incompatible: U64,
    /// Features a reader may ignore.
    pub compatible: U64,
    /// UUID of this volume.
    pub volume: [u8; 16],
    /// UUID of the pool.
    pub pool: [u8; 16],
    /// Length in bytes of every block behind the label.
    pub block_size: U32,
    /// Zero.
    pub reserved: U32,
    /// When it was labelled, nanoseconds since 1970-01-01 UTC.
    pub created: I64,
    /// Name of this volume, UTF-8, padded with zero bytes; what is written on the cartridge.
    pub name: [u8; 64],
    /// Name of the pool, UTF-8, padded with zero bytes.
    pub pool_name: [u8; 64],
    /// Zero.
    pub rest: [u8; 3888],
}

/// What a block carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum BlockKind {
    /// The first block behind the label, written on first use. Payload [`VolumeStart`].
    VolumeStart = 1,
    /// Bytes of the log: `lsn_start..lsn_end`.
    Data = 2,
    /// A segment is complete up to here. Payload [`SegmentEnd`].
    SegmentEnd = 3,
    /// The volume is full or closed. Payload [`Trailer`].
    Trailer = 4,
}

impl BlockKind {
    /// The kind with this number, if it is one that this code knows.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::VolumeStart),
            2 => Some(Self::Data),
            3 => Some(Self::SegmentEnd),
            4 => Some(Self::Trailer),
            _ => None,
        }
    }
}

/// Block flag: a reader that does not know the kind may skip the block; without it, it must stop.
pub const BLOCK_SKIPPABLE: u32 = 1 << 0;
/// All block flags that this version defines.
pub const BLOCK_FLAGS: u32 = BLOCK_SKIPPABLE;

/// [`BlockHeader::first_record`]: no record starts in this block.
pub const NO_RECORD: u32 = u32::MAX;

/// The beginning of every block behind the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BlockHeader {
    /// [`BLOCK_MAGIC`].
    pub magic: [u8; 8],
    /// A [`BlockKind`].
    pub kind: U32,
    /// `BLOCK_*` flags; bits that are not defined are zero.
    pub flags: U32,
    /// CRC32C of the whole block, with this field taken as zero.
    pub crc: U32,
    /// Length of the payload in bytes; the rest of the block is zero.
    pub payload_length: U32,
    /// Number of this block on this volume; the volume start is 0.
    pub number: U64,
    /// UUID of the volume, as in the label.
    pub volume: [u8; 16],
    /// The stream.
    pub stream: [u8; 16],
    /// Position in the log of the first byte of the payload; for other kinds, how far the log on this volume reaches.
    pub lsn_start: U64,
    /// Position in the log behind the last byte of the payload; for other kinds the same as `lsn_start`.
    pub lsn_end: U64,
    /// Timeline of the stream; 1 unless a restore went on from the past.
    pub timeline: U32,
    /// Offset in the payload of the first record that starts in it, or [`NO_RECORD`].
    pub first_record: U32,
    /// How the payload is coded: 0, as it is.
    pub codec: U32,
    /// Length of the payload in bytes when decoded.
    pub plain_length: U32,
    /// Zero.
    pub reserved: [u8; 32],
}

/// Payload of [`BlockKind::VolumeStart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VolumeStart {
    /// Position of this volume in its set: 1 for the first volume of a stream's copy, then one more each.
    pub sequence: U64,
    /// Position in the log where this volume goes on; 0 on the first.
    pub first_lsn: U64,
    /// Length of a segment in bytes.
    pub segment_size: U64,
    /// When the volume was first used, nanoseconds since 1970-01-01 UTC.
    pub started: I64,
    /// UUID of the volume before this one, zero on the first.
    pub predecessor: [u8; 16],
    /// Name of the volume before this one, UTF-8, padded with zero bytes, so that a missing one can be asked for.
    pub predecessor_name: [u8; 64],
    /// Chain hash after the last segment that was complete before `first_lsn`; zero if there was none.
    pub chain: [u8; 32],
    /// Fingerprint of the encryption key, zero: not encrypted.
    pub key: [u8; 32],
    /// Origin: the machine that writes, UTF-8, padded with zero bytes.
    pub origin: [u8; 64],
}

/// Payload of [`BlockKind::SegmentEnd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SegmentEnd {
    /// Number of the segment: its first LSN divided by the segment size.
    pub segment: U64,
    /// Zero.
    pub reserved: U64,
    /// BLAKE3 of the segment's bytes of the log.
    pub hash: [u8; 32],
    /// Chain hash: BLAKE3 of the chain hash before (32 zero bytes for segment 0) followed by `hash`.
    pub chain: [u8; 32],
    /// LSN of the begin record of the last checkpoint that is complete up to here. So that a restore finds it without
    /// reading all of the log; nothing else depends on it.
    pub checkpoint_begin: U64,
    /// LSN behind its end record; zero: none is known.
    pub checkpoint_end: U64,
}

/// [`Trailer::reason`]: the volume was full while there was more to write; the log goes on elsewhere.
pub const TRAILER_FULL: u32 = 1;
/// [`Trailer::reason`]: the volume was closed on request; nothing was waiting to be written.
pub const TRAILER_CLOSED: u32 = 2;

/// Payload of [`BlockKind::Trailer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Trailer {
    /// Position in the log behind the last byte on this volume.
    pub last_lsn: U64,
    /// Sequence number that the next volume will have.
    pub next_sequence: U64,
    /// Why nothing more was written: [`TRAILER_FULL`] or [`TRAILER_CLOSED`].
    pub reason: U32,
    /// Zero.
    pub reserved: U32,
    /// Chain hash after the last complete segment on this volume, or as in the volume start if there is none.
    pub chain: [u8; 32],
}

/// The rule of the volume format that a label or block breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeError {
    /// Shorter than its format demands.
    Truncated,
    /// Not a label, or not a block, of this format.
    Magic,
    /// A version that this code does not read.
    Version(u32),
    /// Features that this code does not know.
    Incompatible(u64),
    /// The checksum does not match.
    Checksum,
    /// The block size of the label is out of range.
    BlockSize(u32),
    /// A block kind that is not known and must not be skipped.
    Kind(u32),
    /// A block flag that is not defined.
    Flags(u32),
    /// The payload does not fit the block, or its kind.
    PayloadLength(u32),
    /// The payload's length and its LSN range disagree.
    Range,
    /// A coding that this code does not know.
    Codec(u32),
}

impl core::fmt::Display for VolumeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Truncated => write!(f, "shorter than the format demands"),
            Self::Magic => write!(f, "not of this format (magic number)"),
            Self::Version(found) => write!(f, "volume format version {found}; this program reads {VOLUME_VERSION}"),
            Self::Incompatible(bits) => write!(f, "made with features that this program does not know ({bits:#x})"),
            Self::Checksum => write!(f, "checksum does not match"),
            Self::BlockSize(found) => write!(f, "impossible block size {found}"),
            Self::Kind(found) => write!(f, "block kind {found} is not known to this program"),
            Self::Flags(found) => write!(f, "block flags {found:#x} are not known to this program"),
            Self::PayloadLength(found) => write!(f, "impossible payload length {found}"),
            Self::Range => write!(f, "LSN range and payload length disagree"),
            Self::Codec(found) => write!(f, "coding {found} is not known to this program"),
        }
    }
}

impl core::error::Error for VolumeError {}

/// CRC32C of `bytes` with the four bytes at `field` taken as zero.
fn crc_without(bytes: &[u8], field: usize) -> Option<u32> {
    let (before, rest) = bytes.split_at_checked(field)?;
    let (_, after) = rest.split_at_checked(4)?;
    Some(crc32c_append(crc32c_append(crc32c_append(0, before), &[0; 4]), after))
}

/// `text` in a field of `N` bytes padded with zero bytes, or `None` if it is empty, too long or has a zero byte.
pub fn text_field<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut field = [0; N];
    if text.is_empty() || text.as_bytes().contains(&0) {
        return None;
    }
    field.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(field)
}

/// The text in a field padded with zero bytes, or `None` if it is not UTF-8.
pub fn field_text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    core::str::from_utf8(field.get(..end)?).ok()
}

impl Label {
    /// Sets the checksum; the last step of making a label.
    pub fn seal(&mut self) {
        self.crc = U32::ZERO;
        self.crc = U32::new(crc32c_append(0, self.as_bytes()));
    }

    /// The label in `bytes`, every rule checked.
    pub fn parse(bytes: &[u8]) -> Result<&Label, VolumeError> {
        let bytes = bytes.get(..LABEL_LEN).ok_or(VolumeError::Truncated)?;
        let label = Label::ref_from_bytes(bytes).map_err(|_| VolumeError::Truncated)?;
        if label.magic != LABEL_MAGIC {
            return Err(VolumeError::Magic);
        }
        if label.version.get() != VOLUME_VERSION {
            return Err(VolumeError::Version(label.version.get()));
        }
        if crc_without(bytes, offset_of!(Label, crc)) != Some(label.crc.get()) {
            return Err(VolumeError::Checksum);
        }
        if label.incompatible.get() & !INCOMPATIBLE_KNOWN != 0 {
            return Err(VolumeError::Incompatible(label.incompatible.get()));
        }
        if !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&(label.block_size.get() as usize)) {
            return Err(VolumeError::BlockSize(label.block_size.get()));
        }
        Ok(label)
    }
}

/// A block whose length, checksum and structure have been checked.
#[derive(Clone, Copy, Debug)]
pub struct BlockView<'a> {
    /// The header.
    pub header: &'a BlockHeader,
    /// What the block carries, or `None` for a kind that is not known and may be skipped.
    pub kind: Option<BlockKind>,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> BlockView<'a> {
    /// The block in `bytes`, which has to be one whole block.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, VolumeError> {
        let (header, rest) = BlockHeader::ref_from_prefix(bytes).map_err(|_| VolumeError::Truncated)?;
        if header.magic != BLOCK_MAGIC {
            return Err(VolumeError::Magic);
        }
        if crc_without(bytes, offset_of!(BlockHeader, crc)) != Some(header.crc.get()) {
            return Err(VolumeError::Checksum);
        }
        if header.flags.get() & !BLOCK_FLAGS != 0 {
            return Err(VolumeError::Flags(header.flags.get()));
        }
        let length = header.payload_length.get();
        let payload = rest.get(..length as usize).ok_or(VolumeError::PayloadLength(length))?;
        let kind = BlockKind::from_raw(header.kind.get());
        let (start, end): (Lsn, Lsn) = (header.lsn_start.get(), header.lsn_end.get());
        match kind {
            None if header.flags.get() & BLOCK_SKIPPABLE == 0 => return Err(VolumeError::Kind(header.kind.get())),
            None => {}
            Some(_) if header.codec.get() != 0 => return Err(VolumeError::Codec(header.codec.get())),
            Some(_) if header.plain_length != header.payload_length => {
                return Err(VolumeError::PayloadLength(header.plain_length.get()))
            }
            Some(BlockKind::Data) => {
                if start.checked_add(u64::from(length)) != Some(end) || length == 0 {
                    return Err(VolumeError::Range);
                }
                let first = header.first_record.get();
                if first != NO_RECORD && first >= length {
                    return Err(VolumeError::Range);
                }
            }
            Some(fixed) => {
                let wanted = match fixed {
                    BlockKind::VolumeStart => size_of::<VolumeStart>(),
                    BlockKind::SegmentEnd => size_of::<SegmentEnd>(),
                    _ => size_of::<Trailer>(),
                };
                if payload.len() != wanted {
                    return Err(VolumeError::PayloadLength(length));
                }
                if start != end {
                    return Err(VolumeError::Range);
                }
            }
        }
        Ok(BlockView { header, kind, payload })
    }

    /// The payload as the structure that its kind has.
    pub fn body<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> Result<&'a T, VolumeError> {
        T::ref_from_bytes(self.payload).map_err(|_| VolumeError::PayloadLength(self.header.payload_length.get()))
    }
}

/// Completes a block whose payload is already in its place, [`BLOCK_HEADER_LEN`] bytes into `block`.
///
/// The unused rest is zeroed, and magic and checksum are set. `None` if the payload does not fit.
pub fn seal_block(block: &mut [u8], mut header: BlockHeader) -> Option<()> {
    let end = BLOCK_HEADER_LEN.checked_add(usize::try_from(header.payload_length.get()).ok()?)?;
    block.get_mut(end..)?.fill(0);
    header.magic = BLOCK_MAGIC;
    header.crc = U32::ZERO;
    block.get_mut(..BLOCK_HEADER_LEN)?.copy_from_slice(header.as_bytes());
    header.crc = U32::new(crc32c_append(0, block));
    block.get_mut(..BLOCK_HEADER_LEN)?.copy_from_slice(header.as_bytes());
    Some(())
}

const _: () = {
    assert!(size_of::<Label>() == LABEL_LEN);
    assert!(offset_of!(Label, volume) == 32);
    assert!(offset_of!(Label, block_size) == 64);
    assert!(offset_of!(Label, name) == 80);
    assert!(size_of::<BlockHeader>() == 128);
    assert!(offset_of!(BlockHeader, number) == 24);
    assert!(offset_of!(BlockHeader, lsn_start) == 64);
    assert!(offset_of!(BlockHeader, timeline) == 80);
    assert!(size_of::<VolumeStart>() == 240);
    assert!(size_of::<SegmentEnd>() == 96);
    assert!(offset_of!(SegmentEnd, checkpoint_begin) == 80);
    assert!(size_of::<Trailer>() == 56);
};
