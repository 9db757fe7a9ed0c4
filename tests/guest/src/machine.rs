// SPDX-License-Identifier: GPL-2.0-or-later
//! What tests do to the machine they run in: commands, modules, filesystems.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The module as it was brought along.
pub const MODULE: &str = "/payload/reelfs.ko";

/// Runs a program with these arguments and returns what it printed.
///
/// Fails with its messages if it does not exit with 0.
pub fn run<S: AsRef<std::ffi::OsStr>>(program: &str, arguments: &[S]) -> Result<String, Box<dyn Error>> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|e| format!("{program}: {e}"))?;
    let words: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {}: {}: {}", words.join(" "), output.status, messages.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a shell script with `set -eu` and returns what it printed.
pub fn sh(script: &str) -> Result<String, Box<dyn Error>> {
    run("sh", &["-euc", script])
}

/// Whether a module is loaded.
pub fn is_loaded(module: &str) -> bool {
    let loaded = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    loaded.lines().any(|line| line.split(' ').next() == Some(module))
}

/// Loads the module under test.
pub fn insmod() -> Result<(), Box<dyn Error>> {
    run("insmod", &[MODULE]).map(drop)
}

/// Unloads the module under test, which fails if anything still uses it.
pub fn rmmod() -> Result<(), Box<dyn Error>> {
    run("rmmod", &["reelfs"]).map(drop)
}

/// A mounted filesystem that is unmounted when this is dropped.
///
/// Call [`Mounted::unmount`] where failing to unmount has to fail the test.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    active: bool,
}

impl Mounted {
    /// Mounts with mount(8).
    pub fn new(kind: &str, source: &Path, at: &Path, options: &str) -> Result<Self, Box<dyn Error>> {
        std::fs::create_dir_all(at)?;
        let mut arguments = vec!["-t".as_ref(), kind.as_ref()];
        if !options.is_empty() {
            arguments.extend::<[&std::ffi::OsStr; 2]>(["-o".as_ref(), options.as_ref()]);
        }
        arguments.extend([source.as_os_str(), at.as_os_str()]);
        run("mount", &arguments)?;
        Ok(Self { at: at.to_owned(), active: true })
    }

    /// Makes a new filesystem on a device and mounts it; `tmpfs` needs no device.
    pub fn fresh(kind: &str, device: &Path, at: &Path) -> Result<Self, Box<dyn Error>> {
        match kind {
            "tmpfs" => {}
            "ext4" => drop(run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), device.as_os_str()])?),
            "xfs" | "btrfs" => {
                let program = format!("mkfs.{kind}");
                run(&program, &["-q".as_ref(), "-f".as_ref(), device.as_os_str()])?;
            }
            other => return Err(format!("no way to make a {other} filesystem").into()),
        }
        Self::new(kind, device, at, "")
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Unmounts it.
    pub fn unmount(mut self) -> Result<(), Box<dyn Error>> {
        self.active = false;
        run("umount", &[&self.at]).map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.active {
            let _ = run("umount", &[&self.at]);
        }
    }
}

/// A frozen filesystem; it thaws when this is dropped.
pub struct Frozen(PathBuf);

impl Frozen {
    /// Freezes the filesystem mounted here.
    pub fn new(at: &Path) -> Result<Self, Box<dyn Error>> {
        run("fsfreeze", &["-f".as_ref(), at.as_os_str()])?;
        Ok(Frozen(at.to_owned()))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = run("fsfreeze", &["-u".as_ref(), self.0.as_os_str()]);
    }
}

/// Waits until something holds; `what` is for the message if it never does.
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<(), Box<dyn Error>> {
    let limit = limit * crate::harness::slowness();
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {} s", limit.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
