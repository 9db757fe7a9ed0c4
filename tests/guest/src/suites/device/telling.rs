// SPDX-License-Identifier: GPL-2.0-or-later

//! A consumer that makes checkpoints, call by call, and believes nothing of what it is told.

use reelfs_format::record::{Attributes, Identity, Lsn, STATE_FIRST, STATE_HOLE, STATE_LAST};
use reelfs_format::uapi::{
    Checkpoint, State, Unnamed, CHECKPOINT_BEGIN, CHECKPOINT_END, IOC_CHECKPOINT, IOC_STATE, IOC_UNNAMED, TELL_DATA,
    TELL_ENTRIES, TELL_OBJECT, UNNAMED_MAX,
};
use reelfs_format::view::{Event, RecordView};
use reelfs_sys::device::Ring;
use reelfs_sys::trial::command;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use zerocopy::{FromZeros, IntoBytes};

/// The type bits of a mode, and some of the types.
pub const S_IFMT: u32 = 0o170_000;
pub const S_IFDIR: u32 = 0o040_000;
pub const S_IFREG: u32 = 0o100_000;

/// What anything here can fail with.
pub type Told<T> = Result<T, Box<dyn Error>>;

/// `REELFS_IOC_CHECKPOINT`.
pub fn checkpoint(device: impl AsFd, mut request: Checkpoint) -> io::Result<Checkpoint> {
    command(device, IOC_CHECKPOINT, request.as_mut_bytes()).map(|_| request)
}

/// `REELFS_IOC_STATE`.
pub fn tell(device: impl AsFd, mut request: State) -> io::Result<State> {
    command(device, IOC_STATE, request.as_mut_bytes()).map(|_| request)
}

/// `REELFS_IOC_UNNAMED`: one part.
pub fn unnamed(device: impl AsFd, after: Identity) -> io::Result<Vec<Identity>> {
    let mut request = Unnamed::new_zeroed();
    request.after = zerocopy::transmute!(after);
    command(device, IOC_UNNAMED, request.as_mut_bytes())?;
    assert!(request.count <= UNNAMED_MAX as u64, "{}", request.count);
    let objects = request.objects.into_iter().take(request.count as usize);
    Ok(objects.map(|object| zerocopy::transmute!(object)).collect())
}

/// The identity of what is at a path of the lower tree, without looking it up through the mount.
pub fn identity(path: &Path) -> Told<Identity> {
    let directory = File::open(path.parent().ok_or("no directory")?)?;
    let name = CString::new(path.file_name().ok_or("no name")?.as_bytes())?;
    let (kind, handle) = reelfs_sys::inode::handle(&directory, &name)?;
    Ok(Identity::new(u16::try_from(kind)?, &handle).ok_or("a handle that is too long")?)
}

/// All records that are not acknowledged, which they are then.
pub fn take(ring: &mut Ring) -> Told<Vec<Vec<u8>>> {
    let mut end = ring.acknowledged();
    let mut taken = Vec::new();
    for record in ring.records()? {
        let record = record?.bytes.to_vec();
        let view = RecordView::parse(&record, Some(end))?;
        view.event()?;
        end = view.next_lsn();
        taken.push(record);
    }
    ring.acknowledge(end)?;
    Ok(taken)
}

/// One object, as a checkpoint told it.
pub struct Object {
    pub attr: Attributes,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a regular file: the bytes.
    pub contents: Vec<u8>,
    /// Of a regular file: where nothing is.
    pub holes: Vec<Range<u64>>,
    /// Of a directory: the names and whose they are.
    pub entries: BTreeMap<Vec<u8>, Identity>,
    /// How many calls its contents or entries took.
    pub calls: usize,
}

/// An open checkpoint.
pub struct Telling {
    pub ring: Ring,
    /// LSN of the begin record.
    pub begin: Lsn,
    pub root: Identity,
    /// About how many bytes each call may fill.
    pub length: u64,
}

impl Telling {
    /// Begins one. What was in the ring before is acknowledged.
    pub fn begin(mut ring: Ring) -> Told<Self> {
        take(&mut ring)?;
        let begun = checkpoint(&ring, Checkpoint { operation: CHECKPOINT_BEGIN, ..Checkpoint::default() })?;
        let root: Identity = zerocopy::transmute!(begun.root);
        let [record] = &take(&mut ring)?[..] else { return Err("not one begin record".into()) };
        let view = RecordView::parse(record, Some(begun.begin))?;
        assert!(matches!(view.event()?, Event::CheckpointBegin { .. }));
        assert_eq!((view.next_lsn(), view.header().object), (begun.lsn, root));
        Ok(Self { ring, begin: begun.begin, root, length: 1 << 20 })
    }

    /// Ends it, as complete.
    pub fn end(mut self, objects: u64, bytes: u64) -> Told<Ring> {
        let request =
            Checkpoint { operation: CHECKPOINT_END, begin: self.begin, objects, bytes, ..Checkpoint::default() };
        take(&mut self.ring)?;
        let ended = checkpoint(&self.ring, request)?;
        let [record] = &take(&mut self.ring)?[..] else { return Err("not one end record".into()) };
        let view = RecordView::parse(record, None)?;
        let Event::CheckpointEnd { body } = view.event()? else { return Err("no end record".into()) };
        assert_eq!((body.checkpoint.get(), body.objects.get(), body.bytes.get()), (self.begin, objects, bytes));
        assert_eq!((view.next_lsn(), view.header().object), (ended.lsn, self.root));
        Ok(self.ring)
    }

    /// A call for this object.
    pub fn request(&self, what: u32, object: &Identity) -> State {
        State {
            what,
            checkpoint: self.begin,
            object: zerocopy::transmute!(*object),
            length: self.length,
            ..State::default()
        }
    }

    /// One call, which has to succeed, and the records that it made.
    pub fn call(&mut self, request: State) -> Told<(State, Vec<Vec<u8>>)> {
        take(&mut self.ring)?;
        let told = tell(&self.ring, request)?;
        let records = take(&mut self.ring)?;
        let last = records.last().ok_or("nothing was told")?;
        assert_eq!(RecordView::parse(last, None)?.next_lsn(), told.lsn);
        for record in &records {
            assert_eq!(RecordView::parse(record, None)?.header().object.as_bytes(), &request.object);
        }
        Ok((told, records))
    }

    /// What the object is like, contents and entries apart.
    pub fn state(&mut self, object: &Identity) -> Told<Object> {
        let (told, records) = self.call(self.request(TELL_OBJECT, object))?;
        assert_eq!((told.flags, records.len()), (STATE_LAST, 1));
        let view = RecordView::parse(&records[0], None)?;
        let Event::ObjectState { body, target, xattrs } = view.event()? else { return Err("no object state".into()) };
        assert_eq!(body.checkpoint.get(), self.begin);
        let attr = body.attr;
        let size = if attr.mode.get() & S_IFMT == S_IFREG { attr.size.get() } else { 0 };
        assert_eq!((told.mode, told.nlink, told.amount), (attr.mode.get(), attr.nlink.get(), size));
        let count = xattrs.len();
        let xattrs: BTreeMap<_, _> = xattrs.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        assert_eq!(xattrs.len(), count, "an extended attribute was told twice");
        Ok(Object {
            attr,
            target: target.to_vec(),
            xattrs,
            contents: Vec::new(),
            holes: Vec::new(),
            entries: BTreeMap::new(),
            calls: 0,
        })
    }

    /// What a part of a file's contents is, put to what is known of it. What the call said.
    pub fn data(&mut self, request: State, object: &mut Object) -> Told<State> {
        let (told, records) = self.call(request)?;
        let (mut at, mut amount) = (request.position, 0);
        let (count, mut flags) = (records.len(), 0);
        for (number, record) in records.iter().enumerate() {
            let view = RecordView::parse(record, None)?;
            let Event::ObjectData { body, data } = view.event()? else { return Err("no object data".into()) };
            flags = body.flags.get();
            assert_eq!(body.checkpoint.get(), self.begin);
            assert_eq!(flags & STATE_FIRST != 0, number == 0 && request.position == 0, "{flags:#x}");
            assert!(flags & STATE_LAST == 0 || number + 1 == count, "more after the last one");
            assert_eq!(body.offset.get(), at, "not where the one before ended");
            let end = at + body.length.get();
            if flags & STATE_FIRST != 0 {
                object.contents.clear();
                object.holes.clear();
            }
            assert_eq!(object.contents.len() as u64, at);
            if flags & STATE_HOLE != 0 {
                assert!(end > at, "an empty hole");
                match object.holes.last_mut() {
                    Some(hole) if hole.end == at => hole.end = end,
                    _ => object.holes.push(at..end),
                }
                object.contents.resize(usize::try_from(end)?, 0);
            } else {
                object.contents.extend_from_slice(data);
                amount += data.len() as u64;
            }
            assert!(end <= body.attr.size.get() && (flags & STATE_LAST != 0) == (end == body.attr.size.get()));
            object.attr = body.attr;
            at = end;
        }
        object.calls += 1;
        assert_eq!((told.position, told.amount, told.flags), (at, amount, flags & STATE_LAST));
        Ok(told)
    }

    /// All that a file holds.
    pub fn contents(&mut self, identity: &Identity, object: &mut Object) -> Told<()> {
        let mut request = self.request(TELL_DATA, identity);
        loop {
            let told = self.data(request, object)?;
            if told.flags & STATE_LAST != 0 {
                return Ok(());
            }
            request = State { position: told.position, shifts: told.shifts, ..request };
        }
    }

    /// Some of a directory's entries, as they were told. What the call said.
    #[allow(clippy::type_complexity)]
    pub fn some_entries(&mut self, request: State) -> Told<(State, Vec<(Vec<u8>, Identity, u32)>)> {
        let (told, records) = self.call(request)?;
        assert_eq!(records.len(), 1);
        let view = RecordView::parse(&records[0], None)?;
        let Event::DirectoryState { body, entries } = view.event()? else { return Err("no directory state".into()) };
        let first = if request.position == 0 { STATE_FIRST } else { 0 };
        assert_eq!((body.checkpoint.get(), body.flags.get()), (self.begin, first | told.flags));
        let entries: Vec<_> = entries.map(|(entry, name)| (name.to_vec(), entry.object, entry.mode.get())).collect();
        assert_eq!((told.amount, u64::from(body.entries.get())), (entries.len() as u64, entries.len() as u64));
        Ok((told, entries))
    }

    /// All entries of a directory, in which nothing changes meanwhile: each is told once.
    pub fn entries(&mut self, identity: &Identity, object: &mut Object) -> Told<()> {
        let mut request = self.request(TELL_ENTRIES, identity);
        loop {
            let (told, entries) = self.some_entries(request)?;
            object.calls += 1;
            for (name, entry, _) in entries {
                let twice = object.entries.insert(name.clone(), entry);
                assert!(twice.is_none(), "{} was told twice", String::from_utf8_lossy(&name));
            }
            if told.flags & STATE_LAST != 0 {
                return Ok(());
            }
            request.position = told.position;
        }
    }

    /// The whole tree, by paths from the root.
    pub fn walk(&mut self) -> Told<BTreeMap<PathBuf, (Identity, Object)>> {
        let mut found = BTreeMap::new();
        let mut list = VecDeque::from([(PathBuf::new(), self.root)]);
        while let Some((path, identity)) = list.pop_front() {
            let mut object = self.state(&identity)?;
            match object.attr.mode.get() & S_IFMT {
                S_IFREG => self.contents(&identity, &mut object)?,
                S_IFDIR => self.entries(&identity, &mut object)?,
                _ => {}
            }
            for (name, entry) in &object.entries {
                list.push_back((path.join(std::ffi::OsString::from_vec(name.clone())), *entry));
            }
            found.insert(path, (identity, object));
        }
        Ok(found)
    }
}
