//! Memory of large payloads, given back once there has been none for a while.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

/// A payload or an answer of so many bytes or more is large.
const LARGE_BYTES: usize = 512 * 1024;
/// A good while: in the middle of a burst the memory is needed again at once.
pub const QUIET: Duration = Duration::from_secs(1);

/// Says when free memory is to be given back to the kernel: some time after the last large call.
#[derive(Debug, Default)]
pub struct HeapTrim {
    seen: AtomicBool,
    first: Notify,
}

impl HeapTrim {
    /// A payload or an answer of so many bytes has been let go.
    pub fn note(&self, bytes: usize) {
        if bytes >= LARGE_BYTES && !self.seen.swap(true, Ordering::Relaxed) {
            self.first.notify_one();
        }
    }

    /// Waits until there has been a large one, and then none for so long.
    pub async fn wait_until_due(&self, quiet: Duration) {
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
        let heap_trim = HeapTrim::default();
        heap_trim.note(LARGE_BYTES - 1);
        assert!(timeout(SHORT * 5, heap_trim.wait_until_due(SHORT)).await.is_err(), "there was none");

        heap_trim.note(LARGE_BYTES);
        let start = Instant::now();
        let later = async {
            sleep(SHORT / 2).await;
            heap_trim.note(LARGE_BYTES);
        };
        tokio::join!(heap_trim.wait_until_due(SHORT), later);
        assert!(start.elapsed() >= SHORT * 2, "the second begins the while anew");
        heap_trim.note(LARGE_BYTES);
        heap_trim.wait_until_due(SHORT).await;
    }
}
