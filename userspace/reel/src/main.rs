// SPDX-License-Identifier: GPL-2.0-or-later

//! The command `reel`.

use std::process::ExitCode;

use clap::Parser;
use reel::args::{Cli, Command};

fn main() -> ExitCode {
    // Usage errors end with status 2, which is clap's own.
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Restore(args) => reel::restore::run(args),
        Command::Verify(args) => reel::verify::run(args),
        Command::Dump(args) => reel::dump::run(args),
        Command::Key(args) => reel::key::run(args),
        Command::Label(args) => reel::label::run(args),
        Command::Estimate(args) => reel::estimate::run(args),
        Command::Checkpoint(args) => reel::checkpoint::run(args),
        Command::Status(args) => reel::status::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("reel: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
