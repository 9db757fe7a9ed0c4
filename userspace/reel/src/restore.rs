// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel restore`: the tree, from its volumes.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reelfs_format::record::{Lsn, GAP_DEGRADED};
use reelfs_media::reader::{Begin, LogReader, OnGap, ReadError, RecordReader};
use serde_json::json;
use uuid::Uuid;

use crate::args::Restore;
use crate::outcome::Failure;
use crate::replay::namespace::Remark;
use crate::replay::place::Placed;
use crate::show;
use crate::volumes::{find, Plan, Set};

mod origin;
mod state;
mod target;
mod work;

pub use origin::Origin;
pub use work::restore;

/// Bytes of log that are read to see how fast that is, at most, and for how long.
const SAMPLE: u64 = 64 << 20;
/// See [`SAMPLE`].
const SAMPLE_TIME: Duration = Duration::from_secs(3);

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    /// The checkpoint that it began with, if it did not begin with the log: LSN of its begin record.
    pub checkpoint: Option<Lsn>,
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
    /// What was made, in this run.
    pub placed: Placed,
    /// What the operator should know, what the log says about itself among it.
    pub notes: Vec<String>,
    /// Whether the log lacks changes, by its own word.
    pub gap: bool,
    /// Records behind a gap that were left out.
    pub left_out: u64,
    /// Blocks that could not be used although nothing was lost with them.
    pub damaged_blocks: u64,
    /// Checkpoints made in this run.
    pub checkpoints: u64,
    /// Seconds for reading and contents.
    pub replay_seconds: f64,
    /// Seconds for names and attributes.
    pub place_seconds: f64,
}

/// Runs the command.
pub fn run(args: &Restore) -> Result<(), Failure> {
    let found = find(&args.volumes.volumes)?;
    let mut set = found.select(args.volumes.stream)?;
    set.take_options(&args.volumes)?;
    let origin = Origin::choose(&set, args.at);
    let plan = set.plan(origin.lsn(), args.at);
    if args.plan || !args.volumes.quiet {
        eprintln!("reel: volumes:");
        for line in &plan.lines {
            eprintln!("  {line}");
        }
        for line in set.useless() {
            eprintln!("  not used: {line}");
        }
        if !set.volumes().is_empty() {
            if let Some(checkpoint) = origin.checkpoint {
                eprintln!("reel: begins with the checkpoint of LSN {:#x}", checkpoint.begin);
            }
            let bytes = plan.end.saturating_sub(origin.lsn());
            eprintln!("reel: {} of log to read into {}", show::bytes(bytes), args.to.display());
        }
    }
    if args.plan {
        return show_plan(args, set, origin, &plan);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failure::io("handling signals", error))?;
    }
    let restored = restore(args, set, origin, &stop)?;
    report(args, &restored)
}

/// What it takes, without doing it.
fn show_plan(args: &Restore, set: Set, origin: Origin, plan: &Plan) -> Result<(), Failure> {
    let passes = if args.only.is_empty() { 1 } else { 2 };
    if plan.missing > 0 {
        return Err(Failure::Media(format!("{} volumes that are needed are missing", plan.missing)));
    }
    if set.volumes().is_empty() {
        eprintln!("reel: how much there is shows when the first volume is in a drive");
        return Ok(());
    }
    // The beginning of the first volume tells how fast it can be read and checked here.
    let begin = match set.sequence_at(origin.lsn()).unwrap_or(1) {
        sequence if origin.checkpoint.is_some() && sequence > 1 => Begin::Volume(sequence),
        _ => Begin::Log,
    };
    let bytes = plan.end.saturating_sub(origin.lsn());
    let mut reader = RecordReader::new(LogReader::new(set, begin, OnGap::Search));
    let begun = Instant::now();
    let mut first = None;
    let read = loop {
        let more = match reader.next() {
            Ok(record) => record.map(|record| record.lsn()),
            Err(locked @ ReadError::Locked { .. }) => {
                eprintln!("reel: how long it takes shows with an identity: {locked}");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let read = reader.position() - *first.get_or_insert(more.unwrap_or(0));
        if more.is_none() || read >= SAMPLE.min(bytes) || begun.elapsed() >= SAMPLE_TIME {
            break read;
        }
    };
    let rate = read as f64 / begun.elapsed().as_secs_f64().max(1e-6);
    let seconds = bytes as f64 * f64::from(passes) / rate.max(1.0);
    println!(
        "about {} to read {}{} at {:.0} MB/s, as the first volume is read here; writing the tree and changing volumes take \
         longer",
        show::span(seconds),
        show::bytes(bytes),
        if passes > 1 { " twice, to find the paths first," } else { "" },
        rate / 1e6,
    );
    Ok(())
}

fn report(args: &Restore, restored: &Restored) -> Result<(), Failure> {
    let placed = &restored.placed;
    for note in &restored.notes {
        eprintln!("reel: {note}");
    }
    if restored.unnamed > 0 {
        eprintln!("reel: {} files that were open without a name are left out", restored.unnamed);
    }
    for lack in &placed.lacks {
        eprintln!("reel: not held by the target: {lack}");
    }
    let rest = placed.lacking - placed.lacks.len() as u64;
    if rest > 0 {
        eprintln!("reel: and {rest} more{}", if args.report.is_some() { "" } else { " (--report FILE has them all)" });
    }
    let seconds = restored.replay_seconds + restored.place_seconds;
    let rate = (restored.lsn - restored.checkpoint.unwrap_or(0)) as f64 / seconds.max(1e-9) / 1e6;
    if args.json {
        let line = json!({
            "checkpoint": restored.checkpoint, "lsn": restored.lsn, "time": show::time(restored.time), "records": restored.records,
            "bytes_written": restored.written, "directories": placed.directories, "files": placed.files,
            "symlinks": placed.symlinks, "nodes": placed.nodes, "extra_names": placed.extra_names,
            "unnamed": restored.unnamed, "damaged_blocks": restored.damaged_blocks,
            "not_held": placed.lacking, "notes": restored.notes, "gap": restored.gap, "left_out": restored.left_out,
            "checkpoints": restored.checkpoints, "peak_memory": peak_memory(),
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
        let target = match placed.lacking {
            0 => String::new(),
            count => format!("; nor could the target hold {count} things"),
        };
        Err(Failure::Gap(format!("the tree was restored, but {}{target}", gap_text(restored.left_out))))
    } else if placed.lacking == 0 {
        Ok(())
    } else {
        let count = placed.lacking;
        Err(Failure::Target(format!("the tree was restored, but the target could not hold {count} things")))
    }
}

/// The most memory that this process has held, in bytes (`VmHWM` of `proc_pid_status(5)`); zero if that is not known.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map_or(0, |kilobytes| kilobytes.saturating_mul(1024))
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
