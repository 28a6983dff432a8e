//! Harnesses, one for each place where sublet reads bytes that somebody else wrote. README.md says how to run them.
//!
//! A harness states a property that holds for any input, mostly against a second, slow and obvious way to say the same.
//! `cargo test` replays the corpus of each (`__fuzz__/<module>__<name>/corpus`, and `crashes` where something was found) and
//! then tries random inputs for a moment; a coverage-guided fuzzer runs the same functions for as long as it is let.
#![forbid(unsafe_code)]
#![cfg(test)]

mod channel;
mod config;
mod grpc;
mod logs;
mod packets;
mod proc;
mod runtime_api;
mod sandbox;
mod tokens;
mod trace;
mod words;

use std::time::Duration;

/// How long `cargo test` tries random inputs of one harness after its corpus. A fuzzer has its own limit.
const RANDOM_TIME: Duration = Duration::from_millis(200);

/// A harness for inputs of at most so many bytes.
macro_rules! target {
    ($most:expr) => {
        bolero::check!().with_test_time($crate::RANDOM_TIME).with_max_len($most)
    };
}
use target;
