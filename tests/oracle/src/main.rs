// SPDX-License-Identifier: GPL-2.0-or-later

//! `reelfs-oracle`: notes what a tree is while it is worked on, and judges whether a restore gives that again.
//!
//! Exit status: 0 every restored tree is the tree; 1 one is not, or cannot be restored; 2 there is no verdict.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use reelfs_oracle::{Oracle, OracleError, Verdict};

/// Notes what a tree is while it is worked on, and judges whether a restore gives that again.
#[derive(Debug, Parser)]
#[command(name = "reelfs-oracle", version)]
struct Cli {
    /// The lower directory, by a path that does not lead through the mount
    #[arg(long)]
    lower: PathBuf,

    /// Where the notes are kept; not on the lower filesystem
    #[arg(long)]
    notes: PathBuf,

    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Freeze the mount, note the LSN and a listing of the tree, thaw it
    Note {
        /// What is frozen: the mount; or a directory of the lower filesystem, where nobody stores through mappings
        #[arg(long)]
        freeze: PathBuf,

        /// Milliseconds for which the log has to stand still before its position is believed
        #[arg(long, default_value_t = 300)]
        still: u64,
    },
    /// Restore to each noted LSN and compare
    Judge {
        /// A directory on a filesystem that can hold what the lower can
        #[arg(long)]
        work: PathBuf,

        /// Compare the whole log with the lower as it is, too; nothing may be changing it
        #[arg(long)]
        end: bool,

        /// Differences printed of each moment, at most
        #[arg(long, default_value_t = 40)]
        limit: usize,

        /// The volumes
        media: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("reelfs-oracle: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<bool, OracleError> {
    let mut oracle =
        Oracle { lower: cli.lower.clone(), frozen: cli.lower.clone(), notes: cli.notes.clone(), still: Duration::ZERO };
    match &cli.verb {
        Verb::Note { freeze, still } => {
            oracle.frozen.clone_from(freeze);
            oracle.still = Duration::from_millis(*still);
            println!("{:#x}", oracle.note()?);
            Ok(true)
        }
        Verb::Judge { work, end, limit, media } => {
            let mut verdicts = oracle.judge(media, work)?;
            if *end {
                verdicts.push(oracle.judge_end(media, work)?);
            }
            verdicts.iter().for_each(|verdict| show(verdict, *limit));
            Ok(!verdicts.is_empty() && verdicts.iter().all(|verdict| verdict.faults.is_empty()))
        }
    }
}

fn show(verdict: &Verdict, limit: usize) {
    let moment = verdict.lsn.map_or("the end".to_owned(), |lsn| format!("LSN {lsn:#x}"));
    if verdict.faults.is_empty() {
        println!("{moment}: identical, {} names", verdict.names);
        return;
    }
    println!("{moment}: {} differences", verdict.faults.len());
    verdict.faults.iter().take(limit).for_each(|fault| println!("  {fault}"));
}
