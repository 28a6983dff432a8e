//! Reads one table's settings and notes what is wrong with them, without stopping.
//!
//! A setting that is wrong is read as [`Origin::Wrong`] with a value that keeps the reading going; comparisons leave it
//! out, so that one slip is told once and not by everything that depends on it.

use std::{cell::RefCell, collections::BTreeSet, fmt, path::Path, time::Duration};

use super::{
    bounds::Bounds,
    name::Name,
    path::HostPath,
    problem::Problem,
    scalar::Scalar,
    units::{ByteSize, CallRate, CpuMillis, UnitError, format_duration, parse_duration},
};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The operator wrote it.
    Written,
    /// Nobody wrote it.
    Default,
    /// It, or what it defaults to, is wrong and has been told.
    Wrong,
}

/// A value and what is known about it.
#[derive(Clone, Debug)]
pub struct Setting<T> {
    /// Full dotted name.
    pub name: String,
    /// The value, within its bounds.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

impl<T: Value> Setting<T> {
    /// Whether the value may be compared: it is the operator's, or a default.
    pub fn is_known(&self) -> bool {
        self.origin != Origin::Wrong
    }

    /// In TOML's form, for messages.
    pub fn shown(&self) -> String {
        let note = if self.origin == Origin::Default { " (the default)" } else { "" };
        format!("{}{note}", self.value.to_toml())
    }
}

/// A kind of value that has an order and a written form.
pub trait Value: Copy + PartialOrd {
    /// As TOML has it.
    fn to_toml(self) -> String;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    fn from_scalar(scalar: &Scalar) -> Result<Self, (&'static str, &'static str)>;
}

/// Values with a unit are texts: a bare number would leave the unit to the reader's memory.
fn text_value<T>(
    scalar: &Scalar,
    otherwise: UnitError,
    parse: impl Fn(&str) -> Result<T, UnitError>,
) -> Result<T, (&'static str, &'static str)> {
    let parsed = if let Scalar::Text(text) = scalar { parse(text) } else { Err(otherwise) };
    parsed.map_err(|error| (error.what(), error.remedy()))
}

impl Value for u32 {
    fn to_toml(self) -> String {
        self.to_string()
    }

    fn from_scalar(scalar: &Scalar) -> Result<Self, (&'static str, &'static str)> {
        let number = if let Scalar::Integer(number) = scalar { Self::try_from(*number).ok() } else { None };
        number.ok_or(("not a count", "write a whole number from 0 to 4294967295, without quotes, such as 64"))
    }
}

impl Value for ByteSize {
    fn to_toml(self) -> String {
        format!("\"{self}\"")
    }

    fn from_scalar(scalar: &Scalar) -> Result<Self, (&'static str, &'static str)> {
        text_value(scalar, UnitError::Size, |text| Self::try_from(text))
    }
}

impl Value for CpuMillis {
    fn to_toml(self) -> String {
        format!("\"{self}\"")
    }

    fn from_scalar(scalar: &Scalar) -> Result<Self, (&'static str, &'static str)> {
        text_value(scalar, UnitError::Cpu, |text| Self::try_from(text))
    }
}

impl Value for CallRate {
    fn to_toml(self) -> String {
        format!("\"{self}\"")
    }

    fn from_scalar(scalar: &Scalar) -> Result<Self, (&'static str, &'static str)> {
        text_value(scalar, UnitError::Rate, |text| Self::try_from(text))
    }
}

impl Value for Duration {
    fn to_toml(self) -> String {
        format!("\"{}\"", format_duration(self))
    }

    fn from_scalar(scalar: &Scalar) -> Result<Self, (&'static str, &'static str)> {
        text_value(scalar, UnitError::Duration, parse_duration)
    }
}

/// Reads the settings of one table.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    prefix: String,
    base: &'a Path,
    problems: &'a RefCell<Vec<Problem>>,
    written: &'a RefCell<BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    /// For the top of the file. What is wrong goes to `problems`, names of settings that are there to `written`.
    pub fn new(base: &'a Path, problems: &'a RefCell<Vec<Problem>>, written: &'a RefCell<BTreeSet<String>>) -> Self {
        Self { prefix: String::new(), base, problems, written }
    }

    /// For a table in this one.
    pub fn below(&self, key: &str) -> Self {
        Self { prefix: format!("{}.", self.name(key)), ..self.clone() }
    }

    /// Full dotted name of a key, quoted where TOML wants it so.
    pub fn name(&self, key: &str) -> String {
        let is_bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if is_bare { format!("{}{key}", self.prefix) } else { format!("{}{key:?}", self.prefix) }
    }

    /// The name that the key of a table in this one must be; none when it is none, which is told.
    pub fn name_of_table(&self, key: &str, what: &str) -> Option<Name> {
        let told = |error| self.refuse(key, None, error, format!("rename the {what}, for example to \"acme-1\""));
        Name::try_from(key).map_err(told).ok()
    }

    /// Notes a problem with a key of this table.
    pub fn refuse(&self, key: &str, value: Option<String>, what: impl fmt::Display, remedy: impl fmt::Display) {
        self.note(self.name(key), value, what, remedy);
    }

    fn note(&self, name: String, value: Option<String>, what: impl fmt::Display, remedy: impl fmt::Display) {
        self.problems.borrow_mut().push(Problem::new(name, value, what, remedy));
    }

    /// Notes a problem with a setting that was read, wherever that was.
    pub fn refuse_setting<T: Value>(&self, setting: &Setting<T>, what: impl fmt::Display, remedy: impl fmt::Display) {
        self.note(setting.name.clone(), Some(setting.shown()), what, remedy);
    }

    /// Notes that somebody wrote this key.
    pub fn note_written(&self, key: &str) {
        self.written.borrow_mut().insert(self.name(key));
    }

    /// Notes that a required key is absent.
    pub fn missing(&self, key: &str, remedy: impl fmt::Display) {
        self.refuse(key, None, "missing", remedy);
    }

    /// A setting within bounds, or none if it is absent.
    pub fn optional<T: Value>(&self, key: &str, raw: Option<&Scalar>, bounds: &Bounds<T>) -> Option<Setting<T>> {
        let raw = raw?;
        self.note_written(key);
        let setting = |value, origin| Some(Setting { name: self.name(key), value, origin });
        let wrong = |what: String, remedy: String| {
            self.refuse(key, Some(raw.to_string()), what, remedy);
            setting(bounds.min, Origin::Wrong)
        };
        let value = match T::from_scalar(raw) {
            Ok(value) => value,
            Err((what, remedy)) => return wrong(what.to_owned(), remedy.to_owned()),
        };
        if value < bounds.min {
            let least = bounds.min.to_toml();
            return wrong(format!("below {least}: {}", bounds.why_min), format!("write at least {least}"));
        }
        if value > bounds.max {
            let most = bounds.max.to_toml();
            return wrong(format!("above {most}: {}", bounds.why_max), format!("write at most {most}"));
        }
        setting(value, Origin::Written)
    }

    /// A setting within bounds, or its default.
    pub fn or<T: Value>(&self, key: &str, raw: Option<&Scalar>, bounds: &Bounds<T>, default: T) -> Setting<T> {
        let absent = || Setting { name: self.name(key), value: default, origin: Origin::Default };
        self.optional(key, raw, bounds).unwrap_or_else(absent)
    }

    /// A count below others: written, it must not be above them; its default is lowered to them.
    pub fn lower(&self, setting: &mut Setting<u32>, parents: &[&Setting<u32>]) {
        for parent in parents {
            match (setting.origin, parent.origin) {
                (Origin::Default, Origin::Wrong) => setting.origin = Origin::Wrong,
                (Origin::Default, Origin::Written | Origin::Default) => setting.value = setting.value.min(parent.value),
                (Origin::Written, _) => self.at_most(setting, parent),
                (Origin::Wrong, _) => {}
            }
        }
    }

    /// Notes a limit above that of a level above it: it would never be reached, and whoever reads it is misled.
    pub fn at_most<T: Value>(&self, setting: &Setting<T>, parent: &Setting<T>) {
        if !setting.is_known() || !parent.is_known() || setting.value <= parent.value {
            return;
        }
        let Setting { name, .. } = parent;
        self.note(
            setting.name.clone(),
            Some(setting.shown()),
            format!("above {name} = {}", parent.shown()),
            format!("write at most {}, or raise {name}", parent.value.to_toml()),
        );
    }

    /// As [`Self::at_most`], against the nearest of the levels above that has the limit.
    pub fn at_most_nearest<T: Value>(&self, setting: Option<&Setting<T>>, parents: &[Option<&Setting<T>>]) {
        if let (Some(setting), Some(parent)) = (setting, parents.iter().flatten().next()) {
            self.at_most(setting, parent);
        }
    }

    /// A text, or none if it is absent or wrong.
    pub fn text<'t>(&self, key: &str, raw: Option<&'t Scalar>, example: &str) -> Option<&'t str> {
        let raw = raw?;
        self.note_written(key);
        match raw {
            Scalar::Text(text) => Some(text),
            other => {
                self.refuse(
                    key,
                    Some(other.to_string()),
                    "not a text",
                    format!("write it in quotes, such as {example:?}"),
                );
                None
            }
        }
    }

    /// One of a list of words, or none if it is absent or wrong.
    pub fn choice<T: Copy>(&self, key: &str, raw: Option<&Scalar>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key, raw, choices.first().map_or("", |(word, _)| word))?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.refuse(key, Some(format!("{text:?}")), "not a choice", format!("write one of {}", words.join(", ")));
        }
        found
    }

    /// The words of a command that are right; each wrong one is told.
    pub fn words(&self, key: &str, raw: &[Scalar]) -> Vec<String> {
        let mut words = Vec::new();
        for word in raw {
            match word {
                Scalar::Text(text) if text.contains('\0') => {
                    self.refuse(key, Some(word.to_string()), "contains a NUL byte, which ends a text", "remove it");
                }
                Scalar::Text(text) => words.push(text.clone()),
                other => self.refuse(key, Some(other.to_string()), "not a text", "write it in quotes"),
            }
        }
        words
    }

    /// true or false; the default if it is absent or wrong.
    pub fn flag(&self, key: &str, raw: Option<&Scalar>, default: bool) -> bool {
        if raw.is_some() {
            self.note_written(key);
        }
        match raw {
            None => default,
            Some(Scalar::Bool(value)) => *value,
            Some(other) => {
                self.refuse(key, Some(other.to_string()), "not true or false", "write true or false, without quotes");
                default
            }
        }
    }

    /// A path, made absolute, or none if it is absent or wrong.
    pub fn path(&self, key: &str, raw: Option<&Scalar>, example: &str) -> Option<HostPath> {
        let text = self.text(key, raw, example)?;
        match HostPath::resolve(text, self.base) {
            Ok(path) => Some(path),
            Err(error) => {
                self.refuse(
                    key,
                    Some(format!("{text:?}")),
                    error,
                    format!("write an absolute path, such as {example:?}"),
                );
                None
            }
        }
    }
}
