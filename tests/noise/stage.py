"""The processes of the bench: one supervisor, the loads, the floor. All of them end when this process does, however."""

import glob
import json
import os
import shutil
import subprocess
import time

PATIENCE = 20  # seconds, for anything to start or stop
RELEASE = "target/release"
PROBE = "target/static/x86_64-unknown-linux-gnu/release/sublet-probe"


def sane_settings():
    """Limits as a careful operator of a small host would set them."""
    return {
        "host": {"memory_max": "1GiB"},
        "tenant.acme": {},
        "tenant.acme.sub_tenant": {
            "memory_max": "256MiB", "cpu_quota": "1000m", "cpu_weight": 100, "pids_max": 128, "workers_max": 4,
            "calls_in_flight_max": 48,
        },
        "tenant.acme.function.probe": {
            "runtime": "stream", "layout": "static", "memory_max": "64MiB", "cpu_quota": "1000m", "pids_max": 32,
            "tmp_size": "16MiB", "timeout": "10s",
        },
    }


def degraded():
    """What this host lacks, by the names a configuration accepts it with."""
    names = {"landlock": "landlock", "time namespaces": "time", "cpu limit": "cpu", "swap limit": "swap"}
    said = subprocess.run([f"{RELEASE}/sublet", "doctor", "--json"], stdout=subprocess.PIPE, check=False).stdout
    return [names[check["name"]] for check in json.loads(said)["checks"] if check["state"] == "degraded"]


class Stage:
    def __init__(self, settings):
        self.settings = settings
        self.instance = f"noise-{os.getpid()}"
        self.work = f"/tmp/sublet-{self.instance}"
        self.running = []
        for left in glob.glob("/tmp/sublet-noise-[0-9]*"):
            # Of a bench that was killed: everything else of it has ended by itself.
            if not os.path.exists(f"/proc/{left.rsplit('-', 1)[1]}"):
                shutil.rmtree(left, ignore_errors=True)
        os.mkdir(self.work, 0o755)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Last started, first ended; each ends by itself when its stdin closes.
        for process in reversed(self.running):
            process.stdin.close()
        for process in reversed(self.running):
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.work, ignore_errors=True)

    def start(self, *command, ready):
        """Starts a process in a session of its own: Ctrl-C is ours alone, and each is a party of its own to a kernel
        that shares the processors out by session (autogroup), as services are on a real host."""
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True,
            env={**os.environ, "RUST_LOG": "error"},
        )
        self.running.append(process)
        if ready and ready not in process.stdout.readline():
            raise SystemExit(f"tests/bench noise: {command[0]} did not start")
        return process

    def finish(self, process, close=False):
        """Its one line of JSON."""
        if close:
            process.stdin.close()
        said = process.stdout.read()
        self.running.remove(process)
        if process.wait(PATIENCE) != 0:
            raise SystemExit(f"tests/bench noise: {process.args[0]} {process.args[1]} failed")
        return json.loads(said)

    def supervisor(self):
        os.mkdir(f"{self.work}/fn", 0o755)
        shutil.copy(PROBE, f"{self.work}/fn/probe")
        own = {
            "host": {"state_dir": f"{self.work}/state", "instance": self.instance, "accept_degraded": degraded()},
            "tenant.acme.function.probe": {"dir": f"{self.work}/fn", "command": ["/function/probe"]},
        }
        with open(f"{self.work}/sublet.toml", "w") as out:
            for table, settings in self.settings.items():
                out.write(f"[{table}]\n")
                for key, value in {**settings, **own.get(table, {})}.items():
                    out.write(f"{key} = {json.dumps(value)}\n")
        # In a session of its own as all of them: with our terminal, another process would be in front of the supervisor.
        command = [f"{RELEASE}/sublet", "serve", "--while-stdin-is-open", "--config", f"{self.work}/sublet.toml"]
        self.serving = self.start(*command, ready="serving")
        children = open(f"/proc/{self.serving.pid}/task/{self.serving.pid}/children").read().split()
        self.nursery = int(children[0])

    def socket(self, target):
        return f"{self.work}/state/call.sock" if target == "sublet" else f"{self.work}/floor.sock"

    def floor(self):
        """gRPC and a pipe to a process for each call in flight, and nothing else; ended by closing its stdin."""
        return self.start(f"{RELEASE}/warm-floor", "server", "--mode", "pipe", "--children", "80",
                          "--socket", self.socket("floor"), ready="ready")

    def end(self, process):
        process.stdin.close()
        self.running.remove(process)
        process.wait(PATIENCE)

    def quiet(self, target, rate, seconds):
        command = [f"{RELEASE}/noise", "quiet", "--socket", self.socket(target), "--sub-tenant", "quiet",
                   "--rate", str(rate), "--seconds", str(seconds)]
        return self.start(*command, ready=None)

    def noise(self, row, label, seconds):
        if row.spinners:
            command = ["spin", "--threads", str(row.spinners)]
        else:
            command = ["neighbour", "--socket", self.socket(row.target), "--sub-tenant", label,
                       "--in-flight", str(row.in_flight)]
            command += [word for payload in row.payloads for word in ("--payload", payload)]
        return self.start(f"{RELEASE}/noise", *command, "--seconds", str(seconds), ready="ready")

    def forget(self, label):
        """Ends a neighbour's workers, so that nothing of it is in the next row."""
        command = [f"{RELEASE}/sublet", "evict", "--tenant", "acme", "--sub-tenant", label, "--force",
                   "--admin-socket", f"{self.work}/state/admin.sock"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, stdin=subprocess.DEVNULL)

    def await_calm(self, cores):
        """Until the machine has been left alone for a second; a minute at most."""
        for _ in range(60):
            before = of_machine()
            pause(1)
            if of_machine() - before < cores:
                return

    def cpu(self, **more):
        """Seconds of CPU so far, of everybody."""
        pool = glob.glob(f"{v2_own()}/sublet-{self.instance}/pool/cpu.stat")
        used = {"workers": int(open(pool[0]).readline().split()[1]) / 1e6} if pool else {"workers": 0.0}
        for name, pid in {"supervisor": self.serving.pid, "nursery": self.nursery, **more}.items():
            used[name] = of_session(pid)
        used["machine"] = of_machine()
        return used


def v2_own():
    with open("/proc/self/mountinfo") as mounts:
        points = [line.split()[4] for line in mounts if " - cgroup2 " in line]
    with open("/proc/self/cgroup") as groups:
        path = next(line.strip()[3:] for line in groups if line.startswith("0::"))
    return points[0] + path.rstrip("/")


TICKS = os.sysconf("SC_CLK_TCK")


def of_session(leader):
    """Of a process and those it has started; each process of the bench leads a session of its own."""
    used = 0
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            fields = open(path).read().rsplit(") ", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader:
            used += int(fields[11]) + int(fields[12])
    return used / TICKS


def of_machine():
    """Of anybody: all but idle and waiting for disks. What a hypervisor takes (steal) is somebody's too."""
    fields = [int(field) for field in open("/proc/stat").readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


def pause(seconds):
    time.sleep(seconds)
