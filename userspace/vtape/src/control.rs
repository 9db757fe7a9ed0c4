// SPDX-License-Identifier: GPL-2.0-or-later
//! Talking to a running server: one Unix socket per drive, one line of JSON each way.
//!
//! The socket lies in a directory that only root can enter, so whoever can connect may do
//! anything to the drive.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail, Context, Result};
use serde::{Deserialize, Serialize};

use crate::drive::{Class, Drive, Effect, Fault, Reset, SlotError};
use crate::image::{Access, Image};
use crate::medium::Medium;
use crate::target::{Nodes, SharedDrive};

/// Where sockets are unless told otherwise.
pub const RUN_DIRECTORY: &str = "/run/vtape";

/// Longest line that either side reads.
const MAX_LINE: u64 = 64 << 10;

/// What a server can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the drive is.
    Status,
    /// Put the image at this absolute path into the drive.
    Load(PathBuf),
    /// Take the cartridge out.
    Eject {
        /// Even though the initiator prevents it.
        force: bool,
    },
    /// Set or clear the write-protect tab.
    Protect(bool),
    /// Arm a fault.
    Inject(FaultRequest),
    /// Disarm all faults.
    ClearFaults,
    /// Reset the drive.
    Reset {
        /// What no synchronising command covered is lost.
        power_loss: bool,
    },
}

/// A fault as it is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultRequest {
    /// Name of a class of commands, or none for any.
    pub on: Option<String>,
    /// The first command it strikes, counted from one.
    pub nth: u64,
    /// How many it strikes in a row.
    pub times: u64,
    /// `KEY/ASC/ASCQ` in hexadecimal.
    pub sense: Option<String>,
    /// The command is carried out before it fails.
    pub after: bool,
    /// Milliseconds to wait before answering.
    pub delay: Option<u64>,
    /// The drive resets itself.
    pub reset: bool,
}

/// Names of the classes of commands that a fault can wait for.
pub const CLASSES: [(&str, Class); 11] = [
    ("read", Class::Read),
    ("write", Class::Write),
    ("filemark", Class::Filemark),
    ("space", Class::Space),
    ("locate", Class::Locate),
    ("position", Class::Position),
    ("rewind", Class::Rewind),
    ("erase", Class::Erase),
    ("load", Class::Load),
    ("mode", Class::Mode),
    ("ready", Class::Ready),
];

impl FaultRequest {
    fn fault(&self) -> Result<Fault> {
        let on = match &self.on {
            None => None,
            Some(name) => {
                let class = CLASSES.iter().find(|(known, _)| known == name);
                Some(class.ok_or_else(|| anyhow!("there are no '{name}' commands"))?.1)
            }
        };
        let effect = match (&self.sense, self.delay, self.reset) {
            (Some(sense), None, false) => {
                let sense = sense.parse().map_err(|error: String| anyhow!(error))?;
                if self.after {
                    Effect::FailAfter(sense)
                } else {
                    Effect::Fail(sense)
                }
            }
            (None, Some(delay), false) => Effect::Delay(Duration::from_millis(delay)),
            (None, None, true) => Effect::Reset,
            _ => bail!("a fault is one of --sense, --delay and --reset"),
        };
        if self.nth == 0 || self.times == 0 {
            bail!("commands are counted from one");
        }
        Ok(Fault { on, nth: self.nth, times: self.times, effect })
    }
}

/// How a drive is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DriveStatus {
    /// Its name.
    pub name: String,
    /// Process that serves it.
    pub pid: u32,
    /// Where the kernel put it.
    pub nodes: Nodes,
    /// The cartridge, if there is one.
    pub cartridge: Option<CartridgeStatus>,
    /// The number of faults that are armed.
    pub faults: usize,
    /// Raised TapeAlert flags.
    pub alerts: Vec<u8>,
}

/// How a cartridge in a drive is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CartridgeStatus {
    /// The image file.
    pub image: PathBuf,
    /// The sticker.
    pub barcode: String,
    /// Threaded, or only lying in the drive.
    pub loaded: bool,
    /// The write-protect tab is set.
    pub protected: bool,
    /// Write once.
    pub worm: bool,
    /// Number of the object that would be read next.
    pub position: u64,
    /// Objects recorded.
    pub objects: u64,
    /// Objects on stable storage.
    pub synchronized: u64,
    /// Bytes taken.
    pub used: u64,
    /// Bytes that fit.
    pub capacity: u64,
}

/// What a server answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Done; and how the drive is now.
    Done(Box<DriveStatus>),
    /// Not done, and why.
    Failed(String),
}

/// A socket that is removed when this is dropped.
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

fn socket_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.sock"))
}

/// Names of the drives that have a socket in `directory`.
pub fn drives_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".sock").map(str::to_owned))
        .collect();
    names.sort();
    names
}

impl Socket {
    /// Makes the socket of the drive `name`.
    ///
    /// # Errors
    ///
    /// When a running server has it, or the directory cannot be had.
    pub fn bind(directory: &Path, name: &str) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("{}: making it", directory.display()))?;
        let path = socket_path(directory, name);
        if UnixStream::connect(&path).is_ok() {
            bail!("drive {name} is being served already; see 'vtape status {name}'");
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{}: removing it", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).with_context(|| format!("{}: making it", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("{}: closing it to others", path.display()))?;
        Ok(Self { path, listener })
    }

    /// Answers requests for `drive` in a thread of its own, until the process ends.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn serve(&self, name: &str, drive: SharedDrive, nodes: Nodes) -> Result<()> {
        let listener = self.listener.try_clone().context("duplicating a socket")?;
        let name = name.to_owned();
        std::thread::Builder::new()
            .name(format!("control-{name}"))
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    // One client's trouble is its own.
                    if let Err(error) = converse(&name, &stream, &drive, &nodes) {
                        eprintln!("vtape: drive {name}: control connection: {error:#}");
                    }
                }
            })
            .context("starting a thread")?;
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn converse(name: &str, stream: &UnixStream, drive: &SharedDrive, nodes: &Nodes) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut line = String::new();
    BufReader::new(io::Read::take(stream, MAX_LINE)).read_line(&mut line)?;
    if line.is_empty() {
        return Ok(()); // somebody looked whether we are here
    }
    let response = match serde_json::from_str(&line) {
        Err(error) => Response::Failed(format!("not a request: {error}")),
        Ok(request) => match carry_out(request, drive) {
            Ok(()) => Response::Done(Box::new(status(name, &crate::target::lock(drive), nodes))),
            Err(error) => Response::Failed(format!("{error:#}")),
        },
    };
    let mut answer = serde_json::to_string(&response)?;
    answer.push('\n');
    let mut stream = stream;
    Ok(stream.write_all(answer.as_bytes())?)
}

/// Opens `path` as a cartridge that goes into a drive.
///
/// # Errors
///
/// The path, and what is the matter with it.
pub fn open_cartridge(path: &Path) -> Result<Image> {
    let mut image = Image::open(path, Access::Write).with_context(|| path.display().to_string())?;
    image
        .count_load()
        .and_then(|()| image.synchronize())
        .with_context(|| format!("{}: writing its header", path.display()))?;
    if image.lost() > 0 {
        eprintln!("vtape: {}: {} objects are damaged; 'vtape dump' lists them", path.display(), image.lost());
    }
    Ok(image)
}

fn carry_out(request: Request, drive: &SharedDrive) -> Result<()> {
    match request {
        Request::Status => {}
        Request::Load(path) => {
            let image = open_cartridge(&path)?;
            if let Err((_, image)) = crate::target::lock(drive).insert(image) {
                drop(image);
                bail!("there is a cartridge in the drive; 'vtape eject' takes it out");
            }
        }
        Request::Eject { force } => {
            let removed = crate::target::lock(drive).remove(force);
            match removed {
                Ok(image) => drop(image),
                Err(SlotError::Empty) => bail!("there is no cartridge in the drive"),
                Err(_) => bail!("a program has locked the drive; 'mt unlock' frees it, 'eject --force' tears it out"),
            }
        }
        Request::Protect(on) => crate::target::lock(drive).protect(on).context("the tab cannot be moved")?,
        Request::Inject(fault) => crate::target::lock(drive).inject(fault.fault()?),
        Request::ClearFaults => {
            crate::target::lock(drive).clear_faults();
        }
        Request::Reset { power_loss } => {
            let kind = if power_loss { Reset::PowerLoss } else { Reset::Internal };
            crate::target::lock(drive).reset(kind);
        }
    }
    Ok(())
}

fn status(name: &str, drive: &Drive<Image>, nodes: &Nodes) -> DriveStatus {
    let cartridge = drive.cartridge_in_slot().map(|image| CartridgeStatus {
        image: image.path().to_owned(),
        barcode: image.cartridge().barcode.clone(),
        loaded: drive.medium().is_some(),
        protected: image.cartridge().protected,
        worm: image.cartridge().worm,
        position: drive.position(),
        objects: image.objects(),
        synchronized: image.synchronized(),
        used: image.used(image.objects()),
        capacity: image.cartridge().capacity,
    });
    DriveStatus {
        name: name.to_owned(),
        pid: std::process::id(),
        nodes: nodes.clone(),
        cartridge,
        faults: drive.faults().len(),
        alerts: drive.raised_alerts(),
    }
}

/// Asks the server of the drive `name`.
///
/// # Errors
///
/// When no server answers, and what the server says is wrong.
pub fn ask(directory: &Path, name: &str, request: &Request) -> Result<DriveStatus> {
    let path = socket_path(directory, name);
    let mut stream = UnixStream::connect(&path).with_context(|| {
        format!("{}: no server of drive {name} answers; start one with 'vtape serve --drive {name}'", path.display())
    })?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).context("asking the server")?;
    let mut answer = String::new();
    BufReader::new(io::Read::take(&stream, MAX_LINE))
        .read_line(&mut answer)
        .context("waiting for the server's answer")?;
    match serde_json::from_str(&answer).context("the server's answer makes no sense")? {
        Response::Done(status) => Ok(*status),
        Response::Failed(reason) => bail!("drive {name}: {reason}"),
    }
}
