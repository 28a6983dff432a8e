//! Who used what: receipts summed per worker, sub-tenant and tenant, beside what the kernel counted for the same groups.
//!
//! Conservation: what calls used, what was used between them, by starts and by cells nobody got add up to the kernel's
//! own counters. The meters cut one stream of readings, so it holds by construction for every worker, dead ones too;
//! what it is held against, the counters of the tenants' groups, is read by nobody else.

pub mod meter;
pub mod sums;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sublet_pool::SubTenant;

use self::sums::Sums;
use crate::cgroups::owner::Owner;

/// Sub-tenants of which sums are kept; beyond, those that had nothing to do for longest are folded into their tenant's.
const ROWS_MAX: usize = 20_000;

/// The sums of one sub-tenant.
#[derive(Debug)]
pub struct Row {
    /// Receipts.
    pub sums: Arc<Sums>,
    /// CPU time the kernel counted in groups of it that are gone, in nanoseconds.
    gone: AtomicU64,
    last: Mutex<Instant>,
}

impl Row {
    fn new() -> Self {
        Self { sums: Arc::default(), gone: AtomicU64::new(0), last: Mutex::new(Instant::now()) }
    }

    /// CPU time the kernel counted in groups of it that are gone.
    pub fn gone(&self) -> Duration {
        Duration::from_nanos(self.gone.load(Relaxed))
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sums of one tenant.
#[derive(Debug, Default)]
struct TenantRow {
    sums: Arc<Sums>,
    folded: Sums,
    gone: AtomicU64,
    rows: HashMap<SubTenant, Arc<Row>>,
}

/// All sums.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    tenants: BTreeMap<Arc<str>, TenantRow>,
    rows: usize,
}

/// One tenant's sums, to be shown.
#[derive(Debug)]
pub struct TenantSums {
    /// Its name.
    pub tenant: Arc<str>,
    /// Over all its sub-tenants.
    pub sums: Arc<Sums>,
    /// Of that, sub-tenants that are not kept singly any more.
    pub folded: sums::Used,
    /// CPU time the kernel counted in groups of it that are gone.
    pub gone: Duration,
    /// Its sub-tenants.
    pub rows: Vec<(SubTenant, Arc<Row>)>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sums a call or a worker of this sub-tenant adds to: its own and its tenant's. Without one, the tenant's alone.
    pub fn of(&self, tenant: &Arc<str>, label: Option<&SubTenant>) -> Vec<Arc<Sums>> {
        let mut books = self.books();
        if label.is_some() && books.rows > ROWS_MAX {
            books.fold();
        }
        let Books { tenants, rows } = &mut *books;
        let of_tenant = tenants.entry(tenant.clone()).or_default();
        let mut all = Vec::with_capacity(2);
        if let Some(label) = label {
            let row = of_tenant.rows.entry(label.clone()).or_insert_with(|| {
                *rows += 1;
                Arc::new(Row::new())
            });
            row.touch();
            all.push(row.sums.clone());
        }
        all.push(of_tenant.sums.clone());
        all
    }

    /// A group is gone, and with it what the kernel counted.
    pub fn gone(&self, owner: &Owner, cpu: Duration) {
        let mut books = self.books();
        let of_tenant = books.tenants.entry(owner.tenant().clone()).or_default();
        match owner {
            Owner::Tenant { .. } => drop(of_tenant.gone.fetch_add(nanos(cpu), Relaxed)),
            Owner::SubTenant { label: Some(label), .. } => {
                if let Some(row) = of_tenant.rows.get(label) {
                    row.gone.fetch_add(nanos(cpu), Relaxed);
                }
            }
            // A cell's is its tenant's, and a worker's own ends with it.
            Owner::SubTenant { label: None, .. } | Owner::Worker { .. } => {}
        }
    }

    /// All sums now.
    pub fn all(&self) -> Vec<TenantSums> {
        let books = self.books();
        let tenant = |(tenant, row): (&Arc<str>, &TenantRow)| TenantSums {
            tenant: tenant.clone(),
            sums: row.sums.clone(),
            folded: row.folded.used(),
            gone: Duration::from_nanos(row.gone.load(Relaxed)),
            rows: row.rows.iter().map(|(label, row)| (label.clone(), row.clone())).collect(),
        };
        books.tenants.iter().map(tenant).collect()
    }
}

impl Books {
    /// Half of the rows that nobody adds to go, the oldest first.
    fn fold(&mut self) {
        let mut idle: Vec<(Instant, Arc<str>, SubTenant)> = Vec::new();
        for (tenant, of_tenant) in &self.tenants {
            // Held by a worker's meter or a call under way, it may still be added to.
            let free = of_tenant.rows.iter().filter(|(_, row)| Arc::strong_count(&row.sums) == 1);
            idle.extend(free.map(|(label, row)| (row.last(), tenant.clone(), label.clone())));
        }
        idle.sort_by_key(|(last, ..)| *last);
        for (_, tenant, label) in idle.iter().take(idle.len().div_ceil(2)) {
            if let Some(of_tenant) = self.tenants.get_mut(tenant)
                && let Some(row) = of_tenant.rows.remove(label)
            {
                of_tenant.folded.merge(&row.sums);
                self.rows -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cgroups::reading::Reading,
        usage::sums::{CallEnd, Phase},
    };

    #[test]
    fn rows_are_bounded_and_nothing_is_lost_by_that() {
        let ledger = Ledger::default();
        let tenant: Arc<str> = "acme".into();
        let used = Reading { cpu: Duration::from_millis(1), ..Reading::default() };
        let held = ledger.of(&tenant, Some(&SubTenant::try_from("held").unwrap()));
        let count = ROWS_MAX + 100;
        for n in 0..count {
            for sums in ledger.of(&tenant, Some(&SubTenant::try_from(format!("s{n}").as_str()).unwrap())) {
                sums.add(Phase::Call, &used);
                sums.call(CallEnd::Answered, Duration::ZERO, Duration::ZERO);
            }
        }
        let all = ledger.all();
        assert!(all[0].rows.len() <= ROWS_MAX, "{}", all[0].rows.len());
        assert!(all[0].rows.iter().any(|(label, _)| label.as_str() == "held"));
        let single: u64 = all[0].rows.iter().map(|(_, row)| row.sums.used().answered).sum();
        assert_eq!(single + all[0].folded.answered, count as u64);
        assert_eq!(all[0].sums.used().cpu_calls.as_millis(), count as u128);
        drop(held);
    }
}
