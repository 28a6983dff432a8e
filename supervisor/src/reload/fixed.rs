//! What cannot change while the supervisor runs, and why. A reload that asks for it is refused by name.

use std::{collections::BTreeSet, path::Path};

use crate::{
    config::{Changes, Config, Function, HostPath, LevelPath, Problem, rows},
    descriptors,
    jail::Jail,
    runner,
};

/// What of `[host]` needs a restart, with the reason.
fn fixed() -> impl Iterator<Item = (&'static str, &'static str)> {
    rows(&LevelPath::Host).into_iter().filter_map(|row| match row.changes {
        Changes::Restart(why) => Some((row.key, why)),
        Changes::Reload | Changes::Set | Changes::NewWorkers => None,
    })
}

/// What was decided on at the start.
#[derive(Debug)]
pub struct Fixed {
    /// Directories the nursery was given, with all that is below them.
    bounds: Vec<HostPath>,
    /// Largest payload and answer the front was started for, in bytes.
    frames: (u32, u32),
    descriptors: u64,
    /// Token programs the runner was told of.
    commands: BTreeSet<Vec<String>>,
    jail: Jail,
}

impl Fixed {
    /// By a configuration that is in force. `descriptors` may be open at one time; `jail` says what can still be read.
    pub fn new(config: &Config, descriptors: u64, jail: Jail) -> Self {
        let bounds = config.bounds().into_iter().cloned().collect();
        Self { bounds, frames: largest_frames(config), descriptors, commands: runner::commands(config), jail }
    }

    /// Everything in `new` that would need a restart.
    pub fn problems(&self, old: &Config, new: &Config) -> Vec<Problem> {
        let mut problems = self.of_host(old, new);
        problems.extend(foreign_dirs(&self.bounds, new));
        problems.extend(self.too_large(new));
        problems.extend(runner::undeclared(&self.commands, new));
        problems.extend(self.jail.undeclared(new));
        problems
    }

    fn of_host(&self, old: &Config, new: &Config) -> Vec<Problem> {
        let host = |config: &Config| serde_json::to_value(&config.host).unwrap_or_default();
        let (old, new_host) = (host(old), host(new));
        let mut problems: Vec<Problem> = fixed()
            .filter(|(key, _)| old[key] != new_host[key])
            .map(|(key, why)| {
                let what = format!("was {} at the start, and {why}", old[key]);
                Problem::new(
                    format!("host.{key}"),
                    Some(new_host[key].to_string()),
                    what,
                    "write the old value, or restart",
                )
            })
            .collect();
        let needed = descriptors::needed(&new.host);
        if needed > self.descriptors {
            let what = format!("needs {needed} open files, and {} are allowed since the start", self.descriptors);
            let value = Some(new.host.workers_max.to_string());
            problems.push(Problem::new("host.workers_max", value, what, "write less, or restart"));
        }
        problems
    }

    fn too_large(&self, new: &Config) -> Vec<Problem> {
        let (payload, answer) = largest_frames(new);
        let mut problems = Vec::new();
        for (key, largest, limit) in [("payload_max", payload, self.frames.0), ("answer_max", answer, self.frames.1)] {
            if largest > limit {
                let what = format!("the server was started for messages of {limit} bytes at the most");
                let value = Some(format!("{largest} bytes"));
                problems.push(Problem::new(format!("the largest {key}"), value, what, "write less, or restart"));
            }
        }
        problems
    }
}

/// What is not below the directories that the nursery was given. With `host.function_dirs`, whoever checks the text refuses it
/// before.
fn foreign_dirs(bounds: &[HostPath], new: &Config) -> Vec<Problem> {
    let is_known = |dir: &HostPath| bounds.iter().any(|known| known.contains(dir));
    let what = "the nursery was told at the start which directories workers may see, and this is not below them";
    let mut problems = Vec::new();
    for (tenant, name, function) in new.functions() {
        for (key, dir) in [("dir", Some(&function.dir)), ("root", function.layout.root())] {
            let Some(dir) = dir.filter(|dir| !is_known(dir)) else { continue };
            let remedy = match dir.as_path().parent().filter(|parent| *parent != Path::new("/")) {
                Some(parent) => format!(
                    "write host.function_dirs = [{:?}] and restart once; what is below comes by a reload from then on",
                    parent.display().to_string()
                ),
                None => "restart".to_owned(),
            };
            let setting = format!("tenant.{tenant}.function.{name}.{key}");
            problems.push(Problem::new(setting, Some(format!("{:?}", dir.as_str())), what, remedy));
        }
    }
    problems
}

fn largest_frames(config: &Config) -> (u32, u32) {
    let of = |f: fn(&Function) -> u32| config.functions().map(|(_, _, function)| f(function)).max().unwrap_or(0);
    (of(|function| function.payload_max_bytes), of(|function| function.answer_max_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_out_of_bounds_is_refused_by_name_with_the_remedy() {
        let config = |dirs: [&str; 2]| {
            let functions = ["a", "b"].into_iter().zip(dirs).map(|(name, dir)| {
                format!(
                    "[tenant.acme.function.{name}]\nruntime = \"exec\"\nlayout = \"static\"\ndir = {dir:?}\ncommand = [\"/function/f\"]\n"
                )
            });
            let text = format!("[host]\nstate_dir = \"/run/sublet\"\n{}", functions.collect::<String>());
            Config::parse(&text, Path::new("/")).unwrap()
        };
        let start = config(["/srv/a", "/srv/b"]);
        let bounds: Vec<HostPath> = start.bounds().into_iter().cloned().collect();
        assert_eq!(foreign_dirs(&bounds, &config(["/srv/a/v2", "/srv/b"])), []);
        let told = foreign_dirs(&bounds, &config(["/srv/a", "/srv/b2"]));
        let [problem] = &told[..] else { panic!("{told:?}") };
        let text = problem.to_string();
        for words in ["tenant.acme.function.b.dir = \"/srv/b2\"", "host.function_dirs = [\"/srv\"] and restart once"] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn each_setting_that_needs_a_restart_can_be_compared() {
        let config = Config::parse("host.state_dir = \"/s\"", Path::new("/")).unwrap();
        let host = serde_json::to_value(&config.host).unwrap();
        // How log files are written is part of where logs go.
        let of_files = ["log_dir", "log_file_size", "log_files"];
        for (key, why) in fixed().filter(|(key, _)| !of_files.contains(key)) {
            assert!(host.get(key).is_some(), "host.{key} is not among the values that are compared, and {why}");
        }
        assert!(fixed().count() > 20, "{}", fixed().count());
    }
}
