// SPDX-License-Identifier: GPL-2.0-or-later

//! Keys of encrypted volumes: wrapped for recipients, unwrapped with identities.
//!
//! A recipient is public (`age1...`): whoever writes volumes needs no more. The identity that belongs to it
//! (`AGE-SECRET-KEY-1...`) opens them, and belongs into a safe. Both, and the wrapped key, are of the format age
//! (<https://age-encryption.org/v1>). What is encrypted with the key is not known here.

mod identity;
mod recipient;

pub use age::secrecy::SecretString;
pub use identity::{Identities, NewIdentity};
pub use recipient::Recipients;

/// A secret, to be printed or stored by somebody who was asked to.
pub fn exposed(secret: &SecretString) -> &str {
    age::secrecy::ExposeSecret::expose_secret(secret)
}

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// This is no recipient.
    #[error("'{text}' is no recipient ({why}): one looks like age1... and is printed by reel key show")]
    Recipient {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nobody could open the volume.
    #[error("there is no recipient")]
    NoRecipient,
    /// A line is no identity.
    #[error("line {line} is no identity ({why}): one begins with AGE-SECRET-KEY-1")]
    Identity {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no identity in the file.
    #[error("there is no identity in it: one begins with AGE-SECRET-KEY-1")]
    NoIdentity,
    /// The file is protected by a passphrase, and this is not it, or nobody gave one.
    #[error("it is protected by a passphrase: {0}")]
    Passphrase(String),
    /// The wrapped key is no age file, or was damaged.
    #[error("the volume's wrapped key cannot be used: {0}")]
    Wrapped(String),
    /// The system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
