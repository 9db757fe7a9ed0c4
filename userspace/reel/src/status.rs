// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel status`: what running daemons say about themselves.

use serde_json::Value;

use crate::args::Status;
use crate::control::{ask, sockets};
use crate::outcome::Failure;
use crate::show;

/// Runs the command.
pub fn run(args: &Status) -> Result<(), Failure> {
    let sockets = sockets(&args.names)?;
    let mut failed = Vec::new();
    for socket in &sockets {
        match ask(socket, None) {
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
