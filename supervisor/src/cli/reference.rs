//! The reference of all commands, supervisor/docs/command-line.md, is written by these tests from what `--help` prints; and what
//! any page shows of a command is one that there is.

use std::{fmt::Write as _, fs, path::Path};

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;
use crate::golden;

const PAGE: &str = "supervisor/docs/command-line.md";

/// A cell of a table: no line ends, and no bar that would end it.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// How an argument is written: `-s, --sub-tenant <SUB_TENANT>`.
fn written(arg: &Arg) -> String {
    let names = [arg.get_short().map(|short| format!("-{short}")), arg.get_long().map(|long| format!("--{long}"))];
    let names: Vec<String> = names.into_iter().flatten().collect();
    let takes_value = arg.get_action().takes_values();
    let values = arg.get_value_names().unwrap_or_default().iter().map(|name| format!("<{name}>"));
    let values = if takes_value { values.collect::<Vec<_>>().join(" ") } else { String::new() };
    [names.join(", "), values].join(" ").trim().to_owned()
}

/// What an argument means, with its choices, its variable and its default.
fn meaning(arg: &Arg) -> String {
    let mut text = cell(&arg.get_help().map(ToString::to_string).unwrap_or_default());
    if !text.ends_with('.') {
        text.push('.');
    }
    let choices = if arg.get_action().takes_values() { arg.get_possible_values() } else { Vec::new() };
    for choice in choices {
        let help = choice.get_help().map(ToString::to_string).unwrap_or_default();
        write!(text, " `{}`: {}.", choice.get_name(), cell(&help).trim_end_matches('.')).unwrap();
    }
    if let Some(variable) = arg.get_env() {
        write!(text, " Environment: `{}`.", variable.display()).unwrap();
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.display().to_string()).collect();
    if !arg.is_hide_default_value_set() && arg.get_action().takes_values() && !defaults.is_empty() {
        write!(text, " Default: `{}`.", defaults.join(" ")).unwrap();
    }
    text
}

#[test]
fn page_is_what_help_says() {
    let mut cli = Cli::command();
    cli.build();
    let mut index = String::from("| command | |\n|---|---|\n");
    let mut text = String::new();
    for command in cli.get_subcommands_mut() {
        let name = command.get_name().to_owned();
        if name == "help" {
            continue;
        }
        let about = cell(&command.get_about().map(ToString::to_string).unwrap_or_default());
        writeln!(index, "| [`sublet {name}`](#sublet-{name}) | {about} |").unwrap();
        let usage = command.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim();
        writeln!(text, "### sublet {name}\n\n{about}\n\n    {usage}\n").unwrap();
        let args = command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "json" | "version"));
        let lines: Vec<String> = args.map(|arg| format!("| `{}` | {} |", written(arg), meaning(arg))).collect();
        if !lines.is_empty() {
            writeln!(text, "| argument | |\n|---|---|\n{}\n", lines.join("\n")).unwrap();
        }
        if let Some(more) = command.get_after_help() {
            writeln!(text, "```text\n{more}\n```\n").unwrap();
        }
    }
    golden::section(PAGE, "index", &index);
    golden::section(PAGE, "commands", &text);
}

/// All pages below a directory.
fn pages(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// What is wrong with a command line that a page shows; it begins behind "sublet ".
fn wrong(cli: &Command, line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') || name.starts_with('-') {
        return None;
    }
    let Some(command) = cli.find_subcommand(name) else { return Some(format!("there is no command {name:?}")) };
    let options =
        words.take_while(|word| !matches!(*word, "|" | "||" | "&&" | "#")).filter_map(|word| word.strip_prefix("--"));
    for option in options {
        let option = option.split('=').next().unwrap_or_default().trim_end_matches([']', ',', '.', ';']);
        let is_known = command.get_arguments().any(|arg| arg.get_long() == Some(option));
        if !is_known && !matches!(option, "help" | "version") {
            return Some(format!("`sublet {name}` has no option --{option}"));
        }
    }
    None
}

#[test]
fn commands_on_the_pages_are_commands_that_there_are() {
    let mut cli = Cli::command();
    cli.build();
    assert!(wrong(&cli, "servee").is_some() && wrong(&cli, "ps --tenants acme").is_some());
    assert_eq!(wrong(&cli, "drain --stop --grace=1s"), None);
    let mut found = Vec::new();
    pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
    let (mut shown, mut told) = (0, Vec::new());
    for (path, text) in found {
        for line in text.lines() {
            let spans = line.split('`').skip(1).step_by(2);
            // At a prompt, or set off: a line of prose may begin with the name as well.
            let set_off = line.strip_prefix("# ").or(line.strip_prefix(' ')).filter(|_| !line.contains('`'));
            for command in spans.chain(set_off).filter_map(|span| span.trim_start().strip_prefix("sublet ")) {
                shown += 1;
                told.extend(wrong(&cli, command).map(|what| format!("{path}: sublet {command}: {what}")));
            }
        }
    }
    assert!(shown > 100, "{shown}");
    assert!(told.is_empty(), "{}", told.join("\n"));
}
