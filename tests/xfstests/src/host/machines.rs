// SPDX-License-Identifier: GPL-2.0-or-later
//! Machines for tests: each takes a number of them, and the next goes on where one ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use reelvm::{Ending, Machine, Outcome as Ended, Setup};

use super::results::Results;
use crate::journal::{self, Line, Outcome, Subject};

const GIB: u64 = 1 << 30;
/// The machines' disks and their lengths. They are sparse.
const DISKS: [(&str, u64); 6] = [
    ("test", 6 * GIB),
    ("scratch", 6 * GIB),
    ("logwrites", 4 * GIB),
    ("spool", 3 * GIB),
    ("media", 12 * GIB),
    ("restored", 8 * GIB),
];
/// The programs that a machine for reelfs has.
const PROGRAMS: [&str; 4] = ["reelfs-xfstests", "reeld", "reel", "mount.reelfs"];
/// What a test takes at most beside its own time: filesystems, the checks after it, the oracle.
const BESIDE: Duration = Duration::from_secs(300);
/// What a machine that cannot go on gets to end.
const TO_END: Duration = Duration::from_secs(20);
/// So many machines in a row may end without a result, as an emulator sometimes does while it boots.
const ATTEMPTS: u32 = 3;
/// Between two looks at what a machine does.
const LOOK: Duration = Duration::from_secs(2);

/// How machines are made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Kernel, image, programs.
    pub setup: Setup,
    /// The module.
    pub module: PathBuf,
    /// The image of the checkout.
    pub image: PathBuf,
    /// The file with what `common/rc` reads at its end.
    pub hooks: PathBuf,
    /// Type of the lower filesystem.
    pub filesystem: String,
    /// How long one test may take.
    pub limit: Duration,
}

impl Plan {
    /// Everything that a result of this subject depends on, but for the checkout.
    pub fn ingredients(&self, subject: Subject) -> Result<String> {
        let mut text = format!("{} {}", self.setup.kernel.release, self.setup.root_image.display());
        if subject == Subject::Reelfs {
            let programs = PROGRAMS.iter().map(|program| self.setup.programs.join(program));
            for file in programs.chain([self.module.clone(), self.hooks.clone()]) {
                let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
                text.push_str(&format!(" {}", blake3::hash(&bytes).to_hex()));
            }
        }
        Ok(text)
    }

    /// Runs those of these tests that there is no result of, and keeps the results.
    pub fn run(&self, tests: &[String], results: &mut Results) -> Result<()> {
        let mut left: Vec<String> = tests.iter().filter(|test| results.of(test).is_none()).cloned().collect();
        let mut in_vain = 0;
        while !left.is_empty() {
            let before = left.len();
            self.boot(&left, results)?;
            left.retain(|test| results.of(test).is_none());
            in_vain = if left.len() < before { 0 } else { in_vain + 1 };
            ensure!(in_vain < ATTEMPTS, "machines end before they have run a test; their messages are above");
        }
        Ok(())
    }

    /// Boots a machine for these tests; it may not come to the end of them.
    fn boot(&self, tests: &[String], results: &mut Results) -> Result<()> {
        let subject = results.subject;
        let name = format!("xfstests-{}-{}", self.filesystem, subject.name());
        let directory = self.setup.directory(&format!("disks-{name}")).map_err(|error| anyhow::anyhow!("{error}"))?;
        let outcome = self.machine(&name, subject, tests, &directory, results);
        let _ = fs::remove_dir_all(&directory);
        let outcome = outcome?;
        for problem in outcome.trouble.iter().chain(&outcome.left) {
            println!("[{name}: {problem}]");
        }
        let mut running = None;
        for line in results.take()? {
            match line {
                Line::Begin(test) => running = Some(test),
                Line::End(_) => running = None,
                Line::Stop(why) => println!("[{name}: {why}; the rest goes to another machine]"),
            }
        }
        if let Some(test) = running {
            let why = outcome.problems().into_iter().take(3).collect::<Vec<_>>().join("; ");
            println!("[{name}: the machine died in {test}: {why}; see {}]", outcome.work.display());
            let reason = format!("the machine died: {why}");
            results.add(journal::Ended { test, outcome: Outcome::Fail, seconds: 0, reason })?;
        } else if outcome.status != Some(0) {
            println!("[{name}: {}; see {}]", outcome.problems().join("; "), outcome.work.display());
            if outcome.ending == Ending::Off && subject == Subject::Reelfs {
                results
                    .add_trouble(&["the machine could not be taken down; is the module still in use?".to_owned()])?;
            }
        }
        // What others' filesystems say is their affair.
        if subject == Subject::Reelfs {
            results.add_trouble(&outcome.kernel)?;
        }
        Ok(())
    }

    fn machine(
        &self,
        name: &str,
        subject: Subject,
        tests: &[String],
        directory: &Path,
        results: &Results,
    ) -> Result<Ended> {
        let seconds = self.limit.as_secs().to_string();
        let mut argv = vec!["reelfs-xfstests", "run", subject.name(), &self.filesystem, &seconds];
        argv.extend(tests.iter().map(String::as_str));
        let count = u32::try_from(tests.len()).unwrap_or(u32::MAX);
        let mut machine = Machine::new(&self.setup, name, &argv)
            .memory(3072)
            .timeout((self.limit + BESIDE).saturating_mul(count))
            .allow("xfstests")
            .file("hooks.sh", &self.hooks)
            .port("journal", &results.port())
            .port("log", &results.log());
        let run = || -> Result<Ended, reelvm::Error> {
            for (disk, size) in DISKS {
                machine = machine.disk(disk, &directory.join(disk), size)?;
            }
            machine = machine.image("xfstests", &self.image);
            machine = machine.program(&self.setup.programs.join("reelfs-xfstests"));
            if subject == Subject::Reelfs {
                machine = machine.file("reelfs.ko", &self.module);
                for program in &PROGRAMS[1..] {
                    machine = machine.program(&self.setup.programs.join(program));
                }
            }
            let mut watch = Watch::new(results.port(), self.limit);
            let mut running = machine.start()?;
            while !running.ended()? {
                if watch.is_over() {
                    return running.cut_power();
                }
                running.run_for(LOOK)?;
            }
            running.wait()
        };
        run().map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// Sees from outside that a machine gets no further: a filesystem that hangs does not let a machine end by itself.
struct Watch {
    journal: PathBuf,
    limit: Duration,
    length: u64,
    since: Instant,
}

impl Watch {
    fn new(journal: PathBuf, limit: Duration) -> Self {
        Watch { journal, limit, length: 0, since: Instant::now() }
    }

    fn is_over(&mut self) -> bool {
        let length = fs::metadata(&self.journal).map_or(0, |metadata| metadata.len());
        if length != self.length {
            (self.length, self.since) = (length, Instant::now());
        }
        let text = fs::read_to_string(&self.journal).unwrap_or_default();
        let allowed = match journal::parse(&text).last() {
            Some(Line::Stop(_)) => TO_END,
            _ => self.limit + BESIDE,
        };
        self.since.elapsed() > allowed
    }
}
