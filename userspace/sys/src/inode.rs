// SPDX-License-Identifier: GPL-2.0-or-later
//! What only ioctls and raw system calls tell about an inode: file handles and project ids.

use std::ffi::CStr;
use std::io;

use rustix::fd::{AsFd, AsRawFd};
use rustix::ioctl::{self, opcode, Getter, Setter};

/// `struct fsxattr` of `linux/fs.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Fsxattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

fn extended(file: impl AsFd) -> io::Result<Fsxattr> {
    // SAFETY: FS_IOC_FSGETXATTR fills one `struct fsxattr`, as `Fsxattr` has it (linux/fs.h).
    let call = unsafe { Getter::<{ opcode::read::<Fsxattr>(b'X', 31) }, Fsxattr>::new() };
    // SAFETY: the opcode and the type belong together, as said above; the descriptor is borrowed for the call.
    Ok(unsafe { ioctl::ioctl(file, call) }?)
}

/// The project id of an open file (`FS_IOC_FSGETXATTR`). Errors: `ENOTTY`, `EOPNOTSUPP` the filesystem has none.
pub fn project_id(file: impl AsFd) -> io::Result<u32> {
    Ok(extended(file)?.projid)
}

/// Sets the project id of an open file (`FS_IOC_FSSETXATTR`) and leaves its other attributes as they are.
pub fn set_project_id(file: impl AsFd, projid: u32) -> io::Result<()> {
    let wanted = Fsxattr { projid, ..extended(file.as_fd())? };
    // SAFETY: FS_IOC_FSSETXATTR reads one `struct fsxattr`, as `Fsxattr` has it (linux/fs.h).
    let call = unsafe { Setter::<{ opcode::write::<Fsxattr>(b'X', 32) }, Fsxattr>::new(wanted) };
    // SAFETY: the opcode and the type belong together, as said above; the descriptor is borrowed for the call.
    unsafe { ioctl::ioctl(file, call) }?;
    Ok(())
}

/// Longest handle there is (`MAX_HANDLE_SZ` of `linux/exportfs.h`).
const HANDLE_MAX: usize = 128;

#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_MAX],
}

/// The file handle of `name` in `directory`, not following a symbolic link; of `directory` itself for an empty name
/// (`name_to_handle_at(2)`): its type and its bytes. Errors: `EOPNOTSUPP` the filesystem has no handles.
pub fn handle(directory: impl AsFd, name: &CStr) -> io::Result<(i32, Vec<u8>)> {
    let mut handle = Handle { bytes: HANDLE_MAX as u32, kind: 0, handle: [0; HANDLE_MAX] };
    let mut mount: i32 = 0;
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let descriptor = directory.as_fd().as_raw_fd();
    // SAFETY: the name ends with a zero byte; the kernel writes at most `bytes` bytes of handle behind the two words,
    // for which there is room, and one int; all of it outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, descriptor, name.as_ptr(), &raw mut handle, &raw mut mount, flags)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = (handle.bytes as usize).min(HANDLE_MAX);
    Ok((handle.kind, handle.handle[..length].to_vec()))
}

const _: () = assert!(std::mem::size_of::<Fsxattr>() == 28);
