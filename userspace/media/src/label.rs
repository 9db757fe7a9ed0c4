// SPDX-License-Identifier: GPL-2.0-or-later

//! Labels: who a volume is, and the rule that nobody else's volume is ever written.

use std::time::{SystemTime, UNIX_EPOCH};

use reelfs_format::volume::{
    field_text, text_field, Label, VolumeError, BLOCK_SIZE_DEFAULT, BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, FEATURE_COMPRESSED,
    FEATURE_ENCRYPTED, LABEL_MAGIC, VOLUME_VERSION,
};
use uuid::Uuid;
use zerocopy::little_endian::{I64, U32, U64};

use crate::medium::{Medium, MediumError};

/// What stands at the beginning of a medium.
#[derive(Clone, Debug)]
pub enum LabelState {
    /// Nothing was ever written.
    Blank,
    /// A label of ours, checked.
    Labelled(Box<Label>),
    /// Something else: never to be written unless a human insists. Says what is wrong with it.
    Foreign(VolumeError),
}

/// What a new label is to say.
#[derive(Clone, Debug)]
pub struct NewLabel {
    /// Name of the volume: what is written on the cartridge. At most 64 bytes.
    pub name: String,
    /// Name of the pool. At most 64 bytes.
    pub pool_name: String,
    /// Length of a block in bytes.
    pub block_size: usize,
    /// What the volume may make use of when it is written: `FEATURE_*`. A reader that does not know all of it refuses
    /// the volume.
    pub features: u64,
}

/// Why a label was not made or not written.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// A name is empty, too long, or would not do as the name of a file.
    #[error("'{0}' cannot be the name of a volume or a pool: 1 to 64 letters, digits and . _ -, not beginning with .")]
    Name(String),
    /// The block size is not possible.
    #[error("block size {0} is not between {min} and {max} and a multiple of 4096", min = BLOCK_SIZE_MIN, max = BLOCK_SIZE_MAX)]
    BlockSize(usize),
    /// The volume is not blank and the caller did not insist.
    #[error("{medium}: not blank ({found}); it is not written")]
    NotBlank {
        /// The medium.
        medium: String,
        /// What was found.
        found: String,
    },
    /// The medium failed.
    #[error(transparent)]
    Medium(#[from] MediumError),
}

/// The pool's UUID, which follows from its name: whoever knows the name can tell the pool's volumes without a registry.
pub fn pool_uuid(name: &str) -> Uuid {
    let hash = blake3::derive_key("reelfs 2026-11 pool name to UUID", name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Nanoseconds since 1970-01-01 UTC, now.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_nanos()).ok())
        .unwrap_or(0)
}

fn name_field(name: &str) -> Result<[u8; 64], LabelError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.starts_with('.') || !name.chars().all(plain) {
        return Err(LabelError::Name(name.to_owned()));
    }
    text_field(name).ok_or_else(|| LabelError::Name(name.to_owned()))
}

impl NewLabel {
    /// A label with the block size that is chosen when nobody says otherwise, of a volume that may become whatever the
    /// daemon that writes it is told.
    pub fn new(name: &str, pool_name: &str) -> Self {
        NewLabel {
            name: name.to_owned(),
            pool_name: pool_name.to_owned(),
            block_size: BLOCK_SIZE_DEFAULT,
            features: FEATURE_COMPRESSED | FEATURE_ENCRYPTED,
        }
    }

    /// The label itself, with a new volume UUID.
    pub fn build(&self) -> Result<Label, LabelError> {
        if !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&self.block_size) || self.block_size % 4096 != 0 {
            return Err(LabelError::BlockSize(self.block_size));
        }
        let block_size = u32::try_from(self.block_size).map_err(|_| LabelError::BlockSize(self.block_size))?;
        let mut label = Label {
            magic: LABEL_MAGIC,
            version: U32::new(VOLUME_VERSION),
            crc: U32::ZERO,
            incompatible: U64::new(self.features),
            compatible: U64::ZERO,
            volume: *Uuid::new_v4().as_bytes(),
            pool: *pool_uuid(&self.pool_name).as_bytes(),
            block_size: U32::new(block_size),
            reserved: U32::ZERO,
            created: I64::new(now()),
            name: name_field(&self.name)?,
            pool_name: name_field(&self.pool_name)?,
            rest: [0; 3888],
        };
        label.seal();
        Ok(label)
    }
}

/// The name on a label.
pub fn name(label: &Label) -> String {
    text(&label.name)
}

/// The name of the pool on a label.
pub fn pool_name(label: &Label) -> String {
    text(&label.pool_name)
}

/// The text in a field padded with zero bytes, safe to print.
pub fn text(field: &[u8]) -> String {
    match field_text(field) {
        Some(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        None => "?".to_owned(),
    }
}

/// Labels a volume: a blank one, or any if `overwrite` says that a human insists.
pub fn write(medium: &mut dyn Medium, label: &Label, overwrite: bool) -> Result<(), LabelError> {
    let found = match medium.read_label()? {
        LabelState::Blank => None,
        LabelState::Labelled(old) => Some(format!("volume '{}' of pool '{}'", name(&old), pool_name(&old))),
        LabelState::Foreign(error) => Some(format!("no label of ours: {error}")),
    };
    match found {
        Some(found) if !overwrite => Err(LabelError::NotBlank { medium: medium.describe(), found }),
        _ => Ok(medium.write_label(label)?),
    }
}
