//! What the simulation knows of functions, sub-tenants, workers and calls; looked up without an allocation per call.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::Duration,
};

use sublet_pool::{CallId, FunctionId, Pool, PoolKey, SubTenant, Tick, WorkerId};

use super::RunError;
use crate::{
    report::{SubTenantDelay, WORST_SHOWN},
    setup::{Function, Setup},
    token::Token,
    trace::{Outcome, Row},
};

/// Ids count up and nobody chooses them: one multiplication spreads them.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // 2^64 divided by the golden ratio, as in the pool.
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

type Ids<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// A call in flight.
#[derive(Clone, Copy, Debug)]
pub struct CallRecord {
    pub function: FunctionId,
    /// Its place in the list of sub-tenants.
    pub sub_tenant: u32,
    pub arrival: Tick,
    pub service: Duration,
    pub outcome: Outcome,
    pub is_delivered: bool,
}

impl CallRecord {
    pub fn new(row: &Row, function: FunctionId, sub_tenant: u32, arrival: Tick) -> Self {
        let service = Duration::from_micros(row.service_us);
        Self { function, sub_tenant, arrival, service, outcome: row.outcome, is_delivered: false }
    }
}

/// A worker or cell until nothing of it is left.
#[derive(Clone, Copy, Debug)]
pub struct WorkerRecord {
    pub function: FunctionId,
    pub bytes: u64,
    pub is_cell: bool,
}

#[derive(Debug)]
struct FunctionRecord {
    tenant: u32,
    settings: Function,
}

#[derive(Debug)]
struct TenantRecord {
    name: Token,
    functions: HashMap<Token, FunctionId>,
    sub_tenants: HashMap<Token, u32>,
}

#[derive(Debug)]
struct SubTenantRecord {
    tenant: u32,
    label: SubTenant,
    calls: u64,
    waited_nanos: u128,
}

/// All of it.
#[derive(Debug)]
pub struct Books {
    names: HashMap<Token, u32>,
    tenants: Vec<TenantRecord>,
    functions: Vec<FunctionRecord>,
    sub_tenants: Vec<SubTenantRecord>,
    workers: Ids<WorkerId, WorkerRecord>,
    calls: Ids<CallId, CallRecord>,
}

impl Books {
    /// Makes the tenants and functions of a setup known to the pool and to the books.
    pub fn new(setup: &Setup, pool: &mut Pool) -> Self {
        let mut books = Self {
            names: HashMap::new(),
            tenants: Vec::new(),
            functions: Vec::new(),
            sub_tenants: Vec::new(),
            workers: Ids::default(),
            calls: Ids::default(),
        };
        for (name, tenant) in &setup.tenants {
            let t = books.tenants.len() as u32;
            let id = pool.add_tenant(&Arc::from(name.as_str()), tenant.policy);
            let mut functions = HashMap::new();
            for (function_name, function) in &tenant.functions {
                let f = pool.add_function(id, &Arc::from(function_name.as_str()), 0, function.policy.clone());
                assert!(f.0 as usize == books.functions.len(), "a new pool counts functions from 0");
                books.functions.push(FunctionRecord { tenant: t, settings: function.clone() });
                functions.insert(*function_name, f);
            }
            books.names.insert(*name, t);
            books.tenants.push(TenantRecord { name: *name, functions, sub_tenants: HashMap::new() });
        }
        books
    }

    pub fn tenants(&self) -> usize {
        self.tenants.len()
    }

    pub fn tenant_name(&self, t: u32) -> String {
        self.tenants[t as usize].name.to_string()
    }

    pub fn function(&self, f: FunctionId) -> &Function {
        &self.functions[f.0 as usize].settings
    }

    pub fn tenant_of(&self, f: FunctionId) -> u32 {
        self.functions[f.0 as usize].tenant
    }

    pub fn find_function(&self, row: &Row, number: u64) -> Result<FunctionId, RunError> {
        let Some(t) = self.names.get(&row.tenant) else {
            return Err(RunError::UnknownTenant { row: number, tenant: row.tenant.to_string() });
        };
        let found = self.tenants[*t as usize].functions.get(&row.function).copied();
        found.ok_or_else(|| RunError::UnknownFunction {
            row: number,
            tenant: row.tenant.to_string(),
            function: row.function.to_string(),
        })
    }

    /// The place of a row's sub-tenant, a new one if need be.
    pub fn find_sub_tenant(&mut self, f: FunctionId, row: &Row, number: u64, most: usize) -> Result<u32, RunError> {
        let t = self.tenant_of(f);
        let known = &mut self.tenants[t as usize].sub_tenants;
        if let Some(s) = known.get(&row.sub_tenant) {
            return Ok(*s);
        }
        if self.sub_tenants.len() >= most {
            return Err(RunError::TooManySubTenants { row: number, limit: most });
        }
        let label = if row.sub_tenant.is_empty() {
            SubTenant::shared()
        } else {
            SubTenant::try_from(row.sub_tenant.as_str()).expect("a token is short and has no control character")
        };
        let s = self.sub_tenants.len() as u32;
        known.insert(row.sub_tenant, s);
        self.sub_tenants.push(SubTenantRecord { tenant: t, label, calls: 0, waited_nanos: 0 });
        Ok(s)
    }

    pub fn key(&self, function: FunctionId, s: u32) -> PoolKey {
        PoolKey { function, sub_tenant: self.sub_tenants[s as usize].label.clone() }
    }

    pub fn waited(&mut self, s: u32, waited: Duration) {
        let sub_tenant = &mut self.sub_tenants[s as usize];
        sub_tenant.calls += 1;
        sub_tenant.waited_nanos += waited.as_nanos();
    }

    /// Those who waited longest; among equals the first by tenant and token, whatever the order they came in.
    pub fn worst(&self) -> Vec<SubTenantDelay> {
        let mean = |s: &SubTenantRecord| s.waited_nanos / u128::from(s.calls.max(1));
        let rank =
            |s: &&SubTenantRecord| (std::cmp::Reverse(mean(s)), &self.tenants[s.tenant as usize].name, s.label.clone());
        let mut all: Vec<&SubTenantRecord> = self.sub_tenants.iter().filter(|s| s.calls > 0).collect();
        if all.len() > WORST_SHOWN {
            all.select_nth_unstable_by_key(WORST_SHOWN, rank);
            all.truncate(WORST_SHOWN);
        }
        all.sort_by_key(rank);
        let delay = |s: &&SubTenantRecord| SubTenantDelay {
            tenant: self.tenant_name(s.tenant),
            sub_tenant: s.label.as_str().to_owned(),
            calls: s.calls,
            mean_us: u64::try_from(mean(s) / 1000).unwrap_or(u64::MAX),
        };
        all.iter().map(delay).collect()
    }

    pub fn open(&mut self, call: CallId, record: CallRecord) {
        self.calls.insert(call, record);
    }

    pub fn call_mut(&mut self, call: CallId) -> Option<&mut CallRecord> {
        self.calls.get_mut(&call)
    }

    pub fn close(&mut self, call: CallId) -> Option<CallRecord> {
        self.calls.remove(&call)
    }

    pub fn calls_in_flight(&self) -> usize {
        self.calls.len()
    }

    pub fn worker(&self, worker: WorkerId) -> Option<WorkerRecord> {
        self.workers.get(&worker).copied()
    }

    pub fn add_worker(&mut self, worker: WorkerId, record: WorkerRecord) {
        self.workers.insert(worker, record);
    }

    /// A cell has an owner now. Returns the bytes it had before.
    pub fn label_worker(&mut self, worker: WorkerId, bytes: u64) -> u64 {
        let Some(record) = self.workers.get_mut(&worker) else { return bytes };
        record.is_cell = false;
        std::mem::replace(&mut record.bytes, bytes)
    }

    /// Nothing of it is left. Returns the bytes it had.
    pub fn remove_worker(&mut self, worker: WorkerId) -> u64 {
        self.workers.remove(&worker).map_or(0, |record| record.bytes)
    }
}
