// SPDX-License-Identifier: GPL-2.0-or-later
//! A drive as a SCSI device of this machine: `target_core_user` in the middle, `tcm_loop` as
//! the cable.
//!
//! * `configfs`: makes and removes the kernel's objects.
//! * `server`: the thread that answers commands.
//!
//! The order matters: creating the loopback LUN makes the kernel ask the new device what it
//! is, so the ring must be served before; and it must be served until the LUN is gone.

mod configfs;
mod server;

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

use crate::drive::Drive;
use crate::image::Image;

pub use configfs::clean;
use configfs::{Backstore, Fabric};
pub(crate) use server::lock;
use server::Server;

/// A drive that several threads may use.
pub type SharedDrive = Arc<Mutex<Drive<Image>>>;

/// What a server has to tell whoever started it.
#[derive(Debug)]
pub enum Event {
    /// A signal asks the process to end.
    Terminate,
    /// The thread of the drive with this name has ended, which it does not do by itself.
    ServerEnded(String, Result<()>),
}

/// Where the kernel put the drive.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Nodes {
    /// `HOST:CHANNEL:TARGET:LUN`.
    pub address: String,
    /// The tape device that rewinds when it is closed.
    pub rewinding: PathBuf,
    /// The tape device that stays where it is.
    pub staying: PathBuf,
    /// The generic SCSI device, if the `sg` driver is there.
    pub generic: Option<PathBuf>,
}

/// A drive that is plugged in.
///
/// Dropping it unplugs it: the SCSI device first, then the thread, then the kernel's objects.
pub struct Target {
    // Dropped in this order.
    _fabric: Fabric,
    _server: Server,
    _backstore: Backstore,
    nodes: Nodes,
}

/// How long the kernel may take to show a device that it was told to make.
const PATIENCE: Duration = Duration::from_secs(30);

impl Target {
    /// Plugs `drive` in under `name`.
    ///
    /// # Errors
    ///
    /// What could not be done, on which path, and what to do about it. Nothing is left behind.
    pub fn plug_in(name: &str, drive: SharedDrive, events: Sender<Event>) -> Result<Self> {
        configfs::prepare()?;
        let backstore = Backstore::create(name)?;
        let ring = backstore.open_ring(PATIENCE)?;
        let server = Server::start(name, ring, drive, events)?;
        let fabric = Fabric::create(name, backstore.path())?;
        let nodes = find_nodes(&fabric.address()?)?;
        Ok(Self { _fabric: fabric, _server: server, _backstore: backstore, nodes })
    }

    /// Where the kernel put the drive.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }
}

/// Calls `look` until it finds something or [`PATIENCE`] ends.
fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names in the directory `path`; none if there is no such directory.
fn names_in(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn find_nodes(address: &str) -> Result<Nodes> {
    let device = PathBuf::from(format!("/sys/class/scsi_device/{address}/device"));
    let find = |class: &str, prefix: &str| {
        let names = names_in(&device.join(class));
        names.into_iter().find(|name| is_numbered(name, prefix))
    };
    let found = wait_for(PATIENCE, || Some((find("scsi_tape", "st")?, find("scsi_tape", "nst")?)));
    let Some((rewinding, staying)) = found else {
        bail!(
            "{}: the st driver did not take the device; see 'dmesg', and whether 'modprobe st' works",
            device.display()
        );
    };
    let dev = Path::new("/dev");
    Ok(Nodes {
        address: address.to_owned(),
        rewinding: dev.join(rewinding),
        staying: dev.join(staying),
        generic: find("scsi_generic", "sg").map(|name| dev.join(name)),
    })
}

fn read_text(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: reading", path.display()))?;
    Ok(text.trim().to_owned())
}
