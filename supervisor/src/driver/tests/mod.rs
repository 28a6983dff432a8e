//! The driver on a host of memory and a clock that stands still until everybody waits: every order of events is the one that a
//! test has written down.

mod cancels;
mod deliver;
mod lambda;
mod life;
mod operators;
mod starts;
mod tokens;
mod unfit;
mod verdicts;

use std::path::Path;

use tokio::sync::oneshot;

use super::{call::Held, *};
use crate::{
    driver::call::{Answer, Cancel, Failure, Invocation, Outlet},
    token::Providers,
    worker::{
        groups::Groups,
        host::fake::{FakeHost, Request},
        slots::Slots,
    },
};
use sublet_proto::v1::{Verdict, VerdictKind};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MS: Duration = Duration::from_millis(1);
/// How long a call of [`Bench::plain`] may take, of the function's own.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A driver with a host of memory, and a function `f` of the tenant `acme`.
pub struct Bench {
    pub host: Arc<FakeHost>,
    pub driver: Arc<Driver>,
}

/// Settings of the function that a test has not written itself.
const DEFAULTS: [(&str, &str); 10] = [
    ("runtime", "\"stream\""),
    ("layout", "\"static\""),
    ("dir", "\"/srv/f\""),
    ("command", "[\"/function/f\"]"),
    ("timeout", "\"10s\""),
    ("start_timeout", "\"5s\""),
    ("memory_max", "\"64MiB\""),
    ("pids_max", "12"),
    ("freeze_after", "\"never\""),
    ("cells_max", "0"),
];

/// A configuration. `function` are settings of the one function, a line each; `rest` are other tables.
pub fn text(function: &str, rest: &str) -> String {
    let is_written = |key: &str| function.lines().any(|line| line.split(' ').next() == Some(key));
    let defaults = DEFAULTS.iter().filter(|(key, _)| !is_written(key));
    let defaults: String = defaults.map(|(key, value)| format!("{key} = {value}\n")).collect();
    format!(
        "[host]\nstate_dir = \"/var/lib/sublet\"\nbusy_poll = false\n[tenant.acme.sub_tenant]\n\
         [tenant.acme.function.f]\n{defaults}{function}\n{rest}\n"
    )
}

pub fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("/etc/sublet")).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

impl Bench {
    /// The next worker answers every call with nothing, and what it was asked comes out here.
    pub fn overhear(&self) -> mpsc::UnboundedReceiver<Request> {
        let (sender, requests) = mpsc::unbounded_channel();
        self.host.next(move |worker| async move {
            worker.start().await;
            loop {
                let request = worker.request().await;
                worker.answer(&request, b"");
                sender.send(request).expect("the test listens");
            }
        });
        requests
    }

    /// With these settings of the function.
    pub fn new(function: &str) -> Self {
        Self::with(&parse(&text(function, "")), 16, &Keys::default())
    }

    /// A function that nothing is said about.
    pub fn plain() -> Self {
        Self::new("")
    }

    /// With a whole configuration, and host ids for so many workers.
    pub fn with(config: &Config, slots: u32, keys: &Keys) -> Self {
        let host = FakeHost::new();
        let services = Services {
            host: host.clone(),
            tree: host.clone(),
            slots: Slots::new(slots),
            ledger: crate::usage::Ledger::default(),
            logs: Arc::new(crate::logs::Logs::new(1 << 20)),
            groups: Groups::default(),
            labels: catalogue::labels::Labels::new().expect("the kernel has random bytes"),
            providers: Providers::new(None),
            shares: Arc::default(),
            busy_poll: Arc::default(),
            troubles: Arc::default(),
        };
        let driver = Driver::new(config, keys, services, None);
        Self { host, driver }
    }

    /// Begins a call of the sub-tenant `s1` with this payload.
    pub fn begin(&self, payload: &'static str) -> Running {
        self.begin_with(invocation(payload), None)
    }

    /// Begins a call; pieces of its answer go to `pieces`.
    pub fn begin_with(&self, invocation: Invocation, pieces: Option<mpsc::Sender<bytes::Bytes>>) -> Running {
        let (call, cancel) = self.driver.accept(invocation).expect("it is accepted");
        let (outlet, answer) = Outlet::new(pieces);
        tokio::spawn(call.run(outlet));
        Running { answer, cancel }
    }

    /// Makes a call and waits for its end.
    pub async fn call(&self, payload: &'static str) -> Held {
        self.begin(payload).end().await
    }

    /// The names of all workers with their states.
    pub fn workers(&self) -> Vec<(String, StateName)> {
        self.driver.workers().into_iter().map(|line| (line.worker.name(), line.state)).collect()
    }

    /// Lets every task have its turn, and the clock stand.
    pub async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    /// Ends everything. Nothing may be left of any worker.
    pub async fn finish(self) {
        let drained = tokio::time::timeout(100 * SECOND, self.driver.drain(SECOND)).await;
        assert_eq!(drained, Ok(DrainEnd::Drained));
        assert_eq!(self.host.living(), 0, "groups are left");
        assert_eq!(self.workers(), [], "workers are on the books");
        let books = self.driver.books();
        assert!(books.calls.is_empty(), "calls are on the books");
    }
}

/// A call that is under way.
pub struct Running {
    answer: oneshot::Receiver<Held>,
    cancel: Cancel,
}

impl Running {
    /// Waits for its end.
    pub async fn end(self) -> Held {
        let held = self.answer.await.expect("a call has one end");
        self.cancel.disarm();
        held
    }

    /// Its caller goes away.
    pub async fn cancel(self) -> Held {
        drop(self.cancel);
        self.answer.await.expect("a call has one end")
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Option<Held> {
        self.answer.try_recv().ok()
    }
}

/// A call of the sub-tenant `s1`.
pub fn invocation(payload: &'static str) -> Invocation {
    Invocation {
        tenant: "acme".into(),
        function: "f".into(),
        sub_tenant: "s1".into(),
        payload: bytes::Bytes::from_static(payload.as_bytes()),
        timeout: None,
        want_log: false,
    }
}

/// The answer, which there must be.
#[track_caller]
pub fn answer(held: Held) -> Answer {
    held.unwrap_or_else(|failure| panic!("it failed: {failure:?}"))
}

/// The answer's text and the worker that gave it.
#[track_caller]
pub fn answered(held: Held) -> (String, String) {
    let Answer { payload, receipt, .. } = answer(held);
    (String::from_utf8_lossy(&payload).into_owned(), receipt.worker)
}

/// The verdict, which there must be.
#[track_caller]
pub fn verdict(held: Held) -> Verdict {
    match held {
        Err(Failure::Verdict { verdict, .. }) => *verdict,
        other => panic!("no verdict: {other:?}"),
    }
}

/// Its kind.
#[track_caller]
pub fn kind(held: Held) -> VerdictKind {
    verdict(held).kind()
}

/// What is said of a failure of ours, which it must be.
#[track_caller]
pub fn ours(held: Held) -> String {
    match held {
        Err(Failure::Ours { what, .. }) => what,
        other => panic!("not ours: {other:?}"),
    }
}

/// Why it was not accepted, which it must not have been.
#[track_caller]
pub fn rejected(held: Held) -> String {
    match held {
        Err(Failure::Rejected(rejection)) => reason::of_rejection(&rejection).to_owned(),
        other => panic!("not rejected: {other:?}"),
    }
}
