// SPDX-License-Identifier: GPL-2.0-or-later

//! What is on which volume: `media.json` beside the segments.
//!
//! It saves looking through volumes at every start. It is replaced as a whole, after the filemark that proves what it
//! says, so it may be behind the media and never ahead of them; all of it can be read from the volumes again.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use reelfs_format::record::Lsn;
use reelfs_media::writer::Predecessor;
use reelfs_media::{Checkpoint, LogState};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Name of the file, in the spool's directory.
pub const NAME: &str = "media.json";
/// The version of the file that this code writes, and the only one it reads.
const VERSION: u32 = 1;

/// The contents of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The version of this file.
    pub version: u32,
    /// The stream.
    pub stream: Uuid,
    /// Timeline of the stream.
    pub timeline: u32,
    /// The pool.
    pub pool: String,
    /// All below is proven to be on media.
    pub proven: Lsn,
    /// Chain hash after the last segment that is complete below `proven`, as hexadecimal digits.
    pub chain: String,
    /// LSN of the begin record of the last checkpoint that is complete below `proven`.
    #[serde(default)]
    pub checkpoint_begin: Lsn,
    /// LSN behind its end record; zero: there is none.
    #[serde(default)]
    pub checkpoint_end: Lsn,
    /// The volumes, in the order in which they were written.
    pub volumes: Vec<Volume>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Its place in the set.
    pub sequence: u64,
    /// Where the log goes on there.
    pub first: Lsn,
    /// How far it reaches.
    pub proven: Lsn,
    /// What becomes of it.
    pub state: VolumeState,
}

/// What becomes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// It is about to be begun.
    Planned,
    /// It is being written.
    Open,
    /// It is full.
    Finished,
    /// It had errors: what was not proven has been written elsewhere.
    Failed,
    /// The operator gave it up.
    Abandoned,
}

impl State {
    /// The state of a stream of which nothing is on media.
    pub fn new(stream: Uuid, timeline: u32, pool: &str) -> State {
        let (pool, chain) = (pool.to_owned(), hex::encode([0u8; 32]));
        let (checkpoint_begin, checkpoint_end, volumes) = (0, 0, Vec::new());
        State { version: VERSION, stream, timeline, pool, proven: 0, chain, checkpoint_begin, checkpoint_end, volumes }
    }

    fn path(spool: &Path) -> PathBuf {
        spool.join(NAME)
    }

    /// The state in the directory `spool`, if there is one.
    pub fn load(spool: &Path) -> Result<Option<State>> {
        let path = State::path(spool);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let state: State = serde_json::from_slice(&text)
            .with_context(|| format!("in {}; remove it to have it made anew from the volumes", path.display()))?;
        if state.version != VERSION {
            bail!("{}: version {}; this program reads {VERSION}", path.display(), state.version);
        }
        state.chain().with_context(|| format!("in {}", path.display()))?;
        Ok(Some(state))
    }

    /// Puts the state into the directory `spool`, whole or not at all. On stable storage on return.
    pub fn save(&self, spool: &Path) -> Result<()> {
        let (path, new) = (State::path(spool), spool.join("media.json.new"));
        let text = serde_json::to_vec_pretty(self)?;
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fail::fail_point!("state-before-rename");
            fs::rename(&new, &path)?;
            fail::fail_point!("state-after-rename");
            fs::File::open(spool)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The chain hash.
    pub fn chain(&self) -> Result<[u8; 32]> {
        let mut chain = [0; 32];
        hex::decode_to_slice(&self.chain, &mut chain).context("the chain hash is not 64 hexadecimal digits")?;
        Ok(chain)
    }

    /// The last checkpoint that is known to be complete below `proven`; its end is zero if none is.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { begin: self.checkpoint_begin, end: self.checkpoint_end }
    }

    /// The volume that was written last.
    pub fn last(&self) -> Option<&Volume> {
        self.volumes.last()
    }

    /// What the next volume has to say about the one before it.
    pub fn predecessor(&self) -> Option<Predecessor> {
        self.last().map(|last| Predecessor {
            volume: *last.uuid.as_bytes(),
            name: last.name.clone(),
            sequence: last.sequence,
        })
    }

    /// Notes what `volume` holds now.
    pub fn note(&mut self, volume: Volume, log: &LogState) {
        self.proven = log.position();
        if let Some(chain) = log.chain() {
            self.chain = hex::encode(chain);
        }
        if log.checkpoint().end > self.checkpoint_end {
            Checkpoint { begin: self.checkpoint_begin, end: self.checkpoint_end } = log.checkpoint();
        }
        match self.volumes.iter_mut().find(|known| known.uuid == volume.uuid) {
            Some(known) => *known = volume,
            None => self.volumes.push(volume),
        }
    }

    /// Notes what becomes of the volume that was written last.
    pub fn settle(&mut self, state: VolumeState) {
        if let Some(last) = self.volumes.last_mut() {
            last.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        let mut state = State::new(Uuid::from_u128(7), 1, "daily");
        let volume = Volume {
            uuid: Uuid::from_u128(8),
            name: "daily-000001".into(),
            sequence: 1,
            first: 0,
            proven: 4096,
            state: VolumeState::Open,
        };
        state.note(volume, &LogState::at_segment(4 << 20, 0, 0, [0xab; 32]));
        state.settle(VolumeState::Finished);
        state.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap().unwrap(), state);
        assert_eq!(state.chain().unwrap(), [0xab; 32]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = serde_json::to_string(&State::new(Uuid::from_u128(7), 1, "daily")).unwrap();
        for bad in ["", "{", &good.replace("\"version\":1", "\"version\":9"), &good.replace("00000", "zzzzz")] {
            fs::write(dir.path().join(NAME), bad).unwrap();
            assert!(format!("{:#}", State::load(dir.path()).unwrap_err()).contains(NAME));
        }
    }
}
