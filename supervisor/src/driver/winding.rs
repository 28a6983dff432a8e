//! Workers that have answered and are not yet free: a `lambda` runtime is done with a call when it asks for the next, and
//! its caller has the answer before. A caller who calls again at once would find it busy and have another one made; so
//! such a call waits for a moment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sublet_pool::PoolKey;
use tokio::{sync::Notify, time::timeout};

/// Waiting is worth it for as long as a new worker would take: on a slow machine, or with a slow language, both are. A client
/// asks again within a fraction of a millisecond; one that still works after this may do so for long.
const PATIENCE_MAX: Duration = Duration::from_millis(100);

/// All of them.
#[derive(Debug, Default)]
pub struct Winding(Mutex<HashMap<PoolKey, Of>>);

#[derive(Debug, Default)]
struct Of {
    workers: usize,
    /// What the slowest of them took to be made.
    starting: Duration,
    one_less: Arc<Notify>,
}

/// One worker's; over when dropped.
#[derive(Debug)]
pub struct WindingDown<'a> {
    all: &'a Winding,
    key: &'a PoolKey,
}

impl Winding {
    fn all(&self) -> MutexGuard<'_, HashMap<PoolKey, Of>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker of `key` has answered that took `starting` to be made.
    pub fn begin<'a>(&'a self, key: &'a PoolKey, starting: Duration) -> WindingDown<'a> {
        let mut all = self.all();
        let of = all.entry(key.clone()).or_default();
        of.workers += 1;
        of.starting = of.starting.max(starting);
        drop(all);
        WindingDown { all: self, key }
    }

    /// Waits a moment for a worker of `key` that has answered, if there is one.
    pub async fn wait(&self, key: &PoolKey) {
        let Some((one_less, starting)) = self.all().get(key).map(|of| (of.one_less.clone(), of.starting)) else {
            return;
        };
        let told = one_less.notified();
        // It may have become free before we listened.
        if self.all().get(key).is_some_and(|of| Arc::ptr_eq(&of.one_less, &one_less)) {
            // Not in time: then the pool decides.
            drop(timeout(starting.min(PATIENCE_MAX), told).await);
        }
    }
}

impl Drop for WindingDown<'_> {
    fn drop(&mut self) {
        let mut all = self.all.all();
        let Some(of) = all.get_mut(self.key) else { return };
        of.workers -= 1;
        of.one_less.notify_waiters();
        if of.workers == 0 {
            all.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sublet_pool::{FunctionId, SubTenant};

    use super::*;

    fn key(label: &str) -> PoolKey {
        PoolKey { function: FunctionId(1), sub_tenant: SubTenant::try_from(label).unwrap() }
    }

    #[tokio::test]
    async fn only_calls_of_a_key_that_winds_down_wait_and_not_longer_than_it_does() {
        let (winding, own, other) = (Winding::default(), key("own"), key("other"));
        let starting = Duration::from_millis(20);
        let down = winding.begin(&own, starting);
        winding.wait(&other).await;
        let since = Instant::now();
        winding.wait(&own).await;
        assert!(since.elapsed() >= starting, "it has not become free, so the call has waited");
        tokio::join!(winding.wait(&own), async { drop(down) });
        assert!(winding.all().is_empty(), "nothing is kept of what is over");
        winding.wait(&own).await;
        // However long a start takes, nobody waits for more than the most.
        let _down = winding.begin(&own, Duration::from_secs(3600));
        winding.wait(&own).await;
    }
}
