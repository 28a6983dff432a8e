//! The rules the books must keep, whatever happens.

use std::collections::HashMap;

use crate::{
    pool::{Pool, ROOM_PATIENCE},
    records::{CellState, Occupant, Phase, Place, Room, WorkerState},
};

fn rule(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// What the workers themselves say, to be held against what was counted.
#[derive(Default)]
struct Seen {
    making: u32,
    leased: u32,
    idle: u32,
    cells: u32,
    leaving: u32,
    /// Per key: workers, starting, reaping, idle.
    keys: HashMap<u32, [u32; 4]>,
    functions: HashMap<u32, u32>,
    rooms: HashMap<u32, u32>,
}

impl Pool {
    /// Every rule of the books. For tests, after each step.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check_invariants(&self) -> Result<(), String> {
        let seen = self.look()?;
        self.check_counts(&seen)?;
        self.check_keys(&seen)?;
        self.check_turns()
    }

    fn look(&self) -> Result<Seen, String> {
        let mut seen = Seen::default();
        for (w, occupant) in self.workers.iter() {
            rule(self.ids.get(&occupant.id()) == Some(&w), "every worker is found by its id")?;
            *seen.functions.entry(occupant.function().0).or_default() += 1;
            match occupant {
                Occupant::Cell(cell) => {
                    seen.cells += 1;
                    match cell.state {
                        CellState::Making { .. } => seen.making += 1,
                        CellState::Ready { .. } => rule(self.host.cells.contains(&w), "a ready cell is on the shelf")?,
                    }
                }
                Occupant::Worker(worker) => {
                    let of_key = seen.keys.entry(worker.key).or_default();
                    of_key[0] += 1;
                    rule(
                        self.keys[worker.key].function == worker.function,
                        "a worker and its key are of one function",
                    )?;
                    match worker.state {
                        WorkerState::Starting { phase, .. } => {
                            of_key[1] += 1;
                            seen.making += u32::from(phase == Phase::Making);
                        }
                        WorkerState::Idle { .. } => {
                            of_key[3] += 1;
                            seen.idle += 1;
                        }
                        WorkerState::Leased { call, .. } | WorkerState::Draining { call, .. } => {
                            seen.leased += 1;
                            let call = self.calls.get(&call).ok_or("a leased worker has a call on the books")?;
                            rule(call.key == worker.key, "a lease is between a worker and a call of one key")?;
                            rule(call.place == Place::Leased(w), "a lease is known on both sides")?;
                        }
                    }
                }
                Occupant::Reaping(reaping) => {
                    seen.leaving += 1;
                    if let Some(k) = reaping.key {
                        let of_key = seen.keys.entry(k).or_default();
                        of_key[0] += 1;
                        of_key[2] += 1;
                    }
                    let host = &self.host;
                    let lists = [&host.free_rooms, &host.promised_rooms, &host.overdue_rooms];
                    let expected = match reaping.room {
                        Room::Free => [true, false, false],
                        Room::Promised(k) => {
                            *seen.rooms.entry(k).or_default() += 1;
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
        Ok(seen)
    }

    fn check_counts(&self, seen: &Seen) -> Result<(), String> {
        rule(self.host.workers as usize == self.workers.len(), "workers of the host counted")?;
        let of_functions: u32 = self.functions.iter().map(|f| f.leaving).sum();
        let of_tenants: u32 = self.tenants.iter().map(|t| t.leaving).sum();
        rule([self.host.leaving, of_functions, of_tenants] == [seen.leaving; 3], "those being removed counted")?;
        rule(self.ids.len() == self.workers.len(), "no id without a worker")?;
        rule(self.host.making == seen.making, "sandboxes in the making counted")?;
        rule(self.host.in_flight as usize == self.calls.len(), "calls of the host counted")?;
        rule(self.host.in_flight - self.host.waiting == seen.leased, "every call waits or is leased")?;
        let cells: u32 = self.functions.iter().map(|f| f.cells_making + f.cells_ready.len() as u32).sum();
        rule(cells == seen.cells, "cells counted")?;
        for (f, function) in (0..).zip(&self.functions) {
            rule(function.workers == seen.functions.get(&f).copied().unwrap_or(0), "workers of a function counted")?;
        }
        for (t, tenant) in (0..).zip(&self.tenants) {
            let own = self.functions.iter().filter(|f| f.tenant.0 == t);
            let (workers, in_flight) = own.fold((0, 0), |(w, c), f| (w + f.workers, c + f.in_flight));
            rule(tenant.workers == workers && tenant.in_flight == in_flight, "a tenant is the sum of its functions")?;
        }
        for (_, sub) in self.subs.iter() {
            let workers: u32 = sub.keys.iter().map(|(_, k)| self.keys[*k].workers).sum();
            rule(sub.workers == workers, "a sub-tenant is the sum of its keys")?;
        }
        let idle = self.host.idle.iter(&self.workers, crate::lists::Level::Host).count();
        rule(idle == seen.idle as usize, "every idle worker is in the list of the host")
    }

    fn check_keys(&self, seen: &Seen) -> Result<(), String> {
        for (k, key) in self.keys.iter() {
            let [workers, starting, reaping, idle] = seen.keys.get(&k).copied().unwrap_or_default();
            rule(key.workers == workers, "workers of a key counted")?;
            rule(key.starting == starting, "starting workers of a key counted")?;
            rule(key.reaping == reaping, "workers being removed of a key counted")?;
            rule(key.idle.len() == idle as usize, "idle workers of a key counted")?;
            rule(key.rooms == seen.rooms.get(&k).copied().unwrap_or(0), "promised places of a key counted")?;
            let waiting = self.waiting_calls(k).len();
            rule(key.waiting as usize == waiting, "waiting calls of a key counted")?;
            rule(waiting == 0 || key.idle.is_empty(), "no call waits while a worker that suits it is idle")?;
        }
        rule(seen.keys.keys().all(|k| self.keys.get(*k).is_some()), "every worker's key is on the books")
    }

    fn check_turns(&self) -> Result<(), String> {
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

    fn check_clocks(&self) -> Result<(), String> {
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
                let sub = self.subs.get(s).ok_or("nobody is ahead who is forgotten")?;
                found += usize::from(time > tenant.clock.now());
                rule(sub.tenant.0 == t && sub.turns == 0 && sub.virtual_time == time, "who is ahead does not wait")
            })?;
            rule(found == ahead, "who was served beyond now, and does not wait, is ahead")?;
        }
        Ok(())
    }
}
