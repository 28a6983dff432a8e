//! Rules of what must be on the host.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use super::{shape::Scratch, *};

/// A function and a root that are as they should be.
fn whole(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    mode(scratch.path(), 0o755);
    for dir in ["f", "f/bin", "root", "root/proc", "root/dev", "root/tmp", "root/function", "root/bin"] {
        fs::create_dir(scratch.path().join(dir)).expect("scratch is writable");
        mode(&scratch.path().join(dir), 0o755);
    }
    for file in ["f/resize", "f/bin/resize", "root/bin/python"] {
        fs::write(scratch.path().join(file), "a program").expect("scratch is writable");
        mode(&scratch.path().join(file), 0o755);
    }
    scratch
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

fn check(scratch: &Scratch, program: &str, layout: &str) -> Vec<String> {
    let path = |name: &str| format!("{:?}", scratch.path().join(name).display().to_string());
    let root = if layout == "dir" { path("root") } else { String::new() };
    let config = taken(&[
        (&format!("{F}.dir"), &path("f")),
        (&format!("{F}.layout"), &format!("{layout:?}")),
        (&format!("{F}.root"), &root),
        (&format!("{F}.command"), &format!("[{program:?}]")),
    ]);
    let base = scratch.path().display().to_string();
    check_disk(&config).iter().map(|problem| problem.to_string().replace(&base, "SCRATCH")).collect()
}

#[test]
fn what_is_whole_has_no_problem() {
    let scratch = whole("whole");
    for (program, layout) in [
        ("/function/resize", "static"),
        ("/function/bin/resize", "host"),
        ("/function/bin/resize", "dir"),
        ("/bin/python", "dir"),
        ("/usr/bin/env", "host"),
    ] {
        assert_eq!(check(&scratch, program, layout), [""; 0], "{program} {layout}");
    }
}

#[test]
fn function_directory_must_be_a_plain_open_directory() {
    let scratch = whole("dir");
    let dir = scratch.path().join("f");

    mode(&dir, 0o750);
    let closed = format!(
        "{F}.dir = \"SCRATCH/f\": SCRATCH/f is closed to workers: their ids own nothing on the host; \
         run: chmod o+rx SCRATCH/f"
    );
    assert_eq!(check(&scratch, "/function/resize", "static"), [closed.as_str()]);
    mode(&dir, 0o751);
    assert_eq!(check(&scratch, "/function/resize", "static"), [closed.as_str()], "x alone is not enough");

    fs::rename(&dir, scratch.path().join("real")).expect("scratch is writable");
    assert_eq!(
        check(&scratch, "/function/resize", "static"),
        [format!("{F}.dir = \"SCRATCH/f\": SCRATCH/f does not exist; create it, or correct the path")]
    );

    symlink("real", &dir).expect("scratch is writable");
    assert_eq!(
        check(&scratch, "/function/resize", "static"),
        [format!(
            "{F}.dir = \"SCRATCH/f\": SCRATCH/f is a symbolic link, and the nursery follows none; \
             write the path it leads to, \"SCRATCH/real\", or name a tree that both are in by host.function_dirs"
        )]
    );

    fs::remove_file(&dir).expect("it is a link");
    fs::write(&dir, "").expect("scratch is writable");
    assert_eq!(
        check(&scratch, "/function/resize", "static"),
        [format!("{F}.dir = \"SCRATCH/f\": SCRATCH/f is not a directory; write a directory's path")]
    );
}

#[test]
fn link_on_the_way_to_a_directory_is_refused() {
    let scratch = whole("way");
    symlink(".", scratch.path().join("link")).expect("scratch is writable");
    let dir = format!("{:?}", scratch.path().join("link/f").display().to_string());
    let problems = check_disk(&taken(&[(&format!("{F}.dir"), &dir)]));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].what.ends_with("/link is a symbolic link, and the nursery follows none"), "{problems:?}");
}

#[test]
fn program_must_be_there_and_open_to_workers() {
    let scratch = whole("program");
    let remedy = "put the program there, or correct the path; the function's directory is /function inside";
    assert_eq!(
        check(&scratch, "/function/none", "static"),
        [format!("{F}.command = \"/function/none\": SCRATCH/f/none does not exist; {remedy}")]
    );
    assert_eq!(
        check(&scratch, "/bin/none", "dir"),
        [format!("{F}.command = \"/bin/none\": SCRATCH/root/bin/none does not exist; {remedy}")]
    );
    assert_eq!(
        check(&scratch, "/usr/bin/sublet-none", "host"),
        [format!("{F}.command = \"/usr/bin/sublet-none\": /usr/bin/sublet-none does not exist; {remedy}")]
    );
    assert_eq!(
        check(&scratch, "/function/bin", "static"),
        [format!("{F}.command = \"/function/bin\": SCRATCH/f/bin is not a file; write the path of a program")]
    );
    for bits in [0o644, 0o750, 0o751, 0o754] {
        mode(&scratch.path().join("f/resize"), bits);
        assert_eq!(
            check(&scratch, "/function/resize", "static"),
            [format!(
                "{F}.command = \"/function/resize\": SCRATCH/f/resize is closed to workers: their ids own nothing on \
                 the host; run: chmod o+rx SCRATCH/f/resize"
            )],
            "{bits:o}"
        );
    }
    mode(&scratch.path().join("f/bin"), 0o750);
    assert_eq!(
        check(&scratch, "/function/bin/resize", "static"),
        [format!(
            "{F}.command = \"/function/bin/resize\": SCRATCH/f/bin is closed to workers: their ids own nothing on the \
             host; run: chmod o+x SCRATCH/f/bin"
        )]
    );
}

#[test]
fn link_to_a_program_is_followed_as_its_workers_follow_it() {
    let scratch = whole("link");
    // What it leads to is only there inside.
    symlink("/bin/python", scratch.path().join("root/bin/sh")).expect("scratch is writable");
    symlink("resize", scratch.path().join("f/current")).expect("scratch is writable");
    assert_eq!(check(&scratch, "/bin/sh", "dir"), [""; 0]);
    assert_eq!(check(&scratch, "/function/current", "static"), [""; 0]);
    // What is there on the host alone.
    let remedy = "write the path of the program itself, or copy it to /function";
    for (name, target) in [("secret", "/etc/passwd"), ("gone", "nowhere"), ("up", "../../../etc/passwd")] {
        symlink(target, scratch.path().join("f").join(name)).expect("scratch is writable");
        let at = if target == "nowhere" { "/function/nowhere" } else { "/etc" };
        let expected =
            format!("{F}.command = \"/function/{name}\": a link leads to {at}, which its workers do not see; {remedy}");
        assert_eq!(check(&scratch, &format!("/function/{name}"), "static"), [expected]);
    }
    symlink("/etc/passwd", scratch.path().join("f/hosts")).expect("scratch is writable");
    let told = check(&scratch, "/function/hosts", "host");
    assert!(told.len() == 1 && told[0].contains("a link leads to /etc/passwd, which"), "{told:?}");
    symlink("sh", scratch.path().join("root/bin/sh2")).expect("scratch is writable");
    symlink("loop", scratch.path().join("root/bin/loop")).expect("scratch is writable");
    assert_eq!(check(&scratch, "/bin/sh2", "dir"), [""; 0]);
    assert!(check(&scratch, "/bin/loop", "dir")[0].contains("/bin/loop, which its workers do not see"));
}

#[test]
fn interpreter_of_a_script_must_be_what_its_workers_see() {
    let scratch = whole("script");
    let told = |text: &str, layout: &str| {
        fs::write(scratch.path().join("f/resize"), text).expect("scratch is writable");
        check(&scratch, "/function/resize", layout).join("; ")
    };
    assert_eq!(told("#!/bin/sh\n", "host"), "");
    assert_eq!(told("#!/bin/python -u\n", "dir"), "");
    let missing = "the interpreter \"/bin/sh\" of /function/resize does not exist";
    assert!(told("#!/bin/sh\n", "static").contains(missing), "no layout but host has it");
    assert!(told("#!/bin/sh\n", "dir").contains(missing));
    let crlf = told("#!/bin/sh\r\n", "host");
    assert!(crlf.contains("\"/bin/sh\\r\"") && crlf.contains("LF line ends instead of CR LF"), "{crlf}");
    let env = told("#!/usr/bin/env python3\r\n", "host");
    assert!(env.contains("\"python3\\r\"") && env.contains("LF line ends"), "{env}");
    symlink("/etc/python", scratch.path().join("root/bin/linked")).expect("scratch is writable");
    let linked = told("#!/bin/linked\n", "dir");
    assert!(linked.contains("(a link leads to /etc, which its workers do not see)"), "{linked}");
}

#[test]
fn root_must_have_plain_mount_points() {
    for point in ["proc", "dev", "tmp", "function"] {
        let scratch = whole(&format!("root-{point}"));
        let path = scratch.path().join("root").join(point);
        let expected = |what: &str| {
            [format!(
                "{F}.root = \"SCRATCH/root\": /{point} in it {what}; \
                 make it an empty directory: mkdir SCRATCH/root/{point}"
            )]
        };
        fs::remove_dir(&path).expect("it is empty");
        assert_eq!(check(&scratch, "/function/resize", "dir"), expected("is missing"));
        symlink("/", &path).expect("scratch is writable");
        assert_eq!(check(&scratch, "/function/resize", "dir"), expected("is a symbolic link"));
        fs::remove_file(&path).expect("it is a link");
        fs::write(&path, "").expect("scratch is writable");
        assert_eq!(check(&scratch, "/function/resize", "dir"), expected("is not a directory"));
    }
}

#[test]
fn closed_root_is_refused() {
    let scratch = whole("closed-root");
    mode(&scratch.path().join("root"), 0o700);
    assert_eq!(
        check(&scratch, "/function/resize", "dir"),
        [format!(
            "{F}.root = \"SCRATCH/root\": SCRATCH/root is closed to workers: their ids own nothing on the host; \
             run: chmod o+rx SCRATCH/root"
        )]
    );
}

#[test]
fn all_functions_are_looked_at() {
    let function = &MINIMAL[MINIMAL.find("[tenant.acme.function").expect("it is there")..];
    let text = format!("{MINIMAL}{}", function.replace("resize", "blur"));
    let config = Config::parse(&text, Path::new(BASE)).expect("it is taken");
    let names: Vec<String> = check_disk(&config).into_iter().map(|problem| problem.setting).collect();
    assert_eq!(names, ["tenant.acme.function.blur.dir", "tenant.acme.function.resize.dir"]);
}

fn trees(scratch: &Scratch, tree: &str) -> Vec<String> {
    let path = |name: &str| format!("{:?}", scratch.path().join(name).display().to_string());
    let config = taken(&[
        ("host.function_dirs", &format!("[{}]", path(tree))),
        (&format!("{F}.dir"), &path(&format!("{tree}/f"))),
    ]);
    let base = scratch.path().display().to_string();
    let problems = check_disk(&config).into_iter().filter(|problem| problem.setting.starts_with("host."));
    problems.map(|problem| problem.to_string().replace(&base, "SCRATCH")).collect()
}

#[test]
fn tree_of_functions_must_be_there_and_be_nobody_s_but_root_s() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let scratch = whole("trees");
    fs::create_dir(scratch.path().join("srv")).expect("scratch is writable");
    mode(&scratch.path().join("srv"), 0o755);
    assert_eq!(trees(&scratch, "srv"), [""; 0]);
    assert_eq!(
        trees(&scratch, "none"),
        ["host.function_dirs = \"SCRATCH/none\": SCRATCH/none does not exist; create it, or correct the path"]
    );
    symlink("srv", scratch.path().join("link")).expect("scratch is writable");
    assert_eq!(
        trees(&scratch, "link"),
        ["host.function_dirs = \"SCRATCH/link\": SCRATCH/link is a symbolic link, and the nursery follows none; \
          write the path it leads to, \"SCRATCH/srv\""]
    );
    mode(&scratch.path().join("srv"), 0o777);
    let told = trees(&scratch, "srv").join("");
    assert!(told.contains("others decide what is there") && told.contains("chmod go-w SCRATCH/srv"), "{told}");
}
