//! What serves and what does not, kept true as events come in. [`super::standing`] is the pure part: what follows from what is
//! known.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLockReadGuard, Weak, atomic::Ordering},
    time::Duration,
};

use sublet_pool::{Event, FunctionId, WorkerId};
use tokio::{sync::watch, time::Instant};

use super::{
    Books, Driver,
    standing::{self, Standing, Whole, Why},
};
use crate::catalogue::Catalogue;

/// How often functions that do not serve are looked at, and those that may not for long.
const STANDING_LOOK: Duration = Duration::from_millis(250);
/// The least time between two such looks, however much goes wrong.
const STANDING_PAUSE: Duration = Duration::from_millis(20);

/// A part that does not serve.
#[derive(Clone, Debug)]
pub struct NotServing {
    /// "TENANT/FUNCTION"; empty for all of them.
    pub service: String,
    /// The reason, for operators.
    pub why: Why,
}

impl Driver {
    fn failing(&self) -> RwLockReadGuard<'_, HashMap<FunctionId, Why>> {
        self.failing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands in the way of all calls, and the functions that do not serve.
    pub fn not_serving(&self) -> Vec<NotServing> {
        let catalogue = self.catalogue();
        let whole = self.whole(&catalogue).why().map(|why| NotServing { service: String::new(), why });
        let failing = self.failing();
        let functions = catalogue.all().into_iter().filter_map(|entry| {
            let why = *failing.get(&entry.id)?;
            Some(NotServing { service: format!("{}/{}", entry.tenant, entry.name), why })
        });
        whole.into_iter().chain(functions).collect()
    }

    fn whole(&self, catalogue: &Catalogue) -> Whole {
        // Whoever holds the books may ask for what is failing, and not the other way round.
        let is_draining = self.books().pool.is_draining();
        let failing = self.failing();
        let all = catalogue.all();
        Whole {
            is_stopping: self.stopping.load(Ordering::Relaxed),
            is_draining,
            is_nursery_gone: self.services.host.is_gone(),
            pool: self.guard.pool(),
            functions: all.len(),
            failing: all.iter().filter(|entry| failing.contains_key(&entry.id)).count(),
        }
    }

    /// What a call would get: of a function named as "TENANT/FUNCTION", or of any when the name is empty.
    pub fn standing(&self, service: &str) -> Standing {
        let catalogue = self.catalogue();
        let whole = self.whole(&catalogue);
        if service.is_empty() {
            return whole.why().into();
        }
        let Some(entry) = service.split_once('/').and_then(|(tenant, name)| catalogue.function(tenant, name)) else {
            return Standing::Unknown;
        };
        whole.in_the_way().or_else(|| self.failing().get(&entry.id).copied()).into()
    }

    /// Changes each time that any standing may have changed.
    pub fn standing_news(&self) -> watch::Receiver<u64> {
        self.standing_changed.subscribe()
    }

    pub(super) fn tell_standing(&self) {
        self.standing_changed.send_modify(|count| *count += 1);
    }

    /// Remembers what an event says of a function. To be called before the pool has the event, which may forget the worker.
    pub(super) fn note_standing(&self, books: &mut Books, event: &Event) {
        let function = |worker: &WorkerId| books.workers.get(worker).map(|worker| worker.entry.id);
        match event {
            // Whosever fault it is: a call would get no worker.
            Event::StartFailed { worker, blame: _ } => {
                if let Some(function) = function(worker) {
                    books.starts.entry(function).or_default().fail(Instant::now());
                    self.looked_for.notify_one();
                }
            }
            Event::Started { worker } => {
                if let Some(function) = function(worker) {
                    let had_failed = books.starts.remove(&function).is_some();
                    if had_failed {
                        self.looked_for.notify_one();
                    }
                }
            }
            Event::Died { .. } => self.looked_for.notify_one(),
            // While all serve, one answer more changes nothing.
            Event::Answered { .. } if !self.failing().is_empty() => self.looked_for.notify_one(),
            _ => {}
        }
    }

    /// Finds the functions that do not serve. Returns whether any may serve less, or more, without another event.
    fn look_at_functions(&self) -> bool {
        let now = Instant::now();
        let (found, is_unsettled) = {
            let books = self.books();
            let outlooks = books.pool.outlooks(self.tick(now));
            let of = |id: &FunctionId| {
                let starts = books.starts.get(id).copied().unwrap_or_default();
                standing::of_function(starts, outlooks.get(id).copied().unwrap_or_default(), now)
            };
            let found: HashMap<_, _> = books.entries.keys().filter_map(|id| Some((*id, of(id)?))).collect();
            let is_unsettled = !found.is_empty() || outlooks.values().any(|outlook| outlook.backing_off > 0);
            (found, is_unsettled)
        };
        let mut failing = self.failing.write().unwrap_or_else(PoisonError::into_inner);
        if failing.len() != found.len() || found.keys().any(|id| !failing.contains_key(id)) {
            for (id, why) in &found {
                tracing::debug!(function = id.0, %why, "a function does not serve");
            }
            *failing = found;
            drop(failing);
            self.tell_standing();
        } else {
            *failing = found;
        }
        is_unsettled
    }
}

/// Keeps [`Driver::standing`] true.
pub(super) async fn run(driver: Weak<Driver>) {
    let Some(host) = driver.upgrade().map(|driver| driver.services.host.clone()) else { return };
    let mut is_unsettled = false;
    let mut is_nursery_gone = false;
    loop {
        let Some(strong) = driver.upgrade() else { return };
        let again = async {
            match is_unsettled {
                true => tokio::time::sleep(STANDING_LOOK).await,
                false => std::future::pending().await,
            }
        };
        let gone = async {
            match is_nursery_gone {
                false => host.gone().await,
                true => std::future::pending().await,
            }
        };
        tokio::select! {
            () = strong.looked_for.notified() => {}
            () = again => {}
            () = gone => {
                is_nursery_gone = true;
                strong.tell_standing();
            }
        }
        is_unsettled = strong.look_at_functions();
        tokio::time::sleep(STANDING_PAUSE).await;
    }
}
