// SPDX-License-Identifier: GPL-2.0-or-later

//! Where records come from: a ring of `/dev/reelfs`, or in a test anything that behaves like one.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use reelfs_format::record::Lsn;
use reelfs_sys::device::{Ring, Wakeup};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};

/// A queue of committed records that stay until they are acknowledged.
pub trait Source: Send {
    /// Shows `visit` the committed records from the one at `from` on, in order, until it breaks off. `from` is at or
    /// behind what was acknowledged. Does not sleep.
    fn each(&mut self, from: Lsn, visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()>;

    /// Everything below `lsn`, which is a boundary of records, is on stable storage.
    fn acknowledge(&mut self, lsn: Lsn) -> io::Result<()>;

    /// LSN behind the last committed record.
    fn committed(&self) -> io::Result<Lsn>;

    /// Sleeps until there are records worth taking, `wake` is raised, or `timeout` is over. Returns whether there can
    /// ever be more: false once the mount is gone and everything has been acknowledged.
    fn wait(&mut self, wake: &Wake, timeout: Duration) -> io::Result<bool>;
}

/// Records that nobody waits for may gather for this long, so that they become one batch.
const GATHER: Duration = Duration::from_millis(20);

impl Source for Ring {
    fn each(&mut self, from: Lsn, visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        for record in self.records()? {
            let record = record?;
            if record.lsn >= from && visit(record.bytes).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, lsn: Lsn) -> io::Result<()> {
        Ring::acknowledge(self, lsn)
    }

    fn committed(&self) -> io::Result<Lsn> {
        Ring::committed(self)
    }

    fn wait(&mut self, wake: &Wake, timeout: Duration) -> io::Result<bool> {
        match Ring::wait(self, Some(timeout), GATHER, Some(wake.as_fd())) {
            Ok(Wakeup::Ended) => Ok(false),
            Ok(Wakeup::Records | Wakeup::Timeout | Wakeup::Cancelled) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Wakes a thread that sleeps on descriptors. Clones wake the same one.
#[derive(Clone)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    /// A new one, not raised.
    pub fn new() -> io::Result<Wake> {
        Ok(Wake(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Raises it. Never sleeps.
    pub fn raise(&self) {
        // Fails only when it is raised as high as it goes.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Lowers it.
    pub fn lower(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    /// Sleeps until it is raised or `timeout` is over, and lowers it.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        wait_any(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout)?;
        self.lower();
        Ok(())
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// poll(2), not disturbed by signals.
pub fn wait_any(descriptors: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(timeout).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match poll(descriptors, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
