// SPDX-License-Identifier: GPL-2.0

//! One log: room, commits, and waiting for either end of them.
//!
//! Writers take room, fill it, and commit or abandon it. The LSN is given at commit, under the log's spinlock; in
//! between nothing is held but the room. The consumer is told when there is something to read after there was nothing,
//! and when somebody waits or a good part of the ring is full; how long it otherwise lets records gather is its own
//! affair. There are no timers here.

use kernel::mm::virt::VmaNew;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Release};
use kernel::sync::{new_mutex, new_spinlock, Arc, Mutex, SpinLock};
use kernel::time::{Instant, Monotonic};

use super::attach::Consumer;
use super::book::{Book, Kept, Line, Need, Slot, Taken};
use super::checkpoint::Objects;
use super::gap::{Gaps, Spell};
use super::memory::{Memory, QueueMemory};
use super::room::Room;
use super::shares::{Share, OTHERS};
use super::wait::Admission;
use super::{registry, sys};
use crate::format::mark::MARK_LEN;
use crate::format::record::{
    record_len, seal, Attributes, Body, GapBody, GapEndBody, Head, Identity, Lsn, RecordType, UnmountBody,
    RECORD_ALIGN, RECORD_MAX, TRAILER_LEN, WRITE_MAX,
};
use crate::format::uapi::{
    ListEntry, UserEntry, Users, RING_ATTACHED, RING_DEGRADED, RING_GAP, RING_MOUNTED, RING_POPULATED, RING_UNCLEAN,
    USERS_MAX, USER_OTHERS,
};
use crate::vfs::chardev::{ModulePin, SuperblockId};
use crate::vfs::wait::{new_wait_queue, WaitQueue};

/// Smallest length of a ring's data in bytes.
pub(crate) const RING_MIN: usize = 1 << 20;
/// Length of a ring's data in bytes where the mount does not say.
pub(crate) const RING_DEFAULT: usize = 64 << 20;
/// Greatest length of a ring's data in bytes.
pub(crate) const RING_MAX: usize = 1 << 30;

/// There is one queue entry, and one slot, for this many bytes of the ring: about the size of a short record.
const BYTES_PER_ENTRY: usize = 512;
/// The consumer is told at the latest when this much waits for it, in bytes, or a quarter of the ring.
const DUE_BYTES: usize = 1 << 20;
/// Where the mount does not say: how long a consumer may acknowledge nothing while somebody waits, in seconds.
pub(crate) const STALL_DEFAULT: u32 = 30;
/// How many users are told apart.
const SHARES: usize = 128;
/// How many slots are released before the spinlock is let go in between.
const RELEASE_BATCH: usize = 1024;
/// Always kept: room for the record of an unmount, and for the beginning and the end of one gap.
const KEPT: Kept = Kept { bytes: 1024, slots: 4 };

/// What happens to operations that the log cannot take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Onstall {
    /// They wait, until they are killed.
    #[default]
    Block,
    /// They fail with `EIO`: at once while there is no consumer, and when the one there is does nothing for long.
    Fail,
    /// They wait as long as with `Fail` while a consumer does nothing, and then go on unrecorded: the log has a gap.
    Degrade,
}

/// What a mount says about its log, and a remount may change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// See [`Onstall`].
    pub(crate) onstall: Onstall,
    /// How long the consumer may acknowledge nothing while somebody waits, in seconds.
    pub(crate) stall: u32,
    /// How many bytes of the ring one user may take, if there is a limit. It does not hold for the superuser.
    pub(crate) uid_limit: Option<u64>,
}

/// The state of the root, for the record of the mount.
pub(crate) struct Root {
    /// Who it is.
    pub(crate) identity: Identity,
    /// What it is like.
    pub(crate) attributes: Attributes,
    /// Its extended attributes as they stand in a payload (`XattrEntry`), the mark not among them.
    pub(crate) xattrs: KVVec<u8>,
    /// How many they are.
    pub(crate) xattrs_count: u32,
    /// UUID of the filesystem below, or zero.
    pub(crate) uuid: [u8; 16],
    /// `statfs` type of the filesystem below.
    pub(crate) magic: u64,
}

/// What a log asks of the tree that it is the log of. All of it may sleep.
///
/// Called from the consumer's tasks and at unmount without any lock of the filesystem above held, and by those who wait
/// for the log with what they hold; never after [`Log::unmounted`] has returned.
pub(crate) trait Lower: Send + Sync {
    /// Reads the value of `trusted.reelfs` of the root below into `value`; its length, or `None` if there is none.
    /// `ERANGE` if it is longer.
    fn read_mark(&self, value: &mut [u8; MARK_LEN]) -> Result<Option<usize>>;
    /// Sets `trusted.reelfs` of the root below, durably.
    fn write_mark(&self, value: &[u8; MARK_LEN]) -> Result;
    /// The state of the root below.
    fn root(&self) -> Result<Root>;
    /// Makes all of the filesystem below durable.
    fn sync(&self) -> Result;
}

/// What a log is made from.
pub(crate) struct Config {
    /// Length of the data in bytes; a power of two from [`RING_MIN`] to [`RING_MAX`].
    pub(crate) size: usize,
    /// See [`Policy`].
    pub(crate) policy: Policy,
    /// What was mounted, for people to read.
    pub(crate) source: KVec<u8>,
    /// The mount.
    pub(crate) superblock: SuperblockId,
    /// The tree below.
    pub(crate) lower: Arc<dyn Lower>,
    /// Its objects.
    pub(crate) objects: Arc<dyn Objects>,
    /// Whether the tree has contents already.
    pub(crate) populated: bool,
}

/// Where a log is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Mounted; there has been no consumer yet, so there is no LSN to begin with.
    Fresh,
    /// Mounted; records are made.
    Open,
    /// The mount is gone; no more records.
    Closed,
    /// Discarded.
    Gone,
}

/// What is protected by the spinlock.
pub(super) struct State {
    pub(super) book: Book<KVVec<Slot>, QueueMemory, KVVec<Share>>,
    pub(super) policy: Policy,
    pub(super) gaps: Gaps,
    pub(super) phase: Phase,
    pub(super) consumer: Option<Arc<Consumer>>,
    /// Zero until it is known.
    pub(super) stream: [u8; 16],
    pub(super) epoch: u64,
    /// Where the records of this mount begin.
    pub(super) first_lsn: Lsn,
    pub(super) unclean: bool,
    /// What was in the tree when it was mounted is in no log of the stream.
    pub(super) populated: bool,
    /// Who the root is, from the first attach on.
    pub(super) root: Identity,
    /// LSN of the begin record of the checkpoint that is open.
    pub(super) checkpoint: Option<Lsn>,
    /// The mount is on its way out: nobody waits for a consumer that is not there.
    pub(super) closing: bool,
    /// A change could not be recorded. Nothing more is accepted.
    pub(super) broken: bool,
    /// The highest LSN that somebody waits for.
    pub(super) wanted: Lsn,
    /// What those in the line for room wait for.
    pub(super) line: Line,
    /// How many wait for their own share to become smaller.
    pub(super) crowd: u64,
    /// Since when somebody has waited while the consumer acknowledged nothing.
    pub(super) stalled: Option<Instant<Monotonic>>,
    /// What the consumer was told since its last acknowledgement.
    told: Told,
    due_bytes: u64,
    pub(super) waits: u64,
    pub(super) refused: u64,
}

/// What there is for the consumer.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Records.
    pub(super) readable: bool,
    /// A reason not to let them wait.
    pub(super) due: bool,
}

impl State {
    /// What there is for the consumer now.
    pub(super) fn news(&self) -> Told {
        let backlog = self.book.backlog();
        let readable = backlog > 0;
        let waiting = self.line.count() > 0 || self.crowd > 0;
        let due = backlog >= self.due_bytes || self.wanted > self.book.acknowledged() || waiting;
        Told { readable, due: readable && due }
    }

    /// Wakes the consumer if there is something that it was not told yet.
    pub(super) fn tell(&mut self) {
        let news = self.news();
        let wake = (news.readable && !self.told.readable) || (news.due && !self.told.due);
        self.told = news;
        if wake {
            if let Some(consumer) = &self.consumer {
                consumer.wake();
            }
        }
    }
}

/// A record that is to be committed, but for its payload.
pub(super) struct Entry<'a, B: Body> {
    pub(super) kind: RecordType,
    pub(super) flags: u32,
    pub(super) object: Identity,
    pub(super) body: &'a B,
    pub(super) payload_len: usize,
    pub(super) payload_crc: u32,
}

/// The log of one mount.
#[pin_data]
pub(crate) struct Log {
    id: u64,
    pub(super) source: KVec<u8>,
    superblock: SuperblockId,
    pub(super) memory: Arc<Memory>,
    pub(super) objects: Arc<dyn Objects>,
    /// The tree had contents when it was mounted.
    pub(super) had_contents: bool,
    /// See the lock order in [`super`]. The tree below, until the mount is gone.
    #[pin]
    pub(super) control: Mutex<Option<Arc<dyn Lower>>>,
    #[pin]
    pub(super) state: SpinLock<State>,
    /// The line for room, first come, first served.
    #[pin]
    pub(super) room: WaitQueue,
    /// Those who have too much of the ring already.
    #[pin]
    pub(super) crowd: WaitQueue,
    /// Those who wait for an acknowledgement, or for a gap to begin.
    #[pin]
    pub(super) durable: WaitQueue,
    /// Keeps the module while records are here that nobody has.
    #[pin]
    pin: Mutex<Option<ModulePin>>,
}

impl Log {
    /// Makes the log of a mount, its ring included. It can be attached to from here on. May sleep.
    ///
    /// Errors: `EINVAL` for an impossible size, `ENOMEM`.
    pub(crate) fn new(config: Config) -> Result<Arc<Self>> {
        if !config.size.is_power_of_two() || !(RING_MIN..=RING_MAX).contains(&config.size) {
            return Err(EINVAL);
        }
        let entries = config.size / BYTES_PER_ENTRY;
        let (memory, queue) = Memory::new(config.size, entries)?;
        let slots = KVVec::from_elem(Slot::EMPTY, entries, GFP_KERNEL_ACCOUNT)?;
        let shares = KVVec::from_elem(Share::EMPTY, SHARES, GFP_KERNEL_ACCOUNT)?;
        let book = Book::new(memory.name(), config.size, KEPT, slots, queue, shares).ok_or(EINVAL)?;
        let state = State {
            book,
            policy: config.policy,
            gaps: Gaps::NONE,
            phase: Phase::Fresh,
            consumer: None,
            stream: [0; 16],
            epoch: 0,
            first_lsn: 0,
            unclean: false,
            populated: false,
            root: Identity::NONE,
            checkpoint: None,
            closing: false,
            broken: false,
            wanted: 0,
            line: Line::default(),
            crowd: 0,
            stalled: None,
            told: Told::default(),
            due_bytes: DUE_BYTES.min(config.size / 4) as u64,
            waits: 0,
            refused: 0,
        };
        registry::add(|id| {
            Arc::pin_init(
                pin_init!(Log {
                    id,
                    source: config.source,
                    superblock: config.superblock,
                    memory,
                    objects: config.objects,
                    had_contents: config.populated,
                    control <- new_mutex!(Some(config.lower), "reelfs_log_control"),
                    state <- new_spinlock!(state, "reelfs_log_state"),
                    room <- new_wait_queue!("reelfs_log_room"),
                    crowd <- new_wait_queue!("reelfs_log_crowd"),
                    durable <- new_wait_queue!("reelfs_log_durable"),
                    pin <- new_mutex!(None, "reelfs_log_pin"),
                }),
                GFP_KERNEL,
            )
        })
    }

    /// Id of the ring; never used again while the module is loaded.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Length of the ring's data in bytes.
    pub(crate) fn size(&self) -> usize {
        self.memory.layout().size
    }

    /// The most bytes to put into one write record, so that several writers fit into the ring.
    pub(crate) fn write_max(&self) -> usize {
        WRITE_MAX.min(self.size() / 8)
    }

    /// Whether this is the log of a mount that exists.
    pub(crate) fn is_mounted_as(&self, superblock: SuperblockId) -> bool {
        self.superblock == superblock && matches!(self.state.lock().phase, Phase::Fresh | Phase::Open)
    }

    /// LSN behind the last committed record.
    pub(crate) fn committed(&self) -> Lsn {
        self.memory.control().committed.load(Acquire)
    }

    /// The room that a record takes: `E2BIG` if that is more than a record, or this ring, can hold.
    pub(super) fn need<B: Body>(&self, payload_max: usize, align: usize) -> Result<Need> {
        let length = record_len(B::HEAD_LEN, payload_max).ok_or(E2BIG)?;
        Ok(Need { length, head: B::HEAD_LEN, align: align.max(RECORD_ALIGN) })
    }

    /// What the mount says about its log.
    pub(crate) fn policy(&self) -> Policy {
        self.state.lock().policy
    }

    /// Changes what the mount says about its log. Those who wait look again.
    pub(crate) fn set_policy(&self, policy: Policy) {
        self.state.lock().policy = policy;
        self.wake_everybody();
    }

    /// Takes room for a record of this type if there is some now. Never sleeps, but in a gap for memory, where there is
    /// a payload.
    ///
    /// The payload begins at a multiple of `align`, a power of two of at most a page, in kernel addresses. `Ok(None)`:
    /// not now. Errors: `EIO` by policy; `E2BIG` never fits; `ENOMEM` in a gap.
    pub(crate) fn try_reserve<B: Body>(&self, payload_max: usize, align: usize) -> Result<Option<Room<'_, B>>> {
        self.take_room(payload_max, align, false)
    }

    /// [`Log::try_reserve`], with `last` only if it takes nothing from those in line.
    fn take_room<B: Body>(&self, payload_max: usize, align: usize, last: bool) -> Result<Option<Room<'_, B>>> {
        let need = self.need::<B>(payload_max, align)?;
        let uid = sys::current_fsuid();
        let mut state = self.state.lock();
        if !state.book.possible(&need) {
            return Err(E2BIG);
        }
        match state.admits() {
            Ok(Admission::Record) if state.within(uid, &need) => {
                if last && !state.book.fits_beside(&need, &state.line) {
                    return Ok(None);
                }
            }
            Ok(Admission::Aside) => {
                state.gaps.enter();
                drop(state);
                return Room::aside(self, payload_max, align).map(Some);
            }
            Ok(_) => return Ok(None),
            Err(error) => {
                state.refused += 1;
                return Err(error);
            }
        }
        let taken = state.book.take_for(uid, &need);
        Ok(taken.map(|taken| Room::new(self, taken, payload_max)))
    }

    /// [`Log::wait_room`] and [`Log::try_reserve`] until there is room. Sleeps, killable; to be called without room.
    pub(crate) fn reserve<B: Body>(&self, payload_max: usize, align: usize) -> Result<Room<'_, B>> {
        // Whoever comes now stands behind those who wait already; whoever has waited does not do so again.
        let mut last = true;
        loop {
            if let Some(room) = self.take_room(payload_max, align, last)? {
                return Ok(room);
            }
            self.wait_room::<B>(payload_max, align)?;
            last = false;
        }
    }

    /// Completes a record and makes it the last one of the log. The LSN behind it.
    pub(super) fn publish<B: Body>(&self, state: &mut State, mut taken: Taken, entry: &Entry<'_, B>) -> Option<Lsn> {
        let length = record_len(B::HEAD_LEN, entry.payload_len)?;
        let head = Head {
            kind: entry.kind,
            flags: entry.flags,
            lsn: state.book.committed(),
            time: sys::real_time(),
            epoch: state.epoch,
            uid: sys::current_fsuid(),
            object: entry.object,
            payload_length: u32::try_from(entry.payload_len).ok()?,
            payload_crc: entry.payload_crc,
        };
        let sealed = self.memory.bytes(&mut taken).get_mut(..length).and_then(|record| seal(record, &head, entry.body));
        if sealed.is_none() {
            state.book.abandon(taken);
            return None;
        }
        let committed = match state.book.commit(taken, length) {
            Ok(committed) => committed,
            Err(taken) => {
                state.book.abandon(taken);
                return None;
            }
        };
        let control = self.memory.control();
        control.committed.store(committed.end, Release);
        control.commits.store(committed.sequence + 1, Release);
        state.tell();
        Some(committed.end)
    }

    /// [`Room::commit`].
    pub(super) fn commit<B: Body>(&self, taken: Taken, entry: &Entry<'_, B>) -> Lsn {
        let mut state = self.state.lock();
        let end = self.publish(&mut state, taken, entry);
        let committed = state.book.committed();
        // Room that was not used may be what somebody waits for.
        if state.line.count() > 0 {
            self.room.wake_one();
        }
        self.nobody_holds(&state);
        drop(state);
        if end.is_none() {
            self.fail_for_good("a change did not fit into its record");
        }
        end.unwrap_or(committed)
    }

    /// Gives room back without a record.
    pub(super) fn abandon(&self, taken: Taken) {
        {
            let mut state = self.state.lock();
            state.book.abandon(taken);
            self.nobody_holds(&state);
        }
        self.reclaim();
    }

    /// After room was given back: a gap may wait for the last of it.
    fn nobody_holds(&self, state: &State) {
        if state.gaps.spell == Spell::Beginning && state.book.held() == 0 {
            self.durable.wake_all();
        }
    }

    /// After room was abandoned or acknowledged: makes it usable, and lets those in line know.
    pub(super) fn reclaim(&self) {
        loop {
            let mut state = self.state.lock();
            let more = state.book.release(RELEASE_BATCH);
            if state.line.count() > 0 {
                self.room.wake_one();
            }
            if state.crowd > 0 {
                self.crowd.wake_all();
            }
            if !more {
                break;
            }
        }
    }

    /// After an acknowledgement: lets those who waited for it know, and makes its room usable.
    pub(super) fn acknowledged(&self) {
        self.durable.wake_all();
        self.reclaim();
    }

    /// Nothing more can be recorded faithfully, so nothing more is allowed.
    pub(crate) fn fail_for_good(&self, what: &str) {
        pr_crit!("ring {}: {}; the mount accepts no more changes\n", self.id, what);
        self.state.lock().broken = true;
        self.wake_everybody();
    }

    /// The mount is on its way out: from here on nobody waits for a consumer that is not there, nor for one that is
    /// for long. To be called before the last sync.
    pub(crate) fn closing(&self) {
        self.state.lock().closing = true;
        self.wake_everybody();
    }

    /// The mount is gone. Puts the end into the log and onto the mark, and lets go of the tree below. Never waits for
    /// a consumer.
    ///
    /// Nobody may hold room any more, and nobody may ask for some. What is not acknowledged stays here, and keeps the
    /// module loaded, until a consumer has it or the operator discards it.
    pub(crate) fn unmounted(&self) {
        let mut control = self.control.lock();
        let lower = control.take();
        let clean = {
            let mut state = self.state.lock();
            if state.phase == Phase::Open {
                self.publish_unmount(&mut state)
            } else {
                None
            }
        };
        if let (Some(mark), Some(lower)) = (clean, lower) {
            if let Err(error) = lower.write_mark(&mark) {
                pr_warn!(
                    "ring {}: the mark could not be written ({:?}): the next mount takes it for a crash\n",
                    self.id,
                    error
                );
            }
        }

        let mut pin = self.pin.lock();
        let drained = {
            let mut state = self.state.lock();
            state.phase = Phase::Closed;
            state.checkpoint = None;
            if let Some(consumer) = &state.consumer {
                consumer.wake();
            }
            state.book.backlog() == 0
        };
        self.wake_everybody();
        if drained {
            drop(pin);
            registry::remove(self);
        } else {
            // The mount that is just going away still keeps the module.
            *pin = Some(ModulePin::new());
        }
    }

    /// The last record. The mark that goes with it, unless the log is not the whole truth.
    fn publish_unmount(&self, state: &mut State) -> Option<[u8; MARK_LEN]> {
        self.end_gap_at_unmount(state);
        let end = self.publish_kept(state, RecordType::Unmount, &UnmountBody { reserved: 0.into() })?;
        (!state.broken).then(|| super::attach::clean_mark(state, end))
    }

    /// Lets go of the module once nothing is here any more that keeps it. The caller has a descriptor open.
    pub(super) fn retire(&self) {
        registry::remove(self);
        let pin = self.pin.lock().take();
        drop(pin);
    }

    /// Maps the ring into a process; see [`Memory::map`].
    pub(crate) fn map(&self, area: &VmaNew, first: usize) -> Result {
        self.memory.map(area, first)
    }

    /// The log as `REELFS_IOC_LIST` shows it.
    pub(crate) fn describe(&self) -> ListEntry {
        let mut source = [0; 256];
        for (to, from) in source.iter_mut().zip(self.source.iter()) {
            *to = *from;
        }
        let state = self.state.lock();
        let (policy, gaps) = (state.policy, &state.gaps);
        ListEntry {
            ring: self.id,
            stream: state.stream,
            state: state.flags(),
            onstall: policy.onstall as u32,
            epoch: state.epoch,
            acknowledged: state.book.acknowledged(),
            committed: state.book.committed(),
            used: state.book.used(),
            data_size: self.size() as u64,
            waits: state.waits,
            refused: state.refused,
            records: state.book.commits(),
            stall: u64::from(policy.stall) * 1000,
            uid_limit: policy.uid_limit.unwrap_or(0),
            gap_lsn: gaps.lacks.unwrap_or(0),
            gaps: gaps.count,
            degraded_since: gaps.since,
            unrecorded: gaps.total.changes,
            unrecorded_bytes: gaps.total.bytes,
            source,
        }
    }

    /// Who has records in the ring, as `REELFS_IOC_USERS` shows them: those from `request.from` on.
    pub(crate) fn users(&self, request: &mut Users) {
        let mut state = self.state.lock();
        let mut count = 0;
        request.next = 0;
        for (next, share) in state.book.shares().list(request.from as usize) {
            let Some(entry) = request.users.get_mut(count) else { break };
            let uid = if share.uid == OTHERS { USER_OTHERS } else { share.uid };
            let Share { held, bytes, records, waits, .. } = *share;
            *entry = UserEntry { uid, reserved: 0, held, bytes, records, waits };
            count += 1;
            request.next = if count == USERS_MAX { next as u32 } else { 0 };
        }
        request.count = count as u32;
    }
}

impl State {
    /// `RING_*`, but for `RING_FIRST`.
    pub(super) fn flags(&self) -> u32 {
        let mounted = matches!(self.phase, Phase::Fresh | Phase::Open);
        (if mounted { RING_MOUNTED } else { 0 })
            | (if self.unclean { RING_UNCLEAN } else { 0 })
            | (if self.consumer.is_some() { RING_ATTACHED } else { 0 })
            | (if self.gaps.lacks.is_some() { RING_GAP } else { 0 })
            | (if self.gaps.is_open() { RING_DEGRADED } else { 0 })
            | (if self.populated { RING_POPULATED } else { 0 })
    }

    /// The consumer did what it is there for: after an acknowledgement, or with another consumer.
    pub(super) fn heard(&mut self) {
        self.told = self.news();
        self.stalled = None;
        self.gaps.relieve();
    }
}

const _: () = {
    // What is kept back holds what it is kept for.
    let ends = UnmountBody::HEAD_LEN + GapBody::HEAD_LEN + GapEndBody::HEAD_LEN + 3 * TRAILER_LEN;
    assert!(KEPT.bytes >= 2 * ends && KEPT.slots > 3);
    assert!(RING_MIN / 8 >= (64 << 10) + 4096 && RECORD_MAX >= WRITE_MAX + (64 << 10));
};
