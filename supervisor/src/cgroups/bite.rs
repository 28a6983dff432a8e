//! Whose limit it was: when one of a worker's processes was killed for memory or refused a fork, the worker's own limit
//! may be far away, and that of its sub-tenant, its tenant or the host the one that bit.

use std::fs;

use super::{
    limits::{Directories, Knob, Limits},
    oom::OomCount,
    tree::Tree,
};

/// A level of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// One worker.
    Worker,
    /// One sub-tenant.
    SubTenant,
    /// One tenant.
    Tenant,
    /// All workers of this host.
    Host,
}

impl Level {
    /// In verdicts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::SubTenant => "sub-tenant",
            Self::Tenant => "tenant",
            Self::Host => "host",
        }
    }
}

/// A limit that bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bite {
    /// Whose.
    pub level: Level,
    /// What it was; none where it is the host's own and was not set.
    pub limit: Option<u64>,
    /// The most that was seen in the group; none where that is not known.
    pub seen: Option<u64>,
}

/// The paths of a worker's group and of those above it, the host's last.
fn levels(leaf: &str) -> impl Iterator<Item = (Level, &str)> {
    let sub = leaf.rsplit_once('/').map_or("", |(sub, _)| sub);
    let tenant = sub.rsplit_once('/').map_or("", |(tenant, _)| tenant);
    [(Level::Worker, leaf), (Level::SubTenant, sub), (Level::Tenant, tenant), (Level::Host, "")].into_iter()
}

impl Tree {
    /// Whose memory limit it was that a process of this worker was killed for.
    pub fn memory_bite(&self, leaf: &str) -> Bite {
        let count = |path: &str| self.oom_count(path);
        let bit = levels(leaf).find(|(_, path)| count(path).is_some_and(|count| count.explains()));
        let bit =
            bit.or_else(|| levels(leaf).find(|(_, path)| count(path).is_some_and(|count| count.explained_lately())));
        // What no group of ours explains: on v1 the worker's own limit, on v2 memory that the whole host was short of.
        let own_by_rest = count(leaf).is_none_or(|count| count.is_rest());
        let rest = if own_by_rest { (Level::Worker, leaf) } else { (Level::Host, "") };
        let (level, path) = bit.unwrap_or(rest);
        let files = ("memory.peak", "memory.max_usage_in_bytes");
        self.bite(level, path, Knob::MemoryMax, files, |limits| limits.memory_max)
    }

    /// Whose limit of processes it was that a fork of this worker was refused by: the one with the least room left, and
    /// of equals the nearest.
    pub fn pids_bite(&self, leaf: &str) -> Bite {
        let all = levels(leaf).map(|(level, path)| {
            self.bite(level, path, Knob::PidsMax, ("pids.peak", "pids.peak"), |limits| limits.pids_max)
        });
        let room = |bite: &Bite| match (bite.limit, bite.seen) {
            (Some(limit), Some(seen)) => limit.saturating_sub(seen),
            // Without a peak (Linux before 6.12) the nearest limit is the likeliest.
            (Some(_), None) => 0,
            (None, _) => u64::MAX,
        };
        let least = all.min_by_key(|bite| (room(bite), bite.level));
        least.unwrap_or(Bite { level: Level::Worker, limit: None, seen: None })
    }

    fn bite(
        &self,
        level: Level,
        path: &str,
        knob: Knob,
        (peak_v2, peak_v1): (&str, &str),
        of: impl Fn(&Limits) -> Option<u64>,
    ) -> Bite {
        let peak = |directories: &Directories| {
            let (_, dir, unified) = directories.iter().find(|(controller, ..)| *controller == knob.controller())?;
            fs::read_to_string(dir.join(if *unified { peak_v2 } else { peak_v1 })).ok()?.trim().parse().ok()
        };
        let limit =
            if path.is_empty() { of(&self.pool_limits()) } else { self.group(path).and_then(|g| of(&g.limits)) };
        Bite { level, limit, seen: peak(&self.directories_of(path)).or_else(|| self.used(path, knob)) }
    }

    fn oom_count(&self, path: &str) -> Option<std::sync::Arc<OomCount>> {
        if path.is_empty() { self.pool_ooms() } else { self.group(path).map(|group| group.ooms().clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_named_from_the_worker_up() {
        let found: Vec<_> = levels("t-acme/s-1/w-7").collect();
        let expected = [
            (Level::Worker, "t-acme/s-1/w-7"),
            (Level::SubTenant, "t-acme/s-1"),
            (Level::Tenant, "t-acme"),
            (Level::Host, ""),
        ];
        assert_eq!(found, expected);
    }
}
