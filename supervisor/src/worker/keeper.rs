//! The keeper: one task per worker, from the first directory of its cgroup to the last.
//!
//! ```text
//!  group -> sandbox -> CONFINED -> looked at from outside -> (Made) owned -> START -> READY   (Started)
//!    |         |           |                |                  |   a cell waits here    |          |
//!    +---------+-----------+----------------+--- failed -------+------------------------+    kill, or it ended (Died)
//!                                             (StartFailed)                                        |
//!  kill the group -> wait until nothing runs in it -> read its counters -> remove it -> give its ids back    Reaped
//! ```
//! Whatever happens, it walks down the last line before it says `Reaped`; nothing else removes a worker.

use std::{convert::Infallible, sync::Arc, time::Duration};

use sublet_pool::Event;
use sublet_proto::link::{
    frame::{HOST_SHORTAGE, Header, Kind},
    sandbox::Protocol,
};
use tokio::time::Instant;

use super::{
    CallChannel, Owner, PostMortem, Services, StartFailure, Worker,
    channel::{Channel, ChannelError},
    exchange, farewell,
    host::{self, Place, Sandbox},
    posture,
    removal::remove,
    share::Share,
    start::Stage,
    start_error::StartError,
    wire::Wire,
};
use crate::{
    events::troubles::About,
    nursery::{self, NurseryError},
};

/// How long a closed channel may be ahead of init's report on how the function ended.
const REPORT_PATIENCE: Duration = Duration::from_millis(200);
/// Longest message a launcher may send instead of READY, in bytes: a runtime's own words, stack and all.
const START_ERROR_MAX_BYTES: u32 = exchange::ERROR_MAX_BYTES;

/// Keeps one worker until nothing of it is left.
pub async fn keep(services: Arc<Services>, worker: Arc<Worker>, tell: impl Fn(Event)) {
    let id = worker.id;
    let Some(slot) = services.slots.take() else {
        fail(&services, &worker, StartFailure::ours("no host id is free"), &tell);
        worker.ending.found(PostMortem::default());
        return tell(Event::Reaped { worker: id });
    };
    let mut reaped = None;
    match birth(&services, &worker, slot).await {
        Err(failure) => {
            fail(&services, &worker, failure, &tell);
        }
        Ok(Sandbox { pid, wire, control, log, reaped: sandbox_reaped }) => {
            worker.start.born(pid);
            reaped = Some(sandbox_reaped);
            let logged = worker.clone();
            tokio::spawn(async move {
                if let Err(error) = logged.log.run(log).await {
                    let (tenant, function) = (&logged.entry.tenant, &logged.entry.name);
                    tracing::warn!(worker = logged.name(), %tenant, %function, %error, "its log cannot be read any further");
                }
            });
            worker.reports.open(control);
            live(&services, &worker, slot, wire, &tell).await;
        }
    }
    remove(&services, &worker, reaped).await;
    services.slots.give_back(slot);
    tell(Event::Reaped { worker: id });
}

/// Notes why the start failed, if nothing has said why before, and tells whose fault it is.
fn fail(services: &Services, worker: &Worker, failure: StartFailure, tell: &impl Fn(Event)) {
    let failure = worker.start.fail(failure);
    if let StartFailure::Ours(what) = &failure {
        let trouble = format!("a worker could not be made, and no function is to blame: {what}");
        services.troubles.set(About::Starts, vec![trouble]);
    }
    tell(Event::StartFailed { worker: worker.id, blame: failure.blame() });
}

/// Where its sandbox is.
fn place(worker: &Worker, slot: u32) -> Place<'_> {
    let cgroup = worker.group().map_or("", |group| group.name().as_str());
    Place { worker: worker.id, entry: &worker.entry, slot, cgroup }
}

/// Group and sandbox. Runs to its end whatever happens meanwhile: half a birth cannot be removed safely.
async fn birth(services: &Arc<Services>, worker: &Arc<Worker>, slot: u32) -> Result<Sandbox, StartFailure> {
    let ours = StartFailure::ours::<String>;
    let (host, of) = (services.host.clone(), worker.clone());
    let made = tokio::task::spawn_blocking(move || {
        let group = match of.owner() {
            Some(owner) => owner.group.clone(),
            None => of.cell_group(),
        };
        host.make_group(&of.name(), &of.entry.owner(of.owner().map(|owner| &owner.sub_tenant)), &group)
    });
    let group = made.await.map_err(StartFailure::ours)?.map_err(StartFailure::ours)?;
    // One that is not on the list any more shows what its function is to have.
    let shown = group.live_limits().map(|live| worker.shown.begin(live));
    if !worker.group.enter(group) {
        return Err(ours("a worker was made twice".into()));
    }
    worker.start.reach(Stage::Sandbox);
    services.host.make_sandbox(place(worker, slot), shown).await.map_err(|error| match error {
        NurseryError::Refused(what) => ours(format!("no sandbox was made: {what}")),
        other => ours(other.to_string()),
    })
}

/// From birth until it is to be removed.
async fn live(services: &Services, worker: &Worker, slot: u32, wire: Box<dyn Wire>, tell: &impl Fn(Event)) {
    let id = worker.id;
    let killed = || worker.ending.killed();
    let mut ended = std::pin::pin!(hear(worker));
    let confined = tokio::select! {
        () = killed() => return,
        confined = while_hearing(worker, confine(services, worker, slot, wire)) => confined,
    };
    let mut channel = match confined {
        Ok(channel) => channel,
        Err(error) => return start_failed(services, worker, error, &mut ended, tell).await,
    };
    tell(Event::Made { worker: id });
    let owner = tokio::select! {
        () = killed() => return,
        // A cell that ends before anybody wants it.
        () = &mut ended => return tell(Event::Died { worker: id }),
        owner = worker.ownership.wait() => owner,
    };
    let started = tokio::select! {
        () = killed() => return,
        started = while_hearing(worker, start(services, worker, owner, &mut channel)) => started,
    };
    match started {
        Ok(()) => {
            worker.put_call_channel(CallChannel::new(channel, &services.busy_poll));
            worker.start.is_ready(owner.since.elapsed());
            // What its start took is nobody's call.
            worker.meter().ready(worker.reading());
            services.troubles.set(About::Starts, Vec::new());
            tell(Event::Started { worker: id });
        }
        Err(error) => return start_failed(services, worker, error, &mut ended, tell).await,
    }
    tokio::select! {
        () = killed() => return farewell::say(&*services.host, worker, ended).await,
        () = &mut ended => {}
        () = keep_token(services, worker) => {}
    }
    tell(Event::Died { worker: id });
}

/// Never returns.
async fn keep_token(services: &Services, worker: &Worker) {
    match &worker.token {
        Some(token) => token.keep(worker, &services.providers).await,
        None => std::future::pending().await,
    }
}

async fn start_failed(
    services: &Services,
    worker: &Worker,
    error: StartError,
    ended: impl Future<Output = ()>,
    tell: &impl Fn(Event),
) {
    // What init saw says more than what we did; the end of both is near, or it will never say anything.
    drop(tokio::time::timeout(REPORT_PATIENCE, ended).await);
    let is_closed = matches!(error, StartError::Channel(ChannelError::Closed));
    let failure = if is_closed && host::is_going(&*services.host, nursery::DYING_PATIENCE_OF_STARTS).await {
        StartFailure::ours("the nursery has ended, and every sandbox with it")
    } else {
        error.judge(worker)
    };
    fail(services, worker, failure, tell);
}

/// Takes init's reports in until it ends.
async fn hear(worker: &Worker) {
    match worker.reports.run(|report| worker.note(report)).await {
        Ok(()) => worker.ending.ended_by_itself(),
        Err(error) => {
            // Init is ours, but what it says has passed through a process the function might have taken over.
            let (tenant, function) = (&worker.entry.tenant, &worker.entry.name);
            tracing::warn!(worker = worker.name(), %tenant, %function, %error, "init's report cannot be read");
        }
    }
}

/// Does a step of the start and takes init's reports in meanwhile. Init waits for an answer to some of them, for example when
/// a refused call is to end the worker. The end of init alone does not end the step: its channel closes, which does.
async fn while_hearing<T>(worker: &Worker, step: impl Future<Output = T>) -> T {
    let hear = async {
        hear(worker).await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        done = step => done,
        never = hear => match never {},
    }
}

/// Until it is CONFINED and found to be so.
async fn confine(services: &Services, worker: &Worker, slot: u32, wire: Box<dyn Wire>) -> Result<Channel, StartError> {
    let share = Share::new(services.shares.clone(), worker.id.0, Instant::now());
    let mut channel = Channel::new(wire, share);
    worker.start.reach(Stage::Confining);
    expect(&mut channel, Kind::Confined, worker.entry.settings.runtime.protocol()).await?;
    worker.start.reach(Stage::Checking);
    let inspection = services.host.inspect(place(worker, slot)).await.map_err(StartError::Nursery)?;
    let wrong = posture::wrong(&worker.start.inspected(inspection).facts);
    if !wrong.is_empty() {
        return Err(StartError::Posture(wrong));
    }
    worker.start.reach(Stage::Waiting);
    Ok(channel)
}

/// From its owner to READY.
async fn start(services: &Services, worker: &Worker, owner: &Owner, channel: &mut Channel) -> Result<(), StartError> {
    if worker.was_cell {
        adopt(services, worker, owner).map_err(StartError::Posture)?;
        if let Some(group) = worker.group() {
            group.adopt(&owner.sub_tenant).await.map_err(StartError::Limits)?;
        }
        if let Some(number) = worker.tell_limits() {
            worker.shown.wait(number).await;
        }
    }
    if let Some(token) = &worker.token {
        worker.start.reach(Stage::Token);
        token.first(worker, &services.providers).await.map_err(StartError::Token)?;
    }
    worker.start.reach(Stage::Loading);
    let shown = worker.shown.limits().unwrap_or_else(|| worker.entry.shown_limits());
    let on_v1 = services.host.facts().v1_groups;
    let environment = worker.entry.environment(owner.sub_tenant.as_str(), &worker.name(), &shown, on_v1);
    channel.send(Header { label: owner.tag, ..Header::bare(Kind::Start) }, &environment).await?;
    expect(channel, Kind::Ready, worker.entry.settings.runtime.protocol()).await
}

/// A cell has got its owner: its group has become the owner's, and what could have changed while it waited is looked at
/// again, before anything of the owner's is handed over.
fn adopt(services: &Services, worker: &Worker, owner: &Owner) -> Result<(), Vec<String>> {
    if owner.group != worker.cell_group() {
        return Err(vec![format!("its owner's group is {}, and this cell has another", owner.group)]);
    }
    let members = worker.group().map(|group| group.members()).unwrap_or_default();
    let recheck = worker.start.recheck();
    let wrong = recheck.map(|recheck| services.host.inspect_again(recheck, &members)).unwrap_or_default();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

async fn expect(channel: &mut Channel, kind: Kind, protocol: Protocol) -> Result<(), StartError> {
    let (header, payload) = channel.receive(START_ERROR_MAX_BYTES).await?;
    match header.kind {
        // Believed where a launcher holds the channel; a `stream` function may have said it itself.
        Kind::Error if header.aux == HOST_SHORTAGE && protocol != Protocol::Stream => {
            Err(StartError::Shortage(payload))
        }
        Kind::Error => Err(StartError::Launcher(payload)),
        seen if seen == kind && payload.is_empty() => Ok(()),
        seen if seen == kind => {
            Err(ChannelError::Violation(format!("{kind:?} with a payload of {} bytes", payload.len())).into())
        }
        seen => Err(ChannelError::Violation(format!("expected {kind:?}, got {seen:?}")).into()),
    }
}
