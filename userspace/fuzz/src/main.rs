// SPDX-License-Identifier: GPL-2.0-or-later

//! `reelfs-fuzz CORPUS ROUNDS [TARGET]`: runs the fuzz targets.

use std::path::Path;
use std::process::ExitCode;

use reelfs_fuzz::{driver, TARGETS};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (corpus, rounds, only) = match &arguments[..] {
        [corpus, rounds] => (corpus, rounds.parse(), None),
        [corpus, rounds, only] => (corpus, rounds.parse(), Some(only)),
        _ => {
            eprintln!("usage: reelfs-fuzz CORPUS ROUNDS [TARGET]");
            return ExitCode::from(2);
        }
    };
    let Ok(rounds) = rounds else {
        eprintln!("reelfs-fuzz: ROUNDS is a number");
        return ExitCode::from(2);
    };
    for target in TARGETS.iter().filter(|target| only.is_none_or(|only| only == target.name)) {
        if let Err(error) = driver::drive(target, Path::new(corpus), rounds) {
            eprintln!("reelfs-fuzz: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
