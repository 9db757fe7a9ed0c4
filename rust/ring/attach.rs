// SPDX-License-Identifier: GPL-2.0

//! The consumer's side of a log: attaching, acknowledging, detaching, discarding.
//!
//! Everything that comes in here comes from user space, in any order, from several tasks at once, and is checked.

use kernel::prelude::*;
use kernel::sync::atomic::Release;
use kernel::sync::poll::PollCondVar;
use kernel::sync::Arc;

use super::book::{Claim, Need, FIRST_LSN_MAX};
use super::log::{Entry, Log, Lower, Phase, Root, State};
use super::registry;
use crate::format::crc32c_append;
use crate::format::mark::{Mark, MARK_CLEAN, MARK_LEN};
use crate::format::record::{
    Body, Lsn, MountBody, RecordType, MOUNT_FIRST, MOUNT_GAP, MOUNT_POPULATED, MOUNT_UNCLEAN, RECORD_ALIGN,
};
use crate::format::uapi::{Attach, ATTACH_ADOPT, RING_FIRST};

/// The kernel crate has constants for the commonest errors only.
pub(super) const ESTALE: i32 = kernel::bindings::ESTALE as i32;
const EUCLEAN: i32 = kernel::bindings::EUCLEAN as i32;
pub(super) const ENOTCONN: i32 = kernel::bindings::ENOTCONN as i32;
pub(super) const EPROTO: i32 = kernel::bindings::EPROTO as i32;

pub(super) fn errno(number: i32) -> Error {
    Error::from_errno(-number)
}

/// Who reads a log: one open descriptor of the device.
#[pin_data]
pub(crate) struct Consumer {
    #[pin]
    news: PollCondVar,
}

impl Consumer {
    /// A consumer that is attached to nothing.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(pin_init!(Self { news <- kernel::new_poll_condvar!("reelfs_consumer_news") }), GFP_KERNEL)
    }

    /// Where `poll` handlers wait.
    pub(crate) fn news(&self) -> &PollCondVar {
        &self.news
    }

    /// Wakes whoever polls. Never sleeps.
    pub(super) fn wake(&self) {
        self.news.notify_all();
    }
}

/// What `poll(2)` finds.
pub(crate) struct Readiness {
    /// There are records.
    pub(crate) readable: bool,
    /// There are records, and somebody waits or they have become many.
    pub(crate) due: bool,
    /// The mount is gone: what is there is all there will be.
    pub(crate) ended: bool,
}

/// What is known of the tree before a consumer is let in.
struct Admission {
    first: bool,
    /// The tree belonged to no stream, or to another one: what is in it is not in this one.
    strange: bool,
    unclean: bool,
    epoch: u64,
    /// Where the log began to lack changes before this mount.
    gap: Option<Lsn>,
}

/// The mark of a mount that ended in order, its log at `end`.
pub(super) fn clean_mark(state: &State, end: Lsn) -> [u8; MARK_LEN] {
    zerocopy::transmute!(Mark::new(MARK_CLEAN, state.stream, state.epoch, end, end, state.lacks()))
}

/// Judges a tree by its mark. `EUCLEAN` damaged; `EXDEV` of another stream; `ESTALE` its log ends elsewhere.
fn judge(lower: &dyn Lower, request: &Attach) -> Result<Admission> {
    let adopt = request.flags & ATTACH_ADOPT != 0;
    let mut value = [0; MARK_LEN];
    let length = match lower.read_mark(&mut value) {
        Ok(None) => return Ok(Admission { first: true, strange: true, unclean: false, epoch: 1, gap: None }),
        Ok(Some(length)) => length,
        // Longer than any mark.
        Err(error) if error == ERANGE => 0,
        Err(error) => return Err(error),
    };
    let Ok(mark) = Mark::parse(value.get(..length).unwrap_or(&[])) else {
        let adopted = Admission { first: false, strange: false, unclean: true, epoch: 1, gap: None };
        return if adopt { Ok(adopted) } else { Err(errno(EUCLEAN)) };
    };
    let epoch = mark.epoch.get().saturating_add(1);
    if mark.stream != request.stream {
        // Where another stream lacks changes says nothing here; that this one lacks all of them is said already.
        let adopted = Admission { first: false, strange: true, unclean: true, epoch, gap: None };
        return if adopt { Ok(adopted) } else { Err(EXDEV) };
    }
    let gap = mark.gap();
    if mark.is_clean() && mark.next_lsn.get() == request.next_lsn {
        return Ok(Admission { first: false, strange: false, unclean: false, epoch, gap });
    }
    if mark.is_clean() && !adopt {
        return Err(errno(ESTALE));
    }
    Ok(Admission { first: false, strange: false, unclean: true, epoch, gap })
}

impl Log {
    /// Makes `consumer` the one consumer of this log, and fills in what `request` returns. May sleep.
    ///
    /// Errors: those that [`Attach`] lists.
    pub(crate) fn attach(&self, consumer: &Arc<Consumer>, request: &mut Attach) -> Result {
        let control = self.control.lock();
        let phase = {
            let state = self.state.lock();
            if state.consumer.is_some() {
                return Err(EBUSY);
            }
            state.phase
        };
        // None of this changes while `control` is held, but for the mount's being gone: that takes `control` too.
        match (phase, &*control) {
            (Phase::Gone, _) => Err(ENOENT),
            (Phase::Fresh, Some(lower)) => self.attach_first(&**lower, consumer, request),
            (Phase::Fresh, None) => Err(ENOENT),
            (Phase::Open | Phase::Closed, _) => self.attach_again(consumer, request),
        }
    }

    fn attach_first(&self, lower: &dyn Lower, consumer: &Arc<Consumer>, request: &mut Attach) -> Result {
        let lsn = request.next_lsn;
        if request.stream == [0; 16] || lsn > FIRST_LSN_MAX || lsn % RECORD_ALIGN as u64 != 0 {
            return Err(EINVAL);
        }
        // Two logs of one stream at a time would be two histories under one name.
        registry::claim(
            self,
            |other| if other.state.lock().keeps(&request.stream) { Err(EBUSY) } else { Ok(()) },
            || self.state.lock().stream = request.stream,
        )?;
        let result = self.open(lower, consumer, request);
        if result.is_err() {
            self.state.lock().stream = [0; 16];
        }
        result
    }

    /// The first attach, the stream claimed.
    fn open(&self, lower: &dyn Lower, consumer: &Arc<Consumer>, request: &mut Attach) -> Result {
        let admission = judge(lower, request)?;
        let root = lower.root()?;
        let populated = admission.strange && self.had_contents;
        let flags = (if admission.first { MOUNT_FIRST } else { 0 })
            | (if admission.unclean { MOUNT_UNCLEAN } else { 0 })
            | (if admission.gap.is_some() { MOUNT_GAP } else { 0 })
            | (if populated { MOUNT_POPULATED } else { 0 });
        let body = mount_body(&root, request.stream, flags)?;

        // Nobody else takes room before the log is open, so there is no waiting.
        let need: Need = self.need::<MountBody>(root.xattrs.len(), RECORD_ALIGN)?;
        let mut taken = self.state.lock().book.take(&need, Claim::Ordinary).ok_or(E2BIG)?;
        let payload = self.memory.bytes(&mut taken).get_mut(MountBody::HEAD_LEN..);
        match payload.and_then(|payload| payload.get_mut(..root.xattrs.len())) {
            Some(payload) => payload.copy_from_slice(&root.xattrs),
            None => {
                self.abandon(taken);
                return Err(E2BIG);
            }
        }
        // Changes may have been made that nobody waited for. (If that begins right now, whoever begins it writes the
        // mark after us.)
        let gap = admission.gap.or(self.state.lock().gaps.is_open().then_some(request.next_lsn));
        let lacks = if populated { Some(request.next_lsn) } else { gap };
        let mark = Mark::new(0, request.stream, admission.epoch, request.next_lsn, 0, lacks);
        if let Err(error) = lower.write_mark(&zerocopy::transmute!(mark)) {
            self.abandon(taken);
            return Err(error);
        }

        let mut state = self.state.lock();
        let entry = Entry {
            kind: RecordType::Mount,
            flags: 0,
            object: root.identity,
            body: &body,
            payload_len: root.xattrs.len(),
            payload_crc: crc32c_append(0, &root.xattrs),
        };
        state.epoch = admission.epoch;
        state.first_lsn = request.next_lsn;
        state.unclean = admission.unclean;
        state.gaps.lacks = gap;
        state.populated = populated;
        state.root = root.identity;
        if !state.book.begin(request.next_lsn) {
            state.book.abandon(taken);
            return Err(EINVAL);
        }
        let control = self.memory.control();
        control.acknowledged.store(request.next_lsn, Release);
        self.publish(&mut state, taken, &entry).ok_or(EIO)?;
        if state.gaps.is_open() {
            self.publish_gap(&mut state);
        }
        state.phase = Phase::Open;
        state.consumer = Some(consumer.clone());
        state.heard();
        self.fill_in(&state, request);
        if admission.first {
            request.state |= RING_FIRST;
        }
        drop(state);
        self.wake_everybody();
        Ok(())
    }

    /// An attach to a log that had a consumer before.
    fn attach_again(&self, consumer: &Arc<Consumer>, request: &mut Attach) -> Result {
        let (drained, closed) = {
            let mut state = self.state.lock();
            if state.stream != request.stream {
                return Err(EXDEV);
            }
            state.book.acknowledge(request.next_lsn).map_err(|_| errno(ESTALE))?;
            self.memory.control().acknowledged.store(request.next_lsn, Release);
            state.consumer = Some(consumer.clone());
            state.heard();
            let closed = self.catch_up(&mut state);
            self.fill_in(&state, request);
            (state.drained(), closed)
        };
        self.acknowledged();
        self.closed(closed);
        self.wake_everybody();
        if drained {
            self.retire();
        }
        Ok(())
    }

    fn fill_in(&self, state: &State, request: &mut Attach) {
        let layout = self.memory.layout();
        request.state = state.flags();
        request.ring = self.id();
        request.acknowledged = state.book.acknowledged();
        request.committed = state.book.committed();
        request.sequence = state.book.acknowledged_commits();
        request.epoch = state.epoch;
        request.queue_offset = layout.queue as u64;
        request.queue_entries = layout.entries as u64;
        request.data_offset = layout.data as u64;
        request.data_size = layout.size as u64;
        request.gap_lsn = state.gaps.lacks.unwrap_or(0);
    }

    /// Notes that `consumer` has all below `lsn` on stable storage. `ENOTCONN` it is not the consumer of this log;
    /// `EINVAL` no LSN to acknowledge.
    pub(crate) fn acknowledge(&self, consumer: &Arc<Consumer>, lsn: Lsn) -> Result {
        let (drained, closed) = {
            let mut state = self.state.lock();
            if !state.is_consumer(consumer) {
                return Err(errno(ENOTCONN));
            }
            state.book.acknowledge(lsn).map_err(|_| EINVAL)?;
            self.memory.control().acknowledged.store(lsn, Release);
            state.heard();
            let closed = self.catch_up(&mut state);
            (state.drained(), closed)
        };
        self.acknowledged();
        self.closed(closed);
        if drained {
            self.retire();
        }
        Ok(())
    }

    /// Ends the attachment of `consumer`, if it is attached. What is not acknowledged stays. May sleep.
    pub(crate) fn detach(&self, consumer: &Arc<Consumer>) {
        let detached = {
            let mut state = self.state.lock();
            if state.is_consumer(consumer) {
                state.checkpoint = None;
                state.consumer.take()
            } else {
                None
            }
        };
        if detached.is_some() {
            // Whoever waits may have to give up now.
            self.wake_everybody();
        }
        drop(detached);
    }

    /// What there is for `consumer`. `ENOTCONN` it is not the consumer of this log.
    pub(crate) fn readiness(&self, consumer: &Arc<Consumer>) -> Result<Readiness> {
        let state = self.state.lock();
        if !state.is_consumer(consumer) {
            return Err(errno(ENOTCONN));
        }
        let news = state.news();
        let ended = matches!(state.phase, Phase::Closed | Phase::Gone);
        Ok(Readiness { readable: news.readable, due: news.due, ended })
    }

    /// Throws the log away, what is in it included. Errors: those that `Discard` lists.
    pub(crate) fn discard(&self, committed: Lsn) -> Result {
        let control = self.control.lock();
        let lost = {
            let mut state = self.state.lock();
            match state.phase {
                Phase::Gone => return Err(ENOENT),
                Phase::Fresh | Phase::Open => return Err(EBUSY),
                Phase::Closed if state.consumer.is_some() => return Err(EBUSY),
                Phase::Closed if state.book.committed() != committed => return Err(EINVAL),
                Phase::Closed => {}
            }
            state.phase = Phase::Gone;
            state.book.backlog()
        };
        drop(control);
        pr_notice!("ring {}: discarded, {} bytes of records with it\n", self.id(), lost);
        self.retire();
        Ok(())
    }
}

impl State {
    /// Where the log begins to lack what is in the tree, as the mark has it.
    pub(super) fn lacks(&self) -> Option<Lsn> {
        if self.populated {
            Some(self.first_lsn)
        } else {
            self.gaps.lacks
        }
    }

    pub(super) fn is_consumer(&self, consumer: &Arc<Consumer>) -> bool {
        self.consumer.as_ref().is_some_and(|attached| Arc::ptr_eq(attached, consumer))
    }

    /// Whether nothing is left here, and nothing will come.
    fn drained(&self) -> bool {
        self.phase == Phase::Closed && self.book.backlog() == 0
    }

    /// Whether another log of this stream would be one too many.
    fn keeps(&self, stream: &[u8; 16]) -> bool {
        let alive = match self.phase {
            Phase::Fresh | Phase::Open => true,
            Phase::Closed => self.book.backlog() > 0,
            Phase::Gone => false,
        };
        alive && self.stream == *stream
    }
}

fn mount_body(root: &Root, stream: [u8; 16], flags: u64) -> Result<MountBody> {
    let xattrs_len = u32::try_from(root.xattrs.len()).map_err(|_| E2BIG)?;
    Ok(MountBody {
        stream,
        lower_uuid: root.uuid,
        lower_magic: root.magic.into(),
        flags: flags.into(),
        root: root.attributes,
        xattrs_len: xattrs_len.into(),
        xattrs: root.xattrs_count.into(),
        reserved: 0.into(),
    })
}
