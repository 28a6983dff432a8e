//! The configuration, as an operator writes it.

use std::path::Path;

use sublet_supervisor::{
    config::{Config, Problem, check_function_shape},
    fuzz::differences,
};

use crate::target;

/// Of the text itself, or of a setting by its full name.
fn names_what_is_wrong(problem: &Problem) {
    assert!(!problem.setting.is_empty() && !problem.what.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
    let told = problem.to_string();
    // An operator's terminal gets what a text, a template or a web form had in it.
    assert!(!told.chars().any(char::is_control), "{told:?}");
    // The name, the value and the rest: a value is cut to 120 characters, a key is what the text has.
    assert!(problem.value.as_ref().is_none_or(|value| value.chars().count() <= 130), "{told}");
}

#[test]
fn text_is_refused_by_name_or_is_the_same_whenever_it_is_read() {
    target!(16 * 1024).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        match Config::parse(text, Path::new("/etc/sublet")) {
            Ok(config) => {
                assert_eq!(differences(&config, &config), [""; 0]);
                // A line end more is no difference; nor is reading it twice.
                let again = Config::parse(&format!("{text}\n"), Path::new("/etc/sublet")).expect("it was taken before");
                assert_eq!(differences(&config, &again), [""; 0]);
                assert!(config == again);
                // What `check-config --json` prints.
                serde_json::to_string(&config).expect("it can be printed");
            }
            Err(error) => {
                assert!(!error.problems.is_empty());
                error.problems.iter().for_each(names_what_is_wrong);
            }
        }
        if let Err(problem) = check_function_shape(text) {
            names_what_is_wrong(&problem);
        }
    });
}
