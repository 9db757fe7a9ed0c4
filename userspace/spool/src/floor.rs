// SPDX-License-Identifier: GPL-2.0-or-later

//! The floor file: how far the log certainly reached.
//!
//! The end of a log is where its records stop, so a record that goes bad near the end looks like a tail that was never
//! finished. The floor tells the two apart for all but what was acknowledged since it was last written. It is a hint
//! beside the log: writing it is nobody's precondition, and losing it loses no record.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use reelfs_format::record::Lsn;
use reelfs_format::spool::{Floor, FLOOR_LEN, FLOOR_SLOTS, SPOOL_BLOCK};
use rustix::fs::OFlags;
use zerocopy::IntoBytes;

use crate::directory::{sync_directory, Spool};
use crate::error::SpoolError;

const NAME: &str = "floor";

/// The floor file of a spool, for writing.
pub struct FloorFile {
    file: File,
    path: PathBuf,
    stream: [u8; 16],
    turn: u64,
}

impl FloorFile {
    /// The floor file of `spool`, made if there is none.
    pub fn open(spool: &Spool) -> Result<FloorFile, SpoolError> {
        let path = spool.path().join(NAME);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlags::DSYNC.bits() as i32)
            .open(&path)
            .map_err(SpoolError::io("open", &path))?;
        file.set_len(FLOOR_SLOTS * SPOOL_BLOCK as u64)
            .and_then(|()| file.sync_all())
            .map_err(SpoolError::io("prepare", &path))?;
        sync_directory(spool.path())?;
        // Begin with the slot that holds the lower floor, or none: the other one must survive an interruption.
        let slots = slots(&file, spool.geometry().stream);
        let turn = u64::from(slots[0] > slots[1]);
        Ok(FloorFile { file, path, stream: spool.geometry().stream, turn })
    }

    /// Notes that everything below `lsn` has been acknowledged. On stable storage on return.
    pub fn raise(&mut self, lsn: Lsn) -> Result<(), SpoolError> {
        let floor = Floor::new(self.stream, lsn);
        self.file
            .write_all_at(floor.as_bytes(), self.turn * SPOOL_BLOCK as u64)
            .map_err(SpoolError::io("write", &self.path))?;
        self.turn = (self.turn + 1) % FLOOR_SLOTS;
        Ok(())
    }
}

impl Spool {
    /// The floor that was noted last, or 0.
    pub fn floor(&self) -> Lsn {
        let Ok(file) = File::open(self.path().join(NAME)) else {
            return 0;
        };
        slots(&file, self.geometry().stream).into_iter().flatten().max().unwrap_or(0)
    }
}

fn slots(file: &File, stream: [u8; 16]) -> [Option<Lsn>; FLOOR_SLOTS as usize] {
    let mut bytes = [0; FLOOR_LEN];
    std::array::from_fn(|slot| {
        file.read_exact_at(&mut bytes, slot as u64 * SPOOL_BLOCK as u64).ok()?;
        let floor = Floor::parse(&bytes).ok()?;
        (floor.stream == stream).then(|| floor.lsn.get())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_survives_a_torn_write() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open_or_create(dir.path(), 4 << 20).unwrap();
        assert_eq!(spool.floor(), 0);
        let mut floor = FloorFile::open(&spool).unwrap();
        for lsn in [104, 208, 1040] {
            floor.raise(lsn).unwrap();
            assert_eq!(spool.floor(), lsn);
        }
        drop(floor);
        // The next write goes to the slot of 208, so whatever becomes of it, 1040 is still there.
        let mut floor = FloorFile::open(&spool).unwrap();
        let turn = floor.turn;
        floor.raise(2080).unwrap();
        floor.file.write_all_at(&[0xff; 300], turn * SPOOL_BLOCK as u64).unwrap();
        assert_eq!(spool.floor(), 1040);
    }
}
