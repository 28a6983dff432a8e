//! Whose a limit is.

use std::fmt;

/// Whose a limit is. The names are those of verdicts, remarks and faults in the public API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// One call: its payload, its answer, its time.
    Call,
    /// One worker, by the settings of its function.
    Worker,
    /// All calls of one function.
    Function,
    /// All workers and calls of one customer of a tenant.
    SubTenant,
    /// All workers and calls of one tenant.
    Tenant,
    /// All workers of this host.
    Host,
    /// A control group above sublet's own, or the host itself: sublet cannot tell which.
    Above,
}

impl Level {
    /// Its name in the public API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Worker => "worker",
            Self::Function => "function",
            Self::SubTenant => "sub-tenant",
            Self::Tenant => "tenant",
            Self::Host => "host",
            Self::Above => "above",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
