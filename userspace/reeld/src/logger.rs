// SPDX-License-Identifier: GPL-2.0-or-later

//! Logging that never makes its caller wait.
//!
//! Whoever reads our standard error may be waiting for us: a journal below the mount blocks until we have acknowledged
//! what it wrote. So messages go through a queue of fixed length to a thread that prints them, and when the queue is
//! full they are counted instead.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, RecvTimeoutError, SyncSender};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Messages that may wait to be printed.
const QUEUE: usize = 1024;

enum Message {
    Line(Level, String),
    Flush(SyncSender<()>),
}

struct Logger {
    queue: SyncSender<Message>,
    dropped: AtomicU64,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if self.queue.try_send(Message::Line(record.level(), record.args().to_string())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // Bounded, because the reader of our messages may be stuck.
            let _ = wait.recv_timeout(Duration::from_secs(2));
        }
    }
}

/// Logs to standard error from now on, messages of `level` and above. Where the journal listens (`JOURNAL_STREAM`),
/// lines carry its priorities (sd-daemon(3)) instead of the level's name.
pub fn start(level: LevelFilter) {
    let (queue, messages) = sync_channel(QUEUE);
    let logger: &'static Logger = Box::leak(Box::new(Logger { queue, dropped: AtomicU64::new(0) }));
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let print = move || loop {
        let line = match messages.recv_timeout(Duration::from_secs(1)) {
            Ok(Message::Line(level, text)) => prefixed(journal, level, &text),
            Ok(Message::Flush(done)) => {
                let _ = done.try_send(());
                continue;
            }
            Err(RecvTimeoutError::Timeout) => match logger.dropped.swap(0, Ordering::Relaxed) {
                0 => continue,
                count => prefixed(journal, Level::Warn, &format!("{count} messages were dropped: nobody read them")),
            },
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let _ = std::io::stderr().write_all(line.as_bytes());
    };
    let started = std::thread::Builder::new().name("log".into()).spawn(print);
    if started.is_ok() && log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

fn prefixed(journal: bool, level: Level, text: &str) -> String {
    match journal {
        true => {
            let priority = match level {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            format!("<{priority}>{text}\n")
        }
        false => format!("reeld: {}: {text}\n", level.as_str().to_lowercase()),
    }
}
