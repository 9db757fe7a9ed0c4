// SPDX-License-Identifier: GPL-2.0-or-later

//! What opens volumes: identities, in files that only their owner reads, or on paper.

use std::io::{Read, Write};

use age::secrecy::{ExposeSecret, SecretString};
use age::x25519;
use reelfs_media::key::{VolumeKey, WrappedKey};
use zeroize::Zeroizing;

use crate::KeyError;

/// What a file protected by a passphrase begins with, as it is or as text.
const PROTECTED: [&[u8]; 2] = [b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----"];
/// A file of identities is never longer.
const FILE_MAX: u64 = 1 << 20;

/// Secrets that open volumes. Printed, they show whom they belong to and nothing else.
#[derive(Clone, Default)]
pub struct Identities(Vec<x25519::Identity>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.recipients()).finish()
    }
}

impl Identities {
    /// The identities in the bytes of a file: one on each line, comments after `#`. `passphrase` is asked for the
    /// passphrase of a file that has one.
    pub fn parse(bytes: &[u8], passphrase: impl FnOnce() -> Result<SecretString, String>) -> Result<Self, KeyError> {
        if PROTECTED.iter().any(|begin| bytes.starts_with(begin)) {
            let passphrase = passphrase().map_err(KeyError::Passphrase)?;
            let plain = unprotect(bytes, passphrase)?;
            return Self::of_text(&plain);
        }
        Self::of_text(bytes)
    }

    fn of_text(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut found = Vec::new();
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
            // As it is on paper: in groups, and in whatever case it was typed.
            let line: Zeroizing<String> = Zeroizing::new(
                line.iter()
                    .filter(|byte| !byte.is_ascii_whitespace())
                    .map(|byte| char::from(byte.to_ascii_uppercase()))
                    .collect(),
            );
            if !line.is_empty() {
                let wrong = |why| KeyError::Identity { line: number + 1, why };
                found.push(line.parse::<x25519::Identity>().map_err(wrong)?);
            }
        }
        if found.is_empty() {
            return Err(KeyError::NoIdentity);
        }
        Ok(Identities(found))
    }

    /// Adds others.
    pub fn extend(&mut self, others: Identities) {
        self.0.extend(others.0);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whom they belong to: the recipients to encrypt for.
    pub fn recipients(&self) -> Vec<String> {
        self.0.iter().map(|identity| identity.to_public().to_string()).collect()
    }

    /// The key of a volume; `None` if none of them opens it.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<VolumeKey>, KeyError> {
        let wrong = |error: age::DecryptError| KeyError::Wrapped(error.to_string());
        let decryptor = age::Decryptor::new(&wrapped.wrapped[..]).map_err(wrong)?;
        let with = self.0.iter().map(|identity| identity as &dyn age::Identity);
        let mut reader = match decryptor.decrypt(with) {
            Ok(reader) => reader,
            Err(age::DecryptError::NoMatchingKeys) => return Ok(None),
            Err(error) => return Err(wrong(error)),
        };
        let mut bytes = Zeroizing::new([0; 32]);
        let mut rest = [0];
        let whole = reader.read_exact(&mut *bytes).and_then(|()| reader.read(&mut rest));
        match whole {
            Ok(0) => {}
            Ok(_) => return Err(KeyError::Wrapped("it is longer than a key".into())),
            Err(error) => return Err(KeyError::Wrapped(error.to_string())),
        }
        let key = VolumeKey::from_bytes(*bytes);
        if key.fingerprint() != wrapped.fingerprint {
            return Err(KeyError::Wrapped("it is the key of another volume".into()));
        }
        Ok(Some(key))
    }

    /// The secrets themselves, for paper.
    pub fn secrets(&self) -> Vec<SecretString> {
        self.0.iter().map(x25519::Identity::to_string).collect()
    }
}

fn unprotect(bytes: &[u8], passphrase: SecretString) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let wrong = |error: age::DecryptError| match error {
        age::DecryptError::DecryptionFailed | age::DecryptError::NoMatchingKeys => {
            KeyError::Passphrase("the one given is not it".into())
        }
        other => KeyError::Passphrase(other.to_string()),
    };
    let decryptor = age::Decryptor::new(age::armor::ArmoredReader::new(bytes)).map_err(wrong)?;
    let identity = age::scrypt::Identity::new(passphrase);
    let reader = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).map_err(wrong)?;
    let mut plain = Zeroizing::new(Vec::new());
    let failed = |source| KeyError::Io { doing: "decrypting the file of identities", source };
    reader.take(FILE_MAX).read_to_end(&mut plain).map_err(failed)?;
    Ok(plain)
}

/// An identity that was just made.
pub struct NewIdentity(x25519::Identity);

impl NewIdentity {
    /// Makes one.
    pub fn generate() -> Self {
        NewIdentity(x25519::Identity::generate())
    }

    /// Whom it belongs to.
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// What goes into its file; `made` says when it was. Encrypted if there is a passphrase.
    pub fn file(&self, made: &str, passphrase: Option<SecretString>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let secret = self.0.to_string();
        let text = Zeroizing::new(format!(
            "# reelfs: opens volumes that were encrypted for the recipient below\n# made: {made}\n# recipient: {}\n{}\n",
            self.recipient(),
            secret.expose_secret()
        ));
        let Some(passphrase) = passphrase else { return Ok(Zeroizing::new(text.as_bytes().to_vec())) };
        let failed = |source| KeyError::Io { doing: "encrypting the identity", source };
        let mut file = Zeroizing::new(Vec::new());
        let mut writer = age::Encryptor::with_user_passphrase(passphrase).wrap_output(&mut *file).map_err(failed)?;
        writer.write_all(text.as_bytes()).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(file)
    }
}
