//! `sublet new`: a directory with a function that runs.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::templates::{self, File};
use crate::cli::{Failed, output};

/// What to make, and where.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// What it is written in.
    language: Language,
    /// The directory: one that is not there yet, or is empty.
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    /// A program that stays loaded, static: the fastest, and the least to attack.
    Rust,
    /// A process that stays loaded, with nothing but the standard library.
    Python,
    /// A process for each call.
    Shell,
}

/// Makes the directory, whole or not at all.
pub fn run(args: &NewArgs, json: bool) -> Result<(), Failed> {
    let (files, more) = match args.language {
        Language::Rust => (templates::rust(), Some("cargo build --release")),
        Language::Python => (templates::python(), None),
        Language::Shell => (templates::shell(), None),
    };
    let shown = args.dir.display();
    let about = |error: io::Error| Failed::new(format!("make {shown}: {error}"));
    vacant(&args.dir)?;
    let name = args.dir.file_name().ok_or_else(|| Failed::new(format!("{shown} is no name for a directory")))?;
    // Beside it, so that the last step is one rename, which takes the place of an empty directory as well.
    let part = args.dir.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let made = make(&part, &files).and_then(|()| fs::rename(&part, &args.dir));
    if let Err(error) = made {
        // The message matters more than a directory that would not go.
        fs::remove_dir_all(&part).ok();
        return Err(about(error));
    }
    let steps: Vec<String> = std::iter::once(format!("cd {shown}"))
        .chain(more.map(str::to_owned))
        .chain(["sublet run-local . --sub-tenant customer-1 --payload '\"world\"'".to_owned()])
        .collect();
    if json {
        let names: Vec<&str> = files.iter().map(|file| file.path).collect();
        output::say_json(&json!({ "dir": args.dir, "files": names, "next": steps }))?;
        return Ok(());
    }
    output::say(format_args!("{shown} holds a function. See it run, as root:\n  {}", steps.join("\n  ")))?;
    Ok(())
}

fn vacant(dir: &Path) -> Result<(), Failed> {
    let shown = dir.display();
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failed::new(format!("look at {shown}: {error}"))),
        Ok(metadata) if !metadata.is_dir() => {
            Err(Failed::new(format!("{shown} is there and is no directory; name another")))
        }
        Ok(_) if fs::read_dir(dir)?.next().is_some() => {
            Err(Failed::new(format!("{shown} is not empty, and nothing in it is overwritten; name a new directory")))
        }
        Ok(_) => Ok(()),
    }
}

/// With modes that workers can read, whatever our umask: their ids own nothing on the host.
fn make(dir: &Path, files: &[File]) -> io::Result<()> {
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let made = (|| {
        let new_dir = |path: &Path| DirBuilder::new().mode(0o755).recursive(true).create(path);
        new_dir(dir)?;
        for file in files {
            let path = dir.join(file.path);
            path.parent().map_or(Ok(()), new_dir)?;
            let mut out = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
            out.write_all(file.text.as_bytes())?;
        }
        Ok(())
    })();
    nix::sys::stat::umask(umask);
    made
}
