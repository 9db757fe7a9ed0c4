// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelfs-xfstests-run`: runs a built checkout of xfstests on a filesystem, on overlayfs over it, and on reelfs over it,
//! in test machines, and says where reelfs does worse.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use clap::{Parser, ValueEnum};
use reelfs_xfstests::expected::{self, List};
use reelfs_xfstests::host::checkout::Checkout;
use reelfs_xfstests::host::machines::Plan;
use reelfs_xfstests::host::results::Results;
use reelfs_xfstests::journal::Subject;
use reelfs_xfstests::select::{in_groups, named, Shard};
use reelfs_xfstests::summary::{summary, Row};
use reelvm::Setup;

/// So many tests go to one machine, and then as many to the next subject: an interrupted run has results of all three.
const AT_ONCE: usize = 30;

#[derive(Clone, Copy, ValueEnum)]
enum Filesystem {
    Ext4,
    Xfs,
}

/// Runs xfstests on a filesystem, on overlayfs over it, and on reelfs over it.
#[derive(Parser)]
#[command(name = "reelfs-xfstests-run", version)]
struct Arguments {
    /// The checkout, built; it is not written to.
    checkout: PathBuf,
    /// The module.
    #[arg(long)]
    module: PathBuf,
    /// The directory with the list of the expected, the short list and the hooks.
    #[arg(long)]
    lists: PathBuf,
    /// The lower filesystem.
    #[arg(long, value_enum, default_value = "ext4")]
    fs: Filesystem,
    /// Tests, as in generic/001.
    #[arg(long, value_delimiter = ' ')]
    tests: Vec<String>,
    /// Groups of the generic tests.
    #[arg(long, value_delimiter = ' ', conflicts_with = "tests")]
    groups: Vec<String>,
    /// The tests of the short list.
    #[arg(long, conflicts_with_all = ["tests", "groups"])]
    short: bool,
    /// Only these of lower, overlayfs, reelfs. Only what has run on the lower filesystem and on reelfs is judged.
    #[arg(long, value_delimiter = ' ', value_parser = subject)]
    subjects: Vec<Subject>,
    /// A part of the tests: 2/5 is every fifth, beginning with the second.
    #[arg(long)]
    shard: Option<Shard>,
    /// Begin no more tests after so many minutes; the next run goes on.
    #[arg(long)]
    minutes: Option<u64>,
    /// Seconds that one test may take.
    #[arg(long, default_value = "900")]
    limit: u64,
    /// Run tests again that there are results of.
    #[arg(long)]
    again: bool,
}

impl Filesystem {
    fn name(self) -> &'static str {
        match self {
            Filesystem::Ext4 => "ext4",
            Filesystem::Xfs => "xfs",
        }
    }
}

fn subject(name: &str) -> Result<Subject> {
    Subject::of(name).with_context(|| format!("'{name}' is none of lower, overlayfs, reelfs"))
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xfstests: error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The tests that are asked for and those among them that are not to be run.
fn select(arguments: &Arguments, checkout: &Checkout, expected: &List) -> Result<(Vec<String>, Vec<String>)> {
    let words = |list: &[String]| list.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>();
    let (tests, groups) = (words(&arguments.tests), words(&arguments.groups));
    let mut selected = if !tests.is_empty() {
        named(&checkout.path, &tests)?
    } else if arguments.short {
        let file = arguments.lists.join("short");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        named(&checkout.path, &lines.flat_map(str::split_whitespace).map(str::to_owned).collect::<Vec<_>>())?
    } else if groups.is_empty() {
        in_groups(&checkout.path, &["quick".to_owned()])?
    } else {
        in_groups(&checkout.path, &groups)?
    };
    if let Some(shard) = arguments.shard {
        selected = shard.of(selected);
    }
    Ok(selected.into_iter().partition(|test| expected.get(test).is_none_or(|known| known.outcome.is_some())))
}

fn run(arguments: &Arguments) -> Result<bool> {
    let setup = Setup::from_env().map_err(|error| anyhow!("{error}"))?;
    let filesystem = arguments.fs.name();
    let list = arguments.lists.join("expected");
    let text = std::fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let expected = expected::parse(&text, filesystem).with_context(|| list.display().to_string())?;
    let checkout = Checkout::open(&arguments.checkout)?;
    let (tests, skipped) = select(arguments, &checkout, &expected)?;
    ensure!(!tests.is_empty(), "no tests to run");
    let plan = Plan {
        image: checkout.image(&setup.cache)?,
        module: arguments.module.clone(),
        hooks: arguments.lists.join("hooks.sh"),
        filesystem: filesystem.to_owned(),
        limit: Duration::from_secs(arguments.limit),
        setup,
    };
    let mut subjects = Vec::new();
    for subject in Subject::ALL {
        let ingredients = format!("{} {}", checkout.id, plan.ingredients(subject)?);
        let mut results = Results::open(&plan.setup.cache, filesystem, subject, &ingredients)?;
        if arguments.again {
            results.forget(&tests)?;
        }
        subjects.push(results);
    }

    let started = Instant::now();
    let in_time = || arguments.minutes.is_none_or(|minutes| started.elapsed() < Duration::from_secs(60 * minutes));
    for (number, some) in tests.chunks(AT_ONCE).enumerate() {
        if !in_time() {
            break;
        }
        let done = number * AT_ONCE;
        println!("xfstests on {filesystem}: {done} of {} done, {} s", tests.len(), started.elapsed().as_secs());
        let wanted = |results: &Results| arguments.subjects.is_empty() || arguments.subjects.contains(&results.subject);
        for results in subjects.iter_mut().filter(|results| wanted(results)) {
            plan.run(some, results)?;
        }
    }
    Ok(report(&tests, &skipped, &subjects, &expected))
}

/// Prints what came of it; whether it is good.
fn report(tests: &[String], skipped: &[String], subjects: &[Results], expected: &List) -> bool {
    let mut rows = BTreeMap::new();
    for test in tests {
        let cells = subjects.iter().filter_map(|results| Some((results.subject, results.of(test)?.clone())));
        let row: Row = cells.collect();
        if !row.is_empty() {
            rows.insert(test.clone(), row);
        }
    }
    let summary = summary(&rows, expected);
    println!("\n{}", summary.text);
    if rows.len() < tests.len() {
        println!("{} tests were not begun; the next run goes on with them", tests.len() - rows.len());
    }
    if summary.passed + summary.failed < rows.len() {
        println!("{} tests have not run on all, and are not judged", rows.len() - summary.passed - summary.failed);
    }
    for test in skipped {
        println!("{test} is not run: {}", expected.get(test).map_or("", |known| &known.reason));
    }
    for results in subjects {
        println!("what tests on {} said that did not pass: {}", results.subject.name(), results.log().display());
    }
    let mut failed = summary.failed;
    let trouble: Vec<_> = subjects.iter().flat_map(Results::trouble).collect();
    if !trouble.is_empty() {
        println!("beside the tests, while reelfs was tested:\n  {}", trouble.join("\n  "));
        failed += 1;
    }
    println!("{} passed, {failed} failed", summary.passed);
    failed == 0
}
