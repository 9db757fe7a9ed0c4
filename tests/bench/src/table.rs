// SPDX-License-Identifier: GPL-2.0-or-later
//! The figures as a page in Markdown.

use std::fmt::Write;

use crate::op::Op;
use crate::sample::Subject;
use crate::summary::Summary;

/// What the page says about how the figures came to be.
pub struct Conditions {
    /// Nanoseconds that one instruction counts as, or `None` if time was ordinary time.
    pub instruction_ns: Option<f64>,
    /// Name and value of whatever else the reader should know.
    pub facts: Vec<(String, String)>,
}

/// The page. `plot` gives the file name of a lower filesystem's plot.
pub fn page(summary: &Summary, conditions: &Conditions, plot: impl Fn(&str) -> String) -> String {
    let mut page = String::from(
        "<!-- Made by `make bench`; what it means is in README.md beside it. -->\n\n# What an operation costs\n\n",
    );
    let unit = if conditions.instruction_ns.is_some() { "instructions" } else { "nanoseconds" };
    for (name, value) in &conditions.facts {
        let _ = writeln!(page, "- {name}: {value}");
    }
    for lower in summary.lowers() {
        let _ = write!(
            page,
            "\n## {lower}\n\n![ratios on {lower}]({})\n\n\
             | operation | {lower} directly, {unit} | overlayfs | reelfs | aim | reelfs and its daemon | spread |\n\
             |---|--:|--:|--:|--:|--:|--:|\n",
            plot(lower)
        );
        for op in Op::ALL {
            row(&mut page, summary, conditions, lower, op);
        }
    }
    page
}

fn row(page: &mut String, summary: &Summary, conditions: &Conditions, lower: &str, op: Op) {
    let Some(direct) = summary.cost(lower, op, Subject::Direct) else {
        return;
    };
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let overlay = summary.ratios(lower, op, Subject::Overlay);
    let reelfs = summary.ratios(lower, op, Subject::Reelfs);
    // The aims were set for ext4; on a filesystem in memory the same work is a larger part.
    let aim = op.aim().filter(|_| lower == "ext4");
    let verdict = match (aim, reelfs) {
        (Some(aim), Some((caller, _))) if caller > aim => format!("{aim:.2}, missed"),
        (Some(aim), _) => format!("{aim:.2}"),
        (None, _) => String::new(),
    };
    let spread = [Subject::Direct, Subject::Overlay, Subject::Reelfs]
        .into_iter()
        .filter_map(|subject| summary.cost(lower, op, subject))
        .map(|cost| cost.caller.spread)
        .fold(0.0, f64::max);
    let amount = direct.caller.median / conditions.instruction_ns.unwrap_or(1.0);
    let _ = writeln!(
        page,
        "| {} | {amount:.0} | {} | {} | {verdict} | {} | {:.1} % |",
        op.title(),
        ratio(overlay.map(|(caller, _)| caller)),
        ratio(reelfs.map(|(caller, _)| caller)),
        ratio(reelfs.map(|(_, total)| total)),
        spread * 100.0,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use std::collections::BTreeMap;

    #[test]
    fn a_missed_aim_says_so() {
        let sample = |subject, caller_ns| Sample {
            lower: "ext4".into(),
            subject,
            op: Op::Stat,
            round: 0,
            count: 1,
            caller_ns,
            daemon_ns: BTreeMap::new(),
        };
        let summary = Summary::of(&[sample(Subject::Direct, 1000), sample(Subject::Reelfs, 1200)]);
        let conditions = Conditions { instruction_ns: Some(2.0), facts: vec![] };
        let page = page(&summary, &conditions, |lower| format!("{lower}.svg"));
        assert!(page.contains("| stat | 500 | - | 1.20 | 1.10, missed | 1.20 | 0.0 % |"), "{page}");
    }
}
