// SPDX-License-Identifier: GPL-2.0-or-later

//! The record: one change to the tree, as it stands in the ring, in the spool and on the media.
//!
//! A record is `header | body | payload | padding | trailer`, little-endian, a multiple of
//! [`RECORD_ALIGN`] bytes long. The header is the same for every type, the body is a fixed structure
//! chosen by the type, the payload holds what varies in length (names, file contents, extended
//! attribute values). The length stands at both ends, so a log can be scanned in both directions.
//!
//! This file is compiled into the kernel module and into every program; it uses `core` and `zerocopy`
//! alone and does no I/O. `Documentation/format/record.md` is its specification: the two change
//! together. Parsing never panics and never reads outside the slice it was given.

use core::mem::{offset_of, size_of};

use super::crc32c_append;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First four bytes of every record: `REEL`.
pub const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"REEL");
/// Last four bytes of every record: `LEER`.
pub const RECORD_END_MAGIC: u32 = u32::from_le_bytes(*b"LEER");
/// The version of the record format that this code writes, and the only one it reads.
pub const RECORD_VERSION: u16 = 1;
/// Every record starts at, and its length is, a multiple of this, in bytes.
pub const RECORD_ALIGN: usize = 8;
/// No record is longer than this, in bytes, header and trailer included.
pub const RECORD_MAX: usize = 2 << 20;
/// No single write record carries more data than this, in bytes; larger writes become several records.
pub const WRITE_MAX: usize = 1 << 20;

/// A position in the log: a byte offset that only grows. The next record's LSN is this one's plus its length.
pub type Lsn = u64;

macro_rules! record_types {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// What a record says. Numbers are never used again for something else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum RecordType { $($(#[$doc])* $name = $value,)* }

        impl RecordType {
            /// Every type there is, in the order of their numbers.
            pub const ALL: &'static [RecordType] = &[$(RecordType::$name,)*];

            /// The type with this number, if it is one that this code knows.
            pub const fn from_raw(raw: u16) -> Option<Self> {
                match raw { $($value => Some(Self::$name),)* _ => None }
            }

            /// The name by which documents and `reel dump` call it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

record_types! {
    /// A mount was attached to the log; the object is the root. Body [`MountBody`], payload: the root's xattrs.
    Mount = 1,
    /// The mount went. Body [`UnmountBody`].
    Unmount = 2,
    /// Nothing; fills room. No body.
    Noop = 3,
    /// The log lacks changes between the record before and the record after. Body [`GapBody`].
    Gap = 4,
    /// The log is continuous again from here on; what changed in the gap is still missing. Body [`GapEndBody`].
    GapEnd = 5,
    /// An object came to be under a name. Body [`CreateBody`].
    Create = 16,
    /// An object got another name. Body [`LinkBody`].
    Link = 17,
    /// A name went (`unlink`, `rmdir`). Body [`UnlinkBody`].
    Unlink = 18,
    /// A name changed, or two were exchanged. Body [`RenameBody`].
    Rename = 19,
    /// The last reference to an object without a name went. No body.
    ObjectGone = 20,
    /// An object is known by another identity from here on. Body [`ReidentifiedBody`].
    Reidentified = 21,
    /// Bytes were stored in a file. Body [`WriteBody`], payload: the bytes.
    Write = 32,
    /// A file's size was set. Body [`AttrBody`].
    Truncate = 33,
    /// `fallocate(2)`, any mode. Body [`FallocateBody`].
    Fallocate = 34,
    /// Mode, owner or times were set, or changed as a side effect. Body [`AttrBody`].
    Setattr = 48,
    /// An extended attribute (an ACL too) was set. Body [`XattrBody`], payload: name, value.
    SetXattr = 49,
    /// An extended attribute (an ACL too) was removed. Body [`XattrBody`], payload: name.
    RemoveXattr = 50,
    /// File attributes (`chattr(1)`) or the project id were set. Body [`AttrBody`].
    SetFileattr = 51,
    /// What an object is like, contents and entries apart, put into the log by a checkpoint. Body [`ObjectStateBody`].
    ObjectState = 64,
    /// What a range of a file holds, put into the log by a checkpoint. Body [`ObjectDataBody`], payload: the bytes.
    ObjectData = 65,
    /// Some of a directory's entries, put into the log by a checkpoint. Body [`DirectoryStateBody`], payload: the
    /// entries ([`DirectoryEntry`]).
    DirectoryState = 66,
    /// A checkpoint begins; its LSN names the checkpoint. The object is the root. Body [`CheckpointBeginBody`].
    CheckpointBegin = 80,
    /// A checkpoint is complete: from its begin on, the log gives the whole tree. Body [`CheckpointEndBody`].
    CheckpointEnd = 81,
    /// Reserved: an object is about to be changed in place for the first time since the last synced mark.
    Active = 82,
    /// Reserved: the lower filesystem is known synced up to an LSN.
    Synced = 83,
}

/// Header flag: a reader that does not know the type may skip the record; without it, it must stop.
pub const RECORD_SKIPPABLE: u32 = 1 << 0;
/// Header flag of [`RecordType::Unlink`] and [`RecordType::Create`]: the object is a directory.
pub const RECORD_DIRECTORY: u32 = 1 << 1;
/// Header flag: the operation reported an error to its caller after it had had an effect.
pub const RECORD_PARTIAL: u32 = 1 << 2;
/// All header flags that this version defines.
pub const RECORD_FLAGS: u32 = RECORD_SKIPPABLE | RECORD_DIRECTORY | RECORD_PARTIAL;

/// The name of an object: the lower filesystem's own file handle (`open_by_handle_at(2)`), without its parent.
///
/// Unused bytes are zero, so identities compare as plain bytes. The all-zero value means "none".
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Identity {
    /// `FILEID_*` of the handle (`include/linux/exportfs.h`).
    pub kind: U16,
    /// Bytes of the handle that are in use, at most [`Identity::CAPACITY`].
    pub len: u8,
    /// Zero.
    pub reserved: u8,
    /// The handle.
    pub bytes: [u8; Identity::CAPACITY],
}

impl Identity {
    /// Longest handle that fits, in bytes (btrfs has the longest of the supported ones: 20).
    pub const CAPACITY: usize = 28;
    /// No object.
    pub const NONE: Identity = Identity { kind: U16::new(0), len: 0, reserved: 0, bytes: [0; Identity::CAPACITY] };

    /// The identity made of a handle, or `None` if the handle is empty or does not fit.
    pub fn new(kind: u16, handle: &[u8]) -> Option<Self> {
        let mut identity = Identity { kind: U16::new(kind), len: u8::try_from(handle.len()).ok()?, ..Self::NONE };
        if handle.is_empty() {
            return None;
        }
        identity.bytes.get_mut(..handle.len())?.copy_from_slice(handle);
        Some(identity)
    }

    /// Whether this names no object.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The handle, or `None` if the length is impossible.
    pub fn handle(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.len))
    }
}

/// The attributes of an object as they are *after* the operation.
///
/// What restore gives back: mode, owner, size, device number, modification time, file attributes, project
/// id. `ctime` is there for the comparison of tree and log after a crash and is not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Attributes {
    /// Type and permission bits, as `st_mode` in `stat(2)`.
    pub mode: U32,
    /// Number of hard links.
    pub nlink: U32,
    /// Owner, in the initial user namespace.
    pub uid: U32,
    /// Group, in the initial user namespace.
    pub gid: U32,
    /// Size in bytes; zero for what is neither a regular file nor a symbolic link.
    pub size: U64,
    /// Major number of a device node, else zero.
    pub rdev_major: U32,
    /// Minor number of a device node, else zero.
    pub rdev_minor: U32,
    /// Modification time, seconds since 1970-01-01 UTC.
    pub mtime_sec: I64,
    /// Status change time, seconds since 1970-01-01 UTC.
    pub ctime_sec: I64,
    /// Modification time, nanoseconds.
    pub mtime_nsec: U32,
    /// Status change time, nanoseconds.
    pub ctime_nsec: U32,
    /// `FS_*_FL` file attributes (`include/uapi/linux/fs.h`), valid when [`Attributes::FILEATTR_VALID`] is set.
    pub fileattr: U32,
    /// Project id, valid with `fileattr`.
    pub projid: U32,
    /// [`Attributes::FILEATTR_VALID`] or zero.
    pub valid: U32,
    /// Generation number of the inode, as the lower filesystem has it.
    pub generation: U32,
}

impl Attributes {
    /// `fileattr` and `projid` were read from the lower filesystem.
    pub const FILEATTR_VALID: u32 = 1 << 0;
    /// All zero: the attributes of no object.
    pub const ZERO: Attributes = Attributes {
        mode: U32::ZERO,
        nlink: U32::ZERO,
        uid: U32::ZERO,
        gid: U32::ZERO,
        size: U64::ZERO,
        rdev_major: U32::ZERO,
        rdev_minor: U32::ZERO,
        mtime_sec: I64::ZERO,
        ctime_sec: I64::ZERO,
        mtime_nsec: U32::ZERO,
        ctime_nsec: U32::ZERO,
        fileattr: U32::ZERO,
        projid: U32::ZERO,
        valid: U32::ZERO,
        generation: U32::ZERO,
    };
}

/// The fixed beginning of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordHeader {
    /// [`RECORD_MAGIC`].
    pub magic: U32,
    /// [`RECORD_VERSION`].
    pub version: U16,
    /// A [`RecordType`].
    pub kind: U16,
    /// Length of the whole record in bytes, trailer included; a multiple of [`RECORD_ALIGN`].
    pub length: U32,
    /// Length of header and body in bytes; a multiple of [`RECORD_ALIGN`].
    pub head_length: U32,
    /// Position of this record in the log.
    pub lsn: U64,
    /// Wall-clock time at commit, nanoseconds since 1970-01-01 UTC. A label: the LSN gives the order.
    pub time: I64,
    /// `RECORD_*` flags; bits that are not defined are zero.
    pub flags: U32,
    /// Length of the payload in bytes, without padding.
    pub payload_length: U32,
    /// CRC32C of the payload.
    pub payload_crc: U32,
    /// CRC32C of header and body, with this field taken as zero.
    pub head_crc: U32,
    /// How often this stream had been attached to a newly made mount when the record was made; from 1.
    pub epoch: U64,
    /// Who did it: the owner id the lower filesystem saw (`current_fsuid()`), in the initial user namespace.
    pub uid: U32,
    /// Zero.
    pub reserved: U32,
    /// The object the record is about.
    pub object: Identity,
}

/// The fixed end of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordTrailer {
    /// The same as [`RecordHeader::length`].
    pub length: U32,
    /// [`RECORD_END_MAGIC`].
    pub magic: U32,
}

/// Length of [`RecordHeader`] in bytes.
pub const HEADER_LEN: usize = size_of::<RecordHeader>();
/// Length of [`RecordTrailer`] in bytes.
pub const TRAILER_LEN: usize = size_of::<RecordTrailer>();
/// Length of the shortest possible record in bytes.
pub const RECORD_MIN: usize = HEADER_LEN + TRAILER_LEN;

/// A body: the fixed structure behind the header of the record types named with it.
pub trait Body: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    /// The record types that carry this body.
    const TYPES: &'static [RecordType];
    /// Length of header and body in bytes.
    const HEAD_LEN: usize = HEADER_LEN + size_of::<Self>();
}

macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident [$($kind:ident),*] $size:literal { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
            #[repr(C)]
            pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }
            impl Body for $name {
                const TYPES: &'static [RecordType] = &[$(RecordType::$kind),*];
            }
            const _: () = assert!(size_of::<$name>() == $size && $size % RECORD_ALIGN == 0);
        )*

        impl RecordType {
            /// Length in bytes of the body that records of this type carry.
            pub const fn body_len(self) -> usize {
                match self {
                    $($(Self::$kind => $size,)*)*
                    _ => 0,
                }
            }
        }
    };
}

bodies! {
    /// The body of the types that have none.
    EmptyBody [Noop, ObjectGone] 0 {
    }
    /// Body of [`RecordType::Mount`]. Payload: the root's extended attributes ([`XattrEntry`]).
    MountBody [Mount] 136 {
        /// The stream.
        stream: [u8; 16],
        /// UUID of the lower filesystem, zero where it has none.
        lower_uuid: [u8; 16],
        /// `statfs` type of the lower filesystem.
        lower_magic: U64,
        /// `MOUNT_*` flags.
        flags: U64,
        /// Attributes of the root.
        root: Attributes,
        /// Length in bytes of the extended attributes in the payload.
        xattrs_len: U32,
        /// Number of extended attributes in the payload.
        xattrs: U32,
        /// Zero.
        reserved: U64,
    }
    /// Body of [`RecordType::Unmount`].
    UnmountBody [Unmount] 8 {
        /// Zero.
        reserved: U64,
    }
    /// Body of [`RecordType::Gap`].
    GapBody [Gap] 24 {
        /// Why changes are missing: `GAP_*`.
        reason: U32,
        /// Zero.
        reserved: U32,
        /// Bytes of committed records that were dropped, zero if not known.
        bytes: U64,
        /// Number of changes that were not recorded, zero if not known.
        changes: U64,
    }
    /// Body of [`RecordType::GapEnd`].
    GapEndBody [GapEnd] 40 {
        /// LSN of the [`RecordType::Gap`] that it ends.
        begin: U64,
        /// Wall-clock time at which the gap began, nanoseconds since 1970-01-01 UTC.
        since: I64,
        /// Number of changes that were made meanwhile and are in no log.
        changes: U64,
        /// Bytes of the records that they would have been.
        bytes: U64,
        /// Why changes are missing: `GAP_*`, as in the [`GapBody`].
        reason: U32,
        /// Zero.
        reserved: U32,
    }
    /// Body of [`RecordType::Create`]. Payload: name, target of a symbolic link, inherited xattrs ([`XattrEntry`]),
    /// each part padded to [`RECORD_ALIGN`].
    CreateBody [Create] 192 {
        /// The directory. None for an object made without a name (`O_TMPFILE`).
        parent: Identity,
        /// The new object.
        attr: Attributes,
        /// The directory, after it.
        parent_attr: Attributes,
        /// Length of the name in bytes.
        name_len: U32,
        /// Length of the target in bytes, zero for what is no symbolic link.
        target_len: U32,
        /// Length in bytes of the extended attributes.
        xattrs_len: U32,
        /// Number of extended attributes.
        xattrs: U32,
    }
    /// Body of [`RecordType::Link`]. Payload: the new name.
    LinkBody [Link] 184 {
        /// The directory.
        parent: Identity,
        /// The object.
        attr: Attributes,
        /// The directory, after it.
        parent_attr: Attributes,
        /// Length of the name in bytes.
        name_len: U32,
        /// Zero.
        reserved: U32,
    }
    /// Body of [`RecordType::Unlink`]. Payload: the name.
    UnlinkBody [Unlink] 184 {
        /// The directory.
        parent: Identity,
        /// The object, after it; `nlink` zero when this was its last name.
        attr: Attributes,
        /// The directory, after it.
        parent_attr: Attributes,
        /// Length of the name in bytes.
        name_len: U32,
        /// Zero.
        reserved: U32,
    }
    /// Body of [`RecordType::Rename`]; the header's object is the one at the old name. Payload: old name, new name,
    /// with [`RENAME_WHITEOUT`] a [`WhiteoutPart`] and its extended attributes, each padded to [`RECORD_ALIGN`].
    RenameBody [Rename] 432 {
        /// Directory of the old name.
        old_parent: Identity,
        /// Directory of the new name.
        new_parent: Identity,
        /// With `RENAME_EXCHANGE` the object now at the old name, else the one replaced at the new name, or none.
        other: Identity,
        /// With `RENAME_WHITEOUT` the whiteout now at the old name, else none.
        whiteout: Identity,
        /// The object.
        attr: Attributes,
        /// `other`, after it.
        other_attr: Attributes,
        /// Directory of the old name, after it.
        old_parent_attr: Attributes,
        /// Directory of the new name, after it.
        new_parent_attr: Attributes,
        /// `RENAME_*` flags of `renameat2(2)`.
        flags: U32,
        /// Length of the old name in bytes.
        old_name_len: U32,
        /// Length of the new name in bytes.
        new_name_len: U32,
        /// Zero.
        reserved: U32,
    }
    /// Body of [`RecordType::Reidentified`].
    ReidentifiedBody [Reidentified] 32 {
        /// The identity by which the object was known before.
        old: Identity,
    }
    /// Body of [`RecordType::Write`]. Payload: the bytes.
    WriteBody [Write] 80 {
        /// Where in the file the bytes begin.
        offset: U64,
        /// The file, after it.
        attr: Attributes,
    }
    /// Body of [`RecordType::Truncate`], [`RecordType::Setattr`] and [`RecordType::SetFileattr`].
    AttrBody [Truncate, Setattr, SetFileattr] 80 {
        /// The object, after it.
        attr: Attributes,
        /// Which of the attributes the caller asked to set: `ATTR_*` of `include/linux/fs.h`; informative.
        asked: U32,
        /// Zero.
        reserved: U32,
    }
    /// Body of [`RecordType::Fallocate`].
    FallocateBody [Fallocate] 96 {
        /// `FALLOC_FL_*` mode of `fallocate(2)`.
        mode: U32,
        /// Zero.
        reserved: U32,
        /// First byte of the range.
        offset: U64,
        /// Length of the range in bytes.
        length: U64,
        /// The file, after it.
        attr: Attributes,
    }
    /// Body of [`RecordType::ObjectState`]. Payload: target of a symbolic link, padded to [`RECORD_ALIGN`], extended
    /// attributes ([`XattrEntry`]).
    ObjectStateBody [ObjectState] 96 {
        /// LSN of the [`RecordType::CheckpointBegin`] that it belongs to.
        checkpoint: U64,
        /// The object as it is.
        attr: Attributes,
        /// Length of the target in bytes, zero for what is no symbolic link.
        target_len: U32,
        /// Length in bytes of the extended attributes.
        xattrs_len: U32,
        /// Number of extended attributes.
        xattrs: U32,
        /// Zero.
        reserved: U32,
    }
    /// Body of [`RecordType::ObjectData`]. Payload: the bytes of the range, or nothing where it is a hole.
    ObjectDataBody [ObjectData] 104 {
        /// LSN of the [`RecordType::CheckpointBegin`] that it belongs to.
        checkpoint: U64,
        /// First byte of the range.
        offset: U64,
        /// Length of the range in bytes; with [`STATE_LAST`] it may be zero.
        length: U64,
        /// The file as it is.
        attr: Attributes,
        /// `STATE_*`.
        flags: U32,
        /// Zero.
        reserved: U32,
    }
    /// Body of [`RecordType::DirectoryState`]. Payload: the entries, [`DirectoryEntry`] each.
    DirectoryStateBody [DirectoryState] 96 {
        /// LSN of the [`RecordType::CheckpointBegin`] that it belongs to.
        checkpoint: U64,
        /// The directory as it is.
        attr: Attributes,
        /// Number of entries in the payload.
        entries: U32,
        /// `STATE_*`.
        flags: U32,
        /// Zero.
        reserved: U64,
    }
    /// Body of [`RecordType::CheckpointBegin`].
    CheckpointBeginBody [CheckpointBegin] 16 {
        /// Zero.
        flags: U64,
        /// Zero.
        reserved: U64,
    }
    /// Body of [`RecordType::CheckpointEnd`].
    CheckpointEndBody [CheckpointEnd] 32 {
        /// LSN of the [`RecordType::CheckpointBegin`] that it ends.
        checkpoint: U64,
        /// Number of objects whose state was put into the log.
        objects: U64,
        /// Bytes of contents that were put into the log.
        bytes: U64,
        /// Zero.
        reserved: U64,
    }
    /// Body of [`RecordType::SetXattr`] and [`RecordType::RemoveXattr`]. Payload: name, padded to [`RECORD_ALIGN`], value.
    XattrBody [SetXattr, RemoveXattr] 80 {
        /// The object, after it.
        attr: Attributes,
        /// Length of the name in bytes, namespace included.
        name_len: U32,
        /// Length of the value in bytes.
        value_len: U32,
    }
}

/// [`MountBody::flags`]: the first mount of this stream; the tree was empty, unless [`MOUNT_POPULATED`] is set too.
pub const MOUNT_FIRST: u64 = 1 << 0;
/// [`MountBody::flags`]: the mount before did not end cleanly; log and tree may disagree.
pub const MOUNT_UNCLEAN: u64 = 1 << 1;
/// [`MountBody::flags`]: the tree has changes from before this mount that are in no log (a gap that nothing has closed).
pub const MOUNT_GAP: u64 = 1 << 2;

/// [`MountBody::flags`]: the tree was not empty, and this stream has nothing of what was in it before a checkpoint is
/// complete. With [`MOUNT_FIRST`], or where a tree that belonged to another stream was adopted.
pub const MOUNT_POPULATED: u64 = 1 << 3;

/// [`ObjectDataBody::flags`] and [`DirectoryStateBody::flags`]: from here on the object is told anew; what a checkpoint
/// said of its contents, or of its entries, before does not count.
pub const STATE_FIRST: u32 = 1 << 0;
/// [`ObjectDataBody::flags`] and [`DirectoryStateBody::flags`]: all of the object has been told.
pub const STATE_LAST: u32 = 1 << 1;
/// [`ObjectDataBody::flags`]: the range is a hole, and the payload empty.
pub const STATE_HOLE: u32 = 1 << 2;

/// [`GapBody::reason`]: the operator discarded a ring that had not been drained.
pub const GAP_DISCARDED: u32 = 1;
/// [`GapBody::reason`]: the log could not take records and the mount went on without it (`onstall=degrade`). All before
/// the record is complete; what is behind it, up to the [`RecordType::GapEnd`], was made meanwhile or is missing.
pub const GAP_DEGRADED: u32 = 2;

/// [`RenameBody::flags`]: a whiteout, a character device with number 0:0, is now at the old name (`linux/fs.h`).
pub const RENAME_WHITEOUT: u32 = 1 << 2;

/// What a rename with [`RENAME_WHITEOUT`] made at the old name, in a payload; its extended attributes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WhiteoutPart {
    /// The whiteout.
    pub attr: Attributes,
    /// Length in bytes of the extended attributes.
    pub xattrs_len: U32,
    /// Number of extended attributes it was born with.
    pub xattrs: U32,
}

/// One extended attribute in a payload: this structure, the name, the value, padding to [`RECORD_ALIGN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct XattrEntry {
    /// Length of the name in bytes, namespace included.
    pub name_len: U32,
    /// Length of the value in bytes.
    pub value_len: U32,
}

/// One entry of a directory in a payload: this structure, the name, padding to [`RECORD_ALIGN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DirectoryEntry {
    /// The object with this name.
    pub object: Identity,
    /// Type and permission bits of the object, as `st_mode` in `stat(2)`.
    pub mode: U32,
    /// Length of the name in bytes.
    pub name_len: U32,
}

/// What the writer of a record says about it; the rest of the header follows from these.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The type; must be one that the body belongs to.
    pub kind: RecordType,
    /// `RECORD_*` flags.
    pub flags: u32,
    /// Position in the log.
    pub lsn: Lsn,
    /// Wall-clock time, nanoseconds since 1970-01-01 UTC.
    pub time: i64,
    /// Epoch of the stream.
    pub epoch: u64,
    /// Who did it.
    pub uid: u32,
    /// The object.
    pub object: Identity,
    /// Length of the payload in bytes.
    pub payload_length: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
}

/// `length` rounded up to [`RECORD_ALIGN`], or `None` on overflow.
pub const fn pad(length: usize) -> Option<usize> {
    match length.checked_add(RECORD_ALIGN - 1) {
        Some(sum) => Some(sum & !(RECORD_ALIGN - 1)),
        None => None,
    }
}

/// Length in bytes of a record with a head (header and body) of `head` and a payload of `payload` bytes; `None`
/// where that is more than [`RECORD_MAX`].
pub const fn record_len(head: usize, payload: usize) -> Option<usize> {
    if head > RECORD_MAX || payload > RECORD_MAX {
        return None;
    }
    match pad(payload) {
        Some(padded) if head + padded + TRAILER_LEN <= RECORD_MAX => Some(head + padded + TRAILER_LEN),
        _ => None,
    }
}

/// Completes a record around a payload that is already in its place.
///
/// `record` is the whole record: the payload begins `B::HEAD_LEN` bytes into it. Header, body, padding and trailer
/// are written here. Returns `None`, with nothing promised about the contents of `record`, where the lengths do not
/// fit each other or the type has another body.
pub fn seal<B: Body>(record: &mut [u8], head: &Head, body: &B) -> Option<()> {
    let payload = usize::try_from(head.payload_length).ok()?;
    let length = record_len(B::HEAD_LEN, payload)?;
    if record.len() != length || !B::TYPES.contains(&head.kind) {
        return None;
    }
    let mut header = RecordHeader {
        magic: U32::new(RECORD_MAGIC),
        version: U16::new(RECORD_VERSION),
        kind: U16::new(head.kind as u16),
        length: U32::new(u32::try_from(length).ok()?),
        head_length: U32::new(u32::try_from(B::HEAD_LEN).ok()?),
        lsn: U64::new(head.lsn),
        time: I64::new(head.time),
        flags: U32::new(head.flags),
        payload_length: U32::new(head.payload_length),
        payload_crc: U32::new(head.payload_crc),
        head_crc: U32::ZERO,
        epoch: U64::new(head.epoch),
        uid: U32::new(head.uid),
        reserved: U32::ZERO,
        object: head.object,
    };
    header.head_crc = U32::new(crc32c_append(crc32c_append(0, header.as_bytes()), body.as_bytes()));

    record.get_mut(..HEADER_LEN)?.copy_from_slice(header.as_bytes());
    record.get_mut(HEADER_LEN..B::HEAD_LEN)?.copy_from_slice(body.as_bytes());
    record.get_mut(B::HEAD_LEN.checked_add(payload)?..length - TRAILER_LEN)?.fill(0);
    let trailer = RecordTrailer { length: header.length, magic: U32::new(RECORD_END_MAGIC) };
    record.get_mut(length - TRAILER_LEN..)?.copy_from_slice(trailer.as_bytes());
    Some(())
}

const _: () = {
    assert!(size_of::<Identity>() == 32);
    assert!(offset_of!(Identity, bytes) == 4);
    assert!(size_of::<Attributes>() == 72);
    assert!(offset_of!(Attributes, size) == 16);
    assert!(offset_of!(Attributes, mtime_sec) == 32);
    assert!(offset_of!(Attributes, fileattr) == 56);
    assert!(size_of::<RecordHeader>() == 96);
    assert!(offset_of!(RecordHeader, lsn) == 16);
    assert!(offset_of!(RecordHeader, head_crc) == 44);
    assert!(offset_of!(RecordHeader, epoch) == 48);
    assert!(offset_of!(RecordHeader, object) == 64);
    assert!(size_of::<RecordTrailer>() == 8);
    assert!(size_of::<XattrEntry>() == 8);
    assert!(size_of::<DirectoryEntry>() == 40);
    assert!(size_of::<WhiteoutPart>() == 80);
    assert!(offset_of!(WhiteoutPart, xattrs_len) == 72);
};
