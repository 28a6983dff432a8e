//! The Lambda Runtime API (version 2018-06-01) of one worker.
//!
//! ```text
//!  supervisor --REQUEST--> launcher --> Server::call -----> Machine <---- GET  .../invocation/next
//!             <--READY---           <-- Link::send  <-----         <---- POST .../invocation/{id}/response
//!             <--RESPONSE, IDLE--                                   <---- POST .../invocation/{id}/error, init/error
//! ```
//! It lives inside the sandbox, in the launcher: whoever floods it, or feeds it what no client would send, spends his own
//! worker's memory and CPU. The protocol has no credential; who can connect *is* the runtime, and on the loopback of the
//! worker's own network namespace that is nobody else.
//!
//! [`machine`] knows what may come when and does no I/O; [`server`] speaks HTTP.

#![forbid(unsafe_code)]

pub mod machine;
mod reply;
pub mod server;
mod token;

use bytes::Bytes;

/// Where stock clients find it: the port that the published emulator has.
pub const ADDRESS: &str = "127.0.0.1:9001";

/// One call, as the runtime is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of this delivery alone.
    pub lease: [u8; 16],
    /// Of the worker's pool key.
    pub label: [u8; 16],
    /// Milliseconds since 1970 at which it is over.
    pub deadline_ms: u64,
    /// Whether the caller takes the answer in pieces.
    pub in_pieces: bool,
    /// JSON.
    pub payload: Bytes,
}

impl Event {
    /// Its request id: the lease as a UUID, so never that of an earlier delivery.
    pub fn request_id(&self) -> String {
        let hex = self.invocation_id();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// The nonce that newer clients send back with the answer.
    pub fn invocation_id(&self) -> String {
        self.lease.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What the worker's supervisor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// The runtime asks for its first call.
    Ready,
    /// It could not get so far, and this is what it said.
    InitFailed(Bytes),
    /// A piece of the answer to a call that takes pieces.
    Piece(Bytes),
    /// The answer, or its end when there were pieces.
    Answer(Bytes),
    /// The handler failed; what it said.
    Failed(Bytes),
    /// The answer is larger than it may be.
    TooLarge,
    /// The payload is no JSON, or no UTF-8, for this reason: the runtime has not seen it.
    BadPayload(String),
    /// The runtime asks for the next call: only now is the worker free.
    Idle,
}

/// To the supervisor.
pub trait Link {
    /// Sends; returns when it is on its way, which for a piece waits until the supervisor takes it.
    fn send(&self, event: Option<&Event>, what: Outbound);
}
