// SPDX-License-Identifier: GPL-2.0-or-later

//! The acknowledgement path: ring to spool, then acknowledge, and nothing else.
//!
//! One thread runs [`Capture::run`]. Every `fsync` on the mount waits for it, and so may any other thread of this daemon
//! or of whatever reads its log: it must wait for none of them. It takes no lock that is held during I/O, allocates
//! next to nothing on the way, touches no media and no control socket, and its segment files are made ahead of it.
//!
//! Group commit needs no timer: while one batch is being written the next one gathers in the ring.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reelfs_format::record::{Lsn, RecordType};
use reelfs_format::view::peek_kind;
use reelfs_spool::{SegmentSource, SpoolError, Writer};

use crate::source::{Source, Wake};
use crate::status::{Stall, Status};

/// How long to sleep at most when nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// How long to wait before trying again what failed, unless woken.
const RETRY: Duration = Duration::from_millis(500);
/// How often a lasting failure is logged.
const REMIND: Duration = Duration::from_secs(60);

/// Segment files that are ready to be used, put here by the keeper.
#[derive(Clone)]
pub struct Prepared {
    files: Arc<Mutex<Vec<(u64, File)>>>,
    keeper: Wake,
}

impl Prepared {
    /// None yet. `keeper` is raised when one has been used.
    pub fn new(keeper: Wake) -> Prepared {
        Prepared { files: Arc::default(), keeper }
    }

    /// Adds the file of segment `number`.
    pub fn put(&self, number: u64, file: File) {
        self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, file));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl SegmentSource for Prepared {
    fn take(&mut self, number: u64) -> Option<File> {
        match self.files.try_lock() {
            Ok(mut files) => {
                let at = files.iter().position(|(prepared, _)| *prepared == number)?;
                self.keeper.raise();
                Some(files.swap_remove(at).1)
            }
            // The lock is never held for longer than a push takes; the next try succeeds.
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => None,
        }
    }
}

/// How to speak to a running capture thread.
#[derive(Clone)]
pub struct Control {
    wake: Wake,
    stop: Arc<AtomicBool>,
}

impl Control {
    /// Nothing is asked yet.
    pub fn new() -> io::Result<Control> {
        Ok(Control { wake: Wake::new()?, stop: Arc::new(AtomicBool::new(false)) })
    }

    /// Has it look at everything again: the ring, the segments.
    pub fn wake(&self) {
        self.wake.raise();
    }

    /// Has it end when all that is committed by then has been acknowledged, or when it cannot go on.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.raise();
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Why [`Capture::run`] returned.
#[derive(Debug)]
pub enum Ended {
    /// It was asked to stop. All that was committed up to this LSN has been acknowledged.
    Stopped(Lsn),
    /// It was asked to stop and could not acknowledge everything: why.
    StoppedStalled(Stall),
    /// The mount is gone, and everything has been acknowledged.
    Unmounted,
}

/// Moves records from a ring to the spool.
pub struct Capture {
    source: Box<dyn Source>,
    writer: Writer,
    segments: Prepared,
    control: Control,
    status: Arc<Status>,
    stalled: Option<Stalled>,
    /// Records in the batch.
    records: u64,
    /// Records in the batch that say that the log has a gap, or that it ends.
    gaps: Vec<(RecordType, Lsn)>,
}

/// What keeps us from acknowledging.
struct Stalled {
    stall: Stall,
    since: Instant,
    logged: Option<Instant>,
}

impl Capture {
    /// From `source` to `writer`, which is at the place where the source begins.
    pub fn new(
        source: Box<dyn Source>,
        writer: Writer,
        segments: Prepared,
        control: Control,
        status: Arc<Status>,
    ) -> Capture {
        Capture { source, writer, segments, control, status, stalled: None, records: 0, gaps: Vec::new() }
    }

    /// Gives the source up, with whatever was not acknowledged, and the writer back.
    pub fn into_writer(mut self) -> Writer {
        self.writer.discard();
        self.writer
    }

    /// Runs until the mount is gone or it is asked to stop. An error means that the ring can no longer be used.
    pub fn run(&mut self) -> io::Result<Ended> {
        loop {
            let stopping = self.control.stopping();
            match self.gather() {
                Ok(()) => {}
                Err(Failed::Source(error)) => return Err(error),
                Err(Failed::Record(error)) => {
                    if let Some(ended) = self.stall(Stall::BadRecord, &error.to_string())? {
                        return Ok(ended);
                    }
                    continue;
                }
            };
            self.status.set_committed(self.source.committed()?);
            if !self.writer.is_dirty() {
                if stopping {
                    return Ok(Ended::Stopped(self.writer.durable()));
                }
                let more = self.source.wait(&self.control.wake, IDLE)?;
                self.control.wake.lower();
                if !more {
                    return Ok(Ended::Unmounted);
                }
                continue;
            }
            fail::fail_point!("capture-before-write");
            match self.writer.flush(&mut self.segments, now()) {
                Ok(_) => {}
                Err(SpoolError::Full) => {
                    if let Some(ended) = self.stall(Stall::NoSegment, "the next segment of the spool is not there")? {
                        return Ok(ended);
                    }
                    continue;
                }
                Err(error) => {
                    if let Some(ended) = self.stall(Stall::SpoolError, &error.to_string())? {
                        return Ok(ended);
                    }
                    continue;
                }
            }
            fail::fail_point!("capture-after-write");
            self.acknowledge()?;
            fail::fail_point!("capture-after-acknowledge");
        }
    }

    /// Takes records into the batch until it is full or there are no more.
    fn gather(&mut self) -> Result<(), Failed> {
        let mut fault = None;
        let (records, gaps) = (&mut self.records, &mut self.gaps);
        let from = self.writer.end();
        let writer = &mut self.writer;
        let visit = &mut |record: &[u8]| match writer.push(record) {
            Ok(_) => {
                *records += 1;
                if let Some(kind @ (RecordType::Gap | RecordType::GapEnd)) = peek_kind(record) {
                    gaps.push((kind, writer.end()));
                }
                ControlFlow::Continue(())
            }
            Err(SpoolError::BatchFull) => ControlFlow::Break(()),
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        };
        self.source.each(from, visit).map_err(Failed::Source)?;
        match fault {
            // What came before it is good and goes first.
            Some(error) if !self.writer.is_dirty() => Err(Failed::Record(error)),
            _ => Ok(()),
        }
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        let lsn = self.writer.durable();
        self.status.set_spooled(lsn);
        self.status.count_batch(std::mem::take(&mut self.records));
        self.source.acknowledge(lsn)?;
        self.status.set_acknowledged(lsn);
        if let Some(stalled) = self.stalled.take().filter(|stalled| stalled.logged.is_some()) {
            self.status.set_stall(Stall::None);
            log::warn!("acknowledging again at LSN {lsn:#x}, after {} s", stalled.since.elapsed().as_secs());
        }
        for (kind, lsn) in self.gaps.drain(..) {
            match kind {
                RecordType::Gap => log::error!(
                    "GAP: the log could take no records and the mount went on without it; changes made from LSN {lsn:#x} on are \
                     in no log"
                ),
                _ => log::error!("the gap ends at LSN {lsn:#x}; what changed in it stays missing"),
            }
        }
        Ok(())
    }

    /// Waits before the next try. Nothing is acknowledged meanwhile; the mount's policy decides what that means.
    fn stall(&mut self, stall: Stall, reason: &str) -> io::Result<Option<Ended>> {
        let stopping = self.control.stopping();
        let stalled = match &mut self.stalled {
            Some(stalled) if stalled.stall == stall => stalled,
            other => other.insert(Stalled { stall, since: Instant::now(), logged: None }),
        };
        // A segment is mostly on its way; only one that does not come is worth a word.
        let patience = if stall == Stall::NoSegment { RETRY } else { Duration::ZERO };
        let due = stalled.logged.is_none_or(|logged| logged.elapsed() >= REMIND);
        if due && stalled.since.elapsed() >= patience {
            stalled.logged = Some(Instant::now());
            self.status.set_stall(stall);
            log::error!("not acknowledging at LSN {:#x}: {reason}", self.writer.durable());
        }
        // With the spool full, stopping means leaving the rest in the ring; a segment on its way is waited for.
        if stopping && self.status.stall() != Stall::None {
            return Ok(Some(Ended::StoppedStalled(stall)));
        }
        self.control.wake.wait(RETRY)?;
        Ok(None)
    }
}

enum Failed {
    Source(io::Error),
    Record(SpoolError),
}

/// Nanoseconds since 1970-01-01 UTC.
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
