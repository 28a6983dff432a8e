//! Where logs are written besides memory: a thread that reads the ring as any other reader does. A slow disk, or a pipe that
//! nobody reads, costs lines, which are counted, and never a worker its time.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;

use super::{
    Logs,
    files::{Dir, DirError, Files},
    ring::Batch,
};
use crate::{
    config::{Host, LogTo},
    events::troubles::{About, Troubles},
    own_log::queue::write_all,
    printable,
    timestamp::rfc3339,
};

/// How long the thread sleeps at the longest, and so how soon it sees that it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the end waits for what is still to be written.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Written at once at the most, in bytes; also what a file may be too large by.
const WRITE_BYTES: usize = 256 * 1024;
/// A place that refuses is told of at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A place that has been opened, with root's rights where it needs them.
#[derive(Debug)]
pub enum Place {
    /// Standard output.
    Stdout(File),
    /// Files in a directory, each of so many bytes, and so many of them.
    Files(Dir, u64, u32),
}

/// Opens what the configuration says.
///
/// # Errors
/// The directory cannot be used.
pub fn open(host: &Host) -> Result<Option<Place>, DirError> {
    match &host.log {
        LogTo::None => Ok(None),
        LogTo::Stdout => {
            let copy = io::stdout().as_fd().try_clone_to_owned();
            let copy =
                copy.map_err(|error| DirError::Os { what: "copy standard output for", path: String::new(), error })?;
            Ok(Some(Place::Stdout(copy.into())))
        }
        LogTo::Files { dir, size, count } => {
            Ok(Some(Place::Files(Dir::open(dir.as_path(), host.supervisor_uid)?, size.bytes(), *count)))
        }
    }
}

/// The thread that writes.
#[derive(Debug)]
pub struct Sink {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sink {
    /// Starts to write everything that comes from now on.
    ///
    /// # Errors
    /// When the file cannot be made, or the thread.
    pub fn start(place: Place, logs: Arc<Logs>, troubles: Arc<Troubles>) -> io::Result<Self> {
        let out = match place {
            Place::Stdout(file) => Out::Stdout(file),
            Place::Files(dir, size, count) => Out::Files(Files::open(dir, size, count)?),
        };
        let ends = Arc::new(AtomicBool::new(false));
        let until = ends.clone();
        let thread = std::thread::Builder::new()
            .name("sublet-logs".into())
            .spawn(move || Writer::new(out, troubles).run(&logs, &until))?;
        Ok(Self { ends, thread })
    }

    /// Waits until what there is has been written; not for a place that does not take it.
    pub fn finish(self) {
        self.ends.store(true, Ordering::SeqCst);
        let end = Instant::now() + END_PATIENCE;
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !self.thread.is_finished() {
            tracing::warn!("host.log takes no more: its last lines are lost");
        }
    }
}

#[derive(Debug)]
enum Out {
    Stdout(File),
    Files(Files),
}

impl Out {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(file) => write_all(file, lines),
            Self::Files(files) => files.write(lines),
        }
    }
}

struct Writer {
    out: Out,
    /// Records that nobody will find there.
    lost: u64,
    told: Option<Instant>,
    troubles: Arc<Troubles>,
    /// Whether the last write failed.
    fails: bool,
}

impl Writer {
    const fn new(out: Out, troubles: Arc<Troubles>) -> Self {
        Self { out, lost: 0, told: None, troubles, fails: false }
    }

    fn run(mut self, logs: &Logs, ends: &AtomicBool) {
        let mut next = 0;
        loop {
            // Looked at first: what came before it was set is still written.
            let is_last = ends.load(Ordering::SeqCst);
            let batch = logs.wait(next, if is_last { Duration::ZERO } else { LOOK_EVERY });
            next = batch.next;
            if is_last && batch.records.is_empty() {
                return;
            }
            self.lost += batch.lost;
            self.write(&batch);
        }
    }

    fn write(&mut self, batch: &Batch) {
        let mut text = Vec::new();
        let mut count = 0;
        for (_, record) in &batch.records {
            count += 1;
            // `journalctl` and `cat` show it on terminals.
            text.extend_from_slice(printable::json(&record.to_json()).as_bytes());
            text.push(b'\n');
            if text.len() >= WRITE_BYTES {
                self.put(&mut text, &mut count);
            }
        }
        self.put(&mut text, &mut count);
    }

    fn put(&mut self, text: &mut Vec<u8>, count: &mut u64) {
        if text.is_empty() {
            return;
        }
        if self.lost > 0 {
            // Before what follows it, and kept until it has been written.
            let line = json!({ "at": rfc3339(SystemTime::now()), "lost": self.lost }).to_string() + "\n";
            text.splice(0..0, line.into_bytes());
        }
        match self.out.write(text) {
            Ok(()) => {
                self.lost = 0;
                if std::mem::take(&mut self.fails) {
                    self.troubles.set(About::Log, Vec::new());
                }
            }
            Err(error) => {
                self.lost += *count;
                if !std::mem::replace(&mut self.fails, true) {
                    self.troubles.set(About::Log, vec![format!("host.log cannot be written: {error}")]);
                }
                if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    self.told = Some(Instant::now());
                    tracing::error!(%error, lost = self.lost, "host.log cannot be written; `sublet logs` still has the last lines");
                }
            }
        }
        text.clear();
        *count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::record::tests::line;

    #[test]
    fn what_cannot_be_written_is_counted_and_told_with_the_next() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut writer = Writer::new(Out::Stdout(File::open("/dev/null").unwrap()), Arc::default());
        writer.write(&Batch { records: vec![(0, line("a").into()), (1, line("b").into())], next: 2, lost: 0 });
        assert_eq!(writer.lost, 2, "a file that is open for reading takes nothing");
        let troubles = writer.troubles.clone();
        assert!(troubles.all()[0].starts_with("host.log cannot be written"), "{troubles:?}");
        writer.out = Out::Stdout(write.into());
        writer.write(&Batch { records: vec![(2, line("c").into())], next: 3, lost: 0 });
        assert!(troubles.all().is_empty(), "{troubles:?}");
        drop(writer);
        let text = io::read_to_string(File::from(read)).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["lost"], &lines[1]["message"]), (2, &json!(2), &json!("c")));
    }

    #[test]
    fn thread_writes_all_there_is_before_it_ends() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let logs = Arc::new(Logs::new(1 << 20));
        let sink = Sink::start(Place::Stdout(write.into()), logs.clone(), Arc::default()).unwrap();
        for number in 0..100 {
            logs.take_in(vec![line(&number.to_string())]);
        }
        sink.finish();
        let text = io::read_to_string(File::from(read)).unwrap();
        assert_eq!(text.lines().count(), 100);
    }
}
