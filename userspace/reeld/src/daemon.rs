// SPDX-License-Identifier: GPL-2.0-or-later

//! The daemon as a whole: what is started in which order, what happens when mounts come and go, how it ends.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use reelfs_format::record::Lsn;
use reelfs_format::uapi::{RING_ATTACHED, RING_MOUNTED};
use reelfs_spool::{Spool, Writer};
use reelfs_sys::device::{Consumer, Device, Ring, Target};
use rustix::fs::{Mode, OFlags};
use rustix::mm::MlockAllFlags;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use uuid::Uuid;

use crate::capture::{Capture, Control, Ended, Prepared};
use crate::check;
use crate::checkpoint;
use crate::config::Config;
use crate::control::{Identity, Socket};
use crate::keeper::Keeper;
use crate::source::Wake;
use crate::state::State;
use crate::status::{MediaState, Stall, Status};
use crate::streamer::{library, Coders, Marks, Orders, Streamer};
use reelfs_mount::mounts;

/// How long to wait before attaching is tried again where another consumer is in the way.
const ATTACH_AGAIN: Duration = Duration::from_secs(1);
/// Steps in which the end is waited for.
const STEP: Duration = Duration::from_millis(20);
/// What threads get to end when the time for stopping is over.
const GRACE: Duration = Duration::from_secs(2);

/// What the command line adds to the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// End when the mount has gone and everything is on media.
    pub exit_when_unmounted: bool,
    /// Do not go on with the volume that was written last.
    pub new_volume: bool,
    /// Accept a tree whose mark does not agree with the log.
    pub adopt: bool,
}

enum Event {
    Terminate,
    MountsChanged,
    CaptureEnded,
}

/// Runs the daemon, with a configuration that [`check::check`] has found good, until it is told to stop.
pub fn run(config: &Config, options: Options) -> Result<()> {
    let (spool, made) =
        Spool::open_or_create(&config.spool.directory, config.spool.segment.0).map_err(check::advice)?;
    let recovered = spool.recover().map_err(check::advice)?;
    for note in &recovered.notes {
        log::warn!("{note}");
    }
    let geometry = *spool.geometry();
    let stream = Uuid::from_bytes(geometry.stream);
    let state = State::load(spool.path())?;
    if let Some(state) = &state {
        check::behind(state, recovered.end)?;
    }
    match made {
        true => log::info!("new spool in {}, new stream {stream}", spool.path().display()),
        false => log::info!("stream {stream} goes on at LSN {:#x}", recovered.end),
    }
    let writer = Writer::new(&spool, &recovered)?;
    let spool = Arc::new(spool);
    let status = Arc::new(Status::default());
    status.set_committed(recovered.end);
    status.set_spooled(recovered.end);
    status.set_acknowledged(recovered.end);

    // From here on memory is there when it is needed.
    if let Err(error) = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        log::warn!("memory is not locked, the daemon may have to wait for itself when memory is short: {error}");
    }

    let capture = Control::new()?;
    let (keeper_stop, keeper_wake) = (Arc::new(AtomicBool::new(false)), Wake::new()?);
    let prepared = Prepared::new(keeper_wake.clone());
    let keeper = Keeper {
        next: Keeper::first_segment(&spool, recovered.end),
        spool: spool.clone(),
        prepared: prepared.clone(),
        capture: capture.clone(),
        status: status.clone(),
        segments_max: config.segments_max(geometry.segment_size),
        warn: u64::from(config.spool.warn.0),
    };
    let keeper = spawn("keeper", {
        let (stop, wake) = (keeper_stop.clone(), keeper_wake.clone());
        move || {
            on_write_path();
            keeper.run(&stop, &wake);
        }
    })?;
    let orders = Orders::new()?;
    let streamer = Streamer {
        spool: spool.clone(),
        library: library(config)?,
        pool: config.media.pool.clone(),
        origin: origin(),
        marks: Marks { high: config.stream.high.0, low: config.stream.low.0, age: config.stream.age.0 },
        coders: Coders::new(config)?,
        on_wait: config.media.on_wait.clone(),
        new_volume: options.new_volume,
        status: status.clone(),
        orders: orders.clone(),
        records: None,
    };
    let streamer = spawn("streamer", move || drop(streamer.run()))?;
    let identity = Identity {
        name: config.name.clone(),
        mount: config.mount.clone(),
        pid: std::process::id(),
        stream,
        timeline: geometry.timeline,
        spool_directory: spool.path().to_path_buf(),
        pool: config.media.pool.clone(),
    };
    let checkpoint = checkpoint::Orders::new()?;
    let checkpoints = checkpoint::Keeper {
        spool: spool.clone(),
        policy: config.checkpoint.clone(),
        status: status.clone(),
        orders: checkpoint.clone(),
        streamer: orders.clone(),
    };
    let checkpoints = spawn("checkpoint", move || checkpoints.run())?;
    let socket = Socket::open(&config.socket(), identity, status.clone(), checkpoint.clone())?;
    let (events, received) = channel();
    listen(&events)?;

    let daemon =
        Daemon { config, options, stream: geometry.stream, status, prepared, capture, orders, checkpoint, events };
    let outcome = daemon.serve(writer, &received);
    // However it ended, the threads that write to the spool get to finish what they do.
    daemon.orders.stop();
    daemon.checkpoint.end();
    keeper_stop.store(true, Ordering::Release);
    keeper_wake.raise();
    let deadline = Instant::now() + GRACE;
    for thread in [keeper, streamer, checkpoints] {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(STEP);
        }
    }
    drop(socket);
    outcome
}

struct Daemon<'a> {
    config: &'a Config,
    options: Options,
    stream: [u8; 16],
    status: Arc<Status>,
    prepared: Prepared,
    capture: Control,
    orders: Orders,
    checkpoint: checkpoint::Orders,
    events: Sender<Event>,
}

/// A capture thread at work. It returns the writer.
struct Running {
    thread: JoinHandle<(Writer, io::Result<Ended>)>,
    /// Whether the ring's mount was there when it was attached.
    mounted: bool,
}

impl Daemon<'_> {
    fn serve(&self, writer: Writer, events: &Receiver<Event>) -> Result<()> {
        let mut idle = Some(writer);
        let mut running: Option<Running> = None;
        let mut ready = false;
        loop {
            let mut again = None;
            if let Some(writer) = idle.take() {
                match self.attach(writer.durable())? {
                    Attached::Ring(ring) => running = Some(self.start(writer, ring)?),
                    Attached::Nothing => idle = Some(writer),
                    Attached::Busy => {
                        idle = Some(writer);
                        again = Some(ATTACH_AGAIN);
                    }
                }
            }
            if !ready && (idle.is_some() || running.as_ref().is_some_and(|running| running.mounted)) {
                ready = true;
                notify(&[NotifyState::Ready]);
            }
            let event = match again {
                Some(timeout) => events.recv_timeout(timeout),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Terminate) => return self.stop(running, events),
                Ok(Event::MountsChanged) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::CaptureEnded) => {
                    let Some(ended) = running.take() else { continue };
                    let mounted = ended.mounted;
                    self.checkpoint.detached();
                    let (writer, outcome) = join(ended.thread)?;
                    self.status.set_attached(false);
                    let outcome = outcome
                        .context("the ring can no longer be used; what was not acknowledged is still in the kernel")?;
                    log::debug!("detached: {outcome:?}");
                    if mounted {
                        log::info!("{} is unmounted; all of it is in the spool", self.config.mount.display());
                        if self.options.exit_when_unmounted {
                            return self.stop(None, events);
                        }
                    }
                    idle = Some(writer);
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the threads that bring events are gone"),
            }
        }
    }

    /// Attaches to what there is: first a ring of this stream that outlived its mount, then the mount's.
    fn attach(&self, next_lsn: Lsn) -> Result<Attached> {
        // The device is there when the module is loaded; mounting loads it.
        let device = match Device::open() {
            Ok(device) => device,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attached::Nothing),
            Err(error) => return Err(error).context("cannot open /dev/reelfs; reeld has to run as root"),
        };
        let consumer = Consumer { stream: self.stream, next_lsn, adopt: self.options.adopt };
        let left = device
            .list()
            .context("cannot list the rings of /dev/reelfs")?
            .into_iter()
            .find(|ring| ring.stream == self.stream && ring.state & (RING_MOUNTED | RING_ATTACHED) == 0);
        if let Some(left) = left {
            log::info!(
                "a ring outlived its mount, LSN {:#x} to {:#x}; it is drained first",
                left.acknowledged,
                left.committed
            );
            let ring = device.attach(Target::Ring(left.ring), &consumer);
            return self.judge(ring, next_lsn);
        }
        let Some(mount) = mounts::ours_at(&canonical(&self.config.mount)).context("cannot list the mounts")? else {
            return Ok(Attached::Nothing);
        };
        // Closed again at once: a descriptor on it would keep the mount busy.
        let root = rustix::fs::open(&mount.point, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let Ok(root) = root else { return Ok(Attached::Nothing) };
        let ring = device.attach(Target::Mount(root.as_fd()), &consumer);
        self.judge(ring, next_lsn)
    }

    fn judge(&self, ring: io::Result<Ring>, next_lsn: Lsn) -> Result<Attached> {
        use rustix::io::Errno;
        let error = match ring {
            Ok(ring) => return Ok(Attached::Ring(ring)),
            Err(error) => error,
        };
        let mount = self.config.mount.display();
        match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => {
                log::warn!("another consumer is attached to {mount}; trying again");
                Ok(Attached::Busy)
            }
            // It went while we looked.
            Some(Errno::NOENT | Errno::NOTTY | Errno::BADF) => Ok(Attached::Nothing),
            Some(Errno::XDEV) => Err(error).with_context(|| {
                format!(
                    "the tree at {mount} belongs to another stream than {}; name the spool of that stream in \
                     spool.directory, or start once with --adopt if this spool is to go on with the tree as it is",
                    Uuid::from_bytes(self.stream)
                )
            }),
            Some(Errno::STALE) => Err(error).with_context(|| {
                format!(
                    "the log in the spool ends at LSN {next_lsn:#x}, and that is not where {mount} goes on: the spool or \
                     the tree was replaced, rolled back or mounted without us. Restore one to match the other, or start \
                     once with --adopt to go on with the tree as it is"
                )
            }),
            Some(Errno::PROTO) => {
                Err(error).context("module and daemon speak different versions; install both from the same release")
            }
            _ => Err(error).with_context(|| format!("cannot attach to {mount}")),
        }
    }

    fn start(&self, writer: Writer, ring: Ring) -> Result<Running> {
        let mounted = ring.was_mounted();
        if mounted {
            let how = match (ring.is_first(), ring.is_unclean()) {
                (true, _) => ", for the first time",
                (_, true) => "; the mount before did not end cleanly, log and tree may disagree",
                _ => "",
            };
            log::info!("attached to {}, epoch {}{how}", self.config.mount.display(), ring.epoch());
        }
        if let Some(lsn) = ring.gap() {
            self.status.error(format!(
                "GAP in stream {}: {} has changes that are in no log, made after it had come to LSN {lsn:#x}; what is \
                 restored lacks them",
                Uuid::from_bytes(self.stream),
                self.config.mount.display()
            ));
        }
        self.status.set_attached(true);
        if mounted {
            self.checkpoint.attached(ring.teller(), ring.size(), ring.is_populated());
        }
        let mut capture =
            Capture::new(Box::new(ring), writer, self.prepared.clone(), self.capture.clone(), self.status.clone());
        let events = self.events.clone();
        let thread = spawn("capture", move || {
            on_write_path();
            let outcome = capture.run();
            let writer = capture.into_writer();
            // Only fails when nobody listens any more.
            let _ = events.send(Event::CaptureEnded);
            (writer, outcome)
        })?;
        Ok(Running { thread, mounted })
    }

    /// Ring to spool, spool to media, then detach: as far as it gets in the time given. What is left is not lost.
    fn stop(&self, running: Option<Running>, events: &Receiver<Event>) -> Result<()> {
        log::info!("stopping");
        notify(&[NotifyState::Stopping]);
        self.status.set_stopping(true);
        self.checkpoint.end();
        let deadline = Instant::now() + self.config.daemon.drain.0;
        let mut hurry = false;
        let mut wait = |done: &dyn Fn() -> bool| {
            while !done() && !hurry && Instant::now() < deadline {
                // Asked twice, it is meant.
                hurry = matches!(events.recv_timeout(STEP), Ok(Event::Terminate));
            }
        };
        if let Some(running) = &running {
            self.capture.wake();
            let target = self.committed().unwrap_or_else(|| self.status.committed());
            wait(&|| {
                self.status.acknowledged() >= target
                    || self.status.stall() != Stall::None
                    || running.thread.is_finished()
            });
        }
        let target = self.status.spooled();
        self.orders.flush(target);
        wait(&|| {
            let stuck = matches!(self.status.shared().media.state, MediaState::Waiting | MediaState::Failed);
            self.status.on_media() >= target || stuck
        });
        let on_media = self.status.on_media();
        if on_media < target {
            log::warn!("{} bytes are in the spool and not on media yet; the next start goes on", target - on_media);
        }
        let Some(running) = running else { return Ok(()) };
        self.capture.stop();
        let deadline = deadline.max(Instant::now() + GRACE);
        while !running.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(STEP);
        }
        if !running.thread.is_finished() {
            bail!("the spool does not answer; what it has not acknowledged stays in the kernel");
        }
        let (_, outcome) = join(running.thread)?;
        match outcome {
            Ok(Ended::StoppedStalled(stall)) => {
                log::warn!("not everything was acknowledged ({stall:?}); it stays in the kernel")
            }
            Ok(ended) => log::info!("stopped: {ended:?}"),
            Err(error) => log::warn!("the ring was given up: {error}"),
        }
        Ok(())
    }

    /// LSN behind the last record committed to the ring that is attached, as the kernel says it.
    fn committed(&self) -> Option<Lsn> {
        let rings = Device::open().ok()?.list().ok()?;
        let ours = rings.iter().find(|ring| ring.stream == self.stream && ring.state & RING_ATTACHED != 0);
        ours.map(|ring| ring.committed)
    }
}

enum Attached {
    Ring(Ring),
    Nothing,
    Busy,
}

fn canonical(path: &Path) -> std::path::PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

fn join<T>(thread: JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))
}

fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).spawn(body).with_context(|| format!("cannot start thread {name}"))
}

/// For threads that writers on the mount wait for: their own allocations must not wait for writers.
fn on_write_path() {
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        log::warn!("the daemon may have to wait for itself when memory is short (PR_SET_IO_FLUSHER): {error}");
    }
}

/// Starts the threads that turn signals and changes of the mounts into events.
fn listen(events: &Sender<Event>) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot handle signals")?;
    let sender = events.clone();
    spawn("signals", move || {
        for _ in signals.forever() {
            if sender.send(Event::Terminate).is_err() {
                return;
            }
        }
    })?;
    let sender = events.clone();
    spawn("mounts", move || {
        if let Err(error) = mounts::watch(|| sender.send(Event::MountsChanged).is_ok()) {
            log::error!("mounts cannot be watched: {error}");
        }
    })?;
    Ok(())
}

fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(false, state) {
        log::debug!("systemd was not told: {error}");
    }
}

/// Name of this machine, as media shall say it.
fn origin() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
