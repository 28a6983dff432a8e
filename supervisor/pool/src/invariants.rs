//! The rules the books must keep, whatever happens.

use std::{collections::HashMap, error, fmt};

use crate::{
    lists::IdleList,
    pool::{Pool, ROOM_PATIENCE},
    records::{CallState, CellState, Occupant, Phase, Room, WorkerState},
    slots::{KeySlot, SubTenantSlot},
};

/// A rule of the books that does not hold, in words that say what should be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenRule(&'static str);

impl fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl error::Error for BrokenRule {}

fn rule(holds: bool, what: &'static str) -> Result<(), BrokenRule> {
    if holds { Ok(()) } else { Err(BrokenRule(what)) }
}

/// What there is by looking at each worker and cell, to be compared with the counters.
#[derive(Default)]
struct Recount {
    making: u32,
    leased: u32,
    idle: u32,
    cells: u32,
    cell_bytes: u64,
    leaving: u32,
    /// Of each key: workers, starting workers, workers that are being removed, idle workers.
    keys: HashMap<KeySlot, [u32; 4]>,
    /// Workers and cells of each function.
    functions: HashMap<u32, u32>,
    /// Calls in flight of each sub-tenant.
    calls: HashMap<SubTenantSlot, u32>,
    /// Places that are promised to each key.
    rooms: HashMap<KeySlot, u32>,
}

impl Pool {
    /// Checks every rule of the books. Tests do this after each step; it takes time in proportion to all records.
    ///
    /// # Errors
    /// [`BrokenRule`], the first rule that does not hold.
    pub fn check_invariants(&self) -> Result<(), BrokenRule> {
        let found = self.recount()?;
        self.check_counts(&found)?;
        self.check_keys(&found)?;
        self.check_turns()
    }

    fn recount(&self) -> Result<Recount, BrokenRule> {
        let mut found = Recount::default();
        for call in self.calls.values() {
            *found.calls.entry(self.keys[call.key].sub_tenant).or_default() += 1;
        }
        for (w, occupant) in self.workers.iter() {
            rule(self.ids.get(&occupant.id()) == Some(&w), "every worker is found by its id")?;
            *found.functions.entry(occupant.function().0).or_default() += 1;
            match occupant {
                Occupant::Cell(cell) => {
                    found.cells += 1;
                    found.cell_bytes += cell.bytes;
                    match cell.state {
                        CellState::Making { .. } => found.making += 1,
                        CellState::Ready => rule(self.host.cells.contains(&w), "a ready cell is on the shelf")?,
                    }
                }
                Occupant::Worker(worker) => {
                    let of_key = found.keys.entry(worker.key).or_default();
                    of_key[0] += 1;
                    rule(
                        self.keys[worker.key].function == worker.function,
                        "a worker and its key are of one function",
                    )?;
                    match worker.state {
                        WorkerState::Starting { phase, .. } => {
                            of_key[1] += 1;
                            found.making += u32::from(phase == Phase::Making);
                        }
                        WorkerState::Idle { .. } => {
                            of_key[3] += 1;
                            found.idle += 1;
                        }
                        WorkerState::Leased { call, .. } | WorkerState::Draining { call, .. } => {
                            found.leased += 1;
                            let call =
                                self.calls.get(&call).ok_or(BrokenRule("a leased worker has a call on the books"))?;
                            rule(call.key == worker.key, "a lease is between a worker and a call of one key")?;
                            rule(call.state == CallState::Leased(w), "a lease is known on both sides")?;
                        }
                    }
                }
                Occupant::Reaping(reaping) => {
                    found.leaving += 1;
                    if let Some(k) = reaping.key {
                        let of_key = found.keys.entry(k).or_default();
                        of_key[0] += 1;
                        of_key[2] += 1;
                    }
                    let host = &self.host;
                    let lists = [&host.free_rooms, &host.promised_rooms, &host.overdue_rooms];
                    let expected = match reaping.room {
                        Room::Free => [true, false, false],
                        Room::Promised(k) => {
                            *found.rooms.entry(k).or_default() += 1;
                            [false, true, false]
                        }
                        Room::Overdue => {
                            let is_due = self.now >= reaping.since + ROOM_PATIENCE;
                            rule(is_due, "nobody gives up a place before its time")?;
                            [false, false, true]
                        }
                    };
                    let listed = lists.map(|list| list.contains(&w));
                    rule(listed == expected, "a place that comes free is free, promised once, or overdue")?;
                }
            }
        }
        Ok(found)
    }

    fn check_counts(&self, found: &Recount) -> Result<(), BrokenRule> {
        rule(self.host.workers as usize == self.workers.len(), "workers of the host counted")?;
        let of_functions: u32 = self.functions.iter().map(|f| f.leaving).sum();
        let of_tenants: u32 = self.tenants.iter().map(|t| t.leaving).sum();
        rule([self.host.leaving, of_functions, of_tenants] == [found.leaving; 3], "those being removed counted")?;
        rule(self.ids.len() == self.workers.len(), "no id without a worker")?;
        rule(self.host.making == found.making, "sandboxes in the making counted")?;
        rule(self.host.in_flight as usize == self.calls.len(), "calls of the host counted")?;
        rule(self.host.in_flight - self.host.waiting == found.leased, "every call waits or is leased")?;
        let cells: u32 = self.functions.iter().map(|f| f.cells_making + f.cells_ready.len() as u32).sum();
        rule(cells == found.cells, "cells counted")?;
        rule(self.host.cell_bytes == found.cell_bytes, "memory of cells counted")?;
        for (f, function) in (0..).zip(&self.functions) {
            rule(function.workers == found.functions.get(&f).copied().unwrap_or(0), "workers of a function counted")?;
        }
        for (t, tenant) in (0..).zip(&self.tenants) {
            let own = self.functions.iter().filter(|f| f.tenant.0 == t);
            let (workers, in_flight) = own.fold((0, 0), |(w, c), f| (w + f.workers, c + f.in_flight));
            rule(tenant.workers == workers && tenant.in_flight == in_flight, "a tenant is the sum of its functions")?;
        }
        for (s, sub) in self.subs.iter() {
            let workers: u32 = sub.keys.iter().map(|(_, k)| self.keys[*k].workers).sum();
            rule(sub.workers == workers, "workers of a sub-tenant are those of its keys")?;
            let in_flight = found.calls.get(&s).copied().unwrap_or(0);
            rule(sub.in_flight == in_flight, "calls of a sub-tenant counted")?;
        }
        let idle = self.host.idle.iter(&self.workers, IdleList::Host).count();
        rule(idle == found.idle as usize, "every idle worker is in the list of the host")
    }

    fn check_keys(&self, found: &Recount) -> Result<(), BrokenRule> {
        for (k, key) in self.keys.iter() {
            let [workers, starting, reaping, idle] = found.keys.get(&k).copied().unwrap_or_default();
            rule(key.workers == workers, "workers of a key counted")?;
            rule(key.starting == starting, "starting workers of a key counted")?;
            rule(key.reaping == reaping, "workers being removed of a key counted")?;
            rule(key.idle.len() == idle as usize, "idle workers of a key counted")?;
            rule(key.rooms == found.rooms.get(&k).copied().unwrap_or(0), "promised places of a key counted")?;
            let waiting = self.waiting_calls(k).len();
            rule(key.waiting as usize == waiting, "waiting calls of a key counted")?;
            rule(waiting == 0 || key.idle.is_empty(), "no call waits while a worker that suits it is idle")?;
        }
        rule(found.keys.keys().all(|k| self.keys.get(*k).is_some()), "every worker's key is on the books")
    }

    fn check_turns(&self) -> Result<(), BrokenRule> {
        for (k, key) in self.keys.iter() {
            let in_turns = |turn: (u64, u64)| self.function(key.function).turns.contains(&(turn.0, turn.1, k));
            rule(key.turn.is_none_or(in_turns), "a key that wants a turn is among the turns")?;
        }
        self.check_clocks()?;
        for (f, function) in (0..).zip(&self.functions) {
            let open = !function.is_blocked && !function.turns.is_empty();
            let tenant = self.tenant(function.tenant);
            rule(function.is_open == open, "a function is open when it has turns and is not blocked")?;
            rule(tenant.open.iter().any(|o| o.0 == f) == open, "an open function is known to its tenant")?;
        }
        for (t, tenant) in (0..).zip(&self.tenants) {
            let has_turn = !tenant.is_blocked && !tenant.open.is_empty();
            rule(tenant.turn.is_some() == has_turn, "a tenant with open functions has a turn")?;
            let listed = self.host.turns.iter().any(|(_, other)| other.0 == t);
            rule(listed == has_turn, "a tenant's turn is known to the host")?;
        }
        // Whoever could be served has been: what is left waits for a level that is full, or for a start to end.
        let is_waiting = self.next_key().is_some();
        rule(!is_waiting || self.host.making >= self.host.policy.starts_max, "nobody waits while there is a place")
    }

    fn check_clocks(&self) -> Result<(), BrokenRule> {
        let mut waiting = vec![0; self.tenants.len()];
        let mut ahead = vec![0; self.tenants.len()];
        for (_, sub) in self.subs.iter() {
            let (t, now) = (sub.tenant.0 as usize, self.tenant(sub.tenant).clock.now());
            let turns = sub.keys.iter().filter(|(_, k)| self.keys[*k].turn.is_some()).count();
            rule(sub.turns as usize == turns, "turns of a sub-tenant counted")?;
            match turns {
                0 => ahead[t] += usize::from(sub.virtual_time > now),
                1.. => waiting[t] += u64::from(sub.weight_waiting),
            }
        }
        for ((t, tenant), (waiting, ahead)) in (0..).zip(&self.tenants).zip(waiting.into_iter().zip(ahead)) {
            let (counted, mut entries) = tenant.clock.look();
            rule(counted == waiting, "weights of the sub-tenants that wait counted")?;
            let mut found = 0;
            entries.try_for_each(|(time, s, _)| {
                let sub = self.subs.get(s).ok_or(BrokenRule("nobody is ahead who is forgotten"))?;
                found += usize::from(time > tenant.clock.now());
                rule(sub.tenant.0 == t && sub.turns == 0 && sub.virtual_time == time, "who is ahead does not wait")
            })?;
            rule(found == ahead, "who was served beyond now, and does not wait, is ahead")?;
        }
        Ok(())
    }
}
