// SPDX-License-Identifier: GPL-2.0-or-later

//! Names and values as text: any bytes in, one printable word out, and back without loss.

/// `bytes` as printable ASCII without blanks: everything else, and the backslash, becomes `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'!'..=b'~' if byte != b'\\' => text.push(char::from(byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

/// The bytes that [`escape`] made `text` of, or `None` if it did not.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'\\' => {
                let code = rest.strip_prefix(b"x")?.get(..2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
                rest = rest.get(3..)?;
            }
            b'!'..=b'~' => bytes.push(byte),
            _ => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)), Some(all));
        assert_eq!(escape(b"a b\\\n"), "a\\x20b\\x5c\\x0a");
    }

    #[test]
    fn what_escape_does_not_make_is_refused() {
        for text in ["a b", "\\", "\\x", "\\x1", "\\xzz", "\\n", "\u{e4}"] {
            assert_eq!(unescape(text), None, "{text:?}");
        }
    }
}
