//! Turns: who is served next while places are short.
//!
//! Fair queueing by start times (Goyal, Vin, Cheng 1996), on two levels: between tenants, and between the sub-tenants of one.
//! Everybody has a virtual time that advances by 1/weight with each call that is served; the least goes first. Who comes
//! with an empty queue starts at the virtual time of now: it has no credit from the past, and is before all that had more
//! than their share. Against deficit round robin, which gives the same shares, a newcomer does not wait for a round of
//! turns beside floods, and a level that is full is left out without walking over its queue.
//!
//! Between tenants, which are few, the virtual time of now is that of the turn which is served. Between sub-tenants it is
//! told by a [clock](crate::virtual_clock) that moves on under newcomers too, of whom there may be any number. That clock is
//! one for all functions of a tenant: those who wait for a function that is full slow it down for the others.
//!
//! A worker serves one sub-tenant for life, so a change of turns may cost an eviction and a start. A key that has a
//! worker therefore keeps it for [`TURN_CALLS`] calls beyond its share, unless a newcomer waits.

use crate::{
    event::LimitLevel,
    key::{FunctionId, TenantId},
    pool::Pool,
    slots::{KeySlot, SubTenantSlot},
    virtual_clock::CALL,
};

/// Calls beyond its share for which a key keeps its worker: at a start of three times a short call, half of the time is
/// still spent on calls when two keys fight for one place.
const TURN_CALLS: u64 = 4;

impl Pool {
    /// Whether a key needs to be served, and may be.
    fn wants(&self, k: KeySlot) -> bool {
        let key = &self.keys[k];
        if key.waiting > 0 && !key.idle.is_empty() {
            return true;
        }
        let covered = key.starting + key.rooms;
        if key.waiting + self.missing_warm(k) <= covered || key.is_blocked {
            return false;
        }
        if key.workers + key.rooms >= self.function(key.function).policy.workers_per_sub_tenant_max {
            return false;
        }
        let on_trial = key.breaker.is_on_trial(self.now);
        key.breaker.is_open_for(self.now).is_none() && !(on_trial && covered > 0)
    }

    /// Workers of a key that are to be kept or made ahead, and are not there.
    fn missing_warm(&self, k: KeySlot) -> u32 {
        let key = &self.keys[k];
        if self.drain.is_some() {
            return 0;
        }
        if key.host_faults.is_open_for(self.now).is_some() {
            return 0;
        }
        let missing = key.minimum.max(key.warm_target).saturating_sub(key.settled());
        // One to see whether the host can again.
        if key.host_faults.is_on_trial(self.now) { missing.min(1) } else { missing }
    }

    /// Puts a key among those to be served, or takes it out, after anything about it has changed.
    pub(crate) fn touch(&mut self, k: KeySlot) {
        match (self.wants(k), self.keys[k].turn) {
            (true, None) => self.enter_turns(k),
            (false, Some(_)) => self.leave_turns(k),
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn enter_turns(&mut self, k: KeySlot) {
        let (f, s) = (self.keys[k].function, self.keys[k].sub_tenant);
        let (t, served, weight) = (self.subs[s].tenant, self.subs[s].virtual_time, self.weight_of_sub(s));
        let (clock, sub) = (&mut self.tenants[t.0 as usize].clock, &mut self.subs[s]);
        if sub.turns == 0 {
            sub.weight_waiting = weight;
            clock.begin(s, served, weight);
            sub.virtual_time = served.max(clock.now());
        }
        let time = sub.virtual_time;
        sub.turns += 1;
        self.last_turn += 1;
        let turn = (time, self.last_turn);
        self.keys[k].turn = Some(turn);
        self.function_mut(f).turns.insert((turn.0, turn.1, k));
        self.refresh_function(f);
    }

    fn leave_turns(&mut self, k: KeySlot) {
        if let Some((time, order)) = self.keys[k].turn.take() {
            let (f, s) = (self.keys[k].function, self.keys[k].sub_tenant);
            self.function_mut(f).turns.remove(&(time, order, k));
            let sub = &mut self.subs[s];
            sub.turns -= 1;
            if sub.turns == 0 {
                let (t, time, weight) = (sub.tenant, sub.virtual_time, sub.weight_waiting);
                self.tenant_mut(t).clock.end(s, time, weight);
            }
            self.refresh_function(f);
        }
    }

    fn refresh_function(&mut self, f: FunctionId) {
        let function = self.function_mut(f);
        let is_open = !function.is_blocked && !function.turns.is_empty();
        if is_open == function.is_open {
            return;
        }
        function.is_open = is_open;
        let t = function.tenant;
        let open = &mut self.tenant_mut(t).open;
        if is_open {
            open.push(f);
        } else {
            open.retain(|other| *other != f);
        }
        let tenant = self.tenant(t);
        let has_turn = !tenant.is_blocked && !tenant.open.is_empty();
        if has_turn == tenant.turn.is_some() {
            return;
        }
        let now = self.host.virtual_now;
        let tenant = self.tenant_mut(t);
        match tenant.turn.take() {
            Some(time) => {
                self.host.turns.remove(&(time, t));
            }
            None => {
                tenant.virtual_time = tenant.virtual_time.max(now);
                let time = tenant.virtual_time;
                tenant.turn = Some(time);
                self.host.turns.insert((time, t));
            }
        }
    }

    fn set_tenant_blocked(&mut self, t: TenantId, is_blocked: bool) {
        let tenant = self.tenant_mut(t);
        if tenant.is_blocked == is_blocked {
            return;
        }
        tenant.is_blocked = is_blocked;
        match (is_blocked, tenant.turn.take()) {
            (true, Some(time)) => {
                self.host.turns.remove(&(time, t));
            }
            (false, None) if !tenant.open.is_empty() => {
                let now = self.host.virtual_now;
                let tenant = self.tenant_mut(t);
                tenant.virtual_time = tenant.virtual_time.max(now);
                let time = tenant.virtual_time;
                tenant.turn = Some(time);
                self.host.turns.insert((time, t));
            }
            (_, turn) => self.tenant_mut(t).turn = turn,
        }
    }

    /// The key whose turn it is.
    pub(crate) fn next_key(&self) -> Option<KeySlot> {
        if self.host.is_blocked {
            return None;
        }
        let (_, t) = self.host.turns.first()?;
        let heads = self.tenant(*t).open.iter().filter_map(|f| self.function(*f).turns.first());
        heads.min().map(|(_, _, k)| *k)
    }

    /// The key to serve when it is `next`'s turn and `hot` has a worker that has just become free.
    pub(super) fn prefer(&self, hot: Option<KeySlot>, next: KeySlot) -> KeySlot {
        let Some(hot) = hot.filter(|hot| *hot != next) else { return next };
        let (own, other) = (&self.keys[hot], &self.keys[next]);
        if own.waiting == 0 || own.idle.is_empty() || other.is_fresh || !other.idle.is_empty() {
            return next;
        }
        let (own_sub, other_sub) = (&self.subs[own.sub_tenant], &self.subs[other.sub_tenant]);
        let (ahead, behind, weight) = if own_sub.tenant == other_sub.tenant {
            (own_sub.virtual_time, other_sub.virtual_time, self.policy_of_sub(own.sub_tenant).weight)
        } else {
            let (own, other) = (self.tenant(own_sub.tenant), self.tenant(other_sub.tenant));
            (own.virtual_time, other.virtual_time, own.policy.weight)
        };
        if ahead < behind + TURN_CALLS * CALL / u64::from(weight.max(1)) { hot } else { next }
    }

    fn weight_of_sub(&self, s: SubTenantSlot) -> u32 {
        self.policy_of_sub(s).weight.max(1)
    }

    /// `k` has been served one call's worth when it was the turn of `next`.
    pub(super) fn charge(&mut self, k: KeySlot, next: KeySlot) {
        let (s, next_s) = (self.keys[k].sub_tenant, self.keys[next].sub_tenant);
        self.keys[k].is_fresh = false;
        self.charge_sub_tenant(s, next_s);
        self.charge_tenant(self.subs[s].tenant, self.subs[next_s].tenant);
    }

    /// The clock follows the turns, not what was served out of turn: who waits must not lose its credit to that.
    fn charge_sub_tenant(&mut self, s: SubTenantSlot, next: SubTenantSlot) {
        let (weight, turn) = (self.weight_of_sub(s), self.subs[next].virtual_time);
        let sub = &mut self.subs[s];
        let tenant = &mut self.tenants[sub.tenant.0 as usize];
        let clock = &mut tenant.clock;
        let is_last = sub.turns == 0;
        if is_last {
            // Its last call was on its way before it was charged: it waited until now.
            clock.begin(s, sub.virtual_time, weight);
        } else if weight != sub.weight_waiting {
            clock.reweigh(sub.weight_waiting, weight);
            sub.weight_waiting = weight;
        }
        if s == next {
            clock.serve(turn);
        }
        // Who waits keeps the time it began to wait with, and is behind the clock while others are served before it. By one
        // call at the most, of its own weight or that which most have: one that could not be served for other reasons
        // must not have all that it missed at once.
        let lightest = u64::from(weight.min(tenant.policy.sub_tenant.weight).max(1));
        let start = sub.virtual_time.max(clock.now().saturating_sub(CALL / lightest));
        // Rounded up: never behind a clock that has counted exactly.
        sub.virtual_time = start + CALL.div_ceil(u64::from(weight));
        if is_last {
            clock.end(s, sub.virtual_time, weight);
        }
        for at in 0..self.subs[s].keys.len() {
            let (_, k) = self.subs[s].keys[at];
            if self.keys[k].turn.is_some() {
                self.move_turn(k);
            }
        }
    }

    fn charge_tenant(&mut self, t: TenantId, next: TenantId) {
        self.host.virtual_now = self.host.virtual_now.max(self.tenant(next).virtual_time);
        let now = self.host.virtual_now;
        let tenant = self.tenant_mut(t);
        tenant.virtual_time = now.max(tenant.virtual_time) + CALL / u64::from(tenant.policy.weight.max(1));
        let (time, turn) = (tenant.virtual_time, tenant.turn);
        if let Some(old) = turn {
            self.tenant_mut(t).turn = Some(time);
            self.host.turns.remove(&(old, t));
            self.host.turns.insert((time, t));
        }
    }

    fn move_turn(&mut self, k: KeySlot) {
        let (f, s) = (self.keys[k].function, self.keys[k].sub_tenant);
        let time = self.subs[s].virtual_time;
        if let Some((old, order)) = self.keys[k].turn {
            self.keys[k].turn = Some((time, order));
            let turns = &mut self.function_mut(f).turns;
            turns.remove(&(old, order, k));
            turns.insert((time, order, k));
        }
    }

    /// A key cannot be served at this level: nobody who needs the same is asked until something there has changed.
    pub(super) fn block(&mut self, k: KeySlot, level: LimitLevel) {
        let f = self.keys[k].function;
        match level {
            LimitLevel::Host => self.host.is_blocked = true,
            LimitLevel::Tenant => self.set_tenant_blocked(self.function(f).tenant, true),
            LimitLevel::Function => {
                self.function_mut(f).is_blocked = true;
                self.refresh_function(f);
            }
            LimitLevel::SubTenant => {
                self.keys[k].is_blocked = true;
                self.touch(k);
            }
        }
    }

    /// Something about a worker or cell of this function has changed: all levels it counts at may have room now.
    pub(crate) fn unblock(&mut self, f: FunctionId) {
        self.host.is_blocked = false;
        if std::mem::take(&mut self.function_mut(f).is_blocked) {
            self.refresh_function(f);
        }
        self.set_tenant_blocked(self.function(f).tenant, false);
    }

    /// Likewise, of a worker of this key.
    pub(crate) fn unblock_key(&mut self, k: KeySlot) {
        self.unblock(self.keys[k].function);
        let s = self.keys[k].sub_tenant;
        for at in 0..self.subs[s].keys.len() {
            let (_, other) = self.subs[s].keys[at];
            if std::mem::take(&mut self.keys[other].is_blocked) {
                self.touch(other);
            }
        }
    }

    /// Whether somebody waits for a place that a worker of this key holds.
    pub(super) fn is_contended(&self, k: KeySlot) -> bool {
        let key = &self.keys[k];
        let function = self.function(key.function);
        self.host.is_blocked
            || function.is_blocked
            || self.tenant(function.tenant).is_blocked
            || self.subs[key.sub_tenant].keys.iter().any(|(_, other)| self.keys[*other].is_blocked)
    }
}
