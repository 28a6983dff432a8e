//! The least and the most a setting may be, each with its reason, which is part of the error.

use std::time::Duration;

use sublet_proto::link::frame::PAYLOAD_LIMIT;

use super::units::{ByteSize, CallRate, CpuMillis};

/// Largest configuration file in bytes. Bounds everything that is read from it: tenants, functions, texts.
pub const CONFIG_MAX_BYTES: u64 = 1 << 20;
/// A command and its environment travel to the nursery in one message of 64 KiB, with two paths and some numbers. This
/// is their share, in bytes, as JSON has them.
pub const COMMAND_AND_ENV_MAX_BYTES: usize = 32 * 1024;
/// All directories of all functions travel to the nursery in one message of 64 KiB. This is their share.
pub const DIRS_MAX_BYTES: usize = 48 * 1024;
/// The kernel's sun_path has 108 bytes, one of them the ending NUL.
pub const SOCKET_PATH_MAX_BYTES: usize = 107;

/// A range of allowed values, both ends included.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<T> {
    /// Least.
    pub min: T,
    /// Why not less.
    pub why_min: &'static str,
    /// Most.
    pub max: T,
    /// Why not more.
    pub why_max: &'static str,
}

const NEVER_ZERO: &str = "zero would allow nothing at all";
const PLAUSIBLE: &str = "more is a slip of the pen";
/// Above any count this daemon could serve, below any overflow.
const COUNT_MAX: u32 = 1_000_000;

/// Duration::from_hours is younger than the Rust version that we promise to build with.
const DAY_SECS: u64 = 24 * 60 * 60;

const fn count(max: u32, why_max: &'static str) -> Bounds<u32> {
    Bounds { min: 1, why_min: NEVER_ZERO, max, why_max }
}

/// `uid_base`.
pub const UID_BASE: Bounds<u32> = Bounds {
    min: 65_536,
    why_min: "the ids below are the host's own users",
    max: u32::MAX - 2,
    why_max: "two ids must fit below 4294967295, which means \"no id\"",
};
/// `uid_count`.
pub const UID_COUNT: Bounds<u32> =
    Bounds { min: 2, why_min: "each worker takes two", max: 1 << 24, why_max: PLAUSIBLE };
/// `supervisor_uid`.
pub const SUPERVISOR_UID: Bounds<u32> = Bounds {
    min: 1,
    why_min: "the supervisor talks to the world and must not be root",
    max: u32::MAX - 1,
    why_max: "4294967295 means \"no id\"",
};
/// `socket_gid`.
pub const SOCKET_GID: Bounds<u32> =
    Bounds { min: 0, why_min: "", max: u32::MAX - 1, why_max: "4294967295 means \"no id\"" };
/// Workers, at every level.
pub const WORKERS: Bounds<u32> = count(COUNT_MAX, PLAUSIBLE);
/// Calls waiting or in flight, and calls until a worker is replaced.
pub const CALLS: Bounds<u32> = count(COUNT_MAX, PLAUSIBLE);
/// `calls_in_flight_max`: the largest default is all workers and all waiting calls.
pub const CALLS_IN_FLIGHT: Bounds<u32> = count(2 * COUNT_MAX, PLAUSIBLE);
/// `connections_max`.
pub const CONNECTIONS: Bounds<u32> = count(65_536, "each takes a descriptor of the supervisor");
/// `threads`.
pub const THREADS: Bounds<u32> = count(256, "beyond that they only wait for each other");

/// `memory_max`, at every level.
pub const MEMORY: Bounds<ByteSize> = Bounds {
    min: ByteSize::mib(4),
    why_min: "init, launcher, their page tables and kernel stacks take up to 2 MiB before the function starts",
    max: ByteSize::from_bytes(1 << 50),
    why_max: PLAUSIBLE,
};
/// What one cell is counted at: a sandbox without a function, kernel memory included, as measured by tests/bench, and some
/// room.
pub const CELL_BYTES: u64 = 1 << 20;
/// `cells_memory_max`.
pub const CELLS_MEMORY: Bounds<ByteSize> =
    Bounds { min: ByteSize::from_bytes(0), why_min: "", max: ByteSize::from_bytes(1 << 50), why_max: PLAUSIBLE };
/// `cells_max` and `workers_min`; zero is none.
pub const NONE_OR_MORE: Bounds<u32> = Bounds { min: 0, why_min: "", max: COUNT_MAX, why_max: PLAUSIBLE };
/// `rate`, at every level.
pub const RATE: Bounds<CallRate> = Bounds {
    min: CallRate::per_second(1),
    why_min: NEVER_ZERO,
    max: CallRate::per_second(COUNT_MAX),
    why_max: PLAUSIBLE,
};
/// `rate_burst`, at every level.
pub const RATE_BURST: Bounds<u32> = count(COUNT_MAX, PLAUSIBLE);
/// `weight`, at every level.
pub const WEIGHT: Bounds<u32> =
    Bounds { min: 1, why_min: "zero would mean never served", max: 10_000, why_max: "shares are relative" };
/// `cpu_quota`, at every level.
pub const CPU_QUOTA: Bounds<CpuMillis> = Bounds {
    min: CpuMillis::from_millis(10),
    why_min: "the kernel's least quota is 1 ms in each period of 100 ms",
    max: CpuMillis::from_millis(8_192_000),
    why_max: "Linux runs on 8192 CPUs at most",
};
/// `cpu_period`, at every level.
pub const CPU_PERIOD: Bounds<Duration> = Bounds {
    min: Duration::from_millis(1),
    why_min: "the kernel's least period",
    max: Duration::from_secs(1),
    why_max: "the kernel's longest period, and a throttled worker waits for its end",
};
/// `cpu_burst`, at every level.
pub const CPU_BURST: Bounds<Duration> = Bounds {
    min: Duration::ZERO,
    why_min: "",
    max: Duration::from_secs(3600),
    why_max: "at most the quota of one period can be saved up",
};
/// `memory_min`, of tenants and sub-tenants.
pub const MEMORY_MIN: Bounds<ByteSize> =
    Bounds { min: ByteSize::kib(4), why_min: "the kernel counts pages", max: MEMORY.max, why_max: PLAUSIBLE };
/// `cpu_weight`, at every level.
pub const CPU_WEIGHT: Bounds<u32> =
    Bounds { min: 1, why_min: "the kernel's least", max: 10_000, why_max: "the kernel's most" };
/// `pids_max`, at every level.
pub const PIDS: Bounds<u32> = Bounds {
    min: 3,
    why_min: "init, launcher and function are one each",
    max: 4_194_304,
    why_max: "Linux has no more process ids",
};
/// `tmp_size`.
pub const TMP_SIZE: Bounds<ByteSize> = Bounds {
    min: ByteSize::kib(4),
    why_min: "a tmpfs holds whole pages, and zero would mean no limit",
    max: ByteSize::from_bytes(1 << 50),
    why_max: PLAUSIBLE,
};
/// `tmp_inodes`.
pub const TMP_INODES: Bounds<u32> = Bounds {
    min: 2,
    why_min: "/tmp itself takes one, and zero would mean no limit",
    max: COUNT_MAX,
    why_max: "each takes about 1 KiB of the kernel's memory",
};
/// `nofile`.
pub const NOFILE: Bounds<u32> = Bounds {
    min: 16,
    why_min: "channel, log and the loader's libraries need as many",
    max: 1_048_576,
    why_max: "the kernel's own limit for a process, fs.nr_open",
};
/// `stack`.
pub const STACK: Bounds<ByteSize> = Bounds {
    min: ByteSize::kib(64),
    why_min: "a program with less dies before its first line, with no word why",
    max: ByteSize::from_bytes(1 << 30),
    why_max: PLAUSIBLE,
};
/// `token.ttl` of `jwt`.
pub const JWT_TTL: Bounds<Duration> = Bounds {
    min: Duration::from_secs(30),
    why_min: "clocks differ, and a token must live through a call or two",
    max: Duration::from_secs(3600),
    why_max: "nobody can take a signed token back: it has to expire soon",
};
/// `token.ttl` of the other providers.
pub const TOKEN_TTL: Bounds<Duration> = Bounds {
    min: Duration::from_secs(1),
    why_min: "the provider would do nothing else",
    max: Duration::from_secs(DAY_SECS),
    why_max: PLAUSIBLE,
};
/// `token.timeout`.
pub const TOKEN_TIMEOUT: Bounds<Duration> = Bounds {
    min: Duration::from_millis(10),
    why_min: "no program is as fast",
    max: Duration::from_secs(60),
    why_max: "a call waits for it",
};
/// `stream_max`.
pub const STREAM: Bounds<ByteSize> = Bounds {
    min: ByteSize::from_bytes(1),
    why_min: NEVER_ZERO,
    max: ByteSize::from_bytes(1 << 50),
    why_max: PLAUSIBLE,
};
/// `payload_max` and `answer_max`.
pub const FRAME: Bounds<ByteSize> = Bounds {
    min: ByteSize::from_bytes(1),
    why_min: NEVER_ZERO,
    max: ByteSize::from_bytes(PAYLOAD_LIMIT as u64),
    why_max: "no frame between supervisor and worker is larger",
};
/// `log_max`.
pub const LOG: Bounds<ByteSize> = Bounds {
    min: ByteSize::kib(1),
    why_min: "less does not hold one line",
    max: ByteSize::mib(1),
    why_max: "the supervisor keeps it in memory, once for each worker",
};
/// `log_rate`.
pub const LOG_RATE: Bounds<ByteSize> = Bounds {
    min: ByteSize::kib(32),
    why_min: "a longest line of 16 KiB must fit",
    max: ByteSize::mib(10),
    why_max: "the supervisor reads no worker's log faster",
};
/// `log_memory`.
pub const LOG_MEMORY: Bounds<ByteSize> = Bounds {
    min: ByteSize::kib(64),
    why_min: "less does not hold the lines of one moment",
    max: ByteSize::from_bytes(16 << 30),
    why_max: "the supervisor keeps it in memory",
};
/// `log_file_size`.
pub const LOG_FILE: Bounds<ByteSize> = Bounds {
    min: ByteSize::mib(1),
    why_min: "files would be moved on more often than they are read",
    max: ByteSize::from_bytes(1 << 40),
    why_max: PLAUSIBLE,
};
/// `log_files`.
pub const LOG_FILES: Bounds<u32> = count(1000, "each move renames all of them");
/// `timeout` and `start_timeout`.
pub const TIMEOUT: Bounds<Duration> = Bounds {
    min: Duration::from_millis(1),
    why_min: "no call ends in no time",
    max: Duration::from_secs(DAY_SECS),
    why_max: "deadlines travel as 32-bit milliseconds and a call is not a batch job",
};
/// `idle_ttl` and `age_max`.
pub const AGE: Bounds<Duration> = Bounds {
    min: Duration::from_millis(1),
    why_min: "the worker would end before it can serve",
    max: Duration::from_secs(365 * DAY_SECS),
    why_max: PLAUSIBLE,
};
/// Bounds of `stop_grace`, which is 0 where nobody asks for it.
pub const STOP_GRACE: Bounds<Duration> = Bounds {
    min: Duration::ZERO,
    why_min: "",
    max: Duration::from_secs(60),
    why_max: "the worker takes a place until it has ended, and a drain waits for it",
};
/// `freeze_after`.
pub const FREEZE: Bounds<Duration> = Bounds {
    min: Duration::ZERO,
    why_min: "",
    max: Duration::from_secs(DAY_SECS),
    why_max: "write \"never\" to leave idle workers running",
};
