//! Records that name each other by slots instead of holding each other.

use std::{
    fmt,
    marker::PhantomData,
    ops::{Index, IndexMut},
};

use crate::slots::Slot;

/// A list with holes, of records that are named by slots of the type `S`. The slot of a removed record is used again: whoever
/// keeps a slot must forget it before the record is removed.
#[derive(Clone)]
pub struct Slab<S, T> {
    records: Vec<Option<T>>,
    free: Vec<u32>,
    slots: PhantomData<S>,
}

impl<S, T: fmt::Debug> fmt::Debug for Slab<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.records).finish()
    }
}

impl<S, T> Default for Slab<S, T> {
    fn default() -> Self {
        Self { records: Vec::new(), free: Vec::new(), slots: PhantomData }
    }
}

impl<S: Slot, T> Slab<S, T> {
    /// Keeps a record, and returns its slot.
    pub fn insert(&mut self, record: T) -> S {
        if let Some(position) = self.free.pop() {
            self.records[position as usize] = Some(record);
            return S::new(position);
        }
        // Growth by an eighth, not by doubling: a hundred thousand records are known, and half of their places would be air.
        if self.records.len() == self.records.capacity() {
            self.records.reserve_exact(self.records.len() / 8 + 16);
        }
        self.records.push(Some(record));
        S::new(u32::try_from(self.records.len() - 1).unwrap_or(u32::MAX))
    }

    /// Removes the record of this slot and returns it; none if there is none.
    pub fn remove(&mut self, slot: S) -> Option<T> {
        let removed = self.records.get_mut(slot.position())?.take();
        if removed.is_some() {
            self.free.push(slot.position() as u32);
        }
        removed
    }

    /// Makes another record of one, in the same slot. `change` gets the record itself, not a copy.
    pub fn transform(&mut self, slot: S, change: impl FnOnce(T) -> T) {
        if let Some(place) = self.records.get_mut(slot.position()) {
            *place = place.take().map(change);
        }
    }

    /// The record of this slot; none if it was removed.
    pub fn get(&self, slot: S) -> Option<&T> {
        self.records.get(slot.position())?.as_ref()
    }

    /// All records with their slots, in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (S, &T)> {
        (0..).zip(&self.records).filter_map(|(position, record)| Some((S::new(position), record.as_ref()?)))
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }
}

/// For slots that are known to have a record.
impl<S: Slot, T> Index<S> for Slab<S, T> {
    type Output = T;

    fn index(&self, slot: S) -> &T {
        self.get(slot).expect("a record names only records that are there")
    }
}

impl<S: Slot, T> IndexMut<S> for Slab<S, T> {
    fn index_mut(&mut self, slot: S) -> &mut T {
        self.records[slot.position()].as_mut().expect("a record names only records that are there")
    }
}
