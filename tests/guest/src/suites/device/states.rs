// SPDX-License-Identifier: GPL-2.0-or-later

//! What a checkpoint says of an object is what the object is, whatever happens meanwhile.

use super::stage::{at, errno, Stage, SOON};
use super::telling::{identity, take, tell, unnamed, Object, Telling, Told, S_IFDIR, S_IFMT, S_IFREG};
use super::Outcome;
use crate::machine::{sh, wait_until};
use crate::pattern::pattern;
use crate::Context;
use reelfs_format::record::{Attributes, Identity, RecordType, STATE_LAST};
use reelfs_format::uapi::{State, TELL_DATA, TELL_ENTRIES, TELL_OBJECT, UNNAMED_MAX};
use reelfs_format::view::{Event, RecordView};
use reelfs_sys::memory::SharedMapping;
use rustix::fs::{fallocate, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use zerocopy::IntoBytes;

/// Everything that a lower tree can have in it, made by a script in the directory.
const EVERYTHING: &str = r"
    umask 022
    echo contents >file && touch -d '2001-02-03 04:05:06.789' file && chmod 4751 file && chown 12:34 file
    ln -s 'where to go' link && ln -s /nowhere dangling
    mkfifo fifo && mknod character c 12 345 && mknod block b 67 8901
    mkdir -p directory/below/further && chmod 2771 directory && echo deep >directory/below/further/file
    ln file directory/again
    : >empty && : >'a name
with everything in it '
";

/// The attributes that a record has to have of what is at a path.
fn check_attributes(path: &Path, found: &Attributes) -> Outcome {
    let wanted = fs::symlink_metadata(path)?;
    let mode = wanted.mode();
    let sized = matches!(mode & S_IFMT, S_IFREG | 0o120_000);
    let device = matches!(mode & S_IFMT, 0o020_000 | 0o060_000);
    let (major, minor) = (rustix::fs::major(wanted.rdev()), rustix::fs::minor(wanted.rdev()));
    assert_eq!((found.mode.get(), found.nlink.get()), (mode, wanted.nlink() as u32), "{path:?}");
    assert_eq!((found.uid.get(), found.gid.get()), (wanted.uid(), wanted.gid()), "{path:?}");
    assert_eq!(found.size.get(), if sized { wanted.size() } else { 0 }, "{path:?}");
    let number = (found.rdev_major.get(), found.rdev_minor.get());
    assert_eq!(number, if device { (major, minor) } else { (0, 0) }, "{path:?}");
    let mtime = (found.mtime_sec.get(), i64::from(found.mtime_nsec.get()));
    assert_eq!(mtime, (wanted.mtime(), wanted.mtime_nsec()), "{path:?}");
    let ctime = (found.ctime_sec.get(), i64::from(found.ctime_nsec.get()));
    assert_eq!(ctime, (wanted.ctime(), wanted.ctime_nsec()), "{path:?}");
    Ok(())
}

/// The extended attributes of what is at a path of the lower tree, but for our own.
fn xattrs(path: &Path) -> Told<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut found = BTreeMap::new();
    // Nor what stands for an access control list on xfs.
    let shown = |name: &&[u8]| !name.is_empty() && *name != b"trusted.reelfs" && !name.starts_with(b"trusted.SGI_ACL_");
    for name in names[..length].split(|&byte| byte == 0).filter(shown) {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

/// What a walk told is what the lower tree is, and nothing besides.
pub fn check_tree(lower: &Path, told: &BTreeMap<std::path::PathBuf, (Identity, Object)>) -> Outcome {
    let mut left: BTreeSet<_> = told.keys().cloned().collect();
    let mut list = vec![std::path::PathBuf::new()];
    while let Some(path) = list.pop() {
        let (who, object) = told.get(&path).ok_or_else(|| format!("{path:?} was not told"))?;
        left.remove(&path);
        let below = lower.join(&path);
        check_attributes(&below, &object.attr)?;
        if !path.as_os_str().is_empty() {
            assert_eq!(*who, identity(&below)?, "{path:?}");
        }
        assert_eq!(object.xattrs, xattrs(&below)?, "{path:?}");
        let kind = object.attr.mode.get() & S_IFMT;
        let target = if kind == 0o120_000 { fs::read_link(&below)?.into_os_string() } else { Default::default() };
        assert_eq!(object.target, target.as_encoded_bytes(), "{path:?}");
        if kind == S_IFREG {
            assert!(object.contents == fs::read(&below)?, "{path:?} has other bytes");
        }
        if kind == S_IFDIR {
            for entry in fs::read_dir(&below)? {
                list.push(path.join(entry?.file_name()));
            }
        }
    }
    assert!(left.is_empty(), "told and not there: {left:?}");
    Ok(())
}

pub fn each_kind_of_object(context: &Context) -> Outcome {
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        let mut stage = Stage::bare(context, kind, kind)?;
        let lower = stage.lower().display().to_string();
        sh(&format!("cd {lower} && {EVERYTHING}"))?;
        drop(std::os::unix::net::UnixListener::bind(stage.lower().join("socket"))?);
        sh(&format!("cd {lower} && setfattr -n user.comment -v remark file && setfattr -n trusted.empty file"))?;
        sh(&format!("cd {lower} && setcap cap_net_raw+ep empty && setfattr -h -n trusted.of-link -v x link"))?;
        sh(&format!("cd {lower} && setfacl -m u:77:rx file && setfacl -d -m g:88:rwx directory"))?;
        sh(&format!("setfattr -n user.root -v yes {lower}"))?;
        sh(&format!("chattr +A {lower}/empty && chattr +d {lower}/directory"))?;
        stage.mount("")?;
        let mut telling = Telling::begin(stage.attach(&at(0))?)?;
        let told = telling.walk()?;
        check_tree(stage.lower(), &told)?;
        // Only ext4 has a lost+found.
        assert_eq!(told.len(), if kind == "ext4" { 16 } else { 15 });
        let named = |name: &str| told.get(Path::new(name)).map(|(_, object)| object).ok_or("not told");
        let (file, empty) = (named("file")?, named("empty")?);
        assert!(file.xattrs.contains_key(&b"system.posix_acl_access"[..]) && file.xattrs.len() == 3);
        assert!(empty.xattrs.contains_key(&b"security.capability"[..]));
        assert_eq!((empty.calls, empty.contents.len()), (1, 0), "one record says that nothing is in it");
        for (flags, object) in [(0x80, empty), (0x40, named("directory")?)] {
            let found = (object.attr.valid.get(), object.attr.fileattr.get() & 0xc0);
            assert_eq!(found, (Attributes::FILEATTR_VALID, flags), "{kind}");
        }
        stage.close(Some(telling.end(told.len() as u64, 9)?))?;
    }
    Ok(())
}

pub fn many_extended_attributes(context: &Context) -> Outcome {
    // Half a MiB fits a record of the usual ring, more than one MiB does not, and is refused by name.
    let stage = Stage::new(context, "ring=64M")?;
    let ring = stage.attach(&at(0))?;
    let path = stage.path("file");
    File::create(&path)?;
    let set = |count: std::ops::Range<usize>| -> Outcome {
        for number in count {
            let (name, value) = (format!("user.number-{number:03}"), pattern(60_000, number as u64));
            rustix::fs::setxattr(&path, name, &value, rustix::fs::XattrFlags::empty())?;
        }
        Ok(())
    };
    set(0..9)?;
    let mut telling = Telling::begin(ring)?;
    let file = identity(&stage.lower().join("file"))?;
    let object = telling.state(&file)?;
    assert_eq!((object.xattrs.len(), object.xattrs == xattrs(&stage.lower().join("file"))?), (9, true));
    set(9..20)?;
    take(&mut telling.ring)?;
    assert_eq!(errno(tell(&telling.ring, telling.request(TELL_OBJECT, &file))), Some(Errno::TOOBIG));
    assert!(take(&mut telling.ring)?.is_empty(), "something was told all the same");
    stage.close(Some(telling.ring))
}

pub fn contents_with_holes(context: &Context) -> Outcome {
    const K: u64 = 1024;
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        let mut stage = Stage::bare(context, kind, kind)?;
        stage.mount("ring=1M")?;
        let mut telling = Telling::begin(stage.attach(&at(0))?)?;
        // Data and holes, what is allocated and not written among them; then no end that a block has.
        let mut file = File::create(stage.path("sparse"))?;
        let mut wrote = |file: &File, at: u64, length: usize| -> Outcome {
            for (number, piece) in pattern(length, at).chunks(50_000).enumerate() {
                file.write_all_at(piece, at + number as u64 * 50_000)?;
                take(&mut telling.ring)?;
            }
            Ok(())
        };
        wrote(&file, 64 * K, 64 * 1024)?;
        wrote(&file, 1024 * K, 700_000)?;
        wrote(&file, 5120 * K + 4096, 5)?;
        fallocate(&file, FallocateFlags::empty(), 3072 * K, 256 * K)?;
        file.set_len(9216 * K + 77)?;
        File::open(stage.lower().join("sparse"))?.sync_all()?;
        let sparse = identity(&stage.lower().join("sparse"))?;
        let mut object = telling.state(&sparse)?;
        telling.length = 1;
        telling.contents(&sparse, &mut object)?;
        assert!(object.contents == fs::read(stage.lower().join("sparse"))?, "{kind}: other bytes");
        let data_end = (1024 * K + 700_000).next_multiple_of(4096);
        let holes = [0..64 * K, 128 * K..1024 * K, data_end..5120 * K + 4096, 5120 * K + 8192..9216 * K + 77];
        // btrfs shows what is allocated and not written as it likes.
        if kind != "btrfs" && kind != "tmpfs" {
            assert_eq!(object.holes, holes, "{kind}");
        }
        assert!(object.calls > 5, "{} calls", object.calls);

        // Nothing at all; a hole alone; what was cut off behind the reader's back.
        file = File::create(stage.path("hole"))?;
        file.set_len(12_345)?;
        let hole = identity(&stage.lower().join("hole"))?;
        let mut object = telling.state(&hole)?;
        telling.contents(&hole, &mut object)?;
        let (first, count) = (object.holes.first().cloned(), object.holes.len());
        assert_eq!((first, count, object.contents.len(), object.calls), (Some(0..12_345), 1, 12_345, 1), "{kind}");
        let told = telling.call(telling.request(TELL_DATA, &sparse))?.0;
        assert_eq!(told.flags, 0, "{kind}: all at once");
        File::options().write(true).open(stage.path("sparse"))?.set_len(100)?;
        let rest = State { position: told.position, shifts: told.shifts, ..telling.request(TELL_DATA, &sparse) };
        let (told, records) = telling.call(rest)?;
        assert_eq!((told.flags, told.position, told.amount), (STATE_LAST, 100, 0), "{kind}");
        let view = RecordView::parse(&records[0], None)?;
        let Event::ObjectData { body, .. } = view.event()? else { return Err("no object data".into()) };
        assert_eq!((body.offset.get(), body.length.get(), body.flags.get()), (100, 0, STATE_LAST));
        drop(file);
        stage.close(Some(telling.ring))?;
    }
    Ok(())
}

pub fn stores_not_captured(context: &Context) -> Outcome {
    let stage = Stage::new(context, "flush=3600")?;
    let mut telling = Telling::begin(stage.attach(&at(0))?)?;
    fs::write(stage.path("mapped"), pattern(40_960, 1))?;
    let file = File::options().read(true).write(true).open(stage.path("mapped"))?;
    let mapping = SharedMapping::new(&file, 0, 40_960, true)?;
    mapping.store(5000, b"stored before it is told");
    take(&mut telling.ring)?;
    let who = identity(&stage.lower().join("mapped"))?;
    let mut object = telling.state(&who)?;
    telling.contents(&who, &mut object)?;
    assert!(object.contents == fs::read(stage.lower().join("mapped"))?);
    // Both what was there and what comes in now is recorded behind that.
    mapping.store(20_000, b"stored after it was told");
    let mut records = Vec::new();
    std::thread::scope(|scope| -> Outcome {
        let syncing = scope.spawn(|| file.sync_all());
        while !syncing.is_finished() {
            records.append(&mut take(&mut telling.ring)?);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(syncing.join().map_err(|_| "it panicked")??)
    })?;
    records.append(&mut take(&mut telling.ring)?);
    for record in records {
        let view = RecordView::parse(&record, None)?;
        if let Event::Write { body, data } = view.event()? {
            let start = usize::try_from(body.offset.get())?;
            object.contents[start..start + data.len()].copy_from_slice(data);
        }
    }
    assert!(object.contents == fs::read(stage.lower().join("mapped"))?, "a store is missing");
    drop((mapping, file));
    stage.close(Some(telling.ring))
}

pub fn entries_in_parts(context: &Context) -> Outcome {
    const NAMES: usize = 3000;
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        let mut stage = Stage::bare(context, kind, kind)?;
        fs::create_dir(stage.lower().join("many"))?;
        for number in 0..NAMES {
            let name = format!("stays-{number:04}{}", "x".repeat(number % 200));
            match number % 3 {
                0 => fs::create_dir(stage.lower().join("many").join(name))?,
                1 => std::os::unix::fs::symlink("somewhere", stage.lower().join("many").join(name))?,
                _ => drop(File::create(stage.lower().join("many").join(name))?),
            }
            File::create(stage.lower().join(format!("many/goes-{number:04}")))?;
        }
        stage.mount("")?;
        let mut telling = Telling::begin(stage.attach(&at(0))?)?;
        let many = identity(&stage.lower().join("many"))?;
        let mut request = telling.request(TELL_ENTRIES, &many);
        request.length = 1 << 14;
        let mut seen: BTreeMap<Vec<u8>, (usize, Identity, u32)> = BTreeMap::new();
        let mut parts = 0;
        loop {
            let (told, entries) = telling.some_entries(request)?;
            for (name, object, mode) in entries {
                seen.entry(name).or_insert((0, object, mode)).0 += 1;
            }
            parts += 1;
            if told.flags & STATE_LAST != 0 {
                break;
            }
            request.position = told.position;
            // Names come and go between the parts, near and far from where it stands, and some move about.
            for number in 0..10 {
                let number = (parts * 37 + number * 291) % NAMES;
                let _ = fs::remove_file(stage.path(&format!("many/goes-{number:04}")));
                let _ = fs::rename(
                    stage.path(&format!("many/goes-{:04}", (number + 1) % NAMES)),
                    stage.path(&format!("many/moved-{parts}-{number}")),
                );
                File::create(stage.path(&format!("many/comes-{parts}-{number}")))?;
            }
            take(&mut telling.ring)?;
        }
        assert!(parts > 20, "{kind}: {parts} parts");
        let stays: Vec<_> = seen.iter().filter(|(name, _)| name.starts_with(b"stays")).collect();
        assert_eq!(stays.len(), NAMES, "{kind}");
        for (name, (times, object, mode)) in stays {
            let path = stage.lower().join("many").join(String::from_utf8_lossy(name).as_ref());
            assert_eq!(*times, 1, "{kind}: {path:?}");
            assert_eq!((*object, *mode), (identity(&path)?, fs::symlink_metadata(&path)?.mode()), "{kind}: {path:?}");
        }
        // Not a directory, not a file.
        let file = identity(&stage.lower().join("many/stays-0002xx"))?;
        assert_eq!(errno(tell(&telling.ring, telling.request(TELL_ENTRIES, &file))), Some(Errno::NOTDIR));
        assert_eq!(errno(tell(&telling.ring, telling.request(TELL_DATA, &many))), Some(Errno::INVAL));
        stage.close(Some(telling.ring))?;
    }
    Ok(())
}

pub fn shifted_contents(context: &Context) -> Outcome {
    for kind in ["ext4", "xfs"] {
        let mut stage = Stage::bare(context, kind, kind)?;
        stage.mount("")?;
        let mut telling = Telling::begin(stage.attach(&at(0))?)?;
        fs::write(stage.path("file"), pattern(1 << 20, 3))?;
        let who = identity(&stage.lower().join("file"))?;
        telling.length = 1;
        let mut object = telling.state(&who)?;
        let first = telling.request(TELL_DATA, &who);
        // Nobody has the file open between the calls: what is counted must not be forgotten with the inode.
        let shift = |flags: FallocateFlags, offset: u64, length: u64| {
            let file = File::options().write(true).open(stage.path("file"))?;
            Ok::<_, std::io::Error>(fallocate(file, flags, offset, length)?)
        };
        for (flags, length) in [(FallocateFlags::COLLAPSE_RANGE, 8192), (FallocateFlags::INSERT_RANGE, 4096)] {
            let told = telling.data(first, &mut object)?;
            assert!(told.position > 0 && told.flags == 0);
            let next = State { position: told.position, shifts: told.shifts, ..first };
            // What moves nothing, or fails, does not count.
            shift(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 512 << 10, 4096)?;
            assert_eq!(errno(shift(flags, 100, length)), Some(Errno::INVAL));
            let told = telling.data(next, &mut object)?;
            let next = State { position: told.position, shifts: told.shifts, ..first };
            shift(flags, 4096, length)?;
            take(&mut telling.ring)?;
            assert_eq!(errno(tell(&telling.ring, next)), Some(Errno::AGAIN), "{kind}: {flags:?}");
            assert!(take(&mut telling.ring)?.is_empty(), "something was told all the same");
            telling.contents(&who, &mut object)?;
            assert!(object.contents == fs::read(stage.lower().join("file"))?, "{kind}: other bytes");
        }
        stage.close(Some(telling.ring))?;
    }
    Ok(())
}

pub fn objects_without_a_name(context: &Context) -> Outcome {
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        let mut stage = Stage::bare(context, kind, kind)?;
        stage.mount("")?;
        let mut telling = Telling::begin(stage.attach(&at(0))?)?;
        assert_eq!(unnamed(&telling.ring, Identity::NONE)?, [], "{kind}");
        // More than one answer holds: made without a name, removed while open, replaced while open, a directory too.
        let mut open = Vec::new();
        for number in 0..20 {
            open.push(File::from(rustix::fs::open(
                stage.mnt(),
                OFlags::TMPFILE | OFlags::RDWR,
                Mode::from_raw_mode(0o640),
            )?));
            let (path, other) = (stage.path(&format!("file-{number}")), stage.path(&format!("other-{number}")));
            fs::write(&path, pattern(5000, number))?;
            fs::write(&other, "other")?;
            open.push(File::options().read(true).write(true).open(&path)?);
            if number % 2 == 0 {
                fs::remove_file(&path)?;
                fs::remove_file(&other)?;
            } else {
                fs::rename(&other, &path)?;
            }
        }
        fs::create_dir(stage.path("directory"))?;
        open.push(File::open(stage.path("directory"))?);
        fs::remove_dir(stage.path("directory"))?;
        take(&mut telling.ring)?;
        let mut found = Vec::new();
        loop {
            let part = unnamed(&telling.ring, found.last().copied().unwrap_or(Identity::NONE))?;
            found.extend_from_slice(&part);
            if part.len() < UNNAMED_MAX {
                break;
            }
        }
        assert_eq!(found.len(), 41, "{kind}");
        assert!(found.windows(2).all(|pair| pair[0].as_bytes() < pair[1].as_bytes()), "{kind}: not in order");
        let (mut files, mut directories) = (Vec::new(), 0);
        for object in &found {
            let mut told = telling.state(object)?;
            assert_eq!(told.attr.nlink.get(), 0, "{kind}");
            if told.attr.mode.get() & S_IFMT == S_IFDIR {
                telling.entries(object, &mut told)?;
                assert!(told.entries.is_empty());
                directories += 1;
            } else {
                telling.contents(object, &mut told)?;
                files.push(told.contents);
            }
        }
        assert_eq!((directories, files.len()), (1, 40), "{kind}");
        for number in 0..20 {
            assert_eq!(files.iter().filter(|file| **file == pattern(5000, number)).count(), 1, "{kind}: {number}");
        }
        // What gets a name, or is gone, is none of them any more.
        let kept = open.swap_remove(0);
        let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
        rustix::fs::linkat(
            rustix::fs::CWD,
            source,
            rustix::fs::CWD,
            stage.path("named"),
            rustix::fs::AtFlags::SYMLINK_FOLLOW,
        )?;
        drop((kept, open));
        assert_eq!(unnamed(&telling.ring, Identity::NONE)?, [], "{kind}");
        let named = identity(&stage.lower().join("named"))?;
        let gone: BTreeSet<_> = found.into_iter().filter(|object| *object != named).collect();
        assert_eq!(gone.len(), 40);
        for object in &gone {
            // A filesystem may take a moment to let go of it.
            let request = telling.request(TELL_OBJECT, object);
            wait_until("it is gone", SOON, || errno(tell(&telling.ring, request)) == Some(Errno::NOENT))?;
        }
        let mut said = BTreeSet::new();
        for record in take(&mut telling.ring)? {
            let view = RecordView::parse(&record, None)?;
            if view.kind() == Some(RecordType::ObjectGone) {
                said.insert(view.header().object);
            }
        }
        assert_eq!(said, gone, "{kind}");
        stage.close(Some(telling.ring))?;
    }
    Ok(())
}
