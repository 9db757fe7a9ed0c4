// SPDX-License-Identifier: GPL-2.0-or-later

//! Learning a tree from a checkpoint: whatever is done to it meanwhile and in whatever order it is told, from the end
//! record on the tree is known as it is.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod media;
mod model;
mod rules;
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{change, identity, store, Model, Number, Op, ROOT};
use proptest::prelude::*;
use reel::replay::namespace::{Change, Kind, Namespace, ObjectId};
use reelfs_format::record::Lsn;
use reelfs_format::view::RecordView;
use walk::Walk;

/// The tree as a replay knows it, contents in memory.
pub struct Replay {
    pub tree: Namespace,
    contents: HashMap<ObjectId, Vec<u8>>,
    pub lsn: Lsn,
}

impl Replay {
    pub fn new(from: Lsn) -> Self {
        Replay { tree: Namespace::new(), contents: HashMap::new(), lsn: from }
    }

    /// Follows the log up to `end`.
    pub fn follow(&mut self, log: &[u8], end: Lsn) -> Result<(), reel::replay::ReplayError> {
        while self.lsn < end {
            let record = RecordView::parse(&log[self.lsn as usize..], Some(self.lsn)).unwrap();
            let change = self.tree.apply(&record)?;
            for (id, _) in self.tree.take_gone() {
                self.contents.remove(&id);
            }
            self.store(&change);
            self.lsn = record.next_lsn();
        }
        Ok(())
    }

    fn store(&mut self, done: &Change<'_>) {
        let file = match *done {
            Change::None | Change::Gone { .. } => return,
            Change::Write { file, .. }
            | Change::Truncate { file, .. }
            | Change::Fallocate { file, .. }
            | Change::State { file, .. } => file,
        };
        let contents = self.contents.entry(file).or_default();
        match *done {
            Change::Write { offset, data, .. } => store(contents, offset, data),
            Change::Truncate { size, .. } => contents.resize(size as usize, 0),
            Change::Fallocate { mode, offset, length, .. } => change(contents, mode, offset, length),
            Change::State { anew, offset, length, data, size, .. } => {
                if anew {
                    contents.clear();
                }
                match data {
                    Some(data) => store(contents, offset, data),
                    None => {
                        let end = contents.len();
                        contents[end.min(offset as usize)..end.min((offset + length) as usize)].fill(0);
                    }
                }
                if let Some(size) = size {
                    contents.resize(size as usize, 0);
                }
            }
            Change::None | Change::Gone { .. } => {}
        }
    }

    /// Compares with the model, of which this is to be the tree at this place in the log.
    fn compare(&mut self, model: &Model) {
        let root = self.tree.root().unwrap();
        let mut pending = vec![(ROOT, root)];
        let mut seen = BTreeSet::new();
        while let Some((number, id)) = pending.pop() {
            if seen.insert(number) {
                self.compare_object(model, number, id);
            }
            let (names, more) = self.tree.names_after(id, None).unwrap();
            assert!(more.is_none());
            let names: BTreeMap<_, _> = names.into_iter().map(|(name, entry)| (name.to_vec(), entry.object)).collect();
            let entries = &model.objects[&number].entries;
            assert_eq!(names.keys().collect::<Vec<_>>(), entries.keys().collect::<Vec<_>>(), "names in {number}");
            for (name, child) in entries {
                assert_eq!(self.tree.find(&identity(*child)).unwrap(), Some(names[name]), "{name:?} in {number}");
                pending.push((*child, names[name]));
            }
        }
        for number in model.unnamed_objects() {
            let id = self.tree.find(&identity(number)).unwrap().unwrap_or_else(|| panic!("{number} is not known"));
            self.compare_object(model, number, id);
            seen.insert(number);
        }
        assert_eq!(seen.len() as u64, self.tree.len(), "objects");
        assert_eq!(self.tree.unnamed(), model.unnamed_objects().len() as u64);
    }

    fn compare_object(&mut self, model: &Model, number: Number, id: ObjectId) {
        let wanted = &model.objects[&number];
        let found = self.tree.object(id).unwrap().unwrap();
        assert_eq!(found.attr, wanted.attr(), "attributes of {number}");
        let xattrs: BTreeMap<_, _> = found.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        assert_eq!(xattrs, wanted.xattrs, "extended attributes of {number}");
        if let Kind::Symlink(target) = &found.kind {
            assert_eq!(**target, *wanted.target);
        }
        let contents = self.contents.get(&id).map_or(&[][..], Vec::as_slice);
        assert!(contents == wanted.data, "contents of {number}: {} and {} bytes", contents.len(), wanted.data.len());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Work(Op),
    Tell(u32, u32),
    Again(u32),
    Follow(usize),
}

fn op() -> impl Strategy<Value = Op> {
    (0_u8..32, any::<u32>(), any::<u32>(), any::<u32>())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => op().prop_map(Step::Work),
        6 => (any::<u32>(), any::<u32>()).prop_map(|(choice, amount)| Step::Tell(choice, amount)),
        1 => any::<u32>().prop_map(Step::Again),
        2 => (1_usize..40).prop_map(Step::Follow),
    ]
}

/// Works, tells and follows as the steps say, then what is left to be told. The walk's begin record and the LSN behind
/// its end record.
fn checkpoint(model: &mut Model, steps: &[Step], rest: &[(u32, u32)]) -> (Lsn, Lsn) {
    let mut walk = Walk::begin(model);
    for step in steps {
        match *step {
            Step::Work(op) => model.work(op),
            Step::Tell(choice, amount) => drop(walk.step(model, choice, amount)),
            Step::Again(choice) => walk.again(model, choice),
            Step::Follow(records) => walk.follow(model, records),
        }
    }
    let mut rest = rest.iter().cycle();
    while !walk.is_done(model) {
        let (choice, amount) = *rest.next().unwrap();
        walk.step(model, choice, amount);
    }
    model.end(walk.checkpoint);
    (walk.checkpoint, model.log.lsn)
}

fn cases() -> u32 {
    let long = std::env::var("REELFS_TEST_CASES").ok().and_then(|cases| cases.parse().ok());
    long.unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// The heart of it. `REELFS_TEST_CASES=100000` is the long form.
    #[test]
    fn a_checkpoint_gives_the_tree(
        before in prop::collection::vec(op(), 0..60),
        steps in prop::collection::vec(step(), 0..120),
        rest in prop::collection::vec((any::<u32>(), any::<u32>()), 1..20),
        after in prop::collection::vec(op(), 0..30),
    ) {
        let mut model = Model::populated();
        before.into_iter().for_each(|op| model.work(op));
        let (begin, end) = checkpoint(&mut model, &steps, &rest);
        let at_end = model.clone();
        let mut moments = Vec::new();
        for (number, op) in after.into_iter().enumerate() {
            model.work(op);
            if number % 7 == 0 {
                moments.push(model.clone());
            }
        }
        // Another one, that is not needed, changes nothing.
        checkpoint(&mut model, &[], &rest);
        moments.push(model.clone());

        let mut replay = Replay::new(begin);
        replay.follow(&model.log.bytes, end).unwrap();
        prop_assert_eq!(replay.tree.telling(), None);
        replay.compare(&at_end);
        for moment in &moments {
            replay.follow(&model.log.bytes, moment.log.lsn).unwrap();
            replay.compare(moment);
        }
    }
}
