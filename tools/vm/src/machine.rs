// SPDX-License-Identifier: GPL-2.0-or-later
//! A machine: described, started, watched, ended.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::kernel_log::AllowList;
use crate::payload::{modules_image, Payload};
use crate::protocol::{KMSG_PORT, MODULES_DISK, OUTPUT_PORT, PAYLOAD_DISK, REPORT_PORT, ROOT_DISK};
use crate::{initramfs, Context, Ending, Error, Kernel, Outcome, Setup};

/// The processor of an emulated machine: without the string moves that emulation does a byte at a time.
const EMULATED_CPU: &str = "max,-fsrm,-erms";

/// How often a running machine is looked at.
const POLL: Duration = Duration::from_millis(50);
/// A run that prints nothing for this long is said to be still going.
const SILENCE: Duration = Duration::from_secs(30);

struct Disk {
    name: String,
    path: PathBuf,
    read_only: bool,
}

/// The description of a machine; [`Machine::start`] boots it.
pub struct Machine {
    setup: Setup,
    name: String,
    kernel: Kernel,
    memory_mib: u32,
    cpus: u32,
    icount: Option<u32>,
    disks: Vec<Disk>,
    shares: Vec<(String, PathBuf)>,
    ports: Vec<(String, PathBuf)>,
    payload: Payload,
    tags: Vec<String>,
    timeout: Duration,
    results: Option<PathBuf>,
    echo: bool,
    keep: bool,
}

impl Machine {
    /// A machine with two processors, 2 GiB of memory, no data disks and ten minutes to
    /// live that runs `argv`; `name` is for people.
    pub fn new(setup: &Setup, name: &str, argv: &[&str]) -> Self {
        let payload = Payload { argv: argv.iter().map(|&arg| arg.to_owned()).collect(), ..Payload::default() };
        Self {
            setup: setup.clone(),
            name: name.to_owned(),
            kernel: setup.kernel.clone(),
            memory_mib: 2048,
            cpus: 2,
            icount: None,
            disks: Vec::new(),
            shares: Vec::new(),
            ports: Vec::new(),
            payload,
            tags: Vec::new(),
            timeout: Duration::from_secs(600),
            results: None,
            echo: true,
            keep: false,
        }
    }

    /// Boots this kernel instead of the setup's.
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// Memory in MiB.
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Number of processors.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Makes the machine's time a count of instructions, 2^shift nanoseconds each: one
    /// processor, emulated, without the fast string instructions that the emulator
    /// executes slowly and that would inflate every copy.
    pub fn icount(mut self, shift: u32) -> Self {
        self.icount = Some(shift);
        self.cpus = 1;
        self
    }

    /// Adds a raw disk image. If the file is missing it is made, sparse, of `size`
    /// bytes; an existing one is used as it is, so a disk can live through several
    /// machines. `name` is its serial number (20 bytes at most).
    pub fn disk(mut self, name: &str, path: &Path, size: u64) -> Result<Self, Error> {
        if !path.exists() {
            File::create(path).and_then(|file| file.set_len(size)).context(|| path.display().to_string())?;
        }
        self.disks.push(Disk { name: name.to_owned(), path: path.to_owned(), read_only: false });
        Ok(self)
    }

    /// Adds a raw disk image that the machine cannot write to, and that several machines may have at the same time.
    pub fn image(mut self, name: &str, path: &Path) -> Self {
        self.disks.push(Disk { name: name.to_owned(), path: path.to_owned(), read_only: true });
        self
    }

    /// Shows a directory of the host, read-only, at `/mnt/TAG` of the machine.
    pub fn share(mut self, tag: &str, dir: &Path) -> Self {
        self.payload.shares.push((tag.to_owned(), format!("/mnt/{tag}")));
        self.shares.push((tag.to_owned(), dir.to_owned()));
        self
    }

    /// A port at `/dev/virtio-ports/NAME` of the machine whose bytes are appended to a
    /// file of the host. A write that has returned in the machine is in the file,
    /// whatever happens to the machine next.
    pub fn port(mut self, name: &str, file: &Path) -> Self {
        self.ports.push((name.to_owned(), file.to_owned()));
        self
    }

    /// Brings a file or directory of the host along as `/payload/INSIDE`.
    pub fn file(mut self, inside: &str, outside: &Path) -> Self {
        self.payload.files.push((inside.into(), outside.to_owned()));
        self
    }

    /// Brings a program along; the machine finds it by name.
    pub fn program(self, path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.file(&format!("bin/{name}"), path)
    }

    /// Sets an environment variable of the command.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.payload.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Allows the kernel messages listed under this tag.
    pub fn allow(mut self, tag: &str) -> Self {
        self.tags.push(tag.to_owned());
        self
    }

    /// The time after which the machine is killed and the run has failed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where the files from `/results` go; without it they stay in the work directory.
    pub fn results(mut self, dir: &Path) -> Self {
        self.results = Some(dir.to_owned());
        self
    }

    /// Does not copy the command's output to standard output.
    pub fn quiet(mut self) -> Self {
        self.echo = false;
        self
    }

    /// Keeps the work directory after a success too.
    pub fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Boots the machine.
    pub fn start(self) -> Result<Running, Error> {
        let work = self.setup.directory(&self.name)?;

        let initramfs = work.join("initramfs");
        let init = self.setup.programs.join("reelvm-init");
        std::fs::write(&initramfs, initramfs::build(&self.kernel, &init)?)
            .context(|| initramfs.display().to_string())?;
        let payload = work.join("payload.erofs");
        let staging = work.join("payload");
        self.payload.build(&staging, &payload)?;
        std::fs::remove_dir_all(&staging).context(|| staging.display().to_string())?;
        let modules = modules_image(&self.kernel)?;

        let mut command = self.command(&work, &initramfs, &modules, &payload);
        let stderr = work.join("qemu");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).context(|| stderr.display().to_string())?);
        // The files exist before qemu opens them, so that following them never fails.
        for name in ["output", "kmsg", "report", "serial"] {
            File::create(work.join(name)).context(|| name.to_owned())?;
        }
        let child = command.spawn().context(|| "qemu-system-x86_64".to_owned())?;
        let output = work.join("output");
        Ok(Running {
            output: File::open(&output).context(|| output.display().to_string())?,
            seen: Vec::new(),
            started: Instant::now(),
            heard: Instant::now(),
            child,
            work,
            machine: self,
        })
    }

    /// Boots the machine, waits for its end, and gives what came back.
    pub fn run(self) -> Result<Outcome, Error> {
        self.start()?.wait()
    }

    fn command(&self, work: &Path, initramfs: &Path, modules: &Path, payload: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-name", &self.name, "-m", &self.memory_mib.to_string()]);
        command.args(["-smp", &self.cpus.to_string()]);
        match self.icount {
            Some(shift) => command.args([
                "-accel",
                "tcg,thread=single",
                "-cpu",
                EMULATED_CPU,
                "-icount",
                &format!("shift={shift}"),
            ]),
            None => {
                let accelerator = self.setup.accelerator();
                let cpu = if accelerator.starts_with("kvm") { "max" } else { EMULATED_CPU };
                command.args(["-accel", accelerator, "-cpu", cpu])
            }
        };
        // An oops ends the run at once, and its report goes out on the serial line. Whether
        // the timer works is not tested: on a busy host it seems not to.
        command.args([
            "-append",
            "console=ttyS0 quiet loglevel=5 panic=-1 oops=panic log_buf_len=8M printk.devkmsg=on no_timer_check hash_pointers=always rdinit=/init",
        ]);
        command.arg("-kernel").arg(self.kernel.image()).arg("-initrd").arg(initramfs);
        command.arg("-serial").arg(format!("file:{}", work.join("serial").display()));
        command.args(["-object", "rng-random,id=rng,filename=/dev/urandom"]);
        command.args(["-device", "virtio-rng-pci,rng=rng"]);

        let own = [(ROOT_DISK, self.setup.root_image.as_path()), (MODULES_DISK, modules), (PAYLOAD_DISK, payload)];
        let own = own.map(|(name, path)| Disk { name: name.to_owned(), path: path.to_owned(), read_only: true });
        for (number, disk) in own.iter().chain(&self.disks).enumerate() {
            // Flushes need not reach the host's disk: what a killed machine has written
            // is in the host's page cache.
            command.args([
                "-drive",
                &format!(
                    "if=none,id=disk{number},format=raw,cache=unsafe,discard=unmap,readonly={},file={}",
                    if disk.read_only { "on" } else { "off" },
                    disk.path.display().to_string().replace(',', ",,")
                ),
                "-device",
                &format!("virtio-blk-pci,drive=disk{number},serial={}", disk.name),
            ]);
        }

        command.args(["-device", "virtio-serial-pci,max_ports=31"]);
        let file = |name: &str| work.join(name);
        let own = [(OUTPUT_PORT, file("output")), (KMSG_PORT, file("kmsg")), (REPORT_PORT, file("report"))];
        let own = own.map(|(name, path)| (name.to_owned(), path));
        // The report's is the last: whoever has that one has them all.
        for (number, (name, path)) in self.ports.iter().chain(&own).enumerate() {
            let path = path.display().to_string().replace(',', ",,");
            command.args([
                "-chardev",
                &format!("file,id=port{number},append=on,path={path}"),
                "-device",
                &format!("virtserialport,chardev=port{number},name={name}"),
            ]);
        }
        for (tag, dir) in &self.shares {
            let dir = dir.display().to_string().replace(',', ",,");
            command.args([
                "-virtfs",
                &format!("local,security_model=none,readonly=on,multidevs=remap,mount_tag={tag},path={dir}"),
            ]);
        }
        command
    }
}

/// A machine that was started. Dropping it cuts its power.
pub struct Running {
    machine: Machine,
    child: Child,
    work: PathBuf,
    output: File,
    seen: Vec<u8>,
    started: Instant,
    heard: Instant,
}

impl Running {
    /// Waits until the command has printed `text`, counted from the start; `false` if
    /// the machine ended or its time ran out before it did.
    pub fn wait_for_output(&mut self, text: &str) -> Result<bool, Error> {
        loop {
            let ended = self.ended()?;
            self.follow()?;
            let text = text.as_bytes();
            if self.seen.windows(text.len().max(1)).any(|window| window == text) {
                return Ok(true);
            }
            if ended || self.started.elapsed() > self.machine.timeout {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Lets the machine run for a while; returns early if it ends.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Error> {
        self.run_until(time, || false)
    }

    /// Lets the machine run until something is so, for this time at the most; returns early if it ends.
    pub fn run_until(&mut self, limit: Duration, is_so: impl Fn() -> bool) -> Result<(), Error> {
        let until = Instant::now() + limit;
        while !is_so() && Instant::now() < until && !self.ended()? {
            self.follow()?;
            std::thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Cuts the machine's power: no shutdown, no flush.
    pub fn cut_power(mut self) -> Result<Outcome, Error> {
        self.child.kill().context(|| "qemu".to_owned())?;
        self.child.wait().context(|| "qemu".to_owned())?;
        self.finish(Ending::Cut)
    }

    /// Waits for the machine to end by itself, or for its time to run out.
    pub fn wait(mut self) -> Result<Outcome, Error> {
        loop {
            if self.ended()? {
                return self.finish(Ending::Off);
            }
            if self.started.elapsed() > self.machine.timeout {
                self.child.kill().context(|| "qemu".to_owned())?;
                self.child.wait().context(|| "qemu".to_owned())?;
                return self.finish(Ending::TimedOut);
            }
            self.follow()?;
            std::thread::sleep(POLL);
        }
    }

    /// Whether the machine has ended by itself; [`Running::wait`] then returns at once.
    pub fn ended(&mut self) -> Result<bool, Error> {
        Ok(self.child.try_wait().context(|| "qemu".to_owned())?.is_some())
    }

    /// Takes over what the command has printed since the last look.
    fn follow(&mut self) -> Result<(), Error> {
        let mut new = Vec::new();
        self.output.read_to_end(&mut new).context(|| "output".to_owned())?;
        if !new.is_empty() {
            self.heard = Instant::now();
            if self.machine.echo {
                let mut out = std::io::stdout().lock();
                out.write_all(&new).and_then(|()| out.flush()).context(|| "output".to_owned())?;
            }
            self.seen.extend_from_slice(&new);
        } else if self.heard.elapsed() > SILENCE {
            self.heard = Instant::now();
            let seconds = self.started.elapsed().as_secs();
            println!("[{}: still running after {seconds} s]", self.machine.name);
        }
        Ok(())
    }

    fn finish(mut self, ending: Ending) -> Result<Outcome, Error> {
        self.follow()?;
        let mut qemu = String::new();
        if let Ok(mut file) = File::open(self.work.join("qemu")) {
            let _ = file.rewind();
            let _ = file.read_to_string(&mut qemu);
        }
        let results = match &self.machine.results {
            Some(dir) => dir.clone(),
            None => self.work.join("results"),
        };
        let allow = AllowList::open(&self.machine.setup.allow)?;
        let mut outcome = Outcome::collect(ending, &self.work, &results, &allow, &self.machine.tags)?;
        if outcome.status.is_none() && ending == Ending::Off && !qemu.trim().is_empty() {
            outcome.trouble.push(format!("qemu: {}", qemu.trim()));
        }
        if !self.machine.keep && outcome.problems().is_empty() {
            // Results that nobody asked to be put elsewhere stay.
            if self.machine.results.is_some() || !results.exists() {
                let _ = std::fs::remove_dir_all(&self.work);
            } else {
                for name in ["initramfs", "payload.erofs"] {
                    let _ = std::fs::remove_file(self.work.join(name));
                }
            }
        }
        Ok(outcome)
    }

    /// Everything the command has printed so far.
    pub fn output(&self) -> &[u8] {
        &self.seen
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone, in every case but an error in between.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
