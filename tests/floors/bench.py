"""Runs floors, peers and sublet in turn and prints each figure as a ratio. Started by tests/bench, which has the supervisor up."""

import json
import os
import shutil
import subprocess
import sys
import time

work, rounds, root, clients, supervisor = sys.argv[1], int(sys.argv[2]), *sys.argv[3:6]
floor = f"{root}/target/release/warm-floor"
samples = {}
rates = {}
# Processor time of the supervisor, in nanoseconds, and the calls it was for.
spent = {}
SLEPT = ", busy_poll = false"
SIZES = {"1 MiB": 1 << 20, "6 MiB": 6 << 20}
# What a stock client is started with, beside the function's own settings.
EVENT = '{"value": "an event of a few bytes"}'
LAMBDA = {
    "rust": [f"{clients}/rust/bootstrap"],
    "python": ["/usr/bin/python3", "-m", "awslambdaric", "app.handler"],
    "node": ["/usr/bin/node", "node_modules/aws-lambda-ric/bin/index.mjs", "index.handler"],
}


def warm(name, *args, calls=2000):
    line = subprocess.run(
        [floor, *args, "--calls", str(calls), "--name", name], check=True, stdout=subprocess.PIPE
    ).stdout
    report = json.loads(line)
    samples.setdefault(name, []).extend(report["samples"])
    if "cell" in name:
        print(f"  {name}: {len(report['samples'])} of {calls} calls found a cell", file=sys.stderr)
    rates.setdefault(name, []).append(report["calls_per_second"])


def product(name, function, *args, calls=2000, warm_up=200):
    against = ["--against", f"{work}/state/call.sock", "--tenant", "acme", "--function", function]
    before = supervisors_time()
    warm(name, *against, *args, "--warm-up", str(warm_up), calls=calls)
    total = spent.setdefault(name, [0, 0])
    total[0] += supervisors_time() - before
    total[1] += calls + warm_up


def supervisors_time():
    # CPU time of all its threads, those that have ended included: the clock of a process, as clock_getcpuclockid(3) names it.
    return time.clock_gettime_ns(~int(supervisor) << 3 | 2)


def set_busy_poll(allowed):
    change = ["unset", "host"] if allowed else ["set", "host", "busy_poll=false", "--for", "1h"]
    command = [f"{root}/target/release/sublet", *change, "--admin-socket", f"{work}/state/admin.sock"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


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


def bare_client(name, calls):
    # As its own function starts it, in its own directory, and outside of any cage.
    command = [floor, "runtime-api", "--event", EVENT, "--calls", str(calls), "--warm-up", "50", "--name", name,
               "--", *LAMBDA[name]]
    line = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=f"{clients}/{name}",
                          env={**os.environ, "PYTHONPATH": ".", "_HANDLER": LAMBDA[name][-1], "LAMBDA_TASK_ROOT": "."}).stdout
    report = json.loads(line)
    samples.setdefault(f"{name}'s own client, bare", []).extend(report["samples"])


def lambda_rows(calls=500):
    for name in LAMBDA:
        if not os.path.isdir(f"{clients}/{name}"):
            continue
        warm("warm floor, the same event", "--mode", "pipe", "--text", EVENT, calls=calls)
        lambda_row(name, "", calls)
        slept(lambda_row, name, SLEPT, calls)
        bare_client(name, calls)


def lambda_row(name, how, calls):
    event = ["--text", EVENT, "--any-answer"]
    product(f"sublet, stock {name} client{how}", f"lambda-{name}", *event, calls=calls, warm_up=50)


def slept(row, *args):
    # Right after the row it is compared with.
    set_busy_poll(False)
    row(*args)
    set_busy_poll(True)


def large_rows():
    for size, bytes_ in SIZES.items():
        payload = ["--payload", str(bytes_)]
        warm(f"warm floor, {size}", "--mode", "pipe", *payload, "--warm-up", "10", calls=60)
        product(f"sublet, {size}", "warm", *payload, calls=60, warm_up=10)


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
        slept(product, f"sublet warm, {flight} in flight{SLEPT}", "warm", "--in-flight", flight)
    product("sublet warm, frozen between calls", "frozen")
    cold_floor()
    fresh = ["--fresh", "--sub-tenant", f"r{number}"]
    product("sublet cold, Invoke to answer", "cold", *fresh, calls=100, warm_up=5)
    product("sublet cold, function without libc", "cold-bare", *fresh, calls=100, warm_up=5)
    # Apart, so that a cell is there for each: what is measured is the use of one, not the making. A machine that has gone
    # to sleep in between is slower to answer anybody, so the warm calls beside them come at the same pace.
    product("sublet warm, same pace", "bare", "--gap", "30", calls=60)
    of_cells = [*fresh, "--gap", "30", "--start", "cell"]
    product("sublet cell, Invoke to answer", "cell", *of_cells, calls=60, warm_up=5)
    product("sublet cell, function without libc", "cell-bare", *of_cells, calls=60, warm_up=5)
    bubblewrap()
    lambda_rows()
    large_rows()

for flight in ("1", "8"):
    names = [f"gRPC echo, {flight} in flight", f"warm floor, {flight} in flight", f"sublet warm, {flight} in flight"]
    if flight == "1":
        names.append("sublet warm, frozen between calls")
    table(f"Warm, 256 B, {flight} in flight", f"warm floor, {flight} in flight", names)
table("Cold, static function", "cold floor (C)",
      ["cold floor (C)", "sublet cold, Invoke to answer", "sublet cold, function without libc", "bubblewrap, until it exits"])
table("First call of an unseen sub-tenant, a cell ready, 30 ms between calls", "sublet warm, same pace",
      ["sublet warm, same pace", "sublet cell, Invoke to answer", "sublet cell, function without libc"])
print("\nStock clients of the Lambda Runtime API, warm, an event of 36 bytes, one call in flight")
print(f"  {'':34} {'p50':>9} {'p99':>9}   ratio of p50, p99 to the floor, and to the floor and the bare client together")
base = "warm floor, the same event"
for name in LAMBDA:
    row, bare = f"sublet, stock {name} client", f"{name}'s own client, bare"
    if row not in samples:
        print(f"  {row:34} not measured: {clients}/{name} is not there; run tests/clients/install, or set SUBLET_CLIENTS")
        continue
    for shown in (bare, row):
        values = [quantile(samples[shown], share) for share in (0.5, 0.99)]
        floors = [quantile(samples[base], share) for share in (0.5, 0.99)]
        alone = [quantile(samples[bare], share) for share in (0.5, 0.99)]
        ratios = [f"{v / f:5.2f}x" for v, f in zip(values, floors)]
        if shown == row:
            ratios += [f"{v / (f + a):5.2f}x" for v, f, a in zip(values, floors, alone)]
        print(f"  {shown:34} {values[0] / 1e3:7.0f}us {values[1] / 1e3:7.0f}us   {'  '.join(ratios)}")
print("\nWhat busy polling gains and costs")
print(f"  {'':52} {'p50':>9} {'p99':>9}   supervisor's CPU a call")
for polled in ["sublet warm, 1 in flight", "sublet warm, 8 in flight", *(f"sublet, stock {name} client" for name in LAMBDA)]:
    for name in (polled, polled + SLEPT):
        if name in samples:
            row = [quantile(samples[name], share) / 1e3 for share in (0.5, 0.99)]
            print(f"  {name:52} {row[0]:7.0f}us {row[1]:7.0f}us   {spent[name][0] / spent[name][1] / 1e3:7.0f}us")
for size, bytes_ in SIZES.items():
    names = [f"warm floor, {size}", f"sublet, {size}"]
    table(f"Echo of {size}, one call in flight", names[0], names)
    per_second = [sum(rates[name]) / len(rates[name]) * bytes_ / 1e6 for name in names]
    print(f"  each way: floor {per_second[0]:.0f} MB/s, sublet {per_second[1]:.0f} MB/s, {per_second[1] / per_second[0]:.2f}x")
with open(f"{root}/target/bench.json", "w") as out:
    json.dump({name: {"p50_ns": quantile(v, 0.5), "p99_ns": quantile(v, 0.99), "p999_ns": quantile(v, 0.999), "samples": len(v)}
               for name, v in samples.items()}, out, indent=1)
print("\nwritten to target/bench.json")
