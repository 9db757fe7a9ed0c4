// SPDX-License-Identifier: GPL-2.0-or-later

//! The command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use reelfs_format::record::Lsn;
use uuid::Uuid;

use crate::show;

/// Restores, verifies and shows what reelfs wrote. Needs the volumes and nothing else.
#[derive(Debug, Parser)]
#[command(
    name = "reel",
    version,
    after_help = "Exit status: 0 done; 1 the operation failed; 2 wrong usage; 3 the media are damaged or incomplete; \
                  4 restored, but the target could not hold everything; 5 done, but the log has a gap: it lacks \
                  changes, and says which."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Rebuild the tree from its volumes
    Restore(Restore),
    /// Check volumes: structure, checksums, hashes, continuity, and that the log makes sense
    Verify(Verify),
    /// Print the records of volumes or of spool segments
    Dump(Dump),
    /// Label a volume, so that it can be written
    Label(Label),
    /// Say how much a checkpoint of a directory is, and how long reading it takes
    Estimate(Estimate),
    /// Make, show and check identities, which open encrypted volumes
    #[command(subcommand)]
    Key(Key),
    /// Have a running daemon make a checkpoint: the state of the whole tree goes into the log
    Checkpoint(Checkpoint),
    /// Ask running daemons how they are
    Status(Status),
}

/// A moment in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Everything before this position.
    Lsn(Lsn),
    /// Everything up to the first record made after this time, nanoseconds since 1970-01-01 UTC.
    Time(i64),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lsn = match text.strip_prefix("0x") {
            Some(digits) => Lsn::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let time = || show::parse_time(text).map(Moment::Time);
        lsn.map(Moment::Lsn).or_else(time).ok_or_else(|| {
            "neither an LSN (decimal, or hexadecimal with 0x) nor a time (2026-11-20T08:30:00Z, or @SECONDS)".into()
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("not a time span: use 90s, 15m or 2h".into()),
    };
    let count: u64 = digits.parse().map_err(|_| "not a time span: use 90s, 15m or 2h".to_owned())?;
    count.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "too long".into())
}

/// Which volumes.
#[derive(Debug, Args)]
pub struct Volumes {
    /// Volume files, directories of volume files, tape drives (/dev/nst0): in any order
    #[arg(required = true, value_name = "VOLUME")]
    pub volumes: Vec<PathBuf>,

    /// The stream to read, where the volumes hold several
    #[arg(long, value_name = "UUID")]
    pub stream: Option<Uuid>,

    /// Identity file that opens encrypted volumes (see reel key); may be given several times
    #[arg(long = "identity", short, value_name = "FILE")]
    pub identities: Vec<PathBuf>,

    /// How long to wait for a missing tape to be put into a drive (90s, 15m, 2h); without it, ask on a terminal,
    /// else fail
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    pub wait: Option<Duration>,

    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Arguments of `reel restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The directory that becomes the root of the tree; it has to be empty
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,

    /// The moment to restore: an LSN (everything before it) or a time, UTC
    #[arg(long, value_name = "LSN|TIME")]
    pub at: Option<Moment>,

    /// Take the log to end where the volumes given end, although it goes on or cannot be read any further
    #[arg(long)]
    pub end_here: bool,

    /// Restore into a directory that has entries; none is replaced
    #[arg(long)]
    pub non_empty: bool,

    /// Restore only this path, as it was called at that moment, with all that was below it; may be given several times.
    /// The volumes are read twice
    #[arg(long = "path", value_name = "PATH")]
    pub only: Vec<OsString>,

    /// Go on with the restore that was interrupted in the directory, from its last checkpoint
    #[arg(long)]
    pub resume: bool,

    /// Make a checkpoint at least every SIZE of log (K, M, G); one is made every half minute anyhow
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = size)]
    pub checkpoint: usize,

    /// Memory for the tree (K, M, G); what does not fit is kept in the directory meanwhile
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size)]
    pub memory: usize,

    /// Print which volumes are needed, how much is on them, about how long it will take, and do nothing
    #[arg(long)]
    pub plan: bool,

    /// Write to FILE which object of the log became which object here; DIR.identities without it
    #[arg(long, value_name = "FILE")]
    pub identity_map: Option<PathBuf>,

    /// Write no identity map
    #[arg(long, conflicts_with = "identity_map")]
    pub no_identity_map: bool,

    /// Write to FILE everything that the target could not hold, a line each
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,

    /// The volumes.
    #[command(flatten)]
    pub volumes: Volumes,
}

impl Restore {
    /// The paths that are wanted; all without any.
    pub fn paths(&self) -> Vec<Vec<u8>> {
        self.only.iter().map(|path| path.as_bytes().to_vec()).collect()
    }
}

/// Arguments of `reel verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,

    /// The volumes.
    #[command(flatten)]
    pub volumes: Volumes,
}

/// Arguments of `reel dump`.
#[derive(Debug, Args)]
pub struct Dump {
    /// Print a JSON object per line
    #[arg(long)]
    pub json: bool,

    /// Print the blocks of the volumes instead of the records
    #[arg(long)]
    pub blocks: bool,

    /// Print contents of files too, in hexadecimal
    #[arg(long)]
    pub data: bool,

    /// Begin with the first record at or behind this LSN, or made at or after this time
    #[arg(long, value_name = "LSN|TIME")]
    pub from: Option<Moment>,

    /// End before this LSN, or with the last record made up to this time
    #[arg(long, value_name = "LSN|TIME")]
    pub until: Option<Moment>,

    /// Only records about this object, as the dump names it
    #[arg(long, value_name = "IDENTITY")]
    pub object: Option<String>,

    /// The volumes, or segment files of a spool.
    #[command(flatten)]
    pub volumes: Volumes,
}

/// What can be done with identities.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make an identity file, and print the recipient that belongs into the configuration of the daemon
    Generate(KeyGenerate),
    /// Print the recipient of an identity file, or the identity itself for keeping on paper
    Show(KeyShow),
    /// Say whether an identity file is good, and which volumes it opens
    Check(KeyCheck),
}

/// Arguments of `reel key generate`.
#[derive(Debug, Args)]
pub struct KeyGenerate {
    /// Protect the file by a passphrase, which is asked for
    #[arg(long)]
    pub passphrase: bool,

    /// The file to make; it may not be there
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Arguments of `reel key show`.
#[derive(Debug, Args)]
pub struct KeyShow {
    /// Print the secret too, as a page to be kept in a safe
    #[arg(long)]
    pub paper: bool,

    /// The identity file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Arguments of `reel key check`.
#[derive(Debug, Args)]
pub struct KeyCheck {
    /// The identity file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Volume files, directories of volume files, tape drives
    #[arg(value_name = "VOLUME")]
    pub volumes: Vec<PathBuf>,
}

/// Arguments of `reel label`.
#[derive(Debug, Args)]
pub struct Label {
    /// Name of the volume: what is written on the cartridge
    #[arg(long)]
    pub name: String,

    /// Pool that the volume belongs to
    #[arg(long)]
    pub pool: String,

    /// Length of a block (K, M); tapes like it large
    #[arg(long, default_value = "256K", value_parser = size)]
    pub block_size: usize,

    /// Overwrite what is on the medium: takes the name that the volume has now (or "foreign")
    #[arg(long, value_name = "OLD-NAME")]
    pub overwrite: Option<String>,

    /// A tape drive, or a directory in which to make a volume file
    #[arg(value_name = "DEVICE|DIR")]
    pub medium: PathBuf,
}

/// Arguments of `reel estimate`.
#[derive(Debug, Args)]
pub struct Estimate {
    /// Read files for so many seconds to measure how fast they can be read
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,

    /// Print it as JSON
    #[arg(long)]
    pub json: bool,

    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,

    /// The directory that is to be protected
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Arguments of `reel checkpoint`.
#[derive(Debug, Args)]
pub struct Checkpoint {
    /// Wait until it is complete; fail if it does not come to its end
    #[arg(long)]
    pub wait: bool,

    /// Give up the one that is being made; it counts for nothing
    #[arg(long)]
    pub stop: bool,

    /// With --wait, print what the daemon says of it as JSON
    #[arg(long)]
    pub json: bool,

    /// Name of the daemon, or path of its socket; may be left out where there is one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Arguments of `reel status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Print what the daemons answer, a JSON object per line
    #[arg(long)]
    pub json: bool,

    /// Names of daemons, or paths of their sockets; all in /run/reelfs without any
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

fn size(text: &str) -> Result<usize, String> {
    let wrong = || "not a size: use bytes, or a number with K, M or G".to_owned();
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<usize>().ok().and_then(|count| count.checked_mul(factor)).ok_or_else(wrong)
}
