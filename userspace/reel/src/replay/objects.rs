// SPDX-License-Identifier: GPL-2.0-or-later

//! All objects, identities and names of a tree: those used lately in memory, the others on disk.
//!
//! Memory has two generations. What is used goes to the young one. When that has had its share, everything that changed is
//! committed to the [`Store`], the old generation is dropped and the young one becomes the old. So memory is bounded
//! whatever the size of the tree, and what stays is what was used last. As long as nothing has been dropped, memory is
//! the whole truth and the disk is not asked.

use std::collections::{hash_map, BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;

use reelfs_format::record::Identity;

use super::object::{Object, ObjectId};
use super::store::{key, split_key, Changes, Entry, Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// Memory for the database's own cache, as a part of all: one in so many.
const STORE_SHARE: usize = 4;
/// Memory that a row takes beside its contents, about, in bytes.
const ROW: usize = 48;
/// Rows that are looked at together when a directory is read.
const PAGE: usize = 512;

/// Something that is known: the value, or that there is none; and whether the disk knows it too.
#[derive(Clone, Debug)]
struct Slot<V> {
    value: Option<V>,
    dirty: bool,
}

/// A map in two generations.
#[derive(Debug)]
struct Aged<K, V> {
    young: HashMap<K, Slot<V>>,
    old: HashMap<K, Slot<V>>,
}

impl<K, V> Default for Aged<K, V> {
    fn default() -> Self {
        Aged { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash + Copy, V> Aged<K, V> {
    /// What memory knows, made young; whether it had to be.
    fn find(&mut self, key: K) -> Option<(&mut Slot<V>, bool)> {
        let mut moved = false;
        if let hash_map::Entry::Vacant(vacant) = self.young.entry(key) {
            vacant.insert(self.old.remove(&key)?);
            moved = true;
        }
        Some((self.young.get_mut(&key)?, moved))
    }

    fn put(&mut self, key: K, value: Option<V>, dirty: bool) -> &mut Slot<V> {
        self.old.remove(&key);
        let slot = self.young.entry(key).or_insert(Slot { value: None, dirty });
        (slot.value, slot.dirty) = (value, slot.dirty || dirty);
        slot
    }

    fn take_dirty(&mut self, mut each: impl FnMut(K, Option<&V>)) {
        for (key, slot) in self.young.iter_mut().chain(self.old.iter_mut()) {
            if std::mem::take(&mut slot.dirty) {
                each(*key, slot.value.as_ref());
            }
        }
        // That something is no more need not be remembered once the disk knows.
        self.young.retain(|_, slot| slot.value.is_some());
        self.old.retain(|_, slot| slot.value.is_some());
    }

    fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

type Rows<V> = BTreeMap<Box<[u8]>, Slot<V>>;

/// Rows by directory and name, in two generations.
#[derive(Debug)]
struct AgedNames<V> {
    young: HashMap<ObjectId, Rows<V>>,
    old: HashMap<ObjectId, Rows<V>>,
}

impl<V> Default for AgedNames<V> {
    fn default() -> Self {
        AgedNames { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V: Copy> AgedNames<V> {
    /// What memory knows of a name, if it knows something; made young.
    fn find(&mut self, directory: ObjectId, name: &[u8]) -> Option<Option<V>> {
        if let Some(slot) = self.young.get(&directory).and_then(|rows| rows.get(name)) {
            return Some(slot.value);
        }
        let (name, slot) = self.old.get_mut(&directory)?.remove_entry(name)?;
        let value = slot.value;
        self.young.entry(directory).or_default().insert(name, slot);
        Some(value)
    }

    fn put(&mut self, directory: ObjectId, name: &[u8], value: Option<V>, dirty: bool) {
        if let Some(rows) = self.old.get_mut(&directory) {
            rows.remove(name);
        }
        let rows = self.young.entry(directory).or_default();
        match rows.get_mut(name) {
            Some(slot) => (slot.value, slot.dirty) = (value, slot.dirty || dirty),
            None => drop(rows.insert(name.into(), Slot { value, dirty })),
        }
    }

    /// Names behind `after`: the changes to what is `on_disk`, applied. `on_disk` are the first so many names behind
    /// `after` there; `whole` says that there are no more.
    fn overlay(&self, directory: ObjectId, after: Option<&[u8]>, on_disk: Vec<(Box<[u8]>, V)>, whole: bool) -> Page<V> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        // No source says anything about what lies behind the last name that it gave, unless it gave all.
        let mut horizon = if whole { None } else { on_disk.last().map(|(name, _)| name.clone()) };
        let mut merged: BTreeMap<Box<[u8]>, Option<V>> =
            on_disk.into_iter().map(|(name, value)| (name, Some(value))).collect();
        for generation in [&self.old, &self.young] {
            let Some(rows) = generation.get(&directory) else { continue };
            let mut last = None;
            for (count, (name, slot)) in rows.range::<[u8], _>((from, Bound::Unbounded)).enumerate() {
                if count == PAGE {
                    horizon = match (horizon, last.take()) {
                        (Some(one), Some(two)) => Some(std::cmp::min::<Box<[u8]>>(one, two)),
                        (one, two) => one.or(two),
                    };
                    break;
                }
                merged.insert(name.clone(), slot.value);
                last = Some(name.clone());
            }
        }
        let within = |name: &[u8]| horizon.as_deref().is_none_or(|horizon| name <= horizon);
        let found = merged.into_iter().filter(|(name, _)| within(name));
        (found.filter_map(|(name, value)| Some((name, value?))).collect(), horizon)
    }

    fn take_dirty(&mut self, to: &mut Vec<(Vec<u8>, Option<V>)>) {
        for generation in [&mut self.young, &mut self.old] {
            for (directory, rows) in generation.iter_mut() {
                rows.retain(|name, slot| {
                    if std::mem::take(&mut slot.dirty) {
                        to.push((key(*directory, name), slot.value));
                    }
                    slot.value.is_some()
                });
            }
            generation.retain(|_, rows| !rows.is_empty());
        }
    }

    fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

/// Where the state goes when memory is full, or a checkpoint wants it.
#[derive(Clone, Debug)]
pub enum Spill {
    /// Into this file, to be found again.
    Kept(PathBuf),
    /// Into a file without a name in this directory.
    Nameless(PathBuf),
}

/// A page of a directory: what was found, and the name behind which to go on, if there may be more.
pub type Page<V> = (Vec<(Box<[u8]>, V)>, Option<Box<[u8]>>);

/// A file that is staged in a directory, under a name there that is not its own any more, and whose it is.
pub type Displaced = (ObjectId, Box<[u8]>, ObjectId);

/// How far [`Objects::all_displaced`] has come.
#[derive(Clone, Debug)]
pub struct Cursor(Vec<u8>);

/// The objects.
#[derive(Debug)]
pub struct Objects {
    objects: Aged<ObjectId, Object>,
    identities: Aged<Identity, ObjectId>,
    names: AgedNames<Entry>,
    displaced: AgedNames<ObjectId>,
    /// Bytes in the young generation, about.
    young: usize,
    budget: usize,
    /// Nothing has been dropped from memory that exists.
    whole: bool,
    spill: Spill,
    store: Option<Store>,
    /// The file that is kept does not have its name yet.
    unnamed: bool,
}

impl Objects {
    /// None. `budget` is the memory that they may take, in bytes.
    pub fn new(budget: usize, spill: Spill) -> Self {
        Objects {
            objects: Aged::default(),
            identities: Aged::default(),
            names: AgedNames::default(),
            displaced: AgedNames::default(),
            young: 0,
            budget: budget.max(1 << 20),
            whole: true,
            spill,
            store: None,
            unnamed: false,
        }
    }

    /// Those of the last commit to the file, and what that said about itself; `None` if there was none.
    pub fn reopen(budget: usize, spill: Spill) -> Result<Option<(Self, Vec<u8>)>> {
        let mut objects = Self::new(budget, spill);
        let Some(meta) = objects.store()?.meta()? else { return Ok(None) };
        objects.whole = false;
        Ok(Some((objects, meta)))
    }

    fn store(&mut self) -> Result<&mut Store> {
        if self.store.is_none() {
            let cache = self.budget / STORE_SHARE;
            self.store = Some(match &self.spill {
                // It gets its name when there is something in it: what has the name is whole.
                Spill::Kept(path) if !path.try_exists()? => {
                    let unnamed = path.with_extension("new");
                    match std::fs::remove_file(&unnamed) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                        _ => {}
                    }
                    self.unnamed = true;
                    Store::open(&unnamed, cache)?
                }
                Spill::Kept(path) => Store::open(path, cache)?,
                Spill::Nameless(directory) => Store::nameless(nameless(directory)?, cache)?,
            });
        }
        self.store.as_mut().ok_or_else(|| std::io::Error::other("no store").into())
    }

    /// What the disk is asked, where memory does not know.
    fn on_disk(&self) -> Option<&Store> {
        self.store.as_ref().filter(|_| !self.whole)
    }

    /// An object, to look at.
    pub fn get(&mut self, id: ObjectId) -> Result<Option<&Object>> {
        Ok(self.slot(id)?.and_then(|slot| slot.value.as_ref()))
    }

    /// An object, to be changed.
    pub fn get_mut(&mut self, id: ObjectId) -> Result<Option<&mut Object>> {
        let Some(slot) = self.slot(id)? else { return Ok(None) };
        slot.dirty = true;
        Ok(slot.value.as_mut())
    }

    fn slot(&mut self, id: ObjectId) -> Result<Option<&mut Slot<Object>>> {
        // The borrow of what is found ends too late for a second try in the same branch.
        let known = self.objects.young.contains_key(&id) || self.objects.old.contains_key(&id);
        if known {
            let Some((slot, moved)) = self.objects.find(id) else { return Ok(None) };
            if moved {
                self.young += slot.value.as_ref().map_or(ROW, weight);
            }
            return Ok(Some(slot));
        }
        let Some(found) = self.on_disk().map(|store| store.object(id)).transpose()?.flatten() else {
            return Ok(None);
        };
        self.young += weight(&found);
        Ok(Some(self.objects.put(id, Some(found), false)))
    }

    /// Shows every object, in no order, until `visit` is done. Leaves in memory what is there, and nothing else.
    pub fn each(&self, visit: &mut dyn FnMut(&Object) -> ControlFlow<()>) -> Result<()> {
        for slot in self.objects.young.values().chain(self.objects.old.values()) {
            if slot.value.as_ref().is_some_and(|object| visit(object).is_break()) {
                return Ok(());
            }
        }
        let Some(store) = self.on_disk() else { return Ok(()) };
        let in_memory = |id| self.objects.young.contains_key(&id) || self.objects.old.contains_key(&id);
        store.each_object(&mut |id, object| if in_memory(id) { ControlFlow::Continue(()) } else { visit(object) })
    }

    /// Adds an object, or replaces it.
    pub fn insert(&mut self, id: ObjectId, object: Object) {
        self.young += weight(&object) + ROW + size_of::<Identity>();
        self.identities.put(object.identity, Some(id), true);
        self.objects.put(id, Some(object), true);
    }

    /// Forgets an object.
    pub fn remove(&mut self, id: ObjectId) -> Result<Option<Object>> {
        let Some(object) = self.slot(id)?.and_then(|slot| slot.value.take()) else { return Ok(None) };
        self.objects.put(id, None, true);
        if self.find(&object.identity)? == Some(id) {
            self.identities.put(object.identity, None, true);
        }
        Ok(Some(object))
    }

    /// The object with this identity.
    pub fn find(&mut self, identity: &Identity) -> Result<Option<ObjectId>> {
        if let Some((slot, moved)) = self.identities.find(*identity) {
            let value = slot.value;
            if moved {
                self.young += ROW + size_of::<Identity>();
            }
            return Ok(value);
        }
        let found = self.on_disk().map(|store| store.identity(identity)).transpose()?.flatten();
        if found.is_some() {
            self.young += ROW + size_of::<Identity>();
            self.identities.put(*identity, found, false);
        }
        Ok(found)
    }

    /// Gives an object another identity.
    pub fn rename_identity(&mut self, old: Identity, new: Identity, id: ObjectId) {
        self.young += 2 * (ROW + size_of::<Identity>());
        self.identities.put(old, None, true);
        self.identities.put(new, Some(id), true);
    }

    /// What a name in a directory stands for.
    pub fn name(&mut self, directory: ObjectId, name: &[u8]) -> Result<Option<Entry>> {
        if let Some(known) = self.names.find(directory, name) {
            return Ok(known);
        }
        let found = self.on_disk().map(|store| store.name(directory, name)).transpose()?.flatten();
        if found.is_some() {
            self.young += ROW + name.len();
            self.names.put(directory, name, found, false);
        }
        Ok(found)
    }

    /// Sets or removes a name.
    pub fn set_name(&mut self, directory: ObjectId, name: &[u8], entry: Option<Entry>) {
        self.young += ROW + name.len();
        self.names.put(directory, name, entry, true);
    }

    /// Names in a directory behind `after`, in order.
    pub fn names_after(&mut self, directory: ObjectId, after: Option<&[u8]>) -> Result<Page<Entry>> {
        let found = self.on_disk().map(|store| store.names_after(directory, after, PAGE)).transpose()?;
        let found = found.unwrap_or_default();
        let whole = found.len() < PAGE;
        Ok(self.names.overlay(directory, after, found, whole))
    }

    /// Whose file is staged under a name that is not its own any more.
    pub fn displaced(&mut self, directory: ObjectId, name: &[u8]) -> Result<Option<ObjectId>> {
        if let Some(known) = self.displaced.find(directory, name) {
            return Ok(known);
        }
        Ok(self.on_disk().map(|store| store.displaced(directory, name)).transpose()?.flatten())
    }

    /// Notes whose file is staged there, or that none is any more.
    pub fn set_displaced(&mut self, directory: ObjectId, name: &[u8], id: Option<ObjectId>) {
        self.young += ROW + name.len();
        self.displaced.put(directory, name, id, true);
    }

    /// Displaced files: those that memory knows first, then those on disk that it does not.
    pub fn all_displaced(&mut self, cursor: Option<Cursor>) -> Result<(Vec<Displaced>, Option<Cursor>)> {
        let Some(Cursor(after)) = cursor else {
            let generations = [&self.displaced.young, &self.displaced.old];
            let rows = generations.into_iter().flatten().flat_map(|(directory, rows)| {
                rows.iter().filter_map(|(name, slot)| Some((*directory, name.clone(), slot.value?)))
            });
            return Ok((rows.collect(), Some(Cursor(Vec::new()))));
        };
        let Some(store) = self.on_disk() else { return Ok((Vec::new(), None)) };
        let rows = store.all_displaced(&after, PAGE)?;
        let next = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| Cursor(key.clone()));
        let mut found = Vec::new();
        for (key, id) in rows {
            let Some((directory, name)) = split_key(&key) else { continue };
            if self.displaced(directory, name)? == Some(id) {
                found.push((directory, name.into(), id));
            }
        }
        Ok((found, next))
    }

    /// Whether memory is full: a [`Objects::commit`] is due.
    pub fn is_full(&self) -> bool {
        self.young > self.budget / STORE_SHARE
    }

    /// Commits everything that changed, together with `meta`, and drops what memory has no room for.
    pub fn commit(&mut self, meta: &[u8]) -> Result<()> {
        let mut changes = Changes::default();
        self.objects.take_dirty(|id, object| changes.objects.push((id, object.map(Object::encode))));
        self.identities.take_dirty(|identity, id| changes.identities.push((identity, id.copied())));
        self.names.take_dirty(&mut changes.names);
        self.displaced.take_dirty(&mut changes.displaced);
        self.store()?.commit(changes, meta)?;
        if let (true, Spill::Kept(path)) = (self.unnamed, &self.spill) {
            std::fs::rename(path.with_extension("new"), path)?;
            self.unnamed = false;
        }
        if self.is_full() {
            self.objects.age();
            self.identities.age();
            self.names.age();
            self.displaced.age();
            self.young = 0;
            self.whole = false;
        }
        Ok(())
    }
}

/// Memory that an object takes, about, in bytes.
fn weight(object: &Object) -> usize {
    size_of::<Object>() + ROW + object.extra()
}

fn nameless(directory: &std::path::Path) -> std::io::Result<std::fs::File> {
    use rustix::fs::{openat, Mode, OFlags, CWD};
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match openat(CWD, directory, flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(file.into()),
        // Not every filesystem knows files without names.
        Err(_) => {
            let path = directory.join(format!(".reel-{}", std::process::id()));
            let file = openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
            std::fs::remove_file(path)?;
            Ok(file.into())
        }
    }
}
