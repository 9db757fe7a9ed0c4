// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelvm suites`: each suite of `reelfs-guest` in a machine of its own.
//!
//! The suites describe themselves: `reelfs-guest --list` prints a line for each with
//! name, seconds, memory in MiB, disks (`NAME:MIB,...`), boots (`end` or `cut:MIN-MAX`, in
//! seconds behind the first line of the ledger, separated by commas) and `always`, `long` or `on-demand`, with tabs in between. Those on
//! demand run when they are named, the others also when none is; the long ones not in the
//! short form, unless they are named. A suite with several boots keeps its disks from one to the next, finds the number of the boot in
//! `REELVM_BOOT`, and from the second on what it wrote to the port `ledger` in
//! `/payload/ledger`.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser, ValueExt};
use reelvm::{Error, Machine, Outcome, Setup};

use crate::{pair, report, with_project};

const PROGRAM: &str = "reelfs-guest";

#[derive(Clone, Copy)]
enum Boot {
    ToEnd,
    /// Power is cut at a random moment between these, counted from when the machine first writes to its ledger.
    CutBetween(Duration, Duration),
}

/// When a suite runs that is not named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    Long,
    OnDemand,
}

struct Suite {
    name: String,
    timeout: Duration,
    memory: u32,
    disks: Vec<(String, u64)>,
    boots: Vec<Boot>,
    when: When,
}

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs the suites and ends with the summed counts on a line of their own.
pub fn suites(mut arguments: Parser) -> Result<ExitCode, Error> {
    let usage = |e: lexopt::Error| Error::new(e.to_string());
    let setup = Setup::from_env()?;
    let (mut keep, mut list, mut env, mut wanted) = (false, false, Vec::new(), Vec::new());
    let short = std::env::var_os("REELFS_TEST_SHORT").is_some();
    if short {
        env.push("REELFS_TEST_SHORT=1".to_owned());
    }
    while let Some(argument) = arguments.next().map_err(usage)? {
        match argument {
            Arg::Long("keep") => keep = true,
            Arg::Long("list") => list = true,
            Arg::Long("env") => {
                env.push(arguments.value().and_then(ValueExt::string).map_err(usage)?);
            }
            Arg::Value(name) => wanted.push(name.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    let known = describe(&setup)?;
    if list {
        for suite in &known {
            println!("{}", suite.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if wanted.is_empty() {
        let runs = |suite: &&Suite| suite.when == When::Always || suite.when == When::Long && !short;
        wanted = known.iter().filter(runs).map(|suite| suite.name.clone()).collect();
    }

    let mut total = Counts::default();
    let mut failed = Vec::new();
    for want in &wanted {
        let (name, filter) = want.split_once('/').unwrap_or((want, ""));
        let suite = known
            .iter()
            .find(|suite| suite.name == name)
            .ok_or_else(|| Error::new(format!("no suite {name} (see --list)")))?;
        println!("== suite {name} on {}", setup.kernel.release);
        let started = Instant::now();
        let good = run_suite(&setup, suite, filter, &env, keep, &mut total)?;
        println!("== suite {name}: {} s", started.elapsed().as_secs());
        if !good {
            failed.push(name.to_owned());
        }
    }
    if !failed.is_empty() {
        println!("suites with failures: {}", failed.join(" "));
    }
    let skipped = match total.skipped {
        0 => String::new(),
        n => format!(", {n} skipped"),
    };
    println!("{} passed, {} failed{skipped}", total.passed, total.failed);
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(setup: &Setup) -> Result<Vec<Suite>, Error> {
    let program = setup.programs.join(PROGRAM);
    let output =
        Command::new(&program).arg("--list").output().map_err(|e| Error::new(format!("{}: {e}", program.display())))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| parse_suite(line).ok_or_else(|| Error::new(format!("{PROGRAM} --list: {line:?}"))))
        .collect()
}

fn parse_suite(line: &str) -> Option<Suite> {
    let mut fields = line.split('\t');
    let name = fields.next()?.to_owned();
    let timeout = Duration::from_secs(fields.next()?.parse().ok()?);
    let memory = fields.next()?.parse().ok()?;
    let mut disks = Vec::new();
    for disk in fields.next()?.split(',').filter(|d| !d.is_empty()) {
        let (disk, mib) = disk.split_once(':')?;
        disks.push((disk.to_owned(), mib.parse::<u64>().ok()? << 20));
    }
    let mut boots = Vec::new();
    for boot in fields.next()?.split(',') {
        boots.push(match boot.strip_prefix("cut:") {
            None => Boot::ToEnd,
            Some(range) => {
                let (from, to) = range.split_once('-')?;
                let seconds = |text: &str| text.parse().map(Duration::from_secs).ok();
                Boot::CutBetween(seconds(from)?, seconds(to)?)
            }
        });
    }
    let when = match fields.next()? {
        "always" => When::Always,
        "long" => When::Long,
        "on-demand" => When::OnDemand,
        _ => return None,
    };
    Some(Suite { name, timeout, memory, disks, boots, when })
}

/// Runs all boots of a suite; whether every one was a success.
fn run_suite(
    setup: &Setup,
    suite: &Suite,
    filter: &str,
    env: &[String],
    keep: bool,
    total: &mut Counts,
) -> Result<bool, Error> {
    let dir = setup.directory(&format!("disks-{}", suite.name))?;
    let slowness = setup.kernel.slowness();
    let mut good = true;
    for (number, boot) in suite.boots.iter().enumerate() {
        let mut argv = vec![PROGRAM, &suite.name];
        if !filter.is_empty() {
            argv.push(filter);
        }
        let machine = Machine::new(setup, &suite.name, &argv)
            .memory(if slowness > 1 { suite.memory * 2 } else { suite.memory })
            .timeout(suite.timeout * slowness)
            .env("REELFS_TEST_SLOW", &slowness.to_string())
            .allow(&suite.name)
            .env("REELVM_BOOT", &number.to_string());
        let mut machine = with_project(machine, setup)?;
        for (name, size) in &suite.disks {
            machine = machine.disk(name, &dir.join(name), *size)?;
        }
        for variable in env {
            let (name, value) = pair(variable)?;
            machine = machine.env(name, value);
        }
        let ledger = dir.join("ledger");
        let before = dir.join(format!("ledger.{number}"));
        if number > 0 && std::fs::copy(&ledger, &before).is_ok() {
            machine = machine.file("ledger", &before);
        }
        machine = machine.port("ledger", &ledger);
        if keep {
            machine = machine.keep();
        }
        let outcome = match *boot {
            Boot::ToEnd => machine.run()?,
            Boot::CutBetween(from, to) => {
                let time = from + (to.saturating_sub(from)).mul_f64(random());
                let length = || std::fs::metadata(&ledger).map_or(0, |data| data.len());
                let before = length();
                let mut running = machine.start()?;
                running.run_until(suite.timeout * slowness, || length() > before)?;
                running.run_for(time)?;
                if running.ended()? {
                    running.wait()?
                } else {
                    println!(
                        "[{}: power cut {:.1} s after the first line of its ledger]",
                        suite.name,
                        time.as_secs_f64()
                    );
                    running.cut_power()?
                }
            }
        };
        count(&outcome, total);
        if !report(&suite.name, &outcome) {
            good = false;
            // Failures that no test knows of count as one.
            if outcome.status.unwrap_or(0) == 0 {
                total.failed += 1;
            }
            break;
        }
    }
    if good && !keep {
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok(good)
}

/// Adds the counts of the suite's closing line.
fn count(outcome: &Outcome, total: &mut Counts) {
    let closing = outcome.output.lines().rev().find_map(parse_counts).unwrap_or_default();
    total.passed += closing.passed;
    total.failed += closing.failed;
    total.skipped += closing.skipped;
}

fn parse_counts(line: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    let mut words = line.trim().split(", ").map(|part| part.split_once(' '));
    let mut next = |word: &str| match words.next() {
        Some(Some((number, what))) if what == word => number.parse().ok(),
        _ => None,
    };
    counts.passed = next("passed")?;
    counts.failed = next("failed")?;
    counts.skipped = next("skipped").unwrap_or(0);
    Some(counts)
}

/// A number in 0..1 that differs from run to run.
fn random() -> f64 {
    let mut bytes = [0; 4];
    let read = std::fs::File::open(Path::new("/dev/urandom"))
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    match read {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_recognised() {
        let counts = parse_counts("12 passed, 3 failed, 1 skipped").unwrap();
        assert_eq!((counts.passed, counts.failed, counts.skipped), (12, 3, 1));
        assert!(parse_counts("12 passed, 0 failed").is_some());
        assert!(parse_counts("ok   passed").is_none());
    }

    #[test]
    fn descriptions_are_parsed() {
        let suite = parse_suite("crash\t300\t1024\ta:64,b:8\tcut:3-9,end\ton-demand").unwrap();
        assert_eq!(suite.disks, [("a".to_owned(), 64 << 20), ("b".to_owned(), 8 << 20)]);
        assert_eq!(suite.boots.len(), 2);
        assert_eq!(suite.when, When::OnDemand);
        assert_eq!(parse_suite("crash\t300\t1024\t\tend\talways").unwrap().when, When::Always);
        assert_eq!(parse_suite("crash\t300\t1024\t\tend\tlong").unwrap().when, When::Long);
        assert!(parse_suite("crash\t300\t1024\t\tend\tsometimes").is_none());
        assert!(parse_suite("crash\t300").is_none());
    }
}
