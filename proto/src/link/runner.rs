//! Messages between the supervisor and the runner, the process that starts token programs for it: one JSON value per
//! SEQPACKET packet, at most [`MESSAGE_LIMIT`](super::nursery::MESSAGE_LIMIT) bytes.
//!
//! ```text
//!  supervisor (still root, has read nothing from a caller)      runner
//!     Declare {command} x n  ---------------------------------->  kept
//!     Seal {uid}             ---------------------------------->  gives up root; takes no further command
//!                            <----------------------------------  Sealed | Failed {error}
//!  supervisor (confined)
//!     Run {id, command, ...} ---------------------------------->  only one that was declared, word for word
//!                            <----------------------------------  Token {id, token} | NoToken {id, error}
//! ```

use serde::{Deserialize, Serialize};

use super::token::Token;

/// Programs that run at a time, of all functions: each is a process on the host's account.
pub const AT_ONCE_MAX: usize = 8;

/// Whose token is wanted. The program is told by its environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOwner {
    /// SUBLET_TENANT.
    pub tenant: String,
    /// SUBLET_FUNCTION.
    pub function: String,
    /// SUBLET_SUB_TENANT.
    pub sub_tenant: String,
}

/// Supervisor to runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// A command that stands in the configuration: program and arguments. Only before [`Request::Seal`].
    Declare {
        /// Never empty; the program is an absolute path.
        command: Vec<String>,
    },
    /// No command is declared after this one, and root is given up. Answered by [`Event::Sealed`] or [`Event::Failed`].
    Seal {
        /// The supervisor's uid and gid, which the runner takes.
        uid: u32,
    },
    /// Run a command and send what it prints. Always answered, by [`Event::Token`] or [`Event::NoToken`].
    Run {
        /// Of the supervisor's choice, not that of a run that has not ended.
        id: u64,
        /// As it was declared.
        command: Vec<String>,
        /// How long it may take, in milliseconds.
        timeout_ms: u64,
        /// Whose token is wanted.
        owner: TokenOwner,
    },
}

/// Runner to supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// It has given up root and takes [`Request::Run`] from now on.
    Sealed,
    /// It cannot work here, and ends.
    Failed {
        /// The step and why it failed.
        error: String,
    },
    /// A program has printed a token, and no process of its group is left.
    Token {
        /// The id of the run.
        id: u64,
        /// What it printed.
        token: Token,
    },
    /// There is no token, and no process of the run's group is left.
    NoToken {
        /// The id of the run.
        id: u64,
        /// Why there is none.
        error: String,
    },
}
