// SPDX-License-Identifier: GPL-2.0-or-later

//! The work of a restore: following the log into staging, checkpoints, and putting the tree together.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reelfs_format::record::Lsn;
use reelfs_media::reader::{Begin, LogEnd, LogReader, Note, OnGap, RecordReader};
use rustix::fs::{fsync, syncfs};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use serde_json::json;

use super::state::{Asked, State};
use super::target::Target;
use super::{remark_text, Origin, Restored};
use crate::args::{Moment, Restore};
use crate::feed::Feed;
use crate::outcome::Failure;
use crate::progress::Progress;
use crate::replay::namespace::{Change, Namespace};
use crate::replay::objects::Spill;
use crate::replay::place::{Ground, Placed, Placer};
use crate::replay::staging::Staging;
use crate::select::{select, Follower, History, Selection};
use crate::show;
use crate::volumes::Set;

/// Files that are kept open at most, however many the system allows.
const OPEN_MAX: u64 = 1024;
/// Between two checkpoints, if they are cheap.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);
/// A checkpoint may take this part of the time: one in so many.
const CHECKPOINT_SHARE: u32 = 10;

/// A restore that is being done.
pub struct Work<'a> {
    args: &'a Restore,
    stop: &'a AtomicBool,
    target: Target,
    namespace: Namespace,
    staging: Staging,
    selection: Option<Selection>,
    /// The checkpoint that it begins with: LSN of its begin record.
    begun_with: Option<Lsn>,
    lsn: Lsn,
    time: i64,
    sequence: u64,
    damaged_blocks: u64,
    notes: Vec<String>,
    stream: Option<([u8; 16], u32)>,
    replayed: bool,
    /// An earlier run had begun to put the tree together.
    again: bool,
    /// When the last checkpoint was made, how far the log was, and how long it took.
    checkpoint: (Instant, Lsn, Duration),
    checkpoints: u64,
}

/// Restores the volumes of `set` into the target that `args` names, from `origin` on.
pub fn restore(args: &Restore, mut set: Set, origin: Origin, stop: &AtomicBool) -> Result<Restored, Failure> {
    let mut work = Work::begin(args, stop, &mut set, origin)?;
    let begun = Instant::now();
    if !work.replayed {
        if let Err(failure) = work.follow(set) {
            return Err(work.give_up(failure));
        }
    }
    let replay_seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let placed = work.place()?;
    Ok(Restored {
        checkpoint: work.begun_with,
        lsn: work.lsn,
        time: work.time,
        records: work.namespace.records(),
        written: work.staging.written(),
        unnamed: work.namespace.unnamed(),
        placed,
        notes: work.notes,
        gap: work.namespace.has_gap(),
        left_out: work.namespace.left_out(),
        damaged_blocks: work.damaged_blocks,
        checkpoints: work.checkpoints,
        replay_seconds,
        place_seconds: begun.elapsed().as_secs_f64(),
    })
}

impl<'a> Work<'a> {
    /// A new restore, or the one that was interrupted.
    fn begin(args: &'a Restore, stop: &'a AtomicBool, set: &mut Set, origin: Origin) -> Result<Self, Failure> {
        let mut target = Target::prepare(args)?;
        let mut kept = None;
        if target.resumable {
            kept = Namespace::reopen(args.memory, target.state_path())?;
            if kept.is_none() {
                // Killed while it made its first checkpoint.
                target.clear_interrupted()?;
                target = Target::prepare(args)?;
            }
        }
        let staging = target.staging.try_clone().map_err(|error| Failure::io("dup", error))?;
        let open_max = raise_open_files().min(OPEN_MAX) as usize;
        let (mut namespace, state) = match kept {
            None => (Namespace::bounded(args.memory, Spill::Kept(target.state_path())), None),
            Some((namespace, meta)) => {
                let state: State = serde_json::from_slice(&meta)
                    .map_err(|error| Failure::Failed(format!("{}: {error}", target.state_path().display())))?;
                (namespace, Some(state))
            }
        };
        let mut work = Work {
            args,
            stop,
            staging: Staging::new(staging, open_max, state.as_ref().map(|state| state.interval)),
            namespace: Namespace::new(),
            selection: None,
            begun_with: origin.checkpoint.map(|checkpoint| checkpoint.begin),
            lsn: origin.lsn(),
            time: 0,
            sequence: 1,
            damaged_blocks: 0,
            notes: Vec::new(),
            stream: set.stream(),
            replayed: false,
            again: false,
            checkpoint: (Instant::now(), origin.lsn(), Duration::ZERO),
            checkpoints: 0,
            target,
        };
        if let (Some((stream, _)), true) = (work.stream, origin.checkpoint.is_some()) {
            namespace.set_stream(stream);
        }
        if let Some(state) = state {
            if state.asked != Asked::of(args) {
                let text =
                    "the interrupted restore was of another moment or of other paths: say the same, or remove what \
                            is in the directory";
                return Err(Failure::Usage(text.into()));
            }
            if let (Some(known), Some(given)) = (state.stream, work.stream) {
                if known != given {
                    return Err(Failure::Usage("the interrupted restore was of another stream".into()));
                }
            }
            namespace.set_counts(state.counts);
            work.staging.set_written(state.written);
            work.begun_with = state.checkpoint;
            (work.lsn, work.time, work.sequence) = (state.lsn, state.time, state.sequence);
            (work.notes, work.damaged_blocks) = (state.notes, state.damaged_blocks);
            (work.replayed, work.again) = (state.replayed, state.replayed);
            work.checkpoint.1 = state.lsn;
            work.selection = read_selection(&work.target.selection_path())?;
            work.staging.select(work.selection.clone());
            if !args.volumes.quiet {
                eprintln!("reel: going on at LSN {:#x}", work.lsn);
            }
        }
        work.namespace = namespace;
        Ok(work)
    }

    /// It cannot go on. What can be gone on with stays; what cannot, goes.
    fn give_up(&mut self, failure: Failure) -> Failure {
        if self.checkpoints == 0 && !self.target.resumable {
            // Nothing has a name yet: nothing is worth keeping.
            self.target.clear();
            return failure;
        }
        let more = format!(
            "; {} is there up to LSN {:#x}: go on with --resume",
            show::bytes(self.checkpoint.1),
            self.checkpoint.1
        );
        match failure {
            Failure::Failed(text) => Failure::Failed(text + &more),
            Failure::Usage(text) => Failure::Usage(text),
            Failure::Media(text) => Failure::Media(text + &more),
            Failure::Target(text) => Failure::Target(text + &more),
            Failure::Gap(text) => Failure::Gap(text),
        }
    }

    /// The log from where this is on.
    fn feed(&self, set: Set) -> Result<Feed, Failure> {
        // Neither lies behind the volume on which reading goes on.
        let begin = match set.sequence_at(self.lsn).unwrap_or(1).max(self.sequence) {
            sequence if self.lsn > 0 && sequence > 1 => Begin::Volume(sequence),
            _ => Begin::Log,
        };
        let mut log = LogReader::new(set, begin, OnGap::Search);
        log.accept_end(self.args.end_here);
        let feed = Feed::start(RecordReader::new(log), self.lsn);
        feed.map_err(|error| Failure::io("starting the reader", error))
    }

    /// From the volumes to files in staging.
    fn follow(&mut self, set: Set) -> Result<(), Failure> {
        let total = match self.args.at {
            Some(Moment::Lsn(lsn)) => Some(lsn),
            _ => set.end_lsn(),
        };
        let paths = self.args.paths();
        if !paths.is_empty() && self.selection.is_none() {
            let found = self.find_paths(set.clone(), &paths, total)?;
            write_selection(&self.target.selection_path(), &found)?;
            self.staging.select(Some(found.clone()));
            self.selection = Some(found);
        }
        let mut feed = self.feed(set)?;
        let mut progress = Progress::new("log", total, true, self.args.volumes.quiet);
        let end = self.replay(&mut feed, &mut progress, true);
        progress.finish();
        let end = end?;
        if self.namespace.root().is_none() {
            return Err(Failure::Media("there is no mount in the log before that moment".into()));
        }
        if let Some(checkpoint) = self.namespace.telling() {
            let text = format!("the log ends before the checkpoint begun at LSN {checkpoint:#x} is complete");
            return Err(Failure::Media(text));
        }
        self.take_remarks();
        if let Some(end) = &end {
            if end.cut > 0 {
                self.notes.push(format!("{} bytes of a last record that was never complete are left out", end.cut));
            }
            if let Some(wanted) = &end.goes_on {
                self.notes.push(format!("the log goes on at LSN {:#x} on {wanted}, which was not read", end.lsn));
            }
        }
        Ok(())
    }

    /// Follows the log without its contents, to see what is called by these paths at the moment.
    fn find_paths(&mut self, set: Set, paths: &[Vec<u8>], total: Option<Lsn>) -> Result<Selection, Failure> {
        let history = Arc::new(Mutex::new(History::new(paths).map_err(Failure::Usage)?));
        let mut whole = Namespace::bounded(self.args.memory, Spill::Nameless(self.target.staging_path()));
        whole.watch(Box::new(Follower(Arc::clone(&history))));
        std::mem::swap(&mut whole, &mut self.namespace);
        let origin = self.lsn;
        let mut feed = self.feed(set)?;
        let mut progress = Progress::new("paths", total, true, self.args.volumes.quiet);
        let replayed = self.replay(&mut feed, &mut progress, false);
        progress.finish();
        std::mem::swap(&mut whole, &mut self.namespace);
        (self.lsn, self.time, self.sequence, self.damaged_blocks) = (origin, 0, 1, 0);
        self.checkpoint.0 = Instant::now();
        replayed?;
        drop(whole.unwatch());
        let history = history.lock().map_err(|_| Failure::Failed("a thread panicked".into()))?;
        let (selection, missing) = select(&mut whole, paths, &history)?;
        if missing.is_empty() {
            return Ok(selection);
        }
        Err(Failure::Failed(missing.join("\nreel: ")))
    }

    /// Applies the log, to the tree alone or to contents too. How it ended, or `None` where the moment that was asked for
    /// came first.
    fn replay(&mut self, feed: &mut Feed, progress: &mut Progress, contents: bool) -> Result<Option<LogEnd>, Failure> {
        let from = self.lsn;
        let mut reached = false;
        let mut count = 0_u32;
        while let Some(record) = feed.next()? {
            reached = match self.args.at {
                Some(Moment::Lsn(lsn)) => record.lsn() >= lsn,
                Some(Moment::Time(time)) => record.header().time.get() > time,
                None => false,
            };
            if reached {
                break;
            }
            if count == 0 && record.lsn() != from {
                let text = format!("the log goes on at LSN {:#x}, where {from:#x} was expected", record.lsn());
                return Err(Failure::Media(text));
            }
            let change = self.namespace.apply(&record)?;
            if contents {
                self.contents(&change, record.lsn())?;
            } else {
                self.namespace.take_gone();
            }
            (self.lsn, self.time) = (record.next_lsn(), record.header().time.get());
            count = count.wrapping_add(1).max(1);
            if count % 64 == 0 || self.lsn - self.checkpoint.1 >= self.args.checkpoint as u64 {
                let place = feed.volume().cloned();
                progress.set(self.lsn, || place.map_or_else(String::new, |name| format!("volume {name}")));
                self.note(feed, progress);
                if contents {
                    self.between_records(feed)?;
                } else if self.namespace.is_full() {
                    self.namespace.commit(b"")?;
                }
                if self.stop.load(Ordering::Relaxed) {
                    if contents {
                        self.make_checkpoint(feed.sequence())?;
                    }
                    return Err(Failure::Failed("interrupted".into()));
                }
            }
        }
        self.note(feed, progress);
        self.sequence = feed.sequence().max(self.sequence);
        if reached {
            return Ok(None);
        }
        let end = feed.end().cloned();
        if let (Some(LogEnd { goes_on: Some(wanted), .. }), false) = (&end, self.args.end_here) {
            let text = format!(
                "{wanted} is missing: the volume before is full, the log goes on there at LSN {:#x}. If it was never \
                 written, or to do without it, say --end-here",
                self.lsn
            );
            return Err(Failure::Media(text));
        }
        if let (Some(Moment::Lsn(lsn)), Some(end)) = (self.args.at, &end) {
            if lsn > end.lsn {
                let text = format!("the log ends at LSN {:#x}, before {lsn:#x}", end.lsn);
                return Err(Failure::Media(text));
            }
        }
        Ok(end)
    }

    fn contents(&mut self, change: &Change<'_>, lsn: Lsn) -> Result<(), Failure> {
        self.staging.apply(&mut self.namespace, change).map_err(|error| {
            let text = format!("LSN {lsn:#x}: contents cannot be written to the target: {error}");
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                Failure::Target(text)
            } else {
                Failure::Failed(text)
            }
        })
    }

    fn note(&mut self, feed: &mut Feed, progress: &Progress) {
        for note in feed.take_notes() {
            if let Note::Damaged(damage) = note {
                self.damaged_blocks += 1;
                progress.suspend(|| eprintln!("reel: {damage}"));
            }
        }
    }

    /// Makes a checkpoint if one is due.
    fn between_records(&mut self, feed: &Feed) -> Result<(), Failure> {
        let (last, lsn, cost) = self.checkpoint;
        let due = last.elapsed() >= CHECKPOINT_EVERY.max(cost * CHECKPOINT_SHARE)
            || self.lsn - lsn >= self.args.checkpoint as u64
            || self.namespace.is_full();
        if due {
            self.make_checkpoint(feed.sequence())?;
        }
        Ok(())
    }

    fn take_remarks(&mut self) {
        self.notes.extend(self.namespace.take_remarks().iter().map(remark_text));
    }

    fn state(&self) -> Result<Vec<u8>, Failure> {
        let state = State {
            asked: Asked::of(self.args),
            stream: self.stream,
            checkpoint: self.begun_with,
            lsn: self.lsn,
            time: self.time,
            sequence: self.sequence,
            replayed: self.replayed,
            interval: self.staging.interval() + 1,
            written: self.staging.written(),
            damaged_blocks: self.damaged_blocks,
            notes: self.notes.clone(),
            counts: self.namespace.counts().clone(),
        };
        serde_json::to_vec(&state).map_err(|error| Failure::Failed(error.to_string()))
    }

    /// From here a restore that is interrupted goes on. First the contents are durable, then the state that counts on them.
    fn make_checkpoint(&mut self, sequence: u64) -> Result<(), Failure> {
        let begun = Instant::now();
        self.sequence = sequence.max(self.sequence);
        syncfs(&self.target.staging).map_err(|errno| Failure::io("syncfs", errno))?;
        self.take_remarks();
        self.namespace.commit(&self.state()?)?;
        self.staging.committed(&mut self.namespace);
        self.checkpoint = (Instant::now(), self.lsn, begun.elapsed());
        self.checkpoints += 1;
        Ok(())
    }

    /// From staging to the tree.
    fn place(&mut self) -> Result<Placed, Failure> {
        let path = self.target.path.clone();
        let failed = |doing: &str, error: io::Error| Failure::io(format!("{}: {doing}", path.display()), error);
        if !self.replayed {
            if let Err(failure) = self.target.make_way(&mut self.namespace, self.selection.as_ref()) {
                return Err(self.give_up(failure));
            }
            let needed = self.staging.settle(&mut self.namespace);
            if needed.map_err(|error| failed("putting staged files in order", error))? {
                self.make_checkpoint(self.sequence)?;
            }
            // From here on the target is not what a checkpoint before was of. A restore that took no longer than that
            // is as well begun again.
            self.replayed = true;
            let long = self.checkpoint.0.elapsed() > CHECKPOINT_EVERY / 2;
            if long || self.checkpoints > 0 || self.target.resumable || self.args.non_empty {
                self.make_checkpoint(self.sequence)?;
            }
        }
        let names = self.namespace.names();
        let mut progress = Progress::new("names", Some(names), false, self.args.volumes.quiet);
        let mut map = self.begin_map()?;
        let mut report = match &self.args.report {
            None => None,
            Some(path) => Some(self.begin_lines(path)?),
        };
        let meta = self.state()?;
        let ground = Ground {
            target: self.target.root.try_clone().map_err(|error| failed("dup", error))?,
            staging_path: self.target.staging_path(),
            again: self.again,
        };
        let mut placer = Placer::new(&mut self.namespace, &mut self.staging, ground, self.selection.as_ref(), meta);
        placer.map_identities(map.as_mut().map(|(_, writer)| writer as &mut dyn Write));
        placer.report(report.as_mut().map(|writer| writer as &mut dyn Write));
        let (stop, mut count) = (self.stop, 0);
        let result = placer.place(&mut || {
            count += 1;
            progress.set(count, String::new);
            !stop.load(Ordering::Relaxed)
        });
        if let Err(error) = result {
            return Err(Failure::Failed(format!("{error}; the target is incomplete: go on with --resume")));
        }
        // Everything but the removal of staging: as long as that takes, an interrupted restore can go on.
        syncfs(&self.target.root).map_err(|errno| failed("syncfs", errno.into()))?;
        self.target.remove_staging().map_err(|error| failed("removing the staging directory", error))?;
        let placed = placer.finish()?;
        fsync(&self.target.root).map_err(|errno| failed("fsync", errno.into()))?;
        if let Some((path, writer)) = map {
            let file = writer.into_inner().map_err(|error| Failure::io(path.display(), error.into_error()))?;
            file.sync_all().map_err(|error| Failure::io(path.display(), error))?;
        }
        progress.finish();
        Ok(placed)
    }

    /// A file for lines. A run that goes on adds to what is there.
    fn begin_lines(&self, path: &Path) -> Result<BufWriter<File>, Failure> {
        let mut options = File::options();
        options.create(true).write(true);
        if self.again {
            options.append(true);
        } else {
            options.truncate(true);
        }
        options.open(path).map(BufWriter::new).map_err(|error| Failure::io(path.display(), error))
    }

    /// Where the identities go. Where nobody has asked for a place, doing without is noted and no failure.
    fn begin_map(&mut self) -> Result<Option<(PathBuf, BufWriter<File>)>, Failure> {
        if self.args.no_identity_map {
            return Ok(None);
        }
        let path = match &self.args.identity_map {
            Some(path) => path.clone(),
            None => {
                let absolute = fs::canonicalize(&self.target.path);
                let absolute = absolute.map_err(|error| Failure::io(self.target.path.display(), error))?;
                let Some(name) = absolute.file_name() else { return Ok(None) };
                let mut name = name.to_owned();
                name.push(".identities");
                absolute.with_file_name(name)
            }
        };
        let asked = self.args.identity_map.is_some();
        if !asked {
            if let Err(error) = reelfs_sys::inode::handle(&self.target.root, c"") {
                self.notes.push(format!("no identity map: the target's filesystem has no file handles ({error})"));
                return Ok(None);
            }
        }
        let begun = self.begin_lines(&path).and_then(|mut writer| {
            if !self.again {
                let head = json!({ "reelfs_identity_map": 1, "lsn": self.lsn });
                writeln!(writer, "{head}").map_err(|error| Failure::io(path.display(), error))?;
            }
            Ok(writer)
        });
        match begun {
            Ok(writer) => Ok(Some((path, writer))),
            Err(failure) if asked => Err(failure),
            Err(failure) => {
                self.notes.push(format!("no identity map: {failure}"));
                Ok(None)
            }
        }
    }
}

fn read_selection(path: &Path) -> Result<Option<Selection>, Failure> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Failure::Failed(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(path.display(), error)),
    }
}

fn write_selection(path: &Path, selection: &Selection) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(selection).map_err(|error| Failure::Failed(error.to_string()))?;
    let temporary = path.with_extension("new");
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| Failure::io(path.display(), error))
}

/// As many open files as the system allows; half of it for staging.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.unwrap_or(OPEN_MAX * 2) / 2
}
