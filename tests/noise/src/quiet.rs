//! The quiet customer: an open loop. Call n is due at start + n / rate, whether or not those before it were answered,
//! and its time runs from then. A server that stands still for a second so costs a hundred calls at a rate of 100/s, and
//! not one, as it would with a client that waits for it (coordinated omission).

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use sublet_proto::v1::invoker_client::InvokerClient;
use tokio::{task::JoinSet, time::timeout_at};
use tonic::transport::Channel;

use crate::{
    Error, SECONDS_MAX, Target,
    ends::{self, ANSWERED, Ends, UNANSWERED},
    pace::Pace,
    print, runtime, stdin,
};

/// What is still waited for after the last call was due.
const GRACE: Duration = Duration::from_secs(3);
/// Length of a payload in bytes, with the verb.
const PAYLOAD_BYTES: usize = 256;
/// What a probe does with a payload, and leaves out of its answer; a server that knows no verbs gives it back.
const VERB: &str = "echo ";

/// Arguments of the role.
#[derive(Args)]
pub struct Quiet {
    #[command(flatten)]
    target: Target,
    /// Calls due in a second.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// Calls made first, at the same rate and not measured: the worker is there then, and the processor awake.
    #[arg(long, default_value_t = 50)]
    warm_up: u32,
}

/// Where the time of an answered call went, in nanoseconds.
#[derive(Clone, Copy, Serialize)]
struct Sample {
    /// From when it was due to its answer.
    total: u64,
    /// Of that, until this program got to send it: the client's own wait for a processor.
    late: u64,
    /// Of that, until it was given to a worker (receipt).
    queued: u64,
    /// Of that, until the worker's answer was read (receipt).
    running: u64,
}

#[derive(Serialize)]
struct Report {
    asked: u32,
    /// Answered before the window was over: calls that were answered, but much too late, are no throughput.
    answered_in_time: u32,
    seconds: u64,
    ends: Ends,
    samples: Vec<Sample>,
}

struct Ended {
    end: String,
    at: Instant,
    sample: Sample,
}

/// Calls for as long as it was told.
pub fn run(quiet: Quiet) -> Result<(), Error> {
    stdin::on_close(|| std::process::exit(1));
    let report = runtime()?.block_on(async {
        let client = quiet.target.connect().await?;
        let pace = Pace::new().map_err(Error::io("make a timer"))?;
        window(&quiet, &client, &pace, quiet.warm_up).await?;
        let calls = u64::from(quiet.rate) * quiet.seconds;
        window(&quiet, &client, &pace, u32::try_from(calls).unwrap_or(u32::MAX)).await
    })?;
    print(&report)
}

async fn window(quiet: &Quiet, client: &InvokerClient<Channel>, pace: &Pace, calls: u32) -> Result<Report, Error> {
    let period = Duration::from_secs(1) / quiet.rate;
    let mut tasks = JoinSet::new();
    let start = Instant::now() + period;
    let end = start + period * calls;
    for at in 0..calls {
        let due = start + period * at;
        pace.until(due).await.map_err(Error::io("wait for a call to be due"))?;
        tasks.spawn(call(client.clone(), quiet, at, due, end + GRACE));
    }
    let mut report =
        Report { asked: calls, answered_in_time: 0, seconds: quiet.seconds, ends: Ends::new(), samples: Vec::new() };
    while let Some(task) = tasks.join_next().await {
        let ended = task.map_err(|error| Error::Useless(format!("a call's task ended early: {error}")))??;
        if ended.end == ANSWERED {
            report.samples.push(ended.sample);
            report.answered_in_time += u32::from(ended.at <= end);
        }
        *report.ends.entry(ended.end).or_default() += 1;
    }
    Ok(report)
}

/// Its future is made when the call is due, and first run when this program gets to send it.
fn call(
    mut client: InvokerClient<Channel>,
    quiet: &Quiet,
    at: u32,
    due: Instant,
    patience: Instant,
) -> impl Future<Output = Result<Ended, Error>> + 'static {
    // Its number is in it, so that no other call's answer passes for its own.
    let payload = format!("{:x<PAYLOAD_BYTES$}", format!("{VERB}{at} "));
    let request = quiet.target.request(payload.clone());
    async move {
        let sent = Instant::now();
        let outcome = timeout_at(patience.into(), client.invoke(request)).await;
        let now = Instant::now();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (total, late) = (nanos(now - due), nanos(sent - due));
        let Ok(outcome) = outcome else {
            let sample = Sample { total, late, queued: 0, running: 0 };
            return Ok(Ended { end: UNANSWERED.to_owned(), at: now, sample });
        };
        let (end, receipt) = ends::of(&outcome);
        if let Ok(response) = &outcome {
            let answer = &response.get_ref().payload;
            if answer != payload.as_bytes() && answer != &payload.as_bytes()[VERB.len()..] {
                return Err(Error::Useless(format!("call {at} was answered with something else than it sent")));
            }
        }
        let receipt = receipt.unwrap_or_default();
        let of = |time: Option<&prost_types::Duration>| nanos(ends::time(time));
        let sample = Sample { total, late, queued: of(receipt.queued.as_ref()), running: of(receipt.running.as_ref()) };
        Ok(Ended { end, at: now, sample })
    }
}
