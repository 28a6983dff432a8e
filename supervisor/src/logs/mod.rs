//! What functions write, line by line: whose line it is and which call's, held to each function's rate, kept in a bounded
//! room for those who ask (`sublet logs`) and written where the configuration says (`host.log`).
//!
//! ```text
//!  worker's pipe -> [capture] lines, labels, rate -> [ring] -+-> [sink] stdout (journald) or files
//!                                                            +-> Admin.Logs -> sublet logs
//! ```
//! Nobody who reads slowly slows a worker down: readers keep their own place in the ring and are told what they missed.

pub mod capture;
pub mod files;
pub mod filter;
pub mod lines;
pub mod rate;
pub mod record;
pub mod report;
pub mod ring;
pub mod sink;
pub mod words;

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use self::{
    record::Record,
    ring::{Batch, Ring},
};

/// Records that a reader gets at once.
const BATCH_RECORDS: usize = 256;

/// What there is at one time.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Number of the first record that is there.
    pub first: u64,
    /// Number of the next to come.
    pub end: u64,
    /// Records between: numbers that made room are missing.
    pub count: u64,
}

/// All logs.
#[derive(Debug)]
pub struct Logs {
    ring: Mutex<Ring>,
    /// For the sink's thread.
    grown: Condvar,
    /// For readers that are tasks: the number of the next record.
    end: watch::Sender<u64>,
}

impl Logs {
    /// Keeps the last `bytes` of them.
    pub fn new(bytes: usize) -> Self {
        Self { ring: Mutex::new(Ring::new(bytes)), grown: Condvar::new(), end: watch::Sender::new(0) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes records in.
    pub fn take_in(&self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let end = {
            let mut ring = self.ring();
            for record in records {
                ring.push(record);
            }
            ring.end()
        };
        self.grown.notify_all();
        // Of two that come at one time, the later number stays.
        self.end.send_if_modified(|last| {
            let is_later = end > *last;
            *last = end.max(*last);
            is_later
        });
    }

    /// What is there now.
    pub fn range(&self) -> Range {
        let ring = self.ring();
        Range { first: ring.first(), end: ring.end(), count: ring.count() }
    }

    /// Records from a number on; none when there are none yet.
    pub fn read(&self, next: u64) -> Batch {
        self.ring().read(next, BATCH_RECORDS)
    }

    /// As [`Self::read`], and waits so long at the most for there to be one.
    pub fn wait(&self, next: u64, patience: Duration) -> Batch {
        let (ring, _) = self
            .grown
            .wait_timeout_while(self.ring(), patience, |ring| ring.end() <= next)
            .unwrap_or_else(PoisonError::into_inner);
        ring.read(next, BATCH_RECORDS)
    }

    /// Tells tasks that there are more.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }
}
