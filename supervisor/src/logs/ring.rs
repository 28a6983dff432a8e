//! The last records of all workers, in a bounded room. Readers keep their own place and learn what they have missed.
//!
//! The room is shared out by tenant, and within a tenant by sub-tenant: when it is full, the tenant that holds most gives
//! up the oldest record of that of its sub-tenants that holds most. So a flood pushes out its own lines, one that is alone
//! may use all of the room, and whoever holds no more than an equal part loses nothing to others.
//!
//! Records are numbered over all, and keep their numbers: what has made room is a hole. A record costs a time that grows
//! with the logarithm of what is held, and with nothing else.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::record::{Record, Source};

/// All costs are held against a counting allocator by tests/log_memory.
///
/// Counted for each record beside its text: the record itself (112 bytes and the counts of its Arc), its place in the tree
/// of records (48 bytes, in nodes that may be half empty), and what the allocator rounds up.
const RECORD_COST: usize = 224;
/// Counted for a call's id, which a line has with it, as if no two lines were of one call.
const REQUEST_COST: usize = 64;
/// Counted for each worker beside its names: its own record, five allocations, and a place in a table that may be half empty.
const SOURCE_COST: usize = 320;
/// Counted for each sub-tenant beside its name: its places in a table and an ordered set, either of which may be half empty.
const SHARE_COST: usize = 320;
/// Counted for each tenant beside its name: the same, and the least that a table and a set of sub-tenants take.
const TENANT_COST: usize = 640;

/// The room.
#[derive(Debug)]
pub struct Ring {
    records: BTreeMap<u64, Kept>,
    /// Workers that have records here, by the address of what all of them point to, which they keep alive.
    sources: HashMap<usize, Held>,
    tenants: HashMap<Arc<str>, Tenant>,
    /// Tenants by what they hold.
    by_size: BTreeSet<(usize, Arc<str>)>,
    /// Number of the next record to come; they are numbered from 0 on.
    end: u64,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Kept {
    record: Arc<Record>,
    /// The next one of the same sub-tenant; none for its last.
    next: Option<u64>,
}

/// A worker.
#[derive(Debug)]
struct Held {
    records: usize,
    tenant: Arc<str>,
    sub_tenant: Arc<str>,
}

#[derive(Debug, Default)]
struct Tenant {
    bytes: usize,
    shares: HashMap<Arc<str>, Share>,
    /// Sub-tenants by what they hold.
    by_size: BTreeSet<(usize, Arc<str>)>,
}

/// What a sub-tenant holds: at least one record.
#[derive(Debug)]
struct Share {
    bytes: usize,
    oldest: u64,
    newest: u64,
}

/// What a reader gets at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// In their order, with their numbers.
    pub records: Vec<(u64, Arc<Record>)>,
    /// Where to go on.
    pub next: u64,
    /// Those before `next` that are not there any more.
    pub lost: u64,
}

impl Ring {
    /// An empty room of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            sources: HashMap::new(),
            tenants: HashMap::new(),
            by_size: BTreeSet::new(),
            end: 0,
            bytes: 0,
            limit,
        }
    }

    /// Takes one in; those who hold most make room.
    pub fn push(&mut self, record: Record) {
        let number = self.end;
        self.end += 1;
        let address = Arc::as_ptr(&record.source) as usize;
        let mut cost = cost(&record);
        let (tenant, sub_tenant) = match self.sources.get_mut(&address) {
            Some(held) => {
                held.records += 1;
                (held.tenant.clone(), held.sub_tenant.clone())
            }
            None => {
                cost += cost_of_source(&record.source);
                self.add_source(address, &record.source)
            }
        };
        self.records.insert(number, Kept { record: Arc::new(record), next: None });
        let held = self.tenants.entry(tenant.clone()).or_default();
        let before = match held.shares.get_mut(&sub_tenant) {
            Some(share) => {
                if let Some(newest) = self.records.get_mut(&share.newest) {
                    newest.next = Some(number);
                }
                share.newest = number;
                share.bytes
            }
            None => {
                cost += SHARE_COST + sub_tenant.len();
                if held.shares.is_empty() {
                    cost += TENANT_COST + tenant.len();
                }
                held.shares.insert(sub_tenant.clone(), Share { bytes: 0, oldest: number, newest: number });
                0
            }
        };
        self.resize(&tenant, &sub_tenant, before, before + cost);
        while self.bytes > self.limit && self.evict() {}
    }

    /// The names of a worker that has no record here yet; shared with others of the same sub-tenant.
    fn add_source(&mut self, address: usize, source: &Source) -> (Arc<str>, Arc<str>) {
        let known = self.tenants.get_key_value(source.tenant.as_str());
        let tenant: Arc<str> = known.map_or_else(|| source.tenant.as_str().into(), |(name, _)| name.clone());
        let known = known.and_then(|(_, held)| held.shares.get_key_value(source.sub_tenant_hash.as_str()));
        let sub_tenant: Arc<str> =
            known.map_or_else(|| source.sub_tenant_hash.as_str().into(), |(name, _)| name.clone());
        let held = Held { records: 1, tenant: tenant.clone(), sub_tenant: sub_tenant.clone() };
        self.sources.insert(address, held);
        (tenant, sub_tenant)
    }

    /// Takes the oldest record from those who hold most. False when there is none.
    fn evict(&mut self) -> bool {
        let Some((_, tenant)) = self.by_size.last().cloned() else { return false };
        let Some(held) = self.tenants.get_mut(&tenant) else { return false };
        let Some((before, sub_tenant)) = held.by_size.last().cloned() else { return false };
        let Some(share) = held.shares.get_mut(&sub_tenant) else { return false };
        let Some(Kept { record, next }) = self.records.remove(&share.oldest) else { return false };
        let address = Arc::as_ptr(&record.source) as usize;
        let mut freed = cost(&record);
        if let Some(held) = self.sources.get_mut(&address) {
            held.records -= 1;
            if held.records == 0 {
                freed += cost_of_source(&record.source);
                self.sources.remove(&address);
            }
        }
        match next {
            Some(next) => {
                share.oldest = next;
                self.resize(&tenant, &sub_tenant, before, before.saturating_sub(freed));
            }
            None => {
                self.resize(&tenant, &sub_tenant, before, 0);
                self.forget(&tenant, &sub_tenant);
            }
        }
        // Rooms that a flood has made are given back, each time at a quarter, so that it costs no more than it has cost.
        if self.sources.capacity() > 64 && self.sources.len() < self.sources.capacity() / 4 {
            self.sources.shrink_to(self.sources.len() * 2);
        }
        true
    }

    /// Lets go of a sub-tenant that holds nothing, and of its tenant when it was the last.
    fn forget(&mut self, tenant: &Arc<str>, sub_tenant: &Arc<str>) {
        let Some(held) = self.tenants.get_mut(tenant) else { return };
        held.shares.remove(sub_tenant);
        held.by_size.remove(&(0, sub_tenant.clone()));
        if held.shares.is_empty() {
            let bytes = held.bytes;
            self.bytes -= bytes;
            self.by_size.remove(&(bytes, tenant.clone()));
            self.tenants.remove(tenant);
        } else if held.shares.capacity() > 64 && held.shares.len() < held.shares.capacity() / 4 {
            held.shares.shrink_to(held.shares.len() * 2);
        }
    }

    /// Writes down that a sub-tenant holds `after` bytes and not `before`, at every level.
    fn resize(&mut self, tenant: &Arc<str>, sub_tenant: &Arc<str>, before: usize, after: usize) {
        let Some(held) = self.tenants.get_mut(tenant) else { return };
        if let Some(share) = held.shares.get_mut(sub_tenant) {
            share.bytes = after;
        }
        held.by_size.remove(&(before, sub_tenant.clone()));
        held.by_size.insert((after, sub_tenant.clone()));
        self.by_size.remove(&(held.bytes, tenant.clone()));
        held.bytes = held.bytes + after - before;
        self.by_size.insert((held.bytes, tenant.clone()));
        self.bytes = self.bytes + after - before;
    }

    /// Number of the first record that is there.
    pub fn first(&self) -> u64 {
        self.records.first_key_value().map_or(self.end, |(number, _)| *number)
    }

    /// Number of the next record to come.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Records that are there.
    pub fn count(&self) -> u64 {
        self.records.len() as u64
    }

    /// From number `next` on, at most `most` of them.
    pub fn read(&self, next: u64, most: usize) -> Batch {
        let found = self.records.range(next..).take(most);
        let records: Vec<_> = found.map(|(number, kept)| (*number, kept.record.clone())).collect();
        // One that is not full has come to the end.
        let is_full = records.len() == most;
        let last = records.last().map_or(next, |(number, _)| number + 1);
        let end = if is_full { last } else { self.end.max(next) };
        Batch { next: end, lost: end - next - records.len() as u64, records }
    }
}

fn cost(record: &Record) -> usize {
    RECORD_COST + record.held_bytes() + if record.request.is_some() { REQUEST_COST } else { 0 }
}

fn cost_of_source(source: &Source) -> usize {
    let Source { tenant, function, sub_tenant_hash, worker } = source;
    SOURCE_COST + tenant.len() + function.len() + sub_tenant_hash.len() + worker.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::record::tests::{line, line_of};

    fn texts(batch: &Batch) -> Vec<String> {
        batch.records.iter().map(|(_, record)| record.text().to_owned()).collect()
    }

    fn all(ring: &Ring) -> Vec<String> {
        texts(&ring.read(0, usize::MAX))
    }

    /// What one worker's `count` lines of one byte cost.
    fn room_for(count: usize) -> usize {
        let mut ring = Ring::new(usize::MAX);
        let first = line("0");
        (0..count).for_each(|_| ring.push(Record { source: first.source.clone(), ..line("0") }));
        ring.bytes
    }

    #[test]
    fn oldest_make_room_and_readers_learn_of_it() {
        let mut ring = Ring::new(room_for(3));
        let source = line("").source;
        for text in ["0", "1", "2", "3", "4"] {
            ring.push(Record { source: source.clone(), ..line(text) });
        }
        assert_eq!((ring.first(), ring.end(), ring.count()), (2, 5, 3));
        let batch = ring.read(0, 2);
        assert_eq!((texts(&batch), batch.next, batch.lost), (vec!["2".into(), "3".into()], 4, 2));
        let batch = ring.read(batch.next, 2);
        assert_eq!((texts(&batch), batch.next, batch.lost), (vec!["4".into()], 5, 0));
        let batch = ring.read(5, 2);
        assert_eq!((batch.records.len(), batch.next, batch.lost), (0, 5, 0));
    }

    #[test]
    fn one_that_is_larger_than_the_room_is_not_kept() {
        let mut ring = Ring::new(RECORD_COST);
        ring.push(line("x"));
        assert_eq!((ring.first(), ring.end()), (1, 1));
        let batch = ring.read(0, 1);
        assert_eq!((batch.lost, batch.next), (1, 1));
        assert!(ring.bytes == 0 && ring.tenants.is_empty() && ring.sources.is_empty() && ring.by_size.is_empty());
    }

    #[test]
    fn flood_of_a_tenant_pushes_out_its_own_lines_whoever_of_its_sub_tenants_it_is() {
        let mut ring = Ring::new(1 << 20);
        for number in 0..100 {
            ring.push(line_of("victim", "s-v", &format!("w-{}", number % 4), &format!("v{number}")));
        }
        // Four workers, then ten thousand sub-tenants.
        for number in 0..20_000 {
            ring.push(line_of("flood", "s-f", &format!("w-{}", 10 + number % 4), "noise"));
        }
        for number in 0..10_000 {
            ring.push(line_of("flood", &format!("s-{number}"), &format!("w-{}", 100 + number), "noise"));
        }
        let mine: Vec<String> = all(&ring).into_iter().filter(|text| text.starts_with('v')).collect();
        assert_eq!(mine, (0..100).map(|number| format!("v{number}")).collect::<Vec<_>>());
        assert!(ring.bytes <= 1 << 20 && ring.bytes > (1 << 20) - 4096, "a flood may use what is free: {}", ring.bytes);
    }

    #[test]
    fn flood_of_a_sub_tenant_leaves_the_tenants_other_ones_their_lines() {
        let mut ring = Ring::new(1 << 20);
        for number in 0..100 {
            ring.push(line_of("acme", "s-quiet", "w-1", &format!("q{number}")));
        }
        (0..50_000).for_each(|_| ring.push(line_of("acme", "s-loud", "w-2", "noise")));
        assert_eq!(all(&ring).iter().filter(|text| text.starts_with('q')).count(), 100);
        // One that held all of the room gives up half of it, and no more.
        let held = |ring: &Ring, tenant: &str| ring.tenants.get(tenant).map_or(0, |held| held.bytes);
        (0..50_000).for_each(|_| ring.push(line_of("other", "s-o", "w-3", "noise")));
        let (acme, other) = (held(&ring, "acme"), held(&ring, "other"));
        assert!(acme.abs_diff(other) < 2048 && acme + other <= 1 << 20, "{acme} and {other}");
    }

    #[test]
    fn books_agree_with_what_is_there_whatever_comes() {
        let mut ring = Ring::new(100_000);
        let mut random = 1_u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (tenant, sub, worker) = (random >> 30, random >> 27 & 7, random >> 24 & 7);
            let length = if random >> 16 & 63 == 0 { 20_000 } else { (random >> 8 & 255) as usize };
            let names = (format!("t{tenant}"), format!("s-{tenant}-{sub}"), format!("w-{tenant}-{sub}-{worker}"));
            ring.push(line_of(&names.0, &names.1, &names.2, &"x".repeat(length)));
            assert!(ring.bytes <= ring.limit);
        }
        let of_tenants: usize = ring.tenants.values().map(|held| held.bytes).sum();
        let counted: usize = ring.sources.values().map(|held| held.records).sum();
        assert_eq!((ring.bytes, ring.records.len()), (of_tenants, counted));
        let names: BTreeSet<_> = ring.tenants.iter().map(|(name, held)| (held.bytes, name.clone())).collect();
        assert_eq!(names, ring.by_size);
        for held in ring.tenants.values() {
            let shares: BTreeSet<_> = held.shares.iter().map(|(name, share)| (share.bytes, name.clone())).collect();
            assert_eq!(shares, held.by_size);
            let mut chained = 0;
            for share in held.shares.values() {
                let mut at = Some(share.oldest);
                while let Some(number) = at {
                    chained += 1;
                    at = ring.records[&number].next;
                    assert!(at.is_some() || number == share.newest);
                }
            }
            assert!(chained > 0);
        }
        // Everything goes when there is no room, and nothing stays of it.
        ring.limit = 0;
        ring.push(line("x"));
        assert!(ring.bytes == 0 && ring.records.is_empty() && ring.tenants.is_empty() && ring.sources.is_empty());
    }
}
