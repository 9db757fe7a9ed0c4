// SPDX-License-Identifier: GPL-2.0-or-later

//! The spool: how the log lies on the spool disk.
//!
//! A spool is a directory of segment files. Segment `n` holds the bytes `n * segment_size .. (n + 1) * segment_size`
//! of the log behind a header of [`SEGMENT_HEADER_LEN`] bytes; records may reach from one segment into the next.
//! `Documentation/format/spool.md` is the specification. No I/O here, no panic on bytes from a disk.

use core::mem::{offset_of, size_of};

use super::crc32c_append;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First eight bytes of a segment file.
pub const SEGMENT_MAGIC: [u8; 8] = *b"REELSEG\0";
/// The version of the spool format that this code writes, and the only one it reads.
pub const SEGMENT_VERSION: u32 = 1;
/// Length of the header of a segment file in bytes; the log's bytes begin behind it.
pub const SEGMENT_HEADER_LEN: usize = 4096;
/// Smallest segment size, in bytes: the longest record fits.
pub const SEGMENT_SIZE_MIN: u64 = 4 << 20;
/// Largest segment size, in bytes.
pub const SEGMENT_SIZE_MAX: u64 = 1 << 32;
/// Segment size of a new spool that was not told another, in bytes.
pub const SEGMENT_SIZE_DEFAULT: u64 = 64 << 20;
/// The unit in which a segment file is written, in bytes, counted from its beginning.
pub const SPOOL_BLOCK: usize = 4096;
/// A writer has one batch in flight at a time, and it is never longer than this, in bytes. So what an interrupted
/// batch leaves behind lies within this distance of the end of the log, and a whole record beyond it means damage.
pub const SPOOL_BATCH_MAX: usize = 4 << 20;

/// First eight bytes of a floor.
pub const FLOOR_MAGIC: [u8; 8] = *b"REELFLR\0";
/// Length of a floor in bytes; a floor file holds [`FLOOR_SLOTS`] of them.
pub const FLOOR_LEN: usize = 512;
/// Number of floors in a floor file, written in turn, [`SPOOL_BLOCK`] bytes apart.
pub const FLOOR_SLOTS: u64 = 2;

/// The floor: an LSN below which everything had been acknowledged when it was written. A log that ends below it has
/// lost something that was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Floor {
    /// [`FLOOR_MAGIC`].
    pub magic: [u8; 8],
    /// [`SEGMENT_VERSION`].
    pub version: U32,
    /// CRC32C of the [`FLOOR_LEN`] bytes, with this field taken as zero.
    pub crc: U32,
    /// The stream.
    pub stream: [u8; 16],
    /// All below is in the spool, or was.
    pub lsn: U64,
    /// Zero.
    pub rest: [u8; 472],
}

/// The header of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SegmentHeader {
    /// [`SEGMENT_MAGIC`].
    pub magic: [u8; 8],
    /// [`SEGMENT_VERSION`].
    pub version: U32,
    /// CRC32C of the [`SEGMENT_HEADER_LEN`] bytes, with this field taken as zero.
    pub crc: U32,
    /// The stream.
    pub stream: [u8; 16],
    /// Number of this segment.
    pub number: U64,
    /// Length of a segment in bytes, this header not counted; a multiple of 4096.
    pub segment_size: U64,
    /// LSN of the first record that starts in this segment.
    pub first_record: U64,
    /// When the segment was begun, nanoseconds since 1970-01-01 UTC.
    pub created: I64,
    /// Timeline of the stream.
    pub timeline: U32,
    /// Zero.
    pub reserved: U32,
    /// Zero.
    pub rest: [u8; 4024],
}

/// The rule of the spool format that a segment's header breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// Shorter than a header.
    Truncated,
    /// Not a segment file.
    Magic,
    /// A version that this code does not read.
    Version(u32),
    /// The checksum does not match.
    Checksum,
    /// The segment size is out of range or no multiple of 4096.
    Size(u64),
    /// The first record lies before the segment.
    FirstRecord(u64),
}

impl core::fmt::Display for SegmentError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Truncated => write!(f, "shorter than a segment header"),
            Self::Magic => write!(f, "not a segment file (magic number)"),
            Self::Version(found) => write!(f, "spool format version {found}; this program reads {SEGMENT_VERSION}"),
            Self::Checksum => write!(f, "checksum of the segment header does not match"),
            Self::Size(found) => write!(f, "impossible segment size {found}"),
            Self::FirstRecord(found) => write!(f, "first record at {found:#x} is outside of the segment"),
        }
    }
}

impl core::error::Error for SegmentError {}

impl Floor {
    /// The floor at `lsn`, complete.
    pub fn new(stream: [u8; 16], lsn: u64) -> Self {
        let mut floor = Floor {
            magic: FLOOR_MAGIC,
            version: U32::new(SEGMENT_VERSION),
            crc: U32::ZERO,
            stream,
            lsn: U64::new(lsn),
            rest: [0; 472],
        };
        floor.crc = U32::new(crc32c_append(0, floor.as_bytes()));
        floor
    }

    /// The floor in `bytes`, every rule checked.
    pub fn parse(bytes: &[u8]) -> Result<&Floor, SegmentError> {
        let bytes = bytes.get(..FLOOR_LEN).ok_or(SegmentError::Truncated)?;
        let floor = Floor::ref_from_bytes(bytes).map_err(|_| SegmentError::Truncated)?;
        if floor.magic != FLOOR_MAGIC {
            return Err(SegmentError::Magic);
        }
        if floor.version.get() != SEGMENT_VERSION {
            return Err(SegmentError::Version(floor.version.get()));
        }
        let mut plain = *floor;
        plain.crc = U32::ZERO;
        if crc32c_append(0, plain.as_bytes()) != floor.crc.get() {
            return Err(SegmentError::Checksum);
        }
        Ok(floor)
    }
}

impl SegmentHeader {
    /// Sets magic, version and checksum; the last step of making a header.
    pub fn seal(&mut self) {
        self.magic = SEGMENT_MAGIC;
        self.version = U32::new(SEGMENT_VERSION);
        self.crc = U32::ZERO;
        self.crc = U32::new(crc32c_append(0, self.as_bytes()));
    }

    /// The header in `bytes`, every rule checked.
    pub fn parse(bytes: &[u8]) -> Result<&SegmentHeader, SegmentError> {
        let bytes = bytes.get(..SEGMENT_HEADER_LEN).ok_or(SegmentError::Truncated)?;
        let header = SegmentHeader::ref_from_bytes(bytes).map_err(|_| SegmentError::Truncated)?;
        if header.magic != SEGMENT_MAGIC {
            return Err(SegmentError::Magic);
        }
        if header.version.get() != SEGMENT_VERSION {
            return Err(SegmentError::Version(header.version.get()));
        }
        let mut plain = *header;
        plain.crc = U32::ZERO;
        if crc32c_append(0, plain.as_bytes()) != header.crc.get() {
            return Err(SegmentError::Checksum);
        }
        let size = header.segment_size.get();
        if !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&size) || size % 4096 != 0 {
            return Err(SegmentError::Size(size));
        }
        match header.number.get().checked_mul(size) {
            Some(start) if header.first_record.get() >= start => Ok(header),
            _ => Err(SegmentError::FirstRecord(header.first_record.get())),
        }
    }
}

const _: () = {
    assert!(size_of::<SegmentHeader>() == SEGMENT_HEADER_LEN);
    assert!(offset_of!(SegmentHeader, number) == 32);
    assert!(offset_of!(SegmentHeader, first_record) == 48);
    assert!(size_of::<Floor>() == FLOOR_LEN);
    assert!(offset_of!(Floor, lsn) == 32);
    assert!(SEGMENT_HEADER_LEN % SPOOL_BLOCK == 0);
    assert!(SPOOL_BATCH_MAX as u64 <= SEGMENT_SIZE_MIN);
};
