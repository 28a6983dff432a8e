//! Idle workers in the order of their last use, at every level: each worker is in one list of its host, its tenant and
//! its function. Taken out of the middle at once, without a search.

use crate::slab::Slab;

/// A list's level, and with it the link of a worker that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Host = 0,
    Tenant = 1,
    Function = 2,
}

/// One worker's neighbours in one list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    before: Option<u32>,
    after: Option<u32>,
}

/// A list, least recently used first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lru {
    first: Option<u32>,
    last: Option<u32>,
}

/// What can be in a list of each level.
pub trait Linked {
    fn links(&self) -> &[Link; 3];
    fn links_mut(&mut self) -> &mut [Link; 3];
}

fn link<T: Linked>(workers: &mut Slab<T>, at: u32, level: Level) -> &mut Link {
    &mut workers[at].links_mut()[level as usize]
}

impl Lru {
    /// The least recently used.
    pub fn first(&self) -> Option<u32> {
        self.first
    }

    /// Appends the most recently used.
    pub fn push<T: Linked>(&mut self, workers: &mut Slab<T>, level: Level, at: u32) {
        self.insert(workers, level, at, |_| false);
    }

    /// Puts one in before those at the end that are to stay behind it.
    pub fn insert<T: Linked>(&mut self, workers: &mut Slab<T>, level: Level, at: u32, is_behind: impl Fn(&T) -> bool) {
        let mut after = None;
        let mut before = self.last;
        while let Some(last) = before.filter(|last| is_behind(&workers[*last])) {
            (after, before) = (Some(last), link(workers, last, level).before);
        }
        *link(workers, at, level) = Link { before, after };
        match before {
            Some(before) => link(workers, before, level).after = Some(at),
            None => self.first = Some(at),
        }
        match after {
            Some(after) => link(workers, after, level).before = Some(at),
            None => self.last = Some(at),
        }
    }

    /// Takes a member out.
    pub fn remove<T: Linked>(&mut self, workers: &mut Slab<T>, level: Level, at: u32) {
        let Link { before, after } = std::mem::take(link(workers, at, level));
        match before {
            Some(before) => link(workers, before, level).after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => link(workers, after, level).before = before,
            None => self.last = before,
        }
    }

    /// All members from the least recently used on.
    pub fn iter<'a, T: Linked>(&self, workers: &'a Slab<T>, level: Level) -> impl Iterator<Item = u32> + use<'a, T> {
        std::iter::successors(self.first, move |at| workers[*at].links()[level as usize].after)
    }
}
