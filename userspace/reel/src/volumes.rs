// SPDX-License-Identifier: GPL-2.0-or-later

//! The volumes that the operator named: which they are, in what order they belong, and which are missing.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reelfs_format::record::Lsn;
use reelfs_format::volume::{SegmentEnd, Trailer, VolumeStart, TRAILER_FULL};
use reelfs_keys::Identities;
use reelfs_media::directory::VolumeFile;
use reelfs_media::key::{self, VolumeKey, WrappedKey};
use reelfs_media::label;
use reelfs_media::library::volume_files;
use reelfs_media::reader::{ReadError, VolumeSource, Wanted};
use reelfs_media::tape::Tape;
use reelfs_media::writer::{inspect, Inspection, WriteError};
use reelfs_media::{Medium, MediumError, Position};
use uuid::Uuid;

use crate::args::{Moment, Volumes};
use crate::identity;
use crate::outcome::Failure;
use crate::show;

/// Between two looks into the drives while waiting for a tape.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A volume file.
    File(PathBuf),
    /// The tape in a drive.
    Drive(PathBuf),
}

impl Location {
    /// The path.
    pub fn path(&self) -> &Path {
        match self {
            Location::File(path) | Location::Drive(path) => path,
        }
    }

    /// Opens it for reading.
    pub fn open(&self) -> Result<Box<dyn Medium>, MediumError> {
        Ok(match self {
            Location::File(path) => Box::new(VolumeFile::open(path)?),
            Location::Drive(path) => Box::new(Tape::open(path)?),
        })
    }
}

/// What is named: volume files, those in directories, drives.
pub fn locations(paths: &[PathBuf]) -> Result<Vec<Location>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let data = std::fs::metadata(path).map_err(|error| Failure::io(path.display(), error))?;
        if data.is_dir() {
            let files = volume_files(path).map_err(|error| Failure::io(path.display(), error))?;
            found.extend(files.into_iter().map(Location::File));
        } else if data.is_file() {
            found.push(Location::File(path.clone()));
        } else {
            found.push(Location::Drive(path.clone()));
        }
    }
    Ok(found)
}

/// A volume that was found.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where it is.
    pub location: Location,
    /// Its name.
    pub name: String,
    /// UUID of the volume.
    pub volume: [u8; 16],
    /// Name of its pool.
    pub pool: String,
    /// How it begins.
    pub start: VolumeStart,
    /// The stream.
    pub stream: [u8; 16],
    /// Timeline of the stream.
    pub timeline: u32,
    /// How far the log on it reaches.
    pub end_lsn: Lsn,
    /// How it ends.
    pub trailer: Option<Trailer>,
    /// The last segment that is complete on it, and where it says so.
    pub segment_end: Option<(SegmentEnd, Position)>,
}

impl Known {
    /// Its place in the set.
    pub fn sequence(&self) -> u64 {
        self.start.sequence.get()
    }
}

/// What the operator named.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Volumes that hold a part of a log, in order.
    pub volumes: Vec<Known>,
    /// Drives, empty or not.
    pub drives: Vec<PathBuf>,
    /// What else was found, and why it is of no use.
    pub useless: Vec<String>,
}

/// Looks at what is named: volume files, directories of volume files, tape drives.
pub fn find(paths: &[PathBuf]) -> Result<Found, Failure> {
    let mut found = Found::default();
    for path in paths {
        let data = std::fs::metadata(path).map_err(|error| Failure::io(path.display(), error))?;
        let kind = data.file_type();
        if kind.is_dir() {
            let files = volume_files(path).map_err(|error| Failure::io(path.display(), error))?;
            if files.is_empty() {
                found.useless.push(format!("{}: no volume files in it", path.display()));
            }
            for file in files {
                found.look(Location::File(file));
            }
        } else if kind.is_char_device() {
            found.drives.push(path.clone());
            found.look(Location::Drive(path.clone()));
        } else if kind.is_file() {
            found.look(Location::File(path.clone()));
        } else {
            return Err(Failure::Usage(format!("{}: neither a volume file nor a tape drive", path.display())));
        }
    }
    found.volumes.sort_by_key(|known| (known.stream, known.timeline, known.sequence()));
    Ok(found)
}

impl Found {
    fn look(&mut self, location: Location) {
        match known(location) {
            Ok(known) => self.volumes.push(known),
            Err(why) => self.useless.push(why),
        }
    }

    /// The volumes of one stream: of the one that is named, or of the only one.
    pub fn select(mut self, stream: Option<Uuid>) -> Result<Set, Failure> {
        let wanted = |known: &Known| stream.is_none_or(|stream| *stream.as_bytes() == known.stream);
        self.volumes.retain(wanted);
        let streams: BTreeSet<_> = self.volumes.iter().map(|known| (known.stream, known.timeline)).collect();
        if streams.len() > 1 {
            let shown: Vec<_> = streams.iter().map(|(stream, _)| Uuid::from_bytes(*stream).to_string()).collect();
            let text = format!("the volumes belong to several streams; choose with --stream: {}", shown.join(", "));
            return Err(Failure::Usage(text));
        }
        if self.volumes.is_empty() && self.drives.is_empty() {
            let mut text = "no volume to read".to_owned();
            for why in &self.useless {
                text.push_str("\n  ");
                text.push_str(why);
            }
            return Err(Failure::Media(text));
        }
        let stream = streams.first().map(|(stream, _)| *stream);
        Ok(Set {
            volumes: self.volumes,
            drives: self.drives,
            useless: self.useless,
            stream,
            wait: None,
            keys: Arc::default(),
            in_drive: None,
        })
    }
}

fn known(location: Location) -> Result<Known, String> {
    let inspected = location.open().map_err(WriteError::from).and_then(|mut medium| inspect(&mut *medium));
    let Inspection { label, start, stream, timeline, next_lsn, trailer, segment_end, segment_end_at, .. } =
        inspected.map_err(|error| error.to_string())?;
    let segment_end = segment_end.map(|end| (end, segment_end_at));
    let name = label::name(&label);
    let Some(start) = start else {
        return Err(format!("{}: volume '{name}' was never used", location.path().display()));
    };
    let pool = label::pool_name(&label);
    Ok(Known {
        location,
        name,
        volume: label.volume,
        pool,
        start,
        stream,
        timeline,
        end_lsn: next_lsn,
        trailer,
        segment_end,
    })
}

/// What a restore needs.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The volumes, a line each.
    pub lines: Vec<String>,
    /// How many that are needed are not there.
    pub missing: u64,
    /// How far the log has to be read, as far as is known.
    pub end: Lsn,
}

/// The volumes of one stream, and the drives into which more may come.
#[derive(Clone, Debug)]
pub struct Set {
    volumes: Vec<Known>,
    drives: Vec<PathBuf>,
    useless: Vec<String>,
    stream: Option<[u8; 16]>,
    wait: Option<Duration>,
    keys: Arc<Identities>,
    /// The drive that gave the last volume.
    in_drive: Option<PathBuf>,
}

impl Set {
    /// The volumes, in order.
    pub fn volumes(&self) -> &[Known] {
        &self.volumes
    }

    /// What was named and is of no use.
    pub fn useless(&self) -> &[String] {
        &self.useless
    }

    /// Takes what the command line says about volumes: how long to wait for a tape to be put into a drive, where nobody
    /// can be asked, and what opens those that are encrypted.
    pub fn take_options(&mut self, args: &Volumes) -> Result<(), Failure> {
        self.wait = args.wait;
        self.keys = Arc::new(identity::load(&args.identities)?);
        Ok(())
    }

    /// How far the log reaches on what is there.
    pub fn end_lsn(&self) -> Option<Lsn> {
        self.volumes.iter().map(|known| known.end_lsn).max()
    }

    /// The stream and its timeline, where a volume tells.
    pub fn stream(&self) -> Option<([u8; 16], u32)> {
        self.volumes.first().map(|known| (known.stream, known.timeline))
    }

    /// The place in the set of the last volume that begins at or before this position, as far as is known.
    pub fn sequence_at(&self, lsn: Lsn) -> Option<u64> {
        let before = self.volumes.iter().filter(|known| known.start.first_lsn.get() <= lsn);
        before.map(Known::sequence).max()
    }

    /// The same volumes, and no drives: what is not there is not asked for.
    pub fn without_drives(&self) -> Self {
        Set { drives: Vec::new(), ..self.clone() }
    }

    /// Whether the log at this position is on one of the volumes.
    pub fn covers(&self, lsn: Lsn) -> bool {
        self.volumes.iter().any(|known| (known.start.first_lsn.get()..known.end_lsn).contains(&lsn))
    }

    /// Whether the log up to this moment can be on the volume.
    pub fn is_needed(known: &Known, at: Option<Moment>) -> bool {
        match at {
            Some(Moment::Lsn(lsn)) => known.start.first_lsn.get() < lsn,
            Some(Moment::Time(time)) => known.start.started.get() <= time,
            None => true,
        }
    }

    /// The first place in the set for which there is a volume.
    pub fn first_sequence(&self) -> Option<u64> {
        self.volumes.iter().map(Known::sequence).min()
    }

    /// What the volumes tell about themselves, a line each; which of them a restore of this moment needs that begins at
    /// `from`, and which of those are missing.
    pub fn plan(&self, from: Lsn, at: Option<Moment>) -> Plan {
        let mut plan = Plan::default();
        let first = self.sequence_at(from).filter(|_| from > 0).unwrap_or(1);
        let (mut next, mut reach) = (first, 0);
        for known in &self.volumes {
            let needed = known.sequence() == first || known.sequence() > first && Self::is_needed(known, at);
            for missing in next..known.sequence() {
                // What is missing begins where the one before it ends.
                let wanted = match at {
                    Some(Moment::Lsn(lsn)) => reach < lsn,
                    _ => true,
                };
                if wanted {
                    let name = self.name_of(missing).unwrap_or_default();
                    plan.lines.push(format!("{missing:>4}  {name:<24} MISSING"));
                    plan.missing += 1;
                }
            }
            next = next.max(known.sequence().saturating_add(1));
            reach = reach.max(known.end_lsn);
            let end = match known.trailer.map(|trailer| trailer.reason.get()) {
                Some(TRAILER_FULL) => "full",
                Some(_) => "closed",
                None => "open",
            };
            let bytes = known.end_lsn.saturating_sub(known.start.first_lsn.get());
            plan.lines.push(format!(
                "{:>4}  {:<24} {:>12} LSN {:#x} to {:#x}, {end}{}, begun {}, {}{}",
                known.sequence(),
                known.name,
                show::bytes(bytes),
                known.start.first_lsn,
                known.end_lsn,
                if known.start.key == [0; 32] { "" } else { ", encrypted" },
                show::time(known.start.started.get()),
                known.location.path().display(),
                if needed { "" } else { "; not needed" },
            ));
            if needed {
                plan.end = plan.end.max(known.end_lsn);
            }
        }
        if let Some(Moment::Lsn(lsn)) = at {
            plan.end = plan.end.min(lsn);
        }
        plan
    }

    /// Looks whether a drive holds the volume.
    fn look_into_drives(&mut self, wanted: &Wanted) -> Result<Option<Box<dyn Medium>>, ReadError> {
        for drive in self.drives.clone() {
            let Ok(found) = known(Location::Drive(drive)) else { continue };
            let same_stream = self.stream.is_none_or(|stream| stream == found.stream);
            if same_stream && found.sequence() == wanted.sequence {
                self.stream = Some(found.stream);
                let medium = found.location.open()?;
                self.in_drive = Some(found.location.path().to_owned());
                self.volumes.retain(|known| known.location != found.location);
                self.volumes.push(found);
                return Ok(Some(medium));
            }
        }
        Ok(None)
    }

    /// Asks for a volume and waits for it, as far as somebody or something can be expected to bring it.
    fn ask(&mut self, wanted: &Wanted) -> Result<Option<Box<dyn Medium>>, ReadError> {
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if self.drives.is_empty() || (!terminal && self.wait.is_none()) {
            return Ok(None);
        }
        // The tape that was read is in the way.
        if let Some(drive) = self.in_drive.take() {
            let _ = Tape::open(&drive).and_then(|mut tape| tape.unload());
        }
        let drives: Vec<_> = self.drives.iter().map(|drive| drive.display().to_string()).collect();
        let drives = drives.join(" or ");
        if let Some(wait) = self.wait {
            eprintln!("reel: waiting for {wanted} in {drives}");
            let until = Instant::now() + wait;
            loop {
                if let Some(medium) = self.look_into_drives(wanted)? {
                    return Ok(Some(medium));
                }
                if Instant::now() >= until {
                    return Ok(None);
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        loop {
            eprint!("reel: load {wanted} into {drives} and press Enter ('q': there is none): ");
            let _ = std::io::stderr().flush();
            let mut line = String::new();
            match std::io::stdin().lock().read_line(&mut line) {
                Ok(count) if count > 0 && line.trim() != "q" => {}
                _ => return Ok(None),
            }
            if let Some(medium) = self.look_into_drives(wanted)? {
                return Ok(Some(medium));
            }
            eprintln!("reel: that is not it");
        }
    }
}

impl VolumeSource for Set {
    fn volume(&mut self, wanted: &Wanted) -> Result<Option<Box<dyn Medium>>, ReadError> {
        // Copies of a volume have the same place: the first that opens will do.
        let here: Vec<_> = self.volumes.iter().filter(|known| known.sequence() == wanted.sequence).cloned().collect();
        for known in here {
            let mut medium = known.location.open()?;
            // A tape may have been changed since it was looked at.
            match medium.read_label()? {
                reelfs_media::LabelState::Labelled(label) if label.volume == known.volume => {}
                _ => continue,
            }
            if let Location::Drive(drive) = known.location {
                self.in_drive = Some(drive);
            }
            return Ok(Some(medium));
        }
        if let Some(medium) = self.look_into_drives(wanted)? {
            return Ok(Some(medium));
        }
        // Behind the last one that is known there need not be another.
        let last = self.volumes.iter().max_by_key(|known| known.sequence());
        let goes_on = last.is_none_or(|last| {
            last.sequence() > wanted.sequence
                || last.trailer.is_some_and(|trailer| trailer.reason.get() == TRAILER_FULL)
        });
        if goes_on {
            return self.ask(wanted);
        }
        Ok(None)
    }

    fn key(&mut self, volume: &Arc<str>, wrapped: &WrappedKey) -> Result<VolumeKey, ReadError> {
        let why = match self.keys.unwrap(wrapped) {
            Ok(Some(key)) => return Ok(key),
            Ok(None) if self.keys.is_empty() => {
                "name the file of an identity that opens it with --identity FILE".into()
            }
            Ok(None) => format!(
                "the identities given, of {}, do not open it; name the file of another one with --identity FILE",
                self.keys.recipients().join(", ")
            ),
            Err(error) => error.to_string(),
        };
        let (fingerprint, recipients) = (key::shown(&wrapped.fingerprint), wrapped.recipients.clone());
        Err(ReadError::Locked { volume: volume.clone(), fingerprint, recipients, why })
    }

    fn name_of(&self, sequence: u64) -> Option<String> {
        if let Some(known) = self.volumes.iter().find(|known| known.sequence() == sequence) {
            return Some(known.name.clone());
        }
        let successor = self.volumes.iter().find(|known| known.sequence().checked_sub(1) == Some(sequence))?;
        let name = label::text(&successor.start.predecessor_name);
        (!name.is_empty()).then_some(name)
    }

    fn next_after(&self, sequence: u64) -> Option<u64> {
        self.volumes.iter().map(Known::sequence).filter(|known| *known > sequence).min()
    }
}
