// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelfs-guest SUITE [FILTER...]`: runs a suite inside a test machine.
//!
//! `reelfs-guest --list` describes the suites for the program that boots the machines
//! (tools/vm/src/cli/suites.rs says in which form).
//!
//! To add a suite: a file in `suites/` with a `pub const SUITE: Suite`, and its name in
//! [`suites::ALL`]. To add a test: a function that takes a [`Context`] and returns a
//! [`TestResult`], and its name in the suite's list.

mod background;
mod check;
mod consumer;
mod device;
mod dm;
mod harness;
mod ledger;
mod machine;
mod pattern;
mod rig;
mod stress;
mod suites;
mod tape;
mod worker;

use std::process::ExitCode;

pub use harness::{fail, skip, Boot, Context, Suite, Test, TestResult, When};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        eprintln!("usage: reelfs-guest SUITE [FILTER...] | --list");
        return ExitCode::from(2);
    };
    if name == "worker" {
        return match worker::run(std::env::args_os().skip(2)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("reelfs-guest worker: {failure}");
                ExitCode::FAILURE
            }
        };
    }
    if name == "consumer" {
        let words: Vec<_> = arguments.collect();
        let mount = words.get(1).map_or("", String::as_str);
        let ended = suites::device::consume(mount.as_ref(), words.first().is_some_and(|kind| kind == "acknowledging"));
        eprintln!("reelfs-guest consumer: {ended:?}");
        return ExitCode::FAILURE;
    }
    if name == "--list" {
        for suite in suites::ALL {
            println!("{}", suite.description());
        }
        return ExitCode::SUCCESS;
    }
    let Some(suite) = suites::ALL.iter().find(|suite| suite.name == name) else {
        eprintln!("reelfs-guest: no suite {name}");
        return ExitCode::from(2);
    };
    harness::run(suite, &arguments.collect::<Vec<_>>())
}
