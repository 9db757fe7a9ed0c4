// SPDX-License-Identifier: GPL-2.0-or-later

//! One object of the tree, and how it is written into the state that a restore keeps on disk.

use std::collections::BTreeMap;

use reelfs_format::record::{Attributes, Identity};
use zerocopy::{FromBytes, IntoBytes};

use super::{file_type, Problem, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK};

/// An object's number here; never used for two objects. Counted in the order in which the log makes them, so the same log
/// gives the same numbers each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u64);

/// A name: the directory, and what the object is called in it.
pub type Home = (ObjectId, Box<[u8]>);

/// Extended attributes by name.
pub type XattrMap = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What is particular about an object of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory, with the number of its entries.
    Directory(u64),
    /// A symbolic link, with its target.
    Symlink(Box<[u8]>),
    /// A device, a fifo or a socket.
    Node,
}

impl Kind {
    /// What an object with these attributes is when it has just been made. `target` is that of a symbolic link.
    pub fn of(attr: &Attributes, target: &[u8]) -> Result<Self, Problem> {
        match file_type(attr) {
            S_IFREG => Ok(Kind::File),
            S_IFDIR => Ok(Kind::Directory(0)),
            S_IFLNK => Ok(Kind::Symlink(target.into())),
            S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK => Ok(Kind::Node),
            _ => Err(Problem::Mode(attr.mode.get())),
        }
    }
}

/// How much of an object is known. Everything, but while a checkpoint is telling of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Its type: a directory has an entry for it, and nothing more has been said.
    Named,
    /// Its attributes. Of a file also the contents below this offset. Of a directory, unless this is zero, the entries
    /// that were told, and all that came since.
    Upto(u64),
    /// Everything.
    #[default]
    All,
}

/// Where an object's file or directory is while the tree is being restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Staged {
    /// Nowhere: it has not been made yet.
    #[default]
    No,
    /// In staging, called by its number. The second number counts the copies that were made of it.
    Pool(u32),
    /// In the staging directory of a directory, under a name that was one of its own when it was made.
    Named(ObjectId, Box<[u8]>),
}

/// Contents that the target cannot hold as they were: bits of [`Object::lapses`].
pub mod lapse {
    /// The file is too large for the target.
    pub const TOO_LARGE: u8 = 1;
    /// Holes are stored as zeros.
    pub const HOLES: u8 = 2;
    /// Preallocation is lost.
    pub const PREALLOCATION: u8 = 4;

    /// What a lapse means, for the operator.
    pub fn texts(lapses: u8) -> impl Iterator<Item = &'static str> {
        let all = [
            (TOO_LARGE, "contents: the target holds no file this large"),
            (HOLES, "holes: the target cannot punch them; they are stored as zeros"),
            (PREALLOCATION, "preallocation: the target cannot do it, or had no room for it"),
        ];
        all.into_iter().filter(move |(bit, _)| lapses & bit != 0).map(|(_, text)| text)
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its identity in the log.
    pub identity: Identity,
    /// Its attributes after the last record about it.
    pub attr: Attributes,
    /// What it is.
    pub kind: Kind,
    /// Extended attributes, access control lists among them.
    pub xattrs: XattrMap,
    /// How many names it has; the root has one that nobody sees.
    pub names: u32,
    /// One of its names: the only one, for a directory. `None` too where it has lost the one that was known here.
    pub home: Option<Home>,
    /// Epoch of the record that made it.
    pub epoch: u64,
    /// Where its file is.
    pub staged: Staged,
    /// The number of the interval between two checkpoints in which that file was made.
    pub made: u32,
    /// The file has the attributes above.
    pub settled: bool,
    /// The file has been given extended attributes.
    pub dressed: bool,
    /// A name has been given to it in the restored tree.
    pub placed: bool,
    /// What the target could not do, of [`lapse`].
    pub lapses: u8,
    /// How much of it is known.
    pub told: Told,
}

impl Object {
    /// An object that was just made and has no name yet.
    pub fn new(identity: Identity, attr: Attributes, kind: Kind, xattrs: XattrMap, epoch: u64) -> Self {
        Object {
            identity,
            attr,
            kind,
            xattrs,
            names: 0,
            home: None,
            epoch,
            staged: Staged::No,
            made: 0,
            settled: false,
            dressed: false,
            placed: false,
            lapses: 0,
            told: Told::All,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    /// About how much memory it takes beyond its own size, in bytes.
    pub fn extra(&self) -> usize {
        let xattrs: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        let target = if let Kind::Symlink(target) = &self.kind { target.len() } else { 0 };
        let home = self.home.as_ref().map_or(0, |(_, name)| name.len() + 16);
        let staged = if let Staged::Named(_, name) = &self.staged { name.len() + 16 } else { 0 };
        xattrs + target + home + staged
    }

    /// As bytes, for [`Object::decode`].
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(256);
        to.extend_from_slice(self.identity.as_bytes());
        to.extend_from_slice(self.attr.as_bytes());
        let flags = u8::from(self.settled) | u8::from(self.dressed) << 1 | u8::from(self.placed) << 2;
        to.extend_from_slice(&[flags, self.lapses]);
        to.extend_from_slice(&self.names.to_le_bytes());
        to.extend_from_slice(&self.made.to_le_bytes());
        to.extend_from_slice(&self.epoch.to_le_bytes());
        match &self.kind {
            Kind::File => to.push(0),
            Kind::Directory(entries) => {
                to.push(1);
                to.extend_from_slice(&entries.to_le_bytes());
            }
            Kind::Symlink(target) => {
                to.push(2);
                put(&mut to, target);
            }
            Kind::Node => to.push(3),
        }
        match self.told {
            Told::Named => to.push(0),
            Told::Upto(end) => {
                to.push(1);
                to.extend_from_slice(&end.to_le_bytes());
            }
            Told::All => to.push(2),
        }
        match &self.staged {
            Staged::No => to.push(0),
            Staged::Pool(copy) => {
                to.push(1);
                to.extend_from_slice(&copy.to_le_bytes());
            }
            Staged::Named(directory, name) => {
                to.push(2);
                to.extend_from_slice(&directory.0.to_le_bytes());
                put(&mut to, name);
            }
        }
        match &self.home {
            None => to.push(0),
            Some((directory, name)) => {
                to.push(1);
                to.extend_from_slice(&directory.0.to_le_bytes());
                put(&mut to, name);
            }
        }
        to.extend_from_slice(&(self.xattrs.len() as u32).to_le_bytes());
        for (name, value) in &self.xattrs {
            put(&mut to, name);
            put(&mut to, value);
        }
        to
    }

    /// From what [`Object::encode`] made; `None` if it is anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Bytes(bytes);
        let identity = Identity::read_from_bytes(from.take(size_of::<Identity>())?).ok()?;
        let attr = Attributes::read_from_bytes(from.take(size_of::<Attributes>())?).ok()?;
        let (flags, lapses) = (from.byte()?, from.byte()?);
        let (names, made, epoch) = (from.u32()?, from.u32()?, from.u64()?);
        let kind = match from.byte()? {
            0 => Kind::File,
            1 => Kind::Directory(from.u64()?),
            2 => Kind::Symlink(from.part()?),
            3 => Kind::Node,
            _ => return None,
        };
        let told = match from.byte()? {
            0 => Told::Named,
            1 => Told::Upto(from.u64()?),
            2 => Told::All,
            _ => return None,
        };
        let staged = match from.byte()? {
            0 => Staged::No,
            1 => Staged::Pool(from.u32()?),
            2 => Staged::Named(ObjectId(from.u64()?), from.part()?),
            _ => return None,
        };
        let home = match from.byte()? {
            0 => None,
            1 => Some((ObjectId(from.u64()?), from.part()?)),
            _ => return None,
        };
        let mut xattrs = XattrMap::new();
        for _ in 0..from.u32()? {
            xattrs.insert(from.part()?, from.part()?);
        }
        let [settled, dressed, placed] = [1, 2, 4].map(|bit| flags & bit != 0);
        from.0.is_empty().then_some(Object {
            identity,
            attr,
            kind,
            xattrs,
            names,
            home,
            epoch,
            staged,
            made,
            settled,
            dressed,
            placed,
            lapses,
            told,
        })
    }
}

fn put(to: &mut Vec<u8>, part: &[u8]) {
    to.extend_from_slice(&(part.len() as u32).to_le_bytes());
    to.extend_from_slice(part);
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn part(&mut self) -> Option<Box<[u8]>> {
        let length = self.u32()? as usize;
        Some(self.take(length)?.into())
    }
}
