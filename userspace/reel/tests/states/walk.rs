// SPDX-License-Identifier: GPL-2.0-or-later

//! The walk of a checkpoint over the model, a step at a time and in whatever order is asked for.

use std::collections::BTreeSet;

use reelfs_format::record::Lsn;
use reelfs_format::view::{Event, RecordView};

use super::model::{number, Model, Number, ROOT};

#[derive(Clone, Copy, Debug)]
enum Phase {
    Object,
    Data { position: u64, shifts: u64 },
    Entries { position: u64 },
}

pub struct Walk {
    pub checkpoint: Lsn,
    pending: Vec<(Number, Phase)>,
    /// Told, about to be told, or made since the beginning.
    known: BTreeSet<Number>,
    /// How far the log has been followed.
    followed: Lsn,
}

impl Walk {
    pub fn begin(model: &mut Model) -> Self {
        let checkpoint = model.begin();
        let known = BTreeSet::from([ROOT]);
        Walk { checkpoint, pending: vec![(ROOT, Phase::Object)], known, followed: checkpoint }
    }

    fn add(&mut self, found: Number) {
        if self.known.insert(found) {
            self.pending.push((found, Phase::Object));
        }
    }

    /// Follows the log, at most so many records.
    pub fn follow(&mut self, model: &Model, records: usize) {
        for _ in 0..records {
            let Ok(record) = RecordView::parse(&model.log.bytes[self.followed as usize..], Some(self.followed)) else {
                return;
            };
            let object = record.header().object;
            match record.event().unwrap() {
                Event::Create { .. } => drop(self.known.insert(number(&object))),
                Event::Link { .. } => self.add(number(&object)),
                Event::Rename { body, whiteout, .. } => {
                    self.add(number(&object));
                    if !body.other.is_none() {
                        self.add(number(&body.other));
                    }
                    if whiteout.is_some() {
                        self.known.insert(number(&body.whiteout));
                    }
                }
                Event::DirectoryState { entries, .. } => entries.for_each(|(entry, _)| self.add(number(&entry.object))),
                _ => {}
            }
            self.followed = record.next_lsn();
        }
    }

    /// Tells a part of one of the objects that are due; false if none is.
    pub fn step(&mut self, model: &mut Model, choice: u32, amount: u32) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let at = choice as usize % self.pending.len();
        let (object, phase) = self.pending.swap_remove(at);
        let Some(found) = model.objects.get(&object) else { return true };
        let (is_file, is_directory) = (found.is_file(), found.is_directory());
        let next = match phase {
            Phase::Object => {
                model.tell_object(self.checkpoint, object);
                match (is_file, is_directory) {
                    (true, _) => Some(Phase::Data { position: 0, shifts: 0 }),
                    (_, true) => Some(Phase::Entries { position: 0 }),
                    _ => None,
                }
            }
            Phase::Data { position, mut shifts } => {
                let length = 1 + u64::from(amount) % 12_000;
                match model.tell_data(self.checkpoint, object, position, &mut shifts, length) {
                    Ok(next) => next.map(|position| Phase::Data { position, shifts }),
                    Err(()) => Some(Phase::Data { position: 0, shifts: 0 }),
                }
            }
            Phase::Entries { position } => {
                let next = model.tell_entries(self.checkpoint, object, position, 1 + amount as usize % 3);
                next.map(|position| Phase::Entries { position })
            }
        };
        self.pending.extend(next.map(|phase| (object, phase)));
        true
    }

    /// Tells an object again that has been told.
    pub fn again(&mut self, model: &Model, choice: u32) {
        let told: Vec<_> = model.objects.keys().filter(|number| self.known.contains(number)).copied().collect();
        let found = told.get(choice as usize % told.len().max(1));
        if let Some(found) = found.filter(|found| !self.pending.iter().any(|(pending, _)| pending == *found)) {
            self.pending.push((*found, Phase::Object));
        }
    }

    /// Whether all has been told: nothing is due, nothing without a name has been overlooked, and the log names nothing.
    pub fn is_done(&mut self, model: &Model) -> bool {
        for found in model.unnamed_objects() {
            self.add(found);
        }
        self.follow(model, usize::MAX);
        self.pending.is_empty()
    }
}
