// SPDX-License-Identifier: GPL-2.0-or-later

//! The control socket: whoever connects says what is wanted, in one JSON document, and ends his side; nothing at all asks how
//! the daemon is. The answer is one JSON document, and the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{bail, Context, Result};
use reelfs_format::uapi::{ListEntry, UserEntry, RING_ATTACHED, RING_DEGRADED, RING_GAP, RING_MOUNTED, USER_OTHERS};
use reelfs_sys::device::Device;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::checkpoint::Orders;
use crate::status::{GapStatus, Positions, RingStatus, Shared, Stall, Status};

/// How long a client may take to read, or to write.
const PATIENCE: Duration = Duration::from_secs(2);
/// No request is longer, in bytes.
const REQUEST_MAX: u64 = 4096;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    /// A checkpoint.
    Checkpoint(CheckpointRequest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CheckpointRequest {
    Start,
    Stop,
}

/// What does not change while the daemon runs.
#[derive(Clone, Debug, Serialize)]
pub struct Identity {
    /// Name of the configuration.
    pub name: String,
    /// Where reelfs is mounted.
    pub mount: PathBuf,
    /// Process id of the daemon.
    pub pid: u32,
    /// The stream.
    pub stream: Uuid,
    /// Timeline of the stream.
    pub timeline: u32,
    /// Directory of the spool.
    pub spool_directory: PathBuf,
    /// The pool.
    pub pool: String,
}

/// The document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    #[serde(flatten)]
    identity: &'a Identity,
    state: &'static str,
    stall: Stall,
    lsn: Positions,
    batches: u64,
    records: u64,
    #[serde(flatten)]
    shared: &'a Shared,
}

/// The document about `status` at this moment, one line.
pub fn document(identity: &Identity, status: &Status) -> Result<Vec<u8>> {
    let mut shared = status.shared().clone();
    shared.ring = ring(identity.stream);
    let stall = status.stall();
    let degraded = shared.ring.as_ref().and_then(|ring| ring.gap.as_ref()?.unrecorded_for_seconds).is_some();
    let state = match (status.stopping(), status.attached(), stall) {
        (true, _, _) => "stopping",
        (_, false, _) => "waiting-for-mount",
        (_, true, _) if degraded => "degraded: changes go into no log",
        (_, true, Stall::None) => "capturing",
        (_, true, _) => "stalled",
    };
    let (batches, records) = status.counts();
    let lsn = status.positions();
    let document = Document { version: 1, identity, state, stall, lsn, batches, records, shared: &shared };
    let mut bytes = serde_json::to_vec(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The ring that is attached, as the kernel describes it at this moment.
fn ring(stream: Uuid) -> Option<RingStatus> {
    let device = Device::open().ok()?;
    let rings = device.list().ok()?;
    let ours = |ring: &&ListEntry| ring.stream == *stream.as_bytes() && ring.state & RING_ATTACHED != 0;
    rings.iter().find(ours).map(|ring| RingStatus {
        id: ring.ring,
        mounted: ring.state & RING_MOUNTED != 0,
        epoch: ring.epoch,
        used: ring.used,
        size: ring.data_size,
        waits: ring.waits,
        refused: ring.refused,
        gap: (ring.state & (RING_GAP | RING_DEGRADED) != 0).then(|| gap(ring)),
        users: users(device.users(ring.ring).unwrap_or_default()),
    })
}

fn gap(ring: &ListEntry) -> GapStatus {
    let since = u64::try_from(ring.degraded_since).ok().filter(|since| *since > 0).map(Duration::from_nanos);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    GapStatus {
        lacks_changes_from: format!("LSN {:#x}", ring.gap_lsn),
        gaps: ring.gaps,
        changes: ring.unrecorded,
        bytes: ring.unrecorded_bytes,
        unrecorded_for_seconds: since.map(|since| now.saturating_sub(since).as_secs()),
    }
}

/// Users, those who have most of the ring first.
fn users(mut users: Vec<UserEntry>) -> Vec<String> {
    users.sort_by_key(|user| std::cmp::Reverse((user.held, user.bytes)));
    let line = |user: &UserEntry| {
        let name = if user.uid == USER_OTHERS { "others".into() } else { format!("uid {}", user.uid) };
        let UserEntry { held, bytes, records, waits, .. } = user;
        format!("{name}: {held} bytes held, {records} records of {bytes} bytes, {waits} waits for the limit")
    };
    users.iter().map(line).collect()
}

/// A socket that answers. Removed when dropped.
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Answers at `path` from now on, in a thread of its own. Only root may connect.
    pub fn open(path: &Path, identity: Identity, status: Arc<Status>, checkpoint: Orders) -> Result<Socket> {
        let directory = path.parent().context("the control socket has no directory")?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        match fs::symlink_metadata(path) {
            // The lock on the spool says that no other daemon of this mount runs: it is a remainder.
            Ok(found) if found.file_type().is_socket() => {
                fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
            Ok(_) => bail!("{} exists and is no socket", path.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", path.display()))?;
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || serve(&listener, &identity, &status, &checkpoint))?;
        Ok(Socket { path: path.to_path_buf() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn serve(listener: &UnixListener, identity: &Identity, status: &Status, checkpoint: &Orders) {
    for client in listener.incoming() {
        let answer = client.and_then(|mut client| {
            client.set_write_timeout(Some(PATIENCE))?;
            client.set_read_timeout(Some(PATIENCE))?;
            let mut request = Vec::new();
            match (&client).take(REQUEST_MAX).read_to_end(&mut request) {
                // Whoever says nothing wants to know how things are.
                Err(error) if error.kind() == ErrorKind::WouldBlock && request.is_empty() => {}
                other => drop(other?),
            }
            let answer = answer(&request, identity, status, checkpoint).map_err(std::io::Error::other)?;
            client.write_all(&answer)
        });
        if let Err(error) = answer {
            log::debug!("control socket: {error}");
        }
    }
}

/// The answer to a request, one line.
fn answer(request: &[u8], identity: &Identity, status: &Status, checkpoint: &Orders) -> Result<Vec<u8>> {
    if request.is_empty() {
        return document(identity, status);
    }
    let done = match serde_json::from_slice(request) {
        Ok(Request::Checkpoint(CheckpointRequest::Start)) => checkpoint.start(status),
        Ok(Request::Checkpoint(CheckpointRequest::Stop)) => checkpoint.stop(status),
        Err(error) => Err(anyhow::Error::from(error).context("the request is not understood")),
    };
    let answer = match done {
        Ok(run) => json!({ "run": run }),
        Err(error) => json!({ "error": format!("{error:#}") }),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    Ok(bytes)
}
