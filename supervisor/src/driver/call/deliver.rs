//! One delivery: the call is given to a worker, and something comes of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sublet_pool::{End, Event, LeaseId, Start};
use sublet_proto::{level::Level, link::sandbox::Protocol};
use sublet_shim::chain::chain;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{Call, Held, Outlet};
use crate::{
    driver::{
        Note,
        post_answer::{self, PostAnswerPhase},
        verdict::{self, Failed},
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
        let (mut call_channel, ticket) = match self.begin(&mut delivery, thaw) {
            Ok(begun) => begun,
            Err(unfit) => return Delivered::Not(worker, Unfit { what: chain(&unfit), is_theirs: false }),
        };
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
        // Given up meanwhile: then the function must not act on it.
        if let Ok(note) = notes.try_recv() {
            return Delivered::Overtaken(delivery, None, Some(note));
        }
        let mut payload = self.take_payload();
        let own = self.entry.settings.timeout;
        let end = Instant::now() + own;
        let outcome = match self.ask(&delivery, &mut call_channel, ticket, end, &mut payload, notes, outlet).await {
            Asked::Outcome(outcome) => outcome,
            Asked::Overtaken(held, note) => return Delivered::Overtaken(delivery, held, note),
        };
        delivery.read = call_channel.channel.share().spent();
        let Some(outcome) = outcome else {
            let verdict = verdict::deadline(&self.entry, own, false, delivery.at.elapsed());
            let held = self.failed_in_time(verdict, &delivery);
            self.answered(&worker, lease, false);
            return Delivered::Replied(delivery, held);
        };
        let (held, mut clean) = match outcome {
            Ok(reply) => (self.of_reply(reply, &delivery).await, true),
            Err(Fault::NotDelivered(what)) => {
                self.put_payload(payload);
                worker.meter().end(worker.reading());
                return Delivered::Not(worker, Unfit { what, is_theirs: true });
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
        if clean && self.entry.settings.runtime.protocol() == Protocol::Lambda {
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
        self.answered(&worker, lease, clean);
        drop(post_answer);
        Delivered::Replied(delivery, held)
    }

    fn answered(&self, worker: &Worker, lease: LeaseId, clean: bool) {
        self.driver.step(Event::Answered { worker: worker.id, lease, clean });
    }

    /// Sends the call and waits for what comes of it, until `end` or until the pool says something.
    #[expect(clippy::too_many_arguments, reason = "each is borrowed from what outlives the wait")]
    async fn ask(
        &self,
        delivery: &Delivery,
        call_channel: &mut CallChannel,
        ticket: Ticket,
        end: Instant,
        payload: &mut Bytes,
        notes: &mut mpsc::UnboundedReceiver<Note>,
        outlet: &Outlet,
    ) -> Asked {
        let settings = &self.entry.settings;
        let left = self.limit.saturating_sub(self.accepted.elapsed());
        let ask = Ask {
            protocol: settings.runtime.protocol(),
            ticket,
            time_left_ms: u32::try_from(left.min(settings.timeout).as_millis()).unwrap_or(u32::MAX),
            answer_max_bytes: settings.answer_max_bytes,
            pieces: outlet.pieces.as_ref(),
            stream_max_bytes: settings.stream_max.bytes(),
        };
        let CallChannel { channel, alarm, pace, .. } = call_channel;
        let mut exchanging = std::pin::pin!(alarm.by(end, exchange(channel, pace, ask, payload)));
        tokio::select! {
            // An answer that is there counts, even when its worker has ended since.
            biased;
            outcome = &mut exchanging => Asked::Outcome(outcome),
            note = notes.recv() => {
                if !matches!(note, Some(Note::Settle { end: End::WorkerDied { .. }, .. })) {
                    return Asked::Overtaken(None, note);
                }
                // What it said before it ended is the caller's, who may be a little late to take it.
                let held = match timeout(TAKING_PATIENCE, exchanging).await {
                    Ok(Some(Ok(Reply::Answer(payload)))) => Some(Ok(self.answer(payload, delivery))),
                    Ok(Some(Ok(Reply::Error(what)))) => Some(self.failure(&Failed::Handler(what), None, delivery).await),
                    Ok(_) | Err(_) => None,
                };
                Asked::Overtaken(held, note)
            }
        }
    }
}

/// What came of asking.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is made: a box would cost each call an allocation"
)]
enum Asked {
    /// What the worker said or did; none: nothing in time.
    Outcome(Option<Result<Reply, Fault>>),
    /// The pool has said what becomes of the call, with what the worker had said before it ended.
    Overtaken(Option<Held>, Option<Note>),
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
