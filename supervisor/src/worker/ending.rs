//! The end of a worker: who wants it, and what was found when nothing of the worker was left.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

use super::{farewell::KillOrder, post_mortem::PostMortem};

/// Of one worker.
#[derive(Debug)]
pub(super) struct Ending {
    kill: watch::Sender<Option<KillOrder>>,
    end: watch::Sender<Option<Arc<PostMortem>>>,
    /// Init has let go of its side before its keeper ended it.
    was_by_itself: AtomicBool,
}

impl Default for Ending {
    fn default() -> Self {
        Self { kill: watch::Sender::new(None), end: watch::Sender::new(None), was_by_itself: AtomicBool::new(false) }
    }
}

impl Ending {
    /// Asks its keeper to end it. The first order stays.
    pub(super) fn kill(&self, order: KillOrder) {
        self.kill.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(order);
            first
        });
    }

    /// That it is to end, when somebody wants it.
    pub(super) fn order(&self) -> Option<KillOrder> {
        *self.kill.borrow()
    }

    /// Returns when somebody wants its end.
    pub(super) async fn killed(&self) {
        // The sender is our own.
        drop(self.kill.subscribe().wait_for(Option::is_some).await);
    }

    /// Init has ended before its keeper ended it.
    pub(super) fn ended_by_itself(&self) {
        self.was_by_itself.store(true, Ordering::SeqCst);
    }

    pub(super) fn was_by_itself(&self) -> bool {
        self.was_by_itself.load(Ordering::SeqCst)
    }

    /// Nothing of it runs any more.
    pub(super) fn found(&self, post_mortem: PostMortem) {
        self.end.send_replace(Some(Arc::new(post_mortem)));
    }

    /// What was found. Waits for that.
    pub(super) async fn post_mortem(&self) -> Option<Arc<PostMortem>> {
        let mut end = self.end.subscribe();
        end.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sublet_pool::KillReason;

    use super::*;

    #[tokio::test]
    async fn first_order_of_an_end_stays() {
        let order = |why| KillOrder { why, grace: Duration::ZERO };
        let ending = Ending::default();
        assert_eq!(ending.order(), None);
        ending.kill(order(KillReason::Deadline));
        ending.kill(order(KillReason::Evicted));
        ending.killed().await;
        assert_eq!(ending.order(), Some(order(KillReason::Deadline)));
    }
}
