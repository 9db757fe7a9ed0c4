// SPDX-License-Identifier: GPL-2.0-or-later

//! A small tree with every kind of object in it, and one way to spoil each class of attribute.
//!
//! Used by this crate's own test, and inside the test machine, where a filesystem with project ids is at hand. Needs
//! root. What it plants it plants with system calls and ordinary programs, not with code of this project.

use rustix::fs::{AtFlags, FileType, IFlags, Mode, Timespec, Timestamps, XattrFlags, CWD};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{self as unix, FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// A moment to set all `mtime`s to, so that two trees made one after the other are equal.
const MOMENT: Timespec = Timespec { tv_sec: 1_600_000_000, tv_nsec: 123_456_789 };

/// `security.capability`, revision 2: `cap_net_raw` permitted and effective (`include/uapi/linux/capability.h`).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An ACL (`include/uapi/linux/posix_acl_xattr.h`): `u::rw-,u:1:PERM,g::r--,m::rw-,o::---`.
fn acl(perm: u8) -> Vec<u8> {
    let entry = |tag: u8, perm: u8, id: u32| {
        let mut bytes = vec![tag, 0, perm, 0];
        bytes.extend(id.to_le_bytes());
        bytes
    };
    let none = u32::MAX;
    [vec![2, 0, 0, 0], entry(1, 6, none), entry(2, perm, 1), entry(4, 4, none), entry(16, 6, none), entry(32, 0, none)]
        .concat()
}

fn set(path: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
}

fn touch(path: &Path, nsec: i64) -> Result<(), Errno> {
    let time = Timespec { tv_nsec: nsec, ..MOMENT };
    let both = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW)
}

fn node(path: &Path, kind: FileType, major: u32, minor: u32) -> Result<(), Errno> {
    rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, rustix::fs::makedev(major, minor))
}

/// Makes the tree at `root`, which must not exist.
pub fn tree(root: &Path) -> io::Result<()> {
    fs::create_dir(root)?;
    let at = |name: &str| root.join(name);
    fs::create_dir(at("dir"))?;
    fs::create_dir(at("dir/below"))?;
    fs::write(at("dir/file"), b"contents of a file\n")?;
    fs::write(at("dir/empty"), b"")?;
    fs::write(at("linked"), b"two names")?;
    fs::hard_link(at("linked"), at("dir/linked"))?;
    fs::write(at("pair"), b"two names")?;
    fs::hard_link(at("pair"), at("dir/pair"))?;
    fs::write(at("other"), b"one name")?;
    unix::symlink("dir/file", at("symlink"))?;
    let sparse = File::create(at("sparse"))?;
    sparse.set_len(1 << 20)?;
    sparse.write_all_at(b"data", 512 << 10)?;
    node(&at("fifo"), FileType::Fifo, 0, 0)?;
    node(&at("socket"), FileType::Socket, 0, 0)?;
    node(&at("character"), FileType::CharacterDevice, 1, 3)?;
    node(&at("block"), FileType::BlockDevice, 7, 1)?;
    set(&at("dir/file"), "user.comment", b"a value\0 with a zero")?;
    set(&at("dir/file"), "trusted.secret", b"value")?;
    set(&at("symlink"), "trusted.link", b"on the link")?;
    set(&at("dir/empty"), "security.capability", &CAPABILITY)?;
    set(&at("dir/file"), "system.posix_acl_access", &acl(4))?;
    set(&at("dir"), "system.posix_acl_default", &acl(4))?;
    fs::write(at("dir/\u{fc}ml \\ name"), b"x")?;
    let names = [
        "dir/below",
        "dir/file",
        "dir/empty",
        "linked",
        "pair",
        "other",
        "symlink",
        "sparse",
        "fifo",
        "socket",
        "character",
        "block",
        "dir/\u{fc}ml \\ name",
        "dir",
        "",
    ];
    for name in names {
        touch(&at(name), MOMENT.tv_nsec)?;
    }
    Ok(())
}

/// One way to spoil the tree.
pub struct Plant {
    /// The class of attribute.
    pub class: &'static str,
    /// The name that differs afterwards.
    pub path: &'static [u8],
    /// The key that differs afterwards; empty where the name itself is missing on one side.
    pub key: &'static str,
    /// Does it.
    pub spoil: fn(&Path) -> io::Result<()>,
}

/// `spoil`, and the time of the directory as it was, where the name operation changed it.
fn quietly(root: &Path, name: &str, spoil: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let path = root.join(name);
    spoil(&path)?;
    if path.symlink_metadata().is_ok() {
        touch(&path, MOMENT.tv_nsec)?;
    }
    if let Some(parent) = path.parent() {
        touch(parent, MOMENT.tv_nsec)?;
    }
    Ok(())
}

fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    fs::remove_file(path)?;
    make(path)
}

fn run(program: &str, arguments: &[&str], path: &Path) -> io::Result<()> {
    let done = Command::new(program).args(arguments).arg(path).output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let kind = if said.contains("not supported") { io::ErrorKind::Unsupported } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, said))
}

/// Every class of attribute, each spoiled once and alone.
pub const PLANTS: &[Plant] = &[
    Plant {
        class: "name missing",
        path: b"dir/empty",
        key: "",
        spoil: |root| quietly(root, "dir/empty", |path| fs::remove_file(path)),
    },
    Plant {
        class: "name added",
        path: b"dir/more",
        key: "",
        spoil: |root| quietly(root, "dir/more", |path| fs::write(path, b"")),
    },
    Plant {
        class: "name in other bytes",
        path: b"dir/\xfcml \\ name",
        key: "",
        spoil: |root| {
            let new = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"dir/\xfcml \\ name");
            quietly(root, "dir/\u{fc}ml \\ name", |path| fs::rename(path, root.join(new)))
        },
    },
    Plant {
        class: "type",
        path: b"fifo",
        key: "type",
        spoil: |root| quietly(root, "fifo", |path| replace(path, |path| Ok(node(path, FileType::Socket, 0, 0)?))),
    },
    Plant {
        class: "permission",
        path: b"dir/below",
        key: "mode",
        spoil: |root| fs::set_permissions(root.join("dir/below"), fs::Permissions::from_mode(0o711)),
    },
    Plant {
        class: "set-user-id bit",
        path: b"other",
        key: "mode",
        spoil: |root| fs::set_permissions(root.join("other"), fs::Permissions::from_mode(0o4644)),
    },
    Plant {
        class: "mode of the root",
        path: b".",
        key: "mode",
        spoil: |root| fs::set_permissions(root, fs::Permissions::from_mode(0o700)),
    },
    Plant {
        class: "owner",
        path: b"symlink",
        key: "uid",
        spoil: |root| unix::lchown(root.join("symlink"), Some(1), None),
    },
    Plant { class: "group", path: b"dir", key: "gid", spoil: |root| unix::lchown(root.join("dir"), None, Some(1)) },
    Plant {
        class: "mtime of a file",
        path: b"other",
        key: "mtime",
        spoil: |root| Ok(touch(&root.join("other"), MOMENT.tv_nsec + 1)?),
    },
    Plant {
        class: "mtime of a directory",
        path: b"dir",
        key: "mtime",
        spoil: |root| Ok(touch(&root.join("dir"), MOMENT.tv_nsec + 1)?),
    },
    Plant {
        class: "mtime of a symlink",
        path: b"symlink",
        key: "mtime",
        spoil: |root| Ok(touch(&root.join("symlink"), MOMENT.tv_nsec + 1)?),
    },
    Plant {
        class: "contents",
        path: b"dir/file",
        key: "blake3",
        spoil: |root| quietly(root, "dir/file", |path| File::options().write(true).open(path)?.write_all_at(b"C", 0)),
    },
    Plant {
        class: "size",
        path: b"dir/file",
        key: "size",
        spoil: |root| quietly(root, "dir/file", |path| File::options().write(true).open(path)?.write_all_at(b"\0", 19)),
    },
    Plant {
        class: "hole filled with zeros",
        path: b"sparse",
        key: "data",
        spoil: |root| {
            quietly(root, "sparse", |path| File::options().write(true).open(path)?.write_all_at(&[0; 4096], 128 << 10))
        },
    },
    Plant {
        class: "hole punched into zeros",
        path: b"sparse",
        key: "data",
        spoil: |root| {
            quietly(root, "sparse", |path| {
                replace(path, |path| {
                    let file = File::create(path)?;
                    file.set_len(1 << 20)?;
                    file.write_all_at(&[0; 4096], 4096)
                })
            })
        },
    },
    Plant {
        class: "hard link broken",
        path: b"dir/linked",
        key: "links",
        spoil: |root| quietly(root, "dir/linked", |path| replace(path, |path| fs::write(path, b"two names"))),
    },
    Plant {
        class: "hard links swapped",
        path: b"linked",
        key: "same",
        spoil: |root| {
            // The same number of links everywhere, the same contents: only who belongs to whom differs.
            quietly(root, "dir/linked", |path| replace(path, |path| fs::hard_link(root.join("pair"), path)))?;
            quietly(root, "dir/pair", |path| replace(path, |path| fs::hard_link(root.join("linked"), path)))
        },
    },
    Plant {
        class: "target of a symlink",
        path: b"symlink",
        key: "target",
        spoil: |root| {
            quietly(root, "symlink", |path| {
                replace(path, |path| {
                    unix::symlink("dir/fils", path)?;
                    Ok(set(path, "trusted.link", b"on the link")?)
                })
            })
        },
    },
    Plant {
        class: "device number",
        path: b"character",
        key: "rdev",
        spoil: |root| {
            quietly(root, "character", |path| replace(path, |path| Ok(node(path, FileType::CharacterDevice, 1, 5)?)))
        },
    },
    Plant {
        class: "type of a device",
        path: b"block",
        key: "type",
        spoil: |root| {
            quietly(root, "block", |path| replace(path, |path| Ok(node(path, FileType::CharacterDevice, 7, 1)?)))
        },
    },
    Plant {
        class: "value of a user xattr",
        path: b"dir/file",
        key: "xattr:user.comment",
        spoil: |root| Ok(set(&root.join("dir/file"), "user.comment", b"a value\0 with a zerO")?),
    },
    Plant {
        class: "trusted xattr missing",
        path: b"dir/file",
        key: "xattr:trusted.secret",
        spoil: |root| Ok(rustix::fs::lremovexattr(root.join("dir/file"), "trusted.secret")?),
    },
    Plant {
        class: "empty xattr added",
        path: b"other",
        key: "xattr:user.empty",
        spoil: |root| Ok(set(&root.join("other"), "user.empty", b"")?),
    },
    Plant {
        class: "xattr of a symlink",
        path: b"symlink",
        key: "xattr:trusted.link",
        spoil: |root| Ok(set(&root.join("symlink"), "trusted.link", b"on the LINK")?),
    },
    Plant {
        class: "file capability",
        path: b"dir/empty",
        key: "xattr:security.capability",
        spoil: |root| Ok(rustix::fs::lremovexattr(root.join("dir/empty"), "security.capability")?),
    },
    Plant {
        class: "access ACL",
        path: b"dir/file",
        key: "xattr:system.posix_acl_access",
        spoil: |root| Ok(set(&root.join("dir/file"), "system.posix_acl_access", &acl(6))?),
    },
    Plant {
        class: "default ACL",
        path: b"dir",
        key: "xattr:system.posix_acl_default",
        spoil: |root| Ok(set(&root.join("dir"), "system.posix_acl_default", &acl(0))?),
    },
    Plant {
        class: "file attribute",
        path: b"dir/file",
        key: "flags",
        spoil: |root| {
            let file = File::open(root.join("dir/file"))?;
            // With what it has: ext4 would take it for an order to change how the blocks are kept.
            let flags = rustix::fs::ioctl_getflags(&file)?;
            Ok(rustix::fs::ioctl_setflags(&file, flags | IFlags::NODUMP)?)
        },
    },
    Plant {
        class: "project id",
        path: b"dir",
        key: "project",
        spoil: |root| run("chattr", &["-p", "4711"], &root.join("dir")),
    },
];
