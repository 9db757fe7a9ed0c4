// SPDX-License-Identifier: GPL-2.0-or-later

//! Speaking to running daemons.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::outcome::Failure;

/// Where daemons have their sockets.
const DIRECTORY: &str = "/run/reelfs";
/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sockets of these daemons, by name or path; of all there are without any.
pub fn sockets(names: &[String]) -> Result<Vec<PathBuf>, Failure> {
    let sockets = if names.is_empty() {
        all_sockets().map_err(|error| Failure::io(DIRECTORY, error))?
    } else {
        names.iter().map(|name| socket_of(name)).collect()
    };
    if sockets.is_empty() {
        return Err(Failure::Failed(format!("no daemon has a socket in {DIRECTORY}")));
    }
    Ok(sockets)
}

fn socket_of(name: &str) -> PathBuf {
    if name.contains('/') {
        PathBuf::from(name)
    } else {
        Path::new(DIRECTORY).join(format!("{name}.sock"))
    }
}

fn all_sockets() -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sock") {
            sockets.push(path);
        }
    }
    sockets.sort();
    Ok(sockets)
}

/// What a daemon answers to a request; to none, how it is.
pub fn ask(socket: &Path, request: Option<&Value>) -> Result<Value, String> {
    let mut stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    if let Some(request) = request {
        stream.write_all(request.to_string().as_bytes()).map_err(|error| error.to_string())?;
    }
    stream.shutdown(Shutdown::Write).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    serde_json::from_str(&answer).map_err(|error| format!("its answer is not understood: {error}"))
}
