// SPDX-License-Identifier: GPL-2.0-or-later

//! The keeper of the spool: makes segments ahead of the capture thread, removes those that are on media, watches the
//! limit, raises the floor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reelfs_format::record::Lsn;
use reelfs_spool::{FloorFile, Spool, SpoolError};
use rustix::fs::statvfs;

use crate::capture::{Control, Prepared};
use crate::source::Wake;
use crate::status::Status;

/// Segments that are made ahead.
const AHEAD: usize = 2;
/// How often to look around, when nothing calls.
const PERIOD: Duration = Duration::from_secs(1);
/// How often the floor is raised at most.
const FLOOR_PERIOD: Duration = Duration::from_millis(900);
/// How long to wait after a segment could not be made.
const RETRY: Duration = Duration::from_secs(1);
/// How often a lasting failure is logged.
const REMIND: Duration = Duration::from_secs(60);

/// Keeps a spool.
pub struct Keeper {
    /// The spool.
    pub spool: Arc<Spool>,
    /// Where segments go.
    pub prepared: Prepared,
    /// Who is told about them.
    pub capture: Control,
    /// The status.
    pub status: Arc<Status>,
    /// Number of segment files that the limit allows.
    pub segments_max: u64,
    /// Fill level from which on to warn, in percent.
    pub warn: u64,
    /// Number of the next segment to make.
    pub next: u64,
}

impl Keeper {
    /// Number of the first segment to be made when the log ends at `end`.
    pub fn first_segment(spool: &Spool, end: Lsn) -> u64 {
        match end {
            0 => 0,
            _ => spool.geometry().number(end - 1) + 1,
        }
    }

    /// Runs until `stop` is set; raise `wake` then. Raises the floor for the last time on its way out.
    pub fn run(mut self, stop: &AtomicBool, wake: &Wake) {
        let mut floor = match FloorFile::open(&self.spool) {
            Ok(floor) => Some(floor),
            Err(error) => {
                self.status
                    .error(format!("the floor cannot be kept, damage at the end would look like a torn tail: {error}"));
                None
            }
        };
        let (mut raised, mut raised_at) = (self.spool.floor(), Instant::now());
        let (mut failed, mut logged): (Option<Instant>, Option<Instant>) = (None, None);
        while !stop.load(Ordering::Acquire) {
            self.remove();
            if failed.is_none_or(|at| at.elapsed() >= RETRY) {
                failed = self.prepare(&mut logged).then(Instant::now);
            }
            self.report();
            let acknowledged = self.status.acknowledged();
            if acknowledged > raised && raised_at.elapsed() >= FLOOR_PERIOD {
                raise(&mut floor, acknowledged, &self.status);
                (raised, raised_at) = (acknowledged, Instant::now());
            }
            let _ = wake.wait(PERIOD);
        }
        raise(&mut floor, self.status.acknowledged(), &self.status);
    }

    /// Removes what is on media.
    fn remove(&self) {
        let (on_media, spooled) = (self.status.on_media(), self.status.spooled());
        fail::fail_point!("keeper-before-remove");
        match self.spool.remove_below(on_media.min(spooled), spooled) {
            Ok(0) => {}
            Ok(count) => log::debug!("{count} segments below LSN {on_media:#x} are on media and removed"),
            Err(error) => self.status.error(error.to_string()),
        }
    }

    /// Makes what is missing. Returns whether that failed.
    fn prepare(&mut self, logged: &mut Option<Instant>) -> bool {
        while self.prepared.len() < AHEAD {
            let why = match self.spool.numbers() {
                Ok(numbers) if numbers.len() as u64 >= self.segments_max => {
                    // One that is ready is enough to begin with; only without any does the limit stop the log.
                    if !self.prepared.is_empty() {
                        return false;
                    }
                    format!("the spool has reached its limit of {} segments", self.segments_max)
                }
                Ok(_) => match self.spool.prepare(self.next) {
                    Ok(file) => {
                        self.prepared.put(self.next, file);
                        self.next += 1;
                        self.capture.wake();
                        if self.status.shared().spool.full.take().is_some() {
                            *logged = None;
                            log::warn!("the spool has room again");
                        }
                        continue;
                    }
                    Err(error) => why(error),
                },
                Err(error) => why(error),
            };
            if logged.is_none_or(|at| at.elapsed() >= REMIND) {
                *logged = Some(Instant::now());
                self.status.error(format!(
                    "no new segment: {why}; free room, or see why the log does not reach the media; nothing is lost meanwhile"
                ));
            }
            self.status.shared().spool.full = Some(why);
            return true;
        }
        false
    }

    fn report(&self) {
        let geometry = self.spool.geometry();
        let Ok(numbers) = self.spool.numbers() else { return };
        let spooled = self.status.spooled();
        let used = numbers.iter().filter(|&&number| geometry.start(number) < spooled).count() as u64;
        // The disk may hold less than the limit promises.
        let room = statvfs(self.spool.path()).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let possible = (numbers.len() as u64).saturating_add(room / geometry.file_len()).min(self.segments_max);
        let fill = used * 100 / possible.max(1);
        let warning = fill >= self.warn;
        let mut shared = self.status.shared();
        let spool = &mut shared.spool;
        if warning != spool.warning {
            match warning {
                true => log::warn!(
                    "the spool is {fill}% full ({used} of {possible} segments); LSN {:#x} to {spooled:#x} is not on media",
                    self.status.on_media()
                ),
                false => log::info!("the spool is {fill}% full"),
            }
        }
        (spool.segments, spool.segments_max) = (used, possible);
        (spool.segment_bytes, spool.fill_percent, spool.warning) = (geometry.file_len(), fill, warning);
    }
}

fn why(error: SpoolError) -> String {
    error.to_string()
}

fn raise(floor: &mut Option<FloorFile>, lsn: Lsn, status: &Status) {
    if let Some(Err(error)) = floor.as_mut().map(|floor| floor.raise(lsn)) {
        status.error(error.to_string());
    }
}
