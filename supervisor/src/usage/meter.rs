//! One worker's meter: cuts what its group's counters say into the phases of its life, so that no moment is counted twice
//! and none is lost.
//!
//! ```text
//!   born --starting--> ready --idle--> begin --call--> end --idle--> begin ... --> close
//! ```

use std::{sync::Arc, time::Duration};

use super::sums::{CallEnd, Phase, Sums};
use crate::cgroups::reading::Reading;

/// A worker's meter.
#[derive(Debug, Default)]
pub struct Meter {
    last: Reading,
    phase: Option<Phase>,
    is_closed: bool,
    /// Of the call under way, as far as it has been counted already.
    so_far: Reading,
    /// Of the call that was cut by the worker's end, until its task asks.
    of_last_call: Option<Reading>,
    /// Its own sums.
    own: Arc<Sums>,
    /// Those of its sub-tenant and its tenant, once it is somebody's.
    above: Vec<Arc<Sums>>,
}

impl Meter {
    /// Its own sums.
    pub fn sums(&self) -> &Arc<Sums> {
        &self.own
    }

    /// Whose sums it adds to. A cell has a tenant alone.
    pub fn belongs_to(&mut self, above: Vec<Arc<Sums>>) {
        self.above = above;
    }

    /// From now on it is in another phase; what came since the last word belongs to the one before.
    fn turn(&mut self, now: Option<Reading>, next: Phase) -> Reading {
        let Some(now) = now.filter(|_| !self.is_closed) else {
            self.phase = Some(next);
            return Reading::default();
        };
        let used = now.since(&self.last);
        self.last = now;
        self.add(self.phase.unwrap_or(Phase::Starting), &used);
        self.phase = Some(next);
        used
    }

    fn add(&self, phase: Phase, used: &Reading) {
        for sums in self.above.iter().chain([&self.own]) {
            sums.add(phase, used);
        }
    }

    /// Its function is ready.
    pub fn ready(&mut self, now: Option<Reading>) {
        self.turn(now, Phase::Idle);
    }

    /// A call is delivered.
    pub fn begin(&mut self, now: Option<Reading>) {
        self.of_last_call = None;
        self.so_far = Reading::default();
        self.turn(now, Phase::Call);
    }

    /// Counts what came so far, so that sums are those of now.
    pub fn tick(&mut self, now: Option<Reading>) {
        if let Some(phase) = self.phase.filter(|_| !self.is_closed) {
            let used = self.turn(now, phase);
            if phase == Phase::Call {
                self.so_far = self.so_far.plus(&used);
            }
        }
    }

    /// The call has ended; what it used. Asked a second time, nothing.
    pub fn end(&mut self, now: Option<Reading>) -> Reading {
        if let Some(used) = self.of_last_call.take() {
            return used;
        }
        if self.phase != Some(Phase::Call) {
            return Reading::default();
        }
        let rest = self.turn(now, Phase::Idle);
        std::mem::take(&mut self.so_far).plus(&rest)
    }

    /// A call has ended, one way or another.
    pub fn count(&self, how: CallEnd, queued: Duration, running: Duration) {
        for sums in self.above.iter().chain([&self.own]) {
            sums.call(how, queued, running);
        }
    }

    /// Nothing of the worker is left. What came since the last word belongs to the phase it ended in.
    pub fn close(&mut self, last: Option<Reading>, is_somebodys: bool) {
        let phase = match (is_somebodys, self.phase) {
            (false, _) => Phase::Cell,
            (true, phase) => phase.unwrap_or(Phase::Starting),
        };
        if let Some(last) = last.filter(|_| !self.is_closed) {
            let used = last.since(&self.last);
            self.add(phase, &used);
            if phase == Phase::Call {
                self.of_last_call = Some(std::mem::take(&mut self.so_far).plus(&used));
            }
        }
        self.is_closed = true;
        self.phase = Some(Phase::Idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Option<Reading> {
        Some(Reading { cpu: Duration::from_millis(millis), ..Reading::default() })
    }

    fn millis(meter: &Meter) -> [u128; 4] {
        let used = meter.sums().used();
        [used.cpu_starting, used.cpu_idle, used.cpu_calls, used.cpu_cells].map(|time| time.as_millis())
    }

    #[test]
    fn every_millisecond_is_in_one_phase() {
        let tenant = Arc::new(Sums::default());
        let mut meter = Meter::default();
        meter.belongs_to(vec![tenant.clone()]);
        meter.ready(at(5));
        meter.begin(at(6));
        assert_eq!(meter.end(at(16)).cpu.as_millis(), 10);
        meter.begin(at(18));
        assert_eq!(meter.end(at(19)).cpu.as_millis(), 1);
        meter.close(at(22), true);
        assert_eq!(millis(&meter), [5, 6, 11, 0]);
        assert_eq!(tenant.used().cpu().as_millis(), 22);
    }

    #[test]
    fn looking_at_it_in_the_middle_of_a_call_takes_nothing_from_its_receipt() {
        let mut meter = Meter::default();
        meter.ready(at(1));
        meter.tick(at(2));
        meter.begin(at(2));
        meter.tick(at(7));
        assert_eq!(millis(&meter), [1, 1, 5, 0]);
        meter.tick(at(8));
        assert_eq!(meter.end(at(10)).cpu.as_millis(), 8);
        meter.begin(at(10));
        meter.tick(at(11));
        meter.close(at(13), true);
        assert_eq!(meter.end(None).cpu.as_millis(), 3);
        assert_eq!(millis(&meter), [1, 1, 11, 0]);
    }

    #[test]
    fn call_that_dies_with_its_worker_gets_the_rest() {
        let mut meter = Meter::default();
        meter.ready(at(5));
        meter.begin(at(5));
        meter.close(at(45), true);
        // Its group is gone by now: what is read then means nothing.
        assert_eq!(meter.end(None).cpu.as_millis(), 40);
        assert_eq!(meter.end(None).cpu.as_millis(), 0, "once");
        assert_eq!(millis(&meter), [5, 0, 40, 0]);
    }

    #[test]
    fn what_runs_on_after_its_call_is_idle() {
        let mut meter = Meter::default();
        meter.ready(at(1));
        meter.begin(at(1));
        assert_eq!(meter.end(at(3)).cpu.as_millis(), 2);
        assert_eq!(meter.end(at(9)).cpu.as_millis(), 0, "a second verdict on the same call");
        meter.close(at(10), true);
        assert_eq!(millis(&meter), [1, 7, 2, 0]);
    }

    #[test]
    fn cell_that_nobody_got_is_counted_apart_and_a_failed_start_as_a_start() {
        let mut cell = Meter::default();
        cell.close(at(4), false);
        assert_eq!(millis(&cell), [0, 0, 0, 4]);
        let mut failed = Meter::default();
        failed.close(at(4), true);
        assert_eq!(millis(&failed), [4, 0, 0, 0]);
    }

    #[test]
    fn what_cannot_be_read_is_counted_when_it_can() {
        let mut meter = Meter::default();
        meter.ready(None);
        meter.begin(at(3));
        assert_eq!(meter.end(None), Reading::default());
        meter.close(at(8), true);
        assert_eq!(meter.sums().used().cpu().as_millis(), 8);
    }
}
