// SPDX-License-Identifier: GPL-2.0-or-later

//! A part of the tree: some paths, as they were called at a moment, and everything below them.

use std::collections::{BTreeMap, BTreeSet};

use reelfs_format::record::Lsn;

use crate::replay::namespace::{Namespace, ObjectId, Watch};
use crate::replay::store::StoreError;
use crate::show;

/// Which objects belong to the part.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Selection {
    /// A bit for each object.
    objects: Vec<u64>,
    /// Directories above the paths: which of their names lead to one.
    partial: BTreeMap<u64, BTreeSet<Box<[u8]>>>,
}

impl Selection {
    /// Whether the object is one of them.
    pub fn has(&self, id: ObjectId) -> bool {
        let word = usize::try_from(id.0 / 64).ok().and_then(|at| self.objects.get(at));
        word.is_some_and(|word| word >> (id.0 % 64) & 1 != 0)
    }

    /// Whether a name in a directory that belongs to the part does, too.
    pub fn has_name(&self, directory: ObjectId, name: &[u8]) -> bool {
        self.partial.get(&directory.0).is_none_or(|names| names.contains(name))
    }

    fn add(&mut self, id: ObjectId) {
        let at = (id.0 / 64) as usize;
        if at >= self.objects.len() {
            self.objects.resize(at + 1, 0);
        }
        if let Some(word) = self.objects.get_mut(at) {
            *word |= 1 << (id.0 % 64);
        }
    }

    /// Adds everything below a directory, and the directory.
    fn add_below(&mut self, namespace: &mut Namespace, top: ObjectId) -> Result<(), StoreError> {
        let mut pending = vec![top];
        while let Some(directory) = pending.pop() {
            self.add(directory);
            let mut after = None;
            loop {
                let (names, next) = namespace.names_after(directory, after.as_deref())?;
                for (_, entry) in names {
                    if entry.directory {
                        pending.push(entry.object);
                    } else {
                        self.add(entry.object);
                    }
                }
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The components of a path below the root of the tree. Errors: it is none.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    let parts: Vec<_> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(format!("{}: a path with '..' names nothing in the tree", show::name(path)));
    }
    Ok(parts)
}

/// What is known of the paths that are asked for: which of their names went, when, and where to.
#[derive(Debug)]
pub struct History {
    /// Every path asked for, and everything above it.
    prefixes: BTreeSet<Vec<u8>>,
    names: BTreeSet<Vec<u8>>,
    lost: BTreeMap<Vec<u8>, Lost>,
}

#[derive(Debug)]
struct Lost {
    to: Option<Vec<u8>>,
    lsn: Lsn,
    time: i64,
}

impl History {
    /// Will follow these paths.
    pub fn new(paths: &[Vec<u8>]) -> Result<Self, String> {
        let mut history = History { prefixes: BTreeSet::new(), names: BTreeSet::new(), lost: BTreeMap::new() };
        for path in paths {
            let mut prefix = Vec::new();
            for part in components(path)? {
                prefix.push(b'/');
                prefix.extend_from_slice(part);
                history.prefixes.insert(prefix.clone());
                history.names.insert(part.to_vec());
            }
        }
        Ok(history)
    }

    /// What became of a path, or of a directory above it.
    fn fate(&self, path: &[u8]) -> Option<String> {
        let lost = self.lost.iter().filter(|(known, _)| {
            path.strip_prefix(known.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        });
        let (known, lost) = lost.max_by_key(|(_, lost)| lost.lsn)?;
        let what = if known == path { "it".to_owned() } else { show::name(known) };
        let when = format!("LSN {:#x}, {}", lost.lsn, show::time(lost.time));
        Some(match &lost.to {
            Some(to) => format!("{what} was renamed to {} at {when}", show::name(to)),
            None => format!("{what} was removed or replaced at {when}"),
        })
    }
}

/// What is followed, where it can be asked afterwards.
#[derive(Debug)]
pub struct Follower(pub std::sync::Arc<std::sync::Mutex<History>>);

impl Watch for Follower {
    fn minds(&self, name: &[u8]) -> bool {
        self.0.lock().is_ok_and(|history| history.names.contains(name))
    }

    fn lost(&mut self, path: Vec<u8>, to: Option<Vec<u8>>, lsn: Lsn, time: i64) {
        if let Ok(mut history) = self.0.lock() {
            if history.prefixes.contains(&path) {
                history.lost.insert(path, Lost { to, lsn, time });
            }
        }
    }
}

/// Finds the paths in the tree as it is. Those that are not there are in the second part, with what is known of them.
pub fn select(
    namespace: &mut Namespace,
    paths: &[Vec<u8>],
    history: &History,
) -> Result<(Selection, Vec<String>), StoreError> {
    let (mut selection, mut missing) = (Selection::default(), Vec::new());
    let mut whole = BTreeSet::new();
    for path in paths {
        let parts = components(path).unwrap_or_default();
        let Some(root) = namespace.root() else { continue };
        let (mut at, mut above, mut found) = (root, Vec::new(), true);
        for part in &parts {
            match namespace.name(at, part)? {
                Some(entry) => {
                    above.push((at, *part));
                    at = entry.object;
                }
                None => {
                    found = false;
                    break;
                }
            }
        }
        if !found {
            let plain: Vec<u8> = parts.iter().flat_map(|part| [b"/", *part].concat()).collect();
            let fate = history.fate(&plain).map_or("it never did before".to_owned(), |fate| fate);
            missing.push(format!("{} did not exist then; {fate}", show::name(&plain)));
            continue;
        }
        for (directory, name) in above {
            selection.add(directory);
            selection.partial.entry(directory.0).or_default().insert(name.into());
        }
        if namespace.object(at)?.is_some_and(|object| object.is_directory()) {
            selection.add_below(namespace, at)?;
            whole.insert(at);
        } else {
            selection.add(at);
        }
    }
    // A directory that was asked for as a whole and lies above another path is whole.
    let inside: Vec<_> = selection.partial.keys().copied().collect();
    for directory in inside {
        let mut at = Some(ObjectId(directory));
        while let Some(id) = at {
            if whole.contains(&id) {
                selection.partial.remove(&directory);
                break;
            }
            at = namespace.object(id)?.and_then(|object| Some(object.home.as_ref()?.0));
        }
    }
    Ok((selection, missing))
}
