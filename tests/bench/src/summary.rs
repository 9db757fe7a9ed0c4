// SPDX-License-Identifier: GPL-2.0-or-later
//! Samples put together: the middle and the spread of what was measured, and ratios to the lower filesystem.

use std::collections::BTreeMap;

use crate::op::Op;
use crate::sample::{Sample, Subject};

/// The middle of several rounds, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The median, in nanoseconds for one operation.
    pub median: f64,
    /// Largest minus smallest, as a part of the median.
    pub spread: f64,
}

impl Figure {
    /// The figure of some rounds, or `None` if there are none.
    pub fn of(mut rounds: Vec<f64>) -> Option<Self> {
        rounds.sort_by(f64::total_cmp);
        let (smallest, largest) = (*rounds.first()?, *rounds.last()?);
        let (low, high) = (rounds[(rounds.len() - 1) / 2], rounds[rounds.len() / 2]);
        let median = (low + high) / 2.0;
        Some(Figure { median, spread: if median > 0.0 { (largest - smallest) / median } else { 0.0 } })
    }
}

/// What an operation cost on one subject.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// The caller alone.
    pub caller: Figure,
    /// The caller and the daemon together.
    pub total: Figure,
}

/// Everything that was measured, by lower filesystem, operation and subject.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    costs: BTreeMap<(String, Op, Subject), Cost>,
}

impl Summary {
    /// Puts samples together.
    pub fn of(samples: &[Sample]) -> Self {
        let mut rounds: BTreeMap<_, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
        for sample in samples {
            let (caller, total) = rounds.entry((sample.lower.clone(), sample.op, sample.subject)).or_default();
            caller.push(sample.caller());
            total.push(sample.total());
        }
        let costs = rounds
            .into_iter()
            .filter_map(|(key, (caller, total))| {
                Some((key, Cost { caller: Figure::of(caller)?, total: Figure::of(total)? }))
            })
            .collect();
        Summary { costs }
    }

    /// The lower filesystems there are figures for.
    pub fn lowers(&self) -> Vec<&str> {
        let mut lowers: Vec<&str> = self.costs.keys().map(|(lower, _, _)| lower.as_str()).collect();
        lowers.dedup();
        lowers
    }

    /// What an operation cost.
    pub fn cost(&self, lower: &str, op: Op, subject: Subject) -> Option<Cost> {
        self.costs.get(&(lower.to_owned(), op, subject)).copied()
    }

    /// Caller's cost, and caller's and daemon's together, as ratios to the lower filesystem directly.
    pub fn ratios(&self, lower: &str, op: Op, subject: Subject) -> Option<(f64, f64)> {
        let direct = self.cost(lower, op, Subject::Direct)?.caller.median;
        let cost = self.cost(lower, op, subject)?;
        Some((cost.caller.median / direct, cost.total.median / direct))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(subject: Subject, caller_ns: u64, daemon_ns: u64) -> Sample {
        let daemon_ns = BTreeMap::from([("capture".to_owned(), daemon_ns)]);
        Sample { lower: "ext4".into(), subject, op: Op::Stat, round: 0, count: 10, caller_ns, daemon_ns }
    }

    #[test]
    fn median_of_an_even_number_lies_between() {
        let figure = Figure::of(vec![4.0, 1.0, 3.0, 2.0]).expect("there are rounds");
        assert_eq!((figure.median, figure.spread), (2.5, 3.0 / 2.5));
        assert_eq!(Figure::of(vec![]), None);
    }

    #[test]
    fn ratios_are_to_the_caller_on_the_lower_filesystem() {
        let summary = Summary::of(&[sample(Subject::Direct, 100, 7), sample(Subject::Reelfs, 150, 50)]);
        assert_eq!(summary.lowers(), ["ext4"]);
        assert_eq!(summary.ratios("ext4", Op::Stat, Subject::Reelfs), Some((1.5, 2.0)));
        assert_eq!(summary.ratios("ext4", Op::Stat, Subject::Overlay), None);
    }
}
