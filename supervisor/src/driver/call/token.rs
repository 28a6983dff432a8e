//! A call that finds its worker without a token that holds.

use sublet_pool::{Event, LeaseId};

use super::{
    Call,
    deliver::{Delivered, Delivery},
    settle::with_detail,
};
use crate::{driver::verdict, worker::CallChannel, worker::token::TokenError};

impl Call {
    /// The worker has not seen the call, and is as fit as it was: the next one may find the provider well again.
    pub(super) fn without_token(
        &self,
        error: TokenError,
        call_channel: CallChannel,
        delivery: Delivery,
        lease: LeaseId,
    ) -> Delivered {
        let held = match error {
            TokenError::Provider(error) => {
                with_detail(self.failed(verdict::token(&self.entry, &error), Some(&delivery)), error.what)
            }
            TokenError::Ours(_) => Err(self.ours(error.to_string())),
        };
        let worker = &delivery.worker;
        worker.log.end();
        worker.put_call_channel(call_channel);
        self.driver.step(Event::Answered { worker: worker.id, lease, clean: true });
        Delivered::Replied(delivery, held)
    }
}
