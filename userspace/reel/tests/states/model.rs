// SPDX-License-Identifier: GPL-2.0-or-later

//! A tree in memory that records what is done to it, as the kernel does, and tells its state when a checkpoint asks.

use std::collections::{BTreeMap, BTreeSet};

use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::record::*;
use rustix::fs::FallocateFlags;
use zerocopy::{FromZeros, IntoBytes};

pub const STREAM: [u8; 16] = [7; 16];
/// Shifts move whole blocks.
pub const BLOCK: u64 = 4096;
/// No file is longer.
const SIZE: u64 = 16 * BLOCK;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const NODE: u32 = 0o020_000;

pub type Number = u32;
pub const ROOT: Number = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub kind: u32,
    perm: u32,
    nlink: u32,
    mtime: i64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub data: Vec<u8>,
    pub entries: BTreeMap<Vec<u8>, Number>,
    pub target: Vec<u8>,
    shifts: u64,
    /// Has had no name yet and may get one.
    linkable: bool,
}

impl Object {
    fn new(kind: u32, time: i64) -> Self {
        Object {
            kind,
            perm: 0o640,
            nlink: if kind == DIRECTORY { 2 } else { 1 },
            mtime: time,
            xattrs: BTreeMap::new(),
            data: Vec::new(),
            entries: BTreeMap::new(),
            target: Vec::new(),
            shifts: 0,
            linkable: false,
        }
    }

    pub fn is_directory(&self) -> bool {
        self.kind == DIRECTORY
    }

    pub fn is_file(&self) -> bool {
        self.kind == FILE
    }

    pub fn attr(&self) -> Attributes {
        let mut attr = Attributes::ZERO;
        attr.mode = (self.kind | self.perm).into();
        attr.nlink = self.nlink.into();
        attr.mtime_sec = self.mtime.into();
        attr.size = (self.data.len().max(self.target.len()) as u64).into();
        attr
    }
}

pub fn identity(number: Number) -> Identity {
    Identity::new(1, &number.to_le_bytes()).unwrap()
}

pub fn number(identity: &Identity) -> Number {
    Number::from_le_bytes(identity.handle().unwrap().try_into().unwrap())
}

/// What is done: a choice of operation, and numbers from which its objects, names and ranges follow.
pub type Op = (u8, u32, u32, u32);

#[derive(Clone, Debug)]
pub struct Model {
    pub log: LogBuilder,
    pub objects: BTreeMap<Number, Object>,
    next: Number,
}

impl Model {
    /// A tree that had something in it when it was mounted first.
    pub fn populated() -> Self {
        let mut model = Model { log: LogBuilder::new(), objects: BTreeMap::new(), next: ROOT + 1 };
        model.objects.insert(ROOT, Object::new(DIRECTORY, 0));
        let mut body = MountBody::new_zeroed();
        body.stream = STREAM;
        body.flags = (MOUNT_FIRST | MOUNT_POPULATED).into();
        body.root = model.attr(ROOT);
        model.push(RecordType::Mount, ROOT, &body, &Payload::new());
        model
    }

    fn push<B: Body>(&mut self, kind: RecordType, object: Number, body: &B, payload: &Payload) -> Lsn {
        self.log.push(kind, 0, identity(object), body, payload).unwrap()
    }

    pub fn attr(&self, number: Number) -> Attributes {
        self.objects[&number].attr()
    }

    fn object(&mut self, number: Number) -> &mut Object {
        self.objects.get_mut(&number).unwrap()
    }

    fn touch(&mut self, number: Number) {
        let time = self.log.lsn as i64;
        self.object(number).mtime = time;
    }

    fn pick(&self, choice: u32, wanted: impl Fn(&Object) -> bool) -> Option<Number> {
        let found: Vec<_> =
            self.objects.iter().filter(|(_, object)| wanted(object)).map(|(number, _)| *number).collect();
        found.get(choice as usize % found.len().max(1)).copied()
    }

    /// A directory that is in the tree.
    fn directory(&self, choice: u32) -> Number {
        self.pick(choice, |object| object.is_directory() && object.nlink > 0).unwrap()
    }

    fn file(&self, choice: u32) -> Option<Number> {
        self.pick(choice, Object::is_file)
    }

    /// A directory and a name in it that is taken.
    fn named(&self, choice: u32) -> Option<(Number, Vec<u8>, Number)> {
        let all = self.objects.iter().flat_map(|(directory, object)| {
            object.entries.iter().map(|(name, child)| (*directory, name.clone(), *child))
        });
        let all: Vec<_> = all.collect();
        all.get(choice as usize % all.len().max(1)).cloned()
    }

    fn is_below(&self, number: Number, top: Number) -> bool {
        number == top
            || self.objects[&top]
                .entries
                .values()
                .any(|child| self.objects[child].is_directory() && self.is_below(number, *child))
    }

    /// Does what is asked for, if it can be done, and records it.
    pub fn work(&mut self, (kind, a, b, c): Op) {
        let name = format!("n{}", b % 8).into_bytes();
        match kind % 32 {
            0..=3 => self.create(FILE, a, name),
            4 | 5 => self.create(DIRECTORY, a, name),
            6 => self.create(if c % 2 == 0 { SYMLINK } else { NODE }, a, name),
            7 | 8 => self.link(c, a, name),
            9 | 10 => self.unlink(a, c % 3 == 0),
            11..=15 => self.rename(a, c, name, 0),
            16 => self.rename(a, c, name, 2),
            17 => self.rename(a, c, name, RENAME_WHITEOUT),
            18..=21 => self.write(a, u64::from(b) % SIZE, c),
            22 => self.truncate(a, u64::from(b) % SIZE),
            23 => self.allocate(a, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, b, c),
            24 => self.allocate(a, FallocateFlags::ZERO_RANGE, b, c),
            25 => self.allocate(a, FallocateFlags::COLLAPSE_RANGE, b, c),
            26 => self.allocate(a, FallocateFlags::INSERT_RANGE, b, c),
            27 => self.setattr(a, c),
            28 => self.xattr(a, b, c),
            29 => self.unnamed(c),
            30 => self.link_unnamed(a, name),
            _ => self.close(a),
        }
    }

    fn create(&mut self, kind: u32, directory: u32, name: Vec<u8>) {
        let parent = self.directory(directory);
        if self.objects[&parent].entries.contains_key(&name) {
            return;
        }
        let number = self.next;
        self.next += 1;
        let mut object = Object::new(kind, self.log.lsn as i64);
        if kind == SYMLINK {
            object.target = format!("to/{number}").into_bytes();
        }
        object.xattrs.insert(b"user.born".to_vec(), number.to_le_bytes().to_vec());
        self.objects.insert(number, object);
        self.object(parent).entries.insert(name.clone(), number);
        self.touch(parent);
        let object = &self.objects[&number];
        let list = object.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        let (payload, xattrs_len, xattrs) = Payload::of(&name).part(&object.target).xattrs(list);
        let body = CreateBody {
            parent: identity(parent),
            attr: object.attr(),
            parent_attr: self.attr(parent),
            name_len: (name.len() as u32).into(),
            target_len: (object.target.len() as u32).into(),
            xattrs_len: xattrs_len.into(),
            xattrs: xattrs.into(),
        };
        self.push(RecordType::Create, number, &body, &payload);
    }

    fn record_link(&mut self, number: Number, parent: Number, name: Vec<u8>) {
        self.object(parent).entries.insert(name.clone(), number);
        self.object(number).nlink += 1;
        self.object(number).linkable = false;
        self.touch(parent);
        let body = LinkBody {
            parent: identity(parent),
            attr: self.attr(number),
            parent_attr: self.attr(parent),
            name_len: (name.len() as u32).into(),
            reserved: 0.into(),
        };
        self.push(RecordType::Link, number, &body, &Payload::of(&name));
    }

    fn link(&mut self, object: u32, directory: u32, name: Vec<u8>) {
        let parent = self.directory(directory);
        let Some(number) = self.pick(object, |object| !object.is_directory() && object.nlink > 0) else { return };
        if !self.objects[&parent].entries.contains_key(&name) {
            self.record_link(number, parent, name);
        }
    }

    fn gone(&mut self, number: Number) {
        self.objects.remove(&number);
        self.push(RecordType::ObjectGone, number, &EmptyBody {}, &Payload::new());
    }

    fn lose_link(&mut self, number: Number) {
        let object = self.object(number);
        object.nlink = if object.is_directory() { 0 } else { object.nlink - 1 };
    }

    fn unlink(&mut self, choice: u32, kept_open: bool) {
        let Some((parent, name, number)) = self.named(choice) else { return };
        if !self.objects[&number].entries.is_empty() {
            return;
        }
        self.object(parent).entries.remove(&name);
        self.lose_link(number);
        self.touch(parent);
        let body = UnlinkBody {
            parent: identity(parent),
            attr: self.attr(number),
            parent_attr: self.attr(parent),
            name_len: (name.len() as u32).into(),
            reserved: 0.into(),
        };
        self.push(RecordType::Unlink, number, &body, &Payload::of(&name));
        if self.objects[&number].nlink == 0 && !kept_open {
            self.gone(number);
        }
    }

    fn rename(&mut self, from: u32, to: u32, new_name: Vec<u8>, flags: u32) {
        let Some((old_parent, old_name, number)) = self.named(from) else { return };
        let new_parent = self.directory(to);
        let other = self.objects[&new_parent].entries.get(&new_name).copied();
        let is_directory = |number: Number| self.objects[&number].is_directory();
        let exchange = flags == 2;
        if (exchange && other.is_none())
            || other == Some(number)
            || (is_directory(number) && self.is_below(new_parent, number))
            || (exchange && other.is_some_and(|other| is_directory(other) && self.is_below(old_parent, other)))
        {
            return;
        }
        if let (Some(other), false) = (other, exchange) {
            if is_directory(other) != is_directory(number) || !self.objects[&other].entries.is_empty() {
                return;
            }
        }
        self.object(old_parent).entries.remove(&old_name);
        self.object(new_parent).entries.insert(new_name.clone(), number);
        let mut payload = Payload::of(&old_name).part(&new_name);
        let mut body = RenameBody::new_zeroed();
        if flags == RENAME_WHITEOUT {
            let left = self.next;
            self.next += 1;
            self.objects.insert(left, Object { perm: 0, ..Object::new(NODE, self.log.lsn as i64) });
            self.object(old_parent).entries.insert(old_name.clone(), left);
            body.whiteout = identity(left);
            let part = WhiteoutPart { attr: self.attr(left), xattrs_len: 0.into(), xattrs: 0.into() };
            payload = payload.part(part.as_bytes());
        }
        match other {
            Some(other) if exchange => drop(self.object(old_parent).entries.insert(old_name.clone(), other)),
            Some(other) => self.lose_link(other),
            None => {}
        }
        self.touch(old_parent);
        self.touch(new_parent);
        (body.old_parent, body.new_parent) = (identity(old_parent), identity(new_parent));
        (body.old_parent_attr, body.new_parent_attr) = (self.attr(old_parent), self.attr(new_parent));
        body.attr = self.attr(number);
        if let Some(other) = other {
            (body.other, body.other_attr) = (identity(other), self.attr(other));
        }
        body.flags = flags.into();
        body.old_name_len = (old_name.len() as u32).into();
        body.new_name_len = (new_name.len() as u32).into();
        self.push(RecordType::Rename, number, &body, &payload);
        if let Some(other) = other.filter(|other| self.objects[other].nlink == 0) {
            if from % 3 != 0 {
                self.gone(other);
            }
        }
    }

    fn write(&mut self, file: u32, offset: u64, seed: u32) {
        let Some(number) = self.file(file) else { return };
        let bytes: Vec<u8> = (0..1 + seed % 9000).map(|at| (at.wrapping_mul(31) ^ seed) as u8 | 1).collect();
        self.touch(number);
        store(&mut self.object(number).data, offset, &bytes);
        let body = WriteBody { offset: offset.into(), attr: self.attr(number) };
        self.push(RecordType::Write, number, &body, &Payload::of(&bytes));
    }

    /// Writes so much that a segment is soon full.
    pub fn big_write(&mut self, file: u32, seed: u32) {
        let Some(number) = self.file(file) else { return };
        let bytes = vec![seed as u8 | 1; 600_000];
        self.touch(number);
        store(&mut self.object(number).data, 0, &bytes);
        let body = WriteBody { offset: 0.into(), attr: self.attr(number) };
        self.push(RecordType::Write, number, &body, &Payload::of(&bytes));
    }

    fn truncate(&mut self, file: u32, size: u64) {
        let Some(number) = self.file(file) else { return };
        self.object(number).data.resize(size as usize, 0);
        self.touch(number);
        self.attr_record(RecordType::Truncate, number);
    }

    fn attr_record(&mut self, kind: RecordType, number: Number) {
        let mut body = AttrBody::new_zeroed();
        body.attr = self.attr(number);
        self.push(kind, number, &body, &Payload::new());
    }

    fn allocate(&mut self, file: u32, mode: FallocateFlags, offset: u32, length: u32) {
        let Some(number) = self.file(file) else { return };
        let shifts = mode.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE);
        let (mut offset, mut length) = (u64::from(offset) % SIZE, 1 + u64::from(length) % 20_000);
        let data = &mut self.object(number).data;
        if shifts {
            (offset, length) = (offset / BLOCK * BLOCK, (1 + length % 3) * BLOCK);
            let size = data.len() as u64;
            if mode.contains(FallocateFlags::COLLAPSE_RANGE) && offset + length >= size
                || mode.contains(FallocateFlags::INSERT_RANGE) && (offset >= size || size + length > 2 * SIZE)
            {
                return;
            }
        }
        change(data, mode.bits(), offset, length);
        self.object(number).shifts += u64::from(shifts);
        self.touch(number);
        let body = FallocateBody {
            mode: mode.bits().into(),
            reserved: 0.into(),
            offset: offset.into(),
            length: length.into(),
            attr: self.attr(number),
        };
        self.push(RecordType::Fallocate, number, &body, &Payload::new());
    }

    fn setattr(&mut self, object: u32, perm: u32) {
        let Some(number) = self.pick(object, |_| true) else { return };
        self.object(number).perm = perm & 0o777;
        self.attr_record(RecordType::Setattr, number);
    }

    fn xattr(&mut self, object: u32, name: u32, value: u32) {
        let Some(number) = self.pick(object, |_| true) else { return };
        let name = format!("user.{}", name % 3).into_bytes();
        let value = (value % 3 != 0).then(|| value.to_le_bytes());
        let (kind, payload) = match value {
            Some(value) => {
                self.object(number).xattrs.insert(name.clone(), value.to_vec());
                (RecordType::SetXattr, Payload::of(&name).part(&value))
            }
            None if self.object(number).xattrs.remove(&name).is_some() => (RecordType::RemoveXattr, Payload::of(&name)),
            None => return,
        };
        let body = XattrBody {
            attr: self.attr(number),
            name_len: (name.len() as u32).into(),
            value_len: (value.map_or(0, |value| value.len()) as u32).into(),
        };
        self.push(kind, number, &body, &payload);
    }

    fn unnamed(&mut self, seed: u32) {
        let number = self.next;
        self.next += 1;
        let object = Object { nlink: 0, linkable: true, ..Object::new(FILE, self.log.lsn as i64) };
        self.objects.insert(number, object);
        let mut body = CreateBody::new_zeroed();
        body.attr = self.attr(number);
        self.push(RecordType::Create, number, &body, &Payload::new());
        let at = self.objects.values().filter(|object| object.is_file()).count() - 1;
        self.write(at as u32, u64::from(seed) % BLOCK, seed);
    }

    fn link_unnamed(&mut self, directory: u32, name: Vec<u8>) {
        let parent = self.directory(directory);
        let Some(number) = self.pick(directory, |object| object.linkable) else { return };
        if !self.objects[&parent].entries.contains_key(&name) {
            self.record_link(number, parent, name);
        }
    }

    fn close(&mut self, choice: u32) {
        if let Some(number) = self.pick(choice, |object| object.nlink == 0) {
            self.gone(number);
        }
    }

    // What a checkpoint asks for.

    pub fn begin(&mut self) -> Lsn {
        self.push(RecordType::CheckpointBegin, ROOT, &CheckpointBeginBody::new_zeroed(), &Payload::new())
    }

    pub fn end(&mut self, checkpoint: Lsn) {
        let mut body = CheckpointEndBody::new_zeroed();
        body.checkpoint = checkpoint.into();
        self.push(RecordType::CheckpointEnd, ROOT, &body, &Payload::new());
    }

    pub fn unnamed_objects(&self) -> BTreeSet<Number> {
        self.objects.iter().filter(|(_, object)| object.nlink == 0).map(|(number, _)| *number).collect()
    }

    /// `TELL_OBJECT`.
    pub fn tell_object(&mut self, checkpoint: Lsn, number: Number) {
        let object = &self.objects[&number];
        let list = object.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        let (payload, xattrs_len, xattrs) = Payload::of(&object.target).xattrs(list);
        let body = ObjectStateBody {
            checkpoint: checkpoint.into(),
            attr: object.attr(),
            target_len: (object.target.len() as u32).into(),
            xattrs_len: xattrs_len.into(),
            xattrs: xattrs.into(),
            reserved: 0.into(),
        };
        self.push(RecordType::ObjectState, number, &body, &payload);
    }

    /// `TELL_DATA`: from `position` on, about `length` bytes. Where to go on, or `None` when all has been told; an error
    /// where it has to begin again.
    pub fn tell_data(
        &mut self,
        checkpoint: Lsn,
        number: Number,
        position: u64,
        shifts: &mut u64,
        length: u64,
    ) -> Result<Option<u64>, ()> {
        let object = &self.objects[&number];
        if position != 0 && object.shifts != *shifts {
            return Err(());
        }
        *shifts = object.shifts;
        let size = object.data.len() as u64;
        let start = position.min(size);
        // Whole blocks of zeros are holes.
        let block = |at: u64| object.data[at as usize..size.min(at + BLOCK) as usize].iter().all(|byte| *byte == 0);
        let hole = start < size && start % BLOCK == 0 && block(start);
        let end = size.min(if hole { start + BLOCK } else { start + length });
        let flags = if position == 0 { STATE_FIRST } else { 0 }
            | if end == size { STATE_LAST } else { 0 }
            | if hole { STATE_HOLE } else { 0 };
        let body = ObjectDataBody {
            checkpoint: checkpoint.into(),
            offset: position.into(),
            length: (end - start).into(),
            attr: object.attr(),
            flags: flags.into(),
            reserved: 0.into(),
        };
        let bytes = if hole { &[][..] } else { &object.data[start as usize..end as usize] };
        let payload = Payload::of(bytes);
        self.push(RecordType::ObjectData, number, &body, &payload);
        Ok((end < size).then_some(end))
    }

    /// `TELL_ENTRIES`: at most `count` from the cookie `position` on. Where to go on, or `None` when all has been told.
    pub fn tell_entries(&mut self, checkpoint: Lsn, number: Number, position: u64, count: usize) -> Option<u64> {
        let mut entries: Vec<_> =
            self.objects[&number].entries.iter().map(|(name, child)| (cookie(name), name.clone(), *child)).collect();
        entries.sort();
        entries.retain(|(cookie, ..)| *cookie >= position);
        let next = entries.get(count).map(|(cookie, ..)| *cookie);
        entries.truncate(count);
        let mut payload = Payload::new();
        for (_, name, child) in &entries {
            let entry = DirectoryEntry {
                object: identity(*child),
                mode: self.attr(*child).mode,
                name_len: (name.len() as u32).into(),
            };
            payload = payload.part(entry.as_bytes()).part(name);
        }
        let flags = if position == 0 { STATE_FIRST } else { 0 } | if next.is_none() { STATE_LAST } else { 0 };
        let body = DirectoryStateBody {
            checkpoint: checkpoint.into(),
            attr: self.attr(number),
            entries: (entries.len() as u32).into(),
            flags: flags.into(),
            reserved: 0.into(),
        };
        self.push(RecordType::DirectoryState, number, &body, &payload);
        next
    }
}

/// The order in which a directory gives its names: not that of the names, and the same each time.
fn cookie(name: &[u8]) -> u64 {
    name.iter().fold(17, |hash: u64, byte| hash.wrapping_mul(0x9e37_79b9) ^ u64::from(*byte)) % 1000 + 1
}

pub fn store(data: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (offset, end) = (offset as usize, offset as usize + bytes.len());
    if !bytes.is_empty() {
        data.resize(data.len().max(end), 0);
        data[offset..end].copy_from_slice(bytes);
    }
}

/// What `fallocate(2)` does to contents.
pub fn change(data: &mut Vec<u8>, mode: u32, offset: u64, length: u64) {
    let mode = FallocateFlags::from_bits_retain(mode);
    let (offset, end) = (offset as usize, (offset + length) as usize);
    if mode.contains(FallocateFlags::COLLAPSE_RANGE) {
        data.drain(offset..end);
        return;
    }
    if mode.contains(FallocateFlags::INSERT_RANGE) {
        data.splice(offset..offset, std::iter::repeat_n(0, end - offset));
        return;
    }
    if !mode.contains(FallocateFlags::KEEP_SIZE) {
        data.resize(data.len().max(end), 0);
    }
    if mode.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
        let size = data.len();
        data[offset.min(size)..end.min(size)].fill(0);
    }
}
