//! What is done with a worker before it reads a byte of a call: it is looked at once more, and what it does and uses from here
//! on is the call's.

use std::io;

use super::{Call, deliver::Delivery};
use crate::worker::{CallChannel, exchange::Ticket};

/// Why a worker is not fit for a call. It has read nothing of the call.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnfitWorker {
    /// The kernel does not let it run.
    #[error("it cannot be thawed")]
    Frozen(#[source] io::Error),
    /// Another delivery has not given the channel back, or it has no owner yet. The pool gives no such worker.
    #[error("its channel is not there")]
    NoChannel,
    /// Its owner is not the call's. The pool gives no such worker.
    #[error("it belongs to another")]
    Foreign,
    /// It is not what it was when it answered its last call.
    #[error("a process of it was ended for memory between two calls")]
    LostProcess,
}

impl Call {
    /// Begins a delivery.
    ///
    /// # Errors
    /// The worker is not fit for the call.
    pub(super) fn begin(&self, delivery: &mut Delivery, thaw: bool) -> Result<(CallChannel, Ticket), UnfitWorker> {
        let worker = delivery.worker.clone();
        if thaw {
            delivery.frozen = worker.apply_freeze().map_err(UnfitWorker::Frozen)?;
        }
        let (Some(call_channel), Some(owner)) = (worker.take_call_channel(), worker.owner()) else {
            return Err(UnfitWorker::NoChannel);
        };
        // From the call's own key, whatever the pool has decided.
        let tag = self.driver.services.labels.tag(&self.entry, &self.key.sub_tenant);
        let Some(ticket) = Ticket::new(delivery.lease, owner.tag, tag) else {
            tracing::error!(worker = worker.name(), "a call was to be delivered to a worker of another owner");
            return Err(UnfitWorker::Foreign);
        };
        // What it wrote before is not this call's, nor what it used.
        delivery.mark = Some(worker.log.begin(delivery.lease, || self.entry.settings.short_revision()));
        worker.meter().begin(worker.reading());
        if worker.begin_call() && delivery.calls > 1 {
            // A new one is taken as it is: it is as its start left it.
            worker.meter().end(worker.reading());
            return Err(UnfitWorker::LostProcess);
        }
        delivery.throttled_above = worker.throttled_above();
        Ok((call_channel, ticket))
    }
}
