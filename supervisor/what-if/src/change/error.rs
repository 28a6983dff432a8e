//! Why a change is refused. Nothing is run then.

/// Each names the key, shows the value and says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No `=`.
    #[error("{text:?} has no value; write key=value, such as host.workers_max=400")]
    NoValue {
        /// What was given.
        text: String,
    },
    /// Not the name of a limit that can be changed.
    #[error("{key}: there is no such setting here; {known}")]
    UnknownKey {
        /// What was given.
        key: String,
        /// What there is.
        known: String,
    },
    /// Twice the same key.
    #[error("{key} is given twice; keep one of the two")]
    Twice {
        /// Which.
        key: String,
    },
    /// No tenant of this name.
    #[error("{key}: there is no tenant {tenant:?}; there is {known}, and * for all")]
    UnknownTenant {
        /// What was given.
        key: String,
        /// Its tenant.
        tenant: String,
        /// The tenants there are.
        known: String,
    },
    /// No function of this name, in any of the tenants that are meant.
    #[error("{key}: there is no function {function:?}; there is {known}, and * for all")]
    UnknownFunction {
        /// What was given.
        key: String,
        /// Its function.
        function: String,
        /// The functions there are.
        known: String,
    },
    /// Another kind of value, or another unit.
    #[error("{key} = {value:?}: not {what}; write {remedy}")]
    Unit {
        /// Which key.
        key: String,
        /// What was given.
        value: String,
        /// What it should be.
        what: &'static str,
        /// What would be right.
        remedy: &'static str,
    },
    /// A value that would allow nothing at all.
    #[error("{key} = {value:?}: zero would allow nothing at all; write at least {least}")]
    Zero {
        /// Which key.
        key: String,
        /// What was given.
        value: String,
        /// The least.
        least: &'static str,
    },
    /// A slip of the pen.
    #[error("{key} = {value:?}: above {most}, the most the configuration takes; write at most that")]
    TooMuch {
        /// Which key.
        key: String,
        /// What was given.
        value: String,
        /// The most.
        most: String,
    },
    /// A cap that could never be reached.
    #[error(
        "{key} = {value} would be above {above} = {limit}; lower {key} too, or give {above} more{}",
        likewise(others)
    )]
    AboveCap {
        /// Full name of the cap below.
        key: String,
        /// What it would be.
        value: u32,
        /// Full name of the cap above.
        above: String,
        /// What it would be.
        limit: u32,
        /// Full names of other caps that would be above theirs.
        others: Vec<String>,
    },
}

fn likewise(others: &[String]) -> String {
    if others.is_empty() { String::new() } else { format!("; the same goes for {}", others.join(", ")) }
}
