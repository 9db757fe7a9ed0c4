// SPDX-License-Identifier: GPL-2.0-or-later

//! Those who shall be able to open a volume.

use std::io::Write;

use age::x25519;
use reelfs_media::key::{Lock, VolumeKey, WrappedKey};

use crate::KeyError;

/// Those who shall be able to open a volume; at least one.
#[derive(Clone, Debug)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Those named.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, KeyError> {
        let each = texts.iter().map(|text| {
            let text = text.as_ref().trim();
            text.parse().map_err(|why| {
                // A secret that was put here by mistake must not end in a log.
                let secret = text.get(..10).is_some_and(|begin| begin.eq_ignore_ascii_case("AGE-SECRET"));
                let text = if secret { "AGE-SECRET-KEY-..., which is secret," } else { text };
                KeyError::Recipient { text: text.to_owned(), why }
            })
        });
        let found: Vec<_> = each.collect::<Result<_, _>>()?;
        if found.is_empty() {
            return Err(KeyError::NoRecipient);
        }
        Ok(Recipients(found))
    }

    /// Makes a key for one volume and wraps it, so that each of them can open it.
    pub fn lock(&self) -> Result<Lock, KeyError> {
        let key = VolumeKey::generate().map_err(|source| KeyError::Io { doing: "making a key", source })?;
        let wrapped = self.wrap(&key)?;
        Ok(Lock { key, wrapped })
    }

    /// Wraps a key.
    pub fn wrap(&self, key: &VolumeKey) -> Result<WrappedKey, KeyError> {
        let failed = |source| KeyError::Io { doing: "wrapping a key", source };
        let to = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(to).map_err(|error| KeyError::Wrapped(error.to_string()))?;
        let mut wrapped = Vec::new();
        let mut writer = encryptor.wrap_output(&mut wrapped).map_err(failed)?;
        writer.write_all(key.bytes()).map_err(failed)?;
        writer.finish().map_err(failed)?;
        let mut recipients = String::new();
        for recipient in &self.0 {
            recipients.push_str(&recipient.to_string());
            recipients.push('\n');
        }
        Ok(WrappedKey { fingerprint: key.fingerprint(), wrapped, recipients })
    }
}
