// SPDX-License-Identifier: GPL-2.0-or-later

//! The key of an encrypted volume: 32 random bytes, made when the volume is begun and used for nothing else.
//!
//! On the volume it stands wrapped, so that only somebody with an identity gets at it. How it is wrapped and unwrapped
//! is not known here: see `reelfs-keys`.

use reelfs_format::volume::{VolumeKeyHead, VolumeKeyView};
use zerocopy::little_endian::U32;
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

/// What fingerprints are derived with, so that they tell nothing about what the key encrypts.
const FINGERPRINT: &str = "reelfs 2026-11 fingerprint of a volume's key";

/// The key of a volume. Wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct VolumeKey(Zeroizing<[u8; 32]>);

impl VolumeKey {
    /// A new key, from the kernel's random numbers.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        fill_random(&mut *bytes)?;
        Ok(VolumeKey(bytes))
    }

    /// The key that was made before.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        VolumeKey(Zeroizing::new(bytes))
    }

    /// The secret.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the key is called: BLAKE3, never zero.
    pub fn fingerprint(&self) -> [u8; 32] {
        blake3::derive_key(FINGERPRINT, &*self.0)
    }
}

impl std::fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VolumeKey({})", shown(&self.fingerprint()))
    }
}

/// A fingerprint as messages show it: its first eight bytes.
pub fn shown(fingerprint: &[u8; 32]) -> String {
    let first = u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|at| fingerprint[at]));
    format!("{first:016x}")
}

/// Fills `bytes` with random numbers from the kernel.
pub(crate) fn fill_random(bytes: &mut [u8]) -> std::io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

/// The key of a volume as it stands on the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// What the key is called.
    pub fingerprint: [u8; 32],
    /// An age file that holds the key.
    pub wrapped: Vec<u8>,
    /// Who can unwrap it, one on each line.
    pub recipients: String,
}

impl WrappedKey {
    /// The payload of the block that holds it.
    pub fn payload(&self) -> Vec<u8> {
        let length = |bytes: &[u8]| U32::new(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let head = VolumeKeyHead {
            fingerprint: self.fingerprint,
            wrapped_length: length(&self.wrapped),
            recipients_length: length(self.recipients.as_bytes()),
            reserved: [0; 8],
        };
        [head.as_bytes(), &self.wrapped, self.recipients.as_bytes()].concat()
    }

    /// What such a block holds.
    pub fn of(view: &VolumeKeyView<'_>) -> Self {
        WrappedKey {
            fingerprint: view.head.fingerprint,
            wrapped: view.wrapped.to_vec(),
            recipients: view.recipients.to_owned(),
        }
    }
}

/// What it takes to write an encrypted volume: its key, and the key as it stands on it.
#[derive(Clone, Debug)]
pub struct Lock {
    /// The key.
    pub key: VolumeKey,
    /// The key, wrapped.
    pub wrapped: WrappedKey,
}
