// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelvm`: runs a command, or whole suites, in test machines.

#[path = "../cli/run.rs"]
mod run;
#[path = "../cli/suites.rs"]
mod suites;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use reelvm::{Error, Machine, Outcome, Setup};

const USAGE: &str = "\
usage: reelvm run [OPTION...] [--] COMMAND [ARGUMENT...]
       reelvm suites [OPTION...] [SUITE[/FILTER]...]

Boots test machines and reports what happened in them. Run it through make or
tools/reelvm, which say where kernel, image and programs are.

run: one command in one machine, with the project's module and programs in /payload
  --name NAME         for messages and for the directory of its logs
  --memory MIB        memory (2048)
  --cpus N            processors (2)
  --icount SHIFT      time is a count of instructions, 2^SHIFT ns each; one processor
  --disk NAME=FILE[:SIZE]
                      a raw disk at /dev/disk/by-id/NAME; made, sparse, if it is missing
                      (SIZE in MiB)
  --share TAG=DIR     a directory of the host, read-only, at /mnt/TAG
  --port NAME=FILE    /dev/virtio-ports/NAME writes to a file of the host
  --file INSIDE=FILE  bring a file or directory along as /payload/INSIDE
  --env NAME=VALUE    set a variable
  --allow TAG         allow the kernel messages listed under this tag
  --timeout SECONDS   kill the machine after this time (600)
  --cut-after SECONDS cut the machine's power after this time
  --results DIR       where files left in /results go
  --bare              bring neither the module nor the project's programs along
  --program NAME      with --bare: bring this one of the project's programs along
  --keep              keep the machine's directory

suites: each suite in a machine of its own (all of them by default)
  --list              say which there are
  --keep              keep the machines' directories
  --env NAME=VALUE    set a variable in every machine
";

fn main() -> ExitCode {
    let mut arguments = lexopt::Parser::from_env();
    let done = match arguments.next() {
        Ok(Some(lexopt::Arg::Value(verb))) if verb == "run" => run::run(arguments),
        Ok(Some(lexopt::Arg::Value(verb))) if verb == "suites" => suites::suites(arguments),
        Ok(Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h'))) => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Ok(_) => Err(Error::new("expected one of: run, suites (see --help)")),
        Err(e) => Err(Error::new(e.to_string())),
    };
    done.unwrap_or_else(|e| {
        eprintln!("reelvm: error: {e}");
        ExitCode::from(2)
    })
}

/// Splits `NAME=VALUE`.
fn pair(text: &str) -> Result<(&str, &str), Error> {
    text.split_once('=').ok_or_else(|| Error::new(format!("{text:?} is not NAME=VALUE")))
}

/// Programs that are for the host or for the initramfs only.
const NOT_BROUGHT: &[&str] = &["reelvm", "reelvm-init"];

/// The programs of a directory, by path.
fn programs(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    use std::os::unix::fs::PermissionsExt;
    let entries = std::fs::read_dir(dir).map_err(|e| Error::new(format!("{}: {e}", dir.display())))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            entry.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
                // Libraries and macros have an extension; mount.reelfs is a program.
                && (!name.contains('.') || name.starts_with("mount."))
                && !NOT_BROUGHT.contains(&name.as_ref())
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

/// Brings the module (named by `REELVM_MODULE`, if it was built), the project's programs, and those in `REELVM_OTHERS`
/// along.
fn with_project(mut machine: Machine, setup: &Setup) -> Result<Machine, Error> {
    if let Some(module) = std::env::var_os("REELVM_MODULE").filter(|m| !m.is_empty()) {
        machine = machine.file("reelfs.ko", Path::new(&module));
    }
    let others = std::env::var_os("REELVM_OTHERS").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    for dir in [Some(&setup.programs), others.as_ref()].into_iter().flatten() {
        for program in programs(dir)? {
            machine = machine.program(&program);
        }
    }
    Ok(machine)
}

/// Prints what is wrong with a run, if anything, and where its logs are.
fn report(name: &str, outcome: &Outcome) -> bool {
    const SHOWN: usize = 40;
    let problems = outcome.problems();
    if problems.is_empty() {
        return true;
    }
    println!("{name}: the run has failed:");
    for problem in problems.iter().take(SHOWN) {
        println!("  {problem}");
    }
    if problems.len() > SHOWN {
        println!("  ... and {} more", problems.len() - SHOWN);
    }
    println!("  logs: {}", outcome.work.display());
    false
}
