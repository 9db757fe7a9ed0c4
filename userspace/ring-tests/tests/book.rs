// SPDX-License-Identifier: GPL-2.0-or-later
//! Properties of the ring's arithmetic, held against a model that keeps everything in lists.

use proptest::prelude::*;
use reelfs_format::record::RECORD_ALIGN;
use reelfs_format::uapi::QueueEntry;
use reelfs_ring_tests::book::{Book, Claim, Committed, Kept, Line, Need, Queue, Slot, Taken, FIRST_LSN_MAX};
use reelfs_ring_tests::shares::{Share, OTHERS};

const NAME: usize = 7;
const SIZE: usize = 4096;
const SLOTS: usize = 16;
const KEPT: Kept = Kept { bytes: 256, slots: 2 };

struct Entries(Vec<QueueEntry>);

impl Queue for Entries {
    fn entries(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> QueueEntry {
        self.0[index]
    }

    fn set(&mut self, index: usize, entry: QueueEntry) {
        self.0[index] = entry;
    }
}

type TestBook = Book<Vec<Slot>, Entries, Vec<Share>>;

fn shares() -> Vec<Share> {
    vec![Share::EMPTY; 4]
}

fn book_of(size: usize, slots: usize, kept: Kept) -> Option<TestBook> {
    let queue = Entries(vec![QueueEntry::default(); slots]);
    Book::new(NAME, size, kept, vec![Slot::EMPTY; slots], queue, shares())
}

fn book() -> TestBook {
    book_of(SIZE, SLOTS, KEPT).expect("sound numbers")
}

fn need(length: usize) -> Need {
    Need { length, head: 104.min(length), align: 8 }
}

fn commit(book: &mut TestBook, length: usize) -> Committed {
    let taken = book.take(&need(length), Claim::Ordinary).expect("room");
    book.commit(taken, length).expect("it fits")
}

#[test]
fn impossible_rings_are_refused() {
    let kept = Kept::default();
    assert!(book_of(SIZE - 8, SLOTS, kept).is_none(), "size is no power of two");
    assert!(book_of(1 << 33, SLOTS, kept).is_none(), "offsets do not fit an entry");
    assert!(book_of(SIZE, SLOTS - 1, kept).is_none(), "slots are no power of two");
    assert!(book_of(SIZE, SLOTS, Kept { bytes: SIZE, slots: 0 }).is_none(), "all bytes kept");
    assert!(book_of(SIZE, SLOTS, Kept { bytes: 0, slots: SLOTS }).is_none(), "all slots kept");
    let queue = Entries(vec![QueueEntry::default(); SLOTS * 2]);
    assert!(
        Book::new(NAME, SIZE, kept, vec![Slot::EMPTY; SLOTS], queue, shares()).is_none(),
        "no slot for every entry"
    );
}

#[test]
fn impossible_requests_are_refused() {
    let mut book = book();
    let cases = [
        ("length not aligned", Need { length: 100, head: 96, align: 8 }),
        ("head not aligned", Need { length: 104, head: 97, align: 8 }),
        ("head longer than the record", Need { length: 104, head: 112, align: 8 }),
        ("alignment no power of two", Need { length: 104, head: 96, align: 24 }),
        ("alignment too small", Need { length: 104, head: 96, align: 4 }),
        ("alignment zero", Need { length: 104, head: 96, align: 0 }),
        ("longer than half the ring", need(SIZE / 2 + 8)),
        ("overflowing", Need { length: usize::MAX - 7, head: 96, align: 4096 }),
    ];
    for (name, case) in cases {
        assert!(!book.possible(&case), "{name}: possible");
    }
    for (name, case) in &cases[..6] {
        assert!(book.take(case, Claim::Ordinary).is_none(), "{name}: taken");
        assert!(!book.fits(case, Claim::Ordinary), "{name}: fits");
    }
    assert_eq!(book.used(), 0);
}

#[test]
fn a_log_begins_once_and_at_a_sane_place() {
    let mut book = book();
    assert!(!book.begin(4), "not aligned");
    assert!(!book.begin(FIRST_LSN_MAX + 8), "too high");
    assert!(book.begin(FIRST_LSN_MAX), "the highest");
    assert!(book.begin(4096));
    assert_eq!((book.committed(), book.acknowledged()), (4096, 4096));
    assert_eq!(commit(&mut book, 104), Committed { sequence: 0, lsn: 4096, end: 4200 });
    assert!(!book.begin(8192), "after a commit");
}

#[test]
fn those_in_line_are_left_their_room() {
    let mut book = book();
    let room = SIZE - KEPT.bytes;
    let line = Line::default().with(&need(1024)).with(&need(512));
    assert_eq!(line.count(), 2);
    assert!(book.fits_beside(&need(room / 2), &Line::default()));
    commit(&mut book, 1024);
    assert!(book.fits_beside(&need(room - 1024 - 1536), &line));
    assert!(!book.fits_beside(&need(room - 1024 - 1536 + 8), &line));
    assert!(book.fits_beside(&need(room - 1024 - 1536 + 8), &line.without(&need(512))));
    assert_eq!(line.without(&need(512)).without(&need(1024)), Line::default());
    // Slots as well as bytes.
    let many = (0..SLOTS - KEPT.slots - 2).fold(Line::default(), |line, _| line.with(&need(104)));
    assert!(book.fits_beside(&need(104), &many));
    assert!(!book.fits_beside(&need(104), &many.with(&need(104))));
    // Aligned requests count with what the alignment may take.
    let aligned = Line::default().with(&Need { align: 2048, ..need(104) });
    assert!(!book.fits_beside(&need(room - 1024 - 2000), &aligned));
}

#[test]
fn lsns_follow_the_order_of_commits() {
    let mut book = book();
    let first = book.take(&need(256), Claim::Ordinary).expect("room");
    let second = book.take(&need(128), Claim::Ordinary).expect("room");
    assert_eq!(book.commit(second, 128), Ok(Committed { sequence: 0, lsn: 0, end: 128 }));
    assert_eq!(book.commit(first, 256), Ok(Committed { sequence: 1, lsn: 128, end: 384 }));
}

#[test]
fn a_sleeper_keeps_room_and_delays_nothing_else() {
    let mut book = book();
    let asleep = book.take(&need(256), Claim::Ordinary).expect("room");
    let mut end = 0;
    for _ in 0..4 {
        end = commit(&mut book, 512).end;
    }
    assert_eq!(book.acknowledge(end), Ok(()));
    assert!(!book.release(100));
    assert_eq!(book.used(), 256 + 4 * 512, "room comes back in order");
    assert_eq!(book.backlog(), 0, "but all is acknowledged");
    book.abandon(asleep);
    book.release(100);
    assert_eq!(book.used(), 0);
}

#[test]
fn the_ring_fills_up_and_keeps_something_back() {
    let mut book = book();
    let mut taken = 0;
    for length in [512, 128] {
        while book.take(&need(length), Claim::Ordinary).is_some() {
            taken += length;
        }
    }
    assert_eq!(taken, SIZE - KEPT.bytes);
    assert!(!book.fits(&need(104), Claim::Ordinary));
    assert!(book.take(&need(KEPT.bytes), Claim::Kept).is_some());
    assert!(book.take(&need(104), Claim::Kept).is_none(), "full to the last byte");
}

#[test]
fn the_queue_fills_up_and_keeps_something_back() {
    let mut book = book();
    for _ in 0..SLOTS - KEPT.slots {
        commit(&mut book, 104);
    }
    assert!(book.take(&need(104), Claim::Ordinary).is_none());
    for _ in 0..KEPT.slots {
        let taken = book.take(&need(104), Claim::Kept).expect("a slot was kept");
        book.commit(taken, 104).expect("it fits");
    }
    assert!(book.take(&need(104), Claim::Kept).is_none());
    assert_eq!(book.commits() - book.acknowledged_commits(), SLOTS as u64);
    book.acknowledge(104).expect("a boundary");
    book.release(1);
    assert!(book.take(&need(104), Claim::Kept).is_some());
}

#[test]
fn the_newest_room_comes_back_at_once() {
    let mut book = book();
    let taken = book.take(&need(1024), Claim::Ordinary).expect("room");
    book.commit(taken, 128).expect("it fits");
    assert_eq!(book.used(), 128, "what the record did not need");
    let first = book.take(&need(512), Claim::Ordinary).expect("room");
    let second = book.take(&need(512), Claim::Ordinary).expect("room");
    book.abandon(first);
    assert_eq!(book.used(), 128 + 1024, "the second lies behind it");
    book.abandon(second);
    assert_eq!(book.used(), 128, "and both go together");
}

#[test]
fn acknowledgement_takes_boundaries_only() {
    let mut book = book();
    assert_eq!(book.acknowledge(0), Ok(()), "nothing is a boundary too");
    assert!(book.acknowledge(8).is_err());
    for length in [104, 208, 312] {
        commit(&mut book, length);
    }
    for lsn in [1, 8, 103, 105, 311, 313, 623, 625, u64::MAX] {
        assert!(book.acknowledge(lsn).is_err(), "{lsn}");
    }
    assert_eq!(book.acknowledge(312), Ok(()));
    assert_eq!(book.acknowledge(312), Ok(()), "again");
    assert!(book.acknowledge(104).is_err(), "backwards");
    assert_eq!(book.acknowledged_commits(), 2);
    assert_eq!(book.acknowledge(624), Ok(()));
    assert_eq!(book.backlog(), 0);
}

#[test]
fn room_of_another_ring_is_not_taken_for_ours() {
    let queue = Entries(vec![QueueEntry::default(); SLOTS]);
    let mut other = Book::new(NAME + 1, SIZE, KEPT, vec![Slot::EMPTY; SLOTS], queue, shares()).expect("sound");
    let foreign = other.take(&need(104), Claim::Ordinary).expect("room");
    let mut book = book();
    let foreign = book.commit(foreign, 104).expect_err("foreign");
    book.abandon(foreign);
    assert_eq!((book.commits(), book.used()), (0, 0));
}

#[test]
fn a_record_never_outgrows_its_room() {
    let mut book = book();
    let taken = book.take(&need(104), Claim::Ordinary).expect("room");
    let taken = book.commit(taken, 112).expect_err("too long");
    let taken = book.commit(taken, 100).expect_err("not aligned");
    let taken = book.commit(taken, 0).expect_err("empty");
    book.commit(taken, 104).expect("it fits");
}

#[test]
fn what_is_not_decided_yet_is_counted() {
    let mut book = book();
    let first = book.take(&need(256), Claim::Ordinary).expect("room");
    let second = book.take_for(7, &need(256)).expect("room");
    assert_eq!(book.held(), 2);
    book.commit(second, 128).expect("it fits");
    assert_eq!(book.held(), 1);
    book.abandon(first);
    assert_eq!(book.held(), 0);
}

#[test]
fn users_are_kept_apart() {
    let mut book = book();
    let limit = 600;
    assert!(book.within(7, &need(1024), limit), "whoever has nothing may have anything");
    let taken = book.take_for(7, &need(512)).expect("room");
    assert!(book.within(7, &need(88), limit) && !book.within(7, &need(104), limit));
    assert!(book.within(8, &need(104), limit), "another one's affair");
    let end = book.commit(taken, 256).expect("it fits").end;
    assert!(book.within(7, &need(344), limit), "what the record did not need came back");
    assert_eq!(book.acknowledge(end), Ok(()));
    assert_eq!(book.shares().held(7), 256, "until the room can be used again");
    book.release(1);
    assert_eq!(book.shares().held(7), 0);
    book.shares().waits(7);
    let told: Vec<_> = book.shares().list(0).map(|(_, share)| *share).collect();
    assert_eq!(told, [Share { uid: 7, held: 0, bytes: 256, records: 1, waits: 1 }]);
}

#[derive(Clone, Debug)]
enum Step {
    Take { length: usize, head: usize, align: usize, kept: bool },
    Commit { which: usize, shorter: usize },
    Abandon { which: usize },
    Acknowledge { how_many: usize },
    Misacknowledge { lsn: u64 },
    Release { most: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let take = (13usize..160, 0usize..13, 3u32..11, any::<bool>()).prop_map(|(words, head, align, kept)| Step::Take {
        length: words * RECORD_ALIGN,
        head: head * RECORD_ALIGN,
        align: 1 << align,
        kept,
    });
    prop_oneof![
        5 => take,
        4 => (any::<usize>(), 0usize..100).prop_map(|(which, shorter)| Step::Commit { which, shorter }),
        1 => any::<usize>().prop_map(|which| Step::Abandon { which }),
        2 => (0usize..8).prop_map(|how_many| Step::Acknowledge { how_many }),
        1 => (0u64..20000).prop_map(|lsn| Step::Misacknowledge { lsn }),
        3 => (0usize..6).prop_map(|most| Step::Release { most }),
    ]
}

/// Where records are that must not be touched: offset, length, and their content's name.
#[derive(Default)]
struct Model {
    /// What is in each byte of the ring: the number of its record.
    bytes: Vec<Option<u64>>,
    taken: Vec<(Taken, u64)>,
    /// Committed and not acknowledged: number, LSN, length, offset.
    queue: Vec<(u64, u64, usize, usize)>,
    commits: u64,
    acknowledged: u64,
    committed: u64,
    numbers: u64,
}

impl Model {
    fn paint(&mut self, position: u64, length: usize, with: Option<u64>, over: Option<u64>) {
        for at in 0..length {
            let byte = &mut self.bytes[(position as usize + at) % SIZE];
            assert_eq!(*byte, over, "room was given out twice");
            *byte = with;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: room is never given out twice before it came back,
    /// LSNs are dense and in commit order, entries stay until acknowledged, and all room comes
    /// back in the end.
    #[test]
    fn the_book_agrees_with_the_model(first in 0u64..1000, steps in prop::collection::vec(step(), 1..300)) {
        let first = first * RECORD_ALIGN as u64;
        let mut book = book();
        prop_assert!(book.begin(first));
        let mut model =
            Model { bytes: vec![None; SIZE], acknowledged: first, committed: first, ..Model::default() };
        for step in steps {
            match step {
                Step::Take { length, head, align, kept } => {
                    let claim = if kept { Claim::Kept } else { Claim::Ordinary };
                    let request = Need { length, head, align };
                    let fits = book.fits(&request, claim);
                    let taken = book.take(&request, claim);
                    prop_assert!(taken.is_some() || !fits, "what fits can be taken");
                    if let Some(taken) = taken {
                        prop_assert_eq!((taken.position() + head as u64) % align as u64, 0);
                        prop_assert_eq!(taken.length(), length);
                        model.numbers += 1;
                        model.paint(taken.position(), length, Some(model.numbers), None);
                        model.taken.push((taken, model.numbers));
                    }
                }
                Step::Commit { which, shorter } if !model.taken.is_empty() => {
                    let (taken, number) = model.taken.swap_remove(which % model.taken.len());
                    let (position, room) = (taken.position(), taken.length());
                    let length = room.saturating_sub(shorter * RECORD_ALIGN).max(104).min(room);
                    let committed = book.commit(taken, length).expect("it fits");
                    let lsn = model.committed;
                    model.committed += length as u64;
                    prop_assert_eq!(
                        committed,
                        Committed { sequence: model.commits, lsn, end: model.committed }
                    );
                    model.commits += 1;
                    model.paint(position + length as u64, room - length, None, Some(number));
                    model.queue.push((number, lsn, length, position as usize % SIZE));
                }
                Step::Abandon { which } if !model.taken.is_empty() => {
                    let (taken, number) = model.taken.swap_remove(which % model.taken.len());
                    model.paint(taken.position(), taken.length(), None, Some(number));
                    book.abandon(taken);
                }
                Step::Acknowledge { how_many } => {
                    let done: Vec<_> = model.queue.drain(..how_many.min(model.queue.len())).collect();
                    for &(number, lsn, length, offset) in &done {
                        model.paint(offset as u64, length, None, Some(number));
                        model.acknowledged = lsn + length as u64;
                    }
                    prop_assert_eq!(book.acknowledge(model.acknowledged), Ok(()));
                }
                Step::Misacknowledge { lsn } => {
                    let boundary = lsn == model.acknowledged
                        || model.queue.iter().any(|&(_, start, length, _)| start + length as u64 == lsn);
                    if !boundary {
                        prop_assert!(book.acknowledge(lsn).is_err());
                    }
                }
                Step::Release { most } => {
                    book.release(most);
                }
                _ => {}
            }
            prop_assert_eq!(book.committed(), model.committed);
            prop_assert_eq!(book.acknowledged(), model.acknowledged);
            prop_assert_eq!(book.commits() - book.acknowledged_commits(), model.queue.len() as u64);
            prop_assert!(book.used() <= SIZE as u64);
            let live: usize = model.taken.iter().map(|(taken, _)| taken.length()).sum::<usize>()
                + model.queue.iter().map(|&(_, _, length, _)| length).sum::<usize>();
            prop_assert!(book.used() >= live as u64);
        }

        // Everything ends: then everything is free.
        for (taken, _) in model.taken.drain(..) {
            book.abandon(taken);
        }
        prop_assert_eq!(book.acknowledge(model.committed), Ok(()));
        while book.release(1) {}
        prop_assert_eq!(book.used(), 0);
        let whole = Need { length: book.longest(), head: 0, align: 8 };
        prop_assert!(book.fits(&whole, Claim::Ordinary));
    }

    /// However many users there are: what they hold is what the ring holds, and no count is lost.
    #[test]
    fn shares_add_up(steps in prop::collection::vec((0u32..40, 13usize..60, any::<bool>(), any::<bool>()), 1..200)) {
        let mut book = book();
        let mut taken = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        for (uid, words, commit, drain) in steps {
            if let Some(room) = book.take_for(uid, &need(words * RECORD_ALIGN)) {
                taken.push(room);
            }
            if commit && !taken.is_empty() {
                let room = taken.remove(uid as usize % taken.len());
                let length = room.length().min(words * RECORD_ALIGN);
                book.commit(room, length).expect("it fits");
                records += 1;
                bytes += length as u64;
            } else if drain {
                taken.drain(..).for_each(|room| book.abandon(room));
                let end = book.committed();
                prop_assert_eq!(book.acknowledge(end), Ok(()));
                while book.release(1) {}
            }
            let used = book.used();
            let told: Vec<_> = book.shares().list(0).map(|(_, share)| *share).collect();
            prop_assert_eq!(told.iter().map(|share| share.held).sum::<u64>(), used);
            prop_assert_eq!(told.iter().map(|share| share.records).sum::<u64>(), records);
            prop_assert_eq!(told.iter().map(|share| share.bytes).sum::<u64>(), bytes);
            let mut uids: Vec<_> = told.iter().map(|share| share.uid).collect();
            uids.sort_unstable();
            uids.dedup();
            prop_assert_eq!(uids.len(), told.len(), "one entry for each");
            prop_assert!(told.iter().all(|share| share.uid < 40 || share.uid == OTHERS));
        }
    }

    /// The entries that a consumer reads are those of the commits, wherever the queue stands.
    #[test]
    fn entries_are_found_by_their_number(lengths in prop::collection::vec(13usize..60, 1..200)) {
        let queue = Entries(vec![QueueEntry::default(); SLOTS]);
        let mut shadow = vec![QueueEntry::default(); SLOTS];
        let mut book = Book::new(NAME, SIZE, KEPT, vec![Slot::EMPTY; SLOTS], queue, shares()).expect("sound");
        for words in lengths {
            let length = words * RECORD_ALIGN;
            let taken = loop {
                if let Some(taken) = book.take(&need(length), Claim::Ordinary) {
                    break taken;
                }
                let oldest = shadow[book.acknowledged_commits() as usize % SLOTS];
                prop_assert_eq!(oldest.lsn, book.acknowledged());
                prop_assert_eq!(book.acknowledge(oldest.lsn + u64::from(oldest.length)), Ok(()));
                book.release(1);
            };
            let offset = (taken.position() % SIZE as u64) as u32;
            let committed = book.commit(taken, length).expect("it fits");
            shadow[committed.sequence as usize % SLOTS] =
                QueueEntry { lsn: committed.lsn, offset, length: length as u32 };
        }
    }
}
