// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: all that the filesystem below has, but for our own.

use super::{insist::insist, state::change, ReelFs};
use crate::capture::{self, XattrBuffer};
use crate::format::{mark::MARK_XATTR, record::XattrBody};
use crate::vfs::{
    enodata, eopnotsupp, zeros, AclKind, AclXattr, Dentry, Locked, LowerDentry, SetMode, XattrOperations,
};
use kernel::prelude::*;

/// No value is longer, nor is a list of names, in bytes (`XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of `linux/limits.h`).
const XATTR_MAX: usize = 64 << 10;

/// Where xfs keeps access control lists. They are shown, set and recorded by the names that all filesystems have for
/// them; under two names at once, one would outlive the other in the log.
const HIDDEN_LISTS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

/// Neither the attribute on the root below by which a tree and its log know each other is shown, nor what stands for
/// something else.
fn is_hidden(name: &[u8]) -> bool {
    name == MARK_XATTR.as_bytes() || HIDDEN_LISTS.contains(&name)
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

    fn set(dentry: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, name: &CStr, value: &[u8], mode: SetMode) -> Result {
        check_name(name)?;
        let bytes = name.to_bytes();
        let sb = inode.superblock();
        let room = sb.data().log().reserve::<XattrBody>(capture::xattr_max(bytes, value), 0)?;
        let access = sb.lower().want_write()?;
        // An attribute is set as a whole or not at all.
        let result = dentry.lower().set_xattr(&access, name, value, mode);
        drop(access);
        inode.refresh();
        result?;
        let lsn = capture::set_xattr(room, &change(inode), bytes, value);
        inode.data().recorded(lsn);
        Ok(())
    }

    fn remove(dentry: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, name: &CStr) -> Result {
        check_name(name)?;
        let bytes = name.to_bytes();
        let sb = inode.superblock();
        let room = sb.data().log().reserve::<XattrBody>(capture::xattr_max(bytes, &[]), 0)?;
        let access = sb.lower().want_write()?;
        let result = dentry.lower().remove_xattr(&access, name);
        drop(access);
        inode.refresh();
        result?;
        let lsn = capture::remove_xattr(room, &change(inode), bytes);
        inode.data().recorded(lsn);
        Ok(())
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

/// All extended attributes of an object, collected for a record.
///
/// The memory is taken beforehand, so that nothing can fail once the object is there.
pub(super) struct Collector {
    found: XattrBuffer,
    names: KVVec<u8>,
    value: KVVec<u8>,
}

impl Collector {
    /// Prepares for `capacity` bytes of entries.
    pub(super) fn new(capacity: usize) -> Result<Self> {
        let part = capacity.min(XATTR_MAX);
        Ok(Self { found: XattrBuffer::new(capacity)?, names: zeros(part)?, value: zeros(part)? })
    }

    /// Collects. [`E2BIG`] or [`ERANGE`] if there is more than was prepared for. Sleeps.
    pub(super) fn collect(mut self, object: &LowerDentry) -> Result<XattrBuffer> {
        insist(|| self.fill(object))?;
        Ok(self.found)
    }

    fn fill(&mut self, object: &LowerDentry) -> Result {
        self.found.clear();
        let len = match object.list_xattrs(&mut self.names) {
            Ok(len) => len,
            Err(e) if e == eopnotsupp() => 0,
            Err(e) => return Err(e),
        };
        let names = self.names.get(..len).unwrap_or(&[]);
        for name in names.split_inclusive(|c| *c == 0) {
            let name = CStr::from_bytes_with_nul(name).map_err(|_| EINVAL)?;
            if is_hidden(name.to_bytes()) {
                continue;
            }
            let kind = AclKind::from_xattr_name(name);
            let acl;
            let value = match kind {
                // Access control lists are no xattrs inside the kernel.
                Some(kind) => {
                    let Some(inode) = object.inode() else { continue };
                    acl = AclXattr::read(inode, kind)?;
                    match &acl {
                        Some(acl) => acl.as_bytes(),
                        None => continue,
                    }
                }
                None => {
                    let len = object.get_xattr(name, &mut self.value)?;
                    self.value.get(..len).unwrap_or(&[])
                }
            };
            self.found.add(name.to_bytes(), value)?;
        }
        Ok(())
    }
}
