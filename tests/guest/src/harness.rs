// SPDX-License-Identifier: GPL-2.0-or-later
//! Suites and tests, and how they are run: one after the other, each failure shown
//! where it happened, going on after it, counts at the end.

use std::error::Error;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a test returns: any error fails it, [`skip`] leaves it out. Assertions work too.
pub type TestResult = Result<(), Box<dyn Error>>;

/// One test.
#[derive(Clone, Copy)]
pub struct Test {
    /// Its name, unique in the suite, `words-with-dashes`.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Context) -> TestResult,
    /// The time after which it has failed and the suite ends, since a test that hangs
    /// in the kernel cannot be stopped.
    pub limit: Duration,
    /// The boot of the suite's machine that it belongs to, from 0.
    pub boot: u32,
}

impl Test {
    /// A test that may take five minutes: machines are emulated, on hosts that have other work.
    pub const fn new(name: &'static str, run: fn(&Context) -> TestResult) -> Self {
        Self { name, run, limit: Duration::from_secs(300), boot: 0 }
    }

    /// The same test with another limit.
    pub const fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// The same test in another boot of the machine.
    pub const fn boot(mut self, number: u32) -> Self {
        self.boot = number;
        self
    }
}

/// How one boot of a suite's machine ends.
#[derive(Clone, Copy, Debug)]
pub enum Boot {
    /// When the suite has ended.
    ToEnd,
    /// With a power cut at a random moment so many seconds after the first line that it writes to its ledger.
    Cut(u32, u32),
}

/// When a suite runs that is not asked for by name.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Each time.
    Always,
    /// Not in the short form: another covers most of it.
    Long,
    /// Never.
    OnDemand,
}

/// A list of tests and the machine they need.
pub struct Suite {
    /// Its name, one word.
    pub name: &'static str,
    /// The time after which the machine is killed, in seconds.
    pub timeout: u32,
    /// Memory of the machine in MiB.
    pub memory: u32,
    /// Empty disks: name and size in MiB.
    pub disks: &'static [(&'static str, u32)],
    /// The boots it goes through; disks last from one to the next.
    pub boots: &'static [Boot],
    /// When it runs.
    pub when: When,
    /// Runs before the first test; if it fails, no test runs.
    pub set_up: fn(&Context) -> TestResult,
    /// Runs after the last test, and counts as a test.
    pub tear_down: fn(&Context) -> TestResult,
    /// The tests in the order in which they run.
    pub tests: &'static [Test],
}

impl Suite {
    /// Ten minutes, 1 GiB, two disks `a` and `b` of 1 GiB, one boot, no tests: for
    /// `..Suite::DEFAULT`.
    pub const DEFAULT: Self = Self {
        name: "",
        timeout: 600,
        memory: 1024,
        disks: &[("a", 1024), ("b", 1024)],
        boots: &[Boot::ToEnd],
        when: When::Always,
        set_up: |_| Ok(()),
        tear_down: |_| Ok(()),
        tests: &[],
    };

    /// The line that `--list` prints.
    pub fn description(&self) -> String {
        let disks: Vec<String> = self.disks.iter().map(|(n, mib)| format!("{n}:{mib}")).collect();
        let boots: Vec<String> = self
            .boots
            .iter()
            .map(|boot| match boot {
                Boot::ToEnd => "end".to_owned(),
                Boot::Cut(from, to) => format!("cut:{from}-{to}"),
            })
            .collect();
        let (disks, boots) = (disks.join(","), boots.join(","));
        let when = match self.when {
            When::Always => "always",
            When::Long => "long",
            When::OnDemand => "on-demand",
        };
        format!("{}\t{}\t{}\t{disks}\t{boots}\t{when}", self.name, self.timeout, self.memory)
    }
}

/// What a test is given.
pub struct Context {
    /// An empty directory in memory for this test alone, removed afterwards.
    pub scratch: PathBuf,
    /// Which boot of the suite this is, from 0.
    pub boot: u32,
    /// The short form was asked for (`REELFS_TEST_SHORT`): fewer rounds, same kinds.
    pub short: bool,
}

impl Context {
    /// The suite's disk of that name, as a block device.
    pub fn disk(&self, name: &str) -> PathBuf {
        Path::new("/dev/disk/by-id").join(name)
    }

    /// A directory whose files are brought back to the host.
    pub fn results(&self) -> PathBuf {
        PathBuf::from("/results")
    }
}

#[derive(Debug)]
struct Skip(String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Skip {}

/// Leaves the test out, for this reason: `return skip("...")`.
pub fn skip(reason: impl Into<String>) -> TestResult {
    Err(Box::new(Skip(reason.into())))
}

/// Fails the test: `return fail("...")`.
pub fn fail(reason: impl Into<String>) -> TestResult {
    Err(reason.into().into())
}

enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

#[derive(Default)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Counts {
    fn add(&mut self, suite: &Suite, test: &str, verdict: &Verdict, took: Duration) {
        let name = format!("{}/{test}", suite.name);
        let took = format!("{:.2} s", took.as_secs_f64());
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                println!("ok    {name} ({took})");
            }
            Verdict::Failed(why) => {
                self.failed += 1;
                println!("FAIL  {name} ({took})");
                for line in why.lines() {
                    println!("      {line}");
                }
            }
            Verdict::Skipped(why) => {
                self.skipped += 1;
                println!("skip  {name}: {why}");
            }
        }
    }

    fn close(&self) -> ExitCode {
        let skipped = match self.skipped {
            0 => String::new(),
            n => format!(", {n} skipped"),
        };
        println!("{} passed, {} failed{skipped}", self.passed, self.failed);
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Runs the tests of this boot of the suite whose names contain one of the filters (all,
/// if there are none) and prints the counts as the last line.
pub fn run(suite: &'static Suite, filters: &[String]) -> ExitCode {
    let mut counts = Counts::default();
    let wanted = |test: &Test| filters.is_empty() || filters.iter().any(|f| test.name.contains(f.as_str()));
    if !suite.tests.iter().any(wanted) {
        println!("reelfs-guest: no test of {} matches {}", suite.name, filters.join(" "));
        return ExitCode::from(2);
    }
    let set_up = Test::new("set-up", suite.set_up).limit(300);
    let tear_down = Test::new("tear-down", suite.tear_down).limit(300);

    let (verdict, took) = run_one(&set_up);
    if !matches!(verdict, Verdict::Passed) {
        counts.add(suite, set_up.name, &verdict, took);
        return counts.close();
    }
    for test in suite.tests.iter().filter(|&test| test.boot == boot() && wanted(test)) {
        println!("      {}/{} ...", suite.name, test.name);
        let (verdict, took) = run_one(test);
        counts.add(suite, test.name, &verdict, took);
        if took >= test.limit * slowness() {
            // It still runs, and would disturb every test after it.
            return counts.close();
        }
    }
    let (verdict, took) = run_one(&tear_down);
    if !matches!(verdict, Verdict::Passed) {
        counts.add(suite, tear_down.name, &verdict, took);
    }
    counts.close()
}

fn run_one(test: &Test) -> (Verdict, Duration) {
    let started = Instant::now();
    let scratch = PathBuf::from(format!("/tmp/{}", test.name));
    let context =
        Context { scratch: scratch.clone(), boot: boot(), short: std::env::var_os("REELFS_TEST_SHORT").is_some() };
    if let Err(e) = std::fs::create_dir_all(&scratch) {
        let why = format!("{}: {e}", scratch.display());
        return (Verdict::Failed(why), started.elapsed());
    }

    // The panic hook sees where an assertion failed; the caught payload does not.
    let place = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&place);
    std::panic::set_hook(Box::new(move |info| {
        if let Ok(mut place) = seen.lock() {
            *place = info.to_string();
        }
    }));
    let (done, wait) = channel();
    let run = test.run;
    std::thread::spawn(move || {
        let verdict = match catch_unwind(AssertUnwindSafe(|| run(&context))) {
            Ok(Ok(())) => Verdict::Passed,
            Ok(Err(e)) => match e.downcast::<Skip>() {
                Ok(skip) => Verdict::Skipped(skip.0),
                Err(e) => Verdict::Failed(chain(e.as_ref())),
            },
            Err(_) => Verdict::Failed(place.lock().map(|p| p.clone()).unwrap_or_default()),
        };
        // Nobody listens any more if the time was up.
        let _ = done.send(verdict);
    });
    let limit = test.limit * slowness();
    let verdict = match wait.recv_timeout(limit) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => {
            // Where everything that sleeps in the kernel is, into the kernel log.
            let _ = std::fs::write("/proc/sysrq-trigger", "w");
            let _ = std::fs::write("/proc/sysrq-trigger", "l");
            Verdict::Failed(format!("did not end within {} s; blocked tasks are in the kernel log", limit.as_secs()))
        }
        Err(RecvTimeoutError::Disconnected) => Verdict::Failed("the test's thread died".to_owned()),
    };
    let _ = std::fs::remove_dir_all(&scratch);
    (verdict, started.elapsed())
}

/// Which boot of the suite's machine this is, from 0 (`REELVM_BOOT`).
fn boot() -> u32 {
    std::env::var("REELVM_BOOT").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// By how much every time limit grows, because the kernel checks itself while it runs
/// (`REELFS_TEST_SLOW`).
pub fn slowness() -> u32 {
    std::env::var("REELFS_TEST_SLOW").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// An error and its sources on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
