//! Reads `key=value`. Bounds are the configuration's.

use std::{str::FromStr, time::Duration};

use sublet_pool::Rate;

use super::{Change, ChangeError, FunctionChange, HostChange, LevelChange, Target, Which};
use crate::{token::Token, units};

/// Most workers, calls, cells, and calls per second.
const COUNT_MAX: u64 = 1_000_000;
/// Most calls in flight: as many workers and as many waiting calls.
const IN_FLIGHT_MAX: u64 = 2 * COUNT_MAX;
/// Most a tenant or sub-tenant can weigh.
const WEIGHT_MAX: u64 = 10_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Most memory for cells.
const MEMORY_MAX: u64 = 1 << 50;

const HOST: &str = "of the host there is workers_max, starts_max, calls_waiting_max, calls_in_flight_max and \
                    cells_memory_max";
const LEVEL: &str = "of tenant.NAME and of tenant.NAME.sub_tenant there is workers_max, calls_in_flight_max, weight and \
                     rate";
const FUNCTION: &str = "of tenant.NAME.function.NAME there is workers_max, workers_per_sub_tenant_max, \
                        calls_in_flight_max, queue_max, idle_ttl, freeze_after, start_timeout, timeout, calls_max, \
                        age_max, cells_max and idempotent";
const ANY: &str = "there is host.KEY, tenant.NAME.KEY, tenant.NAME.sub_tenant.KEY and tenant.NAME.function.NAME.KEY, and \
                   a NAME may be *";

impl FromStr for Change {
    type Err = ChangeError;

    fn from_str(text: &str) -> Result<Self, ChangeError> {
        let (key, value) = text.split_once('=').ok_or_else(|| ChangeError::NoValue { text: text.to_owned() })?;
        let given = Given { key, value };
        let parts: Vec<&str> = key.split('.').collect();
        let target = match parts.as_slice() {
            ["host", last] => Target::Host(host(&given, last)?),
            ["tenant", tenant, last] => Target::Tenant { tenant: given.which(tenant)?, change: level(&given, last)? },
            ["tenant", tenant, "sub_tenant", last] => {
                Target::SubTenant { tenant: given.which(tenant)?, change: level(&given, last)? }
            }
            ["tenant", tenant, "function", name, last] => Target::Function {
                tenant: given.which(tenant)?,
                function: given.which(name)?,
                change: function(&given, last)?,
            },
            _ => return Err(given.unknown(ANY)),
        };
        Ok(Self { key: key.to_owned(), target })
    }
}

fn host(given: &Given<'_>, last: &str) -> Result<HostChange, ChangeError> {
    Ok(match last {
        "workers_max" => HostChange::WorkersMax(given.cap(COUNT_MAX)?),
        "starts_max" => HostChange::StartsMax(given.cap(COUNT_MAX)?),
        "calls_waiting_max" => HostChange::CallsWaitingMax(given.cap(COUNT_MAX)?),
        "calls_in_flight_max" => HostChange::CallsInFlightMax(given.cap(IN_FLIGHT_MAX)?),
        "cells_memory_max" => HostChange::CellsMemoryMax(given.size()?),
        _ => return Err(given.unknown(HOST)),
    })
}

fn level(given: &Given<'_>, last: &str) -> Result<LevelChange, ChangeError> {
    Ok(match last {
        "workers_max" => LevelChange::WorkersMax(given.cap(COUNT_MAX)?),
        "calls_in_flight_max" => LevelChange::CallsInFlightMax(given.cap(IN_FLIGHT_MAX)?),
        "weight" => LevelChange::Weight(given.cap(WEIGHT_MAX)?),
        "rate" => LevelChange::Rate(given.unless("none", Given::rate)?),
        _ => return Err(given.unknown(LEVEL)),
    })
}

fn function(given: &Given<'_>, last: &str) -> Result<FunctionChange, ChangeError> {
    Ok(match last {
        "workers_max" => FunctionChange::WorkersMax(given.cap(COUNT_MAX)?),
        "workers_per_sub_tenant_max" => FunctionChange::WorkersPerSubTenantMax(given.cap(COUNT_MAX)?),
        "calls_in_flight_max" => FunctionChange::CallsInFlightMax(given.cap(IN_FLIGHT_MAX)?),
        "queue_max" => FunctionChange::QueueMax(given.cap(COUNT_MAX)?),
        "idle_ttl" => FunctionChange::IdleTtl(given.time(YEAR)?),
        "freeze_after" => FunctionChange::FreezeAfter(given.unless("never", |given| given.duration(DAY))?),
        "start_timeout" => FunctionChange::StartTimeout(given.time(DAY)?),
        "timeout" => FunctionChange::Timeout(given.time(DAY)?),
        "calls_max" => FunctionChange::CallsMax(given.unless("none", |given| given.cap(COUNT_MAX))?.map(u64::from)),
        "age_max" => FunctionChange::AgeMax(given.unless("none", |given| given.time(YEAR))?),
        "cells_max" => FunctionChange::CellsMax(given.count(COUNT_MAX)?),
        "idempotent" => FunctionChange::Idempotent(given.bool()?),
        _ => return Err(given.unknown(FUNCTION)),
    })
}

/// What was written.
struct Given<'a> {
    key: &'a str,
    value: &'a str,
}

impl Given<'_> {
    fn unknown(&self, known: &str) -> ChangeError {
        ChangeError::UnknownKey { key: self.key.to_owned(), known: known.to_owned() }
    }

    fn unit(&self, what: &'static str, remedy: &'static str) -> ChangeError {
        ChangeError::Unit { key: self.key.to_owned(), value: self.value.to_owned(), what, remedy }
    }

    fn zero(&self, least: &'static str) -> ChangeError {
        ChangeError::Zero { key: self.key.to_owned(), value: self.value.to_owned(), least }
    }

    fn too_much(&self, most: String) -> ChangeError {
        ChangeError::TooMuch { key: self.key.to_owned(), value: self.value.to_owned(), most }
    }

    fn which(&self, name: &str) -> Result<Which, ChangeError> {
        match name {
            "*" => Ok(Which::All),
            "" => Err(self.unknown(ANY)),
            name => Token::try_from(name).map(Which::Named).map_err(|_| self.unknown(ANY)),
        }
    }

    fn unless<T>(
        &self,
        word: &str,
        read: impl FnOnce(&Self) -> Result<T, ChangeError>,
    ) -> Result<Option<T>, ChangeError> {
        if self.value == word { Ok(None) } else { read(self).map(Some) }
    }

    fn count(&self, most: u64) -> Result<u32, ChangeError> {
        let count = units::count(self.value)
            .ok_or_else(|| self.unit("a count", "a whole number in decimal digits, such as 64"))?;
        (u32::try_from(count).ok().filter(|_| count <= most)).ok_or_else(|| self.too_much(most.to_string()))
    }

    fn cap(&self, most: u64) -> Result<u32, ChangeError> {
        let count = self.count(most)?;
        if count == 0 { Err(self.zero("1")) } else { Ok(count) }
    }

    fn size(&self) -> Result<u64, ChangeError> {
        let remedy = "a whole number and its unit, B, KiB, MiB or GiB, such as 128MiB";
        let size = units::size(self.value).ok_or_else(|| self.unit("a size", remedy))?;
        if size > MEMORY_MAX { Err(self.too_much("1048576GiB".to_owned())) } else { Ok(size) }
    }

    fn duration(&self, most: Duration) -> Result<Duration, ChangeError> {
        let remedy = "a whole number and its unit, ms, s, m or h, such as 30s; freeze_after may be never, age_max none";
        let duration = units::duration(self.value).ok_or_else(|| self.unit("a duration", remedy))?;
        if duration > most { Err(self.too_much(format!("{}h", most.as_secs() / 3600))) } else { Ok(duration) }
    }

    fn time(&self, most: Duration) -> Result<Duration, ChangeError> {
        let duration = self.duration(most)?;
        if duration.is_zero() { Err(self.zero("1ms")) } else { Ok(duration) }
    }

    fn rate(&self) -> Result<Rate, ChangeError> {
        let remedy = "calls per second and, if wanted, how many at once, such as 100/s or 100/s burst 20; or none";
        let rate = units::rate(self.value).ok_or_else(|| self.unit("a rate", remedy))?;
        if rate.per_second == 0 || rate.burst == 0 {
            return Err(self.zero("1/s burst 1"));
        }
        let most = u64::from(rate.per_second.max(rate.burst));
        if most > COUNT_MAX { Err(self.too_much(format!("{COUNT_MAX}/s burst {COUNT_MAX}"))) } else { Ok(rate) }
    }

    fn bool(&self) -> Result<bool, ChangeError> {
        match self.value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.unit("a yes or no", "true or false")),
        }
    }
}
