// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel status`: what running daemons say about themselves.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::args::Status;
use crate::outcome::Failure;
use crate::show;

/// Where daemons have their sockets.
const DIRECTORY: &str = "/run/reelfs";
/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the command.
pub fn run(args: &Status) -> Result<(), Failure> {
    let sockets = if args.names.is_empty() {
        all_sockets().map_err(|error| Failure::io(DIRECTORY, error))?
    } else {
        args.names.iter().map(|name| socket_of(name)).collect()
    };
    if sockets.is_empty() {
        return Err(Failure::Failed(format!("no daemon has a socket in {DIRECTORY}")));
    }
    let mut failed = Vec::new();
    for socket in &sockets {
        match ask(socket) {
            Ok(document) if args.json => println!("{document}"),
            Ok(document) => print!("{}", text(&document)),
            Err(error) => failed.push(format!("{}: {error}", socket.display())),
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::Failed(failed.join("; ")))
    }
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

fn ask(socket: &Path) -> Result<Value, String> {
    let mut stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    serde_json::from_str(&answer).map_err(|error| format!("its answer is not understood: {error}"))
}

/// The document for humans: what matters first, then everything else, indented as it is nested.
fn text(document: &Value) -> String {
    let word = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    let mut out = format!("{} on {}: {}", word("name"), word("mount"), word("state"));
    if let Some(stall) = document.get("stall").and_then(Value::as_str).filter(|stall| *stall != "none") {
        out.push_str(&format!(" ({stall})"));
    }
    out.push('\n');
    if let Value::Object(map) = document {
        for (key, value) in map {
            if !matches!(key.as_str(), "name" | "mount" | "state" | "stall" | "version") {
                lines(&mut out, 1, key, value);
            }
        }
    }
    out
}

fn lines(out: &mut String, depth: usize, key: &str, value: &Value) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Null => {}
        Value::Object(map) => {
            out.push_str(&format!("{indent}{key}:\n"));
            for (key, value) in map {
                lines(out, depth + 1, key, value);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            out.push_str(&format!("{indent}{key}:\n"));
            for item in items {
                out.push_str(&format!("{indent}  {}\n", plain(key, item)));
            }
        }
        scalar => out.push_str(&format!("{indent}{key}: {}\n", plain(key, scalar))),
    }
}

fn plain(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Value::Number(number) => match number.as_u64() {
            Some(count) if key.contains("bytes") => show::bytes(count),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}
