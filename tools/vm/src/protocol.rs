// SPDX-License-Identifier: GPL-2.0-or-later
//! What host and machine agree on: names of ports, disks and files, and the report.

use std::io::{self, BufRead, Read, Write};

/// Port that carries the command's standard output and error.
pub const OUTPUT_PORT: &str = "reelvm.output";
/// Port that carries `/dev/kmsg`, a record per line.
pub const KMSG_PORT: &str = "reelvm.kmsg";
/// Port that carries the [`Item`]s of the report.
pub const REPORT_PORT: &str = "reelvm.report";

/// Serial numbers of the disks that make up the machine itself.
pub const ROOT_DISK: &str = "reelvm-root";
/// The image with the kernel's modules.
pub const MODULES_DISK: &str = "reelvm-modules";
/// The image with what this run brings along.
pub const PAYLOAD_DISK: &str = "reelvm-payload";

/// Where the payload appears in the machine.
pub const PAYLOAD: &str = "/payload";
/// Files that the command leaves here are brought back to the host.
pub const RESULTS: &str = "/results";
/// Links to the data disks by name, in the machine.
pub const DISKS: &str = "/dev/disk/by-id";
/// Links to the extra ports by name, in the machine.
pub const PORTS: &str = "/dev/virtio-ports";
/// In the payload: the command and its arguments, each followed by a NUL.
pub const ARGV_FILE: &str = "argv";
/// In the payload: `NAME=VALUE`, each followed by a NUL.
pub const ENV_FILE: &str = "env";
/// In the payload: a line "TAG DIRECTORY" for each directory of the host to be mounted.
pub const SHARES_FILE: &str = "shares";
/// In the initramfs: file names of modules in the order in which they are loaded.
pub const MODULE_LIST: &str = "modules.list";
/// Written to the kernel log last, so that the reader of the log knows it has all.
pub const END_OF_LOG: &str = "reelvm: end of run";

/// One item of the report that the machine sends when the command has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The command's exit status; 128 plus the number if a signal ended it.
    Status(i32),
    /// Something that should have been gone by the end.
    Left(String),
    /// The machine could not be set up, or not be looked over at the end.
    Trouble(String),
    /// A file from [`RESULTS`], by its path relative to there.
    File(String, Vec<u8>),
    /// Nothing follows: the report is complete.
    End,
}

impl Item {
    /// Writes the item in one piece.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let line = |text: &str| text.replace(['\n', '\r'], " ");
        let mut bytes = match self {
            Self::Status(status) => format!("status {status}\n"),
            Self::Left(what) => format!("left {}\n", line(what)),
            Self::Trouble(what) => format!("trouble {}\n", line(what)),
            Self::File(name, contents) => format!("file {} {}\n", contents.len(), line(name)),
            Self::End => "end\n".to_owned(),
        }
        .into_bytes();
        if let Self::File(_, contents) = self {
            bytes.extend_from_slice(contents);
        }
        out.write_all(&bytes)
    }

    /// Reads the next item; `None` at the end of the input, also in the middle of an
    /// item (the machine died while it reported).
    pub fn read_from(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Ok(None);
        }
        let line = line.trim_end_matches('\n');
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let malformed = || io::Error::other(format!("malformed report: {line:?}"));
        Ok(Some(match word {
            "status" => Self::Status(rest.parse().map_err(|_| malformed())?),
            "left" => Self::Left(rest.to_owned()),
            "trouble" => Self::Trouble(rest.to_owned()),
            "file" => {
                let (length, name) = rest.split_once(' ').ok_or_else(malformed)?;
                let length: u64 = length.parse().map_err(|_| malformed())?;
                let mut contents = Vec::new();
                if input.take(length).read_to_end(&mut contents)? as u64 != length {
                    return Ok(None);
                }
                Self::File(name.to_owned(), contents)
            }
            "end" => Self::End,
            _ => return Err(malformed()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_as_it_was_sent() {
        let items = [
            Item::Status(3),
            Item::Left("process 7 (reeld)\nwith a line break".to_owned()),
            Item::File("a b".to_owned(), b"\0\nend\n".to_vec()),
            Item::End,
        ];
        let mut bytes = Vec::new();
        for item in &items {
            item.write_to(&mut bytes).unwrap();
        }
        let mut input = &bytes[..];
        assert_eq!(Item::read_from(&mut input).unwrap(), Some(Item::Status(3)));
        let left = Item::Left("process 7 (reeld) with a line break".to_owned());
        assert_eq!(Item::read_from(&mut input).unwrap(), Some(left));
        assert_eq!(Item::read_from(&mut input).unwrap().as_ref(), Some(&items[2]));
        assert_eq!(Item::read_from(&mut input).unwrap(), Some(Item::End));
        assert_eq!(Item::read_from(&mut input).unwrap(), None);
        // Cut off in the middle of a file.
        let mut input = &bytes[..bytes.len() - 6];
        while Item::read_from(&mut input).unwrap().is_some() {}
    }
}
