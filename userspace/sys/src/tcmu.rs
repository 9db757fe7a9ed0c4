// SPDX-License-Identifier: GPL-2.0-or-later
//! The command ring of `target_core_user`: SCSI commands handed to user space through UIO.
//!
//! C header: `include/uapi/linux/target_core_user.h`; K:`Documentation/target/tcmu-design.rst`.
//!
//! One mapping holds a mailbox, a ring of command entries and a data area. The kernel moves
//! `cmd_head`, user space moves `cmd_tail`; an entry between them belongs to user space until
//! the tail passes it, and so does the part of the data area that its vectors name. Commands are
//! taken and answered here one at a time and in order, which is what a tape drive does.
//!
//! This file does not know any SCSI command, and does not set up the device (configfs does).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

/// Version of the mailbox layout that this file speaks.
const MAILBOX_VERSION: u16 = 2;
/// The kernel understands `read_len` in answers.
const CAP_READ_LEN: u16 = 1 << 1;

/// Offsets in `struct tcmu_mailbox`.
mod mailbox {
    pub const VERSION: usize = 0;
    pub const FLAGS: usize = 2;
    pub const CMDR_OFF: usize = 4;
    pub const CMDR_SIZE: usize = 8;
    pub const CMD_HEAD: usize = 12;
    /// On a cache line of its own (`ALIGN_SIZE`).
    pub const CMD_TAIL: usize = 64;
    pub const SIZE: usize = 128;
}

/// Offsets in `struct tcmu_cmd_entry` and `struct tcmu_tmr_entry`. These are packed, the
/// structures inside them are not.
mod entry {
    pub const LEN_OP: usize = 0;
    pub const UFLAGS: usize = 7;
    pub const HEADER_SIZE: usize = 8;
    pub const IOV_COUNT: usize = 8;
    pub const CDB_OFF: usize = 24;
    pub const IOV: usize = 48;
    pub const IOV_SIZE: usize = 16;
    pub const STATUS: usize = 8;
    pub const READ_LEN: usize = 12;
    pub const SENSE: usize = 16;
    pub const SENSE_SIZE: usize = 96;
    pub const COMMAND_SIZE: usize = 112;
    pub const TMR_TYPE: usize = 8;
}

const OP_MASK: u32 = 0x7;
const OP_PAD: u32 = 0;
const OP_CMD: u32 = 1;
const OP_TMR: u32 = 2;
const UFLAG_UNKNOWN_OP: u8 = 0x1;
const UFLAG_READ_LEN: u8 = 0x2;

/// Bytes of a command block that are copied out; no command this crate's users serve is longer.
const CDB_MAX: usize = 16;

/// Something in the ring does not hold together. The device is unusable from here on.
fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TCMU ring: {what}"))
}

/// A shared mapping of a UIO device's first region.
///
/// # Invariants
///
/// `base` points to `length` mapped bytes, readable and writable, until drop. The memory is
/// shared with the kernel: it is only ever touched through copies and atomics, never through
/// Rust references to plain data.
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: The mapping belongs to the process, not to a thread, and all access to it goes through
// `&self` copies and atomics whose exclusivity the ring protocol (and `&mut Ring`) provides.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(file: &File, length: usize) -> io::Result<Self> {
        // SAFETY: A new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            rustix::mm::mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| broken("mapped at address zero"))?;
        Ok(Self { base, length })
    }

    /// The address of `size` bytes at `offset`.
    fn at(&self, offset: usize, size: usize) -> io::Result<*mut u8> {
        match offset.checked_add(size) {
            Some(end) if end <= self.length => {
                // SAFETY: `offset` lies within the mapping, by the check above.
                Ok(unsafe { self.base.as_ptr().add(offset) })
            }
            _ => Err(broken("an offset points outside the mapping")),
        }
    }

    fn copy_out(&self, offset: usize, out: &mut [u8]) -> io::Result<()> {
        let from = self.at(offset, out.len())?;
        // SAFETY: `at` checked the source; the destination is a live slice outside the mapping.
        unsafe { ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    fn append_out(&self, offset: usize, size: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let from = self.at(offset, size)?;
        out.reserve(size);
        let spare = out.spare_capacity_mut();
        // SAFETY: `at` checked the source; `reserve` made room for `size` bytes in `spare`.
        unsafe { ptr::copy_nonoverlapping(from, spare.as_mut_ptr().cast(), size) };
        let length = out.len() + size;
        // SAFETY: The copy above initialised the `size` bytes after the old length.
        unsafe { out.set_len(length) };
        Ok(())
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let to = self.at(offset, bytes.len())?;
        // SAFETY: `at` checked the destination; the source is a live slice outside the mapping.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn read<const N: usize>(&self, offset: usize) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.copy_out(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn u16(&self, offset: usize) -> io::Result<u16> {
        self.read(offset).map(u16::from_ne_bytes)
    }

    fn u32(&self, offset: usize) -> io::Result<u32> {
        self.read(offset).map(u32::from_ne_bytes)
    }

    fn u64(&self, offset: usize) -> io::Result<u64> {
        self.read(offset).map(u64::from_ne_bytes)
    }

    /// A word that both sides change.
    fn atomic(&self, offset: usize) -> io::Result<&AtomicU32> {
        let word = self.at(offset, size_of::<u32>())?.cast::<u32>();
        if !word.is_aligned() {
            return Err(broken("an index is not aligned"));
        }
        // SAFETY: Checked to be inside the mapping and aligned; the mapping outlives `&self`;
        // the kernel changes this word with whole-word stores only.
        Ok(unsafe { AtomicU32::from_ptr(word) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the invariant this is the mapping made in `new`, and nothing borrows from it.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(result.is_ok(), "unmapping our own mapping cannot fail");
    }
}

/// The ring of one device.
pub struct Ring {
    uio: File,
    map: Mapping,
    cmdr_off: usize,
    cmdr_size: usize,
}

/// What the kernel asks for.
pub enum Request<'ring> {
    /// A SCSI command, to be answered.
    Command(Command<'ring>),
    /// A task management function that was already carried out by the kernel: news only.
    TaskManagement(TaskManagement),
}

/// A task management function (`TCMU_TMR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskManagement {
    /// Commands were aborted, by one name or another.
    Abort,
    /// The logical unit was reset, or its target.
    Reset,
    /// Something this file has no word for.
    Other(u8),
}

impl Ring {
    /// Opens the UIO device `path` (`/dev/uioN`) and maps its first region of `size` bytes
    /// (`/sys/class/uio/uioN/maps/map0/size`).
    ///
    /// # Errors
    ///
    /// Those of `open` and `mmap`; `InvalidData` when the mailbox is of another version or
    /// lacks what is needed.
    pub fn open(path: &Path, size: usize) -> io::Result<Self> {
        let uio = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(path)?;
        let map = Mapping::new(&uio, size)?;
        if map.u16(mailbox::VERSION)? != MAILBOX_VERSION {
            return Err(broken("the mailbox is not of version 2"));
        }
        if map.u16(mailbox::FLAGS)? & CAP_READ_LEN == 0 {
            return Err(broken("this kernel does not take the length of short reads"));
        }
        let cmdr_off = map.u32(mailbox::CMDR_OFF)? as usize;
        let cmdr_size = map.u32(mailbox::CMDR_SIZE)? as usize;
        if cmdr_off < mailbox::SIZE || cmdr_size == 0 {
            return Err(broken("the command ring overlaps the mailbox"));
        }
        map.at(cmdr_off, cmdr_size)?;
        Ok(Self { uio, map, cmdr_off, cmdr_size })
    }

    /// Forgets that the kernel signalled. Call it when the descriptor polls readable, before
    /// [`Ring::take`], so that a command queued meanwhile signals again.
    ///
    /// # Errors
    ///
    /// Those of `read`; that there was no signal is not one.
    pub fn clear_signal(&mut self) -> io::Result<()> {
        let mut count = [0; 4];
        match self.uio.read_exact(&mut count) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// The next request, if there is one.
    ///
    /// # Errors
    ///
    /// `InvalidData` when the ring does not hold together.
    pub fn take(&mut self) -> io::Result<Option<Request<'_>>> {
        loop {
            let head = self.map.atomic(mailbox::CMD_HEAD)?.load(Ordering::Acquire) as usize;
            let tail = self.map.atomic(mailbox::CMD_TAIL)?.load(Ordering::Relaxed) as usize;
            if head == tail {
                return Ok(None);
            }
            if tail >= self.cmdr_size || head >= self.cmdr_size {
                return Err(broken("an index is beyond the ring"));
            }
            let offset = self.cmdr_off + tail;
            let len_op = self.map.u32(offset + entry::LEN_OP)?;
            let length = (len_op & !OP_MASK) as usize;
            if length < entry::HEADER_SIZE || length > self.cmdr_size - tail {
                return Err(broken("an entry has an impossible length"));
            }
            let next_tail = ((tail + length) % self.cmdr_size) as u32;
            match len_op & OP_MASK {
                OP_PAD => self.advance(next_tail)?,
                OP_CMD => return self.command(offset, length, next_tail).map(Some),
                OP_TMR => {
                    let kind = match self.map.read::<1>(offset + entry::TMR_TYPE)?[0] {
                        1 | 2 => TaskManagement::Abort,
                        5..=7 => TaskManagement::Reset,
                        other => TaskManagement::Other(other),
                    };
                    self.advance(next_tail)?;
                    return Ok(Some(Request::TaskManagement(kind)));
                }
                _ => {
                    self.map.copy_in(offset + entry::UFLAGS, &[UFLAG_UNKNOWN_OP])?;
                    self.advance(next_tail)?;
                }
            }
        }
    }

    fn command(&mut self, offset: usize, length: usize, next_tail: u32) -> io::Result<Request<'_>> {
        if length < entry::COMMAND_SIZE {
            return Err(broken("a command entry is too short for its answer"));
        }
        let vectors = self.map.u32(offset + entry::IOV_COUNT)? as usize;
        if vectors > (length - entry::IOV) / entry::IOV_SIZE {
            return Err(broken("a command has more vectors than room for them"));
        }
        let mut data = Vec::with_capacity(vectors);
        for index in 0..vectors {
            let at = offset + entry::IOV + index * entry::IOV_SIZE;
            let start = self.map.u64(at)? as usize;
            let size = self.map.u64(at + 8)? as usize;
            self.map.at(start, size)?;
            data.push((start, size));
        }
        let cdb_off = self.map.u64(offset + entry::CDB_OFF)? as usize;
        // Never more than the mapping holds; the kernel copied the command's own length.
        let cdb = self.map.read::<CDB_MAX>(cdb_off)?;
        Ok(Request::Command(Command { ring: self, offset, next_tail, cdb, data, answered: false }))
    }

    fn advance(&self, tail: u32) -> io::Result<()> {
        self.map.atomic(mailbox::CMD_TAIL)?.store(tail, Ordering::Release);
        Ok(())
    }

    /// Tells the kernel that the tail moved. Once after a batch of answers is enough.
    ///
    /// # Errors
    ///
    /// Those of `write`.
    pub fn notify(&mut self) -> io::Result<()> {
        self.uio.write_all(&0u32.to_ne_bytes())
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uio.as_fd()
    }
}

/// A SCSI command that waits for its answer.
///
/// Dropped without one, it is answered with BUSY, so that no command can be lost.
pub struct Command<'ring> {
    ring: &'ring Ring,
    offset: usize,
    next_tail: u32,
    cdb: [u8; CDB_MAX],
    data: Vec<(usize, usize)>,
    answered: bool,
}

impl Command<'_> {
    /// The command block, padded to sixteen bytes with whatever followed it.
    pub fn cdb(&self) -> &[u8; CDB_MAX] {
        &self.cdb
    }

    /// Bytes in the command's data buffer, of whichever direction.
    pub fn data_length(&self) -> usize {
        self.data.iter().map(|&(_, size)| size).sum()
    }

    /// Appends the data that the initiator sent to `out`.
    ///
    /// # Errors
    ///
    /// `InvalidData` when a vector leaves the mapping.
    pub fn append_data(&self, out: &mut Vec<u8>) -> io::Result<()> {
        for &(start, size) in &self.data {
            self.ring.map.append_out(start, size, out)?;
        }
        Ok(())
    }

    /// Answers with SCSI `status`, `sense` data (at most 96 bytes are taken) and `data` for the
    /// initiator, of which as much is taken as its buffer holds.
    ///
    /// Data is delivered whatever the status is, as a tape's short reads need it.
    ///
    /// # Errors
    ///
    /// `InvalidData` when a vector leaves the mapping.
    pub fn answer(mut self, status: u8, sense: &[u8], data: &[u8]) -> io::Result<()> {
        let map = &self.ring.map;
        let mut left = data;
        for &(start, size) in &self.data {
            if left.is_empty() {
                break;
            }
            let (now, later) = left.split_at(size.min(left.len()));
            map.copy_in(start, now)?;
            left = later;
        }
        let delivered = data.len() - left.len();

        // The answer lies over the request in the same entry: everything needed from the
        // request was copied out before.
        let mut answer = [0; entry::COMMAND_SIZE - entry::STATUS];
        answer[0] = status;
        if delivered > 0 {
            // Without this flag the kernel takes the buffer to be full, or drops it on errors.
            let length = (delivered as u32).to_ne_bytes();
            answer[entry::READ_LEN - entry::STATUS..][..4].copy_from_slice(&length);
        }
        let sense = &sense[..sense.len().min(entry::SENSE_SIZE)];
        answer[entry::SENSE - entry::STATUS..][..sense.len()].copy_from_slice(sense);
        map.copy_in(self.offset + entry::STATUS, &answer)?;
        let flags = if delivered > 0 { UFLAG_READ_LEN } else { 0 };
        map.copy_in(self.offset + entry::UFLAGS, &[flags])?;
        self.answered = true;
        self.ring.advance(self.next_tail)
    }
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        const BUSY: u8 = 0x08;
        let map = &self.ring.map;
        let answered = map
            .copy_in(self.offset + entry::STATUS, &[BUSY])
            .and_then(|()| map.copy_in(self.offset + entry::UFLAGS, &[0]))
            .and_then(|()| self.ring.advance(self.next_tail));
        debug_assert!(answered.is_ok(), "the entry was inside the mapping when it was taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    const RING_OFF: usize = 4096;
    const RING_SIZE: usize = 4096;
    const DATA: usize = 8192;

    /// A file that looks like a TCMU device: mapping it needs no kernel module.
    struct Kernel {
        path: std::path::PathBuf,
        map: Mapping,
    }

    impl Kernel {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tcmu-{}-{name}", std::process::id()));
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .expect("a temporary file");
            file.write_all(&[0; 16384]).expect("room");
            file.rewind().expect("seek");
            let map = Mapping::new(&file, 16384).expect("map");
            map.copy_in(mailbox::VERSION, &2u16.to_ne_bytes()).expect("in range");
            map.copy_in(mailbox::FLAGS, &7u16.to_ne_bytes()).expect("in range");
            map.copy_in(mailbox::CMDR_OFF, &(RING_OFF as u32).to_ne_bytes()).expect("in range");
            map.copy_in(mailbox::CMDR_SIZE, &(RING_SIZE as u32).to_ne_bytes()).expect("in range");
            Self { path, map }
        }

        fn ring(&self) -> Ring {
            Ring::open(&self.path, 16384).expect("a ring")
        }

        fn put(&self, at: usize, bytes: &[u8]) {
            self.map.copy_in(RING_OFF + at, bytes).expect("in range");
        }

        fn head(&self, head: u32) {
            self.map.copy_in(mailbox::CMD_HEAD, &head.to_ne_bytes()).expect("in range");
        }

        fn tail(&self) -> u32 {
            self.map.u32(mailbox::CMD_TAIL).expect("in range")
        }

        fn command(&self, at: usize, vectors: &[(u64, u64)]) -> u32 {
            let length = 160u32;
            self.put(at, &(length | OP_CMD).to_ne_bytes());
            self.put(at + entry::IOV_COUNT, &(vectors.len() as u32).to_ne_bytes());
            self.put(at + entry::CDB_OFF, &((RING_OFF + at + 140) as u64).to_ne_bytes());
            self.put(at + 140, &[0x12, 0, 0, 0, 36, 0]);
            for (i, (base, size)) in vectors.iter().enumerate() {
                self.put(at + entry::IOV + i * 16, &base.to_ne_bytes());
                self.put(at + entry::IOV + i * 16 + 8, &size.to_ne_bytes());
            }
            at as u32 + length
        }
    }

    impl Drop for Kernel {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    #[test]
    fn a_command_is_taken_and_answered_over_scattered_buffers() {
        let kernel = Kernel::new("answer");
        let mut ring = kernel.ring();
        assert!(ring.take().expect("sound").is_none());
        kernel.head(kernel.command(0, &[(DATA as u64, 4), (DATA as u64 + 100, 8)]));
        let Some(Request::Command(command)) = ring.take().expect("sound") else {
            panic!("no command");
        };
        assert_eq!(command.cdb()[..6], [0x12, 0, 0, 0, 36, 0]);
        assert_eq!(command.data_length(), 12);
        command.answer(2, &[0x70, 0, 3], b"abcdefg").expect("sound");
        assert_eq!(kernel.tail(), 160);
        assert_eq!(&kernel.map.read::<4>(DATA).expect("in range"), b"abcd");
        assert_eq!(&kernel.map.read::<4>(DATA + 100).expect("in range"), b"efg\0");
        assert_eq!(kernel.map.u32(RING_OFF + entry::READ_LEN).expect("in range"), 7);
        assert_eq!(kernel.map.read::<1>(RING_OFF + entry::UFLAGS).expect("in range"), [2]);
        assert_eq!(kernel.map.read::<3>(RING_OFF + entry::SENSE).expect("in range"), [0x70, 0, 3]);
        assert!(ring.take().expect("sound").is_none());
    }

    #[test]
    fn a_dropped_command_is_answered_busy() {
        let kernel = Kernel::new("drop");
        let mut ring = kernel.ring();
        kernel.head(kernel.command(0, &[]));
        drop(ring.take().expect("sound"));
        assert_eq!(kernel.tail(), 160);
        assert_eq!(kernel.map.read::<1>(RING_OFF + entry::STATUS).expect("in range"), [8]);
    }

    #[test]
    fn padding_is_passed_over_and_resets_are_told() {
        let kernel = Kernel::new("tmr");
        let mut ring = kernel.ring();
        kernel.put(0, &(64u32 | OP_PAD).to_ne_bytes());
        kernel.put(64, &(40u32 | OP_TMR).to_ne_bytes());
        kernel.put(64 + entry::TMR_TYPE, &[5]);
        kernel.head(104);
        assert!(matches!(ring.take().expect("sound"), Some(Request::TaskManagement(TaskManagement::Reset))));
        assert_eq!(kernel.tail(), 104);
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_crash() {
        type Spoil = fn(&Kernel);
        let cases: [(&str, Spoil); 5] = [
            ("length zero", |k| k.put(0, &OP_CMD.to_ne_bytes())),
            ("length beyond the ring", |k| k.put(0, &(8192u32 | OP_CMD).to_ne_bytes())),
            ("too many vectors", |k| k.put(entry::IOV_COUNT, &1000u32.to_ne_bytes())),
            ("vector outside", |k| k.put(entry::IOV, &u64::MAX.to_ne_bytes())),
            ("command outside", |k| k.put(entry::CDB_OFF, &(1u64 << 40).to_ne_bytes())),
        ];
        for (name, spoil) in cases {
            let kernel = Kernel::new("nonsense");
            let mut ring = kernel.ring();
            kernel.head(kernel.command(0, &[(DATA as u64, 8)]));
            spoil(&kernel);
            assert!(ring.take().is_err(), "{name}");
        }
    }
}
