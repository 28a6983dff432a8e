//! Busy polling: to look for an answer that is due at once, over and over, instead of sleeping until it comes.
//!
//! A thread that sleeps has to be woken, and where its processor sleeps too that takes longer than many a function: on a
//! virtual machine 40 to 130 us, for whoever wakes it and for itself. So a call's task polls, but only
//!
//! - for a worker that lately answered within [`LONGEST`], and no longer than that ([`Habit`]);
//! - while no other such answer is due: with several the thread hardly sleeps, and one processor is what is spent at most;
//! - while processors are to spare ([`shortage`]): what is spent here must not be missing to a function;
//! - between any two looks letting all other tasks of the thread have their turn.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use sublet_proto::link::frame::Header;
use tokio::task::yield_now;

use super::{
    channel::{Channel, ChannelError},
    shortage::{Awake, Shortage},
};

/// What is worth polling for. Beyond, what a call gains is little of what it takes, and little of what that costs.
pub const LONGEST: Duration = Duration::from_millis(1);

/// With several calls under way one of them is alone for a moment now and then. So many in a row are no accident.
const QUIET_FROM: usize = 8;

/// To see what a thread waits costs some microseconds.
const MEASURED_OF: usize = 4;

/// Looks from one time that the thread gives its processor away to the next, if anybody is there to take it.
const YIELDS_OF: usize = 16;

/// Whether anybody may poll, and how many would.
#[derive(Debug, Default)]
pub struct BusyPoll {
    is_allowed: AtomicBool,
    due: AtomicUsize,
    /// How many in a row have been alone from the start.
    alone: AtomicUsize,
    measurable: AtomicUsize,
    shortage: Mutex<Shortage>,
}

/// Who runs of its own accord while an answer is polled for.
#[derive(Clone, Copy, Debug)]
pub enum Meanwhile {
    /// The worker.
    WorkerAlone,
    /// A caller too, who has been answered: on this host as a rule, and then it may take our processor for a moment, which is
    /// no shortage.
    CallerToo,
}

impl BusyPoll {
    /// Whether anybody may, from now on.
    pub fn allow(&self, is_allowed: bool) {
        self.is_allowed.store(is_allowed, Ordering::Relaxed);
    }

    /// An answer is due at once.
    fn due(&self) -> Due<'_> {
        match self.due.fetch_add(1, Ordering::Relaxed) {
            0 => self.alone.fetch_add(1, Ordering::Relaxed),
            _ => self.alone.swap(0, Ordering::Relaxed),
        };
        Due(self)
    }

    fn is_to_be_measured(&self) -> bool {
        self.measurable.fetch_add(1, Ordering::Relaxed).is_multiple_of(MEASURED_OF)
    }

    fn shortage(&self) -> MutexGuard<'_, Shortage> {
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One answer that is due at once; not any more when dropped, which may be in the middle.
struct Due<'a>(&'a BusyPoll);

impl Due<'_> {
    fn is_the_only_one(&self) -> bool {
        self.0.due.load(Ordering::Relaxed) == 1
    }

    /// Polls for it, for as long as it is the only one. Returns whether that was in vain.
    async fn poll(&self, channel: &mut Channel, asked: Instant, meanwhile: Meanwhile) -> Result<bool, ChannelError> {
        let awake = match meanwhile {
            Meanwhile::WorkerAlone if self.0.is_to_be_measured() => Awake::begin(),
            Meanwhile::WorkerAlone | Meanwhile::CallerToo => None,
        };
        let in_vain = self.look(channel, asked).await;
        if let Some((passed, waited)) = awake.and_then(Awake::end) {
            self.0.shortage().learn(Instant::now(), passed, waited);
        }
        in_vain
    }

    async fn look(&self, channel: &mut Channel, asked: Instant) -> Result<bool, ChannelError> {
        let mut looks = 0_usize;
        while self.is_the_only_one() && !channel.take_in()? {
            looks += 1;
            if asked.elapsed() > LONGEST {
                return Ok(true);
            }
            // Who is to answer may have been put behind us, on this very processor.
            if looks.is_multiple_of(YIELDS_OF) {
                std::thread::yield_now();
            }
            yield_now().await;
        }
        Ok(false)
    }

    fn is_worth_it(&self) -> bool {
        let BusyPoll { is_allowed, alone, .. } = self.0;
        let is_quiet = alone.load(Ordering::Relaxed) >= QUIET_FROM && self.is_the_only_one();
        is_allowed.load(Ordering::Relaxed) && is_quiet && !self.0.shortage().is_there(Instant::now())
    }
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        self.0.due.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How soon one worker says something of one kind.
#[derive(Debug)]
pub struct Pace {
    shared: Arc<BusyPoll>,
    meanwhile: Meanwhile,
    habit: Habit,
}

impl Pace {
    /// Of a worker that has not been asked yet.
    pub fn new(shared: Arc<BusyPoll>, meanwhile: Meanwhile) -> Self {
        Self { shared, meanwhile, habit: Habit::default() }
    }

    /// [`Channel::receive`], polled for while that is worth it.
    ///
    /// # Errors
    /// Its own.
    pub async fn receive(&mut self, channel: &mut Channel, limit: u32) -> Result<(Header, Bytes), ChannelError> {
        let asked = Instant::now();
        let due = self.habit.is_quick().then(|| self.shared.due());
        let in_vain = match &due {
            Some(due) if due.is_worth_it() => due.poll(channel, asked, self.meanwhile).await?,
            Some(_) | None => false,
        };
        // What was polled for in vain is not due at once, and must not keep others from being polled for.
        let due = due.filter(|_| !in_vain);
        let received = channel.receive(limit).await?;
        drop(due);
        self.habit.note(asked.elapsed(), in_vain);
        Ok(received)
    }
}

/// What is expected of one worker by what it did so far.
#[derive(Debug)]
struct Habit {
    /// So many answers that are quick enough are slept for before the next is polled for.
    rest: u8,
    /// Answers in a row that were polled for in vain.
    misses: u32,
}

impl Default for Habit {
    fn default() -> Self {
        Self { rest: 1, misses: 0 }
    }
}

impl Habit {
    /// After so many misses it gets no worse: it may have become quicker.
    const MISSES_MAX: u32 = 5;

    fn is_quick(&self) -> bool {
        self.rest == 0
    }

    fn note(&mut self, took: Duration, in_vain: bool) {
        if in_vain {
            self.misses = (self.misses + 1).min(Self::MISSES_MAX);
            self.rest = 1 << (self.misses - 1);
        } else if took <= LONGEST {
            *self = Self { rest: 0, misses: 0 };
        } else if took <= 2 * LONGEST {
            // As much again may be due to the sleep.
            self.rest = self.rest.saturating_sub(1);
        } else {
            self.rest = self.rest.max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use sublet_proto::link::frame::{Kind, MEMFD_THRESHOLD};

    use super::*;

    const NEXT: Duration = Duration::from_nanos(1);

    fn channels() -> (Channel, Channel) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(ours.into()).unwrap(), Channel::new(theirs.into()).unwrap())
    }

    #[test]
    fn nobody_polls_while_processors_are_short() {
        let shared = BusyPoll::default();
        shared.allow(true);
        (0..QUIET_FROM).for_each(|_| drop(shared.due()));
        let due = shared.due();
        assert!(due.is_worth_it());
        shared.shortage().learn(Instant::now(), Duration::from_secs(1), Duration::from_secs(1));
        assert!(!due.is_worth_it());
    }

    #[tokio::test]
    async fn frame_that_was_polled_for_is_received_as_it_was_sent() {
        let (shared, (mut ours, mut theirs)) = (BusyPoll::default(), channels());
        let due = shared.due();
        for bytes in [0, 1, 5000, 1, MEMFD_THRESHOLD + 1, 1] {
            let payload = vec![7; bytes];
            theirs.send(Header::bare(Kind::Response), &payload).await.unwrap();
            assert!(!due.poll(&mut ours, Instant::now(), Meanwhile::WorkerAlone).await.unwrap(), "{bytes}");
            let (header, received) = ours.receive(u32::MAX).await.unwrap();
            assert_eq!((header.kind, received == payload, ours.surplus()), (Kind::Response, true, 0), "{bytes}");
            // The next one is not polled for, and the event loop may have been told of the last.
            theirs.send(Header::bare(Kind::Idle), &[]).await.unwrap();
            assert_eq!(ours.receive(0).await.unwrap().0.kind, Kind::Idle, "{bytes}");
            assert!(!ours.has_unread(), "{bytes}");
        }
    }

    #[tokio::test]
    async fn frame_that_was_polled_for_in_vain_is_waited_for() {
        let (shared, (mut ours, mut theirs)) = (BusyPoll::default(), channels());
        let due = shared.due();
        assert!(due.poll(&mut ours, Instant::now(), Meanwhile::WorkerAlone).await.unwrap());
        let other = shared.due();
        assert!(
            !due.poll(&mut ours, Instant::now(), Meanwhile::WorkerAlone).await.unwrap(),
            "not the only one: not at all, so not in vain"
        );
        drop(other);
        let (received, ()) = tokio::join!(ours.receive(0), async {
            yield_now().await;
            theirs.send(Header::bare(Kind::Idle), &[]).await.unwrap();
        });
        assert_eq!(received.unwrap().0.kind, Kind::Idle);
        drop(theirs);
        assert!(matches!(due.poll(&mut ours, Instant::now(), Meanwhile::WorkerAlone).await, Err(ChannelError::Closed)));
    }

    #[test]
    fn who_is_not_the_only_one_does_not_poll() {
        let shared = BusyPoll::default();
        for _ in 1..QUIET_FROM {
            assert!(!shared.due().is_worth_it(), "by accident");
        }
        let first = shared.due();
        assert!(!first.is_worth_it(), "nobody has allowed it");
        shared.allow(true);
        assert!(first.is_worth_it());
        let second = shared.due();
        assert!(!first.is_worth_it() && !second.is_worth_it());
        drop((first, second));
        assert!(!shared.due().is_worth_it(), "not for a while");
    }

    #[test]
    fn quick_answer_is_polled_for_the_next_time_and_a_slow_one_is_not() {
        let mut habit = Habit::default();
        assert!(!habit.is_quick(), "nobody knows");
        habit.note(LONGEST, false);
        assert!(habit.is_quick());
        habit.note(LONGEST + NEXT, true);
        assert!(!habit.is_quick());
        habit.note(2 * LONGEST, false);
        assert!(habit.is_quick(), "it may be the sleep that made it late");
        for _ in 0..10 {
            habit.note(2 * LONGEST + NEXT, false);
            assert!(!habit.is_quick());
        }
    }

    #[test]
    fn what_is_polled_for_in_vain_is_polled_for_ever_more_rarely() {
        let took = LONGEST + NEXT;
        let mut habit = Habit::default();
        let mut polled_for = Vec::new();
        for call in 0..60 {
            let is_quick = habit.is_quick();
            if is_quick {
                polled_for.push(call);
            }
            habit.note(took, is_quick);
        }
        assert_eq!(polled_for, [1, 3, 6, 11, 20, 37, 54]);
        habit.note(LONGEST, false);
        assert!(habit.is_quick(), "one that is in time is enough");
    }
}
