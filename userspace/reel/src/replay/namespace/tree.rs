// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree itself: objects come and go, get names and lose them, get attributes. What may be done to it when is decided
//! elsewhere.

use reelfs_format::record::{Attributes, Identity, Lsn};
use reelfs_format::view::{check_name, RecordView};

use super::{Kind, Namespace, Object, ObjectId, XattrMap};
use crate::replay::object::Staged;
use crate::replay::store::{Entry, StoreError};
use crate::replay::{file_type, Problem};

impl Namespace {
    /// A path of the object, for messages. Objects without a name that is known are called by their identity.
    pub fn path(&mut self, id: ObjectId) -> Result<Vec<u8>, StoreError> {
        let mut parts: Vec<Box<[u8]>> = Vec::new();
        let mut at = id;
        while Some(at) != self.root() {
            match self.object(at)?.and_then(|object| object.home.clone()) {
                Some((directory, name)) if parts.len() < 4096 => {
                    parts.push(name);
                    at = directory;
                }
                _ => {
                    let known =
                        self.object(id)?.map_or_else(String::new, |object| crate::show::identity(&object.identity));
                    return Ok(format!("<{known}>").into_bytes());
                }
            }
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(path)
    }

    pub(super) fn slot(&mut self, id: ObjectId) -> Result<&mut Object, Problem> {
        self.objects.get_mut(id)?.ok_or(Problem::Unknown(Identity::NONE))
    }

    pub(super) fn seen(&mut self, id: ObjectId) -> Result<&Object, Problem> {
        self.objects.get(id)?.ok_or(Problem::Unknown(Identity::NONE))
    }

    pub(super) fn known(&mut self, identity: &Identity) -> Result<ObjectId, Problem> {
        self.find(identity)?.ok_or(Problem::Unknown(*identity))
    }

    pub(super) fn file(&mut self, identity: &Identity) -> Result<ObjectId, Problem> {
        let id = self.known(identity)?;
        match self.seen(id)?.kind {
            Kind::File => Ok(id),
            _ => Err(Problem::NotFile),
        }
    }

    pub(super) fn directory(&mut self, identity: &Identity) -> Result<ObjectId, Problem> {
        let id = self.known(identity)?;
        match self.seen(id)?.kind {
            Kind::Directory(_) => Ok(id),
            _ => Err(Problem::NotDirectory(*identity)),
        }
    }

    pub(super) fn entry(&mut self, directory: ObjectId, name: &[u8]) -> Result<Option<ObjectId>, Problem> {
        Ok(self.name(directory, name)?.map(|entry| entry.object))
    }

    /// The directory, in which the name must be free.
    pub(super) fn vacant(&mut self, parent: &Identity, name: &[u8]) -> Result<ObjectId, Problem> {
        let parent = self.directory(parent)?;
        if !check_name(name) {
            return Err(Problem::Name(name.to_vec()));
        }
        match self.entry(parent, name)? {
            None => Ok(parent),
            Some(_) => Err(Problem::NameExists(name.to_vec())),
        }
    }

    /// The directory, in which the name must be the object's.
    pub(super) fn holding(&mut self, parent: &Identity, name: &[u8], id: ObjectId) -> Result<ObjectId, Problem> {
        let parent = self.directory(parent)?;
        match self.entry(parent, name)? {
            None => Err(Problem::NoName(name.to_vec())),
            Some(found) if found == id => Ok(parent),
            Some(found) => Err(Problem::OtherObject(name.to_vec(), self.seen(found)?.identity)),
        }
    }

    pub(super) fn must_be_empty(&mut self, id: ObjectId) -> Result<(), Problem> {
        match self.seen(id)?.kind {
            Kind::Directory(entries) if entries > 0 => Err(Problem::NotEmpty),
            _ => Ok(()),
        }
    }

    /// `id`, if it is a directory, must not be `below` or above it.
    pub(super) fn not_below(&mut self, id: ObjectId, below: ObjectId) -> Result<(), Problem> {
        if !self.seen(id)?.is_directory() {
            return Ok(());
        }
        let mut at = Some(below);
        while let Some(directory) = at {
            if directory == id {
                return Err(Problem::Cycle);
            }
            at = self.seen(directory)?.home.as_ref().map(|(directory, _)| *directory);
        }
        Ok(())
    }

    /// Whether an object without a name can only be a leftover of an earlier epoch, whose end nobody recorded.
    pub(super) fn is_stale(&mut self, id: ObjectId, epoch: u64) -> Result<bool, Problem> {
        let object = self.seen(id)?;
        Ok(object.names == 0 && object.epoch < epoch)
    }

    pub(super) fn add(
        &mut self,
        identity: Identity,
        attr: Attributes,
        kind: Kind,
        xattrs: XattrMap,
        epoch: u64,
    ) -> Result<ObjectId, Problem> {
        if identity.is_none() {
            return Err(Problem::Unknown(identity));
        }
        if let Some(known) = self.find(&identity)? {
            if !self.is_stale(known, epoch)? {
                return Err(Problem::Exists);
            }
            self.forget(known)?;
        }
        let id = ObjectId(self.counts.next);
        self.counts.next += 1;
        self.counts.objects += 1;
        self.counts.unnamed += 1;
        self.objects.insert(id, Object::new(identity, attr, kind, xattrs, epoch));
        Ok(id)
    }

    pub(super) fn forget(&mut self, id: ObjectId) -> Result<(), Problem> {
        if let Some(object) = self.objects.remove(id)? {
            self.counts.objects = self.counts.objects.saturating_sub(1);
            self.counts.unnamed = self.counts.unnamed.saturating_sub(u64::from(object.names == 0));
            self.gone.push((id, object));
        }
        Ok(())
    }

    /// Tells who watches that the name is about to go.
    pub(super) fn tell(
        &mut self,
        directory: ObjectId,
        name: &[u8],
        to: Option<(ObjectId, &[u8])>,
        record: &RecordView<'_>,
    ) -> Result<(), Problem> {
        if !self.watch.as_ref().is_some_and(|watch| watch.minds(name)) {
            return Ok(());
        }
        let path = self.path_of(directory, name)?;
        let to = to.map(|(directory, name)| self.path_of(directory, name)).transpose()?;
        if let Some(watch) = self.watch.as_mut() {
            watch.lost(path, to, record.lsn(), record.header().time.get());
        }
        Ok(())
    }

    pub(super) fn path_of(&mut self, directory: ObjectId, name: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut path = self.path(directory)?;
        if path != b"/" {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(path)
    }

    pub(super) fn enter(&mut self, parent: ObjectId, name: &[u8], id: ObjectId) -> Result<(), Problem> {
        let object = self.slot(id)?;
        object.names += 1;
        let first = object.names == 1;
        if object.home.is_none() {
            object.home = Some((parent, name.into()));
        }
        let entry = Entry { object: id, directory: object.is_directory() };
        let back =
            matches!(&object.staged, Staged::Named(directory, staged) if *directory == parent && **staged == *name);
        self.counts.names += 1;
        self.counts.unnamed = self.counts.unnamed.saturating_sub(u64::from(first));
        self.objects.set_name(parent, name, Some(entry));
        if back {
            self.objects.set_displaced(parent, name, None);
        }
        if let Kind::Directory(entries) = &mut self.slot(parent)?.kind {
            *entries += 1;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, parent: ObjectId, name: &[u8], id: ObjectId) -> Result<(), Problem> {
        let object = self.slot(id)?;
        let had = object.names;
        object.names = had.saturating_sub(1);
        let is_it = |directory: ObjectId, known: &[u8]| directory == parent && *known == *name;
        if object.home.as_ref().is_some_and(|(directory, known)| is_it(*directory, known)) {
            object.home = None;
        }
        // Its file stays where it is; whoever gets the name next is staged elsewhere.
        let displaced = matches!(&object.staged, Staged::Named(directory, known) if is_it(*directory, known));
        self.counts.names = self.counts.names.saturating_sub(1);
        self.counts.unnamed += u64::from(had == 1);
        self.objects.set_name(parent, name, None);
        if displaced {
            self.objects.set_displaced(parent, name, Some(id));
        }
        if let Kind::Directory(entries) = &mut self.slot(parent)?.kind {
            *entries = entries.saturating_sub(1);
        }
        Ok(())
    }

    /// Takes over attributes, in a record that does not change the size.
    pub(super) fn set_attr(&mut self, lsn: Lsn, id: ObjectId, attr: &Attributes) -> Result<(), Problem> {
        let object = self.slot(id)?;
        let (recorded, known) = (attr.size.get(), object.attr.size.get());
        let sized = matches!(object.kind, Kind::File);
        self.take_attr(id, attr)?;
        if sized && recorded != known {
            self.doubt(lsn, Problem::Size { recorded, known })?;
        }
        Ok(())
    }

    pub(super) fn take_attr(&mut self, id: ObjectId, attr: &Attributes) -> Result<(), Problem> {
        let object = self.slot(id)?;
        if file_type(attr) != file_type(&object.attr) {
            return Err(Problem::TypeChanged { before: object.attr.mode.get(), after: attr.mode.get() });
        }
        let before = std::mem::replace(&mut object.attr, *attr);
        // A record that does not say what the file attributes are has not changed them.
        if attr.valid.get() & Attributes::FILEATTR_VALID == 0 {
            object.attr.fileattr = before.fileattr;
            object.attr.projid = before.projid;
            object.attr.valid = before.valid;
        }
        let given = |attr: &Attributes| (attr.mode, attr.uid, attr.gid, attr.mtime_sec, attr.mtime_nsec, attr.size);
        object.settled &= given(&before) == given(attr);
        Ok(())
    }

    /// The links of what is no directory have to be as many as its names. (What a directory counts, its filesystem decides.)
    pub(super) fn check_links(&mut self, lsn: Lsn, id: ObjectId) -> Result<(), Problem> {
        let object = self.slot(id)?;
        let (recorded, known) = (object.attr.nlink.get(), object.names);
        if object.is_directory() || recorded == known {
            return Ok(());
        }
        self.doubt(lsn, Problem::Links { recorded, known })
    }
}
