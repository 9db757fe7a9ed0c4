// SPDX-License-Identifier: GPL-2.0-or-later

//! Sizes, durations and percentages as people write them: `64M`, `300s`, `80%`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A number of bytes. `K`, `M`, `G`, `T` are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no size; write a number with K, M, G or T behind it, as in \"64M\"");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].trim_end_matches("iB") {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Bytes).ok_or_else(wrong)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        match units.iter().find(|(shift, _)| self.0 >= 1 << shift) {
            Some((shift, unit)) if self.0 % (1 << shift) == 0 => write!(f, "{}{unit}", self.0 >> shift),
            Some((shift, unit)) => write!(f, "{:.1}{unit}", self.0 as f64 / (1u64 << shift) as f64),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A length of time: `500ms`, `30s`, `5m`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no length of time; write a number with ms, s, m, h or d, as in \"300s\"");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
        let scale = match &text[digits.len()..] {
            "ms" => return Ok(Time(Duration::from_millis(number))),
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return Err(wrong()),
        };
        number.checked_mul(scale).map(|seconds| Time(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

/// A part of a whole, `0%` to `100%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_suffix('%')
            .and_then(|digits| digits.parse().ok())
            .filter(|&percent| percent <= 100)
            .map(Percent)
            .ok_or_else(|| format!("'{text}' is no percentage; write it as in \"80%\""))
    }
}

macro_rules! deserialize_from_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

deserialize_from_text!(Bytes, Time, Percent);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("256K", 262_144), ("64M", 64 << 20), ("20GiB", 20 << 30)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
        }
        for text in ["", "M", "-1", "1.5G", "64MB", "64 m", "99999999999T"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert_eq!(Bytes(64 << 20).to_string(), "64M");
        assert_eq!(Bytes(1536).to_string(), "1.5K");
    }

    #[test]
    fn times_and_percentages() {
        assert_eq!("300s".parse(), Ok(Time(Duration::from_secs(300))));
        assert_eq!("2h".parse(), Ok(Time(Duration::from_secs(7200))));
        assert_eq!("20ms".parse(), Ok(Time(Duration::from_millis(20))));
        for text in ["", "5", "5 s s", "-1s", "1w"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        assert_eq!("80%".parse(), Ok(Percent(80)));
        for text in ["80", "101%", "-1%", "%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
