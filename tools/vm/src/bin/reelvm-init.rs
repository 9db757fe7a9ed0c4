// SPDX-License-Identifier: GPL-2.0-or-later
//! The first process of a test machine: mounts the root image, runs one command,
//! looks the machine over, reports, powers off.
//!
//! Runs as PID 1, from an initramfs and therefore statically linked. Whatever goes
//! wrong is put into the report rather than ending the process, which would be a panic
//! of the kernel and tell nobody why.

#[path = "../init/boot.rs"]
mod boot;
#[path = "../init/lookover.rs"]
mod lookover;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reelvm::protocol::{
    Item, ARGV_FILE, END_OF_LOG, ENV_FILE, KMSG_PORT, OUTPUT_PORT, PAYLOAD, PORTS, REPORT_PORT, RESULTS,
};
use rustix::process::WaitOptions;

/// How long processes and mounts that are on their way out have to go.
const GRACE: Duration = Duration::from_secs(3);
/// How long writing everything out may take. A mount that was left behind, and whose log nobody reads, never ends it.
const SYNC: Duration = Duration::from_secs(60);

fn main() {
    let mut report = Report::default();
    let booted = boot::boot();
    match OpenOptions::new().write(true).open(Path::new(PORTS).join(REPORT_PORT)) {
        Ok(port) => report.port = Some(port),
        Err(e) => report.trouble(format!("no port for the report: {e}")),
    }
    match booted {
        Ok(()) => work(&mut report),
        Err(e) => report.trouble(format!("boot: {e}")),
    }
    sync();
    report.send(&Item::End);
    power_off();
}

fn work(report: &mut Report) {
    let log = match follow_kernel_log() {
        Ok(log) => Some(log),
        Err(e) => {
            report.trouble(format!("kernel log: {e}"));
            None
        }
    };
    let before = lookover::State::now();
    match run_command() {
        Ok(status) => report.send(&Item::Status(status)),
        Err(e) => report.trouble(format!("command: {e}")),
    }
    let deadline = Instant::now() + GRACE;
    let mut left = lookover::State::now().left_since(&before);
    while !left.is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        reap();
        left = lookover::State::now().left_since(&before);
    }
    for what in left {
        report.send(&Item::Left(what));
    }
    if let Err(e) = lookover::scan_for_leaks() {
        report.trouble(format!("kmemleak: {e}"));
    }
    if let Err(e) = send_results(report, Path::new(RESULTS), Path::new("")) {
        report.trouble(format!("{RESULTS}: {e}"));
    }
    if let Some(log) = log {
        // Without the newline the kernel waits for the message to be continued.
        let marked = std::fs::write("/dev/kmsg", format!("{END_OF_LOG}\n"));
        if marked.is_err() || log.join().is_err() {
            report.trouble("the kernel log is not complete".to_owned());
        }
    }
}

/// Where the report goes; also to the console while there is no port.
#[derive(Default)]
struct Report {
    port: Option<File>,
}

impl Report {
    fn send(&mut self, item: &Item) {
        let sent = self.port.as_mut().map(|port| item.write_to(port));
        if !matches!(sent, Some(Ok(()))) {
            // Standard error is not the console: there was none yet when this program was started.
            let console = OpenOptions::new().write(true).open("/dev/console");
            let _ = console.and_then(|mut console| writeln!(console, "reelvm-init: {item:?}"));
        }
    }

    fn trouble(&mut self, what: String) {
        self.send(&Item::Trouble(what));
    }
}

/// Copies `/dev/kmsg` to its port, from the first message on, until [`END_OF_LOG`].
fn follow_kernel_log() -> std::io::Result<JoinHandle<()>> {
    let mut log = File::open("/dev/kmsg")?;
    let mut port = OpenOptions::new().write(true).open(Path::new(PORTS).join(KMSG_PORT))?;
    Ok(std::thread::spawn(move || {
        // Each read gives one whole record (Documentation/ABI/testing/dev-kmsg).
        let mut record = vec![0; 16 * 1024];
        loop {
            let bytes = match log.read(&mut record) {
                Ok(length) => &record[..length],
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                // Records were overwritten before they were read; say so as a warning.
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => &b"4,0,0,-;reelvm: messages were lost\n"[..],
                Err(_) => return,
            };
            let end = bytes.windows(END_OF_LOG.len()).any(|w| w == END_OF_LOG.as_bytes());
            if port.write_all(bytes).is_err() || end {
                return;
            }
        }
    }))
}

/// The strings of a payload file in which each is followed by a NUL.
fn strings(name: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let bytes = std::fs::read(Path::new(PAYLOAD).join(name))?;
    Ok(bytes.split_inclusive(|&b| b == 0).map(|s| s[..s.len() - 1].to_vec()).collect())
}

/// Runs the payload's command to its end while reaping every orphan, and returns its
/// exit status as a shell would give it.
fn run_command() -> std::io::Result<i32> {
    let argv = strings(ARGV_FILE)?;
    let (program, arguments) = argv.split_first().ok_or_else(|| std::io::Error::other("no command"))?;
    let output = OpenOptions::new().write(true).open(Path::new(PORTS).join(OUTPUT_PORT))?;
    let mut command = Command::new(OsStr::from_bytes(program));
    command
        .args(arguments.iter().map(|arg| OsStr::from_bytes(arg)))
        .env_clear()
        .env("PATH", "/payload/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env("TERM", "dumb")
        .current_dir("/root")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0);
    for pair in strings(ENV_FILE)? {
        if let Some(at) = pair.iter().position(|&b| b == b'=') {
            command.env(OsStr::from_bytes(&pair[..at]), OsStr::from_bytes(&pair[at + 1..]));
        }
    }
    let child = command.spawn()?.id();
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().unsigned_abs() == child => {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                return Ok(status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Collects whatever has ended; a process without a parent is this one's to collect.
fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

fn send_results(report: &mut Report, top: &Path, relative: &Path) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(top.join(relative))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = relative.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            send_results(report, top, &name)?;
        } else if kind.is_file() {
            let contents = std::fs::read(entry.path())?;
            report.send(&Item::File(name.to_string_lossy().into_owned(), contents));
        }
    }
    Ok(())
}

fn sync() {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        rustix::fs::sync();
        let _ = done.send(());
    });
    let _ = wait.recv_timeout(SYNC);
}

fn power_off() -> ! {
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    loop {
        std::thread::park();
    }
}
