// SPDX-License-Identifier: GPL-2.0-or-later

//! Identity files that the operator names, and the passphrases that some of them have.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use reelfs_keys::{Identities, SecretString};
use rustix::termios::{tcgetattr, tcsetattr, LocalModes, OptionalActions, Termios};

use crate::outcome::Failure;

/// Where somebody can be asked, whatever standard input is.
const TERMINAL: &str = "/dev/tty";

/// The identities in all of these files.
pub fn load(paths: &[PathBuf]) -> Result<Identities, Failure> {
    let mut identities = Identities::default();
    for path in paths {
        identities.extend(load_one(path)?);
    }
    Ok(identities)
}

/// The identities in a file.
pub fn load_one(path: &Path) -> Result<Identities, Failure> {
    let shown = path.display();
    let bytes = fs::read(path).map_err(|error| Failure::io(&shown, error))?;
    let ask = || ask(&format!("Passphrase of {shown}: ")).map_err(|error| format!("{error}"));
    Identities::parse(&bytes, ask).map_err(|error| Failure::Failed(format!("{shown}: {error}")))
}

/// Asks for a new passphrase, twice.
pub fn ask_new() -> Result<SecretString, Failure> {
    let first = ask_text("New passphrase: ").map_err(|error| Failure::io(TERMINAL, error))?;
    let second = ask_text("The same again: ").map_err(|error| Failure::io(TERMINAL, error))?;
    if first != second {
        return Err(Failure::Failed("the two are not the same; nothing was written".into()));
    }
    if first.is_empty() {
        return Err(Failure::Failed("an empty passphrase protects nothing; leave out --passphrase".into()));
    }
    Ok(SecretString::from(first))
}

fn ask(question: &str) -> std::io::Result<SecretString> {
    ask_text(question).map(SecretString::from)
}

/// Sets the terminal back, whatever happens in between.
struct Echo<'a>(&'a File, Termios);

impl Drop for Echo<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
    }
}

fn ask_text(question: &str) -> std::io::Result<String> {
    let no_terminal = |error: std::io::Error| {
        std::io::Error::new(error.kind(), format!("there is no terminal to ask on ({TERMINAL}: {error})"))
    };
    let mut terminal = OpenOptions::new().read(true).write(true).open(TERMINAL).map_err(no_terminal)?;
    terminal.write_all(question.as_bytes())?;
    let before = tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let restore = Echo(&terminal, before);
    tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    drop(restore);
    (&terminal).write_all(b"\n")?;
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
