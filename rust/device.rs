// SPDX-License-Identifier: GPL-2.0

//! `/dev/reelfs`: where a consumer attaches to a log.
//!
//! The interface is `rust/format/uapi.rs`, its specification `Documentation/format/device.md`. An open descriptor pins
//! the module. What it is attached to is kept under a spinlock of its own, which nothing is called under; attaching
//! marks the descriptor as busy instead of holding a lock.

use kernel::bindings::{POLLERR, POLLHUP, POLLIN, POLLPRI, POLLRDNORM};
use kernel::fs::File;
use kernel::mm::virt::VmaNew;
use kernel::prelude::*;
use kernel::sync::poll::PollTable;
use kernel::sync::{new_spinlock, Arc, SpinLock};
use kernel::uaccess::{UserPtr, UserSlice};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::format::uapi::{
    Acknowledge, Attach, Checkpoint, Discard, List, State, Unnamed, Users, ATTACH_ADOPT, ATTACH_BY_FD, ATTACH_BY_RING,
    CHECKPOINT_BEGIN, CHECKPOINT_STOP, IOC_ACKNOWLEDGE, IOC_ATTACH, IOC_CHECKPOINT, IOC_DETACH, IOC_DISCARD, IOC_LIST,
    IOC_STATE, IOC_UNNAMED, IOC_USERS, UAPI_VERSION,
};
use crate::ring::{self, Consumer, Log};
use crate::vfs::chardev::{capable_sys_admin, AnyFile, CharDevice, CharDeviceRegistration};

/// The device; it is there until this is dropped.
pub(crate) type Registration = CharDeviceRegistration<Descriptor>;

/// The kernel crate has constants for the commonest errors only.
fn errno(number: u32) -> Error {
    Error::from_errno(-(number as i32))
}

/// What a descriptor is attached to.
enum Attachment {
    None,
    /// An attach is under way.
    Busy,
    To(Arc<Log>),
}

/// An open descriptor.
#[pin_data(PinnedDrop)]
pub(crate) struct Descriptor {
    consumer: Arc<Consumer>,
    #[pin]
    attachment: SpinLock<Attachment>,
}

/// A copy of a structure of the caller's.
fn read<T: FromBytes + IntoBytes>(argument: usize) -> Result<T> {
    let mut value = T::new_zeroed();
    UserSlice::new(UserPtr::from_addr(argument), size_of::<T>()).reader().read_slice(value.as_mut_bytes())?;
    Ok(value)
}

/// A structure to where the caller has one.
fn write<T: IntoBytes + Immutable>(argument: usize, value: &T) -> Result {
    UserSlice::new(UserPtr::from_addr(argument), size_of::<T>()).writer().write_slice(value.as_bytes())
}

impl Descriptor {
    fn log(&self) -> Option<Arc<Log>> {
        match &*self.attachment.lock() {
            Attachment::To(log) => Some(log.clone()),
            _ => None,
        }
    }

    fn attached(&self) -> Result<Arc<Log>> {
        self.log().ok_or(errno(kernel::bindings::ENOTCONN))
    }

    /// Replaces the attachment; what it was is dropped by the caller, outside the lock.
    fn replace(&self, attachment: Attachment) -> Attachment {
        core::mem::replace(&mut *self.attachment.lock(), attachment)
    }

    fn attach(&self, argument: usize) -> Result {
        let mut request: Attach = read(argument)?;
        let naming = request.flags & !ATTACH_ADOPT;
        if request.version != UAPI_VERSION || (naming != ATTACH_BY_FD && naming != ATTACH_BY_RING) {
            return Err(errno(kernel::bindings::EPROTO));
        }
        {
            let mut attachment = self.attachment.lock();
            match *attachment {
                Attachment::None => *attachment = Attachment::Busy,
                _ => return Err(EBUSY),
            }
        }
        match self.attach_to(naming, &mut request) {
            Ok(log) => {
                let _ = self.replace(Attachment::To(log));
                // Without the answer the caller cannot use the ring: it had better be free again.
                write(argument, &request).inspect_err(|_| self.detach())
            }
            Err(error) => {
                let _ = self.replace(Attachment::None);
                Err(error)
            }
        }
    }

    fn attach_to(&self, naming: u32, request: &mut Attach) -> Result<Arc<Log>> {
        if naming == ATTACH_BY_RING {
            let log = ring::find(request.ring).ok_or(ENOENT)?;
            log.attach(&self.consumer, request)?;
            return Ok(log);
        }
        // Held until attached: so the mount cannot go meanwhile, and the log found is the mount's.
        let file = AnyFile::get(request.fd)?;
        let log = ring::find_mounted(file.superblock()).ok_or(ENOTTY)?;
        log.attach(&self.consumer, request)?;
        Ok(log)
    }

    fn checkpoint(&self, argument: usize) -> Result {
        let mut request: Checkpoint = read(argument)?;
        let log = self.attached()?;
        log.checkpoint(&self.consumer, &mut request)?;
        write(argument, &request).inspect_err(|_| {
            if request.operation == CHECKPOINT_BEGIN {
                // Nobody knows its name.
                request.operation = CHECKPOINT_STOP;
                let _ = log.checkpoint(&self.consumer, &mut request);
            }
        })
    }

    fn detach(&self) {
        let was = {
            let mut attachment = self.attachment.lock();
            match *attachment {
                Attachment::To(_) => core::mem::replace(&mut *attachment, Attachment::None),
                _ => Attachment::None,
            }
        };
        if let Attachment::To(log) = was {
            log.detach(&self.consumer);
        }
    }
}

impl CharDevice for Descriptor {
    const NAME: &'static CStr = c"reelfs";

    fn open() -> Result<Pin<KBox<Self>>> {
        if !capable_sys_admin() {
            return Err(EPERM);
        }
        let consumer = Consumer::new()?;
        KBox::pin_init(
            pin_init!(Self {
                consumer,
                attachment <- new_spinlock!(Attachment::None, "reelfs_descriptor_attachment"),
            }),
            GFP_KERNEL,
        )
    }

    fn ioctl(&self, command: u32, argument: usize) -> Result<isize> {
        match command {
            IOC_ATTACH => self.attach(argument)?,
            IOC_ACKNOWLEDGE => {
                let request: Acknowledge = read(argument)?;
                self.attached()?.acknowledge(&self.consumer, request.lsn)?;
            }
            IOC_DETACH => {
                self.attached()?;
                self.detach();
            }
            IOC_DISCARD => {
                let request: Discard = read(argument)?;
                ring::find(request.ring).ok_or(ENOENT)?.discard(request.committed)?;
            }
            IOC_LIST => {
                let request: List = read(argument)?;
                let log = ring::find_from(request.ring).ok_or(ENOENT)?;
                write(argument, &log.describe())?;
            }
            IOC_USERS => {
                let mut request: Users = read(argument)?;
                ring::find(request.ring).ok_or(ENOENT)?.users(&mut request);
                write(argument, &request)?;
            }
            IOC_CHECKPOINT => self.checkpoint(argument)?,
            IOC_STATE => {
                let mut request: State = read(argument)?;
                self.attached()?.tell(&self.consumer, &mut request)?;
                write(argument, &request)?;
            }
            IOC_UNNAMED => {
                let mut request: Unnamed = read(argument)?;
                self.attached()?.unnamed(&self.consumer, &mut request)?;
                write(argument, &request)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn mmap(&self, area: &VmaNew, first: usize) -> Result {
        self.attached()?.map(area, first)
    }

    fn poll(&self, file: &File, table: &PollTable<'_>) -> u32 {
        table.register_wait(file, self.consumer.news());
        let readiness = self.attached().and_then(|log| log.readiness(&self.consumer));
        match readiness {
            Ok(ready) => {
                (if ready.readable { POLLIN | POLLRDNORM } else { 0 })
                    | (if ready.due { POLLPRI } else { 0 })
                    | (if ready.ended { POLLHUP } else { 0 })
            }
            Err(_) => POLLERR,
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Descriptor {
    fn drop(self: Pin<&mut Self>) {
        self.detach();
    }
}
