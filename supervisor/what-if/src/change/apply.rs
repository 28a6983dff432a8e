//! Makes one setup from another.

use super::{Change, ChangeError, FunctionChange, HostChange, LevelChange, Target, Which};
use crate::{
    setup::{Function, Setup, Tenant},
    token::Token,
};

/// Names that an error lists.
const KNOWN_SHOWN_MAX: usize = 10;

impl Setup {
    /// A setup with these changes.
    ///
    /// # Errors
    /// The first change that is wrong, or a cap that would be above another because of them.
    pub fn with(&self, changes: &[Change]) -> Result<Self, ChangeError> {
        let mut changes: Vec<&Change> = changes.iter().collect();
        changes.sort_by(|a, b| (a.target.order(), &a.key).cmp(&(b.target.order(), &b.key)));
        if let Some([twice, _]) = changes.windows(2).find(|pair| matches!(pair, [a, b] if a.key == b.key)) {
            return Err(ChangeError::Twice { key: twice.key.clone() });
        }
        let mut after = self.clone();
        for change in changes {
            after.apply(change)?;
        }
        after.check_caps(self)?;
        Ok(after)
    }

    fn apply(&mut self, change: &Change) -> Result<(), ChangeError> {
        match &change.target {
            Target::Host(host) => {
                self.apply_to_host(*host);
                Ok(())
            }
            Target::Tenant { tenant, change: level } => {
                self.meant(change, *tenant)?.for_each(|tenant| apply_to_tenant(tenant, *level));
                Ok(())
            }
            Target::SubTenant { tenant, change: level } => {
                self.meant(change, *tenant)?.for_each(|tenant| apply_to_sub_tenants(tenant, *level));
                Ok(())
            }
            Target::Function { tenant, function, change: of_function } => {
                let mut found = false;
                let mut known = Vec::new();
                for tenant in self.meant(change, *tenant)? {
                    for (name, meant) in &mut tenant.functions {
                        known.push(*name);
                        if function.means(name) {
                            found = true;
                            apply_to_function(meant, *of_function);
                        }
                    }
                }
                if found {
                    return Ok(());
                }
                let function = match function {
                    Which::All => "*".to_owned(),
                    Which::Named(name) => name.to_string(),
                };
                Err(ChangeError::UnknownFunction { key: change.key.clone(), function, known: listed(known) })
            }
        }
    }

    /// The tenants a change means: one at least.
    fn meant(&mut self, change: &Change, which: Which) -> Result<impl Iterator<Item = &mut Tenant>, ChangeError> {
        if !self.tenants.keys().any(|name| which.means(name)) {
            let tenant = match which {
                Which::All => "*".to_owned(),
                Which::Named(name) => name.to_string(),
            };
            let known = listed(self.tenants.keys().copied().collect());
            return Err(ChangeError::UnknownTenant { key: change.key.clone(), tenant, known });
        }
        Ok(self.tenants.iter_mut().filter(move |(name, _)| which.means(name)).map(|(_, tenant)| tenant))
    }

    fn apply_to_host(&mut self, change: HostChange) {
        let host = &mut self.host;
        match change {
            HostChange::WorkersMax(new) => {
                let old = std::mem::replace(&mut host.workers_max, new);
                lower(&mut host.starts_max, old, new);
                for tenant in self.tenants.values_mut().filter(|tenant| tenant.policy.workers_max == old) {
                    apply_to_tenant(tenant, LevelChange::WorkersMax(new));
                }
            }
            HostChange::StartsMax(new) => host.starts_max = new,
            HostChange::CallsWaitingMax(new) => {
                let old = std::mem::replace(&mut host.calls_waiting_max, new);
                for function in self.tenants.values_mut().flat_map(|tenant| tenant.functions.values_mut()) {
                    lower(&mut function.policy.queue_max, old, new);
                }
            }
            HostChange::CallsInFlightMax(new) => {
                let old = std::mem::replace(&mut host.calls_in_flight_max, new);
                for tenant in self.tenants.values_mut().filter(|tenant| tenant.policy.calls_in_flight_max == old) {
                    apply_to_tenant(tenant, LevelChange::CallsInFlightMax(new));
                }
            }
            HostChange::CellsMemoryMax(new) => host.cells_memory_max = new,
        }
    }

    /// Every cap beside the one above it that it must not pass.
    fn caps(&self) -> Vec<Cap> {
        let mut caps = Vec::new();
        let mut add = |key: String, value: u32, above: &str, limit: u32| {
            caps.push(Cap { key, value, above: above.to_owned(), limit });
        };
        let host = &self.host;
        add("host.starts_max".to_owned(), host.starts_max, "host.workers_max", host.workers_max);
        for (name, tenant) in &self.tenants {
            let of = |key: &str| format!("tenant.{name}.{key}");
            let (policy, sub) = (&tenant.policy, &tenant.policy.sub_tenant);
            let (workers, calls) = ("workers_max", "calls_in_flight_max");
            add(of(workers), policy.workers_max, "host.workers_max", host.workers_max);
            add(of(calls), policy.calls_in_flight_max, "host.calls_in_flight_max", host.calls_in_flight_max);
            let (of_sub, sub_calls) = (of("sub_tenant.workers_max"), of("sub_tenant.calls_in_flight_max"));
            add(of_sub.clone(), sub.workers_max, &of(workers), policy.workers_max);
            add(sub_calls, sub.calls_in_flight_max, &of(calls), policy.calls_in_flight_max);
            for (function_name, function) in &tenant.functions {
                let below = |key: &str| format!("tenant.{name}.function.{function_name}.{key}");
                let (function, each) = (&function.policy, "workers_per_sub_tenant_max");
                add(below(workers), function.workers_max, &of(workers), policy.workers_max);
                add(below(each), function.workers_per_sub_tenant_max, &below(workers), function.workers_max);
                add(below(each), function.workers_per_sub_tenant_max, &of_sub, sub.workers_max);
                add(below(calls), function.calls_in_flight_max, &of(calls), policy.calls_in_flight_max);
                add(below("queue_max"), function.queue_max, "host.calls_waiting_max", host.calls_waiting_max);
            }
        }
        caps
    }

    /// What the configuration allowed before, it may keep: only what the changes did is held against them.
    fn check_caps(&self, before: &Self) -> Result<(), ChangeError> {
        let known = before.caps();
        let is_new = |cap: &&Cap| cap.value > cap.limit && !known.contains(cap);
        let caps = self.caps();
        let mut new = caps.iter().filter(is_new);
        let Some(Cap { key, value, above, limit }) = new.next() else { return Ok(()) };
        let mut others: Vec<String> = new.map(|cap| cap.key.clone()).filter(|other| other != key).collect();
        others.dedup();
        Err(ChangeError::AboveCap { key: key.clone(), value: *value, above: above.clone(), limit: *limit, others })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Cap {
    key: String,
    value: u32,
    above: String,
    limit: u32,
}

/// A cap whose default is lowered to the one above.
fn lower(cap: &mut u32, old: u32, new: u32) {
    if *cap == old {
        *cap = new.min(old);
    }
}

fn apply_to_tenant(tenant: &mut Tenant, change: LevelChange) {
    let policy = &mut tenant.policy;
    match change {
        LevelChange::WorkersMax(new) => {
            let old = std::mem::replace(&mut policy.workers_max, new);
            for function in tenant.functions.values_mut().filter(|function| function.policy.workers_max == old) {
                apply_to_function(function, FunctionChange::WorkersMax(new));
            }
            if tenant.policy.sub_tenant.workers_max == old {
                apply_to_sub_tenants(tenant, LevelChange::WorkersMax(new));
            }
        }
        LevelChange::CallsInFlightMax(new) => {
            let old = std::mem::replace(&mut policy.calls_in_flight_max, new);
            let sub = &mut policy.sub_tenant.calls_in_flight_max;
            let functions = tenant.functions.values_mut().map(|function| &mut function.policy.calls_in_flight_max);
            functions.chain([sub]).filter(|cap| **cap == old).for_each(|cap| *cap = new);
        }
        LevelChange::Weight(weight) => policy.weight = weight,
        LevelChange::Rate(rate) => policy.rate = rate,
    }
}

fn apply_to_sub_tenants(tenant: &mut Tenant, change: LevelChange) {
    let policy = &mut tenant.policy.sub_tenant;
    match change {
        LevelChange::WorkersMax(new) => {
            let old = std::mem::replace(&mut policy.workers_max, new);
            for function in tenant.functions.values_mut() {
                lower(&mut function.policy.workers_per_sub_tenant_max, old, new);
            }
        }
        LevelChange::CallsInFlightMax(new) => policy.calls_in_flight_max = new,
        LevelChange::Weight(weight) => policy.weight = weight,
        LevelChange::Rate(rate) => policy.rate = rate,
    }
}

fn apply_to_function(function: &mut Function, change: FunctionChange) {
    let policy = &mut function.policy;
    match change {
        FunctionChange::WorkersMax(new) => {
            let old = std::mem::replace(&mut policy.workers_max, new);
            lower(&mut policy.workers_per_sub_tenant_max, old, new);
        }
        FunctionChange::WorkersPerSubTenantMax(new) => policy.workers_per_sub_tenant_max = new,
        FunctionChange::CallsInFlightMax(new) => policy.calls_in_flight_max = new,
        FunctionChange::QueueMax(new) => policy.queue_max = new,
        FunctionChange::IdleTtl(new) => policy.idle_ttl = new,
        FunctionChange::FreezeAfter(new) => policy.freeze_after = new,
        FunctionChange::StartTimeout(new) => policy.start_timeout = new,
        FunctionChange::Timeout(new) => function.timeout = new,
        FunctionChange::CallsMax(new) => policy.calls_max = new,
        FunctionChange::AgeMax(new) => policy.age_max = new,
        FunctionChange::CellsMax(new) => policy.cells_max = new,
        FunctionChange::Idempotent(new) => policy.is_idempotent = new,
    }
}

fn listed(mut names: Vec<Token>) -> String {
    names.sort();
    names.dedup();
    let shown: Vec<String> = names.iter().take(KNOWN_SHOWN_MAX).map(Token::to_string).collect();
    match (names.len(), names.len().checked_sub(KNOWN_SHOWN_MAX)) {
        (0, _) => "none".to_owned(),
        (_, None | Some(0)) => shown.join(", "),
        (_, Some(more)) => format!("{} and {more} more", shown.join(", ")),
    }
}
