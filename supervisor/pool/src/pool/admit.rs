//! Calls: taken or refused, cancelled, expired, ended.

use std::time::Duration;

use crate::{
    event::{Action, CallId, End, KillReason, LimitLevel, Refusal, Stage, WorkerId},
    key::PoolKey,
    pool::{Pool, counters::Counted},
    records::{Call, CallState, FunctionState},
    slots::KeySlot,
    time::Tick,
    timers::Timer,
};

/// Least and most that a refused caller is told to wait.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long a call takes as long as nobody knows.
const SERVICE_UNKNOWN: Duration = Duration::from_millis(100);

impl Pool {
    pub(super) fn invoke(&mut self, call: CallId, key: &PoolKey, deadline: Tick, out: &mut Vec<Action>) {
        if let Err(refusal) = self.admit(key, deadline) {
            return out.push(Action::Settle { call, end: End::Refused(refusal) });
        }
        let k = self.key_record(key);
        let s = self.keys[k].sub_tenant;
        let (f, t) = (key.function, self.subs[s].tenant);
        let now = self.now;
        if let Some(rate) = self.tenant(t).policy.rate {
            self.tenant_mut(t).bucket.take(now, rate);
        }
        if let Some(rate) = self.policy_of_sub(s).rate {
            self.subs[s].bucket.take(now, rate);
        }
        self.enter(Counted::Call { key: k });
        self.timers.set(deadline, Timer::Call(call));
        self.calls.insert(call, Call { key: k, deadline, state: CallState::Waiting, died_with: None });
        if self.keys[k].waiting == 0 {
            let sub = &self.subs[s];
            self.keys[k].is_fresh = sub.turns == 0 && sub.virtual_time <= self.tenant(t).clock.now();
            if self.keys[k].idle.is_empty() && self.keys[k].live() == 0 {
                self.count_miss(f);
            }
        }
        self.keys[k].queue.push_back(call);
        self.enter(Counted::WaitingCall { key: k });
        match self.usable_idle(k, out) {
            Some(w) => self.deliver_next(k, w, out),
            None => self.touch(k),
        }
    }

    fn admit(&self, key: &PoolKey, deadline: Tick) -> Result<(), Refusal> {
        if self.drain.is_some() {
            return Err(Refusal::Draining);
        }
        if deadline <= self.now {
            return Err(Refusal::DeadlinePast);
        }
        let function = (self.functions.get(key.function.0 as usize))
            .filter(|function| function.state == FunctionState::Live)
            .ok_or(Refusal::UnknownFunction)?;
        let tenant = self.tenant(function.tenant);
        let found = self.find_key(key).map(|k| &self.keys[k]);
        let service = match function.service_nanos {
            0 => SERVICE_UNKNOWN,
            nanos => Duration::from_nanos(nanos),
        };
        let after =
            |ahead: u32, workers: u32| (service.saturating_mul(ahead + 1) / workers.max(1)).clamp(RETRY_MIN, RETRY_MAX);
        let calls = |level, in_flight: u32, limit: u32| {
            if in_flight < limit {
                return Ok(());
            }
            Err(Refusal::CallsFull { level, limit, retry_after: after(0, 1) })
        };
        let sub_policy = self.sub_policy(function.tenant, &key.sub_tenant);
        let sub = tenant.sub_tenants.get(&key.sub_tenant).map(|s| &self.subs[*s]);
        let of_sub = sub.map_or(0, |sub| sub.in_flight);
        calls(LimitLevel::SubTenant, of_sub, sub_policy.calls_in_flight_max)?;
        calls(LimitLevel::Function, function.in_flight, function.policy.calls_in_flight_max)?;
        calls(LimitLevel::Tenant, tenant.in_flight, tenant.policy.calls_in_flight_max)?;
        calls(LimitLevel::Host, self.host.in_flight, self.host.policy.calls_in_flight_max)?;
        // An idle worker that is to go, and has not been woken for it yet, is none.
        let has_idle = found.is_some_and(|found| found.idle.iter().rev().any(|w| self.retire_reason(*w).is_none()));
        if !has_idle {
            if let Some(found) = found {
                if let Some(retry_after) = found.breaker.is_open_for(self.now) {
                    return Err(Refusal::CrashBackoff { retry_after });
                }
                let own = sub_policy.queue_max.filter(|own| *own < function.policy.queue_max);
                let (level, limit) = match own {
                    Some(own) => (LimitLevel::SubTenant, own),
                    None => (LimitLevel::Function, function.policy.queue_max),
                };
                // A call that a worker is being made for does not stand in the queue.
                if u64::from(found.waiting) >= u64::from(limit) + u64::from(found.starting + found.rooms) {
                    return Err(Refusal::QueueFull { level, limit, retry_after: after(found.waiting, found.live()) });
                }
            }
            let limit = self.host.policy.calls_waiting_max;
            if self.host.waiting >= limit {
                return Err(Refusal::CallsWaitingFull { limit, retry_after: after(0, 1) });
            }
        }
        // Last, so that a call that is refused for another reason takes nothing from its rate.
        let limited = |level, per_second| move |retry_after| Refusal::RateLimited { level, per_second, retry_after };
        if let (Some(rate), Some(sub)) = (sub_policy.rate, sub) {
            sub.bucket.check(self.now, rate).map_err(limited(LimitLevel::SubTenant, rate.per_second))?;
        }
        if let Some(rate) = tenant.policy.rate {
            tenant.bucket.check(self.now, rate).map_err(limited(LimitLevel::Tenant, rate.per_second))?;
        }
        Ok(())
    }

    /// Takes a call off the books and says how it ended.
    pub(crate) fn settle(&mut self, call: CallId, end: End, out: &mut Vec<Action>) {
        let Some(Call { key: k, state, .. }) = self.calls.remove(&call) else { return };
        self.leave(Counted::Call { key: k });
        if state == CallState::Waiting {
            self.unqueue(k);
        }
        out.push(Action::Settle { call, end });
    }

    /// One call less waits. Its place in the queue stays until the queue is read, or has more such places than calls.
    fn unqueue(&mut self, k: KeySlot) {
        self.leave(Counted::WaitingCall { key: k });
        if self.keys[k].waiting == 0 {
            self.keys[k].queue = Default::default();
        } else if self.keys[k].queue.len() > 2 * self.keys[k].waiting as usize + 16 {
            let mut queue = std::mem::take(&mut self.keys[k].queue);
            queue.retain(|call| self.calls.get(call).is_some_and(|call| call.state == CallState::Waiting));
            self.keys[k].queue = queue;
        }
        self.touch(k);
    }

    /// The oldest call that waits.
    pub(crate) fn next_call(&mut self, k: KeySlot) -> Option<CallId> {
        while let Some(call) = self.keys[k].queue.pop_front() {
            if self.calls.get(&call).is_some_and(|call| call.state == CallState::Waiting) {
                return Some(call);
            }
        }
        None
    }

    pub(crate) fn waiting_calls(&self, k: KeySlot) -> Vec<CallId> {
        let waits = |call: &&CallId| self.calls.get(call).is_some_and(|call| call.state == CallState::Waiting);
        self.keys[k].queue.iter().filter(waits).copied().collect()
    }

    pub(super) fn cancel(&mut self, call: CallId, out: &mut Vec<Action>) {
        self.give_up(call, KillReason::Cancelled, out, |at, worker| End::Cancelled { at, worker });
    }

    pub(super) fn call_expired(&mut self, call: CallId, out: &mut Vec<Action>) {
        self.give_up(call, KillReason::Deadline, out, |at, worker| End::Deadline { at, worker });
    }

    fn give_up(
        &mut self,
        call: CallId,
        why: KillReason,
        out: &mut Vec<Action>,
        end: impl Fn(Stage, Option<WorkerId>) -> End,
    ) {
        let Some(Call { key: k, state, .. }) = self.calls.get(&call).cloned() else { return };
        match state {
            CallState::Waiting => {
                let at = if self.keys[k].starting > 0 { Stage::Starting } else { Stage::Queued };
                self.settle(call, end(at, None), out);
                self.tidy(k);
            }
            CallState::Leased(w) => {
                let id = self.workers[w].id();
                self.settle(call, end(Stage::Leased, Some(id)), out);
                // A late answer must never meet a new call.
                self.kill(w, why, out);
            }
        }
    }
}
