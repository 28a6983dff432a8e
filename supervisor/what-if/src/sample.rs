//! A small setup for tests: round times, so that reports can be worked out by hand.

use std::{collections::BTreeMap, time::Duration};

use sublet_pool::{FunctionPolicy, HostPolicy, SubTenantPolicy, TenantPolicy};

use crate::{Function, Setup, Tenant, Times, Token};

pub fn token(text: &str) -> Token {
    Token::try_from(text).expect(text)
}

pub fn host() -> HostPolicy {
    HostPolicy {
        workers_max: 10,
        starts_max: 10,
        calls_in_flight_max: 1000,
        calls_waiting_max: 100,
        cells_memory_max: 1 << 20,
    }
}

pub fn tenant() -> TenantPolicy {
    let sub_tenant =
        SubTenantPolicy { workers_max: 10, calls_in_flight_max: 1000, rate: None, weight: 1, queue_max: None };
    TenantPolicy { workers_max: 10, calls_in_flight_max: 1000, rate: None, weight: 1, sub_tenant }
}

/// A cold start takes 1000 us, 600 of them for the sandbox; a label 400; a removal 100.
pub fn function() -> Function {
    let policy = FunctionPolicy {
        workers_max: 10,
        workers_per_sub_tenant_max: 1,
        calls_in_flight_max: 1000,
        queue_max: 100,
        idle_ttl: Duration::from_secs(60),
        freeze_after: None,
        start_timeout: Duration::from_secs(10),
        calls_max: None,
        age_max: None,
        is_idempotent: false,
        cells_max: 0,
        cell_bytes: 100,
    };
    let times = Times {
        cold_start: Duration::from_micros(1000),
        cell_make: Duration::from_micros(600),
        cell_label: Duration::from_micros(400),
        removal: Duration::from_micros(100),
        warm_overhead: Duration::ZERO,
    };
    Function { policy, timeout: Duration::from_secs(30), times, memory_bytes: 1000 }
}

/// Two functions, f and g, of the tenant acme.
pub fn setup_of(host: HostPolicy, tenant: TenantPolicy, f: Function, g: Function) -> Setup {
    let functions = BTreeMap::from([(token("f"), f), (token("g"), g)]);
    let tenants = BTreeMap::from([(token("acme"), Tenant { policy: tenant, functions })]);
    Setup::new(host, tenants).expect("the sample is right")
}

pub fn setup() -> Setup {
    setup_of(host(), tenant(), function(), function())
}
