// SPDX-License-Identifier: GPL-2.0-or-later
//! The structures of an image file. All numbers are little-endian.
//!
//! | offset | what |
//! |---|---|
//! | 0 | header, first copy ([`Header`]) |
//! | 4096 | header, second copy |
//! | 8192 | records, one after the other: a [`Record`], its data, zeros up to a multiple of 8 |
//!
//! The copies are written in turn; the sound one with the higher generation counts. A record's
//! header checksum covers the image's UUID and the record's own offset, so that an image kept
//! on a tape of another image, or of itself, is never taken for records.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::medium::{FILEMARK_RESERVE, RECORD_OVERHEAD};

use super::ImageError;

/// First bytes of each header.
pub const MAGIC: [u8; 8] = *b"VTAPEIMG";
/// Version of this format.
pub const VERSION: u32 = 1;
/// Features without which the image cannot be understood. None is defined.
pub const KNOWN_INCOMPATIBLE: u32 = 0;
/// Offsets of the two headers.
pub const HEADERS: [u64; 2] = [0, 4096];
/// Offset of the first record.
pub const DATA_START: u64 = 8192;
/// First bytes of each record.
pub const RECORD_MAGIC: [u8; 4] = *b"VTRC";

/// [`Header::flags`]: write once.
pub const WORM: u32 = 1 << 0;
/// [`Header::flags`]: the write-protect tab is set.
pub const PROTECTED: u32 = 1 << 1;

/// [`Record::kind`] of a block.
pub const BLOCK: u8 = 1;
/// [`Record::kind`] of a filemark.
pub const FILEMARK: u8 = 2;

/// What the cartridge is, and how much of it is known to be on stable storage.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: U32,
    /// Size of this structure.
    pub size: U32,
    /// Features that a reader must know.
    pub incompatible: U32,
    /// Features that a reader may ignore.
    pub compatible: U32,
    /// Identity of the cartridge.
    pub uuid: [u8; 16],
    /// Grows by one with each writing of a header.
    pub generation: U64,
    /// Bytes of records that fit.
    pub capacity: U64,
    /// Bytes before the capacity from which writes are told of the end.
    pub early_warning: U64,
    /// When the image was made, in seconds since 1970.
    pub created: U64,
    /// How often it was put into a drive.
    pub loads: U64,
    /// File offset below which every record was on stable storage when this was written.
    /// Records after it count as far as they are sound and adjoin.
    pub end: U64,
    /// Objects before `end`.
    pub objects: U64,
    /// Filemarks before `end`.
    pub filemarks: U64,
    /// [`WORM`], [`PROTECTED`].
    pub flags: U32,
    /// Zero.
    pub reserved: U32,
    /// The sticker, in ASCII, filled with zeros.
    pub barcode: [u8; 32],
    /// Zero.
    pub unused: [u8; 364],
    /// CRC32C of all before.
    pub checksum: U32,
}

const _: () = assert!(size_of::<Header>() == 512);
const _: () = assert!(offset_of!(Header, uuid) == 24);
const _: () = assert!(offset_of!(Header, end) == 80);
const _: () = assert!(offset_of!(Header, barcode) == 112);
const _: () = assert!(offset_of!(Header, checksum) == 508);

/// What precedes the data of each object.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Record {
    /// [`RECORD_MAGIC`].
    pub magic: [u8; 4],
    /// Bytes of data; zero for a filemark.
    pub length: U32,
    /// Number of this object, from zero.
    pub number: U64,
    /// Filemarks before this object.
    pub filemarks: U64,
    /// [`BLOCK`] or [`FILEMARK`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// CRC32C of the data.
    pub data_checksum: U32,
    /// CRC32C of the UUID, the record's offset in the file (64 bits), and all before.
    pub checksum: U32,
}

const _: () = assert!(size_of::<Record>() as u64 == RECORD_OVERHEAD);
const _: () = assert!(offset_of!(Record, number) == 8);
const _: () = assert!(offset_of!(Record, kind) == 24);
const _: () = assert!(offset_of!(Record, checksum) == 36);

impl Header {
    fn computed(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..offset_of!(Header, checksum)])
    }

    /// The header with its checksum.
    pub fn sealed(mut self) -> Self {
        self.checksum = self.computed().into();
        self
    }

    /// Judges the bytes of one copy.
    ///
    /// # Errors
    ///
    /// All variants of [`ImageError`] but `Io`, `InUse` and `Parameters`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let (header, _) = Self::read_from_prefix(bytes).map_err(|_| ImageError::NotAnImage)?;
        if header.magic != MAGIC {
            return Err(ImageError::NotAnImage);
        }
        if header.computed() != header.checksum.get() {
            return Err(ImageError::HeaderDamaged);
        }
        if header.version.get() != VERSION {
            return Err(ImageError::Version(header.version.get()));
        }
        let unknown = header.incompatible.get() & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            return Err(ImageError::Features(unknown));
        }
        header.check_geometry()?;
        Ok(header)
    }

    fn check_geometry(&self) -> Result<(), ImageError> {
        if self.size.get() as usize != size_of::<Self>() {
            return Err(ImageError::Geometry("the header is of another size"));
        }
        let (capacity, warning) = (self.capacity.get(), self.early_warning.get());
        if capacity == 0 || capacity > i64::MAX as u64 / 2 || warning > capacity {
            return Err(ImageError::Geometry("the capacity is impossible"));
        }
        let (end, objects) = (self.end.get(), self.objects.get());
        let Some(used) = end.checked_sub(DATA_START) else {
            return Err(ImageError::Geometry("the end lies before the beginning"));
        };
        if used > capacity + FILEMARK_RESERVE {
            return Err(ImageError::Geometry("more is recorded than fits"));
        }
        if objects > used / RECORD_OVERHEAD || self.filemarks.get() > objects {
            return Err(ImageError::Geometry("more objects are counted than fit"));
        }
        Ok(())
    }

    /// The sticker as text.
    pub fn barcode_text(&self) -> String {
        let length = self.barcode.iter().position(|&byte| byte == 0).unwrap_or(self.barcode.len());
        String::from_utf8_lossy(&self.barcode[..length]).into_owned()
    }
}

impl Record {
    /// A record for the object `number` with `data` at file offset `offset`.
    pub fn new(uuid: &[u8; 16], offset: u64, kind: u8, number: u64, filemarks: u64, data: &[u8]) -> Self {
        let mut record = Self {
            magic: RECORD_MAGIC,
            length: (data.len() as u32).into(),
            number: number.into(),
            filemarks: filemarks.into(),
            kind,
            reserved: [0; 7],
            data_checksum: crc32c::crc32c(data).into(),
            checksum: 0.into(),
        };
        record.checksum = record.computed(uuid, offset).into();
        record
    }

    fn computed(&self, uuid: &[u8; 16], offset: u64) -> u32 {
        let seed = crc32c::crc32c_append(crc32c::crc32c(uuid), &offset.to_le_bytes());
        crc32c::crc32c_append(seed, &self.as_bytes()[..offset_of!(Record, checksum)])
    }

    /// The record at the start of `bytes`, if one is there that belongs at `offset` of the
    /// image `uuid`.
    pub fn parse(bytes: &[u8], uuid: &[u8; 16], offset: u64) -> Option<Self> {
        let (record, _) = Self::read_from_prefix(bytes).ok()?;
        let sound = record.magic == RECORD_MAGIC
            && record.computed(uuid, offset) == record.checksum.get()
            && match record.kind {
                BLOCK => record.length.get() > 0,
                FILEMARK => record.length.get() == 0,
                _ => false,
            };
        sound.then_some(record)
    }

    /// Bytes that the record, its data and its padding take.
    pub fn extent(&self) -> u64 {
        crate::medium::block_cost(self.length.get() as usize)
    }
}
