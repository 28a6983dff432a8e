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

/// A client asks again within a fraction of a millisecond; one that still works then may do so for long, and a start, with
/// all that its language loads, takes more than this.
const PATIENCE: Duration = Duration::from_millis(10);

/// All of them.
#[derive(Debug, Default)]
pub struct Winding(Mutex<HashMap<PoolKey, Of>>);

#[derive(Debug, Default)]
struct Of {
    workers: usize,
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

    /// A worker of `key` has answered.
    pub fn begin<'a>(&'a self, key: &'a PoolKey) -> WindingDown<'a> {
        self.all().entry(key.clone()).or_default().workers += 1;
        WindingDown { all: self, key }
    }

    /// Waits a moment for a worker of `key` that has answered, if there is one.
    pub async fn wait(&self, key: &PoolKey) {
        let Some(one_less) = self.all().get(key).map(|of| of.one_less.clone()) else { return };
        let told = one_less.notified();
        // It may have become free before we listened.
        if self.all().get(key).is_some_and(|of| Arc::ptr_eq(&of.one_less, &one_less)) {
            // Not in time: then the pool decides.
            drop(timeout(PATIENCE, told).await);
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
        let down = winding.begin(&own);
        winding.wait(&other).await;
        let since = Instant::now();
        winding.wait(&own).await;
        assert!(since.elapsed() >= PATIENCE, "it has not become free, so the call has waited");
        tokio::join!(winding.wait(&own), async { drop(down) });
        assert!(winding.all().is_empty(), "nothing is kept of what is over");
        winding.wait(&own).await;
    }
}
