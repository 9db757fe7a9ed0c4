// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel label`: the one thing that must be done to a tape before it can be used.

use std::os::unix::fs::FileTypeExt;

use reelfs_media::directory::VolumeFile;
use reelfs_media::label::{self, LabelState, NewLabel};
use reelfs_media::tape::Tape;
use reelfs_media::Medium;
use uuid::Uuid;

use crate::args::Label;
use crate::outcome::Failure;

/// What has to be typed to overwrite what is no volume of ours.
const FOREIGN: &str = "foreign";

/// Runs the command.
pub fn run(args: &Label) -> Result<(), Failure> {
    let new = NewLabel { block_size: args.block_size, ..NewLabel::new(&args.name, &args.pool) };
    let new = new.build()?;
    let data = std::fs::metadata(&args.medium).map_err(|error| Failure::io(args.medium.display(), error))?;
    let shown = if data.is_dir() {
        let medium = VolumeFile::create(&args.medium, &new, None)?;
        medium.describe()
    } else if data.file_type().is_char_device() {
        let mut tape = Tape::open_writable(&args.medium)?;
        let found = match tape.read_label()? {
            LabelState::Blank => None,
            LabelState::Labelled(old) => Some(label::name(&old)),
            LabelState::Foreign(_) => Some(FOREIGN.to_owned()),
        };
        match (found, &args.overwrite) {
            (None, _) => {}
            (Some(found), Some(typed)) if found == *typed => {}
            (Some(found), _) => {
                let what =
                    if found == FOREIGN { "something that is no volume".into() } else { format!("volume '{found}'") };
                let text = format!(
                    "{}: it holds {what}; to lose that for ever, say --overwrite {found}",
                    args.medium.display()
                );
                return Err(Failure::Failed(text));
            }
        }
        label::write(&mut tape, &new, args.overwrite.is_some())?;
        tape.describe()
    } else {
        let text = format!("{}: neither a tape drive nor a directory for volume files", args.medium.display());
        return Err(Failure::Usage(text));
    };
    println!(
        "{shown}: volume '{}' of pool '{}', blocks of {} bytes, {}",
        args.name,
        args.pool,
        args.block_size,
        Uuid::from_bytes(new.volume)
    );
    Ok(())
}
