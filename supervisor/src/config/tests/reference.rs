//! The reference of all settings, supervisor/docs/configuration.md, is written by these tests: keys are those that the reader
//! takes, bounds and defaults are the constants that it uses, and both are tried.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    super::{
        bounds::{self, Bounds},
        defaults,
        raw::{RawFunction, RawHost, RawSubTenant, RawTenant, RawToken},
        reader::Value,
    },
    *,
};
use crate::golden;

const PAGE: &str = "supervisor/docs/configuration.md";

/// What a value looks like, and which are taken.
#[derive(Clone, Copy)]
enum Kind {
    Count(&'static Bounds<u32>),
    Size(&'static Bounds<ByteSize>),
    Cpu(&'static Bounds<CpuMillis>),
    Time(&'static Bounds<std::time::Duration>),
    Rate(&'static Bounds<CallRate>),
    /// Its type, and the values in words.
    Words(&'static str, &'static str),
}
use Kind::{Count, Cpu, Rate, Size, Time, Words};

/// How a running supervisor takes a new value.
#[derive(Clone, Copy, PartialEq)]
enum Live {
    /// Not without a restart.
    Restart,
    /// By a reload, under running workers.
    Reload,
    /// So, and by `sublet set` as well.
    Set,
    /// By a reload, with new workers: it is part of the revision.
    Workers,
}
use Live::{Reload, Restart, Set, Workers};

impl Live {
    const fn word(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Set => "set",
            Self::Workers => "new workers",
        }
    }
}

struct Row {
    key: &'static str,
    kind: Kind,
    /// In TOML's form where a constant is meant; in words otherwise.
    default: String,
    live: Live,
    help: &'static str,
}

fn row(key: &'static str, kind: Kind, default: impl Into<String>, live: Live, help: &'static str) -> Row {
    Row { key, kind, default: default.into(), live, help }
}

/// A table of rows: `key: kind, default, live; help;`. In braces, so that each row is laid out by hand.
macro_rules! rows {
    ($($key:ident: $kind:expr, $default:expr, $live:expr; $help:expr;)*) => {
        vec![$(row(stringify!($key), $kind, $default, $live, $help),)*]
    };
}

fn range<T: Value>(bounds: &Bounds<T>) -> String {
    format!("{} to {}", bounds.min.to_toml(), bounds.max.to_toml())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Count(_) => "count",
            Size(_) => "size",
            Cpu(_) => "CPU",
            Time(_) => "duration",
            Rate(_) => "rate",
            Words(name, _) => name,
        }
    }

    fn values(self) -> String {
        match self {
            Count(bounds) => range(bounds),
            Size(bounds) => range(bounds),
            Cpu(bounds) => range(bounds),
            Time(bounds) => range(bounds),
            Rate(bounds) => range(bounds),
            Words(_, values) => values.to_owned(),
        }
    }

    /// A value above the bounds and one below, where there are such, with the end that each is told to be past.
    fn past(self) -> Vec<(String, String)> {
        fn of<T: Value>(bounds: &Bounds<T>, above: Option<T>, below: Option<T>) -> Vec<(String, String)> {
            let above = above.map(|value| (value.to_toml(), format!("above {}: ", bounds.max.to_toml())));
            let below = below.map(|value| (value.to_toml(), format!("below {}: ", bounds.min.to_toml())));
            above.into_iter().chain(below).collect()
        }
        let millisecond = std::time::Duration::from_millis(1);
        match self {
            Count(b) => of(b, b.max.checked_add(1), b.min.checked_sub(1)),
            Size(b) => of(
                b,
                Some(ByteSize::from_bytes(b.max.bytes() + 1)),
                b.min.bytes().checked_sub(1).map(ByteSize::from_bytes),
            ),
            Cpu(b) => of(
                b,
                Some(CpuMillis::from_millis(b.max.millis() + 1)),
                b.min.millis().checked_sub(1).map(CpuMillis::from_millis),
            ),
            Time(b) => of(b, Some(b.max + millisecond), b.min.checked_sub(millisecond)),
            Rate(b) => of(
                b,
                Some(CallRate::per_second(b.max.count() + 1)),
                b.min.count().checked_sub(1).map(CallRate::per_second),
            ),
            Words(..) => Vec::new(),
        }
    }
}

/// A row's line: the settings that one table of the page has.
fn lines(rows: &[Row]) -> String {
    let mut text =
        String::from("| setting | type | values | default | changes by | meaning |\n|---|---|---|---|---|---|\n");
    for Row { key, kind, default, live, help } in rows {
        let (name, values, live) = (kind.name(), kind.values(), live.word());
        writeln!(text, "| `{key}` | {name} | {values} | {default} | {live} | {help} |").unwrap();
    }
    text
}

/// A setting that is not written has this value, as TOML has it.
fn or<T: Value>(value: T) -> String {
    value.to_toml()
}

const PATH: &str = "path";
const TEXT: &str = "text";
const FLAG: Kind = Words("flag", "`true`, `false`");

fn host() -> Vec<Row> {
    rows! {
        state_dir: Words(PATH, "a directory of the daemon's own"), "required", Restart;
            "Holds the lock file, the sockets and the scratch directories. Every directory on the way to it \
             must belong to root and be writable by nobody else.";
        socket: Words(PATH, "at most 107 bytes"), "`call.sock` in `state_dir`", Restart;
            "UNIX socket for callers.";
        admin_socket: Words(PATH, "at most 107 bytes, not `socket`"), "`admin.sock` in `state_dir`", Restart;
            "UNIX socket for operators. Its mode is always 0600.";
        socket_mode: Words("file mode", "octal, with read and write for the owner"), format!("\"{}\"", defaults::SOCKET_MODE), Restart;
            "Permissions of `socket`. Whoever may open it may call every function as any sub-tenant.";
        socket_gid: Count(&bounds::SOCKET_GID), "root's group", Restart;
            "Group of `socket`.";
        listen: Words("address", "a loopback address and a port, such as \"127.0.0.1:7070\""), "none", Restart;
            "TCP address for callers. Every local user can then call.";
        instance: Words("name", "`[a-z0-9][a-z0-9_-]*`, at most 63 characters"), format!("\"{}\"", defaults::INSTANCE), Restart;
            "Tells several daemons on one host apart. The cgroup is `sublet-INSTANCE`.";
        cgroup_parent: Words(PATH, "a group of the v2 hierarchy, from its root"), "the group it starts in", Restart;
            "The group in which the daemon makes its own.";
        uid_base: Count(&bounds::UID_BASE), format!("{} for \"main\", else derived from `instance`", defaults::UID_BASE), Restart;
            "First host uid and gid of the workers.";
        uid_count: Count(&bounds::UID_COUNT), or(defaults::UID_COUNT), Restart;
            "Number of host ids from `uid_base` on. It is even, and at least two for each of `workers_max`.";
        supervisor_uid: Count(&bounds::SUPERVISOR_UID), format!("`uid_base` - {}", defaults::SUPERVISOR_UID_BELOW_BASE), Restart;
            "Uid and gid of the supervisor after it has given up root. It lies outside the workers' range.";
        workers_max: Count(&bounds::WORKERS), or(defaults::WORKERS_MAX), Set;
            "Workers of all tenants together, in any state.";
        calls_in_flight_max: Count(&bounds::CALLS_IN_FLIGHT), "`workers_max` + `calls_waiting_max`", Set;
            "Calls that are accepted and not answered yet, of all tenants together.";
        calls_waiting_max: Count(&bounds::CALLS), or(defaults::CALLS_WAITING_MAX), Set;
            "Calls that wait for a worker, of all tenants together.";
        cells_memory_max: Size(&bounds::CELLS_MEMORY), or(defaults::CELLS_MEMORY_MAX), Set;
            "Memory set aside for cells. Each counts as 1 MiB.";
        starts_max: Count(&bounds::WORKERS), or(defaults::STARTS_MAX), Set;
            "Workers that are being made at one time. It is at most `workers_max`.";
        connections_max: Count(&bounds::CONNECTIONS), or(defaults::CONNECTIONS_MAX), Restart;
            "Connections of callers. Each carries at most 256 calls at a time.";
        threads: Count(&bounds::THREADS), "half of the processors, at most 16", Restart;
            "Threads of the supervisor that serve calls.";
        busy_poll: FLAG, "`true` with one thread and two processors or more", Set;
            "Polls for answers that are due at once instead of sleeping. It needs `threads = 1`.";
        forbid_store_bypass: FLAG, format!("`{}`", defaults::FORBID_STORE_BYPASS), Restart;
            "Runs functions without speculative store bypass. It costs Python about a tenth of its speed, and \
             helps functions that run strangers' code in their own process.";
        log: Words("choice", "\"none\", \"stdout\", \"files\""), "\"none\"", Restart;
            "Where the lines of functions are written. \"stdout\" writes JSON for journald.";
        log_dir: Words(PATH, "a directory of its own"), "required with `log = \"files\"`", Restart;
            "Directory of the log files. It is made if it is absent.";
        log_file_size: Size(&bounds::LOG_FILE), or(defaults::LOG_FILE_SIZE), Restart;
            "Size at which a log file is rotated.";
        log_files: Count(&bounds::LOG_FILES), or(defaults::LOG_FILES), Restart;
            "Log files that are kept, including the current one.";
        log_memory: Size(&bounds::LOG_MEMORY), or(defaults::LOG_MEMORY), Restart;
            "Memory for the last lines of all functions, which `sublet logs` prints. Tenants and sub-tenants \
             share it.";
        memory_max: Size(&bounds::MEMORY), "none", Restart;
            "Memory of all workers together. Without it they may take all of the host's.";
        cpu_quota: Cpu(&bounds::CPU_QUOTA), "none", Restart;
            "CPU of all workers together.";
        pids_max: Count(&bounds::PIDS), "none", Restart;
            "Processes and threads of all workers together.";
        accept_degraded: Words("list", "see [degradations](#degradations)"), "`[]`", Restart;
            "What this host may lack. `serve` refuses to start without anything else.";
    }
}

/// Limits that tenants and sub-tenants have alike.
fn level(of_tenant: bool) -> Vec<Row> {
    let of_sub_tenants = rows! {
        class: Words("name", "a class of this tenant"), "none", Reload;
            "Only in an `id` table: the class that speaks for what this table leaves out.";
        queue_max: Count(&bounds::CALLS), "the function's", Set;
            "Calls that wait for a worker of one function.";
    };
    let of_both = rows! {
        workers_max: Count(&bounds::WORKERS), "the level above", Set;
            "Workers, in any state, over all functions.";
        calls_in_flight_max: Count(&bounds::CALLS_IN_FLIGHT), "the level above", Set;
            "Calls that are accepted and not answered yet.";
        rate: Rate(&bounds::RATE), "none", Set;
            "Calls that are accepted per second.";
        rate_burst: Count(&bounds::RATE_BURST), "one second's worth", Set;
            "Calls that are accepted at once after a pause. It needs a `rate`.";
        weight: Count(&bounds::WEIGHT), or(defaults::WEIGHT), Set;
            "Share of the workers against siblings while calls wait.";
        memory_max: Size(&bounds::MEMORY), "none", Set;
            "Memory of all workers together, their /tmp included.";
        memory_high: Size(&bounds::MEMORY), "none", Set;
            "Memory above which the kernel reclaims and slows down. It is at most `memory_max`.";
        memory_min: Size(&bounds::MEMORY_MIN), "none", Set;
            "Memory that the kernel does not reclaim for others. All guarantees together fit the level above.";
        cpu_quota: Cpu(&bounds::CPU_QUOTA), "none", Set;
            "CPU of all workers together.";
        cpu_period: Time(&bounds::CPU_PERIOD), or(defaults::CPU_PERIOD), Set;
            "Period over which the quota counts. It needs a `cpu_quota`.";
        cpu_burst: Time(&bounds::CPU_BURST), or(defaults::CPU_BURST), Set;
            "Unused CPU time that may be saved up, at most the quota of one period.";
        cpu_weight: Count(&bounds::CPU_WEIGHT), or(defaults::CPU_WEIGHT), Set;
            "Share of the processors against siblings.";
        pids_max: Count(&bounds::PIDS), "none", Set;
            "Processes and threads of all workers together.";
    };
    if of_tenant { of_both } else { of_sub_tenants.into_iter().chain(of_both).collect() }
}

fn function() -> Vec<Row> {
    let never = |text: String| format!("{text}; or \"never\"");
    let freeze = Box::leak(never(range(&bounds::FREEZE)).into_boxed_str());
    rows! {
        runtime: Words("choice", "\"stream\", \"exec\", \"lambda\", \"python3.N\", \"nodejsN.x\""), "required", Workers;
            "How the function is called.";
        handler: Words(TEXT, "such as \"app.handler\", at most 1024 bytes"), "required with \"python3.N\" and \"nodejsN.x\"", Workers;
            "Handler, as AWS Lambda would be told.";
        isolation: Words("choice", "\"sub-tenant\", \"shared\""), "\"sub-tenant\"", Workers;
            "Whether each sub-tenant has workers of its own, or all callers of the tenant share them.";
        layout: Words("choice", "\"host\", \"static\", \"dir\""), "required", Workers;
            "Root file system of its workers.";
        root: Words(PATH, "a prepared tree"), "required with `layout = \"dir\"`", Workers;
            "The tree that becomes the root.";
        dir: Words(PATH, "a directory of the host"), "required", Workers;
            "The function's directory: `/function` inside, read-only.";
        command: Words("list of texts", "with `env` at most 32 KiB"), "required with \"stream\" and \"exec\"", Workers;
            "Program, by its path inside the worker, and its arguments.";
        env: Words("table of texts", "no name that begins with `SUBLET_`"), "none", Workers;
            "Environment beside what every function has.";
        token: Words("table", "see [token](#tenanttfunctionftoken)"), "none", Workers;
            "The credential that each worker is given.";
        memory_max: Size(&bounds::MEMORY), or(defaults::FUNCTION_MEMORY_MAX), Set;
            "Memory of one worker, its /tmp included.";
        memory_high: Size(&bounds::MEMORY), "none", Set;
            "Memory above which the kernel reclaims and slows down. It is at most `memory_max`.";
        cpu_quota: Cpu(&bounds::CPU_QUOTA), or(defaults::FUNCTION_CPU_QUOTA), Set;
            "CPU of one worker.";
        cpu_period: Time(&bounds::CPU_PERIOD), or(defaults::CPU_PERIOD), Set;
            "Period over which the quota counts.";
        cpu_burst: Time(&bounds::CPU_BURST), or(defaults::CPU_BURST), Set;
            "Unused CPU time that may be saved up, at most the quota of one period.";
        cpu_weight: Count(&bounds::CPU_WEIGHT), or(defaults::CPU_WEIGHT), Set;
            "Share of the processors against the sub-tenant's other workers.";
        pids_max: Count(&bounds::PIDS), or(defaults::FUNCTION_PIDS_MAX), Set;
            "Processes and threads of one worker, those of sublet included.";
        tmp_size: Size(&bounds::TMP_SIZE), format!("{}, or half of `memory_max` if that is less", or(defaults::TMP_SIZE)), Workers;
            "Size of /tmp, and of its largest file. It is at most `memory_max`.";
        tmp_inodes: Count(&bounds::TMP_INODES), or(defaults::TMP_INODES), Workers;
            "Files and directories in /tmp, itself included.";
        nofile: Count(&bounds::NOFILE), or(defaults::NOFILE), Workers;
            "Open descriptors of each process.";
        stack: Size(&bounds::STACK), or(defaults::STACK), Workers;
            "Stack of each thread that does not choose its own.";
        timeout: Time(&bounds::TIMEOUT), or(defaults::TIMEOUT), Set;
            "Longest time from the delivery of a call to its answer. The worker is then ended.";
        start_timeout: Time(&bounds::TIMEOUT), or(defaults::START_TIMEOUT), Set;
            "Longest time until a new worker is ready.";
        idle_ttl: Time(&bounds::AGE), or(defaults::IDLE_TTL), Set;
            "A worker without calls for so long is ended.";
        age_max: Time(&bounds::AGE), "none", Set;
            "A worker of this age gets no more calls.";
        calls_max: Count(&bounds::CALLS), "none", Set;
            "A worker that has served so many calls gets no more.";
        freeze_after: Words("duration", freeze), "\"100ms\"", Set;
            "An idle worker is frozen after so long.";
        workers_max: Count(&bounds::WORKERS), "the tenant's", Set;
            "Workers of this function, over all sub-tenants.";
        workers_per_sub_tenant_max: Count(&bounds::WORKERS), or(defaults::WORKERS_PER_SUB_TENANT_MAX), Set;
            "Workers of this function for each sub-tenant. It is at most both `workers_max`.";
        queue_max: Count(&bounds::CALLS), or(defaults::QUEUE_MAX), Set;
            "Calls of one sub-tenant that wait for a worker.";
        calls_in_flight_max: Count(&bounds::CALLS_IN_FLIGHT), "the tenant's", Set;
            "Calls to this function that are accepted and not answered yet.";
        cells_max: Count(&bounds::NONE_OR_MORE), or(defaults::CELLS_MAX), Set;
            "Cells that are kept ready for new sub-tenants, at most `workers_max`.";
        workers_min: Count(&bounds::NONE_OR_MORE), "0", Reload;
            "Workers that are always there. Only with `isolation = \"shared\"`.";
        warm: Words("table of counts", "label = count, within the caps above"), "none", Reload;
            "Workers that are always there for these sub-tenants.";
        idempotent: FLAG, "`false`", Reload;
            "A call whose worker died is given to another one, once.";
        payload_max: Size(&bounds::FRAME), or(defaults::PAYLOAD_MAX), Workers;
            "Largest payload.";
        answer_max: Size(&bounds::FRAME), or(defaults::ANSWER_MAX), Workers;
            "Largest answer to `Invoke`.";
        stream_max: Size(&bounds::STREAM), or(defaults::STREAM_MAX), Reload;
            "Largest answer to `InvokeStream`, all chunks together.";
        log_max: Size(&bounds::LOG), or(defaults::LOG_MAX), Workers;
            "Tail of its log that is kept for each worker.";
        log_rate: Size(&bounds::LOG_RATE), or(defaults::LOG_RATE), Workers;
            "Log of one worker per second. What is beyond it is dropped and counted.";
        report_lines: FLAG, "`false`", Workers;
            "Adds the lines START, END and REPORT to the log of each call.";
        on_refused_syscall: Words("choice", "\"errno\", \"kill\""), "\"errno\"", Workers;
            "A refused system call fails with an error, or ends the worker.";
    }
}

/// Of a token: settings, with the providers that take each.
fn token() -> Vec<(Row, &'static str)> {
    let claim = Words(TEXT, "at most 1024 bytes");
    let of_all = rows! {
        provider: Words("choice", "\"static\", \"command\", \"jwt\""), "required", Workers;
            "Where tokens come from.";
    };
    let of_static = rows! {
        dir: Words(PATH, "a directory that no worker sees"), "required", Workers;
            "A file for each sub-tenant, named by its label. Bytes other than letters, digits, `-`, `_`, `~` \
             and `.` are written `%XX`.";
        ttl: Time(&bounds::TOKEN_TTL), "none: read once for each worker", Workers;
            "A token is replaced at two thirds of this time.";
    };
    let of_command = rows! {
        command: Words("list of texts", "an absolute path on the host, and arguments"), "required", Workers;
            "The program that prints the token.";
        timeout: Time(&bounds::TOKEN_TIMEOUT), format!("{}, at most `start_timeout`", or(defaults::TOKEN_TIMEOUT)), Workers;
            "Longest time the program may take.";
        ttl: Time(&bounds::TOKEN_TTL), or(defaults::TOKEN_TTL), Workers;
            "A token is replaced at two thirds of this time.";
    };
    let of_jwt = rows! {
        key: Words(PATH, "PEM; Ed25519 or P-256; no worker sees it"), "required", Workers;
            "The private key that signs tokens.";
        key_id: claim, "none", Workers;
            "`kid` in the header of the token.";
        issuer: claim, "required", Workers;
            "Claim `iss`.";
        audience: claim, "required", Workers;
            "Claim `aud`.";
        ttl: Time(&bounds::JWT_TTL), or(defaults::TOKEN_TTL), Workers;
            "Time from `iat` to `exp`. A token is replaced at two thirds of it.";
    };
    [(of_all, ""), (of_static, "static"), (of_command, "command"), (of_jwt, "jwt")]
        .into_iter()
        .flat_map(|(rows, provider)| rows.into_iter().map(move |row| (row, provider)))
        .collect()
}

/// What stands before keys of the rows' table in the minimal configuration.
const TABLES: [(&str, &str); 4] =
    [("host", "host"), ("tenant", "tenant.acme"), ("sub_tenant", "tenant.acme.sub_tenant"), ("function", F)];

fn rows_of(table: &str) -> Vec<Row> {
    match table {
        "host" => host(),
        "tenant" => level(true),
        "sub_tenant" => level(false),
        _ => function(),
    }
}

#[test]
fn page_has_each_setting_that_the_reader_takes_and_no_other() {
    let tables = ["sub_tenant", "class", "id", "function"];
    for (table, keys) in [
        ("host", RawHost::KEYS),
        ("tenant", RawTenant::KEYS),
        ("sub_tenant", RawSubTenant::KEYS),
        ("function", RawFunction::KEYS),
    ] {
        let rows = rows_of(table);
        let told: BTreeSet<&str> = rows.iter().map(|row| row.key).collect();
        assert_eq!(told.len(), rows.len(), "a setting of {table} stands there twice");
        let taken: BTreeSet<&str> =
            keys.iter().copied().filter(|key| table != "tenant" || !tables.contains(key)).collect();
        assert_eq!(told, taken, "{table}");
        golden::section(PAGE, table, &lines(&rows));
    }
    let told: BTreeSet<&str> = token().iter().map(|(row, _)| row.key).collect();
    assert_eq!(told, RawToken::KEYS.iter().copied().collect());
    let mut text =
        String::from("| setting | provider | type | values | default | meaning |\n|---|---|---|---|---|---|\n");
    for (Row { key, kind, default, help, .. }, provider) in token() {
        let (name, values) = (kind.name(), kind.values());
        writeln!(text, "| `{key}` | {provider} | {name} | {values} | {default} | {help} |").unwrap();
    }
    golden::section(PAGE, "token", &text);
    let mut text = String::from("| name | what is then missing |\n|---|---|\n");
    for degradation in Degradation::ALL {
        let missing = match degradation {
            Degradation::Landlock => "Landlock. Mounts and file modes alone then keep a function out of files.",
            Degradation::Time => "Time namespaces. Workers then see how long the host has been up.",
            Degradation::Inodes => {
                "Overlays in a user namespace. Workers then share the inodes of /usr, /dev and their function's directory with the host and with each other, have neither `flock` nor inotify, and see who else has locked a file for reading."
            }
            Degradation::Cpu => "CPU quota and weight. A busy sub-tenant then slows the others down.",
            Degradation::Swap => "A swap limit. Workers may then be swapped out.",
            Degradation::MemoryHigh => "`memory_high`, wherever it is written.",
            Degradation::MemoryMin => "`memory_min`, wherever it is written.",
            Degradation::CpuBurst => "`cpu_burst`, wherever it is written.",
        };
        writeln!(text, "| `{degradation}` | {missing} |").unwrap();
    }
    golden::section(PAGE, "degradations", &text);
}

#[test]
fn bounds_on_the_page_are_those_of_the_reader() {
    let mut tried = 0;
    let mut check = |context: &[(String, String)], name: String, kind: Kind| {
        for (value, expected) in kind.past() {
            let mut changes: Vec<(&str, &str)> = context.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            changes.push((&name, &value));
            let told = told(&changes);
            let begin = format!("{name} = {value}: {expected}");
            assert!(told.iter().any(|line| line.starts_with(&begin)), "{begin:?} is not told: {told:?}");
            tried += 1;
        }
    };
    for (table, prefix) in TABLES {
        for row in rows_of(table) {
            check(&[], format!("{prefix}.{}", row.key), row.kind);
        }
    }
    for (row, provider) in token() {
        let context = [(format!("{F}.token.provider"), format!("{provider:?}"))];
        check(&context, format!("{F}.token.{}", row.key), row.kind);
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn defaults_on_the_page_are_those_of_the_reader() {
    let config = serde_json::to_value(taken(&[])).unwrap();
    let tenant = &config["tenants"]["acme"];
    let both = |level: &serde_json::Value| {
        let parts =
            [&level["limits"], &level["calls"], level].map(|part| part.as_object().cloned().unwrap_or_default());
        serde_json::Value::Object(parts.into_iter().flatten().collect())
    };
    let files = taken(&[("host.log", "\"files\""), ("host.log_dir", "\"/var/log/sublet\"")]);
    let files = serde_json::to_value(&files).unwrap()["host"]["log"]["files"].clone();
    let mut tried = 0;
    for (table, values) in [
        ("host", config["host"].clone()),
        ("tenant", both(tenant)),
        ("sub_tenant", both(&tenant["sub_tenant"])),
        ("function", tenant["functions"]["resize"].clone()),
    ] {
        for Row { key, default, .. } in rows_of(table) {
            let value = match key {
                "payload_max" | "answer_max" => {
                    or(ByteSize::from_bytes(values[format!("{key}_bytes")].as_u64().unwrap()))
                }
                "log_file_size" => files["size"].to_string(),
                "log_files" => files["count"].to_string(),
                key => values[key].to_string(),
            };
            let is_number = default.bytes().all(|byte| byte.is_ascii_digit());
            // In words, it depends on other settings or on the host.
            if is_number || (default.starts_with('"') && default.ends_with('"')) {
                assert!(value == default, "{table}.{key}: {value} {default}");
                tried += 1;
            }
        }
    }
    assert!(tried > 30, "{tried}");
}

#[test]
fn what_the_page_says_of_changes_is_so() {
    let paths = ["host", "tenant/acme", "tenant/acme/sub_tenant", "tenant/acme/function/resize"];
    for ((table, _), path) in TABLES.into_iter().zip(paths) {
        let mut can: Vec<&str> = changeable(&LevelPath::try_from(path).unwrap());
        let mut told: Vec<&str> = rows_of(table).iter().filter(|row| row.live == Set).map(|row| row.key).collect();
        can.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, can, "{table}");
    }
    // What is part of the revision makes new workers, and nothing else does.
    let with_all: RawFunction = {
        let mut raw = RawFunction::default();
        for key in RawFunction::KEYS {
            if let Some(slot) = raw.slot(key) {
                *slot = Some(super::super::raw::Scalar::Integer(1));
            }
        }
        raw.command = Some(Vec::new());
        raw.env.insert("A".into(), super::super::raw::Scalar::Integer(1));
        raw.token = Some(RawToken::default());
        raw.warm.insert("a".into(), super::super::raw::Scalar::Integer(1));
        raw
    };
    let serialised: toml::Table = toml::to_string(&with_all).unwrap().parse().unwrap();
    for row in function() {
        assert_eq!(serialised.contains_key(row.key), row.live == Workers, "{}", row.key);
    }
}
