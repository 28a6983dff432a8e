//! The noise: so many calls in flight, each followed at once by the next, whatever came of it.
//!
//! It heeds no back-off and no RetryInfo: a neighbour that is polite is no test. Several payloads are sent in turn, so
//! that a function that fails can be made to answer in between, which keeps sublet's own back-off from ending the noise.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;
use sublet_proto::v1::invoker_client::InvokerClient;
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::Channel;

use crate::{
    Error, SECONDS_MAX, Target,
    ends::{self, Ends, UNANSWERED},
    print, runtime, say_ready, stdin,
};

/// What a call may take before it is given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Calls by one run; far more than any machine does in the time.
const CALLS_MAX: usize = 50_000_000;

/// Arguments of the role.
#[derive(Args)]
pub struct Neighbour {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,
    /// What to send; several are sent in turn.
    #[arg(long, required = true)]
    payload: Vec<String>,
    /// Longest it goes on.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
}

/// Sums over all calls.
#[derive(Default, Serialize)]
struct Report {
    seconds: f64,
    ends: Ends,
    /// CPU time of its workers, as receipts tell.
    cpu_seconds: f64,
    /// Time its workers had calls, as receipts tell.
    running_seconds: f64,
}

struct Shared {
    neighbour: Neighbour,
    next: AtomicUsize,
    stop: AtomicBool,
    report: Mutex<Report>,
}

/// Makes noise until stdin closes.
pub fn run(neighbour: Neighbour) -> Result<(), Error> {
    let shared = Arc::new(Shared {
        neighbour,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        report: Mutex::default(),
    });
    let asked = shared.clone();
    stdin::on_close(move || asked.stop.store(true, Ordering::Relaxed));
    let start = Instant::now();
    runtime()?.block_on(make_noise(&shared, start))?;
    let mut report = shared.report();
    report.seconds = start.elapsed().as_secs_f64();
    print(&*report)
}

async fn make_noise(shared: &Arc<Shared>, start: Instant) -> Result<(), Error> {
    let client = shared.neighbour.target.connect().await?;
    say_ready()?;
    let end = start + Duration::from_secs(shared.neighbour.seconds);
    let mut tasks = JoinSet::new();
    for _ in 0..shared.neighbour.in_flight {
        let (shared, client) = (shared.clone(), client.clone());
        tasks.spawn(async move {
            while !shared.stop.load(Ordering::Relaxed) && Instant::now() < end {
                let at = shared.next.fetch_add(1, Ordering::Relaxed);
                if at >= CALLS_MAX {
                    return;
                }
                shared.call(client.clone(), at).await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.map_err(|error| Error::Useless(format!("a task of the neighbour ended early: {error}")))?;
    }
    Ok(())
}

impl Shared {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, mut client: InvokerClient<Channel>, at: usize) {
        let payloads = &self.neighbour.payload;
        let request = self.neighbour.target.request(payloads[at % payloads.len()].clone());
        let (end, receipt) = match timeout(CALL_TIMEOUT, client.invoke(request)).await {
            Ok(outcome) => ends::of(&outcome),
            Err(_) => (UNANSWERED.to_owned(), None),
        };
        let mut report = self.report();
        *report.ends.entry(end).or_default() += 1;
        if let Some(receipt) = receipt {
            report.cpu_seconds += ends::time(receipt.cpu.as_ref()).as_secs_f64();
            report.running_seconds += ends::time(receipt.running.as_ref()).as_secs_f64();
        }
    }
}
