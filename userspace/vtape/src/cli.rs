// SPDX-License-Identifier: GPL-2.0-or-later
//! The command line.

mod images;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, Result};
use clap::{Args, Parser, Subcommand};

use crate::control::{self, FaultRequest, Request, CLASSES, RUN_DIRECTORY};

/// A virtual tape drive for the kernel's own st driver.
///
/// Cartridges are image files. 'vtape serve' plugs drives in; the other commands make and
/// look at cartridges, and do what a hand at the drive would do.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make an empty cartridge.
    Create(images::Create),
    /// Say what a cartridge is and how full.
    Info(images::Info),
    /// List what is recorded on a cartridge, or print one block.
    Dump(images::Dump),
    /// Damage one byte of a recorded block.
    Flip(images::Flip),
    /// Plug drives in and serve them until SIGTERM.
    Serve(serve::Serve),
    /// Say how the drives are.
    Status(Status),
    /// Put a cartridge into a drive.
    Load(Load),
    /// Take the cartridge out of a drive.
    Eject(Eject),
    /// Set the write-protect tab of a cartridge.
    Protect(Protect),
    /// Make a drive fail.
    Inject(Inject),
    /// Reset a drive: it goes to the beginning of the tape and says so.
    Reset(Reset),
    /// Remove what a killed server left in the kernel.
    Clean(Clean),
}

/// Where the sockets are.
#[derive(Args)]
struct RunDirectory {
    /// Directory of the servers' control sockets.
    #[arg(long, value_name = "DIRECTORY", default_value = RUN_DIRECTORY)]
    run_directory: PathBuf,
}

#[derive(Args)]
struct Status {
    /// Name of the drive; all drives without it.
    drive: Option<String>,
    /// One JSON object per drive.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunDirectory,
}

#[derive(Args)]
struct Load {
    /// Name of the drive.
    drive: String,
    /// Image file.
    image: PathBuf,
    #[command(flatten)]
    run: RunDirectory,
}

#[derive(Args)]
struct Eject {
    /// Name of the drive.
    drive: String,
    /// Even though a program has locked the drive.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    run: RunDirectory,
}

#[derive(Args)]
struct Protect {
    /// Image file of a cartridge that is in no drive.
    #[arg(required_unless_present = "drive", conflicts_with = "drive")]
    image: Option<PathBuf>,
    /// The cartridge in the drive with this name.
    #[arg(long, value_name = "NAME")]
    drive: Option<String>,
    /// Clear the tab instead.
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    run: RunDirectory,
}

#[derive(Args)]
struct Inject {
    /// Name of the drive.
    drive: String,
    /// Kind of command to strike; any kind without it.
    #[arg(long, value_name = "KIND", value_parser = CLASSES.map(|(name, _)| name))]
    on: Option<String>,
    /// Strike the Nth such command from now.
    #[arg(long, value_name = "N", default_value_t = 1)]
    nth: u64,
    /// Strike so many in a row.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    times: u64,
    /// Fail with this sense data, in hexadecimal.
    #[arg(long, value_name = "KEY/ASC/ASCQ", group = "effect")]
    sense: Option<String>,
    /// Carry the command out, and fail all the same.
    #[arg(long, requires = "sense")]
    after: bool,
    /// Answer so many milliseconds later.
    #[arg(long, value_name = "MILLISECONDS", group = "effect")]
    delay: Option<u64>,
    /// Have the drive reset itself.
    #[arg(long, group = "effect")]
    reset: bool,
    /// Disarm all faults.
    #[arg(long, group = "effect", conflicts_with_all = ["on", "after"])]
    clear: bool,
    #[command(flatten)]
    run: RunDirectory,
}

#[derive(Args)]
struct Reset {
    /// Name of the drive.
    drive: String,
    /// As if power had failed: what no synchronising command had covered is not on the tape.
    #[arg(long)]
    power_loss: bool,
    #[command(flatten)]
    run: RunDirectory,
}

#[derive(Args)]
struct Clean {
    /// Name of the drive.
    drive: String,
    #[command(flatten)]
    run: RunDirectory,
}

/// Exit status: the command failed.
const FAILED: u8 = 1;
/// Exit status: a cartridge is damaged.
const DAMAGED: u8 = 3;

/// What a command that did not fail has found.
enum Verdict {
    Fine,
    Damaged,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Damaged) => ExitCode::from(DAMAGED),
        Err(error) => {
            eprintln!("vtape: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> Result<Verdict> {
    match command {
        Command::Create(create) => create.run()?,
        Command::Info(info) => return info.run(),
        Command::Dump(dump) => return dump.run(),
        Command::Flip(flip) => flip.run()?,
        Command::Serve(serve) => serve.run()?,
        Command::Status(status) => status.run()?,
        Command::Load(load) => {
            // The server has another working directory.
            let image = std::path::absolute(&load.image)?;
            control::ask(&load.run.run_directory, &load.drive, &Request::Load(image))?;
        }
        Command::Eject(eject) => {
            let request = Request::Eject { force: eject.force };
            control::ask(&eject.run.run_directory, &eject.drive, &request)?;
        }
        Command::Protect(protect) => protect.run()?,
        Command::Inject(inject) => inject.run()?,
        Command::Reset(reset) => {
            let request = Request::Reset { power_loss: reset.power_loss };
            control::ask(&reset.run.run_directory, &reset.drive, &request)?;
        }
        Command::Clean(clean) => clean.run()?,
    }
    Ok(Verdict::Fine)
}

impl Status {
    fn run(self) -> Result<()> {
        let directory = &self.run.run_directory;
        let names = match self.drive {
            Some(name) => vec![name],
            None => control::drives_in(directory),
        };
        for name in names {
            let status = control::ask(directory, &name, &Request::Status)?;
            if self.json {
                println!("{}", serde_json::to_string(&status)?);
                continue;
            }
            let nodes = &status.nodes;
            println!(
                "{name}: {} {} ({}), process {}",
                nodes.rewinding.display(),
                nodes.staying.display(),
                nodes.address,
                status.pid
            );
            match &status.cartridge {
                None => println!("  no cartridge"),
                Some(tape) => {
                    println!(
                        "  {}{}{}{}",
                        tape.image.display(),
                        if tape.loaded { "" } else { ", unloaded" },
                        if tape.worm { ", write-once" } else { "" },
                        if tape.protected { ", write-protected" } else { "" },
                    );
                    println!(
                        "  at object {} of {} ({} safe), {} of {} bytes used",
                        tape.position, tape.objects, tape.synchronized, tape.used, tape.capacity
                    );
                }
            }
            if status.faults > 0 {
                println!("  {} faults armed", status.faults);
            }
            if !status.alerts.is_empty() {
                println!("  TapeAlert flags {:?}", status.alerts);
            }
        }
        Ok(())
    }
}

impl Protect {
    fn run(self) -> Result<()> {
        match (self.drive, self.image) {
            (Some(drive), _) => {
                control::ask(&self.run.run_directory, &drive, &Request::Protect(!self.off))?;
                Ok(())
            }
            (None, Some(image)) => images::protect(&image, !self.off),
            (None, None) => bail!("name an image or a drive"),
        }
    }
}

impl Inject {
    fn run(self) -> Result<()> {
        let request = if self.clear {
            Request::ClearFaults
        } else {
            Request::Inject(FaultRequest {
                on: self.on,
                nth: self.nth,
                times: self.times,
                sense: self.sense,
                after: self.after,
                delay: self.delay,
                reset: self.reset,
            })
        };
        control::ask(&self.run.run_directory, &self.drive, &request)?;
        Ok(())
    }
}

impl Clean {
    fn run(self) -> Result<()> {
        // Binding fails while a server is alive, and removes a dead one's socket after.
        let socket = control::Socket::bind(&self.run.run_directory, &self.drive)?;
        let found = crate::target::clean(&self.drive)?;
        drop(socket);
        if !found {
            println!("nothing of drive {} is left", self.drive);
        }
        Ok(())
    }
}

/// Reads a number of bytes: digits and K, M, G, T or P for powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let complaint = || format!("'{text}' is not a size; write for example 512K, 64M or 2G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        "P" | "PIB" => 50,
        _ => return Err(complaint()),
    };
    let number: u64 = digits.parse().map_err(|_| complaint())?;
    number.checked_mul(1 << shift).ok_or_else(complaint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_powers_of_two() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("100"), Ok(100));
        for bad in ["", "G", "1.5G", "-1", "1X", "99999999P"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
