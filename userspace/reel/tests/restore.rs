// SPDX-License-Identifier: GPL-2.0-or-later

//! The command, run as a program: what it restores, what it refuses, how it ends.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};

use common::{assert_same, assert_same_contents, listing, write_volumes, Tree, SEGMENT};
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
fn a_restore_without_a_checkpoint_begins_again() {
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

/// A tree whose restore takes a while, with everything in it that a restore could do twice and must not.
fn long_tree(tree: &mut Tree) {
    busy_tree(tree);
    for round in 0..6_u8 {
        for n in 0..40_u8 {
            let (directory, file) = (format!("r{round}"), format!("r{round}/f{n}"));
            if n == 0 {
                tree.mkdir(&directory);
            }
            tree.create(&file);
            tree.write(&file, 0, &vec![n; 3000 + 200 * usize::from(n)]);
            match n % 8 {
                0 => tree.rename(&file, &format!("{directory}/g{n}"), RenameFlags::empty()),
                1 => tree.link(&file, &format!("linked{round}-{n}")),
                2 => tree.fallocate(&file, FallocateFlags::INSERT_RANGE, 0, 4096),
                3 => tree.remove(&file, false),
                4 => tree.set_xattr(&file, "user.n", &[n]),
                5 => tree.truncate(&file, 100),
                _ => {}
            }
        }
        // What a checkpoint knows by now is shifted, moved away, replaced and removed.
        if round > 0 {
            let before = round - 1;
            tree.fallocate(&format!("r{before}/f2"), FallocateFlags::INSERT_RANGE, 0, 8192);
            tree.fallocate(&format!("r{before}/f10"), FallocateFlags::COLLAPSE_RANGE, 0, 4096);
            tree.write(&format!("r{before}/f6"), 50, b"changed later");
            tree.rename(&format!("r{before}/f7"), &format!("r{round}/moved"), RenameFlags::empty());
            tree.create(&format!("r{before}/f7"));
            // As long as the one before, so that nobody takes the one for the other by its size alone.
            tree.write(&format!("r{before}/f7"), 0, &[round; 4400]);
            tree.rename(&format!("r{before}/f14"), &format!("r{before}/f15"), RenameFlags::EXCHANGE);
            tree.rename(&format!("r{before}/f22"), &format!("r{before}/f23"), RenameFlags::empty());
            tree.remove(&format!("r{before}/f30"), round % 2 == 0);
            tree.rename(&format!("r{before}"), &format!("r{round}/below"), RenameFlags::empty());
            tree.rename(&format!("r{round}/below"), &format!("r{before}"), RenameFlags::empty());
            tree.touch(&format!("r{before}"), 1_000_000 + i64::from(round), 77);
        }
    }
    tree.mkdir("deep");
    tree.mkdir("deep/er");
    tree.rename("r0", "deep/er/r0", RenameFlags::empty());
}

#[test]
fn a_killed_restore_goes_on() {
    let (ground, mut tree) = Ground::new();
    long_tree(&mut tree);
    write_volumes(&ground.path("volumes"), &tree.log.bytes, Some(1 << 20));
    let (target, volumes) = (ground.path("target"), ground.path("volumes"));
    let begun = std::time::Instant::now();
    let small = ["--checkpoint", "20K", "--memory", "64K", "--no-identity-map", "--quiet"];
    ground.restore(0, &small);
    let whole = begun.elapsed();
    assert_same_contents(&tree.root, &target);
    let (mut kills, mut went_on) = (0, 0);
    // When a kill hits something depends on the machine: it goes on until enough have.
    for round in 0..200_u32 {
        if round >= 30 && kills > 20 && went_on > 10 {
            break;
        }
        fs::remove_dir_all(&target).unwrap();
        let mut tries = 0;
        loop {
            let mut command = Command::new(env!("CARGO_BIN_EXE_reel"));
            command.args(["restore", "--resume", "--to", shown(&target), shown(&volumes)]).args(small);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
            let had_state = target.join(".reelfs-restore/state").exists();
            let mut child = command.spawn().unwrap();
            // Later and later, so that it comes to an end.
            let part = (round * 7 + tries * 13) % 29 + 1 + tries * 2;
            std::thread::sleep(whole * part / 40);
            let done = child.try_wait().unwrap();
            if done.is_none() {
                child.kill().unwrap();
                kills += 1;
            }
            let output = child.wait_with_output().unwrap();
            // Killed when nothing was left to be done but to say so.
            let complete = fs::read_dir(&target).is_ok_and(|mut names| names.next().is_some())
                && !target.join(".reelfs-restore").exists();
            if done.is_none() && complete {
                break;
            }
            if done.is_some() {
                assert!(output.status.success(), "round {round}, try {tries}: {}", text(&output.stderr));
                went_on += u32::from(had_state);
                break;
            }
            tries += 1;
        }
        assert_same_contents(&tree.root, &target);
        assert!(!target.join(".reelfs-restore").exists());
    }
    println!("killed {kills} times, {went_on} went on in the end");
    assert!(kills > 20 && went_on > 10, "killed {kills} times, {went_on} went on in the end");
}

#[test]
fn only_the_same_restore_goes_on() {
    let (ground, mut tree) = Ground::new();
    for n in 0..20_u8 {
        tree.create(&format!("big{n}"));
        tree.write(&format!("big{n}"), 0, &vec![n; 300_000]);
    }
    write_volumes(&ground.path("volumes"), &tree.log.bytes, Some(2 << 20));
    let files = volume_files(&ground.path("volumes")).unwrap();
    let away = ground.path("away");
    fs::rename(&files[2], &away).unwrap();
    // What could be read is kept, because there is a checkpoint of it.
    let said = ground.restore(3, &["--checkpoint", "1M"]);
    assert!(said.contains("go on with --resume"), "{said}");
    fs::rename(&away, &files[2]).unwrap();
    assert!(ground.restore(1, &[]).contains("--resume"));
    assert!(ground.restore(2, &["--resume", "--at", "4096"]).contains("another moment"));
    // The volumes that it is through with are not needed any more.
    fs::rename(&files[0], &away).unwrap();
    let said = ground.restore(0, &["--resume"]);
    assert!(said.contains("going on at LSN"), "{said}");
    assert_same(&tree.root, &ground.path("target"));
}

#[test]
fn memory_does_not_decide_what_comes_back() {
    let (ground, mut tree) = Ground::new();
    long_tree(&mut tree);
    tree.mkdir("many");
    for n in 0..3000 {
        tree.create(&format!("many/a name of some length, number {n}"));
    }
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    ground.restore(0, &["--memory", "1K"]);
    assert_same_contents(&tree.root, &ground.path("target"));
}

#[test]
fn parts_of_the_tree_can_be_restored() {
    let (ground, mut tree) = Ground::new();
    busy_tree(&mut tree);
    tree.mkdir("old");
    tree.create("old/kept");
    tree.write("old/kept", 0, b"kept");
    tree.create("old/removed");
    let lsn = tree.log.lsn;
    tree.remove("old/removed", false);
    tree.rename("old", "new", RenameFlags::empty());
    write_volumes(&ground.path("volumes"), &tree.log.bytes, None);
    let target = ground.path("target");
    let lines = |root: &Path, wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        listing(root, true).into_iter().filter(|line| wanted(line.split(' ').next().unwrap())).collect()
    };
    // A directory, a file in another whose ancestors come along, one name of several.
    ground.restore(0, &["--path", "new", "--path", "/x/e/second"]);
    let wanted = |path: &str| path.is_empty() || path.starts_with("new") || ["x", "x/e", "x/e/second"].contains(&path);
    let (expected, found) = (lines(&tree.root, &wanted), lines(&target, &|_| true));
    let without_links = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.split(" nlink=").next().unwrap().to_owned()).collect()
    };
    assert_eq!(without_links(found), without_links(expected));
    assert_eq!(fs::read(target.join("x/e/second")).unwrap(), b"hello world");
    fs::remove_dir_all(&target).unwrap();
    // As it was called then.
    ground.restore(0, &["--path", "old", "--at", &lsn.to_string()]);
    assert!(target.join("old/removed").exists() && !target.join("new").exists() && !target.join("d").exists());
    fs::remove_dir_all(&target).unwrap();
    // What is known of what is not there.
    let said = ground.restore(1, &["--path", "old/kept", "--path", "new/removed", "--path", "never"]);
    assert!(said.contains("'/old/kept' did not exist then; '/old' was renamed to '/new' at LSN"), "{said}");
    assert!(said.contains("'/never' did not exist then; it never did before"), "{said}");
    assert!(said.contains("'/new/removed' did not exist then"), "{said}");
    assert_eq!(fs::read_dir(&target).map_or(0, Iterator::count), 0);
    let said = ground.restore(1, &["--path", "temporary"]);
    assert!(said.contains("it was removed or replaced at LSN"), "{said}");
}

#[test]
fn the_plan_names_volumes_and_writes_nothing() {
    let (ground, mut tree) = Ground::new();
    for n in 0..20_u8 {
        tree.create(&format!("big{n}"));
        tree.write(&format!("big{n}"), 0, &vec![n; 300_000]);
    }
    write_volumes(&ground.path("volumes"), &tree.log.bytes, Some(2 << 20));
    let said = ground.restore(0, &["--plan"]);
    assert!(said.contains("test-000001") && said.contains("test-000004") && said.contains("about "), "{said}");
    assert!(!ground.path("target").exists());
    // Those that hold nothing of the moment are not needed, those that are away are named.
    let files = volume_files(&ground.path("volumes")).unwrap();
    fs::remove_file(&files[1]).unwrap();
    let said = ground.restore(3, &["--plan"]);
    assert!(said.contains("test-000002") && said.contains("MISSING"), "{said}");
    let said = ground.restore(0, &["--plan", "--at", "4096"]);
    assert!(said.contains("not needed") && !said.contains("MISSING"), "{said}");
    assert!(!ground.path("target").exists());
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
