// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs tests, by xfstests' own `check`, and says how each ended.
//!
//! Starting `check` takes longer than most tests do, so one of it runs all. Before each test it tells `logger` what it is about
//! to do, which is a link to this program: here the test before is finished ([`between`]), and whatever it left is
//! removed, judged and reported. The program that started `check` ([`run_all`]) watches the time.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::judge::{judge, Judgement};
use super::stage::{disk, mkfs, Stage, CHECKOUT, RESULTS, TOP};
use super::{run, stacked};
use crate::journal::{Ended, Line, Outcome, Subject};

const STEP: Duration = Duration::from_millis(100);
/// How long processes that were killed have to go.
const GRACE: Duration = Duration::from_secs(20);
/// Lines of a test's own log that are kept.
const KEPT: usize = 150;
/// What `check` says to `logger` before a test.
const ANNOUNCED: &str = "run xfstest ";

fn output() -> PathBuf {
    Path::new(TOP).join("output")
}

/// A line for each test that has ended, for people.
fn progress() -> PathBuf {
    Path::new(TOP).join("progress")
}

/// Appends to one of the machine's ports. Only one process at a time can have it open.
fn tell(port: &str, text: &str) -> Result<()> {
    let path = Path::new("/dev/virtio-ports").join(port);
    let mut file = File::options().write(true).open(&path).with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes()).with_context(|| path.display().to_string())
}

/// The test that runs, and since when, in seconds since the machine was started; what one process leaves for the next.
struct Running {
    test: String,
    since: u64,
}

impl Running {
    fn file() -> PathBuf {
        Path::new(TOP).join("running")
    }

    fn now() -> Option<Self> {
        let text = fs::read_to_string(Self::file()).ok()?;
        let (test, since) = text.split_once('\n')?;
        Some(Running { test: test.to_owned(), since: since.parse().ok()? })
    }

    fn begin(test: &str) -> Result<()> {
        Ok(fs::write(Self::file(), format!("{test}\n{}", uptime()))?)
    }

    fn seconds(&self) -> u64 {
        uptime().saturating_sub(self.since)
    }
}

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

/// Why no other test can run in this machine.
fn stopped() -> Option<String> {
    fs::read_to_string(Path::new(TOP).join("stopped")).ok()
}

fn stop(why: &str) -> Result<()> {
    Ok(fs::write(Path::new(TOP).join("stopped"), why)?)
}

/// Runs the tests, one after the other. Ends early when the machine cannot go on; whether it can.
pub fn run_all(stage: &Stage, tests: &[String], limit: Duration) -> Result<bool> {
    let before: Vec<_> = processes().iter().map(u32::to_string).collect();
    fs::write(Path::new(TOP).join("processes"), before.join(" "))?;
    mkfs(&stage.lower, &disk("test")?)?;
    mkfs(&stage.lower, &disk("scratch")?)?;
    let mut check = start(stage, tests)?;
    let mut shown = 0;
    let mut show = || {
        let text = fs::read_to_string(progress()).unwrap_or_default();
        print!("{}", text.get(shown..).unwrap_or_default());
        shown = text.len();
        std::io::stdout().flush()
    };
    loop {
        show()?;
        if check.try_wait()?.is_some() {
            finish(stage)?;
            break;
        }
        if stopped().is_some() {
            break;
        }
        if let Some(running) = Running::now().filter(|running| running.seconds() > limit.as_secs()) {
            // Where everything that sleeps in the kernel is, into the kernel log.
            let _ = fs::write("/proc/sysrq-trigger", "w");
            let reason = format!("timeout: not done within {} s", limit.as_secs());
            let ended =
                Ended { test: running.test.clone(), outcome: Outcome::Fail, seconds: running.seconds(), reason };
            explain(stage, &ended, "")?;
            report(stage, ended)?;
            stop("a test took too long")?;
            break;
        }
        std::thread::sleep(STEP);
    }
    show()?;
    match stopped() {
        Some(why) => {
            end_processes(true);
            tell("journal", &Line::Stop(why).to_string())?;
            Ok(false)
        }
        None => {
            let said = fs::read_to_string(output()).unwrap_or_default();
            if !said.contains("\nRan: ") {
                println!("check ended early:\n{}", last(&said, 20));
            }
            Ok(true)
        }
    }
}

fn start(stage: &Stage, tests: &[String]) -> Result<Child> {
    let out = File::create(output())?;
    // A session keyring of its own; a process group of its own, so that all of it can be ended.
    let mut command = Command::new("keyctl");
    command.args(["session", "-", "./check"]);
    if stage.subject == Subject::Overlay {
        command.arg("-overlay");
    }
    command
        .args(tests)
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

/// What takes the place of `logger`.
pub fn logger(words: &[String]) -> Result<()> {
    let said = words.join(" ");
    let Some(test) = said.strip_prefix(ANNOUNCED) else { return Ok(()) };
    let stage = Stage::of_machine()?;
    let done = between(&stage, test);
    if let Err(error) = &done {
        stop(&format!("{error:#}"))?;
    }
    if stopped().is_some() {
        // `check` would go on. It is ended from outside.
        loop {
            std::thread::park();
        }
    }
    done
}

/// Finishes the test before and makes all ready for this one.
fn between(stage: &Stage, test: &str) -> Result<()> {
    finish(stage)?;
    if stopped().is_none() {
        if stage.subject != Subject::Overlay {
            // From the beginning: what a log has of a tree it has from when that was empty. (overlayfs would not find its
            // directories.)
            mkfs(&stage.lower, &disk("test")?)?;
        }
        tell("journal", &Line::Begin(test.to_owned()).to_string())?;
        Running::begin(test)?;
    }
    Ok(())
}

/// Ends, judges and reports the test that ran; without one, only makes sure that nothing is mounted.
fn finish(stage: &Stage) -> Result<()> {
    let running = Running::now();
    end_processes(false);
    let seconds = running.as_ref().map_or(0, Running::seconds);
    let left = if stage.subject == Subject::Overlay { Vec::new() } else { stacked::clear() };
    let Some(Running { test, .. }) = running else { return Ok(()) };
    let said = of_test(&fs::read_to_string(output()).unwrap_or_default(), &test);
    let (mut outcome, mut reason) = verdict(&test, &said);
    if let Some(left) = left.first() {
        stop(&format!("{} cannot be unmounted", left.display()))?;
        if outcome == Outcome::Pass {
            (outcome, reason) = (Outcome::Fail, format!("{} cannot be unmounted", left.display()));
        }
    }
    let mut more = String::new();
    if stage.subject == Subject::Reelfs && left.is_empty() {
        more = daemons();
        match judge(stage) {
            Ok(judgement) => apply(judgement, &mut outcome, &mut reason, &mut more),
            Err(error) => {
                (outcome, reason) = (Outcome::Differs, format!("cannot be judged: {error:#}"));
                stop(&reason)?;
            }
        }
    }
    let ended = Ended { test, outcome, seconds, reason };
    if ended.outcome != Outcome::Pass {
        explain(stage, &ended, &more)?;
    }
    report(stage, ended)
}

fn report(stage: &Stage, ended: Ended) -> Result<()> {
    let _ = fs::remove_file(Running::file());
    let file = File::options().create(true).append(true).open(progress());
    let colon = if ended.reason.is_empty() { "" } else { ": " };
    // Not to the standard output, which is `check`'s.
    writeln!(
        file?,
        "{:<9} {:<4} {} {:<7} {:>4} s{colon}{}",
        stage.subject.name(),
        stage.lower,
        ended.test,
        ended.outcome.name(),
        ended.seconds,
        ended.reason
    )?;
    tell("journal", &Line::End(ended).to_string())
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

/// The part of `check`'s output that is about one test.
fn of_test(said: &str, test: &str) -> String {
    let begins = |line: &str, name: &str| line.split(' ').next() == Some(name);
    let (group, _) = test.split_once('/').unwrap_or((test, ""));
    let mut lines = said.lines().skip_while(|line| !begins(line, test));
    let first = lines.next().unwrap_or_default();
    let is_other = |line: &str| {
        let name = line.split(' ').next().unwrap_or_default();
        let number = name.strip_prefix(group).and_then(|rest| rest.strip_prefix('/'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let rest = lines.take_while(|line| !is_other(line) && !line.starts_with("Ran: "));
    [first].into_iter().chain(rest).collect::<Vec<_>>().join("\n")
}

/// How a test has ended, from what `check` said about it and left.
fn verdict(test: &str, said: &str) -> (Outcome, String) {
    if let Ok(why) = fs::read_to_string(format!("{RESULTS}/{test}.notrun")) {
        return (Outcome::NotRun, why.trim().to_owned());
    }
    match passed(said) {
        true => (Outcome::Pass, String::new()),
        false => (Outcome::Fail, why(said)),
    }
}

/// `check` ends the line of a test that has passed, and of no other, with the time it took.
fn passed(said: &str) -> bool {
    let first = said.lines().next().unwrap_or_default();
    let time = first.rsplit(' ').next().and_then(|word| word.strip_suffix('s'));
    time.is_some_and(|time| !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The line of `check`'s output that says most about a failure.
fn why(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim_end).collect();
    // The first thing that the test said and should not have, or did not say.
    let difference = lines.iter().find(|line| {
        let text = line.trim_start();
        line.starts_with("    ") && text.starts_with(['+', '-']) && !text.starts_with("+++") && !text.starts_with("---")
    });
    let inconsistent = lines.iter().find(|line| line.contains("inconsistent") || line.contains("dmesg"));
    let summary = lines.iter().find(|line| line.contains("output mismatch") || line.contains("[failed"));
    let other = lines.iter().rfind(|line| !line.is_empty());
    let best = difference.or(inconsistent).or(summary).or(other);
    best.map_or("check said nothing", |line| line.trim()).to_owned()
}

/// Processes there are, without the kernel's.
fn processes() -> HashSet<u32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|process| !fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default().is_empty())
        .collect()
}

/// This process and those that wait for it.
fn ancestors() -> HashSet<u32> {
    let mut found = HashSet::new();
    let mut process = std::process::id();
    while process > 1 && found.insert(process) {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        process = parent.unwrap_or(0);
    }
    found
}

/// Ends all that tests have started and left; the daemons, which end by themselves, only if `all` is to go.
fn end_processes(all: bool) {
    let name = |process: u32| fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let text = fs::read_to_string(Path::new(TOP).join("processes")).unwrap_or_default();
    let mut spared: HashSet<u32> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
    spared.extend(ancestors());
    let deadline = Instant::now() + GRACE;
    loop {
        let left: Vec<_> = processes()
            .difference(&spared)
            .copied()
            .filter(|&process| all || name(process).trim() != "reeld")
            .collect();
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
fn explain(stage: &Stage, ended: &Ended, more: &str) -> Result<()> {
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let test = &ended.test;
    let full = read(Path::new(&format!("{RESULTS}/{test}.full")));
    let bad = read(Path::new(&format!("{RESULTS}/{test}.out.bad")));
    let kernel = run("dmesg", &["--level", "err,warn"]).unwrap_or_default();
    let kernel = kernel.rsplit_once(&format!("run fstests {test} ")).map_or("", |(_, since)| since);
    let text = format!(
        "\n==== {test} on {}, {}: {} ({})\n{}\n-- out.bad:\n{}\n-- full:\n{}\n-- kernel:\n{}\n{more}",
        stage.subject.name(),
        stage.lower,
        ended.outcome.name(),
        ended.reason,
        last(&of_test(&read(&output()), test), KEPT),
        last(&bad, KEPT),
        last(&full, KEPT),
        last(kernel, 30)
    );
    tell("log", &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "FSTYP         -- ext4\n\ngeneric/001        12s\n\
        generic/002       - output mismatch (see x)\n    --- tests/generic/002.out\n    +++ x\n    @@ -1 +1,2 @@\n     \
        QA output\n    +ERROR: access time\n    ...\n\
        generic/003       [not run] not here\ngeneric/013       [failed, exit status 1]\nRan: generic/001 generic/002\n";

    #[test]
    fn the_output_is_taken_apart() {
        assert!(passed(&of_test(SAID, "generic/001")));
        for test in ["generic/002", "generic/003", "generic/013", "generic/004"] {
            assert!(!passed(&of_test(SAID, test)), "{test}");
        }
        assert_eq!(of_test(SAID, "generic/013"), "generic/013       [failed, exit status 1]");
        // The test that comes next is announced before it begins.
        assert!(passed(&of_test("generic/001        12s\ngeneric/002 ", "generic/001")));
    }

    #[test]
    fn the_first_difference_says_why() {
        assert_eq!(why(&of_test(SAID, "generic/002")), "+ERROR: access time");
        assert_eq!(why(&of_test(SAID, "generic/013")), "generic/013       [failed, exit status 1]");
        let dmesg = "generic/004 \n_check_dmesg: something found in dmesg (see y)\n- output mismatch";
        assert_eq!(why(dmesg), "_check_dmesg: something found in dmesg (see y)");
        assert_eq!(why(""), "check said nothing");
    }
}
