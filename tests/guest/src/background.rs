// SPDX-License-Identifier: GPL-2.0-or-later

//! Something that may wait for a long time, watched from outside.

use crate::check::{ensure, Check, Failure};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::time::Duration;

/// How long to look before saying that something waits.
const LOOK: Duration = Duration::from_millis(1200);
/// How long something may take that waits for nobody.
const SOON: Duration = Duration::from_secs(120);

/// Work in a thread of its own.
pub struct Background<T> {
    what: String,
    result: Receiver<T>,
}

impl<T: Send + 'static> Background<T> {
    /// Starts the work.
    pub fn start(what: &str, work: impl FnOnce() -> T + Send + 'static) -> Self {
        let (send, result) = channel();
        std::thread::spawn(move || {
            // Nobody listens any more when the test has failed meanwhile.
            let _ = send.send(work());
        });
        Background { what: what.to_owned(), result }
    }

    /// Fails if it ends although it should wait.
    pub fn waits(&self) -> Check {
        match self.result.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Failure::new(format!("{} did not wait", self.what))),
        }
    }

    /// Fails if it does not end soon; gives its result.
    pub fn ends(self) -> Check<T> {
        let result = self.result.recv_timeout(SOON);
        ensure!(result.is_ok(), "{} did not end within {} s", self.what, SOON.as_secs());
        Ok(result?)
    }
}
