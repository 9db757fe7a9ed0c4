// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree in memory: what each record may and may not do to it.

#![allow(clippy::unwrap_used, missing_docs)]

use reel::replay::namespace::{Change, Namespace, Remark};
use reel::replay::Problem;
use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::record::*;
use reelfs_format::view::RecordView;
use zerocopy::{FromZeros, IntoBytes};

fn id(number: u8) -> Identity {
    Identity::new(1, &[number]).unwrap()
}

fn attr(mode: u32, nlink: u32, size: u64) -> Attributes {
    let mut attr = Attributes::ZERO;
    (attr.mode, attr.nlink, attr.size) = (mode.into(), nlink.into(), size.into());
    attr
}

const DIR: u32 = 0o040_755;
const FILE: u32 = 0o100_644;

/// A tree and the records that are applied to it as they are made.
struct Ground {
    log: LogBuilder,
    tree: Namespace,
}

impl Ground {
    fn new() -> Self {
        let mut ground = Ground { log: LogBuilder::new(), tree: Namespace::new() };
        let mut body = MountBody::new_zeroed();
        body.root = attr(DIR, 2, 0);
        ground.apply(RecordType::Mount, id(1), &body, &Payload::new()).unwrap();
        ground
    }

    fn apply<B: Body>(
        &mut self,
        kind: RecordType,
        object: Identity,
        body: &B,
        payload: &Payload,
    ) -> Result<(), Problem> {
        let at = self.log.bytes.len();
        self.log.push(kind, 0, object, body, payload).unwrap();
        let view = RecordView::parse(&self.log.bytes[at..], None).unwrap();
        self.tree.apply(&view).map(|_| ()).map_err(|error| {
            assert!(error.to_string().contains("record at LSN"));
            error.problem
        })
    }

    fn create(&mut self, object: u8, parent: u8, name: &str, mode: u32) -> Result<(), Problem> {
        let mut body = CreateBody::new_zeroed();
        body.parent = id(parent);
        body.attr = attr(mode, 1, 0);
        body.parent_attr = attr(DIR, 2, 0);
        body.name_len = (name.len() as u32).into();
        self.apply(RecordType::Create, id(object), &body, &Payload::of(name.as_bytes()))
    }

    fn link(&mut self, object: u8, parent: u8, name: &str, nlink: u32) -> Result<(), Problem> {
        let mut body = LinkBody::new_zeroed();
        body.parent = id(parent);
        body.attr = attr(FILE, nlink, 0);
        body.parent_attr = attr(DIR, 2, 0);
        body.name_len = (name.len() as u32).into();
        self.apply(RecordType::Link, id(object), &body, &Payload::of(name.as_bytes()))
    }

    fn unlink(&mut self, object: u8, parent: u8, name: &str, mode: u32, nlink: u32) -> Result<(), Problem> {
        let mut body = UnlinkBody::new_zeroed();
        body.parent = id(parent);
        body.attr = attr(mode, nlink, 0);
        body.parent_attr = attr(DIR, 2, 0);
        body.name_len = (name.len() as u32).into();
        self.apply(RecordType::Unlink, id(object), &body, &Payload::of(name.as_bytes()))
    }

    fn rename(&mut self, object: u8, from: (u8, &str), to: (u8, &str), other: u8, flags: u32) -> Result<(), Problem> {
        let mut body = RenameBody::new_zeroed();
        (body.old_parent, body.new_parent) = (id(from.0), id(to.0));
        if other != 0 {
            body.other = id(other);
            body.other_attr = attr(FILE, u32::from(flags != 0), 0);
        }
        body.attr = attr(DIR, 1, 0);
        body.old_parent_attr = attr(DIR, 2, 0);
        body.new_parent_attr = attr(DIR, 2, 0);
        body.flags = flags.into();
        body.old_name_len = (from.1.len() as u32).into();
        body.new_name_len = (to.1.len() as u32).into();
        let payload = Payload::of(from.1.as_bytes()).part(to.1.as_bytes());
        self.apply(RecordType::Rename, id(object), &body, &payload)
    }

    fn gone(&mut self, object: u8) -> Result<(), Problem> {
        self.apply(RecordType::ObjectGone, id(object), &EmptyBody {}, &Payload::new())
    }

    fn write(&mut self, object: u8, offset: u64, data: &[u8], size: u64) -> Result<(), Problem> {
        let body = WriteBody { offset: offset.into(), attr: attr(FILE, 1, size) };
        self.apply(RecordType::Write, id(object), &body, &Payload::of(data))
    }

    fn setattr(&mut self, object: u8, attr: Attributes) -> Result<(), Problem> {
        let mut body = AttrBody::new_zeroed();
        body.attr = attr;
        self.apply(RecordType::Setattr, id(object), &body, &Payload::new())
    }
}

#[test]
fn nothing_is_known_before_the_mount() {
    let mut ground = Ground { log: LogBuilder::new(), tree: Namespace::new() };
    assert_eq!(ground.create(2, 1, "x", FILE), Err(Problem::NoMount));
    assert!(ground.tree.is_empty());
}

#[test]
fn identities_are_known_once() {
    let mut ground = Ground::new();
    ground.create(2, 1, "file", FILE).unwrap();
    assert_eq!(ground.create(2, 1, "other", FILE), Err(Problem::Exists));
    assert_eq!(ground.create(3, 1, "file", FILE), Err(Problem::NameExists(b"file".to_vec())));
    assert_eq!(ground.create(3, 2, "file", FILE), Err(Problem::NotDirectory(id(2))));
    assert_eq!(ground.create(3, 9, "file", FILE), Err(Problem::Unknown(id(9))));
    assert_eq!(ground.create(3, 1, "odd", 0o150_644), Err(Problem::Mode(0o150_644)));
    assert_eq!(ground.gone(2), Err(Problem::StillNamed(1)));
    assert_eq!(ground.gone(9), Err(Problem::Unknown(id(9))));
    ground.unlink(2, 1, "file", FILE, 0).unwrap();
    ground.gone(2).unwrap();
    // The lower filesystem uses it again.
    ground.create(2, 1, "file", DIR).unwrap();
}

#[test]
fn names_are_counted() {
    let mut ground = Ground::new();
    ground.create(2, 1, "a", FILE).unwrap();
    ground.link(2, 1, "b", 2).unwrap();
    assert_eq!(ground.link(2, 1, "c", 2), Err(Problem::Links { recorded: 2, known: 3 }));
    let mut ground = Ground::new();
    ground.create(2, 1, "a", FILE).unwrap();
    assert_eq!(ground.unlink(2, 1, "a", FILE, 1), Err(Problem::Links { recorded: 1, known: 0 }));
    let mut ground = Ground::new();
    ground.create(2, 1, "a", FILE).unwrap();
    ground.create(3, 1, "b", FILE).unwrap();
    assert_eq!(ground.unlink(2, 1, "b", FILE, 0), Err(Problem::OtherObject(b"b".to_vec(), id(3))));
    assert_eq!(ground.unlink(2, 1, "c", FILE, 0), Err(Problem::NoName(b"c".to_vec())));
}

#[test]
fn directories_form_a_tree() {
    let mut ground = Ground::new();
    ground.create(2, 1, "a", DIR).unwrap();
    ground.create(3, 2, "b", DIR).unwrap();
    assert_eq!(ground.unlink(2, 1, "a", DIR, 0), Err(Problem::NotEmpty));
    assert_eq!(ground.rename(2, (1, "a"), (3, "c"), 0, 0), Err(Problem::Cycle));
    assert_eq!(ground.rename(2, (1, "a"), (2, "c"), 0, 0), Err(Problem::Cycle));
    ground.rename(3, (2, "b"), (1, "b"), 0, 0).unwrap();
    ground.rename(2, (1, "a"), (3, "a"), 0, 0).unwrap();
    let a = ground.tree.find(&id(2)).unwrap().unwrap();
    assert_eq!(ground.tree.path(a).unwrap(), b"/b/a");
    assert!(matches!(ground.link(2, 1, "again", 2), Err(Problem::Unsupported(_))));
}

#[test]
fn renaming_says_what_is_replaced() {
    let mut ground = Ground::new();
    ground.create(2, 1, "a", DIR).unwrap();
    ground.create(3, 1, "b", FILE).unwrap();
    assert_eq!(ground.rename(2, (1, "a"), (1, "b"), 0, 0), Err(Problem::NameExists(b"b".to_vec())));
    assert_eq!(ground.rename(2, (1, "a"), (1, "b"), 4, 0), Err(Problem::OtherObject(b"b".to_vec(), id(3))));
    assert_eq!(ground.rename(2, (1, "a"), (1, "c"), 3, 0), Err(Problem::NoName(b"c".to_vec())));
    assert_eq!(ground.rename(2, (1, "a"), (1, "c"), 0, 2), Err(Problem::NoName(b"c".to_vec())));
    assert_eq!(ground.rename(2, (1, "a"), (1, ".."), 0, 0), Err(Problem::Name(b"..".to_vec())));
    ground.rename(2, (1, "a"), (1, "b"), 3, 2).unwrap();
    let file = ground.tree.find(&id(3)).unwrap().unwrap();
    assert_eq!(ground.tree.path(file).unwrap(), b"/a");
}

#[test]
fn renaming_may_leave_a_whiteout() {
    let whiteout = |object: u8, mode: u32, nlink: u32| {
        let list: &[(&[u8], &[u8])] = &[(b"security.label", b"inherited")];
        let (_, xattrs_len, xattrs) = Payload::new().xattrs(list.iter().copied());
        let part = WhiteoutPart { attr: attr(mode, nlink, 0), xattrs_len: xattrs_len.into(), xattrs: xattrs.into() };
        let (payload, ..) = Payload::of(b"a").part(b"b").part(part.as_bytes()).xattrs(list.iter().copied());
        let mut body = RenameBody::new_zeroed();
        (body.old_parent, body.new_parent, body.other) = (id(1), id(1), id(3));
        (body.old_parent_attr, body.new_parent_attr) = (attr(DIR, 2, 0), attr(DIR, 2, 0));
        (body.attr, body.other_attr) = (attr(FILE, 1, 0), attr(FILE, 0, 0));
        (body.flags, body.old_name_len, body.new_name_len) = (RENAME_WHITEOUT.into(), 1.into(), 1.into());
        if object != 0 {
            body.whiteout = id(object);
        }
        (body, payload)
    };
    let apply = |object, mode, nlink| {
        let mut ground = Ground::new();
        ground.create(2, 1, "a", FILE).unwrap();
        ground.create(3, 1, "b", FILE).unwrap();
        let (body, payload) = whiteout(object, mode, nlink);
        ground.apply(RecordType::Rename, id(2), &body, &payload).map(|()| ground)
    };
    const DEVICE: u32 = 0o020_000;
    assert!(matches!(apply(0, DEVICE, 1), Err(Problem::Unknown(_))));
    assert!(matches!(apply(1, DEVICE, 1), Err(Problem::Exists)));
    assert!(matches!(apply(4, 0, 1), Err(Problem::Mode(0))));
    assert!(matches!(apply(4, DEVICE, 2), Err(Problem::Links { recorded: 2, known: 1 })));
    let mut tree = apply(4, DEVICE, 1).map_err(|problem| problem.to_string()).unwrap().tree;
    let left = tree.find(&id(4)).unwrap().unwrap();
    assert_eq!(tree.path(left).unwrap(), b"/a");
    assert_eq!(tree.object(left).unwrap().unwrap().xattrs.len(), 1);
    let renamed = tree.find(&id(2)).unwrap().unwrap();
    assert_eq!(tree.path(renamed).unwrap(), b"/b");
}

#[test]
fn sizes_follow_from_the_records() {
    let mut ground = Ground::new();
    ground.create(2, 1, "a", FILE).unwrap();
    ground.write(2, 0, b"hello", 5).unwrap();
    ground.write(2, 100, b"", 5).unwrap();
    ground.write(2, 1, b"x", 5).unwrap();
    assert_eq!(ground.write(2, 10, b"x", 5), Err(Problem::Size { recorded: 5, known: 11 }));
    let mut ground = Ground::new();
    ground.create(2, 1, "a", FILE).unwrap();
    assert_eq!(ground.setattr(2, attr(FILE, 1, 7)), Err(Problem::Size { recorded: 7, known: 0 }));
    assert!(matches!(ground.write(2, u64::MAX, b"x", 0), Err(Problem::Unsupported(_))));
    assert_eq!(ground.write(1, 0, b"x", 1), Err(Problem::NotFile));
    assert!(matches!(ground.setattr(2, attr(DIR, 1, 0)), Err(Problem::TypeChanged { .. })));
}

/// Behind a gap the log may be incomplete: sizes and links are followed, and that is said.
#[test]
fn behind_a_gap_records_are_followed() {
    let mut ground = Ground::new();
    ground.create(2, 1, "a", FILE).unwrap();
    ground.apply(RecordType::Gap, Identity::NONE, &GapBody::new_zeroed(), &Payload::new()).unwrap();
    ground.write(2, 10, b"x", 50).unwrap();
    let file = ground.tree.find(&id(2)).unwrap().unwrap();
    assert_eq!(ground.tree.object(file).unwrap().unwrap().attr.size.get(), 50);
    assert!(matches!(ground.tree.take_remarks()[..], [Remark::Gap { .. }, Remark::Followed { .. }]));
    // But nothing is guessed about names.
    assert_eq!(ground.create(3, 1, "a", FILE), Err(Problem::NameExists(b"a".to_vec())));
}

/// Behind a gap in which names came and went, what a record contradicts is gone: with all its names, and with what was
/// reached through it alone.
#[test]
fn behind_a_degraded_gap_the_newer_record_wins() {
    let mut ground = Ground::new();
    ground.create(2, 1, "d", DIR).unwrap();
    ground.create(3, 2, "a", FILE).unwrap();
    ground.link(3, 1, "b", 2).unwrap();
    ground.create(4, 2, "only here", FILE).unwrap();
    let body = GapBody { reason: GAP_DEGRADED.into(), ..GapBody::new_zeroed() };
    ground.apply(RecordType::Gap, Identity::NONE, &body, &Payload::new()).unwrap();
    // The directory went, and its inode is another's; a file that it shared with the root stays there.
    ground.create(2, 1, "new", FILE).unwrap();
    let root = ground.tree.root().unwrap();
    let names = |tree: &mut Namespace| {
        let (page, more) = tree.names_after(root, None).unwrap();
        assert!(more.is_none());
        page.into_iter().map(|(name, _)| String::from_utf8(name.into()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut ground.tree), ["b", "new"]);
    assert_eq!(ground.tree.find(&id(4)).unwrap(), None);
    assert_eq!(ground.tree.len(), 3);
    // A name that somebody else has now.
    ground.create(5, 1, "b", FILE).unwrap();
    assert_eq!((ground.tree.find(&id(3)).unwrap(), ground.tree.len()), (None, 3));
    // And what presupposes what no log has is left out, and counted.
    ground.unlink(4, 1, "nowhere", FILE, 0).unwrap();
    assert_eq!((ground.tree.left_out(), names(&mut ground.tree).len()), (1, 2));
    assert_eq!((ground.tree.names(), ground.tree.unnamed()), (3, 0));
}

/// A record that does not speak of file attributes has not changed them.
#[test]
fn file_attributes_stay_where_they_are_not_spoken_of() {
    let mut ground = Ground::new();
    ground.create(2, 1, "a", FILE).unwrap();
    let mut with = attr(FILE, 1, 0);
    with.valid = Attributes::FILEATTR_VALID.into();
    (with.fileattr, with.projid) = (0x40.into(), 17.into());
    ground.setattr(2, with).unwrap();
    ground.setattr(2, attr(0o100_600, 1, 0)).unwrap();
    ground.write(2, 0, b"x", 1).unwrap();
    let file = ground.tree.find(&id(2)).unwrap().unwrap();
    let known = ground.tree.object(file).unwrap().unwrap().attr;
    assert_eq!((known.mode.get(), known.fileattr.get(), known.projid.get()), (FILE, 0x40, 17));
    // The same for the root, at the next mount.
    ground.setattr(1, Attributes { mode: DIR.into(), nlink: 2.into(), ..with }).unwrap();
    let mut body = MountBody::new_zeroed();
    body.root = attr(DIR, 2, 0);
    ground.apply(RecordType::Mount, id(1), &body, &Payload::new()).unwrap();
    let root = ground.tree.root().unwrap();
    let root = ground.tree.object(root).unwrap().unwrap().attr;
    assert_eq!(root.projid.get(), 17);
    assert_eq!(ground.apply(RecordType::Mount, id(7), &body, &Payload::new()), Err(Problem::OtherRoot(id(1))));
}

#[test]
fn objects_change_their_identity() {
    let mut ground = Ground::new();
    ground.create(2, 1, "a", FILE).unwrap();
    let body = ReidentifiedBody { old: id(2) };
    ground.apply(RecordType::Reidentified, id(3), &body, &Payload::new()).unwrap();
    assert!(ground.tree.find(&id(2)).unwrap().is_none());
    ground.write(3, 0, b"x", 1).unwrap();
    let body = ReidentifiedBody { old: id(2) };
    assert_eq!(ground.apply(RecordType::Reidentified, id(4), &body, &Payload::new()), Err(Problem::Unknown(id(2))));
}

/// What was open without a name when a machine died is never said to be gone; its identity may come again.
#[test]
fn leftovers_of_an_earlier_epoch_give_way() {
    let mut ground = Ground::new();
    ground.create(2, 1, "a", FILE).unwrap();
    ground.unlink(2, 1, "a", FILE, 0).unwrap();
    assert_eq!(ground.create(2, 1, "b", FILE), Err(Problem::Exists));
    ground.log.epoch += 1;
    ground.create(2, 1, "b", FILE).unwrap();
    assert_eq!(ground.tree.len(), 2);
}

#[test]
fn changes_of_contents_are_handed_on() {
    let mut log = LogBuilder::new();
    let mut tree = Namespace::new();
    let mut body = MountBody::new_zeroed();
    body.root = attr(DIR, 2, 0);
    log.push(RecordType::Mount, 0, id(1), &body, &Payload::new()).unwrap();
    let mut create = CreateBody::new_zeroed();
    create.attr = attr(FILE, 0, 0);
    log.push(RecordType::Create, 0, id(2), &create, &Payload::new()).unwrap();
    let write = WriteBody { offset: 3.into(), attr: attr(FILE, 0, 5) };
    log.push(RecordType::Write, 0, id(2), &write, &Payload::of(b"ab")).unwrap();
    let mut at = 0;
    let mut last = Change::None;
    while at < log.bytes.len() {
        let view = RecordView::parse(&log.bytes[at..], None).unwrap();
        last = tree.apply(&view).unwrap();
        at += view.bytes().len();
    }
    let file = tree.find(&id(2)).unwrap().unwrap();
    assert_eq!(last, Change::Write { file, offset: 3, data: b"ab" });
}
