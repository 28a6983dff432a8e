//! A worker for a call: an idle one of its key, a cell, a new one; or first the place of somebody else's idle worker.

use std::time::Duration;

use crate::{
    event::{Action, KillReason, LimitLevel},
    lists::IdleList,
    pool::Pool,
    records::{Occupant, Reaping, Room, Worker, WorkerState},
    slots::{KeySlot, WorkerSlot},
    time::Tick,
    timers::Timer,
};

/// What came of serving a key.
enum Placed {
    /// One call's worth was done for it.
    Done,
    /// Everything at this level is taken by workers that cannot be ended now.
    Blocked(LimitLevel),
    /// As many sandboxes are being made as may be.
    StartsFull,
}

/// Levels without a free place.
#[derive(Clone, Copy)]
struct FullLevels {
    sub_tenant: bool,
    function: bool,
    tenant: bool,
    host: bool,
}

impl FullLevels {
    fn any(self) -> bool {
        self.sub_tenant || self.function || self.tenant || self.host
    }
}

/// So long a worker that is being removed is waited for while an idle one could make room. Most are gone within milliseconds,
/// and a warm worker is worth more than that; one that is not gone by then may never go.
pub const ROOM_PATIENCE: Duration = Duration::from_secs(2);

/// Promises that are looked at in one step: a step must not grow with the places that are short.
const PROMISES_LOOKED_AT: usize = 8;

impl Pool {
    fn full_levels(&self, k: KeySlot) -> FullLevels {
        let (function, sub) = (self.function(self.keys[k].function), &self.subs[self.keys[k].sub_tenant]);
        let tenant = self.tenant(sub.tenant);
        FullLevels {
            sub_tenant: sub.workers >= self.policy_of_sub(self.keys[k].sub_tenant).workers_max,
            function: function.workers >= function.policy.workers_max,
            tenant: tenant.workers >= tenant.policy.workers_max,
            host: self.host.workers >= self.host.policy.workers_max,
        }
    }

    /// Serves keys in turn as far as there are places. `hot` has waiting calls and a worker that has just become free.
    pub(super) fn feed(&mut self, hot: Option<KeySlot>, out: &mut Vec<Action>) {
        while let Some(next) = self.next_key() {
            let k = self.prefer(hot, next);
            match self.place(k, out) {
                Placed::Done => {
                    self.charge(k, next);
                    self.touch(k);
                }
                Placed::Blocked(level) => self.block(k, level),
                Placed::StartsFull => break,
            }
        }
        if self.next_key().is_none() {
            self.release_promises(out);
        }
        // Nobody takes the place, so the worker goes on.
        if let Some(k) = hot {
            while self.keys.get(k).is_some_and(|key| key.waiting > 0)
                && let Some(w) = self.usable_idle(k, out)
            {
                self.deliver_next(k, w, out);
                self.charge(k, k);
            }
            // Its calls may have ended by their deadlines in the same step.
            if let Some(key) = self.keys.get(k)
                && let Some(w) = key.idle.last().copied()
            {
                self.rest(w, key.function, out);
            }
        }
    }

    fn place(&mut self, k: KeySlot, out: &mut Vec<Action>) -> Placed {
        if self.keys[k].waiting > 0
            && let Some(w) = self.usable_idle(k, out)
        {
            self.deliver_next(k, w, out);
            return Placed::Done;
        }
        let s = self.keys[k].sub_tenant;
        let full = self.full_levels(k);
        // A cell has its place at all levels already but this one.
        if !full.sub_tenant
            && let Some(cell) = self.cell_for(&self.keys[k], &self.subs[s])
        {
            self.label_cell(k, cell, out);
            return Placed::Done;
        }
        if full.any() {
            return self.make_room(k, full, out);
        }
        if self.host.making >= self.host.policy.starts_max {
            return Placed::StartsFull;
        }
        self.spawn(k, out);
        Placed::Done
    }

    fn spawn(&mut self, k: KeySlot, out: &mut Vec<Action>) {
        let f = self.keys[k].function;
        let id = self.next_worker();
        let deadline = self.now + self.function(f).policy.start_timeout;
        self.insert_occupant(Occupant::Worker(Worker::new(id, k, f, self.now, deadline)));
        self.timers.set(deadline, Timer::Worker(id));
        self.arm_age(f, id);
        out.push(Action::Spawn { worker: id, key: self.pool_key(k) });
    }

    /// Promises `k` the place of a worker that is being removed, or has one removed for it. What is overdue is left out: a
    /// call without a promise is blocked, and goes on as soon as anything at its level changes.
    fn make_room(&mut self, k: KeySlot, full: FullLevels, out: &mut Vec<Action>) -> Placed {
        let leaving = self.host.free_rooms.iter().copied().find(|w| self.helps(*w, k, full));
        if let Some(w) = leaving {
            return self.promise(w, k);
        }
        match self.victim(k, full) {
            Ok(w) => {
                self.kill(w, KillReason::MakeRoom, out);
                self.promise(w, k)
            }
            Err(level) => Placed::Blocked(level),
        }
    }

    fn promise(&mut self, w: WorkerSlot, k: KeySlot) -> Placed {
        self.set_room(w, Room::Promised(k));
        self.promises += 1;
        Placed::Done
    }

    /// Says whose the place of something that is being removed is going to be.
    fn set_room(&mut self, w: WorkerSlot, room: Room) {
        if let Occupant::Reaping(reaping) = &mut self.workers[w] {
            let before = std::mem::replace(&mut reaping.room, room);
            self.leave_room(w, before);
            self.enter_room(w, room);
        }
    }

    /// Puts a place on the list of those that are promised to nobody, promised to a key, or overdue.
    fn enter_room(&mut self, w: WorkerSlot, room: Room) {
        match room {
            Room::Free => {
                // Who left first is likely to be gone first.
                let at = self.host.free_rooms.partition_point(|free| self.left(*free) < self.left(w));
                self.host.free_rooms.insert(at, w);
            }
            Room::Promised(k) => {
                self.host.promised_rooms.push(w);
                self.keys[k].rooms += 1;
            }
            Room::Overdue => self.host.overdue_rooms.push(w),
        }
    }

    /// Takes a place off that list.
    pub(super) fn leave_room(&mut self, w: WorkerSlot, room: Room) {
        let list = match room {
            Room::Free => &mut self.host.free_rooms,
            Room::Promised(k) => {
                self.keys[k].rooms -= 1;
                &mut self.host.promised_rooms
            }
            Room::Overdue => &mut self.host.overdue_rooms,
        };
        list.retain(|other| *other != w);
    }

    /// A key that waits for a promised place does not wait longer when another is free: what it was promised becomes
    /// anybody's.
    fn release_promises(&mut self, out: &mut Vec<Action>) {
        let first: Vec<WorkerSlot> = self.host.promised_rooms.iter().copied().take(PROMISES_LOOKED_AT).collect();
        for w in first {
            if self.host.making >= self.host.policy.starts_max {
                return;
            }
            let Occupant::Reaping(Reaping { room: Room::Promised(k), .. }) = self.workers[w] else { continue };
            if self.full_levels(k).any() {
                continue;
            }
            self.set_room(w, Room::Free);
            self.serve_again(k, out);
        }
    }

    /// Gives up the place of a worker that is slow to go, or never goes, when its time is over: whom it was promised finds
    /// another, or has one removed, so that it holds nobody up. That costs a call one warm worker more, and no second one
    /// before the next has had its time too.
    pub(super) fn look_at_room(&mut self, w: WorkerSlot, out: &mut Vec<Action>) {
        let Occupant::Reaping(reaping) = &self.workers[w] else { return };
        let room = reaping.room;
        if room == Room::Overdue || self.now < reaping.since + ROOM_PATIENCE {
            return;
        }
        self.set_room(w, Room::Overdue);
        match room {
            Room::Promised(k) => self.serve_again(k, out),
            Room::Free | Room::Overdue => {}
        }
    }

    /// A place that was promised to `k` is so no longer. The key has paid for one, and is served at once if it can be.
    fn serve_again(&mut self, k: KeySlot, out: &mut Vec<Action>) {
        self.touch(k);
        if self.keys[k].turn.is_some() {
            self.place_promised(k, out);
        }
        self.tidy(k);
    }

    fn left(&self, w: WorkerSlot) -> u64 {
        match &self.workers[w] {
            Occupant::Reaping(reaping) => reaping.order,
            Occupant::Cell(_) | Occupant::Worker(_) => 0,
        }
    }

    /// A level that is full for `k`, and stays full whoever is ended: what is overdue takes all its places, since a limit was
    /// lowered. Unless it has a cell, which others may still use though `k` cannot.
    fn hopeless_level(&self, k: KeySlot, full: FullLevels) -> Option<LimitLevel> {
        if self.host.overdue_rooms.is_empty() {
            return None;
        }
        let (f, s) = (self.keys[k].function, self.keys[k].sub_tenant);
        let (function, host) = (self.function(f), &self.host);
        let tenant = self.tenant(function.tenant);
        let none = FullLevels { sub_tenant: false, function: false, tenant: false, host: false };
        let levels = [
            (
                LimitLevel::SubTenant,
                FullLevels { sub_tenant: full.sub_tenant, ..none },
                self.policy_of_sub(s).workers_max,
            ),
            (LimitLevel::Function, FullLevels { function: full.function, ..none }, function.policy.workers_max),
            (LimitLevel::Tenant, FullLevels { tenant: full.tenant, ..none }, tenant.policy.workers_max),
            (LimitLevel::Host, FullLevels { host: full.host, ..none }, host.policy.workers_max),
        ];
        let is_hopeless = |only: FullLevels, max: u32| {
            let overdue = host.overdue_rooms.iter().filter(|w| self.helps(**w, k, only)).count();
            only.any() && overdue >= max as usize && !host.cells.iter().any(|w| self.helps(*w, k, only))
        };
        levels.into_iter().find(|(_, only, max)| is_hopeless(*only, *max)).map(|(level, ..)| level)
    }

    /// Whether the end of `w` makes room at every level that is full for `k`.
    fn helps(&self, w: WorkerSlot, k: KeySlot, full: FullLevels) -> bool {
        let (occupant, key) = (&self.workers[w], &self.keys[k]);
        let is_same_sub = occupant.owner().is_some_and(|owner| self.keys[owner].sub_tenant == key.sub_tenant);
        let is_same_tenant = self.function(occupant.function()).tenant == self.function(key.function).tenant;
        (!full.sub_tenant || is_same_sub)
            && (!full.function || occupant.function() == key.function)
            && (!full.tenant || is_same_tenant)
    }

    /// Who is to go for `k`: a cell, which nobody has used yet, else the least recently used idle worker of the narrowest
    /// level that is full.
    fn victim(&self, k: KeySlot, full: FullLevels) -> Result<WorkerSlot, LimitLevel> {
        let (f, s) = (self.keys[k].function, self.keys[k].sub_tenant);
        let t = self.subs[s].tenant;
        if let Some(cell) = self.host.cells.iter().copied().find(|w| self.helps(*w, k, full)) {
            return Ok(cell);
        }
        if let Some(level) = self.hopeless_level(k, full) {
            return Err(level);
        }
        let may_go = |w: &WorkerSlot| self.workers[*w].worker().is_some_and(|w| !self.keys[w.key].is_at_minimum());
        if full.sub_tenant {
            let own = self.subs[s].keys.iter().flat_map(|(_, k)| &self.keys[*k].idle).copied();
            return own.filter(may_go).min_by_key(|w| (self.idle_since(*w), *w)).ok_or(LimitLevel::SubTenant);
        }
        if full.function {
            let function = self.function(f);
            let all = [function.frozen, function.hot];
            let mut all = all.iter().flat_map(|list| list.iter(&self.workers, IdleList::Function));
            return all.find(may_go).ok_or(LimitLevel::Function);
        }
        if full.tenant {
            let idle = self.tenant(t).idle;
            return idle.iter(&self.workers, IdleList::Tenant).find(may_go).ok_or(LimitLevel::Tenant);
        }
        self.host.idle.iter(&self.workers, IdleList::Host).find(may_go).ok_or(LimitLevel::Host)
    }

    fn idle_since(&self, w: WorkerSlot) -> Tick {
        match self.workers[w].worker().map(|worker| worker.state) {
            Some(WorkerState::Idle { since, .. }) => since,
            Some(WorkerState::Starting { .. } | WorkerState::Leased { .. } | WorkerState::Draining { .. }) | None => {
                self.now
            }
        }
    }
}

impl Pool {
    /// Uses a place that was promised to `k` and paid for.
    pub(super) fn place_promised(&mut self, k: KeySlot, out: &mut Vec<Action>) {
        match self.place(k, out) {
            Placed::Done => self.touch(k),
            // It has lost the place to a limit that was lowered; it waits for its turn like all others.
            Placed::Blocked(level) => self.block(k, level),
            Placed::StartsFull => {}
        }
    }
}
