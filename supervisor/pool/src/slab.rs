//! Things with small numbers for names, so that records can name each other without holding each other.

use std::ops::{Index, IndexMut};

/// A list with holes. The number of a removed thing is used again: whoever keeps one must let go of it in time.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Puts a thing in.
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.places[at as usize] = Some(value);
            return at;
        }
        // Growth by an eighth, not by doubling: a hundred thousand records are known, and half of their places would be air.
        if self.places.len() == self.places.capacity() {
            self.places.reserve_exact(self.places.len() / 8 + 16);
        }
        self.places.push(Some(value));
        u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
    }

    /// Takes a thing out.
    pub fn remove(&mut self, at: u32) -> Option<T> {
        let taken = self.places.get_mut(at as usize)?.take();
        if taken.is_some() {
            self.free.push(at);
        }
        taken
    }

    /// Makes another thing of one, in its place. `change` gets the thing itself, not a copy.
    pub fn transform(&mut self, at: u32, change: impl FnOnce(T) -> T) {
        if let Some(place) = self.places.get_mut(at as usize) {
            *place = place.take().map(change);
        }
    }

    /// A thing that may be gone.
    pub fn get(&self, at: u32) -> Option<&T> {
        self.places.get(at as usize)?.as_ref()
    }

    /// All there are, with their numbers, in the order of these.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.places).filter_map(|(at, place)| Some((at, place.as_ref()?)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

/// For numbers that are known to be in use.
impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        self.get(at).expect("a record names only records that are there")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.places[at as usize].as_mut().expect("a record names only records that are there")
    }
}
