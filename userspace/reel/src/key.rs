// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel key`: identities, which open encrypted volumes.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;

use reelfs_keys::NewIdentity;
use reelfs_media::key;
use reelfs_media::label;
use reelfs_media::reader::VolumeReader;
use zeroize::Zeroizing;

use crate::args::{Key, KeyCheck, KeyGenerate, KeyShow};
use crate::identity;
use crate::outcome::Failure;
use crate::show;
use crate::volumes::locations;

/// Characters of a secret that are printed in a group.
const GROUP: usize = 4;
/// Groups on a line of paper.
const GROUPS: usize = 8;

/// Runs the command.
pub fn run(args: &Key) -> Result<(), Failure> {
    match args {
        Key::Generate(args) => generate(args),
        Key::Show(args) => show_identity(args),
        Key::Check(args) => check(args),
    }
}

fn generate(args: &KeyGenerate) -> Result<(), Failure> {
    let shown = args.file.display();
    let passphrase = if args.passphrase { Some(identity::ask_new()?) } else { None };
    let new = NewIdentity::generate();
    let bytes = new.file(&show::time(label::now()), passphrase).map_err(|error| Failure::Failed(error.to_string()))?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&args.file);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Failure::Failed(format!("{shown} is there already; an identity is never overwritten: choose another name"))
        }
        _ => Failure::io(&shown, error),
    })?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|error| Failure::io(&shown, error))?;
    println!("{}", new.recipient());
    eprintln!(
        "reel: {shown} opens what is encrypted for this recipient, and nothing else does: print it (reel key show --paper \
         {shown}), and keep it where the server is not"
    );
    Ok(())
}

fn show_identity(args: &KeyShow) -> Result<(), Failure> {
    let identities = identity::load_one(&args.file)?;
    let recipients = identities.recipients();
    if !args.paper {
        for recipient in recipients {
            println!("{recipient}");
        }
        return Ok(());
    }
    for (recipient, secret) in recipients.iter().zip(identities.secrets()) {
        let secret = Zeroizing::new(reelfs_keys::exposed(&secret).to_owned());
        println!("reelfs: an identity. Whoever has this paper can read the volumes that were encrypted for\n");
        println!("    {recipient}\n");
        println!(
            "To use it, type the line below into a file, in upper or lower case, with or without blanks, and give"
        );
        println!("the file to reel restore --identity FILE, or to age -d -i FILE. A wrong character is noticed by");
        println!("reel key check FILE.\n");
        println!("    {}\n", *secret);
        println!("The same in groups, to compare:\n");
        let groups: Vec<&str> =
            secret.as_bytes().chunks(GROUP).filter_map(|group| std::str::from_utf8(group).ok()).collect();
        for line in groups.chunks(GROUPS) {
            println!("    {}", line.join(" "));
        }
        println!("\nPrinted {}.", show::time(label::now()));
    }
    Ok(())
}

fn check(args: &KeyCheck) -> Result<(), Failure> {
    let identities = identity::load_one(&args.file)?;
    for recipient in identities.recipients() {
        println!("{}: an identity of {recipient}", args.file.display());
    }
    let mut locked = 0;
    for location in locations(&args.volumes)? {
        let mut volume = VolumeReader::open(location.open()?)?;
        let name = volume.name().clone();
        if !volume.is_encrypted() {
            println!("volume '{name}': not encrypted");
            continue;
        }
        let wrapped = volume.wrapped_key()?;
        let fingerprint = key::shown(&wrapped.fingerprint);
        let unwrapped =
            identities.unwrap(wrapped).map_err(|error| Failure::Media(format!("volume '{name}': {error}")))?;
        match unwrapped {
            Some(key) => {
                volume.unlock(key)?;
                println!("volume '{name}': opens (key {fingerprint})");
            }
            None => {
                locked += 1;
                let others = wrapped.recipients.lines().map(|line| line.escape_default().to_string());
                let others = others.collect::<Vec<_>>().join(", ");
                println!("volume '{name}': DOES NOT OPEN (key {fingerprint}); encrypted for {others}");
            }
        }
    }
    match locked {
        0 => Ok(()),
        count => Err(Failure::Failed(format!("{count} volumes do not open with {}", args.file.display()))),
    }
}
