//! Memory of large payloads, given back once there has been none for a while.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

/// A payload or an answer from here on, in bytes.
const LARGE: usize = 512 * 1024;
/// A good while: in the middle of a burst the memory is needed again at once.
pub const QUIET: Duration = Duration::from_secs(1);

/// Whether there have been large calls.
#[derive(Debug, Default)]
pub struct Large {
    seen: AtomicBool,
    first: Notify,
}

impl Large {
    /// A payload or an answer of so many bytes has been let go.
    pub fn note(&self, bytes: usize) {
        if bytes >= LARGE && !self.seen.swap(true, Ordering::Relaxed) {
            self.first.notify_one();
        }
    }

    /// Waits until there has been a large one, and then none for so long.
    pub async fn have_ended(&self, quiet: Duration) {
        self.first.notified().await;
        while self.seen.swap(false, Ordering::Relaxed) {
            sleep(quiet).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn memory_is_given_back_when_the_last_large_one_is_a_while_ago() {
        let large = Large::default();
        large.note(LARGE - 1);
        assert!(timeout(SHORT * 5, large.have_ended(SHORT)).await.is_err(), "there was none");

        large.note(LARGE);
        let start = Instant::now();
        let later = async {
            sleep(SHORT / 2).await;
            large.note(LARGE);
        };
        tokio::join!(large.have_ended(SHORT), later);
        assert!(start.elapsed() >= SHORT * 2, "the second begins the while anew");
        large.note(LARGE);
        large.have_ended(SHORT).await;
    }
}
