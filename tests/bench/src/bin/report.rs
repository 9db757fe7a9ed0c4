// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelfs-bench-report`: makes the page and the plots of what `reelfs-bench` measured.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use clap::Parser;
use reelfs_bench::sample::Sample;
use reelfs_bench::summary::Summary;
use reelfs_bench::table::{page, Conditions};
use reelfs_bench::{op::Op, plot, sample::Subject};

/// Makes a page and plots of measurements.
#[derive(Parser)]
#[command(name = "reelfs-bench-report", version)]
struct Arguments {
    /// Lines that reelfs-bench printed.
    samples: PathBuf,
    /// Directory for results.md and a plot for each lower filesystem.
    #[arg(long)]
    out: PathBuf,
    /// Nanoseconds that one instruction counted as (2 to the power of -icount shift=).
    #[arg(long)]
    instruction_ns: Option<f64>,
    /// What else the reader should know, as NAME=VALUE.
    #[arg(long = "fact")]
    facts: Vec<String>,
}

fn run(arguments: Arguments) -> Result<()> {
    let path = &arguments.samples;
    let text = fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let samples: Vec<Sample> = text
        .lines()
        .enumerate()
        .map(|(line, text)| {
            serde_json::from_str(text).with_context(|| format!("{}:{}: not a sample", path.display(), line + 1))
        })
        .collect::<Result<_>>()?;
    ensure!(!samples.is_empty(), "{}: no samples", path.display());

    let summary = Summary::of(&samples);
    let facts = arguments
        .facts
        .iter()
        .map(|fact| fact.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect::<Option<_>>()
        .context("--fact wants NAME=VALUE")?;
    let conditions = Conditions { instruction_ns: arguments.instruction_ns, facts };
    let plot_name = |lower: &str| format!("{lower}.svg");
    fs::create_dir_all(&arguments.out)?;
    for lower in summary.lowers() {
        fs::write(arguments.out.join(plot_name(lower)), plot::ratios(&summary, lower))?;
    }
    let page = page(&summary, &conditions, plot_name);
    fs::write(arguments.out.join("results.md"), &page)?;
    print!("{page}");

    let missed: Vec<String> = Op::ALL
        .into_iter()
        .filter_map(|op| {
            let (aim, (ratio, _)) = (op.aim()?, summary.ratios("ext4", op, Subject::Reelfs)?);
            (ratio > aim).then(|| format!("{}: {ratio:.2}, aim {aim:.2}", op.title()))
        })
        .collect();
    for miss in &missed {
        eprintln!("reelfs-bench-report: aim missed: {miss}");
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reelfs-bench-report: {error:#}");
            ExitCode::FAILURE
        }
    }
}
