//! Whose limit it was: when one of a worker's processes was killed for memory or refused a fork, the worker's own limit
//! may be far away, and that of its sub-tenant, its tenant or the host the one that bit.

use std::fs;

use sublet_proto::{level::Level, link::group::GroupPath};

use super::{
    limits::{Knob, Limits},
    oom::OomCount,
    tree::Tree,
};

/// A limit that bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bite {
    /// Whose.
    pub level: Level,
    /// What it was; none where it was not set, or is not known.
    pub limit: Option<u64>,
    /// The most that was seen in the group; none where that is not known.
    pub seen: Option<u64>,
}

impl Tree {
    /// Whose memory limit it was that a process of this worker was killed for.
    pub fn memory_bite(&self, leaf: &GroupPath) -> Bite {
        let count = |path: &GroupPath| self.oom_count(path);
        let of = |path: GroupPath| {
            let files = ("memory.peak", "memory.max_usage_in_bytes");
            self.bite(&path, Knob::MemoryMax, files, |limits| limits.memory_max)
        };
        let heard = leaf.upwards().find(|path| count(path).is_some_and(|count| count.explains()));
        let lately = || leaf.upwards().find(|path| count(path).is_some_and(|count| count.explained_lately()));
        let is_rest = || count(leaf).is_none_or(|count| count.is_rest()).then(|| leaf.clone());
        // An event that only came from above must not hide the limit that was reached.
        let bit = heard.map(of).filter(was_reached).or_else(|| lately().map(of).filter(was_reached));
        unless_above(bit.or_else(|| is_rest().map(of)))
    }

    /// Whose limit of processes it was that a fork of this worker was refused by.
    pub fn pids_bite(&self, leaf: &GroupPath) -> Bite {
        let all = leaf.upwards().map(|path| {
            let files = ("pids.peak", "pids.peak");
            let bite = self.bite(&path, Knob::PidsMax, files, |limits| limits.pids_max);
            let has_peak = self.peak(&path, Knob::PidsMax, files).is_some();
            (bite, has_peak)
        });
        least_room(&all.collect::<Vec<_>>())
    }

    /// The most that was in a group, where the kernel keeps it.
    fn peak(&self, path: &GroupPath, knob: Knob, (peak_v2, peak_v1): (&str, &str)) -> Option<u64> {
        let directories = self.directories_of(path);
        let (_, dir, unified) = directories.iter().find(|(controller, ..)| *controller == knob.controller())?;
        fs::read_to_string(dir.join(if *unified { peak_v2 } else { peak_v1 })).ok()?.trim().parse().ok()
    }

    fn bite(
        &self,
        path: &GroupPath,
        knob: Knob,
        peak_files: (&str, &str),
        of: impl Fn(&Limits) -> Option<u64>,
    ) -> Bite {
        let limit = if path.is_pool() { of(&self.pool_limits()) } else { self.group(path).and_then(|g| of(&g.limits)) };
        Bite { level: path.level(), limit, seen: self.peak(path, knob, peak_files).or_else(|| self.used(path, knob)) }
    }

    fn oom_count(&self, path: &GroupPath) -> Option<std::sync::Arc<OomCount>> {
        if path.is_pool() { self.pool_ooms() } else { self.group(path).map(|group| group.ooms().clone()) }
    }
}

/// Memory that the kernel may ask for at once: what fails a group that has less than this left.
const ASKED_AT_ONCE_BYTES: u64 = 1 << 20;

/// Whether the limit is one and was ever reached, as far as is known.
fn was_reached(bite: &Bite) -> bool {
    match (bite.limit, bite.seen) {
        (Some(limit), Some(seen)) => seen.saturating_add(ASKED_AT_ONCE_BYTES) >= limit,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// The limit that a death is put down to, if it is one and was ever reached: on v1 groups hear of the limits above them as well.
fn unless_above(bit: Option<Bite>) -> Bite {
    bit.filter(was_reached).unwrap_or(Bite { level: Level::Above, limit: None, seen: None })
}

/// Of the limits that a fork may have been refused by, each with whether the most that was in its group is known, the one that
/// had the least room left, and of equals the nearest. None of ours where all are known to have had room at all times.
fn least_room(all: &[(Bite, bool)]) -> Bite {
    let room = |bite: &Bite| match (bite.limit, bite.seen) {
        (Some(limit), Some(seen)) => limit.saturating_sub(seen),
        // Nothing is known of it: the nearest limit is the likeliest.
        (Some(_), None) => 0,
        (None, _) => u64::MAX,
    };
    let limited = all.iter().filter(|(bite, _)| bite.limit.is_some());
    let had_room = limited.clone().all(|(bite, has_peak)| *has_peak && room(bite) > 0);
    let least =
        if had_room { None } else { limited.map(|(bite, _)| *bite).min_by_key(|bite| (room(bite), bite.level)) };
    least.unwrap_or(Bite { level: Level::Above, limit: None, seen: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn death_is_put_down_to_a_limit_that_is_set_and_was_reached() {
        let bite = |level, limit, seen| Bite { level, limit, seen };
        let full = Some(64 << 20);
        for own in [
            bite(Level::Worker, full, full),
            bite(Level::Tenant, full, Some((63 << 20) + 1)),
            bite(Level::Worker, full, None),
        ] {
            assert_eq!(unless_above(Some(own)), own);
        }
        for other in [Some(bite(Level::Worker, full, Some(20 << 20))), Some(bite(Level::Host, None, full)), None] {
            assert_eq!(unless_above(other).level, Level::Above);
        }
    }

    #[test]
    fn fork_was_refused_by_the_limit_without_room_and_by_none_of_ours_where_all_had_some() {
        let bite = |level, limit, seen| Bite { level, limit, seen };
        let worker = |seen| (bite(Level::Worker, Some(16), Some(seen)), true);
        let sub_tenant = |seen| (bite(Level::SubTenant, Some(20), Some(seen)), true);
        let host = (bite(Level::Host, None, Some(500)), true);
        assert_eq!(least_room(&[worker(16), sub_tenant(20), host]).level, Level::Worker);
        assert_eq!(least_room(&[worker(15), sub_tenant(20), host]).level, Level::SubTenant);
        let above = bite(Level::Above, None, None);
        assert_eq!(least_room(&[worker(15), sub_tenant(19), host]), above);
        assert_eq!(least_room(&[host]), above);
        // Before Linux 6.12 only what is there now is known, and it may have been more.
        let now = (bite(Level::Worker, Some(16), Some(3)), false);
        assert_eq!(least_room(&[now, sub_tenant(19), host]).level, Level::SubTenant);
        assert_eq!(least_room(&[now, host]).level, Level::Worker);
    }
}
