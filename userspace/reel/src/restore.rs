// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel restore`: the tree, from its volumes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use reelfs_format::record::{Lsn, GAP_DEGRADED};
use reelfs_media::reader::{Begin, LogEnd, LogReader, OnGap, RecordReader};
use rustix::fs::{mkdirat, openat, removexattr, renameat, syncfs, Mode, OFlags, CWD};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use serde_json::json;
use uuid::Uuid;

use crate::args::{Moment, Restore};
use crate::outcome::Failure;
use crate::progress::Progress;
use crate::replay::namespace::{Change, Kind, Namespace, Remark};
use crate::replay::place::{Lack, Placed, Placer};
use crate::replay::staging::Staging;
use crate::show;
use crate::volumes::{find, Set};

/// The directory in the target that holds what has no name yet. Only one restore at a time goes to a target.
pub const STAGING: &str = ".reelfs-restore";
/// Its file that says what is going on; its being there proves that the target was empty.
const MARK: &str = "began-empty";
/// The directory that ext4 makes in every new filesystem.
const LOST_FOUND: &str = "lost+found";
/// Files that are kept open at most, however many the system allows.
const OPEN_MAX: u64 = 4096;
/// How many of the things that the target could not hold are printed.
const LACKS_SHOWN: usize = 20;

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    /// LSN behind the last record that was applied.
    pub lsn: Lsn,
    /// Time of that record.
    pub time: i64,
    /// Records applied.
    pub records: u64,
    /// Bytes of contents written.
    pub written: u64,
    /// Objects that had no name at the end and were left out.
    pub unnamed: u64,
    /// How the log ended, if it was read to its end.
    pub end: Option<LogEnd>,
    /// What was made.
    pub placed: Placed,
    /// What the log says about itself.
    pub remarks: Vec<Remark>,
    /// Whether the log lacks changes, by its own word.
    pub gap: bool,
    /// Records behind a gap that were left out.
    pub left_out: u64,
    /// Blocks that could not be used although nothing was lost with them.
    pub damaged_blocks: u64,
    /// Seconds for reading and contents.
    pub replay_seconds: f64,
    /// Seconds for names and attributes.
    pub place_seconds: f64,
}

/// Runs the command.
pub fn run(args: &Restore) -> Result<(), Failure> {
    let found = find(&args.volumes.volumes)?;
    let mut set = found.select(args.volumes.stream)?;
    set.wait(args.volumes.wait);
    if !args.volumes.quiet {
        eprintln!("reel: volumes:");
        for line in set.plan() {
            eprintln!("  {line}");
        }
        for line in set.useless() {
            eprintln!("  not used: {line}");
        }
        if let Some(end) = set.end_lsn() {
            eprintln!("reel: {} of log to read into {}", show::bytes(end), args.to.display());
        }
    }
    if args.plan {
        return Ok(());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failure::io("handling signals", error))?;
    }
    let restored = restore(args, set, &stop)?;
    report(args, &restored)
}

fn report(args: &Restore, restored: &Restored) -> Result<(), Failure> {
    let placed = &restored.placed;
    for remark in &restored.remarks {
        eprintln!("reel: {}", remark_text(remark));
    }
    if let Some(end) = &restored.end {
        if end.cut > 0 {
            eprintln!("reel: {} bytes of a last record that was never complete are left out", end.cut);
        }
        if let Some(wanted) = &end.goes_on {
            eprintln!("reel: the log goes on at LSN {:#x} on {wanted}, which was not read", end.lsn);
        }
    }
    if restored.unnamed > 0 {
        eprintln!("reel: {} files that were open without a name are left out", restored.unnamed);
    }
    if let Some(path) = &args.report {
        let mut file = BufWriter::new(File::create(path).map_err(|error| Failure::io(path.display(), error))?);
        let lines = placed.lacks.iter().try_for_each(|lack| writeln!(file, "{}", lack_text(lack)));
        lines.and_then(|()| file.flush()).map_err(|error| Failure::io(path.display(), error))?;
    }
    for lack in placed.lacks.iter().take(LACKS_SHOWN) {
        eprintln!("reel: not held by the target: {}", lack_text(lack));
    }
    if placed.lacks.len() > LACKS_SHOWN {
        let rest = placed.lacks.len() - LACKS_SHOWN;
        eprintln!("reel: and {rest} more{}", if args.report.is_some() { "" } else { " (--report FILE has them all)" });
    }
    let seconds = restored.replay_seconds + restored.place_seconds;
    let rate = restored.lsn as f64 / seconds.max(1e-9) / 1e6;
    if args.json {
        let line = json!({
            "lsn": restored.lsn, "time": show::time(restored.time), "records": restored.records,
            "bytes_written": restored.written, "directories": placed.directories, "files": placed.files,
            "symlinks": placed.symlinks, "nodes": placed.nodes, "extra_names": placed.extra_names,
            "unnamed": restored.unnamed, "damaged_blocks": restored.damaged_blocks,
            "not_held": placed.lacks.len(), "remarks": restored.remarks.len(), "gap": restored.gap,
            "left_out": restored.left_out,
            "replay_seconds": restored.replay_seconds, "place_seconds": restored.place_seconds,
        });
        println!("{line}");
    } else {
        println!(
            "restored {} directories, {} files ({}), {} symbolic links, {} nodes, {} further names",
            placed.directories,
            placed.files,
            show::bytes(restored.written),
            placed.symlinks,
            placed.nodes,
            placed.extra_names,
        );
        println!(
            "as of LSN {:#x}, {}; {} records in {seconds:.1} s ({:.1} s log and contents, {:.1} s names and attributes), \
             {rate:.1} MB of log per second",
            restored.lsn,
            show::time(restored.time),
            restored.records,
            restored.replay_seconds,
            restored.place_seconds,
        );
    }
    if restored.gap {
        let target = match placed.lacks.len() {
            0 => String::new(),
            count => format!("; nor could the target hold {count} things"),
        };
        Err(Failure::Gap(format!("the tree was restored, but {}{target}", gap_text(restored.left_out))))
    } else if placed.lacks.is_empty() {
        Ok(())
    } else {
        let count = placed.lacks.len();
        Err(Failure::Target(format!("the tree was restored, but the target could not hold {count} things")))
    }
}

fn lack_text(lack: &Lack) -> String {
    format!("{}: {}", show::name(&lack.path), lack.what)
}

/// What a gap means to whoever needs the tree.
pub fn gap_text(left_out: u64) -> String {
    let mut text =
        "the log has a gap (see above): changes made in it are missing, so what is named there may be absent, \
                    outdated, or a mixture of old and new, and what was removed may be back"
            .to_owned();
    if left_out > 0 {
        text.push_str(&format!("; {left_out} later records presuppose what is missing and were left out"));
    }
    text
}

/// A remark, for humans.
pub fn remark_text(remark: &Remark) -> String {
    match remark {
        Remark::Gap { lsn, time, stream, reason: GAP_DEGRADED, .. } => format!(
            "GAP in stream {}, from LSN {lsn:#x}, {} on: the log could take no records, and the mount went on without it. \
             Up to there the log is complete",
            Uuid::from_bytes(*stream),
            show::time(*time)
        ),
        Remark::Gap { lsn, time, stream, bytes, .. } => format!(
            "GAP in stream {}, LSN {lsn:#x}, {}: the log lacks {} here",
            Uuid::from_bytes(*stream),
            show::time(*time),
            if *bytes > 0 { format!("{} of changes", show::bytes(*bytes)) } else { "changes".into() }
        ),
        Remark::GapEnd { lsn, time, stream, begin, since, changes, bytes } => format!(
            "GAP in stream {}, from LSN {begin:#x} to {lsn:#x}, {} to {}: {changes} changes ({} of records) are in no log",
            Uuid::from_bytes(*stream),
            show::time(*since),
            show::time(*time),
            show::bytes(*bytes)
        ),
        Remark::GapBefore { lsn, time, stream } => format!(
            "GAP in stream {}, before LSN {lsn:#x}, {}: the tree had changes by then that are in no log",
            Uuid::from_bytes(*stream),
            show::time(*time)
        ),
        Remark::LeftOut { lsn, problem } => format!("LSN {lsn:#x}: presupposes what is missing, left out: {problem}"),
        Remark::Unclean { lsn } => {
            format!("LSN {lsn:#x}: the mount before did not end cleanly; tree and log may have disagreed")
        }
        Remark::Followed { lsn, problem } => format!("LSN {lsn:#x}: did not fit and was followed: {problem}"),
    }
}

/// Restores the volumes of `set` into the target that `args` names.
pub fn restore(args: &Restore, set: Set, stop: &AtomicBool) -> Result<Restored, Failure> {
    let total = match args.at {
        Some(Moment::Lsn(lsn)) => Some(lsn),
        _ => set.end_lsn(),
    };
    let target = Target::prepare(args)?;
    let open_max = raise_open_files().min(OPEN_MAX) as usize;
    let staging = target.staging.try_clone().map_err(|error| Failure::io("dup", error))?;
    let mut work = Work {
        args,
        stop,
        namespace: Namespace::new(),
        staging: Staging::new(staging, open_max),
        lsn: 0,
        time: 0,
        damaged_blocks: 0,
    };
    let mut log = LogReader::new(set, Begin::Log, OnGap::Search);
    log.accept_end(args.end_here);
    let mut progress = Progress::new("log", total, true, args.volumes.quiet);
    let replayed = work.replay(&mut RecordReader::new(log), &mut progress);
    let replay_seconds = progress.finish();
    let end = match replayed {
        Ok(end) => end,
        Err(failure) => {
            // Nothing has a name yet: nothing is worth keeping.
            target.clear();
            return Err(failure);
        }
    };
    let Some(_) = work.namespace.root() else {
        target.clear();
        return Err(Failure::Media("there is no mount in the log before that moment".into()));
    };

    let names = work.namespace.objects().map(|(_, object)| u64::from(object.names)).sum();
    let mut progress = Progress::new("names", Some(names), false, args.volumes.quiet);
    let written = work.staging.written();
    let unnamed = work.namespace.objects().filter(|(_, object)| object.names == 0).count() as u64;
    let placed = target.place(&mut work, &mut progress);
    let place_seconds = progress.finish();
    let placed = placed?;
    Ok(Restored {
        lsn: work.lsn,
        time: work.time,
        records: work.namespace.records(),
        written,
        unnamed,
        end,
        placed,
        remarks: work.namespace.remarks().to_vec(),
        gap: work.namespace.has_gap(),
        left_out: work.namespace.left_out(),
        damaged_blocks: work.damaged_blocks,
        replay_seconds,
        place_seconds,
    })
}

struct Work<'a> {
    args: &'a Restore,
    stop: &'a AtomicBool,
    namespace: Namespace,
    staging: Staging,
    lsn: Lsn,
    time: i64,
    damaged_blocks: u64,
}

impl Work<'_> {
    /// Applies the log. How it ended, or `None` where the moment that was asked for came first.
    fn replay(&mut self, reader: &mut RecordReader<Set>, progress: &mut Progress) -> Result<Option<LogEnd>, Failure> {
        let mut reached = false;
        let mut count = 0_u32;
        while let Some(record) = reader.next()? {
            reached = match self.args.at {
                Some(Moment::Lsn(lsn)) => record.lsn() >= lsn,
                Some(Moment::Time(time)) => record.header().time.get() > time,
                None => false,
            };
            if reached {
                break;
            }
            let change = self.namespace.apply(&record)?;
            if change != Change::None {
                self.staging.apply(&change).map_err(|error| {
                    let text = format!("LSN {:#x}: contents cannot be written to the target: {error}", record.lsn());
                    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                        Failure::Target(text)
                    } else {
                        Failure::Failed(text)
                    }
                })?;
            }
            (self.lsn, self.time) = (record.next_lsn(), record.header().time.get());
            count = count.wrapping_add(1);
            if count % 64 == 0 {
                let place = reader.log().volume_name().cloned();
                progress.set(self.lsn, || place.map_or_else(String::new, |name| format!("volume {name}")));
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Failure::Failed("interrupted; nothing was left in the target".into()));
                }
            }
        }
        for note in reader.log().take_notes() {
            if let reelfs_media::reader::Note::Damaged(damage) = note {
                self.damaged_blocks += 1;
                progress.suspend(|| eprintln!("reel: {damage}"));
            }
        }
        if reached {
            return Ok(None);
        }
        let end = reader.end();
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
}

/// As many open files as the system allows; half of it for staging.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.unwrap_or(OPEN_MAX * 2) / 2
}

/// The directory that becomes the root, and what is in it while it does.
struct Target {
    path: PathBuf,
    root: OwnedFd,
    staging: OwnedFd,
}

impl Target {
    fn prepare(args: &Restore) -> Result<Self, Failure> {
        let failed = |doing: &str, error: io::Error| Failure::io(format!("{}: {doing}", args.to.display()), error);
        match fs::create_dir(&args.to) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("mkdir", error)),
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &args.to, flags, Mode::empty()).map_err(|errno| failed("open", errno.into()))?;
        let staging_path = args.to.join(STAGING);
        if fs::symlink_metadata(&staging_path).is_ok() {
            if !args.resume {
                let text = format!("{}: an interrupted restore is in it; remove it with --resume", args.to.display());
                return Err(Failure::Failed(text));
            }
            clear_interrupted(&args.to).map_err(|error| failed("removing what an interrupted restore left", error))?;
        }
        let entries = entries(&args.to).map_err(|error| failed("reading the directory", error))?;
        if !entries.is_empty() && !args.non_empty {
            let first = show::name(entries[0].as_bytes());
            let text = format!(
                "{}: not empty (it has {first}); to restore into it without replacing anything, say --non-empty",
                args.to.display()
            );
            return Err(Failure::Failed(text));
        }
        mkdirat(&root, STAGING, Mode::RWXU).map_err(|errno| failed("making the staging directory", errno.into()))?;
        let staging = openat(&root, STAGING, flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|errno| failed("opening the staging directory", errno.into()))?;
        // What is made in staging must not inherit what the target hands down.
        let _ = removexattr(&staging_path, "system.posix_acl_default");
        if entries.is_empty() {
            fs::write(staging_path.join(MARK), "").map_err(|error| failed("writing into staging", error))?;
        }
        Ok(Target { path: args.to.clone(), root, staging })
    }

    fn staging_path(&self) -> PathBuf {
        self.path.join(STAGING)
    }

    /// Removes staging, as far as it goes.
    fn clear(&self) {
        let _ = fs::remove_dir_all(self.staging_path());
    }

    fn place(&self, work: &mut Work<'_>, progress: &mut Progress) -> Result<Placed, Failure> {
        let failed = |doing: &str, error: io::Error| Failure::io(format!("{}: {doing}", self.path.display()), error);
        let mut map = match &work.args.identity_map {
            None => None,
            Some(path) => Some(self.begin_map(path, work.lsn)?),
        };
        let mut staging_path = self.staging_path();
        if let Some(names) = root_names(&work.namespace) {
            // The tree may have such a name itself.
            if names.contains_key(STAGING.as_bytes()) {
                let other =
                    (0_u32..).map(|n| format!("{STAGING}.{n}")).find(|name| !names.contains_key(name.as_bytes()));
                let other = other.unwrap_or_default();
                renameat(&self.root, STAGING, &self.root, &other)
                    .map_err(|errno| failed("renaming the staging directory", errno.into()))?;
                staging_path = self.path.join(other);
            }
            // An empty one was made with the filesystem and is in the way of the tree's own.
            if names.contains_key(LOST_FOUND.as_bytes()) {
                let _ = fs::remove_dir(self.path.join(LOST_FOUND));
            }
        }
        let root = self.root.try_clone().map_err(|error| failed("dup", error))?;
        let writer = map.as_mut().map(|(_, writer)| writer as &mut dyn Write);
        let mut placer = Placer::new(&work.namespace, &mut work.staging, staging_path.clone(), root, writer);
        let (stop, mut count) = (work.stop, 0);
        let result = placer.place(&mut || {
            count += 1;
            progress.set(count, String::new);
            !stop.load(Ordering::Relaxed)
        });
        if let Err(error) = result {
            let text = format!("{error}; the target is incomplete: restore again with --resume");
            return Err(Failure::Failed(text));
        }
        fs::remove_dir_all(&staging_path).map_err(|error| failed("removing the staging directory", error))?;
        let placed = placer.finish()?;
        syncfs(&self.root).map_err(|errno| failed("syncfs", errno.into()))?;
        if let Some((path, writer)) = map {
            let file = writer.into_inner().map_err(|error| Failure::io(path.display(), error.into_error()))?;
            file.sync_all().map_err(|error| Failure::io(path.display(), error))?;
        }
        Ok(placed)
    }

    fn begin_map<'a>(&self, path: &'a Path, lsn: Lsn) -> Result<(&'a Path, BufWriter<File>), Failure> {
        let mut writer = BufWriter::new(File::create(path).map_err(|error| Failure::io(path.display(), error))?);
        let head = json!({ "reelfs_identity_map": 1, "lsn": lsn });
        writeln!(writer, "{head}").map_err(|error| Failure::io(path.display(), error))?;
        Ok((path, writer))
    }
}

fn root_names(
    namespace: &Namespace,
) -> Option<&std::collections::BTreeMap<Box<[u8]>, crate::replay::namespace::ObjectId>> {
    match &namespace.object(namespace.root()?)?.kind {
        Kind::Directory(entries) => Some(entries),
        _ => None,
    }
}

/// The names in a directory, without the empty directory that a new filesystem has.
fn entries(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let made_with_it =
            name == OsStr::new(LOST_FOUND) && fs::read_dir(entry.path()).is_ok_and(|mut d| d.next().is_none());
        if !made_with_it {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes what a restore left that was killed. Where it had begun in an empty directory, that is everything.
fn clear_interrupted(path: &Path) -> io::Result<()> {
    let staging = path.join(STAGING);
    if fs::symlink_metadata(staging.join(MARK)).is_ok() {
        for name in entries(path)? {
            let entry = path.join(&name);
            if name == OsStr::new(STAGING) {
                continue;
            }
            if fs::symlink_metadata(&entry)?.is_dir() {
                fs::remove_dir_all(&entry)?;
            } else {
                fs::remove_file(&entry)?;
            }
        }
    }
    fs::remove_dir_all(staging)
}
