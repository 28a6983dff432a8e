//! The end of a worker: who wants it, and what was found when nothing of the worker was left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
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
    /// Asks its keeper to end it. The first reason stays, and a later order can only take time away.
    pub(super) fn kill(&self, order: KillOrder) {
        self.kill.send_if_modified(|current| match current {
            None => {
                *current = Some(order);
                true
            }
            Some(first) if order.lasts() < first.lasts() => {
                first.grace = order.lasts();
                true
            }
            Some(_) => false,
        });
    }

    /// A worker that is to end has no time any more.
    pub(super) fn hurry(&self) {
        if let Some(order) = self.order() {
            self.kill(KillOrder { grace: Duration::ZERO, ..order });
        }
    }

    /// Returns when it is to end and has no time for that.
    pub(super) async fn hurried(&self) {
        let has_none = |order: &Option<KillOrder>| order.is_some_and(|order| order.lasts().is_zero());
        // The sender is our own.
        drop(self.kill.subscribe().wait_for(has_none).await);
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

    #[tokio::test]
    async fn later_order_takes_time_away_and_gives_none() {
        let order = |seconds| KillOrder { why: KillReason::Evicted, grace: Duration::from_secs(seconds) };
        let ending = Ending::default();
        ending.hurry();
        assert_eq!(ending.order(), None, "nobody wants its end");
        ending.kill(order(5));
        ending.kill(order(9));
        assert_eq!(ending.order(), Some(order(5)));
        ending.kill(KillOrder { why: KillReason::MakeRoom, grace: Duration::from_secs(9) });
        assert_eq!(ending.order(), Some(order(0)), "somebody waits for its place");
        ending.hurried().await;
    }

    #[tokio::test]
    async fn worker_in_its_grace_can_be_hurried() {
        let ending = Ending::default();
        ending.kill(KillOrder { why: KillReason::IdleTtl, grace: Duration::from_secs(60) });
        ending.hurry();
        ending.hurried().await;
        assert_eq!(ending.order().map(|order| order.why), Some(KillReason::IdleTtl));
    }
}
