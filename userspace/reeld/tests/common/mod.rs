// SPDX-License-Identifier: GPL-2.0-or-later

//! A ring without a kernel, and the threads of the daemon around it.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reeld::capture::{Capture, Control, Ended, Prepared};
use reeld::keeper::Keeper;
use reeld::source::{wait_any, Source, Wake};
use reeld::status::Status;
use reeld::streamer::{Coders, Marks, Orders, Streamer};
use reelfs_format::crc32c_append;
use reelfs_format::record::{record_len, seal, Attributes, Body, Head, Identity, RecordType, WriteBody};
use reelfs_format::volume::{BlockKind, BlockView, SegmentEnd, Trailer, VolumeStart, INCOMPATIBLE_KNOWN, LABEL_LEN};
use reelfs_media::library::{volume_files, DirectoryLibrary, Library};
use reelfs_media::log::link;
use reelfs_spool::{Spool, Writer};
use rustix::event::{PollFd, PollFlags};
use zerocopy::little_endian::U64;

pub const SEGMENT: u64 = 4 << 20;

/// A write record with `payload` bytes that depend on `lsn`.
pub fn record(lsn: u64, payload: usize) -> Vec<u8> {
    let mut record = vec![0; record_len(WriteBody::HEAD_LEN, payload).unwrap()];
    let data: Vec<u8> = (0..payload).map(|at| (at as u8) ^ (lsn >> 3) as u8).collect();
    record[WriteBody::HEAD_LEN..WriteBody::HEAD_LEN + payload].copy_from_slice(&data);
    let head = Head {
        kind: RecordType::Write,
        flags: 0,
        lsn,
        time: 1,
        epoch: 1,
        uid: 0,
        object: Identity::new(1, &[7; 8]).unwrap(),
        payload_length: payload as u32,
        payload_crc: crc32c_append(0, &data),
    };
    seal(&mut record, &head, &WriteBody { offset: U64::new(0), attr: Attributes::ZERO }).unwrap();
    record
}

#[derive(Default)]
struct Inner {
    records: VecDeque<(u64, Vec<u8>)>,
    acknowledged: u64,
    committed: u64,
    ended: bool,
}

/// What the kernel side of a ring does. Clones are the same ring.
#[derive(Clone)]
pub struct FakeRing {
    inner: Arc<Mutex<Inner>>,
    news: Wake,
}

impl FakeRing {
    pub fn new(start: u64) -> FakeRing {
        let inner = Inner { acknowledged: start, committed: start, ..Inner::default() };
        FakeRing { inner: Arc::new(Mutex::new(inner)), news: Wake::new().unwrap() }
    }

    /// Commits a record; its end.
    pub fn commit(&self, payload: usize) -> u64 {
        let mut inner = self.inner.lock().unwrap();
        let record = record(inner.committed, payload);
        let lsn = inner.committed;
        inner.committed += record.len() as u64;
        inner.records.push_back((lsn, record));
        self.news.raise();
        inner.committed
    }

    /// Flips a byte of the last record that was committed; again undoes it.
    pub fn flip(&self) {
        let mut inner = self.inner.lock().unwrap();
        let (_, record) = inner.records.back_mut().unwrap();
        record[60] ^= 1;
    }

    pub fn end(&self) {
        self.inner.lock().unwrap().ended = true;
        self.news.raise();
    }

    pub fn acknowledged(&self) -> u64 {
        self.inner.lock().unwrap().acknowledged
    }

    /// Attaches again at `next_lsn`, with the kernel's rules.
    pub fn reattach(&self, next_lsn: u64) {
        Source::acknowledge(&mut self.clone(), next_lsn).expect("the kernel refuses to attach");
    }
}

impl Source for FakeRing {
    fn each(&mut self, from: u64, visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        let inner = self.inner.lock().unwrap();
        for (lsn, record) in &inner.records {
            if *lsn >= from && visit(record).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, lsn: u64) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        assert!(lsn >= inner.acknowledged && lsn <= inner.committed, "acknowledged {lsn:#x}");
        while inner.records.front().is_some_and(|(start, record)| start + record.len() as u64 <= lsn) {
            inner.records.pop_front();
        }
        let boundary = inner.records.front().map_or(inner.committed, |(start, _)| *start);
        assert_eq!(boundary, lsn, "acknowledged what is no boundary");
        inner.acknowledged = lsn;
        Ok(())
    }

    fn committed(&self) -> io::Result<u64> {
        Ok(self.inner.lock().unwrap().committed)
    }

    fn wait(&mut self, wake: &Wake, timeout: Duration) -> io::Result<bool> {
        {
            let inner = self.inner.lock().unwrap();
            if !inner.records.is_empty() {
                return Ok(true);
            }
            if inner.ended {
                return Ok(false);
            }
        }
        let (news, wake) = (self.news.as_fd(), wake.as_fd());
        wait_any(&mut [PollFd::new(&news, PollFlags::IN), PollFd::new(&wake, PollFlags::IN)], timeout)?;
        self.news.lower();
        Ok(true)
    }
}

/// The daemon's threads on a spool, without media.
pub struct Daemon {
    pub status: Arc<Status>,
    pub capture: Control,
    pub spool: Arc<Spool>,
    stop: Arc<AtomicBool>,
    wake: Wake,
    keeper: Option<JoinHandle<()>>,
    thread: Option<JoinHandle<(Writer, io::Result<Ended>)>>,
}

impl Daemon {
    /// Recovers the spool in `path` and goes on from `ring`, which is made at its end if there is none.
    pub fn start(path: &Path, ring: Option<&FakeRing>, segments_max: u64) -> (Daemon, FakeRing) {
        let (spool, _) = Spool::open_or_create(path, SEGMENT).unwrap();
        let recovered = spool.recover().unwrap();
        let ring = match ring {
            Some(ring) => {
                ring.reattach(recovered.end);
                ring.clone()
            }
            None => FakeRing::new(recovered.end),
        };
        let status = Arc::new(Status::default());
        status.set_spooled(recovered.end);
        status.set_acknowledged(recovered.end);
        let writer = Writer::new(&spool, &recovered).unwrap();
        let spool = Arc::new(spool);
        let (stop, wake) = (Arc::new(AtomicBool::new(false)), Wake::new().unwrap());
        let (prepared, capture) = (Prepared::new(wake.clone()), Control::new().unwrap());
        let keeper = Keeper {
            next: Keeper::first_segment(&spool, recovered.end),
            spool: spool.clone(),
            prepared: prepared.clone(),
            capture: capture.clone(),
            status: status.clone(),
            segments_max,
            warn: 80,
        };
        let keeper = std::thread::spawn({
            let (stop, wake) = (stop.clone(), wake.clone());
            move || keeper.run(&stop, &wake)
        });
        let mut thread = Capture::new(Box::new(ring.clone()), writer, prepared, capture.clone(), status.clone());
        let thread = std::thread::spawn(move || {
            let outcome = thread.run();
            (thread.into_writer(), outcome)
        });
        let daemon = Daemon { status, capture, spool, stop, wake, keeper: Some(keeper), thread: Some(thread) };
        (daemon, ring)
    }

    pub fn streamer(&self, library: Box<dyn Library>, marks: Marks) -> (JoinHandle<anyhow::Result<()>>, Orders) {
        self.streamer_with(library, marks, Coders::plain())
    }

    pub fn streamer_with(
        &self,
        library: Box<dyn Library>,
        marks: Marks,
        coders: Coders,
    ) -> (JoinHandle<anyhow::Result<()>>, Orders) {
        let orders = Orders::new().unwrap();
        let streamer = Streamer {
            spool: self.spool.clone(),
            library,
            pool: "test".into(),
            origin: "here".into(),
            marks,
            coders,
            on_wait: None,
            new_volume: false,
            status: self.status.clone(),
            orders: orders.clone(),
            records: None,
        };
        (std::thread::spawn(move || streamer.run()), orders)
    }

    /// Whether a thread has ended.
    pub fn has_died(&self) -> bool {
        self.thread.as_ref().is_none_or(|thread| thread.is_finished())
            || self.keeper.as_ref().is_none_or(|thread| thread.is_finished())
    }

    /// Ends the threads, dead ones too, without a care.
    pub fn kill(&mut self) {
        self.capture.stop();
        self.stop.store(true, Ordering::Release);
        self.wake.raise();
        let _ = self.thread.take().unwrap().join();
        let _ = self.keeper.take().unwrap().join();
    }

    /// Ends the threads; how the capture thread ended.
    pub fn stop(mut self) -> Ended {
        self.capture.stop();
        self.finish()
    }

    /// Waits for the capture thread to end by itself, then ends the others.
    pub fn finish(&mut self) -> Ended {
        let (_, outcome) = self.thread.take().unwrap().join().unwrap();
        self.stop.store(true, Ordering::Release);
        self.wake.raise();
        self.keeper.take().unwrap().join().unwrap();
        outcome.unwrap()
    }
}

/// Waits until `done`, for at most 20 s.
pub fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub const BLOCK: usize = 64 << 10;
pub const EAGER: Marks = Marks { high: 1, low: 0, age: Duration::from_secs(1) };
pub const LAZY: Marks = Marks { high: 1 << 40, low: 0, age: Duration::from_secs(1000) };

pub fn library(path: &Path, capacity: Option<u64>) -> Box<DirectoryLibrary> {
    fs::create_dir_all(path).unwrap();
    Box::new(DirectoryLibrary { path: path.to_path_buf(), capacity, block_size: BLOCK, features: INCOMPATIBLE_KNOWN })
}

/// Reads the volumes as the format's specification says, with nothing of the writer's: the log from 0 on, the hashes
/// checked. Returns the log and how many volumes hold it.
pub fn read_volumes(path: &Path) -> (Vec<u8>, usize) {
    let mut log: Vec<u8> = Vec::new();
    let mut volumes = Vec::new();
    for file in volume_files(path).unwrap() {
        let bytes = fs::read(&file).unwrap();
        let blocks: Vec<Vec<u8>> = bytes[LABEL_LEN..].chunks(BLOCK).map(<[u8]>::to_vec).collect();
        let Some(first) = blocks.first() else { continue };
        let view = BlockView::parse(first).unwrap();
        assert_eq!(view.kind, Some(BlockKind::VolumeStart));
        let start: VolumeStart = *view.body().unwrap();
        volumes.push((start.sequence.get(), start, blocks));
    }
    volumes.sort_by_key(|(sequence, ..)| *sequence);
    for (at, (sequence, start, blocks)) in volumes.iter().enumerate() {
        assert_eq!(*sequence, at as u64 + 1, "sequence numbers");
        assert!(start.first_lsn.get() <= log.len() as u64, "a gap between volumes");
        for block in &blocks[1..] {
            let Ok(view) = BlockView::parse(block) else { continue };
            match view.kind {
                Some(BlockKind::Data) => {
                    let from = view.header.lsn_start.get() as usize;
                    assert!(from <= log.len(), "a gap at {from:#x}");
                    let known = log.len().min(from + view.payload.len());
                    assert_eq!(log[from..known], view.payload[..known - from], "a repetition that differs");
                    log.extend_from_slice(&view.payload[known - from..]);
                }
                Some(BlockKind::SegmentEnd) => {
                    let end: &SegmentEnd = view.body().unwrap();
                    let number = end.segment.get() as usize;
                    let size = SEGMENT as usize;
                    let mut chain = [0; 32];
                    for segment in log[..(number + 1) * size].chunks(size) {
                        chain = link(&chain, blake3_of(segment).as_slice().try_into().unwrap());
                    }
                    assert_eq!(end.chain, chain, "chain of segment {number}");
                }
                Some(BlockKind::Trailer) => {
                    let trailer: &Trailer = view.body().unwrap();
                    assert_eq!(trailer.last_lsn.get(), log.len() as u64);
                }
                _ => {}
            }
        }
    }
    (log, volumes.len())
}

/// The hash of a segment, taken from a place in the log that was led over exactly that segment.
pub fn blake3_of(segment: &[u8]) -> [u8; 32] {
    let mut state = reelfs_media::LogState::anywhere(segment.len() as u64, 0, u64::MAX, Some([0; 32]));
    state.feed(segment).unwrap().end.unwrap().hash
}

/// The log that a ring whose records had these payloads has committed.
pub fn expected(payloads: impl Iterator<Item = usize>) -> Vec<u8> {
    payloads.fold(Vec::new(), |mut log, payload| {
        let record = record(log.len() as u64, payload);
        log.extend_from_slice(&record);
        log
    })
}
