// SPDX-License-Identifier: GPL-2.0-or-later
//! `vtape serve`: drives, plugged in until a signal ends it.

use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use anyhow::{anyhow, bail, Context, Result};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::control::{self, Socket};
use crate::drive::Drive;
use crate::target::{self, Event, SharedDrive, Target};

use super::RunDirectory;

#[derive(Args)]
pub(super) struct Serve {
    /// Name of a drive, and the image to load into it. Can be given several times.
    #[arg(long = "drive", value_name = "NAME[=IMAGE]", required = true)]
    drives: Vec<String>,
    /// Image to load, when there is one drive.
    #[arg(long, value_name = "IMAGE")]
    image: Option<PathBuf>,
    #[command(flatten)]
    run: RunDirectory,
}

/// A drive on its way to being plugged in.
struct Plan {
    name: String,
    image: Option<PathBuf>,
}

/// A drive that is plugged in. The fields are dropped in this order.
struct Plugged {
    target: Target,
    drive: SharedDrive,
    _socket: Socket,
}

/// Longest name of a drive: it becomes part of configfs names and of a serial number.
const MAX_NAME: usize = 32;

impl Serve {
    fn plans(self) -> Result<Vec<Plan>> {
        let mut plans: Vec<Plan> = Vec::new();
        for text in &self.drives {
            let (name, image) = match text.split_once('=') {
                Some((name, image)) => (name, Some(image.into())),
                None => (text.as_str(), None),
            };
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
                bail!("'{name}' cannot name a drive; use up to {MAX_NAME} letters, digits, - and _");
            }
            if plans.iter().any(|plan| plan.name == name) {
                bail!("drive {name} is named twice");
            }
            plans.push(Plan { name: name.to_owned(), image });
        }
        if let Some(image) = self.image {
            match &mut plans[..] {
                [plan] if plan.image.is_none() => plan.image = Some(image),
                _ => bail!("--image goes with one --drive; write --drive NAME=IMAGE instead"),
            }
        }
        Ok(plans)
    }

    pub(super) fn run(self) -> Result<()> {
        let directory = self.run.run_directory.clone();
        let plans = self.plans()?;
        let (events, happens) = mpsc::channel();
        watch_signals(events.clone())?;

        let mut plugged: Vec<Plugged> = Vec::new();
        for plan in plans {
            let socket = Socket::bind(&directory, &plan.name)?;
            if target::clean(&plan.name)? {
                eprintln!("vtape: drive {}: removed what a killed server left", plan.name);
            }
            let mut drive = Drive::new(plan.name.clone());
            if let Some(image) = &plan.image {
                let image = std::path::absolute(image)?;
                // A new drive is empty, so nothing can be in the way.
                let _ = drive.insert(control::open_cartridge(&image)?);
            }
            let drive: SharedDrive = Arc::new(Mutex::new(drive));
            let target = Target::plug_in(&plan.name, drive.clone(), events.clone())
                .with_context(|| format!("drive {}", plan.name))?;
            let nodes = target.nodes().clone();
            socket.serve(&plan.name, drive.clone(), nodes.clone())?;
            println!(
                "{}: {} {} {} ({})",
                plan.name,
                nodes.rewinding.display(),
                nodes.staying.display(),
                nodes.generic.as_deref().map_or("-".into(), |path| path.display().to_string()),
                nodes.address
            );
            plugged.push(Plugged { target, drive, _socket: socket });
        }

        let ended = match happens.recv() {
            Ok(Event::Terminate) | Err(_) => Ok(()),
            Ok(Event::ServerEnded(name, result)) => {
                let result = result.and(Err(anyhow!("its thread ended")));
                result.with_context(|| format!("drive {name}"))
            }
        };
        for Plugged { target, drive, .. } in plugged {
            drop(target);
            // Other threads may keep the drive, so its cartridge is put away here.
            let _ = target::lock(&drive).remove(true);
        }
        ended
    }
}

fn watch_signals(events: Sender<Event>) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("catching signals")?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in &mut signals {
                let _ = events.send(Event::Terminate);
            }
        })
        .context("starting a thread")?;
    Ok(())
}
