// SPDX-License-Identifier: GPL-2.0-or-later

//! The state of a restore on disk: objects, identities, names, and what else a checkpoint holds, in one database file.
//!
//! A commit is atomic and durable when it returns: after a crash the file holds the last one whole.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use redb::{Builder, Database, ReadOnlyTable, TableDefinition};
use reelfs_format::record::Identity;
use zerocopy::IntoBytes;

use super::object::{Object, ObjectId};

/// Objects by number.
const OBJECTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("objects");
/// Numbers by identity.
const IDENTITIES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("identities");
/// [`Entry`] by directory and name.
const NAMES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("names");
/// Numbers of the objects whose files are staged under names that are not theirs any more, by directory and name.
const DISPLACED: TableDefinition<'_, &[u8], u64> = TableDefinition::new("displaced");
/// One row: what the checkpoint is of.
const META: TableDefinition<'_, (), &[u8]> = TableDefinition::new("meta");

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The object.
    pub object: ObjectId,
    /// It is a directory.
    pub directory: bool,
}

impl Entry {
    fn pack(self) -> u64 {
        self.object.0 << 1 | u64::from(self.directory)
    }

    fn unpack(packed: u64) -> Self {
        Entry { object: ObjectId(packed >> 1), directory: packed & 1 != 0 }
    }
}

/// The state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the state of the restore: {0}")]
pub struct StoreError(String);

macro_rules! said_by {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                StoreError(error.to_string())
            }
        })*
    };
}

said_by!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    std::io::Error
);

type Result<T> = std::result::Result<T, StoreError>;

/// What has changed since the last commit; `None`: it is no more.
#[derive(Debug, Default)]
pub struct Changes {
    /// Objects.
    pub objects: Vec<(ObjectId, Option<Vec<u8>>)>,
    /// Identities.
    pub identities: Vec<(Identity, Option<ObjectId>)>,
    /// Names, by [`key`].
    pub names: Vec<(Vec<u8>, Option<Entry>)>,
    /// Displaced files, by [`key`].
    pub displaced: Vec<(Vec<u8>, Option<ObjectId>)>,
}

/// The key of a name in a directory: names of one directory are neighbours, in the order of their bytes.
pub fn key(directory: ObjectId, name: &[u8]) -> Vec<u8> {
    [&directory.0.to_be_bytes(), name].concat()
}

/// The directory and the name that a [`key`] was made of.
pub fn split_key(key: &[u8]) -> Option<(ObjectId, &[u8])> {
    let (directory, name) = key.split_first_chunk::<8>()?;
    Some((ObjectId(u64::from_be_bytes(*directory)), name))
}

/// Tables as of the last commit.
struct Tables {
    objects: ReadOnlyTable<u64, &'static [u8]>,
    identities: ReadOnlyTable<&'static [u8], u64>,
    names: ReadOnlyTable<&'static [u8], u64>,
    displaced: ReadOnlyTable<&'static [u8], u64>,
    meta: ReadOnlyTable<(), &'static [u8]>,
}

/// The database.
pub struct Store {
    database: Database,
    tables: Option<Tables>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the file, or makes it. `cache` is what it may keep in memory, in bytes.
    pub fn open(path: &Path, cache: usize) -> Result<Self> {
        Self::ready(Builder::new().set_cache_size(cache).create(path)?)
    }

    /// The same in a file without a name, for what nobody will go on with.
    pub fn nameless(file: File, cache: usize) -> Result<Self> {
        Self::ready(Builder::new().set_cache_size(cache).create_file(file)?)
    }

    fn ready(database: Database) -> Result<Self> {
        let mut store = Store { database, tables: None };
        store.look()?;
        Ok(store)
    }

    /// Opens the tables, if there was ever a commit.
    fn look(&mut self) -> Result<()> {
        let read = self.database.begin_read()?;
        self.tables = match read.open_table(META) {
            Ok(meta) => Some(Tables {
                objects: read.open_table(OBJECTS)?,
                identities: read.open_table(IDENTITIES)?,
                names: read.open_table(NAMES)?,
                displaced: read.open_table(DISPLACED)?,
                meta,
            }),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }

    /// What the last commit said about itself.
    pub fn meta(&self) -> Result<Option<Vec<u8>>> {
        let Some(tables) = &self.tables else { return Ok(None) };
        Ok(tables.meta.get(())?.map(|value| value.value().to_vec()))
    }

    /// An object.
    pub fn object(&self, id: ObjectId) -> Result<Option<Object>> {
        let Some(tables) = &self.tables else { return Ok(None) };
        let Some(value) = tables.objects.get(id.0)? else { return Ok(None) };
        decoded(id, value.value()).map(Some)
    }

    /// Shows every object, in the order of their numbers, until `visit` is done.
    pub fn each_object(&self, visit: &mut dyn FnMut(ObjectId, &Object) -> ControlFlow<()>) -> Result<()> {
        let Some(tables) = &self.tables else { return Ok(()) };
        for row in tables.objects.range::<u64>(..)? {
            let (id, value) = row?;
            let id = ObjectId(id.value());
            if visit(id, &decoded(id, value.value())?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The object with this identity.
    pub fn identity(&self, identity: &Identity) -> Result<Option<ObjectId>> {
        let Some(tables) = &self.tables else { return Ok(None) };
        Ok(tables.identities.get(identity.as_bytes())?.map(|value| ObjectId(value.value())))
    }

    /// What a name stands for.
    pub fn name(&self, directory: ObjectId, name: &[u8]) -> Result<Option<Entry>> {
        let Some(tables) = &self.tables else { return Ok(None) };
        Ok(tables.names.get(key(directory, name).as_slice())?.map(|value| Entry::unpack(value.value())))
    }

    /// Whose file is staged under a name.
    pub fn displaced(&self, directory: ObjectId, name: &[u8]) -> Result<Option<ObjectId>> {
        let Some(tables) = &self.tables else { return Ok(None) };
        Ok(tables.displaced.get(key(directory, name).as_slice())?.map(|value| ObjectId(value.value())))
    }

    /// Names in a directory behind `after`, at most `limit`.
    pub fn names_after(
        &self,
        directory: ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Box<[u8]>, Entry)>> {
        let Some(tables) = &self.tables else { return Ok(Vec::new()) };
        let found = behind(&tables.names, directory, after, limit)?;
        Ok(found.into_iter().map(|(name, packed)| (name, Entry::unpack(packed))).collect())
    }

    /// Displaced files whose keys lie behind `after`, at most `limit`.
    pub fn all_displaced(&self, after: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, ObjectId)>> {
        let Some(tables) = &self.tables else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let first = [after, &[0]].concat();
        let from = if after.is_empty() { after } else { first.as_slice() };
        for row in tables.displaced.range(from..)?.take(limit) {
            let (key, value) = row?;
            found.push((key.value().to_vec(), ObjectId(value.value())));
        }
        Ok(found)
    }

    /// Commits; durable when it returns.
    pub fn commit(&mut self, mut changes: Changes, meta: &[u8]) -> Result<()> {
        // Pages that an older view holds could not be used again.
        self.tables = None;
        let write = self.database.begin_write()?;
        {
            write.open_table(META)?.insert((), meta)?;
            // In the order of their keys, neighbours meet in the same page.
            changes.objects.sort_unstable_by_key(|(id, _)| *id);
            let mut table = write.open_table(OBJECTS)?;
            for (id, object) in changes.objects {
                match object {
                    Some(object) => drop(table.insert(id.0, object.as_slice())?),
                    None => drop(table.remove(id.0)?),
                }
            }
            changes.identities.sort_unstable_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
            let mut table = write.open_table(IDENTITIES)?;
            for (identity, id) in changes.identities {
                match id {
                    Some(id) => drop(table.insert(identity.as_bytes(), id.0)?),
                    None => drop(table.remove(identity.as_bytes())?),
                }
            }
            let packed = changes.names.into_iter().map(|(key, entry)| (key, entry.map(Entry::pack)));
            write_names(&mut write.open_table(NAMES)?, packed.collect())?;
            let packed = changes.displaced.into_iter().map(|(key, id)| (key, id.map(|id| id.0)));
            write_names(&mut write.open_table(DISPLACED)?, packed.collect())?;
        }
        write.commit()?;
        self.look()
    }
}

fn decoded(id: ObjectId, bytes: &[u8]) -> Result<Object> {
    Object::decode(bytes).ok_or_else(|| StoreError(format!("object {} is damaged", id.0)))
}

fn behind(
    table: &ReadOnlyTable<&'static [u8], u64>,
    directory: ObjectId,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<(Box<[u8]>, u64)>> {
    // Behind a name comes first what is one zero byte longer.
    let first = after.map_or(key(directory, b""), |name| [&key(directory, name)[..], &[0]].concat());
    let end = key(ObjectId(directory.0.saturating_add(1)), b"");
    let mut found = Vec::new();
    for row in table.range(first.as_slice()..end.as_slice())?.take(limit) {
        let (name, value) = row?;
        found.push((name.value().get(8..).unwrap_or_default().into(), value.value()));
    }
    Ok(found)
}

fn write_names(table: &mut redb::Table<'_, &'static [u8], u64>, mut rows: Vec<(Vec<u8>, Option<u64>)>) -> Result<()> {
    rows.sort_unstable();
    for (key, value) in rows {
        match value {
            Some(value) => drop(table.insert(key.as_slice(), value)?),
            None => drop(table.remove(key.as_slice())?),
        }
    }
    Ok(())
}
