//! Checks a tenant with all that is below it.

use std::collections::BTreeMap;

use super::{
    function, guarantee,
    host::Above,
    level::{self, Level, SubTenants},
    name::Name,
    raw::RawTenant,
    reader::Reader,
    types::{SubTenantLevel, Tenant},
};

/// The tenant.
pub fn check(raw: &RawTenant, r: &Reader<'_>, host: &Above) -> Tenant {
    let of_tenant = level::of_tenant(raw, r, host);
    let subs = SubTenants::read(raw, r, host, &of_tenant);
    let above = function::Above { host, tenant: &of_tenant, sub_tenant: &subs.common };
    let all_functions = r.below("function");
    let mut functions = BTreeMap::new();
    for (key, raw_function) in &raw.function {
        let name = all_functions.name_of_table(key, "function");
        let function = function::check(raw_function, &all_functions.below(key), &above);
        functions.extend(name.zip(function));
    }
    let SubTenants { common, common_queue_max, classes, ids } = subs;
    guarantee::within(r, of_tenant.said.memory_min.as_ref(), of_tenant.calls.workers_max, &common, &ids);
    let of_sub = |level: Level, queue_max: Option<u32>, class: Option<Name>| SubTenantLevel {
        class,
        limits: level.limits,
        calls: level.calls,
        queue_max,
    };
    Tenant {
        limits: of_tenant.limits,
        calls: of_tenant.calls,
        sub_tenant: of_sub(common, common_queue_max, None),
        classes: classes.into_iter().map(|(name, (level, queue))| (name, of_sub(level, queue, None))).collect(),
        ids: ids.into_iter().map(|(label, id)| (label, of_sub(id.level, id.queue_max, id.class))).collect(),
        functions,
    }
}
