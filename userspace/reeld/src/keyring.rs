// SPDX-License-Identifier: GPL-2.0-or-later

//! Keys of encrypted volumes that are being written, each in a file beside the segments.
//!
//! The daemon knows recipients, and with them alone it cannot open a volume. To go on with one after a restart it keeps
//! the key of that volume until it is closed, in the spool, whose segments hold the same log as it is. Without the file
//! the volume is left behind and nothing is lost.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use reelfs_media::key::{Lock, VolumeKey, WrappedKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the names of the files end with.
const SUFFIX: &str = ".volume-key";
/// And those of files that were not completed.
const NEW: &str = ".volume-key.new";

#[derive(Serialize, Deserialize)]
struct File {
    /// The key, as hexadecimal digits.
    key: String,
    /// The key as it stands on the volume, as hexadecimal digits.
    wrapped: String,
    /// Who can unwrap it.
    recipients: String,
}

fn path(spool: &Path, volume: Uuid, suffix: &str) -> PathBuf {
    spool.join(format!("{volume}{suffix}"))
}

/// Keeps the key of a volume. On stable storage on return.
pub fn save(spool: &Path, volume: Uuid, lock: &Lock) -> Result<()> {
    let (path, new) = (path(spool, volume, SUFFIX), path(spool, volume, NEW));
    let file = File {
        key: hex::encode(lock.key.bytes()),
        wrapped: hex::encode(&lock.wrapped.wrapped),
        recipients: lock.wrapped.recipients.clone(),
    };
    let text = serde_json::to_vec_pretty(&file)?;
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        fs::File::open(spool)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The key of a volume, if it is there and can be read.
pub fn load(spool: &Path, volume: Uuid) -> Option<Lock> {
    let path = path(spool, volume, SUFFIX);
    let read = || -> Result<Lock> {
        let file: File = serde_json::from_slice(&fs::read(&path)?)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&file.key, &mut bytes)?;
        let key = VolumeKey::from_bytes(bytes);
        let (fingerprint, wrapped) = (key.fingerprint(), hex::decode(&file.wrapped)?);
        Ok(Lock { key, wrapped: WrappedKey { fingerprint, wrapped, recipients: file.recipients } })
    };
    match read() {
        Ok(lock) => Some(lock),
        Err(error) => {
            log::warn!("{}: {error:#}", path.display());
            None
        }
    }
}

/// Removes every key but the one of the volume that is being written.
pub fn sweep(spool: &Path, keep: Option<Uuid>) {
    let keep = keep.map(|volume| path(spool, volume, SUFFIX));
    let Ok(entries) = fs::read_dir(spool) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !(name.ends_with(SUFFIX) || name.ends_with(NEW)) || keep.as_ref() == Some(&path) {
            continue;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                log::warn!("{}: cannot be removed, though its volume is closed: {error}", path.display());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(byte: u8) -> Lock {
        let key = VolumeKey::from_bytes([byte; 32]);
        let fingerprint = key.fingerprint();
        Lock { key, wrapped: WrappedKey { fingerprint, wrapped: vec![1, 2, 3], recipients: "age1x\n".into() } }
    }

    #[test]
    fn a_key_is_kept_until_its_volume_is_closed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(load(dir.path(), one).is_none());
        save(dir.path(), one, &lock(1)).unwrap();
        save(dir.path(), two, &lock(2)).unwrap();
        fs::write(path(dir.path(), two, NEW), "torn").unwrap();
        fs::write(dir.path().join("media.json"), "{}").unwrap();
        for entry in fs::read_dir(dir.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
        sweep(dir.path(), Some(two));
        assert!(load(dir.path(), one).is_none());
        let found = load(dir.path(), two).unwrap();
        assert_eq!((found.key.bytes(), &found.wrapped), (&[2; 32], &lock(2).wrapped));
        sweep(dir.path(), None);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["media.json"]);
    }

    #[test]
    fn what_is_no_key_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Uuid::from_u128(1);
        for bad in ["", "{}", r#"{"key":"00","wrapped":"","recipients":""}"#] {
            fs::write(path(dir.path(), volume, SUFFIX), bad).unwrap();
            assert!(load(dir.path(), volume).is_none(), "{bad}");
        }
    }
}
