// SPDX-License-Identifier: GPL-2.0-or-later

//! The configuration file: one for each mount, in TOML. `reelfs.toml(5)` describes it.
//!
//! What can be judged from the file alone is judged here; what needs a look at the machine is in [`crate::check`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use reelfs_format::spool::{SEGMENT_SIZE_DEFAULT, SEGMENT_SIZE_MAX, SEGMENT_SIZE_MIN};
use reelfs_format::volume::{BLOCK_SIZE_DEFAULT, BLOCK_SIZE_MAX, BLOCK_SIZE_MIN};
use reelfs_keys::Recipients;
use serde::{Deserialize, Deserializer};

use crate::units::{Bytes, Percent, Time};

/// The spool has to hold at least this many segments: two that are always kept, one being filled, one being prepared.
pub const SEGMENTS_MIN: u64 = 4;

/// More recipients than this might not fit a small block.
const RECIPIENTS_MAX: usize = 16;

/// A configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where reelfs is mounted.
    pub mount: PathBuf,
    /// The spool.
    pub spool: SpoolConfig,
    /// Where the log goes.
    pub media: MediaConfig,
    /// When it goes there.
    #[serde(default)]
    pub stream: StreamConfig,
    /// When checkpoints are made.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// The daemon itself.
    #[serde(default)]
    pub daemon: DaemonConfig,
    /// The name of the file without its ending: what the mount is called.
    #[serde(skip)]
    pub name: String,
    /// The file.
    #[serde(skip)]
    pub path: PathBuf,
}

/// `[spool]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// The directory; made where it does not exist.
    pub directory: PathBuf,
    /// Length of a segment, for a spool that is new.
    #[serde(default = "default_segment")]
    pub segment: Bytes,
    /// All segment files together are never larger than this.
    pub limit: Bytes,
    /// Fill level from which on the daemon warns.
    #[serde(default = "default_warn")]
    pub warn: Percent,
    /// The spool may lie on the filesystem below the mount: one disk holds both, so losing it loses what is not on
    /// media yet.
    #[serde(default)]
    pub same_filesystem: bool,
}

/// What kind of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MediaKind {
    /// Volume files in a directory.
    Directory,
    /// Tapes.
    Tape,
}

/// `[media]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaConfig {
    /// What kind.
    pub kind: MediaKind,
    /// The pool that the volumes belong to.
    pub pool: String,
    /// Directory: where the volume files are.
    pub path: Option<PathBuf>,
    /// Directory: at what length a volume file is full.
    pub capacity: Option<Bytes>,
    /// Directory: length of a block of new volume files.
    pub block: Option<Bytes>,
    /// Tape: the non-rewinding devices, in the order in which they are used.
    #[serde(default)]
    pub devices: Vec<PathBuf>,
    /// What is run when a volume is needed that is not there.
    pub on_wait: Option<String>,
    /// How hard to compress.
    #[serde(default)]
    pub compression: Compression,
    /// Who shall be able to open the volumes; without any they are not encrypted.
    #[serde(default)]
    pub recipients: Vec<String>,
}

/// The level at which nobody waits and most is gained.
const COMPRESSION_DEFAULT: i32 = 3;
/// The highest level that takes no extraordinary memory.
const COMPRESSION_MAX: i32 = 19;

/// `media.compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Off,
    /// zstd at this level.
    Level(i32),
}

impl Compression {
    /// The level, if there is to be any compression.
    pub fn level(self) -> Option<i32> {
        match self {
            Compression::Off => None,
            Compression::Level(level) => Some(level),
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Compression::Level(COMPRESSION_DEFAULT)
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Level(i32),
            Word(String),
        }
        match Value::deserialize(from) {
            Ok(Value::Level(level)) if (1..=COMPRESSION_MAX).contains(&level) => Ok(Compression::Level(level)),
            Ok(Value::Word(word)) if word == "off" => Ok(Compression::Off),
            _ => Err(serde::de::Error::custom(format!(
                "media.compression: neither \"off\" nor a level from 1 to {COMPRESSION_MAX}"
            ))),
        }
    }
}

/// `[stream]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// A burst begins when this much is waiting.
    pub high: Bytes,
    /// A burst that `high` began ends when no more than this is waiting.
    pub low: Bytes,
    /// A burst begins when something has been waiting for this long.
    pub age: Time,
}

/// `[checkpoint]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Whether one is made without being asked for when the log lacks what is in the tree: at the first mount of a tree that
    /// is not empty, after a mount that did not end cleanly, after a gap.
    pub resync: bool,
    /// When the log has grown by this much since the last one.
    pub every_bytes: Option<Bytes>,
    /// When this much time has passed since the last one.
    pub every_time: Option<Time>,
}

/// `[daemon]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonConfig {
    /// The control socket; default `/run/reelfs/NAME.sock`.
    pub socket: Option<PathBuf>,
    /// How long stopping may take.
    pub drain: Time,
    /// Level of logging: error, warn, info, debug or trace.
    pub log: String,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { resync: true, every_bytes: None, every_time: None }
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        StreamConfig { high: Bytes(256 << 20), low: Bytes(0), age: Time(Duration::from_secs(300)) }
    }
}

impl Default for DaemonConfig {
    fn default() -> Self {
        DaemonConfig { socket: None, drain: Time(Duration::from_secs(60)), log: "info".into() }
    }
}

fn default_segment() -> Bytes {
    Bytes(SEGMENT_SIZE_DEFAULT)
}

fn default_warn() -> Percent {
    Percent(80)
}

impl Config {
    /// The configuration in `path`, every value judged as far as it can be from the file alone.
    pub fn load(path: &Path) -> Result<Config> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config: Config = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        config.path = fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
        config.name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        config.judge().with_context(|| format!("in {}", path.display()))?;
        Ok(config)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        let default = || Path::new("/run/reelfs").join(format!("{}.sock", self.name));
        self.daemon.socket.clone().unwrap_or_else(default)
    }

    fn judge(&self) -> Result<()> {
        let absolute = [("mount", Some(&self.mount)), ("spool.directory", Some(&self.spool.directory))]
            .into_iter()
            .chain([("media.path", self.media.path.as_ref()), ("daemon.socket", self.daemon.socket.as_ref())])
            .chain(self.media.devices.iter().map(|device| ("media.devices", Some(device))));
        for (key, path) in absolute {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                bail!("{key}: '{}' is not an absolute path", path.display());
            }
        }
        let segment = self.spool.segment.0;
        if !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&segment) || segment % 4096 != 0 {
            let (min, max) = (Bytes(SEGMENT_SIZE_MIN), Bytes(SEGMENT_SIZE_MAX));
            bail!("spool.segment: {} is not between {min} and {max} and a multiple of 4K", self.spool.segment);
        }
        if self.spool.limit.0 < SEGMENTS_MIN * (segment + 4096) {
            bail!(
                "spool.limit: {} is too small for segments of {}; at least {SEGMENTS_MIN} segments and {} are needed",
                self.spool.limit,
                self.spool.segment,
                Bytes(SEGMENTS_MIN * 4096)
            );
        }
        reelfs_media::label::NewLabel::new(&self.media.pool, &self.media.pool)
            .build()
            .with_context(|| format!("media.pool: '{}'", self.media.pool))?;
        match self.media.kind {
            MediaKind::Directory => {
                if self.media.path.is_none() {
                    bail!("media.path is missing: with kind = \"directory\" it says where the volume files are");
                }
                if !self.media.devices.is_empty() {
                    bail!("media.devices goes with kind = \"tape\"");
                }
            }
            MediaKind::Tape => {
                if self.media.devices.is_empty() {
                    bail!("media.devices is missing: with kind = \"tape\" it names the drives, as in [\"/dev/nst0\"]");
                }
                for (key, set) in [
                    ("path", self.media.path.is_some()),
                    ("capacity", self.media.capacity.is_some()),
                    ("block", self.media.block.is_some()),
                ] {
                    if set {
                        bail!("media.{key} goes with kind = \"directory\"; a tape has it from its label");
                    }
                }
            }
        }
        let block = self.block_size() as u64;
        if !(BLOCK_SIZE_MIN as u64..=BLOCK_SIZE_MAX as u64).contains(&block) || block % 4096 != 0 {
            let (min, max) = (Bytes(BLOCK_SIZE_MIN as u64), Bytes(BLOCK_SIZE_MAX as u64));
            bail!("media.block: {} is not between {min} and {max} and a multiple of 4K", Bytes(block));
        }
        if let Some(capacity) = self.media.capacity.filter(|capacity| capacity.0 < 16 * block) {
            bail!("media.capacity: {capacity} is less than 16 blocks of {}", Bytes(block));
        }
        if self.stream.low.0 >= self.stream.high.0 {
            bail!("stream.low: {} is not below stream.high, {}", self.stream.low, self.stream.high);
        }
        if self.stream.high.0 > self.spool.limit.0 / 2 {
            bail!(
                "stream.high: {} is more than half of spool.limit, {}: the spool would be full before a burst has room to begin",
                self.stream.high,
                self.spool.limit
            );
        }
        if self.stream.age.0.is_zero() {
            bail!("stream.age: may not be zero");
        }
        self.recipients()?;
        if let Some(bytes) = self.checkpoint.every_bytes.filter(|bytes| bytes.0 < segment) {
            bail!("checkpoint.every_bytes: {bytes} is less than a segment, {}", self.spool.segment);
        }
        if self.checkpoint.every_time.is_some_and(|time| time.0 < Duration::from_secs(60)) {
            bail!("checkpoint.every_time: less than a minute");
        }
        self.log_level()?;
        Ok(())
    }

    /// Who shall be able to open the volumes, if they are to be encrypted.
    pub fn recipients(&self) -> Result<Option<Recipients>> {
        if self.media.recipients.is_empty() {
            return Ok(None);
        }
        if self.media.recipients.len() > RECIPIENTS_MAX {
            bail!("media.recipients: more than {RECIPIENTS_MAX}");
        }
        Recipients::parse(&self.media.recipients).map(Some).context("media.recipients")
    }

    /// Length of a block of new volume files, in bytes.
    pub fn block_size(&self) -> usize {
        self.media.block.map_or(BLOCK_SIZE_DEFAULT, |block| usize::try_from(block.0).unwrap_or(usize::MAX))
    }

    /// The level of logging.
    pub fn log_level(&self) -> Result<log::LevelFilter> {
        match self.daemon.log.parse() {
            Ok(level) => Ok(level),
            Err(_) => bail!("daemon.log: '{}' is none of error, warn, info, debug, trace", self.daemon.log),
        }
    }

    /// Number of segment files that the limit allows, for segments of `segment_size` bytes.
    pub fn segments_max(&self, segment_size: u64) -> u64 {
        self.spool.limit.0 / (segment_size + 4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        mount = "/data"
        [spool]
        directory = "/var/spool/reelfs/data"
        limit = "2G"
        [media]
        kind = "directory"
        pool = "daily"
        path = "/media/reel"
    "#;

    fn load(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("data.toml");
        fs::write(&path, text)?;
        Config::load(&path)
    }

    #[test]
    fn a_short_configuration_has_sensible_values() {
        let config = load(GOOD).unwrap();
        assert_eq!(config.name, "data");
        assert_eq!(config.spool.segment, Bytes(SEGMENT_SIZE_DEFAULT));
        assert_eq!(config.socket(), Path::new("/run/reelfs/data.sock"));
        assert_eq!(config.stream.age.0, Duration::from_secs(300));
        assert_eq!(config.media.compression, Compression::Level(3));
        assert!(config.recipients().unwrap().is_none());
    }

    #[test]
    fn compression_is_a_level_or_off() {
        for (text, expected) in [("\"off\"", Compression::Off), ("19", Compression::Level(19))] {
            let config = load(&GOOD.replace("[media]", &format!("[media]\ncompression = {text}"))).unwrap();
            assert_eq!(config.media.compression, expected);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, named) in [
            ("mount = \"/data\"", "", "mount"),
            ("mount = \"/data\"", "mount = \"data\"", "mount"),
            ("limit = \"2G\"", "limit = \"2G\"\nlimmit = \"3G\"", "limmit"),
            ("limit = \"2G\"", "limit = \"100M\"", "spool.limit"),
            ("limit = \"2G\"", "limit = \"2G\"\nsegment = \"5000\"", "spool.segment"),
            ("limit = \"2G\"", "limit = \"many\"", "'many' is no size"),
            ("limit = \"2G\"", "limit = \"2G\"\nwarn = \"120%\"", "120%"),
            ("path = \"/media/reel\"", "", "media.path"),
            ("path = \"/media/reel\"", "path = \"/media/reel\"\ndevices = [\"/dev/nst0\"]", "media.devices"),
            ("path = \"/media/reel\"", "path = \"/media/reel\"\nblock = \"5000\"", "media.block"),
            ("path = \"/media/reel\"", "path = \"/media/reel\"\ncapacity = \"1M\"", "media.capacity"),
            ("path = \"/media/reel\"", "path = \"/media/reel\"\ncompression = 20", "media.compression"),
            ("path = \"/media/reel\"", "path = \"/media/reel\"\ncompression = \"much\"", "media.compression"),
            ("path = \"/media/reel\"", "path = \"/media/reel\"\nrecipients = [\"age1x\"]", "age1x"),
            ("kind = \"directory\"", "kind = \"punchcards\"", "punchcards"),
            ("kind = \"directory\"", "kind = \"tape\"", "media.devices"),
            ("pool = \"daily\"", "pool = \"dai/ly\"", "media.pool"),
            ("[media]", "[stream]\nlow = \"1G\"\n[media]", "stream.low"),
            ("[media]", "[stream]\nhigh = \"2G\"\n[media]", "stream.high"),
            ("[media]", "[stream]\nage = \"0s\"\n[media]", "stream.age"),
            ("[media]", "[checkpoint]\nevery_bytes = \"1M\"\n[media]", "checkpoint.every_bytes"),
            ("[media]", "[checkpoint]\nevery_time = \"1s\"\n[media]", "checkpoint.every_time"),
            ("[media]", "[checkpoint]\nevery = \"1d\"\n[media]", "every"),
            ("[media]", "[daemon]\nlog = \"loud\"\n[media]", "daemon.log"),
        ] {
            let error = format!("{:#}", load(&GOOD.replace(from, to)).unwrap_err());
            assert!(error.contains(named), "{to}: {error}");
        }
    }
}
