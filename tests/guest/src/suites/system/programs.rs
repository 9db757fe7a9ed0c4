// SPDX-License-Identifier: GPL-2.0-or-later

//! What programs do with files besides reading and writing them.

use super::{done, mounted, perl, shell};
use crate::check::{ensure, same, Check};
use crate::pattern::pattern;
use crate::rig::Rig;
use crate::{skip, Context, TestResult};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::process::Command;

/// What leaves no record.
fn unrecorded<T>(rig: &Rig, what: impl FnOnce() -> Check<T>) -> Check<T> {
    let before = rig.records()?;
    let result = what()?;
    same!(rig.records()?, before);
    Ok(result)
}

/// The three kinds of locks, between processes: they exclude, they are seen, they end with their holder.
pub fn locks(_: &Context) -> TestResult {
    let rig = mounted("locks", "")?;
    let path = rig.mnt.join("file");
    fs::write(&path, pattern(10_000, 1))?;
    // F_OFD_SETLK and F_OFD_GETLK are 37 and 36; struct flock with 64-bit offsets.
    const SCRIPT: &str = r#"
        use Fcntl qw(:DEFAULT :flock);
        my ($path) = @ARGV;
        sub lock_of { pack("s s x4 q q i x4", $_[0], 0, $_[1], $_[2], 0) }
        sub elsewhere { my $code = shift; my $pid = fork(); if (!$pid) { exit($code->() ? 0 : 1) } waitpid($pid, 0); $? == 0 }
        sub opened { open(my $f, "+<", $path) or die "open: $!"; $f }
        my $f = opened();
        flock($f, LOCK_EX) or die "flock: $!";
        elsewhere(sub { !flock(opened(), LOCK_EX | LOCK_NB) and $!{EWOULDBLOCK} }) or die "flock does not exclude";
        flock($f, LOCK_SH) or die; 
        elsewhere(sub { flock(opened(), LOCK_SH | LOCK_NB) }) or die "shared flocks exclude";
        flock($f, LOCK_UN) or die;
        elsewhere(sub { flock(opened(), LOCK_EX | LOCK_NB) }) or die "flock stays";

        fcntl($f, F_SETLK, lock_of(F_WRLCK, 100, 50)) or die "F_SETLK: $!";
        elsewhere(sub { my $g = opened(); !fcntl($g, F_SETLK, lock_of(F_RDLCK, 120, 10)) and $!{EAGAIN} || $!{EACCES} })
            or die "POSIX locks do not exclude";
        elsewhere(sub { my $g = opened(); fcntl($g, F_SETLK, lock_of(F_WRLCK, 150, 10)) }) or die "another range is locked";
        elsewhere(sub {
            my ($g, $l) = (opened(), lock_of(F_WRLCK, 0, 0));
            fcntl($g, F_GETLK, $l) or die "F_GETLK: $!";
            my ($type, $whence, $start, $length, $pid) = unpack("s s x4 q q i", $l);
            $type == F_WRLCK && $start == 100 && $length == 50 && $pid == getppid()
        }) or die "F_GETLK does not know the lock";
        my $holder = fork();
        if (!$holder) { my $g = opened(); fcntl($g, F_SETLKW, lock_of(F_WRLCK, 500, 1)) or exit 1; kill 'KILL', $$; }
        waitpid($holder, 0);
        fcntl($f, F_SETLK, lock_of(F_WRLCK, 500, 1)) or die "the lock of a dead process stays";

        my ($one, $two) = (opened(), opened());
        fcntl($one, 37, lock_of(F_WRLCK, 0, 10)) or die "F_OFD_SETLK: $!";
        (!fcntl($two, 37, lock_of(F_WRLCK, 5, 10)) and $!{EAGAIN}) or die "OFD locks of one process do not exclude";
        close($one);
        fcntl($two, 37, lock_of(F_WRLCK, 5, 10)) or die "the OFD lock of a closed description stays";
        print "done";
    "#;
    unrecorded(&rig, || {
        same!(perl(&format!("use Errno; {SCRIPT}"), &[path.as_os_str()])?, "done");
        Ok(())
    })?;
    done(rig)
}

/// A lease is broken by whoever opens the file for what it forbids, and its holder is told.
pub fn leases(_: &Context) -> TestResult {
    let rig = mounted("leases", "")?;
    let path = rig.mnt.join("file");
    fs::write(&path, "leased")?;
    // F_SETLEASE 1024, F_GETLEASE 1025.
    const SCRIPT: &str = r#"
        use Errno; use Fcntl;
        my ($path) = @ARGV;
        my $told = 0;
        $SIG{IO} = sub { $told++ };
        for my $case ([F_RDLCK, O_RDONLY, O_WRONLY], [F_WRLCK, O_RDONLY, O_RDONLY]) {
            my ($lease, $mode, $other) = @$case;
            sysopen(my $f, $path, $mode) or die "open: $!";
            fcntl($f, 1024, $lease + 0) or die "F_SETLEASE $lease: $!";
            my $have = fcntl($f, 1025, 0) + 0;
            $have == $lease or die "F_GETLEASE: $have, should be $lease";
            my $pid = fork();
            if (!$pid) {
                sysopen(my $g, $path, $other | O_NONBLOCK) and exit 1;
                exit($!{EWOULDBLOCK} ? 0 : 2);
            }
            1 while waitpid($pid, 0) < 0 && $!{EINTR};
            $? == 0 or die "a lease was not broken by an open: $?";
            select(undef, undef, undef, 0.2) if !$told;
            $told or die "the holder was not told";
            $told = 0;
            fcntl($f, 1024, F_UNLCK + 0) or die "F_UNLCK: $!";
            sysopen(my $h, $path, $other | O_NONBLOCK) or die "open after the lease: $!";
        }
        print "done";
    "#;
    unrecorded(&rig, || {
        same!(perl(SCRIPT, &[path.as_os_str()])?, "done");
        Ok(())
    })?;
    done(rig)
}

/// Each change is told once.
pub fn inotify(_: &Context) -> TestResult {
    let rig = mounted("inotify", "")?;
    fs::create_dir(rig.mnt.join("d"))?;
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, rig.mnt.join("d"), WatchFlags::ALL_EVENTS)?;
    shell(
        r#"cd "$1"; echo text >a; cat a >/dev/null; chmod 600 a; mv a b; ln b c; rm c; mkdir e; rmdir e"#,
        &[&rig.mnt.join("d")],
    )?;
    let mut space = [MaybeUninit::uninit(); 8192];
    let mut reader = inotify::Reader::new(&watch, &mut space);
    let mut seen = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let flags = event.events() - ReadFlags::ISDIR;
                seen.push((name, flags));
            }
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let count = |name: &str, flag: ReadFlags| seen.iter().filter(|(of, flags)| of == name && *flags == flag).count();
    for (name, flag, times) in [
        ("a", ReadFlags::CREATE, 1),
        ("a", ReadFlags::MODIFY, 1),
        ("a", ReadFlags::CLOSE_WRITE, 1),
        ("a", ReadFlags::ACCESS, 1),
        ("a", ReadFlags::ATTRIB, 1),
        ("a", ReadFlags::MOVED_FROM, 1),
        ("b", ReadFlags::MOVED_TO, 1),
        ("c", ReadFlags::CREATE, 1),
        ("c", ReadFlags::DELETE, 1),
        ("e", ReadFlags::CREATE, 1),
        ("e", ReadFlags::DELETE, 1),
    ] {
        let found = count(name, flag);
        ensure!(found == times, "{flag:?} of {name} was told {found} times, not {times}: {seen:?}");
    }
    done(rig)
}

/// Watching a whole mount, and having a say in what is opened.
pub fn fanotify(_: &Context) -> TestResult {
    let rig = mounted("fanotify", "")?;
    fs::write(rig.mnt.join("forbidden"), "x")?;
    fs::write(rig.mnt.join("other"), "x")?;
    // fanotify_init(2) is 300, fanotify_mark(2) 301. FAN_CLASS_CONTENT 4, FAN_NONBLOCK 2, FAN_MARK_ADD 1,
    // FAN_MARK_MOUNT 0x10; FAN_MODIFY 2, FAN_CLOSE_WRITE 8, FAN_OPEN_PERM 0x10000; FAN_ALLOW 1, FAN_DENY 2.
    const SCRIPT: &str = r#"
        use Fcntl;
        my ($mnt) = @ARGV;
        my $fd = syscall(300, 4, 0);
        $fd >= 0 or die "fanotify_init: $!";
        open(my $events, "+<&=", $fd) or die;
        my $path = "$mnt";
        syscall(301, $fd, 1 | 0x10, 2 | 8 | 0x10000, -100, $path) == 0
            or $! == 22 ? (print("none"), exit) : die "fanotify_mark: $!";
        my $pid = fork();
        if (!$pid) {
            open(my $f, ">>", "$mnt/other") or exit 1;
            syswrite($f, "more") == 4 or exit 2;
            close($f);
            open(my $g, "<", "$mnt/forbidden") and exit 3;
            exit 0;
        }
        my %seen;
        my $left = 10;
        while ($left-- > 0) {
            my $length = sysread($events, my $data, 65536);
            defined $length or die "read: $!";
            while (length $data) {
                my ($len, $vers, $res, $meta, $mask, $file, $who) = unpack("L C C S Q l l", $data);
                my $name = readlink("/proc/self/fd/$file") // "?";
                $name =~ s,.*/,,;
                $seen{"$name:$_"}++ for grep { $mask & $_ } 2, 8, 0x10000;
                if ($mask & 0x10000) {
                    my $answer = $name eq "forbidden" ? 2 : 1;
                    syswrite($events, pack("l L", $file, $answer)) or die "answer: $!";
                    $left = 0 if $name eq "forbidden";
                }
                POSIX::close($file);
                substr($data, 0, $len) = "";
            }
        }
        waitpid($pid, 0);
        $? == 0 or die "the program ended with $?: " . join(" ", %seen);
        for (["other", 2], ["other", 8], ["other", 0x10000], ["forbidden", 0x10000]) {
            my $times = $seen{"$$_[0]:$$_[1]"} // 0;
            $times == 1 or die "event $$_[1] of $$_[0]: $times times";
        }
        print "done";
    "#;
    let said = perl(&format!("use POSIX (); {SCRIPT}"), &[rig.mnt.as_os_str()])?;
    if said == "none" {
        done(rig)?;
        return skip("this kernel has no events that ask for permission");
    }
    same!(said, "done");
    same!(fs::read(rig.lower.join("other"))?, b"xmore");
    done(rig)
}

/// A program that runs cannot be written, and what is open for writing cannot be run.
pub fn that_run(_: &Context) -> TestResult {
    let rig = mounted("programs", "")?;
    let program = rig.mnt.join("sleep");
    fs::copy("/bin/sleep", &program)?;
    let mut child = Command::new(&program).arg("60").spawn()?;
    let tried = [
        rustix::fs::open(&program, OFlags::WRONLY, Mode::empty()).err(),
        rustix::fs::open(&program, OFlags::RDWR | OFlags::TRUNC, Mode::empty()).err(),
        fs::File::options().append(true).open(&program).err().and_then(|error| Errno::from_io_error(&error)),
    ];
    // Replacing it is another matter.
    let replaced = fs::copy("/bin/true", rig.mnt.join("new")).and_then(|_| fs::rename(rig.mnt.join("new"), &program));
    let lives = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    replaced?;
    ensure!(lives, "the program ended");
    ensure!(tried == [Some(Errno::TXTBSY); 3], "{tried:?}, should be ETXTBSY");
    ensure!(Command::new(&program).status()?.success(), "what replaced it");
    let writer = File::options().write(true).open(&program)?;
    let error = Command::new(&program).status().err().and_then(|error| Errno::from_io_error(&error));
    same!(error, Some(Errno::TXTBSY));
    drop(writer);
    ensure!(Command::new(&program).status()?.success(), "after it was closed");
    // A script with its interpreter on the mount.
    fs::copy("/bin/sh", rig.mnt.join("sh"))?;
    shell(
        r#"printf '#!%s/sh\nexit 7\n' "$1" >"$1/script"; chmod 755 "$1/script"; r=0; "$1/script" || r=$?; [ $r = 7 ]"#,
        &[&rig.mnt],
    )?;
    done(rig)
}

/// Swapping would write to the file behind everybody's back.
pub fn swap_file(_: &Context) -> TestResult {
    let rig = mounted("swap", "")?;
    let path = rig.mnt.join("swap");
    fs::write(&path, vec![0; 4 << 20])?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Command::new("mkswap").arg("-q").arg(&path).output()?;
    File::open(&path)?.sync_all()?;
    let tried = Command::new("swapon").arg(&path).output()?;
    let said = String::from_utf8_lossy(&tried.stderr).into_owned();
    if tried.status.success() {
        Command::new("swapoff").arg(&path).status()?;
    }
    done(rig)?;
    if said.contains("Function not implemented") {
        return skip("this kernel does not swap");
    }
    ensure!(!tried.status.success() && said.contains("Invalid argument"), "swapon: {}: {said}", tried.status);
    Ok(())
}
