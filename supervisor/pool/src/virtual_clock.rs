//! The virtual time of one tenant, by which its sub-tenants are served in turn.
//!
//! It runs as if all calls were served at once, each sub-tenant at the rate of its weight (generalised processor sharing,
//! Parekh and Gallager 1993): one call's worth of service moves it on by that over the weights of all who are being served
//! so, which is fewer the longer. Who is served here one call at a time, and is done, would be served there for some time
//! yet: until the clock reaches its own time.
//!
//! A clock that only follows the turns (as in start-time fair queueing) stands still while newcomers come without end, each
//! at the time of now: whoever was served once would wait for ever. One that counts only who waits runs too fast, and a
//! newcomer would be late by what it gained before.

use std::collections::BTreeMap;

/// Virtual time of one call at weight 1: fine enough for weights of ten thousand, and small enough that one sub-tenant of
/// weight 1 may be served ten thousand calls a second for a decade before 64 bits come to their end.
pub const CALL: u64 = 1 << 22;

/// See above.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    now: u64,
    /// A call has been served that has not moved it on yet.
    owes: bool,
    /// What the last division left over.
    rest: u64,
    /// Of those who wait and those who are ahead.
    weights: u64,
    /// Who does not wait, and whose own time is still to come; with its weight.
    ahead: BTreeMap<(u64, u32), u64>,
}

impl VirtualClock {
    /// The virtual time of now.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Sub-tenant `s`, served up to `time` before, waits from now on.
    pub fn begin(&mut self, s: u32, time: u64, weight: u32) {
        self.forget(s, time);
        self.owes &= self.weights > 0;
        self.weights += u64::from(weight);
    }

    /// It waits no more, and has been served up to `time`. The weight is that it began with.
    pub fn end(&mut self, s: u32, time: u64, weight: u32) {
        if time > self.now {
            self.ahead.insert((time, s), u64::from(weight));
        } else {
            self.weights -= u64::from(weight);
        }
    }

    /// It does not wait, and what it was served up to does not count any more.
    pub fn forget(&mut self, s: u32, time: u64) {
        if let Some(weight) = self.ahead.remove(&(time, s)) {
            self.weights -= weight;
        }
    }

    /// A call is served to the one whose turn it was, at `turn`. It moves the clock on when the next one is served: who
    /// comes meanwhile comes at the time at which it began, and has a share of its length.
    pub fn serve(&mut self, turn: u64) {
        if self.owes && self.weights > 0 {
            let share = CALL + self.rest;
            self.now += share / self.weights;
            self.rest = share % self.weights;
        }
        self.owes = true;
        self.now = self.now.max(turn);
        while let Some(first) = self.ahead.first_entry().filter(|first| first.key().0 <= self.now) {
            self.weights -= first.remove();
        }
    }

    /// Weights it counts, and those of them that do not wait. For the rules of the books.
    pub fn weights(&self) -> (u64, u64) {
        (self.weights, self.ahead.values().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_is_never_behind_the_clock() {
        let mut clock = VirtualClock::default();
        clock.begin(0, 0, 100);
        for turn in (0..100).map(|n| n * CALL / 100) {
            clock.serve(turn);
            assert_eq!(clock.now(), turn);
        }
    }

    #[test]
    fn newcomers_without_end_move_it_on() {
        let mut clock = VirtualClock::default();
        clock.begin(0, CALL / 100, 100);
        let mut turns = 0;
        while clock.now() < CALL / 100 {
            turns += 1;
            let at = clock.now();
            clock.begin(turns, at, 100);
            clock.serve(at);
            clock.end(turns, at + CALL / 100, 100);
            assert!(turns < 1000);
        }
        assert!(turns > 1);
    }

    #[test]
    fn newcomers_from_time_to_time_do_not_put_it_ahead_of_one_that_always_waits() {
        let mut clock = VirtualClock::default();
        clock.begin(0, 0, 100);
        let mut flood = 0;
        for newcomer in 1..100 {
            for _ in 0..5 {
                clock.serve(flood);
                flood += CALL / 100;
            }
            let at = clock.now();
            assert!(at < flood, "the newcomer is before it");
            clock.begin(newcomer, at, 100);
            clock.serve(at);
            clock.end(newcomer, at + CALL / 100, 100);
        }
    }

    #[test]
    fn busy_time_begins_where_the_last_one_ended() {
        let mut clock = VirtualClock::default();
        clock.begin(0, 0, 100);
        clock.serve(0);
        clock.end(0, 0, 100);
        clock.begin(1, 0, 100);
        clock.serve(0);
        assert_eq!(clock.now(), 0, "what was served to nobody else moves nothing on");
    }

    #[test]
    fn what_a_division_leaves_over_is_not_lost() {
        let mut clock = VirtualClock::default();
        for s in 0..1000 {
            clock.begin(s, 0, 10_000);
        }
        // Together they weigh more than a call is long.
        for _ in 0..=10 {
            clock.serve(0);
        }
        assert_eq!(clock.now(), 10 * CALL / 10_000_000);
    }

    #[test]
    fn who_came_for_one_call_counts_until_the_clock_has_reached_its_time() {
        let mut clock = VirtualClock::default();
        clock.begin(0, 0, 100);
        clock.begin(1, 0, 100);
        clock.serve(0);
        clock.end(1, CALL / 100, 100);
        assert_eq!(clock.weights(), (200, 100));
        clock.serve(0);
        assert_eq!((clock.now(), clock.weights()), (CALL / 200, (200, 100)));
        clock.serve(CALL / 100);
        assert_eq!((clock.now(), clock.weights()), (CALL / 100, (100, 0)));
    }

    #[test]
    fn who_comes_back_or_is_forgotten_counts_once_or_not_at_all() {
        let mut clock = VirtualClock::default();
        clock.begin(0, 0, 100);
        clock.end(0, CALL, 100);
        clock.begin(0, CALL, 300);
        assert_eq!(clock.weights(), (300, 0));
        clock.end(0, 2 * CALL, 300);
        clock.forget(0, 2 * CALL);
        assert_eq!(clock.weights(), (0, 0));
    }
}
