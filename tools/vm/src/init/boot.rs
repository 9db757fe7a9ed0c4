// SPDX-License-Identifier: GPL-2.0-or-later
//! From the initramfs to the machine's root: modules, disks, mounts, links.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reelvm::protocol::{
    DISKS, MODULES_DISK, MODULE_LIST, PAYLOAD, PAYLOAD_DISK, PORTS, REPORT_PORT, ROOT_DISK, SHARES_FILE,
};
use rustix::mount::{mount, mount_move, MountFlags};

/// `MODULE_INIT_COMPRESSED_FILE` (include/uapi/linux/module.h): the kernel decompresses.
const COMPRESSED: i32 = 4;
/// How long disks may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the kernel lists the ports.
const PORT_CLASS: &str = "/sys/class/virtio-ports";

/// Makes the machine what its command expects.
pub fn boot() -> Result<(), String> {
    special("devtmpfs", "/dev", "mode=0755")?;
    special("proc", "/proc", "")?;
    special("sysfs", "/sys", "")?;
    load_modules()?;

    let root = wait_for_disk(ROOT_DISK)?;
    attach(&root, "/image", "erofs", MountFlags::RDONLY, "")?;
    attach(Path::new("tmpfs"), "/changes", "tmpfs", MountFlags::empty(), "mode=0755")?;
    for directory in ["/changes/upper", "/changes/work"] {
        std::fs::create_dir(directory).map_err(|e| format!("{directory}: {e}"))?;
    }
    attach(
        Path::new("overlay"),
        "/new",
        "overlay",
        MountFlags::empty(),
        "lowerdir=/image,upperdir=/changes/upper,workdir=/changes/work",
    )?;
    attach(&wait_for_disk(MODULES_DISK)?, "/new/usr/lib/modules", "erofs", MountFlags::RDONLY, "")?;
    let payload = format!("/new{PAYLOAD}");
    attach(&wait_for_disk(PAYLOAD_DISK)?, &payload, "erofs", MountFlags::RDONLY, "")?;
    for name in ["/dev", "/proc", "/sys"] {
        let to = format!("/new{name}");
        mount_move(name, to.as_str()).map_err(|e| format!("{to}: {e}"))?;
    }
    rustix::process::chdir("/new")
        .and_then(|()| mount_move(".", "/"))
        .and_then(|()| rustix::process::chroot("."))
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|e| format!("/new: {e}"))?;

    for (kind, at, options) in [
        ("tmpfs", "/run", "mode=0755"),
        ("tmpfs", "/tmp", "mode=1777"),
        ("tmpfs", "/dev/shm", "mode=1777"),
        ("devpts", "/dev/pts", "mode=0620,ptmxmode=0666"),
    ] {
        let _ = std::fs::create_dir(at);
        special(kind, at, options)?;
    }
    for (kind, at) in
        [("debugfs", "/sys/kernel/debug"), ("tracefs", "/sys/kernel/tracing"), ("configfs", "/sys/kernel/config")]
    {
        // Not every kernel has them, and configfs may come as a module later.
        let _ = special(kind, at, "");
    }
    let _ = rustix::system::sethostname(b"reelvm");
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = std::os::unix::fs::symlink(target, link);
    }
    wait_for_ports()?;
    link_by_name(PORT_CLASS, "name", PORTS)?;
    link_by_name("/sys/block", "serial", DISKS)?;
    mount_shares()
}

fn load_modules() -> Result<(), String> {
    let list = std::fs::read_to_string(Path::new("/").join(MODULE_LIST)).map_err(|e| format!("{MODULE_LIST}: {e}"))?;
    for name in list.lines() {
        let path = Path::new("/modules").join(name);
        let flags = if name.ends_with(".ko") { 0 } else { COMPRESSED };
        let file = std::fs::File::open(&path).map_err(|e| format!("{name}: {e}"))?;
        match rustix::system::finit_module(&file, c"", flags) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(format!("module {name}: {e}")),
        }
    }
    Ok(())
}

/// The device with this serial number. Partitions and other disks are of no interest.
fn find_disk(serial: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let text = std::fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if text.trim() == serial {
            return Some(Path::new("/dev").join(entry.file_name()));
        }
    }
    None
}

fn wait_for_disk(serial: &str) -> Result<PathBuf, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match find_disk(serial) {
            Some(device) if device.exists() => return Ok(device),
            _ if Instant::now() > deadline => return Err(format!("no disk {serial}")),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Waits for the last port to have its name. They are made and named one after the other, by messages to and fro, which
/// takes a while on a host that has other work.
fn wait_for_ports() -> Result<(), String> {
    let named = || {
        let mut entries = std::fs::read_dir(PORT_CLASS).into_iter().flatten().flatten();
        entries.any(|entry| {
            std::fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == REPORT_PORT)
                && Path::new("/dev").join(entry.file_name()).exists()
        })
    };
    let deadline = Instant::now() + PATIENCE;
    while !named() {
        if Instant::now() > deadline {
            return Err(format!("no port {REPORT_PORT}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn attach(source: &Path, at: &str, kind: &str, flags: MountFlags, options: &str) -> Result<(), String> {
    let options = CString::new(options).map_err(|e| format!("{at}: {e}"))?;
    mount(source, at, kind, flags, options.as_c_str()).map_err(|e| format!("{at} ({kind}): {e}"))
}

fn special(kind: &str, at: &str, options: &str) -> Result<(), String> {
    attach(Path::new(kind), at, kind, MountFlags::empty(), options)
}

/// Links `DIR/NAME -> /dev/DEVICE` for every device of a class whose attribute gives it
/// a name, as udev would.
fn link_by_name(class: &str, attribute: &str, dir: &str) -> Result<(), String> {
    let fill = || -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(class)? {
            let entry = entry?;
            let name = std::fs::read_to_string(entry.path().join(attribute)).unwrap_or_default();
            if !name.trim().is_empty() {
                let device = Path::new("/dev").join(entry.file_name());
                std::os::unix::fs::symlink(device, Path::new(dir).join(name.trim()))?;
            }
        }
        Ok(())
    };
    fill().map_err(|e| format!("{dir}: {e}"))
}

/// Mounts the host's directories that were shared with this run.
fn mount_shares() -> Result<(), String> {
    let file = Path::new(PAYLOAD).join(SHARES_FILE);
    let list = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    for line in list.lines() {
        let (tag, at) = line.split_once(' ').ok_or_else(|| format!("share {line:?}"))?;
        std::fs::create_dir_all(at).map_err(|e| format!("{at}: {e}"))?;
        // Where they are built in there is nothing to load, and the mount tells.
        let _ = std::process::Command::new("/usr/sbin/modprobe").args(["-a", "9p", "9pnet_virtio"]).status();
        attach(Path::new(tag), at, "9p", MountFlags::RDONLY, "trans=virtio,version=9p2000.L,msize=524288,cache=loose")?;
    }
    Ok(())
}
