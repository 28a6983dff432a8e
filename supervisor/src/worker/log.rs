//! What a function writes to stdout and stderr: the tail is kept, the rate is bounded, and every line goes to the logs.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::{
    io::Interest,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    hex::hex,
    logs::{
        capture::Capture,
        report::{self, Report},
        words::Words,
    },
};

/// Read at once; what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// A worker's log is read at most this fast: [`WINDOW_BYTES`] each [`WINDOW`]. One that writes faster waits in its own
/// write(2); the supervisor's time belongs to all sub-tenants.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_BYTES: usize = 1024 * 1024;
/// What a read has to bring for the next one to follow at once. A worker that writes byte by byte is read this much more
/// rarely ([`SMALL_PAUSE`]): its bytes wait in the pipe and wake nobody.
const LARGE_BYTES: usize = 8 * 1024;
/// Pause after a read that brought less.
const SMALL_PAUSE: Duration = Duration::from_millis(5);

thread_local! {
    /// Every call looks into a pipe that is empty as a rule; that must not cost a cleared buffer each time.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The tail of one worker's log.
#[derive(Debug)]
pub struct Log {
    limit: usize,
    tail: Mutex<Tail>,
}

#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    /// Bytes ever taken in.
    total: u64,
    /// Of these, the function's.
    theirs: u64,
    /// Where sublet's own lines begin, counted as `total`; those that are kept whole.
    platform: VecDeque<u64>,
    /// When the last of them were.
    written: Option<Instant>,
    pipe: Option<OwnedFd>,
    /// Once it is known whose the lines are. Nothing of a function's runs before.
    capture: Option<Capture>,
}

/// A point in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    total: u64,
    theirs: u64,
}

impl Log {
    /// An empty log that keeps `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, tail: Mutex::default() }
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on lines go to the logs as well.
    pub fn attach(&self, capture: Capture) {
        self.tail().capture = Some(capture);
    }

    /// The worker is given a call: what is written from here on, what is still in the pipe not included, is the call's.
    pub fn begin(&self, request: [u8; 16], revision: impl FnOnce() -> String) -> Mark {
        let mut tail = self.tail();
        tail.drain(self.limit);
        let mark = Mark { total: tail.total, theirs: tail.theirs };
        if let Some(capture) = &mut tail.capture {
            capture.begin(request);
            if capture.has_report_lines() {
                let line = report::start(&hex(&request), &revision());
                tail.say(&line, self.limit);
            }
        }
        mark
    }

    /// The lines that end a call's log, where the function has them; once, whoever says so.
    pub fn report(&self, report: &Report<'_>) {
        let mut tail = self.tail();
        if tail.capture.as_mut().is_some_and(Capture::wants_report) {
            tail.drain(self.limit);
            tail.say(&report::end(report), self.limit);
        }
    }

    /// The worker has no call any more.
    pub fn end(&self) {
        let mut tail = self.tail();
        tail.drain(self.limit);
        if let Some(capture) = &mut tail.capture {
            capture.end();
        }
    }

    /// What is kept of what was written since `mark`.
    pub fn since(&self, mark: Mark) -> Words {
        let mut tail = self.tail();
        tail.drain(self.limit);
        tail.words(mark.total)
    }

    /// As [`Self::since`], for a worker that has died: when the function wrote nothing since `mark`, all that is kept, for
    /// the line that explains it may have come between two calls. Whether that is more.
    pub fn since_or_before(&self, mark: Mark) -> (Words, bool) {
        let mut tail = self.tail();
        tail.drain(self.limit);
        let is_silent = tail.theirs == mark.theirs && mark.theirs > 0;
        (tail.words(if is_silent { 0 } else { mark.total }), is_silent)
    }

    /// Whether nothing has been written for so long.
    pub fn is_quiet_for(&self, time: Duration) -> bool {
        let mut tail = self.tail();
        tail.drain(self.limit);
        tail.written.is_none_or(|written| written.elapsed() >= time)
    }

    /// All that is kept.
    pub fn all(&self) -> Words {
        self.since(Mark { total: 0, theirs: 0 })
    }

    /// Takes the read end of the pipe over and reads it to its end.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub async fn run(&self, pipe: OwnedFd) -> io::Result<()> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // Two descriptors of one pipe: this one wakes the loop, the other is read by whoever asks for the log first.
        let mut wakes = crate::sys::register(pipe.try_clone()?, Interest::READABLE)?;
        self.tail().pipe = Some(pipe);
        let (mut window_end, mut taken) = (Instant::now() + WINDOW, 0);
        loop {
            let mut ready = wakes.readable().await?;
            let read = self.tail().read(self.limit);
            let is_small = matches!(read, Ok(length) if 0 < length && length < LARGE_BYTES);
            match read {
                Ok(0) => {
                    if let Some(capture) = &mut self.tail().capture {
                        capture.close();
                    }
                    return Ok(());
                }
                Ok(bytes) => taken += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
            }
            if taken >= WINDOW_BYTES {
                sleep_until(window_end).await;
            }
            if is_small {
                // While it is registered, each byte that comes wakes the event loop.
                let pipe = wakes.into_inner();
                sleep(SMALL_PAUSE).await;
                wakes = crate::sys::register(pipe, Interest::READABLE)?;
            }
            if Instant::now() >= window_end {
                (window_end, taken) = (Instant::now() + WINDOW, 0);
            }
        }
    }
}

impl Tail {
    /// Reads once. 0 at the end of the pipe.
    fn read(&mut self, limit: usize) -> io::Result<usize> {
        BUFFER.with_borrow_mut(|buffer| {
            let Some(pipe) = &self.pipe else { return Err(io::ErrorKind::WouldBlock.into()) };
            let length = nix::unistd::read(pipe.as_fd(), buffer)?;
            self.take_in(&buffer[..length], limit);
            Ok(length)
        })
    }

    /// Takes sublet's own lines in, among those of the function; where they begin is remembered.
    fn say(&mut self, text: &str, limit: usize) {
        if let Some(capture) = &mut self.capture {
            capture.say(text);
        }
        if self.bytes.back().is_some_and(|last| *last != b'\n') {
            self.keep(b"\n", limit);
        }
        for line in text.split_inclusive('\n') {
            self.platform.push_back(self.total);
            self.keep(line.as_bytes(), limit);
        }
    }

    /// What is kept of what came after the first `from` bytes.
    fn words(&self, from: u64) -> Words {
        let wanted = usize::try_from(self.total - from).unwrap_or(usize::MAX).min(self.bytes.len());
        let start = self.total - wanted as u64;
        let place = |at: &u64| u32::try_from(at.checked_sub(start)?).ok();
        Words {
            bytes: self.bytes.iter().skip(self.bytes.len() - wanted).copied().collect(),
            platform_lines: self.platform.iter().filter_map(place).collect(),
        }
    }

    /// Reads what is there now; at most what a pipe holds, so that a flood does not keep the reader.
    fn drain(&mut self, limit: usize) {
        if self.read(limit).is_ok_and(|length| length > 0) {
            // A pipe's pages need not be full: one more look gets the rest of what was there.
            drop(self.read(limit));
        }
    }

    fn take_in(&mut self, bytes: &[u8], limit: usize) {
        if let Some(capture) = &mut self.capture {
            capture.take_in(bytes);
        }
        self.theirs += bytes.len() as u64;
        self.keep(bytes, limit);
    }

    fn keep(&mut self, bytes: &[u8], limit: usize) {
        self.total += bytes.len() as u64;
        self.written = Some(Instant::now());
        let kept = &bytes[bytes.len().saturating_sub(limit)..];
        let over = (self.bytes.len() + kept.len()).saturating_sub(limit);
        self.bytes.drain(..over);
        self.bytes.extend(kept);
        let first = self.total - self.bytes.len() as u64;
        while self.platform.front().is_some_and(|at| *at < first) {
            self.platform.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_last_bytes_and_counts_all() {
        let log = Log::new(4);
        log.tail().take_in(b"abc", 4);
        let mark = log.begin([0; 16], String::new);
        log.tail().take_in(b"de", 4);
        assert_eq!(log.all().bytes, "bcde");
        assert_eq!(log.since(mark).bytes, "de");
        log.tail().take_in(b"0123456789", 4);
        assert_eq!(log.all().bytes, "6789");
        assert_eq!(log.since(mark).bytes, "6789", "what is gone is gone");
    }

    #[test]
    fn own_lines_are_told_apart_from_forged_ones_as_long_as_they_are_whole() {
        let log = Log::new(40);
        log.tail().say("START 1\n", 40);
        log.tail().take_in(b"END 1\nopen", 40);
        log.tail().say("END 1\nREPORT 1\n", 40);
        let words = log.all();
        assert_eq!(words.bytes, "START 1\nEND 1\nopen\nEND 1\nREPORT 1\n");
        assert_eq!(words.platform_lines, [0, 19, 25]);
        log.tail().take_in(b"0123456789", 40);
        let words = log.all();
        assert_eq!((&words.bytes[..7], &words.platform_lines[..]), (&b"T 1\nEND"[..], &[15, 21][..]));
        assert_eq!(log.tail().platform.len(), 2, "nothing is remembered of what is gone");
    }

    #[test]
    fn silence_before_death_lets_the_tail_reach_back() {
        let log = Log::new(100);
        let mark = log.begin([0; 16], String::new);
        assert_eq!(log.since_or_before(mark), (Words::default(), false), "there is nothing to reach back to");
        log.tail().take_in(b"out of handles\n", 100);
        let mark = log.begin([0; 16], String::new);
        log.tail().say("REPORT\n", 100);
        assert_eq!(log.since(mark).bytes, "REPORT\n");
        let (words, is_more) = log.since_or_before(mark);
        assert_eq!((&words.bytes[..], is_more), (&b"out of handles\nREPORT\n"[..], true));
        log.tail().take_in(b"now\n", 100);
        assert_eq!(log.since_or_before(mark), (log.since(mark), false));
    }

    #[tokio::test]
    async fn log_is_read_to_its_end() {
        let (read, write) = nix::unistd::pipe().unwrap();
        nix::unistd::write(&write, b"hello").unwrap();
        drop(write);
        let log = Log::new(100);
        log.run(read).await.unwrap();
        assert_eq!(log.all().bytes, "hello");
    }
}
