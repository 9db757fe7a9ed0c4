// SPDX-License-Identifier: GPL-2.0-or-later

//! A consumer of a ring inside the test: it looks at every record, keeps the log in a file, and acknowledges when told.
//!
//! For tests that have to know exactly when a record is acknowledged, and that need no spool and no media.

use crate::check::{Check, Failure};
use reelfs_format::view::RecordView;
use reelfs_sys::device::{Consumer, Device, Ring, Target, Wakeup};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The stream that a test without a daemon keeps for the mount at `mnt`: another one for each.
pub fn stream_of(mnt: &Path) -> [u8; 16] {
    let mut stream = *b"a stream of test";
    for (place, byte) in mnt.as_os_str().as_bytes().iter().enumerate() {
        let cell = &mut stream[place % 16];
        *cell = cell.rotate_left(3) ^ byte;
    }
    stream
}

/// A thread that consumes a ring.
pub struct Tap {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Check>>,
    stop: Option<File>,
}

#[derive(Default)]
struct Shared {
    hold: AtomicBool,
    seen: AtomicU64,
}

impl Tap {
    /// Attaches to the ring of the mount at `mnt`, whose log goes on at `next_lsn`, and appends the log to `log`.
    pub fn start(mnt: &Path, next_lsn: u64, log: &Path) -> Check<Self> {
        let mount = rustix::fs::open(mnt, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
        let consumer = Consumer { stream: stream_of(mnt), next_lsn, adopt: false };
        let ring = Device::open()?.attach(Target::Mount(mount.as_fd()), &consumer)?;
        let log = File::options().create(true).append(true).open(log)?;
        let (cancel, stop) = rustix::pipe::pipe()?;
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        let thread = std::thread::spawn(move || consume(ring, log, &mine, cancel.as_fd()));
        Ok(Tap { shared, thread: Some(thread), stop: Some(stop.into()) })
    }

    /// From now on nothing is acknowledged, until [`Tap::release`]. What is being acknowledged at this moment may be.
    pub fn hold(&self) {
        self.shared.hold.store(true, Ordering::SeqCst);
    }

    /// Acknowledges again.
    pub fn release(&self) {
        self.shared.hold.store(false, Ordering::SeqCst);
    }

    /// Detaches and says whether every record was good.
    pub fn stop(mut self) -> Check {
        drop(self.stop.take());
        self.end()
    }

    /// Waits until the mount is gone and everything acknowledged.
    pub fn wait(mut self) -> Check {
        let done = self.end();
        drop(self.stop.take());
        done
    }

    fn end(&mut self) -> Check {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(done)) => done,
            _ => Err(Failure::new("the consumer died")),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.end();
    }
}

fn consume(mut ring: Ring, mut log: File, shared: &Shared, cancel: std::os::fd::BorrowedFd<'_>) -> Check {
    let mut position = ring.acknowledged();
    loop {
        match ring.wait(Some(Duration::from_millis(200)), Duration::ZERO, Some(cancel)) {
            Ok(Wakeup::Records | Wakeup::Timeout) => {}
            Ok(Wakeup::Ended | Wakeup::Cancelled) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        }
        for record in ring.records()? {
            let record = record?;
            if record.lsn < position {
                // Seen before, while acknowledging was on hold.
                continue;
            }
            let view = RecordView::parse(record.bytes, Some(position))?;
            view.event()?;
            log.write_all(record.bytes)?;
            position = view.next_lsn();
            shared.seen.fetch_add(1, Ordering::SeqCst);
        }
        if shared.hold.load(Ordering::SeqCst) {
            // Polling would return at once, there being records.
            std::thread::sleep(Duration::from_millis(20));
        } else if position > ring.acknowledged() {
            ring.acknowledge(position)?;
        }
    }
}
