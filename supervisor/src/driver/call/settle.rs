//! How a call ends: what the pool says becomes an answer or a verdict, with a receipt, and goes into the books.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sublet_pool::{End, Refusal, Stage, Start};
use sublet_proto::{
    level::Level,
    v1::{self, Receipt, Verdict, VerdictKind},
};
use tokio::time::{Instant, sleep};

use super::{Answer, Call, Failure, Held, deliver::Delivery};
use crate::{
    cgroups::leaf::Bites,
    cgroups::reading::Reading,
    driver::{
        limit_reached::Scope,
        reason,
        rejection::Rejection,
        verdict::{self, HeldBack, Noticed, Tmp},
    },
    hex::hex,
    logs::{report::Report, words::Words},
    usage::sums::CallEnd,
    worker::{PostMortem, StartFailure, Worker, log::Mark},
};

/// How long a verdict waits for the counters of a dead worker.
const POST_MORTEM_PATIENCE: Duration = Duration::from_secs(2);

/// Of a call's log, what goes with its answer or verdict, in bytes: the end of it.
const LOG_TAIL_MAX_BYTES: usize = 4096;

/// A verdict of which operators are told more than the caller.
pub(super) fn with_detail(held: Held, more: String) -> Held {
    match held {
        Err(Failure::Verdict { verdict, .. }) => Err(Failure::Verdict { verdict, detail: more }),
        other => other,
    }
}

fn log_tail(delivery: &Delivery, mark: Mark) -> Words {
    delivery.worker.log.since(mark).last(LOG_TAIL_MAX_BYTES)
}

impl Call {
    pub(super) fn answer(&self, payload: Bytes, delivery: &Delivery) -> Answer {
        let used = delivery.worker.meter().end(delivery.worker.reading());
        let mut receipt = self.receipt(Some(delivery), used);
        let noticed = self.noticed(&delivery.worker);
        if noticed.has_limits() {
            receipt.remarks = verdict::remarks(&self.scope(), &noticed, None);
        }
        self.report(delivery, &receipt, None);
        let log = match delivery.mark.filter(|_| self.want_log) {
            Some(mark) => log_tail(delivery, mark),
            None => Words::default(),
        };
        Answer { payload, receipt, log }
    }

    /// Ends the call's part of its worker's log, where its function has lines for that.
    fn report(&self, delivery: &Delivery, receipt: &Receipt, status: Option<(&str, &str)>) {
        let time = |wire: Option<prost_types::Duration>| Duration::try_from(wire?).ok();
        delivery.worker.log.report(&Report {
            request: &receipt.lease,
            running: time(receipt.running).unwrap_or_default(),
            memory_max: self.entry.settings.memory_max.bytes(),
            memory_peak: receipt.memory_peak_bytes,
            starting: time(receipt.starting),
            status,
        });
    }

    /// Puts a call that was accepted into the books of its worker, sub-tenant and tenant.
    pub(super) fn count(&self, result: &Held, delivery: Option<&Delivery>) {
        let how = match result {
            Ok(_) => CallEnd::Answered,
            // It goes on with the next revision.
            Err(Failure::Rejected(Rejection::Refused(Refusal::UnknownFunction, _))) => return,
            Err(Failure::Rejected(_)) => CallEnd::Refused,
            Err(Failure::Verdict { .. } | Failure::Ours { .. } | Failure::Cancelled) => CallEnd::Failed,
        };
        match delivery {
            Some(delivery) => {
                delivery.worker.meter().count(how, delivery.at - self.accepted, delivery.at.elapsed());
            }
            None => {
                for sums in self.driver.services.ledger.of(&self.entry.tenant, Some(&self.key.sub_tenant)) {
                    sums.call(how, self.accepted.elapsed(), Duration::ZERO);
                }
            }
        }
    }

    pub(super) fn scope(&self) -> Scope {
        Scope::new(&self.driver.catalogue(), &self.entry, &self.key.sub_tenant)
    }

    /// A deadline that passed while the worker had the call: was it held back?
    pub(super) fn failed_in_time(&self, of_deadline: Verdict, delivery: &Delivery) -> Held {
        let worker = &delivery.worker;
        let used = worker.meter().end(worker.reading());
        let quota = |level: Level| worker.group()?.cpu_millis(level);
        let above = self.throttled(delivery);
        let own = (Level::Worker, used.throttled);
        let most = above.into_iter().chain([own]).max_by_key(|(_, throttled)| *throttled);
        let held = most.map(|(level, throttled)| HeldBack {
            level,
            throttled,
            running: delivery.at.elapsed(),
            limit_millis: quota(level),
        });
        // Where nobody has killed it yet.
        worker.note_frozen();
        let meddled = worker.meddled_since(delivery.at);
        let verdict = verdict::or_frozen(verdict::or_cpu(&self.scope(), of_deadline, held), meddled.is_some());
        let failed = self.failed_with(verdict, Some(delivery), used, &self.noticed(worker), None);
        match meddled {
            Some(what) => with_detail(failed, what),
            None => failed,
        }
    }

    /// What the quotas of the levels above held back since the delivery.
    fn throttled(&self, delivery: &Delivery) -> Vec<(Level, Duration)> {
        let now = delivery.worker.throttled_above();
        let pairs = now.into_iter().zip(&delivery.throttled_above);
        pairs.map(|((level, now), (_, before))| (level, now.saturating_sub(*before))).collect()
    }

    /// What the counters of a worker that is there say of its current call. Costs two reads of open files.
    pub(super) fn noticed(&self, worker: &Worker) -> Noticed {
        let Bites { oom_kills, pids_refused } = worker.bites_in_call();
        let group = worker.group();
        Noticed {
            memory: group.filter(|_| oom_kills > 0).map(|group| group.memory_bite()),
            forks: group.filter(|_| pids_refused > 0).map(|group| group.pids_bite()),
            ..Noticed::default()
        }
    }

    /// Adds to a verdict what every verdict carries.
    pub(super) fn failed(&self, verdict: Verdict, delivery: Option<&Delivery>) -> Held {
        let noticed = delivery.map(|delivery| self.noticed(&delivery.worker)).unwrap_or_default();
        let used = delivery.map(|delivery| delivery.worker.meter().end(delivery.worker.reading()));
        self.failed_with(verdict, delivery, used.unwrap_or_default(), &noticed, None)
    }

    /// The same, of a call of which more was noticed than counters say.
    pub(super) fn failed_after(&self, verdict: Verdict, delivery: &Delivery, noticed: &Noticed) -> Held {
        let used = delivery.worker.meter().end(delivery.worker.reading());
        self.failed_with(verdict, Some(delivery), used, noticed, None)
    }

    fn failed_with(
        &self,
        verdict: Verdict,
        delivery: Option<&Delivery>,
        used: Reading,
        noticed: &Noticed,
        post: Option<&PostMortem>,
    ) -> Held {
        let worker = delivery.map(|delivery| &delivery.worker);
        let mut receipt = self.receipt(delivery, used);
        if let Some(post) = post {
            receipt.memory_peak_bytes = post.memory_peak_bytes;
            receipt.exit = post.exit();
        }
        if noticed.has_limits() {
            receipt.remarks = verdict::remarks(&self.scope(), noticed, Some(verdict.kind()));
        }
        if let Some(delivery) = delivery {
            let kind = verdict.kind();
            let status = if kind == VerdictKind::Deadline { "timeout" } else { "error" };
            self.report(delivery, &receipt, Some((status, reason::of_verdict(kind))));
        }
        let (log, log_reaches_back) = match delivery {
            // It has died of itself, and what it wrote last may be from before the call.
            Some(Delivery { mark: Some(mark), worker, .. }) if post.is_some() => worker.log.since_or_before(*mark),
            Some(delivery @ Delivery { mark: Some(mark), .. }) => (log_tail(delivery, *mark), false),
            _ => (Words { bytes: verdict.log_tail, platform_lines: verdict.platform_lines }, false),
        };
        let Words { bytes: log_tail, platform_lines } = log.last(LOG_TAIL_MAX_BYTES);
        let refused_syscalls = match worker {
            Some(worker) => worker.refused_calls(),
            None => verdict.refused_syscalls,
        };
        let (receipt, error_id) = (Some(receipt), self.error_id());
        let verdict =
            Verdict { receipt, log_tail, platform_lines, log_reaches_back, refused_syscalls, error_id, ..verdict };
        Err(Failure::Verdict { verdict: Box::new(verdict), detail: String::new() })
    }

    pub(super) async fn settled(
        &self,
        end: End,
        worker: Option<Arc<Worker>>,
        delivery: Option<&Delivery>,
        held: Option<Held>,
    ) -> Held {
        match end {
            End::Answered { .. } => held.unwrap_or_else(|| Err(self.ours("the call was answered without an answer"))),
            End::Deadline { at, .. } => self.deadline_passed(at, delivery),
            End::Cancelled { .. } => {
                if let Some(delivery) = delivery {
                    self.report(delivery, &self.receipt(Some(delivery), Reading::default()), Some(("cancelled", "")));
                }
                Err(Failure::Cancelled)
            }
            // The last one that had it may be gone from the books: its key has backed off since.
            End::WorkerDied { .. } => match (held, worker.or_else(|| delivery.map(|delivery| delivery.worker.clone())))
            {
                // It ended after it had answered, or said why it does not, in full and in time.
                (Some(held), _) => held,
                (None, Some(worker)) => self.died(&worker, delivery).await,
                (None, None) => Err(self.ours("the worker is gone and nothing is known of it")),
            },
            End::StartFailed { .. } => match worker.as_deref().map(Worker::start_failure) {
                Some(StartFailure::Theirs { message, detail, setting, said }) => {
                    let verdict = verdict::start(&self.entry, &message, setting);
                    let verdict = Verdict { function_error: said, ..verdict };
                    let log_tail = worker.as_ref().map(|worker| worker.log.all().bytes).unwrap_or_default();
                    let refused_syscalls = worker.as_ref().map(|worker| worker.refused_calls()).unwrap_or_default();
                    with_detail(self.failed(Verdict { log_tail, refused_syscalls, ..verdict }, None), detail)
                }
                Some(StartFailure::Token(error)) => {
                    with_detail(self.failed(verdict::token(&self.entry, &error), None), error.what)
                }
                Some(StartFailure::Ours(message)) => Err(self.ours(format!("make a worker: {message}"))),
                None => Err(self.ours("the worker is gone and nothing is known of it")),
            },
            End::Refused(Refusal::DeadlinePast) => Err(Failure::Rejected(Rejection::DeadlinePast)),
            End::Refused(refusal) => {
                let limit = self.scope().of_refusal(&refusal).map(Box::new);
                Err(Failure::Rejected(Rejection::Refused(refusal, limit)))
            }
            End::Evicted { .. } => match worker.as_ref().and_then(|worker| worker.lost()) {
                Some(what) => Err(self.ours(format!("the worker had to be ended: {what}"))),
                None => self.failed(verdict::evicted(), delivery),
            },
        }
    }

    fn deadline_passed(&self, at: Stage, delivery: Option<&Delivery>) -> Held {
        let verdict = verdict::deadline(&self.entry, self.limit, self.is_callers_limit, self.accepted.elapsed());
        let message = match at {
            Stage::Queued => format!("{}; it was waiting for a worker", verdict.message),
            Stage::Starting => format!("{}; its worker was being made", verdict.message),
            Stage::Leased => verdict.message.clone(),
        };
        match delivery {
            Some(delivery) => self.failed_in_time(Verdict { message, ..verdict }, delivery),
            None => self.failed(Verdict { message, ..verdict }, None),
        }
    }

    pub(super) async fn died(&self, worker: &Worker, delivery: Option<&Delivery>) -> Held {
        // Asked before its group is gone: the level of a limit is found by what is in use.
        let alive = self.noticed(worker);
        let post = tokio::select! {
            post = worker.post_mortem() => post,
            () = sleep(POST_MORTEM_PATIENCE) => None,
        };
        let Some(post) = post else {
            return Err(self.ours("the worker died and cannot be examined"));
        };
        // Nobody has looked at its /tmp when the call came. That of its first call was empty, but for what its start left.
        let was_full = delivery.is_some_and(|delivery| delivery.calls == 1).then_some(false);
        let noticed = Noticed {
            refused: worker.refused_calls(),
            memory: alive.memory.or(post.memory_bite),
            forks: alive.forks.or(post.pids_bite),
            tmp: post.function.and_then(|end| end.tmp).map(|space| Tmp { space, was_full }),
            is_out_of_descriptors: false,
        };
        let verdict = verdict::of_death(&self.scope(), &post, &noticed);
        let used = delivery.map(|delivery| delivery.worker.meter().end(delivery.worker.reading()));
        self.failed_with(verdict, delivery, used.unwrap_or_default(), &noticed, Some(&post))
    }

    fn receipt(&self, delivery: Option<&Delivery>, used: Reading) -> Receipt {
        let now = Instant::now();
        let wire = |duration: Duration| prost_types::Duration::try_from(duration).ok();
        let Some(delivery) = delivery else {
            return Receipt { queued: wire(now - self.accepted), ..Receipt::default() };
        };
        let worker = &delivery.worker;
        let start = match delivery.start {
            Start::Cold => v1::Start::Cold,
            Start::Cell => v1::Start::Cell,
            Start::Warm => v1::Start::Warm,
        };
        // Several processors can be held back at one time; the call has lost no more than it ran.
        let running = now - delivery.at;
        let throttled = self.throttled(delivery).iter().fold(used.throttled, |sum, (_, held)| sum + *held).min(running);
        let is_counted = worker.group().is_some_and(|group| group.accounts_cpu());
        Receipt {
            worker: worker.name(),
            lease: hex(&delivery.lease),
            start: start.into(),
            queued: wire(delivery.at - self.accepted),
            starting: worker.starting().filter(|_| start != v1::Start::Warm).and_then(wire),
            running: wire(running),
            cpu: wire(used.cpu).filter(|_| is_counted),
            throttled: wire(throttled).filter(|_| is_counted),
            frozen: wire(delivery.frozen),
            io_read_bytes: used.io_read,
            io_written_bytes: used.io_written,
            exit: String::new(),
            memory_peak_bytes: worker.group().map_or(0, |group| group.memory_peak_bytes()),
            calls: delivery.calls,
            supervisor_time: wire(delivery.read.0),
            answer_read_bytes: delivery.read.1,
            remarks: Vec::new(),
        }
    }
}
