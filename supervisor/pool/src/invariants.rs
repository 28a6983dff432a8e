//! The rules the books must keep, whatever happens.

use crate::{
    pool::{Pool, State},
    view::{StateName, state_name},
};

impl Pool {
    /// Every rule of the books. For tests, after each step.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check_invariants(&self) -> Result<(), String> {
        let rule = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let count = |name| self.workers.values().filter(|w| state_name(&w.state) == name).count();
        rule(self.workers.len() <= self.host.workers_max as usize, "workers within the host's cap")?;
        rule(count(StateName::Starting) == self.starting as usize, "starting workers counted")?;
        rule(self.starting <= self.host.starts_max, "starting workers within the cap")?;
        rule(count(StateName::Reaping) == self.reaping as usize, "reaping workers counted")?;
        rule(count(StateName::Leased) == self.leased as usize, "leased workers and calls match")?;
        rule(count(StateName::Idle) == self.idle.len(), "idle workers counted")?;
        rule(self.calls.len() == (self.waiting + self.leased) as usize, "every call waits or is leased")?;
        for (key, record) in &self.records {
            rule(
                record.waiting.is_empty() || record.idle.is_empty(),
                "no call waits while a worker that suits it is idle",
            )?;
            if let Some(policy) = self.function(key) {
                rule(record.workers <= policy.workers_per_sub_tenant_max, "workers within the key's cap")?;
            }
        }
        for worker in self.workers.values() {
            match &worker.state {
                State::Leased { call, .. } => rule(
                    self.calls.get(call).is_some_and(|entry| entry.key == worker.key),
                    "a lease is between a worker and a call of one key",
                )?,
                State::Starting { deadline } => rule(worker.timer == Some(*deadline), "a start has a deadline")?,
                State::Idle { .. } => rule(worker.timer.is_some(), "an idle worker has an end")?,
                State::Reaping => rule(worker.timer.is_none(), "a worker being removed has no timer")?,
            }
        }
        for ((tenant, sub_tenant), workers) in &self.sub_tenant_workers {
            let max = self.tenants.get(tenant).map_or(u32::MAX, |policy| policy.sub_tenant_workers_max);
            rule(sub_tenant.is_shared() || *workers <= max, "workers within the sub-tenant's cap")?;
        }
        for (tenant, policy) in &self.tenants {
            let workers = self.tenant_workers.get(tenant).copied().unwrap_or(0);
            rule(workers <= policy.workers_max, "workers within the tenant's cap")?;
            let calls = self.tenant_calls.get(tenant).copied().unwrap_or(0);
            rule(calls <= policy.calls_in_flight_max, "calls within the tenant's cap")?;
        }
        Ok(())
    }
}
