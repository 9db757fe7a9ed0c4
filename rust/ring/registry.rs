// SPDX-License-Identifier: GPL-2.0

//! All logs there are: those of mounts, and those that outlived theirs.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::log::Log;
use crate::vfs::chardev::SuperblockId;

struct Registry {
    /// In the order of their ids.
    logs: KVec<Arc<Log>>,
    next_id: u64,
}

impl Registry {
    /// Gives the memory of an empty list back: a static is not dropped when the module goes.
    fn trim(&mut self) {
        if self.logs.is_empty() {
            self.logs = KVec::new();
        }
    }
}

kernel::sync::global_lock! {
    // SAFETY: `init` is called from the module's initialiser, before there is a device or a filesystem.
    unsafe(uninit) static REGISTRY: Mutex<Registry> = Registry { logs: KVec::new(), next_id: 1 };
}

/// Makes the registry usable.
///
/// # Safety
///
/// To be called once, before anything else in this module is.
pub(crate) unsafe fn init() {
    // SAFETY: By this function's own requirements.
    unsafe { REGISTRY.init() };
}

/// Makes a log and adds it. `make` is given the id. May sleep.
pub(super) fn add(make: impl FnOnce(u64) -> Result<Arc<Log>>) -> Result<Arc<Log>> {
    let mut registry = REGISTRY.lock();
    let id = registry.next_id;
    // Room in the list first, so that what was made cannot fail to be listed.
    registry.logs.reserve(1, GFP_KERNEL)?;
    let log = make(id).inspect_err(|_| registry.trim())?;
    registry.logs.push(log.clone(), GFP_KERNEL)?;
    registry.next_id = id.checked_add(1).ok_or(EOVERFLOW)?;
    Ok(log)
}

/// Removes a log, if it is listed.
pub(super) fn remove(log: &Log) {
    let mut registry = REGISTRY.lock();
    let position = registry.logs.iter().position(|listed| listed.id() == log.id());
    let removed = position.and_then(|index| registry.logs.remove(index).ok());
    registry.trim();
    drop(registry);
    // The last reference may be this one; what goes with it is better not done under the lock.
    drop(removed);
}

/// Runs `claim` if every other log passes `check`. Nobody else's claim can come in between.
pub(super) fn claim<R>(log: &Log, check: impl Fn(&Log) -> Result, claim: impl FnOnce() -> R) -> Result<R> {
    let registry = REGISTRY.lock();
    for other in registry.logs.iter().filter(|other| other.id() != log.id()) {
        check(other)?;
    }
    Ok(claim())
}

/// The log with this id.
pub(crate) fn find(id: u64) -> Option<Arc<Log>> {
    REGISTRY.lock().logs.iter().find(|log| log.id() == id).cloned()
}

/// The log with the smallest id that is at least this.
pub(crate) fn find_from(id: u64) -> Option<Arc<Log>> {
    REGISTRY.lock().logs.iter().find(|log| log.id() >= id).cloned()
}

/// The log of a mount. The caller keeps the mount from going away.
pub(crate) fn find_mounted(superblock: SuperblockId) -> Option<Arc<Log>> {
    REGISTRY.lock().logs.iter().find(|log| log.is_mounted_as(superblock)).cloned()
}
