// SPDX-License-Identifier: GPL-2.0-or-later

//! One checkpoint: everything in the tree is told while the tree is in use.
//!
//! The walk begins with the root and goes by what the log says: the entries of a directory that was told, read back from the
//! spool, and whatever a link or a renaming has named since the beginning. When nothing is due any more, nothing is in use
//! without a name, and the log has been followed to the end of what was told, then everything is known: all directories
//! have been told, so nothing that is not can come into any of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reelfs_format::record::{Identity as RecordIdentity, Lsn, RECORD_DIRECTORY, STATE_LAST};
use reelfs_format::uapi::{State, TELL_DATA, TELL_ENTRIES, TELL_OBJECT};
use reelfs_format::view::{Event, RecordView};
use reelfs_spool::{Records, Spool};
use reelfs_sys::teller::{Identity, Teller};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::list::{List, ListError};

/// Bytes of the log that one call may fill.
const PART: u64 = 4 << 20;
/// Bytes that are read from the spool at once.
const CHUNK: usize = 4 << 20;
/// Between two looks at what is waited for.
const STEP: Duration = Duration::from_millis(10);
/// How long a record may take that says why an object is not there.
const PATIENCE: Duration = Duration::from_secs(60);

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;

/// The kernel's side of a checkpoint.
pub trait Kernel {
    /// See [`Teller::tell`].
    fn tell(&mut self, state: &mut State) -> std::io::Result<()>;
    /// See [`Teller::unnamed`].
    fn unnamed(&mut self, after: &Identity) -> std::io::Result<Vec<Identity>>;
}

impl Kernel for Teller {
    fn tell(&mut self, state: &mut State) -> std::io::Result<()> {
        Teller::tell(self, state)
    }

    fn unnamed(&mut self, after: &Identity) -> std::io::Result<Vec<Identity>> {
        Teller::unnamed(self, after)
    }
}

/// What the walk has to know of the daemon around it.
pub trait Around {
    /// All below is in the spool: a boundary of records.
    fn spooled(&self) -> Lsn;
    /// Whether others need the room that telling more would take. `told` is the LSN behind what was told last.
    fn must_yield(&self, told: Lsn) -> bool;
    /// Whether the walk is to end.
    fn cancelled(&self) -> bool;
    /// How far it has come.
    fn progress(&self, progress: &Progress);
}

/// How far a walk has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects told.
    pub objects: u64,
    /// Bytes of contents told.
    pub bytes: u64,
    /// Objects that are known and not told.
    pub due: u64,
    /// It lets others have the room.
    pub yields: bool,
}

/// Why a walk ended before everything was told.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// It was told to.
    #[error("it was stopped")]
    Cancelled,
    /// The kernel has ended the checkpoint, or the log says something that ends it.
    #[error("it was ended by a gap of the log, or because the mount went")]
    Ended,
    /// An object cannot be read: the tree cannot be told.
    #[error("object {object} cannot be told ({doing}): {source}")]
    Object {
        /// Identity of the object.
        object: String,
        /// What was asked for.
        doing: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel refuses something that concerns no object.
    #[error("asking for objects without a name: {0}")]
    Unnamed(std::io::Error),
    /// Objects are in directories and not there.
    #[error("{0} objects that directories name are not there, and the log does not say that they went")]
    Missing(u64),
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] reelfs_spool::SpoolError),
    /// The list cannot be kept.
    #[error(transparent)]
    List(#[from] ListError),
    /// A record is not right.
    #[error("record at LSN {0:#x} cannot be taken apart")]
    Record(Lsn),
}

type Result<T> = std::result::Result<T, WalkError>;

/// A walk.
pub struct Walk<'a, K> {
    kernel: K,
    around: &'a dyn Around,
    checkpoint: Lsn,
    root: Identity,
    list: List,
    records: Records<Arc<Spool>>,
    /// LSN behind what was told last.
    told: Lsn,
    progress: Progress,
}

impl<'a, K: Kernel> Walk<'a, K> {
    /// Will tell the tree whose root is `root`, for the checkpoint that begins at `checkpoint`.
    pub fn new(kernel: K, around: &'a dyn Around, spool: Arc<Spool>, checkpoint: Lsn, root: &Identity) -> Result<Self> {
        let mut list = List::new(spool.path())?;
        list.add(root)?;
        let records = Records::new(spool, checkpoint, CHUNK);
        Ok(Walk {
            kernel,
            around,
            checkpoint,
            root: *root,
            list,
            records,
            told: checkpoint,
            progress: Progress::default(),
        })
    }

    /// Tells everything. How much that was.
    pub fn run(&mut self) -> Result<Progress> {
        let mut missing_since = None;
        loop {
            self.follow(self.around.spooled())?;
            if let Some((object, unnamed)) = self.list.take()? {
                match self.tell(&object)? {
                    true => self.list.told(&object)?,
                    // It went between being named and being told: a record has said that, or will.
                    false => self.list.not_there(&object, unnamed)?,
                }
                continue;
            }
            if self.find_unnamed()? {
                continue;
            }
            self.follow_all()?;
            if self.list.due() > 0 {
                continue;
            }
            let missing = self.list.missing();
            if missing == 0 {
                return Ok(self.progress);
            }
            // The record is on its way.
            if missing_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Err(WalkError::Missing(missing));
            }
            self.pause()?;
        }
    }

    fn pause(&self) -> Result<()> {
        if self.around.cancelled() {
            return Err(WalkError::Cancelled);
        }
        std::thread::sleep(STEP);
        Ok(())
    }

    /// Waits while others need the room.
    fn wait_for_room(&mut self) -> Result<()> {
        self.progress.due = self.list.due();
        while self.around.must_yield(self.told) {
            self.progress.yields = true;
            self.around.progress(&self.progress);
            self.pause()?;
            self.follow(self.around.spooled())?;
        }
        self.progress.yields = false;
        self.around.progress(&self.progress);
        if self.around.cancelled() {
            return Err(WalkError::Cancelled);
        }
        Ok(())
    }

    /// Tells one object, all of it; false if it is not there.
    fn tell(&mut self, object: &Identity) -> Result<bool> {
        let mut state = State { what: TELL_OBJECT, checkpoint: self.checkpoint, object: *object, ..State::default() };
        if !self.ask(&mut state, "attributes")? {
            return Ok(false);
        }
        self.progress.objects += 1;
        let (what, doing) = match state.mode & S_IFMT {
            S_IFREG => (TELL_DATA, "contents"),
            S_IFDIR => (TELL_ENTRIES, "entries"),
            _ => return Ok(true),
        };
        let mut state = State { what, length: PART, ..state };
        (state.position, state.shifts, state.flags) = (0, 0, 0);
        while state.flags & STATE_LAST == 0 {
            if !self.ask(&mut state, doing)? {
                return Ok(false);
            }
            if what == TELL_DATA {
                self.progress.bytes += state.amount;
            }
            self.follow(self.around.spooled())?;
        }
        Ok(true)
    }

    /// Asks the kernel; false if there is no such object.
    fn ask(&mut self, state: &mut State, doing: &'static str) -> Result<bool> {
        loop {
            self.wait_for_room()?;
            let before = *state;
            let error = match self.kernel.tell(state) {
                Ok(()) => {
                    self.told = self.told.max(state.lsn);
                    return Ok(true);
                }
                Err(error) => error,
            };
            *state = before;
            match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => return Ok(false),
                // Contents were shifted: told anew. Else the log takes no records now.
                Some(Errno::AGAIN) if state.position != 0 && state.what == TELL_DATA => {
                    (state.position, state.shifts) = (0, 0);
                }
                Some(Errno::AGAIN | Errno::INTR) => self.pause()?,
                Some(Errno::STALE | Errno::NODEV | Errno::NOTCONN) => return Err(WalkError::Ended),
                _ => return Err(WalkError::Object { object: hex::encode(state.object), doing, source: error }),
            }
        }
    }

    /// Looks for objects that are in use and have no name; whether there was one that has to be told. Most have been made
    /// since the beginning, and the log will say so: it is followed behind them before they are judged.
    fn find_unnamed(&mut self) -> Result<bool> {
        let (mut after, mut found) = ([0; 32], false);
        loop {
            let part = self.kernel.unnamed(&after).map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::STALE | Errno::NODEV | Errno::NOTCONN) => WalkError::Ended,
                _ => WalkError::Unnamed(error),
            })?;
            for object in &part {
                found |= self.list.suspect(object)?;
            }
            match part.last() {
                Some(last) => after = *last,
                None => break,
            }
            if self.around.cancelled() {
                return Err(WalkError::Cancelled);
            }
        }
        if !found {
            return Ok(false);
        }
        // Whatever is told now stands behind all that was done by now.
        let root = self.root;
        let mut state = State { what: TELL_OBJECT, checkpoint: self.checkpoint, object: root, ..State::default() };
        self.ask(&mut state, "attributes")?;
        self.follow_all()?;
        Ok(self.list.judge_suspects()?)
    }

    /// Follows the log to the end of what was told.
    fn follow_all(&mut self) -> Result<()> {
        loop {
            self.follow(self.around.spooled())?;
            if self.records.lsn() >= self.told {
                return Ok(());
            }
            self.pause()?;
        }
    }

    /// Follows the log up to `end`.
    fn follow(&mut self, end: Lsn) -> Result<()> {
        let checkpoint = self.checkpoint;
        while self.records.lsn() < end {
            let (mut lsn, run) = self.records.next_run(end)?;
            let mut rest = run;
            if rest.is_empty() {
                return Ok(());
            }
            while !rest.is_empty() {
                let record = RecordView::again(rest).map_err(|_| WalkError::Record(lsn))?;
                note(&mut self.list, checkpoint, &record)?;
                lsn = record.next_lsn();
                rest = rest.get(record.bytes().len()..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn bytes(identity: &RecordIdentity) -> Identity {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(identity.as_bytes());
    bytes
}

/// What a record means for what is due.
fn note(list: &mut List, checkpoint: Lsn, record: &RecordView<'_>) -> Result<()> {
    let object = bytes(&record.header().object);
    let event = record.event().map_err(|_| WalkError::Record(record.lsn()))?;
    match event {
        Event::Create { .. } => list.made(&object)?,
        Event::Link { .. } => drop(list.add(&object)?),
        Event::Rename { body, .. } => {
            list.add(&object)?;
            if !body.other.is_none() {
                match body.other_attr.nlink.get() {
                    0 => list.over(&bytes(&body.other))?,
                    _ => drop(list.add(&bytes(&body.other))?),
                }
            }
            if !body.whiteout.is_none() {
                list.made(&bytes(&body.whiteout))?;
            }
        }
        Event::Unlink { body, .. } => {
            if body.attr.nlink.get() == 0 || record.header().flags.get() & RECORD_DIRECTORY != 0 {
                list.over(&object)?;
            }
        }
        Event::ObjectGone => list.gone(&object)?,
        Event::DirectoryState { body, entries } if body.checkpoint.get() == checkpoint => {
            for (entry, _) in entries {
                list.add(&bytes(&entry.object))?;
            }
        }
        Event::CheckpointBegin { .. } if record.lsn() != checkpoint => return Err(WalkError::Ended),
        Event::Gap { .. } | Event::GapEnd { .. } | Event::Mount { .. } | Event::Unmount => {
            return Err(WalkError::Ended)
        }
        _ => {}
    }
    Ok(())
}
