// SPDX-License-Identifier: GPL-2.0

//! Directories: looking names up, and changing them.

use super::{
    attr,
    insist::insist,
    mount::Mounted,
    state::{attributes_with_flags, change, entry, identity},
    xattr::{self, Collector},
    ReelFs,
};
use crate::capture::{self, Born, Change, Entry, Renamed, XattrBuffer};
use crate::format::record::{Attributes, CreateBody, Identity, LinkBody, RenameBody, UnlinkBody};
use crate::vfs::{
    Acl, AclKind, AclXattr, Creating, Dentry, FileAttr, Inode, InodeOperations, Locked, LowerDentry, NewDentry,
    Removing, RenameMode, Renaming, SetAttr, Unnamed,
};
use kernel::{prelude::*, sync::aref::ARef};

/// Room for the extended attributes that a new object gets from security modules, in bytes.
/// Access control lists, whose size is known from the directory, come on top.
const SECURITY_XATTRS: usize = 1024;

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
        make(dir, name, &[], |mut new| {
            let result = new.create(mode);
            (result, Some(new))
        })
    }

    fn mkdir(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>, mode: u16) -> Result {
        make(dir, name, &[], |new| match new.mkdir(mode) {
            Ok(new) => (Ok(()), Some(new)),
            Err(e) => (Err(e), None),
        })
    }

    fn mknod(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>, mode: u16, dev: u32) -> Result {
        make(dir, name, &[], |mut new| {
            let result = new.mknod(mode, dev);
            (result, Some(new))
        })
    }

    fn symlink(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>, target: &CStr) -> Result {
        make(dir, name, target.to_bytes(), |mut new| {
            let result = new.symlink(target);
            (result, Some(new))
        })
    }

    /// Makes a file without a name. The directory is locked meanwhile, so that what a file inherits in it stays what
    /// room was taken for.
    fn tmpfile(dir: &Inode<ReelFs>, file: Unnamed<'_, ReelFs>, mode: u16) -> Result {
        let sb = dir.superblock();
        let log = sb.data().log();
        let (room, collector, _dir) = loop {
            let dir = dir.lock_killable()?;
            let xattrs_max = inherited_max(&dir)?;
            let need = capture::create_max(&[], &[], xattrs_max);
            let collector = Collector::new(xattrs_max);
            if let Some(room) = log.try_reserve::<CreateBody>(need, 0)? {
                break (room, collector, dir);
            }
            drop(dir);
            log.wait_room::<CreateBody>(need, 0)?;
        };
        let access = sb.lower().want_write()?;
        let new = file.make(&access, mode)?;
        drop(access);
        let born = born(sb.data(), new.dentry(), collector)?;
        let nowhere = Entry { parent: Identity::NONE, parent_attr: Attributes::ZERO, name: &[] };
        capture::create(room, &born, &nowhere, &[]);
        new.open()
    }

    fn link(old: &Dentry<ReelFs>, dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>) -> Result {
        let inode = old.inode().ok_or(ENOENT)?;
        let sb = dir.superblock();
        let room = sb.data().log().reserve::<LinkBody>(capture::name_max(name.name()), 0)?;
        let access = sb.lower().want_write()?;
        let mut new = Creating::start(&access, name.parent().lower(), name.lower())?;
        new.link(old.lower())?;
        let lsn = capture::link(room, &change(inode), &entry(dir, name));
        drop(new);
        inode.data().recorded(lsn);
        dir.data().recorded(lsn);
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
        let sb = old_dir.superblock();
        let inherited = if mode.leaves_whiteout() { Some(inherited_max(old_dir)?) } else { None };
        let collector = Collector::new(inherited.unwrap_or(0));
        let need = capture::rename_max(old.name(), new.name(), inherited);
        let room = sb.data().log().reserve::<RenameBody>(need, 0)?;
        let access = sb.lower().want_write()?;
        let mut moving =
            Renaming::start(&access, old.parent().lower(), new.parent().lower(), old.lower(), new.lower(), mode)?;
        moving.rename()?;
        let whiteout = if mode.leaves_whiteout() {
            let left = insist(|| moving.left_behind(old.name())).inspect_err(|_| sb.data().lost(NOT_FOUND))?;
            Some(born(sb.data(), &left, collector)?)
        } else {
            None
        };
        let renamed = Renamed {
            from: entry(old_dir, old),
            to: entry(new_dir, new),
            other: other.map_or(Change::NONE, change),
            whiteout,
            flags,
        };
        let lsn = capture::rename(room, &change(inode), &renamed);
        drop(moving);
        for inode in [Some(inode), other, Some(&**old_dir), Some(&**new_dir)].into_iter().flatten() {
            inode.data().recorded(lsn);
            inode.refresh();
        }
        Ok(())
    }

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

/// Makes an object and its name.
///
/// `apply` does it below, and gives the locks back unless that released them. `target` is that of
/// a symbolic link.
fn make(
    dir: &Locked<'_, ReelFs>,
    name: &Dentry<ReelFs>,
    target: &[u8],
    apply: impl for<'a> FnOnce(Creating<'a>) -> (Result, Option<Creating<'a>>),
) -> Result {
    let sb = dir.superblock();
    let xattrs_max = inherited_max(dir)?;
    let collector = Collector::new(xattrs_max);
    let room = sb.data().log().reserve::<CreateBody>(capture::create_max(name.name(), target, xattrs_max), 0)?;
    let access = sb.lower().want_write()?;
    let new = Creating::start(&access, name.parent().lower(), name.lower())?;
    let (result, new) = apply(new);
    result?;
    let new = new.ok_or(EIO)?;
    let born = born(sb.data(), new.dentry(), collector).inspect_err(|_| name.forget())?;
    let lsn = capture::create(room, &born, &entry(dir, name), target);
    dir.data().recorded(lsn);
    dir.refresh();

    // From here on the object is there and recorded, whether we can show it or not.
    if !new.dentry().is(name.lower()) {
        // It is under a dentry that is not the one below ours: looking it up will find it.
        name.forget();
        return Ok(());
    }
    match new.dentry().inode().ok_or(EIO).and_then(|lower| sb.stack(lower)) {
        Ok(inode) => {
            name.instantiate(inode);
            Ok(())
        }
        Err(e) => {
            name.forget();
            Err(e)
        }
    }
}

/// What is said of a filesystem below that keeps from us what it has made: none of those supported does.
const NOT_FOUND: &str = "an object below cannot be found after it was made";

/// Reads what is to be recorded of an object that has just been made below.
fn born(mount: &Mounted, new: &LowerDentry, collector: Collector) -> Result<Born> {
    let Some(lower) = new.inode() else {
        mount.lost(NOT_FOUND);
        return Err(EIO);
    };
    let object = identity(lower).unwrap_or_else(|_| {
        mount.lost("an object below has no file handle");
        Identity::NONE
    });
    let xattrs = collector.collect(new).or_else(|_| {
        mount.lost("an object was made with more extended attributes than expected");
        XattrBuffer::new(0)
    })?;
    Ok(Born { object: Change { object, attr: attributes_with_flags(&lower.attr(), new) }, xattrs })
}

/// How many bytes of extended attributes an object made in this directory may get.
fn inherited_max(dir: &Inode<ReelFs>) -> Result<usize> {
    let Some(acl) = AclXattr::read(dir.lower(), AclKind::Default)? else {
        return Ok(SECURITY_XATTRS);
    };
    // A directory gets the list twice: as its own, and for what is made in it.
    let entry = |kind: AclKind| XattrBuffer::entry_len(kind.xattr_name().to_bytes().len(), acl.as_bytes().len());
    Ok(entry(AclKind::Access).saturating_add(entry(AclKind::Default)).saturating_add(SECURITY_XATTRS))
}

/// Removes a name.
fn remove(dir: &Locked<'_, ReelFs>, name: &Dentry<ReelFs>, apply: impl FnOnce(&mut Removing<'_>) -> Result) -> Result {
    let inode = name.inode().ok_or(ENOENT)?;
    let sb = dir.superblock();
    let room = sb.data().log().reserve::<UnlinkBody>(capture::name_max(name.name()), 0)?;
    let access = sb.lower().want_write()?;
    let mut old = Removing::start(&access, name.parent().lower(), name.lower())?;
    apply(&mut old)?;
    let lsn = capture::unlink(room, &change(inode), &entry(dir, name));
    drop(old);
    inode.data().recorded(lsn);
    dir.data().recorded(lsn);
    inode.refresh();
    dir.refresh();
    name.forget();
    Ok(())
}
