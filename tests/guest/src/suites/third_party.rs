// SPDX-License-Identifier: GPL-2.0-or-later

//! Test suites and programs that nobody here wrote, on a mount. What they do is replayed and compared afterwards, and what
//! they complain of has to be what they complain of on the lower too.

use crate::check::{ensure, Check, Failure};
use crate::machine::sh;
use crate::pattern::Random;
use crate::rig::{none, Config, Rig, Stage};
use crate::{Context, Suite, Test, TestResult, When};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DISKS: &[(&str, u32)] = &[("lower", 2048), ("spool", 1024), ("media", 4096)];

const POSIX: Suite = Suite {
    timeout: 3600,
    disks: DISKS,
    when: When::OnDemand,
    tear_down,
    tests: &[Test::new("as-on-the-lower", posix).limit(1800), RESTORED],
    ..Suite::DEFAULT
};

const WORK: Suite = Suite {
    timeout: 7200,
    disks: DISKS,
    when: When::OnDemand,
    tear_down,
    tests: &[
        Test::new("fsx", fsx).limit(3600),
        Test::new("fio-verify", fio).limit(900),
        Test::new("git", git).limit(900),
        Test::new("sqlite", sqlite).limit(900),
        Test::new("lmdb", lmdb).limit(900),
        Test::new("postgresql", postgresql).limit(1800),
        Test::new("compile", compile).limit(1800),
        Test::new("stress-ng", stress).limit(3600),
        RESTORED,
    ],
    ..Suite::DEFAULT
};

const RESTORED: Test = Test::new("restored-equals-lower", |_| with(finish)).limit(3600);

pub const POSIX_EXT4: Suite = Suite { name: "pjdfstest-ext4", set_up: |c| set_up(c, "ext4"), ..POSIX };
pub const POSIX_XFS: Suite = Suite { name: "pjdfstest-xfs", set_up: |c| set_up(c, "xfs"), ..POSIX };
pub const WORK_EXT4: Suite = Suite { name: "programs-ext4", set_up: |c| set_up(c, "ext4"), ..WORK };
pub const WORK_XFS: Suite = Suite { name: "programs-xfs", set_up: |c| set_up(c, "xfs"), ..WORK };

static RIG: Mutex<Option<Rig>> = Mutex::new(None);

fn set_up(context: &Context, lower: &str) -> TestResult {
    let mut rig = Rig::new(Stage::new(context, lower)?, "programs")?;
    // Their logs are long, and of no interest once they are on a volume.
    rig.configure(&Config { spool_limit: "512M", capacity: "256M", ..Config::default() })?;
    rig.mount("")?;
    rig.start_daemon()?;
    *RIG.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(rig);
    Ok(())
}

fn tear_down(_: &Context) -> TestResult {
    let held = RIG.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    Ok(held.ok_or("no mount")?.close()?)
}

fn with(test: impl FnOnce(&mut Rig) -> Check) -> TestResult {
    let mut held = RIG.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Ok(test(held.as_mut().ok_or("no mount")?)?)
}

fn finish(rig: &mut Rig) -> Check {
    rig.unmount()?;
    rig.drain()?;
    rig.restored_equals_lower()
}

/// A new directory on the mount, and one beside the lower that reelfs knows nothing of.
fn places(rig: &Rig, name: &str) -> Check<[PathBuf; 2]> {
    let beside = rig.lower.with_file_name("plain");
    let places = [rig.mnt.join(name), beside.join(name)];
    for place in &places {
        fs::create_dir_all(place)?;
    }
    Ok(places)
}

/// pjdfstest: every case has to end as it does on the lower.
fn posix(_: &Context) -> TestResult {
    with(|rig| {
        let config = Path::new("/run/pjdfstest.toml");
        fs::write(
            config,
            "[features]\nfile_flags = []\nposix_fallocate = {}\nutimensat = {}\nutime_now = {}\n\n\
             [settings]\nnaptime = 0.02\nallow_remount = false\n\n\
             [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n",
        )?;
        let [here, there] = places(rig, "pjdfstest")?;
        let (here, there) = (verdicts(config, &here)?, verdicts(config, &there)?);
        let good = here.values().filter(|verdict| *verdict == "ok").count();
        println!("      {} cases, {good} good", here.len());
        ensure!(good > 200, "only {good} cases passed of {}", here.len());
        let worse: Vec<String> = there
            .iter()
            .filter(|(_, verdict)| *verdict == "ok")
            .filter(|(name, _)| here.get(*name).is_none_or(|verdict| verdict != "ok"))
            .map(|(name, _)| format!("{name}: {}", here.get(name).map_or("did not run", String::as_str)))
            .collect();
        none("what is good on the lower is not on reelfs", &worse)
    })
}

/// The verdict of each case, `ok`, `skipped` or `FAILED` with the reason.
fn verdicts(config: &Path, place: &Path) -> Check<BTreeMap<String, String>> {
    let done = Command::new("pjdfstest")
        .env("NO_COLOR", "1")
        .arg("-c")
        .arg(config)
        .arg("-p")
        .arg(place)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::new(format!("pjdfstest: {e}")))?;
    let text = String::from_utf8_lossy(&done.stdout);
    let mut verdicts = BTreeMap::new();
    let mut last = None;
    for line in text.lines() {
        if let Some(reason) = line.strip_prefix('\t') {
            if let Some(verdict) = last.as_ref().and_then(|name| verdicts.get_mut(name)) {
                *verdict = format!("{verdict} {reason}");
            }
            continue;
        }
        let mut words = line.split_whitespace();
        if let (Some(name), Some(verdict @ ("ok" | "skipped" | "FAILED"))) = (words.next(), words.next()) {
            last = (verdict != "ok").then(|| name.to_owned());
            verdicts.insert(name.to_owned(), verdict.to_owned());
        }
    }
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(!verdicts.is_empty(), "pjdfstest: {}: {}{}", done.status, text.trim(), said.trim());
    Ok(verdicts)
}

/// fsx: random reads and changes of a file, each read compared with what it has to give; at random moments the oracle
/// notes what the tree is.
fn fsx(context: &Context) -> TestResult {
    let short = context.short;
    with(|rig| {
        let config = Path::new("/run/fsx.toml");
        // Small, for the log of a million operations has to fit on the medium, and is replayed once for each moment.
        fs::write(
            config,
            "flen = 262144\n\n[opsize]\nmax = 8192\nmin = 1\nalign = 1\n\n[weights]\nclose_open = 1\ninvalidate = 1\n\
             mapread = 10\nmapwrite = 10\nread = 10\nwrite = 10\ntruncate = 5\nfsync = 0.5\nfdatasync = 0.5\n\
             posix_fallocate = 3\npunch_hole = 3\nsendfile = 2\nposix_fadvise = 1\ncopy_file_range = 3\n",
        )?;
        let [here, _] = places(rig, "fsx")?;
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
        let mut random = Random::new(seed);
        let (files, operations, moments) = if short { (2, 5_000, 3) } else { (10, 100_000, 10) };
        for number in 0..files {
            let seed = (random.next() >> 1).to_string();
            println!("      {operations} operations, seed {seed}");
            let mut child = Command::new("fsx")
                .arg("-f")
                .arg(config)
                .args(["-N", &operations.to_string(), "-S", &seed, "-P", "/results"])
                .arg(here.join(format!("file-{number}")))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()?;
            let noted = note_while(rig, &mut child, &mut random, moments);
            if noted.is_err() {
                let _ = child.kill();
            }
            let status = child.wait()?;
            ensure!(noted.is_err() || status.success(), "fsx: {status}; /results has what differed");
            println!("      {} moments noted", noted?);
        }
        Ok(())
    })
}

/// Notes random moments while a program runs, so many at most; how many there were.
fn note_while(rig: &Rig, child: &mut Child, random: &mut Random, moments: u32) -> Check<u32> {
    let mut noted = 0;
    while !rig.plain && noted < moments && child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        rig.note()?;
        noted += 1;
    }
    Ok(noted)
}

/// fio: what was written at random is read back and has to have its checksum, through every way to write that it knows.
fn fio(context: &Context) -> TestResult {
    let size = if context.short { "8m" } else { "64m" };
    with(|rig| {
        let [here, _] = places(rig, "fio")?;
        for (name, how) in [
            ("buffered", "--ioengine=psync --direct=0 --fsync=64"),
            ("direct", "--ioengine=libaio --iodepth=8 --direct=1"),
            ("vector", "--ioengine=pvsync2 --direct=0 --overwrite=0"),
            ("uring", "--ioengine=io_uring --iodepth=8 --direct=0"),
        ] {
            sh(&format!(
                "fio --name={name} --directory={} --rw=randwrite --bsrange=4k-64k --size={size} --numjobs=2 \
                 --verify=crc32c --do_verify=1 --verify_fatal=1 {how} --group_reporting --output=/results/fio.{name}",
                here.display()
            ))
            .map_err(Failure::of)?;
        }
        Ok(())
    })
}

/// git: a repository with branches and merges, packed, cloned and checked.
fn git(_: &Context) -> TestResult {
    with(|rig| {
        let [here, _] = places(rig, "git")?;
        sh(&format!(
            "cd {}; export HOME=$PWD; git config --global user.email a@b; git config --global user.name a\n\
             git init -q -b main one; cd one\n\
             for i in $(seq 40); do mkdir -p d$((i % 7)); seq $i $((i * 50)) >d$((i % 7))/f$i; git add .; git commit -qm $i; done\n\
             git checkout -qb side HEAD~10; echo side >side; git add .; git commit -qm side; git checkout -q main\n\
             git merge -q -m merge side; git gc -q --aggressive; git fsck --full --strict\n\
             cd ..; git clone -q one two; cd two; git reset -q --hard HEAD~3; git clean -qfdx; git fsck --full",
            here.display()
        ))
        .map_err(Failure::of)?;
        Ok(())
    })
}

/// SQLite: transactions in each of its journal modes, and its own check afterwards.
fn sqlite(_: &Context) -> TestResult {
    with(|rig| {
        let [here, _] = places(rig, "sqlite")?;
        for mode in ["delete", "truncate", "persist", "wal"] {
            let answer = sh(&format!(
                "cd {}; {{ echo 'PRAGMA journal_mode={mode}; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);'\n\
                 for i in $(seq 60); do echo \"BEGIN; INSERT INTO t(b) VALUES (randomblob($((i * 97)))); \
                 DELETE FROM t WHERE a % 5 = $((i % 5)) AND a < $i; COMMIT;\"; done\n\
                 echo 'VACUUM; PRAGMA integrity_check;'; }} | sqlite3 {mode}.db",
                here.display()
            ))
            .map_err(Failure::of)?;
            ensure!(answer.lines().last() == Some("ok"), "{mode}: {answer}");
        }
        Ok(())
    })
}

/// LMDB, which reads its file through a shared mapping while it writes it: a database loaded, compacted, and read again.
fn lmdb(_: &Context) -> TestResult {
    with(|rig| {
        let [here, _] = places(rig, "lmdb")?;
        sh(&format!(
            "cd {}; mkdir one two\n\
             {{ printf 'VERSION=3\\nformat=print\\ntype=btree\\nmapsize=67108864\\nHEADER=END\\n'\n\
             for i in $(seq 20000); do printf ' key%06d\\n value %d %d %d\\n' $i $((i * i)) $((i * 7)) $i; done\n\
             echo DATA=END; }} >wanted; mdb_load -f wanted one\n\
             mdb_copy -c one two; mdb_dump -p one >got.one; mdb_dump -p two >got.two\n\
             cmp got.one got.two; grep -c '^ key' got.one | grep -qx 20000",
            here.display()
        ))
        .map_err(Failure::of)?;
        Ok(())
    })
}

/// PostgreSQL: pgbench with its parallel workers' memory in files that are mapped, a crash of the server, its recovery,
/// and its own checks.
fn postgresql(context: &Context) -> TestResult {
    let seconds = if context.short { 10 } else { 60 };
    with(|rig| {
        let [here, _] = places(rig, "postgresql")?;
        sh(&format!(
            "cd {}; chown postgres: .; cat >/run/pg.sh <<'END'\n\
             set -eu; PATH=$(echo /usr/lib/postgresql/*/bin):$PATH; export PGHOST=/tmp PGDATA=$PWD/data\n\
             initdb -A trust -k --no-instructions >/dev/null\n\
             cat >>data/postgresql.conf <<CONF\n\
             listen_addresses = ''\nunix_socket_directories = '/tmp'\ndynamic_shared_memory_type = mmap\n\
             shared_buffers = 32MB\nmin_wal_size = 32MB\nmax_wal_size = 96MB\nwal_recycle = on\n\
             min_parallel_table_scan_size = 0\nparallel_setup_cost = 0\nparallel_tuple_cost = 0\nCONF\n\
             pg_ctl -w -t 300 -l log start >/dev/null; createdb bench\n\
             pgbench -q -i -s 2 bench 2>/dev/null; pgbench -T {seconds} -c 4 bench >/dev/null 2>&1\n\
             psql -qAtc 'select count(distinct aid) from pgbench_accounts' bench | grep -qx 200000\n\
             pgbench -T {seconds} -c 4 bench >/dev/null 2>&1 & sleep 4; pg_ctl -m immediate stop >/dev/null; wait || :\n\
             pg_ctl -w -t 300 -l log start >/dev/null\n\
             pg_amcheck --install-missing --heapallindexed bench\n\
             psql -qAtc 'select (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers) \
             and (select sum(delta) from pgbench_history) = (select sum(bbalance) from pgbench_branches)' bench | grep -qx t\n\
             pg_ctl -m fast -w stop >/dev/null; pg_checksums --check >/dev/null\n\
             END\n\
             setpriv --reuid postgres --regid postgres --clear-groups sh /run/pg.sh",
            here.display()
        ))
        .map_err(Failure::of)?;
        Ok(())
    })
}

/// A compiler, an archiver and a linker: every header of the kernel's interface that compiles by itself, as a library, and
/// then all of it again.
fn compile(context: &Context) -> TestResult {
    let headers = if context.short { 60 } else { 400 };
    with(|rig| {
        let [here, _] = places(rig, "compile")?;
        let said = sh(&format!(
            "cd {}; mkdir src; n=0; for h in /usr/include/linux/*.h; do n=$((n + 1)); [ $n -le {headers} ] || break\n\
             b=$(basename $h .h); printf '#include <stddef.h>\\n#include <sys/types.h>\\n#include <linux/%s.h>\\nint f%d(void) {{ return %d; }}\\n' \
             $b $n $n >src/$b.c; gcc -fsyntax-only src/$b.c 2>/dev/null || rm src/$b.c; done\n\
             cat >Makefile <<'END'\n\
             objects := $(patsubst src/%.c,%.o,$(wildcard src/*.c))\n\
             libheaders.so: libheaders.a; gcc -shared -o $@ -Wl,--whole-archive $< -Wl,--no-whole-archive\n\
             libheaders.a: $(objects); ar rcs $@ $^\n\
             %.o: src/%.c; gcc -O1 -g -fPIC -c -o $@ $<\n\
             END\n\
             make -s -j2; cp libheaders.so first; make -s -B -j2; cmp first libheaders.so; strip libheaders.so; ls src | wc -l",
            here.display()
        ))
        .map_err(Failure::of)?;
        let units: u32 = said.trim().parse()?;
        println!("      {units} units");
        ensure!(units > headers / 2, "only {units} units compiled");
        Ok(())
    })
}

/// stress-ng: all of its filesystem stressors, one after the other. One that fails has to fail on the lower too.
fn stress(context: &Context) -> TestResult {
    let seconds = if context.short { 1 } else { 10 };
    with(|rig| {
        let [here, there] = places(rig, "stress-ng")?;
        let all = sh("stress-ng --class filesystem? 2>&1 || true").map_err(Failure::of)?;
        let stressors: Vec<_> =
            all.split_once("stressors:").map_or("", |(_, names)| names).split_whitespace().collect();
        ensure!(stressors.len() > 20, "no stressors: {all}");
        let mut worse = Vec::new();
        for name in stressors {
            let bad = |place: &Path| -> Check<Option<String>> {
                let done = Command::new("stress-ng")
                    .args([format!("--{name}"), "2".into(), "--timeout".into(), seconds.to_string()])
                    .args(["--verify", "--oom-avoid", "--temp-path"])
                    .arg(place)
                    .stdin(Stdio::null())
                    .output()?;
                // 3: not possible here, 4: not implemented.
                let fine = matches!(done.status.code(), Some(0 | 3 | 4));
                let text = [done.stdout, done.stderr].concat();
                Ok((!fine).then(|| format!("{name}: {}: {}", done.status, String::from_utf8_lossy(&text).trim())))
            };
            if let Some(why) = bad(&here)? {
                if bad(&there)?.is_none() {
                    worse.push(why);
                }
            }
        }
        none("these fail on reelfs and not on the lower", &worse)
    })
}
