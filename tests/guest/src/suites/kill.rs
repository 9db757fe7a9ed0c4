// SPDX-License-Identifier: GPL-2.0-or-later

//! `kill`: the daemon is killed at random and at each of its failpoints, under load, and started again. What was
//! synced is noted outside of the machine.
//!
//! The second boot restores from the media alone: all that the ledger has must be there, and the restored tree must
//! equal the lower.

use crate::check::{ensure, same, Check};
use crate::ledger::{judge, Load};
use crate::machine::{run, wait_until};
use crate::pattern::Random;
use crate::rig::{Config, Rig, Stage};
use crate::{Boot, Context, Suite, Test, TestResult};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

static RIG: Mutex<Option<(Rig, Option<Load>)>> = Mutex::new(None);

const SUITE: Suite = Suite {
    timeout: 3600,
    disks: &[("lower", 1024), ("spool", 1024), ("media", 4096)],
    boots: &[Boot::ToEnd, Boot::ToEnd],
    set_up,
    tear_down,
    ..Suite::DEFAULT
};

pub const RANDOM: Suite = Suite {
    name: "kill",
    tests: &[
        Test::new("killed-at-random", killed_at_random).limit(1800),
        Test::new("ledger-is-restored", ledger_is_restored).limit(1800).boot(1),
        Test::new("restored-equals-lower", restored_equals_lower).limit(1800).boot(1),
    ],
    ..SUITE
};

pub const FAILPOINTS: Suite = Suite {
    name: "failpoints",
    tests: &[
        Test::new("killed-at-each-failpoint", killed_at_failpoints).limit(1800),
        Test::new("ledger-is-restored", ledger_is_restored).limit(1800).boot(1),
        Test::new("restored-equals-lower", restored_equals_lower).limit(1800).boot(1),
    ],
    ..SUITE
};

fn config() -> Config {
    Config { capacity: "8M", ..Config::default() }
}

/// First boot: everything new and under load. Second boot: the disks as they are, nothing is mounted.
fn set_up(context: &Context) -> TestResult {
    let mut rig = match context.boot {
        0 => Rig::new(Stage::new(context, "ext4")?, "kill")?,
        _ => Rig::new(Stage::again(context, "ext4")?, "kill")?,
    };
    rig.configure(&config())?;
    let mut load = None;
    if context.boot == 0 {
        rig.mount("ring=4m")?;
        rig.start_daemon()?;
        load = Some(Load::start(&rig.mnt, 0)?);
    }
    *RIG.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((rig, load));
    Ok(())
}

fn tear_down(context: &Context) -> TestResult {
    let held = RIG.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    let (mut rig, load) = held.ok_or("no mount")?;
    if let Some(load) = load {
        load.stop()?;
    }
    if context.boot == 0 {
        rig.unmount()?;
        rig.drain()?;
    }
    Ok(rig.close()?)
}

fn with(test: impl FnOnce(&mut Rig, Option<&mut Load>) -> Check) -> TestResult {
    let mut held = RIG.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (rig, load) = held.as_mut().ok_or("no mount")?;
    Ok(test(rig, load.as_mut())?)
}

fn killed_at_random(context: &Context) -> TestResult {
    with(|rig, load| {
        let Some(load) = load else { return Ok(()) };
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
        println!("      seed {seed}");
        let mut random = Random::new(seed);
        for round in 0..if context.short { 20 } else { 200 } {
            std::thread::sleep(Duration::from_millis(random.below(250)));
            rig.kill_daemon()?;
            std::thread::sleep(Duration::from_millis(random.below(20)));
            rig.start_daemon()?;
            load.check()?;
            if round % 20 == 19 {
                println!("      killed {} times, {} records", round + 1, rig.records()?);
            }
        }
        Ok(())
    })
}

fn killed_at_failpoints(context: &Context) -> TestResult {
    with(|rig, load| {
        let Some(load) = load else { return Ok(()) };
        let list = run("reeld-failpoints", &["--list-failpoints"]).map_err(crate::check::Failure::of)?;
        ensure!(list.lines().count() > 5, "no failpoints: {list}");
        rig.program = "reeld-failpoints";
        let mut missed = Vec::new();
        for name in list.lines() {
            for &passes in if context.short { &[0][..] } else { &[0, 3] } {
                rig.kill_daemon()?;
                rig.environment = vec![("FAILPOINTS".to_owned(), format!("{name}={passes}*off->panic"))];
                let started = rig.start_daemon();
                rig.environment.clear();
                // It may have died before it was attached.
                let _ = started;
                // The first time has to come, however slow the machine is; a fourth may not.
                let patience = Duration::from_secs(if passes == 0 { 200 } else { 20 });
                let died = wait_until("the failpoint", patience, || !rig.daemon_lives());
                if died.is_ok() {
                    let status = rig.wait_for_daemon()?;
                    ensure!(
                        status.signal() == Some(6),
                        "{name}: the daemon ended with {status}:\n{}",
                        rig.daemon_said()
                    );
                    rig.start_daemon()?;
                } else if passes == 0 {
                    missed.push(name.to_owned());
                }
                load.check()?;
            }
            println!("      {name}");
        }
        same!(missed, Vec::<String>::new());
        Ok(())
    })
}

fn ledger_is_restored(_: &Context) -> TestResult {
    with(|rig, _| {
        rig.restore()?;
        let lines = judge(&rig.restored)?;
        println!("      {lines} lines in the ledger");
        ensure!(lines > 50, "only {lines} lines in the ledger");
        Ok(())
    })
}

fn restored_equals_lower(_: &Context) -> TestResult {
    with(|rig, _| {
        ensure!(fs::exists(&rig.restored)?, "nothing was restored");
        crate::rig::none("restored tree and lower differ", &rig.differences(&rig.lower, &rig.restored)?)
    })
}
