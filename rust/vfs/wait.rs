// SPDX-License-Identifier: GPL-2.0

//! Waiting that only a fatal signal ends early.
//!
//! The kernel crate's `CondVar` waits either for nothing but its condition or for any signal; system calls on files
//! want what lies between.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use core::marker::PhantomPinned;

use kernel::bindings;
use kernel::ffi;
use kernel::prelude::*;
use kernel::sync::LockClassKey;
use kernel::task::MAX_SCHEDULE_TIMEOUT;
use kernel::time::Jiffies;
use kernel::types::Opaque;

/// Creates a [`WaitQueue`] initialiser with a lock class of its own.
macro_rules! new_wait_queue {
    ($name:literal) => {
        $crate::vfs::wait::WaitQueue::new(kernel::c_str!($name), kernel::static_lock_class!())
    };
}
pub(crate) use new_wait_queue;

/// What a waiter finds when it looks.
pub(crate) enum Check<R> {
    /// The wait is over.
    Done(R),
    /// Not yet; look again when woken.
    Sleep,
    /// Not yet; look again when woken, and after this time in any case.
    SleepFor(Jiffies),
}

/// Whom a wake-up is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Everybody looks at every wake-up.
    All,
    /// First come, first woken: [`WaitQueue::wake_one`] wakes the one that has waited longest. Whoever leaves, for
    /// whatever reason, has to see to it that the next one is woken if there is something left.
    Queue,
}

/// A queue of sleeping tasks.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A wait queue head may be used from any task.
unsafe impl Send for WaitQueue {}
// SAFETY: A wait queue head has a lock of its own.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// An initialiser; see [`new_wait_queue`].
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for the call, and `name` and `key` live for ever.
            head <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
            }),
            _pin: PhantomPinned,
        })
    }

    /// Calls `look` until it is done, and sleeps in between. `EINTR` if a fatal signal came and it was not done then.
    ///
    /// The task stands in the queue before `look` is called, so a wake-up that follows a change which `look` did not
    /// see is never lost. `look` runs with the task marked as sleeping: it may take spinlocks and must not sleep.
    pub(crate) fn wait_killable<R>(&self, turn: Turn, mut look: impl FnMut() -> Check<R>) -> Result<R> {
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: The pointer is valid; this initialises all of the entry.
        unsafe { bindings::init_wait(entry.get()) };
        // SAFETY: The entry was initialised above and is in no list yet.
        let fields = unsafe { &mut *entry.get() };
        // Unlike the default one, this leaves the entry in the queue, and so in its place, when it is woken.
        fields.func = Some(bindings::default_wake_function);
        if turn == Turn::Queue {
            fields.flags |= bindings::WQ_FLAG_EXCLUSIVE;
        }

        let result = loop {
            // SAFETY: Both pointers are valid; the entry stays where it is until `finish_wait` below.
            let signal = unsafe {
                bindings::prepare_to_wait_event(self.head.get(), entry.get(), bindings::TASK_KILLABLE as ffi::c_int)
            };
            let timeout = match look() {
                Check::Done(result) => break Ok(result),
                Check::Sleep => MAX_SCHEDULE_TIMEOUT,
                Check::SleepFor(jiffies) => jiffies.try_into().unwrap_or(MAX_SCHEDULE_TIMEOUT),
            };
            if signal != 0 {
                break Err(EINTR);
            }
            // SAFETY: Any timeout is fine; no spinlock is held, since `look` has returned.
            unsafe { bindings::schedule_timeout(timeout) };
        };
        // SAFETY: Both pointers are valid; after this the entry is in no list and the task is running.
        unsafe { bindings::finish_wait(self.head.get(), entry.get()) };
        result
    }

    fn wake(&self, count: ffi::c_int) {
        // SAFETY: The queue head is valid.
        unsafe { bindings::__wake_up(self.head.get(), bindings::TASK_NORMAL, count, core::ptr::null_mut()) };
    }

    /// Wakes everybody with [`Turn::All`], and of those with [`Turn::Queue`] the one that has waited longest. Never
    /// sleeps; may be called under spinlocks.
    pub(crate) fn wake_one(&self) {
        self.wake(1);
    }

    /// Wakes everybody. Never sleeps; may be called under spinlocks.
    pub(crate) fn wake_all(&self) {
        self.wake(0);
    }
}
