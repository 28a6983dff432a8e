//! One delivery: the call is given to a worker, and something comes of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sublet_pool::{End, Event, LeaseId, Start};
use sublet_proto::{level::Level, link::sandbox::Protocol};
use tokio::{sync::mpsc, time::timeout};

use super::{Call, Held, Outlet};
use crate::{
    driver::{
        Note,
        post_answer::{self, PostAnswerPhase},
        verdict::{self, Failed, Noticed, Tmp},
    },
    worker::{
        CallChannel, Worker,
        exchange::{self, Ask, Ticket, exchange},
        log::Mark,
        reply::{Fault, Reply},
    },
};

/// How long a worker that closed its channel may take to end; one that goes on without it broke the protocol.
const DEATH_PATIENCE: Duration = Duration::from_millis(200);
/// How long a caller may take to take what a worker said that has ended since.
const TAKING_PATIENCE: Duration = Duration::from_secs(1);

/// A delivery under way.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) worker: Arc<Worker>,
    pub(super) lease: [u8; 16],
    pub(super) start: Start,
    pub(super) at: Instant,
    pub(super) calls: u64,
    pub(super) mark: Option<Mark>,
    /// How long its worker had been frozen.
    pub(super) frozen: Duration,
    /// What the quotas of the levels above had held back by then.
    pub(super) throttled_above: Vec<(Level, Duration)>,
    /// Time of the supervisor that reading its answer took, and bytes that were read.
    pub(super) read: (Duration, u64),
}

impl Call {
    /// Gives the call to the worker and tells the pool what came of it.
    pub(super) async fn deliver(
        &self,
        mut delivery: Delivery,
        lease: LeaseId,
        thaw: bool,
        notes: &mut mpsc::UnboundedReceiver<Note>,
        outlet: &mut Outlet,
    ) -> Delivered {
        let worker = delivery.worker.clone();
        let answered = |clean| self.driver.step(Event::Answered { worker: worker.id, lease, clean });
        let unfit = |what: String| Delivered::Not(worker.clone(), Unfit { what, is_theirs: false });
        if thaw {
            match worker.apply_freeze() {
                Ok(frozen) => delivery.frozen = frozen,
                Err(error) => return unfit(format!("it cannot be thawed: {error}")),
            }
        }
        let (Some(mut call_channel), Some(owner)) = (worker.take_call_channel(), worker.owner()) else {
            return unfit("its channel is not there".into());
        };
        // From the call's own key, whatever the pool has decided.
        let tag = self.driver.services.labels.tag(&self.entry, &self.key.sub_tenant);
        let Some(ticket) = Ticket::new(delivery.lease, owner.tag, tag) else {
            tracing::error!(worker = worker.name(), "a call was to be delivered to a worker of another owner");
            return unfit("it belongs to another".into());
        };
        // What it wrote before is not this call's, nor what it used.
        delivery.mark = Some(worker.log.begin(delivery.lease, || self.entry.settings.short_revision()));
        worker.meter().begin(worker.reading());
        if worker.begin_call() && delivery.calls > 1 {
            // It is not what it was when it answered its last call. A new one is taken as it is: it is as its start left it.
            worker.meter().end(worker.reading());
            return unfit("a process of it was ended for memory between two calls".into());
        }
        delivery.throttled_above = worker.throttled_above();
        if let Some(number) = worker.tell_limits() {
            tokio::select! {
                biased;
                () = worker.shown.wait(number) => {}
                note = notes.recv() => return Delivered::Overtaken(delivery, None, note),
            }
        }
        if let Some(token) = &worker.token {
            // Only a call that finds it past two thirds of its life waits here.
            let fresh = tokio::select! {
                biased;
                fresh = token.fresh() => fresh,
                note = notes.recv() => return Delivered::Overtaken(delivery, None, note),
            };
            if let Err(error) = fresh {
                return self.without_token(error, call_channel, delivery, lease);
            }
        }
        let left = self.limit.saturating_sub(self.accepted.elapsed());
        let own = self.entry.settings.timeout;
        let left_ms = u32::try_from(left.min(own).as_millis()).unwrap_or(u32::MAX);
        // Given up meanwhile: then the function must not act on it.
        if let Ok(note) = notes.try_recv() {
            return Delivered::Overtaken(delivery, None, Some(note));
        }
        let protocol = self.entry.settings.runtime.protocol();
        let ask = Ask {
            protocol,
            ticket,
            time_left_ms: left_ms,
            answer_max_bytes: self.entry.settings.answer_max_bytes,
            pieces: outlet.pieces.as_ref(),
            stream_max_bytes: self.entry.settings.stream_max.bytes(),
        };
        let mut payload = self.take_payload();
        let end = Instant::now() + own;
        let outcome = {
            let mut exchanging = std::pin::pin!(
                call_channel
                    .alarm
                    .by(end, exchange(&mut call_channel.channel, &mut call_channel.pace, ask, &mut payload))
            );
            tokio::select! {
                // An answer that is there counts, even when its worker has ended since.
                biased;
                outcome = &mut exchanging => outcome,
                note = notes.recv() => {
                    if !matches!(note, Some(Note::Settle { end: End::WorkerDied { .. }, .. })) {
                        return Delivered::Overtaken(delivery, None, note);
                    }
                    // What it said before it ended is the caller's, who may be a little late to take it.
                    let held = match timeout(TAKING_PATIENCE, exchanging).await {
                        Ok(Some(Ok(Reply::Answer(payload)))) => Some(Ok(self.answer(payload, &delivery))),
                        Ok(Some(Ok(Reply::Error(what)))) => Some(self.failure(&Failed::Handler(what), None, &delivery).await),
                        Ok(_) | Err(_) => None,
                    };
                    return Delivered::Overtaken(delivery, held, note);
                }
            }
        };
        delivery.read = call_channel.channel.share().spent();
        let Some(outcome) = outcome else {
            let verdict = verdict::deadline(&self.entry, own, false, delivery.at.elapsed());
            let held = self.failed_in_time(verdict, &delivery);
            answered(false);
            return Delivered::Replied(delivery, held);
        };
        let (held, mut clean) = match outcome {
            Ok(Reply::Answer(payload)) => (Ok(self.answer(payload, &delivery)), true),
            Ok(Reply::Ended { how, tmp_was_full, stdout }) => {
                (self.failure(&Failed::Process { how, stdout }, Some(tmp_was_full), &delivery).await, true)
            }
            Ok(Reply::BadPayload(why)) => {
                let why = String::from_utf8_lossy(&why);
                (self.failed(verdict::bad_payload(&self.entry, &why), Some(&delivery)), true)
            }
            Ok(Reply::Error(what)) => (self.failure(&Failed::Handler(what), None, &delivery).await, true),
            // Of its own limits the launcher's words are an error of the function, with a remark; else the host had none left.
            Ok(Reply::Shortage(what))
                if verdict::is_own_shortage(&self.noticed(&worker)) || worker.has_used_its_memory() =>
            {
                (self.failure(&Failed::Handler(what), None, &delivery).await, true)
            }
            Ok(Reply::Shortage(what)) => {
                worker.meter().end(worker.reading());
                (Err(self.ours(String::from_utf8_lossy(&what).into_owned())), true)
            }
            Err(Fault::NotDelivered(what)) => {
                self.put_payload(payload);
                worker.meter().end(worker.reading());
                return Delivered::Not(worker.clone(), Unfit { what, is_theirs: true });
            }
            Err(Fault::TooLarge { seen, .. }) => {
                (self.failed(verdict::answer_too_large(&self.entry, seen), Some(&delivery)), false)
            }
            Err(Fault::TooManyPieces { limit }) => {
                (self.failed(verdict::stream_too_large(&self.entry, limit), Some(&delivery)), false)
            }
            Err(Fault::BadFrame(what)) => (self.failed(verdict::bad_frame(&what), Some(&delivery)), false),
            Err(Fault::Os(error)) => (Err(self.ours(format!("talk to the worker: {error}"))), false),
            Err(Fault::Closed) => {
                // The end of its process is announced by its keeper, and the pool then says what becomes of the call.
                if let Ok(note) = timeout(DEATH_PATIENCE, notes.recv()).await {
                    return Delivered::Overtaken(delivery, None, note);
                }
                let what = "it closed its channel and goes on";
                (self.failed(verdict::bad_frame(what), Some(&delivery)), false)
            }
        };
        // Where the kernel ended one process of it for memory (v1 has no group kill) the rest is not what it was: the answer
        // stands, and no other call meets this worker.
        clean &= !worker.has_lost_a_process();
        let mut post_answer = None;
        if clean && protocol == Protocol::Lambda {
            // First: whoever has the answer may call again before we get any further.
            post_answer = Some(self.driver.post_answer.begin(&self.key));
            // The caller need not wait for what the runtime does on its way to its next call.
            outlet.give(held.clone());
            clean = tokio::select! {
                biased;
                is_idle = finish_post_answer(&worker, &mut call_channel, end, ticket, &mut post_answer) => is_idle,
                note = notes.recv() => return Delivered::Overtaken(delivery, Some(held), note),
            };
        }
        if clean {
            // What it writes between two calls is nobody's.
            worker.log.end();
            worker.put_call_channel(call_channel);
        }
        answered(clean);
        drop(post_answer);
        Delivered::Replied(delivery, held)
    }

    /// The function said, or its process by its end, that the call failed. `tmp_was_full`: whether its /tmp was when the call
    /// came, where our launcher has looked.
    async fn failure(&self, failed: &Failed, tmp_was_full: Option<bool>, delivery: &Delivery) -> Held {
        let left = self.driver.services.nursery.left(delivery.worker.id.0).await;
        let noticed = Noticed {
            tmp: left.map(|left| Tmp { space: left.tmp, was_full: tmp_was_full }),
            is_out_of_descriptors: left.is_some_and(|left| left.is_out_of_descriptors),
            refused: delivery.worker.refused_calls(),
            ..self.noticed(&delivery.worker)
        };
        self.failed_after(verdict::of_failure(&self.scope(), failed, &noticed), delivery, &noticed)
    }
}

/// Waits until the worker that has answered is free, and whether it is by `end`. Those who want it are let go before, when it
/// takes long.
async fn finish_post_answer(
    worker: &Worker,
    call_channel: &mut CallChannel,
    end: Instant,
    ticket: Ticket,
    post_answer: &mut Option<PostAnswerPhase<'_>>,
) -> bool {
    let mut idle = std::pin::pin!(exchange::idle(&mut call_channel.channel, &mut call_channel.pace, ticket));
    let patience = end.min(Instant::now() + post_answer::patience(worker.starting()));
    let outcome = match call_channel.patience.by(patience, &mut idle).await {
        Some(outcome) => Some(outcome),
        None => {
            *post_answer = None;
            call_channel.alarm.by(end, idle).await
        }
    };
    matches!(outcome, Some(Ok(())))
}

/// What came of one delivery.
#[derive(Debug)]
pub(super) enum Delivered {
    /// The pool has been told; its Settle follows.
    Replied(Delivery, Held),
    /// The pool has said what becomes of the call before there was a reply, or before its worker was free again.
    Overtaken(Delivery, Option<Held>, Option<Note>),
    /// The worker cannot have read it.
    Not(Arc<Worker>, Unfit),
}

/// Why a worker was not given a call.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) what: String,
    /// Whether the function has made it so.
    pub(super) is_theirs: bool,
}
