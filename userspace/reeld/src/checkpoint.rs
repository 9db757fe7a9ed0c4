// SPDX-License-Identifier: GPL-2.0-or-later

//! Checkpoints: when one is due, having it made, remembering it.
//!
//! A thread of its own runs [`Keeper::run`]. It is never waited for: not by whoever acknowledges, and not by writers, for
//! whom it leaves half of the ring free. One that does not come to its end counts for nothing; the next one begins anew.

mod list;
pub mod walk;

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{bail, Context, Result};
use reelfs_format::record::Lsn;
use reelfs_spool::Spool;
use reelfs_sys::teller::Teller;
use serde::{Deserialize, Serialize};

use crate::config::CheckpointConfig;
use crate::source::Wake;
use crate::status::{CheckpointDone, CheckpointState, Status};
use crate::streamer;
use walk::{Around, Progress, Walk, WalkError};

/// How often to look whether one is due.
const PERIOD: Duration = Duration::from_secs(1);
/// How long to wait after one that failed, unless somebody asks.
const RETRY: Duration = Duration::from_secs(60);
/// Above this fill of the spool, in percent, nothing more is told while the media have something to take out of it.
const SPOOL_FILL: u64 = 60;
/// Name of the file that remembers, in the spool's directory.
const NAME: &str = "checkpoint.json";

/// Why a checkpoint is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Asked,
    Populated,
    Policy,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Reason::Asked => "asked for",
            Reason::Populated => "the tree was not empty when it was first mounted",
            Reason::Policy => "due by the configuration",
        }
    }
}

/// The ring that is attached, as far as it matters here.
#[derive(Clone)]
struct Attached {
    teller: Teller,
    ring: u64,
    populated: bool,
}

#[derive(Default)]
struct Inner {
    attached: Option<Attached>,
    /// The one that is asked for, by its number.
    asked: Option<u64>,
    stop: bool,
    end: bool,
}

/// How to speak to the thread.
#[derive(Clone)]
pub struct Orders {
    wake: Wake,
    inner: Arc<Mutex<Inner>>,
}

impl Orders {
    /// Nothing is ordered yet.
    pub fn new() -> std::io::Result<Orders> {
        Ok(Orders { wake: Wake::new()?, inner: Arc::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ring with a mount is attached; its data is `ring` bytes long. `populated`: the log has nothing yet of what was in
    /// the tree.
    pub fn attached(&self, teller: Teller, ring: u64, populated: bool) {
        self.inner().attached = Some(Attached { teller, ring, populated });
        self.wake.raise();
    }

    /// It is not any more.
    pub fn detached(&self) {
        self.inner().attached = None;
        self.wake.raise();
    }

    /// Has a checkpoint made. The number of the run; that of the one that is being made, if one is.
    pub fn start(&self, status: &Status) -> Result<u64> {
        let mut inner = self.inner();
        if inner.attached.is_none() {
            bail!("no mount is attached");
        }
        let shared = status.shared();
        let running = shared.checkpoint.state == CheckpointState::Running;
        let run = shared.checkpoint.run + u64::from(!running);
        drop(shared);
        if !running {
            (inner.asked, inner.stop) = (Some(run), false);
        }
        self.wake.raise();
        Ok(run)
    }

    /// Has the one that is being made given up.
    pub fn stop(&self, status: &Status) -> Result<u64> {
        let shared = status.shared();
        if shared.checkpoint.state != CheckpointState::Running {
            bail!("no checkpoint is being made");
        }
        let run = shared.checkpoint.run;
        drop(shared);
        self.inner().stop = true;
        self.wake.raise();
        Ok(run)
    }

    /// Has the thread end.
    pub fn end(&self) {
        self.inner().end = true;
        self.wake.raise();
    }

    fn cancelled(&self) -> bool {
        let inner = self.inner();
        inner.end || inner.stop || inner.attached.is_none()
    }
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    /// The log begins with a tree that was not empty.
    populated: bool,
    /// The last one that is complete.
    last: Option<CheckpointDone>,
}

impl Memory {
    fn load(spool: &Path) -> Result<Option<Memory>> {
        let path = spool.join(NAME);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("in {}; remove it to have it forgotten", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// On stable storage on return.
    fn save(&self, spool: &Path) -> Result<()> {
        let (path, new) = (spool.join(NAME), spool.join("checkpoint.json.new"));
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            fs::File::open(spool)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Makes checkpoints.
pub struct Keeper {
    /// The spool.
    pub spool: Arc<Spool>,
    /// When one is due.
    pub policy: CheckpointConfig,
    /// The status.
    pub status: Arc<Status>,
    /// Orders.
    pub orders: Orders,
    /// The streamer's.
    pub streamer: streamer::Orders,
}

impl Keeper {
    /// Runs until it is told to end.
    pub fn run(self) {
        if let Err(error) = self.keep() {
            self.status.shared().checkpoint.state = CheckpointState::Failed;
            self.status.error(format!("no checkpoints are made until the daemon is started again: {error:#}"));
        }
    }

    fn keep(&self) -> Result<()> {
        let mut memory = Memory::load(self.spool.path())?.unwrap_or_default();
        self.status.shared().checkpoint.last = memory.last.clone();
        let mut retry: Option<Instant> = None;
        loop {
            let (asked, attached) = {
                let mut inner = self.orders.inner();
                if inner.end {
                    return Ok(());
                }
                (inner.asked.take(), inner.attached.clone())
            };
            let Some(attached) = attached else {
                retry = None;
                self.orders.wake.wait(PERIOD)?;
                continue;
            };
            if attached.populated && (memory.last.is_some() || !memory.populated) {
                // What was complete before was of another tree.
                memory = Memory { populated: true, last: None };
                memory.save(self.spool.path())?;
            }
            let due = match asked {
                Some(_) => Some(Reason::Asked),
                None if retry.is_some_and(|at| at.elapsed() < RETRY) => None,
                None => self.due(&memory),
            };
            let Some(reason) = due else {
                self.orders.wake.wait(PERIOD)?;
                continue;
            };
            let complete = self.make(&attached, reason, &mut memory)?;
            retry = (!complete).then(Instant::now);
            if complete {
                if let Some(attached) = self.orders.inner().attached.as_mut() {
                    attached.populated = false;
                }
            }
        }
    }

    /// Whether one is due without being asked for.
    fn due(&self, memory: &Memory) -> Option<Reason> {
        let Some(last) = &memory.last else { return memory.populated.then_some(Reason::Populated) };
        let bytes =
            self.policy.every_bytes.is_some_and(|every| self.status.spooled().saturating_sub(last.end) >= every.0);
        let time = self.policy.every_time.is_some_and(|every| now().saturating_sub(last.time) >= every.0.as_secs());
        (bytes || time).then_some(Reason::Policy)
    }

    /// Makes one. Whether it is complete.
    fn make(&self, attached: &Attached, reason: Reason, memory: &mut Memory) -> Result<bool> {
        let begun = Instant::now();
        {
            let mut shared = self.status.shared();
            let status = &mut shared.checkpoint;
            (status.run, status.state) = (status.run + 1, CheckpointState::Running);
            (status.reason, status.failed, status.begin) = (Some(reason.text().into()), None, None);
            (status.objects, status.bytes, status.due, status.seconds) = (0, 0, 0, 0.0);
        }
        let around = Surroundings { keeper: self, ring: attached.ring, begun };
        let outcome = self.tell(&attached.teller, &around, reason);
        let outcome = outcome.and_then(|done| {
            memory.last = Some(done.clone());
            memory.save(self.spool.path())?;
            Ok(done)
        });
        let mut shared = self.status.shared();
        let status = &mut shared.checkpoint;
        (status.state, status.doing, status.seconds) = (CheckpointState::Idle, None, begun.elapsed().as_secs_f64());
        self.orders.inner().stop = false;
        match outcome {
            Ok(done) => {
                log::info!(
                    "checkpoint from LSN {:#x} to {:#x}: {} objects, {} bytes of contents in {:.1} s",
                    done.begin,
                    done.end,
                    status.objects,
                    status.bytes,
                    status.seconds
                );
                status.last = Some(done);
                Ok(true)
            }
            Err(error) => {
                let text = format!("{error:#}");
                status.failed = Some(text.clone());
                drop(shared);
                let told = error.downcast_ref::<WalkError>();
                match told {
                    Some(WalkError::Cancelled | WalkError::Ended) => {
                        log::warn!("the checkpoint is not complete: {text}")
                    }
                    _ => self.status.error(format!("the checkpoint is not complete: {text}")),
                }
                Ok(false)
            }
        }
    }

    fn tell(&self, teller: &Teller, around: &Surroundings<'_>, reason: Reason) -> Result<CheckpointDone> {
        let (begin, root) = teller.begin().context("the kernel does not begin a checkpoint")?;
        log::info!("a checkpoint begins at LSN {begin:#x}: {}", reason.text());
        self.status.shared().checkpoint.begin = Some(begin);
        let told = Walk::new(teller.clone(), around, self.spool.clone(), begin, &root).and_then(|mut walk| walk.run());
        let progress = match told {
            Ok(progress) => progress,
            Err(error) => {
                // Where the ring is gone, so is the checkpoint.
                let _ = teller.stop(begin);
                return Err(error.into());
            }
        };
        self.say("ending");
        let end =
            teller.end(begin, progress.objects, progress.bytes).map_err(
                |error| match rustix::io::Errno::from_io_error(&error) {
                    Some(rustix::io::Errno::STALE | rustix::io::Errno::NODEV | rustix::io::Errno::NOTCONN) => {
                        WalkError::Ended.into()
                    }
                    _ => anyhow::Error::from(error).context("the kernel does not end the checkpoint"),
                },
            )?;
        // It is complete when its end is in the spool.
        while self.status.spooled() < end {
            if self.orders.cancelled() {
                return Err(WalkError::Cancelled.into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(CheckpointDone { begin, end, time: now() })
    }

    fn say(&self, doing: &str) {
        self.status.shared().checkpoint.doing = Some(doing.into());
    }
}

/// The daemon, as a walk sees it.
struct Surroundings<'a> {
    keeper: &'a Keeper,
    ring: u64,
    begun: Instant,
}

impl Around for Surroundings<'_> {
    fn spooled(&self) -> Lsn {
        self.keeper.status.spooled()
    }

    fn must_yield(&self, told: Lsn) -> bool {
        let status = &self.keeper.status;
        let in_ring = status.committed().max(told).saturating_sub(status.acknowledged());
        if in_ring > self.ring / 2 {
            return true;
        }
        let spooled = status.spooled();
        if status.shared().spool.fill_percent <= SPOOL_FILL || status.on_media() >= spooled {
            return false;
        }
        self.keeper.streamer.flush(spooled);
        true
    }

    fn cancelled(&self) -> bool {
        self.keeper.orders.cancelled()
    }

    fn progress(&self, progress: &Progress) {
        let mut shared = self.keeper.status.shared();
        let status = &mut shared.checkpoint;
        (status.objects, status.bytes, status.due) = (progress.objects, progress.bytes, progress.due);
        status.seconds = self.begun.elapsed().as_secs_f64();
        let doing = if progress.yields { "waiting for room in ring or spool" } else { "telling" };
        if status.doing.as_deref() != Some(doing) {
            status.doing = Some(doing.into());
        }
    }
}

/// Seconds since 1970-01-01 UTC.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
