//! What a setting is when nobody wrote it, each with its reason.

use std::time::Duration;

use super::units::{ByteSize, CpuMillis, SocketMode};

/// Call socket, below `host.state_dir`: the one directory that is known to exist and to be ours.
pub const SOCKET_FILE: &str = "call.sock";
/// Admin socket, below `host.state_dir`.
pub const ADMIN_SOCKET_FILE: &str = "admin.sock";
/// Only the daemon's own user may call until the operator says who else.
pub const SOCKET_MODE: SocketMode = SocketMode::OWNER_ONLY;
/// Most hosts run one.
pub const INSTANCE: &str = "main";
/// The workers' first id of the instance [`INSTANCE`], 0x7000_0000: above systemd's ranges for users, dynamic users and
/// containers (up to 0x6FFF_FFFF), and below 2^31, from where on some tools take a uid for a negative number.
pub const UID_BASE: u32 = 0x7000_0000;
/// From one instance's first id to the next one's: [`UID_COUNT`], and as much again, in which the next one's supervisor has
/// its own.
const UID_STRIDE: u32 = 0x2_0000;
// A supervisor's id is no worker's of the block below.
const _: () = assert!(UID_STRIDE - SUPERVISOR_UID_BELOW_BASE > UID_COUNT);
/// Blocks of ids below 2^31. The first is that of [`INSTANCE`].
const UID_BLOCKS: u32 = (0x8000_0000 - UID_BASE) / UID_STRIDE;

/// The workers' first id of an instance. Two daemons on one host have different ids without a word in their
/// configurations, but for one pair of names in two thousand; who must be sure writes `uid_base`.
pub fn uid_base(instance: &str) -> u32 {
    if instance == INSTANCE {
        return UID_BASE;
    }
    // FNV-1a: the same in every version and on every host.
    let hash = instance.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    UID_BASE + (1 + hash % (UID_BLOCKS - 1)) * UID_STRIDE
}

/// Two for each of 32768 workers: more than one host runs, and still one round 16-bit range.
pub const UID_COUNT: u32 = 0x1_0000;
/// How far below the workers' range the supervisor's own uid lies: for [`INSTANCE`] 0x6FFF_FFFE, the "nobody" (65534) of the
/// last block that systemd gives to containers, and so an id that nobody logs in with or owns files by.
pub const SUPERVISOR_UID_BELOW_BASE: u32 = 2;
/// At the default function memory of 128 MiB this is 25 GiB of limits: the size of an ordinary server.
pub const WORKERS_MAX: u32 = 200;
/// A waiting call costs its payload; at typical payloads of a few KiB this is tens of MiB.
pub const CALLS_WAITING_MAX: u32 = 10_000;
/// At [`super::bounds::CELL_BYTES`] each, 64 cells: enough for the new sub-tenants of a busy second, and nothing that a host
/// that holds workers would miss.
pub const CELLS_MEMORY_MAX: ByteSize = ByteSize::mib(64);
/// Making a sandbox is CPU in the kernel, most of it serial in the nursery; beyond a few more at once only adds delay.
pub const STARTS_MAX: u32 = 8;
/// With the workers' channels this stays below 4096 descriptors, the least hard limit that Linux hosts are set up with.
pub const CONNECTIONS_MAX: u32 = 1024;
/// A thread serves some ten thousand calls a second, and there are functions to run as well. With as many threads as
/// processors, each call has one thread wake another and both look for the same work.
pub fn threads() -> u32 {
    const MOST: u32 = 16;
    u32::try_from(processors().div_ceil(2)).unwrap_or(MOST).min(MOST)
}

/// Of a call to a quick function, sleeping and waking is the largest part. On a single processor, however, whoever is to answer
/// waits for the one that polls.
pub fn busy_poll(threads: u32) -> bool {
    threads == 1 && processors() > 1
}

/// Speculative store bypass lets code read what other code of the same process has overwritten. In a worker both are one
/// sub-tenant's, and forbidding it costs Python about a tenth of its speed. It is for functions that run code of strangers
/// in their own process.
pub const FORBID_STORE_BYPASS: bool = false;

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Shares are relative; all the same until somebody says otherwise.
pub const WEIGHT: u32 = 100;
/// The kernel's own default for a new group: all siblings weigh the same.
pub const CPU_WEIGHT: u32 = 100;
/// Short, so that a throttled call waits at most this long; the kernel's own default of 100 ms would be felt as latency.
pub const CPU_PERIOD: Duration = Duration::from_millis(20);
/// Nothing is saved up unless somebody says so: then a quota means the same in every period.
pub const CPU_BURST: Duration = Duration::ZERO;

/// Room for a script runtime and a small working set; the smallest size that the large providers offer.
pub const FUNCTION_MEMORY_MAX: ByteSize = ByteSize::mib(128);
/// One CPU: a single-threaded function never notices, and a runaway takes one core, not the host.
pub const FUNCTION_CPU_QUOTA: CpuMillis = CpuMillis::from_millis(1000);
/// Threads count: enough for a JVM or Node (about 50), and a fork bomb ends at once.
pub const FUNCTION_PIDS_MAX: u32 = 64;
/// Or half of memory_max if that is less, so that a full /tmp is an error in the function and not an OOM kill.
pub const TMP_SIZE: ByteSize = ByteSize::mib(64);
/// As many files as 64 MiB hold at 16 KiB each.
pub const TMP_INODES: u32 = 4096;
/// Above what function runtimes open, far below what it takes to trouble the kernel's tables.
pub const NOFILE: u32 = 256;
/// Linux's own default, which runtimes are tested with.
pub const STACK: ByteSize = ByteSize::mib(8);
/// Longer than an interactive caller waits.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// A script runtime with many imports takes seconds when cold; what takes longer hangs.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Callers who return within minutes find their worker; a frozen one costs only memory until then.
pub const IDLE_TTL: Duration = Duration::from_secs(10 * 60);
/// A worker keeps nothing that outlives it, and its place is free at once.
pub const STOP_GRACE: Duration = Duration::ZERO;
/// Freezing and thawing cost about 15 us per call, so that back-to-back calls should find the worker running; a tenth
/// of a second after the last call nobody is in a hurry, and what the function left running stops using CPU.
pub const FREEZE_AFTER: Duration = Duration::from_millis(100);
/// One busy sub-tenant gets some parallelism and 50 of them fit the default host.
pub const WORKERS_PER_SUB_TENANT_MAX: u32 = 4;
/// At 4 workers and 10 ms a call this is a quarter of a second of waiting: a burst passes, an overload is told early.
pub const QUEUE_MAX: u32 = 100;
/// As many as new sub-tenants come at once to an ordinary function; kept only while there are such, see the pool.
pub const CELLS_MAX: u32 = 4;
/// What Lambda takes, so that a function moved from there goes on; more than gRPC clients receive unless they are told.
pub const PAYLOAD_MAX: ByteSize = ByteSize::mib(6);
/// As for payloads.
pub const ANSWER_MAX: ByteSize = ByteSize::mib(6);
/// As Lambda has it. It costs the supervisor nothing: no more than one piece is held at a time.
pub const STREAM_MAX: ByteSize = ByteSize::mib(200);
/// A stack trace and what led to it; at 200 workers 13 MiB in all.
pub const LOG_MAX: ByteSize = ByteSize::kib(64);
/// Some hundred lines a second, above what a function that is well writes; a flood is cut to what a disk takes from hundreds
/// of workers.
pub const LOG_RATE: ByteSize = ByteSize::kib(256);
/// Some ten thousand lines: what was written in the minutes before somebody asks.
pub const LOG_MEMORY: ByteSize = ByteSize::mib(16);
/// With [`LOG_FILES`] of them half a GiB, which a host has.
pub const LOG_FILE_SIZE: ByteSize = ByteSize::mib(64);
/// See [`LOG_FILE_SIZE`].
pub const LOG_FILES: u32 = 8;
/// What cloud providers give credentials of this kind at the least, and short enough that one which has leaked is soon worth
/// nothing.
pub const TOKEN_TTL: Duration = Duration::from_secs(5 * 60);
/// Half of [`START_TIMEOUT`]: the function has to start after it.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_of_ids_is_below_the_negative_ones_and_apart_from_the_next() {
        assert_eq!(uid_base(INSTANCE), UID_BASE);
        let last = UID_BASE + (UID_BLOCKS - 1) * UID_STRIDE;
        assert!(last + UID_COUNT < 1 << 31);
        let bases: std::collections::BTreeSet<u32> = ["main", "a", "b", "blue", "green"].map(uid_base).into();
        assert_eq!(bases.len(), 5);
        assert!(bases.iter().all(|base| (base - UID_BASE).is_multiple_of(UID_STRIDE) && *base <= last));
    }
}
