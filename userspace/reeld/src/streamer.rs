// SPDX-License-Identifier: GPL-2.0-or-later

//! Spool to media, in bursts.
//!
//! A drive that is starved stops and winds back, so nothing is written until enough is waiting or something has waited
//! for long enough; then it is written in one go. What a burst wrote counts when the filemark behind it is done, and not
//! before. Whatever goes wrong, the log goes on from there: on the same volume once its place has been found again, or
//! on the next one.

mod open;

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context, Result};
use reelfs_format::record::{Lsn, RECORD_MAX};
use reelfs_format::view::peek_length;
use reelfs_format::volume::{FEATURE_COMPRESSED, FEATURE_ENCRYPTED};
use reelfs_keys::Recipients;
use reelfs_media::key::Lock;
use reelfs_media::library::{Library, Supply};
use reelfs_media::pool::Pool;
use reelfs_media::writer::{Coding, Inspection, Progress, VolumeWriter, WriteError};
use reelfs_media::{LogState, Medium};
use reelfs_spool::{Reader, Records, Spool};
use uuid::Uuid;

use crate::config::Config;
use crate::keyring;
use crate::source::Wake;
use crate::state::{State, Volume, VolumeState};
use crate::status::{MediaState, Status, VolumeStatus};

/// Bytes that are read from the spool at once.
const CHUNK: usize = 8 << 20;
/// How often to look whether a burst is due.
const PERIOD: Duration = Duration::from_millis(250);
/// How long to wait for a volume before asking the library again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often a volume may fail in a row before the log goes on on the next one.
const ATTEMPTS: u32 = 3;
/// How long to wait after an error.
const RETRY: Duration = Duration::from_secs(2);

/// When to write.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// A burst begins when this many bytes are waiting.
    pub high: u64,
    /// And ends when no more than this are.
    pub low: u64,
    /// A burst begins when something has been waiting for this long.
    pub age: Duration,
}

/// How to speak to a running streamer.
#[derive(Clone)]
pub struct Orders {
    wake: Wake,
    /// Everything below has to be written without waiting for more.
    flush: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Orders {
    /// Nothing is ordered yet.
    pub fn new() -> std::io::Result<Orders> {
        let (flush, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        Ok(Orders { wake: Wake::new()?, flush, stop })
    }

    /// Has everything below `lsn` written now.
    pub fn flush(&self, lsn: Lsn) {
        self.flush.fetch_max(lsn, Ordering::AcqRel);
        self.wake.raise();
    }

    /// Has it end before the next burst.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.raise();
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn flush_to(&self) -> Lsn {
        self.flush.load(Ordering::Acquire)
    }
}

/// How volumes are written.
#[derive(Clone)]
pub struct Coders {
    /// Who does the coding.
    pub pool: Arc<Pool>,
    /// The level of compression, if there is to be any.
    pub level: Option<i32>,
    /// Who shall be able to open new volumes; without any they are not encrypted.
    pub recipients: Option<Recipients>,
}

impl Coders {
    /// The log as it is.
    pub fn plain() -> Coders {
        Coders { pool: Pool::inline(), level: None, recipients: None }
    }

    /// As the configuration says it.
    pub fn new(config: &Config) -> Result<Coders> {
        let (level, recipients) = (config.media.compression.level(), config.recipients()?);
        let pool = match (&level, &recipients) {
            (None, None) => Pool::inline(),
            _ => Pool::new().context("cannot start the threads that code blocks")?,
        };
        Ok(Coders { pool, level, recipients })
    }

    fn with(&self, lock: Option<Lock>) -> Coding {
        Coding { pool: self.pool.clone(), level: self.level, lock }
    }
}

/// Puts the log on volumes of one pool.
pub struct Streamer {
    /// The spool.
    pub spool: Arc<Spool>,
    /// Where volumes come from.
    pub library: Box<dyn Library>,
    /// The pool.
    pub pool: String,
    /// The machine that writes.
    pub origin: String,
    /// When to write.
    pub marks: Marks,
    /// How.
    pub coders: Coders,
    /// What is run when a volume is needed that is not there.
    pub on_wait: Option<String>,
    /// Do not go on with the volume that was written last.
    pub new_volume: bool,
    /// The status.
    pub status: Arc<Status>,
    /// Orders.
    pub orders: Orders,
    /// Where the last burst ended, with its buffer; `None` to begin with.
    pub records: Option<Records<Arc<Spool>>>,
}

/// A volume that is being written.
type Writer = VolumeWriter<Box<dyn Medium>>;

impl Streamer {
    /// Runs until it is told to stop. An error means that nothing more reaches the media until someone has looked.
    pub fn run(mut self) -> Result<()> {
        let mut state = match self.find_state() {
            Ok(Some(state)) => state,
            Ok(None) => return Ok(()),
            Err(error) => return Err(self.give_up(error)),
        };
        if self.new_volume {
            state.settle(VolumeState::Abandoned);
        }
        self.status.set_on_media(state.proven);
        let mut writer = None;
        let mut waiting_since = None;
        while !self.orders.stopping() {
            if let Some(target) = self.due(&state, &mut waiting_since) {
                match self.burst(&mut state, &mut writer, target) {
                    Ok(()) => waiting_since = None,
                    Err(error) => return Err(self.give_up(error)),
                }
                continue;
            }
            self.set(MediaState::Idle, None);
            self.orders.wake.wait(PERIOD)?;
        }
        Ok(())
    }

    fn give_up(&self, error: anyhow::Error) -> anyhow::Error {
        self.set(MediaState::Failed, None);
        self.status.error(format!(
            "streaming has stopped: {error:#}; the spool keeps the log until the daemon is started again"
        ));
        error
    }

    /// How far to write now, if a burst is due.
    fn due(&self, state: &State, waiting_since: &mut Option<Instant>) -> Option<Lsn> {
        let spooled = self.status.spooled();
        let waiting = spooled.saturating_sub(state.proven);
        if waiting == 0 {
            *waiting_since = None;
            return None;
        }
        let since = *waiting_since.get_or_insert_with(Instant::now);
        let asked = self.orders.flush_to() > state.proven;
        (waiting >= self.marks.high || since.elapsed() >= self.marks.age || asked).then_some(spooled)
    }

    /// Writes the log up to `target`, and on from there while more than the low mark is waiting. Returns early when told
    /// to stop while there is no volume.
    fn burst(&mut self, state: &mut State, writer: &mut Option<Writer>, target: Lsn) -> Result<()> {
        let began = Instant::now();
        let from = state.proven;
        let mut failures = 0;
        loop {
            let volume = match writer.take() {
                Some(volume) => Ok(volume),
                None => match self.open(state) {
                    Ok(None) => return Ok(()),
                    Ok(Some(volume)) => Ok(volume),
                    Err(error) => Err(error),
                },
            };
            self.set(MediaState::Streaming, None);
            let outcome = match volume {
                Ok(mut volume) => {
                    self.show(&volume);
                    let outcome = self.write(state, &mut volume, target);
                    if outcome.is_ok() && !volume.is_finished() {
                        *writer = Some(volume);
                    } else if let Err(error) = &outcome {
                        *writer = self.recover(state, volume, error, &mut failures)?;
                    }
                    outcome
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) if state.proven >= target => break,
                // The volume is full: on to the next.
                Ok(()) => {}
                Err(Fault::Fatal(error)) => return Err(error),
                Err(Fault::Medium(error)) => {
                    if self.orders.stopping() {
                        return Ok(());
                    }
                    self.set(MediaState::Retrying, Some(error.to_string()));
                    self.status.error(format!("media: {error}"));
                    self.orders.wake.wait(RETRY)?;
                }
            }
        }
        let (bytes, seconds) = (state.proven - from, began.elapsed().as_secs_f64());
        log::debug!("{bytes} bytes to media in {seconds:.2} s, up to LSN {:#x}", state.proven);
        let mut shared = self.status.shared();
        shared.media.bursts += 1;
        shared.media.bytes += bytes;
        shared.media.busy_seconds += seconds;
        Ok(())
    }

    /// Gives the volume the log from where it is, until it is full or nothing more is to be written. What is proven by
    /// then is in `state`, and saved.
    fn write(&mut self, state: &mut State, volume: &mut Writer, target: Lsn) -> Result<(), Fault> {
        let mut position = volume.next_lsn();
        let boundary = self.boundary(volume.proven(), position)?;
        let mut full = false;
        if boundary > position {
            // The volume ends within a record.
            let mut rest = vec![0; usize::try_from(boundary - position).unwrap_or(RECORD_MAX)];
            self.read_exactly(position, &mut rest)?;
            full = volume.append(&rest)? == Progress::Full;
            position = boundary;
        }
        let mut records = self.records.take().unwrap_or_else(|| Records::new(self.spool.clone(), 0, CHUNK));
        if records.lsn() != position {
            records.seek(position);
        }
        while !full {
            let spooled = self.status.spooled();
            let end = if spooled.saturating_sub(records.lsn()) > self.marks.low { spooled } else { target };
            let (_, run) = records.next_run(end.max(target).min(spooled)).map_err(fatal)?;
            if run.is_empty() {
                break;
            }
            fail::fail_point!("stream-before-block");
            full = volume.append(run)? == Progress::Full;
            fail::fail_point!("stream-after-block");
        }
        self.records = Some(records);
        fail::fail_point!("stream-before-filemark");
        if !full {
            full = volume.sync()? == Progress::Full;
        }
        fail::fail_point!("stream-after-filemark");
        self.save(state, volume, if full { VolumeState::Finished } else { VolumeState::Open })?;
        if full {
            keyring::sweep(self.spool.path(), None);
            log::info!("volume '{}' is full at LSN {:#x}", volume.name(), state.proven);
        }
        Ok(())
    }

    /// LSN of the first record that starts at or behind `position`, which `log` has reached.
    fn boundary(&self, log: &LogState, position: Lsn) -> Result<Lsn, Fault> {
        let next = log.next_record();
        if next >= position {
            return Ok(next);
        }
        // Only the first bytes of that record have been seen.
        let mut head = [0; reelfs_format::record::HEADER_LEN];
        self.read_exactly(next, &mut head)?;
        let length = peek_length(&head).map_err(|error| fatal(anyhow!("record at LSN {next:#x}: {error}")))?;
        Ok(next + length as u64)
    }

    fn read_exactly(&self, lsn: Lsn, buffer: &mut [u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(self.spool.as_ref());
        let mut done = 0;
        while done < buffer.len() {
            match reader.read(lsn + done as u64, &mut buffer[done..]).map_err(fatal)? {
                0 => return Err(fatal(anyhow!("LSN {:#x} is no longer in the spool", lsn + done as u64))),
                length => done += length,
            }
        }
        Ok(())
    }

    /// After an error on `volume`: finds its place again, or gives it up.
    fn recover(
        &self,
        state: &mut State,
        mut volume: Writer,
        error: &Fault,
        failures: &mut u32,
    ) -> Result<Option<Writer>> {
        let Fault::Medium(error) = error else { return Ok(None) };
        *failures += 1;
        let failed = match volume.recover() {
            _ if *failures >= ATTEMPTS => error.to_string(),
            Ok(()) if volume.is_finished() => return Ok(None),
            Ok(()) => return Ok(Some(volume)),
            // Somebody changed it; the next try looks for it.
            Err(WriteError::WrongVolume { .. } | WriteError::NotOurs { .. }) => return Ok(None),
            Err(again) => again.to_string(),
        };
        self.status.error(format!(
            "volume '{}' is given up: {failed}; the log goes on from LSN {:#x} on the next one",
            volume.name(),
            state.proven
        ));
        *failures = 0;
        state.settle(VolumeState::Failed);
        state.save(self.spool.path())?;
        Ok(None)
    }

    /// Asks until there is a volume; `None` when told to stop.
    #[allow(clippy::type_complexity)]
    fn wait_for(
        &mut self,
        mut ask: impl FnMut(&mut dyn Library) -> Result<Supply, WriteError>,
    ) -> Result<Option<(Box<dyn Medium>, Inspection)>, Fault> {
        let mut said = String::new();
        let mut hook: Option<Child> = None;
        loop {
            let what = match ask(self.library.as_mut()) {
                Ok(Supply::Volume(medium, found)) => return Ok(Some((medium, *found))),
                Ok(Supply::Waiting(what)) => what,
                // A directory that is not mounted, a drive that is off: it may come back.
                Err(error) => error.to_string(),
            };
            if what != said {
                log::warn!("media: {what}");
                said.clone_from(&what);
            }
            if hook.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_)) | Err(_))) {
                hook = self.on_wait.as_deref().and_then(|command| run_hook(command, &self.pool, &what));
            }
            self.set(MediaState::Waiting, Some(what));
            if self.orders.stopping() {
                return Ok(None);
            }
            self.orders.wake.wait(ASK_AGAIN).map_err(fatal)?;
        }
    }

    /// Notes and saves what `volume` is proven to hold.
    fn save(&self, state: &mut State, volume: &Writer, becomes: VolumeState) -> Result<(), Fault> {
        let proven = volume.proven();
        let note = Volume {
            uuid: Uuid::from_bytes(volume.label().volume),
            name: volume.name(),
            sequence: volume.start().sequence.get(),
            first: volume.start().first_lsn.get(),
            proven: proven.position(),
            state: becomes,
        };
        state.note(note, proven);
        self.keep(state)
    }

    fn keep(&self, state: &State) -> Result<(), Fault> {
        state.save(self.spool.path()).map_err(Fault::Fatal)?;
        // Only now may the spool forget it.
        self.status.set_on_media(state.proven);
        Ok(())
    }

    fn show(&self, volume: &Writer) {
        self.status.shared().media.volume = Some(VolumeStatus {
            name: volume.name(),
            uuid: Uuid::from_bytes(volume.label().volume),
            sequence: volume.start().sequence.get(),
        });
    }

    fn set(&self, state: MediaState, waiting_for: Option<String>) {
        let mut shared = self.status.shared();
        shared.media.state = state;
        shared.media.waiting_for = waiting_for;
    }
}

/// Runs the operator's command; it does not hold anything up.
fn run_hook(command: &str, pool: &str, what: &str) -> Option<Child> {
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("REELFS_POOL", pool)
        .env("REELFS_WANTED", what)
        .stdin(std::process::Stdio::null())
        .spawn();
    child.map_err(|error| log::error!("media.on_wait: {error}")).ok()
}

/// What ends an attempt to write.
#[derive(Debug)]
enum Fault {
    /// The volume or the drive: another try, or another volume, may help.
    Medium(WriteError),
    /// Trying again cannot help.
    Fatal(anyhow::Error),
}

impl From<WriteError> for Fault {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Log { .. } | WriteError::Misuse { .. } => Fault::Fatal(error.into()),
            WriteError::NotResumable { .. } => {
                Fault::Fatal(anyhow::Error::from(error).context("start with --new-volume to go on with another one"))
            }
            other => Fault::Medium(other),
        }
    }
}

fn fatal(error: impl Into<anyhow::Error>) -> Fault {
    Fault::Fatal(error.into())
}

/// The library that `[media]` describes.
pub fn library(config: &Config) -> Result<Box<dyn Library>> {
    use reelfs_media::library::{DirectoryLibrary, TapeLibrary};
    let compressed = config.media.compression.level().map_or(0, |_| FEATURE_COMPRESSED);
    let features = compressed | if config.media.recipients.is_empty() { 0 } else { FEATURE_ENCRYPTED };
    Ok(match config.media.kind {
        crate::config::MediaKind::Directory => {
            let path: PathBuf = config.media.path.clone().context("media.path is missing")?;
            let capacity = config.media.capacity.map(|capacity| capacity.0);
            Box::new(DirectoryLibrary { path, capacity, block_size: config.block_size(), features })
        }
        crate::config::MediaKind::Tape => Box::new(TapeLibrary { drives: config.media.devices.clone(), features }),
    })
}
