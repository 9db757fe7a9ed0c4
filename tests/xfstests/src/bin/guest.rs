// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelfs-xfstests`: runs xfstests in the test machine, and takes the place of `mount`, `umount`, `df` and
//! `logger` for it.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use reelfs_xfstests::guest::stage::{Stage, TAKES_PLACE_OF};
use reelfs_xfstests::guest::{one, stacked};
use reelfs_xfstests::journal::Subject;

const USAGE: &str = "usage: reelfs-xfstests run SUBJECT FILESYSTEM SECONDS TEST...
       reelfs-xfstests below DIRECTORY COMMAND [ARGUMENT...]
       reelfs-xfstests handle DIRECTORY";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let own = arguments.next().unwrap_or_default();
    let name = Path::new(&own).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words: Vec<OsString> = arguments.collect();
    if name == "logger" {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        return match one::logger(&words) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    if TAKES_PLACE_OF.contains(&name.as_str()) {
        return stacked::main(&name, words);
    }
    let done = match words.first().and_then(|word| word.to_str()) {
        Some("run") => run(&words[1..]),
        Some("below") => stacked::below(&words[1..]),
        Some("handle") if words.len() == 2 => stacked::handle(Path::new(&words[1])),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("reelfs-xfstests: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(words: &[OsString]) -> Result<u8> {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let [subject, lower, seconds, tests @ ..] = words.as_slice() else { bail!("{USAGE}") };
    let subject = Subject::of(subject).with_context(|| format!("no subject '{subject}'"))?;
    let stage = Stage { subject, lower: lower.clone() };
    stage.set_up()?;
    if one::run_all(&stage, tests, Duration::from_secs(seconds.parse()?))? {
        stage.tear_down()?;
    }
    Ok(0)
}
