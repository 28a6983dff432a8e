//! What is wrong with a configuration, in the operator's words.

use std::fmt;

use serde::Serialize;

/// Longest piece of a value that is shown, in characters: a whole file pasted into a setting must not fill the log.
const SHOWN_MAX_CHARS: usize = 120;

/// One thing to correct. Prints as `setting = value: what; remedy`, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Full dotted name, for example `tenant.acme.function.resize.memory_max`; or `line 12`, where the text itself is
    /// at fault.
    pub setting: String,
    /// The value as TOML has it, or what it defaults to; none if there is no value to show.
    pub value: Option<String>,
    /// Why it cannot stay.
    pub what: String,
    /// What to write or do instead.
    pub remedy: String,
}

impl Problem {
    pub(crate) fn new(
        setting: impl Into<String>,
        value: Option<String>,
        what: impl fmt::Display,
        remedy: impl fmt::Display,
    ) -> Self {
        let value = value.map(|value| plain(&shorten(&value)));
        let (setting, what, remedy) = (plain(&setting.into()), plain(&what.to_string()), plain(&remedy.to_string()));
        Self { setting, value, what, remedy }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// With control characters escaped: what a text has in it must neither end the line nor act on the terminal that shows it.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.setting)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

/// A configuration that is not used. Prints each problem on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// All that is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_one_line() {
        let problem = |name: &str| Problem::new(name, Some("0".into()), "is zero", "write at least 1");
        let error = ConfigError { problems: vec![problem("a"), problem("b")] };
        assert_eq!(error.to_string(), "a = 0: is zero; write at least 1\nb = 0: is zero; write at least 1");
    }

    #[test]
    fn control_characters_are_escaped_wherever_they_stand() {
        let problem = Problem::new("a\nb", Some("\u{1b}[2J".into()), "is\tno \u{9b}word", "write\rone");
        assert_eq!(problem.to_string(), r"a\nb = \u{1b}[2J: is\tno \u{9b}word; write\rone");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let longest = "\u{e9}".repeat(SHOWN_MAX_CHARS);
        assert_eq!(shorten(&longest), longest);
        assert_eq!(shorten(&format!("{longest}x")), format!("{longest}..."));
    }
}
