"""From samples to a table. A row whose noise was none has no numbers."""

from statistics import median

GOAL = {"p99_ratio_max": 1.5, "share_min": 0.90}
# What others may use of the machine while it is to be calm, in cores; and beside noise, where the kernel's own threads
# work for it.
BUSY = 0.15
BUSY_BESIDE_NOISE = 0.5
PARTS = ("late", "queued", "running", "rest")


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def digest(window):
    """What is kept of one window. Times in us, CPU in cores."""
    samples = window["samples"]
    for sample in samples:
        # Between client and supervisor, both ways: sockets, gRPC, and every wait for a processor there.
        sample["rest"] = max(0, sample["total"] - sample["late"] - sample["queued"] - sample["running"])
    seconds = window["seconds"]
    return {
        "p50_us": quantile([s["total"] for s in samples], 0.5) / 1e3,
        "p99_us": quantile([s["total"] for s in samples], 0.99) / 1e3,
        "max_us": quantile([s["total"] for s in samples], 1) / 1e3,
        "parts_p99_us": {part: quantile([s[part] for s in samples], 0.99) / 1e3 for part in PARTS},
        "answered_per_second": window["answered_in_time"] / seconds,
        "share": window["answered_in_time"] / window["asked"],
        "errors": {end: count for end, count in window["ends"].items() if end != "ANSWERED"},
        "cores": window["cpu"],
    }


def is_disturbed(pair):
    return pair["calm"]["cores"]["others"] > BUSY or pair["noisy"]["cores"]["others"] > BUSY_BESIDE_NOISE


def summary(row, pairs):
    """Medians over the rounds; ratios are of each pair, not of medians."""
    def mid(which, key):
        return median(pair[which][key] for pair in pairs)

    ends = {}
    seconds = sum(pair["noise"]["seconds"] for pair in pairs)
    for pair in pairs:
        for end, count in pair["noise"].get("ends", {}).items():
            ends[end] = ends.get(end, 0) + count
    errors = {}
    for pair in pairs:
        for end, count in pair["noisy"]["errors"].items():
            errors[end] = errors.get(end, 0) + count
    ratio = median(pair["noisy"]["p99_us"] / pair["calm"]["p99_us"] for pair in pairs)
    share = mid("noisy", "share")
    names = {name for pair in pairs for name in pair["noisy"]["cores"]}
    return {
        "name": row.name,
        "calm": {key: mid("calm", key) for key in ("p50_us", "p99_us", "answered_per_second", "share")},
        "noisy": {key: mid("noisy", key) for key in ("p50_us", "p99_us", "answered_per_second", "share")},
        "p50_ratio": median(pair["noisy"]["p50_us"] / pair["calm"]["p50_us"] for pair in pairs),
        "p99_ratio": ratio,
        "met": ratio <= GOAL["p99_ratio_max"] and share >= GOAL["share_min"],
        "errors": errors,
        "internal": ends.get("INTERNAL", 0),
        "neighbour_ends_per_second": {end: count / seconds for end, count in sorted(ends.items())},
        "parts_p99_us": {part: median(pair["noisy"]["parts_p99_us"][part] for pair in pairs) for part in PARTS},
        "calm_parts_p99_us": {part: median(pair["calm"]["parts_p99_us"][part] for pair in pairs) for part in PARTS},
        "cores": {name: median(pair["noisy"]["cores"].get(name, 0) for pair in pairs) for name in sorted(names)},
        "calm_cores": {name: median(pair["calm"]["cores"].get(name, 0) for pair in pairs)
                       for name in sorted(pairs[0]["calm"]["cores"])},
        "missing": sorted({pair["missing"] for pair in pairs if pair["missing"]}),
        "rounds": pairs,
    }


def counted(ends, most=4):
    parts = sorted(ends.items(), key=lambda end: -end[1])
    return ", ".join(f"{count:.0f} {end}" for end, count in parts[:most]) or "-"


def show(rows, chosen, cores):
    print(f"\nQuiet customer at {chosen['rate']} calls/s beside a noisy one of the same tenant, {cores} cores; "
          f"{chosen['rounds']} pairs of {chosen['seconds']} s, medians")
    print(f"Goal: p99 at most {GOAL['p99_ratio_max']} x its calm, answered at least {GOAL['share_min']:.0%} of what was "
          f"asked{'; changed: ' + ' '.join(chosen['changed']) if chosen['changed'] else ''}")
    print(f"  {'the neighbour':26} {'calm p50':>8} {'p99':>8}   {'p50':>8} {'p99':>8}  {'p50':>6} {'p99':>7}  "
          f"{'answered/s':>10} {'share':>6}  {'goal':7}  its ends per second")
    for row in rows:
        calm, noisy = row["calm"], row["noisy"]
        if row["missing"]:
            print(f"  {row['name']:26} FAILED: it was no noise: {'; '.join(row['missing'])}")
            continue
        print(f"  {row['name']:26} {calm['p50_us']:6.0f}us {calm['p99_us']:6.0f}us   {noisy['p50_us']:6.0f}us "
              f"{noisy['p99_us']:6.0f}us  {row['p50_ratio']:5.2f}x {row['p99_ratio']:6.2f}x  "
              f"{noisy['answered_per_second']:10.1f} {noisy['share']:6.1%}  {'met' if row['met'] else 'not met':7}  "
              f"{counted(row['neighbour_ends_per_second'])}")
        if row["errors"]:
            print(f"  {'':26} the quiet one's errors: {counted(row['errors'])}")
        if row["internal"]:
            print(f"  {'':26} sublet itself failed {row['internal']} of the neighbour's calls (INTERNAL)")
    print("\nWhere the quiet call's time was, p99 of each part beside the noise (calm); and who used the cores beside it")
    print(f"  {'the neighbour':26} {'client late':>16} {'queued':>16} {'running':>16} {'rest':>16}   cores")
    for row in rows:
        if row["missing"]:
            continue
        parts = [f"{row['parts_p99_us'][part]:6.0f} ({row['calm_parts_p99_us'][part]:4.0f})us" for part in PARTS]
        used = ", ".join(f"{name} {share:.2f}" for name, share in row["cores"].items()
                         if share >= 0.01 and name != "machine")
        print(f"  {row['name']:26} {' '.join(f'{part:>16}' for part in parts)}   {used}")
    fair_share(rows, cores)
    pairs = [pair for row in rows for pair in row["rounds"]]
    disturbed = [pair for pair in pairs if is_disturbed(pair)]
    if disturbed:
        most = max(pair[which]["cores"]["others"] for pair in disturbed for which in ("calm", "noisy"))
        print(f"THE MACHINE WAS BUSY with something else in {len(disturbed)} of {len(pairs)} pairs, with up to "
              f"{most:.1f} cores: do not believe the figures.")


def fair_share(rows, cores):
    """What the machine itself forbids: nothing, as long as the quiet one's half is more than it needs."""
    own = ("supervisor", "workers", "quiet", "floor")
    needs = median(sum(row["calm_cores"].get(name, 0) for name in own) for row in rows)
    half = cores / 2
    print(f"\nFair share: calm, the quiet one needs {needs:.2f} cores with its part of sublet; half of this machine is "
          f"{half:.2f}.")
    print("So two cores do not forbid " + ("full throughput" if needs <= half else f"more than {half / needs:.0%} of it") +
          ". What they forbid is an empty core at each of a call's four hand-overs: the controls show what that costs.")
