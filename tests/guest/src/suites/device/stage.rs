// SPDX-License-Identifier: GPL-2.0-or-later

//! A mount in memory, and consumers for it.

use super::Outcome;
use crate::machine::{wait_until, Mounted};
use crate::Context;
use reelfs_format::record::{Lsn, RecordType};
use reelfs_format::uapi::ListEntry;
use reelfs_format::view::RecordView;
use reelfs_sys::device::{Consumer, Device, Ring, Target, Wakeup};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The stream of most tests.
pub const STREAM: [u8; 16] = *b"a test's stream.";
/// How long something may take that is bound to happen.
pub const SOON: Duration = Duration::from_secs(20);
/// How long to watch something that must not happen.
pub const A_WHILE: Duration = Duration::from_millis(400);

/// A consumer of [`STREAM`] whose log ends here.
pub fn at(next_lsn: Lsn) -> Consumer {
    Consumer { stream: STREAM, next_lsn, adopt: false }
}

/// A lower tree, in memory unless it says otherwise, mounted or not.
pub struct Stage {
    lower: Option<Mounted>,
    /// What of it is mounted.
    source: PathBuf,
    upper: Option<Mounted>,
    mnt: PathBuf,
}

impl Stage {
    /// An empty tree, mounted with these options.
    pub fn new(context: &Context, options: &str) -> Result<Self, Box<dyn Error>> {
        Self::named(context, "tree", options)
    }

    /// One of several.
    pub fn named(context: &Context, name: &str, options: &str) -> Result<Self, Box<dyn Error>> {
        let mut stage = Self::bare(context, "tmpfs", name)?;
        stage.mount(options)?;
        Ok(stage)
    }

    /// An empty tree of this filesystem, on the first disk if it needs one, and not mounted.
    pub fn bare(context: &Context, kind: &str, name: &str) -> Result<Self, Box<dyn Error>> {
        throw_away_what_is_left();
        let source = context.scratch.join(format!("{name}.lower"));
        let lower = match kind {
            "tmpfs" => Mounted::new("tmpfs", Path::new("tmpfs"), &source, "")?,
            _ => Mounted::fresh(kind, &context.disk("a"), &source)?,
        };
        Ok(Self { lower: Some(lower), source, upper: None, mnt: context.scratch.join(format!("{name}.mnt")) })
    }

    /// From now on, only this directory in the lower tree is mounted; all of it with an empty name.
    pub fn choose(&mut self, part: &str) {
        if let Some(lower) = &self.lower {
            self.source = if part.is_empty() { lower.path().to_owned() } else { lower.path().join(part) };
        }
    }

    /// The directory below.
    pub fn lower(&self) -> &Path {
        &self.source
    }

    /// The directory where it is mounted.
    pub fn mnt(&self) -> &Path {
        &self.mnt
    }

    /// A path in the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mnt.join(name)
    }

    /// Mounts again.
    pub fn mount(&mut self, options: &str) -> Outcome {
        self.upper = Some(Mounted::new("reelfs", self.lower(), &self.mnt, options)?);
        Ok(())
    }

    /// Unmounts.
    pub fn unmount(&mut self) -> Outcome {
        match self.upper.take() {
            Some(upper) => upper.unmount(),
            None => Ok(()),
        }
    }

    /// A descriptor that names the mount.
    pub fn fd(&self) -> io::Result<File> {
        let flags = rustix::fs::OFlags::PATH.bits() as i32;
        OpenOptions::new().read(true).custom_flags(flags).open(&self.mnt)
    }

    /// Attaches to the mount's ring.
    pub fn attach(&self, consumer: &Consumer) -> io::Result<Ring> {
        Device::open()?.attach(Target::Mount(self.fd()?.as_fd()), consumer)
    }

    /// What the kernel says about the mount's ring.
    pub fn ring(&self) -> Result<ListEntry, Box<dyn Error>> {
        entry(self.lower())
    }

    /// Unmounts while the consumer goes on to the end, as a daemon would. Where the log ends.
    pub fn finish(&mut self, ring: Ring) -> Result<Lsn, Box<dyn Error>> {
        let consumer = std::thread::spawn(move || drain_to_the_end(ring));
        let unmounted = self.unmount();
        let end = consumer.join().map_err(|_| "the consumer panicked")?;
        unmounted?;
        Ok(end?)
    }

    /// Unmounts everything, with this consumer if there is one.
    pub fn close(mut self, ring: Option<Ring>) -> Outcome {
        match ring {
            Some(ring) => drop(self.finish(ring)?),
            None => self.unmount()?,
        }
        match self.lower.take() {
            Some(lower) => lower.unmount(),
            None => Ok(()),
        }
    }
}

impl Drop for Stage {
    /// After a failure: nothing may be left that would fail the tests after this one.
    fn drop(&mut self) {
        drop(self.upper.take());
        if self.lower.is_some() {
            let _ = crate::machine::run("umount", &["-l".as_ref(), self.mnt.as_os_str()]);
        }
        throw_away_what_is_left();
    }
}

/// Discards the rings that have neither a mount nor a consumer.
fn throw_away_what_is_left() {
    let Ok(device) = Device::open() else { return };
    for ring in device.list().unwrap_or_default() {
        let _ = device.discard(ring.ring, ring.committed);
    }
}

/// The ring of what was mounted from here, the newest if there are several.
pub fn entry(source: &Path) -> Result<ListEntry, Box<dyn Error>> {
    let wanted = source.as_os_str().as_encoded_bytes();
    let is_it = |entry: &ListEntry| entry.source.split(|&byte| byte == 0).next() == Some(wanted);
    Ok(Device::open()?.list()?.into_iter().rev().find(is_it).ok_or("the ring is not listed")?)
}

/// Waits for records, looks them all over, acknowledges them.
pub fn drain(ring: &mut Ring, gather: Duration) -> Result<Wakeup, Box<dyn Error>> {
    let found = ring.wait(Some(SOON), gather, None)?;
    if found == Wakeup::Records {
        let end = look_over(ring)?.last().map_or(ring.acknowledged(), |&(_, end)| end);
        ring.acknowledge(end)?;
    }
    Ok(found)
}

/// Checks all records that are not acknowledged; their types and where they end.
pub fn look_over(ring: &Ring) -> Result<Vec<(RecordType, Lsn)>, Box<dyn Error>> {
    let mut expected = ring.acknowledged();
    let mut seen = Vec::new();
    for record in ring.records()? {
        let view = RecordView::parse(record?.bytes, Some(expected))?;
        view.event()?;
        expected = view.next_lsn();
        seen.push((view.kind().ok_or("a type that is not known")?, expected));
    }
    Ok(seen)
}

/// Runs a consumer in this thread's stead until the mount is gone and everything is acknowledged.
pub fn drain_to_the_end(mut ring: Ring) -> Result<Lsn, String> {
    loop {
        match drain(&mut ring, Duration::from_millis(5)).map_err(|e| e.to_string())? {
            Wakeup::Ended => return Ok(ring.acknowledged()),
            Wakeup::Timeout => return Err("nothing came".to_owned()),
            _ => {}
        }
    }
}

/// The consumer process: attaches where the ring stands, and either acknowledges everything or nothing.
pub fn consume(mount: &Path, acknowledge: bool) -> Outcome {
    let flags = rustix::fs::OFlags::PATH.bits() as i32;
    let fd = OpenOptions::new().read(true).custom_flags(flags).open(mount)?;
    let lsn = std::env::var("CONSUME_FROM")?.parse()?;
    let mut ring = Device::open()?.attach(Target::Mount(fd.as_fd()), &at(lsn))?;
    loop {
        if acknowledge {
            drain(&mut ring, Duration::from_millis(5))?;
        } else {
            ring.wait(None, Duration::ZERO, None)?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts [`consume`] as a process of its own and waits until it is attached.
pub fn consumer_process(stage: &Stage, from: Lsn, acknowledge: bool) -> Result<Process, Box<dyn Error>> {
    let kind = if acknowledge { "acknowledging" } else { "silent" };
    let child = Command::new("/proc/self/exe")
        .args(["consumer", kind])
        .arg(stage.mnt())
        .env("CONSUME_FROM", from.to_string())
        .stdin(Stdio::null())
        .spawn()?;
    let process = Process(child);
    wait_until("the consumer attaches", SOON, || {
        stage.ring().is_ok_and(|ring| ring.state & reelfs_format::uapi::RING_ATTACHED != 0)
    })?;
    Ok(process)
}

/// A process that is killed when this is dropped.
pub struct Process(pub Child);

impl Process {
    /// Runs a shell command.
    pub fn shell(script: String) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    /// Whether it goes on running for a while.
    pub fn is_stuck(&mut self) -> io::Result<bool> {
        std::thread::sleep(A_WHILE);
        Ok(self.0.try_wait()?.is_none())
    }

    /// Waits for it to end by itself.
    pub fn finish(&mut self) -> Result<std::process::ExitStatus, Box<dyn Error>> {
        wait_until("the process ends", SOON, || !matches!(self.0.try_wait(), Ok(None)))?;
        Ok(self.0.wait()?)
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) -> Outcome {
        self.0.kill()?;
        self.finish()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // It may wait for a lock that another one holds, which is killed after it.
        let _ = wait_until("the process ends", A_WHILE, || !matches!(self.0.try_wait(), Ok(None)));
    }
}

/// The error number of what has to fail.
pub fn errno<T>(result: io::Result<T>) -> Option<rustix::io::Errno> {
    result.err().as_ref().and_then(rustix::io::Errno::from_io_error)
}
