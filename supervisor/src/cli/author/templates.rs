//! The directories of `sublet new`, carried in the program: no network, no second thing to install.

/// A file of a directory.
#[derive(Clone, Debug)]
pub struct File {
    /// Below the directory.
    pub path: &'static str,
    /// What is in it.
    pub text: String,
}

macro_rules! of_rootfs {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rootfs/", $path))
    };
}

/// Lines around the part of the example that speaks the protocol.
const PYTHON_BEGIN: &str = "# ---- the protocol of sublet ";
const PYTHON_END: &str = "# ---- the function ";
const PYTHON_EXAMPLE: &str = of_rootfs!("examples/sqlite-report/sqlite_report.py");
const PYTHON_HEAD: &str = r#""""The protocol of sublet's `stream` functions. Give `serve` a handler; it returns when the worker is to end."""

import os
import socket
import struct
import sys
import time
import traceback

# Whose worker this is, for life; empty for a function with isolation = "shared".
SUB_TENANT = os.environ.get("SUBLET_SUB_TENANT", "")

"#;

/// What the crate for functions needs of the link, and nothing more of it.
const LINK: &str = "//! What a function and sublet say to each other.\n\n/// See [`frame`].\npub mod link {\n    pub mod frame;\n\n    \
                    /// The descriptor on which a function finds its channel.\n    pub const CHANNEL_FD: i32 = 3;\n}\n";
const FUNCTION_MANIFEST: &str = "[package]\nname = \"sublet-function\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\nnix \
                                 = { version = \"0.31.3\", features = [\"fs\", \"socket\", \"uio\"] }\nsublet-proto = { \
                                 path = \"proto\" }\n";
const LINK_MANIFEST: &str = "[package]\nname = \"sublet-proto\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\nthiserror = \"2.0.21\"\n";

/// For a shell, started for each call.
pub fn shell() -> Vec<File> {
    vec![
        file("function.sh", of_rootfs!("templates/shell/function.sh")),
        file("sublet.toml", of_rootfs!("templates/shell/sublet.toml")),
        file("README.md", of_rootfs!("templates/shell/README.md")),
    ]
}

/// For Python's standard library.
pub fn python() -> Vec<File> {
    vec![
        file("function.py", of_rootfs!("templates/python/function.py")),
        File { path: "sublet_function.py", text: format!("{PYTHON_HEAD}{}", python_protocol()) },
        file("sublet.toml", of_rootfs!("templates/python/sublet.toml")),
        file("README.md", of_rootfs!("templates/python/README.md")),
    ]
}

fn python_protocol() -> &'static str {
    // A test sees to it that both lines are there.
    let (_, after) = PYTHON_EXAMPLE.split_once(PYTHON_BEGIN).unwrap_or_default();
    let (_, body) = after.split_once('\n').unwrap_or_default();
    let (protocol, _) = body.split_once(PYTHON_END).unwrap_or_default();
    protocol.trim_end_matches('\n')
}

/// For Rust: a project with the crate for functions in it.
pub fn rust() -> Vec<File> {
    vec![
        file("Cargo.toml", of_rootfs!("templates/rust/Cargo.toml")),
        file(".cargo/config.toml", of_rootfs!("templates/rust/.cargo/config.toml")),
        file(".gitignore", of_rootfs!("templates/rust/gitignore")),
        file("src/main.rs", of_rootfs!("templates/rust/src/main.rs")),
        file("sublet.toml", of_rootfs!("templates/rust/sublet.toml")),
        file("README.md", of_rootfs!("templates/rust/README.md")),
        file("sublet-function/Cargo.toml", FUNCTION_MANIFEST),
        file("sublet-function/src/call.rs", of_rootfs!("function/src/call.rs")),
        file("sublet-function/src/channel.rs", of_rootfs!("function/src/channel.rs")),
        file("sublet-function/src/lib.rs", of_rootfs!("function/src/lib.rs")),
        file("sublet-function/src/pieces.rs", of_rootfs!("function/src/pieces.rs")),
        file("sublet-function/src/serve.rs", of_rootfs!("function/src/serve.rs")),
        file("sublet-function/src/sys.rs", of_rootfs!("function/src/sys.rs")),
        file("sublet-function/src/worker.rs", of_rootfs!("function/src/worker.rs")),
        file("sublet-function/proto/Cargo.toml", LINK_MANIFEST),
        file("sublet-function/proto/src/lib.rs", LINK),
        file(
            "sublet-function/proto/src/link/frame.rs",
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/src/link/frame.rs")),
        ),
    ]
}

fn file(path: &'static str, text: &str) -> File {
    File { path, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    const WORKSPACE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));

    #[test]
    fn python_gets_the_whole_protocol_and_nothing_of_the_example() {
        let text = &python()[1].text;
        for part in ["def serve(handler):", "def _receive(channel):", "def _read(channel, length):"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("sqlite") && !text.contains("----"), "{text}");
    }

    #[test]
    fn crate_for_functions_is_whole_and_of_the_same_versions() {
        let paths: Vec<&str> = rust().iter().map(|file| file.path).collect();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/function/src");
        for entry in fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_file()) {
            let path = format!("sublet-function/src/{}", entry.file_name().to_string_lossy());
            assert!(paths.contains(&path.as_str()), "{path} is not carried");
        }
        let version = |manifest: &str, name: &str| {
            let table: toml::Table = manifest.parse().unwrap();
            let of = table
                .get("workspace")
                .and_then(|workspace| workspace.get("dependencies"))
                .or(table.get("dependencies"));
            let of = of.unwrap().get(name).unwrap();
            of.get("version").unwrap_or(of).as_str().unwrap().to_owned()
        };
        assert_eq!(version(FUNCTION_MANIFEST, "nix"), version(WORKSPACE, "nix"));
        assert_eq!(version(LINK_MANIFEST, "thiserror"), version(WORKSPACE, "thiserror"));
    }
}
