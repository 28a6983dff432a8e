//! The time that a worker has to end by itself: `stop_grace`.

use std::time::Duration;

use sublet_pool::KillReason;
use tokio::time::timeout;

use super::{Worker, host::Host};

/// The order that a worker is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillOrder {
    /// Why it is ended. This decides whether it has any time.
    pub why: KillReason,
    /// Time that its function has to end by itself, if it is idle and nobody waits for its place.
    pub grace: Duration,
}

impl KillOrder {
    /// The time that it has. None for a worker that has broken a rule or missed its time, and none while another one waits
    /// for its place.
    pub const fn lasts(self) -> Duration {
        match self.why {
            KillReason::IdleTtl
            | KillReason::AgeMax
            | KillReason::CallsMax
            | KillReason::FunctionRetired
            | KillReason::Evicted
            | KillReason::Drain => self.grace,
            KillReason::MakeRoom
            | KillReason::OverCap
            | KillReason::Surplus
            | KillReason::Deadline
            | KillReason::Cancelled
            | KillReason::Tainted
            | KillReason::StartTimeout
            | KillReason::StartFailed
            | KillReason::Died => Duration::ZERO,
        }
    }
}

/// Asks the function of a worker that is to end to do so by itself, and waits until it has (`ended`), or its time is over.
pub async fn say(host: &dyn Host, worker: &Worker, ended: impl Future<Output = ()>) {
    let Some(time) = worker.kill_order().map(KillOrder::lasts).filter(|time| !time.is_zero()) else { return };
    // Kept open meanwhile: a function that sees the end of its channel may end without a look at the signal. A worker whose
    // channel is taken has a call, which is cut, and so is it.
    let Some(_channel) = worker.take_call_channel() else { return };
    worker.want_frozen(false);
    // Standing still it could not end by itself.
    if worker.apply_freeze().is_err() {
        return;
    }
    let asked = async {
        if host.ask_to_end(worker.id).await > 0 {
            ended.await;
        }
    };
    tokio::select! {
        _ = timeout(time, asked) => {}
        // Somebody has come who waits for its place, or for us.
        () = worker.hurried() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_that_has_done_nothing_wrong_and_is_in_nobodys_way_has_time() {
        let grace = Duration::from_secs(5);
        let lasts = |why| KillOrder { why, grace }.lasts();
        for why in [KillReason::IdleTtl, KillReason::Evicted, KillReason::Drain, KillReason::FunctionRetired] {
            assert_eq!(lasts(why), grace, "{why:?}");
        }
        for why in [KillReason::Deadline, KillReason::Cancelled, KillReason::Tainted, KillReason::MakeRoom] {
            assert_eq!(lasts(why), Duration::ZERO, "{why:?}");
        }
    }
}
