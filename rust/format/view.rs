// SPDX-License-Identifier: GPL-2.0-or-later

//! Reading records: bytes of any origin in, a checked view or the rule they break out.
//!
//! A [`RecordView`] exists only for bytes whose lengths, checksums and structure have all been checked, so what is
//! taken out of it needs no second check, but names are still hostile: see [`check_name`].

use core::mem::size_of;

use super::crc32c_append;
use super::record::*;
use zerocopy::little_endian::U32;
use zerocopy::FromBytes;

/// The rule of the record format that some bytes break. Offsets are relative to the start of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The input ends before the record does; `needed` bytes would settle it.
    Truncated {
        /// Bytes needed from the start of the record.
        needed: usize,
    },
    /// The first four bytes are not [`RECORD_MAGIC`].
    Magic(u32),
    /// A version of the format that this code does not read.
    Version(u16),
    /// The length is too small, too large or no multiple of [`RECORD_ALIGN`].
    Length(u32),
    /// Header and body have an impossible length.
    HeadLength(u32),
    /// Head, payload, padding and trailer do not add up to the length.
    PayloadLength(u32),
    /// The checksum over header and body does not match.
    HeadChecksum,
    /// The checksum over the payload does not match.
    PayloadChecksum,
    /// Padding between payload and trailer is not zero.
    Padding,
    /// The last eight bytes do not repeat the length and [`RECORD_END_MAGIC`].
    Trailer,
    /// The LSN is not the one expected here.
    Lsn {
        /// The LSN that belongs here.
        expected: Lsn,
        /// The LSN in the header.
        found: Lsn,
    },
    /// A type that this code does not know and that must not be skipped.
    Type(u16),
    /// A flag that this version does not define.
    Flags(u32),
    /// The body is not as long as its type demands.
    BodyLength(u16),
    /// The parts of the payload do not add up.
    Parts,
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Truncated { needed } => write!(f, "record cut short: {needed} bytes are needed"),
            Self::Magic(found) => write!(f, "no record here: magic is {found:#010x}, not {RECORD_MAGIC:#010x}"),
            Self::Version(found) => write!(f, "record format version {found}; this program reads {RECORD_VERSION}"),
            Self::Length(found) => write!(f, "impossible record length {found}"),
            Self::HeadLength(found) => write!(f, "impossible head length {found}"),
            Self::PayloadLength(found) => write!(f, "payload length {found} does not agree with the record length"),
            Self::HeadChecksum => write!(f, "checksum of the record's head does not match"),
            Self::PayloadChecksum => write!(f, "checksum of the record's payload does not match"),
            Self::Padding => write!(f, "padding of the record is not zero"),
            Self::Trailer => write!(f, "end of the record does not repeat its length"),
            Self::Lsn { expected, found } => write!(f, "LSN {found:#x} where {expected:#x} belongs"),
            Self::Type(found) => write!(f, "record type {found} is not known to this program and must not be skipped"),
            Self::Flags(found) => write!(f, "record flags {found:#x} are not known to this program"),
            Self::BodyLength(found) => write!(f, "body of a record of type {found} has the wrong length"),
            Self::Parts => write!(f, "parts of the record's payload do not add up"),
        }
    }
}

impl core::error::Error for RecordError {}

/// A whole record whose lengths and checksums have been checked.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    header: &'a RecordHeader,
    bytes: &'a [u8],
    kind: Option<RecordType>,
}

/// Length in bytes of the record that begins with `bytes`, judged by its header alone (magic, version, lengths);
/// the checksums have not been looked at. [`RecordError::Truncated`] if there is no whole header.
pub fn peek_length(bytes: &[u8]) -> Result<usize, RecordError> {
    let (header, _) =
        RecordHeader::ref_from_prefix(bytes).map_err(|_| RecordError::Truncated { needed: HEADER_LEN })?;
    if header.magic.get() != RECORD_MAGIC {
        return Err(RecordError::Magic(header.magic.get()));
    }
    if header.version.get() != RECORD_VERSION {
        return Err(RecordError::Version(header.version.get()));
    }
    let raw_length = header.length.get();
    let length = raw_length as usize;
    if !(RECORD_MIN..=RECORD_MAX).contains(&length) || length % RECORD_ALIGN != 0 {
        return Err(RecordError::Length(raw_length));
    }
    let head = header.head_length.get() as usize;
    if head < HEADER_LEN || head > length - TRAILER_LEN || head % RECORD_ALIGN != 0 {
        return Err(RecordError::HeadLength(header.head_length.get()));
    }
    if record_len(head, header.payload_length.get() as usize) != Some(length) {
        return Err(RecordError::PayloadLength(header.payload_length.get()));
    }
    Ok(length)
}

/// Length in bytes of the record that *ends* where `bytes` ends, judged by its trailer alone: the step of a backward
/// scan, to be followed by [`RecordView::parse`] of those bytes.
pub fn peek_length_back(bytes: &[u8]) -> Result<usize, RecordError> {
    let (_, trailer) =
        RecordTrailer::ref_from_suffix(bytes).map_err(|_| RecordError::Truncated { needed: TRAILER_LEN })?;
    if trailer.magic.get() != RECORD_END_MAGIC {
        return Err(RecordError::Trailer);
    }
    let length = trailer.length.get() as usize;
    if !(RECORD_MIN..=RECORD_MAX).contains(&length) || length % RECORD_ALIGN != 0 {
        return Err(RecordError::Length(trailer.length.get()));
    }
    if length > bytes.len() {
        return Err(RecordError::Truncated { needed: length });
    }
    Ok(length)
}

impl<'a> RecordView<'a> {
    /// The record that begins with `bytes`; what follows it is ignored.
    ///
    /// Every rule of the format is checked. A type that is not known is an error unless the record says that it may
    /// be skipped. With `expected`, the LSN has to be that one.
    pub fn parse(bytes: &'a [u8], expected: Option<Lsn>) -> Result<Self, RecordError> {
        let view = Self::again(bytes)?;
        let (header, length) = (view.header, view.bytes.len());

        let mut plain = *header;
        plain.head_crc = U32::ZERO;
        let body = view.slice(HEADER_LEN, view.head_len() - HEADER_LEN)?;
        if crc32c_append(crc32c_append(0, zerocopy::IntoBytes::as_bytes(&plain)), body) != header.head_crc.get() {
            return Err(RecordError::HeadChecksum);
        }
        if header.flags.get() & !RECORD_FLAGS != 0 {
            return Err(RecordError::Flags(header.flags.get()));
        }
        match view.kind {
            Some(kind) if kind.body_len() != body.len() => return Err(RecordError::BodyLength(header.kind.get())),
            None if header.flags.get() & RECORD_SKIPPABLE == 0 => return Err(RecordError::Type(header.kind.get())),
            _ => {}
        }
        if let Some(expected) = expected {
            if header.lsn.get() != expected {
                return Err(RecordError::Lsn { expected, found: header.lsn.get() });
            }
        }
        let trailer = RecordTrailer::read_from_bytes(view.slice(length - TRAILER_LEN, TRAILER_LEN)?)
            .map_err(|_| RecordError::Trailer)?;
        if trailer.magic.get() != RECORD_END_MAGIC || trailer.length != header.length {
            return Err(RecordError::Trailer);
        }
        if crc32c_append(0, view.payload()) != header.payload_crc.get() {
            return Err(RecordError::PayloadChecksum);
        }
        let end = view.head_len() + view.payload().len();
        if view.slice(end, length - TRAILER_LEN - end)?.iter().any(|&byte| byte != 0) {
            return Err(RecordError::Padding);
        }
        Ok(view)
    }

    /// The record that begins with `bytes`, which [`RecordView::parse`] has accepted before: its lengths are looked at
    /// again, its checksums are not.
    pub fn again(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let length = peek_length(bytes)?;
        let bytes = bytes.get(..length).ok_or(RecordError::Truncated { needed: length })?;
        let (header, _) =
            RecordHeader::ref_from_prefix(bytes).map_err(|_| RecordError::Truncated { needed: HEADER_LEN })?;
        Ok(RecordView { header, bytes, kind: RecordType::from_raw(header.kind.get()) })
    }

    fn slice(&self, start: usize, length: usize) -> Result<&'a [u8], RecordError> {
        start.checked_add(length).and_then(|end| self.bytes.get(start..end)).ok_or(RecordError::Parts)
    }

    fn head_len(&self) -> usize {
        self.header.head_length.get() as usize
    }

    /// The header.
    pub fn header(&self) -> &'a RecordHeader {
        self.header
    }

    /// The type, or `None` for a record of a type that is not known and may be skipped.
    pub fn kind(&self) -> Option<RecordType> {
        self.kind
    }

    /// Position of this record in the log.
    pub fn lsn(&self) -> Lsn {
        self.header.lsn.get()
    }

    /// Position of the record that follows.
    pub fn next_lsn(&self) -> Lsn {
        self.lsn().saturating_add(self.bytes.len() as u64)
    }

    /// The whole record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The payload, without padding.
    pub fn payload(&self) -> &'a [u8] {
        let start = self.head_len();
        self.bytes.get(start..start + self.header.payload_length.get() as usize).unwrap_or(&[])
    }

    /// What the record says, its payload taken apart.
    pub fn event(&self) -> Result<Event<'a>, RecordError> {
        let mut parts = Parts { rest: self.payload() };
        let event = match self.kind {
            None => return Ok(Event::Skipped),
            Some(RecordType::Mount) => {
                let body: &MountBody = self.body()?;
                Event::Mount { body, xattrs: parts.xattrs(body.xattrs_len.get(), body.xattrs.get())? }
            }
            Some(RecordType::Unmount) => Event::Unmount,
            Some(RecordType::Noop) => {
                parts.rest = &[];
                Event::Noop
            }
            Some(RecordType::Gap) => Event::Gap { body: self.body()? },
            Some(RecordType::GapEnd) => Event::GapEnd { body: self.body()? },
            Some(RecordType::Create) => {
                let body: &CreateBody = self.body()?;
                Event::Create {
                    body,
                    name: parts.take(body.name_len.get())?,
                    target: parts.take(body.target_len.get())?,
                    xattrs: parts.xattrs(body.xattrs_len.get(), body.xattrs.get())?,
                }
            }
            Some(RecordType::Link) => {
                let body: &LinkBody = self.body()?;
                Event::Link { body, name: parts.take(body.name_len.get())? }
            }
            Some(RecordType::Unlink) => {
                let body: &UnlinkBody = self.body()?;
                Event::Unlink { body, name: parts.take(body.name_len.get())? }
            }
            Some(RecordType::Rename) => {
                let body: &RenameBody = self.body()?;
                Event::Rename {
                    body,
                    old_name: parts.take(body.old_name_len.get())?,
                    new_name: parts.take(body.new_name_len.get())?,
                    whiteout: match body.flags.get() & RENAME_WHITEOUT {
                        0 => None,
                        _ => Some(parts.whiteout()?),
                    },
                }
            }
            Some(RecordType::ObjectGone) => Event::ObjectGone,
            Some(RecordType::Reidentified) => Event::Reidentified { body: self.body()? },
            Some(RecordType::Write) => {
                let data = parts.rest;
                parts.rest = &[];
                Event::Write { body: self.body()?, data }
            }
            Some(RecordType::Truncate) => Event::Truncate { body: self.body()? },
            Some(RecordType::Setattr) => Event::Setattr { body: self.body()? },
            Some(RecordType::SetFileattr) => Event::SetFileattr { body: self.body()? },
            Some(RecordType::Fallocate) => Event::Fallocate { body: self.body()? },
            Some(RecordType::SetXattr) => {
                let body: &XattrBody = self.body()?;
                let name = parts.take(body.name_len.get())?;
                Event::SetXattr { body, name, value: parts.take(body.value_len.get())? }
            }
            Some(RecordType::RemoveXattr) => {
                let body: &XattrBody = self.body()?;
                Event::RemoveXattr { body, name: parts.take(body.name_len.get())? }
            }
            Some(RecordType::ObjectState) => {
                let body: &ObjectStateBody = self.body()?;
                Event::ObjectState {
                    body,
                    target: parts.take(body.target_len.get())?,
                    xattrs: parts.xattrs(body.xattrs_len.get(), body.xattrs.get())?,
                }
            }
            Some(RecordType::ObjectData) => {
                let body: &ObjectDataBody = self.body()?;
                let data = core::mem::take(&mut parts.rest);
                let hole = body.flags.get() & STATE_HOLE != 0;
                if data.len() as u64 != if hole { 0 } else { body.length.get() } {
                    return Err(RecordError::Parts);
                }
                Event::ObjectData { body, data }
            }
            Some(RecordType::DirectoryState) => {
                let body: &DirectoryStateBody = self.body()?;
                Event::DirectoryState { body, entries: parts.entries(body.entries.get())? }
            }
            Some(RecordType::CheckpointBegin) => Event::CheckpointBegin { body: self.body()? },
            Some(RecordType::CheckpointEnd) => Event::CheckpointEnd { body: self.body()? },
            Some(kind @ (RecordType::Active | RecordType::Synced)) => return Err(RecordError::Type(kind as u16)),
        };
        if parts.rest.is_empty() {
            Ok(event)
        } else {
            Err(RecordError::Parts)
        }
    }

    fn body<B: Body + 'a>(&self) -> Result<&'a B, RecordError> {
        B::ref_from_bytes(self.slice(HEADER_LEN, size_of::<B>())?)
            .map_err(|_| RecordError::BodyLength(self.header.kind.get()))
    }
}

/// The type that the beginning of a record states; `None` where it is not known, or there is none. Nothing else is checked.
pub fn peek_kind(bytes: &[u8]) -> Option<RecordType> {
    let raw = bytes.get(6..8)?.try_into().ok()?;
    RecordType::from_raw(u16::from_le_bytes(raw))
}

/// What a record says. See the structures of the bodies for the meaning of the fields.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Event<'a> {
    Mount {
        body: &'a MountBody,
        xattrs: Xattrs<'a>,
    },
    Unmount,
    Noop,
    Gap {
        body: &'a GapBody,
    },
    GapEnd {
        body: &'a GapEndBody,
    },
    Create {
        body: &'a CreateBody,
        name: &'a [u8],
        target: &'a [u8],
        xattrs: Xattrs<'a>,
    },
    Link {
        body: &'a LinkBody,
        name: &'a [u8],
    },
    Unlink {
        body: &'a UnlinkBody,
        name: &'a [u8],
    },
    Rename {
        body: &'a RenameBody,
        old_name: &'a [u8],
        new_name: &'a [u8],
        whiteout: Option<Whiteout<'a>>,
    },
    ObjectGone,
    Reidentified {
        body: &'a ReidentifiedBody,
    },
    Write {
        body: &'a WriteBody,
        data: &'a [u8],
    },
    Truncate {
        body: &'a AttrBody,
    },
    Setattr {
        body: &'a AttrBody,
    },
    SetFileattr {
        body: &'a AttrBody,
    },
    Fallocate {
        body: &'a FallocateBody,
    },
    SetXattr {
        body: &'a XattrBody,
        name: &'a [u8],
        value: &'a [u8],
    },
    RemoveXattr {
        body: &'a XattrBody,
        name: &'a [u8],
    },
    ObjectState {
        body: &'a ObjectStateBody,
        target: &'a [u8],
        xattrs: Xattrs<'a>,
    },
    ObjectData {
        body: &'a ObjectDataBody,
        data: &'a [u8],
    },
    DirectoryState {
        body: &'a DirectoryStateBody,
        entries: Entries<'a>,
    },
    CheckpointBegin {
        body: &'a CheckpointBeginBody,
    },
    CheckpointEnd {
        body: &'a CheckpointEndBody,
    },
    /// A record of a type that is not known and may be skipped.
    Skipped,
}

/// What a rename left at the old name.
#[derive(Clone, Copy, Debug)]
pub struct Whiteout<'a> {
    /// Its attributes.
    pub attr: &'a Attributes,
    /// The extended attributes that it was born with.
    pub xattrs: Xattrs<'a>,
}

/// The extended attributes in a payload, checked to be whole.
#[derive(Clone, Copy, Debug)]
pub struct Xattrs<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> Iterator for Xattrs<'a> {
    /// Name and value.
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut parts = Parts { rest: self.bytes };
        let item = parts.xattr().ok()?;
        self.bytes = parts.rest;
        self.count = self.count.saturating_sub(1);
        Some(item)
    }
}

impl Xattrs<'_> {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The entries of a directory in a payload, checked to be whole.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    /// The entry and its name.
    type Item = (&'a DirectoryEntry, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut parts = Parts { rest: self.bytes };
        let item = parts.entry().ok()?;
        self.bytes = parts.rest;
        Some(item)
    }
}

/// A payload being taken apart. Each part is followed by padding to [`RECORD_ALIGN`], which the last part of a
/// payload does not have.
struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn take(&mut self, length: u32) -> Result<&'a [u8], RecordError> {
        let length = length as usize;
        let part = self.rest.get(..length).ok_or(RecordError::Parts)?;
        let padded = pad(length).ok_or(RecordError::Parts)?.min(self.rest.len());
        let padding = self.rest.get(length..padded).ok_or(RecordError::Parts)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(RecordError::Padding);
        }
        self.rest = self.rest.get(padded..).ok_or(RecordError::Parts)?;
        Ok(part)
    }

    fn xattr(&mut self) -> Result<(&'a [u8], &'a [u8]), RecordError> {
        let (entry, rest) = XattrEntry::ref_from_prefix(self.rest).map_err(|_| RecordError::Parts)?;
        let name_len = entry.name_len.get() as usize;
        let both = name_len.checked_add(entry.value_len.get() as usize).ok_or(RecordError::Parts)?;
        self.rest = rest;
        let both = self.take(u32::try_from(both).map_err(|_| RecordError::Parts)?)?;
        if name_len > both.len() {
            return Err(RecordError::Parts);
        }
        Ok(both.split_at(name_len))
    }

    fn whiteout(&mut self) -> Result<Whiteout<'a>, RecordError> {
        let (part, rest) = WhiteoutPart::ref_from_prefix(self.rest).map_err(|_| RecordError::Parts)?;
        self.rest = rest;
        Ok(Whiteout { attr: &part.attr, xattrs: self.xattrs(part.xattrs_len.get(), part.xattrs.get())? })
    }

    fn entry(&mut self) -> Result<(&'a DirectoryEntry, &'a [u8]), RecordError> {
        let (entry, rest) = DirectoryEntry::ref_from_prefix(self.rest).map_err(|_| RecordError::Parts)?;
        self.rest = rest;
        Ok((entry, self.take(entry.name_len.get())?))
    }

    /// The rest of the payload as so many entries.
    fn entries(&mut self, count: u32) -> Result<Entries<'a>, RecordError> {
        let bytes = self.rest;
        for _ in 0..count {
            self.entry()?;
        }
        Ok(Entries { bytes: bytes.get(..bytes.len() - self.rest.len()).unwrap_or(&[]) })
    }

    fn xattrs(&mut self, length: u32, count: u32) -> Result<Xattrs<'a>, RecordError> {
        let bytes = self.take(length)?;
        let mut check = Parts { rest: bytes };
        for _ in 0..count {
            check.xattr()?;
        }
        if !check.rest.is_empty() {
            return Err(RecordError::Parts);
        }
        Ok(Xattrs { bytes, count })
    }
}

/// Whether `name` may be the name of a directory entry: not empty, at most 255 bytes, neither `.` nor `..`, without
/// a slash and without a null byte. Whoever turns names from media into paths asks this first.
pub fn check_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}
