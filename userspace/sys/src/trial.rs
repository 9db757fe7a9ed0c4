// SPDX-License-Identifier: GPL-2.0-or-later
//! Calls on a device that no sane program makes: for tests of the kernel's answers.
//!
//! Whatever is asked, this process's own memory is safe: what the kernel writes, it writes into
//! a buffer that is large enough, or nowhere.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};

use rustix::ioctl::{ioctl, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

/// An `ioctl` of any number with any argument.
struct Raw {
    request: Opcode,
    argument: *mut std::ffi::c_void,
}

// SAFETY: `command` and `command_at` see to it that whatever the kernel does with the argument
// does not harm this process.
unsafe impl Ioctl for Raw {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.request
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        self.argument
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

/// The length that a request number encodes, in bytes (`_IOC_SIZE`).
const fn size_of_request(request: u32) -> usize {
    (request >> 16) as usize & 0x3fff
}

/// `ioctl` with a buffer at least as long as the request number says.
///
/// # Errors
///
/// What the kernel answers; `InvalidInput` for a buffer that is too short.
pub fn command(device: impl AsFd, request: u32, argument: &mut [u8]) -> io::Result<i32> {
    // Drivers are free to ignore what the number says; nothing we know writes more than this.
    const MARGIN: usize = 4096;
    if argument.len() < size_of_request(request) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut buffer = vec![0; argument.len() + MARGIN];
    buffer[..argument.len()].copy_from_slice(argument);
    let raw = Raw { request, argument: buffer.as_mut_ptr().cast() };
    // SAFETY: The argument points to a buffer that the kernel may fill, with a margin.
    let result = unsafe { ioctl(device, raw) };
    argument.copy_from_slice(&buffer[..argument.len()]);
    Ok(result?)
}

/// Where nothing of this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// Address zero.
    Null,
    /// The kernel's half of the address space.
    Kernel,
    /// An address that no processor of the architecture can have.
    NonCanonical,
}

/// `ioctl` with an argument that points nowhere.
///
/// # Errors
///
/// What the kernel answers.
pub fn command_at(device: impl AsFd, request: u32, address: Nowhere) -> io::Result<i32> {
    let address: usize = match address {
        Nowhere::Null => 0,
        Nowhere::Kernel => 0xffff_8880_0000_0000,
        Nowhere::NonCanonical => 0x1234_5678_9abc_def0,
    };
    let raw = Raw { request, argument: ptr::without_provenance_mut(address) };
    // SAFETY: Nothing of this process can be at these addresses.
    Ok(unsafe { ioctl(device, raw) }?)
}

/// How to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// `PROT_READ`.
    pub read: bool,
    /// `PROT_WRITE`.
    pub write: bool,
    /// `PROT_EXEC`.
    pub execute: bool,
    /// `MAP_SHARED`, else `MAP_PRIVATE`.
    pub shared: bool,
}

impl Protection {
    /// As a consumer maps.
    pub const READ: Self = Self { read: true, write: false, execute: false, shared: true };
}

/// A mapping that nothing in this process refers to but through [`Mapped::byte`].
#[derive(Debug)]
pub struct Mapped {
    base: NonNull<u8>,
    length: usize,
}

impl Mapped {
    /// Maps a range of the device.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn new(device: impl AsFd, protection: Protection, range: Range<u64>) -> io::Result<Self> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut flags = ProtFlags::empty();
        flags.set(ProtFlags::READ, protection.read);
        flags.set(ProtFlags::WRITE, protection.write);
        flags.set(ProtFlags::EXEC, protection.execute);
        let kind = if protection.shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
        // SAFETY: A new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), length, flags, kind, device, range.start) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { base, length })
    }

    /// Asks for another protection, and leaves it so.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn protect(&self, write: bool, execute: bool) -> io::Result<()> {
        let mut flags = MprotectFlags::READ;
        flags.set(MprotectFlags::WRITE, write);
        flags.set(MprotectFlags::EXEC, execute);
        // SAFETY: The mapping is ours, and readable afterwards as it was before.
        unsafe { rustix::mm::mprotect(self.base.as_ptr().cast(), self.length, flags) }?;
        Ok(())
    }

    /// The byte at an offset, as it is now.
    ///
    /// # Panics
    ///
    /// Panics if the offset lies outside.
    pub fn byte(&self, offset: usize) -> u8 {
        assert!(offset < self.length, "offset {offset} of {}", self.length);
        // SAFETY: Inside the mapping.
        let place = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: Mapped and readable until drop; others may write to it, hence volatile.
        unsafe { place.read_volatile() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// The number of a descriptor, as it goes into structures.
pub fn number(fd: impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}
