// SPDX-License-Identifier: GPL-2.0-or-later

//! The cases of `mmap-*`.

use crate::background::Background;
use crate::check::{ensure, same, Check, Failure};
use crate::dm::Dm;
use crate::pattern::{aligned, pattern, Random};
use crate::suites::ops::place::{cases, Place};
use crate::Test;
use reelfs_sys::memory::{Advice, SharedMapping};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

pub const CASES: &[Test] = cases![mmap:
    "stores" stores,
    "stores-to-all-pages-of-a-folio" whole_folio,
    "stores-after-a-capture" after_capture,
    "stores-after-writeback" after_writeback,
    "stores-that-have-left-memory" left_memory,
    "stores-beside-writes" beside_writes,
    "stores-into-a-sparse-file" sparse,
    "stores-scattered" scattered,
    "stores-into-many-files" many_files,
    "nothing-stored-nothing-recorded" nothing_stored,
    "read-only-descriptor" read_only_descriptor,
    "made-writable-later" made_writable_later,
    "fork" fork,
    "killed-while-mapped" killed,
    "outlives-descriptor-and-name" outlives,
    "open-as-long-as-mapped" stays_open,
    "unlinked-while-mapped" unlinked,
    "moved-and-grown" moved,
    "mapped-again-without-descriptor" again,
    "other-pages-shown" other_pages,
    "truncated-under-a-mapping" truncated,
    "grown-over-what-was-stored" grown,
    "punched-under-a-mapping" punched,
    "shifted-under-a-mapping" shifted,
    "copied-under-a-mapping" copied,
    "written-directly-under-a-mapping" direct,
    "advice" advice,
    "advice-removes" removed,
    "advice-removes-set-id" removed_set_id,
    "userfaultfd" userfaultfd,
    "pinned-by-a-direct-read" pinned,
    "stores-from-outside" from_outside,
    "syncfs" syncfs,
    "race-of-stores-and-captures" race_captures,
    "race-of-stores-and-everything" race_everything,
    "sqlite-with-a-wal" sqlite,
];

const PAGE: usize = 4096;

fn rw(p: &Place, name: &str) -> Check<File> {
    Ok(File::options().create(true).truncate(false).read(true).write(true).open(p.at(name))?)
}

/// A file with contents.
fn filled(p: &Place, name: &str, length: usize) -> Check<File> {
    let file = rw(p, name)?;
    file.write_all_at(&pattern(length, 1), 0)?;
    Ok(file)
}

fn map(file: &File, length: usize) -> Check<SharedMapping> {
    Ok(SharedMapping::new(file, 0, length, true)?)
}

fn stores(p: &Place) -> Check {
    let file = filled(p, "f", 5 * PAGE + 100)?;
    let before = file.metadata()?.mtime_nsec();
    let mapping = map(&file, 5 * PAGE + 100)?;
    mapping.store(10, b"the first page");
    mapping.store(3 * PAGE - 3, b"two pages");
    mapping.store(5 * PAGE + 90, b"to the end");
    p.recorded(|| Ok(mapping.sync(0..5 * PAGE)?))?;
    ensure!(file.metadata()?.mtime_nsec() != before, "the time has not changed");
    same!(fs::read(p.at("f"))?, fs::read(p.below("f"))?);
    Ok(())
}

/// One fault makes all pages of a folio writable, in which case there is no second one.
fn whole_folio(p: &Place) -> Check {
    const LENGTH: usize = 4 << 20;
    let file = filled(p, "f", LENGTH)?;
    file.sync_all()?;
    // One entry of the page tables for all of a folio, where that is large enough.
    let mapping = SharedMapping::aligned(&file, 0, LENGTH, 2 << 20)?;
    let _ = mapping.advise(0..LENGTH, Advice::HugePage);
    for place in (0..LENGTH).step_by(64 << 10) {
        mapping.store(place, b"first");
        for page in 1..16 {
            mapping.store(place + page * PAGE + page, &[page as u8; 7]);
        }
    }
    file.sync_all()?;
    for place in (0..LENGTH).step_by(64 << 10).rev() {
        for page in (0..16).rev() {
            mapping.store(place + page * PAGE + 50, &[page as u8; 9]);
        }
    }
    Ok(())
}

/// A capture takes the right to store away, or it would not see the next store.
fn after_capture(p: &Place) -> Check {
    let file = filled(p, "f", 8 * PAGE)?;
    let mapping = map(&file, 8 * PAGE)?;
    for round in 0..6u8 {
        mapping.store(usize::from(round) * 3, &[b'a' + round; 40]);
        mapping.store(5 * PAGE, &[b'a' + round; 40]);
        p.recorded(|| match round % 2 {
            0 => Ok(file.sync_all()?),
            _ => Ok(mapping.sync(0..8 * PAGE)?),
        })?;
    }
    // Captured in part: what the rest holds is not forgotten.
    mapping.store(0, b"zero");
    mapping.store(6 * PAGE, b"six");
    p.recorded(|| Ok(mapping.sync(0..PAGE)?))?;
    mapping.store(0, b"ZERO");
    Ok(())
}

/// Writeback of the lower makes pages read-only too, and clean.
fn after_writeback(p: &Place) -> Check {
    let file = filled(p, "f", 16 * PAGE)?;
    let mapping = map(&file, 16 * PAGE)?;
    for round in 0..4u8 {
        mapping.store(usize::from(round) * 4 * PAGE, &[b'a' + round; 100]);
        // Past the mount: nothing of this is a capture.
        let below = File::open(p.below("f"))?;
        rustix::fs::fdatasync(&below)?;
        mapping.store(usize::from(round) * 4 * PAGE + 50, &[b'A' + round; 100]);
    }
    Ok(())
}

/// What was stored is written out and no longer in memory when it is captured.
fn left_memory(p: &Place) -> Check {
    let file = filled(p, "f", 64 * PAGE)?;
    let mapping = map(&file, 64 * PAGE)?;
    for page in 0..64 {
        mapping.store(page * PAGE + page, b"seen once");
    }
    let below = File::open(p.below("f"))?;
    rustix::fs::fdatasync(&below)?;
    mapping.advise(0..64 * PAGE, Advice::PageOut)?;
    mapping.advise(0..64 * PAGE, Advice::DontNeed)?;
    fs::write("/proc/sys/vm/drop_caches", "1")?;
    p.recorded(|| Ok(file.sync_all()?))?;
    same!(mapping.load(63 * PAGE + 63, 9), b"seen once");
    Ok(())
}

fn beside_writes(p: &Place) -> Check {
    let file = filled(p, "f", 4 * PAGE)?;
    let mapping = map(&file, 4 * PAGE)?;
    let mut random = Random::new(3);
    for round in 0..200u64 {
        let place = random.below(4 * PAGE as u64 - 64) as usize;
        if random.below(2) == 0 {
            mapping.store(place, &pattern(33, round));
        } else {
            file.write_all_at(&pattern(40, round), place as u64)?;
        }
        if random.below(20) == 0 {
            mapping.sync(0..4 * PAGE)?;
        }
    }
    // A write whose source is the mapping of the file itself.
    same!(mapping.write_to(0..PAGE, &file, 2 * PAGE as i64 + 100)?, PAGE);
    Ok(())
}

fn sparse(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.set_len(1 << 20)?;
    let mapping = map(&file, 1 << 20)?;
    mapping.load(100 * PAGE, 100);
    mapping.store(50 * PAGE, b"an island");
    p.recorded(|| Ok(file.sync_all()?))?;
    mapping.store(200 * PAGE, b"another one");
    Ok(())
}

/// More places than there are notes for.
fn scattered(p: &Place) -> Check {
    const PAGES: usize = 5000;
    let file = rw(p, "f")?;
    file.set_len((2 * PAGES * PAGE) as u64)?;
    let mapping = map(&file, 2 * PAGES * PAGE)?;
    for page in 0..PAGES {
        // In no order.
        let page = page * 1009 % PAGES;
        mapping.store(2 * page * PAGE, &page.to_le_bytes());
    }
    Ok(())
}

fn many_files(p: &Place) -> Check {
    let mut mappings = Vec::new();
    for number in 0..200 {
        let file = filled(p, &format!("f{number}"), 2 * PAGE)?;
        let mapping = map(&file, 2 * PAGE)?;
        mapping.store(number, b"one of many");
        // Some stay mapped.
        if number % 3 == 0 {
            mappings.push(mapping);
        }
    }
    for mapping in &mappings {
        mapping.store(PAGE, b"once more");
    }
    Ok(())
}

fn nothing_stored(p: &Place) -> Check {
    let file = filled(p, "f", 8 * PAGE)?;
    p.unrecorded(|| {
        let mapping = map(&file, 8 * PAGE)?;
        mapping.load(0, 8 * PAGE);
        mapping.sync(0..8 * PAGE)?;
        file.sync_all()?;
        drop(mapping);
        Ok(file.sync_all()?)
    })
}

fn read_only_descriptor(p: &Place) -> Check {
    drop(filled(p, "f", PAGE)?);
    let file = File::open(p.at("f"))?;
    let refused = SharedMapping::new(&file, 0, PAGE, true).err().and_then(|error| error.raw_os_error());
    same!(refused, Some(Errno::ACCESS.raw_os_error()));
    let mapping = SharedMapping::new(&file, 0, PAGE, false)?;
    let refused = mapping.protect(true).err().and_then(|error| error.raw_os_error());
    same!(refused, Some(Errno::ACCESS.raw_os_error()));
    Ok(())
}

fn made_writable_later(p: &Place) -> Check {
    let file = filled(p, "f", 4 * PAGE)?;
    let mapping = SharedMapping::new(&file, 0, 4 * PAGE, false)?;
    mapping.load(0, 4 * PAGE);
    mapping.protect(true)?;
    mapping.store(PAGE, b"allowed now");
    p.recorded(|| Ok(mapping.sync(0..4 * PAGE)?))?;
    mapping.protect(false)?;
    mapping.protect(true)?;
    mapping.store(PAGE + 100, b"allowed again");
    Ok(())
}

/// Maps the file's first two pages, writable and shared, at `$at`; `store(ADDRESS, BYTES)` stores.
const PERL_MAP: &str = r#"
    my ($path) = @ARGV;
    open(F, "+<", $path) or die "open: $!";
    my $at = syscall(9, 0, 8192, 3, 1, fileno(F), 0);
    if ($at == -1) { print -($!+0); exit }
    sub store {
        my ($place, $bytes) = @_;
        pipe(R, W) or die "pipe: $!";
        syswrite(W, $bytes);
        syscall(0, fileno(R), $place, length($bytes)) == length($bytes) or die "read: $!";
    }
"#;

fn perl(p: &Place, script: &str) -> Check<i64> {
    p.perl(&format!("{PERL_MAP}{script}"), &[p.at("f").as_os_str()])
}

/// A child stores through what it inherited, before and after its parent has unmapped it.
fn fork(p: &Place) -> Check {
    drop(filled(p, "f", 2 * PAGE)?);
    let said = perl(
        p,
        r#"
        store($at, "parent");
        pipe(GO, READY) or die;
        my $child = fork();
        if ($child == 0) {
            close(READY);
            store($at + 100, "child");
            my $byte;
            sysread(GO, $byte, 1);
            store($at + 5000, "child alone");
            exit 0;
        }
        syscall(11, $at, 8192);
        close(F);
        close(READY);
        waitpid($child, 0);
        print $?;
        "#,
    )?;
    same!(said, 0);
    let found = fs::read(p.at("f"))?;
    ensure!(found[100..105] == *b"child" && found[5000..5011] == *b"child alone", "the child's stores are not there");
    Ok(())
}

fn killed(p: &Place) -> Check {
    drop(filled(p, "f", 2 * PAGE)?);
    // Said before the end, because nothing is said after it.
    let done = Command::new("perl")
        .arg("-e")
        .arg(format!("{PERL_MAP}{}", r#"store($at + 4000, "x" x 200); kill 9, $$;"#))
        .arg(p.at("f"))
        .status()?;
    ensure!(!done.success(), "it lives");
    same!(fs::read(p.at("f"))?[4000..4200], [b'x'; 200]);
    Ok(())
}

fn outlives(p: &Place) -> Check {
    let file = filled(p, "f", 4 * PAGE)?;
    let mapping = map(&file, 4 * PAGE)?;
    drop(file);
    mapping.store(0, b"after the descriptor");
    fs::rename(p.at("f"), p.at("g"))?;
    mapping.store(PAGE, b"after the name");
    fs::hard_link(p.at("g"), p.at("h"))?;
    fs::remove_file(p.at("g"))?;
    mapping.store(2 * PAGE, b"after the other name");
    p.recorded(|| Ok(mapping.sync(0..4 * PAGE)?))?;
    mapping.store(3 * PAGE, b"last");
    Ok(())
}

/// As on any filesystem: a mapping keeps the file open.
fn stays_open(p: &Place) -> Check {
    fs::copy("/bin/true", p.at("f"))?;
    let file = rw(p, "f")?;
    let mapping = map(&file, PAGE)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    drop(file);
    let busy = Command::new(p.at("f")).status().err().and_then(|error| error.raw_os_error());
    same!(busy, Some(Errno::TXTBSY.raw_os_error()));
    let other = File::open(p.at("f"))?;
    let locked = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
    ensure!(matches!(locked, Err(Errno::WOULDBLOCK)), "the lock went: {locked:?}");
    drop(mapping);
    rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive)?;
    ensure!(Command::new(p.at("f")).status()?.success(), "it does not run");
    Ok(())
}

fn unlinked(p: &Place) -> Check {
    let file = filled(p, "f", 4 * PAGE)?;
    let mapping = map(&file, 4 * PAGE)?;
    mapping.store(0, b"named");
    fs::remove_file(p.at("f"))?;
    mapping.store(PAGE, b"unnamed");
    file.sync_all()?;
    drop(file);
    mapping.store(2 * PAGE, b"unnamed and closed");
    Ok(())
}

fn moved(p: &Place) -> Check {
    let file = filled(p, "f", 64 * PAGE)?;
    let mapping = SharedMapping::new(&file, 0, PAGE, true)?;
    mapping.store(0, b"before");
    let mapping = mapping.resized(64 * PAGE)?;
    mapping.store(40 * PAGE, b"moved and grown");
    p.recorded(|| Ok(file.sync_all()?))?;
    mapping.store(10, b"after");
    let mapping = mapping.resized(2 * PAGE)?;
    mapping.store(PAGE, b"shrunk");
    Ok(())
}

fn again(p: &Place) -> Check {
    let file = filled(p, "f", 4 * PAGE)?;
    let one = map(&file, 4 * PAGE)?;
    drop(file);
    let two = one.again()?;
    one.store(0, b"one");
    drop(one);
    two.store(2 * PAGE, b"two");
    p.recorded(|| Ok(two.sync(0..4 * PAGE)?))?;
    two.store(2 * PAGE, b"TWO");
    Ok(())
}

fn other_pages(p: &Place) -> Check {
    let file = filled(p, "f", 16 * PAGE)?;
    let mapping = map(&file, 4 * PAGE)?;
    mapping.store(0, b"the first");
    mapping.show_pages(PAGE..2 * PAGE, 9)?;
    same!(mapping.load(PAGE, 50), pattern(16 * PAGE, 1)[9 * PAGE..9 * PAGE + 50]);
    mapping.store(PAGE, b"the ninth");
    p.recorded(|| Ok(mapping.sync(0..4 * PAGE)?))?;
    drop(file);
    mapping.show_pages(2 * PAGE..3 * PAGE, 12)?;
    mapping.store(2 * PAGE, b"the twelfth");
    same!(fs::read(p.at("f"))?[12 * PAGE..12 * PAGE + 11], *b"the twelfth");
    Ok(())
}

fn truncated(p: &Place) -> Check {
    let file = filled(p, "f", 32 * PAGE)?;
    let mapping = map(&file, 32 * PAGE)?;
    for page in 0..32 {
        mapping.store(page * PAGE + 10, b"before");
    }
    file.set_len(10 * PAGE as u64 + 15)?;
    mapping.store(10 * PAGE, b"in the last page");
    file.set_len(20 * PAGE as u64)?;
    mapping.store(15 * PAGE, b"in the new part");
    file.sync_all()?;
    mapping.store(16 * PAGE, b"in the new part, later");
    file.set_len(3)?;
    mapping.store(0, b"xyz");
    same!(fs::read(p.at("f"))?, b"xyz");
    Ok(())
}

/// Stored behind the end, in its page, captured, and then inside. Not every filesystem clears that.
fn grown(p: &Place) -> Check {
    type Step = fn(&File) -> Check;
    let steps: [(&str, Step); 4] = [
        ("truncate", |file| Ok(file.set_len(3000)?)),
        ("write", |file| Ok(file.write_all_at(b"further", 3500)?)),
        ("append", |file| Ok(file.write_all_at(b"there", 1000)?)),
        ("fallocate", |file| Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 1000, 2500)?)),
    ];
    for (name, step) in &steps {
        let file = filled(p, name, 1000)?;
        let mapping = map(&file, PAGE)?;
        mapping.store(900, &[b'z'; 3000]);
        file.sync_all()?;
        mapping.load(0, 10);
        step(&file)?;
        mapping.sync(0..PAGE)?;
        same!(fs::read(p.at(name))?, fs::read(p.below(name))?);
        mapping.store(1500, b"inside");
        drop(mapping);
    }
    Ok(())
}

fn punched(p: &Place) -> Check {
    let file = filled(p, "f", 64 * PAGE)?;
    let mapping = map(&file, 64 * PAGE)?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for page in 0..64 {
        mapping.store(page * PAGE, b"before");
    }
    rustix::fs::fallocate(&file, punch, 16 * PAGE as u64, 16 * PAGE as u64)?;
    mapping.store(20 * PAGE, b"in the hole");
    rustix::fs::fallocate(&file, punch, 40 * PAGE as u64 + 100, 2 * PAGE as u64)?;
    mapping.store(41 * PAGE, b"in the other hole");
    let _ = rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 50 * PAGE as u64, 4 * PAGE as u64);
    mapping.store(51 * PAGE, b"in zeros");
    mapping.sync(0..64 * PAGE)?;
    // Nothing is stored into this one.
    rustix::fs::fallocate(&file, punch, 0, 8 * PAGE as u64)?;
    Ok(())
}

fn shifted(p: &Place) -> Check {
    let file = filled(p, "f", 64 * PAGE)?;
    let mapping = map(&file, 64 * PAGE)?;
    let block = 8 * PAGE;
    mapping.store(40 * PAGE, b"before the collapse");
    let shift = |flags, at: usize| rustix::fs::fallocate(&file, flags, at as u64, block as u64);
    match shift(FallocateFlags::COLLAPSE_RANGE, block) {
        Err(Errno::OPNOTSUPP | Errno::INVAL) => return Ok(()),
        other => other?,
    }
    same!(mapping.load(32 * PAGE, 19), b"before the collapse");
    mapping.store(33 * PAGE, b"after the collapse");
    shift(FallocateFlags::INSERT_RANGE, 2 * block)?;
    mapping.store(50 * PAGE, b"after the insertion");
    mapping.sync(0..56 * PAGE)?;
    mapping.store(2 * block, b"in what was inserted");
    Ok(())
}

fn copied(p: &Place) -> Check {
    let from = filled(p, "from", 16 * PAGE)?;
    let to = filled(p, "to", 16 * PAGE)?;
    let (source, target) = (map(&from, 16 * PAGE)?, map(&to, 16 * PAGE)?);
    for page in 0..16 {
        source.store(page * PAGE, b"of the source");
        target.store(page * PAGE + 20, b"of the target");
    }
    let copy = |at: u64, length: usize| -> Check {
        let (mut from_at, mut to_at, mut left) = (at, at, length);
        while left > 0 {
            left -= match rustix::fs::copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), left)? {
                0 => return Err(Failure::new("copied nothing")),
                n => n,
            };
        }
        Ok(())
    };
    copy(4 * PAGE as u64, 4 * PAGE)?;
    same!(target.load(4 * PAGE, 13), b"of the source");
    source.store(5 * PAGE, b"later");
    target.store(6 * PAGE + 7, b"later");
    copy(8 * PAGE as u64, PAGE)?;
    fs::copy(p.at("from"), p.at("third"))?;
    same!(fs::read(p.at("third"))?, fs::read(p.at("from"))?);
    Ok(())
}

/// Direct I/O passes the page cache by, and throws out what it has.
fn direct(p: &Place) -> Check {
    let file = filled(p, "f", 16 * PAGE)?;
    let mapping = map(&file, 16 * PAGE)?;
    for page in 0..16 {
        mapping.store(page * PAGE + 100, b"stored");
    }
    let direct = match File::options().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(p.at("f")) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => return Ok(()),
        other => other?,
    };
    let mut memory = Vec::new();
    let wanted = pattern(2 * PAGE, 7);
    p.recorded(|| Ok(direct.write_all_at(aligned(&mut memory, &wanted), 4 * PAGE as u64)?))?;
    same!(mapping.load(4 * PAGE, 2 * PAGE), wanted);
    mapping.store(5 * PAGE, b"over the direct write");
    mapping.store(9 * PAGE, b"elsewhere");
    Ok(())
}

fn advice(p: &Place) -> Check {
    let file = filled(p, "f", 32 * PAGE)?;
    let mapping = map(&file, 32 * PAGE)?;
    mapping.store(0, b"forgotten where, not what");
    mapping.advise(0..32 * PAGE, Advice::DontNeed)?;
    same!(mapping.load(0, 9), b"forgotten");
    mapping.advise(8 * PAGE..16 * PAGE, Advice::PopulateWrite)?;
    mapping.store(10 * PAGE, b"no fault before this");
    p.recorded(|| Ok(mapping.sync(0..32 * PAGE)?))?;
    mapping.store(10 * PAGE, b"a fault before this");
    mapping.advise(0..32 * PAGE, Advice::PageOut)?;
    mapping.store(11 * PAGE, b"back again");
    Ok(())
}

fn removed(p: &Place) -> Check {
    let file = filled(p, "f", 32 * PAGE)?;
    let mapping = map(&file, 32 * PAGE)?;
    mapping.store(8 * PAGE, b"soon gone");
    p.recorded(|| Ok(mapping.advise(8 * PAGE..16 * PAGE, Advice::Remove)?))?;
    same!(mapping.load(8 * PAGE, 9), [0; 9]);
    drop(file);
    p.recorded(|| Ok(mapping.advise(20 * PAGE..24 * PAGE, Advice::Remove)?))?;
    mapping.store(9 * PAGE, b"there again");
    Ok(())
}

fn removed_set_id(p: &Place) -> Check {
    let file = filled(p, "f", 8 * PAGE)?;
    std::os::unix::fs::fchown(&file, Some(1000), Some(1000))?;
    fs::set_permissions(p.at("f"), fs::Permissions::from_mode(0o4777))?;
    let as_nobody =
        format!("{PERL_MAP}{}", r#"$) = 1001; $> = 1001; print syscall(28, $at, 4096, 9) == -1 ? -($!+0) : 0;"#);
    same!(p.perl(&as_nobody, &[p.at("f").as_os_str()])?, 0);
    same!(fs::metadata(p.at("f"))?.mode() & 0o7777, fs::metadata(p.below("f"))?.mode() & 0o7777);
    Ok(())
}

/// Pages that somebody else puts into place are announced to nobody: so that is refused.
fn userfaultfd(p: &Place) -> Check {
    let file = rw(p, "f")?;
    file.set_len(8 * PAGE as u64)?;
    let mapping = map(&file, 8 * PAGE)?;
    let refused = mapping.handle_faults();
    ensure!(p.plain() || refused.is_err(), "allowed");
    drop(refused);
    mapping.store(PAGE, b"by a fault");
    Ok(())
}

/// A device writes into the mapping, while and after it is captured, without a fault.
fn pinned(p: &Place) -> Check {
    let disk = "/dev/disk/by-id/slow";
    File::options().write(true).open(disk)?.write_all_at(&pattern(64 * PAGE, 99), 0)?;
    let slow = Dm::new("slow", &format!("0 {} linear {disk} 0", 64 * 2048))?;
    for (name, end) in [("by-sync", 0), ("by-unmapping", 1)] {
        let file = filled(p, name, 32 * PAGE)?;
        let mapping = std::sync::Arc::new(map(&file, 32 * PAGE)?);
        let source = File::options().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(slow.path())?;
        slow.suspend()?;
        let reader = Background::start("a direct read from a stopped device", {
            let mapping = mapping.clone();
            move || mapping.read_from(4 * PAGE..20 * PAGE, &source, 0)
        });
        reader.waits()?;
        // Captures what is there now; what comes has to be captured too.
        p.recorded(|| Ok(file.sync_all()?))?;
        slow.resume()?;
        same!(reader.ends()??, 16 * PAGE);
        same!(mapping.load(4 * PAGE, 16 * PAGE), pattern(64 * PAGE, 99)[..16 * PAGE]);
        if end == 0 {
            p.recorded(|| Ok(mapping.sync(0..32 * PAGE)?))?;
        }
    }
    Ok(())
}

fn from_outside(p: &Place) -> Check {
    let file = filled(p, "f", 16 * PAGE)?;
    let mapping = map(&file, 16 * PAGE)?;
    for round in 0..3u8 {
        same!(mapping.store_from_outside(PAGE + 10, &[b'a' + round; 5000])?, 5000);
        let memory = File::options().write(true).open("/proc/self/mem")?;
        memory.write_all_at(&[b'A' + round; 5000], (mapping.address() + 8 * PAGE) as u64)?;
        // Read by the kernel, without direct I/O.
        let zeros = File::open("/dev/zero")?;
        same!(mapping.read_from(12 * PAGE..13 * PAGE, &zeros, 0)?, PAGE);
        mapping.store(12 * PAGE, &[round]);
        p.recorded(|| Ok(mapping.sync(0..16 * PAGE)?))?;
    }
    // Into pages that are read-only since.
    mapping.store_from_outside(PAGE, b"at last")?;
    Ok(())
}

fn syncfs(p: &Place) -> Check {
    let files: Vec<_> = (0..5).map(|n| filled(p, &format!("f{n}"), PAGE)).collect::<Check<_>>()?;
    let mappings: Vec<_> = files.iter().map(|file| map(file, PAGE)).collect::<Check<_>>()?;
    for mapping in &mappings {
        mapping.store(1, b"stored");
    }
    let (_, records) = p.counted(|| rustix::fs::syncfs(&files[0]))?;
    ensure!(p.plain() || records >= 5, "{records} records of five files");
    for mapping in &mappings {
        mapping.store(2, b"again");
    }
    Ok(())
}

/// Threads that store and count, while this one has everything captured again and again.
fn race(p: &Place, pages: usize, rounds: u64, mut meanwhile: impl FnMut(&File, &SharedMapping, u64) -> Check) -> Check {
    let file = filled(p, "f", pages * PAGE)?;
    let mapping = map(&file, pages * PAGE)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..3u64 {
            let (mapping, stop) = (&mapping, &stop);
            scope.spawn(move || {
                let mut random = Random::new(number);
                while !stop.load(Ordering::Relaxed) {
                    let place = random.below((pages * PAGE - 8) as u64) as usize;
                    mapping.store(place, &random.next().to_le_bytes());
                }
            });
        }
        let result = (0..rounds).try_for_each(|round| meanwhile(&file, &mapping, round));
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn race_captures(p: &Place) -> Check {
    race(p, 64, 60, |file, mapping, round| match round % 3 {
        0 => Ok(file.sync_all()?),
        1 => Ok(mapping.sync(0..32 * PAGE)?),
        _ => Ok(file.sync_data()?),
    })
}

/// Nothing that would end a thread with a signal: the size stays.
fn race_everything(p: &Place) -> Check {
    let mut random = Random::new(77);
    race(p, 64, 150, |file, mapping, round| {
        let at = random.below(56) * PAGE as u64;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match random.below(7) {
            0 => Ok(file.sync_all()?),
            1 => Ok(file.write_all_at(&pattern(3 * PAGE, round), at + 5)?),
            2 => Ok(rustix::fs::fallocate(file, punch, at, 4 * PAGE as u64)?),
            3 => {
                let _ = rustix::fs::fallocate(file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, at, 8192);
                Ok(())
            }
            4 => Ok(mapping.advise(at as usize..at as usize + 4 * PAGE, Advice::DontNeed)?),
            5 => Ok(mapping.sync(at as usize..at as usize + PAGE)?),
            _ => {
                // Into what the threads store into as well; nobody waits for the end of the file.
                file.set_len(64 * PAGE as u64 + 4096)?;
                Ok(file.set_len(64 * PAGE as u64)?)
            }
        }
    })
}

fn sqlite(p: &Place) -> Check {
    let database = p.at("db");
    let set_up = "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, who INT, text BLOB);";
    let said = Command::new("sqlite3").arg(&database).arg(set_up).output()?;
    same!(String::from_utf8_lossy(&said.stdout).trim(), "wal");
    let children: Vec<_> = (0..3)
        .map(|who| {
            let insert = format!("INSERT INTO t(who, text) VALUES({who}, randomblob(500));\n");
            Command::new("sqlite3").args(["-cmd", ".timeout 60000"]).arg(&database).arg(insert.repeat(60)).spawn()
        })
        .collect();
    for child in children {
        ensure!(child?.wait()?.success(), "sqlite3 failed");
    }
    let count =
        Command::new("sqlite3").arg(&database).arg("SELECT count(*) FROM t; PRAGMA integrity_check;").output()?;
    same!(String::from_utf8_lossy(&count.stdout).split_whitespace().collect::<Vec<_>>(), ["180", "ok"]);
    Ok(())
}
