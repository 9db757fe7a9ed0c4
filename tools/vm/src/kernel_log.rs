// SPDX-License-Identifier: GPL-2.0-or-later
//! Judges the kernel's messages: what is a warning or worse, or looks like a fault
//! report at any level, fails the run unless the allow-list has it.
//!
//! The list is a text file. A `[always]` or `[TAG]` line says for which runs the
//! patterns below it hold; lines that begin with `#` are the reason for the patterns
//! that follow them, and a pattern without a reason is an error. A pattern has to match
//! a whole message; `*` stands for any run of characters.

use std::path::Path;

use crate::{Context, Error};

/// Words that fail a run whatever the level they are printed at.
const FAULTS: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection fault",
    "Kernel panic",
    "KASAN:",
    "KFENCE:",
    "UBSAN:",
    "new suspected memory leaks",
    "INFO: task",
    "INFO: possible",
    "possible circular locking",
    "rcu_sched self-detected",
    "rcu: INFO:",
    "soft lockup",
    "hard LOCKUP",
    "rust_kernel: panicked",
    "DEBUG_LOCKS_WARN_ON",
    "refcount_t:",
    "list_del corruption",
    "list_add corruption",
];

/// Levels below this one (emergency is 0) are warnings or worse.
const NOTICE: u32 = 5;

/// One message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// 0 (emergency) to 7 (debug).
    pub level: u32,
    /// Microseconds since boot.
    pub time: u64,
    /// The text, without continuation lines.
    pub text: String,
}

/// Parses what was read from `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg); messages
/// that user space wrote, continuation lines and malformed lines are left out.
pub fn parse(log: &str) -> Vec<Message> {
    log.lines()
        .filter_map(|line| {
            let (prefix, text) = line.split_once(';')?;
            let mut fields = prefix.split(',');
            let priority: u32 = fields.next()?.trim().parse().ok()?;
            let _sequence = fields.next()?;
            let time = fields.next()?.parse().ok()?;
            // The facility is in the bits above the level; the kernel's own is 0.
            (priority >> 3 == 0).then(|| Message { level: priority & 7, time, text: text.to_owned() })
        })
        .collect()
}

/// The messages that are expected, each with its reason.
#[derive(Debug, Default)]
pub struct AllowList {
    patterns: Vec<(String, String)>,
}

impl AllowList {
    /// Reads a list.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).context(|| path.display().to_string())?;
        Self::parse(&text).context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let mut list = Self::default();
        let mut tag = None;
        let mut reason = false;
        for (number, line) in text.lines().enumerate() {
            let at = |what: &str| Error::new(format!("line {}: {what}", number + 1));
            if line.trim().is_empty() {
                reason = false;
            } else if line.starts_with('#') {
                reason = true;
            } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                tag = Some(name.to_owned());
                reason = false;
            } else if !reason {
                return Err(at("a pattern without a reason above it"));
            } else {
                let tag = tag.clone().ok_or_else(|| at("a pattern before the first section"))?;
                list.patterns.push((tag, line.to_owned()));
            }
        }
        Ok(list)
    }

    /// The messages that fail a run with these tags, in order.
    pub fn findings<'a>(&self, messages: &'a [Message], tags: &[String]) -> Vec<&'a Message> {
        let mut found = Vec::new();
        for message in messages {
            let suspect = message.level < NOTICE || FAULTS.iter().any(|f| message.text.contains(f));
            let allowed = || {
                self.patterns
                    .iter()
                    .any(|(tag, pattern)| (tag == "always" || tags.contains(tag)) && matches(pattern, &message.text))
            };
            if suspect && !allowed() {
                found.push(message);
            }
        }
        found
    }
}

/// Whether a pattern with `*` in it matches the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Fault reports on the serial console of a machine that did not live to send its log.
pub fn serial_faults(console: &str) -> Vec<String> {
    console.lines().filter(|line| FAULTS.iter().any(|fault| line.contains(fault))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
[always]
# The module is not in the kernel's tree.
reelfs: loading out-of-tree module taints kernel.

[stall]
# The suite breaks the disk on purpose.
Buffer I/O error on dev dm-*, logical block *
";

    #[test]
    fn only_listed_warnings_pass() {
        let list = AllowList::parse(LIST).unwrap();
        let log = "\
4,1,10,-;reelfs: loading out-of-tree module taints kernel.
3,2,11,-;Buffer I/O error on dev dm-0, logical block 9
 SUBSYSTEM=block
6,3,12,-;ext4 mounted
6,4,13,-;BUG: something at info level
12,5,14,-;a warning from user space
";
        let messages = parse(log);
        let texts = |tags: &[String]| -> Vec<String> {
            list.findings(&messages, tags).iter().map(|m| m.text.clone()).collect()
        };
        assert_eq!(texts(&["stall".to_owned()]), ["BUG: something at info level"]);
        assert_eq!(texts(&[]).len(), 2);
    }

    #[test]
    fn patterns_match_whole_messages() {
        assert!(matches("a*c", "abc"));
        assert!(matches("a*", "a"));
        assert!(!matches("a*b", "abc"));
        assert!(!matches("b", "abc"));
        assert!(matches("*x*y*", "0x1y2"));
        assert!(!matches("ab*ba", "aba"));
    }

    #[test]
    fn a_pattern_needs_a_reason() {
        assert!(AllowList::parse("[always]\nanything*\n").is_err());
        assert!(AllowList::parse("# why\nanything*\n").is_err());
    }
}
