// SPDX-License-Identifier: GPL-2.0-or-later

//! What the daemon knows about itself: counters that the capture thread may touch, and what others tell each other.
//!
//! The capture thread writes atomics alone. Everything else is behind a mutex that it never takes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use reelfs_format::record::Lsn;
use serde::{Deserialize, Serialize};

/// Errors that are remembered for the status.
const ERRORS: usize = 20;

/// What keeps the capture thread from acknowledging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum Stall {
    /// Nothing.
    None = 0,
    /// The next segment of the spool is not there: the spool is full, or its disk is, or is slow.
    NoSegment = 1,
    /// Writing the spool fails.
    SpoolError = 2,
    /// A record from the kernel is not right: a fault of kernel or memory.
    BadRecord = 3,
}

impl Stall {
    fn from_raw(raw: u32) -> Stall {
        [Stall::None, Stall::NoSegment, Stall::SpoolError, Stall::BadRecord]
            .into_iter()
            .find(|stall| *stall as u32 == raw)
            .unwrap_or(Stall::None)
    }
}

/// Shared by all threads.
#[derive(Default)]
pub struct Status {
    /// LSN behind the last committed record that was seen.
    committed: AtomicU64,
    /// All below is on the spool's stable storage.
    spooled: AtomicU64,
    /// All below has been acknowledged.
    acknowledged: AtomicU64,
    /// All below is proven to be on media.
    on_media: AtomicU64,
    /// A [`Stall`].
    stall: AtomicU32,
    batches: AtomicU64,
    records: AtomicU64,
    attached: AtomicBool,
    stopping: AtomicBool,
    shared: Mutex<Shared>,
}

/// What is not for the capture thread.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shared {
    /// The spool.
    pub spool: SpoolStatus,
    /// The media.
    pub media: MediaStatus,
    /// Checkpoints.
    pub checkpoint: CheckpointStatus,
    /// The ring.
    pub ring: Option<RingStatus>,
    /// The last errors, oldest first.
    pub errors: VecDeque<ErrorStatus>,
}

/// The spool, as its keeper sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SpoolStatus {
    /// Segment files that hold log.
    pub segments: u64,
    /// Segment files that the limit allows and the disk has room for.
    pub segments_max: u64,
    /// Length of a segment file in bytes.
    pub segment_bytes: u64,
    /// Part of that in use.
    pub fill_percent: u64,
    /// The fill is at the warning level or above.
    pub warning: bool,
    /// Why no further segment can be made, if none can.
    pub full: Option<String>,
}

/// The media, as the streamer sees them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MediaStatus {
    /// What it does.
    pub state: MediaState,
    /// What the operator has to do, if something.
    pub waiting_for: Option<String>,
    /// The volume being written.
    pub volume: Option<VolumeStatus>,
    /// Bursts since the start.
    pub bursts: u64,
    /// Bytes of the log put on media since the start.
    pub bytes: u64,
    /// Seconds spent in bursts since the start.
    pub busy_seconds: f64,
}

/// What the streamer does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MediaState {
    /// It finds out where it was.
    #[default]
    Starting,
    /// Nothing to do.
    Idle,
    /// It writes.
    Streaming,
    /// It waits for a volume.
    Waiting,
    /// It tries again after an error.
    Retrying,
    /// It has given up.
    Failed,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: uuid::Uuid,
    /// Its place in the set.
    pub sequence: u64,
}

/// Checkpoints: the one that is being made, or that was made last in this run of the daemon, and the last complete one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CheckpointStatus {
    /// What is done.
    pub state: CheckpointState,
    /// How many have been begun since the start.
    pub run: u64,
    /// Why it is, or was, made.
    pub reason: Option<String>,
    /// What it does at this moment.
    pub doing: Option<String>,
    /// LSN of its begin record.
    pub begin: Option<Lsn>,
    /// Objects told.
    pub objects: u64,
    /// Bytes of contents told.
    pub bytes: u64,
    /// Objects that are known and have not been told.
    pub due: u64,
    /// Seconds that it has taken.
    pub seconds: f64,
    /// Why it did not come to its end.
    pub failed: Option<String>,
    /// The last one that is complete.
    pub last: Option<CheckpointDone>,
}

/// What is done about checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointState {
    /// Nothing.
    #[default]
    Idle,
    /// One is being made.
    Running,
    /// None can be made.
    Failed,
}

/// A checkpoint that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointDone {
    /// LSN of its begin record: what is before it is not needed to restore what comes after it.
    pub begin: Lsn,
    /// LSN behind its end record: from here on it can be used.
    pub end: Lsn,
    /// When it was complete, seconds since 1970-01-01 UTC.
    pub time: u64,
}

/// The ring, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingStatus {
    /// Its id.
    pub id: u64,
    /// Whether its mount exists.
    pub mounted: bool,
    /// Epoch of the stream.
    pub epoch: u64,
    /// Bytes in use.
    pub used: u64,
    /// Length in bytes.
    pub size: u64,
    /// Operations that had to wait for room.
    pub waits: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// What is in no log, if anything is.
    pub gap: Option<GapStatus>,
    /// Who has records in it.
    pub users: Vec<String>,
}

/// What is in no log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GapStatus {
    /// The log lacks changes that were made after it had come to here.
    pub lacks_changes_from: String,
    /// How many gaps there were since the mount.
    pub gaps: u64,
    /// Changes made since the mount that are in no log.
    pub changes: u64,
    /// Bytes of the records that they would have been.
    pub bytes: u64,
    /// Seconds for which changes have been going unrecorded, if they are.
    pub unrecorded_for_seconds: Option<u64>,
}

/// An error that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorStatus {
    /// When, seconds since 1970-01-01 UTC.
    pub time: u64,
    /// What.
    pub message: String,
}

/// The positions in the log that matter, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Positions {
    /// Behind the last committed record.
    pub committed: Lsn,
    /// All below is in the spool.
    pub spooled: Lsn,
    /// All below has been acknowledged to the kernel.
    pub acknowledged: Lsn,
    /// All below is on media.
    pub on_media: Lsn,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident $set:ident $type:ty;)*) => {
        impl Status {$(
            $(#[$doc])*
            pub fn $field(&self) -> $type {
                self.$field.load(Ordering::Acquire)
            }

            /// Sets the value of the same name.
            pub fn $set(&self, value: $type) {
                self.$field.store(value, Ordering::Release);
            }
        )*}
    };
}

counters! {
    /// LSN behind the last committed record that was seen.
    committed set_committed u64;
    /// All below is on the spool's stable storage.
    spooled set_spooled u64;
    /// All below has been acknowledged.
    acknowledged set_acknowledged u64;
    /// All below is proven to be on media.
    on_media set_on_media u64;
    /// Whether a ring is attached.
    attached set_attached bool;
    /// Whether the daemon is on its way out.
    stopping set_stopping bool;
}

impl Status {
    /// What keeps the capture thread from acknowledging.
    pub fn stall(&self) -> Stall {
        Stall::from_raw(self.stall.load(Ordering::Acquire))
    }

    /// Sets [`Status::stall`].
    pub fn set_stall(&self, stall: Stall) {
        self.stall.store(stall as u32, Ordering::Release);
    }

    /// Counts a batch of `records`.
    pub fn count_batch(&self, records: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Batches and records since the start.
    pub fn counts(&self) -> (u64, u64) {
        (self.batches.load(Ordering::Relaxed), self.records.load(Ordering::Relaxed))
    }

    /// The positions at this moment.
    pub fn positions(&self) -> Positions {
        // What follows is read first, so that what is shown is never out of order.
        let on_media = self.on_media();
        let acknowledged = self.acknowledged();
        let spooled = self.spooled();
        Positions { committed: self.committed().max(spooled), spooled, acknowledged, on_media }
    }

    /// What is not for the capture thread.
    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        // A thread that panics ends the process, so what is behind a poisoned mutex is only read by the panic itself.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs an error and remembers it.
    pub fn error(&self, message: impl Into<String>) {
        let message = message.into();
        log::error!("{message}");
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let mut shared = self.shared();
        if shared.errors.len() == ERRORS {
            shared.errors.pop_front();
        }
        shared.errors.push_back(ErrorStatus { time, message });
    }
}
