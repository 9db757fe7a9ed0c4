// SPDX-License-Identifier: GPL-2.0-or-later
//! Shared mappings of files, and what can be asked of the kernel about them: `mmap(2)`, `madvise(2)`, `mremap(2)` and so
//! on.
//!
//! Nothing refers to the mapped memory but through the functions here, which copy and are volatile: others may store into
//! it at any time. A store where there is no file, or no permission, ends the process with a signal, as everywhere.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, MsyncFlags, ProtFlags};

/// What `madvise(2)` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// `MADV_DONTNEED`: forget what is mapped where.
    DontNeed,
    /// `MADV_REMOVE`: make it a hole in the file.
    Remove,
    /// `MADV_PAGEOUT`: write it out and forget it.
    PageOut,
    /// `MADV_POPULATE_WRITE`: as if it had been stored into.
    PopulateWrite,
    /// `MADV_HUGEPAGE`: use large pages.
    HugePage,
}

impl Advice {
    fn number(self) -> libc::c_int {
        match self {
            Self::DontNeed => libc::MADV_DONTNEED,
            Self::Remove => libc::MADV_REMOVE,
            Self::PageOut => libc::MADV_PAGEOUT,
            Self::PopulateWrite => libc::MADV_POPULATE_WRITE,
            Self::HugePage => libc::MADV_HUGEPAGE,
        }
    }
}

/// A shared mapping of a file.
///
/// # Invariants
///
/// `base` is mapped, `length` bytes, until drop, and nothing borrows from it.
#[derive(Debug)]
pub struct SharedMapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: Memory may be used from any thread.
unsafe impl Send for SharedMapping {}
// SAFETY: All access is volatile, and the kernel's calls take care of themselves.
unsafe impl Sync for SharedMapping {}

fn outcome(ret: isize) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}

impl SharedMapping {
    /// Maps `length` bytes of a file from `offset` on, readable, and writable if asked.
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)`.
    pub fn new(file: impl AsFd, offset: u64, length: usize, writable: bool) -> io::Result<Self> {
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, writable);
        // SAFETY: A new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, file, offset) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { base, length })
    }

    /// The same, writable, at an address that is a multiple of `alignment`, so that large pages fit.
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)`.
    pub fn aligned(file: impl AsFd, offset: u64, length: usize, alignment: usize) -> io::Result<Self> {
        let room = length.checked_add(alignment).ok_or(io::ErrorKind::InvalidInput)?;
        let reserved = (ProtFlags::empty(), MapFlags::PRIVATE);
        // SAFETY: A new mapping at an address of the kernel's choice touches no existing memory.
        let found = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), room, reserved.0, reserved.1) }?;
        let skipped = (found as usize).next_multiple_of(alignment) - found as usize;
        // SAFETY: Less than `alignment` is skipped, so this is inside.
        let place = unsafe { found.byte_add(skipped) };
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: It takes the place of a part of what has just been mapped, which nobody else knows.
        let base = unsafe { rustix::mm::mmap(place, length, ProtFlags::READ | ProtFlags::WRITE, flags, file, offset) }?;
        // SAFETY: As above; the end of what was mapped at first.
        let rest = unsafe { place.byte_add(length) };
        for (start, length) in [(found, skipped), (rest, alignment - skipped)] {
            if length > 0 {
                // SAFETY: As above, and this is not what is kept.
                unsafe { rustix::mm::munmap(start, length) }?;
            }
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { base, length })
    }

    /// The length in bytes.
    #[allow(clippy::len_without_is_empty)] // There are no empty mappings.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The address of a range, which must lie inside.
    fn place(&self, at: usize, length: usize) -> *mut u8 {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.length), "{at} + {length} of {}", self.length);
        // SAFETY: Inside the mapping.
        unsafe { self.base.as_ptr().add(at) }
    }

    /// Where the mapping is in memory.
    pub fn address(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// Stores bytes.
    ///
    /// # Panics
    ///
    /// Panics if they would lie outside of the mapping.
    pub fn store(&self, at: usize, bytes: &[u8]) {
        let start = self.place(at, bytes.len());
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: Inside the mapping, by the check above.
            let place = unsafe { start.add(index) };
            // SAFETY: Mapped until drop.
            unsafe { place.write_volatile(*byte) };
        }
    }

    /// Loads bytes.
    ///
    /// # Panics
    ///
    /// Panics if they lie outside of the mapping.
    pub fn load(&self, at: usize, length: usize) -> Vec<u8> {
        let start = self.place(at, length);
        let byte = |index| {
            // SAFETY: Inside the mapping, by the check above.
            let place = unsafe { start.add(index) };
            // SAFETY: Mapped until drop.
            unsafe { place.read_volatile() }
        };
        (0..length).map(byte).collect()
    }

    /// Allows stores, or forbids them (`mprotect(2)`).
    ///
    /// # Errors
    ///
    /// Those of `mprotect(2)`.
    pub fn protect(&self, writable: bool) -> io::Result<()> {
        let mut flags = MprotectFlags::READ;
        flags.set(MprotectFlags::WRITE, writable);
        // SAFETY: The mapping is ours, and readable afterwards as it was before.
        Ok(unsafe { rustix::mm::mprotect(self.base.as_ptr().cast(), self.length, flags) }?)
    }

    /// `msync(MS_SYNC)` of a range that begins at a page.
    ///
    /// # Errors
    ///
    /// Those of `msync(2)`.
    pub fn sync(&self, range: Range<usize>) -> io::Result<()> {
        let length = range.end.saturating_sub(range.start);
        // SAFETY: Changes nothing in memory.
        Ok(unsafe { rustix::mm::msync(self.place(range.start, length).cast(), length, MsyncFlags::SYNC) }?)
    }

    /// Gives advice about a range of whole pages.
    ///
    /// # Errors
    ///
    /// Those of `madvise(2)`.
    pub fn advise(&self, range: Range<usize>, advice: Advice) -> io::Result<()> {
        let length = range.end.saturating_sub(range.start);
        // SAFETY: Whatever becomes of the contents, the memory stays mapped.
        let ret = unsafe { libc::madvise(self.place(range.start, length).cast(), length, advice.number()) };
        outcome(ret as isize).map(drop)
    }

    /// Has a range of pages show other pages of the file, by number (`remap_file_pages(2)`).
    ///
    /// # Errors
    ///
    /// Those of `remap_file_pages(2)`.
    pub fn show_pages(&self, range: Range<usize>, page: usize) -> io::Result<()> {
        let length = range.end.saturating_sub(range.start);
        // SAFETY: The range stays mapped, with the same protection.
        let ret = unsafe {
            libc::syscall(libc::SYS_remap_file_pages, self.place(range.start, length), length, 0usize, page, 0usize)
        };
        outcome(ret as isize).map(drop)
    }

    /// Gives the mapping another length, and another place if it has to (`mremap(2)`).
    ///
    /// # Errors
    ///
    /// Those of `mremap(2)`; the mapping is gone then.
    pub fn resized(self, length: usize) -> io::Result<Self> {
        // SAFETY: The old mapping is ours and nothing borrows from it.
        let base = unsafe { rustix::mm::mremap(self.base.as_ptr().cast(), self.length, length, MremapFlags::MAYMOVE) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        std::mem::forget(self);
        Ok(Self { base, length })
    }

    /// Maps the same once more, without a descriptor (`mremap(2)` of length zero).
    ///
    /// # Errors
    ///
    /// Those of `mremap(2)`.
    pub fn again(&self) -> io::Result<Self> {
        // SAFETY: With an old length of zero nothing is unmapped.
        let base = unsafe { rustix::mm::mremap(self.base.as_ptr().cast(), 0, self.length, MremapFlags::MAYMOVE) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { base, length: self.length })
    }

    /// Reads from a file into the mapping (`pread(2)`).
    ///
    /// # Errors
    ///
    /// Those of `pread(2)`.
    pub fn read_from(&self, range: Range<usize>, file: impl AsFd, offset: i64) -> io::Result<usize> {
        let length = range.end.saturating_sub(range.start);
        let place = self.place(range.start, length).cast();
        // SAFETY: The kernel writes into mapped memory that nothing borrows from.
        outcome(unsafe { libc::pread(file.as_fd().as_raw_fd(), place, length, offset) })
    }

    /// Writes from the mapping to a file (`pwrite(2)`).
    ///
    /// # Errors
    ///
    /// Those of `pwrite(2)`.
    pub fn write_to(&self, range: Range<usize>, file: impl AsFd, offset: i64) -> io::Result<usize> {
        let length = range.end.saturating_sub(range.start);
        let place = self.place(range.start, length).cast();
        // SAFETY: The kernel reads mapped memory.
        outcome(unsafe { libc::pwrite(file.as_fd().as_raw_fd(), place, length, offset) })
    }

    /// Stores bytes as a debugger of this process would (`process_vm_writev(2)`).
    ///
    /// # Errors
    ///
    /// Those of `process_vm_writev(2)`.
    pub fn store_from_outside(&self, at: usize, bytes: &[u8]) -> io::Result<usize> {
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: self.place(at, bytes.len()).cast(), iov_len: bytes.len() };
        let myself = i32::try_from(std::process::id()).unwrap_or(0);
        // SAFETY: The kernel reads `bytes`, and writes into mapped memory that nothing borrows from.
        outcome(unsafe { libc::process_vm_writev(myself, &local, 1, &remote, 1, 0) })
    }

    /// Asks to handle missing pages of the mapping in user space (`userfaultfd(2)`). The descriptor ends that.
    ///
    /// # Errors
    ///
    /// Those of `userfaultfd(2)` and of its ioctls.
    pub fn handle_faults(&self) -> io::Result<OwnedFd> {
        const API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
        const REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
        const MODE_MISSING: u64 = 1;
        // SAFETY: A system call without pointers.
        let fd = outcome(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) } as isize)?;
        // SAFETY: The descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) };
        let mut api: [u64; 3] = [0xaa, 0, 0];
        // SAFETY: The argument is as long as the number says.
        outcome(unsafe { libc::ioctl(fd.as_raw_fd(), API, api.as_mut_ptr()) } as isize)?;
        let mut register: [u64; 4] = [self.address() as u64, self.length as u64, MODE_MISSING, 0];
        // SAFETY: As above; accesses to missing pages of the mapping wait from now on.
        outcome(unsafe { libc::ioctl(fd.as_raw_fd(), REGISTER, register.as_mut_ptr()) } as isize)?;
        Ok(fd)
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
