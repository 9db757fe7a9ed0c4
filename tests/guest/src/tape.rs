// SPDX-License-Identifier: GPL-2.0-or-later
//! Virtual tape drives for the suites: servers of `vtape`, cartridges, and what a program
//! does with a tape device.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{kill_process, Pid, Signal};

use crate::machine::{run, wait_until};

/// What a step of a test returns.
pub type Fallible<T = ()> = Result<T, Box<dyn Error>>;

/// Largest block that the drives take.
pub const MAX_BLOCK: usize = 1 << 20;

/// Runs `vtape` with these arguments and returns what it printed.
pub fn vtape(arguments: &[&str]) -> Fallible<String> {
    run("vtape", arguments)
}

/// Runs `vtape` and returns its exit status and its messages, whatever they are.
pub fn try_vtape(arguments: &[&str]) -> Fallible<(Option<i32>, String)> {
    let output = Command::new("vtape").args(arguments).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Makes a cartridge; `options` as on the command line.
pub fn create(image: &Path, options: &str) -> Fallible<String> {
    let name = image.display().to_string();
    let mut arguments = vec!["create"];
    arguments.extend(options.split_whitespace());
    arguments.push(&name);
    vtape(&arguments)?;
    Ok(name)
}

/// A running `vtape serve`.
pub struct Server {
    child: Child,
    /// Its drives, in the order in which they were asked for.
    pub drives: Vec<Drive>,
}

/// A drive that is plugged in.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Its name on `vtape`'s command line.
    pub name: String,
    /// The tape device that does not rewind when it is closed.
    pub device: PathBuf,
    /// The generic SCSI device.
    pub generic: PathBuf,
}

impl Server {
    /// Plugs drives in, each given as `NAME` or `NAME=IMAGE`, and waits for the devices.
    pub fn start(drives: &[&str]) -> Fallible<Self> {
        let mut command = Command::new("vtape");
        command.arg("serve");
        for drive in drives {
            command.args(["--drive", drive]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("no pipe")?;
        let mut server = Self { child, drives: Vec::new() };
        for line in BufReader::new(output).lines().take(drives.len()) {
            let line = line?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, _, device, generic, _] = words[..] else {
                return Err(format!("vtape serve printed '{line}'").into());
            };
            server.drives.push(Drive {
                name: name.trim_end_matches(':').to_owned(),
                device: device.into(),
                generic: generic.into(),
            });
        }
        if server.drives.len() < drives.len() {
            return Err("vtape serve ended before its drives were there".into());
        }
        Ok(server)
    }

    /// One drive named `tape` with this image in it.
    pub fn with(image: &str) -> Fallible<(Self, Drive)> {
        let server = Self::start(&[&format!("tape={image}")])?;
        let drive = server.drives[0].clone();
        Ok((server, drive))
    }

    fn signal(&self, signal: Signal) -> Fallible {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).ok_or("no process")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Unplugs the drives as an operator does; fails unless the server ends well.
    pub fn stop(mut self) -> Fallible {
        self.signal(Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("vtape serve: {status}").into())
        }
    }

    /// Kills the server, so that it can clean nothing up.
    pub fn kill(mut self) -> Fallible {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // A failed test must not leave its drive to the next one.
            let _ = self.signal(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

impl Drive {
    /// Runs `mt` on the device.
    pub fn mt(&self, command: &str) -> Fallible<String> {
        let device = self.device.display().to_string();
        let mut arguments = vec!["-f", &device];
        arguments.extend(command.split_whitespace());
        run("mt", &arguments)
    }

    /// The block that `mt tell` names.
    pub fn tell(&self) -> Fallible<u64> {
        let text = self.mt("tell")?;
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    }

    /// File and block number as `mt status` shows them.
    pub fn place(&self) -> Fallible<(i64, i64)> {
        let text = self.mt("status")?;
        let number = |name: &str| -> Fallible<i64> {
            let (_, rest) = text.split_once(name).ok_or_else(|| text.clone())?;
            let end = rest.find([',', '.']).ok_or_else(|| text.clone())?;
            Ok(rest[..end].parse()?)
        };
        Ok((number("File number=")?, number("block number=")?))
    }

    /// Opens the device for reading and writing.
    pub fn open(&self) -> Fallible<File> {
        Ok(OpenOptions::new().read(true).write(true).open(&self.device)?)
    }

    /// Opens the device for reading.
    pub fn open_to_read(&self) -> Fallible<File> {
        Ok(File::open(&self.device)?)
    }

    /// Writes blocks from where the tape is; closing adds a filemark.
    pub fn write_file(&self, blocks: &[Vec<u8>]) -> Fallible {
        let mut tape = self.open()?;
        for block in blocks {
            write_block(&mut tape, block)?;
        }
        Ok(())
    }

    /// Reads blocks up to the next filemark or the end of data.
    pub fn read_file(&self) -> Fallible<Vec<Vec<u8>>> {
        let mut tape = self.open_to_read()?;
        let mut blocks = Vec::new();
        while let Some(block) = read_block(&mut tape)? {
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// Waits until the device can be opened without a cartridge's change in the way.
    pub fn settle(&self) -> Fallible {
        wait_until("the drive to be ready", Duration::from_secs(10), || self.mt("status").is_ok())
    }
}

/// Writes one block.
pub fn write_block(tape: &mut File, block: &[u8]) -> std::io::Result<()> {
    match tape.write(block)? {
        written if written == block.len() => Ok(()),
        written => Err(std::io::Error::other(format!("{written} of {} written", block.len()))),
    }
}

/// Reads one block of any length; `None` at a filemark.
pub fn read_block(tape: &mut File) -> std::io::Result<Option<Vec<u8>>> {
    let mut block = vec![0; MAX_BLOCK];
    let length = tape.read(&mut block)?;
    block.truncate(length);
    Ok((length > 0).then_some(block))
}

/// The error number of a call that was to fail.
pub fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// A block that is like no other: its bytes follow from `seed` alone.
pub fn block(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Blocks of these lengths.
pub fn blocks(seed: u64, lengths: &[usize]) -> Vec<Vec<u8>> {
    lengths.iter().zip(seed..).map(|(&length, seed)| block(seed, length)).collect()
}
