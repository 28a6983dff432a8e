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

use std::{
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use sublet_pool::{Event, KillReason, WorkerId};
use sublet_proto::{
    level::Level,
    link::{
        frame::{HOST_SHORTAGE, Header, Kind},
        group::GroupPath,
        sandbox::{Layer, OnRefused, Protocol},
    },
};
use tokio::{sync::watch, time::sleep};

use super::{
    CallChannel, FunctionEnd, Owner, PostMortem, Stage, StartFailure, Worker,
    busy_poll::BusyPoll,
    channel::{Channel, ChannelError},
    exchange,
    groups::Groups,
    posture::{self, Expected},
    share::{Share, Shares},
    slots::Slots,
    token::TokenError,
};
use crate::{
    catalogue::labels::Labels,
    cgroups::{CgroupError, leaf::Leaf},
    events::troubles::{About, Troubles},
    logs::Logs,
    nursery::{self, InitEnd, Nursery, NurseryError, Sandbox},
    quota::Quotas,
    token::Providers,
    usage::Ledger,
};

/// A worker that cannot be removed for so long is reported, and again each time it passes.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a closed channel may be ahead of init's report on how the function ended.
const REPORT_PATIENCE: Duration = Duration::from_millis(200);
/// What has not ended by then is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(500);
/// Longest message a launcher may send instead of READY, in bytes: a runtime's own words, stack and all.
const START_ERROR_MAX_BYTES: u32 = exchange::ERROR_MAX_BYTES;

/// What the driver and all keepers share.
#[derive(Debug)]
pub struct Services {
    /// Makes sandboxes.
    pub nursery: Nursery,
    /// Makes groups, with the limits they are to have.
    pub quotas: Arc<Quotas>,
    /// Host ids.
    pub slots: Slots,
    /// What everybody used.
    pub ledger: Ledger,
    /// What functions write.
    pub logs: Arc<Logs>,
    /// Which group is whose.
    pub groups: Groups,
    /// Names and tags.
    pub labels: Labels,
    /// Whom tokens are asked of.
    pub providers: Providers,
    /// How workers share the supervisor's time.
    pub shares: Arc<Shares>,
    /// Whether, and by whom, answers are polled for.
    pub busy_poll: Arc<BusyPoll>,
    /// First host uid of workers.
    pub uid_base: u32,
    /// v1 controllers that carry limits.
    pub v1_controllers: Vec<&'static str>,
    /// Layers this host lacks and the operator accepted to miss.
    pub missing_layers: Vec<Layer>,
    /// Whether functions run without speculative store bypass.
    pub forbid_store_bypass: bool,
    /// Filters the supervisor was started under.
    pub inherited_filters: u32,
    /// Whether launchers pass on the frames of `stream` functions.
    pub relays_streams: bool,
    /// What is wrong now.
    pub troubles: Arc<Troubles>,
}

/// Keeps one worker until nothing of it is left.
pub async fn keep(services: Arc<Services>, worker: Arc<Worker>, tell: impl Fn(Event)) {
    let id = worker.id;
    let Some(slot) = services.slots.take() else {
        fail(&services, &worker, StartFailure::Ours("no host id is free".into()), &tell);
        worker.end.send_replace(Some(Arc::default()));
        return tell(Event::Reaped { worker: id });
    };
    let mut reaped = None;
    match birth(&services, &worker, slot).await {
        Err(failure) => {
            fail(&services, &worker, failure, &tell);
        }
        Ok(Sandbox { pid, channel, control, log, reaped: sandbox_reaped }) => {
            worker.pid.get_or_init(|| pid.unsigned_abs());
            reaped = Some(sandbox_reaped);
            let logged = worker.clone();
            tokio::spawn(async move {
                if let Err(error) = logged.log.run(log).await {
                    let (tenant, function) = (&logged.entry.tenant, &logged.entry.name);
                    tracing::warn!(worker = logged.name(), %tenant, %function, %error, "its log cannot be read any further");
                }
            });
            live(&services, &worker, slot, channel, control, &tell).await;
        }
    }
    remove(&services, &worker, slot, reaped).await;
    tell(Event::Reaped { worker: id });
}

/// Notes why the start failed, if nothing has said why before, and tells whose fault it is.
fn fail(services: &Services, worker: &Worker, failure: StartFailure, tell: &impl Fn(Event)) {
    let failure = worker.seen().start_failure.get_or_insert(failure).clone();
    if let StartFailure::Ours(what) = &failure {
        let trouble = format!("a worker could not be made, and no function is to blame: {what}");
        services.troubles.set(About::Starts, vec![trouble]);
    }
    tell(Event::StartFailed { worker: worker.id, blame: failure.blame() });
}

fn ours(error: impl std::fmt::Display) -> StartFailure {
    StartFailure::Ours(error.to_string())
}

/// Group and sandbox. Runs to its end whatever happens meanwhile: half a birth cannot be removed safely.
async fn birth(services: &Arc<Services>, worker: &Arc<Worker>, slot: u32) -> Result<Sandbox, StartFailure> {
    let (own, of) = (services.clone(), worker.clone());
    let made = tokio::task::spawn_blocking(move || {
        let group = match of.owner() {
            Some(owner) => owner.group.clone(),
            None => of.cell_group(),
        };
        own.quotas.make(&of.name(), &of.entry.owner(of.owner().map(|owner| &owner.sub_tenant)), &group)
    });
    let leaf = made.await.map_err(ours)?.map_err(ours)?;
    let mut spec = worker.entry.sandbox(slot, leaf.name().to_string(), &services.missing_layers);
    if let Some(group) = services.quotas.tree().group(leaf.name()) {
        spec.shown = worker.shown.begin(group.live().clone());
    }
    if !worker.enter(leaf, services.quotas.tree()) {
        return Err(ours("a worker was made twice"));
    }
    worker.seen().start_stage = Stage::Sandbox;
    services.nursery.spawn(worker.id.0, spec).await.map_err(|error| match error {
        NurseryError::Refused(what) => ours(format!("no sandbox was made: {what}")),
        other => ours(other),
    })
}

/// From birth until it is to be removed.
async fn live(
    services: &Services,
    worker: &Worker,
    slot: u32,
    channel: OwnedFd,
    control: OwnedFd,
    tell: &impl Fn(Event),
) {
    let id = worker.id;
    let mut kill = worker.kill.subscribe();
    worker.reports.open(control);
    let mut ended = std::pin::pin!(hear(worker));
    let confined = tokio::select! {
        _ = killed(&mut kill) => return,
        confined = confine(services, worker, slot, channel) => confined,
    };
    let mut channel = match confined {
        Ok(channel) => channel,
        Err(error) => return start_failed(services, worker, error, &mut ended, tell).await,
    };
    tell(Event::Made { worker: id });
    let owner = tokio::select! {
        _ = killed(&mut kill) => return,
        // A cell that ends before anybody wants it.
        () = &mut ended => return tell(Event::Died { worker: id }),
        owner = worker.owned() => owner,
    };
    let started = tokio::select! {
        _ = killed(&mut kill) => return,
        started = start(services, worker, owner, &mut channel) => started,
    };
    match started {
        Ok(()) => {
            worker.put_call_channel(CallChannel::new(channel, &services.busy_poll));
            worker.starting.get_or_init(|| owner.since.elapsed());
            // What its start took is nobody's call.
            worker.meter().ready(worker.reading());
            services.troubles.set(About::Starts, Vec::new());
            tell(Event::Started { worker: id });
        }
        Err(error) => return start_failed(services, worker, error, &mut ended, tell).await,
    }
    tokio::select! {
        _ = killed(&mut kill) => return,
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
    let failure = match error {
        StartError::Channel(ChannelError::Closed)
            if services.nursery.is_going(nursery::DYING_PATIENCE_OF_STARTS).await =>
        {
            ours("the nursery has ended, and every sandbox with it")
        }
        error => start_failure(services, worker, error),
    };
    fail(services, worker, failure, tell);
}

async fn killed(kill: &mut watch::Receiver<Option<KillReason>>) {
    // The sender is in the worker, which the keeper holds.
    drop(kill.wait_for(Option::is_some).await);
}

/// Takes init's reports in until it ends.
async fn hear(worker: &Worker) {
    let heard = worker.reports.run(|report| worker.note(report)).await;
    if heard.is_ok() {
        worker.has_ended_by_itself.store(true, Ordering::SeqCst);
    }
    if let Err(error) = heard {
        // Init is ours, but what it says has passed through a process the function might have taken over.
        let (tenant, function) = (&worker.entry.tenant, &worker.entry.name);
        tracing::warn!(worker = worker.name(), %tenant, %function, %error, "init's report cannot be read");
    }
}

/// Why the start ended early.
#[derive(Debug)]
enum StartError {
    Posture(Vec<String>),
    /// The owner's limits cannot be set.
    Limits(CgroupError),
    Nursery(NurseryError),
    Token(TokenError),
    /// What the launcher says it could not do, or the runtime it serves.
    Launcher(Bytes),
    /// The launcher was refused a process, a descriptor or memory.
    Shortage(Bytes),
    Channel(ChannelError),
}

impl From<ChannelError> for StartError {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

/// Until it is CONFINED and found to be so.
async fn confine(services: &Services, worker: &Worker, slot: u32, channel: OwnedFd) -> Result<Channel, StartError> {
    let share = Share::new(services.shares.clone(), worker.id.0, Instant::now());
    let mut channel = Channel::new(channel, share).map_err(ChannelError::from)?;
    worker.seen().start_stage = Stage::Confining;
    expect(&mut channel, Kind::Confined, worker.entry.settings.runtime.protocol()).await?;
    worker.seen().start_stage = Stage::Checking;
    let posture = services.nursery.inspect(worker.id.0).await.map_err(StartError::Nursery)?;
    let cgroup = worker.leaf().map_or("", |leaf| leaf.name().as_str());
    let spec = worker.entry.sandbox(slot, cgroup.to_owned(), &services.missing_layers);
    let expected = Expected {
        init_uid: services.uid_base + 2 * slot,
        cgroup,
        v1_controllers: &services.v1_controllers,
        root: &spec.root,
        token: worker.token.is_some(),
        limits: &spec.limits,
        missing_layers: &services.missing_layers,
        forbid_store_bypass: services.forbid_store_bypass,
        inherited_filters: services.inherited_filters,
    };
    let facts = posture::judge(&posture, &expected);
    let wrong = posture::wrong(&facts);
    worker.posture.get_or_init(|| facts);
    worker.recheck.get_or_init(|| posture::Recheck::new(&posture, &expected));
    if !wrong.is_empty() {
        return Err(StartError::Posture(wrong));
    }
    worker.seen().start_stage = Stage::Waiting;
    Ok(channel)
}

/// From its owner to READY.
async fn start(services: &Services, worker: &Worker, owner: &Owner, channel: &mut Channel) -> Result<(), StartError> {
    if worker.was_cell {
        adopt(worker, owner).map_err(StartError::Posture)?;
        let leaf = worker.leaf().map_or(GroupPath::pool(), |leaf| leaf.name());
        services.quotas.adopt(leaf, &owner.sub_tenant).await.map_err(StartError::Limits)?;
        if let Some(number) = worker.tell_limits() {
            worker.shown.wait(number).await;
        }
    }
    if let Some(token) = &worker.token {
        worker.seen().start_stage = Stage::Token;
        token.first(worker, &services.providers).await.map_err(StartError::Token)?;
    }
    worker.seen().start_stage = Stage::Loading;
    let shown = worker.shown.limits().unwrap_or_else(|| worker.entry.shown_limits());
    let environment =
        worker.entry.environment(owner.sub_tenant.as_str(), &worker.name(), &shown, !services.v1_controllers.is_empty());
    channel.send(Header { label: owner.tag, ..Header::bare(Kind::Start) }, &environment).await?;
    expect(channel, Kind::Ready, worker.entry.settings.runtime.protocol()).await
}

/// A cell has got its owner: its group has become the owner's, and what could have changed while it waited is looked at
/// again, before anything of the owner's is handed over.
fn adopt(worker: &Worker, owner: &Owner) -> Result<(), Vec<String>> {
    if owner.group != worker.cell_group() {
        return Err(vec![format!("its owner's group is {}, and this cell has another", owner.group)]);
    }
    let members = worker.leaf().map(|leaf| leaf.members()).unwrap_or_default();
    let wrong = worker.recheck.get().map(|recheck| recheck.look(&members)).unwrap_or_default();
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

fn start_failure(services: &Services, worker: &Worker, error: StartError) -> StartFailure {
    let theirs = StartFailure::theirs;
    match error {
        StartError::Posture(wrong) => {
            ours(format!("the sandbox is not as planned, seen from outside: {}", wrong.join("; ")))
        }
        StartError::Limits(error) => ours(format!("its owner's limits cannot be set: {error}")),
        StartError::Nursery(error) => ours(error),
        StartError::Token(TokenError::Provider(error)) => StartFailure::Token(error),
        StartError::Token(TokenError::Ours(error)) => ours(error),
        StartError::Launcher(said) => said_so(said),
        StartError::Shortage(said) => {
            let is_limit = limit_that_bit(services, worker).is_some_and(|level| level != Level::Above);
            if is_limit { said_so(said) } else { ours(String::from_utf8_lossy(&said)) }
        }
        StartError::Channel(ChannelError::Os(error)) => ours(error),
        StartError::Channel(ChannelError::Violation(what)) => {
            theirs("command", format!("it broke the frame protocol before READY: {what}"))
        }
        StartError::Channel(ChannelError::TooLarge { seen, .. }) => {
            theirs("command", format!("it broke the frame protocol before READY: a frame of {seen} bytes"))
        }
        StartError::Channel(ChannelError::Closed) => closed_early(services, worker),
    }
}

/// The launcher's words are plain; a runtime's are JSON, and go to the caller as they are.
fn said_so(said: Bytes) -> StartFailure {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RuntimeError {
        error_type: String,
        #[serde(default)]
        error_message: String,
    }
    match serde_json::from_slice(&said) {
        Ok(RuntimeError { error_type, error_message }) => {
            let message = format!("{error_type}: {error_message}");
            StartFailure::Theirs { message, detail: String::new(), setting: "handler", said }
        }
        Err(_) => StartFailure::theirs("command", String::from_utf8_lossy(&said).into_owned()),
    }
}

/// The level of the limit that has ended a process of it or refused it one, when one has.
fn limit_that_bit(services: &Services, worker: &Worker) -> Option<Level> {
    let leaf = worker.leaf()?;
    let (bites, tree) = (leaf.bites(), services.quotas.tree());
    let memory = (bites.oom_kills > 0).then(|| tree.memory_bite(leaf.name()).level);
    memory.or_else(|| (bites.pids_refused > 0).then(|| tree.pids_bite(leaf.name()).level))
}

/// It ended, or let go of its channel, before it was ready.
fn closed_early(services: &Services, worker: &Worker) -> StartFailure {
    let bites = worker.leaf().map(|leaf| leaf.bites()).unwrap_or_default();
    if bites.oom_kills > 0 && limit_that_bit(services, worker) == Some(Level::Above) {
        return ours("it was ended for memory by a limit above sublet's own groups, or by the host itself");
    }
    let theirs = StartFailure::theirs;
    let refused = worker.refused_calls();
    if bites.oom_kills > 0 {
        return theirs("memory_max", "its memory limit ended it before it was ready".into());
    }
    if worker.entry.settings.on_refused_syscall == OnRefused::Kill
        && let Some(name) = refused.last()
    {
        return theirs("on_refused_syscall", format!("it was ended for the system call {name} before it was ready"));
    }
    match worker.function_end() {
        Some(FunctionEnd { code: Some(code), .. }) => {
            theirs("command", format!("it exited with status {code} before it was ready"))
        }
        Some(FunctionEnd { signal: Some(signal), .. }) => {
            let signal = super::signal_name(signal);
            theirs("command", format!("it was ended by {signal} before it was ready"))
        }
        Some(FunctionEnd { code: None, signal: None, .. }) | None => {
            theirs("command", "it closed its channel before it was ready".into())
        }
    }
}

fn kill(worker: &Worker, leaf: &Leaf) {
    if let Err(error) = leaf.kill() {
        tracing::error!(worker = worker.name(), %error, "its group cannot be killed; tried again");
    }
}

/// Ends whatever is left of it and removes its group. Does not give up: a worker that is not gone stays on the books.
async fn remove(
    services: &Arc<Services>,
    worker: &Arc<Worker>,
    slot: u32,
    reaped: Option<watch::Receiver<Option<InitEnd>>>,
) {
    drop(worker.take_call_channel());
    let mut init_signal = None;
    if let Some(leaf) = worker.leaf() {
        kill(worker, leaf);
        // After the group, so that nobody of it goes on without init. One that was moved out of its group ends by this.
        worker.close_reports();
        if let Some(mut reaped) = reaped {
            let end = patiently(worker.id, "init to end", async {
                loop {
                    // Killing needs a descriptor for a moment, and there may have been none.
                    tokio::select! {
                        end = reaped.wait_for(Option::is_some) => return end.ok().and_then(|end| *end),
                        () = sleep(KILL_AGAIN) => kill(worker, leaf),
                    }
                }
            });
            // A nursery that is gone has ended every sandbox, or its cgroup's emptiness will tell.
            init_signal = end.await.and_then(|end| end.signal);
        }
        patiently(worker.id, "its group to become empty", async {
            let (mut pause, mut since) = (Duration::from_micros(100), Instant::now());
            while leaf.is_populated() {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(10));
                if since.elapsed() >= KILL_AGAIN {
                    kill(worker, leaf);
                    since = Instant::now();
                }
            }
        })
        .await;
        worker.meter().close(leaf.reading(), worker.owner().is_some());
        let (bites, tree) = (worker.bites_in_call(), services.quotas.tree());
        worker.end.send_replace(Some(Arc::new(PostMortem {
            memory_bite: (bites.oom_kills > 0).then(|| tree.memory_bite(leaf.name())),
            pids_bite: (bites.pids_refused > 0).then(|| tree.pids_bite(leaf.name())),
            memory_peak_bytes: leaf.memory_peak_bytes(),
            was_killed_from_outside: worker.has_ended_by_itself.load(Ordering::SeqCst)
                && init_signal == Some(nix::sys::signal::Signal::SIGKILL as i32),
            function: worker.function_end(),
            init_signal,
        })));
        patiently(worker.id, "its group to be removed", async {
            loop {
                let (own, name) = (services.clone(), leaf.name().to_owned());
                let removed = tokio::task::spawn_blocking(move || {
                    let (gone, levels) = own.quotas.tree().remove_leaf(&name);
                    for level in levels {
                        own.ledger.gone(&level.owner, level.cpu);
                    }
                    gone
                });
                // One that panicked has not removed it.
                if removed.await.unwrap_or(false) {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        })
        .await;
    } else {
        worker.end.send_replace(Some(Arc::default()));
    }
    services.slots.give_back(slot);
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
