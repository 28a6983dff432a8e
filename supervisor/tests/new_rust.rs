//! `sublet new rust` makes a project that builds, from what is in the program and on this machine alone.

use std::{fs, path::PathBuf, process::Command};

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn new_rust_project_builds_as_one_static_program() {
    let scratch = Scratch(std::env::temp_dir().join(format!("sublet-new-rust-{}", std::process::id())));
    let project = scratch.0.join("hello");
    fs::create_dir(&scratch.0).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_sublet")).args(["new", "rust"]).arg(&project).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Whoever builds this test has the two crates it needs; the registry is not asked.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--quiet"]).current_dir(&project);
    // Settings of the outer build would replace those of the project.
    for name in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    let built = cargo.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let program = fs::read(project.join("target/x86_64-unknown-linux-gnu/debug/function")).unwrap();
    assert_eq!(&program[..4], b"\x7fELF");
    assert!(!program.windows(9).any(|window| window == b"/ld-linux"), "it needs a loader");
}
