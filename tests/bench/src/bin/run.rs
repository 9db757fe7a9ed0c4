// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelfs-bench-run`: boots the machine that measures and brings the samples back.
//!
//! The machine's time is a count of instructions (`-icount shift=1`: two nanoseconds each), so the same tree gives
//! the same figures on any host, however busy it is.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};
use clap::Parser;
use reelvm::{Machine, Setup};

/// `-icount shift=` of the machine: an instruction counts as 2 to the power of this, in nanoseconds.
const SHIFT: u32 = 1;
/// The part of the kernel's source that is unpacked: many small files, some large, a few thousand in all.
const SOURCES: [&str; 4] = ["fs", "include/linux", "kernel", "mm"];
const GIB: u64 = 1 << 30;

/// Measures in a test machine what operations cost.
#[derive(Parser)]
#[command(name = "reelfs-bench-run", version)]
struct Arguments {
    /// Directory that gets samples.jsonl.
    #[arg(long)]
    out: PathBuf,
    /// The module.
    #[arg(long)]
    module: Option<PathBuf>,
    /// Rounds that are measured of each operation.
    #[arg(long, default_value = "5")]
    rounds: String,
    /// Lower filesystems: ext4, tmpfs.
    #[arg(long = "lower")]
    lowers: Vec<String>,
    /// What is measured: direct, overlay, reelfs.
    #[arg(long = "subject")]
    subjects: Vec<String>,
    /// Operations, as `reelfs-bench` names them.
    #[arg(long = "op")]
    ops: Vec<String>,
    /// Brings the kernel's symbols back too, for a profiler that looks at the machine from outside.
    #[arg(long)]
    symbols: bool,
}

/// An uncompressed archive of the sources, kept beside the kernel's tree.
fn sources(setup: &Setup) -> Result<PathBuf> {
    let archive = setup.kernel.dir.join("bench-sources.tar");
    if !archive.exists() {
        let new = setup.kernel.dir.join(format!("bench-sources.{}", std::process::id()));
        // From the source as it was packed: the tree beside it has objects in it.
        let unpacked = setup.cache.join(format!("tmp/bench-sources.{}", std::process::id()));
        std::fs::create_dir_all(&unpacked)?;
        let packed = setup.kernel.dir.join("linux.tar.xz");
        let top = first_component(&packed)?;
        let mut unpack = Command::new("tar");
        unpack.arg("-xJf").arg(&packed).arg("-C").arg(&unpacked);
        unpack.args(SOURCES.map(|dir| format!("{top}/{dir}")));
        run(&mut unpack)?;
        let mut pack = Command::new("tar");
        pack.args(["--sort=name", "--owner=0", "--group=0", "-cf"]).arg(&new);
        pack.arg("-C").arg(unpacked.join(&top)).args(SOURCES);
        run(&mut pack)?;
        std::fs::remove_dir_all(&unpacked)?;
        std::fs::rename(&new, &archive)?;
    }
    Ok(archive)
}

/// The directory that everything in the archive is in.
fn first_component(archive: &Path) -> Result<String> {
    let command = format!("xz -dc '{}' 2>/dev/null | tar -t 2>/dev/null | head -n 1", archive.display());
    let output = Command::new("sh").args(["-c", &command]).output()?;
    let line = String::from_utf8_lossy(&output.stdout);
    let name = line.trim().trim_start_matches("./").split('/').next().unwrap_or_default().to_owned();
    ensure!(!name.is_empty(), "{}: nothing in it", archive.display());
    Ok(name)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{:?}", command.get_program()))?;
    ensure!(status.success(), "{:?}: {status}", command.get_program());
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<()> {
    let setup = Setup::from_env()?;
    let archive = sources(&setup)?;
    let disks = setup.work().join(format!("bench-disks-{}", std::process::id()));
    std::fs::create_dir_all(&disks)?;

    let list = |words: &[String]| if words.is_empty() { "all".to_owned() } else { words.join(",") };
    let (lowers, subjects, ops) = (list(&arguments.lowers), list(&arguments.subjects), list(&arguments.ops));
    let argv = ["reelfs-bench-machine", &arguments.rounds, &lowers, &subjects, &ops];
    let results = disks.join("results");
    let mut machine = Machine::new(&setup, "bench", &argv)
        .icount(SHIFT)
        .memory(3072)
        .timeout(Duration::from_secs(3600))
        .disk("lower", &disks.join("lower"), 2 * GIB)?
        .disk("spool", &disks.join("spool"), 6 * GIB)?
        .file("sources.tar", &archive)
        .results(&results);
    for program in ["reelfs-bench", "reelfs-bench-machine", "reeld"] {
        let path = setup.programs.join(program);
        if path.exists() {
            machine = machine.program(&path);
        }
    }
    if let Some(module) = &arguments.module {
        machine = machine.file("reelfs.ko", module);
    }
    if arguments.symbols {
        machine = machine.env("REELFS_BENCH_SYMBOLS", "1");
    }
    let outcome = machine.run()?;
    let problems = outcome.problems();
    ensure!(problems.is_empty(), "the machine ({}): {}", outcome.work.display(), problems.join("; "));

    std::fs::create_dir_all(&arguments.out)?;
    let samples = arguments.out.join("samples.jsonl");
    std::fs::copy(results.join("samples.jsonl"), &samples).with_context(|| samples.display().to_string())?;
    if arguments.symbols {
        std::fs::copy(results.join("kallsyms"), arguments.out.join("kallsyms"))?;
    }
    std::fs::remove_dir_all(&disks).map_err(|error| anyhow!("{}: {error}", disks.display()))
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reelfs-bench-run: {error:#}");
            ExitCode::FAILURE
        }
    }
}
