// SPDX-License-Identifier: GPL-2.0

//! Attributes: mode, owner, size, times, file attributes, access control lists.

use super::{
    notes::{capture, resized, Full, WHOLE},
    state::{attributes_with_flags, change, differs},
    ReelFs,
};
use crate::capture::{self, Change, Outcome};
use crate::format::record::{AttrBody, Lsn, RecordType, XattrBody};
use crate::vfs::{eopnotsupp, Acl, AclKind, AclXattr, Dentry, FileAttr, Locked, SetAttr};
use kernel::prelude::*;

/// `FS_CASEFOLD_FL`: names would be compared otherwise than the log compares them.
const CASEFOLD: u32 = 0x4000_0000;
/// `FS_DAX_FL`: stores would pass everybody by.
pub(super) const DAX: u32 = 0x0200_0000;

/// Changes attributes.
pub(super) fn setattr(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, mut request: SetAttr<'_>) -> Result {
    // May strip file capabilities, through our own xattr operation, which records that.
    request.check(name)?;
    let sb = inode.superblock();
    if request.sets_size() {
        // What is cut off was there until now.
        capture(inode, WHOLE, Full::Wait)?;
    }
    let room = sb.data().log().reserve::<AttrBody>(0, 0)?;
    let lower = inode.lower();
    let kind = if request.sets_size() { RecordType::Truncate } else { RecordType::Setattr };
    let asked = request.asked();
    let _writing = if request.sets_size() { Some(lower.write_access()?) } else { None };
    let before = lower.attr();
    let access = sb.lower().want_write()?;
    let result = request.apply(&access, name.lower());
    drop(access);
    inode.refresh();
    resized(inode, before.size);
    let outcome = match result {
        Ok(()) => Outcome::Done,
        Err(e) if !differs(&before, &lower.attr()) => return Err(e),
        Err(_) => Outcome::Partial,
    };
    let lsn = capture::attributes(room, kind, &change(inode), asked, outcome);
    inode.data().recorded(lsn);
    result
}

/// Changes file attributes (`chattr(1)`).
pub(super) fn fileattr_set(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, request: &mut FileAttr) -> Result {
    if request.flags() & (CASEFOLD | DAX) != 0 {
        return Err(eopnotsupp());
    }
    let sb = inode.superblock();
    let room = sb.data().log().reserve::<AttrBody>(0, 0)?;
    let before = name.lower().file_attributes();
    let access = sb.lower().want_write()?;
    let result = request.apply(&access, name.lower());
    drop(access);
    inode.refresh();
    let outcome = match result {
        Ok(()) => Outcome::Done,
        Err(e) if before == name.lower().file_attributes() => return Err(e),
        Err(_) => Outcome::Partial,
    };
    let change =
        Change { object: inode.data().identity(), attr: attributes_with_flags(&inode.lower().attr(), name.lower()) };
    let lsn = capture::attributes(room, RecordType::SetFileattr, &change, 0, outcome);
    inode.data().recorded(lsn);
    result
}

/// Changes an access control list.
///
/// A list that says no more than the mode does becomes the mode, and is gone; so what is recorded depends on that, and
/// on whether there was a list before.
pub(super) fn set_acl(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, kind: AclKind, acl: &Acl) -> Result {
    let lower = inode.lower();
    let stays = !acl.is_none() && !(kind == AclKind::Access && acl.is_mode());
    if !stays && AclXattr::read(lower, kind)?.is_none() {
        let log = inode.superblock().data().log();
        let room = log.reserve::<AttrBody>(0, 0)?;
        return apply_acl(name, inode, kind, acl, |object| {
            capture::attributes(room, RecordType::Setattr, object, 0, Outcome::Done)
        });
    }
    let xattr = kind.xattr_name().to_bytes();
    let value = if stays { acl.to_xattr()? } else { None };
    let value = value.as_ref().map(AclXattr::as_bytes);
    let log = inode.superblock().data().log();
    let room = log.reserve::<XattrBody>(capture::xattr_max(xattr, value.unwrap_or(&[])), 0)?;
    apply_acl(name, inode, kind, acl, |object| match value {
        Some(value) => capture::set_xattr(room, object, xattr, value),
        None => capture::remove_xattr(room, object, xattr),
    })
}

/// Changes the list below, and has what resulted recorded.
fn apply_acl(
    name: &Dentry<ReelFs>,
    inode: &Locked<'_, ReelFs>,
    kind: AclKind,
    acl: &Acl,
    record: impl FnOnce(&Change) -> Lsn,
) -> Result {
    let before = inode.lower().attr();
    let access = inode.superblock().lower().want_write()?;
    let result = name.lower().set_acl(&access, kind, acl);
    drop(access);
    inode.refresh();
    if let Err(e) = result {
        if !differs(&before, &inode.lower().attr()) {
            return Err(e);
        }
    }
    inode.data().recorded(record(&change(inode)));
    result
}
