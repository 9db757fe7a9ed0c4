// SPDX-License-Identifier: GPL-2.0-or-later

//! Behind a gap of the log: records presuppose what is missing, and what contradicts them is older than they are.

use reelfs_format::record::Identity;
use reelfs_format::view::Event;

use super::records::RENAME_EXCHANGE;
use super::{Namespace, ObjectId};
use crate::replay::object::Home;
use crate::replay::Problem;

impl Namespace {
    /// Behind a gap: what contradicts a record is older than it, and must have gone in between.
    pub(super) fn make_way(&mut self, event: &Event<'_>, object: &Identity, epoch: u64) -> Result<(), Problem> {
        match *event {
            Event::Create { body, name, .. } => {
                if let Some(known) = self.find(object)? {
                    if !self.is_stale(known, epoch)? {
                        self.discard(known)?;
                    }
                }
                self.free(&body.parent, name, None)
            }
            Event::Link { body, name } => self.free(&body.parent, name, None),
            Event::Rename { body, new_name, .. } if body.flags.get() & RENAME_EXCHANGE == 0 => {
                self.free(&body.new_parent, new_name, Some(&body.other))
            }
            Event::ObjectGone => match self.find(object)? {
                Some(known) if self.seen(known)?.names > 0 => self.discard(known),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Takes a name from whatever has it, `but` this one.
    pub(super) fn free(&mut self, parent: &Identity, name: &[u8], but: Option<&Identity>) -> Result<(), Problem> {
        let Some(parent) = self.find(parent)? else { return Ok(()) };
        let Some(there) = self.entry(parent, name)? else { return Ok(()) };
        if but == Some(&self.seen(there)?.identity) {
            return Ok(());
        }
        self.remove(parent, name, there)?;
        if self.seen(there)?.names == 0 {
            self.discard(there)?;
        }
        Ok(())
    }

    /// Forgets an object, its names, and what is only reached through it.
    pub(super) fn discard(&mut self, id: ObjectId) -> Result<(), Problem> {
        if Some(id) == self.root() {
            return Ok(());
        }
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            while self.seen(id)?.names > 0 {
                let Some((parent, name)) = self.any_name(id)? else { break };
                self.remove(parent, &name, id)?;
            }
            let mut after: Option<Box<[u8]>> = None;
            loop {
                let (page, more) = self.names_after(id, after.as_deref())?;
                for (name, entry) in page {
                    self.remove(id, &name, entry.object)?;
                    if self.seen(entry.object)?.names == 0 {
                        doomed.push(entry.object);
                    }
                }
                match more {
                    None => break,
                    more => after = more,
                }
            }
            self.forget(id)?;
        }
        Ok(())
    }

    /// One of the names of an object. Where that is not known, all names of the tree are looked at.
    pub(super) fn any_name(&mut self, id: ObjectId) -> Result<Option<Home>, Problem> {
        if let Some(home) = &self.seen(id)?.home {
            return Ok(Some(home.clone()));
        }
        let mut directories: Vec<ObjectId> = self.root().into_iter().collect();
        while let Some(directory) = directories.pop() {
            let mut after: Option<Box<[u8]>> = None;
            loop {
                let (page, more) = self.names_after(directory, after.as_deref())?;
                for (name, entry) in page {
                    if entry.object == id {
                        return Ok(Some((directory, name)));
                    }
                    if entry.directory {
                        directories.push(entry.object);
                    }
                }
                match more {
                    None => break,
                    more => after = more,
                }
            }
        }
        Ok(None)
    }
}
