// SPDX-License-Identifier: GPL-2.0

//! Directories: looking names up, and changing them.

use super::{inode, xattr, ReelFs};
use crate::vfs::{
    Acl, AclKind, Creating, Dentry, Inode, InodeOperations, Locked, LowerDentry, NewDentry,
    Removing, RenameMode, Renaming, SetAttr,
};
use kernel::{prelude::*, sync::aref::ARef};

/// Operations on directories.
pub(crate) struct Directory;

#[vtable]
impl InodeOperations for Directory {
    type Fs = ReelFs;

    fn lookup(
        dir: &Inode<ReelFs>,
        name: NewDentry<'_, ReelFs>,
        parent: &LowerDentry,
    ) -> Result<Option<ARef<Dentry<ReelFs>>>> {
        let lower = parent.lookup(name.name())?;
        // The name may come into being below at any moment: its inode is looked at once.
        let inode = match lower.inode() {
            Some(inode) => Some(dir.superblock().stack(inode)?),
            None => None,
        };
        name.connect(lower, inode)
    }

    fn create(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>, mode: u16) -> Result {
        make(dir, name, |mut new| {
            let result = new.create(mode);
            (result, Some(new))
        })
    }

    fn mkdir(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>, mode: u16) -> Result {
        make(dir, name, |new| match new.mkdir(mode) {
            Ok(new) => (Ok(()), Some(new)),
            Err(e) => (Err(e), None),
        })
    }

    fn mknod(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>, mode: u16, dev: u32) -> Result {
        make(dir, name, |mut new| {
            let result = new.mknod(mode, dev);
            (result, Some(new))
        })
    }

    fn symlink(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>, target: &CStr) -> Result {
        make(dir, name, |mut new| {
            let result = new.symlink(target);
            (result, Some(new))
        })
    }

    fn link(old: &Dentry<ReelFs>, dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>) -> Result {
        let inode = old.inode().ok_or(ENOENT)?;
        let access = dir.superblock().lower().want_write()?;
        let mut new = Creating::start(&access, name.parent().lower(), name.lower())?;
        new.link(old.lower())?;
        inode.refresh();
        dir.refresh();
        name.instantiate(inode.into());
        Ok(())
    }

    fn unlink(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>) -> Result {
        remove(dir, name, |old| old.unlink())
    }

    fn rmdir(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>) -> Result {
        remove(dir, name, |old| old.rmdir())
    }

    fn rename(
        old_dir: &Locked<'_, ReelFs>,
        old: &Dentry<ReelFs>,
        new_dir: &Locked<'_, ReelFs>,
        new: &Dentry<ReelFs>,
        flags: u32,
    ) -> Result {
        let mode = RenameMode::from_flags(flags)?;
        let inode = old.inode().ok_or(ENOENT)?;
        let other = new.inode();
        let access = old_dir.superblock().lower().want_write()?;
        let mut moving = Renaming::start(
            &access,
            old.parent().lower(),
            new.parent().lower(),
            old.lower(),
            new.lower(),
            mode,
        )?;
        moving.rename()?;
        drop(moving);
        inode.refresh();
        if let Some(other) = other {
            other.refresh();
        }
        old_dir.refresh();
        new_dir.refresh();
        Ok(())
    }

    fn setattr(name: &Dentry<ReelFs>, inode: &Locked<'_, ReelFs>, request: SetAttr<'_>) -> Result {
        inode::setattr(name, inode, request)
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
        inode::set_acl(name, inode, kind, acl)
    }
}

/// Makes an object and its name.
///
/// `apply` does it below, and gives the locks back unless that released them.
fn make(
    dir: &Locked<'_, ReelFs>,
    name: &Dentry<ReelFs>,
    apply: impl for<'a> FnOnce(Creating<'a>) -> (Result, Option<Creating<'a>>),
) -> Result {
    let access = dir.superblock().lower().want_write()?;
    let new = Creating::start(&access, name.parent().lower(), name.lower())?;
    let (result, new) = apply(new);
    dir.refresh();
    result?;
    let new = new.ok_or(EIO)?;
    let lower = new.dentry().inode();
    if !new.dentry().is(name.lower()) || lower.is_none() {
        // It is there, under a dentry that is not ours: looking it up will find it.
        name.forget();
        return Ok(());
    }
    let inode = dir.superblock().stack(lower.ok_or(EIO)?)?;
    name.instantiate(inode);
    Ok(())
}

/// Removes a name.
fn remove(
    dir: &Locked<'_, ReelFs>,
    name: &Dentry<ReelFs>,
    apply: impl FnOnce(&mut Removing<'_>) -> Result,
) -> Result {
    let inode = name.inode().ok_or(ENOENT)?;
    let access = dir.superblock().lower().want_write()?;
    let mut old = Removing::start(&access, name.parent().lower(), name.lower())?;
    apply(&mut old)?;
    drop(old);
    inode.refresh();
    dir.refresh();
    name.forget();
    Ok(())
}
