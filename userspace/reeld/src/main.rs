// SPDX-License-Identifier: GPL-2.0-or-later

//! Command line of `reeld`; see reeld(8).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use log::LevelFilter;
use reeld::config::Config;
use reeld::daemon::{self, Options};
use reeld::{check, logger};

/// Takes the log of a reelfs mount from the kernel, keeps it in the spool and streams it to media.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Exit status: 0 done, 1 failed, 2 usage or configuration. See reeld(8), reelfs.toml(5)."
)]
struct Arguments {
    /// The configuration file of one mount, /etc/reelfs/NAME.toml
    config: PathBuf,
    /// Look at everything that the configuration names, change nothing, and say what is wrong
    #[arg(long)]
    check: bool,
    /// Stay in the foreground; always so, systemd does the rest
    #[arg(long)]
    foreground: bool,
    /// Level of logging: error, warn, info, debug or trace; overrides daemon.log
    #[arg(long, value_name = "LEVEL")]
    log: Option<LevelFilter>,
    /// End once the mount has gone and its log is on media
    #[arg(long)]
    exit_when_unmounted: bool,
    /// Do not go on with the volume that was written last; begin a new one
    #[arg(long)]
    new_volume: bool,
    /// Go on with a tree whose mark says that it is not where this log ends
    #[arg(long)]
    adopt: bool,
    /// Print the names of the failpoints, one a line
    #[cfg(feature = "failpoints")]
    #[arg(long, hide = true)]
    list_failpoints: bool,
}

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    if std::env::args().any(|argument| argument == "--list-failpoints") {
        reeld::FAILPOINTS.iter().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(2, &error),
    };
    if arguments.check {
        return match check::check(&config, false) {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| eprintln!("reeld: warning: {warning}"));
                println!("{}: good", arguments.config.display());
                ExitCode::SUCCESS
            }
            Err(error) => fail(2, &error),
        };
    }
    // A daemon that has lost a thread would keep up appearances: better to end, and to be started again.
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default_hook(info);
        std::process::abort();
    }));
    logger::start(arguments.log.or(config.log_level().ok()).unwrap_or(LevelFilter::Info));
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();

    match check::check(&config, true) {
        Ok(warnings) => warnings.iter().for_each(|warning| log::warn!("{warning}")),
        Err(error) => return fail(2, &error),
    }
    let options = Options {
        exit_when_unmounted: arguments.exit_when_unmounted,
        new_volume: arguments.new_volume,
        adopt: arguments.adopt,
    };
    match daemon::run(&config, options) {
        Ok(()) => {
            log::logger().flush();
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &error),
    }
}

fn fail(status: u8, error: &anyhow::Error) -> ExitCode {
    log::logger().flush();
    eprintln!("reeld: {error:#}");
    ExitCode::from(status)
}
