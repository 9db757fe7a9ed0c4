// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelfs-bench`: does operations in a directory and prints what each round cost, a line of JSON each.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use reelfs_bench::op::{Bench, Op};
use reelfs_bench::sample::{Sample, Subject};

/// Measures what operations cost in a directory, in nanoseconds of processor time.
#[derive(Parser)]
#[command(name = "reelfs-bench", version)]
struct Arguments {
    /// Directory to work in; best empty.
    dir: PathBuf,
    /// Operations, all of them if none is named.
    #[arg(long = "op", value_enum)]
    ops: Vec<Op>,
    /// What the directory is on; goes into the output as it is.
    #[arg(long, value_enum, default_value = "direct")]
    subject: Subject,
    /// Type of the filesystem below; goes into the output as it is.
    #[arg(long, default_value = "unknown")]
    lower: String,
    /// Process whose processor time is measured too: the daemon of the mount.
    #[arg(long)]
    daemon: Option<u32>,
    /// Uncompressed tar archive for untar, best on a filesystem in memory.
    #[arg(long)]
    archive: Option<PathBuf>,
    /// Rounds that are measured, after one that is not.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

fn run(arguments: &Arguments) -> Result<()> {
    let bench = Bench::new(&arguments.dir, arguments.archive.as_deref(), arguments.daemon)?;
    let every: Vec<Op> = Op::ALL.into_iter().filter(|&op| op != Op::Untar || arguments.archive.is_some()).collect();
    let ops = if arguments.ops.is_empty() { &every } else { &arguments.ops };

    for &op in ops {
        eprintln!("{} ({}, {:?})", op.title(), arguments.lower, arguments.subject);
        bench.round(op, 2)?;
        for round in 0..arguments.rounds {
            let done = bench.round(op, 1)?;
            let sample = Sample {
                lower: arguments.lower.clone(),
                subject: arguments.subject,
                op,
                round,
                count: done.count,
                caller_ns: done.caller_ns,
                daemon_ns: done.daemon_ns,
            };
            let mut out = std::io::stdout().lock();
            serde_json::to_writer(&mut out, &sample)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reelfs-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
