// SPDX-License-Identifier: GPL-2.0-or-later
//! Takes the place of `mount`, `umount` and `df` for the tests.
//!
//! A device that is mounted on one of the tests' two directories gets reelfs over it, on the same directory; `umount`
//! takes both away, and waits for the daemon in between. All else goes to the program whose place this is.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{bail, Context, Result};

use super::record::{mounts, Record};
use super::stage::{keep_holes, lower, SCRATCH_MNT, SYSTEM_PATH, TEST_DIR, TOP};
use super::{run, spooler};

/// mount(8) and umount(8): mounting failed.
const FAILURE: u8 = 32;
/// What holds for a mount, not for a filesystem, and so for both.
const FLAGS: [&str; 14] = [
    "ro",
    "rw",
    "noatime",
    "atime",
    "relatime",
    "strictatime",
    "nodiratime",
    "diratime",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
];
/// Length of the ring of each mount: tests have little memory.
const RING: &str = "ring=16m";

/// Does what this name stands for.
pub fn main(name: &str, arguments: Vec<OsString>) -> ExitCode {
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let done = match name {
        "mount" => mount(&words),
        "umount" => umount(&words),
        _ => df(&words),
    };
    match done {
        Ok(Done::Status(status)) => ExitCode::from(status),
        Ok(Done::NotOurs) => {
            let error = system(name).args(arguments).exec();
            eprintln!("{name}: {error}");
            ExitCode::from(127)
        }
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

enum Done {
    Status(u8),
    NotOurs,
}

fn system(name: &str) -> Command {
    let mut command = Command::new(Path::new("/usr/bin").join(name));
    command.env("PATH", SYSTEM_PATH);
    command
}

fn status(command: &mut Command) -> Result<u8> {
    let done = command.status().with_context(|| format!("{:?}", command.get_program()))?;
    Ok(done.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILURE))
}

/// What a command line of mount(8) asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    options: Vec<String>,
    paths: Vec<PathBuf>,
    /// It makes no new mount of a device, or is not understood.
    other: bool,
}

impl Request {
    fn parse(words: &[String]) -> Self {
        let mut request = Request::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = |attached: &str| match attached {
                "" => words.next().cloned().unwrap_or_default(),
                _ => attached.trim_start_matches('=').to_owned(),
            };
            match word.as_str() {
                "-n" | "-v" | "-s" | "-i" => {}
                "-r" | "--read-only" => request.options.push("ro".to_owned()),
                "-w" | "--rw" | "--read-write" => request.options.push("rw".to_owned()),
                _ if word.starts_with("-o") => {
                    let list = value(&word[2..]);
                    request.options.extend(list.split(',').filter(|o| !o.is_empty()).map(str::to_owned));
                }
                _ if word.starts_with("-t") => drop(value(&word[2..])),
                _ if word.starts_with('-') => request.other = true,
                _ => request.paths.push(word.into()),
            }
        }
        let moves = ["bind", "rbind", "move"];
        request.other |= request.options.iter().any(|option| moves.contains(&option.as_str()));
        request
    }

    fn is_remount(&self) -> bool {
        self.options.iter().any(|option| option == "remount")
    }

    /// The options that reelfs gets as well.
    fn flags(&self) -> String {
        let flags = self.options.iter().map(String::as_str).filter(|option| FLAGS.contains(option));
        flags.chain([RING]).collect::<Vec<_>>().join(",")
    }
}

fn mount(words: &[String]) -> Result<Done> {
    let request = Request::parse(words);
    if request.other {
        return Ok(Done::NotOurs);
    }
    if request.is_remount() {
        let record = request.paths.last().and_then(|path| Record::meant_by(path));
        return record.map_or(Ok(Done::NotOurs), |record| remount(&record, &request));
    }
    let [device, directory] = request.paths.as_slice() else { return Ok(Done::NotOurs) };
    let is_device = fs::metadata(device).is_ok_and(|metadata| metadata.file_type().is_block_device());
    let Ok(directory) = fs::canonicalize(directory) else { return Ok(Done::NotOurs) };
    if !is_device || ![TEST_DIR, SCRATCH_MNT].map(Path::new).contains(&directory.as_path()) {
        return Ok(Done::NotOurs);
    }
    if Record::meant_by(&directory).is_some() {
        eprintln!("mount: {}: {} already mounted on it.", directory.display(), device.display());
        return Ok(Done::Status(FAILURE));
    }
    let done = status(system("mount").args(words))?;
    if done != 0 {
        return Ok(Done::Status(done));
    }
    match stack(device, &directory, &request) {
        Ok(()) => Ok(Done::Status(0)),
        Err(error) => {
            // Whatever of it is there.
            for _ in 0..2 {
                let _ = system("umount").arg(&directory).output();
            }
            Err(error.context("reelfs"))
        }
    }
}

/// Mounts reelfs over a filesystem that has just been mounted.
fn stack(device: &Path, directory: &Path, request: &Request) -> Result<()> {
    let mark = spooler::mark(directory)?;
    let read_only = request.options.iter().any(|option| option == "ro");
    if !read_only {
        if mark.is_none() {
            // Made by mkfs, not by anybody whose changes are to be recorded. fsck makes it where it needs it.
            let _ = fs::remove_dir(directory.join("lost+found"));
        }
        if lower()? == "ext4" {
            keep_holes(device)?;
        }
    }
    let place = directory.as_os_str();
    run("mount", &["-t".as_ref(), "reelfs".as_ref(), "-o".as_ref(), request.flags().as_ref(), place, place])?;
    let (spool, process) = spooler::start(directory, mark.as_ref())?;
    Record { directory: directory.to_owned(), device: device.to_owned(), spool: spool.0, process }.keep()
}

/// Gives the lower filesystem its options by another way to it, since reelfs is on the one there is.
fn remount(record: &Record, request: &Request) -> Result<Done> {
    let read_only = request.options.iter().any(|option| option == "ro");
    let upper = |flags: &str| -> Result<u8> {
        status(system("mount").arg("-o").arg(format!("remount,{flags}")).arg(&record.directory))
    };
    // What is above can only be written to while what is below can.
    if read_only {
        let done = upper(&request.flags())?;
        if done != 0 {
            return Ok(Done::Status(done));
        }
    }
    let below = Below::open(record)?;
    let done = status(system("mount").arg("-o").arg(request.options.join(",")).arg(&below.0))?;
    drop(below);
    if done != 0 || read_only {
        return Ok(Done::Status(done));
    }
    Ok(Done::Status(upper(&request.flags())?))
}

/// The lower filesystem's root, at a place of its own, for as long as this lives.
struct Below(PathBuf);

impl Below {
    fn open(record: &Record) -> Result<Self> {
        let at = Path::new(TOP).join("below").join(std::process::id().to_string());
        fs::create_dir_all(&at)?;
        run("mount", &["-t".as_ref(), lower()?.as_ref(), record.device.as_os_str(), at.as_os_str()])?;
        Ok(Below(at))
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        let _ = system("umount").arg(&self.0).output();
        let _ = fs::remove_dir(&self.0);
    }
}

/// `below DIRECTORY COMMAND...`: runs a command on the lower filesystem's root, which follows as its last argument.
pub fn below(words: &[OsString]) -> Result<u8> {
    let [directory, program, arguments @ ..] = words else { bail!("a directory and a command are wanted") };
    let record = Record::meant_by(Path::new(directory));
    let record = record.with_context(|| format!("{} is not mounted", directory.to_string_lossy()))?;
    let below = Below::open(&record)?;
    status(Command::new(program).args(arguments).arg(&below.0))
}

/// `handle DIRECTORY`: a place of its own for the lower filesystem's root until `umount`, which it prints. Tests shut the
/// filesystem down through it.
pub fn handle(directory: &Path) -> Result<u8> {
    let record = Record::meant_by(directory);
    let record = record.with_context(|| format!("{} is not mounted", directory.display()))?;
    let at = held(&record);
    if !at.exists() {
        fs::create_dir_all(&at)?;
        run("mount", &["-t".as_ref(), lower()?.as_ref(), record.device.as_os_str(), at.as_os_str()])?;
    }
    println!("{}", at.display());
    Ok(0)
}

fn held(record: &Record) -> PathBuf {
    Path::new(TOP).join("held").join(record.directory.file_name().unwrap_or_default())
}

fn umount(words: &[String]) -> Result<Done> {
    let (flags, paths): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let ours = |path: &&String| Record::meant_by(Path::new(path)).filter(Record::is_on_top);
    if !paths.iter().any(|path| ours(path).is_some()) {
        return Ok(Done::NotOurs);
    }
    let mut worst = 0;
    for path in &paths {
        let done = match ours(path) {
            Some(record) => unstack(&record, &flags)?,
            None => status(system("umount").args(&flags).arg(path))?,
        };
        worst = worst.max(done);
    }
    Ok(Done::Status(worst))
}

fn unstack(record: &Record, flags: &[&String]) -> Result<u8> {
    let done = status(system("umount").args(flags).arg(&record.directory))?;
    if done != 0 {
        return Ok(done);
    }
    let lazy = flags.iter().any(|flag| flag.starts_with("-l") || *flag == "--lazy");
    if !lazy {
        spooler::wait_for(record.process)?;
    }
    let held = held(record);
    if held.exists() {
        run("umount", &[&held])?;
        fs::remove_dir(&held)?;
    }
    record.forget()?;
    status(system("umount").args(flags).arg(&record.directory))
}

/// df(1) shows of two mounts on one directory the later one; the tests know only of the earlier.
fn df(words: &[String]) -> Result<Done> {
    let records = Record::all();
    if records.is_empty() {
        return Ok(Done::NotOurs);
    }
    let words = words.iter().map(|word| match Record::meant_by(Path::new(word)) {
        Some(record) if !word.starts_with('-') && Path::new(word) != record.directory => {
            record.directory.display().to_string()
        }
        _ => word.clone(),
    });
    let done = system("df").args(words).output()?;
    eprint!("{}", String::from_utf8_lossy(&done.stderr));
    let lower = lower()?;
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        println!("{}", as_the_lower(line, &records, &lower));
    }
    Ok(Done::Status(done.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// A line of df(1) with the device and the type of the lower filesystem.
fn as_the_lower(line: &str, records: &[Record], lower: &str) -> String {
    let mut fields: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    let record = records.iter().find(|record| {
        let directory = record.directory.to_string_lossy();
        fields.first().is_some_and(|field| *field == directory)
            && fields.last().is_some_and(|field| *field == directory)
    });
    let Some(record) = record else { return line.to_owned() };
    fields[0] = record.device.display().to_string();
    if fields[1] == "reelfs" {
        fields[1] = lower.to_owned();
    }
    fields.join(" ")
}

/// Takes away all that a test left mounted on the tests' directories; what could not be, by directory.
pub fn clear() -> Vec<PathBuf> {
    let ours = || {
        let top = [TEST_DIR, SCRATCH_MNT];
        mounts().into_iter().rev().map(|(_, at)| at).find(|at| top.iter().any(|top| at.starts_with(top)))
    };
    let mut failed = Vec::new();
    while let Some(at) = ours() {
        let done = match Record::meant_by(&at).filter(Record::is_on_top) {
            Some(record) => unstack(&record, &[]).unwrap_or(FAILURE),
            None => status(system("umount").arg(&at)).unwrap_or(FAILURE),
        };
        if done != 0 {
            failed.push(at);
            break;
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Request {
        Request::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines_of_mount_are_understood() {
        let plain = request("-t ext4 -o acl,noatime -o ro /dev/vda /mnt/scratch");
        assert_eq!(plain.options, ["acl", "noatime", "ro"]);
        assert_eq!(plain.paths, [Path::new("/dev/vda"), Path::new("/mnt/scratch")]);
        assert!(!plain.other && !plain.is_remount());
        assert_eq!(plain.flags(), format!("noatime,ro,{RING}"));
        assert_eq!(
            request("-text4 -oremount,ro /dev/vda"),
            Request { options: vec!["remount".into(), "ro".into()], paths: vec!["/dev/vda".into()], other: false }
        );
        for other in ["--bind /a /b", "-o bind /a /b", "--make-private /a", "--move /a /b", "-a"] {
            assert!(request(other).other, "{other}");
        }
    }

    #[test]
    fn df_shows_the_lower() {
        let record = Record { directory: "/mnt/test".into(), device: "/dev/vdb".into(), spool: 1, process: 2 };
        let records = [record];
        let line = "/mnt/test      reelfs    1000    10   990   1% /mnt/test";
        assert_eq!(as_the_lower(line, &records, "xfs"), "/dev/vdb xfs 1000 10 990 1% /mnt/test");
        assert_eq!(
            as_the_lower("/dev/vdc ext4 1 1 1 1% /mnt/other", &records, "xfs"),
            "/dev/vdc ext4 1 1 1 1% /mnt/other"
        );
    }
}
