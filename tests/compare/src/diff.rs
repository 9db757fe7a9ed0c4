// SPDX-License-Identifier: GPL-2.0-or-later

//! What differs between two listings.

use crate::escape::escape;
use crate::listing::{Fields, Listing};
use std::fmt;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A name that only the first tree has, and its type.
    OnlyInFirst(Vec<u8>, Vec<u8>),
    /// A name that only the second tree has, and its type.
    OnlyInSecond(Vec<u8>, Vec<u8>),
    /// A name that both have: the key of the attribute, and its values; `None` where it has its default.
    Attribute {
        /// The name.
        path: Vec<u8>,
        /// The attribute.
        key: Vec<u8>,
        /// Its value in the first tree.
        first: Option<Vec<u8>>,
        /// Its value in the second tree.
        second: Option<Vec<u8>>,
    },
}

/// Longest value that is printed whole, in characters.
const PRINTED: usize = 120;

fn shortened(value: &Option<Vec<u8>>) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) if value.is_empty() => "empty".to_owned(),
        Some(value) => {
            let text = escape(value);
            match text.get(..PRINTED) {
                Some(start) if text.len() > PRINTED => format!("{start}... ({} bytes)", value.len()),
                _ => text,
            }
        }
    }
}

/// Where two values that are too long to be printed first part, if they are.
fn parting(first: &Option<Vec<u8>>, second: &Option<Vec<u8>>) -> String {
    match (first, second) {
        (Some(first), Some(second)) if first.len().max(second.len()) > PRINTED => {
            let at = first.iter().zip(second).position(|(a, b)| a != b).unwrap_or(first.len().min(second.len()));
            let from = |value: &[u8]| escape(value.get(at..value.len().min(at + 60)).unwrap_or_default());
            format!("; from character {at} on: {} and {}", from(first), from(second))
        }
        _ => String::new(),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyInFirst(path, kind) => write!(f, "{}: only in the first ({})", escape(path), escape(kind)),
            Self::OnlyInSecond(path, kind) => write!(f, "{}: only in the second ({})", escape(path), escape(kind)),
            Self::Attribute { path, key, first, second } => write!(
                f,
                "{}: {}: {} in the first, {} in the second{}",
                escape(path),
                escape(key),
                shortened(first),
                shortened(second),
                parting(first, second)
            ),
        }
    }
}

fn kind(fields: &Fields) -> Vec<u8> {
    fields.get(b"type".as_slice()).cloned().unwrap_or_default()
}

/// Every difference between the two, in the order of the paths.
pub fn compare(first: &Listing, second: &Listing) -> Vec<Difference> {
    let mut found = Vec::new();
    for (path, mine) in &first.entries {
        let Some(theirs) = second.entries.get(path) else {
            found.push(Difference::OnlyInFirst(path.clone(), kind(mine)));
            continue;
        };
        let added = theirs.keys().filter(|key| !mine.contains_key(*key));
        for key in mine.keys().chain(added) {
            let (a, b) = (mine.get(key), theirs.get(key));
            if a != b {
                found.push(Difference::Attribute {
                    path: path.clone(),
                    key: key.clone(),
                    first: a.cloned(),
                    second: b.cloned(),
                });
            }
        }
    }
    for (path, theirs) in &second.entries {
        if !first.entries.contains_key(path) {
            found.push(Difference::OnlyInSecond(path.clone(), kind(theirs)));
        }
    }
    found
}
