// SPDX-License-Identifier: GPL-2.0-or-later
//! Which tests of a checkout are to run.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

/// A part of the tests: every `of`th, beginning with the `number`th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    number: usize,
    of: usize,
}

impl std::str::FromStr for Shard {
    type Err = anyhow::Error;

    /// `2/5`: the second part of five.
    fn from_str(text: &str) -> Result<Self> {
        let part = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match part {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Shard { number, of }),
            _ => bail!("'{text}' is no part of the tests; 2/5 is the second of five"),
        }
    }
}

impl Shard {
    /// The tests that are in this part.
    pub fn of(self, tests: Vec<String>) -> Vec<String> {
        tests.into_iter().skip(self.number - 1).step_by(self.of).collect()
    }
}

/// The generic tests of a checkout that are in one of these groups, in order.
pub fn in_groups(checkout: &Path, groups: &[String]) -> Result<Vec<String>> {
    let directory = checkout.join("tests/generic");
    let mut found = BTreeSet::new();
    let mut known = BTreeSet::new();
    for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let script = String::from_utf8_lossy(&std::fs::read(entry.path())?).into_owned();
        let of = groups_of(&script);
        if groups.iter().any(|group| of.contains(&group.as_str())) {
            found.insert(format!("generic/{name}"));
        }
        known.extend(of.into_iter().map(str::to_owned));
    }
    for group in groups {
        ensure!(known.contains(group), "no test of {} is in a group '{group}'", directory.display());
    }
    Ok(found.into_iter().collect())
}

/// The groups that a test says it is in.
fn groups_of(script: &str) -> Vec<&str> {
    let line = script.lines().find_map(|line| line.strip_prefix("_begin_fstest "));
    line.map_or(Vec::new(), |groups| groups.split_whitespace().collect())
}

/// These tests, if the checkout has them all.
pub fn named(checkout: &Path, names: &[String]) -> Result<Vec<String>> {
    for name in names {
        let file = checkout.join("tests").join(name);
        ensure!(file.is_file(), "{} has no test '{name}'; tests are named as in generic/001", checkout.display());
    }
    Ok(names.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_a_partition() {
        let tests: Vec<String> = (0..17).map(|number| format!("generic/{number:03}")).collect();
        let mut together: Vec<String> = (1..=5).flat_map(|number| Shard { number, of: 5 }.of(tests.clone())).collect();
        together.sort();
        assert_eq!(together, tests);
        assert_eq!("2/5".parse::<Shard>().unwrap(), Shard { number: 2, of: 5 });
        for wrong in ["0/5", "6/5", "2", "a/b", "2/"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn groups_are_read_from_the_test() {
        assert_eq!(
            groups_of("#! /bin/bash\n. ./common/preamble\n_begin_fstest auto quick rw\nx"),
            ["auto", "quick", "rw"]
        );
        assert!(groups_of("# _begin_fstest quick\n").is_empty());
    }
}
