// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel verify`: everything that can be checked without restoring. One pass over the volumes: structure and
//! checksums of blocks and records, hashes and chain, continuity, and whether each record fits those before it.

use reelfs_format::record::{Lsn, MOUNT_GAP, MOUNT_POPULATED};
use reelfs_format::view::Event;
use reelfs_media::reader::{Begin, LogReader, Note, OnGap, ReadError, RecordReader};
use serde_json::json;

use crate::args::Verify;
use crate::outcome::Failure;
use crate::progress::Progress;
use crate::replay::namespace::Namespace;
use crate::restore::{gap_text, remark_text};
use crate::show;
use crate::volumes::find;

/// What was found, and how bad it is.
#[derive(Debug, Default)]
struct Findings {
    /// Worth knowing.
    notes: Vec<String>,
    /// The media are not as they should be.
    faults: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Verify) -> Result<(), Failure> {
    let mut set = find(&args.volumes.volumes)?.select(args.volumes.stream)?;
    set.take_options(&args.volumes)?;
    let mut findings = Findings::default();
    if !args.volumes.quiet {
        for line in set.plan(0, None).lines {
            eprintln!("  {line}");
        }
    }
    for line in set.useless() {
        findings.faults.push(line.clone());
    }
    let first = set.first_sequence().unwrap_or(1);
    let (begin, whole) = if first == 1 { (Begin::Log, true) } else { (Begin::Volume(first), false) };
    if !whole {
        findings
            .notes
            .push(format!("volume {first} of its set is the first one given; those before it were not looked at"));
    }
    let total = set.end_lsn();
    let volumes = set.volumes().len();
    let mut progress = Progress::new("verify", total, true, args.volumes.quiet);
    let mut reader = RecordReader::new(LogReader::new(set, begin, OnGap::Skip));

    let mut namespace = whole.then(Namespace::new);
    let mut gap = false;
    let (mut records, mut first_lsn, mut expected) = (0_u64, None, None);
    loop {
        let record = match reader.next() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            // Not a fault of the media.
            Err(error @ ReadError::Locked { .. }) => return Err(error.into()),
            Err(error) => {
                findings.faults.push(error.to_string());
                break;
            }
        };
        records += 1;
        let lsn = record.lsn();
        first_lsn.get_or_insert(lsn);
        if expected.replace(record.next_lsn()).is_some_and(|expected| expected != lsn) {
            // Something is missing: whether later records fit can no longer be judged.
            namespace = None;
        }
        match record.event() {
            Err(error) => {
                findings.faults.push(format!("record at LSN {lsn:#x}: {error}"));
                namespace = None;
            }
            Ok(Event::Gap { .. } | Event::GapEnd { .. }) => {
                gap = true;
                if namespace.is_none() {
                    findings.notes.push(format!("GAP at LSN {lsn:#x}: the log lacks changes"));
                }
            }
            Ok(Event::Mount { body, .. }) => gap |= body.flags.get() & MOUNT_GAP != 0,
            Ok(_) => {}
        }
        if let Ok(event) = record.event() {
            namespace = judged(namespace, &event, lsn, &mut findings);
        }
        if let Some(Err(error)) = namespace.as_mut().map(|namespace| namespace.apply(&record).map(|_| ())) {
            findings.faults.push(error.to_string());
            namespace = None;
        }
        if let Some(namespace) = namespace.as_mut().filter(|namespace| namespace.is_full()) {
            namespace.commit(b"")?;
        }
        if records % 64 == 0 {
            let place = reader.log().volume_name().cloned();
            progress.set(lsn, || place.map_or_else(String::new, |name| format!("volume {name}")));
            take_notes(&mut findings, reader.log().take_notes());
        }
    }
    take_notes(&mut findings, reader.log().take_notes());
    for (from, to) in reader.log().missing() {
        findings.faults.push(format!("LSN {from:#x} to {to:#x} is on none of the volumes"));
    }
    for damage in reader.log().damages() {
        findings.faults.push(format!("{damage}; nothing behind it shows whether anything was lost"));
    }
    let end = reader.end();
    if let Some(end) = &end {
        if let Some(wanted) = &end.goes_on {
            findings.notes.push(format!("the log goes on at LSN {:#x} on {wanted}, which was not given", end.lsn));
        }
        if end.cut > 0 {
            let text = format!("the log ends in the middle of a record, {} bytes behind LSN {:#x}", end.cut, end.lsn);
            findings.notes.push(text);
        }
    }
    if let Some(begin) = namespace.as_ref().and_then(Namespace::telling) {
        findings.notes.push(format!("the checkpoint begun at LSN {begin:#x} is not complete"));
        namespace = None;
    }
    let replayed = namespace.is_some();
    let left_out = namespace.as_ref().map_or(0, Namespace::left_out);
    if let Some(namespace) = &mut namespace {
        findings.notes.extend(namespace.take_remarks().iter().map(remark_text));
    }
    let blocks = reader.log().blocks();
    let seconds = progress.finish();
    let end_lsn = end.map_or(reader.position(), |end| end.lsn);
    let begun = first_lsn.unwrap_or(end_lsn);
    if args.json {
        let line = json!({
            "volumes": volumes, "blocks": blocks, "records": records, "first_lsn": begun, "end_lsn": end_lsn,
            "from_the_beginning": whole, "log_makes_sense": replayed, "gap": gap, "left_out": left_out, "notes": findings.notes,
            "faults": findings.faults, "seconds": seconds,
        });
        println!("{line}");
    } else {
        for note in &findings.notes {
            println!("note: {note}");
        }
        for fault in &findings.faults {
            println!("FAULT: {fault}");
        }
        println!(
            "{volumes} volumes, {blocks} blocks, {records} records, LSN {begun:#x} to {end_lsn:#x} ({}){}",
            show::bytes(end_lsn.saturating_sub(begun)),
            if replayed && left_out == 0 { ", every record fits those before it" } else { "" },
        );
    }
    if !findings.faults.is_empty() {
        return Err(Failure::Media(format!("{} faults found", findings.faults.len())));
    }
    if gap {
        return Err(Failure::Gap(gap_text(left_out)));
    }
    Ok(())
}

/// The tree that the record is to fit: the one before, or a new one where that is no longer to be had, or not yet.
fn judged(known: Option<Namespace>, event: &Event<'_>, lsn: Lsn, findings: &mut Findings) -> Option<Namespace> {
    let known = match (known.as_ref().and_then(Namespace::telling), event) {
        (Some(begin), Event::Mount { .. } | Event::Unmount | Event::Gap { .. } | Event::CheckpointBegin { .. }) => {
            findings.notes.push(format!("the checkpoint begun at LSN {begin:#x} was never completed"));
            None
        }
        _ => known,
    };
    match event {
        Event::Mount { body, .. } if body.flags.get() & MOUNT_POPULATED != 0 => {
            let text = "the tree was not empty when it was first mounted: what was in it is in no log before the first checkpoint";
            findings.notes.push(format!("LSN {lsn:#x}: {text}"));
            None
        }
        Event::CheckpointBegin { .. } => known.or_else(|| Some(Namespace::new())),
        _ => known,
    }
}

fn take_notes(findings: &mut Findings, notes: Vec<Note>) {
    for note in notes {
        match note {
            Note::Damaged(damage) => findings.faults.push(damage.to_string()),
            Note::Wrong(what) => findings.faults.push(what),
            Note::Skipped { from, to } => findings.notes.push(format!("passed over LSN {from:#x} to {to:#x}")),
            Note::Repeated { place, from, to } => {
                findings.notes.push(format!("{place} repeats LSN {from:#x} to {to:#x}"));
            }
            Note::NoTrailer(volume) => findings.notes.push(format!("volume '{volume}' ends without a trailer")),
        }
    }
}
