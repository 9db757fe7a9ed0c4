// SPDX-License-Identifier: GPL-2.0-or-later

//! The command, run as a program: what it restores, what it refuses, how it ends.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};

use common::{assert_same, listing, write_volumes, Tree, SEGMENT};
use proptest::prelude::*;
use reelfs_format::build::{LogBuilder, Payload};
use reelfs_format::record::*;
use reelfs_format::spool::SegmentHeader;
use reelfs_media::library::volume_files;
use rustix::fs::{FallocateFlags, FileType, RenameFlags};
use zerocopy::{FromZeros, IntoBytes};

fn reel(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reel")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it and checks the exit status; what it said, both channels.
fn run(status: i32, args: &[&str]) -> String {
    let output = reel(args);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "reel {args:?}: {said}");
    said
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Ground {
    directory: tempfile::TempDir,
}

impl Ground {
    fn new() -> (Self, Tree) {
        let ground = Ground { directory: tempfile::tempdir().unwrap() };
        for name in ["lower", "volumes"] {
            fs::create_dir(ground.path(name)).unwrap();
        }
        let tree = Tree::new(&ground.path("lower"));
        (ground, tree)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn restore(&self, status: i32, more: &[&str]) -> String {
        let (volumes, target) = (self.path("volumes"), self.path("target"));
        let mut args = vec!["restore", "--to", shown(&target), shown(&volumes)];
        args.extend(more);
        run(status, &args)
    }
}

fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn busy_tree(tree: &mut Tree) {
    tree.mkdir("d");
    tree.mkdir("d/e");
    tree.create("d/file");
    tree.write("d/file", 0, b"hello");
    tree.write("d/file", 5, b" world");
    tree.link("d/file", "d/e/second");
    tree.link("d/file", "third");
    tree.symlink("link", "../anywhere/at all");
    tree.mknod("fifo", FileType::Fifo, 0);
    tree.mknod("socket", FileType::Socket, 0);
    if am_root() {
        tree.mknod("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        tree.mknod("disk", FileType::BlockDevice, rustix::fs::makedev(8, 0x12345));
        tree.chown("d/file", 1234, 4321);
        tree.chown("link", 77, 78);
        tree.chmod("d/file", 0o6755);
    }
    tree.create("sparse");
    tree.truncate("sparse", 10 << 20);
    tree.write("sparse", 5 << 20, &[7; 4096]);
    tree.fallocate("sparse", FallocateFlags::KEEP_SIZE, 0, 1 << 20);
    tree.create("holes");
    tree.write("holes", 0, &[1; 1 << 20]);
    tree.fallocate("holes", FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 64 << 10, 128 << 10);
    tree.fallocate("holes", FallocateFlags::ZERO_RANGE, 512 << 10, 64 << 10);
    tree.fallocate("holes", FallocateFlags::COLLAPSE_RANGE, 0, 4096);
    tree.fallocate("holes", FallocateFlags::INSERT_RANGE, 256 << 10, 8192);
    tree.create("empty");
    tree.create("name with \n newline and \u{fc}");
    tree.set_xattr("d", "user.colour", b"blue\0green");
    tree.set_xattr("d/file", "user.empty", b"");
    tree.set_xattr("d/file", "user.gone", b"x");
    tree.remove_xattr("d/file", "user.gone");
    tree.create("victim");
    tree.write("victim", 0, &[3; 100_000]);
    tree.create("winner");
    tree.write("winner", 0, b"won");
    tree.rename("winner", "victim", RenameFlags::empty());
    tree.mkdir("x");
    tree.mkdir("y");
    tree.create("y/inside");
    tree.rename("x", "y", RenameFlags::EXCHANGE);
    tree.rename("d/e", "x/e", RenameFlags::empty());
    tree.create("temporary");
    tree.write("temporary", 0, &[9; 50_000]);
    tree.remove("temporary", false);
    tree.create("open");
    tree.write("open", 0, b"still open");
    tree.remove("open", true);
    tree.create_unnamed(b"named later");
    tree.name_unnamed("was-unnamed");
    for (path, second) in [("d", 1), ("link", 2), ("sparse", 1_900_000_000), ("fifo", 4), ("x/e", -5)] {
        tree.touch(path, second, 123_456_789);
    }
    tree.chmod("d", 0o2750);
    tree.chmod("empty", 0);
    tree.chmod("x", 0o500);
}

#[test]
fn everything_comes_back() {
    let (ground, mut tree) = Ground::new();
    busy_tree(&mut tree);
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    let said = ground.restore(0, &[]);
    assert!(said.contains("restored "), "{said}");
    assert!(said.contains("1 files that were open without a name"), "{said}");
    assert_same(&tree.root, &ground.path("target"));
    let verified = run(0, &["verify", shown(&ground.path("volumes"))]);
    assert!(verified.contains("every record fits"), "{verified}");
}

#[test]
fn many_small_volumes_in_any_order() {
    let (ground, mut tree) = Ground::new();
    busy_tree(&mut tree);
    for n in 0..40_u8 {
        tree.create(&format!("big{n}"));
        tree.write(&format!("big{n}"), 0, &vec![n; 300_000]);
    }
    write_volumes(&ground.path("volumes"), &tree.log.bytes, Some(2 << 20));
    let mut files = volume_files(&ground.path("volumes")).unwrap();
    assert!(files.len() > 5);
    files.reverse();
    files.swap(0, 3);
    let target = ground.path("target");
    let mut args = vec!["restore", "--to", shown(&target)];
    args.extend(files.iter().map(|file| shown(file)));
    run(0, &args);
    assert_same(&tree.root, &target);

    // One is away: it is named, and nothing is left behind.
    let (ground_two, gone) = (ground.path("second"), files.remove(2));
    let name = gone.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut args = vec!["restore", "--to", shown(&ground_two)];
    args.extend(files.iter().map(|file| shown(file)));
    let said = run(3, &args);
    assert!(said.contains(&format!("volume '{name}'")) && said.contains("missing"), "{said}");
    assert_eq!(fs::read_dir(&ground_two).unwrap().count(), 0);
    let mut args = vec!["verify"];
    args.extend(files.iter().map(|file| shown(file)));
    assert!(run(3, &args).contains(&name));
}

#[test]
fn the_last_volume_missing_needs_consent() {
    let (ground, mut tree) = Ground::new();
    for n in 0..20_u8 {
        tree.create(&format!("big{n}"));
        tree.write(&format!("big{n}"), 0, &vec![n; 300_000]);
    }
    write_volumes(&ground.path("volumes"), &tree.log.bytes, Some(2 << 20));
    fs::remove_file(volume_files(&ground.path("volumes")).unwrap().pop().unwrap()).unwrap();
    let said = ground.restore(3, &[]);
    assert!(said.contains("volume number 4 of the set is missing"), "{said}");
    let said = ground.restore(0, &["--end-here"]);
    assert!(said.contains("the log goes on"), "{said}");
}

#[test]
fn any_moment_can_be_restored() {
    let (ground, mut tree) = Ground::new();
    tree.create("one");
    let before = listing(&tree.root, true);
    let (lsn, time) = (tree.log.lsn, tree.log.time);
    // Directory times come from the lower's clock.
    std::thread::sleep(std::time::Duration::from_millis(20));
    tree.create("two");
    tree.remove("one", false);
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    ground.restore(0, &["--at", &lsn.to_string()]);
    assert_eq!(listing(&ground.path("target"), true), before);
    fs::remove_dir_all(ground.path("target")).unwrap();
    // The last record of that moment was made just before.
    ground.restore(0, &["--at", &reel::show::time(time - 1)]);
    assert_eq!(listing(&ground.path("target"), true), before);
    fs::remove_dir_all(ground.path("target")).unwrap();
    let said = ground.restore(3, &["--at", "0xffffffff"]);
    assert!(said.contains("the log ends at"), "{said}");
}

#[test]
fn a_target_in_use_is_refused() {
    let (ground, mut tree) = Ground::new();
    tree.create("file");
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    fs::create_dir(ground.path("target")).unwrap();
    fs::write(ground.path("target/mine"), "mine").unwrap();
    assert!(ground.restore(1, &[]).contains("not empty (it has 'mine')"));
    ground.restore(0, &["--non-empty"]);
    assert_eq!(fs::read_to_string(ground.path("target/mine")).unwrap(), "mine");
    assert!(ground.path("target/file").exists());
    // Nothing is replaced.
    fs::remove_dir_all(ground.path("target")).unwrap();
    fs::create_dir(ground.path("target")).unwrap();
    fs::write(ground.path("target/file"), "mine").unwrap();
    ground.restore(1, &["--non-empty"]);
    assert_eq!(fs::read_to_string(ground.path("target/file")).unwrap(), "mine");
}

#[test]
fn an_interrupted_restore_is_cleared_on_request() {
    let (ground, mut tree) = Ground::new();
    tree.create("file");
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    fs::create_dir_all(ground.path("target/.reelfs-restore/0")).unwrap();
    fs::write(ground.path("target/.reelfs-restore/began-empty"), "").unwrap();
    fs::write(ground.path("target/half"), "half").unwrap();
    assert!(ground.restore(1, &[]).contains("--resume"));
    ground.restore(0, &["--resume"]);
    assert_same(&tree.root, &ground.path("target"));
}

#[test]
fn lost_and_found_is_no_obstacle() {
    let (ground, mut tree) = Ground::new();
    tree.create("file");
    tree.create(".reelfs-restore");
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    fs::create_dir_all(ground.path("target/lost+found")).unwrap();
    ground.restore(0, &[]);
    assert!(ground.path("target/lost+found").exists());
    assert!(fs::metadata(ground.path("target/.reelfs-restore")).unwrap().is_file());
}

#[test]
fn each_damaged_byte_region_is_named() {
    let (ground, mut tree) = Ground::new();
    for n in 0..6_u8 {
        tree.create(&format!("file{n}"));
        tree.write(&format!("file{n}"), 0, &vec![n; 50_000]);
    }
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    let path = volume_files(&ground.path("volumes")).unwrap().remove(0);
    let length = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut at = 5;
    while at < length {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let said = ground.restore(3, &["--quiet"]);
        let block = (at as i64 - 4096).div_euclid(64 << 10);
        let named = said.contains("no volume to read") && block <= 0 || said.contains(&format!("block {block}"));
        assert!(named, "byte {at}: {said}");
        run(3, &["verify", "--quiet", shown(&path)]);
        assert_eq!(fs::read_dir(ground.path("target")).map_or(0, Iterator::count), 0);
        file.write_all_at(&byte, at).unwrap();
        at += 9_973;
    }
    ground.restore(0, &[]);
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let object = Identity::new(1, b"unknown!").unwrap();
    let (ground, mut tree) = Ground::new();
    tree.create("file");
    let lsn = tree.log.lsn;
    tree.log.push(RecordType::ObjectGone, 0, object, &EmptyBody {}, &Payload::new()).unwrap();
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    let said = ground.restore(3, &[]);
    let place = format!("record at LSN {lsn:#x} (ObjectGone, object 1:{}", hex::encode(b"unknown!"));
    assert!(said.contains(&place), "{said}");
    assert!(run(3, &["verify", shown(&ground.path("volumes"))]).contains(&place));
    // Up to there it is good.
    ground.restore(0, &["--at", &lsn.to_string()]);
}

#[test]
fn names_from_media_stay_inside() {
    for name in ["..", ".", "a/b", "../../escape", "zero\0byte", ""] {
        let (ground, mut tree) = Ground::new();
        let root = fs::symlink_metadata(&tree.root).unwrap();
        let mut body = CreateBody::new_zeroed();
        body.parent = Identity::new(1, &2_u64.to_le_bytes()).unwrap();
        body.attr = common::attributes(&root);
        body.attr.mode = 0o100_644.into();
        body.attr.nlink = 1.into();
        body.parent_attr = common::attributes(&root);
        body.name_len = (name.len() as u32).into();
        let object = Identity::new(1, b"evil").unwrap();
        let lsn = tree.log.push(RecordType::Create, 0, object, &body, &Payload::of(name.as_bytes())).unwrap();
        write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
        let said = ground.restore(3, &[]);
        assert!(said.contains(&format!("LSN {lsn:#x}")) && said.contains("impossible name"), "{said}");
        assert!(!ground.path("escape").exists());
    }
}

#[test]
fn dump_prints_every_record_once() {
    let (ground, mut tree) = Ground::new();
    busy_tree(&mut tree);
    write_volumes(&ground.path("volumes"), &tree.log.bytes, Some(2 << 20));
    let volumes = ground.path("volumes");
    let output = reel(&["dump", "--json", shown(&volumes)]);
    assert!(output.status.success());
    let mut expected = 0;
    for line in text(&output.stdout).lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["lsn"].as_u64(), Some(expected));
        expected += record["length"].as_u64().unwrap();
    }
    assert_eq!(expected, tree.log.lsn);
    let said = run(0, &["dump", shown(&volumes)]);
    assert!(said.contains(" Rename ") && said.contains("name='was-unnamed'"), "{said}");
    let said = run(0, &["dump", "--blocks", shown(&volumes)]);
    assert!(said.contains("VolumeStart") && said.contains("Data"), "{said}");

    // The same from a segment file of a spool.
    let mut header = SegmentHeader::new_zeroed();
    header.segment_size = SEGMENT.into();
    header.seal();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(&tree.log.bytes);
    bytes.resize(4096 + SEGMENT as usize, 0);
    fs::write(ground.path("segment"), &bytes).unwrap();
    let again = reel(&["dump", "--json", shown(&ground.path("segment"))]);
    assert!(text(&again.stdout) == text(&output.stdout));
    bytes[5000] ^= 1;
    fs::write(ground.path("segment"), &bytes).unwrap();
    assert!(run(3, &["dump", shown(&ground.path("segment"))]).contains("FAULT"));
}

#[test]
fn exit_statuses_are_as_documented() {
    let (ground, mut tree) = Ground::new();
    tree.create("file");
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    run(2, &["restore"]);
    run(2, &["nonsense"]);
    run(2, &["restore", "--to", "/nowhere", "--at", "yesterday", shown(&ground.path("volumes"))]);
    run(1, &["restore", "--to", "/proc/no/such", shown(&ground.path("volumes"))]);
    run(1, &["restore", "--to", shown(&ground.path("t")), "/no/such/volume"]);
    run(3, &["restore", "--to", shown(&ground.path("t")), shown(&ground.path("lower"))]);
    run(2, &["label", "--name", "../x", "--pool", "p", shown(&ground.path("volumes"))]);
    run(0, &["label", "--name", "new", "--pool", "p", shown(&ground.path("volumes"))]);
    run(1, &["label", "--name", "new", "--pool", "p", shown(&ground.path("volumes"))]);
    run(1, &["status", "/no/such/socket"]);
    // What the target cannot hold: a name too long for any, in a record that no kernel would make, cannot occur; an
    // extended attribute in a namespace that nobody knows can.
    let (ground, mut tree) = Ground::new();
    tree.create("file");
    let data = fs::symlink_metadata(tree.path("file")).unwrap();
    let body = XattrBody { attr: common::attributes(&data), name_len: 9.into(), value_len: 1.into() };
    let object = Identity::new(1, &3_u64.to_le_bytes()).unwrap();
    tree.log.push(RecordType::SetXattr, 0, object, &body, &Payload::of(b"nowhere.x").part(b"1")).unwrap();
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    let report = ground.path("report");
    let said = ground.restore(4, &["--report", shown(&report)]);
    assert!(said.contains("'/file': extended attribute 'nowhere.x'"), "{said}");
    assert_eq!(fs::read_to_string(report).unwrap().lines().count(), 1);
    assert!(ground.path("target/file").exists());
}

#[test]
fn the_identity_map_names_every_object() {
    let (ground, mut tree) = Ground::new();
    busy_tree(&mut tree);
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    let map = ground.path("map");
    let output = reel(&[
        "restore",
        "--to",
        shown(&ground.path("target")),
        "--identity-map",
        shown(&map),
        shown(&ground.path("volumes")),
    ]);
    let said = text(&output.stderr);
    if said.contains("name_to_handle_at") {
        return; // The filesystem of this test has no handles.
    }
    assert!(output.status.success(), "{said}");
    let lines = fs::read_to_string(map).unwrap();
    let mut inodes: Vec<_> = Vec::new();
    let mut pending = vec![ground.path("target")];
    while let Some(path) = pending.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        inodes.push(data.ino());
        if data.is_dir() {
            pending.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(lines.lines().count(), inodes.len() + 1);
}

#[test]
fn a_gap_and_an_unclean_mount_are_reported() {
    let (ground, mut tree) = Ground::new();
    tree.create("file");
    let none = Identity::NONE;
    tree.log.push(RecordType::Gap, 0, none, &GapBody::new_zeroed(), &Payload::new()).unwrap();
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    assert!(ground.restore(5, &[]).contains("the log lacks changes here"));
}

/// Where the mount went on without its log: what is known of both sides is restored, and nobody can miss that it is not
/// all. Up to the gap it is.
#[test]
fn a_gap_is_said_loudly_and_crossed() {
    let (ground, mut tree) = Ground::new();
    tree.mkdir("d");
    tree.create("d/before");
    tree.write("d/before", 0, b"known");
    let begin = tree.log.lsn;
    let none = Identity::NONE;
    let body = GapBody { reason: GAP_DEGRADED.into(), ..GapBody::new_zeroed() };
    tree.log.push(RecordType::Gap, 0, none, &body, &Payload::new()).unwrap();
    // In no log: a file that is made, one that goes, a directory with something in it.
    let lost = tree.log.bytes.len();
    let lsn = tree.log.lsn;
    tree.create("d/lost");
    tree.mkdir("lost");
    tree.create("lost/below");
    tree.log.bytes.truncate(lost);
    tree.log.lsn = lsn;
    let body = GapEndBody { begin: begin.into(), changes: 3.into(), bytes: 900.into(), ..GapEndBody::new_zeroed() };
    tree.log.push(RecordType::GapEnd, 0, none, &body, &Payload::new()).unwrap();
    // Of what no log knows, and of what it does.
    tree.write("d/lost", 0, b"nobody made it");
    tree.create("lost/beside");
    tree.create("d/after");
    tree.write("d/after", 0, b"whole");
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    let said = ground.restore(5, &[]);
    for word in ["GAP in stream", &format!("{begin:#x}"), "3 changes", "left out", "the log has a gap"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    let target = ground.path("target");
    assert_eq!(fs::read(target.join("d/before")).unwrap(), b"known");
    assert_eq!(fs::read(target.join("d/after")).unwrap(), b"whole");
    assert!(!target.join("d/lost").exists() && !target.join("lost").exists());
    let said = run(5, &["verify", shown(&ground.path("volumes"))]);
    assert!(said.contains("GAP in stream") && said.contains("the log has a gap"), "{said}");
    // Before the gap, nothing is missing.
    fs::remove_dir_all(&target).unwrap();
    let said = ground.restore(0, &["--at", &format!("{begin:#x}")]);
    assert!(!said.contains("GAP"), "{said}");
}

#[derive(Clone, Debug)]
struct Op(u8, u8, u8, u32);

fn operations() -> impl Strategy<Value = Vec<Op>> {
    let op = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u32>()).prop_map(|(a, b, c, d)| Op(a, b, c, d));
    prop::collection::vec(op, 1..120)
}

/// Does something that is possible with the tree as it is.
fn perform(tree: &mut Tree, Op(what, one, two, more): &Op) {
    let mut directories = vec![String::new()];
    let mut files = Vec::new();
    let mut others = Vec::new();
    let mut at = 0;
    while at < directories.len() {
        let directory = directories[at].clone();
        let mut names: Vec<_> = fs::read_dir(tree.path(&directory))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in names {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let kind = fs::symlink_metadata(tree.path(&path)).unwrap().file_type();
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                files.push(path);
            } else {
                others.push(path);
            }
        }
        at += 1;
    }
    let pick = |list: &[String], n: u8| list.get(usize::from(n) % list.len().max(1)).cloned();
    let parent = pick(&directories, *one).unwrap();
    let fresh = |suffix: &str| {
        let name = format!("n{}{suffix}", two % 12);
        if parent.is_empty() {
            name
        } else {
            format!("{parent}/{name}")
        }
    };
    let file = pick(&files, *two);
    let all: Vec<_> = directories[1..].iter().chain(&files).chain(&others).cloned().collect();
    let any = pick(&all, *one);
    let offset = u64::from(more % 300_000);
    let block = u64::from(more % 40) * 4096;
    match what % 24 {
        0 if is_free(tree, &fresh("f")) => tree.create(&fresh("f")),
        1 if is_free(tree, &fresh("d")) && directories.len() < 20 => tree.mkdir(&fresh("d")),
        2 if is_free(tree, &fresh("l")) => tree.symlink(&fresh("l"), &fresh("target")),
        3 if is_free(tree, &fresh("p")) => tree.mknod(&fresh("p"), FileType::Fifo, 0),
        4..=7 => {
            if let Some(file) = file {
                tree.write(&file, offset, &vec![*two; usize::from(*one) * 40 + 1]);
            }
        }
        8 => file.into_iter().for_each(|file| tree.truncate(&file, offset)),
        9 => {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            file.into_iter().for_each(|file| tree.fallocate(&file, mode, offset, u64::from(*one) * 100 + 1));
        }
        10 => file.into_iter().for_each(|file| tree.fallocate(&file, FallocateFlags::ZERO_RANGE, offset, 5000)),
        11 => file.into_iter().for_each(|file| tree.fallocate(&file, FallocateFlags::COLLAPSE_RANGE, block, 8192)),
        12 => file.into_iter().for_each(|file| tree.fallocate(&file, FallocateFlags::INSERT_RANGE, block, 4096)),
        13 => file.into_iter().for_each(|file| tree.fallocate(&file, FallocateFlags::empty(), offset, 10_000)),
        14 => {
            if let (Some(file), true) = (file, is_free(tree, &fresh("h"))) {
                tree.link(&file, &fresh("h"));
            }
        }
        15 => any.filter(|path| !is_full(&tree.path(path))).into_iter().for_each(|p| tree.remove(&p, more % 2 == 0)),
        16..=18 => {
            if let (Some(from), Some(to)) = (any, pick(&all, *two)) {
                tree.rename(&from, &to, if more % 3 == 0 { RenameFlags::EXCHANGE } else { RenameFlags::empty() });
            }
        }
        19 => {
            if let Some(from) = any {
                tree.rename(&from, &fresh("r"), RenameFlags::empty());
            }
        }
        20 => any.filter(|p| !others.contains(p)).into_iter().for_each(|p| tree.chmod(&p, 0o700 | (more % 0o10000))),
        21 => any.into_iter().for_each(|path| tree.touch(&path, i64::from(*more), more % 1_000_000_000)),
        22 => {
            if let Some(path) = any {
                let name = format!("user.x{}", two % 3);
                if more % 4 == 0 {
                    tree.remove_xattr(&path, &name);
                } else {
                    tree.set_xattr(&path, &name, &more.to_le_bytes());
                }
            }
        }
        23 => match more % 3 {
            0 => tree.create_unnamed(&more.to_le_bytes()),
            1 if is_free(tree, &fresh("u")) => {
                // Only a file that was made without a name can be given one; unlinked ones cannot.
                if tree.unnamed.last().is_some_and(|file| fs::read_link(fd_path(file)).is_ok_and(|p| is_unnamed(&p))) {
                    tree.name_unnamed(&fresh("u"));
                }
            }
            _ => tree.drop_unnamed(),
        },
        _ => {}
    }
}

fn is_free(tree: &Tree, path: &str) -> bool {
    fs::symlink_metadata(tree.path(path)).is_err()
}

fn fd_path(file: &fs::File) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn is_unnamed(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('#'))
}

fn is_full(path: &Path) -> bool {
    path.is_dir() && !path.is_symlink() && fs::read_dir(path).unwrap().next().is_some()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is done to a tree: restoring its log gives it again.
    #[test]
    fn any_history_comes_back(operations in operations()) {
        let (ground, mut tree) = Ground::new();
        for operation in &operations {
            perform(&mut tree, operation);
        }
        write_volumes(&ground.path("volumes"), &tree.log.bytes, Some(1 << 20));
        ground.restore(0, &["--quiet"]);
        assert_same(&tree.root, &ground.path("target"));
        run(0, &["verify", "--quiet", shown(&ground.path("volumes"))]);
    }
}

#[test]
fn an_empty_log_cannot_be_restored() {
    let ground = Ground { directory: tempfile::tempdir().unwrap() };
    fs::create_dir(ground.path("volumes")).unwrap();
    let mut log = LogBuilder::new();
    log.push(RecordType::Noop, 0, Identity::NONE, &EmptyBody {}, &Payload::new()).unwrap();
    write_volumes(&ground.path("volumes"), &log.bytes, None);
    assert!(ground.restore(3, &[]).contains("no mount in the log"));
}

/// Not a test: figures, next to those of tar on the same tree.
#[test]
#[ignore = "figures"]
fn how_long_many_small_files_take() {
    let (ground, mut tree) = Ground::new();
    for directory in 0..200 {
        tree.mkdir(&format!("d{directory}"));
        for file in 0..100 {
            let path = format!("d{directory}/file-{file}");
            tree.create(&path);
            tree.write(&path, 0, &vec![file as u8; 2000 + 100 * file]);
            tree.chmod(&path, 0o640);
        }
    }
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    let archive = ground.path("archive.tar");
    let tar = |args: &[&str]| assert!(Command::new("tar").args(args).status().unwrap().success());
    tar(&["-cf", shown(&archive), "-C", shown(&tree.root), "."]);
    for _ in 0..3 {
        let start = std::time::Instant::now();
        fs::create_dir(ground.path("untarred")).unwrap();
        tar(&["-xf", shown(&archive), "-C", shown(&ground.path("untarred"))]);
        rustix::fs::syncfs(fs::File::open(ground.path("untarred")).unwrap()).unwrap();
        let tar_seconds = start.elapsed().as_secs_f64();
        let start = std::time::Instant::now();
        let said = ground.restore(0, &["--quiet"]);
        println!("tar -x: {tar_seconds:.2} s; reel restore: {:.2} s\n{said}", start.elapsed().as_secs_f64());
        fs::remove_dir_all(ground.path("untarred")).unwrap();
        fs::remove_dir_all(ground.path("target")).unwrap();
    }
}
