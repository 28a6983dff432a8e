//! Rules of the logs in `[host]`.

use super::*;
use crate::config::LogTo;

const FILES: (&str, &str) = ("host.log", "\"files\"");
const DIR: (&str, &str) = ("host.log_dir", "\"/var/log/sublet\"");

#[test]
fn logs_are_kept_in_memory_and_written_where_it_says() {
    let host = taken(&[]).host;
    assert_eq!((host.log, host.log_memory.bytes()), (LogTo::None, 16 << 20));
    assert_eq!(taken(&[("host.log", "\"stdout\"")]).host.log, LogTo::Stdout);
    let LogTo::Files { dir, size, count } = taken(&[FILES, DIR]).host.log else { panic!("files") };
    assert_eq!((dir.as_str(), size.bytes(), count), ("/var/log/sublet", 64 << 20, 8));
    let more = [FILES, DIR, ("host.log_file_size", "\"1MiB\""), ("host.log_files", "1")];
    let LogTo::Files { size, count, .. } = taken(&more).host.log else { panic!("files") };
    assert_eq!((size.bytes(), count), (1 << 20, 1));
}

#[test]
fn numbers_of_logs_have_bounds() {
    bounded(&[], "host.log_memory", "\"63KiB\"", "\"64KiB\"", "\"16GiB\"", "\"17GiB\"");
    bounded(&[FILES, DIR], "host.log_file_size", "\"1023KiB\"", "\"1MiB\"", "\"1024GiB\"", "\"1025GiB\"");
    bounded(&[FILES, DIR], "host.log_files", "0", "1", "1000", "1001");
}

#[test]
fn files_need_a_directory_and_nothing_else_takes_one() {
    only(
        &[FILES],
        "host.log_dir: missing; add a directory of its own, such as log_dir = \"/var/log/sublet\" in [host]",
    );
    let remedy = "says how files are written, and none are; write log = \"files\" as well, or remove it";
    only(&[DIR], &format!("host.log_dir = \"/var/log/sublet\": {remedy}"));
    only(&[("host.log", "\"stdout\""), ("host.log_files", "2")], &format!("host.log_files = 2: {remedy}"));
}

#[test]
fn place_that_is_none_is_refused() {
    let problems = told(&[("host.log", "\"syslog\"")]);
    assert!(problems.len() == 1 && problems[0].contains("stdout") && problems[0].contains("files"), "{problems:?}");
}

#[test]
fn log_directory_is_not_a_functions() {
    let dir = format!("{F}.dir");
    let problems =
        told(&[FILES, ("host.log_dir", "\"/srv/functions/resize/logs\""), (&dir, "\"/srv/functions/resize\"")]);
    assert!(problems.iter().any(|problem| problem.contains("host.log_dir")), "{problems:?}");
}
