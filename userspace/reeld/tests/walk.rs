// SPDX-License-Identifier: GPL-2.0-or-later

//! The walk of a checkpoint over a tree in memory that others work on, through a real spool: what it puts into the log is
//! a checkpoint that a restore accepts.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../reel/tests/states/model.rs"]
#[allow(dead_code)]
mod model;

use std::cell::RefCell;
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;

use model::{identity, number, Model, Op, ROOT};
use proptest::prelude::*;
use reel::replay::namespace::Namespace;
use reeld::checkpoint::walk::{Around, Kernel, Progress, Walk, WalkError};
use reelfs_format::record::{Identity, Lsn, STATE_LAST};
use reelfs_format::uapi::{State, TELL_DATA, TELL_ENTRIES, TELL_OBJECT, UNNAMED_MAX};
use reelfs_format::view::RecordView;
use reelfs_spool::{SegmentSource, Spool, Writer};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

struct Segments(Arc<Spool>);

impl SegmentSource for Segments {
    fn take(&mut self, number: u64) -> Option<File> {
        self.0.prepare(number).ok()
    }
}

/// A tree, what others are going to do to it, and the spool that its log goes to.
struct Ground {
    model: Model,
    work: Vec<Op>,
    writer: Writer,
    segments: Segments,
    /// Calls so far; the spool is behind for some of them.
    calls: u32,
    stop_at: Option<u32>,
    progress: Progress,
}

impl Ground {
    fn work(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(op) = self.work.pop() {
                self.model.work(op);
            }
        }
    }

    fn flush(&mut self) -> Lsn {
        let end = self.model.log.lsn;
        while self.writer.end() < end {
            let record = RecordView::parse(&self.model.log.bytes[self.writer.end() as usize..], None).unwrap();
            if self.writer.push(record.bytes()).is_err() {
                self.writer.flush(&mut self.segments, 1).unwrap();
            }
        }
        self.writer.flush(&mut self.segments, 1).unwrap();
        end
    }
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Ground>>);

impl Kernel for Shared {
    fn tell(&mut self, state: &mut State) -> std::io::Result<()> {
        let mut ground = self.0.borrow_mut();
        ground.calls += 1;
        let busy = 1 + ground.calls as usize % 3;
        ground.work(busy);
        let object = number(&Identity::read_from_bytes(&state.object).unwrap());
        let model = &mut ground.model;
        let Some(found) = model.objects.get(&object) else { return Err(Errno::NOENT.into()) };
        state.mode = found.attr().mode.get();
        let (checkpoint, next) = (
            state.checkpoint,
            match state.what {
                TELL_OBJECT => {
                    model.tell_object(state.checkpoint, object);
                    None
                }
                TELL_DATA => {
                    let mut shifts = state.shifts;
                    let told = model.tell_data(state.checkpoint, object, state.position, &mut shifts, 5000);
                    state.shifts = shifts;
                    told.map_err(|()| Errno::AGAIN)?
                }
                TELL_ENTRIES => model.tell_entries(state.checkpoint, object, state.position, 2),
                _ => return Err(Errno::PROTO.into()),
            },
        );
        assert!(checkpoint < model.log.lsn);
        state.flags = if next.is_none() { STATE_LAST } else { 0 };
        state.position = next.unwrap_or(0);
        state.lsn = model.log.lsn;
        Ok(())
    }

    fn unnamed(&mut self, after: &[u8; 32]) -> std::io::Result<Vec<[u8; 32]>> {
        let mut ground = self.0.borrow_mut();
        ground.work(1);
        let all = ground.model.unnamed_objects();
        let mut all: Vec<[u8; 32]> =
            all.into_iter().map(|number| identity(number).as_bytes().try_into().unwrap()).collect();
        all.sort_unstable();
        all.retain(|object| object > after);
        all.truncate(UNNAMED_MAX);
        Ok(all)
    }
}

impl Around for Shared {
    fn spooled(&self) -> Lsn {
        let mut ground = self.0.borrow_mut();
        // Mostly behind.
        if ground.calls % 4 == 0 || ground.work.is_empty() {
            return ground.flush();
        }
        ground.calls += 1;
        ground.writer.durable()
    }

    fn must_yield(&self, _: Lsn) -> bool {
        let mut ground = self.0.borrow_mut();
        ground.calls += 1;
        ground.calls % 17 == 0
    }

    fn cancelled(&self) -> bool {
        let ground = self.0.borrow();
        ground.stop_at.is_some_and(|stop| ground.calls > stop)
    }

    fn progress(&self, progress: &Progress) {
        self.0.borrow_mut().progress = *progress;
    }
}

fn op() -> impl Strategy<Value = Op> {
    (0_u8..32, any::<u32>(), any::<u32>(), any::<u32>())
}

fn ground(directory: &std::path::Path, before: Vec<Op>, work: Vec<Op>, stop_at: Option<u32>) -> (Shared, Arc<Spool>) {
    let mut model = Model::populated();
    before.into_iter().for_each(|op| model.work(op));
    let (spool, _) = Spool::open_or_create(directory, 4 << 20).unwrap();
    let recovered = spool.recover().unwrap();
    let writer = Writer::new(&spool, &recovered).unwrap();
    let spool = Arc::new(spool);
    let segments = Segments(spool.clone());
    let ground = Ground { model, work, writer, segments, calls: 0, stop_at, progress: Progress::default() };
    (Shared(Rc::new(RefCell::new(ground))), spool)
}

fn root() -> [u8; 32] {
    identity(ROOT).as_bytes().try_into().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn everything_is_told(
        before in prop::collection::vec(op(), 0..80),
        work in prop::collection::vec(op(), 0..200),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (shared, spool) = ground(directory.path(), before, work, None);
        let begin = shared.0.borrow_mut().model.begin();
        let progress = Walk::new(shared.clone(), &shared, spool, begin, &root()).unwrap().run().unwrap();
        let mut ground = shared.0.borrow_mut();
        ground.model.end(begin);
        prop_assert!(progress.objects >= 1);

        let mut tree = Namespace::new();
        let mut at = begin as usize;
        while at < ground.model.log.bytes.len() {
            let record = RecordView::parse(&ground.model.log.bytes[at..], None).unwrap();
            tree.apply(&record).unwrap();
            at += record.bytes().len();
        }
        prop_assert_eq!(tree.telling(), None);
        prop_assert_eq!(tree.len(), ground.model.objects.len() as u64);
    }
}

#[test]
fn one_that_is_stopped_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let before = (0..40).map(|number| (0, number, number, number)).collect();
    let (shared, spool) = ground(directory.path(), before, Vec::new(), Some(20));
    let begin = shared.0.borrow_mut().model.begin();
    let outcome = Walk::new(shared.clone(), &shared, spool, begin, &root()).unwrap().run();
    assert!(matches!(outcome, Err(WalkError::Cancelled)), "{outcome:?}");
    assert!(shared.0.borrow().progress.objects > 0);
}

#[test]
fn a_gap_ends_it() {
    use reelfs_format::build::Payload;
    use reelfs_format::record::{GapBody, RecordType};
    use zerocopy::FromZeros;

    let directory = tempfile::tempdir().unwrap();
    let (shared, spool) = ground(directory.path(), vec![(0, 1, 1, 1)], Vec::new(), None);
    let begin = {
        let mut ground = shared.0.borrow_mut();
        let begin = ground.model.begin();
        let log = &mut ground.model.log;
        log.push(RecordType::Gap, 0, Identity::NONE, &GapBody::new_zeroed(), &Payload::new()).unwrap();
        begin
    };
    let outcome = Walk::new(shared.clone(), &shared, spool, begin, &root()).unwrap().run();
    assert!(matches!(outcome, Err(WalkError::Ended)), "{outcome:?}");
}
