//! Many calls through all stock clients of the Lambda Runtime API at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    Case, Outcome, case,
    client::{connect, request},
    configs::Place,
    ensure,
    ground::Need,
    lambda,
    supervisor::Supervisor,
};

/// The cases.
pub const CASES: &[Case] = &[Case {
    needs: &[Need::Client("python"), Need::Client("node"), Need::Client("shell"), Need::Speed],
    ..case("mixed::ten_thousand_calls_through_four_clients_are_all_right_and_none_crossed", mixed)
}];

const CLIENTS: [&str; 4] = ["rust", "python", "node", "shell"];
const CALLS: usize = 10_000;
const SUB_TENANTS: usize = 100;
const CONCURRENCY: usize = 16;

/// Call number `at`: whose, of which client. Neighbours in time are strangers.
fn call(at: usize) -> (usize, &'static str) {
    ((at * 37) % SUB_TENANTS, CLIENTS[(at / SUB_TENANTS) % CLIENTS.len()])
}

/// What an answer must say to be that of call `at`.
fn check(at: usize, answer: &[u8]) -> Outcome {
    let (sub_tenant, client) = call(at);
    let answer: Value = serde_json::from_slice(answer).map_err(|error| format!("call {at} of {client}: {error}"))?;
    let value = if client == "shell" { &answer["event"]["value"] } else { &answer["value"] };
    let is_right = answer["client"] == client && answer["tenant"] == format!("s{sub_tenant}") && *value == at;
    ensure!(is_right, "call {at} of {client} and s{sub_tenant}: {answer}");
    Ok(())
}

fn mixed() -> Outcome {
    let place = Place::new()?;
    let functions: String = CLIENTS.map(|name| lambda::function(name, name, "timeout = \"30s\"")).concat();
    // One of each client for every sub-tenant, and a few more for the moments between answer and next poll.
    let text = format!("{}[tenant.acme.sub_tenant]\n{functions}", place.host("workers_max = 450"));
    let supervisor = Supervisor::start(place, &text)?;
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    let socket = supervisor.socket();
    let owners: Arc<Mutex<HashMap<String, (usize, &str)>>> = Arc::default();
    let next = Arc::new(AtomicUsize::new(0));
    let answered = Arc::new(AtomicUsize::new(0));
    let failures = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..CONCURRENCY {
            let (next, answered, owners, socket) = (next.clone(), answered.clone(), owners.clone(), socket.clone());
            tasks.spawn(async move {
                let mut client = connect(&socket).await?;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= CALLS {
                        return Ok::<_, String>(());
                    }
                    let (sub_tenant, name) = call(at);
                    let request = request(name, &format!("s{sub_tenant}"), &json!({"value": at}).to_string());
                    let response = client.invoke(request).await.map_err(|status| format!("call {at}: {status:?}"))?;
                    let response = response.into_inner();
                    check(at, &response.payload)?;
                    let worker = response.receipt.map(|receipt| receipt.worker).ok_or("no receipt")?;
                    let mut owners = owners.lock().unwrap_or_else(PoisonError::into_inner);
                    let owner = owners.entry(worker.clone()).or_insert((sub_tenant, name));
                    ensure!(*owner == (sub_tenant, name), "{worker} is of {owner:?} and answered call {at}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ended = tasks.join_all().await;
        ended.into_iter().filter_map(Result::err).collect::<Vec<_>>()
    });
    ensure!(failures.is_empty(), "{failures:?}");
    ensure!(answered.load(Ordering::Relaxed) == CALLS, "{} of {CALLS} were answered", answered.load(Ordering::Relaxed));
    supervisor.stop()
}
