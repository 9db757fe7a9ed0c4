// SPDX-License-Identifier: GPL-2.0-or-later

//! Making segment files ahead of their use, so that appending neither allocates nor touches a directory.
//!
//! The file is filled with zeros by writing them: only then does a later `O_DSYNC` write change no metadata of the
//! filesystem below, and only then is the room certain.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{fallocate, FallocateFlags, OFlags};

use crate::buffer::AlignedBuf;
use crate::directory::{sync_directory, Spool};
use crate::error::SpoolError;

/// Zeros are written in pieces of this many bytes.
const PIECE: usize = 1 << 20;

impl Spool {
    /// Makes the file of segment `number`: of full length, all zeros, on stable storage under its name. An interrupted
    /// attempt leaves nothing under that name. Sleeps long; `ENOSPC` when the disk is full.
    pub fn prepare(&self, number: u64) -> Result<File, SpoolError> {
        let (temporary, path) = (self.path().join("segment.new"), self.segment_path(number));
        let made = self.fill(&temporary);
        if made.is_err() {
            // Give the room back: a full disk must not stay full because of a half-made segment.
            let _ = fs::remove_file(&temporary);
        }
        made?;
        fail::fail_point!("prepare-before-rename");
        fs::rename(&temporary, &path).map_err(SpoolError::io("rename", &temporary))?;
        sync_directory(self.path())?;
        fail::fail_point!("prepare-after-rename");
        self.open_segment(number)
    }

    /// The file of segment `number` for appending: past the page cache where the filesystem can, and durable with
    /// each write in any case.
    pub fn open_segment(&self, number: u64) -> Result<File, SpoolError> {
        let path = self.segment_path(number);
        open_direct(&path, OpenOptions::new().read(true).write(true), OFlags::DSYNC)
            .map_err(SpoolError::io("open", &path))
    }

    fn fill(&self, path: &Path) -> Result<(), SpoolError> {
        let length = self.geometry().file_len();
        let file =
            open_direct(path, OpenOptions::new().create(true).truncate(true).write(true).mode(0o600), OFlags::empty())
                .map_err(SpoolError::io("create", path))?;
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            // Only a head start: contiguous room, and `ENOSPC` before the work instead of after.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(SpoolError::errno("allocate", path)(error)),
        }
        let zeros = AlignedBuf::new(PIECE);
        let mut at = 0;
        while at < length {
            let piece = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
            file.write_all_at(&zeros[..piece], at).map_err(SpoolError::io("write", path))?;
            at += piece as u64;
        }
        file.sync_all().map_err(SpoolError::io("sync", path))
    }
}

/// Opens `path` with `O_DIRECT`, or without it where the filesystem has no such thing.
pub(crate) fn open_direct(path: &Path, options: &OpenOptions, flags: OFlags) -> io::Result<File> {
    let with = |flags: OFlags| options.clone().custom_flags(flags.bits() as i32).open(path);
    match with(flags | OFlags::DIRECT) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => with(flags),
        other => other,
    }
}
