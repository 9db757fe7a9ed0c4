// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: all that the filesystem below has, but for our own.

use super::ReelFs;
use crate::vfs::{enodata, eopnotsupp, Dentry, Locked, SetMode, XattrOperations};
use crate::format::mark::MARK_XATTR;
use kernel::prelude::*;

/// The attribute on the root below by which a tree and its log know each other.
fn is_hidden(name: &[u8]) -> bool {
    name == MARK_XATTR.as_bytes()
}

/// The xattr operations.
pub(crate) struct Xattrs;

impl XattrOperations<ReelFs> for Xattrs {
    fn get(dentry: &Dentry<ReelFs>, name: &CStr, out: &mut [u8]) -> Result<usize> {
        if is_hidden(name.to_bytes()) {
            return Err(enodata());
        }
        dentry.lower().get_xattr(name, out)
    }

    fn set(
        dentry: &Dentry<ReelFs>,
        inode: &Locked<'_, ReelFs>,
        name: &CStr,
        value: &[u8],
        mode: SetMode,
    ) -> Result {
        check_name(name)?;
        let access = inode.superblock().lower().want_write()?;
        let result = dentry.lower().set_xattr(&access, name, value, mode);
        inode.refresh();
        result
    }

    fn remove(dentry: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, name: &CStr) -> Result {
        check_name(name)?;
        let access = inode.superblock().lower().want_write()?;
        let result = dentry.lower().remove_xattr(&access, name);
        inode.refresh();
        result
    }
}

/// Refuses names that are ours, and those through which a filesystem is told to do something.
fn check_name(name: &CStr) -> Result {
    let name = name.to_bytes();
    if is_hidden(name) {
        return Err(EPERM);
    }
    let recorded: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    if recorded.iter().any(|prefix| name.starts_with(prefix)) {
        Ok(())
    } else {
        Err(eopnotsupp())
    }
}

/// Lists names, our own left out.
pub(super) fn list(dentry: &Dentry<ReelFs>, out: &mut [u8]) -> Result<usize> {
    let len = dentry.lower().list_xattrs(out)?;
    let Some(names) = out.get_mut(..len) else {
        // Only the room was asked for: it may be more than is needed.
        return Ok(len);
    };
    let mut from = 0;
    let mut to = 0;
    while let Some(rest) = names.get(from..).filter(|rest| !rest.is_empty()) {
        let name_len = rest.iter().position(|c| *c == 0).unwrap_or(rest.len());
        let end = (from + name_len + 1).min(len);
        if !is_hidden(&rest[..name_len]) {
            names.copy_within(from..end, to);
            to += end - from;
        }
        from = end;
    }
    Ok(to)
}
