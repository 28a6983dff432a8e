//! Whether processors are short, by how a thread fares that does not want to sleep.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

/// So much is looked at together: for less, it is chance who waits.
const WINDOW: Duration = Duration::from_millis(10);
/// Who waits for more than so many hundredths of it has a processor that others want too. With two processors and nothing else
/// on them a call's processes, which take turns, make each other wait for some 10 to 20; with a program that computes on each
/// of the two it is more than this for most of the time.
const WAITS_MAX_PERCENT: u32 = 35;
/// How long it then counts as short, before it is tried again; twice as long each time in a row.
const PAUSE: Duration = Duration::from_millis(100);
/// So often twice as long: 1.6 s, of which what is tried is a few hundredths at most.
const DOUBLED_MAX: u32 = 4;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Shortage {
    passed: Duration,
    waited: Duration,
    until: Option<Instant>,
    /// In a row.
    found: u32,
}

impl Shortage {
    /// Whether it is to be reckoned with.
    pub fn is_there(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Takes in that a thread has not wanted to sleep for a time, and has waited for a processor for a part of it.
    pub fn learn(&mut self, now: Instant, passed: Duration, waited: Duration) {
        self.passed += passed;
        self.waited += waited;
        if self.passed < WINDOW {
            return;
        }
        let found =
            if self.waited * 100 > self.passed * WAITS_MAX_PERCENT { (self.found + 1).min(DOUBLED_MAX + 1) } else { 0 };
        let until = found.checked_sub(1).map(|doubled| now + PAUSE * (1 << doubled));
        *self = Self { until, found, ..Self::default() };
    }
}

/// A time in which the thread does not want to sleep.
#[derive(Debug)]
pub struct Awake {
    thread: ThreadId,
    since: Instant,
    ran: Duration,
    waited: Option<Duration>,
}

impl Awake {
    /// It begins now; none where there is no clock for it.
    pub fn begin() -> Option<Self> {
        Some(Self { thread: thread::current().id(), since: Instant::now(), ran: ran()?, waited: waited() })
    }

    /// How much time has passed, and for how much of it the thread waited for a processor; none when it has ended on another.
    pub fn end(self) -> Option<(Duration, Duration)> {
        if thread::current().id() != self.thread {
            return None;
        }
        let ran = ran()?.saturating_sub(self.ran);
        let passed = self.since.elapsed();
        let rest = passed.saturating_sub(ran);
        if rest < passed / 8 {
            return Some((passed, Duration::ZERO));
        }
        // It did not run; but on a virtual machine that may be for others than ours.
        let waited = self.waited.zip(waited()).map(|(before, now)| now.saturating_sub(before));
        Some((passed, waited.unwrap_or(rest).min(passed)))
    }
}

/// How long this thread has run so far.
fn ran() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

thread_local! {
    /// Nanoseconds that the thread ran, nanoseconds that it waited for a processor, and how often it ran
    /// (Documentation/scheduler/sched-stats.rst of the kernel). Not every kernel is built to tell.
    static SCHEDSTAT: Option<File> = File::open("/proc/thread-self/schedstat").ok();
}

/// How long this thread has waited for a processor so far.
fn waited() -> Option<Duration> {
    let mut buffer = [0; 128];
    let length = SCHEDSTAT.with(|file| file.as_ref()?.read_at(&mut buffer, 0).ok())?;
    second(&buffer[..length]).map(Duration::from_nanos)
}

fn second(numbers: &[u8]) -> Option<u64> {
    str::from_utf8(numbers).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn shortage_is_found_in_a_whole_window_and_ends() {
        let (mut shortage, mut now) = (Shortage::default(), Instant::now());
        assert!(!shortage.is_there(now));
        for _ in 0..9 {
            shortage.learn(now, MS, MS);
            assert!(!shortage.is_there(now), "too little to go by");
        }
        shortage.learn(now, MS, MS);
        for expected in [1, 2, 4, 8, 16, 16].map(|times| times * PAUSE) {
            assert!(shortage.is_there(now + expected - MS) && !shortage.is_there(now + expected), "{expected:?}");
            now += expected;
            shortage.learn(now, WINDOW, WINDOW / 2);
        }
        shortage.learn(now, WINDOW, Duration::ZERO);
        assert!(!shortage.is_there(now), "it was tried again, and all is well");
        shortage.learn(now, WINDOW, WINDOW / 2);
        assert!(!shortage.is_there(now + PAUSE), "and the next one begins anew");
    }

    #[test]
    fn some_waiting_is_no_shortage() {
        let (mut shortage, now) = (Shortage::default(), Instant::now());
        for _ in 0..100 {
            shortage.learn(now, 5 * MS, MS);
            assert!(!shortage.is_there(now));
        }
        let most = WINDOW * WAITS_MAX_PERCENT / 100;
        shortage.learn(now, WINDOW, most);
        assert!(!shortage.is_there(now));
        shortage.learn(now, WINDOW, most + Duration::from_nanos(1));
        assert!(shortage.is_there(now));
    }

    #[test]
    fn what_a_thread_waits_is_known_of_itself_alone() {
        let awake = Awake::begin().unwrap();
        let begin = Instant::now();
        while begin.elapsed() < MS {}
        let (passed, waited) = awake.end().unwrap();
        assert!(passed >= MS && waited <= passed, "{waited:?} of {passed:?}");
        let awake = Awake::begin().unwrap();
        assert!(thread::spawn(|| awake.end()).join().unwrap().is_none(), "of two threads nothing is known");
    }

    #[test]
    fn second_number_is_what_was_waited() {
        assert_eq!(second(b"67247503 834036 89\n"), Some(834_036));
        for wrong in [&b""[..], b"1", b"1 x 3", b"1 -2 3", b"\xff 2 3"] {
            assert_eq!(second(wrong), None, "{wrong:?}");
        }
    }
}
