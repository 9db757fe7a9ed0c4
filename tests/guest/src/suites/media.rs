// SPDX-License-Identifier: GPL-2.0-or-later

//! `media`: spanning volumes, damage that is found and named, a volume that is missing, media that are not ours.
//!
//! With volume files, and with tapes through the kernel's own `st` driver and the virtual drive.

use crate::check::{ensure, same, Check, Failure};
use crate::machine::{run, wait_until};
use crate::pattern::{pattern, Random};
use crate::rig::{Rig, Stage};
use crate::{worker, Context, Suite, Test, TestResult};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

pub const SUITE: Suite = Suite {
    name: "media",
    timeout: 3600,
    disks: &[("lower", 2048), ("spool", 1024), ("media", 2048)],
    set_up: |context| {
        let stage = Stage::new(context, "ext4")?;
        *STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(stage);
        Ok(())
    },
    tear_down: |_| {
        let stage = STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        Ok(stage.ok_or("no stage")?.close()?)
    },
    tests: &[
        Test::new("spanning", spanning),
        Test::new("one-byte-flipped-is-named", flipped).limit(1200),
        Test::new("cut-short-is-named", cut_short),
        Test::new("missing-volume-is-named", missing),
        Test::new("volumes-in-any-order", any_order),
        Test::new("restore-refuses-what-is-in-the-way", in_the_way),
        Test::new("up-to-a-moment", up_to_a_moment),
        Test::new("foreign-volume-is-not-written", foreign_file),
        Test::new("tapes-spanning", tapes_spanning),
        Test::new("tapes-one-byte-flipped-is-named", tapes_flipped),
        Test::new("tapes-missing-is-named", tapes_missing),
        Test::new("tapes-foreign-and-blank-are-not-written", tapes_foreign),
        Test::new("tapes-daemon-killed", tapes_killed),
        Test::new("tapes-compressed-and-encrypted", tapes_encrypted),
    ],
    ..Suite::DEFAULT
};

/// Exit status for media that are damaged or incomplete (reel(1)).
const DAMAGED: Option<i32> = Some(3);

/// Changes that make a log of a few dozen MiB.
fn work(rig: &Rig) -> Check {
    for name in ["d1", "d2", "d3", "d"] {
        fs::create_dir_all(rig.mnt.join(name))?;
    }
    fs::write(rig.mnt.join("f"), "x")?;
    fs::write(rig.mnt.join("shared"), "x")?;
    for number in 0..12 {
        fs::write(rig.mnt.join(format!("large-{number}")), pattern((2 << 20) + 12_345, number))?;
    }
    worker::together(3, |number| match number {
        0 => worker::shuffle(&rig.mnt, number, 300),
        1 => worker::fiddle(&rig.mnt, number, 200),
        _ => worker::scribble(&rig.mnt.join("shared"), number, 300),
    })
}

/// A mount whose log is on several volume files, all drained, nothing running.
fn recorded(name: &str) -> Check<Rig> {
    let mut rig = Rig::on_stage(name, false)?;
    // As it is, so that it is known what lies where.
    let path = rig.media.display().to_string();
    rig.configure_media(&format!(
        "kind = \"directory\"\npath = \"{path}\"\ncapacity = \"8M\"\npool = \"tests\"\ncompression = \"off\""
    ))?;
    rig.mount("ring=4m")?;
    rig.start_daemon()?;
    work(&rig)?;
    rig.unmount()?;
    rig.drain()?;
    ensure!(volumes(&rig)?.len() >= 4, "only {} volumes", volumes(&rig)?.len());
    Ok(rig)
}

/// The volume files, in the order in which they were written.
fn volumes(rig: &Rig) -> Check<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(&rig.media)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "reelvol") {
            found.push((path.metadata()?.modified()?, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// What a volume is called, by its file's name.
fn name_of(volume: &Path) -> String {
    volume.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn forget_restored(rig: &Rig) -> Check {
    match fs::remove_dir_all(&rig.restored) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

/// Restore and verify have to end with "damaged or incomplete", and to say each of these.
fn damage_is_said(rig: &Rig, what: &str, says: &[&str]) -> Check {
    restore_refuses(rig, what, says)?;
    verify_says(rig, what, DAMAGED, says)
}

/// A trailer has nothing of the log, and the next volume shows that nothing is missing: the tree has to be whole then.
/// The damage is said all the same, and is an error for verify.
fn trailer_is_damaged(rig: &Rig, what: &str, says: &[&str]) -> Check {
    forget_restored(rig)?;
    let (status, said) = rig.restore_output(&[])?;
    ensure!(status == Some(0), "{what}: reel restore ended with {status:?}:\n{said}");
    for word in says {
        ensure!(said.contains(word), "{what}: reel restore does not say {word:?}:\n{said}");
    }
    crate::rig::none("trees differ", &rig.differences(&rig.lower, &rig.restored)?)?;
    forget_restored(rig)?;
    verify_says(rig, what, DAMAGED, says)
}

fn restore_refuses(rig: &Rig, what: &str, says: &[&str]) -> Check {
    forget_restored(rig)?;
    let (status, said) = rig.restore_output(&[])?;
    ensure!(status == DAMAGED, "{what}: reel restore ended with {status:?}:\n{said}");
    for word in says {
        ensure!(said.contains(word), "{what}: reel restore does not say {word:?}:\n{said}");
    }
    forget_restored(rig)
}

fn verify_says(rig: &Rig, what: &str, status: Option<i32>, says: &[&str]) -> Check {
    let verify = Command::new("reel").args(["verify", "--quiet"]).arg(&rig.media).output()?;
    let said = String::from_utf8_lossy(&[verify.stdout, verify.stderr].concat()).into_owned();
    ensure!(verify.status.code() == status, "{what}: reel verify ended with {:?}:\n{said}", verify.status.code());
    for word in says {
        ensure!(said.contains(word), "{what}: reel verify does not say {word:?}:\n{said}");
    }
    Ok(())
}

fn spanning(_: &Context) -> TestResult {
    let rig = recorded("spanning")?;
    run("reel", &["verify".as_ref(), rig.media.as_os_str()])?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn flipped(context: &Context) -> TestResult {
    let rig = recorded("flipped")?;
    let volumes = volumes(&rig)?;
    let last = volumes.last().ok_or("no volumes")?;
    let mut random = Random::new(1);
    let block = 256 << 10;
    for round in 0..if context.short { 6 } else { 20 } {
        let volume = &volumes[round % volumes.len()];
        let file = File::options().read(true).write(true).open(volume)?;
        // Label, volume start, header and payload of a data block, the last block, anywhere.
        let length = file.metadata()?.len();
        let at = match round % 6 {
            0 => 4096 + 5 * block + 1000,
            1 => 300,
            2 => 4096 + 150,
            3 => 4096 + 7 * block + 40,
            4 => length - block + 140,
            _ => random.below(length),
        };
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 0x10], at)?;
        let name = name_of(volume);
        let number = (at.max(4096) - 4096) / block;
        // Without label or volume start, a file is not known to be that volume: it is missing, and both is said.
        let in_block = if number == 0 { String::new() } else { format!("block {number}") };
        let words = [name.as_str(), in_block.as_str()];
        let what = format!("byte {at} of {length} in {name}");
        if at >= length - block && volume != last {
            trailer_is_damaged(&rig, &what, &words)?;
        } else {
            damage_is_said(&rig, &what, &words)?;
        }
        file.write_all_at(&byte, at)?;
    }
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn cut_short(_: &Context) -> TestResult {
    let rig = recorded("cut-short")?;
    let volumes = volumes(&rig)?;
    let volume = &volumes[1];
    let whole = fs::read(volume)?;
    for length in [whole.len() / 2, 4096, 100, 0] {
        fs::write(volume, &whole[..length])?;
        damage_is_said(&rig, &format!("{length} bytes of {}", name_of(volume)), &[])?;
    }
    // Only the trailer is torn: no byte of the log is missing, so the tree may be whole.
    fs::write(volume, &whole[..whole.len() - 1])?;
    match rig.restore_output(&[])? {
        (Some(0), _) => crate::rig::none("trees differ", &rig.differences(&rig.lower, &rig.restored)?)?,
        (status, said) => ensure!(status == DAMAGED, "a torn trailer: {status:?}:\n{said}"),
    }
    forget_restored(&rig)?;
    fs::write(volume, &whole)?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn missing(context: &Context) -> TestResult {
    let rig = recorded("missing")?;
    let volumes = volumes(&rig)?;
    let aside = context.scratch.join("aside");
    for (place, volume) in volumes.iter().enumerate() {
        if context.short && place != 0 && place != 1 && place != volumes.len() - 1 {
            continue;
        }
        fs::copy(volume, &aside)?;
        fs::remove_file(volume)?;
        // The volume behind a missing one names it; nothing names the last one but its number.
        let words = [name_of(volume)];
        let words: Vec<&str> =
            if place + 1 < volumes.len() { words.iter().map(String::as_str).collect() } else { Vec::new() };
        let what = format!("volume {} of {} is missing", place + 1, volumes.len());
        restore_refuses(&rig, &what, &words)?;
        // A part of a set may be verified; what is not looked at is said.
        if place == 0 {
            verify_says(&rig, &what, Some(0), &["those before it were not looked at"])?;
        } else if place + 1 == volumes.len() {
            verify_says(&rig, &what, Some(0), &["the log goes on"])?;
        } else {
            verify_says(&rig, &what, DAMAGED, &words)?;
        }
        fs::copy(&aside, volume)?;
    }
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

fn any_order(_: &Context) -> TestResult {
    let rig = recorded("any-order")?;
    let mut volumes = volumes(&rig)?;
    volumes.reverse();
    volumes.swap(0, 1);
    let mut command = Command::new("reel");
    let done = command.args(["restore", "--quiet", "--to"]).arg(&rig.restored).args(&volumes).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    crate::rig::none("trees differ", &rig.differences(&rig.lower, &rig.restored)?)?;
    Ok(rig.close()?)
}

fn in_the_way(_: &Context) -> TestResult {
    let rig = recorded("in-the-way")?;
    fs::create_dir_all(&rig.restored)?;
    fs::write(rig.restored.join("precious"), "do not touch")?;
    let (status, said) = rig.restore_output(&[])?;
    ensure!(status == Some(1) || status == Some(2), "into a directory that is not empty: {status:?}: {said}");
    same!(fs::read_dir(&rig.restored)?.count(), 1);
    same!(fs::read(rig.restored.join("precious"))?, b"do not touch");
    Ok(rig.close()?)
}

fn up_to_a_moment(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("moment", false)?;
    rig.mount("ring=4m")?;
    rig.start_daemon()?;
    fs::write(rig.mnt.join("kept"), "first")?;
    fs::create_dir(rig.mnt.join("dir"))?;
    let then = rig.ring()?.entry().committed;
    let kept = rig.spool.with_extension("kept");
    run("cp", &["-a".as_ref(), rig.lower.as_os_str(), kept.as_os_str()])?;
    fs::write(rig.mnt.join("kept"), "second")?;
    fs::remove_dir(rig.mnt.join("dir"))?;
    fs::write(rig.mnt.join("late"), "x")?;
    rig.unmount()?;
    rig.drain()?;
    let (status, said) = rig.restore_output(&["--at", &then.to_string()])?;
    ensure!(status == Some(0), "{status:?}: {said}");
    crate::rig::none("restored tree and tree of then differ", &rig.differences(&kept, &rig.restored)?)?;
    Ok(rig.close()?)
}

fn foreign_file(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("foreign", false)?;
    let foreign = rig.media.join("precious.reelvol");
    fs::write(&foreign, pattern(1 << 20, 9))?;
    rig.mount("ring=4m")?;
    rig.start_daemon()?;
    work(&rig)?;
    rig.unmount()?;
    rig.drain()?;
    ensure!(fs::read(&foreign)? == pattern(1 << 20, 9), "it was written to");
    fs::remove_file(&foreign)?;
    rig.restored_equals_lower()?;
    Ok(rig.close()?)
}

/// Virtual drives with a cartridge each.
struct Drives {
    server: Child,
    images: Vec<PathBuf>,
    devices: Vec<PathBuf>,
}

impl Drives {
    fn create(rig: &Rig, count: usize, capacity: &str) -> Check<Vec<PathBuf>> {
        let images: Vec<_> = (1..=count).map(|number| rig.media.join(format!("TAPE{number:02}"))).collect();
        for image in &images {
            run("vtape", &["create".as_ref(), "--capacity".as_ref(), capacity.as_ref(), image.as_os_str()])
                .map_err(Failure::of)?;
        }
        Ok(images)
    }

    fn plug(images: &[PathBuf]) -> Check<Self> {
        let mut command = Command::new("vtape");
        command.arg("serve");
        for (number, image) in images.iter().enumerate() {
            command.arg("--drive").arg(format!("drive{number}={}", image.display()));
        }
        let devices: Vec<_> = (0..images.len()).map(|number| PathBuf::from(format!("/dev/nst{number}"))).collect();
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let drives = Drives { server, images: images.to_vec(), devices };
        let there =
            wait_until("the drives", Duration::from_secs(30), || drives.devices.iter().all(|device| device.exists()));
        there.map_err(Failure::of)?;
        Ok(drives)
    }

    fn label(&self) -> Check {
        for (image, device) in self.images.iter().zip(&self.devices) {
            let arguments = [
                "label".as_ref(),
                "--name".as_ref(),
                image.file_name().unwrap_or_default(),
                "--pool".as_ref(),
                "tests".as_ref(),
                device.as_os_str(),
            ];
            run("reel", &arguments).map_err(Failure::of)?;
        }
        Ok(())
    }

    /// Has the daemon write on them, with these lines in its `[media]` section.
    fn configure(&self, rig: &mut Rig, more: &str) -> Check {
        let devices: Vec<_> = self.devices.iter().map(|device| format!("\"{}\"", device.display())).collect();
        rig.configure_media(&format!("kind = \"tape\"\ndevices = [{}]\npool = \"tests\"\n{more}", devices.join(", ")))
    }

    fn unplug(mut self) -> Check {
        self.end()
    }

    fn end(&mut self) -> Check {
        let pid = rustix::process::Pid::from_child(&self.server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.server.wait()?;
        let gone =
            wait_until("the drives go", Duration::from_secs(20), || !self.devices.iter().any(|device| device.exists()));
        gone.map_err(Failure::of)
    }
}

impl Drop for Drives {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) {
            let _ = self.end();
        }
    }
}

/// A mount whose log is on three tapes, all drained, nothing running but the drives.
fn taped(name: &str) -> Check<(Rig, Drives)> {
    let mut rig = Rig::on_stage(name, false)?;
    let drives = Drives::plug(&Drives::create(&rig, 4, "16M")?)?;
    drives.label()?;
    drives.configure(&mut rig, "compression = \"off\"")?;
    rig.mount("ring=4m")?;
    rig.start_daemon()?;
    work(&rig)?;
    rig.unmount()?;
    rig.drain()?;
    Ok((rig, drives))
}

fn restore_from(rig: &Rig, devices: &[PathBuf]) -> Check<(Option<i32>, String)> {
    let mut command = Command::new("reel");
    command.args(["restore", "--to"]).arg(&rig.restored).args(devices).stdin(Stdio::null());
    let done = command.output()?;
    Ok((done.status.code(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()))
}

fn tapes_spanning(_: &Context) -> TestResult {
    let (rig, drives) = taped("tapes-spanning")?;
    let (status, said) = restore_from(&rig, &drives.devices)?;
    ensure!(status == Some(0), "{status:?}:\n{said}");
    crate::rig::none("trees differ", &rig.differences(&rig.lower, &rig.restored)?)?;
    drives.unplug()?;
    Ok(rig.close()?)
}

fn tapes_flipped(_: &Context) -> TestResult {
    let (rig, drives) = taped("tapes-flipped")?;
    let images = drives.images.clone();
    drives.unplug()?;
    run(
        "vtape",
        &[
            "flip".as_ref(),
            "--block".as_ref(),
            "20".as_ref(),
            "--byte".as_ref(),
            "7000".as_ref(),
            images[1].as_os_str(),
        ],
    )?;
    let drives = Drives::plug(&images)?;
    let (status, said) = restore_from(&rig, &drives.devices)?;
    ensure!(status == DAMAGED, "{status:?}:\n{said}");
    ensure!(said.contains("TAPE02") && said.contains("block"), "neither tape nor block:\n{said}");
    drives.unplug()?;
    Ok(rig.close()?)
}

fn tapes_missing(_: &Context) -> TestResult {
    let (rig, drives) = taped("tapes-missing")?;
    let images = drives.images.clone();
    drives.unplug()?;
    let drives = Drives::plug(&[images[0].clone(), images[2].clone(), images[3].clone()])?;
    let (status, said) = restore_from(&rig, &drives.devices)?;
    ensure!(status == DAMAGED, "{status:?}:\n{said}");
    // A full tape knows the number of the next one; only a later tape knows its name.
    ensure!(said.contains("volume number 2"), "the missing tape is not named:\n{said}");
    drives.unplug()?;
    Ok(rig.close()?)
}

/// Somebody's data, a tape that nobody has labelled, and one of another pool: the daemon takes the fourth.
fn tapes_foreign(_: &Context) -> TestResult {
    let mut rig = Rig::on_stage("tapes-foreign", false)?;
    let images = Drives::create(&rig, 4, "128M")?;
    let drives = Drives::plug(&images)?;
    let device = |number: usize| drives.devices[number].as_os_str();
    fs::write("/tmp/precious", pattern(300_000, 4))?;
    run("dd", &["if=/tmp/precious", &format!("of={}", drives.devices[0].display()), "bs=10000", "status=none"])?;
    let label = |name: &str, pool: &str, number: usize| {
        run(
            "reel",
            &["label".as_ref(), "--name".as_ref(), name.as_ref(), "--pool".as_ref(), pool.as_ref(), device(number)],
        )
    };
    label("OTHER", "other", 2)?;
    label("OURS", "tests", 3)?;
    drives.unplug()?;
    let dumps = |images: &[PathBuf]| -> Result<Vec<String>, Box<dyn std::error::Error>> {
        images.iter().map(|image| run("vtape", &["dump".as_ref(), "--each".as_ref(), image.as_os_str()])).collect()
    };
    let before = dumps(&images[..3])?;
    let drives = Drives::plug(&images)?;
    drives.configure(&mut rig, "")?;
    rig.mount("ring=4m")?;
    rig.start_daemon()?;
    work(&rig)?;
    rig.unmount()?;
    rig.drain()?;
    let (status, said) = restore_from(&rig, &drives.devices[3..])?;
    ensure!(status == Some(0), "{status:?}:\n{said}");
    crate::rig::none("trees differ", &rig.differences(&rig.lower, &rig.restored)?)?;
    drives.unplug()?;
    same!(dumps(&images[..3])?, before);
    Ok(rig.close()?)
}

/// Tapes that the machine they are written on cannot read: they take less, and give the tree to whoever has the identity.
fn tapes_encrypted(context: &Context) -> TestResult {
    let mut rig = Rig::on_stage("tapes-encrypted", false)?;
    let identity = context.scratch.join("identity");
    let recipient = run("reel", &["key".as_ref(), "generate".as_ref(), identity.as_os_str()])?;
    let recipient = recipient.trim();
    let drives = Drives::plug(&Drives::create(&rig, 4, "16M")?)?;
    drives.label()?;
    drives.configure(&mut rig, &format!("recipients = [\"{recipient}\"]\ncompression = 3"))?;
    rig.mount("ring=4m")?;
    rig.start_daemon()?;
    // More than all of the tapes hold, were it not compressed.
    let text = "what can be compressed takes less room on the tape\n".repeat(110_000);
    for number in 0..8 {
        fs::write(rig.mnt.join(format!("text-{number}")), &text)?;
    }
    File::open(rig.mnt.join("text-7"))?.sync_all()?;
    // The daemon goes on with an encrypted tape, whose key it kept.
    rig.kill_daemon()?;
    rig.start_daemon()?;
    work(&rig)?;
    rig.unmount()?;
    rig.drain()?;
    let (status, said) = restore_from(&rig, &drives.devices)?;
    ensure!(status == Some(1), "without the identity: {status:?}:\n{said}");
    for word in ["TAPE01", "encrypted", recipient, "--identity"] {
        ensure!(said.contains(word), "without the identity, {word:?} is not said:\n{said}");
    }
    forget_restored(&rig)?;
    let check = ["key".as_ref(), "check".as_ref(), identity.as_os_str(), drives.devices[0].as_os_str()];
    ensure!(run("reel", &check)?.contains("opens"), "the identity does not open the tape");
    let mut command = Command::new("reel");
    command.arg("restore").arg("--identity").arg(&identity).arg("--to").arg(&rig.restored).args(&drives.devices);
    let done = command.stdin(Stdio::null()).output()?;
    ensure!(done.status.success(), "with it: {}", String::from_utf8_lossy(&done.stderr));
    crate::rig::none("trees differ", &rig.differences(&rig.lower, &rig.restored)?)?;
    drives.unplug()?;
    Ok(rig.close()?)
}

fn tapes_killed(context: &Context) -> TestResult {
    let mut rig = Rig::on_stage("tapes-killed", false)?;
    let drives = Drives::plug(&Drives::create(&rig, 4, "32M")?)?;
    drives.label()?;
    drives.configure(&mut rig, "")?;
    rig.mount("ring=4m")?;
    rig.start_daemon()?;
    let mut random = Random::new(u64::from(std::process::id()));
    for round in 0..if context.short { 6 } else { 25 } {
        fs::write(rig.mnt.join(format!("file-{round}")), pattern(1 << 20, round))?;
        File::open(rig.mnt.join(format!("file-{round}")))?.sync_all()?;
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        rig.kill_daemon()?;
        rig.start_daemon()?;
    }
    rig.unmount()?;
    rig.drain()?;
    let (status, said) = restore_from(&rig, &drives.devices)?;
    ensure!(status == Some(0), "{status:?}:\n{said}");
    crate::rig::none("trees differ", &rig.differences(&rig.lower, &rig.restored)?)?;
    drives.unplug()?;
    Ok(rig.close()?)
}
