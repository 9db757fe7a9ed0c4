// SPDX-License-Identifier: GPL-2.0-or-later
//! What runs in the test machine.
//!
//! xfstests knows nothing of reelfs. It believes to test the lower filesystem, with that filesystem's devices, programs and
//! features, and so it runs all that it would run there. What it calls `mount`, `umount` and `df` are links to this program,
//! first in its `PATH` ([`stacked`]): where it mounts a device on one of its two directories, reelfs is mounted over
//! that, with a daemon of its own ([`spooler`]), and both go with an `umount`. Its `logger` is this program too ([`one`]). A few of its shell functions, those that shut a
//! filesystem down above all, are replaced in the machine's copy (`tests/xfstests/hooks.sh`).

pub mod judge;
pub mod one;
pub mod record;
pub mod spooler;
pub mod stacked;
pub mod stage;

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};

/// Runs a program of the system, not the one of the same name that takes its place, and gives what it printed.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let done = Command::new(program)
        .args(arguments)
        .env("PATH", stage::SYSTEM_PATH)
        .stdin(Stdio::null())
        .output()
        .with_context(|| program.to_owned())?;
    let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} {}: {}: {}", words.join(" "), done.status, said.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
