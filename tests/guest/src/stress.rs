// SPDX-License-Identifier: GPL-2.0-or-later

//! A worker that does everything that can be done to a tree, at random: the same seed gives the same steps.
//!
//! Several work on one tree and meet on few names. What the system refuses, because another was quicker, because the
//! filesystem cannot, or because the operation cannot be recorded, is refused; that tree and log agree afterwards is what
//! the oracle looks at.

use crate::pattern::{aligned, pattern, Random};
use rustix::fs::{
    copy_file_range, fallocate, ioctl_getflags, ioctl_setflags, linkat, mknodat, openat, renameat_with, setxattr,
    AtFlags, FallocateFlags, FileType, IFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags, CWD,
};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Files do not grow beyond this, so that a long run has room; in bytes.
const SIZE: u64 = 2 << 20;
/// Open files that each worker keeps, whatever becomes of their names.
const KEPT: usize = 4;

/// Neither through a symbolic link nor into a fifo that nobody reads.
const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

struct Worker<'a> {
    root: &'a Path,
    random: Random,
    kept: Vec<File>,
    memory: Vec<u8>,
    step: u64,
}

/// Takes `count` steps below `root`.
pub fn work(root: &Path, seed: u64, count: u64) {
    let mut worker = Worker { root, random: Random::new(seed), kept: Vec::new(), memory: Vec::new(), step: 0 };
    for step in 0..count {
        worker.step = (seed << 24) | step;
        // What was refused has not happened, or the oracle will see what did.
        let _ = worker.step();
    }
}

impl Worker<'_> {
    /// A place in the tree that may or may not be there: up to three directories deep.
    fn path(&mut self) -> PathBuf {
        let mut path = self.root.to_owned();
        for _ in 0..self.random.below(3) {
            path.push(format!("d{}", self.random.below(3)));
        }
        path.push(match self.random.below(3) {
            0 => format!("d{}", self.random.below(3)),
            _ => format!("n{}", self.random.below(10)),
        });
        path
    }

    /// An open file: one that was kept, perhaps without a name by now, or one by its name.
    fn file(&mut self) -> io::Result<File> {
        if self.random.below(4) == 0 && !self.kept.is_empty() {
            let at = self.random.below(self.kept.len() as u64) as usize;
            return self.kept.swap_remove(at).try_clone();
        }
        let path = self.path();
        let make = self.random.below(2) == 0;
        let mut options = File::options();
        options.read(true).write(true).create(make).custom_flags(CAREFUL.bits() as i32);
        let file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.random.below(3) == 0 && self.kept.len() < KEPT {
            self.kept.push(file.try_clone()?);
        }
        Ok(file)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.random.below(20) {
            0 => 1 << 20,
            1..=4 => 100_000,
            _ => 6000,
        };
        pattern(self.random.below(length) as usize + 1, self.step)
    }

    fn step(&mut self) -> io::Result<()> {
        match self.random.below(40) {
            0..=4 => {
                let path = self.path();
                let bytes = self.bytes();
                let file = File::options().write(true).create_new(true).mode(0o640).open(path)?;
                file.write_all_at(&bytes, 0)
            }
            5..=9 => {
                let (file, bytes) = (self.file()?, self.bytes());
                file.write_all_at(&bytes, self.random.below(SIZE))
            }
            10 => {
                let path = self.path();
                let bytes = self.bytes();
                let file = File::options().append(true).custom_flags(CAREFUL.bits() as i32).open(path)?;
                file.write_all_at(&bytes, 0)
            }
            11 => self.write_direct(),
            12 | 13 => self.file()?.set_len(self.random.below(SIZE)),
            14..=16 => self.allocate(),
            17 => self.copy(),
            18 => {
                for _ in 0..4 {
                    let _ = fs::create_dir(self.path());
                }
                Ok(())
            }
            19 => fs::remove_dir(self.path()),
            20 | 21 => fs::remove_file(self.path()),
            22..=25 => {
                let (from, to) = (self.path(), self.path());
                let flags = match self.random.below(6) {
                    0 => RenameFlags::EXCHANGE,
                    1 => RenameFlags::NOREPLACE,
                    2 => RenameFlags::WHITEOUT,
                    _ => RenameFlags::empty(),
                };
                Ok(renameat_with(CWD, from, CWD, to, flags)?)
            }
            26 | 27 => fs::hard_link(self.path(), self.path()),
            28 => std::os::unix::fs::symlink(self.path(), self.path()),
            29 => {
                let (path, device) = (self.path(), self.random.below(1 << 20));
                let kind = match self.random.below(3) {
                    0 => FileType::CharacterDevice,
                    1 => FileType::Socket,
                    _ => FileType::Fifo,
                };
                Ok(mknodat(CWD, path, kind, Mode::from_raw_mode(0o604), device)?)
            }
            30 => {
                let (path, mode) = (self.path(), self.random.below(0o10000) as u32);
                // Not through a symbolic link, which may lead anywhere below the root and is a name like any other.
                fs::set_permissions(path, Permissions::from_mode(mode))
            }
            31 => {
                let (uid, gid) = (self.random.below(5) as u32, self.random.below(5) as u32);
                std::os::unix::fs::lchown(self.path(), Some(uid), Some(gid))
            }
            32 => {
                let time =
                    Timespec { tv_sec: self.random.below(1 << 31) as i64, tv_nsec: self.random.below(1 << 29) as i64 };
                let times = Timestamps { last_access: time, last_modification: time };
                Ok(rustix::fs::utimensat(CWD, self.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            33 | 34 => {
                let name = ["user.a", "user.b", "trusted.c", "security.d"][self.random.below(4) as usize];
                let value = pattern(self.random.below(300) as usize, self.step);
                Ok(setxattr(self.path(), name, &value, XattrFlags::empty())?)
            }
            35 => Ok(rustix::fs::removexattr(self.path(), "user.a")?),
            36 => self.make_unnamed(),
            37 => self.flags(),
            38 => self.file()?.sync_data(),
            _ => {
                // Whatever is kept goes, and with it what has no name.
                self.kept.clear();
                Ok(())
            }
        }
    }

    fn write_direct(&mut self) -> io::Result<()> {
        let path = self.path();
        let file = File::options().write(true).custom_flags((CAREFUL | OFlags::DIRECT).bits() as i32).open(path)?;
        let bytes = pattern(4096 * (1 + self.random.below(16) as usize), self.step);
        file.write_all_at(aligned(&mut self.memory, &bytes), self.random.below(SIZE / 4096) * 4096)
    }

    fn allocate(&mut self) -> io::Result<()> {
        let file = self.file()?;
        let (offset, length) = (self.random.below(SIZE), 1 + self.random.below(200_000));
        let (block, blocks) = (self.random.below(SIZE / 8192) * 4096, (1 + self.random.below(8)) * 4096);
        let keep = FallocateFlags::KEEP_SIZE;
        let done = match self.random.below(7) {
            0 => fallocate(&file, FallocateFlags::empty(), offset, length),
            1 => fallocate(&file, keep, offset, length),
            2 | 3 => fallocate(&file, FallocateFlags::PUNCH_HOLE | keep, offset, length),
            4 => fallocate(&file, FallocateFlags::ZERO_RANGE, offset, length),
            5 => fallocate(&file, FallocateFlags::COLLAPSE_RANGE, block, blocks),
            _ => fallocate(&file, FallocateFlags::INSERT_RANGE, block, blocks),
        };
        Ok(done?)
    }

    fn copy(&mut self) -> io::Result<()> {
        let (from, to) = (self.file()?, self.file()?);
        let (mut at, mut into) = (self.random.below(SIZE), self.random.below(SIZE));
        copy_file_range(&from, Some(&mut at), &to, Some(&mut into), self.random.below(200_000) as usize)?;
        Ok(())
    }

    fn make_unnamed(&mut self) -> io::Result<()> {
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let file = File::from(openat(CWD, self.root, flags, Mode::from_raw_mode(0o620))?);
        file.write_all_at(&self.bytes(), self.random.below(SIZE))?;
        if self.random.below(2) == 0 {
            linkat(file.as_fd(), "", CWD, self.path(), AtFlags::EMPTY_PATH)?;
        }
        if self.kept.len() < KEPT {
            self.kept.push(file);
        }
        Ok(())
    }

    fn flags(&mut self) -> io::Result<()> {
        let file = self.file()?;
        let flags = ioctl_getflags(&file)?;
        Ok(ioctl_setflags(&file, flags ^ if self.random.below(2) == 0 { IFlags::NODUMP } else { IFlags::NOATIME })?)
    }
}
