//! `sublet serve --record FILE`: every delivered call becomes a row of a trace for `sublet what-if`.
//!
//! Calls note their arrival and their end; rows come out in the order of arrival and are written by a thread of their own,
//! behind a bounded queue: a slow disk costs rows, which are counted, and never a call its time.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sublet_what_if::{InOrder, Outcome, Row, Ticket, Token, Writer};

use crate::trust::Trusted;

/// Rows between the calls and the disk: some seconds of a busy host.
const QUEUE_ROWS: usize = 1 << 16;

/// A trace that is being written.
#[derive(Debug)]
pub struct Recorder {
    origin: Instant,
    state: Mutex<State>,
    lost: AtomicU64,
}

#[derive(Debug)]
struct State {
    rows: InOrder,
    /// None once it is finished.
    out: Option<SyncSender<Row>>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

/// Makes the file, which must not be there yet. Called while we may still write where the operator says.
///
/// # Errors
/// When it is there, cannot be made, or somebody else decides where it would be.
pub fn create(path: &Path) -> io::Result<File> {
    let path = std::path::absolute(path)?;
    let us = [nix::unistd::geteuid().as_raw()];
    Trusted::root_and(&us).parent(path.parent().unwrap_or(&path)).map_err(io::Error::other)?;
    OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)
}

impl Recorder {
    /// Writes to a file of [`create`].
    ///
    /// # Errors
    /// When its first line cannot be written.
    pub fn start(file: File) -> io::Result<Self> {
        let writer = Writer::new(BufWriter::new(file))?;
        let (out, rows) = sync_channel(QUEUE_ROWS);
        let writer = std::thread::Builder::new().name("sublet-record".into()).spawn(move || write(writer, &rows))?;
        let state = State { rows: InOrder::default(), out: Some(out), writer: Some(writer) };
        Ok(Self { origin: Instant::now(), state: Mutex::new(state), lost: AtomicU64::new(0) })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call was accepted. `sub_tenant` is a hash of its label. None when a name does not fit a trace.
    pub fn arrived(&self, tenant: &str, function: &str, sub_tenant: &str) -> Option<Ticket> {
        let token = |text: &str| Token::try_from(text).ok();
        let (tenant, function, sub_tenant) = (token(tenant)?, token(function)?, token(sub_tenant)?);
        let at = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        Some(self.state().rows.arrived(at, tenant, function, sub_tenant))
    }

    /// How the call ended: how long a worker had it, and what became of it. A call that no worker had has no row.
    pub fn ended(&self, ticket: Ticket, service: Option<(Duration, Outcome)>) {
        let mut state = self.state();
        match service {
            Some((time, outcome)) => {
                state.rows.ended(ticket, u64::try_from(time.as_micros()).unwrap_or(u64::MAX), outcome);
            }
            None => state.rows.dropped(ticket),
        }
        while let Some(row) = state.rows.pop() {
            if state.out.as_ref().is_none_or(|out| out.try_send(row).is_err()) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Writes what is left. Returns how many delivered calls have no row.
    ///
    /// # Errors
    /// When the disk refused something.
    pub fn finish(&self) -> io::Result<u64> {
        let (writer, given_up) = {
            let mut state = self.state();
            state.out = None;
            (state.writer.take(), state.rows.given_up())
        };
        if let Some(writer) = writer {
            writer.join().map_err(|_| io::Error::other("the writer's thread failed"))??;
        }
        Ok(self.lost.load(Ordering::Relaxed) + given_up)
    }
}

fn write(mut writer: Writer<BufWriter<File>>, rows: &Receiver<Row>) -> io::Result<()> {
    for row in rows {
        writer.write(&row)?;
    }
    writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}
