// SPDX-License-Identifier: GPL-2.0-or-later

//! `/dev/reelfs`: what kernel and daemon say to each other.
//!
//! One descriptor is one consumer. It attaches to one ring, maps it read-only, follows the queue of commits and
//! acknowledges by LSN. Structures are in native byte order and have the same layout for 32-bit and 64-bit callers.
//! `Documentation/format/device.md` is the specification.
//!
//! `poll(2)`: `POLLIN` there are records that are not acknowledged; `POLLPRI` and somebody waits for that, or they have
//! become many; `POLLHUP` the mount is gone, so no more will come; `POLLERR` not attached. A consumer that wants to
//! gather records waits for `POLLIN` first, and then for `POLLPRI` for as long as it likes to.
//!
//! The mapping, in bytes from offset 0: one [`Control`] in a page of its own; from `queue_offset` the queue, an array
//! of `queue_entries` [`QueueEntry`], used round and round; from `data_offset` the ring's data, `data_size` bytes, which
//! the consumer maps twice in a row so that no record wraps. The entry of the `n`-th commit (from 0 at the first
//! attach of the ring) is at index `n % queue_entries`.

use core::mem::size_of;

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the device node in `/dev`.
pub const DEVICE_NAME: &str = "reelfs";
/// Version of this interface; both sides have to have the same.
pub const UAPI_VERSION: u32 = 3;

/// Names the ring in [`Attach`] by a descriptor open on the mount (`O_PATH` is enough).
pub const ATTACH_BY_FD: u32 = 1 << 0;
/// Names the ring in [`Attach`] by its id, as [`ListEntry`] has it (a ring that outlived its mount).
pub const ATTACH_BY_RING: u32 = 1 << 1;
/// A tree that carries the mark of another stream, or whose log is not where the mark says, is accepted all the same.
pub const ATTACH_ADOPT: u32 = 1 << 2;

/// State: the ring's mount exists. Without it nothing more will be committed.
pub const RING_MOUNTED: u32 = 1 << 0;
/// State: the mount before this one did not end cleanly; log and tree may disagree.
pub const RING_UNCLEAN: u32 = 1 << 1;
/// State: this attach was the first one of a new stream.
pub const RING_FIRST: u32 = 1 << 2;
/// State: a consumer is attached.
pub const RING_ATTACHED: u32 = 1 << 3;
/// State: the tree has changes that are in no log, made after the log had come to `gap_lsn`.
pub const RING_GAP: u32 = 1 << 4;
/// State: changes are being made that go into no log (`onstall=degrade`). It ends when all that was committed is
/// acknowledged.
pub const RING_DEGRADED: u32 = 1 << 5;
/// State: the tree was not empty when it was mounted, and what was in it is in no log of the stream yet. It ends when a
/// checkpoint is complete. (The next mount says [`RING_GAP`] instead, from the LSN of this mount's first record on.)
pub const RING_POPULATED: u32 = 1 << 6;

/// `REELFS_IOC_ATTACH`: argument and result.
///
/// Errors: `EPROTO` version or flags; `EBADF`, `ENOTTY` the descriptor is not on a reelfs mount; `ENOENT` no such ring;
/// `EBUSY` the ring has a consumer, or this descriptor a ring, or another ring keeps records of the stream or is mounted
/// with it; `EXDEV` the tree, or the ring, belongs to another stream; `EUCLEAN` the tree's mark is damaged; `ESTALE`
/// `next_lsn` is below what was acknowledged, beyond what was committed, no boundary of a record, or not where the
/// tree's mark says; `EINVAL` the stream is zero, or `next_lsn` no place for a log to begin; what reading and writing
/// the mark can fail with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Attach {
    /// In: [`UAPI_VERSION`].
    pub version: u32,
    /// In: one of `ATTACH_BY_*`, and `ATTACH_ADOPT` where wanted.
    pub flags: u32,
    /// In: the descriptor, with [`ATTACH_BY_FD`], else -1.
    pub fd: i32,
    /// Out: `RING_*`.
    pub state: u32,
    /// In, with [`ATTACH_BY_RING`]; out: id of the ring.
    pub ring: u64,
    /// In: the stream that the consumer keeps.
    pub stream: [u8; 16],
    /// In: LSN behind the last byte that the consumer has on stable storage.
    pub next_lsn: u64,
    /// Out: all below is acknowledged; on success the same as `next_lsn`.
    pub acknowledged: u64,
    /// Out: LSN behind the last committed record.
    pub committed: u64,
    /// Out: number of the first commit that is not acknowledged: where to go on in the queue.
    pub sequence: u64,
    /// Out: epoch of the stream.
    pub epoch: u64,
    /// Out: offset of the queue in the mapping, in bytes.
    pub queue_offset: u64,
    /// Out: number of entries of the queue; a power of two.
    pub queue_entries: u64,
    /// Out: offset of the data in the mapping, in bytes.
    pub data_offset: u64,
    /// Out: length of the data in bytes; a power of two and a multiple of the page size.
    pub data_size: u64,
    /// Out: with [`RING_GAP`] where the log begins to lack changes, else zero.
    pub gap_lsn: u64,
}

/// `REELFS_IOC_ACKNOWLEDGE`: all below `lsn`, which has to be the boundary of a record, is on stable storage.
///
/// Errors: `ENOTCONN` not attached; `EINVAL` below what was acknowledged, beyond what was committed or not a boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Acknowledge {
    /// The LSN.
    pub lsn: u64,
}

/// `REELFS_IOC_DISCARD`: throw away a ring whose mount is gone, with what it holds. The consumer's next attach to the
/// tree finds its log behind the tree's mark.
///
/// Errors: `ENOENT`; `EBUSY` mounted, or a consumer is attached; `EINVAL` `committed` is not what the ring has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Discard {
    /// Id of the ring.
    pub ring: u64,
    /// [`ListEntry::committed`] of the ring: proof that the caller looked.
    pub committed: u64,
}

/// One ring, in the answer to `REELFS_IOC_LIST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListEntry {
    /// Id of the ring; never used again while the module is loaded.
    pub ring: u64,
    /// The stream, zero before the first attach of a tree without a mark.
    pub stream: [u8; 16],
    /// `RING_*`.
    pub state: u32,
    /// 0 block, 1 fail, 2 degrade.
    pub onstall: u32,
    /// Epoch of the stream.
    pub epoch: u64,
    /// All below is acknowledged.
    pub acknowledged: u64,
    /// LSN behind the last committed record.
    pub committed: u64,
    /// Bytes of the ring in use, room that was taken and not yet committed included.
    pub used: u64,
    /// Length of the ring's data in bytes.
    pub data_size: u64,
    /// Number of operations that had to wait for room.
    pub waits: u64,
    /// Number of operations that were refused because the log could not take them.
    pub refused: u64,
    /// Number of records committed since the ring was made.
    pub records: u64,
    /// Milliseconds for which a consumer may acknowledge nothing before it counts as stalled (`stall=`).
    pub stall: u64,
    /// Bytes of the ring that the records of one user may take (`uidlimit=`), zero without a limit.
    pub uid_limit: u64,
    /// With [`RING_GAP`] where the log begins to lack changes, else zero.
    pub gap_lsn: u64,
    /// Number of gaps since the ring was made.
    pub gaps: u64,
    /// With [`RING_DEGRADED`] when that began, nanoseconds since 1970-01-01 UTC, else zero.
    pub degraded_since: i64,
    /// Number of changes since the ring was made that are in no log.
    pub unrecorded: u64,
    /// Bytes of the records that they would have been.
    pub unrecorded_bytes: u64,
    /// What was mounted: the lower path as given to `mount(2)`, padded with zero bytes, cut where it is longer.
    pub source: [u8; 256],
}

impl ListEntry {
    /// What was mounted, without the padding.
    pub fn source_path(&self) -> &[u8] {
        let end = self.source.iter().position(|&byte| byte == 0).unwrap_or(self.source.len());
        self.source.get(..end).unwrap_or(&self.source)
    }
}

/// One user of a ring, in the answer to `REELFS_IOC_USERS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UserEntry {
    /// Owner id that new files of the user get, in the initial user namespace; [`USER_OTHERS`] for all those that the
    /// kernel has no entry for.
    pub uid: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes of the ring that the user's records take now.
    pub held: u64,
    /// Bytes of the user's records so far.
    pub bytes: u64,
    /// Number of the user's records so far.
    pub records: u64,
    /// How often an operation of the user waited because of `uidlimit=`.
    pub waits: u64,
}

/// [`UserEntry::uid`] of those without an entry of their own.
pub const USER_OTHERS: u32 = u32::MAX;
/// How many users one answer holds.
pub const USERS_MAX: usize = 32;

/// `REELFS_IOC_USERS`: who has records in a ring, a part at a time. A user may be missed or seen twice while records
/// are being made. Errors: `ENOENT` no such ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Users {
    /// In: id of the ring.
    pub ring: u64,
    /// In: zero, or what `next` was.
    pub from: u32,
    /// Out: how many entries are filled in.
    pub count: u32,
    /// Out: where to go on; zero when this was the last part.
    pub next: u32,
    /// Zero.
    pub reserved: u32,
    /// Out: the users.
    pub users: [UserEntry; USERS_MAX],
}

/// `REELFS_IOC_CHECKPOINT`: puts the begin or the end of a checkpoint into the log of the ring that the descriptor is
/// attached to. One checkpoint is open at a time; detaching, a gap of the log and unmounting end it without an end record.
///
/// Errors: `ENOTCONN` not attached; `ENODEV` the mount is gone; `EPROTO` an operation that is none; `EBUSY` to begin,
/// one is open; `ESTALE` to end, `begin` is not the open one; `EAGAIN` the log takes no records now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Checkpoint {
    /// In: `CHECKPOINT_*`.
    pub operation: u32,
    /// Zero.
    pub reserved: u32,
    /// Out when it begins, in when it ends: LSN of the begin record, which names the checkpoint.
    pub begin: u64,
    /// In, when it ends: number of objects whose state was put into the log.
    pub objects: u64,
    /// In, when it ends: bytes of contents that were put into the log.
    pub bytes: u64,
    /// Out: LSN behind the record.
    pub lsn: u64,
    /// Out when it begins: identity of the root, as records have it.
    pub root: [u8; 32],
}

/// [`Checkpoint::operation`]: begin one.
pub const CHECKPOINT_BEGIN: u32 = 1;
/// [`Checkpoint::operation`]: the open one is complete.
pub const CHECKPOINT_END: u32 = 2;
/// [`Checkpoint::operation`]: the open one is given up.
pub const CHECKPOINT_STOP: u32 = 3;

/// `REELFS_IOC_STATE`: puts the state of an object, or a part of it, into the log, under the lock of the object, as one
/// record or some.
///
/// Errors: `ENOTCONN` not attached; `ENODEV` the mount is gone; `EPROTO` what is asked for is nothing; `ESTALE`
/// `checkpoint` is not the open one; `ENOENT` there is no such object any more; `ENOTDIR`, `EINVAL` it has no entries, or
/// no contents; `EAGAIN` the contents were shifted since `shifts` (begin again at 0), or the log takes no records now;
/// what reading the object can fail with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct State {
    /// In: `TELL_*`.
    pub what: u32,
    /// Out: `STATE_LAST` when all has been told, else zero.
    pub flags: u32,
    /// In: LSN of the begin record of the open checkpoint.
    pub checkpoint: u64,
    /// In: identity of the object, as records have it.
    pub object: [u8; 32],
    /// In and out, with [`TELL_DATA`] the offset, with [`TELL_ENTRIES`] the directory's cookie: where to begin, and where
    /// to go on. Zero is the beginning.
    pub position: u64,
    /// In and out, with [`TELL_DATA`]: how often the contents have been shifted, as the call before said; looked at where
    /// `position` is not zero.
    pub shifts: u64,
    /// In: about how many bytes of the log this call may fill; the kernel has its own limit below that.
    pub length: u64,
    /// Out, with [`TELL_OBJECT`]: type and permission bits.
    pub mode: u32,
    /// Out, with [`TELL_OBJECT`]: number of links.
    pub nlink: u32,
    /// Out, with [`TELL_OBJECT`] the size of a file; with [`TELL_DATA`] bytes of contents told; with [`TELL_ENTRIES`] the
    /// number of entries told.
    pub amount: u64,
    /// Out: LSN behind the last record that was made.
    pub lsn: u64,
}

/// [`State::what`]: attributes, extended attributes, target of a symbolic link.
pub const TELL_OBJECT: u32 = 1;
/// [`State::what`]: contents of a regular file from `position` on.
pub const TELL_DATA: u32 = 2;
/// [`State::what`]: entries of a directory from `position` on.
pub const TELL_ENTRIES: u32 = 3;

/// How many identities one answer of `REELFS_IOC_UNNAMED` holds.
pub const UNNAMED_MAX: usize = 32;

/// `REELFS_IOC_UNNAMED`: objects that are in use and have no name, in the order of their identities' bytes.
///
/// Errors: `ENOTCONN` not attached; `ENODEV` the mount is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Unnamed {
    /// In: the last one of the part before; zero for the first part.
    pub after: [u8; 32],
    /// Out: how many are filled in; fewer than there is room for when it was the last part.
    pub count: u64,
    /// Out: the identities, as records have them.
    pub objects: [[u8; 32]; UNNAMED_MAX],
}

/// `REELFS_IOC_LIST`: the ring with the smallest id that is at least `entry.ring`. Errors: `ENOENT` there is none.
pub type List = ListEntry;

/// First page of the mapping. Written by the kernel alone; read with acquire ordering.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// Number of commits so far: entries of the queue below this number are valid.
    pub commits: u64,
    /// LSN behind the last committed record.
    pub committed: u64,
    /// All below is acknowledged.
    pub acknowledged: u64,
    /// Zero, or what is waited for: the highest LSN somebody waits to see acknowledged.
    pub wanted: u64,
}

/// One commit in the queue. Entries stay as they are until acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QueueEntry {
    /// LSN of the record.
    pub lsn: u64,
    /// Offset of the record in the data, in bytes, below `data_size`.
    pub offset: u32,
    /// Length of the record in bytes.
    pub length: u32,
}

/// `_IOWR('R' | 0x80, number, size)` of `include/uapi/asm-generic/ioctl.h`.
const fn iowr(number: u32, size: usize) -> u32 {
    (3 << 30) | ((size as u32) << 16) | (IOC_MAGIC << 8) | number
}

/// Type byte of the ioctl numbers.
pub const IOC_MAGIC: u32 = 0xd2;
/// See [`Attach`].
pub const IOC_ATTACH: u32 = iowr(0x10, size_of::<Attach>());
/// See [`Acknowledge`].
pub const IOC_ACKNOWLEDGE: u32 = iowr(0x11, size_of::<Acknowledge>());
/// Gives the ring back, unacknowledged records and all. No argument. Closing the descriptor does the same.
pub const IOC_DETACH: u32 = (IOC_MAGIC << 8) | 0x12;
/// See [`Discard`].
pub const IOC_DISCARD: u32 = iowr(0x13, size_of::<Discard>());
/// See [`List`].
pub const IOC_LIST: u32 = iowr(0x14, size_of::<ListEntry>());
/// See [`Users`].
pub const IOC_USERS: u32 = iowr(0x15, size_of::<Users>());
/// See [`Checkpoint`].
pub const IOC_CHECKPOINT: u32 = iowr(0x16, size_of::<Checkpoint>());
/// See [`State`].
pub const IOC_STATE: u32 = iowr(0x17, size_of::<State>());
/// See [`Unnamed`].
pub const IOC_UNNAMED: u32 = iowr(0x18, size_of::<Unnamed>());

const _: () = {
    assert!(size_of::<Checkpoint>() == 72);
    assert!(size_of::<State>() == 96);
    assert!(size_of::<Unnamed>() == 1064);
    assert!(size_of::<Attach>() == 120);
    assert!(size_of::<Acknowledge>() == 8);
    assert!(size_of::<Discard>() == 16);
    assert!(size_of::<ListEntry>() == 408);
    assert!(size_of::<UserEntry>() == 40);
    assert!(size_of::<Users>() == 1304);
    assert!(size_of::<Control>() == 32);
    assert!(size_of::<QueueEntry>() == 16);
};
