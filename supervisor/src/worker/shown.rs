//! The limits that a worker shows its function, kept as those of its group.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use sublet_proto::link::sandbox::ShownLimits;
use tokio::{sync::watch, time::timeout};

use crate::cgroups::shown::LiveLimits;

/// How long a call waits for init to show limits that have changed. After that the function sees the older ones for a
/// moment, which is better than no call.
const PATIENCE: Duration = Duration::from_millis(500);

/// What one worker shows. Empty until it has a group.
#[derive(Debug)]
pub struct Shown {
    live: OnceLock<Arc<LiveLimits>>,
    told: Mutex<Told>,
    /// Number of the last limits that init has shown.
    done: watch::Sender<u64>,
}

/// What init has been told last.
#[derive(Debug, Default)]
struct Told {
    limits: Option<ShownLimits>,
    number: u64,
}

impl Default for Shown {
    fn default() -> Self {
        Self { live: OnceLock::new(), told: Mutex::default(), done: watch::Sender::new(0) }
    }
}

impl Shown {
    /// It has got its group, and its init begins with these limits.
    pub fn begin(&self, live: Arc<LiveLimits>) -> ShownLimits {
        let limits = self.live.get_or_init(|| live).shown();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).limits = Some(limits);
        limits
    }

    /// The limits that it has now; none before it has a group.
    pub fn limits(&self) -> Option<ShownLimits> {
        self.live.get().map(|live| live.shown())
    }

    /// What its init must be told, with a number: the limits that it has now, if it was told others last.
    pub fn news(&self) -> Option<(u64, ShownLimits)> {
        let limits = self.limits()?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.limits.replace(limits) == Some(limits) {
            return None;
        }
        told.number += 1;
        Some((told.number, limits))
    }

    /// What was news could not be told, and is news again.
    pub fn untold(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).limits = None;
    }

    /// Init shows the limits of this number.
    pub fn done(&self, number: u64) {
        self.done.send_replace(number);
    }

    /// Waits until init shows the limits of this number or later ones, but not for ever.
    pub async fn wait(&self, number: u64) {
        let mut done = self.done.subscribe();
        // The sender lives as long as this.
        timeout(PATIENCE, done.wait_for(|done| *done >= number)).await.map(drop).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::limits::Limits;

    #[test]
    fn init_is_told_of_a_change_once_and_of_nothing_else() {
        let mut limits = Limits { memory_max: Some(1 << 20), ..Limits::default() };
        let live = Arc::new(LiveLimits::new(&limits));
        let shown = Shown::default();
        assert_eq!((shown.limits(), shown.news()), (None, None));
        assert_eq!(shown.begin(live.clone()).memory_bytes, 1 << 20);
        assert_eq!(shown.news(), None);
        limits.memory_max = Some(2 << 20);
        live.set(&limits);
        assert_eq!(shown.news().map(|(number, limits)| (number, limits.memory_bytes)), Some((1, 2 << 20)));
        assert_eq!(shown.news(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn call_waits_until_the_limits_are_shown_and_not_for_ever() {
        let shown = Shown::default();
        let begin = tokio::time::Instant::now();
        shown.wait(1).await;
        assert_eq!(begin.elapsed(), PATIENCE);
        shown.done(2);
        shown.wait(1).await;
        assert_eq!(begin.elapsed(), PATIENCE);
    }
}
