//! What the supervisor tells the init of a sandbox. What init says is [`InitReport`](super::nursery::InitReport).

use serde::{Deserialize, Serialize};

use super::{sandbox::ShownLimits, token::Token};

/// Supervisor to init, on the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum ToInit {
    /// Only in sandboxes of functions with a token: put this where the function reads it, in place of the one before.
    /// Answered by [`TokenWritten`](super::nursery::InitReport::TokenWritten) or
    /// [`TokenFailed`](super::nursery::InitReport::TokenFailed).
    Token {
        /// Grows from one to the next.
        number: u64,
        /// What the function is to read from now on.
        token: Token,
    },
    /// A call is about to be delivered: refused system calls that were reported before are reported again when they
    /// are made again. Sent only after such a report, and before the call's REQUEST.
    CallBegins,
    /// The limits of the worker are others than those it shows: show these. Answered by
    /// [`LimitsShown`](super::nursery::InitReport::LimitsShown).
    Limits {
        /// Grows from one to the next.
        number: u64,
        /// What they are.
        limits: ShownLimits,
    },
}
