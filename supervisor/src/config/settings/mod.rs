//! What is said of a setting, once: a row of the table of its level.
//!
//! A table is made by [`settings!`], in `types/host.rs`, `types/level.rs` and `types/function.rs`. It gives, from the same
//! rows:
//!
//! - the raw table, which is the shape of the text (`RawHost`), with the revision's part of it;
//! - the settings as read, each within its bounds or at its default (`HostRead`);
//! - the checked values (`Host`);
//! - the rows as data ([`Row`]), for `sublet limits` and `set`, for what a reload refuses, for the reference pages, and for
//!   the JSON Schema.
//!
//! A row is one line and its help:
//!
//! ```text
//!  nofile: u32 [bounds::NOFILE] (is defaults::NOFILE) NewWorkers, Kept::Worker("RLIMIT_NOFILE"), "Open descriptors ...";
//!  name    type bounds          default               changes by  kept by                        help
//! ```
//!
//! - `name: T` is in the checked values, under that name. `T` is an `Option` where nothing need be written.
//! - `name => T` is read within its bounds, and its value is made by hand from that.
//! - `name` alone is read by hand. Between the brackets stands its [`Kind`].
//! - `as {R}` names the raw form of what is not one value but a list or a table.
//!
//! The default is `(is VALUE)`; `("in words" => EXPRESSION)`, which may use the settings of the rows before by their names;
//! `(inherits "whose" => EXPRESSION)`; or `("in words")` where it is `None` or made by hand.

mod table;
mod typed;

use std::{collections::BTreeMap, time::Duration};

pub(super) use self::table::{default_text, default_value, first, kind, raw_type, settings};
pub use self::typed::{Freeze, Shown, Typed, serialize};
use super::{
    bounds::Bounds,
    scalar::{Maybe, Scalar},
    units::{ByteSize, CallRate, CpuMillis},
};

/// One setting of a level.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in its table.
    pub key: &'static str,
    /// How it is written, and which values are taken.
    pub kind: Kind,
    /// What it is when nobody wrote it.
    pub initial: Initial,
    /// How a running supervisor takes a new value.
    pub changes: Changes,
    /// Who keeps it.
    pub kept: Kept,
    /// What it is for, in a sentence or two.
    pub help: &'static str,
}

/// How a value is written, and which values are taken.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number.
    Count(&'static Bounds<u32>),
    /// Bytes with their unit.
    Size(&'static Bounds<ByteSize>),
    /// An amount of CPU.
    Cpu(&'static Bounds<CpuMillis>),
    /// A duration with its unit.
    Time(&'static Bounds<Duration>),
    /// The same, or the word [`NEVER`].
    TimeOrNever(&'static Bounds<Duration>),
    /// Calls per second.
    Rate(&'static Bounds<CallRate>),
    /// true or false.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A text of another form.
    Text {
        /// Name of the form.
        name: &'static str,
        /// Which texts are taken, in words.
        values: &'static str,
        /// A regular expression that every text that is taken matches. Others may match too: what hangs on the host or on
        /// other settings only the reader knows.
        pattern: &'static str,
    },
    /// A list of words.
    Words {
        /// Which, for people.
        values: &'static str,
        /// Every word that may stand in the list.
        all: fn() -> Vec<&'static str>,
    },
    /// A list of texts.
    Texts {
        /// Name of the form.
        name: &'static str,
        /// Which, in words.
        values: &'static str,
    },
    /// A table of texts.
    TextTable(&'static str),
    /// A table of counts.
    CountTable(&'static str, &'static Bounds<u32>),
    /// A table with settings of its own.
    Table(&'static str),
}

/// Written instead of a duration.
pub const NEVER: &str = "never";

/// What a setting is when nobody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initial {
    /// This value, as TOML has it.
    Is(String),
    /// In words: it has none, or hangs on other settings or on the host.
    Words(String),
    /// What the level above has.
    Inherited(&'static str),
}

/// How a running supervisor takes a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Not without a restart, for this reason.
    Restart(&'static str),
    /// By a reload, under running workers.
    Reload,
    /// So, and by `sublet set` as well.
    Set,
    /// By a reload, with new workers: it is part of the revision.
    NewWorkers,
}

/// Who keeps a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is no limit, and `sublet limits` does not show it.
    NoLimit,
    /// The kernel, for the group of the level: a file of cgroup v2.
    Group(&'static str),
    /// The kernel, inside each worker: an rlimit, or an option of a mount.
    Worker(&'static str),
    /// Sublet, in these words.
    Sublet(&'static str),
}

/// Kept by sublet.
pub const SUBLET: Kept = Kept::Sublet("sublet");
/// The bounds of a flag.
pub const FLAG: Flag = Flag;
/// That of a setting that is true or false.
#[derive(Clone, Copy, Debug)]
pub struct Flag;

/// What a level takes from the one above when it has none of its own.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    /// Workers that live at one time, at the most.
    pub workers_max: u32,
    /// Calls accepted and not yet answered.
    pub calls_in_flight_max: u32,
}

/// The raw form of a setting.
pub trait Raw {
    /// The place of its value, where it is one value.
    fn slot(&mut self) -> Option<&mut Maybe> {
        None
    }

    /// Whether it is a list or a table: TOML writes these last.
    fn is_compound(&self) -> bool {
        true
    }
}

impl Raw for Maybe {
    fn slot(&mut self) -> Option<&mut Maybe> {
        Some(self)
    }

    fn is_compound(&self) -> bool {
        false
    }
}

impl Raw for Vec<Scalar> {}
impl Raw for Option<Vec<Scalar>> {}
impl Raw for BTreeMap<String, Scalar> {}
