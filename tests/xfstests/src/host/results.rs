// SPDX-License-Identifier: GPL-2.0-or-later
//! Results that were had before, and hold for as long as nothing that they depend on has changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
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
        let ended = parse(&text).into_iter().filter_map(|line| match line {
            Line::End(ended) => Some((ended.test.clone(), ended)),
            _ => None,
        });
        Ok(Results { subject, ended: ended.collect(), directory })
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

    /// Forgets the results of these tests.
    pub fn forget(&mut self, tests: &[String]) -> Result<()> {
        self.ended.retain(|test, _| !tests.contains(test));
        let text: String = self.ended.values().cloned().map(|ended| Line::End(ended).to_string()).collect();
        Ok(fs::write(self.directory.join("journal"), text)?)
    }

    /// Where tests that did not pass have told why.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}
