// SPDX-License-Identifier: GPL-2.0

//! Files that are mapped so that stores may come: which those are, and when their stores are captured.
//!
//! [`notes`](super::notes) says where a file may differ from the log, and captures that. This file decides when: in tasks
//! that ask for durability, and in the mount's background work, which runs every `flush=` seconds, after the last
//! unmapping of a file, and when a file has many notes. A file with notes stays in memory by the reference in
//! [`Mappings`].
//!
//! Lock order: the file's lock, then the list ([`Mappings`]), then notes. The list is taken under `mmap_lock` too.

use super::{
    insist::insist,
    notes::{capture, capture_unlocked, Full, Notes, WHOLE},
    ReelFs,
};
use crate::vfs::{File, Inode, Locked, Mapping, SuperBlock, Watch};
use core::ops::Range;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{aref::ARef, Arc, Mutex},
    time::{delay::fsleep, msecs_to_jiffies, Delta, Instant, Jiffies, Monotonic},
};

/// Files that may wait to be captured when nobody maps them any more, before mapping another one is refused.
const WAITING_MAX: usize = 4096;
/// For how long unmounting waits for devices that have memory of a file, in tenths of a second.
const PINNED_PATIENCE: u32 = 100;

/// The files of a mount that are mapped for stores, or were, and have notes.
#[pin_data]
pub(crate) struct Mappings {
    #[pin]
    list: Mutex<List>,
}

struct List {
    files: KVVec<ARef<Inode<ReelFs>>>,
    /// When everything was captured last.
    last_capture: Instant<Monotonic>,
    /// The mount is on its way out: nothing may be left.
    closing: bool,
}

/// What the background work is to capture.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    /// What nobody maps any more, and what has many notes.
    Some,
    /// Everything.
    All,
    /// Everything, and for the last time.
    Last,
}

impl Mappings {
    /// An empty list.
    pub(super) fn new() -> Result<Arc<Self>> {
        let list = List { files: KVVec::new(), last_capture: Instant::now(), closing: false };
        Arc::pin_init(pin_init!(Self { list <- new_mutex!(list, "reelfs_mappings") }), GFP_KERNEL)
    }

    /// Counts another area of a file, which is in the list from now on. `ENOMEM` too if too many files wait to be captured.
    fn enter(&self, inode: &Inode<ReelFs>) -> Result {
        let mut list = self.list.lock();
        let notes = inode.data().notes_or(Notes::new)?;
        if !notes.is_listed() {
            if list.files.len() >= WAITING_MAX && list.waiting() >= WAITING_MAX {
                return Err(ENOMEM);
            }
            list.files.push(inode.into(), GFP_KERNEL)?;
            notes.set_listed(true);
        }
        notes.add_area();
        Ok(())
    }

    /// Returns the file at this place of the list.
    fn get(&self, index: usize) -> Option<ARef<Inode<ReelFs>>> {
        self.list.lock().files.get(index).cloned()
    }

    /// Takes a file out of the list if nobody maps it and nothing is noted; the last one of the list takes its place.
    ///
    /// With the file's lock, so that nobody is capturing: who cannot finish notes anew.
    fn leave(&self, inode: &Locked<'_, ReelFs>, index: usize) -> bool {
        let Some(notes) = inode.data().notes() else { return false };
        let mut list = self.list.lock();
        let here = list.files.get(index).is_some_and(|file| core::ptr::eq::<Inode<ReelFs>>(&**file, &**inode));
        if !here || notes.is_mapped() || !notes.is_empty() {
            return false;
        }
        notes.set_listed(false);
        let last = list.files.len().saturating_sub(1);
        list.files.swap(index, last);
        let left = list.files.pop();
        drop(list);
        drop(left);
        true
    }

    /// What is to be captured now, with `flush` seconds between two captures of everything. Where that is due, the next
    /// period begins.
    fn due(&self, flush: u32) -> Due {
        let mut list = self.list.lock();
        if list.closing {
            return Due::Last;
        }
        if list.last_capture.elapsed().as_nanos() < Delta::from_secs(flush.into()).as_nanos() {
            return Due::Some;
        }
        list.last_capture = Instant::now();
        Due::All
    }
}

impl List {
    /// How many files nobody maps.
    fn waiting(&self) -> usize {
        let unmapped = |inode: &&ARef<Inode<ReelFs>>| inode.data().notes().is_some_and(|notes| !notes.is_mapped());
        self.files.iter().filter(unmapped).count()
    }
}

/// How the kernel tells of stores.
struct Stores;

impl Watch for Stores {
    type Fs = ReelFs;

    fn area_added(inode: &Inode<ReelFs>) {
        if let Some(notes) = inode.data().notes() {
            notes.add_area();
        }
    }

    fn area_gone(inode: &Inode<ReelFs>) {
        if let Some(notes) = inode.data().notes() {
            if notes.remove_area() {
                inode.superblock().run_background();
            }
        }
    }

    fn may_store(inode: &Inode<ReelFs>, range: Range<u64>) {
        if let Some(notes) = inode.data().notes() {
            notes.add(range);
            if notes.are_many() {
                inode.superblock().run_background();
            }
        }
    }

    fn touched(inode: &Inode<ReelFs>) {
        if let Some(notes) = inode.data().notes() {
            notes.set_touched(true);
        }
    }
}

/// Maps a file so that stores may come through the mapping.
pub(super) fn map(file: &File<ReelFs>, mapping: &mut Mapping<'_>) -> Result {
    let inode = file.inode();
    let sb = inode.superblock();
    let mappings = sb.data().mappings();
    mappings.enter(inode)?;
    let result = mapping.map_watched::<Stores>(file);
    if result.is_err() {
        Stores::area_gone(inode);
    }
    sb.run_background_in(period(sb));
    result
}

/// The time between two captures of everything, as `flush=` says now.
fn period(sb: &SuperBlock<ReelFs>) -> Jiffies {
    msecs_to_jiffies(sb.data().flush().saturating_mul(1000))
}

/// Captures everything of a mount; goes on after an error, and returns the first.
pub(super) fn capture_all(sb: &SuperBlock<ReelFs>) -> Result {
    let mappings = sb.data().mappings();
    let mut result = Ok(());
    // Backwards: whoever takes the place of a file that leaves meanwhile has been seen.
    let mut index = mappings.list.lock().files.len();
    while index > 0 {
        index -= 1;
        if let Some(inode) = mappings.get(index) {
            result = result.and(capture_unlocked(&inode, WHOLE));
        }
    }
    result
}

/// What the mount does every now and then. What could not be captured stays noted, and is tried again.
///
/// Freezing has captured everything, and nothing can be stored any more: until it is thawed, the log stands still too.
pub(super) fn background(sb: &SuperBlock<ReelFs>) {
    let mappings = sb.data().mappings();
    let Some(_thawed) = sb.try_keep_thawed() else {
        sb.run_background_in(period(sb));
        return;
    };
    let due = mappings.due(sb.data().flush());
    let mut index = 0;
    while let Some(inode) = mappings.get(index) {
        let Some(notes) = inode.data().notes() else { break };
        // An object without a name that only the list and this function know is gone, and its contents with it.
        if inode.nlink() == 0 && !notes.is_mapped() && inode.references() <= 2 {
            notes.clear();
        }
        if due == Due::All || !notes.is_mapped() {
            notes.ripen();
        }
        if due == Due::Last {
            finish(sb, &inode, notes);
        } else if due == Due::All || !notes.is_mapped() || notes.are_many() {
            let _ = capture_unlocked(&inode, WHOLE);
        }
        let done = !notes.is_mapped() && notes.is_empty();
        if !(done && inode.lock_killable().is_ok_and(|locked| mappings.leave(&locked, index))) {
            index += 1;
        }
    }
    if index > 0 {
        sb.run_background_in(period(sb));
    }
}

/// Unmounting begins: captures what is left, and lets go of all files.
pub(super) fn unmounting(sb: &SuperBlock<ReelFs>) {
    let data = sb.data();
    let mappings = data.mappings();
    // What there is room for does not depend on somebody who makes some.
    let mut index = 0;
    while let Some(inode) = mappings.get(index) {
        if let Ok(locked) = inode.lock_killable() {
            let _ = capture(&locked, WHOLE, Full::Leave);
        }
        index += 1;
    }
    data.log().closing();
    mappings.list.lock().closing = true;
    // There, because whoever unmounts may be killed, and this must not end half-way.
    sb.run_background();
    sb.stop_background();
    let files = core::mem::take(&mut mappings.list.lock().files);
    drop(files);
}

/// Captures all of a file that nobody maps any more, for the last time; waits for those who still have its memory.
fn finish(sb: &SuperBlock<ReelFs>, inode: &Inode<ReelFs>, notes: &Notes) {
    for _ in 0..PINNED_PATIENCE {
        notes.ripen();
        if notes.is_empty() || insist(|| capture_unlocked(inode, WHOLE)).is_err() {
            break;
        }
        if !notes.is_empty() {
            fsleep(Delta::from_millis(100));
        }
    }
    if !notes.is_empty() {
        sb.data().lost("stores through a mapping could not be recorded");
        notes.clear();
    }
}
