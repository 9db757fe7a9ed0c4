// SPDX-License-Identifier: GPL-2.0-or-later

//! The daemon writes volumes that it cannot read itself, and goes on with them; with whatever it has lost.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use reeld::state::{State, VolumeState, NAME};
use reeld::streamer::Coders;
use reelfs_keys::{Identities, NewIdentity, Recipients};
use reelfs_media::directory::VolumeFile;
use reelfs_media::key::{VolumeKey, WrappedKey};
use reelfs_media::library::volume_files;
use reelfs_media::pool::Pool;
use reelfs_media::reader::{Begin, LogReader, OnGap, ReadError, RecordReader, VolumeReader, VolumeSource, Wanted};
use reelfs_media::Medium;

fn identities(new: &NewIdentity) -> Identities {
    Identities::parse(&new.file("now", None).unwrap(), || Err("none".into())).unwrap()
}

fn coders(new: &NewIdentity) -> Coders {
    let recipients = Some(Recipients::parse(&[new.recipient()]).unwrap());
    Coders { pool: Pool::with_threads(2).unwrap(), level: Some(3), recipients }
}

struct Volumes(Vec<PathBuf>, Identities);

fn open(path: &Path) -> VolumeReader {
    VolumeReader::open(Box::new(VolumeFile::open(path).unwrap())).unwrap()
}

impl VolumeSource for Volumes {
    fn volume(&mut self, wanted: &Wanted) -> Result<Option<Box<dyn Medium>>, ReadError> {
        let is_it = |path: &&PathBuf| open(path).start().is_some_and(|start| start.sequence.get() == wanted.sequence);
        let path = self.0.iter().find(is_it);
        path.map(|path| Ok(Box::new(VolumeFile::open(path)?) as Box<dyn Medium>)).transpose()
    }

    fn key(&mut self, _: &Arc<str>, wrapped: &WrappedKey) -> Result<VolumeKey, ReadError> {
        Ok(self.1.unwrap(wrapped).unwrap().expect("the identity does not open it"))
    }
}

fn read(media: &Path, identities: Identities) -> Vec<u8> {
    let source = Volumes(volume_files(media).unwrap(), identities);
    let mut reader = RecordReader::new(LogReader::new(source, Begin::Log, OnGap::Search));
    let mut log = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        log.extend_from_slice(record.bytes());
    }
    log
}

fn keys(spool: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("volume-key")).collect()
}

/// One run of the daemon: these records are committed, and on media when it ends.
fn run(
    spool: &Path,
    media: &Path,
    ring: &mut Option<FakeRing>,
    capacity: Option<u64>,
    coders: Coders,
    sizes: &[usize],
) {
    let (daemon, same) = Daemon::start(spool, ring.as_ref(), 100);
    let mut end = 0;
    for size in sizes {
        end = same.commit(*size);
    }
    *ring = Some(same);
    let (streamer, orders) = daemon.streamer_with(library(media, capacity), LAZY, coders);
    eventually("all is in the spool", || daemon.status.spooled() == end);
    orders.flush(end);
    eventually("all is on media", || daemon.status.on_media() == end);
    orders.stop();
    streamer.join().unwrap().unwrap();
    daemon.stop();
}

fn sizes(round: usize) -> Vec<usize> {
    (0..20).map(|n| (n * 7919 + round * 13) % 100_000).collect()
}

#[test]
fn an_encrypted_volume_is_gone_on_with_while_its_key_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, media) = (dir.path().join("spool"), dir.path().join("media"));
    let (new, mut ring) = (NewIdentity::generate(), None);
    for round in 0..3 {
        run(&spool, &media, &mut ring, None, coders(&new), &sizes(round));
        assert_eq!(keys(&spool).len(), 1);
    }
    let files = volume_files(&media).unwrap();
    assert_eq!(files.len(), 1);
    assert!(open(&files[0]).is_encrypted());
    let all = || (0..3).flat_map(sizes);
    assert!(read(&media, identities(&new)) == expected(all()));
    // Both are lost: what is known about the media, and the key.
    fs::remove_file(spool.join(NAME)).unwrap();
    fs::remove_file(&keys(&spool)[0]).unwrap();
    run(&spool, &media, &mut ring, None, coders(&new), &sizes(3));
    assert_eq!(volume_files(&media).unwrap().len(), 2);
    // And the key alone.
    fs::remove_file(&keys(&spool)[0]).unwrap();
    // Whoever may open the next volume is named anew; the old ones remain as they are.
    let other = NewIdentity::generate();
    run(&spool, &media, &mut ring, None, coders(&other), &sizes(4));
    let state = State::load(&spool).unwrap().unwrap();
    let states: Vec<_> = state.volumes.iter().map(|volume| volume.state).collect();
    assert_eq!(states, [VolumeState::Abandoned, VolumeState::Abandoned, VolumeState::Open]);
    assert_eq!(keys(&spool).len(), 1);
    let mut both = identities(&new);
    both.extend(identities(&other));
    assert!(read(&media, both) == expected((0..5).flat_map(sizes)));
}

#[test]
fn keys_go_with_the_volumes_that_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, media) = (dir.path().join("spool"), dir.path().join("media"));
    let (new, mut ring) = (NewIdentity::generate(), None);
    let sizes: Vec<_> = (0..100).map(|n| (n * 7919) % 200_000).collect();
    run(&spool, &media, &mut ring, Some(1 << 20), Coders { level: None, ..coders(&new) }, &sizes);
    let files = volume_files(&media).unwrap();
    assert!(files.len() > 4, "{}", files.len());
    assert!(keys(&spool).len() <= 1);
    let mut fingerprints: Vec<_> = files.iter().map(|path| open(path).start().unwrap().key).collect();
    fingerprints.sort();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), files.len(), "each volume has its own key");
    assert!(read(&media, identities(&new)) == expected(sizes.iter().copied()));
}

#[test]
fn a_volume_that_is_not_encrypted_is_closed_when_there_are_recipients() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, media) = (dir.path().join("spool"), dir.path().join("media"));
    let (new, mut ring) = (NewIdentity::generate(), None);
    run(&spool, &media, &mut ring, None, Coders::plain(), &sizes(0));
    run(&spool, &media, &mut ring, None, coders(&new), &sizes(1));
    let state = State::load(&spool).unwrap().unwrap();
    let states: Vec<_> = state.volumes.iter().map(|volume| volume.state).collect();
    assert_eq!(states, [VolumeState::Finished, VolumeState::Open]);
    let encrypted: Vec<_> = volume_files(&media).unwrap().iter().map(|path| open(path).is_encrypted()).collect();
    assert_eq!(encrypted, [false, true]);
    assert!(read(&media, identities(&new)) == expected((0..2).flat_map(sizes)));
}
