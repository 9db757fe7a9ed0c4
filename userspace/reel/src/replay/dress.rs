// SPDX-License-Identifier: GPL-2.0-or-later

//! Owner, extended attributes, mode, modification time, file attributes: what an object has beside its contents, given to
//! what stands for it in the target.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use reelfs_format::record::Attributes;
use reelfs_sys::inode;
use rustix::fs::{
    chmodat, chownat, fchmod, fchown, flistxattr, fremovexattr, fsetxattr, fstat, futimens, ioctl_getflags,
    ioctl_setflags, lsetxattr, utimensat, AtFlags, Gid, IFlags, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags,
    UTIME_OMIT,
};
use rustix::io::Errno;

use super::namespace::{Kind, Object};
use crate::show;

/// File attributes that `chattr(1)` sets and that can be given back; the others belong to the filesystem.
const SETTABLE: u32 = 0x1
    | 0x2
    | 0x4
    | 0x8
    | 0x10
    | 0x20
    | 0x40
    | 0x80
    | 0x400
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000
    | 0x80_0000
    | 0x2000_0000;
/// Those that forbid further changes (`FS_IMMUTABLE_FL`, `FS_APPEND_FL`).
const FREEZING: u32 = 0x10 | 0x20;

/// A refusal that neither the target's nature nor the caller's lack of privilege explains.
#[derive(Debug)]
pub struct Refusal {
    /// What was being done.
    pub doing: &'static str,
    /// What the system said.
    pub errno: Errno,
}

/// Told of each thing that the target cannot hold: what, and why.
pub type Lacking<'a> = &'a mut dyn FnMut(String);

/// Notes what can be explained; the rest is an error.
fn explain(lacking: Lacking<'_>, what: &str, doing: &'static str, errno: Errno) -> Result<(), Refusal> {
    match errno {
        Errno::PERM
        | Errno::ACCESS
        | Errno::OPNOTSUPP
        | Errno::INVAL
        | Errno::TOOBIG
        | Errno::RANGE
        | Errno::NOSPC
        | Errno::DQUOT
        | Errno::OVERFLOW
        | Errno::NOSYS => {
            lacking(format!("{what}: {errno}"));
            Ok(())
        }
        errno => Err(Refusal { doing, errno }),
    }
}

fn named(name: &[u8]) -> String {
    format!("extended attribute {}", show::name(name))
}

/// Gives an open file or directory what the object has, in the order in which nothing undoes what came before: changing
/// the owner clears capabilities and set-id bits. The file's size, for whoever wants to check it.
pub fn give(file: impl AsFd, object: &Object, lacking: Lacking<'_>) -> Result<Stat, Refusal> {
    let attr = &object.attr;
    let now = fstat(&file).map_err(|errno| Refusal { doing: "fstat", errno })?;
    let mut undone = now.st_mode & 0o7777 != attr.mode.get() & 0o7777;
    if (now.st_uid, now.st_gid) != (attr.uid.get(), attr.gid.get()) {
        undone = true;
        if let Err(errno) = fchown(&file, Some(owner(attr)), Some(group(attr))) {
            explain(lacking, "owner", "fchown", errno)?;
        }
    }
    if object.dressed {
        undress(&file, object);
    }
    for (name, value) in &object.xattrs {
        undone = true;
        if let Err(errno) = fsetxattr(&file, &**name, value, XattrFlags::empty()) {
            explain(lacking, &named(name), "fsetxattr", errno)?;
        }
    }
    if undone {
        fchmod(&file, mode(attr)).or_else(|errno| explain(lacking, "mode", "fchmod", errno))?;
    }
    futimens(&file, &times(attr)).or_else(|errno| explain(lacking, "modification time", "futimens", errno))?;
    Ok(now)
}

/// Takes off extended attributes that were given earlier and have been removed since. Those that the system keeps itself
/// (labels of security modules) are left alone.
fn undress(file: impl AsFd, object: &Object) {
    let mut names = vec![0_u8; 65536];
    let Ok(length) = flistxattr(&file, &mut names) else { return };
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        let ours = [b"user.".as_slice(), b"trusted.", b"system.posix_acl_", b"security.capability"];
        if ours.iter().any(|start| name.starts_with(start)) && !object.xattrs.contains_key(name) {
            // What cannot be removed shows when the tree is compared; there is no lack to name.
            let _ = fremovexattr(&file, name);
        }
    }
}

/// The same for what cannot be opened, by its name in a directory. `path` leads to it, for the one call that takes no
/// descriptor.
pub fn give_by_name(
    directory: impl AsFd,
    name: &[u8],
    path: &Path,
    object: &Object,
    lacking: Lacking<'_>,
) -> Result<(), Refusal> {
    let attr = &object.attr;
    chownat(&directory, name, Some(owner(attr)), Some(group(attr)), AtFlags::SYMLINK_NOFOLLOW)
        .or_else(|errno| explain(lacking, "owner", "chown", errno))?;
    for (xattr, value) in &object.xattrs {
        if let Err(errno) = lsetxattr(path, &**xattr, value, XattrFlags::empty()) {
            explain(lacking, &named(xattr), "lsetxattr", errno)?;
        }
    }
    if !matches!(object.kind, Kind::Symlink(_)) {
        chmodat(&directory, name, mode(attr), AtFlags::empty())
            .or_else(|errno| explain(lacking, "mode", "chmod", errno))?;
    }
    utimensat(&directory, name, &times(attr), AtFlags::SYMLINK_NOFOLLOW)
        .or_else(|errno| explain(lacking, "modification time", "utimensat", errno))
}

/// Whether [`flags`] has something to do.
pub fn wants_flags(object: &Object) -> bool {
    let attr = &object.attr;
    attr.valid.get() & Attributes::FILEATTR_VALID != 0
        && (attr.fileattr.get() & SETTABLE != 0 || attr.projid.get() != 0)
}

/// Whether the file has been given attributes that forbid every further change: then nothing is left to be done.
pub fn is_frozen(file: impl AsFd, object: &Object) -> bool {
    let wanted = object.attr.fileattr.get() & FREEZING;
    wants_flags(object) && wanted != 0 && ioctl_getflags(file).is_ok_and(|now| now.bits() & FREEZING == wanted)
}

/// File attributes and project id: last, because some forbid everything else.
pub fn flags(file: impl AsFd, object: &Object, lacking: Lacking<'_>) {
    let attr = &object.attr;
    if !wants_flags(object) {
        return;
    }
    let projid = attr.projid.get();
    if projid != 0 {
        if let Err(error) = inode::set_project_id(&file, projid) {
            lacking(format!("project id {projid}: {error}"));
        }
    }
    let wanted = attr.fileattr.get() & SETTABLE;
    if wanted == 0 {
        return;
    }
    let set = ioctl_getflags(&file).and_then(|now| {
        let kept = now.bits() & !SETTABLE;
        // In two steps: what freezes the file would forbid the rest.
        ioctl_setflags(&file, IFlags::from_bits_retain(kept | (wanted & !FREEZING)))?;
        if wanted & FREEZING != 0 {
            ioctl_setflags(&file, IFlags::from_bits_retain(kept | wanted))?;
        }
        Ok(())
    });
    if let Err(errno) = set {
        lacking(format!("file attributes {wanted:#x}: {errno}"));
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        io::Error::new(io::Error::from(refusal.errno).kind(), format!("{}: {}", refusal.doing, refusal.errno))
    }
}

fn owner(attr: &Attributes) -> Uid {
    Uid::from_raw(attr.uid.get())
}

fn group(attr: &Attributes) -> Gid {
    Gid::from_raw(attr.gid.get())
}

fn mode(attr: &Attributes) -> Mode {
    Mode::from_raw_mode(attr.mode.get() & 0o7777)
}

fn times(attr: &Attributes) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: attr.mtime_sec.get(), tv_nsec: attr.mtime_nsec.get().into() },
    }
}
