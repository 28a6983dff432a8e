//! The settings of a function: `[tenant.T.function.F]`.

use std::{collections::BTreeMap, time::Duration};

use sublet_proto::link::sandbox::OnRefused;

use super::{
    super::{
        bounds, defaults, hash,
        path::HostPath,
        scalar::Scalar,
        settings::{
            Changes::{NewWorkers, Reload, Set},
            Freeze, Inherited,
            Kept::{Group, NoLimit, Sublet, Worker},
            Kind::{Choice, CountTable, Flag, Table, Text, TextTable, Texts},
            Row, SUBLET, settings,
        },
        units::{ByteSize, CpuMillis},
    },
    Isolation, Layout,
    code::Code,
    runtime::Runtime,
    token::{RawToken, Token},
};

settings! {
    /// A function's table as written.
    #[serde(default, deny_unknown_fields, expecting = "a table: [tenant.NAME.function.NAME]")]
    raw RawFunction;
    /// A function's table as read.
    read FunctionRead (tenant: Inherited);

    /// One revision of a function.
    values Function,
    /// What is made by hand.
    beside FunctionBeside {
        /// Changes with every setting, as written, that makes a worker different: what it runs, in which sandbox, under which
        /// limits of the kernel; and with the code, once that has been looked at. Limits it inherits are not part of it, nor is
        /// what only says how its workers are used. Stable across runs of one build while the files are; not a secret, not a
        /// checksum.
        revision: u64,
        /// How it is talked to.
        runtime: Runtime,
        /// Who shares its workers.
        isolation: Isolation,
        /// What it sees as `/`.
        layout: Layout,
        /// Host directory it sees as /function, read-only. As written at first; where links lead once it has been looked at.
        dir: HostPath,
        /// What is in `dir`; none before it has been looked at.
        code: Option<Code>,
        /// The same of a prepared root.
        root_code: Option<Code>,
        /// What a client of the Lambda Runtime API calls; none for others, and for programs that do not ask.
        handler: Option<String>,
        /// Program, an absolute path inside the worker, and arguments; never empty.
        command: Vec<String>,
        /// Its whole environment, but for what sublet adds (SUBLET_...).
        env: BTreeMap<String, String>,
        /// Workers kept always, of a shared function.
        workers_min: u32,
        /// Workers kept always, by sub-tenant.
        warm: BTreeMap<String, u32>,
        /// Whether a call whose worker died may be given to another, once.
        is_idempotent: bool,
        /// Largest payload in bytes; 1 to the frame limit.
        payload_max_bytes: u32,
        /// Largest answer in bytes; 1 to the frame limit.
        answer_max_bytes: u32,
        /// Whether each call's log has the lines START, END and REPORT.
        has_report_lines: bool,
        /// What a refused system call does.
        on_refused_syscall: OnRefused,
        /// Where its workers' tokens come from, when they are given any.
        token: Option<Token>,
    }
    rows {
        runtime [Text { name: "choice", values: "\"stream\", \"exec\", \"lambda\", \"python3.N\", \"nodejsN.x\"", pattern: Runtime::PATTERN }] ("required") NewWorkers, NoLimit,
            "How the function is called.";
        handler [Text { name: "text", values: "such as \"app.handler\", at most 1024 bytes", pattern: "^[^\\s]+$" }] ("required with \"python3.N\" and \"nodejsN.x\"") NewWorkers, NoLimit,
            "Handler, as AWS Lambda would be told.";
        isolation [Choice(&["sub-tenant", "shared"])] ("\"sub-tenant\"") NewWorkers, NoLimit,
            "Whether each sub-tenant has workers of its own, or all callers of the tenant share them.";
        layout [Choice(&["host", "static", "dir"])] ("required") NewWorkers, NoLimit,
            "Root file system of its workers.";
        root [Text { name: "path", values: "a prepared tree", pattern: "." }] ("required with `layout = \"dir\"`") NewWorkers, NoLimit,
            "The tree that becomes the root.";
        dir [Text { name: "path", values: "a directory of the host", pattern: "." }] ("required") NewWorkers, NoLimit,
            "The function's directory: `/function` inside, read-only. Its files are part of the revision, and a link to it in `function_dirs` is resolved once in each reload.";
        command as {Option<Vec<Scalar>>} [Texts { name: "list of texts", values: "with `env` at most 32 KiB" }] ("required with \"stream\" and \"exec\"") NewWorkers, NoLimit,
            "Program, by its path inside the worker, and its arguments.";
        env as {BTreeMap<String, Scalar>} [TextTable("no name that begins with `SUBLET_`")] ("none") NewWorkers, NoLimit,
            "Environment beside what every function has.";
        token as {Option<RawToken>} [Table("see [token](#tenanttfunctionftoken)")] ("none") NewWorkers, NoLimit,
            "The credential that each worker is given.";
        memory_max: ByteSize [bounds::MEMORY] (is defaults::FUNCTION_MEMORY_MAX) Set, Group("memory.max"),
            "Memory of one worker, its /tmp included.";
        memory_high: Option<ByteSize> [bounds::MEMORY] ("none") Set, Group("memory.high"),
            "Memory above which the kernel reclaims and slows down. It is at most `memory_max`.";
        cpu_quota: CpuMillis [bounds::CPU_QUOTA] (is defaults::FUNCTION_CPU_QUOTA) Set, Group("cpu.max"),
            "CPU of one worker.";
        cpu_period: Duration [bounds::CPU_PERIOD] (is defaults::CPU_PERIOD) Set, Group("cpu.max"),
            "Period over which the quota counts.";
        cpu_burst: Duration [bounds::CPU_BURST] (is defaults::CPU_BURST) Set, Group("cpu.max.burst"),
            "Unused CPU time that may be saved up, at most the quota of one period.";
        cpu_weight: u32 [bounds::CPU_WEIGHT] (is defaults::CPU_WEIGHT) Set, Group("cpu.weight"),
            "Share of the processors against the sub-tenant's other workers.";
        pids_max: u32 [bounds::PIDS] (is defaults::FUNCTION_PIDS_MAX) Set, Group("pids.max"),
            "Processes and threads of one worker, those of sublet included.";
        tmp_size: ByteSize [bounds::TMP_SIZE] (format!("\"{}\", or half of `memory_max` if that is less", defaults::TMP_SIZE) => defaults::TMP_SIZE.min(ByteSize::from_bytes(memory_max.value.bytes() / 2))) NewWorkers, Worker("tmpfs size"),
            "Size of /tmp, and of its largest file. It is at most `memory_max`.";
        tmp_inodes: u32 [bounds::TMP_INODES] (is defaults::TMP_INODES) NewWorkers, Worker("tmpfs nr_inodes"),
            "Files and directories in /tmp, itself included.";
        nofile: u32 [bounds::NOFILE] (is defaults::NOFILE) NewWorkers, Worker("RLIMIT_NOFILE"),
            "Open descriptors of each process.";
        stack: ByteSize [bounds::STACK] (is defaults::STACK) NewWorkers, Worker("RLIMIT_STACK"),
            "Stack of each thread that does not choose its own.";
        timeout: Duration [bounds::TIMEOUT] (is defaults::TIMEOUT) Set, SUBLET,
            "Longest time from the delivery of a call to its answer. The worker is then ended.";
        start_timeout: Duration [bounds::TIMEOUT] (is defaults::START_TIMEOUT) Set, SUBLET,
            "Longest time until a new worker is ready.";
        idle_ttl: Duration [bounds::AGE] (is defaults::IDLE_TTL) Set, SUBLET,
            "A worker without calls for so long is ended.";
        stop_grace: Duration [bounds::STOP_GRACE] (is defaults::STOP_GRACE) Set, SUBLET,
            "Time that an idle worker has to end by itself after SIGTERM, when it is evicted, drained, too old or idle for too long. With \"0s\" it is ended by SIGKILL at once.";
        age_max: Option<Duration> [bounds::AGE] ("none") Set, SUBLET,
            "A worker of this age gets no more calls.";
        calls_max: Option<u32> [bounds::CALLS] ("none") Set, SUBLET,
            "A worker that has served so many calls gets no more.";
        freeze_after: Freeze [bounds::FREEZE] (is defaults::FREEZE_AFTER) Set, SUBLET,
            "An idle worker is frozen after so long.";
        workers_max: u32 [bounds::WORKERS] (inherits "the tenant's" => tenant.workers_max) Set, SUBLET,
            "Workers of this function, over all sub-tenants.";
        workers_per_sub_tenant_max: u32 [bounds::WORKERS] (is defaults::WORKERS_PER_SUB_TENANT_MAX) Set, SUBLET,
            "Workers of this function for each sub-tenant. It is at most both `workers_max`.";
        queue_max: u32 [bounds::CALLS] (is defaults::QUEUE_MAX) Set, SUBLET,
            "Calls of one sub-tenant that wait for a worker.";
        calls_in_flight_max: u32 [bounds::CALLS_IN_FLIGHT] (inherits "the tenant's" => tenant.calls_in_flight_max) Set, SUBLET,
            "Calls to this function that are accepted and not answered yet.";
        cells_max: u32 [bounds::NONE_OR_MORE] (is defaults::CELLS_MAX) Set, SUBLET,
            "Cells that are kept ready for new sub-tenants, at most `workers_max`.";
        workers_min => u32 [bounds::NONE_OR_MORE] (is 0) Reload, NoLimit,
            "Workers that are always there. Only with `isolation = \"shared\"`.";
        warm as {BTreeMap<String, Scalar>} [CountTable("label = count, within the caps above", &bounds::NONE_OR_MORE)] ("none") Reload, NoLimit,
            "Workers that are always there for these sub-tenants.";
        idempotent [Flag] ("`false`") Reload, NoLimit,
            "A call whose worker died is given to another one, once.";
        payload_max => ByteSize [bounds::FRAME] (is defaults::PAYLOAD_MAX) NewWorkers, SUBLET,
            "Largest payload.";
        answer_max => ByteSize [bounds::FRAME] (is defaults::ANSWER_MAX) NewWorkers, SUBLET,
            "Largest answer to `Invoke`.";
        stream_max: ByteSize [bounds::STREAM] (is defaults::STREAM_MAX) Reload, SUBLET,
            "Largest answer to `InvokeStream`, all chunks together.";
        log_max: ByteSize [bounds::LOG] (is defaults::LOG_MAX) NewWorkers, SUBLET,
            "Tail of its log that is kept for each worker.";
        log_rate: ByteSize [bounds::LOG_RATE] (is defaults::LOG_RATE) NewWorkers, SUBLET,
            "Log of one worker per second. What is beyond it is dropped and counted.";
        report_lines [Flag] ("`false`") NewWorkers, NoLimit,
            "Adds the lines START, END and REPORT to the log of each call.";
        on_refused_syscall [Choice(&["errno", "kill"])] ("\"errno\"") NewWorkers, NoLimit,
            "A refused system call fails with an error, or ends the worker.";
    }
}

impl Function {
    /// The limits that the kernel keeps inside each worker, each with its value in the kernel's unit and where it is kept.
    pub fn limits_inside(&self) -> impl Iterator<Item = (&'static Row, String, &'static str)> {
        RawFunction::rows().iter().filter_map(|row| match row.kept {
            Worker(knob) => Some((row, self.number(row.key)?, knob)),
            Group(_) | NoLimit | Sublet(_) => None,
        })
    }

    /// The revision as operators see it: eight hexadecimal digits.
    pub fn short_revision(&self) -> String {
        hash::short(self.revision)
    }
}
