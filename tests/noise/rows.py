"""What the neighbour does, row by row, and how one sees that it really did it."""

import os
from dataclasses import dataclass, field

CORES = os.cpu_count() or 1
# The supervisor reads each worker's log at most this fast (its worker/log.rs); who writes faster waits.
LOG_MIB_PER_SECOND = 10


@dataclass
class Row:
    """One kind of noise."""

    name: str
    # Payloads sent in turn, so many in flight; none for a row whose noise is not a caller.
    payloads: list = field(default_factory=list)
    in_flight: int = 4
    # Ends of which at least one kind must come so often in a second.
    needs: tuple = ()
    least: float = 1.0
    # Says what else is missing, or nothing. Given the neighbour's report and the settings.
    also: object = None
    # Whom the quiet one calls: the supervisor, or the floor's server, which isolates nobody.
    target: str = "sublet"
    spinners: int = 0


def uses_its_quota(report, settings):
    quota = settings["tenant.acme.sub_tenant"].get("cpu_quota", f"{CORES}")
    cores = float(quota[:-1]) / 1000 if quota.endswith("m") else float(quota)
    cores = min(cores, CORES)
    used = report["cpu_seconds"] / report["seconds"]
    if used < 0.75 * cores:
        return f"it used {used:.2f} CPUs and may use {cores:.2f}: it was never throttled"
    return None


def writes_as_fast_as_it_may(report, _settings):
    written = report["ends"].get("ANSWERED", 0) * LOG_FLOOD_MIB / report["seconds"]
    most = LOG_WORKERS * LOG_MIB_PER_SECOND
    if written < 0.7 * most:
        return f"it wrote {written:.0f} MiB/s to its logs, the limit is {most}"
    return None


LOG_FLOOD_MIB = 2
LOG_WORKERS = 4

ROWS = [
    Row("floods calls", ["echo x"], 64, ("SUB_TENANT_CALLS_FULL", "SUB_TENANT_RATE", "QUEUE_FULL"),
        also=lambda report, _: None if report["ends"].get("ANSWERED") else "none of its calls was answered"),
    Row("spins", ["spin-all 8 250"], 4, ("ANSWERED",), also=uses_its_quota),
    # One call that is answered after each two that are not: three failures in a row, and sublet makes it wait.
    Row("dies of memory", ["alloc 512", "alloc 512", "echo x"], 1, ("MEMORY",), least=5),
    Row("fork-bombs", ["bomb 12 250"], 4, ("PIDS",), least=4),
    Row("fills its /tmp", ["stuff 64"], 4, ("DISK",), least=20),
    Row("floods its log", [f"flood {LOG_FLOOD_MIB}"], LOG_WORKERS, ("ANSWERED",), also=writes_as_fast_as_it_may),
    Row("crash-loops", ["signal 11", "signal 11", "echo x"], 1, ("CRASH",), least=20),
    Row("crash-loops, no pause", ["signal 11"], 4, ("CRASH_BACKOFF",), least=100),
    # What goes through the channel, which the supervisor itself reads.
    Row("breaks its channel", ["raw garbage", "raw wrong-lease", "echo x"], 1, ("BAD_FRAME",), least=20),
    # The kernel lets them through, or the function is told that it does not.
    Row("attaches descriptors", ["raw descriptors 253"], 4, ("ANSWERED", "BAD_FRAME"), least=20),
    Row("answers byte by byte", ["raw byte-by-byte"], 4, ("ANSWERED",)),
    Row("logs byte by byte", ["drip 2000"], LOG_WORKERS, ("ANSWERED",)),
    Row("control: spinners outside", spinners=CORES),
    Row("no sublet: spinners", target="floor", spinners=CORES),
    Row("no sublet: floods calls", ["echo x"], 64, ("ANSWERED",), least=1000, target="floor"),
]


def missing(row, report, settings):
    """Why the noise of a row was none; nothing when it was real."""
    if not row.payloads:
        return None
    came = sum(report["ends"].get(end, 0) for end in row.needs) / report["seconds"]
    if came < row.least:
        return f"{' or '.join(row.needs)} came {came:.1f} times a second, {row.least:.0f} at least were to"
    return row.also(report, settings) if row.also else None
