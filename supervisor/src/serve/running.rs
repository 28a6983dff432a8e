//! A supervisor that has given up its rights: put together, until it is told to end, and back to nothing.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sublet_proto::v1::Fact;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{Listeners, Prepared, ServeError, os, places, state::State};
use crate::{
    catalogue::labels::Labels,
    config::Config,
    descriptors,
    doctor::Report,
    driver::Driver,
    events::{self, troubles::Troubles},
    front::{Bound, Front, FrontError, Listener, Renewed},
    jail,
    logs::{Logs, sink::Sink},
    nursery::Nursery,
    process::signals::Held,
    pulse::{self, Pulse, notify::Notify},
    quota::{Quotas, table::Table},
    reload::{Loaded, Reloader},
    runner::Runner,
    token::Providers,
    usage::Ledger,
    worker::{Services, groups::Groups, host::kernel::KernelHost, slots::Slots},
};

/// What accepted calls may still take after SIGTERM. A second signal ends the wait.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// How long calls may take to be told that the nursery is gone, and groups to be removed.
const NURSERY_GRACE: Duration = Duration::from_secs(1);
/// How long connections may take to close when all calls have ended.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Everything that runs, and by which it is told to end.
pub(super) struct Running {
    nursery: Nursery,
    runner: Option<Runner>,
    sink: Option<Sink>,
    driver: Arc<Driver>,
    reloader: Arc<Reloader>,
    notify: Option<Arc<Notify>>,
    signals: Signals,
    /// An operator has asked for the end.
    stopping: watch::Receiver<bool>,
    doors: Doors,
    /// Becomes true when every connection of callers has ended.
    callers_gone: watch::Receiver<bool>,
    /// Whether callers can wait where somebody else keeps the socket.
    callers_wait: bool,
    serving: JoinHandle<Result<(), FrontError>>,
    // Held until the end; the nursery has a copy.
    _state: State,
}

/// By which listeners are closed.
struct Doors {
    /// Those of operators.
    close: watch::Sender<bool>,
    /// Those of callers.
    close_callers: watch::Sender<bool>,
}

impl Doors {
    /// Closes every listener.
    fn close_all(&self) {
        self.close_callers.send_replace(true);
        self.close.send_replace(true);
    }
}

/// The signals that are listened to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens to them, and lets those come that were held back.
    fn listen(held: Held) -> Result<Self, ServeError> {
        let signals = Self {
            terminate: signal(SignalKind::terminate()).map_err(os("listen to SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(os("listen to SIGINT"))?,
            hang_up: signal(SignalKind::hangup()).map_err(os("listen to SIGHUP"))?,
        };
        held.release().map_err(os("listen to signals"))?;
        Ok(signals)
    }
}

impl Running {
    /// Puts it together. It takes calls when this returns.
    pub(super) fn begin(prepared: Prepared, path: &Path) -> Result<Self, ServeError> {
        let Prepared {
            source,
            config,
            looked,
            keys,
            report,
            tree,
            bound,
            started,
            runner,
            jail,
            missing_layers,
            v1_controllers,
            recorder,
            log_place,
            notify,
            held,
            _state,
        } = prepared;
        let nursery = Nursery::run(started)?;
        let runner = runner.map(Runner::run).transpose()?;
        let host = &config.host;
        let own_memory = tree.own_memory();
        let quotas = Arc::new(Quotas::new(Arc::new(tree)));
        let logs = Arc::new(Logs::new(usize::try_from(host.log_memory.bytes()).unwrap_or(usize::MAX)));
        let troubles: Arc<Troubles> = Arc::default();
        let sink = log_place.map(|place| Sink::start(place, logs.clone(), troubles.clone()));
        let sink = sink.transpose().map_err(os("write host.log"))?;
        // There is no group yet that could refuse it.
        quotas.change(Table::new(&config)).ok();
        let kernel = KernelHost {
            nursery: nursery.clone(),
            quotas: quotas.clone(),
            uid_base: host.uid_base,
            v1_controllers,
            missing_layers,
            forbid_store_bypass: host.forbid_store_bypass,
            inherited_filters: report.own_filters,
            relays_streams: report.relays_streams,
        };
        let services = Services {
            host: Arc::new(kernel),
            tree: quotas,
            slots: Slots::new(host.uid_count / 2),
            ledger: Ledger::default(),
            logs,
            groups: Groups::default(),
            labels: Labels::new().map_err(os("get random bytes"))?,
            providers: Providers::new(runner.clone()),
            shares: Arc::default(),
            busy_poll: Arc::default(),
            troubles: troubles.clone(),
        };
        let driver = Driver::new(&config, &keys, services, recorder);
        let degraded = degraded(&config, &report);
        let callers_wait = bound.callers_wait;
        let (bound, renew) = renewable(bound);
        tokio::spawn(places::watch(nursery.clone(), troubles, renew));
        let (stop, stopping) = watch::channel(false);
        let (close, closing) = watch::channel(false);
        let (close_callers, callers_closing) = watch::channel(false);
        let (tell_callers_gone, callers_gone) = watch::channel(false);
        // What would be in force is of no interest where what is can be told.
        let facts = report.checks.iter().filter(|check| check.name != jail::OUTLOOK).map(|check| Fact {
            name: check.name.to_owned(),
            value: check.value.clone(),
            ok: check.is_enforced(),
        });
        let facts: Vec<Fact> = facts.chain(jail.facts(own_memory)).collect();
        let connections_max = host.connections_max;
        let allowed = descriptors::allowed();
        let loaded = Loaded { source, looked, config };
        let reloader = Arc::new(Reloader::new(path.to_owned(), driver.clone(), report, loaded, allowed, jail));
        tokio::spawn(reloader.clone().expire());
        tokio::spawn(tell_counts(driver.clone()));
        let (pulse, notify) = (Arc::new(Pulse::default()), notify.map(Arc::new));
        pulse::watch(&pulse).map_err(os("start the thread that watches the loop"))?;
        tokio::spawn(pulse::beat(pulse.clone(), driver.clone(), notify.clone()));
        let front = Front {
            driver: driver.clone(),
            reloader: reloader.clone(),
            connections_max,
            host: facts,
            degraded,
            pulse,
            stop,
            callers_gone: tell_callers_gone,
        };
        let signals = Signals::listen(held)?;
        let serving = tokio::spawn(front.serve(bound, callers_closing, closing));
        Ok(Self {
            nursery,
            runner,
            sink,
            driver,
            reloader,
            notify,
            signals,
            stopping,
            doors: Doors { close, close_callers },
            callers_gone,
            callers_wait,
            serving,
            _state,
        })
    }

    /// Tells systemd that calls are taken.
    pub(super) fn tell_ready(&self) {
        if let Some(notify) = &self.notify {
            notify.ready();
        }
    }

    /// Returns when somebody wants the end.
    ///
    /// # Errors
    /// It cannot go on: nursery or front have ended.
    pub(super) async fn until_told_to_end(&mut self, while_stdin_is_open: bool) -> Result<(), ServeError> {
        let Signals { terminate, interrupt, hang_up } = &mut self.signals;
        loop {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
                _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
                _ = self.stopping.wait_for(|stop| *stop) => tracing::info!("asked to stop"),
                () = closed_stdin(while_stdin_is_open) => tracing::info!("standard input is closed: draining"),
                _ = hang_up.recv() => {
                    read_again(self.reloader.clone());
                    continue;
                }
                () = self.nursery.gone() => {
                    // Calls that have lost their workers are told so; nobody else is left to clean up what can be.
                    timeout(NURSERY_GRACE, self.driver.drain(NURSERY_GRACE)).await.ok();
                    self.doors.close_all();
                    drop(timeout(CLOSE_GRACE, &mut self.serving).await);
                    return Err(ServeError::NurseryEnded);
                }
                ended = &mut self.serving => return Err(early(ended)),
            }
            return Ok(());
        }
    }

    /// Lets nobody more in, and waits until all callers have left. Whoever comes now waits for the next supervisor. What still
    /// comes on connections that are open is taken: a caller that has not heard of the end yet is not refused either.
    async fn let_callers_go(&mut self, end: Instant) -> Result<(), ServeError> {
        self.doors.close_callers.send_replace(true);
        let Signals { terminate, interrupt, .. } = &mut self.signals;
        tokio::select! {
            _ = self.callers_gone.wait_for(|is_so| *is_so) => {}
            () = tokio::time::sleep_until(end.into()) => {}
            _ = terminate.recv() => self.driver.drain_at_once().await,
            _ = interrupt.recv() => self.driver.drain_at_once().await,
            () = self.nursery.gone() => return Err(ServeError::NurseryEnded),
            ended = &mut self.serving => return Err(early(ended)),
        }
        Ok(())
    }

    /// Lets calls end, ends all workers, and goes.
    ///
    /// # Errors
    /// What could not be ended or removed.
    pub(super) async fn end(mut self) -> Result<(), ServeError> {
        if let Some(notify) = &self.notify {
            notify.stopping();
        }
        let end = Instant::now() + STOP_GRACE;
        if self.callers_wait {
            self.let_callers_go(end).await?;
        }
        // From here on nobody takes calls again, so that a drain ends when nothing is left.
        self.driver.set_stopping();
        let Signals { terminate, interrupt, .. } = &mut self.signals;
        tokio::select! {
            _ = self.driver.drain(end.saturating_duration_since(Instant::now())) => {}
            // Workers may have more time to end by themselves than is left.
            () = tokio::time::sleep_until(end.into()) => self.driver.drain_at_once().await,
            _ = terminate.recv() => self.driver.drain_at_once().await,
            _ = interrupt.recv() => self.driver.drain_at_once().await,
            () = self.nursery.gone() => return Err(ServeError::NurseryEnded),
        }
        self.doors.close_all();
        // Idle connections of patient clients must not hold the end up.
        drop(timeout(CLOSE_GRACE, &mut self.serving).await);
        self.serving.abort();
        if let Some(runner) = self.runner {
            runner.stop();
        }
        let left = self.nursery.stop().await?;
        if let Some(sink) = self.sink {
            // It waits for a thread; nothing else runs any more that would have to.
            tokio::task::spawn_blocking(|| sink.finish()).await.ok();
        }
        if let Some(lost) = self.driver.finish_recording() {
            match lost {
                Ok(0) => {}
                Ok(calls) => tracing::warn!(calls, "the trace lacks calls: the disk was slower than they came"),
                Err(error) => return Err(os("write the trace")(error)),
            }
        }
        if left.is_empty() { Ok(()) } else { Err(ServeError::Left(left.join(", "))) }
    }
}

/// What is not enforced on this host, by name. It is told.
fn degraded(config: &Config, report: &Report) -> Vec<String> {
    // What this host has no form of is told where somebody accepted it, and so may have asked for it.
    let accepted = report.absent().filter(|degradation| config.host.accept_degraded.contains(degradation));
    let degraded: Vec<_> = report.degraded().chain(accepted).collect();
    for degradation in &degraded {
        tracing::warn!("not enforced on this host, and accepted: {degradation}");
    }
    degraded.iter().map(|degradation| degradation.name().to_owned()).collect()
}

/// The listeners, and where those go that are bound anew, by the number of their place.
fn renewable(bound: Listeners) -> (Bound, Vec<mpsc::UnboundedSender<Listener>>) {
    let (renew_call, next_call) = mpsc::unbounded_channel();
    let (renew_admin, next_admin) = mpsc::unbounded_channel();
    let bound = Bound {
        call: Renewed { listener: bound.call, next: next_call },
        admin: Renewed { listener: bound.admin, next: next_admin },
        tcp: bound.tcp,
    };
    (bound, vec![renew_call, renew_admin])
}

/// Reads the configuration again, without being waited for.
fn read_again(reloader: Arc<Reloader>) {
    tokio::task::spawn_blocking(move || match reloader.reload_at_last() {
        Ok(changes) => tracing::info!(?changes, "SIGHUP: the configuration has been read again"),
        Err(error) => tracing::error!("SIGHUP: {error}"),
    });
}

/// Tells listeners the last counts of faults that are folded.
async fn tell_counts(driver: Arc<Driver>) {
    loop {
        tokio::time::sleep(events::book::TOLD_EVERY).await;
        driver.hub.flush();
    }
}

/// Returns when standard input is at its end, if that is asked for.
async fn closed_stdin(is_asked: bool) {
    if !is_asked {
        std::future::pending().await
    }
    let read = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    // One that cannot be read is at its end as well.
    drop(read.await);
}

fn early(ended: Result<Result<(), FrontError>, tokio::task::JoinError>) -> ServeError {
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) => os("serve gRPC")(io::Error::other("the servers ended by themselves")),
        Err(error) => os("serve gRPC")(io::Error::other(error)),
    }
}
