//! What is told of each way to fail, as a table: how it ended, what was noticed, and then the verdict and its remarks.

use std::{path::Path, sync::Arc};

use sublet_pool::{FunctionId, SubTenant, TenantId};

use super::*;
use crate::{catalogue::Catalogue, config::Config};

/// A function with small limits, whose label is `s1`.
fn scope(settings: &str) -> Scope {
    let text = format!(
        "[host]\nstate_dir = \"/var/lib/sublet\"\n[tenant.acme.sub_tenant]\npids_max = 12\n\
         [tenant.acme.function.f]\nruntime = \"stream\"\nlayout = \"static\"\ndir = \"/srv/f\"\n\
         command = [\"/function/f\"]\ntmp_size = \"4MiB\"\ntmp_inodes = 64\nnofile = 40\npids_max = 12\n{settings}\n"
    );
    let config = Config::parse(&text, Path::new("/etc/sublet")).expect("it is taken");
    let catalogue = Catalogue::new(&config, |_, _| TenantId(0), |_, _, _| FunctionId(0));
    let entry: Arc<Entry> = catalogue.function("acme", "f").expect("it is there").clone();
    Scope::new(&catalogue, &entry, &SubTenant::try_from("s1").expect("a label"))
}

const MEMORY: Bite = Bite { level: Level::Worker, limit: Some(64 << 20), seen: Some(64 << 20) };
const FORKS: Bite = Bite { level: Level::SubTenant, limit: Some(12), seen: Some(12) };
const FULL: TmpSpace = TmpSpace { bytes_free: 0, inodes_free: 9 };
const NO_FILES: TmpSpace = TmpSpace { bytes_free: 4096, inodes_free: 0 };
const ROOM: TmpSpace = TmpSpace { bytes_free: 4096, inodes_free: 9 };

fn memory() -> Noticed {
    Noticed { memory: Some(MEMORY), ..Noticed::default() }
}

fn forks() -> Noticed {
    Noticed { forks: Some(FORKS), ..Noticed::default() }
}

fn tmp(space: TmpSpace, was_full: Option<bool>) -> Noticed {
    Noticed { tmp: Some(Tmp { space, was_full }), ..Noticed::default() }
}

fn refused(names: &[&str]) -> Noticed {
    Noticed { refused: names.iter().map(|name| (*name).to_owned()).collect(), ..Noticed::default() }
}

fn no_descriptors() -> Noticed {
    Noticed { is_out_of_descriptors: true, ..Noticed::default() }
}

fn status(code: i32) -> Failed {
    Failed::Process { how: ProcessEnd::Status(code), stdout: "printed".into() }
}

fn signal(signal: Signal) -> Failed {
    Failed::Process { how: ProcessEnd::Signal(signal as i32), stdout: "printed".into() }
}

fn kinds(remarks: &[Remark]) -> Vec<VerdictKind> {
    remarks.iter().map(Remark::kind).collect()
}

#[test]
fn process_that_failed_is_told_by_what_was_hit_during_its_call() {
    use VerdictKind as V;
    let scope = scope("");
    let cases: [(Failed, Noticed, V, &[V]); 19] = [
        (status(7), Noticed::default(), V::Exit, &[]),
        (signal(Signal::SIGSEGV), Noticed::default(), V::Crash, &[]),
        (status(137), memory(), V::Memory, &[]),
        (signal(Signal::SIGKILL), memory(), V::Memory, &[]),
        (status(1), forks(), V::Pids, &[]),
        (signal(Signal::SIGABRT), forks(), V::Pids, &[]),
        (status(1), Noticed { memory: Some(MEMORY), ..forks() }, V::Memory, &[V::Pids]),
        (signal(Signal::SIGXFSZ), Noticed::default(), V::Disk, &[]),
        (signal(Signal::SIGXFSZ), tmp(FULL, Some(true)), V::Disk, &[]),
        (status(1), tmp(ROOM, Some(false)), V::Exit, &[]),
        (status(1), tmp(FULL, Some(false)), V::Disk, &[]),
        (status(1), tmp(NO_FILES, Some(false)), V::Inodes, &[]),
        // It was full before, or nobody knows: then this call is not told to have failed for it.
        (status(1), tmp(FULL, Some(true)), V::Exit, &[V::Disk]),
        (status(1), tmp(NO_FILES, Some(true)), V::Exit, &[V::Inodes]),
        (status(1), tmp(FULL, None), V::Exit, &[V::Disk]),
        (status(1), no_descriptors(), V::Exit, &[V::Descriptors]),
        // No filter ends a function by this signal, so it was the function's own doing.
        (signal(Signal::SIGSYS), Noticed::default(), V::Crash, &[]),
        // A refusal alone explains nothing: programs ask for what they can do without.
        (status(1), refused(&["mount"]), V::Exit, &[]),
        (signal(Signal::SIGSEGV), refused(&["mount"]), V::Crash, &[]),
    ];
    for (failed, noticed, verdict, beside) in cases {
        let found = of_failure(&scope, &failed, &noticed);
        let remarks = remarks(&scope, &noticed, Some(found.kind()));
        assert_eq!((found.kind(), kinds(&remarks).as_slice()), (verdict, beside), "{failed:?} {noticed:?}");
        assert!(found.function_error.is_empty() && !found.seen.is_empty() && !found.setting.is_empty(), "{found:?}");
    }
}

#[test]
fn handlers_words_are_the_verdict_whatever_else_was_hit() {
    use VerdictKind as V;
    let scope = scope("");
    let all = Noticed { memory: Some(MEMORY), forks: Some(FORKS), is_out_of_descriptors: true, ..tmp(FULL, None) };
    let cases: [(Noticed, &[V]); 6] = [
        (Noticed::default(), &[]),
        (memory(), &[V::Memory]),
        (forks(), &[V::Pids]),
        (tmp(NO_FILES, Some(false)), &[V::Inodes]),
        (refused(&["mount"]), &[]),
        (all, &[V::Memory, V::Pids, V::Disk, V::Descriptors]),
    ];
    for (noticed, beside) in cases {
        let found = of_failure(&scope, &Failed::Handler("ValueError".into()), &noticed);
        assert_eq!((found.kind(), found.function_error.as_ref()), (V::FunctionError, b"ValueError".as_slice()));
        let remarks = remarks(&scope, &noticed, Some(found.kind()));
        assert_eq!(kinds(&remarks), beside, "{noticed:?}");
    }
}

#[test]
fn worker_that_died_is_told_by_what_was_hit_during_its_call() {
    use VerdictKind as V;
    let end =
        |code, signal| PostMortem { function: Some(FunctionEnd { code, signal, tmp: None }), ..Default::default() };
    let by_status = |code| end(Some(code), None);
    let by_signal = |signal: Signal| end(None, Some(signal as i32));
    // The whole group was killed at once, and init could not say how the function ended.
    let init = |signal: Option<Signal>| PostMortem { init_signal: signal.map(|s| s as i32), ..Default::default() };
    let outside = || PostMortem { was_killed_from_outside: true, ..init(Some(Signal::SIGKILL)) };
    let cases: [(&str, PostMortem, Noticed, V, &[V]); 20] = [
        // Nothing in the sandbox can end its init.
        ("errno", outside(), Noticed::default(), V::Evicted, &[]),
        ("errno", outside(), memory(), V::Memory, &[]),
        (
            "errno",
            PostMortem { was_killed_from_outside: true, ..by_signal(Signal::SIGKILL) },
            Noticed::default(),
            V::Crash,
            &[],
        ),
        ("errno", init(Some(Signal::SIGKILL)), Noticed::default(), V::Crash, &[]),
        ("kill", outside(), refused(&["keyctl"]), V::RefusedSyscall, &[]),
        ("errno", by_status(3), Noticed::default(), V::Exit, &[]),
        ("errno", by_status(3), memory(), V::Memory, &[]),
        ("errno", by_status(3), forks(), V::Pids, &[]),
        ("errno", by_status(3), tmp(FULL, Some(false)), V::Disk, &[]),
        ("errno", by_status(3), tmp(FULL, None), V::Exit, &[V::Disk]),
        // It says that all is well with it, and has not answered.
        ("errno", by_status(0), forks(), V::Exit, &[V::Pids]),
        ("errno", by_status(0), memory(), V::Exit, &[V::Memory]),
        ("errno", by_signal(Signal::SIGSEGV), Noticed::default(), V::Crash, &[]),
        ("errno", by_signal(Signal::SIGKILL), memory(), V::Memory, &[]),
        ("errno", init(Some(Signal::SIGKILL)), memory(), V::Memory, &[]),
        ("errno", init(None), Noticed::default(), V::Exit, &[]),
        ("errno", init(None), refused(&["mount"]), V::Exit, &[]),
        ("kill", init(None), refused(&["keyctl"]), V::RefusedSyscall, &[]),
        ("kill", init(Some(Signal::SIGKILL)), Noticed { memory: Some(MEMORY), ..refused(&["keyctl"]) }, V::Memory, &[]),
        ("kill", by_status(3), refused(&["keyctl"]), V::Exit, &[]),
    ];
    for (policy, post, noticed, verdict, beside) in cases {
        let scope = scope(&format!("on_refused_syscall = {policy:?}"));
        let found = of_death(&scope, &post, &noticed);
        let remarks = remarks(&scope, &noticed, Some(found.kind()));
        assert_eq!((found.kind(), kinds(&remarks).as_slice()), (verdict, beside), "{policy} {post:?} {noticed:?}");
    }
}

#[test]
fn what_a_program_printed_before_it_failed_is_in_its_verdict_up_to_a_limit() {
    let scope = scope("");
    for noticed in [Noticed::default(), memory(), tmp(FULL, Some(false))] {
        let found = of_failure(&scope, &status(1), &noticed);
        assert_eq!(&found.stdout_tail[..], b"printed", "{found:?}");
    }
    let stdout = [vec![b'x'; STDOUT_TAIL_MAX_BYTES], b"end".to_vec()].concat();
    let failed = Failed::Process { how: ProcessEnd::Status(1), stdout: stdout.clone().into() };
    let found = of_failure(&scope, &failed, &Noticed::default());
    assert!(found.stdout_tail == stdout[3..], "{} bytes", found.stdout_tail.len());
    let handler = of_failure(&scope, &Failed::Handler("words".into()), &Noticed::default());
    assert!(handler.stdout_tail.is_empty() && &handler.function_error[..] == b"words", "{handler:?}");
}

#[test]
fn limit_is_named_alike_in_a_verdict_and_in_a_remark() {
    let scope = scope("");
    let cases = [
        (memory(), "64MiB", "67108864 bytes", "worker", "tenant.acme.function.f.memory_max"),
        (forks(), "12", "13", "sub-tenant", "tenant.acme.sub_tenant.pids_max"),
        (tmp(FULL, Some(false)), "4MiB", "4MiB", "worker", "tenant.acme.function.f.tmp_size"),
        (tmp(NO_FILES, Some(false)), "64", "64", "worker", "tenant.acme.function.f.tmp_inodes"),
    ];
    for (noticed, limit, seen, level, setting) in cases {
        let found = of_failure(&scope, &status(1), &noticed);
        let told = [&found.limit, &found.seen, &found.level, &found.setting];
        assert_eq!(told, [limit, seen, level, setting], "{found:?}");
        assert!(found.message.ends_with(", and the function exited with status 1 without an answer"), "{found:?}");
        let [remark] = <[Remark; 1]>::try_from(remarks(&scope, &noticed, None)).expect("one");
        let told = [&remark.limit, &remark.seen, &remark.level, &remark.setting];
        assert_eq!(told, [limit, seen, level, setting], "{remark:?}");
        assert!(found.message.starts_with(&remark.message), "{remark:?}");
    }
    let [remark] = <[Remark; 1]>::try_from(remarks(&scope, &no_descriptors(), None)).expect("one");
    assert_eq!((remark.limit.as_str(), remark.setting.as_str()), ("40", "tenant.acme.function.f.nofile"));
}

#[test]
fn tmp_that_was_full_before_is_told_so() {
    let scope = scope("");
    let says = |was_full| remarks(&scope, &tmp(FULL, was_full), None)[0].message.clone();
    assert_eq!(says(Some(false)), "the worker's /tmp of 4MiB is full");
    assert_eq!(says(Some(true)), "the worker's /tmp of 4MiB is full, and was when the call came");
    assert_eq!(says(None), "the worker's /tmp of 4MiB is full, since this call or before");
}

#[test]
fn call_that_ends_well_has_remarks_and_nothing_of_a_tmp_with_room() {
    let scope = scope("");
    assert!(remarks(&scope, &tmp(ROOM, Some(false)), None).is_empty());
    assert_eq!(kinds(&remarks(&scope, &memory(), None)), [VerdictKind::Memory]);
    assert!(!tmp(ROOM, None).has_limits() && tmp(FULL, None).has_limits() && memory().has_limits());
}

#[test]
fn token_tells_its_callers_nothing_of_the_host() {
    let scope = scope("");
    let error = ProviderError { what: "/srv/tokens/s1 does not exist".into(), setting: "token.dir" };
    let found = token(scope.entry(), &error);
    assert!(!format!("{found:?}").contains("/srv"), "{found:?}");
    assert_eq!(found.setting, "tenant.acme.function.f.token.dir");
}

#[test]
fn deadline_of_a_worker_that_somebody_had_frozen_says_so_and_nothing_of_where() {
    let scope = scope("");
    let of_deadline = || deadline(scope.entry(), Duration::from_secs(1), false, Duration::from_secs(2));
    assert_eq!(or_frozen(of_deadline(), false), of_deadline());
    let found = or_frozen(of_deadline(), true);
    assert_eq!(found.kind(), VerdictKind::Deadline);
    assert!(found.message.ends_with("somebody on the host had the worker frozen meanwhile"), "{found:?}");
}

#[test]
fn limit_above_sublets_groups_names_no_setting_and_does_not_know_itself() {
    let scope = scope("");
    let above = Bite { level: Level::Above, limit: None, seen: None };
    let noticed = Noticed { memory: Some(above), forks: Some(above), ..Noticed::default() };
    let verdict = of_failure(&scope, &signal(Signal::SIGKILL), &noticed);
    assert_eq!((verdict.kind(), verdict.level.as_str(), verdict.setting.as_str()), (VerdictKind::Memory, "above", ""));
    assert!(
        verdict.message.contains("above sublet's own") && !verdict.message.contains("its own"),
        "{}",
        verdict.message
    );
    let remarks = remarks(&scope, &noticed, Some(VerdictKind::Memory));
    assert!(remarks.iter().all(|remark| remark.level == "above" && remark.setting.is_empty()), "{remarks:?}");
    assert_eq!(remarks.len(), 1);
}

#[test]
fn what_could_not_be_had_is_the_hosts_fault_unless_a_limit_of_ours_bit() {
    let above = Bite { level: Level::Above, limit: None, seen: None };
    let of = |memory, forks| is_own_shortage(&Noticed { memory, forks, ..Noticed::default() });
    assert!(of(Some(MEMORY), None) && of(None, Some(FORKS)) && of(Some(above), Some(FORKS)));
    assert!(!of(None, None) && !of(Some(above), None) && !of(None, Some(above)));
}

#[test]
fn end_of_the_nursery_explains_ends_and_nothing_a_function_has_said() {
    for kind in [VerdictKind::Crash, VerdictKind::Exit, VerdictKind::Start, VerdictKind::BadFrame] {
        assert!(tells_of_an_end(kind), "{kind:?}");
    }
    for kind in [VerdictKind::FunctionError, VerdictKind::Deadline, VerdictKind::AnswerTooLarge, VerdictKind::Memory] {
        assert!(!tells_of_an_end(kind), "{kind:?}");
    }
}
