// SPDX-License-Identifier: GPL-2.0-or-later
//! What is reported of a test: a line of text, made in the machine, kept on the host.

use std::fmt;

/// What the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The lower filesystem itself.
    Lower,
    /// overlayfs with all its layers on the lower filesystem.
    Overlay,
    /// reelfs, mounted over the lower filesystem.
    Reelfs,
}

impl Subject {
    /// All of them, in the order in which they are run and shown.
    pub const ALL: [Subject; 3] = [Subject::Lower, Subject::Overlay, Subject::Reelfs];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Lower => "lower",
            Subject::Overlay => "overlayfs",
            Subject::Reelfs => "reelfs",
        }
    }

    /// The subject of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subject| subject.name() == name)
    }
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Pass,
    /// Otherwise.
    Fail,
    /// It found that it cannot run here.
    NotRun,
    /// It may have passed, but what replaying the log gives is not what the lower filesystem holds.
    Differs,
}

impl Outcome {
    const ALL: [Outcome; 4] = [Outcome::Pass, Outcome::Fail, Outcome::NotRun, Outcome::Differs];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::NotRun => "notrun",
            Outcome::Differs => "differs",
        }
    }

    /// The outcome of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// One test that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name, as in `generic/001`.
    pub test: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, in seconds of the machine.
    pub seconds: u64,
    /// Why it ended so, and what else there is to know.
    pub reason: String,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The test is about to run. A machine that dies now dies of it.
    Begin(String),
    /// A test has ended.
    End(Ended),
    /// The machine cannot go on, and the next test has to have a new one.
    Stop(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flat = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        match self {
            Line::Begin(test) => writeln!(f, "begin\t{}", flat(test)),
            Line::End(end) => {
                writeln!(f, "end\t{}\t{}\t{}\t{}", flat(&end.test), end.outcome.name(), end.seconds, flat(&end.reason))
            }
            Line::Stop(why) => writeln!(f, "stop\t{}", flat(why)),
        }
    }
}

/// The lines of a journal. The last one may have been cut off with the machine's power; what is no line is left out.
pub fn parse(text: &str) -> Vec<Line> {
    text.split_inclusive('\n').filter_map(|line| parse_line(line.strip_suffix('\n')?)).collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut fields = line.splitn(5, '\t');
    Some(match fields.next()? {
        "begin" => Line::Begin(fields.next()?.to_owned()),
        "end" => Line::End(Ended {
            test: fields.next()?.to_owned(),
            outcome: Outcome::of(fields.next()?)?,
            seconds: fields.next()?.parse().ok()?,
            reason: fields.next()?.to_owned(),
        }),
        "stop" => Line::Stop(fields.next()?.to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_comes_back() {
        let end = Ended { test: "generic/001".into(), outcome: Outcome::Differs, seconds: 7, reason: "a\tb\nc".into() };
        let lines = [Line::Begin("generic/001".into()), Line::End(end.clone()), Line::Stop("hung".into())];
        let text: String = lines.iter().map(ToString::to_string).collect();
        let flat = Line::End(Ended { reason: "a b c".into(), ..end });
        assert_eq!(parse(&text), [lines[0].clone(), flat, lines[2].clone()]);
        // Cut off in the last line, or damaged in the middle.
        assert_eq!(parse(&text[..text.len() - 1]).len(), 2);
        assert_eq!(parse("end\tgeneric/001\tperhaps\t7\t\nbegin\tgeneric/002\n"), [Line::Begin("generic/002".into())]);
    }
}
