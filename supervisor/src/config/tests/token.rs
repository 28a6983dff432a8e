//! Rules of the token that a function's workers are given.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use super::{shape::Scratch, *};
use crate::token::{Keys, test_keys};

fn t(key: &str) -> String {
    format!("{F}.token.{key}")
}

fn jwt(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let all = [("provider", "\"jwt\""), ("key", "\"/etc/sublet/key.pem\""), ("issuer", "\"i\""), ("audience", "\"a\"")];
    all.iter().chain(more).map(|(key, value)| (t(key), (*value).to_owned())).collect()
}

fn borrowed(changes: &[(String, String)]) -> Vec<(&str, &str)> {
    changes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn provider(changes: &[(&str, &str)]) -> TokenProvider {
    let changes: Vec<(String, String)> = changes.iter().map(|(key, value)| (t(key), (*value).to_owned())).collect();
    resize(&borrowed(&changes)).token.expect("it is written").provider
}

#[test]
fn each_provider_is_read_with_its_defaults() {
    assert_eq!(resize(&[]).token, None);
    let path = |text| HostPath::resolve(text, Path::new(BASE)).expect("plain");
    assert_eq!(
        provider(&[("provider", "\"static\""), ("dir", "\"tokens\"")]),
        TokenProvider::Static { dir: path("/etc/sublet/tokens"), ttl: None }
    );
    assert_eq!(
        provider(&[("provider", "\"command\""), ("command", "[\"/bin/mint\", \"-x\"]")]),
        TokenProvider::Command {
            command: vec!["/bin/mint".into(), "-x".into()],
            timeout: Duration::from_secs(5),
            ttl: Duration::from_secs(300)
        }
    );
    let read = resize(&borrowed(&jwt(&[("key_id", "\"k1\"")]))).token.expect("it is written").provider;
    let expected = TokenProvider::Jwt {
        key: path("/etc/sublet/key.pem"),
        key_id: Some("k1".into()),
        issuer: "i".into(),
        audience: "a".into(),
        ttl: Duration::from_secs(300),
    };
    assert_eq!(read, expected);
}

#[test]
fn what_is_missing_or_wrong_is_told() {
    let of = |key: &str, value: &str| told(&[(&t(key), value)]);
    assert_eq!(
        of("ttl", "\"1m\""),
        [format!(
            "{F}.token.provider: missing; write \"static\" for a file per sub-tenant, \"command\" for a program, or \
             \"jwt\" and a key"
        )]
    );
    assert_eq!(
        of("provider", "\"vault\""),
        [format!("{F}.token.provider = \"vault\": not a choice; write one of \"static\", \"command\", \"jwt\"")]
    );
    let missing = |provider: &str| -> Vec<String> {
        let lines = of("provider", &format!("{provider:?}"));
        lines.iter().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(missing("static"), [t("dir")]);
    assert_eq!(missing("command"), [t("command")]);
    assert_eq!(missing("jwt"), [t("key"), t("issuer"), t("audience")]);
    only(
        &[(&t("provider"), "\"command\""), (&t("command"), "[\"mint\"]")],
        &format!(
            "{F}.token.command = \"mint\": the program is not an absolute path: there is no PATH to look it up in; \
             write where it is, such as command = [\"/usr/local/bin/mint-token\"]"
        ),
    );
    only(
        &[(&t("provider"), "\"command\""), (&t("command"), "[]")],
        &format!("{F}.token.command = []: empty; write a program, such as command = [\"/usr/local/bin/mint-token\"]"),
    );
    for (value, what) in [("\"\"", "empty"), ("\"a\\nb\"", "contains a control character"), ("7", "not a text")] {
        let told = told(&borrowed(&jwt(&[("audience", value)])));
        assert!(told.len() == 1 && told[0].contains(&format!(": {what}; ")), "{told:?}");
    }
}

#[test]
fn settings_of_another_provider_are_refused() {
    only(
        &borrowed(&jwt(&[("dir", "\"/x\"")])),
        &format!(
            "{F}.token.dir = \"/x\": means nothing to provider = \"jwt\"; remove it, or write provider = \"static\""
        ),
    );
    only(
        &[(&t("provider"), "\"static\""), (&t("dir"), "\"/x\""), (&t("timeout"), "\"1s\"")],
        &format!(
            "{F}.token.timeout = \"1s\": means nothing to provider = \"static\"; remove it, or write provider = \"command\""
        ),
    );
    let told = told(&borrowed(&jwt(&[("secret", "\"x\"")])));
    assert!(told.len() == 1 && told[0].contains("unknown setting `secret`"), "{told:?}");
}

#[test]
fn times_are_bounded() {
    let of_jwt = jwt(&[]);
    bounded(&borrowed(&of_jwt), &t("ttl"), "\"29s\"", "\"30s\"", "\"1h\"", "\"3601s\"");
    let (provider, command) = (t("provider"), t("command"));
    let of_command = [(&*provider, "\"command\""), (&*command, "[\"/bin/mint\"]")];
    bounded(&of_command, &t("ttl"), "\"999ms\"", "\"1s\"", "\"24h\"", "\"86401s\"");
    bounded(&of_command, &t("timeout"), "\"9ms\"", "\"10ms\"", "", "\"61s\"");
    only(
        &[of_command[0], of_command[1], (&t("timeout"), "\"10s\"")],
        &format!(
            "{F}.token.timeout = \"10s\": not below the function's start_timeout, within which the token has to be \
             there; write less, or raise start_timeout"
        ),
    );
}

#[test]
fn shared_function_has_no_token() {
    let changes = [jwt(&[]), vec![(format!("{F}.isolation"), "\"shared\"".into())]].concat();
    only(
        &borrowed(&changes),
        &format!(
            "{F}.token.provider: a token names a sub-tenant, and workers of a shared function have none; remove the \
             table, or write isolation = \"sub-tenant\""
        ),
    );
}

#[test]
fn keys_and_tokens_are_where_no_worker_can_see_them() {
    only(
        &borrowed(&jwt(&[("key", "\"/srv/functions/resize/key.pem\"")])),
        &format!(
            "{F}.token.key = \"/srv/functions/resize/key.pem\": workers see \"/srv/functions/resize\"; \
             keep it apart from all functions, below /etc for example"
        ),
    );
    let tokens = [(t("provider"), "\"static\"".into()), (t("dir"), "\"/usr/tokens\"".into())];
    taken(&borrowed(&tokens));
    let layout = (format!("{F}.layout"), "\"host\"".to_owned());
    let told = told(&borrowed(&[tokens[0].clone(), tokens[1].clone(), layout]));
    assert!(told.len() == 1 && told[0].contains("workers with layout = \"host\" see \"/usr\""), "{told:?}");
    let above = [(t("provider"), "\"static\"".to_owned()), (t("dir"), "\"/srv\"".into())];
    assert!(super::told(&borrowed(&above))[0].contains("workers see"), "a directory of tokens with functions in it");
    let tree = ("host.function_dirs".to_owned(), "[\"/srv\"]".to_owned());
    let secret = [tokens[0].clone(), (t("dir"), "\"/srv/tokens\"".into()), tree];
    assert!(super::told(&borrowed(&secret))[0].contains("workers see \"/srv\""), "a link in the tree could lead to it");
}

#[test]
fn token_is_part_of_the_revision_and_its_key_is_not() {
    let revision = |more: &[(&str, &str)]| resize(&borrowed(&jwt(more))).revision;
    assert_eq!(revision(&[]), revision(&[]));
    assert_ne!(revision(&[]), resize(&[]).revision);
    assert_ne!(revision(&[]), revision(&[("ttl", "\"1m\"")]));
}

#[test]
fn keys_are_read_and_tried() {
    let scratch = Scratch::new("keys");
    let path = scratch.path().join("key.pem");
    let shown = format!("{:?}", path.display().to_string());
    let base = scratch.path().display().to_string();
    let read = || {
        let config = taken(&borrowed(&jwt(&[("key", &shown)])));
        let told = |problems: Vec<Problem>| problems[0].to_string().replace(&base, "SCRATCH");
        Keys::read(&config).map(drop).map_err(told)
    };
    let write = |text: &str, mode: u32| {
        fs::write(&path, text).expect("scratch is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    let of = |what: &str| Err(format!("{F}.token.key = \"SCRATCH/key.pem\": {what}"));
    assert_eq!(read(), of("SCRATCH/key.pem does not exist; put the key there, or correct the path"));
    let key = test_keys::ed25519();
    write(&key, 0o640);
    assert_eq!(read(), Ok(()));
    write(&key, 0o644);
    assert_eq!(read(), of("everybody on this host may use it (mode 0644); run: chmod o= SCRATCH/key.pem"));
    let broken = key.replace("MC4C", "MC4D");
    for wrong in ["", "no key", &test_keys::p384(), &test_keys::public(), &broken] {
        write(wrong, 0o600);
        let told = read().expect_err(wrong);
        assert!(told.contains("not a private key that tokens can be signed with"), "{told}");
    }
    fs::remove_file(&path).expect("it is there");
    std::os::unix::fs::symlink("elsewhere", &path).expect("scratch is writable");
    assert_eq!(read(), of("SCRATCH/key.pem is a symbolic link; write the path it leads to"));
}

#[test]
fn providers_are_on_this_host_and_open_to_the_supervisor() {
    let scratch = Scratch::new("providers");
    let base = scratch.path().display().to_string();
    let check = |changes: &[(&str, &str)]| -> Vec<String> {
        let mut all = vec![(format!("{F}.dir"), format!("{base:?}")), (format!("{F}.layout"), "\"host\"".into())];
        all.push((format!("{F}.command"), "[\"/usr/bin/env\"]".into()));
        all.extend(changes.iter().map(|(key, value)| (t(key), (*value).to_owned())));
        let lines = check_disk(&taken(&borrowed(&all))).into_iter().map(|problem| problem.to_string());
        lines.filter(|line| line.contains(".token.")).collect()
    };
    // Beside the function's own directory, which workers see.
    let tokens = Scratch::new("tokens");
    let dir = tokens.path().join("t");
    let shown = format!("{:?}", dir.display().to_string());
    let of_dir = [("provider", "\"static\""), ("dir", &*shown)];
    assert!(check(&of_dir)[0].contains("it does not exist; make the directory"), "{:?}", check(&of_dir));
    fs::create_dir(&dir).expect("scratch is writable");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("it is ours");
    assert!(check(&of_dir)[0].contains("closed to uid 1879048190"), "{:?}", check(&of_dir));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).expect("it is ours");
    assert_eq!(check(&of_dir), [""; 0]);
    let command = |program: &str| check(&[("provider", "\"command\""), ("command", &format!("[{program:?}]"))]);
    assert_eq!(command("/bin/sh"), [""; 0]);
    assert!(command("/nowhere")[0].contains("it does not exist; make the program"));
    assert!(command("/usr")[0].contains("it is not a program"));
    assert!(command("/etc/passwd")[0].contains("closed to uid"));
}
