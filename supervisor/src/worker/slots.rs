//! Slots: each living worker has one, and with it two host ids of its own.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// Hands out slots, the one that has been free for longest first: an id is used again as late as possible, so that
/// nothing that was missed of its last owner meets the next one soon.
#[derive(Debug)]
pub struct Slots(Mutex<VecDeque<u32>>);

impl Slots {
    /// Slots 0 to `count` - 1.
    pub fn new(count: u32) -> Self {
        Self(Mutex::new((0..count).collect()))
    }

    /// A free slot, if there is one.
    pub fn take(&self) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Gives a slot back. Nothing of its worker may be left.
    pub fn give_back(&self, slot: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_used_again_as_late_as_possible() {
        let slots = Slots::new(3);
        assert_eq!([slots.take(), slots.take()], [Some(0), Some(1)]);
        slots.give_back(0);
        assert_eq!([slots.take(), slots.take(), slots.take()], [Some(2), Some(0), None]);
    }
}
