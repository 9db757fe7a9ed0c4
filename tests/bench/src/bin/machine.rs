// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelfs-bench-machine`: inside a test machine, runs `reelfs-bench` on every subject and collects what it prints.
//!
//! Expects two disks, `lower` and `spool`, and in the payload the module, the programs and the archive to unpack.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use clap::ValueEnum;
use reelfs_bench::sample::Subject;
use rustix::process::{kill_process, Pid, Signal};

const LOWER_DISK: &str = "/dev/disk/by-id/lower";
const SPOOL_DISK: &str = "/dev/disk/by-id/spool";
const LOWER: &str = "/mnt/lower";
const SPOOL: &str = "/mnt/spool";
const MOUNT: &str = "/mnt/mount";
const MEMORY: &str = "/mnt/memory";
const SAMPLES: &str = "/results/samples.jsonl";
/// How long the daemon has to attach.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status().with_context(|| program.to_owned())?;
    ensure!(status.success(), "{program} {}: {status}", arguments.join(" "));
    Ok(())
}

fn disk(label: &str) -> Result<PathBuf> {
    let by_id = Path::new(label);
    by_id.canonicalize().with_context(|| format!("{label}: no such disk"))
}

/// Makes a filesystem without leaving work for later: lazy initialisation would run beside the measurements.
fn make_ext4(disk: &Path) -> Result<()> {
    let disk = disk.to_str().context("name of a disk")?;
    run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", disk])
}

fn mount_lower(kind: &str) -> Result<()> {
    match kind {
        "tmpfs" => run("mount", &["-t", "tmpfs", "-o", "size=1g", "lower", LOWER]),
        "ext4" => {
            let disk = disk(LOWER_DISK)?;
            make_ext4(&disk)?;
            run("mount", &["-t", "ext4", disk.to_str().context("name of a disk")?, LOWER])
        }
        _ => bail!("{kind}: not a lower filesystem that is measured"),
    }
}

/// A daemon that spools what happens on [`MOUNT`].
struct Daemon {
    child: Child,
}

impl Daemon {
    fn start(lower: &str) -> Result<Self> {
        let base = format!("{SPOOL}/{lower}");
        fs::create_dir_all(format!("{base}/spool"))?;
        fs::create_dir_all(format!("{base}/media"))?;
        // What goes to the media later is no part of the operation: nothing is streamed during a run.
        let config = format!(
            "mount = \"{MOUNT}\"\n\n[spool]\ndirectory = \"{base}/spool\"\nsegment = \"64M\"\nlimit = \"5G\"\n\n\
             [media]\nkind = \"directory\"\npool = \"bench\"\npath = \"{base}/media\"\n\n\
             [stream]\nhigh = \"2G\"\nage = \"86400s\"\n\n\
             [daemon]\ndrain = \"1s\"\n"
        );
        let file = format!("/run/reelfs-bench-{lower}.toml");
        fs::write(&file, config)?;
        let log = File::create(format!("/results/reeld-{lower}.log"))?;
        let child = Command::new("reeld").arg(&file).stdout(log.try_clone()?).stderr(log).spawn().context("reeld")?;
        let mut daemon = Daemon { child };
        daemon.wait_until_attached().with_context(|| format!("the daemon did not attach; see reeld-{lower}.log"))?;
        Ok(daemon)
    }

    /// Until then changes wait, so the first one that is done says that it has attached.
    fn wait_until_attached(&mut self) -> Result<()> {
        let mut change = Command::new("mkdir").arg(format!("{MOUNT}/first")).spawn()?;
        let start = Instant::now();
        loop {
            if let Some(status) = change.try_wait()? {
                ensure!(status.success(), "mkdir: {status}");
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                change.kill()?;
                change.wait()?;
                bail!("{}", ended.map_or("it does nothing".to_owned(), |status| status.to_string()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Daemon {
    /// Ends it, once it has acknowledged everything: until then the module could not be unloaded. It reports a failure,
    /// because it has no time to stream what it has to media.
    fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("the daemon is gone")?;
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(start.elapsed() < PATIENCE, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Only after a failure is there anything to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn measure(lower: &str, subject: Subject, rounds: &str, ops: &[&str]) -> Result<()> {
    println!("measuring {subject:?} on {lower}");
    mount_lower(lower)?;
    let below = |name: &str| format!("{LOWER}/{name}");
    let name = match subject {
        Subject::Direct => "direct",
        Subject::Overlay => "overlay",
        Subject::Reelfs => "reelfs",
    };
    for dir in ["tree", "upper", "work", "empty"] {
        fs::create_dir(below(dir))?;
    }
    let daemon = match subject {
        Subject::Direct => None,
        Subject::Overlay => {
            let options = format!("lowerdir={},upperdir={},workdir={}", below("empty"), below("upper"), below("work"));
            run("mount", &["-t", "overlay", "-o", &options, "overlay", MOUNT])?;
            None
        }
        Subject::Reelfs => {
            run("mount", &["-i", "-t", "reelfs", &below("tree"), MOUNT])?;
            Some(Daemon::start(lower)?)
        }
    };
    let dir = if subject == Subject::Direct { below("tree") } else { MOUNT.to_owned() };

    let samples = OpenOptions::new().create(true).append(true).open(SAMPLES)?;
    let mut bench = Command::new("reelfs-bench");
    bench.args([&dir, "--subject", name, "--lower", lower, "--rounds", rounds]);
    bench.args(["--archive", &format!("{MEMORY}/sources.tar")]);
    bench.args(ops.iter().flat_map(|op| ["--op", op]));
    if let Some(daemon) = &daemon {
        bench.args(["--daemon", &daemon.child.id().to_string()]);
    }
    let status = bench.stdout(samples).status().context("reelfs-bench")?;
    ensure!(status.success(), "reelfs-bench on {dir}: {status}");

    if subject != Subject::Direct {
        run("umount", &[MOUNT])?;
    }
    if let Some(daemon) = daemon {
        daemon.stop()?;
        fs::remove_dir_all(format!("{SPOOL}/{lower}"))?;
    }
    run("umount", &[LOWER])
}

fn all(rounds: &str, lowers: &[&str], subjects: &[Subject], ops: &[&str]) -> Result<()> {
    for dir in [LOWER, SPOOL, MOUNT, MEMORY] {
        fs::create_dir_all(dir)?;
    }
    // From memory, so that reading the archive costs the same everywhere.
    run("mount", &["-t", "tmpfs", "memory", MEMORY])?;
    fs::copy("/payload/sources.tar", format!("{MEMORY}/sources.tar")).context("sources.tar")?;
    let spool = disk(SPOOL_DISK)?;
    make_ext4(&spool)?;
    run("mount", &["-t", "ext4", spool.to_str().context("name of a disk")?, SPOOL])?;
    if subjects.contains(&Subject::Reelfs) {
        run("insmod", &["/payload/reelfs.ko"])?;
    }
    if std::env::var_os("REELFS_BENCH_SYMBOLS").is_some() {
        fs::write("/results/kallsyms", fs::read("/proc/kallsyms")?)?;
    }
    for lower in lowers {
        for &subject in subjects {
            measure(lower, subject, rounds, ops).with_context(|| format!("{subject:?} on {lower}"))?;
        }
    }
    if subjects.contains(&Subject::Reelfs) {
        run("rmmod", &["reelfs"])?;
    }
    run("umount", &[SPOOL])?;
    run("umount", &[MEMORY])
}

/// The words of an argument, separated by commas, or everything there is.
fn list<'a>(argument: Option<&'a String>, all: &[&'a str]) -> Vec<&'a str> {
    match argument.map(String::as_str) {
        None | Some("all") => all.to_vec(),
        Some(words) => words.split(',').collect(),
    }
}

fn main() -> ExitCode {
    // ROUNDS [LOWERS [SUBJECTS [OPERATIONS]]], the last three separated by commas, or `all`.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.first().map_or("5", String::as_str);
    let lowers = list(arguments.get(1), &["ext4", "tmpfs"]);
    let subjects = list(arguments.get(2), &["direct", "overlay", "reelfs"]);
    let subjects: Result<Vec<Subject>, String> =
        subjects.into_iter().map(|word| Subject::from_str(word, false)).collect();
    let done = subjects
        .map_err(anyhow::Error::msg)
        .and_then(|subjects| all(rounds, &lowers, &subjects, &list(arguments.get(3), &[])));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reelfs-bench-machine: {error:#}");
            ExitCode::FAILURE
        }
    }
}
