//! Changes of the configuration in force, on a host of memory: whole or not at all.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicU64, Ordering},
};

use sublet_pool::{StateName, SubTenant};
use tokio::time::sleep;

use super::*;
use crate::{
    cgroups::limits::Limits,
    driver::{
        call::Invocation,
        tests::{Bench, MS, SECOND, answer, answered, invocation, text},
    },
    worker::host::{GroupTree as _, fake::FakeHost},
};

/// A directory with a function and a configuration, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sublet-reload-{}-{number}", std::process::id()));
        fs::create_dir_all(dir.join("f")).expect("there is room");
        let scratch = Self(dir.canonicalize().expect("it is there"));
        scratch.mode("", 0o755);
        scratch.mode("f", 0o755);
        fs::write(scratch.0.join("f/f"), "a program").expect("there is room");
        scratch.mode("f/f", 0o755);
        scratch
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    /// A configuration whose function is here.
    fn text(&self, function: &str, rest: &str) -> String {
        text(function, rest).replace("/srv/f", &self.0.join("f").display().to_string())
    }

    fn source(&self, function: &str, rest: &str) -> Source {
        Source { text: self.text(function, rest), base: self.0.clone() }
    }

    fn write(&self, function: &str, rest: &str) -> PathBuf {
        let file = self.0.join("sublet.toml");
        fs::write(&file, self.text(function, rest)).expect("there is room");
        self.mode("sublet.toml", 0o644);
        file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A running configuration, on a host of memory.
struct Running {
    scratch: Scratch,
    bench: Bench,
    reloader: Arc<Reloader>,
}

impl Running {
    fn new() -> Self {
        let scratch = Scratch::new();
        let file = scratch.write("", "");
        let (source, mut config) = read(&file).expect("it is taken");
        let (looked, problems) = config::check_host(&mut config, None);
        assert!(problems.is_empty(), "{problems:?}");
        let bench = Bench::with(&config, 16, &Keys::default());
        bench.host.change(Table::new(&config)).expect("there is no group that could refuse it");
        let report = Report { checks: Vec::new(), own_filters: 0, relays_streams: false };
        let loaded = Loaded { source, looked, config };
        let reloader = Reloader::new(file, bench.driver.clone(), report, loaded, u64::MAX, Jail::none());
        Self { scratch, bench, reloader: Arc::new(reloader) }
    }

    fn host(&self) -> &FakeHost {
        &self.bench.host
    }

    /// Every group's limits.
    fn limits(&self) -> BTreeMap<String, Limits> {
        self.host().tree().limits()
    }

    /// The group of a level: 0 for the tenant, 1 for the sub-tenant, 2 for the worker.
    fn group(&self, depth: usize) -> String {
        let groups = self.limits().into_keys();
        groups.into_iter().find(|path| path.matches('/').count() == depth).expect("a worker was made")
    }

    /// What the configuration in force says of the tenant's processes.
    fn pids_in_force(&self) -> Option<u32> {
        let config = self.bench.driver.catalogue().config.clone().expect("one is in force");
        config.tenants.values().next().expect("there is one").limits.pids_max
    }

    fn set(&self, settings: &[(&str, &str, &str)], end: bool) -> Result<Vec<String>, ReloadError> {
        self.reloader.set(overlays(settings), 100 * SECOND, end).map(|(changes, _)| changes)
    }

    /// The same, on a thread that may wait for workers to end.
    async fn set_elsewhere(&self, settings: &'static [(&str, &str, &str)]) -> Result<Vec<String>, ReloadError> {
        let reloader = self.reloader.clone();
        let set = tokio::task::spawn_blocking(move || reloader.set(overlays(settings), 100 * SECOND, true));
        set.await.expect("it ends").map(|(changes, _)| changes)
    }
}

fn overlays(settings: &[(&str, &str, &str)]) -> Vec<Overlay> {
    let overlay = |(path, key, value): &(&str, &str, &str)| Overlay {
        path: LevelPath::try_from(*path).expect("a level"),
        key: (*key).into(),
        value: (*value).into(),
    };
    settings.iter().map(overlay).collect()
}

const TENANT_PIDS: &[(&str, &str, &str)] = &[("tenant/acme", "pids_max", "90")];

#[tokio::test(start_paused = true)]
async fn limit_that_is_set_is_the_kernels_the_pools_and_the_one_in_force_until_it_is_taken_back() {
    let running = Running::new();
    answer(running.bench.call("").await);
    let before = running.limits();
    let changes = running.set(TENANT_PIDS, false).expect("it is taken");
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert!(changes[0].starts_with("tenant.acme.pids_max: ") && changes[0].ends_with(" -> 90"), "{changes:?}");
    assert_eq!(running.limits()[&running.group(0)].pids_max, Some(90));
    assert_eq!(running.pids_in_force(), Some(90));
    let tenant = LevelPath::try_from("tenant/acme").expect("a level");
    running.reloader.unset(Some(&tenant), Some("pids_max"), false).expect("it was set");
    assert_eq!(running.limits(), before);
    assert_ne!(running.pids_in_force(), Some(90));
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn change_that_the_kernel_refuses_half_way_is_rolled_back_whole() {
    // Written in this order: what is lowered of memory, what is raised from the top down, what else is lowered.
    let settings = [
        ("tenant/acme/function/f", "memory_max", "48MiB"),
        ("tenant/acme", "pids_max", "500"),
        ("tenant/acme/sub_tenant", "pids_max", "400"),
        ("tenant/acme/function/f", "pids_max", "10"),
    ];
    let running = Running::new();
    running
        .set(&[("tenant/acme", "pids_max", "100"), ("tenant/acme/sub_tenant", "pids_max", "50")], false)
        .expect("it is taken");
    answer(running.bench.call("").await);
    let (before, changes) = (running.limits(), running.host().tree().written().len());
    let places = [(2, Knob::MemoryMax), (0, Knob::PidsMax), (1, Knob::PidsMax), (2, Knob::PidsMax)];
    for (at, (depth, knob)) in places.into_iter().enumerate() {
        let path = running.group(depth);
        running.host().tree().refuse(&path, knob, true);
        let mut events = running.bench.driver.hub.listen();
        let refused = running.set(&settings, false).expect_err("the kernel refuses it");
        assert!(matches!(&refused, ReloadError::Running(_)), "{refused}");
        let (words, key) = (refused.to_string(), knob.key());
        assert!(words.starts_with("nothing is changed") && words.contains(key), "{words}");
        assert_eq!(running.limits(), before, "refused at {at}");
        assert_eq!(running.pids_in_force(), Some(100));
        let (_, told) = events.try_recv().expect("operators are told");
        assert!(matches!(told, Happened::Config { what: "refused", .. }), "{told:?}");
        assert_eq!(answered(running.bench.call("goes on").await).0, "goes on");
        running.host().tree().refuse(&path, knob, false);
    }
    // At the last place all four were written, and three put back.
    assert_eq!(running.host().tree().written().len() - changes, 1 + 3 + 5 + 7);
    running.set(&settings, false).expect("now nothing is refused");
    assert_eq!(running.pids_in_force(), Some(500));
    assert_eq!(running.limits()[&running.group(2)].memory_max, Some(48 << 20));
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn guarantee_that_is_refused_changes_no_limit() {
    let running = Running::new();
    answer(running.bench.call("").await);
    let before = running.limits();
    running.host().tree().refuse_guarantee();
    let settings = [("tenant/acme", "memory_min", "16MiB"), ("tenant/acme", "pids_max", "77")];
    let refused = running.set(&settings, false).expect_err("it is refused");
    assert!(refused.to_string().contains("no guarantee"), "{refused}");
    assert_eq!(running.limits(), before);
    assert_ne!(running.pids_in_force(), Some(77));
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn memory_limit_below_what_is_in_use_names_group_setting_and_remedy() {
    let running = Running::new();
    answer(running.bench.call("").await);
    let path = running.group(2);
    running.host().tree().refuse(&path, Knob::MemoryMax, true);
    running.host().tree().set_used(&path, Knob::MemoryMax, 60 << 20);
    let refused = running.set(&[("tenant/acme/function/f", "memory_max", "32MiB")], false).expect_err("it is refused");
    let words = refused.to_string();
    for part in ["tenant.acme.function.f.memory_max = \"32MiB\"", "worker w-1 of acme/f has 60MiB", "--end-those-above"]
    {
        assert!(words.contains(part), "{part} in {words}");
    }
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn workers_above_a_lowered_memory_limit_are_ended_where_that_is_asked_for_and_not_else() {
    const LOWER: &[(&str, &str, &str)] = &[("tenant/acme/function/f", "memory_max", "32MiB")];
    let running = Running::new();
    answer(running.bench.call("").await);
    let path = running.group(2);
    running.host().tree().refuse(&path, Knob::MemoryMax, true);
    running.set(LOWER, false).expect_err("nobody asked for its end");
    assert_eq!(running.bench.workers(), [("w-1".to_owned(), StateName::Idle)]);
    running.set_elsewhere(LOWER).await.expect("it has given its memory back");
    assert_eq!(running.bench.workers(), []);
    assert_eq!(answered(running.bench.call("").await).1, "w-2");
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn no_worker_is_ended_for_another_limit_or_outside_of_the_group_that_stands_against_it() {
    const PIDS: &[(&str, &str, &str)] = &[("tenant/acme/function/f", "pids_max", "5")];
    const MEMORY: &[(&str, &str, &str)] = &[("tenant/acme", "memory_max", "128MiB")];
    let running = Running::new();
    answer(running.bench.call("").await);
    let (tenant, worker) = (running.group(0), running.group(2));
    running.host().tree().refuse(&worker, Knob::PidsMax, true);
    running.set_elsewhere(PIDS).await.expect_err("it is not memory");
    assert_eq!(running.bench.workers().len(), 1);
    // Its one worker is ended, and then there is none that could be.
    running.host().tree().refuse(&tenant, Knob::MemoryMax, true);
    let refused = running.set_elsewhere(MEMORY).await.expect_err("it never fits");
    assert!(refused.to_string().contains("tenant acme has"), "{refused}");
    assert_eq!(running.bench.workers(), []);
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn idle_worker_is_ended_before_a_busy_one() {
    const MEMORY: &[(&str, &str, &str)] = &[("tenant/acme/function/f", "memory_max", "32MiB")];
    let running = Running::new();
    running.host().next(|worker| async move { worker.start().await });
    let busy = running.bench.begin("");
    sleep(SECOND).await;
    let other = Invocation { sub_tenant: "s2".into(), ..invocation("") };
    answer(running.bench.begin_with(other, None).end().await);
    let groups: Vec<String> = running.limits().into_keys().filter(|path| path.ends_with("/w-2")).collect();
    running.host().tree().refuse(&groups[0], Knob::MemoryMax, true);
    running.set_elsewhere(MEMORY).await.expect("it has ended the one that was in the way");
    assert_eq!(running.bench.workers(), [("w-1".to_owned(), StateName::Leased)]);
    busy.cancel().await.expect_err("it is given up");
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_set_while_another_change_is_made() {
    let running = Running::new();
    let held = running.reloader.state().expect("nobody has it");
    assert!(matches!(running.set(TENANT_PIDS, false), Err(ReloadError::Busy)));
    assert!(matches!(running.reloader.reload(false), Err(ReloadError::Busy)));
    assert!(matches!(running.reloader.unset(None, None, false), Err(ReloadError::Busy)));
    assert!(matches!(running.reloader.difference(None), Err(ReloadError::Busy)));
    drop(held);
    running.set(TENANT_PIDS, false).expect("now it is");
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_set_cannot_be_taken_back_and_is_named() {
    let running = Running::new();
    let tenant = LevelPath::try_from("tenant/acme").expect("a level");
    let unset = |path: Option<&LevelPath>, key| running.reloader.unset(path, key, false).expect_err("it was not set");
    let words = |error: ReloadError| match error {
        ReloadError::NotSet(what) => what,
        other => panic!("{other}"),
    };
    assert_eq!(words(unset(None, None)), "at all");
    assert_eq!(words(unset(Some(&tenant), Some("pids_max"))), "tenant.acme.pids_max");
    assert!(words(unset(Some(&tenant), None)).starts_with("of "));
    running.set(TENANT_PIDS, false).expect("it is taken");
    assert_eq!(words(unset(Some(&tenant), Some("memory_max"))), "tenant.acme.memory_max");
    running.reloader.unset(None, None, false).expect("all of it");
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_taken_back_and_tried_again_after_a_while_when_that_is_refused() {
    let running = Running::new();
    answer(running.bench.call("").await);
    let before = running.limits();
    running.reloader.set(overlays(TENANT_PIDS), Duration::ZERO, false).expect("it is taken");
    let tenant = running.group(0);
    running.host().tree().refuse(&tenant, Knob::PidsMax, true);
    running.reloader.expire_now();
    assert_eq!(running.pids_in_force(), Some(90), "it stays, and not by halves");
    let not_before = running.reloader.state_at_last().not_before.expect("it is tried again");
    assert!(not_before > SystemTime::now());
    running.host().tree().refuse(&tenant, Knob::PidsMax, false);
    running.reloader.expire_now();
    assert_eq!(running.limits(), before);
    assert_eq!(running.reloader.state_at_last().not_before, None);
    running.reloader.expire_now();
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn task_takes_back_what_expires_and_only_that() {
    let running = Running::new();
    tokio::spawn(running.reloader.clone().expire());
    sleep(SECOND).await;
    running.reloader.set(overlays(TENANT_PIDS), 20 * MS, false).expect("it is taken");
    running.set(&[("host", "workers_max", "7")], false).expect("it is taken");
    // By the wall clock, which does not stand still.
    while running.pids_in_force() == Some(90) {
        sleep(MS).await;
    }
    assert_eq!(running.reloader.state_at_last().temporaries.overlays().len(), 1, "the other holds");
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn each_change_is_told_to_whoever_listens_and_one_that_changes_nothing_is_not() {
    let running = Running::new();
    let mut events = running.bench.driver.hub.listen();
    let mut told = || match events.try_recv() {
        Ok((_, Happened::Config { what, lines })) => Some((what, lines.len())),
        Ok((_, other)) => panic!("{other:?}"),
        Err(_) => None,
    };
    running.reloader.reload(false).expect("it is what it was");
    assert_eq!(told(), None);
    running.set(TENANT_PIDS, false).expect("it is taken");
    assert_eq!(told(), Some(("set", 1)));
    running.reloader.unset(None, None, false).expect("it was set");
    assert_eq!(told(), Some(("unset", 1)));
    running.scratch.write("timeout = 3", "");
    running.reloader.reload(false).expect_err("a number is no time");
    assert_eq!(told().map(|(what, _)| what), Some("refused"));
    running.scratch.write("queue_max = 3", "");
    running.reloader.reload_at_last().expect("it is taken");
    assert_eq!(told(), Some(("reloaded", 1)));
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn file_that_others_can_change_is_not_read_again() {
    let running = Running::new();
    running.scratch.write("queue_max = 3", "");
    running.scratch.mode("sublet.toml", 0o666);
    let refused = running.reloader.reload(false).expect_err("others decide what it says");
    assert!(refused.to_string().contains("others decide what it says"), "{refused}");
    running.scratch.mode("sublet.toml", 0o644);
    assert_eq!(running.reloader.reload(false).expect("it is root's").len(), 1);
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_at_the_start_cannot_be_reloaded() {
    let running = Running::new();
    let text = running.scratch.text("", "").replace("/var/lib/sublet", "/var/lib/other");
    let refused = running.reloader.difference(Some(Source { text, base: running.scratch.0.clone() }));
    let words = refused.expect_err("its lock is held").to_string();
    assert!(words.contains("host.state_dir") && words.contains("its lock is held"), "{words}");
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_this_host_does_not_have_is_refused() {
    let running = Running::new();
    fs::remove_file(running.scratch.0.join("f/f")).expect("it is there");
    let refused = running.set(TENANT_PIDS, false).expect_err("the function is gone");
    assert!(matches!(refused, ReloadError::Config(_)), "{refused}");
    assert_ne!(running.pids_in_force(), Some(90));
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn replaced_function_takes_new_calls_and_the_old_revision_ends_what_it_has() {
    let running = Running::new();
    running.host().next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer_after(3 * SECOND, &request, b"old").await;
    });
    let old = running.bench.begin("");
    sleep(SECOND).await;
    running.scratch.write("env = { KEY = \"1\" }", "");
    let difference = running.reloader.difference(None).expect("it is taken");
    assert_eq!(difference.replaced, ["acme/f"]);
    assert!(difference.changes.iter().any(|line| line.contains(".env.KEY")), "{:?}", difference.changes);
    running.reloader.reload(false).expect("it is taken");
    assert_eq!(answered(running.bench.call("new").await), ("new".into(), "w-2".into()));
    assert_eq!(answered(old.end().await), ("old".into(), "w-1".into()));
    sleep(SECOND).await;
    let names: Vec<String> = running.bench.workers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["w-2"], "the old revision's worker is gone with its last call");
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn limit_of_one_sub_tenant_comes_with_a_reload_and_goes_with_the_next() {
    let running = Running::new();
    let waits = |running: &Running| running.bench.driver.waiting().values().sum::<u32>();
    for (rest, waiting) in [("[tenant.acme.id.s1]\nworkers_max = 1\n", 1), ("", 0)] {
        running.scratch.write("", rest);
        running.reloader.reload(false).expect("it is taken");
        for _ in 0..2 {
            running.host().next(|worker| async move { worker.start().await });
        }
        let calls = [running.bench.begin(""), running.bench.begin("")];
        sleep(SECOND).await;
        assert_eq!(waits(&running), waiting, "{rest:?}");
        for call in calls {
            call.cancel().await.expect_err("it is given up");
        }
        sleep(SECOND).await;
    }
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn function_that_is_removed_takes_no_more_calls_and_ends_what_it_has() {
    let running = Running::new();
    running.host().next(|worker| async move {
        worker.start().await;
        let request = worker.request().await;
        worker.answer_after(3 * SECOND, &request, b"the last").await;
    });
    let call = running.bench.begin("");
    sleep(SECOND).await;
    let text = running.scratch.text("", "").replace("function.f]", "function.g]");
    fs::write(running.scratch.0.join("sublet.toml"), text).expect("there is room");
    running.reloader.reload(false).expect("it is taken");
    running.bench.driver.accept(invocation("")).expect_err("there is no f");
    assert_eq!(answered(call.end().await).0, "the last");
    sleep(SECOND).await;
    assert_eq!(running.bench.workers(), []);
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn difference_names_groups_that_use_more_than_they_would_be_allowed() {
    let running = Running::new();
    answer(running.bench.call("").await);
    let worker = running.group(2);
    running.host().tree().set_used(&worker, Knob::MemoryMax, 40 << 20);
    running.host().tree().set_used(&worker, Knob::PidsMax, 9);
    let other = running.scratch.source("", "").text.replace("64MiB", "32MiB").replace("pids_max = 12", "pids_max = 8");
    let other = Source { text: other, base: running.scratch.0.clone() };
    let mut above = running.reloader.difference(Some(other)).expect("it is taken").above;
    above.sort_by_key(|line| line.setting.clone());
    let lines: Vec<[&str; 4]> =
        above.iter().map(|line| [&*line.group, &*line.setting, &*line.limit, &*line.observed]).collect();
    let expected = [
        ["worker w-1 of acme/f", "tenant.acme.function.f.memory_max", "32MiB", "40MiB"],
        ["worker w-1 of acme/f", "tenant.acme.function.f.pids_max", "8", "9"],
    ];
    assert_eq!(lines, expected);
    assert_eq!(running.limits()[&worker].memory_max, Some(64 << 20), "nothing is changed");
    running.bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn limits_in_force_are_listed_and_a_level_that_is_not_there_is_named() {
    let running = Running::new();
    running.set(TENANT_PIDS, false).expect("it is taken");
    assert!(!running.reloader.limits(None).expect("all").is_empty());
    let nobody = LevelPath::try_from("tenant/nobody").expect("a level");
    let refused = running.reloader.limits(Some(&nobody)).expect_err("there is none");
    assert!(refused.to_string().contains("nobody") && refused.to_string().contains("no such level"), "{refused}");
    running.bench.finish().await;
}

#[test]
fn each_owners_limits_come_from_a_level_of_the_configuration() {
    let tenant: Arc<str> = "acme".into();
    let label = |text| Some(SubTenant::try_from(text).expect("a label"));
    let level = |owner: Owner| level_of(&owner).to_string();
    assert_eq!(
        level(Owner::Tenant { tenant: tenant.clone() }),
        LevelPath::try_from("tenant/acme").unwrap().to_string()
    );
    let id = level_of(&Owner::SubTenant { tenant: tenant.clone(), label: label("s1") });
    assert!(matches!(id, LevelPath::Id(_, label) if label == "s1"));
    for label in [None, Some(SubTenant::shared())] {
        let found = level_of(&Owner::SubTenant { tenant: tenant.clone(), label });
        assert!(matches!(found, LevelPath::SubTenants(_)), "{found}");
    }
    let worker = level_of(&Owner::Worker { tenant, function: "f".into(), label: None });
    assert!(matches!(worker, LevelPath::Function(..)), "{worker}");
}
