// SPDX-License-Identifier: GPL-2.0-or-later
//! The list of what is known to end worse on reelfs than on the lower filesystem, each with its reason.
//!
//! A line is `FILESYSTEMS TEST OUTCOME REASON`: `FILESYSTEMS` is `*` or names separated by commas, `OUTCOME` is `fail`,
//! `notrun` or `differs`, or `skip` for a test that is not to be run at all, on whatever. `#` begins a comment.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};

use crate::journal::Outcome;

/// What is known of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// How it ends; `None` if it is not to be run.
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: String,
}

/// What is known for one lower filesystem, by test.
pub type List = BTreeMap<String, Known>;

/// Reads the list, as far as it is about this filesystem.
pub fn parse(text: &str, filesystem: &str) -> Result<List> {
    let mut list = List::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (about, test, known) = entry(line).with_context(|| format!("line {}: '{line}'", number + 1))?;
        if about == "*" || about.split(',').any(|name| name == filesystem) {
            let twice = list.insert(test.to_owned(), known).is_some();
            ensure!(!twice, "line {}: {test} is in the list twice for {filesystem}", number + 1);
        }
    }
    Ok(list)
}

fn entry(line: &str) -> Result<(&str, &str, Known)> {
    let mut words = line.split_whitespace();
    let mut next = |what: &str| words.next().with_context(|| format!("{what} is missing"));
    let (about, test, outcome) = (next("the filesystems")?, next("the test")?, next("the outcome")?);
    let reason = words.collect::<Vec<_>>().join(" ");
    ensure!(!reason.is_empty(), "the reason is missing");
    let outcome = match outcome {
        "skip" => None,
        _ => {
            let known = Outcome::of(outcome).filter(|outcome| *outcome != Outcome::Pass);
            Some(known.with_context(|| format!("'{outcome}' is none of fail, notrun, differs, skip"))?)
        }
    };
    Ok((about, test, Known { outcome, reason }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let text = "# all\n\n*        generic/748 skip too slow # here\next4,xfs generic/002 notrun no export\nxfs generic/003 fail x\n";
        let list = parse(text, "ext4").unwrap();
        assert_eq!(list.keys().collect::<Vec<_>>(), ["generic/002", "generic/748"]);
        assert_eq!(list["generic/748"], Known { outcome: None, reason: "too slow".into() });
        assert_eq!(list["generic/002"], Known { outcome: Some(Outcome::NotRun), reason: "no export".into() });
        assert_eq!(parse(text, "xfs").unwrap().len(), 3);
    }

    #[test]
    fn entries_without_a_reason_are_refused() {
        for wrong in [
            "* generic/001 fail",
            "* generic/001 pass why",
            "* generic/001 maybe why",
            "* generic/001",
            "* generic/001 fail a\next4 generic/001 notrun b",
        ] {
            assert!(parse(wrong, "ext4").is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_list_of_the_tree_is_good() {
        let text = include_str!("../expected");
        for filesystem in ["ext4", "xfs"] {
            assert!(!parse(text, filesystem).unwrap().is_empty());
        }
    }
}
