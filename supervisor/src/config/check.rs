//! Checks a whole configuration: the host, then tenant by tenant.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    path::Path,
};

use super::{
    bounds, guarantee, host,
    problem::{ConfigError, Problem},
    raw::RawConfig,
    reader::Reader,
    tenant, token,
    types::Config,
};

/// Checks all of it.
///
/// # Errors
/// Every problem there is.
pub fn config(raw: &RawConfig, base: &Path) -> Result<Config, ConfigError> {
    let (problems, written) = (RefCell::default(), RefCell::default());
    let top = Reader::new(base, &problems, &written);
    let (above, host) = host::check(&raw.host, &top.below("host"));
    let all_tenants = top.below("tenant");
    let mut tenants = BTreeMap::new();
    for (key, raw_tenant) in &raw.tenant {
        let name = all_tenants.name_of_table(key, "tenant");
        let tenant = tenant::check(raw_tenant, &all_tenants.below(key), &above);
        tenants.extend(name.map(|name| (name, tenant)));
    }
    let config = host.map(|host| Config { host, tenants, written: written.take() });
    if let Some(config) = &config {
        dirs_fit_a_message(config, &top);
        token::out_of_sight(config, &top);
        guarantee::within_host(config, &top.below("host"));
    }
    let mut problems = problems.into_inner();
    // A setting that several tables get from one is told once.
    let mut told = HashSet::new();
    problems.retain(|problem: &Problem| told.insert(problem.to_string()));
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            debug_assert!(!problems.is_empty(), "a value that is missing has been told");
            Err(ConfigError { problems })
        }
    }
}

/// The nursery is told all directories in one message.
fn dirs_fit_a_message(config: &Config, top: &Reader<'_>) {
    // Two quotes and a comma for each, and every byte could be one that JSON escapes by another.
    let bytes: usize = config.bounds().iter().map(|dir| dir.as_str().len() * 2 + 3).sum();
    if bytes > bounds::DIRS_MAX_BYTES {
        top.refuse(
            "tenant",
            None,
            format!(
                "the directories of all functions take {bytes} bytes, and the nursery's message has room for {}",
                bounds::DIRS_MAX_BYTES
            ),
            "use shorter paths, or share a directory between functions",
        );
    }
}
