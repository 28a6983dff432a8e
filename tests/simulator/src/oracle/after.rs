//! Whether the pool has done all it owed.

use sublet_pool::{Pool, ROOM_PATIENCE, Tick};

use super::{Broken, Oracle, State, books::CallState};
use crate::rule;

/// Levels without a free place, narrowest first: sub-tenant, function, tenant, host.
type Full = [bool; 4];

/// As in the pool.
const PROMISES_LOOKED_AT: u32 = 8;

impl Oracle {
    pub(super) fn owed(&mut self) -> Result<(), Broken> {
        for c in &self.must_settle {
            rule!(self.calls[*c as usize].state == CallState::Settled, "call {c} is owed an end in this step");
        }
        for w in &self.must_kill {
            rule!(!self.workers[*w as usize].is_alive(), "worker {w} is to be ended in this step");
        }
        while let Some(c) = self.past_deadline() {
            rule!(self.calls[c as usize].state == CallState::Settled, "call {c} ends when its time is over");
        }
        if let Some(arrival) = self.arriving.take()
            && self.calls[arrival.call as usize].state == CallState::Waiting
        {
            rule!(!arrival.queue_was_full, "the queue of a key has a bound");
            rule!(!arrival.host_queue_was_full, "the waiting calls of the host have a bound");
        }
        for k in &self.touched {
            let key = &self.keys[*k];
            let waits = !key.queue.is_empty();
            rule!(!waits || key.idle.is_empty(), "no call waits while a worker that suits it is idle (key {k})");
        }
        Ok(())
    }

    /// Rules that need a look at everything.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn look_around(&self) -> Result<(), Broken> {
        let now = self.now;
        for w in &self.alive {
            let worker = &self.workers[*w as usize];
            if matches!(worker.state, State::Starting | State::Cell) && (worker.is_making || worker.key.is_some()) {
                rule!(now < worker.start_deadline, "worker {w} was not ready in time and is still waited for");
            }
            if let (State::Idle { since, frozen }, Some(k)) = (worker.state, worker.key) {
                let (key, policy) = (&self.keys[k], &self.functions[worker.function].policy);
                let is_over = now.since(since) >= policy.idle_ttl;
                rule!(!is_over || key.had_minimum, "worker {w} is idle beyond its time");
                let is_late = policy.freeze_after.is_some_and(|after| now.since(since) >= after);
                rule!(frozen || !is_late || key.had_minimum, "worker {w} is not frozen when it is time");
                let is_old = policy.age_max.is_some_and(|max| now.since(worker.born) >= max);
                rule!(!is_old, "worker {w} is idle though it is too old");
            }
        }
        let has_ready_cell = self.alive.iter().any(|w| {
            let worker = &self.workers[*w as usize];
            worker.state == State::Cell && !worker.is_making && worker.bytes > 0
        });
        let is_over = self.cell_bytes > self.host.cells_memory_max;
        rule!(!is_over || !has_ready_cell || self.making > 0, "ready cells are ended while there are too many");
        // A step looks at so many promises; with more of them some may be kept a step later.
        if self.reaping > PROMISES_LOOKED_AT || self.making >= self.host.starts_max {
            return Ok(());
        }
        let leaves = |w: &u64| self.workers[*w as usize].state == State::Killed;
        let is_due = |w: &u64| now >= self.workers[*w as usize].killed + ROOM_PATIENCE;
        let may_be_promised = self.alive.iter().any(|w| leaves(w) && !is_due(w));
        for (k, key) in self.keys.iter().enumerate() {
            let has_room = key.workers < self.functions[key.function].policy.workers_per_sub_tenant_max;
            if key.queue.len() as u32 <= key.starting || !has_room || self.may_be_on_trial(k) {
                continue;
            }
            let full = self.full_for(k);
            rule!(full.contains(&true), "a call of key {k} waits while there is a place");
            // What is being removed may be promised to it, unless that has lasted for too long.
            rule!(
                may_be_promised || !self.can_make_room(k, full),
                "a call of key {k} waits while an idle worker could be ended for it; full {full:?}, {:?}",
                self.alive
                    .iter()
                    .map(|w| (*w, self.workers[*w as usize].state, self.workers[*w as usize].key))
                    .collect::<Vec<_>>()
            );
        }
        Ok(())
    }

    /// Whether at some level of this worker or cell more live than may; those that are being removed do not count.
    pub(super) fn is_over_living(&self, w: u64) -> bool {
        let worker = &self.workers[w as usize];
        let function = &self.functions[worker.function];
        let tenant = &self.tenants[function.tenant];
        let living = |of: &dyn Fn(&super::books::Worker) -> bool| {
            let lives = |w: &&u64| self.workers[**w as usize].is_alive() && of(&self.workers[**w as usize]);
            self.alive.iter().filter(lives).count() as u32
        };
        let of_tenant = |other: &super::books::Worker| self.functions[other.function].tenant == function.tenant;
        let sub = worker.key.map_or(0, |k| self.keys[k].sub);
        let is_same_sub =
            |other: &super::books::Worker| of_tenant(other) && other.key.is_some_and(|k| self.keys[k].sub == sub);
        living(&|_| true) > self.host.workers_max
            || living(&of_tenant) > tenant.policy.workers_max
            || living(&|other| other.function == worker.function) > function.policy.workers_max
            || worker.key.is_some_and(|k| self.keys[k].live > function.policy.workers_per_sub_tenant_max)
            || sub > 0 && living(&is_same_sub) > tenant.sub_policy(sub).workers_max
            || self.cell_bytes > self.host.cells_memory_max && worker.state == State::Cell
    }

    fn may_be_on_trial(&self, k: usize) -> bool {
        self.backs_off_until(k).is_some()
    }

    fn full_for(&self, k: usize) -> Full {
        let (f, t, s) = (self.keys[k].function, self.tenant_of(k), self.keys[k].sub);
        let (function, tenant) = (&self.functions[f], &self.tenants[t]);
        [
            s > 0 && tenant.subs[s].workers >= tenant.sub_policy(s).workers_max,
            function.workers >= function.policy.workers_max,
            tenant.workers >= tenant.policy.workers_max,
            self.alive.len() as u32 >= self.host.workers_max,
        ]
    }

    /// Whether there is a ready cell or an idle worker whose end makes room at every level that is full.
    fn can_make_room(&self, k: usize, full: Full) -> bool {
        self.alive.iter().any(|w| {
            let worker = &self.workers[*w as usize];
            let is_free = match worker.state {
                State::Idle { .. } => worker.key.is_some_and(|k| self.keys[k].live > self.keys[k].minimum),
                State::Cell => !worker.is_making,
                State::Starting | State::Leased { .. } | State::Killed | State::Reaped => false,
            };
            is_free && self.is_at(*w, k, full)
        }) && !self.is_hopeless(k, full)
    }

    /// Whether the end of this worker makes room for a key at every one of these levels.
    fn is_at(&self, w: u64, k: usize, [of_sub, of_function, of_tenant, _]: Full) -> bool {
        let (f, t, s) = (self.keys[k].function, self.tenant_of(k), self.keys[k].sub);
        let worker = &self.workers[w as usize];
        let same_tenant = self.functions[worker.function].tenant == t;
        let same_sub = same_tenant && worker.key.is_some_and(|k| self.keys[k].sub == s);
        (!of_sub || same_sub) && (!of_function || worker.function == f) && (!of_tenant || same_tenant)
    }

    /// Whether a level that is full stays full whoever else ends, for what is being removed.
    fn is_hopeless(&self, k: usize, full: Full) -> bool {
        let tenant = &self.tenants[self.tenant_of(k)];
        let limits = [
            tenant.sub_policy(self.keys[k].sub).workers_max,
            self.functions[self.keys[k].function].policy.workers_max,
            tenant.policy.workers_max,
            self.host.workers_max,
        ];
        (0..full.len()).filter(|level| full[*level]).any(|level| {
            let mut only = [false; 4];
            only[level] = true;
            let leaves = |w: &&u64| self.workers[**w as usize].state == State::Killed && self.is_at(**w, k, only);
            self.alive.iter().filter(leaves).count() >= limits[level] as usize
        })
    }

    /// Compares the sums, and when all is over, that they are nothing.
    ///
    /// # Errors
    /// The sum that differs.
    pub fn same_sums(&self, pool: &Pool) -> Result<(), Broken> {
        let counts = pool.counts();
        let cells = self.alive.iter().filter(|w| self.workers[**w as usize].state == State::Cell).count() as u64;
        let starting: u32 = self.keys.iter().map(|key| key.starting).sum();
        rule!(counts.cells == cells, "cells: {} on the books, {cells} seen", counts.cells);
        rule!(counts.workers + cells == self.alive.len() as u64, "workers: {counts:?}, {} seen", self.alive.len());
        rule!(counts.starting == u64::from(starting), "starting: {} on the books, {starting} seen", counts.starting);
        rule!(counts.calls_waiting == u64::from(self.waiting), "waiting: {counts:?}, {} seen", self.waiting);
        let leased = u64::from(self.in_flight - self.waiting);
        rule!(counts.calls_leased == leased, "leased: {counts:?}, {leased} seen");
        Ok(())
    }

    /// What must hold when a history is over.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn at_the_end(&self, pool: &Pool) -> Result<(), Broken> {
        rule!(self.is_drained, "a drain comes to its end");
        let open = self.calls.iter().position(|call| call.state != CallState::Settled);
        rule!(open.is_none(), "every call is settled, but not {open:?}");
        let left = pool.counts();
        let sum = left.workers + left.starting + left.cells + left.calls_leased + left.calls_waiting;
        rule!(sum == 0, "nothing is left: {left:?}");
        rule!(pool.workers().next().is_none(), "no worker is left");
        Ok(())
    }

    /// The latest time the pool was told.
    pub fn now(&self) -> Tick {
        self.now
    }
}

impl Oracle {
    /// Workers were asked for ahead.
    ///
    /// # Errors
    /// The answer is wrong.
    pub fn warmed(
        &mut self,
        key: &sublet_pool::PoolKey,
        count: u32,
        granted: Result<u32, sublet_pool::WarmRefusal>,
    ) -> Result<(), Broken> {
        let k = self.key_index(key.function, &key.sub_tenant);
        let missing = count.saturating_sub(self.keys[k].live);
        if let Ok(making) = granted {
            rule!(self.drain.is_none() && !self.functions[self.keys[k].function].is_retired, "nothing more is warmed");
            rule!(making == missing, "so many as are missing are made: {making}, {missing} missing");
            self.keys[k].warm = self.keys[k].warm.max(count);
        }
        Ok(())
    }

    /// Revisions are kept in dense lists: there may be some dozens of them.
    pub fn has_room_for_functions(&self) -> bool {
        self.functions.len() < 60
    }
}
