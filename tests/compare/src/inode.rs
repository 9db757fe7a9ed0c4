// SPDX-License-Identifier: GPL-2.0-or-later

//! File attribute flags and project ids: `FS_IOC_FSGETXATTR` and `FS_IOC_GETFLAGS` (`include/uapi/linux/fs.h`).
//!
//! Neither has a safe wrapper that gives the project id, so the one `unsafe` call of this crate is here. It is not
//! borrowed from the crate that restore uses: a wrong layout there would then go unseen.

use rustix::io::Errno;
use rustix::ioctl;
use std::os::fd::AsFd;

/// Flags that a user can set and that stay with the file, of those that `FS_IOC_GETFLAGS` reports. What the
/// filesystem sets by itself (extents, inline data, hashed directories ...) says nothing about the tree.
const PERSISTENT_FLAGS: u32 = 0x0000_0001 // FS_SECRM_FL
    | 0x0000_0002 // FS_UNRM_FL
    | 0x0000_0004 // FS_COMPR_FL
    | 0x0000_0008 // FS_SYNC_FL
    | 0x0000_0010 // FS_IMMUTABLE_FL
    | 0x0000_0020 // FS_APPEND_FL
    | 0x0000_0040 // FS_NODUMP_FL
    | 0x0000_0080 // FS_NOATIME_FL
    | 0x0000_0400 // FS_NOCOMP_FL
    | 0x0000_4000 // FS_JOURNAL_DATA_FL
    | 0x0000_8000 // FS_NOTAIL_FL
    | 0x0001_0000 // FS_DIRSYNC_FL
    | 0x0002_0000 // FS_TOPDIR_FL
    | 0x0080_0000 // FS_NOCOW_FL
    | 0x0200_0000 // FS_DAX_FL
    | 0x2000_0000 // FS_PROJINHERIT_FL
    | 0x4000_0000; // FS_CASEFOLD_FL

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Fsxattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `FS_IOC_FSGETXATTR`.
const FSGETXATTR: ioctl::Opcode = ioctl::opcode::read::<Fsxattr>(b'X', 31);

/// The persistent file attribute flags; zero where the filesystem has none.
pub fn flags(file: impl AsFd) -> Result<u32, Errno> {
    match rustix::fs::ioctl_getflags(file) {
        Ok(flags) => Ok(flags.bits() & PERSISTENT_FLAGS),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(0),
        Err(error) => Err(error),
    }
}

/// The project id; zero where the filesystem has none.
#[expect(unsafe_code, reason = "no safe wrapper has this ioctl")]
pub fn project(file: impl AsFd) -> Result<u32, Errno> {
    // SAFETY: FS_IOC_FSGETXATTR writes one `struct fsxattr` (include/uapi/linux/fs.h), which is what `Fsxattr` is.
    let getter = unsafe { ioctl::Getter::<FSGETXATTR, Fsxattr>::new() };
    // SAFETY: the ioctl does nothing but write the structure; on a descriptor that does not know it, it fails.
    let answer = unsafe { ioctl::ioctl(file, getter) };
    match answer {
        Ok(found) => Ok(found.projid),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(0),
        Err(error) => Err(error),
    }
}

const _: () = assert!(size_of::<Fsxattr>() == 28);
