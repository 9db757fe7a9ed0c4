// SPDX-License-Identifier: GPL-2.0-or-later

//! The mark: what reelfs leaves on the root of the tree below it, to know the tree again.
//!
//! The value of the extended attribute [`MARK_XATTR`], which does not show through a mount. It names the stream that
//! the tree belongs to and says whether the log ended where the tree did. A tree that was rolled back, swapped or
//! mounted after a crash is noticed by it.

use core::mem::{offset_of, size_of};

use super::crc32c_append;
use super::record::Lsn;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Name of the extended attribute that holds a [`Mark`].
pub const MARK_XATTR: &str = "trusted.reelfs";
/// First eight bytes of every mark.
pub const MARK_MAGIC: [u8; 8] = *b"REELMARK";
/// The version of the mark that this code writes, and the only one it reads.
pub const MARK_VERSION: u32 = 1;
/// [`Mark::flags`]: the log ends at [`Mark::next_lsn`], and holds all of the tree unless [`MARK_GAP`] is set.
pub const MARK_CLEAN: u32 = 1 << 0;
/// [`Mark::flags`]: the tree has changes that are in no log, made after the log had come to [`Mark::gap_lsn`].
pub const MARK_GAP: u32 = 1 << 1;
/// All flags that this version defines.
const MARK_FLAGS: u32 = MARK_CLEAN | MARK_GAP;
/// Length of a mark in bytes.
pub const MARK_LEN: usize = size_of::<Mark>();

/// What the attribute holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Mark {
    /// [`MARK_MAGIC`].
    pub magic: [u8; 8],
    /// [`MARK_VERSION`].
    pub version: U32,
    /// `MARK_*`; bits that are not defined are zero.
    pub flags: U32,
    /// The stream.
    pub stream: [u8; 16],
    /// Epoch of the stream at the last mount that wrote records.
    pub epoch: U64,
    /// With [`MARK_CLEAN`] the end of the log, else where the records of the last mount begin.
    pub next_lsn: U64,
    /// All below is known to be on the stable storage of the tree itself; zero where nothing is known.
    pub synced_lsn: U64,
    /// With [`MARK_GAP`] where the log begins to lack changes, else zero.
    pub gap_lsn: U64,
    /// Zero.
    pub reserved: [u8; 28],
    /// CRC32C of all of the above.
    pub crc: U32,
}

/// The rule that the value of the attribute breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkError {
    /// It is not [`MARK_LEN`] bytes long.
    Length(usize),
    /// It does not begin with [`MARK_MAGIC`].
    Magic,
    /// Its checksum does not match.
    Checksum,
    /// A version that this code does not read.
    Version(u32),
    /// A flag that this version does not define.
    Flags(u32),
}

impl core::fmt::Display for MarkError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Length(found) => write!(f, "mark is {found} bytes long, not {MARK_LEN}"),
            Self::Magic => write!(f, "mark has the wrong magic"),
            Self::Checksum => write!(f, "checksum of the mark does not match"),
            Self::Version(found) => write!(f, "mark version {found}; this program reads {MARK_VERSION}"),
            Self::Flags(found) => write!(f, "mark flags {found:#x} are not known to this program"),
        }
    }
}

impl core::error::Error for MarkError {}

impl Mark {
    /// A mark with its checksum in place. `gap` is where the log begins to lack changes, if it does; [`MARK_GAP`]
    /// follows from it.
    pub fn new(flags: u32, stream: [u8; 16], epoch: u64, next_lsn: Lsn, synced_lsn: Lsn, gap: Option<Lsn>) -> Self {
        let flags = if gap.is_some() { flags | MARK_GAP } else { flags };
        let mut mark = Self {
            magic: MARK_MAGIC,
            version: U32::new(MARK_VERSION),
            flags: U32::new(flags),
            stream,
            epoch: U64::new(epoch),
            next_lsn: U64::new(next_lsn),
            synced_lsn: U64::new(synced_lsn),
            gap_lsn: U64::new(gap.unwrap_or(0)),
            reserved: [0; 28],
            crc: U32::ZERO,
        };
        mark.crc = U32::new(mark.checksum());
        mark
    }

    /// The mark that is the value of an attribute.
    pub fn parse(value: &[u8]) -> Result<Self, MarkError> {
        let mark = Self::read_from_bytes(value).map_err(|_| MarkError::Length(value.len()))?;
        if mark.magic != MARK_MAGIC {
            return Err(MarkError::Magic);
        }
        if mark.crc.get() != mark.checksum() {
            return Err(MarkError::Checksum);
        }
        if mark.version.get() != MARK_VERSION {
            return Err(MarkError::Version(mark.version.get()));
        }
        if mark.flags.get() & !MARK_FLAGS != 0 {
            return Err(MarkError::Flags(mark.flags.get()));
        }
        Ok(mark)
    }

    /// Where the log begins to lack changes, if it does.
    pub fn gap(&self) -> Option<Lsn> {
        (self.flags.get() & MARK_GAP != 0).then(|| self.gap_lsn.get())
    }

    /// Whether the log ends at [`Mark::next_lsn`].
    pub fn is_clean(&self) -> bool {
        self.flags.get() & MARK_CLEAN != 0
    }

    fn checksum(&self) -> u32 {
        let (covered, _) = self.as_bytes().split_at(offset_of!(Mark, crc));
        crc32c_append(0, covered)
    }
}

const _: () = {
    assert!(size_of::<Mark>() == 96);
    assert!(offset_of!(Mark, stream) == 16);
    assert!(offset_of!(Mark, epoch) == 32);
    assert!(offset_of!(Mark, gap_lsn) == 56);
    assert!(offset_of!(Mark, crc) == 92);
};
