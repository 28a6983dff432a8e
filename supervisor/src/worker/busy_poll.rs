//! Busy polling: to look for an answer that is due at once, over and over, instead of sleeping until it comes.
//!
//! A thread that sleeps has to be woken, and where its processor sleeps too that takes longer than many a function: on a
//! virtual machine 40 to 130 us, for whoever wakes it and for itself. So a call's task polls, but only
//!
//! - for a worker that lately answered within [`LONGEST`], and no longer than that ([`Habit`]);
//! - while no other such answer is due: with several the thread hardly sleeps;
//! - while its own thread hardly waits for a processor ([`Shortage`]): what is spent here must not be missing to a function;
//! - where one thread serves all calls: with several, what one does between two looks wakes another;
//! - between any two looks letting all other tasks of the thread have their turn.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
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
const QUIET_FROM: u32 = 8;

/// To see what a thread waits costs some microseconds.
const MEASURED_OF: u32 = 4;

/// Looks from one time that the thread gives its processor away to the next, if anybody is there to take it.
const YIELDS_OF: u32 = 16;

/// Whether anybody may poll, and who would.
#[derive(Debug, Default)]
pub struct BusyPoll {
    is_allowed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By number, with when they were asked for: those of the last [`LONGEST`], and maybe some that are late.
    due: Vec<(u64, Instant)>,
    last: u64,
    /// How many in a row have been alone from the start.
    alone: u32,
    measurable: u32,
    found: u64,
    shortage: Shortage,
}

impl State {
    /// Whether no other answer than this is due at once. One that is late is not any more: whoever holds it up must not keep
    /// others from being polled for.
    fn is_alone(&self, number: u64, now: Instant) -> bool {
        self.due.iter().all(|(other, asked)| *other == number || now.duration_since(*asked) > LONGEST)
    }
}

/// Who runs of its own accord while an answer is polled for.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
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

    /// How many answers were there while they were polled for, so far.
    pub fn found(&self) -> u64 {
        self.state().found
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer is due at once. None where nobody may poll for it.
    fn due(&self, asked: Instant) -> Option<Due<'_>> {
        if !self.is_allowed.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        // There may be many that are late, and they are looked through often.
        state.due.retain(|(_, other)| asked.duration_since(*other) <= LONGEST);
        state.alone = if state.due.is_empty() { state.alone.saturating_add(1) } else { 0 };
        state.due.push((number, asked));
        Some(Due { shared: self, number, asked })
    }
}

/// One answer that is due at once; not any more when dropped, which may be in the middle.
struct Due<'a> {
    shared: &'a BusyPoll,
    number: u64,
    asked: Instant,
}

impl Due<'_> {
    fn is_worth_it(&self) -> bool {
        let state = self.shared.state();
        state.alone >= QUIET_FROM && !state.shortage.is_there(self.asked)
    }

    /// Polls for it, for as long as it is the only one. Returns whether that was in vain.
    async fn poll(&self, channel: &mut Channel, meanwhile: Meanwhile) -> Result<bool, ChannelError> {
        let awake = match meanwhile {
            Meanwhile::WorkerAlone if self.take_measure() => Awake::begin(),
            Meanwhile::WorkerAlone | Meanwhile::CallerToo => None,
        };
        let in_vain = self.look(channel).await;
        if let Some((passed, waited)) = awake.and_then(Awake::end) {
            self.shared.state().shortage.learn(Instant::now(), passed, waited);
        }
        in_vain
    }

    async fn look(&self, channel: &mut Channel) -> Result<bool, ChannelError> {
        for look in 1_u32.. {
            if channel.take_in()? {
                self.shared.state().found += 1;
                break;
            }
            let now = Instant::now();
            if now.duration_since(self.asked) > LONGEST {
                return Ok(true);
            }
            if !self.shared.state().is_alone(self.number, now) {
                break;
            }
            // Who is to answer may have been put behind us, on this very processor.
            if look.is_multiple_of(YIELDS_OF) {
                std::thread::yield_now();
            }
            yield_now().await;
        }
        Ok(false)
    }

    fn take_measure(&self) -> bool {
        let mut state = self.shared.state();
        state.measurable = state.measurable.wrapping_add(1);
        state.measurable.is_multiple_of(MEASURED_OF)
    }
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        self.shared.state().due.retain(|(number, _)| *number != self.number);
    }
}

/// How soon one worker answers, and how soon it is free then.
#[derive(Debug)]
pub struct Pace {
    shared: Arc<BusyPoll>,
    answers: Habit,
    idle: Habit,
}

impl Pace {
    /// Of a worker that has not been asked yet.
    pub fn new(shared: Arc<BusyPoll>) -> Self {
        Self { shared, answers: Habit::default(), idle: Habit::default() }
    }

    /// The first frame of an answer: [`Channel::receive`], polled for while that is worth it.
    ///
    /// # Errors
    /// Its own.
    pub async fn answer(&mut self, channel: &mut Channel, limit: u32) -> Result<(Header, Bytes), ChannelError> {
        receive(channel, limit, &self.shared, &mut self.answers, Meanwhile::WorkerAlone).await
    }

    /// Likewise what a worker says when it is free after its answer. Only of one whose answers are polled for: by these it is
    /// seen whether processors are short.
    ///
    /// # Errors
    /// Its own.
    pub async fn idle(&mut self, channel: &mut Channel, limit: u32) -> Result<(Header, Bytes), ChannelError> {
        if self.answers.is_quick() {
            receive(channel, limit, &self.shared, &mut self.idle, Meanwhile::CallerToo).await
        } else {
            channel.receive(limit).await
        }
    }
}

async fn receive(
    channel: &mut Channel,
    limit: u32,
    shared: &BusyPoll,
    habit: &mut Habit,
    meanwhile: Meanwhile,
) -> Result<(Header, Bytes), ChannelError> {
    let asked = Instant::now();
    let due = if habit.is_quick() { shared.due(asked) } else { None };
    let in_vain = match &due {
        Some(due) if due.is_worth_it() => due.poll(channel, meanwhile).await?,
        Some(_) | None => false,
    };
    let received = channel.receive(limit).await?;
    habit.note(asked.elapsed(), in_vain);
    Ok(received)
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
    use std::{io::Write as _, os::unix::net::UnixStream};

    use sublet_proto::link::frame::Kind;
    use tokio::time::timeout;

    use super::{
        super::{share::Share, wire::SocketWire},
        *,
    };

    const NEXT: Duration = Duration::from_nanos(1);

    fn allowed() -> BusyPoll {
        let shared = BusyPoll::default();
        shared.allow(true);
        shared
    }

    fn channel(socket: UnixStream) -> Channel {
        Channel::new(
            Box::new(SocketWire::new(socket.into())),
            Share::new(Arc::default(), 1, tokio::time::Instant::now()),
        )
    }

    fn channels() -> (Channel, Channel) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (channel(ours), channel(theirs))
    }

    #[tokio::test]
    async fn frame_that_was_polled_for_is_received_as_it_was_sent() {
        let (shared, (mut ours, mut theirs)) = (allowed(), channels());
        for bytes in [0, 1, 5000, 1, 70_000, 1] {
            let payload = vec![7; bytes];
            theirs.send(Header::bare(Kind::Response), &payload).await.unwrap();
            let due = shared.due(Instant::now()).unwrap();
            assert!(!due.poll(&mut ours, Meanwhile::WorkerAlone).await.unwrap(), "{bytes}");
            assert!(ours.surplus() > 0, "{bytes}: it was there");
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
        let (shared, (mut ours, mut theirs)) = (allowed(), channels());
        let due = shared.due(Instant::now()).unwrap();
        assert!(due.poll(&mut ours, Meanwhile::WorkerAlone).await.unwrap());
        let (received, ()) = tokio::join!(ours.receive(0), async {
            yield_now().await;
            theirs.send(Header::bare(Kind::Idle), &[]).await.unwrap();
        });
        assert_eq!(received.unwrap().0.kind, Kind::Idle);
        let (due, _other) =
            (shared.due(Instant::now() + LONGEST).unwrap(), shared.due(Instant::now() + LONGEST).unwrap());
        assert!(
            !due.poll(&mut ours, Meanwhile::WorkerAlone).await.unwrap(),
            "with another it is not tried, nor in vain"
        );
        drop(theirs);
        assert!(matches!(due.poll(&mut ours, Meanwhile::WorkerAlone).await, Err(ChannelError::Closed)));
    }

    #[tokio::test]
    async fn part_of_a_frame_is_not_polled_for_again() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (shared, mut ours) = (allowed(), channel(ours));
        theirs.write_all(b"S").unwrap();
        let due = shared.due(Instant::now()).unwrap();
        for _ in 0..3 {
            assert!(!due.poll(&mut ours, Meanwhile::WorkerAlone).await.unwrap());
            assert_eq!(ours.surplus(), 1);
        }
    }

    #[tokio::test]
    async fn answer_that_is_given_up_is_not_due_any_more() {
        let (shared, (mut ours, mut theirs)) = (Arc::new(quiet()), channels());
        let mut pace = Pace::new(shared.clone());
        theirs.send(Header::bare(Kind::Response), &[]).await.unwrap();
        pace.answer(&mut ours, 0).await.unwrap();
        assert_eq!(shared.found(), 0, "nobody knew that it is quick");
        theirs.send(Header::bare(Kind::Response), &[]).await.unwrap();
        pace.answer(&mut ours, 0).await.unwrap();
        assert_eq!(shared.found(), 1);
        assert!(timeout(3 * LONGEST, pace.answer(&mut ours, 0)).await.is_err());
        assert!(shared.state().due.is_empty());
    }

    /// One on which calls have followed each other for a while.
    fn quiet() -> BusyPoll {
        let shared = allowed();
        for _ in 1..QUIET_FROM {
            assert!(!shared.due(Instant::now()).unwrap().is_worth_it(), "alone by accident");
        }
        shared
    }

    #[test]
    fn who_is_not_the_only_one_does_not_poll() {
        let (shared, now) = (quiet(), Instant::now());
        let first = shared.due(now).unwrap();
        assert!(first.is_worth_it());
        let second = shared.due(now).unwrap();
        assert!(!first.is_worth_it() && !second.is_worth_it());
        drop((first, second));
        assert!(!shared.due(now).unwrap().is_worth_it(), "not for a while");
        assert!(shared.state().due.is_empty());
        shared.allow(false);
        assert!(shared.due(now).is_none());
    }

    #[test]
    fn answer_that_is_late_keeps_nobody_from_being_polled_for() {
        let (shared, now) = (quiet(), Instant::now());
        let late = shared.due(now).unwrap();
        let other = shared.due(now + LONGEST).unwrap();
        assert!(!other.is_worth_it(), "it is not late yet");
        assert!(shared.state().is_alone(other.number, now + LONGEST + NEXT), "and now it is");
        drop(other);
        (0..QUIET_FROM).for_each(|_| drop(shared.due(now + LONGEST + NEXT)));
        assert!(shared.due(now + LONGEST + NEXT).unwrap().is_worth_it());
        drop(late);
        assert!(shared.state().due.is_empty());
    }

    #[test]
    fn nobody_polls_while_processors_are_short() {
        let (shared, now) = (quiet(), Instant::now());
        let due = shared.due(now).unwrap();
        assert!(due.is_worth_it());
        shared.state().shortage.learn(now, Duration::from_secs(1), Duration::from_secs(1));
        assert!(!due.is_worth_it());
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
