// SPDX-License-Identifier: GPL-2.0-or-later
//! `/dev/reelfs`: attaching to a log, reading its records where they are, acknowledging them.
//!
//! The interface is defined in `reelfs_format::uapi` and specified in
//! `Documentation/format/device.md`. Records are read in place, from a mapping that the kernel
//! writes and this process only reads; a record stays as it is until it is acknowledged, which
//! the borrow checker sees to: what is read borrows the [`Ring`], acknowledging borrows it
//! exclusively.
//!
//! This file does not look into records, and does not decide when to acknowledge.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::{align_of, offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use reelfs_format::record::Lsn;
use reelfs_format::uapi::{
    Acknowledge, Attach, Control, Discard, ListEntry, QueueEntry, UserEntry, Users, ATTACH_ADOPT, ATTACH_BY_FD,
    ATTACH_BY_RING, DEVICE_NAME, IOC_ACKNOWLEDGE, IOC_ATTACH, IOC_DETACH, IOC_DISCARD, IOC_LIST, IOC_USERS, RING_FIRST,
    RING_GAP, RING_MOUNTED, RING_POPULATED, RING_UNCLEAN, UAPI_VERSION, USERS_MAX,
};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::ioctl::{ioctl, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, ProtFlags};
use zerocopy::{FromBytes, IntoBytes};

use crate::teller::Teller;

/// The kernel gave something that cannot be.
fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/dev/{DEVICE_NAME}: {what}"))
}

/// A command with the structure that belongs to it.
struct Command<'a, T> {
    request: Opcode,
    argument: &'a mut T,
}

// SAFETY: The kernel reads and writes as many bytes at the argument as the request number says,
// which `command` checks against the structure; any bytes are valid for it.
unsafe impl<T: FromBytes + IntoBytes> Ioctl for Command<'_, T> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.request
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        ptr::from_mut(self.argument).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn command<T: FromBytes + IntoBytes>(file: &File, request: u32, argument: &mut T) -> rustix::io::Result<()> {
    // `_IOC_SIZE` of include/uapi/asm-generic/ioctl.h.
    assert_eq!((request >> 16) as usize & 0x3fff, size_of::<T>(), "the structure of another command");
    // SAFETY: The kernel writes nothing but the structure, as said at the implementation of `Ioctl`.
    unsafe { ioctl(file, Command { request, argument }) }
}

/// The device, open and not attached.
#[derive(Debug)]
pub struct Device {
    file: Arc<File>,
}

/// Which ring to attach to.
#[derive(Clone, Copy, Debug)]
pub enum Target<'fd> {
    /// That of the mount that this descriptor is open on; `O_PATH` is enough.
    Mount(BorrowedFd<'fd>),
    /// The one with this id (see [`Device::list`]): it may have outlived its mount.
    Ring(u64),
}

/// What a consumer says about itself when it attaches.
#[derive(Clone, Copy, Debug)]
pub struct Consumer {
    /// The stream that it keeps.
    pub stream: [u8; 16],
    /// LSN behind the last byte that it has on stable storage.
    pub next_lsn: Lsn,
    /// A tree that is not where this consumer's log ends is accepted all the same.
    pub adopt: bool,
}

impl Device {
    /// Opens `/dev/reelfs`.
    ///
    /// # Errors
    ///
    /// `ENOENT` the module is not loaded; `EPERM` no `CAP_SYS_ADMIN` in the initial user
    /// namespace.
    pub fn open() -> io::Result<Self> {
        Self::open_at(&Path::new("/dev").join(DEVICE_NAME))
    }

    /// Opens the device under another path.
    ///
    /// # Errors
    ///
    /// See [`Device::open`].
    pub fn open_at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { file: Arc::new(file) })
    }

    /// All rings there are, those that outlived their mounts included, by id.
    ///
    /// # Errors
    ///
    /// Those of `ioctl`.
    pub fn list(&self) -> io::Result<Vec<ListEntry>> {
        let mut rings = Vec::new();
        let mut from = 0;
        loop {
            let mut entry = empty_entry(from);
            match command(&self.file, IOC_LIST, &mut entry) {
                Ok(()) => {
                    let Some(next) = entry.ring.checked_add(1) else { return Err(broken("impossible id")) };
                    from = next;
                    rings.push(entry);
                }
                Err(rustix::io::Errno::NOENT) => return Ok(rings),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Who has records in a ring, or had.
    ///
    /// # Errors
    ///
    /// `ENOENT` no such ring.
    pub fn users(&self, ring: u64) -> io::Result<Vec<UserEntry>> {
        let mut found = Vec::new();
        let mut part =
            Users { ring, from: 0, count: 0, next: 0, reserved: 0, users: [UserEntry::default(); USERS_MAX] };
        loop {
            command(&self.file, IOC_USERS, &mut part)?;
            found.extend(part.users.iter().take(part.count as usize));
            if part.next <= part.from {
                return Ok(found);
            }
            part.from = part.next;
        }
    }

    /// Throws away a ring whose mount is gone, with the records in it. `committed` is
    /// [`ListEntry::committed`], as proof that the caller looked.
    ///
    /// # Errors
    ///
    /// `ENOENT` no such ring; `EBUSY` it is mounted or has a consumer; `EINVAL` it has another
    /// end.
    pub fn discard(&self, ring: u64, committed: Lsn) -> io::Result<()> {
        Ok(command(&self.file, IOC_DISCARD, &mut Discard { ring, committed })?)
    }

    /// Attaches as the one consumer of a ring and maps it.
    ///
    /// # Errors
    ///
    /// Those that `reelfs_format::uapi::Attach` lists, and those of `mmap`.
    pub fn attach(self, target: Target<'_>, consumer: &Consumer) -> io::Result<Ring> {
        let (flag, fd, ring) = match target {
            Target::Mount(fd) => (ATTACH_BY_FD, fd.as_raw_fd(), 0),
            Target::Ring(id) => (ATTACH_BY_RING, -1, id),
        };
        let mut attach = Attach {
            version: UAPI_VERSION,
            flags: flag | if consumer.adopt { ATTACH_ADOPT } else { 0 },
            fd,
            ring,
            stream: consumer.stream,
            next_lsn: consumer.next_lsn,
            ..Attach::default()
        };
        command(&self.file, IOC_ATTACH, &mut attach)?;
        Ring::map(self, attach)
    }
}

fn empty_entry(ring: u64) -> ListEntry {
    ListEntry {
        ring,
        stream: [0; 16],
        state: 0,
        onstall: 0,
        epoch: 0,
        acknowledged: 0,
        committed: 0,
        used: 0,
        data_size: 0,
        waits: 0,
        refused: 0,
        records: 0,
        stall: 0,
        uid_limit: 0,
        gap_lsn: 0,
        gaps: 0,
        degraded_since: 0,
        unrecorded: 0,
        unrecorded_bytes: 0,
        source: [0; 256],
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A read-only mapping of parts of the device.
///
/// # Invariants
///
/// `base` points to `length` readable bytes until drop; what is mapped there is written by the
/// kernel alone.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: The mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: Nothing in this process writes to it; what the kernel changes while it is being read
// is read through atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes from `offset` on, once.
    fn once(device: &Device, offset: usize, length: usize) -> io::Result<Self> {
        // SAFETY: A new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            rustix::mm::mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, &*device.file, offset as u64)
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| broken("mapped at address zero"))?;
        Ok(Self { base, length })
    }

    /// Maps `length` bytes from `offset` on, twice in a row.
    fn twice(device: &Device, offset: usize, length: usize) -> io::Result<Self> {
        let total = length.checked_mul(2).ok_or_else(|| broken("impossible size"))?;
        // SAFETY: As in `once`; this takes the address range and nothing else.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                total,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| broken("mapped at address zero"))?;
        // From here on dropping it gives the range back, whatever is in it.
        let whole = Self { base, length: total };
        for start in [0, length] {
            // SAFETY: `start` lies inside the range taken above.
            let place = unsafe { whole.base.as_ptr().add(start) };
            // SAFETY: What is replaced is our own, unused range, and the new one fits into it.
            unsafe {
                rustix::mm::mmap(
                    place.cast(),
                    length,
                    ProtFlags::READ,
                    MapFlags::SHARED | MapFlags::FIXED,
                    &*device.file,
                    offset as u64,
                )
            }?;
        }
        Ok(whole)
    }

    /// The bytes from `offset` on, if they are all inside.
    ///
    /// # Safety
    ///
    /// The kernel does not write to them while they are borrowed.
    unsafe fn bytes(&self, offset: usize, length: usize) -> Option<&[u8]> {
        let end = offset.checked_add(length)?;
        if end > self.length {
            return None;
        }
        // SAFETY: Inside the mapping, by the check above.
        let start = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: Mapped and readable by the type's invariants, unchanging by the caller's word.
        Some(unsafe { std::slice::from_raw_parts(start, length) })
    }

    /// A word that the kernel changes.
    fn word(&self, offset: usize) -> io::Result<&AtomicU64> {
        if offset % align_of::<AtomicU64>() != 0 || offset + size_of::<AtomicU64>() > self.length {
            return Err(broken("a word lies outside the mapping"));
        }
        // SAFETY: Inside the mapping, by the check above.
        let start = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: Aligned, mapped for as long as `self` is; only ever loaded here, and stored as
        // whole words by the kernel.
        Ok(unsafe { AtomicU64::from_ptr(start.cast()) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the invariant this is a mapping of ours, and nothing borrows from it.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(result.is_ok(), "unmapping our own mapping cannot fail");
    }
}

/// What [`Ring::wait`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// There are records, and it is time to read them.
    Records,
    /// All records there will ever be are acknowledged: the mount is gone.
    Ended,
    /// Nothing came in time.
    Timeout,
    /// The other descriptor became readable.
    Cancelled,
}

/// A ring, attached. Dropped, it is given back with what was not acknowledged.
#[derive(Debug)]
pub struct Ring {
    /// Before `device`, so that it is unmapped first.
    head: Mapping,
    data: Mapping,
    device: Device,
    attach: Attach,
    /// Number of the first commit that is not acknowledged.
    sequence: u64,
    acknowledged: Lsn,
}

/// One record in the ring.
#[derive(Clone, Copy, Debug)]
pub struct Record<'ring> {
    /// Its LSN.
    pub lsn: Lsn,
    /// Its bytes.
    pub bytes: &'ring [u8],
}

impl Record<'_> {
    /// LSN behind it.
    pub fn end(&self) -> Lsn {
        self.lsn.saturating_add(self.bytes.len() as u64)
    }
}

impl Ring {
    fn map(device: Device, attach: Attach) -> io::Result<Self> {
        let size = |bytes: u64| usize::try_from(bytes).map_err(|_| broken("impossible size"));
        let (queue, entries) = (size(attach.queue_offset)?, size(attach.queue_entries)?);
        let (data, length) = (size(attach.data_offset)?, size(attach.data_size)?);
        let queue_end = entries
            .checked_mul(size_of::<QueueEntry>())
            .and_then(|bytes| bytes.checked_add(queue))
            .ok_or_else(|| broken("impossible size"))?;
        let sound = queue >= size_of::<Control>()
            && queue % align_of::<QueueEntry>() == 0
            && queue_end <= data
            && entries.is_power_of_two()
            && length.is_power_of_two();
        if !sound {
            return Err(broken("the parts of the mapping do not fit each other"));
        }
        let head = Mapping::once(&device, 0, data)?;
        let data = Mapping::twice(&device, data, length)?;
        let (sequence, acknowledged) = (attach.sequence, attach.acknowledged);
        Ok(Self { head, data, device, attach, sequence, acknowledged })
    }

    /// Id of the ring.
    pub fn id(&self) -> u64 {
        self.attach.ring
    }

    /// Epoch of the stream.
    pub fn epoch(&self) -> u64 {
        self.attach.epoch
    }

    /// Whether the mount existed when this was attached.
    pub fn was_mounted(&self) -> bool {
        self.attach.state & RING_MOUNTED != 0
    }

    /// Whether the mount before this one did not end cleanly: log and tree may disagree.
    pub fn is_unclean(&self) -> bool {
        self.attach.state & RING_UNCLEAN != 0
    }

    /// Where the log began to lack changes, if the tree has any that are in no log.
    pub fn gap(&self) -> Option<Lsn> {
        (self.attach.state & RING_GAP != 0).then_some(self.attach.gap_lsn)
    }

    /// Whether this attach was the first one of a new stream.
    pub fn is_first(&self) -> bool {
        self.attach.state & RING_FIRST != 0
    }

    /// Whether the tree was not empty when its log began, and the log has not had a checkpoint since.
    pub fn is_populated(&self) -> bool {
        self.attach.state & RING_POPULATED != 0
    }

    /// Length of the ring's data in bytes: no more than this is ever unacknowledged.
    pub fn size(&self) -> u64 {
        self.attach.data_size
    }

    /// All below is acknowledged.
    pub fn acknowledged(&self) -> Lsn {
        self.acknowledged
    }

    /// LSN behind the last committed record.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the mapping is not what it should be.
    pub fn committed(&self) -> io::Result<Lsn> {
        Ok(self.head.word(offset_of!(Control, committed))?.load(Ordering::Acquire))
    }

    /// The highest LSN that somebody waits to see acknowledged, or an older one.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the mapping is not what it should be.
    pub fn wanted(&self) -> io::Result<Lsn> {
        Ok(self.head.word(offset_of!(Control, wanted))?.load(Ordering::Relaxed))
    }

    /// The records that are committed now and not acknowledged, oldest first, without a gap.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the mapping is not what it should be.
    pub fn records(&self) -> io::Result<Records<'_>> {
        let end = self.head.word(offset_of!(Control, commits))?.load(Ordering::Acquire);
        if end < self.sequence || end - self.sequence > self.attach.queue_entries {
            return Err(broken("impossible number of commits"));
        }
        Ok(Records { ring: self, next: self.sequence, end, lsn: self.acknowledged })
    }

    /// The record of a commit that is not acknowledged and was seen in `commits`.
    fn record(&self, sequence: u64) -> io::Result<Record<'_>> {
        let index = (sequence % self.attach.queue_entries) as usize;
        let offset = self.attach.queue_offset as usize + index * size_of::<QueueEntry>();
        // SAFETY: The kernel leaves entries alone from when they are counted in `commits` until
        // they are acknowledged.
        let entry = unsafe { self.head.bytes(offset, size_of::<QueueEntry>()) };
        let entry = entry.ok_or_else(|| broken("an entry lies outside the queue"))?;
        let entry = QueueEntry::read_from_bytes(entry).map_err(|_| broken("an entry is cut short"))?;
        if u64::from(entry.offset) >= self.attach.data_size
            || u64::from(entry.length) > self.attach.data_size
            || entry.length == 0
        {
            return Err(broken("a record lies outside the ring"));
        }
        // SAFETY: The kernel leaves records alone from when they are counted in `commits` until
        // they are acknowledged, which takes `&mut self`.
        let bytes = unsafe { self.data.bytes(entry.offset as usize, entry.length as usize) };
        let bytes = bytes.ok_or_else(|| broken("a record lies outside the ring"))?;
        Ok(Record { lsn: entry.lsn, bytes })
    }

    /// Says that all below `lsn`, the end of a record, is on stable storage.
    ///
    /// # Errors
    ///
    /// `EINVAL` below what was acknowledged, beyond what was committed or inside a record.
    pub fn acknowledge(&mut self, lsn: Lsn) -> io::Result<()> {
        // Found first, so that the count follows from entries that are still ours.
        let mut sequence = self.sequence;
        let mut end = self.acknowledged;
        for record in self.records()? {
            if end >= lsn {
                break;
            }
            end = record?.end();
            sequence += 1;
        }
        command(&self.device.file, IOC_ACKNOWLEDGE, &mut Acknowledge { lsn })?;
        if end != lsn {
            return Err(broken("acknowledged what is no boundary"));
        }
        self.sequence = sequence;
        self.acknowledged = lsn;
        Ok(())
    }

    /// Waits for records: up to `timeout` for the first, then up to `gather` for more, which is
    /// cut short when somebody waits for their acknowledgement or they become many. With
    /// `cancel`, a readable descriptor ends the wait.
    ///
    /// # Errors
    ///
    /// `Interrupted` by a signal; others of `poll`.
    pub fn wait(
        &self,
        timeout: Option<Duration>,
        gather: Duration,
        cancel: Option<BorrowedFd<'_>>,
    ) -> io::Result<Wakeup> {
        let (found, cancelled) = self.poll(PollFlags::IN | PollFlags::PRI, timeout, cancel)?;
        if cancelled {
            return Ok(Wakeup::Cancelled);
        }
        if !found.contains(PollFlags::IN) {
            return Ok(if found.contains(PollFlags::HUP) { Wakeup::Ended } else { Wakeup::Timeout });
        }
        // Nothing more comes after the end, so there is nothing to gather.
        if !found.intersects(PollFlags::PRI | PollFlags::HUP) && !gather.is_zero() {
            let (_, cancelled) = self.poll(PollFlags::PRI, Some(gather), cancel)?;
            if cancelled {
                return Ok(Wakeup::Cancelled);
            }
        }
        Ok(Wakeup::Records)
    }

    fn poll(
        &self,
        events: PollFlags,
        timeout: Option<Duration>,
        cancel: Option<BorrowedFd<'_>>,
    ) -> io::Result<(PollFlags, bool)> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::new(&*self.device.file, events)];
        if let Some(cancel) = &cancel {
            fds.push(PollFd::new(cancel, PollFlags::IN));
        }
        poll(&mut fds, timeout.as_ref())?;
        let found = fds[0].revents();
        if found.intersects(PollFlags::ERR | PollFlags::NVAL) {
            return Err(broken("not attached any more"));
        }
        Ok((found, fds.get(1).is_some_and(|fd| !fd.revents().is_empty())))
    }

    /// Whoever tells of the tree in this ring's log, for as long as this is attached.
    pub fn teller(&self) -> Teller {
        Teller::of(&self.device.file)
    }

    /// Gives the ring back, what was not acknowledged included, and keeps the device open.
    ///
    /// # Errors
    ///
    /// Those of `ioctl`.
    pub fn detach(self) -> io::Result<Device> {
        command(&self.device.file, IOC_DETACH, &mut ())?;
        Ok(self.device)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// See [`Ring::records`].
#[derive(Clone, Debug)]
pub struct Records<'ring> {
    ring: &'ring Ring,
    next: u64,
    end: u64,
    lsn: Lsn,
}

impl<'ring> Iterator for Records<'ring> {
    type Item = io::Result<Record<'ring>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.end {
            return None;
        }
        let result = self.ring.record(self.next).and_then(|record| {
            if record.lsn != self.lsn {
                return Err(broken("the log has a gap"));
            }
            Ok(record)
        });
        match &result {
            Ok(record) => {
                self.next += 1;
                self.lsn = record.end();
            }
            // An error is told once.
            Err(_) => self.next = self.end,
        }
        Some(result)
    }
}
