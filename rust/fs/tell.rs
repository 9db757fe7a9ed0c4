// SPDX-License-Identifier: GPL-2.0

//! The state of an object, put into the log for a checkpoint: what it is like, what it holds, what names are in it.
//!
//! An object is found by its identity, whether anybody uses it or not. It is read below and recorded with ours locked, so
//! that the record stands among those of its changes where it belongs. Room is waited for before, without any lock and
//! outside of the [`Door`]: unmounting waits for nobody who waits for room.
//!
//! Lock order: the door, then as in [`fs`](super).

use super::{
    state::{attributes_with_flags, change, identity},
    xattr::Collector,
    ReelFs,
};
use crate::capture::{self, Change, Entries, Log, Objects, Piece, XattrBuffer};
use crate::format::{
    record::{Identity, Lsn, ObjectDataBody, ObjectStateBody, STATE_FIRST, STATE_HOLE, STATE_LAST},
    uapi::{State, Unnamed, TELL_DATA, TELL_ENTRIES, TELL_OBJECT, UNNAMED_MAX},
};
use crate::vfs::{zeros, Door, Extent, Inode, Kind, Locked, LowerDentry, SuperBlock};
use kernel::{
    prelude::*,
    sync::{aref::ARef, Arc},
};

/// The most bytes of the log that one call fills, roughly.
const CALL_MAX: usize = 4 << 20;
/// The fewest, whatever was asked for.
const CALL_MIN: usize = 64 << 10;
/// What a record takes besides its payload, in bytes, roughly.
const RECORD_HEAD: usize = 256;
/// Bytes of entries that one call tells: a directory is locked meanwhile.
const ENTRIES_BYTES: usize = 64 << 10;
/// Entries that one call tells: each of them is looked up.
const ENTRIES_MAX: u32 = 512;
/// Bytes of extended attributes that there is memory for at first.
const XATTRS_FIRST: usize = 4096;
/// No target of a symbolic link is longer, in bytes (`PATH_MAX` of `linux/limits.h`).
const TARGET_MAX: usize = 4096;

/// What tells the state of a mount's objects.
pub(super) struct Teller {
    door: Arc<Door<ReelFs>>,
}

impl Teller {
    /// For the mount that the door leads to.
    pub(super) fn new(door: &Arc<Door<ReelFs>>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { door: door.clone() }, GFP_KERNEL)?)
    }
}

/// How telling ended.
enum Told {
    /// The request has been filled in.
    Done,
    /// Nothing was told, for want of room for this payload.
    NoRoom(usize),
}

impl Objects for Teller {
    fn tell(&self, log: &Log, request: &mut State) -> Result {
        let tell = match request.what {
            TELL_OBJECT => object,
            TELL_DATA => data,
            TELL_ENTRIES => entries,
            _ => return Err(eproto()),
        };
        let wanted = zerocopy::transmute!(request.object);
        let mut payload = 0;
        loop {
            // That of the longest of the bodies.
            log.wait_room_for::<ObjectDataBody>(request.checkpoint, payload)?;
            let mount = self.door.enter()?;
            let found = find(&mount, &wanted)?;
            match tell(&found, log, request)? {
                Told::Done => return Ok(()),
                Told::NoRoom(needed) => payload = needed,
            }
        }
    }

    fn unnamed(&self, request: &mut Unnamed) -> Result {
        let Unnamed { after, count, objects } = request;
        objects.fill([0; 32]);
        let mut found = 0;
        self.door.enter()?.each_unnamed(&mut |inode| {
            let new: [u8; 32] = zerocopy::transmute!(inode.data().identity());
            if inode.lower().nlink() > 0 || new <= *after {
                return;
            }
            let place = objects.iter().take(found).position(|old| new < *old).unwrap_or(found);
            if let Some(behind @ [_, ..]) = objects.get_mut(place..) {
                // The last one goes, or there is none yet.
                behind.rotate_right(1);
                behind[0] = new;
                found = (found + 1).min(UNNAMED_MAX);
            }
        });
        *count = found as u64;
        Ok(())
    }
}

fn eproto() -> Error {
    Error::from_errno(-(kernel::bindings::EPROTO as i32))
}

/// An object, found.
struct Found<'a> {
    mount: &'a SuperBlock<ReelFs>,
    /// By which the object below was found; it may have no name.
    below: ARef<LowerDentry>,
    inode: ARef<Inode<ReelFs>>,
}

/// Finds an object by its identity. `ENOENT` if there is none with just this one.
fn find<'a>(mount: &'a SuperBlock<ReelFs>, wanted: &Identity) -> Result<Found<'a>> {
    const WORDS: usize = Identity::CAPACITY / 4;
    let handle = wanted.handle().filter(|handle| !handle.is_empty() && handle.len() % 4 == 0).ok_or(ENOENT)?;
    let kind = u8::try_from(wanted.kind.get()).map_err(|_| ENOENT)?;
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(handle.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().map_err(|_| ENOENT)?);
    }
    let below = mount.lower().find(kind, words.get_mut(..handle.len() / 4).ok_or(ENOENT)?)?;
    let lower = below.inode().ok_or(ENOENT)?;
    // A filesystem may take several handles for the same object, and some for one that was there before.
    if identity(lower)? != *wanted {
        return Err(ENOENT);
    }
    let inode = mount.stack(lower)?;
    Ok(Found { mount, below, inode })
}

impl Found<'_> {
    fn lock(&self) -> Result<Locked<'_, ReelFs>> {
        self.inode.lock_killable()
    }

    fn kind(&self) -> Kind {
        Kind::of(self.inode.lower().attr().mode)
    }

    /// Says what cannot be told of the object, and returns the error.
    fn failed(&self, what: &str, error: Error) -> Error {
        if error == EINTR {
            return error;
        }
        let attr = self.inode.lower().attr();
        pr_warn!(
            "checkpoint of {}: inode {} (type and mode {:o}): {} ({:?})\n",
            self.mount.lower().superblock().type_name(),
            attr.ino,
            attr.mode,
            what,
            error
        );
        error
    }
}

/// `TELL_OBJECT`.
fn object(found: &Found<'_>, log: &Log, request: &mut State) -> Result<Told> {
    let inode = found.lock()?;
    let target = target(found).map_err(|e| found.failed("the target of the link cannot be read", e))?;
    let xattrs = xattrs(found, log.write_max())
        .map_err(|e| found.failed("its extended attributes cannot be read, or do not fit a record of this ring", e))?;
    let attr = inode.lower().attr();
    let object = Change { object: inode.data().identity(), attr: attributes_with_flags(&attr, &found.below) };
    let length = capture::object_state_max(&target, &xattrs);
    let Some(room) = log.try_reserve_for::<ObjectStateBody>(request.checkpoint, length)? else {
        return Ok(Told::NoRoom(length));
    };
    let lsn = capture::object_state(room, request.checkpoint, &object, &target, &xattrs);
    inode.data().recorded(lsn);
    request.flags = STATE_LAST;
    (request.mode, request.nlink) = (attr.mode.into(), attr.nlink);
    request.amount = if found.kind() == Kind::Regular { u64::try_from(attr.size)? } else { 0 };
    request.lsn = lsn;
    Ok(Told::Done)
}

/// The target of a symbolic link; nothing for anything else.
fn target(found: &Found<'_>) -> Result<KVVec<u8>> {
    if found.kind() != Kind::Symlink {
        return Ok(KVVec::new());
    }
    let mut target = zeros(TARGET_MAX)?;
    let length = found.below.read_link(&mut target)?;
    target.truncate(length);
    Ok(target)
}

/// All extended attributes of an object, if they fit into `most` bytes.
fn xattrs(found: &Found<'_>, most: usize) -> Result<XattrBuffer> {
    let mut capacity = XATTRS_FIRST.min(most);
    loop {
        match Collector::new(capacity).collect(&found.below) {
            Err(E2BIG | ERANGE) if capacity < most => capacity = capacity.saturating_mul(4).min(most),
            other => return other,
        }
    }
}

/// `TELL_DATA`.
///
/// Stores through shared mappings that are noted and not captured yet may be in what is read here, or may not. They stay
/// noted in either case, so the capture that follows records their pages once more, behind this; until then they were
/// promised to nobody. To capture them first would say the same bytes twice.
fn data(found: &Found<'_>, log: &Log, request: &mut State) -> Result<Told> {
    let inode = found.lock()?;
    if found.kind() != Kind::Regular {
        return Err(EINVAL);
    }
    let shifts = found.mount.data().shifts().of(&inode.data().identity());
    if request.position != 0 && request.shifts != shifts {
        return Err(EAGAIN);
    }
    let size = inode.lower().size();
    // It may have been cut off since the last call.
    let mut at = i64::try_from(request.position).map_err(|_| EINVAL)?.min(size);
    let lower = inode.lower().reader(found.mount.lower()).map_err(|e| found.failed("it cannot be opened", e))?;
    let unreadable = |e| found.failed("its contents cannot be read", e);
    // Up to where what is only in memory does not show, and up to where there is data.
    let (mut settled, mut stored) = (at, at);
    let mut budget = budget(request.length, log);
    let mut first = if request.position == 0 { STATE_FIRST } else { 0 };
    let (mut told, mut lsn, mut last) = (0u64, None::<Lsn>, false);
    while !last {
        if settled <= at && at < size {
            settled = at.saturating_add(CALL_MAX as i64).min(size);
            // So that data and holes show as what they are. What cannot be written back can still be read.
            let _ = lower.write_back(at..settled);
        }
        let (kind, upto) = if at < stored {
            (Extent::Data, stored)
        } else if at < size {
            lower.drop_clean(at..settled);
            lower.extent(at..size).map_err(unreadable)?
        } else {
            (Extent::Data, at)
        };
        if kind == Extent::Data {
            stored = upto.min(settled);
        }
        let (length, payload) = match kind {
            Extent::Hole => (upto - at, 0),
            Extent::Data => {
                let most = log.write_max().min(budget);
                let length = usize::try_from(upto.min(settled) - at)?.min(most);
                (length as i64, length)
            }
        };
        let Some(mut room) = log.try_reserve_for::<ObjectDataBody>(request.checkpoint, payload)? else {
            if lsn.is_none() {
                return Ok(Told::NoRoom(payload));
            }
            break;
        };
        let mut piece = Piece { offset: u64::try_from(at)?, length: u64::try_from(length)?, flags: first };
        if kind == Extent::Hole {
            piece.flags |= STATE_HOLE;
        }
        if payload > 0 {
            let n = lower.read_at(room.payload().get_mut(..payload).ok_or(EIO)?, piece.offset).map_err(unreadable)?;
            if n == 0 {
                return Err(unreadable(EIO));
            }
            piece.length = n as u64;
            told += n as u64;
        }
        at = at.saturating_add(i64::try_from(piece.length)?);
        last = at >= size;
        if last {
            piece.flags |= STATE_LAST;
        }
        let payload = if kind == Extent::Hole { 0 } else { usize::try_from(piece.length)? };
        let end = capture::object_data(room, request.checkpoint, &change(&inode), &piece, payload);
        inode.data().recorded(end);
        (lsn, first) = (Some(end), 0);
        budget = budget.saturating_sub(payload + RECORD_HEAD);
        if budget == 0 {
            break;
        }
    }
    request.flags = if last { STATE_LAST } else { 0 };
    request.position = u64::try_from(at)?;
    request.shifts = shifts;
    request.amount = told;
    request.lsn = lsn.unwrap_or(0);
    Ok(Told::Done)
}

/// How many bytes of the log a call may fill that asked for `wanted`: not so many that nobody else has room.
fn budget(wanted: u64, log: &Log) -> usize {
    let most = CALL_MAX.min(log.size() / 4);
    usize::try_from(wanted).unwrap_or(most).clamp(CALL_MIN, most)
}

/// `TELL_ENTRIES`.
fn entries(found: &Found<'_>, log: &Log, request: &mut State) -> Result<Told> {
    let dir = found.lock()?;
    if found.kind() != Kind::Directory {
        return Err(ENOTDIR);
    }
    let mut position = i64::try_from(request.position).map_err(|_| EINVAL)?;
    let mut entries = Entries::new(ENTRIES_BYTES.min(budget(request.length, log)), ENTRIES_MAX)?;
    let lower = dir.lower().reader(found.mount.lower()).map_err(|e| found.failed("it cannot be opened", e))?;
    let at_end = match lower.names(&mut position, &mut |name| entries.add(name)) {
        // It was removed, and somebody has it open: nothing is in it, nor will be.
        Err(ENOENT) if dir.lower().nlink() == 0 => true,
        // Not a place in the directory.
        Err(EINVAL) => return Err(EINVAL),
        other => other.map_err(|e| found.failed("its entries cannot be read", e))?,
    };
    entries.resolve(|name| resolve(found, name))?;
    let flags = (if request.position == 0 { STATE_FIRST } else { 0 }) | (if at_end { STATE_LAST } else { 0 });
    let Some(lsn) = entries.record(log, request.checkpoint, &change(&dir), flags)? else {
        return Ok(Told::NoRoom(entries.length()));
    };
    dir.data().recorded(lsn);
    request.flags = flags & STATE_LAST;
    request.position = u64::try_from(position)?;
    request.amount = entries.count().into();
    request.lsn = lsn;
    Ok(Told::Done)
}

/// What object a name in a directory is of, and its type and permission bits.
fn resolve(found: &Found<'_>, name: &[u8]) -> Result<(Identity, u32)> {
    let looked_up = || -> Result<(Identity, u32)> {
        let entry = found.below.lookup(name)?;
        let lower = entry.inode().ok_or(ENOENT)?;
        Ok((identity(lower)?, lower.attr().mode.into()))
    };
    looked_up().map_err(|e| {
        let name = kernel::str::BStr::from_bytes(name);
        pr_warn!("checkpoint: the directory has a name that cannot be looked up: {name} ({e:?})\n");
        // That the directory is gone would be something else.
        found.failed("its entries cannot be told", if e == ENOENT { EIO } else { e })
    })
}
