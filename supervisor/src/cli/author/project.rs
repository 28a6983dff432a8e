//! A function's directory, as `sublet run-local` finds it: its settings, and the configuration of a host that has no other
//! function.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::{
    cli::Failed,
    config::{self, Config, Name, Problem, Source},
    token::Keys,
};

/// Settings of the function, in its directory.
const SETTINGS: &str = "sublet.toml";
/// What Lambda's own runtimes are started by.
const BOOTSTRAP: &str = "bootstrap";
/// Whose it is here.
pub const TENANT: &str = "local";
/// Settings that are paths, and those of tables in it: they start at the function's directory, not at our file's.
const PATHS: [&[&str]; 4] = [&["dir"], &["root"], &["token", "dir"], &["token", "key"]];

/// A function.
#[derive(Debug)]
pub struct Project {
    /// Its name here.
    pub name: String,
    /// Where its settings are, for messages.
    file: PathBuf,
    dir: PathBuf,
    settings: Table,
}

impl Project {
    /// Reads its directory. `set`: settings as KEY=VALUE, over those of the file.
    ///
    /// # Errors
    /// What is missing, or wrong with the text.
    pub fn read(dir: &Path, set: &[String]) -> Result<Self, Failed> {
        let shown = dir.display();
        let dir = dir.canonicalize().map_err(|error| Failed::new(format!("{shown}: {error}")))?;
        let file = dir.join(SETTINGS);
        let (text, mut settings) = match Source::read(&file) {
            Ok(source) => {
                let settings = check_shape(&source.text).map_err(|problem| refuse(&file, &[problem]))?;
                (source.text, settings)
            }
            Err(_) if is_absent(&file) => (String::new(), found(&dir, !set.is_empty())?),
            Err(error) => return Err(refuse(&file, &error.problems)),
        };
        for one in set {
            lay(&mut settings, one)?;
        }
        if !set.is_empty() {
            let text_with = toml::to_string(&settings)?;
            check_shape(&text_with).map_err(|problem| {
                let of_file = if text.is_empty() { String::new() } else { format!(" over {}", file.display()) };
                Failed::new(format!("--set {}{of_file}: {problem}", set.join(" --set ")))
            })?;
        }
        settings.entry("dir").or_insert_with(|| ".".into());
        for path in PATHS {
            start_at(&mut settings, path, &dir);
        }
        let name = dir.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name = if Name::try_from(name.as_str()).is_ok() { name } else { "function".to_owned() };
        Ok(Self { name, file, dir, settings })
    }

    /// The tenant and the function, as a configuration has them.
    ///
    /// # Errors
    /// Never seen: what was read can be written.
    pub fn configuration(&self) -> Result<String, Failed> {
        let table = |key: &str, value: Value| Value::Table(Table::from_iter([(key.to_owned(), value)]));
        let function = table("function", table(&self.name, self.settings.clone().into()));
        let tenants = table("tenant", table(TENANT, function));
        Ok(toml::to_string(&tenants)?)
    }

    /// Checks everything that `sublet serve` would, before there is anything to clean up. `host` is the configuration's
    /// other part.
    ///
    /// # Errors
    /// All that is wrong, by the names of the function's own file.
    pub fn check(&self, host: &str) -> Result<(), Failed> {
        let config = Config::parse(&format!("{host}{}", self.configuration()?), &self.dir);
        let problems = match config {
            Err(error) => error.problems,
            Ok(mut config) => {
                let (_, mut problems) = config::check_host(&mut config, None);
                problems.extend(Keys::read(&config).err().unwrap_or_default());
                problems
            }
        };
        if problems.is_empty() { Ok(()) } else { Err(refuse(&self.file, &self.by_own_names(problems))) }
    }

    fn by_own_names(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let prefix = format!("tenant.{TENANT}.function.{}.", self.name);
        let shorter = |text: String| text.replace(&prefix, "");
        let own = |problem: Problem| Problem {
            setting: shorter(problem.setting),
            what: shorter(problem.what),
            remedy: shorter(problem.remedy),
            ..problem
        };
        problems.into_iter().map(own).collect()
    }
}

fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What a directory without settings is: a function that somebody has for Lambda, or what the command line says.
fn found(dir: &Path, has_settings: bool) -> Result<Table, Failed> {
    let bootstrap = dir.join(BOOTSTRAP);
    let is_program = bootstrap.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if is_program {
        let settings = [("runtime", "lambda"), ("layout", "host")];
        return Ok(settings.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect());
    }
    if has_settings {
        return Ok(Table::new());
    }
    Err(Failed::new(format!(
        "{} has neither {SETTINGS} nor an executable {BOOTSTRAP}; write one (`sublet new` makes a directory that has it), or say \
         what it is: --set runtime=python3.11 --set handler=app.handler --set layout=host",
        dir.display()
    )))
}

fn check_shape(text: &str) -> Result<Table, Problem> {
    config::check_function_shape(text)?;
    // It has just been read, as another type.
    Ok(text.parse().unwrap_or_default())
}

fn refuse(file: &Path, problems: &[Problem]) -> Failed {
    let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
    Failed::new(format!("{} is not used:\n{}", file.display(), lines.join("\n")))
}

/// `KEY=VALUE`, the value as TOML has it, or a text without its quotes.
fn lay(settings: &mut Table, one: &str) -> Result<(), Failed> {
    let Some((key, value)) = one.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err(Failed::new(format!("--set {one}: write KEY=VALUE, for example --set memory_max=64MiB")));
    };
    let value = match format!("value = {value}").parse::<Table>() {
        Ok(mut table) if table.len() == 1 => table.remove("value").unwrap_or_else(|| value.into()),
        Ok(_) | Err(_) => value.into(),
    };
    let mut table = settings;
    let (parents, key) = match key.rsplit_once('.') {
        Some((parents, key)) => (parents.split('.').collect(), key),
        None => (Vec::new(), key),
    };
    for parent in parents {
        let next = table.entry(parent).or_insert_with(|| Table::new().into());
        table = next.as_table_mut().ok_or_else(|| Failed::new(format!("--set {one}: {parent} is no table")))?;
    }
    table.insert(key.to_owned(), value);
    Ok(())
}

/// Makes a relative path one that starts at `dir`.
fn start_at(settings: &mut Table, path: &[&str], dir: &Path) {
    let Some((key, parents)) = path.split_last() else { return };
    let mut table = settings;
    for parent in parents {
        match table.get_mut(*parent).and_then(Value::as_table_mut) {
            Some(next) => table = next,
            None => return,
        }
    }
    if let Some(Value::String(text)) = table.get_mut(*key) {
        let joined = dir.join(&*text);
        // Ours alone are absolute already; "." is the directory itself, not one in it.
        let plain: PathBuf = joined.components().filter(|part| *part != std::path::Component::CurDir).collect();
        *text = plain.display().to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, set: &[&str]) -> Result<Table, Failed> {
        let mut table: Table = text.parse().unwrap();
        for one in set {
            lay(&mut table, one)?;
        }
        Ok(table)
    }

    #[test]
    fn settings_are_laid_over_as_values_or_as_texts() {
        let set = [
            "memory_max=64MiB",
            "calls_max=3",
            "env.A=b=c",
            "command=[\"/bin/sh\"]",
            "idempotent=true",
            "handler=\"1\"",
        ];
        let found = settings("memory_max = \"1GiB\"\n[env]\nB = \"c\"", &set).unwrap();
        let expected: Table =
            "memory_max = \"64MiB\"\ncalls_max = 3\ncommand = [\"/bin/sh\"]\nidempotent = true\nhandler = \
                               \"1\"\n[env]\nA = \"b=c\"\nB = \"c\""
                .parse()
                .unwrap();
        assert_eq!(found, expected);
        for wrong in ["memory_max", "=1"] {
            assert!(settings("", &[wrong]).unwrap_err().message.contains("KEY=VALUE"));
        }
        assert!(settings("memory_max = \"1GiB\"", &["memory_max.a=1"]).unwrap_err().message.contains("no table"));
        // What looks like a second line is a text.
        assert_eq!(settings("", &["a=1\nb = 2"]).unwrap()["a"].as_str(), Some("1\nb = 2"));
    }

    #[test]
    fn paths_start_at_the_functions_directory() {
        let mut table: Table = "dir = \".\"\nroot = \"/srv\"\n[token]\nkey = \"../key.pem\"".parse().unwrap();
        for path in PATHS {
            start_at(&mut table, path, Path::new("/home/f"));
        }
        assert_eq!(table["dir"].as_str(), Some("/home/f"));
        assert_eq!(table["root"].as_str(), Some("/srv"));
        assert_eq!(table["token"]["key"].as_str(), Some("/home/f/../key.pem"));
    }
}
