//! A bounded queue of lines and the thread that writes them. Whoever puts a line in never waits for whoever reads it.
//!
//! `tracing_appender::non_blocking` is the known crate for this. It bounds lines and not bytes, does not tell in the log
//! itself what was lost, and has no place for what is told between lines; so this is ours.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Bytes of lines that wait at the most, with [`LINE_COST`] for each.
pub const QUEUE_BYTES: usize = 256 * 1024;
/// Counted for each line beside its bytes: an empty one is not free.
const LINE_COST: usize = 64;
/// Once a line did not fit, none is taken until so much is left: losses are told together, and not line by line.
const ROOM_AGAIN_BYTES: usize = QUEUE_BYTES / 2;
/// How often the thread asks for what is told between lines.
const DUE_EVERY: Duration = Duration::from_secs(60);

/// Lines that nobody will find in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Makes the bytes that are written. Called by the thread alone.
pub trait Source: Send + Sync {
    /// A line as it is shown.
    fn shown(&self, line: &[u8]) -> Vec<u8>;
    /// The line that tells what was lost before it.
    fn lost(&self, lost: Lost) -> Vec<u8>;
    /// Lines that are due now.
    fn due(&self) -> Vec<Vec<u8>>;
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// So many were lost here.
    Lost(Lost),
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Not told yet; while there are any, no line is taken until there is room again.
    lost: Lost,
    /// The thread has lines that it has not written yet.
    is_writing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or all has been written.
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way in.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<Shared>);

impl Queue {
    /// Starts the thread that writes to `out`, once for each queue. It lives as long as the process does.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(&self, out: File, source: Arc<dyn Source>) -> io::Result<()> {
        let shared = self.0.clone();
        std::thread::Builder::new().name("sublet-own-log".into()).spawn(move || run(&shared, &out, &*source)).map(drop)
    }

    /// Puts a line in, or counts it as lost. Never waits for a reader.
    pub fn push(&self, line: &[u8]) {
        self.0.state().push(line);
        self.0.changed.notify_all();
    }

    /// Waits until all has been written, for `patience` at the longest. Whether it has.
    pub fn finish(&self, patience: Duration) -> bool {
        let is_busy = |state: &mut State| state.is_writing || !state.items.is_empty() || state.lost != Lost::default();
        let waited = self.0.changed.wait_timeout_while(self.0.state(), patience, is_busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !is_busy(&mut state)
    }
}

/// An event of `tracing` comes in one piece.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    fn push(&mut self, line: &[u8]) {
        let room = if self.lost == Lost::default() { QUEUE_BYTES } else { ROOM_AGAIN_BYTES };
        let cost = line.len() + LINE_COST;
        if self.bytes + cost > room {
            self.lost.lines += 1;
            self.lost.bytes += line.len() as u64;
            return;
        }
        self.mark_lost();
        self.bytes += cost;
        self.items.push_back(Item::Line(line.to_vec()));
    }

    /// Puts what was lost where it was lost.
    fn mark_lost(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost != Lost::default() {
            self.items.push_back(Item::Lost(lost));
        }
    }

    fn pop(&mut self) -> Option<Item> {
        if self.items.is_empty() {
            self.mark_lost();
        }
        let item = self.items.pop_front()?;
        if let Item::Line(line) = &item {
            self.bytes -= line.len() + LINE_COST;
        }
        Some(item)
    }
}

/// Where lines go, and what it has refused: a disk that is full, or a file that may not grow, may take lines again later.
struct Out<'a> {
    file: &'a File,
    source: &'a dyn Source,
    refused: Lost,
}

impl Out<'_> {
    fn put(&mut self, line: &[u8]) {
        if self.refused != Lost::default() && write_all(self.file, &self.source.lost(self.refused)).is_ok() {
            self.refused = Lost::default();
        }
        if self.refused != Lost::default() || write_all(self.file, &self.source.shown(line)).is_err() {
            self.refused.lines += 1;
            self.refused.bytes += line.len() as u64;
        }
    }

    fn put_lost(&mut self, lost: Lost) {
        self.refused.lines += lost.lines;
        self.refused.bytes += lost.bytes;
        if write_all(self.file, &self.source.lost(self.refused)).is_ok() {
            self.refused = Lost::default();
        }
    }
}

fn run(shared: &Shared, out: &File, source: &dyn Source) {
    let mut out = Out { file: out, source, refused: Lost::default() };
    let mut asked = Instant::now();
    loop {
        let item = {
            let mut state = shared.state();
            state.is_writing = false;
            let item = state.pop();
            state.is_writing = item.is_some();
            shared.changed.notify_all();
            if item.is_none() {
                let is_empty = |state: &mut State| state.items.is_empty() && state.lost == Lost::default();
                let waited = shared.changed.wait_timeout_while(state, DUE_EVERY, is_empty);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
            item
        };
        match item {
            Some(Item::Line(line)) => out.put(&line),
            Some(Item::Lost(lost)) => out.put_lost(lost),
            None => {}
        }
        if asked.elapsed() >= DUE_EVERY {
            asked = Instant::now();
            for line in source.due() {
                out.put(&line);
            }
        }
    }
}

/// Writes all of it, however long the reader takes: also where somebody has made the descriptor non-blocking, which holds
/// for everybody who has the same pipe.
///
/// # Errors
/// The reader has gone, or the disk is full.
pub fn write_all(mut out: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        os::fd::OwnedFd,
    };

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    struct Plain;

    impl Source for Plain {
        fn shown(&self, line: &[u8]) -> Vec<u8> {
            line.to_vec()
        }
        fn lost(&self, lost: Lost) -> Vec<u8> {
            format!("lost {} {}\n", lost.lines, lost.bytes).into_bytes()
        }
        fn due(&self) -> Vec<Vec<u8>> {
            Vec::new()
        }
    }

    fn started() -> (Queue, OwnedFd) {
        let (read, write) = nix::unistd::pipe().unwrap();
        {
            let queue = Queue::default();
            queue.start(write.into(), Arc::new(Plain)).unwrap();
            (queue, read)
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_was_lost_is_told_where_it_was_lost() {
        let (queue, read) = started();
        let line = |number: u32| format!("{number:099}\n");
        let begin = Instant::now();
        for number in 0..100_000 {
            queue.push(line(number).as_bytes());
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "10 MB into a pipe of 64 KiB");
        assert!(queue.0.state().bytes <= QUEUE_BYTES);
        let begin = Instant::now();
        assert!(!queue.finish(Duration::from_millis(50)), "nobody has read it");
        assert!(begin.elapsed() < Duration::from_secs(5));

        let mut lines = BufReader::new(File::from(read)).lines().map(Result::unwrap);
        let mut kept = 0;
        let lost = loop {
            let text = lines.next().unwrap();
            if text.starts_with("lost") {
                break text;
            }
            assert_eq!(text.parse::<u32>().unwrap(), kept, "in order");
            kept += 1;
        };
        let count = 100_000 - kept;
        assert_eq!(lost, format!("lost {count} {}", count * 100), "each line is written or counted");
        queue.push(b"after\n");
        assert_eq!(lines.next().unwrap(), "after");
        assert!(queue.finish(Duration::from_secs(10)));
    }

    #[test]
    fn lines_are_taken_again_when_half_of_the_room_is_free() {
        let mut state = State::default();
        let line = vec![b'x'; 1024 - LINE_COST];
        for _ in 0..300 {
            state.push(&line);
        }
        assert_eq!((state.items.len(), state.lost.lines), (256, 44));
        for _ in 0..128 {
            state.pop();
            state.push(&line);
        }
        assert_eq!((state.items.len(), state.lost.lines), (128, 172), "told together, not line by line");
        state.pop();
        state.push(&line);
        assert!(matches!(state.items[127], Item::Lost(Lost { lines: 172, .. })), "{:?}", state.items[127]);
        assert!(matches!(state.items.back(), Some(Item::Line(_))) && state.lost == Lost::default());
        // One that can never fit is lost alone.
        let mut state = State::default();
        state.push(&vec![0; QUEUE_BYTES]);
        state.push(b"x");
        assert_eq!(state.items.len(), 2);
    }

    #[test]
    fn lines_that_the_file_refuses_are_counted_and_told_when_it_takes_some_again() {
        let refusing = File::open("/dev/null").unwrap();
        let mut out = Out { file: &refusing, source: &Plain, refused: Lost::default() };
        out.put(b"one\n");
        out.put_lost(Lost { lines: 5, bytes: 50 });
        out.put(b"two\n");
        assert_eq!(out.refused, Lost { lines: 7, bytes: 58 });
        let (read, write) = nix::unistd::pipe().unwrap();
        let taking = File::from(write);
        out.file = &taking;
        out.put(b"three\n");
        out.put(b"four\n");
        drop(taking);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "lost 7 58\nthree\nfour\n");
    }

    #[test]
    fn descriptor_that_somebody_made_non_blocking_loses_nothing() {
        let (read, write) = nix::unistd::pipe().unwrap();
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let out = File::from(write);
        let writing = std::thread::spawn(move || write_all(&out, &vec![7; 1 << 20]));
        std::thread::sleep(Duration::from_millis(20));
        let mut seen = Vec::new();
        File::from(read).read_to_end(&mut seen).unwrap();
        writing.join().unwrap().unwrap();
        assert_eq!(seen, vec![7; 1 << 20]);
    }
}
