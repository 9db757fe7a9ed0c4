// SPDX-License-Identifier: GPL-2.0-or-later
//! Processor time: of this thread, of a child that ended, of another process thread by thread.
//!
//! All of it is the scheduler's `sum_exec_runtime`, in nanoseconds, whether the kernel gives it by
//! `clock_gettime(CLOCK_THREAD_CPUTIME_ID)` or as the first number in `/proc/PID/schedstat`
//! (Documentation/scheduler/sched-stats.rst), so the numbers may be added and compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, Context, Result};
use rustix::process::{waitid, Pid, WaitId, WaitIdOptions};
use rustix::time::{clock_gettime, ClockId};

/// Processor time of the calling thread so far, in nanoseconds.
pub fn thread() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn schedstat(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("{}: no processor time", path.display()))?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().with_context(|| format!("{}: not a number: {first}", path.display()))
}

/// Runs a command to its end, which has to be a good one, and gives its processor time in nanoseconds.
///
/// The child is looked at after it ended and before it is reaped. What it started itself is not counted.
pub fn child(command: &mut Command) -> Result<u64> {
    let mut running = command.spawn().with_context(|| format!("{:?} cannot be started", command.get_program()))?;
    let pid = Pid::from_child(&running);
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).context("waiting for a child")?;
    let spent = schedstat(Path::new(&format!("/proc/{}/schedstat", pid.as_raw_nonzero())))?;
    let status = running.wait().context("waiting for a child")?;
    if !status.success() {
        bail!("{:?} failed: {status}", command.get_program());
    }
    Ok(spent)
}

/// Processor time so far of every thread of a process, in nanoseconds, summed by the threads' names.
///
/// A thread that ended is missing, so this is for processes whose threads live as long as they do.
pub fn process(pid: u32) -> Result<BTreeMap<String, u64>> {
    let tasks = format!("/proc/{pid}/task");
    let mut spent = BTreeMap::new();
    for task in fs::read_dir(&tasks).with_context(|| format!("{tasks}: is the daemon running?"))? {
        let task = task.context("reading a directory of threads")?.path();
        let name = fs::read_to_string(task.join("comm")).context("reading a thread's name")?;
        *spent.entry(name.trim().to_owned()).or_insert(0) += schedstat(&task.join("schedstat"))?;
    }
    Ok(spent)
}

/// What was spent between two readings of [`process`], without the threads that did nothing.
pub fn since(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    after
        .iter()
        .map(|(name, now)| (name.clone(), now.saturating_sub(before.get(name).copied().unwrap_or(0))))
        .filter(|&(_, spent)| spent > 0)
        .collect()
}
