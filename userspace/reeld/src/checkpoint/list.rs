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

/// It has to be told.
const DUE: u8 = 0;
/// It has been told, or made since the beginning.
const TOLD: u8 = 1;
/// It was not there, and no record has said why.
const MISSING: u8 = 2;
/// A record says that it has lost its last name.
const OVER: u8 = 3;

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
type Known<'t> = redb::Table<'t, &'static [u8; 32], u8>;
type Queue<'t> = redb::Table<'t, u64, &'static [u8; 32]>;

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
        self.change(|known, queue, list| {
            match known.get(object)?.map(|state| state.value()) {
                Some(DUE | TOLD) => return Ok(false),
                Some(MISSING) => list.missing -= 1,
                _ => {}
            }
            known.insert(object, DUE)?;
            queue.insert(list.next, object)?;
            list.next += 1;
            list.due += 1;
            Ok(true)
        })
    }

    /// The object need not be told: it was made since the beginning.
    pub fn made(&mut self, object: &Identity) -> std::result::Result<(), ListError> {
        self.set(object, TOLD)
    }

    /// A record says that the object has no name any more.
    pub fn over(&mut self, object: &Identity) -> std::result::Result<(), ListError> {
        self.change(|known, _, list| {
            let state = known.get(object)?.map(|state| state.value());
            // What has been told is known, and stays so: it may be in use.
            if state != Some(TOLD) {
                list.counted(state, Some(OVER));
                known.insert(object, OVER)?;
            }
            Ok(())
        })
    }

    /// A record says that the object is gone for ever: its identity may be used again.
    pub fn gone(&mut self, object: &Identity) -> std::result::Result<(), ListError> {
        self.change(|known, _, list| {
            let state = known.remove(object)?.map(|state| state.value());
            list.counted(state, None);
            Ok(())
        })
    }

    /// The object was not there.
    pub fn not_there(&mut self, object: &Identity) -> std::result::Result<(), ListError> {
        self.set(object, MISSING)
    }

    /// Takes one of the objects that are due; it counts as told from now on.
    pub fn take(&mut self) -> std::result::Result<Option<Identity>, ListError> {
        self.change(|known, queue, list| loop {
            let Some((_, object)) = queue.pop_first()? else { return Ok(None) };
            let object = *object.value();
            if known.get(&object)?.map(|state| state.value()) == Some(DUE) {
                list.counted(Some(DUE), Some(TOLD));
                known.insert(&object, TOLD)?;
                return Ok(Some(object));
            }
        })
    }

    fn set(&mut self, object: &Identity, state: u8) -> std::result::Result<(), ListError> {
        self.change(|known, _, list| {
            let before = known.insert(object, state)?.map(|state| state.value());
            list.counted(before, Some(state));
            Ok(())
        })
    }

    fn counted(&mut self, before: Option<u8>, after: Option<u8>) {
        for (state, count) in [(DUE, &mut self.due), (MISSING, &mut self.missing)] {
            *count -= u64::from(before == Some(state));
            *count += u64::from(after == Some(state));
        }
    }

    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Known<'_>, &mut Queue<'_>, &mut Self) -> Result<T>,
    ) -> std::result::Result<T, ListError> {
        self.changed(change).map_err(|source| ListError { directory: self.directory.clone(), source })
    }

    fn changed<T>(&mut self, change: impl FnOnce(&mut Known<'_>, &mut Queue<'_>, &mut Self) -> Result<T>) -> Result<T> {
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
            let (mut known, mut queue) = (write.open_table(KNOWN)?, write.open_table(QUEUE)?);
            change(&mut known, &mut queue, self)?
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
            assert_eq!(list.take().unwrap(), Some(object(number)));
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
        assert_eq!((list.take().unwrap(), list.take().unwrap()), (Some(object(0)), None));
        // It is in use without a name.
        assert!(list.add(&object(1)).unwrap());
        assert_eq!(list.take().unwrap(), Some(object(1)));
        list.not_there(&object(1)).unwrap();
        assert_eq!(list.missing(), 1);
        list.gone(&object(1)).unwrap();
        assert_eq!(list.missing(), 0);
        // Another one with its identity.
        assert!(list.add(&object(1)).unwrap());
    }
}
