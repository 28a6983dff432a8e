//! The end of a drain, and the way back from it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sublet_pool::Event;
use tokio::time::{Instant, timeout};

use super::Driver;

/// How often workers that end without time are looked for.
const HURRY_EVERY: Duration = Duration::from_millis(50);

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainState {
    /// Calls are taken.
    Serving,
    /// No more are taken, and those that were accepted are still to end.
    Draining,
    /// No call and no worker is left.
    Drained,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainEnd {
    /// Nothing is left.
    Drained,
    /// Somebody had calls taken again before.
    Undrained,
}

/// Calls cannot be taken again: the supervisor is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor stops, and takes no calls again; start it anew")]
pub struct IsStopping;

impl Driver {
    /// Takes no more calls, lets those accepted end within `grace`, ends all workers. Returns when nothing is left, or when
    /// calls are taken again.
    pub async fn drain(self: &Arc<Self>, grace: Duration) -> DrainEnd {
        let mut drain_state = self.drain_state.subscribe();
        {
            let mut books = self.books();
            // Before the pool may say that nothing is left.
            self.drain_state.send_if_modified(|drain_state| {
                let is_first = *drain_state == DrainState::Serving;
                if is_first {
                    *drain_state = DrainState::Draining;
                }
                is_first
            });
            self.step_with(&mut books, Event::Drain { deadline: self.tick(Instant::now() + grace) });
        }
        self.tell_standing();
        // The sender is our own field.
        let end = drain_state
            .wait_for(|drain_state| *drain_state != DrainState::Draining)
            .await
            .map_or(DrainState::Drained, |drain_state| *drain_state);
        match end {
            DrainState::Serving => DrainEnd::Undrained,
            DrainState::Draining | DrainState::Drained => DrainEnd::Drained,
        }
    }

    /// Takes no more calls, and ends those that were accepted, and all workers, without giving any of them time.
    pub async fn drain_at_once(self: &Arc<Self>) {
        let drained = self.drain(Duration::ZERO);
        tokio::pin!(drained);
        // The workers that this has end, and those that were ending before. A call that is cut may leave one a moment later.
        loop {
            self.hurry_all();
            if timeout(HURRY_EVERY, &mut drained).await.is_ok() {
                return;
            }
        }
    }

    /// There is no way back any more: the process is to end.
    pub fn set_stopping(&self) {
        // Whoever undrains holds the books meanwhile, and is either done or refused.
        let books = self.books();
        self.stopping.store(true, Ordering::Relaxed);
        drop(books);
        self.tell_standing();
    }

    /// Takes calls again after a drain, or in the middle of one. False: they were taken anyway.
    ///
    /// # Errors
    /// The process is about to end.
    pub fn undrain(self: &Arc<Self>) -> Result<bool, IsStopping> {
        let was_draining = {
            let mut books = self.books();
            if self.stopping.load(Ordering::Relaxed) {
                return Err(IsStopping);
            }
            let was_draining = books.pool.is_draining();
            self.drain_state.send_replace(DrainState::Serving);
            self.step_with(&mut books, Event::Undrain);
            was_draining
        };
        self.tell_standing();
        Ok(was_draining)
    }
}
