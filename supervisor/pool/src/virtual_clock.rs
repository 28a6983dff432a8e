//! The virtual time of one tenant, by which its sub-tenants are served in turn.
//!
//! It runs as if each call's worth of service were given to all at once who are due some, each at the rate of its weight
//! (generalised processor sharing, Parekh and Gallager 1993): the more of them, the slower. Due are those who wait, and
//! those who wait no more but were served up to a time that is still to come: served one call at a time, they have had more
//! than the others by now. It counts calls, not seconds, and stands still while nobody is served in turn.
//!
//! A clock that only follows the turns (as in start-time fair queueing) stands still while newcomers come without end, each
//! at the time of now: whoever was served once would wait for ever. One that counts only who waits runs too fast, and a
//! newcomer would be late by what it gained before.

use std::collections::BTreeMap;

use crate::slots::SubTenantSlot;

/// Virtual time of one call at weight 1: fine enough for weights of ten thousand, and small enough that one sub-tenant of
/// weight 1 may be served ten thousand calls a second for a decade before 64 bits come to their end.
pub const CALL: u64 = 1 << 22;
/// Entries that one step takes off [`VirtualClock::ahead`] at the most: what is left then slows the clock until the next.
const LOOKED_AT: usize = 64;

/// The clock of one tenant.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    now: u64,
    /// Service that has not moved it on yet.
    owed: u64,
    /// What the last division left over.
    rest: u64,
    /// The weights of those who wait, added up.
    weight_waiting: u64,
    /// The weights of those in `ahead`, added up.
    weight_ahead: u64,
    /// Who does not wait and whose own time is still to come, by that time; with its weight.
    ahead: BTreeMap<(u64, SubTenantSlot), u64>,
}

impl VirtualClock {
    /// The virtual time of now.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Whether anybody waits.
    pub fn is_waited_for(&self) -> bool {
        self.weight_waiting > 0
    }

    /// Sub-tenant `s`, served up to `time` before, waits from now on.
    pub fn begin(&mut self, s: SubTenantSlot, time: u64, weight: u32) {
        self.forget(s, time);
        if self.weight_waiting + self.weight_ahead == 0 {
            (self.owed, self.rest) = (0, 0);
        }
        self.weight_waiting += u64::from(weight);
    }

    /// It waits no more, and has been served up to `time`. The weight is that it began with.
    pub fn end(&mut self, s: SubTenantSlot, time: u64, weight: u32) {
        let weight = u64::from(weight);
        self.weight_waiting -= weight;
        if time > self.now {
            self.ahead.insert((time, s), weight);
            self.weight_ahead += weight;
        } else {
            // It was given what it never got, by expiring for example: the others have had that.
            self.owed += (self.now - time).saturating_mul(weight).min(CALL);
        }
    }

    /// It does not wait, and what it was served up to does not count any more.
    pub fn forget(&mut self, s: SubTenantSlot, time: u64) {
        if let Some(weight) = self.ahead.remove(&(time, s)) {
            self.weight_ahead -= weight;
        }
    }

    /// Its weight has changed while it waits.
    pub fn reweigh(&mut self, old: u32, new: u32) {
        self.weight_waiting = self.weight_waiting - u64::from(old) + u64::from(new);
    }

    /// A call is served to the one whose turn it was, at `turn`. It moves the clock on when the next one is served: who
    /// comes meanwhile comes at the time at which it began, and has a share of its length.
    pub fn serve(&mut self, turn: u64) {
        self.give_what_is_owed();
        self.now = self.now.max(turn);
        self.owed += CALL;
    }

    fn give_what_is_owed(&mut self) {
        let weights = self.weight_waiting + self.weight_ahead;
        // The rest is less than one unit of time for all; so it stays when most of them are gone.
        let mut work = self.rest.min(weights) + std::mem::take(&mut self.owed);
        for _ in 0..LOOKED_AT {
            let weights = self.weight_waiting + self.weight_ahead;
            let first =
                self.ahead.first_key_value().map(|((time, _), weight)| (time.saturating_sub(self.now), *weight));
            match first.filter(|(left, _)| left.saturating_mul(weights) <= work) {
                Some((left, weight)) => {
                    self.ahead.pop_first();
                    self.weight_ahead -= weight;
                    self.now += left;
                    work -= left * weights;
                }
                None if weights > 0 => {
                    self.now += work / weights;
                    work %= weights;
                    break;
                }
                None => break,
            }
        }
        self.rest = work;
    }

    /// Weights of those who wait, and who is ahead, when, with what weight. For the rules of the books.
    pub fn look(&self) -> (u64, impl Iterator<Item = (u64, SubTenantSlot, u64)>) {
        (self.weight_waiting, self.ahead.iter().map(|((time, s), weight)| (*time, *s, *weight)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slot;

    fn slot(number: u32) -> SubTenantSlot {
        SubTenantSlot::new(number)
    }

    /// One call at this weight, as the pool counts it.
    const fn call(weight: u32) -> u64 {
        CALL.div_ceil(weight as u64)
    }

    #[test]
    fn one_alone_is_never_behind_the_clock() {
        for weight in [1, 100, 10_000] {
            let mut clock = VirtualClock::default();
            clock.begin(slot(0), 0, weight);
            for turn in 0..100_000 {
                clock.serve(turn * call(weight));
                assert_eq!(clock.now(), turn * call(weight));
            }
        }
    }

    #[test]
    fn newcomers_without_end_move_it_on_by_the_share_of_all_that_are_due() {
        let mut clock = VirtualClock::default();
        clock.begin(slot(0), call(100), 100);
        let waiting = 40;
        let mut queue: std::collections::VecDeque<_> = (1..=waiting).map(|s| (s, 0)).collect();
        queue.iter().for_each(|(s, time)| clock.begin(slot(*s), *time, 100));
        let mut turns = 0;
        while clock.now() < call(100) {
            let (s, time) = queue.pop_front().unwrap();
            clock.serve(time);
            clock.end(slot(s), time + call(100), 100);
            turns += 1;
            queue.push_back((waiting + turns, clock.now()));
            clock.begin(slot(waiting + turns), clock.now(), 100);
        }
        // As many as wait are ahead when one round is over; 41 to 81 of them on the way.
        assert!((waiting..=2 * waiting).contains(&turns), "{turns}");
    }

    #[test]
    fn newcomers_from_time_to_time_do_not_put_it_ahead_of_one_that_always_waits() {
        let mut clock = VirtualClock::default();
        clock.begin(slot(0), 0, 100);
        let mut flood = 0;
        for newcomer in 1..1000 {
            for _ in 0..5 {
                clock.serve(flood);
                flood += call(100);
            }
            let at = clock.now();
            assert!(at < flood, "the newcomer is before it");
            clock.begin(slot(newcomer), at, 100);
            clock.serve(at);
            clock.end(slot(newcomer), at + call(100), 100);
        }
    }

    #[test]
    fn what_a_division_leaves_over_is_not_lost_and_never_more_than_a_unit() {
        let mut clock = VirtualClock::default();
        for s in 0..1000 {
            clock.begin(slot(s), 0, 10_000);
        }
        // Together they weigh more than a call is long.
        for _ in 0..=10 {
            clock.serve(0);
        }
        assert_eq!(clock.now(), 10 * CALL / 10_000_000);
        for s in 1..1000 {
            clock.end(slot(s), clock.now(), 10_000);
        }
        let before = clock.now();
        clock.serve(0);
        assert!(clock.now() <= before + CALL / 10_000 + 1);
    }

    #[test]
    fn who_came_for_one_call_is_due_its_share_until_the_clock_has_reached_its_time() {
        let mut clock = VirtualClock::default();
        clock.begin(slot(0), 0, 64);
        clock.begin(slot(1), 0, 64);
        clock.serve(0);
        clock.end(slot(1), CALL / 128, 64);
        clock.serve(0);
        assert_eq!((clock.now(), clock.weight_ahead), (CALL / 128, 0));
        clock.serve(0);
        assert_eq!(clock.now(), CALL / 128 + CALL / 64, "alone since");
    }

    #[test]
    fn share_of_one_whose_time_comes_on_the_way_goes_to_the_others() {
        let mut clock = VirtualClock::default();
        clock.begin(slot(0), 0, 64);
        clock.begin(slot(1), 0, 192);
        clock.serve(0);
        clock.end(slot(1), CALL / 512, 192);
        clock.serve(0);
        // Half of the call until then, for both; the other half for one.
        assert_eq!(clock.now(), CALL / 512 + CALL / 128);
    }

    #[test]
    fn what_one_that_expires_never_got_is_given_to_the_others() {
        let mut clock = VirtualClock::default();
        clock.begin(slot(0), 0, 64);
        clock.begin(slot(1), 0, 64);
        clock.serve(0);
        clock.serve(0);
        assert_eq!(clock.now(), CALL / 128);
        clock.end(slot(1), 0, 64);
        clock.serve(0);
        assert_eq!(clock.now(), CALL / 128 + CALL / 64 + CALL / 128);
    }

    #[test]
    fn one_step_takes_off_a_bounded_number() {
        let mut clock = VirtualClock::default();
        for s in 0..1000 {
            clock.begin(slot(s), 0, 1);
            clock.end(slot(s), 1, 1);
        }
        clock.begin(slot(1000), 10, 1);
        clock.serve(10);
        clock.serve(10);
        assert_eq!(clock.ahead.len(), 1000 - LOOKED_AT);
    }

    #[test]
    fn who_comes_back_or_is_forgotten_counts_once_or_not_at_all() {
        let mut clock = VirtualClock::default();
        clock.begin(slot(0), 0, 100);
        clock.end(slot(0), CALL, 100);
        clock.begin(slot(0), CALL, 300);
        assert_eq!((clock.weight_waiting, clock.weight_ahead), (300, 0));
        clock.reweigh(300, 50);
        clock.end(slot(0), 2 * CALL, 50);
        assert_eq!((clock.weight_waiting, clock.weight_ahead), (0, 50));
        clock.forget(slot(0), 2 * CALL);
        assert_eq!((clock.weight_waiting, clock.weight_ahead), (0, 0));
    }

    #[test]
    fn busy_time_begins_where_the_last_one_ended() {
        let mut clock = VirtualClock::default();
        clock.begin(slot(0), 0, 100);
        clock.serve(0);
        clock.end(slot(0), 0, 100);
        clock.begin(slot(1), 0, 100);
        clock.serve(0);
        assert_eq!(clock.now(), 0, "what was served to nobody else moves nothing on");
    }
}
