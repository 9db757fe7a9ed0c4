// SPDX-License-Identifier: GPL-2.0-or-later
//! Results that were had before, and hold for as long as nothing that they depend on has changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::journal::{parse, Ended, Line, Subject};

/// The results of one subject.
#[derive(Debug)]
pub struct Results {
    /// What the tests run on.
    pub subject: Subject,
    directory: PathBuf,
    ended: BTreeMap<String, Ended>,
}

impl Results {
    /// Those that were had of this subject with these `ingredients`, which are whatever the results depend on.
    pub fn open(cache: &Path, filesystem: &str, subject: Subject, ingredients: &str) -> Result<Self> {
        let id = blake3::hash(ingredients.as_bytes()).to_hex()[..16].to_owned();
        let directory = cache.join("xfstests/results").join(format!("{filesystem}-{}-{id}", subject.name()));
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let text = fs::read_to_string(directory.join("journal")).unwrap_or_default();
        let mut results =
            Results { subject, ended: ended(&text).map(|end| (end.test.clone(), end)).collect(), directory };
        results.take()?;
        Ok(results)
    }

    /// Where the machine that runs writes its journal, so that what it had done is known when this program is interrupted.
    pub fn port(&self) -> PathBuf {
        self.directory.join("machine")
    }

    /// Takes over what the last machine has written, and gives its lines.
    pub fn take(&mut self) -> Result<Vec<Line>> {
        let port = self.port();
        let text = fs::read_to_string(&port).unwrap_or_default();
        for end in ended(&text) {
            self.add(end)?;
        }
        match fs::remove_file(&port) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| port.display().to_string()),
            _ => Ok(parse(&text)),
        }
    }

    /// Keeps what went wrong beside the tests: messages of the kernel, mostly.
    pub fn add_trouble(&self, messages: &[String]) -> Result<()> {
        let path = self.directory.join("trouble");
        let mut file = File::options().create(true).append(true).open(&path)?;
        messages.iter().try_for_each(|line| writeln!(file, "{line}")).with_context(|| path.display().to_string())
    }

    /// All that was kept of it.
    pub fn trouble(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("trouble")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The result of a test.
    pub fn of(&self, test: &str) -> Option<&Ended> {
        self.ended.get(test)
    }

    /// Keeps a result.
    pub fn add(&mut self, ended: Ended) -> Result<()> {
        let path = self.directory.join("journal");
        let mut file = File::options().create(true).append(true).open(&path)?;
        file.write_all(Line::End(ended.clone()).to_string().as_bytes()).with_context(|| path.display().to_string())?;
        self.ended.insert(ended.test.clone(), ended);
        Ok(())
    }

    /// Forgets the results of these tests, and what went wrong beside them.
    pub fn forget(&mut self, tests: &[String]) -> Result<()> {
        let _ = fs::remove_file(self.directory.join("trouble"));
        self.ended.retain(|test, _| !tests.contains(test));
        let text: String = self.ended.values().cloned().map(|ended| Line::End(ended).to_string()).collect();
        Ok(fs::write(self.directory.join("journal"), text)?)
    }

    /// Where tests that did not pass have told why.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

fn ended(journal: &str) -> impl Iterator<Item = Ended> {
    parse(journal).into_iter().filter_map(|line| match line {
        Line::End(ended) => Some(ended),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Outcome;

    #[test]
    fn results_last() -> Result<()> {
        let cache = std::env::temp_dir().join(format!("reelfs-xfstests-{}", std::process::id()));
        let open = |ingredients| Results::open(&cache, "ext4", Subject::Reelfs, ingredients);
        let end = |test: &str| Ended { test: test.into(), outcome: Outcome::Pass, seconds: 1, reason: String::new() };
        let mut results = open("a")?;
        results.add(end("generic/001"))?;
        results.add_trouble(&["something".to_owned()])?;
        // A machine was at work when this program was ended.
        let journal =
            [Line::Begin("generic/002".into()), Line::End(end("generic/002")), Line::Begin("generic/003".into())];
        fs::write(results.port(), journal.iter().map(ToString::to_string).collect::<String>())?;
        let mut results = open("a")?;
        assert!(results.of("generic/001").is_some() && results.of("generic/002").is_some());
        assert!(results.of("generic/003").is_none() && !results.port().exists());
        assert_eq!(results.trouble(), ["something"]);
        // Something else was tested.
        assert!(open("b")?.of("generic/001").is_none());
        results.forget(&["generic/001".to_owned()])?;
        let results = open("a")?;
        assert!(results.of("generic/001").is_none() && results.of("generic/002").is_some());
        assert!(results.trouble().is_empty());
        Ok(fs::remove_dir_all(&cache)?)
    }
}
