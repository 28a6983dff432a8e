//! How a worker is removed: whatever is left of it is ended, its counters are read, and its group goes.

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use sublet_pool::WorkerId;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{PostMortem, Services, Worker, host::Group};
use crate::nursery::InitEnd;

/// A worker that cannot be removed for so long is reported, and again each time it passes.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);
/// What has not ended by then is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(500);
/// How soon it is looked again whether a group is empty, at first and at the most: twice as long each time.
const EMPTY_LOOK: Duration = Duration::from_micros(100);
const EMPTY_LOOK_MAX: Duration = Duration::from_millis(10);
/// How soon a group that the kernel does not remove is tried again.
const REMOVE_AGAIN: Duration = Duration::from_secs(1);

/// Ends whatever is left of a worker and removes its group. Does not give up: a worker that is not gone stays on the books.
pub(super) async fn remove(
    services: &Arc<Services>,
    worker: &Arc<Worker>,
    reaped: Option<watch::Receiver<Option<InitEnd>>>,
) {
    drop(worker.take_call_channel());
    let Some(group) = worker.group() else { return worker.ending.found(PostMortem::default()) };
    let init_signal = end(worker, group, reaped).await;
    worker.meter().close(group.reading(), worker.owner().is_some());
    worker.ending.found(examine(worker, group, init_signal));
    patiently(worker.id, "its group to be removed", async {
        loop {
            let (services, worker) = (services.clone(), worker.clone());
            let removed = tokio::task::spawn_blocking(move || {
                let Some((gone, levels)) = worker.group().map(|group| group.remove()) else { return true };
                for level in levels {
                    services.ledger.gone(&level.owner, level.cpu);
                }
                gone
            });
            // One that panicked has not removed it.
            if removed.await.unwrap_or(false) {
                return;
            }
            sleep(REMOVE_AGAIN).await;
        }
    })
    .await;
}

/// Ends every process of it. Returns the signal that ended init, when one did and that is known.
async fn end(worker: &Worker, group: &dyn Group, reaped: Option<watch::Receiver<Option<InitEnd>>>) -> Option<i32> {
    kill(worker, group);
    // After the group, so that nobody of it goes on without init. One that was moved out of its group ends by this.
    worker.close_reports();
    let mut init_signal = None;
    if let Some(mut reaped) = reaped {
        let end = patiently(worker.id, "init to end", async {
            loop {
                // Killing needs a descriptor for a moment, and there may have been none.
                tokio::select! {
                    end = reaped.wait_for(Option::is_some) => return end.ok().and_then(|end| *end),
                    () = sleep(KILL_AGAIN) => kill(worker, group),
                }
            }
        });
        // A nursery that is gone has ended every sandbox, or its cgroup's emptiness will tell.
        init_signal = end.await.and_then(|end| end.signal);
    }
    patiently(worker.id, "its group to become empty", async {
        let (mut pause, mut since) = (EMPTY_LOOK, Instant::now());
        while group.is_populated() {
            sleep(pause).await;
            pause = (pause * 2).min(EMPTY_LOOK_MAX);
            if since.elapsed() >= KILL_AGAIN {
                kill(worker, group);
                since = Instant::now();
            }
        }
    })
    .await;
    init_signal
}

/// What is known of it now that nothing of it runs.
fn examine(worker: &Worker, group: &dyn Group, init_signal: Option<i32>) -> PostMortem {
    let bites = worker.bites_in_call();
    PostMortem {
        memory_bite: (bites.oom_kills > 0).then(|| group.memory_bite()),
        pids_bite: (bites.pids_refused > 0).then(|| group.pids_bite()),
        memory_peak_bytes: group.memory_peak_bytes(),
        was_killed_from_outside: worker.ending.was_by_itself() && init_signal == Some(Signal::SIGKILL as i32),
        function: worker.function_end(),
        init_signal,
    }
}

fn kill(worker: &Worker, group: &dyn Group) {
    if let Err(error) = group.kill() {
        tracing::error!(worker = worker.name(), %error, "its group cannot be killed; tried again");
    }
}

/// Waits, and says so when it takes long.
async fn patiently<T>(worker: WorkerId, what: &str, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        tokio::select! {
            done = &mut future => return done,
            () = sleep(REMOVAL_PATIENCE) => {
                tracing::error!(worker = format!("w-{}", worker.0), "still waiting for {what}");
            }
        }
    }
}
