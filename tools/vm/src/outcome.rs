// SPDX-License-Identifier: GPL-2.0-or-later
//! What came back from a machine, and whether that is a success.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use crate::kernel_log::{self, AllowList};
use crate::protocol::{Item, END_OF_LOG};
use crate::{Context, Error};

/// How the machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It powered itself off.
    Off,
    /// The host cut its power, as asked.
    Cut,
    /// It ran into its time limit and was killed.
    TimedOut,
}

/// What came back from a machine.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// The command's exit status, if it lived to report it.
    pub status: Option<i32>,
    /// Kernel messages that the allow-list does not have.
    pub kernel: Vec<String>,
    /// What was left behind.
    pub left: Vec<String>,
    /// What kept the machine from being set up or looked over.
    pub trouble: Vec<String>,
    /// All that the command printed.
    pub output: String,
    /// The directory with the files that the command left in `/results`.
    pub results: PathBuf,
    /// The directory with output, kernel log and serial console.
    pub work: PathBuf,
}

impl Outcome {
    /// Every reason why this run is not a success; empty if it is one.
    ///
    /// A machine whose power was cut has no exit status to report, and nothing left
    /// behind is held against it; its kernel log counts as ever.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match (self.ending, self.status) {
            (Ending::TimedOut, _) => problems.push("timed out".to_owned()),
            (Ending::Off, None) => {
                problems.push("the machine died before its command ended".to_owned());
            }
            (Ending::Off, Some(status)) if status != 0 => {
                problems.push(format!("exit status {status}"));
            }
            _ => {}
        }
        let list = |kind: &str, items: &[String]| -> Vec<String> {
            items.iter().map(|item| format!("{kind}: {item}")).collect()
        };
        problems.extend(list("kernel", &self.kernel));
        problems.extend(list("left behind", &self.left));
        problems.extend(list("machine", &self.trouble));
        problems
    }

    /// Reads what a machine wrote into its work directory.
    pub(crate) fn collect(
        ending: Ending,
        work: &Path,
        results: &Path,
        allow: &AllowList,
        tags: &[String],
    ) -> Result<Self, Error> {
        let mut outcome = Self {
            ending,
            status: None,
            kernel: Vec::new(),
            left: Vec::new(),
            trouble: Vec::new(),
            output: String::new(),
            results: results.to_owned(),
            work: work.to_owned(),
        };
        let complete = outcome.read_report(&work.join("report"))?;

        let text = |name: &str| {
            let bytes = std::fs::read(work.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        outcome.output = text("output");
        let log = text("kmsg");
        let messages = kernel_log::parse(&log);
        for message in allow.findings(&messages, tags) {
            let seconds = message.time as f64 / 1e6;
            outcome.kernel.push(format!("[{seconds:12.6}] {}", message.text));
        }
        if !complete || !log.contains(END_OF_LOG) {
            // The last words of a dying kernel reach only the serial console.
            for line in kernel_log::serial_faults(&text("serial")) {
                if !messages.iter().any(|m| line.contains(&m.text)) {
                    outcome.kernel.push(format!("console: {line}"));
                }
            }
        }
        Ok(outcome)
    }

    /// Whether the report was complete.
    fn read_report(&mut self, path: &Path) -> Result<bool, Error> {
        let at = || path.display().to_string();
        let mut input = BufReader::new(File::open(path).context(at)?);
        while let Some(item) = Item::read_from(&mut input).context(at)? {
            match item {
                Item::Status(status) => self.status = Some(status),
                Item::Left(what) => self.left.push(what),
                Item::Trouble(what) => self.trouble.push(what),
                Item::File(name, contents) => self.save(&name, &contents)?,
                Item::End => return Ok(true),
            }
        }
        Ok(false)
    }

    fn save(&mut self, name: &str, contents: &[u8]) -> Result<(), Error> {
        // The name was chosen in the machine: it must stay below the directory.
        let relative = Path::new(name);
        if !relative.components().all(|c| matches!(c, std::path::Component::Normal(_))) {
            self.trouble.push(format!("unusable name of a result: {name}"));
            return Ok(());
        }
        let path = self.results.join(relative);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).context(|| parent.display().to_string())?;
        }
        std::fs::write(&path, contents).context(|| path.display().to_string())
    }
}
