//! Workers that have answered and are not yet free: a `lambda` runtime is done with a call when it asks for the next, and
//! its caller has the answer before. A caller who calls again at once would find it busy and have another one made; so
//! such a call waits for a moment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sublet_pool::PoolKey;
use tokio::sync::Notify;

/// Waiting is worth it for as long as a new worker would take: on a slow machine, or with a slow language, both are. A client
/// asks again within a fraction of a millisecond; one that still works after this may do so for long.
const PATIENCE_MAX: Duration = Duration::from_millis(100);

/// How long others wait for a worker that took `starting` to be made, from its answer on.
pub fn patience(starting: Option<Duration>) -> Duration {
    starting.unwrap_or_default().min(PATIENCE_MAX)
}

/// The workers that have answered and are not free yet, by the key of their calls.
#[derive(Debug, Default)]
pub struct PostAnswer(Mutex<HashMap<PoolKey, BusyWorkers>>);

/// Those of one key.
#[derive(Debug, Default)]
struct BusyWorkers {
    workers: usize,
    one_less: Arc<Notify>,
}

/// What one worker does after its answer; over when dropped, which must be no later than its [`patience`] allows.
#[derive(Debug)]
pub struct PostAnswerPhase<'a> {
    all: &'a PostAnswer,
    key: &'a PoolKey,
}

impl PostAnswer {
    fn all(&self) -> MutexGuard<'_, HashMap<PoolKey, BusyWorkers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker of `key` has answered.
    pub fn begin<'a>(&'a self, key: &'a PoolKey) -> PostAnswerPhase<'a> {
        self.all().entry(key.clone()).or_default().workers += 1;
        PostAnswerPhase { all: self, key }
    }

    /// Waits for a worker of `key` that has answered, if there is one, until it is free or that takes too long.
    pub async fn wait(&self, key: &PoolKey) {
        let Some(one_less) = self.all().get(key).map(|busy| busy.one_less.clone()) else { return };
        let told = one_less.notified();
        // It may have become free before we listened.
        if self.all().get(key).is_some_and(|busy| Arc::ptr_eq(&busy.one_less, &one_less)) {
            told.await;
        }
    }
}

impl Drop for PostAnswerPhase<'_> {
    fn drop(&mut self) {
        let mut all = self.all.all();
        let Some(busy) = all.get_mut(self.key) else { return };
        busy.workers -= 1;
        busy.one_less.notify_waiters();
        if busy.workers == 0 {
            all.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use sublet_pool::{FunctionId, SubTenant};
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn key(label: &str) -> PoolKey {
        PoolKey { function: FunctionId(1), sub_tenant: SubTenant::try_from(label).unwrap() }
    }

    #[tokio::test]
    async fn only_calls_of_a_key_that_winds_down_wait_and_not_longer_than_it_does() {
        let (post_answer, own, other) = (PostAnswer::default(), key("own"), key("other"));
        let first = post_answer.begin(&own);
        let second = post_answer.begin(&own);
        post_answer.wait(&other).await;
        assert!(timeout(SHORT, post_answer.wait(&own)).await.is_err(), "neither has become free");
        tokio::join!(post_answer.wait(&own), async { drop(first) });
        assert!(timeout(SHORT, post_answer.wait(&own)).await.is_err(), "the second has not");
        drop(second);
        post_answer.wait(&own).await;
        assert!(post_answer.all().is_empty(), "nothing is kept of what is over");
    }

    #[test]
    fn nobody_waits_longer_than_a_start_takes_nor_for_long() {
        assert_eq!(patience(None), Duration::ZERO);
        assert_eq!(patience(Some(SHORT)), SHORT);
        assert_eq!(patience(Some(Duration::from_secs(3600))), PATIENCE_MAX);
    }
}
