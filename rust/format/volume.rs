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
/// Label feature: data blocks may be compressed.
pub const FEATURE_COMPRESSED: u64 = 1 << 0;
/// Label feature: blocks may be encrypted; the volume start says whether they are.
pub const FEATURE_ENCRYPTED: u64 = 1 << 1;
/// Incompatible features that this code understands; a volume with others is not read and not written.
pub const INCOMPATIBLE_KNOWN: u64 = FEATURE_COMPRESSED | FEATURE_ENCRYPTED;
/// A data block holds at most this many times its own length of the log.
pub const PLAIN_RATIO_MAX: usize = 16;
/// And never more than this, in bytes.
pub const PLAIN_LENGTH_MAX: usize = 32 << 20;
/// Length in bytes of what encryption adds at the end of a payload, a [`Seal`].
pub const SEAL_LEN: usize = size_of::<Seal>();

/// Largest `plain_length` of a data block, for blocks of this size: a reader needs no more memory than that.
pub const fn plain_length_max(block_size: usize) -> usize {
    let most = block_size.saturating_mul(PLAIN_RATIO_MAX);
    if most < PLAIN_LENGTH_MAX {
        most
    } else {
        PLAIN_LENGTH_MAX
    }
}

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
    /// The key of an encrypted volume, locked. Payload [`VolumeKeyHead`] and what it announces.
    VolumeKey = 5,
}

impl BlockKind {
    /// The kind with this number, if it is one that this code knows.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::VolumeStart),
            2 => Some(Self::Data),
            3 => Some(Self::SegmentEnd),
            4 => Some(Self::Trailer),
            5 => Some(Self::VolumeKey),
            _ => None,
        }
    }
}

/// How a payload is coded: [`BlockHeader::codec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Codec {
    /// As it is.
    Plain = 0,
    /// A zstd frame (RFC 8878).
    Zstd = 1,
    /// Encrypted; a [`Seal`] follows.
    Encrypted = 2,
    /// A zstd frame, encrypted; a [`Seal`] follows.
    ZstdEncrypted = 3,
    /// As it is, and authenticated: a [`Seal`] follows. Of kinds other than data, on encrypted volumes.
    Authenticated = 4,
}

impl Codec {
    /// The coding with this number, if it is one that this code knows.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            2 => Some(Self::Encrypted),
            3 => Some(Self::ZstdEncrypted),
            4 => Some(Self::Authenticated),
            _ => None,
        }
    }

    /// Whether the payload is compressed.
    pub const fn is_compressed(self) -> bool {
        matches!(self, Self::Zstd | Self::ZstdEncrypted)
    }

    /// Whether the payload ends with a [`Seal`].
    pub const fn is_sealed(self) -> bool {
        matches!(self, Self::Encrypted | Self::ZstdEncrypted | Self::Authenticated)
    }
}

/// The last bytes of a payload that is encrypted or authenticated with XChaCha20-Poly1305 under the volume's key.
///
/// Associated data is the block header with a `crc` of zero, followed, for [`Codec::Authenticated`], by the payload
/// before the seal; that is not encrypted then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Seal {
    /// Chosen at random for each block that is written.
    pub nonce: [u8; 24],
    /// The authentication tag.
    pub tag: [u8; 16],
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
    /// Position in the log of the first byte that the payload holds; for other kinds, how far the log on this volume reaches.
    pub lsn_start: U64,
    /// Position in the log behind the last byte that the payload holds; for other kinds the same as `lsn_start`.
    pub lsn_end: U64,
    /// Timeline of the stream; 1 unless a restore went on from the past.
    pub timeline: U32,
    /// Offset in the decoded payload of the first record that starts in it, or [`NO_RECORD`].
    pub first_record: U32,
    /// How the payload is coded: a [`Codec`].
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
    /// Fingerprint of the volume's key, zero: not encrypted.
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

/// What the payload of [`BlockKind::VolumeKey`] begins with; the wrapped key and the recipients follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VolumeKeyHead {
    /// Fingerprint of the key, as in the volume start.
    pub fingerprint: [u8; 32],
    /// Length in bytes of the wrapped key: an age file (age-encryption.org/v1) that holds the key's 32 bytes.
    pub wrapped_length: U32,
    /// Length in bytes of the list of recipients that can unwrap it, UTF-8, one on each line.
    pub recipients_length: U32,
    /// Zero.
    pub reserved: [u8; 8],
}

/// The parts of the payload of [`BlockKind::VolumeKey`].
#[derive(Clone, Copy, Debug)]
pub struct VolumeKeyView<'a> {
    /// How it begins.
    pub head: &'a VolumeKeyHead,
    /// The wrapped key.
    pub wrapped: &'a [u8],
    /// The recipients.
    pub recipients: &'a str,
}

impl<'a> VolumeKeyView<'a> {
    /// The parts of `payload`, or `None` if it has others.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (head, rest) = VolumeKeyHead::ref_from_prefix(payload).ok()?;
        let (wrapped, recipients) = rest.split_at_checked(usize::try_from(head.wrapped_length.get()).ok()?)?;
        if recipients.len() != usize::try_from(head.recipients_length.get()).ok()? || wrapped.is_empty() {
            return None;
        }
        Some(VolumeKeyView { head, wrapped, recipients: core::str::from_utf8(recipients).ok()? })
    }
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
    /// A coding that this code does not know, or that blocks of this kind do not have.
    Codec(u32),
    /// The payload would be longer, or is of another length when decoded, than the format allows.
    PlainLength(u32),
    /// The block uses a feature that the label does not announce.
    Feature(u64),
    /// The block is not encrypted, on a volume that is.
    Unsealed,
    /// The block is encrypted, on a volume that is not.
    Sealed,
    /// Header or payload are not what was encrypted, or not with this key.
    Seal,
    /// The payload is not what its compression says it is.
    Compression,
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
            Self::PlainLength(found) => write!(f, "impossible length when decoded, {found}"),
            Self::Feature(bit) => write!(f, "uses a feature that the label does not announce ({bit:#x})"),
            Self::Unsealed => write!(f, "not encrypted, on a volume that is"),
            Self::Sealed => write!(f, "encrypted, on a volume that is not"),
            Self::Seal => write!(f, "altered, or encrypted with another key (authentication fails)"),
            Self::Compression => write!(f, "cannot be decompressed"),
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
    /// How the payload is coded; `None` for a kind that is not known.
    pub codec: Option<Codec>,
    /// The payload as it is stored, without its seal.
    pub payload: &'a [u8],
    /// What the payload is sealed with.
    pub seal: Option<&'a Seal>,
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
        let Some(kind) = BlockKind::from_raw(header.kind.get()) else {
            if header.flags.get() & BLOCK_SKIPPABLE == 0 {
                return Err(VolumeError::Kind(header.kind.get()));
            }
            return Ok(BlockView { header, kind: None, codec: None, payload, seal: None });
        };
        let codec = Codec::from_raw(header.codec.get()).ok_or(VolumeError::Codec(header.codec.get()))?;
        let (payload, seal) = if codec.is_sealed() {
            let (payload, seal) = Seal::ref_from_suffix(payload).map_err(|_| VolumeError::PayloadLength(length))?;
            (payload, Some(seal))
        } else {
            (payload, None)
        };
        let view = BlockView { header, kind: Some(kind), codec: Some(codec), payload, seal };
        match kind {
            BlockKind::Data => view.check_data(codec, bytes.len())?,
            other => view.check_body(other, codec)?,
        }
        Ok(view)
    }

    fn check_data(&self, codec: Codec, block_size: usize) -> Result<(), VolumeError> {
        let plain = self.header.plain_length.get();
        match codec {
            Codec::Authenticated => return Err(VolumeError::Codec(self.header.codec.get())),
            Codec::Plain | Codec::Encrypted if plain as usize != self.payload.len() => {
                return Err(VolumeError::PlainLength(plain))
            }
            _ if plain as usize > plain_length_max(block_size) => return Err(VolumeError::PlainLength(plain)),
            _ => {}
        }
        let (start, end): (Lsn, Lsn) = (self.header.lsn_start.get(), self.header.lsn_end.get());
        if start.checked_add(u64::from(plain)) != Some(end) || plain == 0 {
            return Err(VolumeError::Range);
        }
        let first = self.header.first_record.get();
        if first != NO_RECORD && first >= plain {
            return Err(VolumeError::Range);
        }
        Ok(())
    }

    fn check_body(&self, kind: BlockKind, codec: Codec) -> Result<(), VolumeError> {
        if !matches!(codec, Codec::Plain | Codec::Authenticated) {
            return Err(VolumeError::Codec(self.header.codec.get()));
        }
        if self.header.plain_length.get() as usize != self.payload.len() {
            return Err(VolumeError::PlainLength(self.header.plain_length.get()));
        }
        let fits = match kind {
            BlockKind::VolumeStart => self.payload.len() == size_of::<VolumeStart>(),
            BlockKind::SegmentEnd => self.payload.len() == size_of::<SegmentEnd>(),
            BlockKind::Trailer => self.payload.len() == size_of::<Trailer>(),
            BlockKind::VolumeKey => VolumeKeyView::parse(self.payload).is_some(),
            BlockKind::Data => true,
        };
        if !fits {
            return Err(VolumeError::PayloadLength(self.header.payload_length.get()));
        }
        if self.header.lsn_start != self.header.lsn_end {
            return Err(VolumeError::Range);
        }
        Ok(())
    }

    /// Whether the block may stand on a volume whose label announces these features, and that is encrypted or not.
    pub fn fits(&self, features: u64, encrypted: bool) -> Result<(), VolumeError> {
        let Some(codec) = self.codec else { return Ok(()) };
        if codec.is_compressed() && features & FEATURE_COMPRESSED == 0 {
            return Err(VolumeError::Feature(FEATURE_COMPRESSED));
        }
        match (codec.is_sealed(), encrypted) {
            (true, _) if features & FEATURE_ENCRYPTED == 0 => Err(VolumeError::Feature(FEATURE_ENCRYPTED)),
            (true, false) => Err(VolumeError::Sealed),
            (false, true) => Err(VolumeError::Unsealed),
            _ => Ok(()),
        }
    }

    /// The payload as the structure that its kind has.
    pub fn body<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> Result<&'a T, VolumeError> {
        T::ref_from_bytes(self.payload).map_err(|_| VolumeError::PayloadLength(self.header.payload_length.get()))
    }

    /// The payload of a [`BlockKind::VolumeKey`].
    pub fn volume_key(&self) -> Result<VolumeKeyView<'a>, VolumeError> {
        let wrong = VolumeError::PayloadLength(self.header.payload_length.get());
        VolumeKeyView::parse(self.payload).ok_or(wrong)
    }
}

impl BlockHeader {
    /// The header as a seal authenticates it: without the checksum, which covers the seal too.
    pub fn authenticated(&self) -> Self {
        BlockHeader { magic: BLOCK_MAGIC, crc: U32::ZERO, ..*self }
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
    assert!(size_of::<VolumeKeyHead>() == 48);
    assert!(SEAL_LEN == 40);
};
