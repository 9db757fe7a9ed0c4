// SPDX-License-Identifier: GPL-2.0

//! Objects: what is kept with each, and the operations that are not a directory's alone.

use super::{xattr, ReelFs};
use crate::format::record::Identity;
use crate::vfs::{
    Acl, AclKind, Dentry, Inode, InodeOperations, LinkTarget, Locked, LowerInode, SetAttr, Target,
};
use kernel::prelude::*;

/// What is kept with an object.
pub(crate) struct InodeData {
    /// The name of the object in the log: its file handle below.
    identity: Identity,
}

impl InodeData {
    pub(super) fn new(lower: &LowerInode) -> Result<Self> {
        Ok(Self {
            identity: identity(lower)?,
        })
    }

    /// Returns the name of the object in the log.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }
}

/// Returns the name in the log of an object below.
pub(super) fn identity(lower: &LowerInode) -> Result<Identity> {
    const WORDS: usize = Identity::CAPACITY / 4;
    let mut words = [0; WORDS];
    let (kind, len) = lower.encode_handle(&mut words)?;
    let mut handle = [0; Identity::CAPACITY];
    for (bytes, word) in handle.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Identity::new(kind.into(), handle.get(..len).ok_or(EOVERFLOW)?).ok_or(EOVERFLOW)
}

/// An object leaves memory.
pub(super) fn evict(_inode: &Inode<ReelFs>) {}

/// Changes attributes.
pub(super) fn setattr(
    name: &Dentry<ReelFs>,
    inode: &Locked<'_, ReelFs>,
    mut request: SetAttr<'_>,
) -> Result {
    request.check(name)?;
    let lower = inode.lower();
    let _writing = if request.sets_size() {
        Some(lower.write_access()?)
    } else {
        None
    };
    let access = inode.superblock().lower().want_write()?;
    let result = request.apply(&access, name.lower());
    inode.refresh();
    result
}

/// Changes an access control list.
pub(super) fn set_acl(
    name: &Dentry<ReelFs>,
    inode: &Locked<'_, ReelFs>,
    kind: AclKind,
    acl: &Acl,
) -> Result {
    let access = inode.superblock().lower().want_write()?;
    let result = name.lower().set_acl(&access, kind, acl);
    inode.refresh();
    result
}

/// Operations on regular files.
pub(crate) struct Regular;

#[vtable]
impl InodeOperations for Regular {
    type Fs = ReelFs;

    fn setattr(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, request: SetAttr<'_>) -> Result {
        setattr(name, inode, request)
    }

    fn listxattr(name: &Dentry<ReelFs>, out: &mut [u8]) -> Result<usize> {
        xattr::list(name, out)
    }

    fn set_acl(
        name: &Dentry<ReelFs>,
        inode: &Locked<'_, ReelFs>,
        kind: AclKind,
        acl: &Acl,
    ) -> Result {
        set_acl(name, inode, kind, acl)
    }
}

/// Operations on devices, fifos and sockets.
pub(crate) struct Special;

#[vtable]
impl InodeOperations for Special {
    type Fs = ReelFs;

    fn setattr(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, request: SetAttr<'_>) -> Result {
        setattr(name, inode, request)
    }

    fn listxattr(name: &Dentry<ReelFs>, out: &mut [u8]) -> Result<usize> {
        xattr::list(name, out)
    }

    fn set_acl(
        name: &Dentry<ReelFs>,
        inode: &Locked<'_, ReelFs>,
        kind: AclKind,
        acl: &Acl,
    ) -> Result {
        set_acl(name, inode, kind, acl)
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
        setattr(name, inode, request)
    }

    fn listxattr(name: &Dentry<ReelFs>, out: &mut [u8]) -> Result<usize> {
        xattr::list(name, out)
    }
}
