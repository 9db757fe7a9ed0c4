// SPDX-License-Identifier: GPL-2.0-or-later

//! What is not captured is refused with the proper errno, never passed through unrecorded.
//!
//! Each of these may one day be captured. Until then: refused, no record, and the lower as it was. Where a call is
//! allowed to work (because somebody taught reelfs to record it), the restored tree decides.

use super::place::{cases, Place};
use crate::check::{ensure, same, Check};
use crate::Test;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::process::Command;

pub const CASES: &[Test] = cases![refusals:
    "mmap-without-a-store" mmap_harmless,
    "swap-file" swap_file,
    "ioctls-that-change-something" ioctls,
    "programs-run" programs_run,
    "locks-and-leases" locks,
];

/// `open`, `mmap` with protection and flags, a store where that is allowed; prints 0 or the negated errno.
const MMAP: &str = r#"
    my ($path, $mode, $prot, $flags, $later) = @ARGV;
    open(F, $mode, $path) or die "open: $!";
    my $at = syscall(9, 0, 4096, $prot+0, $flags+0, fileno(F), 0);
    if ($at == -1) { print -($!+0); exit }
    if ($later && syscall(10, $at, 4096, $later+0) == -1) { print -($!+0); exit }
    print 0;
"#;
const READ: &str = "1";
const READ_WRITE: &str = "3";
const SHARED: &str = "1";
const PRIVATE: &str = "2";

fn mmap(p: &Place, open: &str, protection: &str, flags: &str, later: &str) -> Check<i64> {
    let path = p.at("f");
    p.unrecorded(|| {
        p.perl(MMAP, &[path.as_os_str(), open.as_ref(), protection.as_ref(), flags.as_ref(), later.as_ref()])
    })
}

/// Programs and libraries are mapped like this; databases read like this.
fn mmap_harmless(p: &Place) -> Check {
    fs::write(p.at("f"), crate::pattern::pattern(8192, 1))?;
    same!(mmap(p, "<", READ, SHARED, "")?, 0);
    same!(mmap(p, "<", READ, PRIVATE, "")?, 0);
    same!(mmap(p, "+<", READ_WRITE, PRIVATE, "")?, 0);
    same!(mmap(p, "<", READ_WRITE, PRIVATE, "")?, 0);
    // What the suites `mmap-*` store through.
    same!(mmap(p, "+<", READ_WRITE, SHARED, "")?, 0);
    same!(mmap(p, "+<", READ, SHARED, READ_WRITE)?, 0);
    Ok(())
}

fn swap_file(p: &Place) -> Check {
    let file = File::create(p.at("swap"))?;
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; 1 << 20], 0)?;
    file.sync_all()?;
    Command::new("mkswap").arg("-q").arg(p.at("swap")).output()?;
    p.unrecorded(|| {
        let on = Command::new("swapon").arg(p.at("swap")).output()?;
        if on.status.success() {
            Command::new("swapoff").arg(p.at("swap")).output()?;
        }
        ensure!(p.plain() || !on.status.success(), "swapon worked");
        Ok(())
    })
}

/// ioctls of the VFS and of the lowers that store something. Numbers from `include/uapi/linux/fs.h`,
/// `fs/ext4/ext4.h`, `include/uapi/linux/btrfs.h`.
fn ioctls(p: &Place) -> Check {
    const IOCTL: &str = r#"
        my ($path, $other, $number, $argument) = @ARGV;
        open(F, "+<", $path) or open(F, "<", $path) or die "open: $!";
        open(O, "<", $other) or die "open: $!";
        my $bytes = pack("H*", $argument);
        $bytes =~ s/OOOO/pack("l", fileno(O))/e;
        $bytes .= "\0" x (4096 - length $bytes);
        print defined(ioctl(F, $number+0, $bytes)) ? 0 : -($!+0);
    "#;
    // "4f4f4f4f" stands for the descriptor of the other file.
    let calls: &[(&str, u32, &str, &str)] = &[
        ("FS_IOC_RESVSP64", 0x4030_582a, "f", "00000000000000000000000000000000000001000000000000000000"),
        ("FS_IOC_UNRESVSP64", 0x4030_582b, "f", "00000000000000000000000000000000001000000000000000000000"),
        ("FS_IOC_ZERO_RANGE", 0x4030_5839, "f", "00000000000000000000000000000000001000000000000000000000"),
        ("FICLONERANGE", 0x4020_940d, "f", "4f4f4f4f00000000"),
        ("FS_IOC_SETVERSION", 0x4008_7602, "f", "11223344"),
        ("EXT4_IOC_SWAP_BOOT", 0x6611, "f", ""),
        ("EXT4_IOC_MOVE_EXT", 0xc028_660f, "f", "000000004f4f4f4f"),
        ("EXT4_IOC_ALLOC_DA_BLKS", 0x660c, "f", ""),
        ("BTRFS_IOC_CLONE_RANGE", 0x4020_940d, "f", "4f4f4f4f00000000"),
        ("BTRFS_IOC_SUBVOL_CREATE", 0x5000_940e, "d", "0000000000000000737562766f6c"),
        ("BTRFS_IOC_DEFRAG", 0x5000_9402, "f", ""),
        ("FS_IOC_SET_ENCRYPTION_POLICY", 0x800c_6613, "d", "000104020000000000000000"),
        ("FS_IOC_ENABLE_VERITY", 0x4080_6685, "f", "010000000100000000100000"),
    ];
    fs::write(p.at("f"), crate::pattern::pattern(16_384, 1))?;
    fs::write(p.at("other"), crate::pattern::pattern(16_384, 2))?;
    fs::create_dir(p.at("d"))?;
    // Those that only ask are answered as below: FS_IOC_GETVERSION, FS_IOC_GETFLAGS.
    for number in ["2148038145", "2148034049"] {
        for on in ["f", "d"] {
            let ask = |path: std::path::PathBuf| {
                p.perl(IOCTL, &[path.as_os_str(), p.at("other").as_os_str(), number.as_ref(), "".as_ref()])
            };
            same!(p.unrecorded(|| ask(p.at(on)))?, ask(p.below(on))?);
        }
    }
    if p.plain() {
        return Ok(());
    }
    for &(name, number, on, argument) in calls {
        let (path, other, number) = (p.at(on), p.at("other"), number.to_string());
        let arguments = [path.as_os_str(), other.as_os_str(), number.as_ref(), argument.as_ref()];
        let (answer, records) = p.counted(|| p.perl(IOCTL, &arguments))?;
        match answer? {
            0 => ensure!(records > 0, "{name} worked and left no record"),
            _ => ensure!(records == 0, "{name} was refused and left {records} records"),
        }
    }
    Ok(())
}

fn programs_run(p: &Place) -> Check {
    fs::copy("/bin/true", p.at("true"))?;
    same!(Command::new(p.at("true")).status()?.code(), Some(0));
    // A program that runs cannot be opened for writing.
    let mut child = Command::new("sh")
        .arg("-c")
        .arg("cp /bin/sleep \"$1\" && exec \"$1\" 30")
        .arg("sh")
        .arg(p.at("sleep"))
        .spawn()?;
    let started = crate::machine::wait_until("sleep runs", std::time::Duration::from_secs(20), || {
        fs::read_link(format!("/proc/{}/exe", child.id())).is_ok_and(|exe| exe.ends_with("sleep"))
    });
    let opened = rustix::fs::open(p.at("sleep"), OFlags::WRONLY, Mode::empty());
    child.kill()?;
    child.wait()?;
    ensure!(started.is_ok(), "the program did not start");
    ensure!(matches!(opened, Err(Errno::TXTBSY)), "{opened:?}, should be ETXTBSY");
    Ok(())
}

fn locks(p: &Place) -> Check {
    let (one, two) = (File::create(p.at("f"))?, File::create(p.at("f"))?);
    p.unrecorded(|| {
        rustix::fs::flock(&one, rustix::fs::FlockOperation::LockExclusive)?;
        let second = rustix::fs::flock(&two, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        ensure!(matches!(second, Err(Errno::WOULDBLOCK)), "flock: {second:?}");
        rustix::fs::fcntl_lock(&one, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(())
    })
}
