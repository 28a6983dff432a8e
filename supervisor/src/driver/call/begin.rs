//! What is done with a worker before it reads a byte of a call: it is looked at once more, and what it does and uses from here
//! on is the call's.

use super::{Call, deliver::Delivery};
use crate::worker::{CallChannel, exchange::Ticket};

impl Call {
    /// Begins a delivery.
    ///
    /// # Errors
    /// Why the worker is not fit for the call. It has not seen it.
    pub(super) fn begin(&self, delivery: &mut Delivery, thaw: bool) -> Result<(CallChannel, Ticket), String> {
        let worker = delivery.worker.clone();
        if thaw {
            delivery.frozen = worker.apply_freeze().map_err(|error| format!("it cannot be thawed: {error}"))?;
        }
        let (Some(call_channel), Some(owner)) = (worker.take_call_channel(), worker.owner()) else {
            return Err("its channel is not there".into());
        };
        // From the call's own key, whatever the pool has decided.
        let tag = self.driver.services.labels.tag(&self.entry, &self.key.sub_tenant);
        let Some(ticket) = Ticket::new(delivery.lease, owner.tag, tag) else {
            tracing::error!(worker = worker.name(), "a call was to be delivered to a worker of another owner");
            return Err("it belongs to another".into());
        };
        // What it wrote before is not this call's, nor what it used.
        delivery.mark = Some(worker.log.begin(delivery.lease, || self.entry.settings.short_revision()));
        worker.meter().begin(worker.reading());
        if worker.begin_call() && delivery.calls > 1 {
            // It is not what it was when it answered its last call. A new one is taken as it is: it is as its start left it.
            worker.meter().end(worker.reading());
            return Err("a process of it was ended for memory between two calls".into());
        }
        delivery.throttled_above = worker.throttled_above();
        Ok((call_channel, ticket))
    }
}
