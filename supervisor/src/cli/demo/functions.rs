//! The demo's functions, and its tenant.

use std::path::Path;

use crate::cli::{
    Failed,
    stage::{Host, make_dir, write_file},
};

const NOTES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rootfs/examples/notes/notes.sh"));
const WORDS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rootfs/examples/words/words.sh"));
const REPORT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rootfs/examples/sqlite-report/sqlite_report.py"));
const PYTHON: &str = "/usr/bin/python3";

/// Whether this host has Python for the report function.
pub fn has_python() -> bool {
    Path::new(PYTHON).exists()
}

/// Writes the functions and returns the tenant that has them.
pub fn prepare(host: &Host<'_>) -> Result<String, Failed> {
    for (name, file, text) in
        [("notes", "notes.sh", NOTES), ("words", "words.sh", WORDS), ("report", "sqlite_report.py", REPORT)]
    {
        let dir = host.dir.join(name);
        make_dir(&dir)?;
        write_file(&dir.join(file), text)?;
    }
    let mut text = "[tenant.acme.sub_tenant]\nmemory_max = \"256MiB\"\n".to_owned();
    let mut function = |name: &str, runtime: &str, command: &str, more: &str| {
        text.push_str(&format!(
            "\n[tenant.acme.function.{name}]\nruntime = {runtime:?}\nlayout = \"host\"\ndir = {:?}\ncommand = [{command}]\n{more}",
            host.dir.join(name).display().to_string()
        ));
    };
    function("notes", "exec", r#""/bin/sh", "/function/notes.sh""#, "memory_max = \"32MiB\"\npids_max = 16\n");
    function("words", "exec", r#""/bin/sh", "/function/words.sh""#, "");
    if has_python() {
        function("report", "stream", r#""/usr/bin/python3", "-I", "/function/sqlite_report.py""#, "");
    }
    Ok(text)
}
