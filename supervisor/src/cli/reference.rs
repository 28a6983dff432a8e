//! The reference of all commands, supervisor/docs/command-line.md, is written by this test from what `--help` prints.

use std::fmt::Write as _;

use clap::{Arg, CommandFactory as _};

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
