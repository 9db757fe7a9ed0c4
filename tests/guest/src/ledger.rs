// SPDX-License-Identifier: GPL-2.0-or-later

//! Work whose every step that was made durable is noted outside of the machine, and the judgement about it.
//!
//! A worker has a file of [`BLOCKS`] blocks and a directory. Step `i` writes block [`block_of`]`(i)`, in some steps it
//! makes, renames or removes a name as well; what it has synced it notes in the ledger, one line each. The steps follow
//! from their number alone, so the ledger says exactly what has to be there:
//!
//! - `W worker step`: all steps up to this one have written their blocks;
//! - `N worker step`: so have the changes of names;
//! - `E worker step`: the worker has ended after this step, and nothing was done behind it;
//! - `D worker rows`: the worker's database has committed this many rows.

use crate::check::{ensure, same, Check, Failure};
use crate::pattern::{pattern, Random};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the ledger is written to: a port of the machine, whose bytes are the host's as soon as they are written.
const PORT: &str = "/dev/virtio-ports/ledger";
/// Where the ledger of the boots before is.
const BEFORE: &str = "/payload/ledger";
/// Blocks of a worker's file.
const BLOCKS: u64 = 64;
/// Distance between blocks, in bytes.
const DISTANCE: u64 = 4096;
/// Bytes of a block that are written.
const LENGTH: usize = 3000;
/// Number of workers.
const WORKERS: u64 = 3;

fn block_of(step: u64) -> u64 {
    step * 7 % BLOCKS
}

fn contents(worker: u64, step: u64) -> Vec<u8> {
    let mut bytes = format!("worker {worker} step {step}\n").into_bytes();
    bytes.extend(pattern(LENGTH - bytes.len(), (worker << 40) | step));
    bytes
}

/// What a step does to names.
enum NameChange {
    None,
    Make(String),
    Rename(String, String),
    Remove(String),
}

fn name_change(step: u64) -> NameChange {
    match step % 30 {
        10 => NameChange::Make(format!("name-{step}")),
        20 => NameChange::Rename(format!("name-{}", step - 10), format!("moved-{}", step - 10)),
        // Every second of them goes again.
        29 if step % 60 == 29 => NameChange::Remove(format!("moved-{}", step - 19)),
        _ => NameChange::None,
    }
}

/// The names there have to be when all steps up to `last` are done.
fn names_after(last: u64) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for step in 0..=last {
        match name_change(step) {
            NameChange::None => {}
            NameChange::Make(name) => drop(names.insert(name)),
            NameChange::Rename(from, to) => {
                names.remove(&from);
                names.insert(to);
            }
            NameChange::Remove(name) => drop(names.remove(&name)),
        }
    }
    names
}

/// Workers at work, until they are told to stop.
pub struct Load {
    children: Vec<Child>,
    stop: PathBuf,
}

impl Load {
    /// Starts the workers in `dir`. Those of another boot have other numbers: they go on from `first`, below which those of
    /// the boots before are.
    pub fn start(dir: &Path, first: u64) -> Check<Self> {
        let port = File::options().write(true).open(PORT)?;
        let stop = PathBuf::from("/run/stage/stop");
        let _ = fs::remove_file(&stop);
        let mut children = Vec::new();
        let kinds = (0..WORKERS).map(|worker| ("ledger", first + worker));
        for (kind, worker) in kinds.chain([("ledger-database", first)]) {
            let mut command = Command::new("/proc/self/exe");
            command.arg("worker").arg(kind).arg(dir).args([worker.to_string(), "0".to_owned()]);
            children.push(command.stdin(Stdio::null()).stdout(port.try_clone()?).spawn()?);
        }
        Ok(Load { children, stop })
    }

    /// Fails if a worker has ended.
    pub fn check(&mut self) -> Check {
        for child in &mut self.children {
            if let Some(status) = child.try_wait()? {
                return Err(Failure::new(format!("a worker ended: {status}")));
            }
        }
        Ok(())
    }

    /// Lets the workers finish their step, and waits for them.
    pub fn stop(mut self) -> Check {
        fs::write(&self.stop, "")?;
        for child in &mut self.children {
            let status = child.wait()?;
            ensure!(status.success(), "a worker failed: {status}");
        }
        self.children.clear();
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a worker process does. Its standard output is the ledger.
pub fn work(dir: &Path, worker: u64) -> Check {
    let mut random = Random::new(worker + 77);
    let file = File::create(dir.join(format!("blocks-{worker}")))?;
    let names = dir.join(format!("names-{worker}"));
    fs::create_dir(&names)?;
    let directory = File::open(&names)?;
    File::open(dir)?.sync_all()?;
    // One write for each line, or lines of several workers would mix.
    let note = |what: char, step: u64| {
        Ok::<_, Failure>(std::io::stdout().write_all(format!("{what} {worker} {step}\n").as_bytes())?)
    };
    let mut step = 0;
    loop {
        file.write_all_at(&contents(worker, step), block_of(step) * DISTANCE)?;
        let changed = match name_change(step) {
            NameChange::None => false,
            NameChange::Make(name) => {
                let made = File::create(names.join(name))?;
                made.write_all_at(&contents(worker, step), 0)?;
                made.sync_data()?;
                true
            }
            NameChange::Rename(from, to) => fs::rename(names.join(from), names.join(to)).map(|()| true)?,
            NameChange::Remove(name) => fs::remove_file(names.join(name)).map(|()| true)?,
        };
        if changed {
            directory.sync_all()?;
            note('N', step)?;
        }
        if random.below(4) == 0 {
            file.sync_data()?;
            note('W', step)?;
        }
        if Path::new("/run/stage/stop").exists() {
            return note('E', step);
        }
        step += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a worker with a database does: a transaction for each row. Its standard output is the ledger.
pub fn work_on_database(dir: &Path, worker: u64) -> Check {
    let path = database(dir, worker);
    sql(&path, "PRAGMA journal_mode = DELETE; CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB);")?;
    let mut row = 0;
    while !Path::new("/run/stage/stop").exists() {
        row += 1;
        let size = 50 + row * 37 % 5000;
        sql(&path, &format!("PRAGMA synchronous = EXTRA; INSERT INTO t VALUES ({row}, zeroblob({size}));"))?;
        std::io::stdout().write_all(format!("D {worker} {row}\n").as_bytes())?;
    }
    Ok(())
}

fn database(dir: &Path, worker: u64) -> PathBuf {
    dir.join(format!("database-{worker}"))
}

fn sql(path: &Path, text: &str) -> Check<String> {
    crate::machine::run("sqlite3", &["-bail".as_ref(), path.as_os_str(), text.as_ref()]).map_err(Failure::of)
}

/// What the ledger says about one worker.
#[derive(Default)]
struct Entry {
    rows: Option<u64>,
    written: Option<u64>,
    named: Option<u64>,
    ended: Option<u64>,
}

/// Compares the ledger of the boots before with a tree; gives the number of lines.
pub fn judge(dir: &Path) -> Check<u64> {
    let text = fs::read(BEFORE)?;
    let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
    let mut lines = 0;
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line = String::from_utf8_lossy(line).into_owned();
        let words: Vec<_> = line.split(' ').collect();
        let [what, worker, step] = words[..] else {
            // The machine may have died in the middle of the last one.
            continue;
        };
        let (worker, step) = (worker.parse()?, step.parse()?);
        let entry = entries.entry(worker).or_default();
        match what {
            "W" => entry.written = Some(step),
            "N" => entry.named = Some(step),
            "E" => entry.ended = Some(step),
            "D" => entry.rows = Some(step),
            _ => return Err(Failure::new(format!("ledger: {line:?}"))),
        }
        lines += 1;
    }
    ensure!(!entries.is_empty(), "the ledger is empty");
    for (worker, entry) in entries {
        judge_blocks(dir, worker, &entry)?;
        judge_names(dir, worker, &entry)?;
        judge_database(dir, worker, &entry)?;
    }
    Ok(lines)
}

/// The database opens, is whole, and has all that was committed. Looked at in a copy: opening it may change it.
fn judge_database(dir: &Path, worker: u64, entry: &Entry) -> Check {
    let Some(rows) = entry.rows else { return Ok(()) };
    let copy = Path::new("/run/stage/judged");
    let _ = fs::remove_dir_all(copy);
    fs::create_dir(copy)?;
    let from = database(dir, worker);
    let journal = PathBuf::from(format!("{}-journal", from.display()));
    fs::copy(&from, database(copy, worker))?;
    if journal.exists() {
        fs::copy(&journal, copy.join(journal.file_name().unwrap_or_default()))?;
    }
    let said = sql(&database(copy, worker), "PRAGMA integrity_check; SELECT count(*), max(n) FROM t;")?;
    let mut words = said.split(['\n', '|']);
    same!(words.next(), Some("ok"));
    let (count, last): (u64, u64) = match (words.next(), words.next()) {
        (Some(count), Some(last)) => (count.parse()?, last.parse()?),
        _ => return Err(Failure::new(format!("worker {worker}: the database says {said:?}"))),
    };
    ensure!(count == last && count >= rows, "worker {worker}: {count} rows up to {last}; {rows} were committed");
    Ok(fs::remove_dir_all(copy)?)
}

fn judge_blocks(dir: &Path, worker: u64, entry: &Entry) -> Check {
    let Some(written) = entry.written.max(entry.ended) else { return Ok(()) };
    let file = File::open(dir.join(format!("blocks-{worker}")))?;
    for block in 0..BLOCKS {
        let Some(last) = (0..=written).rev().find(|&step| block_of(step) == block) else { continue };
        let mut bytes = vec![0; LENGTH];
        file.read_exact_at(&mut bytes, block * DISTANCE)?;
        let head = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let head = String::from_utf8_lossy(head).into_owned();
        let step = head.strip_prefix(&format!("worker {worker} step ")).and_then(|step| step.parse::<u64>().ok());
        let Some(step) = step else {
            return Err(Failure::new(format!("worker {worker}, block {block}: {head:?} where step {last} was synced")));
        };
        ensure!(step >= last, "worker {worker}, block {block} is of step {step}; step {last} was synced");
        ensure!(entry.ended.is_none_or(|end| step <= end), "worker {worker}, block {block}: step {step} never was");
        ensure!(bytes == contents(worker, step), "worker {worker}, block {block}: bytes of step {step} are mixed");
    }
    Ok(())
}

fn judge_names(dir: &Path, worker: u64, entry: &Entry) -> Check {
    let Some(named) = entry.named.max(entry.ended) else { return Ok(()) };
    let mut found = BTreeSet::new();
    for name in fs::read_dir(dir.join(format!("names-{worker}")))? {
        found.insert(name?.file_name().to_string_lossy().into_owned());
    }
    if let Some(end) = entry.ended {
        same!(found, names_after(end));
    } else {
        // Steps that were not synced may be there or not, in order.
        let good = (named..named + 200).any(|last| found == names_after(last));
        ensure!(good, "worker {worker}: names {found:?} are those of no step from {named} on");
    }
    for name in &found {
        let made: u64 = name.rsplit('-').next().unwrap_or_default().parse()?;
        let bytes = fs::read(dir.join(format!("names-{worker}")).join(name))?;
        // The last one may have been made and not yet written to.
        let whole = bytes == contents(worker, made);
        ensure!(whole || (entry.ended.is_none() && made > named), "worker {worker}: {name} has other contents");
    }
    Ok(())
}
