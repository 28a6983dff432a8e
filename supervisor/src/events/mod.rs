//! What operators are told while it happens: faults, workers that come and go, changes of the configuration.

pub mod book;
pub mod troubles;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::broadcast;

use self::book::{Book, Folded, Kind, Seen};

/// Events that a slow listener may be behind before it loses some.
const BEHIND_MAX: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Happened {
    /// A call did not end well or was refused.
    Fault(Folded),
    /// A worker.
    Worker(WorkerNews),
    /// The configuration, or a limit that was changed for a time.
    Config {
        /// "reloaded", "refused", "set", "unset", "expired".
        what: &'static str,
        /// In words.
        lines: Vec<String>,
    },
}

/// What became of a worker.
#[derive(Clone, Debug)]
pub struct WorkerNews {
    /// Its name.
    pub worker: String,
    /// Its tenant.
    pub tenant: String,
    /// Its function.
    pub function: String,
    /// Whose it is, as operators see it; empty for a cell.
    pub sub_tenant_hash: String,
    /// "cell ready", "ready", "start failed", "gone".
    pub what: &'static str,
    /// Why it ended; empty when it did not.
    pub why: String,
}

/// Where everything is told, and faults are remembered.
#[derive(Debug)]
pub struct Hub {
    book: Mutex<Book>,
    out: broadcast::Sender<(SystemTime, Happened)>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { book: Mutex::default(), out: broadcast::Sender::new(BEHIND_MAX) }
    }
}

impl Hub {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody listens: what only listeners want is not put into words for nobody.
    pub fn is_heard(&self) -> bool {
        self.out.receiver_count() > 0
    }

    /// Tells listeners.
    pub fn tell(&self, happened: Happened) {
        // Without one there is nobody to tell.
        self.out.send((SystemTime::now(), happened)).ok();
    }

    /// Takes a fault in, and tells listeners of it if they have not heard of an equal one just now.
    pub fn fault(&self, kind: Kind, seen: Seen) {
        let told = self.book().note(SystemTime::now(), kind, seen);
        if let Some(folded) = told {
            self.tell(Happened::Fault(folded));
        }
    }

    /// Tells listeners how often it has happened meanwhile.
    pub fn flush(&self) {
        let due = self.book().due(SystemTime::now());
        for folded in due {
            self.tell(Happened::Fault(folded));
        }
    }

    /// All faults since the start, the latest first, and how many were forgotten.
    pub fn faults(&self) -> (Vec<Folded>, u64) {
        let book = self.book();
        (book.all(), book.forgotten())
    }

    /// From now on.
    pub fn listen(&self) -> broadcast::Receiver<(SystemTime, Happened)> {
        self.out.subscribe()
    }
}
