// SPDX-License-Identifier: GPL-2.0-or-later
//! The thread that takes commands from the ring, has the drive carry them out, and answers.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;

use anyhow::{anyhow, Context, Result};
use reelfs_sys::tcmu::{Request, Ring, TaskManagement};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags};

use crate::drive::{Drive, Reset};
use crate::image::Image;
use crate::scsi::opcode;

use super::{Event, SharedDrive};

/// A running server. Dropping it ends the thread, after the command in hand.
pub(super) struct Server {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(name: &str, ring: Ring, drive: SharedDrive, events: Sender<Event>) -> Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("making a descriptor to stop a thread")?);
        let name = name.to_owned();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name(format!("drive-{name}"))
            .spawn(move || {
                let run = || run(&name, ring, &drive, &stopped);
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
                    .unwrap_or_else(|_| Err(anyhow!("the drive panicked; the message is above")));
                if let Err(error) = &result {
                    // Said here as well: who listens may be waiting for the kernel, and the
                    // kernel for us.
                    eprintln!("vtape: drive {name}: {error:#}");
                }
                // Nobody listens any more when the whole process ends.
                let _ = events.send(Event::ServerEnded(name, result));
            })
            .context("starting a thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let told = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let (Ok(_), Some(thread)) = (told, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Operations whose data goes to the drive; for all others the buffer holds nothing yet.
fn sends_data(operation: u8) -> bool {
    matches!(operation, opcode::WRITE_6 | opcode::MODE_SELECT_6 | opcode::MODE_SELECT_10 | opcode::LOG_SELECT)
}

pub(crate) fn lock(drive: &SharedDrive) -> MutexGuard<'_, Drive<Image>> {
    // A panic in one command must not make the cartridge unreachable for ejecting.
    drive.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn run(name: &str, mut ring: Ring, drive: &SharedDrive, stop: &OwnedFd) -> Result<()> {
    let mut worker = Worker { name, drive, data_out: Vec::new(), data_in: Vec::new() };
    loop {
        let mut wanted = [
            PollFd::from_borrowed_fd(ring.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        match poll(&mut wanted, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("waiting for commands"),
        }
        let stopping = !wanted[1].revents().is_empty();
        ring.clear_signal().context("reading the UIO device")?;
        loop {
            let Some(request) = ring.take().context("taking a command")? else {
                break;
            };
            worker.carry_out(request)?;
            ring.notify().context("writing the UIO device")?;
        }
        if stopping {
            return Ok(());
        }
    }
}

/// Carries requests from the ring to the drive. Its buffers are kept from one to the next.
struct Worker<'a> {
    name: &'a str,
    drive: &'a SharedDrive,
    data_out: Vec<u8>,
    data_in: Vec<u8>,
}

impl Worker<'_> {
    fn carry_out(&mut self, request: Request<'_>) -> Result<()> {
        let command = match request {
            Request::Command(command) => command,
            Request::TaskManagement(TaskManagement::Reset) => {
                lock(self.drive).reset(Reset::LogicalUnit);
                return Ok(());
            }
            Request::TaskManagement(_) => return Ok(()),
        };
        self.data_out.clear();
        if sends_data(command.cdb()[0]) {
            command.append_data(&mut self.data_out).context("taking a command's data")?;
        }
        let (outcome, sense) = {
            let mut drive = lock(self.drive);
            let outcome = drive.execute(command.cdb(), &self.data_out, &mut self.data_in);
            let sense = outcome.sense.map(|sense| drive.sense_bytes(&sense));
            (outcome, sense)
        };
        if let Some(trouble) = &outcome.trouble {
            eprintln!("vtape: drive {}: {trouble}", self.name);
        }
        if !outcome.delay.is_zero() {
            std::thread::sleep(outcome.delay);
        }
        command.answer(outcome.status() as u8, &sense.unwrap_or_default(), &self.data_in).context("answering a command")
    }
}
