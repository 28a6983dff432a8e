"""Runs floors, peers and sublet in turn and prints each figure as a ratio. Started by tests/bench, which has the supervisor up."""

import json
import os
import shutil
import subprocess
import sys
import time

work, rounds, root = sys.argv[1], int(sys.argv[2]), sys.argv[3]
floor = f"{root}/target/release/warm-floor"
samples = {}
rates = {}


def warm(name, *args, calls=2000):
    line = subprocess.run(
        [floor, *args, "--calls", str(calls), "--name", name], check=True, stdout=subprocess.PIPE
    ).stdout
    report = json.loads(line)
    samples.setdefault(name, []).extend(report["samples"])
    if "cell" in name:
        print(f"  {name}: {len(report['samples'])} of {calls} calls found a cell", file=sys.stderr)
    rates.setdefault(name, []).append(report["calls_per_second"])


def product(name, function, *args, calls=2000):
    against = ["--against", f"{work}/state/call.sock", "--tenant", "acme", "--function", function]
    warm(name, *against, *args, calls=calls)


def cold_floor():
    # Below the group this process is in, where the v2 hierarchy is.
    group = f"{v2_own()}/cold-floor-{os.getpid()}"
    line = subprocess.run(
        [f"{work}/cold-floor", "-n", "100", "-g", "2", "-c", group, f"{work}/ready"], check=True, stdout=subprocess.PIPE
    ).stdout
    report = json.loads(line)
    samples.setdefault("cold floor (C)", []).extend(report["samples"])


def v2_own():
    with open("/proc/self/mountinfo") as mounts:
        points = [l.split()[4] for l in mounts if " - cgroup2 " in l]
    with open("/proc/self/cgroup") as groups:
        path = next(l.strip()[3:] for l in groups if l.startswith("0::"))
    return points[0] + path.rstrip("/")


def bubblewrap():
    if not shutil.which("bwrap"):
        return
    command = ["bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", "--ro-bind", f"{work}/ready", "/ready",
               "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/ready"]
    for _ in range(100):
        start = time.perf_counter_ns()
        subprocess.run(command, check=True, close_fds=True)
        samples.setdefault("bubblewrap, until it exits", []).append(time.perf_counter_ns() - start)


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(title, base, names):
    print(f"\n{title}")
    print(f"  {'':34} {'p50':>9} {'p99':>9} {'p99.9':>9}   {'p50 ratio':>9} {'p99 ratio':>9}  {'calls/s':>8}")
    for name in names:
        if name not in samples:
            print(f"  {name:34} not measured: it is not installed")
            continue
        row = [quantile(samples[name], share) / 1e3 for share in (0.5, 0.99, 0.999)]
        ratio = [quantile(samples[name], share) / quantile(samples[base], share) for share in (0.5, 0.99)]
        rate = f"{sum(rates[name]) / len(rates[name]):8.0f}" if name in rates else ""
        print(f"  {name:34} {row[0]:7.0f}us {row[1]:7.0f}us {row[2]:7.0f}us   {ratio[0]:8.2f}x {ratio[1]:8.2f}x  {rate}")


for number in range(rounds):
    print(f"round {number + 1} of {rounds}", file=sys.stderr)
    for flight in ("1", "8"):
        warm(f"gRPC echo, {flight} in flight", "--mode", "echo", "--in-flight", flight)
        warm(f"warm floor, {flight} in flight", "--mode", "pipe", "--in-flight", flight)
        product(f"sublet warm, {flight} in flight", "warm", "--in-flight", flight)
    product("sublet warm, frozen between calls", "frozen")
    cold_floor()
    fresh = ["--fresh", "--sub-tenant", f"r{number}", "--warm-up", "5"]
    product("sublet cold, Invoke to answer", "cold", *fresh, calls=100)
    product("sublet cold, function without libc", "cold-bare", *fresh, calls=100)
    # Apart, so that a cell is there for each: what is measured is the use of one, not the making. A machine that has gone
    # to sleep in between is slower to answer anybody, so the warm calls beside them come at the same pace.
    product("sublet warm, same pace", "bare", "--gap", "30", calls=60)
    product("sublet cell, Invoke to answer", "cell", *fresh, "--gap", "30", "--start", "cell", calls=60)
    product("sublet cell, function without libc", "cell-bare", *fresh, "--gap", "30", "--start", "cell", calls=60)
    bubblewrap()

for flight in ("1", "8"):
    names = [f"gRPC echo, {flight} in flight", f"warm floor, {flight} in flight", f"sublet warm, {flight} in flight"]
    if flight == "1":
        names.append("sublet warm, frozen between calls")
    table(f"Warm, 256 B, {flight} in flight", f"warm floor, {flight} in flight", names)
table("Cold, static function", "cold floor (C)",
      ["cold floor (C)", "sublet cold, Invoke to answer", "sublet cold, function without libc", "bubblewrap, until it exits"])
table("First call of an unseen sub-tenant, a cell ready, 30 ms between calls", "sublet warm, same pace",
      ["sublet warm, same pace", "sublet cell, Invoke to answer", "sublet cell, function without libc"])
with open(f"{root}/target/bench.json", "w") as out:
    json.dump({name: {"p50_ns": quantile(v, 0.5), "p99_ns": quantile(v, 0.99), "p999_ns": quantile(v, 0.999), "samples": len(v)}
               for name, v in samples.items()}, out, indent=1)
print("\nwritten to target/bench.json")
