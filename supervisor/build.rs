//! Builds the shim as a static program and leaves it where `include_bytes!` finds it: one file to install, and no way for
//! supervisor and shim to be of different versions.
//!
//! It uses the same cargo, in a target directory of its own (the outer build holds the lock of the other). The host's C
//! library is linked statically, which needs no further target and no musl.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    for part in ["shim", "proto/src/link", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(part).display());
    }
    let target = env::var("TARGET")?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let build_dir = out.join("shim-target");
    let mut cargo = Command::new(env::var("CARGO")?);
    // A caller's flags are for the outer build; here they would unset the one flag that matters.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTC_WRAPPER").env_remove("RUSTC_WORKSPACE_WRAPPER");
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    cargo.args([
        "build",
        "--release",
        "--locked",
        "--package",
        "sublet-shim",
        "--bin",
        "sublet-shim",
        "--target",
        &target,
    ]);
    cargo.arg("--manifest-path").arg(workspace.join("Cargo.toml")).arg("--target-dir").arg(&build_dir);
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!(
            "building the static shim failed: {status}; it needs a static C library (Debian: libc6-dev)"
        )
        .into());
    }
    let built = build_dir.join(&target).join("release/sublet-shim");
    refuse_dynamic(&built)?;
    fs::copy(built, out.join("sublet-shim"))?;
    Ok(())
}

/// A shim that needs a loader could not run in a worker's root.
fn refuse_dynamic(program: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(program)?;
    let interpreter = b"/ld-linux";
    if bytes.windows(interpreter.len()).any(|window| window == interpreter) {
        return Err("the shim came out dynamically linked; is a static C library installed (Debian: libc6-dev)?".into());
    }
    Ok(())
}
