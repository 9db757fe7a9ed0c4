// SPDX-License-Identifier: GPL-2.0-or-later
//! One measurement, as it travels from the test machine to the report: a line of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::op::Op;

/// What was measured: the filesystem on which the operation was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The lower filesystem, directly.
    Direct,
    /// overlayfs, in its upper layer on the lower filesystem.
    Overlay,
    /// reelfs on the lower filesystem, with a daemon that spools.
    Reelfs,
}

/// One round of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Type of the lower filesystem.
    pub lower: String,
    /// What was measured.
    pub subject: Subject,
    /// The operation.
    pub op: Op,
    /// Number of the round, from 0.
    pub round: u32,
    /// How many times the operation was done in the round.
    pub count: u64,
    /// Processor time of the caller for all of them, in nanoseconds.
    pub caller_ns: u64,
    /// Processor time of the daemon until all of them were acknowledged, in nanoseconds, for each kind of thread.
    pub daemon_ns: BTreeMap<String, u64>,
}

impl Sample {
    /// Nanoseconds of the caller for one operation.
    pub fn caller(&self) -> f64 {
        self.caller_ns as f64 / self.count as f64
    }

    /// Nanoseconds of caller and daemon together for one operation.
    pub fn total(&self) -> f64 {
        (self.caller_ns + self.daemon_ns.values().sum::<u64>()) as f64 / self.count as f64
    }
}
