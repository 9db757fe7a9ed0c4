// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether what reelfs recorded in a test gives the tree that the test left.

use std::fs;
use std::path::Path;

use anyhow::{anyhow, Context, Result};
use reelfs_oracle::Oracle;

use super::stage::{disk, mkfs, mount, Stage, TOP};
use super::{run, spooler};

/// What the oracle says about a test.
#[derive(Debug, Default)]
pub struct Judgement {
    /// What differs.
    pub faults: Vec<String>,
    /// Filesystems that were compared, with the number of their names.
    pub compared: Vec<String>,
    /// Filesystems that were not, and why.
    pub doubtful: Vec<String>,
}

/// Restores the logs of the two filesystems that the tests work on, as far as they have one, and compares. Nothing may be
/// mounted. Then forgets all logs.
pub fn judge(stage: &Stage) -> Result<Judgement> {
    let mut judgement = Judgement::default();
    for name in ["test", "scratch"] {
        one(stage, name, &mut judgement).with_context(|| name.to_owned())?;
    }
    for directory in ["spool", "media", "streams", "mounts", "log"] {
        let directory = Path::new(TOP).join(directory);
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| path.display().to_string())?;
        }
    }
    Ok(judgement)
}

fn one(stage: &Stage, name: &str, judgement: &mut Judgement) -> Result<()> {
    let (device, at) = (disk(name)?, Path::new(TOP).join("judged"));
    fs::create_dir_all(&at)?;
    // A test may leave no filesystem there, or another one.
    if mount(&stage.lower, &device, &at, "ro").is_err() {
        return Ok(());
    }
    let judged = of_root(stage, name, &at, judgement);
    run("umount", &[&at])?;
    judged
}

fn of_root(stage: &Stage, name: &str, lower: &Path, judgement: &mut Judgement) -> Result<()> {
    let Some(mark) = spooler::mark(lower)? else { return Ok(()) };
    let Some(spool) = spooler::spool_of(mark.stream) else { return Ok(()) };
    let mut doubts = spool.doubts();
    if doubts.is_empty() && !mark.is_clean() {
        doubts = "the lower filesystem was cut off at the end".to_owned();
    }
    if !doubts.is_empty() {
        judgement.doubtful.push(format!("{name} is not compared: {doubts}"));
        return Ok(());
    }
    let (device, work) = (disk("restored")?, Path::new(TOP).join("restored"));
    mkfs(&stage.lower, &device)?;
    mount(&stage.lower, &device, &work, "discard")?;
    let oracle = Oracle {
        lower: lower.to_owned(),
        frozen: lower.to_owned(),
        notes: work.join("notes"),
        still: Default::default(),
    };
    let verdict = oracle.judge_end(&spool.media(), &work).map_err(|error| anyhow!("{error}"));
    run("umount", &[&work])?;
    let verdict = verdict?;
    judgement.compared.push(format!("{name}: {} names", verdict.names));
    judgement.faults.extend(verdict.faults.iter().map(|fault| format!("{name}: {fault}")));
    Ok(())
}
