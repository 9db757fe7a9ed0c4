// SPDX-License-Identifier: GPL-2.0-or-later

//! `reel checkpoint`: has a running daemon put the state of the whole tree into the log.

use std::path::Path;
use std::time::Duration;

use serde_json::{json, Value};

use crate::args::Checkpoint;
use crate::control::{ask, sockets};
use crate::outcome::Failure;
use crate::show;

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Runs the command.
pub fn run(args: &Checkpoint) -> Result<(), Failure> {
    let names: Vec<String> = args.name.iter().cloned().collect();
    let found = sockets(&names)?;
    let [socket] = &found[..] else {
        return Err(Failure::Usage("several daemons are running: name one".into()));
    };
    let wanted = if args.stop { "stop" } else { "start" };
    let answer = asked(socket, Some(&json!({ "checkpoint": wanted })))?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        return Err(Failure::Failed(format!("{}: {error}", socket.display())));
    }
    let run = answer.get("run").and_then(Value::as_u64).unwrap_or(0);
    if !args.wait {
        return Ok(());
    }
    let status = wait_for(socket, run)?;
    if args.json {
        println!("{status}");
    }
    let number = |key: &str| status.get(key).and_then(Value::as_u64).unwrap_or(0);
    match status.get("failed").and_then(Value::as_str) {
        Some(_) if args.stop => Ok(()),
        Some(error) => Err(Failure::Failed(format!("the checkpoint is not complete: {error}"))),
        None => {
            if !args.json {
                println!(
                    "checkpoint at LSN {:#x} is complete: {} objects, {}",
                    number("begin"),
                    number("objects"),
                    show::bytes(number("bytes"))
                );
            }
            Ok(())
        }
    }
}

fn asked(socket: &Path, request: Option<&Value>) -> Result<Value, Failure> {
    ask(socket, request).map_err(|error| Failure::Failed(format!("{}: {error}", socket.display())))
}

/// What the daemon says of the run with this number, or of one behind it, when that is over.
fn wait_for(socket: &Path, run: u64) -> Result<Value, Failure> {
    loop {
        let mut document = asked(socket, None)?;
        let status = document.get_mut("checkpoint").map(Value::take).unwrap_or_default();
        let word = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or_default();
        let begun = status.get("run").and_then(Value::as_u64).unwrap_or(0);
        match word("state") {
            "failed" => return Err(Failure::Failed("the daemon makes no checkpoints; reel status says why".into())),
            "running" if begun == run => {}
            _ if begun >= run => return Ok(status),
            _ => {}
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
