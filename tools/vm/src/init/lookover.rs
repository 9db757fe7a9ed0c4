// SPDX-License-Identifier: GPL-2.0-or-later
//! What a run must not leave behind: processes, mounts, the module and the devices that
//! were set up around it, leaked kernel memory.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Modules that a suite has to unload again. Others (filesystems, libraries) stay loaded
/// after use by design and say nothing.
const OURS: &[&str] = &["reelfs"];

/// What is there at one moment, as lines for people.
#[derive(Default)]
pub struct State {
    things: BTreeSet<String>,
}

impl State {
    /// Looks around.
    pub fn now() -> Self {
        let mut state = Self::default();
        state.processes();
        state.mounts();
        state.modules();
        state.entries("/sys/kernel/config/target/core", "target device");
        state.entries("/sys/kernel/config/target/loopback", "target");
        state.device_mapper();
        state
    }

    /// What is there now and was not before.
    pub fn left_since(&self, before: &Self) -> Vec<String> {
        self.things.difference(&before.things).cloned().collect()
    }

    fn processes(&mut self) {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else {
                continue;
            };
            // Kernel threads have an empty command line; so has a zombie, which is only
            // not collected yet.
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if pid != "1" && !command.is_empty() {
                let command: Vec<u8> = command.iter().map(|&b| if b == 0 { b' ' } else { b }).collect();
                let command = String::from_utf8_lossy(&command);
                self.things.insert(format!("process {pid}: {}", command.trim()));
            }
        }
    }

    fn mounts(&mut self) {
        let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in text.lines() {
            let mut fields = line.split(' ');
            let (source, at, kind) = (fields.next(), fields.next(), fields.next());
            if let (Some(source), Some(at), Some(kind)) = (source, at, kind) {
                // Loading the target core mounts it, and it stays.
                if kind != "configfs" {
                    self.things.insert(format!("mount of {source} ({kind}) at {at}"));
                }
            }
        }
    }

    fn modules(&mut self) {
        let text = std::fs::read_to_string("/proc/modules").unwrap_or_default();
        for line in text.lines() {
            let mut fields = line.split(' ');
            let (name, users) = (fields.next().unwrap_or(""), fields.nth(1).unwrap_or(""));
            if OURS.contains(&name) {
                self.things.insert(format!("module {name}, in use by {users}"));
            }
        }
    }

    fn entries(&mut self, dir: &str, what: &str) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            if is_dir && name != "alua" && name != "discovery_auth" {
                self.things.insert(format!("{what} {name}"));
            }
        }
    }

    fn device_mapper(&mut self) {
        for entry in std::fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            if let Ok(name) = std::fs::read_to_string(entry.path().join("dm/name")) {
                self.things.insert(format!("device-mapper device {}", name.trim()));
            }
        }
    }
}

/// Has a kernel with kmemleak look for leaks; what it finds goes into the kernel log,
/// which is judged on the host. Does nothing on other kernels.
pub fn scan_for_leaks() -> io::Result<()> {
    let file = Path::new("/sys/kernel/debug/kmemleak");
    if !file.exists() {
        return Ok(());
    }
    // An object is only reported once it is a few seconds old, and the second scan
    // weeds out what the first saw in the middle of a change.
    std::fs::write(file, "scan")?;
    std::thread::sleep(Duration::from_secs(6));
    std::fs::write(file, "scan")?;
    let found = std::fs::read_to_string(file)?;
    if !found.is_empty() {
        let mut log = String::new();
        for line in found.lines().take(200) {
            log.push_str(line);
            log.push('\n');
        }
        std::fs::create_dir_all(reelvm::protocol::RESULTS)?;
        std::fs::write(Path::new(reelvm::protocol::RESULTS).join("kmemleak"), log)?;
    }
    Ok(())
}
