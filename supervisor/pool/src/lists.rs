//! Idle workers in the order of their last use, at every level: each idle worker is in one list of its host, one of its tenant
//! and one of its function. A worker is taken out of the middle of a list at once, without a search.

use crate::{slab::Slab, slots::WorkerSlot};

/// Which of the three lists of an idle worker is meant, and so which of its three links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleList {
    Host = 0,
    Tenant = 1,
    Function = 2,
}

/// The neighbours of one worker in one list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    before: Option<WorkerSlot>,
    after: Option<WorkerSlot>,
}

/// A list, least recently used first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lru {
    first: Option<WorkerSlot>,
    last: Option<WorkerSlot>,
}

/// A record that can be in one list of each kind.
pub trait Linked {
    fn links(&self) -> &[Link; 3];
    fn links_mut(&mut self) -> &mut [Link; 3];
}

fn link<T: Linked>(workers: &mut Slab<WorkerSlot, T>, w: WorkerSlot, list: IdleList) -> &mut Link {
    &mut workers[w].links_mut()[list as usize]
}

impl Lru {
    /// The least recently used worker.
    pub fn first(&self) -> Option<WorkerSlot> {
        self.first
    }

    /// Appends a worker as the most recently used.
    pub fn push<T: Linked>(&mut self, workers: &mut Slab<WorkerSlot, T>, list: IdleList, w: WorkerSlot) {
        self.insert(workers, list, w, |_| false);
    }

    /// Puts a worker before those at the end of the list for which `is_behind` holds.
    pub fn insert<T: Linked>(
        &mut self,
        workers: &mut Slab<WorkerSlot, T>,
        list: IdleList,
        w: WorkerSlot,
        is_behind: impl Fn(&T) -> bool,
    ) {
        let mut after = None;
        let mut before = self.last;
        while let Some(last) = before.filter(|last| is_behind(&workers[*last])) {
            (after, before) = (Some(last), link(workers, last, list).before);
        }
        *link(workers, w, list) = Link { before, after };
        match before {
            Some(before) => link(workers, before, list).after = Some(w),
            None => self.first = Some(w),
        }
        match after {
            Some(after) => link(workers, after, list).before = Some(w),
            None => self.last = Some(w),
        }
    }

    /// Takes a worker out of this list, in which it must be.
    pub fn remove<T: Linked>(&mut self, workers: &mut Slab<WorkerSlot, T>, list: IdleList, w: WorkerSlot) {
        let Link { before, after } = std::mem::take(link(workers, w, list));
        match before {
            Some(before) => link(workers, before, list).after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => link(workers, after, list).before = before,
            None => self.last = before,
        }
    }

    /// All workers of the list, from the least recently used on.
    pub fn iter<'a, T: Linked>(
        &self,
        workers: &'a Slab<WorkerSlot, T>,
        list: IdleList,
    ) -> impl Iterator<Item = WorkerSlot> + use<'a, T> {
        std::iter::successors(self.first, move |w| workers[*w].links()[list as usize].after)
    }
}
