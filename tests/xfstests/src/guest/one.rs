// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs one test, by xfstests' own `check`, and says how it ended.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context, Result};

use super::judge::{judge, Judgement};
use super::stage::{disk, mkfs, Stage, CHECKOUT, RESULTS, TOP};
use super::stacked;
use crate::journal::{Ended, Line, Outcome, Subject};

const STEP: Duration = Duration::from_millis(50);
/// How long processes that were killed have to go.
const GRACE: Duration = Duration::from_secs(20);
/// Lines of a test's own log that are kept.
const KEPT: usize = 150;

/// Where what happens is told.
pub struct Ports {
    /// Lines of the journal.
    pub journal: File,
    /// What failed tests have to say.
    pub log: File,
}

impl Ports {
    /// The machine's.
    pub fn open() -> Result<Self> {
        let open = |name: &str| {
            let path = Path::new("/dev/virtio-ports").join(name);
            File::options().write(true).open(&path).with_context(|| path.display().to_string())
        };
        Ok(Ports { journal: open("journal")?, log: open("log")? })
    }
}

/// Runs the tests, one after the other. Ends early when the machine cannot go on.
pub fn run_all(stage: &Stage, tests: &[String], limit: Duration) -> Result<()> {
    let mut ports = Ports::open()?;
    let before = processes();
    for (number, test) in tests.iter().enumerate() {
        ports.journal.write_all(Line::Begin(test.clone()).to_string().as_bytes())?;
        let (ended, stop) = one(stage, test, limit, &before, &mut ports.log)?;
        println!(
            "{:<9} {:<4} {:>3}/{} {test} {} ({} s){}{}",
            stage.subject.name(),
            stage.lower,
            number + 1,
            tests.len(),
            ended.outcome.name(),
            ended.seconds,
            if ended.reason.is_empty() { "" } else { ": " },
            ended.reason
        );
        ports.journal.write_all(Line::End(ended).to_string().as_bytes())?;
        if let Some(why) = stop {
            ports.journal.write_all(Line::Stop(why).to_string().as_bytes())?;
            return Ok(());
        }
    }
    Ok(())
}

/// Runs one test on filesystems that were made for it. The second is why no other can run in this machine.
fn one(
    stage: &Stage,
    test: &str,
    limit: Duration,
    before: &HashSet<u32>,
    log: &mut File,
) -> Result<(Ended, Option<String>)> {
    for entry in fs::read_dir(RESULTS)?.flatten() {
        let path = entry.path();
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
    // From the beginning: what a log has of a tree it has from when that was empty.
    mkfs(&stage.lower, &disk("test")?)?;
    mkfs(&stage.lower, &disk("scratch")?)?;
    let output = Path::new(TOP).join("output");
    let started = Instant::now();
    let mut child = start(stage, test, &output)?;
    let mut stop = None;
    let in_time = wait(&mut child, limit)?;
    let seconds = started.elapsed().as_secs();
    let (mut outcome, mut reason) = match in_time {
        true => verdict(test, &output),
        false => {
            // Where everything that sleeps in the kernel is, into the kernel log.
            let _ = fs::write("/proc/sysrq-trigger", "w");
            stop = Some("a test took too long".to_owned());
            (Outcome::Fail, format!("timeout: not done within {} s", limit.as_secs()))
        }
    };
    end_processes(&mut child, before, stage.subject == Subject::Reelfs);
    // What hangs would hang this as well.
    let left = if in_time { stacked::clear() } else { Vec::new() };
    if let Some(left) = left.first() {
        stop = Some(format!("{} cannot be unmounted", left.display()));
        if outcome == Outcome::Pass {
            (outcome, reason) = (Outcome::Fail, format!("{} cannot be unmounted", left.display()));
        }
    }
    let mut more = String::new();
    if stage.subject == Subject::Reelfs && stop.is_none() {
        more = daemons();
        match judge(stage) {
            Ok(judgement) => apply(judgement, &mut outcome, &mut reason, &mut more),
            Err(error) => {
                (outcome, reason) = (Outcome::Differs, format!("cannot be judged: {error:#}"));
                stop = Some(reason.clone());
            }
        }
    }
    if outcome != Outcome::Pass {
        explain(log, stage, test, outcome, &output, &more)?;
    }
    Ok((Ended { test: test.to_owned(), outcome, seconds, reason }, stop))
}

fn apply(judgement: Judgement, outcome: &mut Outcome, reason: &mut String, more: &mut String) {
    if !judgement.faults.is_empty() {
        let also = if *outcome == Outcome::Fail { format!("; and: {reason}") } else { String::new() };
        *outcome = Outcome::Differs;
        *reason = format!("{} differences, {}{also}", judgement.faults.len(), judgement.faults[0]);
        let shown: Vec<_> = judgement.faults.iter().take(60).map(String::as_str).collect();
        more.push_str(&format!("-- the restored tree and the lower filesystem:\n{}\n", shown.join("\n")));
    } else if *outcome == Outcome::Pass {
        let all: Vec<_> = judgement.compared.into_iter().chain(judgement.doubtful).collect();
        *reason = if all.is_empty() { String::new() } else { format!("[{}]", all.join("; ")) };
    }
}

fn start(stage: &Stage, test: &str, output: &Path) -> Result<Child> {
    let out = File::create(output)?;
    // A session keyring of its own; a process group of its own, so that all of it can be ended.
    let mut command = Command::new("keyctl");
    command.args(["session", "-", "./check"]);
    if stage.subject == Subject::Overlay {
        command.arg("-overlay");
    }
    command
        .arg(test)
        .current_dir(CHECKOUT)
        .env("PATH", stage.path())
        .env("HOST_OPTIONS", Path::new(TOP).join("local.config"))
        // There is no udev that would answer.
        .env("DM_DISABLE_UDEV", "1")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .process_group(0);
    command.spawn().context("keyctl")
}

fn wait(child: &mut Child, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(STEP);
    }
    Ok(true)
}

/// How a test has ended, from what `check` left.
fn verdict(test: &str, output: &Path) -> (Outcome, String) {
    let said = fs::read_to_string(output).unwrap_or_default();
    let of = |ending: &str| PathBuf::from(format!("{RESULTS}/{test}{ending}"));
    if let Ok(why) = fs::read_to_string(of(".notrun")) {
        return (Outcome::NotRun, why.trim().to_owned());
    }
    if said.lines().any(|line| line.starts_with("Passed all 1 tests")) {
        return (Outcome::Pass, String::new());
    }
    (Outcome::Fail, why(&said))
}

/// The line of `check`'s output that says most about a failure.
fn why(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim_end).collect();
    // The first thing that the test said and should not have, or did not say.
    let difference = lines.iter().find(|line| {
        let text = line.trim_start();
        line.starts_with("    ") && (text.starts_with(['+', '-'])) && !text.starts_with("+++") && !text.starts_with("---")
    });
    let summary = lines.iter().find(|line| line.contains("output mismatch") || line.contains("[failed"));
    let other = lines.iter().rfind(|line| !line.is_empty());
    let inconsistent = lines.iter().find(|line| line.contains("inconsistent") || line.contains("dmesg"));
    let best = difference.or(inconsistent).or(summary).or(other);
    best.map_or("check said nothing".to_owned(), |line| line.trim().to_owned())
}

/// Processes there are, without the kernel's.
fn processes() -> HashSet<u32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|process| !fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default().is_empty())
        .collect()
}

/// Ends all that a test started, but for the daemons, which end by themselves.
fn end_processes(child: &mut Child, before: &HashSet<u32>, spare_daemons: bool) {
    let is_daemon = |process: u32| {
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        spare_daemons && name.trim() == "reeld"
    };
    let deadline = Instant::now() + GRACE;
    loop {
        let _ = child.try_wait();
        let left: Vec<_> = processes().difference(before).copied().filter(|&process| !is_daemon(process)).collect();
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for process in left {
            let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(process) = process {
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
        std::thread::sleep(STEP);
    }
}

/// The ends of the daemons' messages.
fn daemons() -> String {
    let mut text = String::new();
    for entry in fs::read_dir(Path::new(TOP).join("log")).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "reeld") {
            let said = fs::read_to_string(entry.path()).unwrap_or_default();
            text.push_str(&format!("-- {}:\n{}\n", entry.file_name().to_string_lossy(), last(&said, 12)));
        }
    }
    text
}

fn last(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Puts what there is to know about a test into the log.
fn explain(log: &mut File, stage: &Stage, test: &str, outcome: Outcome, output: &Path, more: &str) -> Result<()> {
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let full = read(Path::new(&format!("{RESULTS}/{test}.full")));
    let bad = read(Path::new(&format!("{RESULTS}/{test}.out.bad")));
    let text = format!(
        "\n==== {test} on {}, {}: {}\n{}\n-- out.bad:\n{}\n-- full:\n{}\n{more}",
        stage.subject.name(),
        stage.lower,
        outcome.name(),
        last(&read(output), KEPT),
        last(&bad, KEPT),
        last(&full, KEPT)
    );
    log.write_all(text.as_bytes()).map_err(|error| anyhow!("the port for the log: {error}"))
}

#[cfg(test)]
mod tests {
    use super::why;

    #[test]
    fn the_first_difference_says_why() {
        let said = "generic/003 - output mismatch (see x)\n    --- tests/generic/003.out\n    +++ x\n    @@ -1 +1,2 @@\n     \
                    QA output\n    +ERROR: access time\n    ...\nFailures: generic/003\nFailed 1 of 1 tests\n";
        assert_eq!(why(said), "+ERROR: access time");
        assert_eq!(why("generic/004 _check_dmesg: something found in dmesg (see y)\nFailed 1 of 1 tests\n"),
            "generic/004 _check_dmesg: something found in dmesg (see y)");
        assert_eq!(why(""), "check said nothing");
    }
}
