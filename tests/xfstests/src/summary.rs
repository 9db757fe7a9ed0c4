// SPDX-License-Identifier: GPL-2.0-or-later
//! What the results of three subjects come to, next to what was expected.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::expected::List;
use crate::journal::{Ended, Outcome, Subject};

/// The results of one test.
pub type Row = BTreeMap<Subject, Ended>;

/// All that there is to say.
#[derive(Debug, Default)]
pub struct Summary {
    /// The text, with the lists and without the closing line.
    pub text: String,
    /// Tests that end on reelfs as they do on the lower filesystem, or worse with a reason that is known.
    pub passed: usize,
    /// The others.
    pub failed: usize,
}

/// Whether this is worse than what the lower filesystem made of the test.
fn worse(reelfs: Outcome, lower: Outcome) -> bool {
    match reelfs {
        Outcome::Pass => false,
        // What was recorded has to be right, whatever the test thinks of the filesystem.
        Outcome::Differs => true,
        Outcome::Fail | Outcome::NotRun => reelfs != lower,
    }
}

/// Judges the tests that have run on the lower filesystem and on reelfs; overlayfs is for comparison.
pub fn summary(rows: &BTreeMap<String, Row>, expected: &List) -> Summary {
    let mut summary = Summary::default();
    let text = &mut summary.text;
    let (mut known, mut unknown, mut stale, mut counts) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
    let _ = writeln!(text, "{:<14} {:<10} {:<10} {:<10} seconds", "test", "lower", "overlayfs", "reelfs");
    for (test, row) in rows {
        let cell = |subject| row.get(&subject).map_or("-", |ended: &Ended| ended.outcome.name());
        let seconds: Vec<_> = Subject::ALL
            .iter()
            .map(|subject| row.get(subject).map_or("-".to_owned(), |e| e.seconds.to_string()))
            .collect();
        let [lower, overlay, reelfs] = Subject::ALL.map(cell);
        let _ = writeln!(text, "{test:<14} {lower:<10} {overlay:<10} {reelfs:<10} {}", seconds.join("/"));
        for subject in Subject::ALL {
            *counts.entry((subject, cell(subject))).or_insert(0usize) += 1;
        }
        let (Some(lower), Some(reelfs)) = (row.get(&Subject::Lower), row.get(&Subject::Reelfs)) else { continue };
        let expectation = expected.get(test);
        let line = format!("{test:<14} {:<8}", reelfs.outcome.name());
        match (worse(reelfs.outcome, lower.outcome), expectation) {
            (true, Some(entry)) if entry.outcome == Some(reelfs.outcome) => {
                known.push(format!("{line} {}", entry.reason));
                summary.passed += 1;
            }
            (true, _) => {
                unknown.push(format!("{line} (lower: {}) {}", lower.outcome.name(), reelfs.reason));
                summary.failed += 1;
            }
            (false, Some(entry)) => {
                stale.push(format!("{line} is in the list with: {}", entry.reason));
                summary.passed += 1;
            }
            (false, None) => summary.passed += 1,
        }
    }
    let _ = writeln!(text);
    for subject in Subject::ALL {
        let of: Vec<_> = ["pass", "fail", "notrun", "differs"]
            .iter()
            .filter_map(|&outcome| Some(format!("{outcome} {}", counts.get(&(subject, outcome))?)))
            .collect();
        let _ = writeln!(text, "{:<10} {}", subject.name(), of.join(", "));
    }
    for (title, lines) in [
        ("worse on reelfs than on the lower filesystem, for a reason that is known", &known),
        ("entries of the list of the expected that no longer hold; take them out", &stale),
        ("worse on reelfs than on the lower filesystem", &unknown),
    ] {
        if !lines.is_empty() {
            let _ = writeln!(text, "\n{title}:\n  {}", lines.join("\n  "));
        }
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expected;

    fn rows(list: &[(&str, Outcome, Outcome)]) -> BTreeMap<String, Row> {
        let ended =
            |test: &str, outcome| Ended { test: test.to_owned(), outcome, seconds: 1, reason: "why".to_owned() };
        let row = |test: &str, lower, reelfs| {
            Row::from([(Subject::Lower, ended(test, lower)), (Subject::Reelfs, ended(test, reelfs))])
        };
        list.iter().map(|(test, lower, reelfs)| ((*test).to_owned(), row(test, *lower, *reelfs))).collect()
    }

    #[test]
    fn only_what_is_worse_without_a_reason_fails() {
        use Outcome::{Differs, Fail, NotRun, Pass};
        let list = expected::parse("* g/4 fail known\n* g/5 notrun known\n* g/6 fail known\n", "ext4").unwrap();
        for (test, lower, reelfs, good) in [
            ("g/1", Pass, Pass, true),
            ("g/1", Fail, Fail, true),
            ("g/1", NotRun, NotRun, true),
            ("g/1", Fail, Pass, true),
            ("g/1", Pass, Fail, false),
            ("g/1", Pass, NotRun, false),
            ("g/1", Fail, NotRun, false),
            ("g/1", NotRun, Fail, false),
            ("g/1", Fail, Differs, false),
            ("g/1", Pass, Differs, false),
            ("g/4", Pass, Fail, true),
            ("g/4", Pass, Differs, false),
            ("g/5", Pass, NotRun, true),
            ("g/6", Pass, Pass, true),
        ] {
            let summary = summary(&rows(&[(test, lower, reelfs)]), &list);
            assert_eq!((summary.passed, summary.failed), (usize::from(good), usize::from(!good)), "{test} {reelfs:?}");
        }
    }

    #[test]
    fn entries_that_no_longer_hold_are_named() {
        let list = expected::parse("* g/6 fail known\n", "ext4").unwrap();
        let summary = summary(&rows(&[("g/6", Outcome::Pass, Outcome::Pass)]), &list);
        assert!(summary.text.contains("no longer hold"), "{}", summary.text);
    }

    #[test]
    fn tests_that_have_not_run_on_both_are_not_judged() {
        let mut rows = rows(&[("g/1", Outcome::Pass, Outcome::Fail)]);
        rows.get_mut("g/1").unwrap().remove(&Subject::Lower);
        let summary = summary(&rows, &List::new());
        assert_eq!((summary.passed, summary.failed), (0, 0));
    }
}
