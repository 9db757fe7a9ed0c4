// SPDX-License-Identifier: GPL-2.0-or-later

//! Where one case of `ops` works: a directory of its own in the common mount, and what can be asked about it.

use crate::check::{ensure, Check, Failure};
use crate::rig::{none, Rig};
use crate::{Context, TestResult};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The mount that all cases share, from set-up to tear-down.
static RIG: Mutex<Option<Rig>> = Mutex::new(None);

/// A list of tests, each a function that takes a [`Place`]; the directory is named after group and test.
macro_rules! cases {
    [$group:ident: $($name:literal $run:ident,)*] => {
        &[$($crate::Test::new($name, |context| {
            $crate::suites::ops::place::on(context, concat!(stringify!($group), "-", $name), $run)
        })),*]
    };
}
pub(crate) use cases;

/// Hands the mount to the cases, or takes it back.
pub fn exchange(rig: Option<Rig>) -> Option<Rig> {
    let mut held = RIG.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    std::mem::replace(&mut *held, rig)
}

/// Runs a case in a directory called `name`, then compares what the mount and the lower show.
pub fn on(_: &Context, name: &str, run: fn(&Place) -> Check) -> TestResult {
    let held = RIG.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let rig = held.as_ref().ok_or("the mount is not there")?;
    let place = Place { dir: rig.mnt.join(name), lower: rig.lower.join(name), rig };
    std::fs::create_dir(&place.dir)?;
    run(&place)?;
    let differences = rig.differences(&place.dir, &place.lower)?;
    none("mount and lower differ", &differences)?;
    Ok(())
}

/// The lower filesystems that the cases run on; their abilities differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    /// ext4.
    Ext4,
    /// xfs.
    Xfs,
    /// btrfs.
    Btrfs,
    /// tmpfs.
    Tmpfs,
}

/// The short form of the suites was asked for.
pub fn short() -> bool {
    std::env::var_os("REELFS_TEST_SHORT").is_some()
}

/// The directory of one case.
pub struct Place<'rig> {
    /// The directory, through the mount.
    pub dir: PathBuf,
    lower: PathBuf,
    rig: &'rig Rig,
}

impl Place<'_> {
    /// A name in the directory, through the mount.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The same name in the lower.
    pub fn below(&self, name: &str) -> PathBuf {
        self.lower.join(name)
    }

    /// Where the mount is.
    pub fn root(&self) -> &Path {
        &self.rig.mnt
    }

    /// What the lower filesystem is.
    pub fn kind(&self) -> Check<Lower> {
        match rustix::fs::statfs(&self.lower)?.f_type {
            0xef53 => Ok(Lower::Ext4),
            0x5846_5342 => Ok(Lower::Xfs),
            0x9123_683e => Ok(Lower::Btrfs),
            0x0102_1994 => Ok(Lower::Tmpfs),
            other => Err(Failure::new(format!("a filesystem of type {other:#x}"))),
        }
    }

    /// Whether mount and another directory in it hold the same; both are the caller's.
    pub fn same_trees(&self, one: &str, other: &str) -> Check {
        none("trees differ", &self.rig.differences(&self.at(one), &self.at(other))?)
    }

    /// Whether there is no reelfs in between.
    pub fn plain(&self) -> bool {
        self.rig.plain
    }

    /// What `run` gives, and how many records it left.
    pub fn counted<T>(&self, run: impl FnOnce() -> T) -> Check<(T, u64)> {
        let before = self.rig.records()?;
        let result = run();
        Ok((result, self.rig.records()?.saturating_sub(before)))
    }

    /// Does something that has to leave a record.
    pub fn recorded<T>(&self, run: impl FnOnce() -> Check<T>) -> Check<T> {
        let (result, records) = self.counted(run)?;
        let result = result?;
        ensure!(self.plain() || records > 0, "a change left no record");
        Ok(result)
    }

    /// Does something again while it leaves records, a few times: btrfs puts inodes of files that are gone when it finds
    /// the time, and the record of that says nothing about what is being tested. What really leaves a record does so
    /// each time.
    fn settled<T>(&self, mut run: impl FnMut() -> T, again: impl Fn(&T) -> bool) -> Check<(T, u64)> {
        let mut last = self.counted(&mut run)?;
        for _ in 0..3 {
            if last.1 == 0 || !again(&last.0) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            last = self.counted(&mut run)?;
        }
        Ok(last)
    }

    /// Does something that must leave no record.
    pub fn unrecorded<T>(&self, run: impl FnMut() -> Check<T>) -> Check<T> {
        let (result, records) = self.settled(run, Result::is_ok)?;
        let result = result?;
        ensure!(records == 0, "{records} records of what changes nothing");
        Ok(result)
    }

    /// Does something that has to fail in one of these ways, and must leave no record.
    pub fn refused<T>(&self, how: &[Errno], run: impl FnMut() -> Result<T, Errno>) -> Check {
        let (result, records) = self.settled(run, Result::is_err)?;
        match result {
            Ok(_) => return Err(Failure::new(format!("succeeded, should have failed with {how:?}"))),
            Err(error) => ensure!(how.contains(&error), "failed with {error:?} ({error}), should have been {how:?}"),
        }
        ensure!(records == 0, "{records} records of an operation that was refused");
        Ok(())
    }

    /// Does something that either works, and then is restored like all else, or is refused in one of these ways and
    /// leaves no record. Says whether it worked.
    pub fn either<T>(&self, how: &[Errno], run: impl FnMut() -> Result<T, Errno>) -> Check<bool> {
        match self.settled(run, Result::is_err)? {
            (Ok(_), _) => Ok(true),
            (Err(error), records) => {
                ensure!(how.contains(&error), "failed with {error:?} ({error}), may only with {how:?}");
                ensure!(records == 0, "{records} records of an operation that was refused");
                Ok(false)
            }
        }
    }

    /// The same for a program.
    pub fn either_program(&self, program: &str, arguments: &[&str], path: &Path) -> Check<bool> {
        let run = || Command::new(program).args(arguments).arg(path).output();
        let (done, records) = self.settled(run, |done| done.as_ref().is_ok_and(|done| !done.status.success()))?;
        let works = done?.status.success();
        ensure!(works || records == 0, "{records} records although {program} {arguments:?} was refused");
        Ok(works)
    }

    /// Runs a Perl script, for system calls with arguments that no safe Rust can make; it prints a number, by
    /// convention the negated errno where the call failed.
    pub fn perl(&self, script: &str, arguments: &[&OsStr]) -> Check<i64> {
        let done = Command::new("perl").arg("-e").arg(script).args(arguments).output()?;
        let said = String::from_utf8_lossy(&done.stdout).trim().parse();
        said.map_err(|_| {
            Failure::new(format!("perl: {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim()))
        })
    }
}
