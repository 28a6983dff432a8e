//! What a reply that keeps the protocol means for its call.

use super::{Call, Held, deliver::Delivery};
use crate::{
    driver::verdict::{self, Failed, Noticed, Tmp},
    worker::reply::Reply,
};

impl Call {
    /// The answer, or the verdict. Its worker goes on either way.
    pub(super) async fn of_reply(&self, reply: Reply, delivery: &Delivery) -> Held {
        let worker = &delivery.worker;
        match reply {
            Reply::Answer(payload) => Ok(self.answer(payload, delivery)),
            Reply::Ended { how, tmp_was_full, stdout } => {
                self.failure(&Failed::Process { how, stdout }, Some(tmp_was_full), delivery).await
            }
            Reply::BadPayload(why) => {
                let why = String::from_utf8_lossy(&why);
                self.failed(verdict::bad_payload(&self.entry, &why), Some(delivery))
            }
            Reply::Error(what) => self.failure(&Failed::Handler(what), None, delivery).await,
            // Of its own limits the launcher's words are an error of the function, with a remark; else the host had none left.
            Reply::Shortage(what)
                if verdict::is_own_shortage(&self.noticed(worker)) || worker.has_used_its_memory() =>
            {
                self.failure(&Failed::Handler(what), None, delivery).await
            }
            Reply::Shortage(what) => {
                worker.meter().end(worker.reading());
                Err(self.ours(String::from_utf8_lossy(&what).into_owned()))
            }
        }
    }

    /// The function said, or its process by its end, that the call failed. `tmp_was_full`: whether its /tmp was when the call
    /// came, where our launcher has looked.
    pub(super) async fn failure(&self, failed: &Failed, tmp_was_full: Option<bool>, delivery: &Delivery) -> Held {
        let left = self.driver.services.host.left(delivery.worker.id).await;
        let noticed = Noticed {
            tmp: left.map(|left| Tmp { space: left.tmp, was_full: tmp_was_full }),
            is_out_of_descriptors: left.is_some_and(|left| left.is_out_of_descriptors),
            refused: delivery.worker.refused_calls(),
            ..self.noticed(&delivery.worker)
        };
        self.failed_after(verdict::of_failure(&self.scope(), failed, &noticed), delivery, &noticed)
    }
}
