// SPDX-License-Identifier: GPL-2.0-or-later

//! Threads that code blocks, off the thread that writes them.
//!
//! Work is given out and its results are taken in the same order; how much may be under way is for the caller to bound.
//! A pool without threads does the work at once, where it is given.

use std::num::NonZero;
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::codec::Workshop;

/// More threads than this are not used: they would be faster than any drive, and each takes memory.
const THREADS_MAX: usize = 4;

type Task = Box<dyn FnOnce(&mut Workshop) + Send>;

/// Threads that wait for work.
pub struct Pool {
    queue: Option<Sender<Task>>,
    threads: Vec<JoinHandle<()>>,
    /// For work that is done at once.
    own: Mutex<Workshop>,
}

/// The result of work that was given out.
pub struct Ticket<T>(Receiver<T>);

impl<T> Ticket<T> {
    /// Waits for the work to be done; `None` if the thread that did it died.
    pub fn wait(self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl Pool {
    /// A pool that does everything at once.
    pub fn inline() -> Arc<Self> {
        Arc::new(Pool { queue: None, threads: Vec::new(), own: Mutex::default() })
    }

    /// A pool with a thread for each processor, up to four.
    pub fn new() -> std::io::Result<Arc<Self>> {
        Self::with_threads(std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX))
    }

    /// A pool of so many threads.
    pub fn with_threads(count: usize) -> std::io::Result<Arc<Self>> {
        let (sender, receiver) = channel::<Task>();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::new();
        for number in 0..count {
            let receiver = receiver.clone();
            let work = move || {
                let mut workshop = Workshop::default();
                loop {
                    let task = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(task) = task else { return };
                    task(&mut workshop);
                }
            };
            threads.push(std::thread::Builder::new().name(format!("coder-{number}")).spawn(work)?);
        }
        Ok(Arc::new(Pool { queue: (count > 0).then_some(sender), threads, own: Mutex::default() }))
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Has `work` done.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut Workshop) -> T + Send + 'static) -> Ticket<T> {
        let (sender, receiver) = sync_channel(1);
        let task = move |workshop: &mut Workshop| {
            // Nobody may want the result any more.
            let _ = sender.send(work(workshop));
        };
        match &self.queue {
            // Fails only when all threads are dead; then the ticket says so.
            Some(queue) => drop(queue.send(Box::new(task))),
            None => task(&mut self.own.lock().unwrap_or_else(PoisonError::into_inner)),
        }
        Ticket(receiver)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
