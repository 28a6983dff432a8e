//! Example of a `stream` function in Rust: text in, statistics of its words out, as JSON.
//!
//! It keeps counts over its life on purpose. Call it for two sub-tenants in turn: each sees its own counts grow and never
//! the other's, because no worker serves both.
//!
//! Needs nothing but itself when built statically, and so runs in the `static` layout, which has no loader and no libraries:
//!
//! ```text
//! RUSTFLAGS='-C target-feature=+crt-static' cargo build --release -p word-stats --target x86_64-unknown-linux-gnu
//! ```
#![forbid(unsafe_code)]

mod stats;

use serde::Serialize;
use stats::Stats;
use sublet_function::Call;

/// What this worker has done since it started.
#[derive(Debug, Default, Serialize)]
struct Life {
    /// Calls answered, this one included.
    calls: u64,
    /// Words in all of them.
    total_words: u64,
    /// Whose worker it is.
    sub_tenant: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    stats: Stats,
    worker: &'a Life,
}

fn main() -> std::io::Result<()> {
    let mut life = Life { sub_tenant: sublet_function::sub_tenant(), ..Life::default() };
    sublet_function::serve(|call| answer(&mut life, &call))
}

fn answer(life: &mut Life, call: &Call<'_>) -> Result<Vec<u8>, String> {
    // Before the counts change: a refused call leaves no trace.
    let text = call.text().map_err(|error| format!("the payload is not UTF-8 text: {error}"))?;
    let stats = Stats::of(text);
    life.calls += 1;
    life.total_words += stats.words;
    serde_json::to_vec(&Answer { stats, worker: life }).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_the_worker_grow_with_each_call_and_not_with_a_refused_one() {
        let mut life = Life { sub_tenant: Some("customer-1".into()), ..Life::default() };
        answer(&mut life, &Call::for_test(b"one two")).expect("text");
        let error = answer(&mut life, &Call::for_test(b"\xff")).expect_err("not text");
        assert!(error.starts_with("the payload is not UTF-8 text: "), "{error}");
        let json = answer(&mut life, &Call::for_test(b"three")).expect("text");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        let worker = serde_json::json!({ "calls": 2, "total_words": 3, "sub_tenant": "customer-1" });
        assert_eq!((&json["worker"], &json["words"]), (&worker, &1.into()));
    }
}
