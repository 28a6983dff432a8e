//! The thread that looks at the loop from beside it, and tells operators when it stands still.

use std::{
    fmt, io,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use super::{BEAT, Pulse};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(250);
/// So late, the loop stands still: calls that take a fraction of a millisecond have waited a thousand times as long.
const LATE: Duration = Duration::from_secs(1);

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It has not run for so long.
    StandsStill(Duration),
    /// It runs again, after it had not for so long.
    Runs(Duration),
    /// Nothing of the process has run for so long.
    WasStopped(Duration),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: &Duration| format!("{:.1}s", time.as_secs_f64());
        match self {
            Self::StandsStill(time) => write!(
                f,
                "the supervisor's loop has not run for {}: calls, deadlines and a stop wait for it; if it stays so, end it \
                 by SIGKILL, the nursery cleans up (systemd does it by itself with WatchdogSec)",
                seconds(time)
            ),
            Self::Runs(time) => write!(f, "the supervisor's loop runs again; it stood still for {}", seconds(time)),
            Self::WasStopped(time) => write!(
                f,
                "the whole supervisor stood still for {}: it was stopped (SIGSTOP, a debugger, a frozen group), or had no \
                 processor",
                seconds(time)
            ),
        }
    }
}

/// What was seen so far.
#[derive(Debug)]
struct Look {
    last: Instant,
    /// The lateness that was told last, of a loop that stands still.
    told: Option<Duration>,
    /// When the whole process was seen to go on after a stop: nothing before it is the loop's.
    since: Instant,
}

impl Look {
    fn new(now: Instant) -> Self {
        Self { last: now, told: None, since: now }
    }

    /// Looks, [`LOOK`] after the last time if all is well. `beat`: when the loop was seen to run.
    fn at(&mut self, now: Instant, beat: Instant) -> Option<Word> {
        let own = now.saturating_duration_since(std::mem::replace(&mut self.last, now)).saturating_sub(LOOK);
        if own >= LATE {
            (self.since, self.told) = (now, None);
            return Some(Word::WasStopped(own));
        }
        let late = now.saturating_duration_since(beat.max(self.since)).saturating_sub(BEAT);
        if late < LATE {
            return self.told.take().map(Word::Runs);
        }
        match self.told {
            // Not line after line: each says twice as long as the one before.
            Some(told) if late < 2 * told => None,
            Some(_) | None => {
                self.told = Some(late);
                Some(Word::StandsStill(late))
            }
        }
    }
}

/// Starts it. It ends with the pulse. Not before the process has confined itself.
///
/// # Errors
/// There is no thread for it.
pub fn start(pulse: &Arc<Pulse>) -> io::Result<()> {
    let pulse = Arc::downgrade(pulse);
    thread::Builder::new().name("sublet-watch".into()).spawn(move || run(&pulse)).map(drop)
}

fn run(pulse: &Weak<Pulse>) {
    let mut look = Look::new(Instant::now());
    loop {
        thread::sleep(LOOK);
        let Some(pulse) = pulse.upgrade() else { return };
        match look.at(Instant::now(), pulse.last()) {
            Some(word @ Word::StandsStill(_)) => tracing::error!("{word}"),
            Some(word @ (Word::Runs(_) | Word::WasStopped(_))) => tracing::warn!("{word}"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every [`LOOK`] until so long after the start; the loop beat last at `beat`.
    fn looks(look: &mut Look, start: Instant, from: u32, until: u32, beat: Instant) -> Vec<Word> {
        (from..until).filter_map(|times| look.at(start + times * LOOK, beat)).collect()
    }

    #[test]
    fn loop_that_stands_still_is_told_once_for_each_doubling_and_when_it_runs_again() {
        let start = Instant::now();
        let mut look = Look::new(start);
        let told = looks(&mut look, start, 1, 24, start);
        let late = |times: u32| times * LOOK - BEAT;
        assert_eq!(told, [late(5), late(10), late(20)].map(Word::StandsStill));
        let now = start + 24 * LOOK;
        assert_eq!(look.at(now, now), Some(Word::Runs(late(20))));
        assert_eq!(look.at(now + LOOK, now + LOOK), None);
    }

    #[test]
    fn loop_that_is_a_little_late_is_not_told() {
        let start = Instant::now();
        let mut look = Look::new(start);
        assert_eq!(looks(&mut look, start, 1, 5, start), []);
    }

    #[test]
    fn process_that_was_stopped_is_told_as_such_and_its_loop_is_given_time() {
        let start = Instant::now();
        let mut look = Look::new(start);
        let stopped = Duration::from_secs(5);
        let now = start + LOOK + stopped;
        assert_eq!(look.at(now, start), Some(Word::WasStopped(stopped)));
        assert_eq!(look.at(now + LOOK, start), None);
        // It has had its time.
        let later = now + LATE + BEAT;
        look.last = later - LOOK;
        assert_eq!(look.at(later, start), Some(Word::StandsStill(LATE)));
    }
}
