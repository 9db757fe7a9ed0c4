// SPDX-License-Identifier: GPL-2.0-or-later

//! `system-*`: a mount among everything else that a system does: locks and watches, freezing and remounting, other
//! mounts and namespaces, and a lower that runs into limits or dies.
//!
//! Each test has a mount and a daemon of its own. In the end the tree is restored from the media and compared with the
//! lower, or, where the lower was what failed, with what programs were told.

mod lower;
mod mounts;
mod programs;

use crate::check::{Check, Failure};
use crate::machine::{run, Mounted};
use crate::rig::{Rig, Stage};
use crate::{Context, Suite, Test, TestResult, When};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

static STAGE: Mutex<Option<(Stage, &'static str)>> = Mutex::new(None);

const TESTS: &[Test] = &[
    Test::new("locks", programs::locks),
    Test::new("leases", programs::leases),
    Test::new("inotify", programs::inotify),
    Test::new("fanotify", programs::fanotify),
    Test::new("programs-that-run", programs::that_run),
    Test::new("swap-file", programs::swap_file),
    Test::new("upper-frozen-under-load", mounts::upper_frozen).limit(600),
    Test::new("lower-frozen-under-load", mounts::lower_frozen).limit(600),
    Test::new("frozen-both-ways", mounts::frozen_both_ways),
    Test::new("remounted-read-only-and-back", mounts::remounted),
    Test::new("unmounted-lazily", mounts::unmounted_lazily),
    Test::new("bind-mounts", mounts::bind_mounts),
    Test::new("mount-namespaces", mounts::namespaces),
    Test::new("overlayfs-with-its-upper-layer-here", mounts::overlay_upper),
    Test::new("snapshot-of-the-lower-under-load", mounts::lower_snapshot).limit(600),
    Test::new("submounts-below-are-refused", mounts::submounts_below),
    Test::new("size-and-room", lower::size_and_room),
    Test::new("quota", lower::quota),
    Test::new("lower-shut-down", lower::shut_down),
    Test::new("lower-gone-read-only", lower::gone_read_only),
    Test::new("lower-with-errors", lower::with_errors),
];

const SUITE: Suite = Suite {
    timeout: 2400,
    disks: &[("lower", 1024), ("spool", 1024), ("media", 1024), ("other", 1024)],
    tear_down: |_| {
        let stage = STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        Ok(stage.ok_or("no stage")?.0.close()?)
    },
    tests: TESTS,
    ..Suite::DEFAULT
};

pub const EXT4: Suite = Suite { name: "system-ext4", set_up: |c| set_up(c, "ext4"), ..SUITE };
pub const XFS: Suite = Suite { name: "system-xfs", when: When::Long, set_up: |c| set_up(c, "xfs"), ..SUITE };

fn set_up(context: &Context, kind: &'static str) -> TestResult {
    let stage = Stage::new(context, kind)?;
    *STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((stage, kind));
    Ok(())
}

/// The kind of filesystem below.
fn kind() -> Check<&'static str> {
    let stage = STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    stage.as_ref().map(|stage| stage.1).ok_or_else(|| Failure::new("no stage"))
}

/// A mount with its daemon.
fn mounted(name: &str, options: &str) -> Check<Rig> {
    let mut rig = Rig::on_stage(name, false)?;
    rig.mount(options)?;
    rig.start_daemon()?;
    Ok(rig)
}

/// Unmounts, drains, restores, compares with the lower.
fn done(mut rig: Rig) -> TestResult {
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

/// A filesystem of its own for the lower, on the suite's other disk or on a device made of it.
fn mounted_on(name: &str, device: &Path, mount_options: &str, options: &str) -> Check<(Rig, Mounted)> {
    let kind = kind()?;
    let at = PathBuf::from(format!("/run/stage/{name}.disk"));
    drop(Mounted::fresh(kind, device, &at).map_err(Failure::of)?);
    let disk = Mounted::new(kind, device, &at, mount_options).map_err(Failure::of)?;
    let mut rig = Rig::on_stage(name, false)?;
    rig.lower = at.join("lower");
    std::fs::create_dir(&rig.lower)?;
    rig.mount(options)?;
    rig.start_daemon()?;
    Ok((rig, disk))
}

/// Runs a Perl script, for system calls with arguments that no safe Rust can make. What it printed; it has to succeed.
fn perl(script: &str, arguments: &[&OsStr]) -> Check<String> {
    let done = Command::new("perl").arg("-we").arg(script).args(arguments).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    crate::check::ensure!(done.status.success(), "perl: {}: {}", done.status, said.trim());
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// Runs a shell script that has to succeed, with these arguments.
fn shell(script: &str, arguments: &[&Path]) -> Check<String> {
    let mut all: Vec<&OsStr> = vec!["-euc".as_ref(), script.as_ref(), "sh".as_ref()];
    all.extend(arguments.iter().map(|path| path.as_os_str()));
    run("sh", &all).map_err(Failure::of)
}
