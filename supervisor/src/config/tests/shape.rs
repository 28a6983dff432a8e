//! Rules of the text as a whole: syntax, unknown and double names, all problems at once, files.

use std::fs;

use super::*;

fn refused(text: &str) -> String {
    Config::parse(text, Path::new(BASE)).expect_err(text).to_string()
}

#[test]
fn unknown_settings_are_refused_by_line_at_every_level() {
    for (header, line) in [
        ("", 1),
        ("[host]\n", 2),
        ("[tenant.acme]\n", 2),
        ("[tenant.acme.sub_tenant]\n", 2),
        ("[tenant.acme.function.resize]\n", 2),
    ] {
        let told = refused(&format!("{header}memroy_max = \"1GiB\"\n"));
        let expected = format!("line {line} = `memroy_max = \"1GiB\"`: unknown setting `memroy_max`, expected ");
        assert!(told.starts_with(&expected), "{told}");
        assert!(told.ends_with("; correct the name or remove the line"), "{told}");
    }
}

#[test]
fn second_function_of_one_name_is_refused() {
    let again = "[tenant.acme.function.resize]";
    let told = refused(&format!("{MINIMAL}{again}\nruntime = \"exec\"\n"));
    assert_eq!(
        told,
        "line 10 = `[tenant.acme.function.resize]`: this name is there a second time; keep one of the two; \
         every setting, and every table such as [tenant.NAME.function.NAME], is written once"
    );
}

#[test]
fn second_setting_of_one_name_is_refused() {
    let told = refused("[host]\nworkers_max = 1\nworkers_max = 2\n");
    assert!(told.starts_with("line 3 = `workers_max = 2`: this name is there a second time; "), "{told}");
}

#[test]
fn syntax_errors_are_told_by_line() {
    for (text, line) in [("[host\n", 1), ("[host]\nstate_dir = \n", 2), ("[host]\n\nstate_dir = \"x\n", 3)] {
        let told = refused(text);
        assert!(told.starts_with(&format!("line {line} = `")) && told.ends_with("; correct the line"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn table_or_list_where_a_value_belongs_is_refused_by_line() {
    for text in
        ["[host]\nworkers_max = [1]\n", "[host]\nworkers_max = { a = 1 }\n", "[host]\nworkers_max = 1979-05-27\n"]
    {
        let told = refused(text);
        assert!(told.starts_with("line 2 = `workers_max = "), "{told}");
        assert!(told.contains("expected a single text or number"), "{told}");
    }
    assert!(refused("host = 1\n").contains("expected a table: [host]"));
    assert!(refused("[tenant]\nacme = 1\n").contains("expected a table: [tenant.NAME]"));
}

#[test]
fn all_wrong_values_are_told_at_once_each_on_a_line() {
    let told = told(&[
        ("host.workers_max", "0"),
        ("host.listen", "\"0.0.0.0:1\""),
        ("tenant.acme.memory_max", "\"1MB\""),
        ("tenant.acme.sub_tenant.cpu_weight", "0"),
        (&format!("{F}.runtime"), "\"node\""),
        (&format!("{F}.dir"), ""),
        (&format!("{F}.timeout"), "30"),
        (&format!("{F}.env"), "{ SUBLET_X = \"1\" }"),
    ]);
    let names: Vec<&str> = told.iter().map(|line| line.split([' ', ':']).next().unwrap_or_default()).collect();
    assert_eq!(
        names,
        [
            "host.workers_max",
            "host.listen",
            "tenant.acme.memory_max",
            "tenant.acme.sub_tenant.cpu_weight",
            "tenant.acme.function.resize.runtime",
            "tenant.acme.function.resize.dir",
            "tenant.acme.function.resize.env.SUBLET_X",
            "tenant.acme.function.resize.timeout",
        ]
    );
}

#[test]
fn empty_text_lacks_only_what_is_required() {
    assert_eq!(refused("").lines().count(), 1);
    let config = Config::parse("host.state_dir = \"/s\"", Path::new(BASE)).expect("no tenant is no error");
    assert!(config.tenants.is_empty());
}

#[test]
fn configuration_prints_as_json_in_the_units_it_is_written_in() {
    let json = serde_json::to_value(taken(&[(&format!("{F}.age_max"), "\"1h\"")])).expect("plain data");
    let function = &json["tenants"]["acme"]["functions"]["resize"];
    assert_eq!(json["host"]["socket_mode"], "0600");
    assert_eq!(function["memory_max"], "128MiB");
    assert_eq!(function["cpu_quota"], "1000m");
    assert_eq!(function["timeout"], "30s");
    assert_eq!((&function["age_max"], &function["freeze_after"]), (&"1h".into(), &"100ms".into()));
    assert_eq!((&function["layout"], &function["isolation"]), (&"static".into(), &"sub-tenant".into()));
    assert_eq!(function["payload_max_bytes"], 6 << 20);
}

#[test]
fn directories_of_all_functions_fit_one_message() {
    let text = |functions: usize| {
        let mut text = "host.state_dir = \"/s\"\n".to_owned();
        for index in 0..functions {
            // 4095 bytes each, 8193 as JSON at the most.
            let dir = format!("/{}/{index:03}", "a".repeat(4090));
            text += &format!("[tenant.a.function.f{index}]\nruntime = \"exec\"\nlayout = \"static\"\n");
            text += &format!("dir = \"{dir}\"\ncommand = [\"/function/f\"]\n");
        }
        text
    };
    assert!(Config::parse(&text(5), Path::new(BASE)).is_ok());
    assert_eq!(
        refused(&text(6)),
        "tenant: the directories of all functions take 49158 bytes, and the nursery's message has room for 49152; \
         use shorter paths, or share a directory between functions"
    );
}

/// A directory of this test's own, removed at its end.
pub struct Scratch(std::path::PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sublet-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("temporary directory");
        Self(path.canonicalize().expect("it exists"))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

#[test]
fn file_is_read_and_relative_paths_lie_beside_it() {
    let scratch = Scratch::new("relative");
    let file = scratch.path().join("sublet.toml");
    fs::write(&file, MINIMAL.replace("/srv/functions/resize", "resize")).expect("scratch is writable");
    let config = load(&file).expect("it is taken");
    let function = config.function("acme", "resize").expect("it is there");
    assert_eq!(function.dir.as_path(), scratch.path().join("resize"));
}

#[test]
fn file_that_cannot_be_read_is_told_by_path() {
    let scratch = Scratch::new("missing");
    let file = scratch.path().join("none.toml");
    let told = load(&file).expect_err("it is not there").to_string();
    assert!(told.starts_with(&format!("configuration file = {:?}: open: ", file.display().to_string())), "{told}");
    assert!(told.ends_with("; give the path of a TOML file that sublet may read"), "{told}");
}

#[test]
fn file_one_byte_too_large_is_refused() {
    let scratch = Scratch::new("large");
    let file = scratch.path().join("large.toml");
    let most = usize::try_from(CONFIG_MAX_BYTES).expect("1 MiB");
    let padded = |len: usize| format!("{MINIMAL}#{}", "x".repeat(len - MINIMAL.len() - 1));
    fs::write(&file, padded(most)).expect("scratch is writable");
    assert!(load(&file).is_ok());
    fs::write(&file, padded(most + 1)).expect("scratch is writable");
    assert!(load(&file).expect_err("too large").to_string().contains(": larger than 1048576 bytes; "));
}
