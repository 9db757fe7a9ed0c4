// SPDX-License-Identifier: GPL-2.0

//! One function for each kind of record.
//!
//! All of them take the state that *resulted*: attributes are to be read from the tree below after the operation, under
//! its locks. Each returns the LSN behind its record.

use zerocopy::IntoBytes;

use super::payload::{Parts, XattrBuffer};
use crate::format::record::{
    pad, AttrBody, Attributes, CreateBody, EmptyBody, FallocateBody, Identity, LinkBody, Lsn, RecordType, RenameBody,
    UnlinkBody, WhiteoutPart, WriteBody, XattrBody, RECORD_DIRECTORY, RECORD_PARTIAL,
};
use crate::ring::Room;

/// How the operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As its caller was told.
    Done,
    /// It had an effect, and its caller was told of an error.
    Partial,
}

impl Outcome {
    fn flags(self) -> u32 {
        match self {
            Outcome::Done => 0,
            Outcome::Partial => RECORD_PARTIAL,
        }
    }
}

/// A directory entry, and its directory after the operation.
pub(crate) struct Entry<'a> {
    /// The directory.
    pub(crate) parent: Identity,
    /// The directory's attributes.
    pub(crate) parent_attr: Attributes,
    /// The name.
    pub(crate) name: &'a [u8],
}

/// An object and its attributes after the operation.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    /// The object.
    pub(crate) object: Identity,
    /// Its attributes.
    pub(crate) attr: Attributes,
}

impl Change {
    /// No object.
    pub(crate) const NONE: Change = Change { object: Identity::NONE, attr: Attributes::ZERO };

    fn directory_flag(&self) -> u32 {
        const S_IFMT: u32 = 0o170000;
        const S_IFDIR: u32 = 0o040000;
        if self.attr.mode.get() & S_IFMT == S_IFDIR {
            RECORD_DIRECTORY
        } else {
            0
        }
    }
}

/// An object that came to be, with what it was born with.
pub(crate) struct Born {
    /// The object.
    pub(crate) object: Change,
    /// Its extended attributes.
    pub(crate) xattrs: XattrBuffer,
}

/// Lengths of what came in through the VFS, which knows no longer ones.
pub(super) fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

pub(super) fn padded(length: usize) -> usize {
    pad(length).unwrap_or(usize::MAX)
}

/// The payload that [`create`] may need, in bytes, with up to `xattrs_max` bytes of inherited attributes.
pub(crate) fn create_max(name: &[u8], target: &[u8], xattrs_max: usize) -> usize {
    padded(name.len()).saturating_add(padded(target.len())).saturating_add(padded(xattrs_max))
}

/// An object came to be. `target` is empty for what is no symbolic link; a parent of [`Identity::NONE`] and an empty
/// name stand for an object without a name (`O_TMPFILE`).
pub(crate) fn create(mut room: Room<'_, CreateBody>, born: &Born, at: &Entry<'_>, target: &[u8]) -> Lsn {
    let (new, xattrs) = (&born.object, &born.xattrs);
    let body = CreateBody {
        parent: at.parent,
        attr: new.attr,
        parent_attr: at.parent_attr,
        name_len: len(at.name).into(),
        target_len: len(target).into(),
        xattrs_len: len(xattrs.bytes()).into(),
        xattrs: xattrs.count().into(),
    };
    let length = Parts::new(room.payload()).padded(at.name).padded(target).padded(xattrs.bytes()).length();
    room.commit(RecordType::Create, new.directory_flag(), new.object, &body, length)
}

/// The payload that [`link`] and [`unlink`] need, in bytes.
pub(crate) fn name_max(name: &[u8]) -> usize {
    name.len()
}

/// An object got another name.
pub(crate) fn link(mut room: Room<'_, LinkBody>, linked: &Change, at: &Entry<'_>) -> Lsn {
    let body = LinkBody {
        parent: at.parent,
        attr: linked.attr,
        parent_attr: at.parent_attr,
        name_len: len(at.name).into(),
        reserved: 0.into(),
    };
    let length = Parts::new(room.payload()).last(at.name).length();
    room.commit(RecordType::Link, 0, linked.object, &body, length)
}

/// A name went, of a directory or of anything else.
pub(crate) fn unlink(mut room: Room<'_, UnlinkBody>, unlinked: &Change, at: &Entry<'_>) -> Lsn {
    let body = UnlinkBody {
        parent: at.parent,
        attr: unlinked.attr,
        parent_attr: at.parent_attr,
        name_len: len(at.name).into(),
        reserved: 0.into(),
    };
    let length = Parts::new(room.payload()).last(at.name).length();
    room.commit(RecordType::Unlink, unlinked.directory_flag(), unlinked.object, &body, length)
}

/// What a rename did, but for the object itself.
pub(crate) struct Renamed<'a> {
    /// The old name.
    pub(crate) from: Entry<'a>,
    /// The new name.
    pub(crate) to: Entry<'a>,
    /// What was exchanged with it, or replaced by it, or [`Change::NONE`].
    pub(crate) other: Change,
    /// The whiteout that it left behind.
    pub(crate) whiteout: Option<Born>,
    /// `RENAME_*`.
    pub(crate) flags: u32,
}

/// The payload that [`rename`] needs, in bytes, with up to that many bytes of attributes that a whiteout inherits, if
/// there is to be one.
pub(crate) fn rename_max(from: &[u8], to: &[u8], whiteout: Option<usize>) -> usize {
    let whiteout = whiteout.map_or(0, |xattrs_max| size_of::<WhiteoutPart>().saturating_add(padded(xattrs_max)));
    padded(from.len()).saturating_add(padded(to.len())).saturating_add(whiteout)
}

/// A name changed, or two were exchanged.
pub(crate) fn rename(mut room: Room<'_, RenameBody>, moved: &Change, renamed: &Renamed<'_>) -> Lsn {
    let (from, to) = (&renamed.from, &renamed.to);
    let body = RenameBody {
        old_parent: from.parent,
        new_parent: to.parent,
        other: renamed.other.object,
        whiteout: renamed.whiteout.as_ref().map_or(Identity::NONE, |whiteout| whiteout.object.object),
        attr: moved.attr,
        other_attr: renamed.other.attr,
        old_parent_attr: from.parent_attr,
        new_parent_attr: to.parent_attr,
        flags: renamed.flags.into(),
        old_name_len: len(from.name).into(),
        new_name_len: len(to.name).into(),
        reserved: 0.into(),
    };
    let mut parts = Parts::new(room.payload()).padded(from.name).padded(to.name);
    if let Some(Born { object, xattrs }) = &renamed.whiteout {
        let part =
            WhiteoutPart { attr: object.attr, xattrs_len: len(xattrs.bytes()).into(), xattrs: xattrs.count().into() };
        parts = parts.padded(part.as_bytes()).padded(xattrs.bytes());
    }
    let length = parts.length();
    room.commit(RecordType::Rename, 0, moved.object, &body, length)
}

/// The last reference to an object without a name went.
pub(crate) fn object_gone(room: Room<'_, EmptyBody>, object: Identity) -> Lsn {
    room.commit(RecordType::ObjectGone, 0, object, &EmptyBody {}, 0)
}

/// The first `length` bytes of the payload are in the file from `offset` on.
pub(crate) fn write(room: Room<'_, WriteBody>, file: &Change, offset: u64, length: usize, outcome: Outcome) -> Lsn {
    let body = WriteBody { offset: offset.into(), attr: file.attr };
    room.commit(RecordType::Write, outcome.flags(), file.object, &body, length)
}

/// Attributes are what they are now. `kind` is `Truncate`, `Setattr` or `SetFileattr`; `asked` are the `ATTR_*` that
/// the caller asked for.
pub(crate) fn attributes(
    room: Room<'_, AttrBody>,
    kind: RecordType,
    object: &Change,
    asked: u32,
    outcome: Outcome,
) -> Lsn {
    let body = AttrBody { attr: object.attr, asked: asked.into(), reserved: 0.into() };
    room.commit(kind, outcome.flags(), object.object, &body, 0)
}

/// `fallocate(2)` was done, or something with the same effect on the contents.
pub(crate) fn fallocate(room: Room<'_, FallocateBody>, file: &Change, mode: u32, offset: u64, length: u64) -> Lsn {
    let body = FallocateBody {
        mode: mode.into(),
        reserved: 0.into(),
        offset: offset.into(),
        length: length.into(),
        attr: file.attr,
    };
    room.commit(RecordType::Fallocate, 0, file.object, &body, 0)
}

/// The payload that [`set_xattr`] needs, in bytes; with an empty value, the one that [`remove_xattr`] does.
pub(crate) fn xattr_max(name: &[u8], value: &[u8]) -> usize {
    padded(name.len()).saturating_add(value.len())
}

/// An extended attribute was set. `name` is the whole name, namespace included.
pub(crate) fn set_xattr(mut room: Room<'_, XattrBody>, object: &Change, name: &[u8], value: &[u8]) -> Lsn {
    let body = XattrBody { attr: object.attr, name_len: len(name).into(), value_len: len(value).into() };
    let length = Parts::new(room.payload()).padded(name).last(value).length();
    room.commit(RecordType::SetXattr, 0, object.object, &body, length)
}

/// An extended attribute was removed. `name` is the whole name, namespace included.
pub(crate) fn remove_xattr(mut room: Room<'_, XattrBody>, object: &Change, name: &[u8]) -> Lsn {
    let body = XattrBody { attr: object.attr, name_len: len(name).into(), value_len: 0.into() };
    let length = Parts::new(room.payload()).last(name).length();
    room.commit(RecordType::RemoveXattr, 0, object.object, &body, length)
}
