// SPDX-License-Identifier: GPL-2.0-or-later

//! Which objects a walk knows, and which of them are due: on disk, in a file without a name, so that neither memory nor the
//! next start has anything to do with how large the tree is.

use std::fs::File;
use std::path::Path;

use redb::{Builder, Database, Durability, ReadableTable, TableDefinition, WriteTransaction};
use reelfs_sys::teller::Identity;
use rustix::fs::{openat, Mode, OFlags, CWD};

/// What is known of an object, one of the constants below.
const KNOWN: TableDefinition<'_, &[u8; 32], u8> = TableDefinition::new("known");
/// Objects that became due, in that order; some of them are not due any more.
const QUEUE: TableDefinition<'_, u64, &[u8; 32]> = TableDefinition::new("queue");

/// Objects in use without a name, of which no record has said where they come from.
const SUSPECTS: TableDefinition<'_, &[u8; 32], ()> = TableDefinition::new("suspects");

/// It has to be told.
const DUE: u8 = 0;
/// It has been told, or made since the beginning.
const TOLD: u8 = 1;
/// It was not there, and no record has said why.
const MISSING: u8 = 2;
/// A record says that it has lost its last name.
const OVER: u8 = 3;
/// It has to be told; it was in use without a name, so it may as well go.
const DUE_UNNAMED: u8 = 4;

/// It is being told.
const TELLING: u8 = 5;

/// Memory for the database, in bytes.
const CACHE: usize = 4 << 20;
/// Changes that are committed together.
const BATCH: u32 = 10_000;

/// Why the list cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("the list of a checkpoint in {}: {source}", .directory.display())]
pub struct ListError {
    directory: std::path::PathBuf,
    source: redb::Error,
}

type Result<T> = std::result::Result<T, redb::Error>;

struct Tables<'t> {
    known: redb::Table<'t, &'static [u8; 32], u8>,
    queue: redb::Table<'t, u64, &'static [u8; 32]>,
    suspects: redb::Table<'t, &'static [u8; 32], ()>,
}

impl Tables<'_> {
    fn state(&self, object: &Identity) -> Result<Option<u8>> {
        Ok(self.known.get(object)?.map(|state| state.value()))
    }
}

/// The list.
pub struct List {
    directory: std::path::PathBuf,
    /// Before `database`, which waits for it when it is dropped.
    open: Option<WriteTransaction>,
    database: Database,
    changes: u32,
    next: u64,
    due: u64,
    missing: u64,
}

impl List {
    /// An empty one, in a file without a name in `directory`.
    pub fn new(directory: &Path) -> std::result::Result<Self, ListError> {
        let new = || -> Result<Self> {
            let database = Builder::new().set_cache_size(CACHE).create_file(nameless(directory)?)?;
            let directory = directory.to_owned();
            Ok(List { directory, database, open: None, changes: 0, next: 0, due: 0, missing: 0 })
        };
        new().map_err(|source| ListError { directory: directory.to_owned(), source })
    }

    /// How many objects are due.
    pub fn due(&self) -> u64 {
        self.due
    }

    /// How many objects were not there although no record has said that they went.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// The object has to be told, if it has not been; whether that is new.
    pub fn add(&mut self, object: &Identity) -> std::result::Result<bool, ListError> {
        self.change(|tables, list| match tables.state(object)? {
            Some(DUE | TELLING | TOLD) => Ok(false),
            before => list.enqueue(tables, object, before, DUE),
        })
    }

    /// The object is in use and has no name. Where it comes from, a record may say that has not been followed yet.
    pub fn suspect(&mut self, object: &Identity) -> std::result::Result<bool, ListError> {
        self.change(|tables, _| match tables.state(object)? {
            None | Some(OVER) => {
                tables.suspects.insert(object, ())?;
                Ok(true)
            }
            Some(_) => Ok(false),
        })
    }

    /// The log has been followed behind the last suspect: those that it says nothing of have to be told. Whether there
    /// are any.
    pub fn judge_suspects(&mut self) -> std::result::Result<bool, ListError> {
        let mut found = false;
        loop {
            let more = self.change(|tables, list| {
                let Some(object) = tables.suspects.pop_first()?.map(|(object, _)| *object.value()) else {
                    return Ok(false);
                };
                if let before @ (None | Some(OVER)) = tables.state(&object)? {
                    found |= list.enqueue(tables, &object, before, DUE_UNNAMED)?;
                }
                Ok(true)
            })?;
            if !more {
                return Ok(found);
            }
        }
    }

    fn enqueue(&mut self, tables: &mut Tables<'_>, object: &Identity, before: Option<u8>, state: u8) -> Result<bool> {
        self.counted(before, Some(state));
        tables.known.insert(object, state)?;
        tables.queue.insert(self.next, object)?;
        self.next += 1;
        Ok(true)
    }

    /// The object need not be told: it was made since the beginning.
    pub fn made(&mut self, object: &Identity) -> std::result::Result<(), ListError> {
        self.set(object, Some(TOLD))
    }

    /// A record says that the object has no name any more.
    pub fn over(&mut self, object: &Identity) -> std::result::Result<(), ListError> {
        self.change(|tables, list| {
            let state = tables.state(object)?;
            // What has been told is known, and stays so: it may be in use.
            if state != Some(TOLD) {
                list.counted(state, Some(OVER));
                tables.known.insert(object, OVER)?;
            }
            Ok(())
        })
    }

    /// A record says that the object is gone for ever: its identity may be used again.
    pub fn gone(&mut self, object: &Identity) -> std::result::Result<(), ListError> {
        self.set(object, None)
    }

    /// The object that was taken is not there. `unnamed`: it had no name, so nothing is missing without it. Nor is it where
    /// a record that was followed meanwhile says that it went.
    pub fn not_there(&mut self, object: &Identity, unnamed: bool) -> std::result::Result<(), ListError> {
        let telling = self.change(|tables, _| Ok(tables.state(object)? == Some(TELLING)))?;
        match telling {
            true => self.set(object, (!unnamed).then_some(MISSING)),
            false => Ok(()),
        }
    }

    /// The object that was taken has been told, all of it.
    pub fn told(&mut self, object: &Identity) -> std::result::Result<(), ListError> {
        self.change(|tables, _| {
            if let Some(TELLING | OVER) = tables.state(object)? {
                tables.known.insert(object, TOLD)?;
            }
            Ok(())
        })
    }

    /// Takes one of the objects that are due, and whether it had no name.
    pub fn take(&mut self) -> std::result::Result<Option<(Identity, bool)>, ListError> {
        self.change(|tables, list| loop {
            let Some(object) = tables.queue.pop_first()?.map(|(_, object)| *object.value()) else { return Ok(None) };
            let state = tables.state(&object)?;
            if let Some(DUE | DUE_UNNAMED) = state {
                list.counted(state, Some(TELLING));
                tables.known.insert(&object, TELLING)?;
                return Ok(Some((object, state == Some(DUE_UNNAMED))));
            }
        })
    }

    fn set(&mut self, object: &Identity, state: Option<u8>) -> std::result::Result<(), ListError> {
        self.change(|tables, list| {
            let before = match state {
                Some(state) => tables.known.insert(object, state)?.map(|state| state.value()),
                None => {
                    tables.suspects.remove(object)?;
                    tables.known.remove(object)?.map(|state| state.value())
                }
            };
            list.counted(before, state);
            Ok(())
        })
    }

    fn counted(&mut self, before: Option<u8>, after: Option<u8>) {
        let is_due = |state: Option<u8>| matches!(state, Some(DUE | DUE_UNNAMED));
        self.due = self.due + u64::from(is_due(after)) - u64::from(is_due(before));
        let is_missing = |state: Option<u8>| state == Some(MISSING);
        self.missing = self.missing + u64::from(is_missing(after)) - u64::from(is_missing(before));
    }

    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Tables<'_>, &mut Self) -> Result<T>,
    ) -> std::result::Result<T, ListError> {
        self.changed(change).map_err(|source| ListError { directory: self.directory.clone(), source })
    }

    fn changed<T>(&mut self, change: impl FnOnce(&mut Tables<'_>, &mut Self) -> Result<T>) -> Result<T> {
        let write = match self.open.take() {
            Some(write) => write,
            None => {
                let mut write = self.database.begin_write()?;
                // Nobody will ever open it again: it need not be durable.
                write.set_durability(Durability::Eventual);
                write
            }
        };
        let result = {
            let (known, queue) = (write.open_table(KNOWN)?, write.open_table(QUEUE)?);
            let mut tables = Tables { known, queue, suspects: write.open_table(SUSPECTS)? };
            change(&mut tables, self)?
        };
        self.changes += 1;
        if self.changes >= BATCH {
            self.changes = 0;
            write.commit()?;
        } else {
            self.open = Some(write);
        }
        Ok(result)
    }
}

fn nameless(directory: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    if let Ok(file) = openat(CWD, directory, flags | OFlags::TMPFILE, mode) {
        return Ok(file.into());
    }
    // Not every filesystem knows files without names.
    let path = directory.join("checkpoint.list");
    let _ = std::fs::remove_file(&path);
    let file = openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, mode).map_err(std::io::Error::from)?;
    std::fs::remove_file(path)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(number: u32) -> Identity {
        let mut object = [0; 32];
        object[..4].copy_from_slice(&number.to_le_bytes());
        object
    }

    #[test]
    fn each_object_is_due_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut list = List::new(directory.path()).unwrap();
        for number in 0..25_000 {
            assert!(list.add(&object(number)).unwrap());
            assert!(!list.add(&object(number)).unwrap());
        }
        assert_eq!(list.due(), 25_000);
        for number in 0..25_000 {
            assert_eq!(list.take().unwrap(), Some((object(number), false)));
            assert!(!list.add(&object(number)).unwrap());
        }
        assert_eq!((list.take().unwrap(), list.due()), (None, 0));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_went_is_not_due() {
        let directory = tempfile::tempdir().unwrap();
        let mut list = List::new(directory.path()).unwrap();
        for number in 0..4 {
            list.add(&object(number)).unwrap();
        }
        list.over(&object(1)).unwrap();
        list.gone(&object(2)).unwrap();
        list.made(&object(3)).unwrap();
        assert_eq!(list.due(), 1);
        assert_eq!((list.take().unwrap(), list.take().unwrap()), (Some((object(0), false)), None));
        // What a directory names and is not there has to be said to have gone.
        list.not_there(&object(0), false).unwrap();
        assert_eq!(list.missing(), 1);
        list.over(&object(0)).unwrap();
        assert_eq!(list.missing(), 0);
        // Another one with the identity of one that is gone.
        assert!(list.add(&object(2)).unwrap());
        assert_eq!((list.due(), list.take().unwrap()), (1, Some((object(2), false))));
    }

    /// A record that is followed while an object is told explains why it is not there for the rest.
    #[test]
    fn what_goes_while_it_is_told_is_not_missing() {
        let directory = tempfile::tempdir().unwrap();
        let mut list = List::new(directory.path()).unwrap();
        for number in 0..3 {
            list.add(&object(number)).unwrap();
            assert_eq!(list.take().unwrap(), Some((object(number), false)));
        }
        list.over(&object(0)).unwrap();
        list.gone(&object(1)).unwrap();
        for number in 0..3 {
            list.not_there(&object(number), false).unwrap();
        }
        assert_eq!(list.missing(), 1);
        list.over(&object(2)).unwrap();
        assert_eq!(list.missing(), 0);
        // In use still: told all the same, and once.
        assert!(list.suspect(&object(0)).unwrap() && list.judge_suspects().unwrap());
        assert_eq!(list.take().unwrap(), Some((object(0), true)));
        list.told(&object(0)).unwrap();
        assert!(!list.suspect(&object(0)).unwrap());
    }

    /// What is in use without a name is due unless the log says that it was made since the beginning, or is gone.
    #[test]
    fn suspects_are_judged_by_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut list = List::new(directory.path()).unwrap();
        list.over(&object(1)).unwrap();
        list.add(&object(2)).unwrap();
        for number in [1, 3, 4, 5] {
            assert!(list.suspect(&object(number)).unwrap());
        }
        assert!(!list.suspect(&object(2)).unwrap());
        list.made(&object(3)).unwrap();
        list.gone(&object(4)).unwrap();
        assert!(list.judge_suspects().unwrap());
        assert!(!list.judge_suspects().unwrap());
        assert_eq!(list.due(), 3);
        let mut taken: Vec<_> = std::iter::from_fn(|| list.take().unwrap()).collect();
        taken.sort();
        assert_eq!(taken, [(object(1), true), (object(2), false), (object(5), true)]);
        list.not_there(&object(5), true).unwrap();
        assert_eq!((list.due(), list.missing()), (0, 0));
    }
}
