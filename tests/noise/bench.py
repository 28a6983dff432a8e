"""The noisy-neighbour bench: a quiet customer, calm and beside each kind of noise, in pairs. Started by tests/bench.

    tests/bench noise [ROUNDS] [ROW ...] [TABLE.KEY=VALUE ...] [--seconds 5] [--rate 100]

ROW: only rows with this in their name. TABLE is host, tenant, sub_tenant or function.
"""

import json
import os
import signal
import sys
import time

import report
from rows import CORES, ROWS, missing
from stage import Stage, pause, sane_settings

SETTLE = 0.7  # seconds until the noise is what it will be
AGAIN_MAX = 2  # times a pair is measured again because the machine was busy with something else
TABLES = {"host": "host", "tenant": "tenant.acme", "sub_tenant": "tenant.acme.sub_tenant",
          "function": "tenant.acme.function.probe"}


def options(words):
    chosen = {"rounds": 3, "seconds": 5, "rate": 100, "rows": [], "settings": sane_settings(), "changed": []}
    words = list(words)
    while words:
        word = words.pop(0)
        table, dot, rest = word.partition(".")
        if word in ("--seconds", "--rate") and words and words[0].isdigit():
            chosen[word[2:]] = int(words.pop(0))
        elif word.isdigit():
            chosen["rounds"] = int(word)
        elif dot and table in TABLES and "=" in rest:
            key, value = rest.split("=", 1)
            chosen["settings"][TABLES[table]][key] = int(value) if value.isdigit() else value
            chosen["changed"].append(word)
        else:
            chosen["rows"].append(word)
    wanted = [row for row in ROWS if not chosen["rows"] or any(part in row.name for part in chosen["rows"])]
    in_bounds = 1 <= chosen["rounds"] <= 100 and 1 <= chosen["seconds"] <= 60 and 1 <= chosen["rate"] <= 2000
    if not wanted or not in_bounds:
        raise SystemExit(__doc__)
    return chosen, wanted


def window(stage, target, chosen, more):
    """The quiet one's report, and who used how much CPU meanwhile, in cores."""
    before, children, start = stage.cpu(**more), os.times(), time.monotonic()
    # Reaped in here, so all of its time is the difference.
    measured = stage.finish(stage.quiet(target, chosen["rate"], chosen["seconds"]))
    after, reaped, wall = stage.cpu(**more), os.times(), time.monotonic() - start
    cpu = {name: after[name] - before[name] for name in after}
    cpu["quiet"] = sum(reaped[2:4]) - sum(children[2:4])
    cpu["others"] = max(0.0, 2 * cpu["machine"] - sum(cpu.values()))
    return {**measured, "cpu": {name: used / wall for name, used in cpu.items()}}


def pair(stage, row, chosen, label):
    """One calm window and one noisy one, right after each other."""
    floor = stage.floor() if row.target == "floor" else None
    more = {"floor": floor.pid} if floor else {}
    calm = window(stage, row.target, chosen, more)
    longest = chosen["seconds"] * 3 + 20
    noise = stage.noise(row, label, longest)
    pause(SETTLE)
    noisy = window(stage, row.target, chosen, {**more, "noise": noise.pid})
    made = stage.finish(noise, close=True)
    if floor:
        stage.end(floor)
    elif row.payloads:
        stage.forget(label)
    pause(0.3)
    return {"calm": report.digest(calm), "noisy": report.digest(noisy), "noise": made,
            "missing": missing(row, made, chosen["settings"])}


def undisturbed_pair(stage, row, chosen, label):
    """A pair during which nobody else used the machine, if that can be had."""
    for again in range(AGAIN_MAX + 1):
        stage.await_calm(report.BUSY)
        found = pair(stage, row, chosen, f"{label}-{again}")
        if not report.is_disturbed(found):
            break
        print(f"  somebody else was busy: measured {'again' if again < AGAIN_MAX else 'and kept'}", file=sys.stderr)
    return found


def main():
    chosen, wanted = options(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    pairs = {row.name: [] for row in wanted}
    with Stage(chosen["settings"]) as stage:
        stage.supervisor()
        for at in range(chosen["rounds"]):
            for index, row in enumerate(wanted):
                print(f"round {at + 1} of {chosen['rounds']}: {row.name}", file=sys.stderr)
                pairs[row.name].append(undisturbed_pair(stage, row, chosen, f"n-{at}-{index}"))
    rows = [report.summary(row, pairs[row.name]) for row in wanted]
    report.show(rows, chosen, CORES)
    with open("target/bench-noise.json", "w") as out:
        kept = {key: chosen[key] for key in ("rounds", "seconds", "rate", "settings", "changed")}
        json.dump({"goal": report.GOAL, "cores": CORES, **kept, "rows": rows}, out, indent=1)
    print("written to target/bench-noise.json")
    silent = [row for row in rows if row["missing"]]
    for row in silent:
        print(f"tests/bench noise: FAILED: \"{row['name']}\" was no noise: {'; '.join(row['missing'])}", file=sys.stderr)
    sys.exit(1 if silent else 0)


if __name__ == "__main__":
    main()
