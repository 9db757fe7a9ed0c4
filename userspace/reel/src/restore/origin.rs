// SPDX-License-Identifier: GPL-2.0-or-later

//! Where in the log a restore begins: at the last checkpoint that is complete by the moment that is wanted, or, where there
//! is none, with the log itself.
//!
//! The end of each segment on media tells of the last checkpoint before it, and the last one of each volume is known when
//! the volume has been looked at. So what is left to be searched is what lies behind the last such end.

use reelfs_format::record::Lsn;
use reelfs_format::view::Event;
use reelfs_media::reader::{Begin, LogReader, OnGap, RecordReader};
use reelfs_media::Checkpoint;

use crate::args::Moment;
use crate::volumes::{Known, Set};

/// Where a restore begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The checkpoint, if it begins with one; else it begins with the log.
    pub checkpoint: Option<Checkpoint>,
}

impl Origin {
    /// The first record that is replayed.
    pub fn lsn(&self) -> Lsn {
        self.checkpoint.map_or(0, |checkpoint| checkpoint.begin)
    }

    /// Chooses for a restore of this moment; of the end of the log without one. Asks nobody for volumes.
    pub fn choose(set: &Set, at: Option<Moment>) -> Self {
        let usable = |checkpoint: &Checkpoint| set.covers(checkpoint.begin);
        let (told, behind) = told(set.volumes(), at);
        let found = match behind {
            Some(behind) => search(set, behind, at).into_iter().rev().find(usable),
            None => None,
        };
        Origin { checkpoint: found.or(told.into_iter().find(usable)) }
    }
}

/// Checkpoints that are complete by the moment, the last one first, as far as the volumes tell; and where what lies behind
/// begins, unless it is known that there is none.
fn told(volumes: &[Known], at: Option<Moment>) -> (Vec<Checkpoint>, Option<Begin>) {
    let needed: Vec<_> = volumes.iter().filter(|known| Set::is_needed(known, at)).collect();
    let mut told = Vec::new();
    let mut behind = match needed.first() {
        Some(first) if first.sequence() > 1 => Some(Begin::Volume(first.sequence())),
        Some(_) => Some(Begin::Log),
        None => None,
    };
    let mut found = false;
    for (number, known) in needed.iter().enumerate().rev() {
        let Some((end, position)) = &known.segment_end else { continue };
        let reach = end.segment.get().saturating_add(1).saturating_mul(known.start.segment_size.get());
        let before = match at {
            None => true,
            Some(Moment::Lsn(lsn)) => reach <= lsn,
            // All of it was recorded before the next volume was begun.
            Some(Moment::Time(_)) => number + 1 < needed.len(),
        };
        let checkpoint = Checkpoint::said(end);
        match (checkpoint, at) {
            (Some(checkpoint), _) if before => told.push(checkpoint),
            // The last one before that end, so the last one before the moment.
            (Some(checkpoint), Some(Moment::Lsn(lsn))) if checkpoint.end <= lsn => {
                told.push(checkpoint);
                if !found {
                    (behind, found) = (None, true);
                }
            }
            _ => {}
        }
        if before && !found {
            (behind, found) = (Some(Begin::Within(known.sequence(), *position)), true);
        }
    }
    (told, behind)
}

/// Reads on from there and gives each checkpoint that is complete by the moment, the last one last. Where the log cannot be
/// read any further, the restore will say so.
fn search(set: &Set, begin: Begin, at: Option<Moment>) -> Vec<Checkpoint> {
    let mut log = LogReader::new(set.without_drives(), begin, OnGap::Search);
    log.accept_end(true);
    let mut reader = RecordReader::new(log);
    let mut found = Vec::new();
    while let Ok(Some(record)) = reader.next() {
        let (lsn, end) = (record.lsn(), record.next_lsn());
        let passed = match at {
            Some(Moment::Lsn(at)) => end > at,
            Some(Moment::Time(time)) => record.header().time.get() > time,
            None => false,
        };
        if passed {
            break;
        }
        if let Ok(Event::CheckpointEnd { body }) = record.event() {
            let checkpoint = Checkpoint { begin: body.checkpoint.get(), end };
            if checkpoint.begin < lsn {
                found.push(checkpoint);
            }
        }
    }
    found
}
