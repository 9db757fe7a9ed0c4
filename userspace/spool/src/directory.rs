// SPDX-License-Identifier: GPL-2.0-or-later

//! The directory: `spool.toml`, the lock, the list of segments, their removal.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use reelfs_format::record::Lsn;
use reelfs_format::spool::{SegmentError, SEGMENT_HEADER_LEN};
use rustix::fs::{flock, FlockOperation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::SpoolError;
use crate::segment::{file_name, parse_file_name, Geometry, HeaderFault};

/// Name of the file that says which stream a spool keeps.
pub const META_NAME: &str = "spool.toml";
/// Name of the file whose lock a writer holds.
const LOCK_NAME: &str = "lock";
/// The version of `spool.toml` that this code writes, and the only one it reads.
const META_VERSION: u32 = 1;
/// Segments that are never removed: the newest, and the one in which its first record may begin. The end of the log
/// is found from them.
const KEPT: u64 = 2;
/// How often, and at which intervals, a lock that is held is tried.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(30);

/// What `spool.toml` says. Everything in it stands in every segment's header too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolMeta {
    /// The version of this file.
    pub version: u32,
    /// The stream.
    pub stream: Uuid,
    /// Timeline of the stream.
    pub timeline: u32,
    /// Length of a segment in bytes.
    pub segment: u64,
}

/// A segment file, as its header shows it.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Number of the segment.
    pub number: u64,
    /// The file.
    pub path: PathBuf,
    /// LSN of the first record that starts in it, or `None` where the header is not valid: prepared and not yet used,
    /// interrupted, or damaged.
    pub first_record: Option<Lsn>,
    /// Why it is not valid.
    pub fault: Option<SegmentError>,
}

/// A spool: a directory of segment files.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    geometry: Geometry,
    /// Held for as long as this lives; `None` when only reading.
    _lock: Option<File>,
}

impl Spool {
    /// The spool in `path`, which is made if there is none: a new stream, with segments of `segment_size` bytes.
    ///
    /// The second value says whether it was made. Takes the lock. What is made is on stable storage on return. The
    /// segment size of a spool that exists is the one it has. Sleeps.
    pub fn open_or_create(path: &Path, segment_size: u64) -> Result<(Spool, bool), SpoolError> {
        if path.join(META_NAME).try_exists().map_err(SpoolError::io("look for", path.join(META_NAME)))? {
            return Ok((Spool::open(path)?, false));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(SpoolError::io("create", path))?;
        let lock = lock(path)?;
        // Look again, now that nobody else can make one.
        if path.join(META_NAME).exists() {
            drop(lock);
            return Ok((Spool::open(path)?, false));
        }
        for entry in fs::read_dir(path).map_err(SpoolError::io("list", path))? {
            let name = entry.map_err(SpoolError::io("list", path))?.file_name();
            if ![LOCK_NAME, "lost+found", "spool.toml.new"].iter().any(|known| name == *known) {
                return Err(SpoolError::NotEmpty(path.to_path_buf()));
            }
        }
        if !Geometry::valid_size(segment_size) {
            return Err(SpoolError::Meta {
                path: path.join(META_NAME),
                reason: format!("a segment of {segment_size} bytes is not possible"),
            });
        }
        let meta = SpoolMeta { version: META_VERSION, stream: Uuid::new_v4(), timeline: 1, segment: segment_size };
        let text = toml::to_string(&meta)
            .map_err(|error| SpoolError::Meta { path: path.join(META_NAME), reason: error.to_string() })?;
        write_atomically(path, META_NAME, text.as_bytes())?;
        Ok((Spool { path: path.to_path_buf(), geometry: geometry(&meta), _lock: Some(lock) }, true))
    }

    /// The spool in `path`, for writing. Takes the lock: [`SpoolError::Locked`] if another process has it.
    pub fn open(path: &Path) -> Result<Spool, SpoolError> {
        let meta = read_meta(path)?;
        Ok(Spool { path: path.to_path_buf(), geometry: geometry(&meta), _lock: Some(lock(path)?) })
    }

    /// The spool in `path`, for reading beside a writer.
    pub fn open_read_only(path: &Path) -> Result<Spool, SpoolError> {
        let meta = read_meta(path)?;
        Ok(Spool { path: path.to_path_buf(), geometry: geometry(&meta), _lock: None })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stream, timeline and segment size.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The file of segment `number`.
    pub fn segment_path(&self, number: u64) -> PathBuf {
        self.path.join(file_name(number))
    }

    /// The segment files there are, by number. A header that is whole and belongs elsewhere is an error.
    pub fn segments(&self) -> Result<Vec<Segment>, SpoolError> {
        let mut segments = Vec::new();
        for number in self.numbers()? {
            let path = self.segment_path(number);
            let mut header = Vec::with_capacity(SEGMENT_HEADER_LEN);
            match File::open(&path) {
                Ok(file) => file
                    .take(SEGMENT_HEADER_LEN as u64)
                    .read_to_end(&mut header)
                    .map_err(SpoolError::io("read", &path))?,
                // Removed by the writer meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(SpoolError::io("open", path)(error)),
            };
            let (first_record, fault) = match self.geometry.check_header(number, &header) {
                Ok(first) => (Some(first), None),
                Err(HeaderFault::Format(fault)) => (None, Some(fault)),
                Err(HeaderFault::Foreign(what)) => return Err(SpoolError::Foreign { path, what }),
            };
            segments.push(Segment { number, path, first_record, fault });
        }
        Ok(segments)
    }

    /// The numbers of the segment files there are, ascending.
    pub fn numbers(&self) -> Result<Vec<u64>, SpoolError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(SpoolError::io("list", &self.path))? {
            let entry = entry.map_err(SpoolError::io("list", &self.path))?;
            numbers.extend(entry.file_name().to_str().and_then(parse_file_name));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether some process, this one included, has the spool for writing.
    pub(crate) fn has_writer(&self) -> Result<bool, SpoolError> {
        match lock(&self.path) {
            Ok(_) => Ok(false),
            Err(SpoolError::Locked(_)) => Ok(true),
            // Nobody writes where one cannot even open the lock.
            Err(SpoolError::Io { source, .. }) if source.kind() == ErrorKind::ReadOnlyFilesystem => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the segments that lie wholly below `lsn`, all but the two newest that hold bytes of the log, which ends
    /// at `end`. Returns how many went. The caller answers for their being on media.
    pub fn remove_below(&self, lsn: Lsn, end: Lsn) -> Result<u64, SpoolError> {
        let keep_from = (self.geometry.number(end) + 1).saturating_sub(KEPT).min(self.geometry.number(lsn));
        let mut removed = 0;
        // Oldest first: what is left is without holes whenever this stops.
        for number in self.numbers()?.into_iter().take_while(|&number| number < keep_from) {
            let path = self.segment_path(number);
            fs::remove_file(&path).map_err(SpoolError::io("remove", &path))?;
            removed += 1;
        }
        Ok(removed)
    }
}

fn geometry(meta: &SpoolMeta) -> Geometry {
    Geometry { stream: *meta.stream.as_bytes(), timeline: meta.timeline, segment_size: meta.segment }
}

fn read_meta(path: &Path) -> Result<SpoolMeta, SpoolError> {
    let file = path.join(META_NAME);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(SpoolError::NoSpool(path.to_path_buf())),
        Err(error) => return Err(SpoolError::io("read", file)(error)),
    };
    let wrong = |reason: String| SpoolError::Meta { path: file.clone(), reason };
    let meta: SpoolMeta = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if meta.version != META_VERSION {
        return Err(wrong(format!("version {}; this program reads {META_VERSION}", meta.version)));
    }
    if !Geometry::valid_size(meta.segment) || meta.timeline == 0 {
        return Err(wrong("impossible segment size or timeline".into()));
    }
    Ok(meta)
}

fn lock(path: &Path) -> Result<File, SpoolError> {
    let name = path.join(LOCK_NAME);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&name)
        .map_err(SpoolError::io("open", &name))?;
    for attempt in 0.. {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            // Somebody may only be looking, or be on its way out.
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(SpoolError::Locked(path.to_path_buf())),
            Err(error) => return Err(SpoolError::errno("lock", name)(error)),
        }
    }
    Ok(file)
}

/// Puts `bytes` under `name` in the directory `path`: whole and on stable storage, or not at all.
pub(crate) fn write_atomically(path: &Path, name: &str, bytes: &[u8]) -> Result<(), SpoolError> {
    let (new, target) = (path.join(format!("{name}.new")), path.join(name));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .map_err(SpoolError::io("create", &new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(SpoolError::io("write", &new))?;
    fs::rename(&new, &target).map_err(SpoolError::io("rename", &new))?;
    sync_directory(path)
}

/// Makes names in the directory `path` durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), SpoolError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(SpoolError::io("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 4 << 20;

    #[test]
    fn a_spool_keeps_its_stream_and_is_exclusive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let (spool, made) = Spool::open_or_create(&path, SIZE).unwrap();
        assert!(made);
        let geometry = *spool.geometry();
        assert!(matches!(Spool::open(&path), Err(SpoolError::Locked(_))));
        assert_eq!(*Spool::open_read_only(&path).unwrap().geometry(), geometry);
        drop(spool);
        let (spool, made) = Spool::open_or_create(&path, SIZE * 2).unwrap();
        assert!(!made);
        assert_eq!(*spool.geometry(), geometry);
    }

    #[test]
    fn a_directory_with_other_things_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(Spool::open_or_create(dir.path(), SIZE), Err(SpoolError::NotEmpty(_))));
        assert!(matches!(Spool::open(dir.path()), Err(SpoolError::NoSpool(_))));
    }

    #[test]
    fn bad_meta_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (text, reason) in [
            ("version = 1", "stream"),
            ("version = 2\nstream = \"6f0bb2f0-0b3c-4bd5-9cc4-6a6cd2a1a8a6\"\ntimeline = 1\nsegment = 4194304", "version 2"),
            ("version = 1\nstream = \"6f0bb2f0-0b3c-4bd5-9cc4-6a6cd2a1a8a6\"\ntimeline = 1\nsegment = 5", "segment size"),
            ("version = 1\nstream = \"6f0bb2f0-0b3c-4bd5-9cc4-6a6cd2a1a8a6\"\ntimeline = 1\nsegment = 4194304\nx = 1", "`x`"),
        ] {
            fs::write(dir.path().join(META_NAME), text).unwrap();
            let error = Spool::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
