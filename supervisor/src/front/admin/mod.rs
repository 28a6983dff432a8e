//! `sublet.v1.Admin`: what operators ask and order.

mod logs;
mod quotas;
mod token;
mod watch;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sublet_pool::{LimitLevel, PoolKey, Selector, SubTenant, WarmRefusal, WorkerId};
use sublet_proto::v1::{
    DescribeFunctionRequest, DescribeFunctionResponse, DescribeWorkerRequest, DescribeWorkerResponse, DiffRequest,
    DiffResponse, DrainRequest, DrainResponse, EvictRequest, EvictResponse, Fact, Function, GetHealthRequest,
    GetHealthResponse, GetUsageRequest, GetUsageResponse, Limit, ListFaultsRequest, ListFaultsResponse,
    ListFunctionsRequest, ListFunctionsResponse, ListLimitsRequest, ListLimitsResponse, ListWorkersRequest,
    ListWorkersResponse, LogsRequest, LogsResponse, LoopLateness, NotServing, ReloadRequest, ReloadResponse,
    SetRequest, SetResponse, UndrainRequest, UndrainResponse, UnsetRequest, UnsetResponse, WarmRequest, WarmResponse,
    WatchRequest, WatchResponse, Worker, admin_server::Admin,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    catalogue::Entry,
    config::Isolation,
    driver::{self, DrainEnd, Driver, WorkerLine, call, standing::Why},
    pulse::{Lateness, Pulse},
    reload::Reloader,
};

/// Grace of a drain that names none.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// The service.
#[derive(Clone, Debug)]
pub struct AdminService {
    /// What it asks.
    pub driver: Arc<Driver>,
    /// Reads the configuration again.
    pub reloader: Arc<Reloader>,
    /// What was found out about the host at start.
    pub host: Arc<[Fact]>,
    /// What this host cannot enforce and the configuration accepted.
    pub degraded: Arc<[String]>,
    /// How late the loop is.
    pub pulse: Arc<Pulse>,
    /// Set to end the process.
    pub stop: tokio::sync::watch::Sender<bool>,
}

fn wire(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl AdminService {
    fn worker(&self, line: &WorkerLine) -> Worker {
        let WorkerLine { worker, state: _, calls, idle, frozen } = line;
        Worker {
            worker: worker.name(),
            state: line.wire_state().into(),
            tenant: worker.entry.tenant.to_string(),
            function: worker.entry.name.to_string(),
            revision: worker.entry.settings.short_revision(),
            sub_tenant_hash: match worker.owner() {
                Some(owner) => self.driver.services().labels.group(&worker.entry.tenant, &owner.sub_tenant),
                None => String::new(),
            },
            pid: worker.pid().unwrap_or(0),
            calls: *calls,
            age: wire(worker.born.elapsed()),
            idle: idle.and_then(wire),
            frozen: *frozen,
        }
    }

    fn line(&self, name: &str) -> Result<WorkerLine, Status> {
        self.driver
            .workers()
            .into_iter()
            .find(|line| line.worker.name() == name)
            .ok_or_else(|| Status::not_found(format!("no worker {name:?} is alive; `sublet ps` lists those that are")))
    }

    fn entry(&self, tenant: &str, function: &str) -> Result<Arc<Entry>, Status> {
        self.driver.catalogue().function(tenant, function).cloned().ok_or_else(|| {
            Status::not_found(format!("tenant {tenant:?} has no function {function:?} in the configuration"))
        })
    }

    fn tenant(&self, tenant: &str) -> Result<sublet_pool::TenantId, Status> {
        let catalogue = self.driver.catalogue();
        let known = catalogue.tenant(tenant).map(|tenant| tenant.id);
        known.ok_or_else(|| Status::not_found(format!("tenant {tenant:?} is not in the configuration")))
    }

    fn function(&self, entry: &Entry, lines: &[WorkerLine]) -> Function {
        let of = |line: &&WorkerLine| line.worker.entry.tenant == entry.tenant && line.worker.entry.name == entry.name;
        Function {
            tenant: entry.tenant.to_string(),
            function: entry.name.to_string(),
            revision: entry.settings.short_revision(),
            runtime: entry.settings.runtime.to_string(),
            layout: layout_name(entry),
            isolation: match entry.settings.isolation {
                Isolation::SubTenant => "sub-tenant",
                Isolation::Shared => "shared",
            }
            .to_owned(),
            workers: lines.iter().filter(of).count() as u64,
        }
    }
}

fn warm_refused(entry: &Entry, count: u32, refusal: WarmRefusal) -> Status {
    match refusal {
        WarmRefusal::UnknownFunction => Status::not_found("the function is not in the configuration any more"),
        WarmRefusal::Draining => Status::unavailable("the supervisor is draining and makes no new workers"),
        WarmRefusal::OverCap { level, limit } => {
            let setting = match level {
                LimitLevel::Host => "host.workers_max".to_owned(),
                LimitLevel::Tenant => format!("tenant.{}.workers_max", entry.tenant),
                LimitLevel::Function => entry.setting("workers_max"),
                LimitLevel::SubTenant => {
                    format!(
                        "{} and tenant.{}.sub_tenant.workers_max",
                        entry.setting("workers_per_sub_tenant_max"),
                        entry.tenant
                    )
                }
            };
            Status::resource_exhausted(format!(
                "{count} workers are above {limit}, which {setting} allows; none is made"
            ))
        }
        WarmRefusal::CrashBackoff { retry_after } => Status::unavailable(format!(
            "workers of this function and sub-tenant keep failing; no new one is made for another {} ms",
            retry_after.as_millis()
        )),
    }
}

/// The whole in one word.
fn status(not_serving: &[driver::NotServing]) -> &'static str {
    match not_serving.iter().find(|found| found.service.is_empty()).map(|found| found.why) {
        None => "serving",
        Some(Why::Stopping) => "stopping",
        Some(Why::Draining) => "draining",
        Some(
            Why::NurseryGone
            | Why::Pool(_)
            | Why::NoFunctionServes
            | Why::StartsFail(_)
            | Why::BacksOff(_)
            | Why::SharedBacksOff,
        ) => "not serving",
    }
}

fn wire_not_serving(found: driver::NotServing) -> NotServing {
    NotServing { service: found.service, why: found.why.to_string() }
}

fn wire_lateness(lateness: Lateness) -> LoopLateness {
    let Lateness { p50, p99, max, longest } = lateness;
    LoopLateness { p50: wire(p50), p99: wire(p99), max: wire(max), longest: wire(longest) }
}

fn layout_name(entry: &Entry) -> String {
    match &entry.settings.layout {
        crate::config::Layout::Host => "host".to_owned(),
        crate::config::Layout::Static => "static".to_owned(),
        crate::config::Layout::Dir(path) => format!("dir {path}"),
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let wanted = request.into_inner().tenant;
        let lines = self.driver.workers();
        let workers = (lines.iter())
            .filter(|line| wanted.is_empty() || *line.worker.entry.tenant == *wanted)
            .map(|line| self.worker(line))
            .collect();
        Ok(Response::new(ListWorkersResponse { workers }))
    }

    async fn describe_worker(
        &self,
        request: Request<DescribeWorkerRequest>,
    ) -> Result<Response<DescribeWorkerResponse>, Status> {
        let line = self.line(&request.into_inner().worker)?;
        let worker = &line.worker;
        let posture = worker.posture().iter().map(|fact| Fact {
            name: fact.name.clone(),
            value: fact.value.clone(),
            ok: fact.ok,
        });
        let log = worker.log.all();
        let mut response = DescribeWorkerResponse {
            worker: Some(self.worker(&line)),
            posture: posture.collect(),
            log_tail: log.bytes,
            platform_lines: log.platform_lines,
            degraded: self.degraded.to_vec(),
            token: token::of(worker),
            ..DescribeWorkerResponse::default()
        };
        let settings = &worker.entry.settings;
        let limit =
            |setting: &str, value: String, knob: &str| Limit { setting: setting.into(), value, knob: knob.into() };
        response.limits = settings.limits_inside().map(|(row, value, knob)| limit(row.key, value, knob)).collect();
        response.limits.push(limit("timeout", crate::config::format_duration(settings.timeout), "deadline"));
        if let Some(group) = worker.group() {
            response.cgroup = group.path();
            let kernel = group.limits().into_iter().map(|(setting, knob, value)| Limit {
                setting: setting.to_owned(),
                value,
                knob,
            });
            response.limits.splice(0..0, kernel);
            response.memory_bytes = group.memory_bytes();
            response.memory_peak_bytes = group.memory_peak_bytes();
            response.cpu = group.cpu().and_then(wire);
            response.processes = group.processes();
        }
        Ok(Response::new(response))
    }

    async fn list_functions(
        &self,
        _request: Request<ListFunctionsRequest>,
    ) -> Result<Response<ListFunctionsResponse>, Status> {
        let lines = self.driver.workers();
        let functions = self.driver.catalogue().all().into_iter().map(|entry| self.function(entry, &lines)).collect();
        Ok(Response::new(ListFunctionsResponse { functions }))
    }

    async fn describe_function(
        &self,
        request: Request<DescribeFunctionRequest>,
    ) -> Result<Response<DescribeFunctionResponse>, Status> {
        let DescribeFunctionRequest { tenant, function } = request.into_inner();
        let entry = self.entry(&tenant, &function)?;
        let plan = entry.plan(&self.driver.services().host.facts());
        Ok(Response::new(DescribeFunctionResponse {
            function: Some(self.function(&entry, &self.driver.workers())),
            plan: plan.steps().iter().map(ToString::to_string).collect(),
        }))
    }

    async fn evict(&self, request: Request<EvictRequest>) -> Result<Response<EvictResponse>, Status> {
        let EvictRequest { worker, tenant, function, sub_tenant, all, force } = request.into_inner();
        let names = some(&tenant).or(some(&function)).or(some(&sub_tenant)).is_some();
        let which = match (worker.as_str(), names, all) {
            ("", false, true) => Selector::All,
            ("", true, false) => Selector::Match {
                tenant: match some(&tenant) {
                    Some(name) => Some(self.tenant(name)?),
                    None => None,
                },
                functions: some(&function).map(|name| self.driver.functions_named(some(&tenant), name)),
                sub_tenant: match some(&sub_tenant) {
                    Some(label) => {
                        Some(SubTenant::try_from(label).map_err(|error| Status::invalid_argument(error.to_string()))?)
                    }
                    None => None,
                },
            },
            (name, false, false) if !name.is_empty() => Selector::Worker(WorkerId(self.line(name)?.worker.id.0)),
            _ => {
                return Err(Status::invalid_argument(
                    "name a worker, or any of tenant, function and sub_tenant, or all (--all); one of the three",
                ));
            }
        };
        let (evicted, busy) = self.driver.evict(&which, force);
        Ok(Response::new(EvictResponse { evicted, busy }))
    }

    async fn warm(&self, request: Request<WarmRequest>) -> Result<Response<WarmResponse>, Status> {
        let WarmRequest { tenant, function, sub_tenant, count } = request.into_inner();
        let entry = self.entry(&tenant, &function)?;
        let sub_tenant =
            call::owner(&entry, &sub_tenant).map_err(|rejection| Status::invalid_argument(rejection.to_string()))?;
        if count == 0 {
            return Err(Status::invalid_argument("the count is 0: `sublet evict` ends workers"));
        }
        let key = PoolKey { function: entry.id, sub_tenant };
        let making = self.driver.warm(&key, count).map_err(|refusal| warm_refused(&entry, count, refusal))?;
        Ok(Response::new(WarmResponse { making }))
    }

    async fn reload(&self, request: Request<ReloadRequest>) -> Result<Response<ReloadResponse>, Status> {
        quotas::reload(&self.reloader, request.into_inner()).await.map(Response::new)
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        quotas::diff(&self.reloader, request.into_inner()).await.map(Response::new)
    }

    async fn set(&self, request: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        quotas::set(&self.reloader, request.into_inner()).await.map(Response::new)
    }

    async fn unset(&self, request: Request<UnsetRequest>) -> Result<Response<UnsetResponse>, Status> {
        quotas::unset(&self.reloader, request.into_inner()).await.map(Response::new)
    }

    async fn list_limits(&self, request: Request<ListLimitsRequest>) -> Result<Response<ListLimitsResponse>, Status> {
        quotas::list(&self.reloader, &self.driver, request.into_inner()).await.map(Response::new)
    }

    async fn list_faults(&self, request: Request<ListFaultsRequest>) -> Result<Response<ListFaultsResponse>, Status> {
        Ok(Response::new(watch::faults(&self.driver, &request.into_inner().tenant)))
    }

    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(watch::watch(self.driver.clone(), request.into_inner().tenant)))
    }

    type LogsStream = ReceiverStream<Result<LogsResponse, Status>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        logs::logs(&self.driver, request.into_inner()).map(Response::new)
    }

    async fn get_usage(&self, request: Request<GetUsageRequest>) -> Result<Response<GetUsageResponse>, Status> {
        let (driver, request) = (self.driver.clone(), request.into_inner());
        // It reads a few files for each sub-tenant: not on a thread that calls are served by.
        let got = tokio::task::spawn_blocking(move || driver::usage::get(&driver, &request)).await;
        got.map(Response::new).map_err(|error| Status::internal(format!("read the counters: {error}")))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        let DrainRequest { grace, stop } = request.into_inner();
        let grace = match grace {
            Some(grace) => Duration::try_from(grace).map_err(|_| Status::invalid_argument("the grace is negative"))?,
            None => GRACE_DEFAULT,
        };
        let before = self.driver.counters.failed.load(Ordering::Relaxed);
        if stop {
            // Nobody takes calls again between the drain and the end.
            self.driver.set_stopping();
        }
        if self.driver.drain(grace).await == DrainEnd::Undrained {
            return Err(Status::aborted("calls are taken again: somebody undrained before the drain had ended"));
        }
        let cut = self.driver.counters.failed.load(Ordering::Relaxed) - before;
        if stop {
            self.stop.send_replace(true);
        }
        Ok(Response::new(DrainResponse { cut }))
    }

    async fn undrain(&self, _request: Request<UndrainRequest>) -> Result<Response<UndrainResponse>, Status> {
        let undrained = self.driver.undrain();
        let was_draining = undrained.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(UndrainResponse { was_draining }))
    }

    async fn get_health(&self, _request: Request<GetHealthRequest>) -> Result<Response<GetHealthResponse>, Status> {
        let counts = self.driver.counts();
        let not_serving = self.driver.not_serving();
        let groups = self.driver.groups();
        let counters = &self.driver.counters;
        let troubles = self.driver.services().troubles.all();
        let status = match status(&not_serving) {
            "serving" if !troubles.is_empty() => "impaired",
            status => status,
        };
        Ok(Response::new(GetHealthResponse {
            status: status.to_owned(),
            not_serving: not_serving.into_iter().map(wire_not_serving).collect(),
            troubles,
            host: self.host.to_vec(),
            degraded: self.degraded.to_vec(),
            workers: counts.workers,
            cells: counts.cells,
            cells_labelled: counters.cells_labelled.load(Ordering::Relaxed),
            cells_wasted: counters.cells_wasted.load(Ordering::Relaxed),
            calls_in_flight: counts.calls_leased,
            calls_queued: counts.calls_waiting,
            calls_answered: counters.answered.load(Ordering::Relaxed),
            calls_refused: counters.refused.load(Ordering::Relaxed),
            calls_failed: counters.failed.load(Ordering::Relaxed),
            workers_started: counters.started.load(Ordering::Relaxed),
            answers_polled: self.driver.services().busy_poll.found(),
            groups_mended: groups.mended,
            groups_left: groups.left,
            loop_late: Some(wire_lateness(self.pulse.lateness())),
            worker_start_failures: counters.start_failures.load(Ordering::Relaxed),
        }))
    }
}
