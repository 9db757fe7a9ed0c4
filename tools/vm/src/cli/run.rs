// SPDX-License-Identifier: GPL-2.0-or-later
//! `reelvm run`: one command in one machine.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};
use reelvm::{Ending, Error, Machine, Setup};

use crate::{pair, report, with_project};

type Step = Box<dyn FnOnce(Machine) -> Result<Machine, Error>>;

/// Runs the command and exits as it did; 1 if the run has failed for another reason.
pub fn run(mut arguments: Parser) -> Result<ExitCode, Error> {
    let usage = |e: lexopt::Error| Error::new(e.to_string());
    let setup = Setup::from_env()?;
    // A machine is made with its command, which comes last on the command line.
    let mut steps: Vec<Step> = Vec::new();
    let mut name = "run".to_owned();
    let mut cut = None;
    let mut bare = false;
    let mut argv: Vec<String> = Vec::new();
    while let Some(argument) = arguments.next().map_err(usage)? {
        let option = match argument {
            Arg::Long(option) => option.to_owned(),
            Arg::Value(command) => {
                let rest = arguments.raw_args().map_err(usage)?;
                for word in std::iter::once(command).chain(rest) {
                    argv.push(word.string().map_err(usage)?);
                }
                break;
            }
            Arg::Short(_) => return Err(usage(argument.unexpected())),
        };
        if option == "keep" {
            steps.push(Box::new(|m| Ok(m.keep())));
            continue;
        }
        if option == "bare" {
            bare = true;
            continue;
        }
        let value = arguments.value().and_then(ValueExt::string).map_err(usage)?;
        let number = |value: &str| value.parse::<u32>().map_err(|e| Error::new(format!("--{option} {value}: {e}")));
        match option.as_str() {
            "name" => name = value,
            "memory" => {
                let mib = number(&value)?;
                steps.push(Box::new(move |m| Ok(m.memory(mib))));
            }
            "cpus" => {
                let cpus = number(&value)?;
                steps.push(Box::new(move |m| Ok(m.cpus(cpus))));
            }
            "icount" => {
                let shift = number(&value)?;
                steps.push(Box::new(move |m| Ok(m.icount(shift))));
            }
            "timeout" => {
                let time = Duration::from_secs(number(&value)?.into());
                steps.push(Box::new(move |m| Ok(m.timeout(time))));
            }
            "cut-after" => cut = Some(Duration::from_secs(number(&value)?.into())),
            "allow" => steps.push(Box::new(move |m| Ok(m.allow(&value)))),
            "results" => steps.push(Box::new(move |m| Ok(m.results(Path::new(&value))))),
            "disk" => {
                let (disk, file) = pair(&value)?;
                let (file, size) = match file.rsplit_once(':') {
                    Some((file, mib)) => (file, u64::from(number(mib)?) << 20),
                    None => (file, 0),
                };
                let (disk, file) = (disk.to_owned(), file.to_owned());
                steps.push(Box::new(move |m| m.disk(&disk, Path::new(&file), size)));
            }
            "share" | "port" | "file" | "env" => {
                let (left, right) = pair(&value)?;
                let (left, right) = (left.to_owned(), right.to_owned());
                steps.push(Box::new(move |m| {
                    Ok(match option.as_str() {
                        "share" => m.share(&left, Path::new(&right)),
                        "port" => m.port(&left, Path::new(&right)),
                        "file" => m.file(&left, Path::new(&right)),
                        _ => m.env(&left, &right),
                    })
                }));
            }
            "program" => {
                let path = setup.programs.join(&value);
                steps.push(Box::new(move |m| Ok(m.program(&path))));
            }
            _ => return Err(Error::new(format!("unknown option --{option}"))),
        }
    }
    if argv.is_empty() {
        return Err(Error::new("no command to run"));
    }

    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let mut machine = Machine::new(&setup, &name, &argv);
    if !bare {
        machine = with_project(machine, &setup)?;
    }
    for step in steps {
        machine = step(machine)?;
    }
    let mut running = machine.start()?;
    let outcome = match cut {
        None => running.wait()?,
        Some(time) => {
            running.run_for(time)?;
            running.cut_power()?
        }
    };
    let good = report(&name, &outcome);
    Ok(match (outcome.ending, outcome.status) {
        _ if good => ExitCode::SUCCESS,
        (Ending::Off, Some(status @ 1..=255)) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        _ => ExitCode::FAILURE,
    })
}
