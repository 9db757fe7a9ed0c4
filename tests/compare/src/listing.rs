// SPDX-License-Identifier: GPL-2.0-or-later

//! A tree as text: one line for each name, sorted, the attributes as `key=value` fields behind it.
//!
//! The first line names the format and the block size of the data maps. Names, keys and values are
//! [escaped](crate::escape), so a line has no blanks but those between its fields; two listings of equal trees are equal
//! files, and `diff(1)` can be used on them.

use crate::escape::{escape, unescape};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

/// First word of a listing.
const MAGIC: &str = "treecmp-listing-1";

/// The attributes of one name: key to value. A key that is not there has its default.
pub type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

/// A tree: path, relative to its root, to attributes. The root itself is `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Data maps are in units of this, in bytes.
    pub block: u64,
    /// Every name in the tree.
    pub entries: BTreeMap<Vec<u8>, Fields>,
}

impl Listing {
    /// Writes the listing as text.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "{MAGIC} block={}", self.block)?;
        for (path, fields) in &self.entries {
            write!(to, "{}", escape(path))?;
            for (key, value) in fields {
                // Of the keys only the names of xattrs can have a `=` in them; the first one ends the key.
                write!(to, " {}={}", escape(key).replace('=', "\\x3d"), escape(value))?;
            }
            writeln!(to)?;
        }
        // Without the last line a file that was cut short would pass for a smaller tree.
        writeln!(to, "{MAGIC} entries={}", self.entries.len())
    }

    /// Reads what [`Listing::write`] wrote.
    ///
    /// Errors: those of reading; `InvalidData`, naming the line, for anything else than a whole listing.
    pub fn read(from: impl BufRead) -> io::Result<Self> {
        let wrong =
            |line: usize, what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("line {line}: {what}"));
        let head = |text: &str, key: &str| -> Option<u64> {
            text.strip_prefix(MAGIC)?.strip_prefix(' ')?.strip_prefix(key)?.strip_prefix('=')?.parse().ok()
        };
        let mut lines = from.lines().enumerate();
        let first = lines.next().ok_or_else(|| wrong(1, "not a listing"))?.1?;
        let block = head(&first, "block").filter(|&block| block > 0).ok_or_else(|| wrong(1, "not a listing"))?;
        let mut entries = BTreeMap::new();
        let mut end = None;
        let mut last = 1;
        for (index, line) in lines {
            last = index + 1;
            let line = line?;
            if end.is_some() {
                return Err(wrong(last, "goes on behind its end"));
            }
            if let Some(count) = head(&line, "entries") {
                end = Some(count);
                continue;
            }
            let mut words = line.split(' ');
            let path = words.next().and_then(unescape).ok_or_else(|| wrong(last, "not a path"))?;
            let mut fields = Fields::new();
            for word in words {
                let (key, value) = word
                    .split_once('=')
                    .and_then(|(key, value)| Some((unescape(key)?, unescape(value)?)))
                    .ok_or_else(|| wrong(last, "not a field"))?;
                if fields.insert(key, value).is_some() {
                    return Err(wrong(last, "a field stands twice"));
                }
            }
            if entries.insert(path, fields).is_some() {
                return Err(wrong(last, "a path stands twice"));
            }
        }
        if end != u64::try_from(entries.len()).ok() {
            return Err(wrong(last, "the end is missing"));
        }
        Ok(Listing { block, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Listing {
        let mut entries = BTreeMap::new();
        entries.insert(b".".to_vec(), Fields::from([(b"type".to_vec(), b"directory".to_vec())]));
        entries.insert(
            b"a\xff b".to_vec(),
            Fields::from([
                (b"type".to_vec(), b"file".to_vec()),
                (b"xattr:user.x=y".to_vec(), b"\0\n=".to_vec()),
                (b"xattr:user.empty".to_vec(), b"".to_vec()),
            ]),
        );
        Listing { block: 4096, entries }
    }

    fn text(listing: &Listing) -> Vec<u8> {
        let mut bytes = Vec::new();
        listing.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_listing_comes_back() {
        assert_eq!(Listing::read(&text(&sample())[..]).unwrap(), sample());
    }

    #[test]
    fn a_listing_cut_short_is_refused_wherever_it_is_cut() {
        let whole = text(&sample());
        for end in 0..whole.len() - 1 {
            assert!(Listing::read(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn more_behind_the_end_is_refused() {
        let mut long = text(&sample());
        long.extend_from_slice(b"x type=file\n");
        assert!(Listing::read(&long[..]).is_err());
    }
}
