// SPDX-License-Identifier: GPL-2.0-or-later

//! Trees as programs walk them: numbers of devices and inodes, positions in directories, many links, many entries.

use super::place::{cases, short, Lower, Place};
use crate::check::{ensure, same, Check};
use crate::Test;
use rustix::fs::{Dir, Mode, OFlags, RawDir, SeekFrom};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::{symlink, MetadataExt};
use std::process::Command;

pub const CASES: &[Test] = cases![trees:
    "numbers-of-devices-and-inodes" numbers,
    "inode-numbers-in-directories" directory_numbers,
    "directory-positions" positions,
    "directory-read-while-it-changes" read_while_changing,
    "links-many" many_links,
    "entries-many" many_entries,
    "deep-tree-moved" deep_moved,
    "tar-and-find" tar_and_find,
    "rsync-with-links" rsync,
];

/// A few of everything.
fn plant(p: &Place, name: &str) -> Check {
    for directory in ["", "/a", "/a/b", "/c"] {
        fs::create_dir(p.at(&format!("{name}{directory}")))?;
    }
    fs::write(p.at(&format!("{name}/a/f")), "a file")?;
    fs::hard_link(p.at(&format!("{name}/a/f")), p.at(&format!("{name}/c/g")))?;
    fs::hard_link(p.at(&format!("{name}/a/f")), p.at(&format!("{name}/h")))?;
    symlink("a/f", p.at(&format!("{name}/s")))?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        p.at(&format!("{name}/fifo")),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )?;
    // Copies are made in the same second, which programs take for the same time.
    let script = "find \"$1\" -exec touch -h -d '2001-02-03 04:05:06.789' {} +";
    let done = Command::new("sh").args(["-c", script, "sh"]).arg(p.at(name)).status()?;
    ensure!(done.success(), "touch failed");
    Ok(())
}

fn numbers(p: &Place) -> Check {
    plant(p, "t")?;
    let device = fs::metadata(p.root())?.dev();
    let mut seen = BTreeSet::new();
    for name in ["t", "t/a", "t/a/b", "t/c", "t/a/f", "t/s", "t/fifo"] {
        let found = p.at(name).symlink_metadata()?;
        same!(found.dev(), device);
        same!(found.ino(), p.below(name).symlink_metadata()?.ino());
        ensure!(seen.insert(found.ino()), "{name} has the inode number of something else");
    }
    let inode = p.at("t/a/f").metadata()?.ino();
    same!((p.at("t/c/g").metadata()?.ino(), p.at("t/h").metadata()?.ino()), (inode, inode));
    // The same through a descriptor, and after the object left memory.
    same!(File::open(p.at("t/h"))?.metadata()?.ino(), inode);
    fs::write("/proc/sys/vm/drop_caches", "2")?;
    same!((p.at("t/a/f").metadata()?.ino(), p.at("t/h").metadata()?.dev()), (inode, device));
    Ok(())
}

/// What `readdir(3)` says of an entry is what `stat(2)` says of it.
fn directory_numbers(p: &Place) -> Check {
    plant(p, "t")?;
    let directory = rustix::fs::open(p.at("t"), OFlags::DIRECTORY, Mode::empty())?;
    let mut entries = 0;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_str()?;
        if name == "." || name == ".." {
            continue;
        }
        same!(entry.ino(), p.at("t").join(name).symlink_metadata()?.ino());
        entries += 1;
    }
    same!(entries, 5);
    Ok(())
}

/// Entries of a directory from a position on, with the position behind each; a few at a time.
fn entries(directory: &std::os::fd::OwnedFd, from: Option<u64>) -> Check<Vec<(Vec<u8>, u64)>> {
    rustix::fs::seek(directory, SeekFrom::Start(from.unwrap_or(0)))?;
    let mut buffer = [MaybeUninit::uninit(); 256];
    let mut reader = RawDir::new(directory, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = reader.next() {
        let entry = entry?;
        found.push((entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie()));
    }
    Ok(found)
}

fn positions(p: &Place) -> Check {
    let count = if short() { 300 } else { 3000 };
    for number in 0..count {
        File::create(p.at(&format!("entry-{number:05}")))?;
    }
    let directory = rustix::fs::open(&p.dir, OFlags::DIRECTORY, Mode::empty())?;
    let all = entries(&directory, None)?;
    same!(all.len(), count + 2);
    let names: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
    same!(names.len(), count + 2);
    // From each of some positions, through this descriptor and through a new one: exactly what followed.
    for at in [0, 1, 2, count / 3, count / 2, count - 1, count + 1] {
        let position = all[at].1;
        let rest: Vec<_> = all[at + 1..].iter().map(|(name, _)| name.clone()).collect();
        for directory in [&directory, &rustix::fs::open(&p.dir, OFlags::DIRECTORY, Mode::empty())?] {
            let again: Vec<_> = entries(directory, Some(position))?.into_iter().map(|(name, _)| name).collect();
            ensure!(again == rest, "behind entry {at}: {} entries, not {}", again.len(), rest.len());
        }
    }
    // What is removed before or behind a position takes nothing else with it.
    let position = all[count / 2].1;
    for (name, _) in all.iter().step_by(3).filter(|(name, _)| name.starts_with(b"entry")) {
        fs::remove_file(p.dir.join(std::str::from_utf8(name)?))?;
    }
    let again: BTreeSet<_> = entries(&directory, Some(position))?.into_iter().map(|(name, _)| name).collect();
    for (index, (name, _)) in all.iter().enumerate().skip(count / 2 + 1) {
        ensure!(index % 3 == 0 || again.contains(name), "{} was left out", String::from_utf8_lossy(name));
    }
    Ok(())
}

/// `rm -r` and its like: what is there from the beginning to the end is seen once.
fn read_while_changing(p: &Place) -> Check {
    for number in 0..600 {
        File::create(p.at(&format!("stays-{number:04}")))?;
        File::create(p.at(&format!("goes-{number:04}")))?;
    }
    let directory = rustix::fs::open(&p.dir, OFlags::DIRECTORY, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 512];
    let mut reader = RawDir::new(&directory, &mut buffer);
    let mut seen: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    while let Some(entry) = reader.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name.starts_with(b"goes") {
            fs::remove_file(p.dir.join(std::str::from_utf8(&name)?))?;
        }
        if name.starts_with(b"stays") {
            *seen.entry(name).or_default() += 1;
        }
    }
    same!(seen.len(), 600);
    ensure!(seen.values().all(|&times| times == 1), "an entry was seen twice");
    same!(fs::read_dir(&p.dir)?.count(), 600);
    Ok(())
}

/// As many names of one file as xfs, of all the lowers, is asked for.
fn many_links(p: &Place) -> Check {
    let count = match (short(), p.kind()?) {
        (false, Lower::Xfs) => 64_000,
        _ => 500,
    };
    fs::create_dir(p.at("d"))?;
    fs::write(p.at("f"), "one file")?;
    for number in 1..count {
        fs::hard_link(p.at("f"), p.at(&format!("d/{number}")))?;
    }
    same!(p.below("f").metadata()?.nlink(), count);
    for number in (1..count).step_by(4) {
        fs::remove_file(p.at(&format!("d/{number}")))?;
    }
    Ok(())
}

fn many_entries(p: &Place) -> Check {
    let count = if short() { 2000 } else { 20_000 };
    for number in 0..count {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            p.at(&format!("an-entry-with-a-longer-name-{number:08}")),
            rustix::fs::FileType::RegularFile,
            Mode::from_raw_mode(0o600),
            0,
        )?;
    }
    same!(fs::read_dir(&p.dir)?.count(), count);
    Ok(())
}

fn deep_moved(p: &Place) -> Check {
    let mut at = rustix::fs::open(&p.dir, OFlags::DIRECTORY, Mode::empty())?;
    for level in 0..300 {
        let name = format!("level-{level}");
        rustix::fs::mkdirat(&at, &name, Mode::RWXU)?;
        at = rustix::fs::openat(&at, &name, OFlags::DIRECTORY, Mode::empty())?;
    }
    fs::create_dir(p.at("elsewhere"))?;
    fs::rename(p.at("level-0/level-1"), p.at("elsewhere/level-1"))?;
    let end = rustix::fs::openat(&at, "end", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)?;
    rustix::io::write(&end, b"far down, and moved")?;
    Ok(())
}

fn tar_and_find(p: &Place) -> Check {
    plant(p, "t")?;
    let found = Command::new("find").arg(p.at("t")).arg("-xdev").output()?;
    same!(String::from_utf8_lossy(&found.stdout).lines().count(), 9);
    let same_file = Command::new("find").arg(p.at("t")).arg("-samefile").arg(p.at("t/h")).output()?;
    same!(String::from_utf8_lossy(&same_file.stdout).lines().count(), 3);
    fs::create_dir(p.at("u"))?;
    let script = "tar -C t --format=posix -cf - --one-file-system . | tar -C u -xpf -";
    let tar = Command::new("sh").arg("-c").arg(script).current_dir(&p.dir).status()?;
    ensure!(tar.success(), "tar failed");
    same!(p.at("u/h").metadata()?.nlink(), 3);
    p.same_trees("t", "u")
}

fn rsync(p: &Place) -> Check {
    plant(p, "t")?;
    for _ in 0..2 {
        let done = Command::new("rsync").args(["-aHAXx", "t/", "u/"]).current_dir(&p.dir).output()?;
        ensure!(done.status.success(), "rsync: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    same!(p.at("u/h").metadata()?.nlink(), 3);
    p.same_trees("t", "u")
}
