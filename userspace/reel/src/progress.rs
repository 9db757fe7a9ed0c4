// SPDX-License-Identifier: GPL-2.0-or-later

//! Showing how far it is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::show;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One phase of the work.
pub struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    what: String,
    total: Option<u64>,
    bytes: bool,
    begun: Instant,
    shown: Instant,
}

impl Progress {
    /// A phase that counts bytes, or things. Without a total it only counts. `quiet` shows nothing.
    pub fn new(what: &str, total: Option<u64>, bytes: bool, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = match total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            let template = match (total.is_some(), bytes) {
                (true, true) => "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
                (true, false) => "{prefix} {bar:30} {pos}/{len} {eta} {msg}",
                (false, true) => "{prefix} {spinner} {bytes} {bytes_per_sec} {msg}",
                (false, false) => "{prefix} {spinner} {pos} {msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_owned());
            bar
        });
        let now = Instant::now();
        let lines = !terminal && !quiet;
        Progress { bar, lines, what: what.to_owned(), total, bytes, begun: now, shown: now }
    }

    /// So far it is `position`, in what `place` says.
    pub fn set(&mut self, position: u64, place: impl FnOnce() -> String) {
        let due = self.shown.elapsed();
        if let Some(bar) = &self.bar {
            if due > Duration::from_millis(100) {
                self.shown = Instant::now();
                bar.set_position(position);
                bar.set_message(place());
            }
        } else if self.lines && due > LINE_EVERY {
            self.shown = Instant::now();
            let amount = |count: u64| if self.bytes { show::bytes(count) } else { count.to_string() };
            let part = match self.total {
                Some(total) if total > 0 => {
                    format!("{} of {} ({} %)", amount(position), amount(total), position.saturating_mul(100) / total)
                }
                _ => amount(position),
            };
            let seconds = self.begun.elapsed().as_secs();
            eprintln!("reel: {}: {part}, {seconds} s, {}", self.what, place());
        }
    }

    /// Runs `show` without the bar in its way.
    pub fn suspend(&self, show: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(show),
            None => show(),
        }
    }

    /// The phase is over; seconds that it took.
    pub fn finish(self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.begun.elapsed().as_secs_f64()
    }
}
