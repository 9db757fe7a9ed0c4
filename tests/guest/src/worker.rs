// SPDX-License-Identifier: GPL-2.0-or-later

//! Several processes at once: this program again, as `reelfs-guest worker KIND PATH NUMBER COUNT`.
//!
//! Workers race on the same objects and ignore the errors that racing brings (a name is gone, or there already). That
//! log and tree agree afterwards is what the tests look at.

use crate::check::{ensure, Check, Failure};
use crate::pattern::{pattern, Random};
use reelfs_sys::memory::SharedMapping;
use rustix::fs::{AtFlags, Mode, RenameFlags, Timespec, Timestamps, XattrFlags, CWD};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// Runs `count` workers at once and waits for all.
pub fn together(count: u32, command: impl Fn(u32) -> Command) -> Check {
    let children: Vec<_> = (0..count).map(|number| command(number).spawn()).collect();
    for child in children {
        let status = child?.wait()?;
        ensure!(status.success(), "a worker failed: {status}");
    }
    Ok(())
}

fn worker(kind: &str, path: &Path, number: u32, count: u32) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["worker", kind]).arg(path).args([number.to_string(), count.to_string()]);
    command
}

/// Appends lines to a file.
pub fn append(path: &Path, number: u32, count: u32) -> Command {
    worker("append", path, number, count)
}

/// Appends to a file and syncs it, which may have to wait.
pub fn append_and_sync(path: &Path) -> Command {
    worker("append-and-sync", path, 0, 1)
}

/// Stores into all pages of a file through a shared mapping, without pause, until it is killed.
pub fn store(path: &Path) -> Command {
    worker("store", path, 0, 0)
}

/// Writes to places in a file, cuts it and lets it grow.
pub fn scribble(path: &Path, number: u32, count: u32) -> Command {
    worker("scribble", path, number, count)
}

/// Sets attributes of `f` and `d` in a directory.
pub fn fiddle(path: &Path, number: u32, count: u32) -> Command {
    worker("fiddle", path, number, count)
}

/// Makes, moves and removes names in a directory.
pub fn shuffle(path: &Path, number: u32, count: u32) -> Command {
    worker("shuffle", path, number, count)
}

/// Does everything that can be done to a tree, at random, below a directory that it shares with others of its kind.
pub fn stress(path: &Path, seed: u32, count: u32) -> Command {
    worker("stress", path, seed, count)
}

/// The same, with allocations that fail for this process, as the kernel has been told to let them.
pub fn stress_without_memory(path: &Path, seed: u32, count: u32) -> Command {
    worker("stress-without-memory", path, seed, count)
}

/// What the worker process does.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> Check {
    let mut word = || arguments.next().ok_or_else(|| Failure::new("an argument is missing"));
    let (kind, path) = (word()?, word()?);
    let mut number = || Ok::<u64, Failure>(word()?.to_string_lossy().parse::<u64>()?);
    let (number, count) = (number()?, number()?);
    let (path, mut random) = (Path::new(&path), Random::new(number + 1));
    match kind.to_str() {
        Some("append") => {
            let mut file = File::options().append(true).open(path)?;
            for line in 0..count {
                let fill = "x".repeat(random.below(50) as usize);
                file.write_all(format!("worker {number} {line:06} {fill}\n").as_bytes())?;
            }
            Ok(())
        }
        Some("append-and-sync") => {
            let mut file = File::options().append(true).create(true).open(path)?;
            file.write_all(b"a line\n")?;
            Ok(file.sync_all()?)
        }
        Some("store") => {
            const PAGE: usize = 4096;
            let file = File::options().read(true).write(true).open(path)?;
            let length = usize::try_from(file.metadata()?.len())?;
            let mapping = SharedMapping::new(&file, 0, length, true)?;
            for round in 0u64.. {
                (0..length / PAGE).for_each(|page| mapping.store(page * PAGE, &round.to_le_bytes()));
            }
            Ok(())
        }
        Some("ledger") => crate::ledger::work(path, number),
        Some("ledger-database") => crate::ledger::work_on_database(path, number),
        Some("scribble") => do_scribble(path, number, count, &mut random),
        Some("fiddle") => do_fiddle(path, count, &mut random),
        Some("shuffle") => {
            for step in 0..count {
                // An error is one of the race, or the comparison will show what it did.
                let _ = shuffle_once(path, number, step, &mut random);
            }
            Ok(())
        }
        Some(kind @ ("stress" | "stress-without-memory")) => {
            if kind != "stress" {
                fs::write("/proc/self/make-it-fail", "1")?;
            }
            crate::stress::work(path, number, count);
            Ok(())
        }
        _ => Err(Failure::new("no such worker")),
    }
}

fn do_scribble(path: &Path, number: u64, count: u64, random: &mut Random) -> Check {
    const SIZE: u64 = 300_000;
    let file = File::options().read(true).write(true).open(path)?;
    let appending = File::options().append(true).open(path)?;
    let direct = File::options().write(true).custom_flags(0o40000).open(path);
    let mut memory = Vec::new();
    for step in 0..count {
        let seed = (number << 32) | step;
        match random.below(12) {
            0 => file.set_len(random.below(SIZE))?,
            1 => drop(appending.write_at(&pattern(random.below(9000) as usize, seed), 0)?),
            2 | 3 => {
                if let Ok(direct) = &direct {
                    let blocks = 1 + random.below(8) as usize;
                    let bytes = crate::pattern::aligned(&mut memory, &pattern(blocks * 4096, seed));
                    direct.write_at(bytes, random.below(SIZE / 4096) * 4096)?;
                }
            }
            4 => file.sync_data()?,
            _ => drop(file.write_at(&pattern(random.below(20_000) as usize, seed), random.below(SIZE))?),
        }
    }
    Ok(())
}

fn do_fiddle(dir: &Path, count: u64, random: &mut Random) -> Check {
    for step in 0..count {
        let path = dir.join(if random.below(3) == 0 { "d" } else { "f" });
        let name = format!("user.x{}", random.below(4));
        match random.below(6) {
            0 => fs::set_permissions(&path, fs::Permissions::from_mode(random.below(0o10000) as u32))?,
            1 => std::os::unix::fs::chown(&path, Some(random.below(9) as u32), Some(random.below(9) as u32))?,
            2 => {
                let time = Timespec { tv_sec: random.below(1 << 31) as i64, tv_nsec: random.below(999_999_999) as i64 };
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())?;
            }
            3 => {
                // Another worker may have removed it first.
                let _ = rustix::fs::removexattr(&path, &name);
            }
            4 if path.ends_with("f") => {
                let file = File::options().write(true).open(&path)?;
                file.write_all_at(&pattern(100, step), random.below(5000))?;
            }
            _ => rustix::fs::setxattr(&path, &name, &pattern(random.below(200) as usize, step), XattrFlags::empty())?,
        }
    }
    Ok(())
}

fn shuffle_once(dir: &Path, number: u64, step: u64, random: &mut Random) -> std::io::Result<()> {
    // Few names, so that the workers meet.
    let mut name = || {
        let parent = match random.below(4) {
            0 => "".to_owned(),
            n => format!("d{n}"),
        };
        dir.join(parent).join(format!("n{}", random.below(8)))
    };
    let (one, two) = (name(), name());
    match random.below(11) {
        0 | 1 => {
            File::options().write(true).create_new(true).open(&one)?.write_all(format!("{number} {step}").as_bytes())
        }
        2 => fs::create_dir(&one),
        3 => fs::remove_file(&one),
        4 => fs::remove_dir(&one),
        5 | 6 => fs::rename(&one, &two),
        7 => fs::hard_link(&one, &two),
        8 => std::os::unix::fs::symlink(&one, &two),
        9 => Ok(rustix::fs::renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE)?),
        _ => {
            // The file may lose its name meanwhile; what is written then goes with it.
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            let file = rustix::fs::open(&one, flags, Mode::empty())?;
            rustix::io::pwrite(&file, format!("by {number} in {step}").as_bytes(), random.below(3000))?;
            Ok(())
        }
    }
}
