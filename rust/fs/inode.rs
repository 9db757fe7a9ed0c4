// SPDX-License-Identifier: GPL-2.0

//! Objects that are no directories: the operations on their inodes, and how they leave memory.

use super::{attr, xattr, ReelFs};
use crate::capture;
use crate::format::record::EmptyBody;
use crate::vfs::{Acl, AclKind, Dentry, FileAttr, Inode, InodeOperations, LinkTarget, Locked, SetAttr, Target};
use kernel::prelude::*;

/// An object leaves memory. If it has no name, it is gone.
///
/// This may run where memory is being reclaimed, and so waits for nothing. Without room the
/// record is left out: it lets a reader forget the object early, and changes nothing else.
pub(super) fn evict(inode: &Inode<ReelFs>) {
    if inode.lower().nlink() > 0 {
        return;
    }
    if let Ok(Some(room)) = inode.superblock().data().log().try_reserve::<EmptyBody>(0, 0) {
        capture::object_gone(room, inode.data().identity());
    }
}

/// Operations on regular files.
pub(crate) struct Regular;

#[vtable]
impl InodeOperations for Regular {
    type Fs = ReelFs;

    fn setattr(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, request: SetAttr<'_>) -> Result {
        attr::setattr(name, inode, request)
    }

    fn listxattr(name: &Dentry<ReelFs>, out: &mut [u8]) -> Result<usize> {
        xattr::list(name, out)
    }

    fn fileattr_set(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, request: &mut FileAttr) -> Result {
        attr::fileattr_set(name, inode, request)
    }

    fn set_acl(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, kind: AclKind, acl: &Acl) -> Result {
        attr::set_acl(name, inode, kind, acl)
    }
}

/// Operations on devices, fifos and sockets.
pub(crate) struct Special;

#[vtable]
impl InodeOperations for Special {
    type Fs = ReelFs;

    fn setattr(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, request: SetAttr<'_>) -> Result {
        attr::setattr(name, inode, request)
    }

    fn listxattr(name: &Dentry<ReelFs>, out: &mut [u8]) -> Result<usize> {
        xattr::list(name, out)
    }

    fn set_acl(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, kind: AclKind, acl: &Acl) -> Result {
        attr::set_acl(name, inode, kind, acl)
    }
}

/// Operations on symbolic links.
pub(crate) struct Symlink;

#[vtable]
impl InodeOperations for Symlink {
    type Fs = ReelFs;

    fn get_link(name: &Dentry<ReelFs>, target: LinkTarget<'_>) -> Result<Target> {
        target.read(name.lower())
    }

    fn setattr(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, request: SetAttr<'_>) -> Result {
        attr::setattr(name, inode, request)
    }

    fn listxattr(name: &Dentry<ReelFs>, out: &mut [u8]) -> Result<usize> {
        xattr::list(name, out)
    }
}
