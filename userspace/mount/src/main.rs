// SPDX-License-Identifier: GPL-2.0-or-later

//! `mount.reelfs SOURCE TARGET [-sfnv] [-o OPTIONS] [-t TYPE]`: what mount(8) runs for `mount -t reelfs`.
//! See mount.reelfs(8). Exit statuses are mount(8)'s.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, Context, Result};
use reelfs_mount::options::{Options, ANYWAY};
use reelfs_mount::survey::survey;
use reelfs_mount::{attach, mounts};

/// Wrong invocation, or not allowed.
const USAGE: u8 = 1;
/// Mounting failed or was refused.
const FAILURE: u8 = 32;

const HELP: &str = "usage: mount.reelfs LOWER DIRECTORY [-o OPTION[,OPTION...]] [-f] [-v]
Records every change made below DIRECTORY; LOWER, mostly the same directory, holds the files.
  -o OPTIONS  ring=SIZE, onstall=block|fail|degrade, stall=SECONDS,
              uidlimit=SIZE, flush=SECONDS, and those of mount(8);
              allow-unrecorded mounts although changes could go unrecorded
  -f          look at everything, and do not mount
  -v          say what is done
  -s, -n, -t  accepted for mount(8)
See mount.reelfs(8).";

struct Arguments {
    source: PathBuf,
    target: PathBuf,
    options: Options,
    fake: bool,
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("mount.reelfs: {error:#}\n{HELP}");
            return ExitCode::from(USAGE);
        }
    };
    match mount(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mount.reelfs: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn arguments(given: impl Iterator<Item = OsString>) -> Result<Option<Arguments>> {
    let mut paths = Vec::new();
    let (mut options, mut fake, mut verbose) = (Options::default(), false, false);
    let mut given = given;
    while let Some(argument) = given.next() {
        let text = argument.to_str().unwrap_or("");
        let Some(flags) = text.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
            paths.push(PathBuf::from(argument));
            continue;
        };
        if text == "--help" || text == "-h" {
            return Ok(None);
        }
        for flag in flags.chars() {
            match flag {
                's' | 'n' => {}
                'f' => fake = true,
                'v' => verbose = true,
                'o' | 't' | 'N' => {
                    let value = given.next().with_context(|| format!("-{flag} wants a value"))?;
                    match flag {
                        'o' => options.add(value.to_str().context("options have to be UTF-8")?),
                        'N' => bail!("mounting in another namespace is not offered"),
                        _ => {}
                    }
                }
                _ => bail!("unknown flag -{flag}"),
            }
        }
    }
    let [source, target] = <[PathBuf; 2]>::try_from(paths)
        .map_err(|paths| anyhow::anyhow!("two directories are wanted, not {}", paths.len()))?;
    Ok(Some(Arguments { source, target, options, fake, verbose }))
}

fn mount(arguments: &Arguments) -> Result<()> {
    let target = directory(&arguments.target)?;
    if arguments.options.remount {
        return match arguments.fake {
            true => Ok(()),
            false => attach::remount(&target, &arguments.options),
        };
    }
    let source = directory(&arguments.source)?;
    if mounts::ours_at(&target).context("cannot list the mounts")?.is_some() {
        bail!("{} is a reelfs mount already", target.display());
    }
    let obstacles = survey(&source, &target)?;
    for obstacle in &obstacles {
        eprintln!("mount.reelfs: {}", obstacle.0);
    }
    if !obstacles.is_empty() && !arguments.options.anyway {
        bail!("not mounted: changes could go unrecorded (-o {ANYWAY} mounts all the same)");
    }
    if arguments.verbose {
        println!("mount.reelfs: {} on {}", source.display(), target.display());
    }
    match arguments.fake {
        true => Ok(()),
        false => attach::mount(&source, &target, &arguments.options),
    }
}

/// `path` without links, if it is a directory.
fn directory(path: &Path) -> Result<PathBuf> {
    let path = std::fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
    if !path.is_dir() {
        bail!("{} is not a directory", path.display());
    }
    Ok(path)
}
