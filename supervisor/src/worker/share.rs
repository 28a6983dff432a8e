//! A worker's share of the supervisor's time, which belongs to everybody.
//!
//! A call is admitted by the pool, and the first read of its answer is paid by that. What a function makes the supervisor do
//! beyond, by an answer that comes in many parts or by many pieces, is held to two bounds:
//!
//! - **Reads.** Each further read takes a token. A call begins with [`READS_AT_ONCE`]; [`BYTES_PER_READ`] bytes received earn
//!   one, and so do four milliseconds. A function that fills the socket is never slowed down; one that writes byte by byte is
//!   read every four milliseconds, with all that has come together by then.
//! - **Time.** What those reads take of the thread is measured. All workers that are being read have [`SHARE_OF_ALL`] of one
//!   processor together, divided evenly between those that were read lately; who is past its part is not read until it is
//!   within it again.
//!
//! Only the clock of the caller is used, so that the rules can be tested without one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Reads a call may cause at once beside the first.
pub const READS_AT_ONCE: f64 = 16.0;
/// Bytes that earn a read: what comes in larger parts than this is never slowed down.
pub const BYTES_PER_READ: usize = 8 * 1024;
/// Reads earned by a second of waiting.
const READS_PER_SECOND: f64 = 250.0;
/// Shortest pause that is worth a timer.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// Of one processor, for all workers that are being read beyond their first reads.
const SHARE_OF_ALL: f64 = 0.6;
/// Time that a worker may take at once: so much is read before anybody else could notice.
const BURST: Duration = Duration::from_millis(5);
/// A worker that was read within this time counts as one of those that share.
const LATELY: Duration = Duration::from_millis(100);

/// Who was read lately.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<u64, Instant>>);

impl Shares {
    fn active(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a worker is read now; returns how many share.
    fn join(&self, worker: u64, now: Instant) -> usize {
        let mut active = self.active();
        active.insert(worker, now);
        active.retain(|_, last| now.saturating_duration_since(*last) <= LATELY);
        active.len()
    }
}

/// The account of one worker's channel.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    worker: u64,
    /// Reads that may be made now.
    reads: f64,
    /// Seconds of the supervisor's time that may be taken now; negative: a debt.
    time: f64,
    /// Up to when both have been earned.
    since: Instant,
    spent: Duration,
    bytes: u64,
}

impl Share {
    /// The account of a worker that has not been read yet.
    pub fn new(shares: Arc<Shares>, worker: u64, now: Instant) -> Self {
        Self {
            shares,
            worker,
            reads: READS_AT_ONCE,
            time: BURST.as_secs_f64(),
            since: now,
            spent: Duration::ZERO,
            bytes: 0,
        }
    }

    /// A call begins. Its first read is its own; what was earned while nobody was read is not more than at the start.
    pub fn begin(&mut self, now: Instant) {
        self.earn(now, 1);
        (self.spent, self.bytes) = (Duration::ZERO, 0);
    }

    /// What has been spent on this call so far: time of the supervisor, and bytes received.
    pub const fn spent(&self) -> (Duration, u64) {
        (self.spent, self.bytes)
    }

    /// Counts the first read of an answer, which needs no share.
    pub fn first_read(&mut self, took: Duration, bytes: usize) {
        self.spent += took;
        self.bytes += bytes as u64;
    }

    /// Counts any other read, or other work of the same kind, and says how long to wait before the next.
    pub fn further_read(&mut self, now: Instant, took: Duration, bytes: usize) -> Option<Duration> {
        let sharing = self.shares.join(self.worker, now);
        self.earn(now, sharing);
        self.first_read(took, bytes);
        self.reads += bytes as f64 / BYTES_PER_READ as f64 - 1.0;
        self.reads = self.reads.min(READS_AT_ONCE);
        self.time -= took.as_secs_f64();
        let until_read = (-self.reads).max(0.0) / READS_PER_SECOND;
        let until_time = (-self.time).max(0.0) / rate(sharing);
        let pause = until_read.max(until_time);
        (pause > 0.0).then(|| Duration::from_secs_f64(pause).max(PAUSE_MIN))
    }

    fn earn(&mut self, now: Instant, sharing: usize) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.reads = (self.reads + passed * READS_PER_SECOND).min(READS_AT_ONCE);
        self.time = (self.time + passed * rate(sharing)).min(BURST.as_secs_f64());
    }
}

/// Seconds of the supervisor's time that each of so many earns in a second.
fn rate(sharing: usize) -> f64 {
    SHARE_OF_ALL / sharing.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(5);

    /// Reads `bytes` in parts of `part`, with the pauses that are asked for; a source that is never empty. Returns how many
    /// reads there were, and how long it took.
    fn read_all(share: &mut Share, bytes: usize, part: usize, took: Duration) -> (u32, Duration) {
        let begin = share.since;
        let (mut now, mut reads, mut read) = (begin, 0, 0);
        while read < bytes {
            now += took;
            reads += 1;
            read += part;
            now += share.further_read(now, took, part).unwrap_or_default();
        }
        (reads, now - begin)
    }

    fn share(shares: &Arc<Shares>, worker: u64, now: Instant) -> Share {
        Share::new(shares.clone(), worker, now)
    }

    #[test]
    fn answer_in_large_parts_is_not_slowed_down() {
        let mut share = share(&Arc::default(), 1, Instant::now());
        let (reads, took) = read_all(&mut share, 6 << 20, 64 * 1024, Duration::from_micros(20));
        assert_eq!(took, Duration::from_micros(20) * reads, "no pause");
        assert_eq!(share.spent(), (took, 6 << 20));
    }

    #[test]
    fn answer_byte_by_byte_is_read_every_four_milliseconds() {
        let mut share = share(&Arc::default(), 1, Instant::now());
        let (reads, took) = read_all(&mut share, 2000, 1, QUICK);
        assert_eq!(reads, 2000);
        assert!(took >= Duration::from_millis(7900), "{took:?}");
        let (spent, _) = share.spent();
        assert!(spent * 500 < took, "{spent:?} of {took:?}");
    }

    #[test]
    fn one_read_past_those_at_once_waits() {
        let now = Instant::now();
        let mut share = share(&Arc::default(), 1, now);
        for read in 0..READS_AT_ONCE as u32 {
            assert_eq!(share.further_read(now, QUICK, 0), None, "read {read}");
        }
        assert_eq!(share.further_read(now, QUICK, 0), Some(Duration::from_millis(4)));
        let later = now + Duration::from_millis(1000);
        share.begin(later);
        for read in 0..READS_AT_ONCE as u32 {
            assert_eq!(share.further_read(later, QUICK, 0), None, "read {read}, a second later");
        }
        assert!(share.further_read(later, QUICK, 0).is_some(), "no more is saved up");
    }

    #[test]
    fn time_is_divided_between_those_who_are_read() {
        let (shares, now) = (Arc::<Shares>::default(), Instant::now());
        let slow = Duration::from_millis(1);
        let mut alone = share(&shares, 1, now);
        let (_, took) = read_all(&mut alone, 300 << 20, 1 << 20, slow);
        let part = 300.0 * slow.as_secs_f64() / took.as_secs_f64();
        assert!((0.55..0.65).contains(&part), "alone it had {part} of the time");
        // Four others are read all the time.
        let mut beside = share(&shares, 2, now + took);
        let begin = beside.since;
        let mut at = begin;
        for _ in 0..300 {
            at += slow;
            for other in 3..7 {
                shares.join(other, at);
            }
            at += beside.further_read(at, slow, 1 << 20).unwrap_or_default();
        }
        let part = 300.0 * slow.as_secs_f64() / (at - begin).as_secs_f64();
        assert!((0.10..0.16).contains(&part), "beside four others it had {part} of the time");
        assert_eq!(shares.join(9, at + 2 * LATELY), 1, "who is not read any more does not share");
    }
}
