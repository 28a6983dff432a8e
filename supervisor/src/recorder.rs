//! `sublet serve --record FILE`: every delivered call becomes a row of a trace for `sublet what-if`.
//!
//! Calls note their arrival and their end; rows come out in the order of arrival and are written by a thread of their own,
//! behind a bounded queue: a disk that is slow or full costs rows, which are counted, and never a call its time. The file has
//! whole rows at any time.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
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
/// Bytes that are written together.
const WRITE_BYTES: usize = 8192;
/// A disk that refuses is told of at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A trace that is being written.
#[derive(Debug)]
pub struct Recorder {
    origin: Instant,
    state: Mutex<State>,
    lost: Arc<AtomicU64>,
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
        let mut writer = Writer::new(Whole { file, size: 0, pending: Vec::new() })?;
        writer.output().flush()?;
        let (out, rows) = sync_channel(QUEUE_ROWS);
        let lost = Arc::new(AtomicU64::new(0));
        let refused = lost.clone();
        let writer =
            std::thread::Builder::new().name("sublet-record".into()).spawn(move || write(writer, &rows, &refused))?;
        let state = State { rows: InOrder::default(), out: Some(out), writer: Some(writer) };
        Ok(Self { origin: Instant::now(), state: Mutex::new(state), lost })
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
    /// When the disk refused something at any time.
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

/// A file that is written to in whole rows, all of what is pending or nothing.
#[derive(Debug)]
struct Whole {
    file: File,
    size: u64,
    pending: Vec<u8>,
}

impl io::Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.file.write_all_at(&self.pending, self.size);
        match &written {
            Ok(()) => self.size += self.pending.len() as u64,
            // Half a row would make the trace unreadable, and with it all rows that come later.
            Err(_) => drop(self.file.set_len(self.size)),
        }
        self.pending.clear();
        written
    }
}

/// Goes on where the disk refuses: there may be room again.
fn write(mut writer: Writer<Whole>, rows: &Receiver<Row>, lost: &AtomicU64) -> io::Result<()> {
    let (mut refused, mut told) = (None, None::<Instant>);
    let mut count = 0;
    let mut flush = |out: &mut Whole, count: &mut u64| {
        if let Err(error) = out.flush() {
            lost.fetch_add(*count, Ordering::Relaxed);
            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                told = Some(Instant::now());
                tracing::error!(%error, lost = lost.load(Ordering::Relaxed), "the trace cannot be written; it lacks calls");
            }
            refused.get_or_insert(error);
        }
        *count = 0;
    };
    for row in rows {
        writer.write(&row)?;
        count += 1;
        if writer.output().pending.len() >= WRITE_BYTES {
            flush(writer.output(), &mut count);
        }
    }
    flush(writer.output(), &mut count);
    let out = writer.finish()?;
    refused.map_or(Ok(()), Err)?;
    out.file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at_us: u64) -> Row {
        let token = |text: &str| Token::try_from(text).unwrap();
        let (tenant, function, sub_tenant) = (token("acme"), token("f"), token("s"));
        Row { at_us, tenant, function, sub_tenant, service_us: 7, outcome: Outcome::Ok }
    }

    #[test]
    fn rows_that_the_disk_refuses_are_counted_and_those_before_and_after_are_whole() {
        let path = std::env::temp_dir().join(format!("sublet-recorder-{}", std::process::id()));
        let file = create(&path).unwrap();
        let mut writer = Writer::new(Whole { file, size: 0, pending: Vec::new() }).unwrap();
        let text = || std::fs::read_to_string(&path).unwrap();
        writer.write(&row(1)).unwrap();
        writer.output().flush().unwrap();
        let before = text();
        // It takes nothing while it is open for reading alone.
        let taking = std::mem::replace(&mut writer.output().file, File::open(&path).unwrap());
        writer.write(&row(2)).unwrap();
        assert!(writer.output().flush().is_err());
        assert_eq!(text(), before);
        writer.output().file = taking;
        writer.write(&row(3)).unwrap();
        writer.output().flush().unwrap();
        assert_eq!(text(), format!("{before}3,acme,f,s,7,ok\n"));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn recording_goes_on_after_a_refusal_and_says_in_the_end_that_there_was_one() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let writer = Writer::new(Whole { file: full, size: 0, pending: Vec::new() }).unwrap();
        let (out, rows) = sync_channel(10);
        (1..=3).for_each(|at| out.send(row(at)).unwrap());
        drop(out);
        let lost = AtomicU64::new(0);
        assert_eq!(write(writer, &rows, &lost).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(lost.into_inner(), 3);
    }
}
