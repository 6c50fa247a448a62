"""The figures as text and as JSON, and what they are held against."""

import json
import os
import platform

# Case (as it begins): the most that kedge may take, as a share of pgBackRest 2.45's wall seconds and CPU seconds.
LIMITS = {
    "full backup": (0.40, 0.50),
    "delta, nothing changed": (0.25, None),
    "delta, ": (0.30, 0.30),
    "full restore": (0.60, 0.45),
    "restore of a full": (0.65, 0.50),
    "delta restore": (0.25, 0.30),
    "archive-push, a segment": (0.50, 0.50),
    "drain of": (0.55, 0.55),
    "archive-get": (0.60, 0.60),
    "verify": (1.0, 1.0),
}
# The same against the program that runs nothing but the codec.
CODEC_LIMITS = {"full backup": (1.25, 1.15)}
MEMORY_FIXED_MIB, MEMORY_WORKER_MIB = 64, 8


def limits(table, case):
    return next((value for start, value in table.items() if case.startswith(start)), (None, None))


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")


def machine(bench, tools):
    facts = {"processor": processor(), "cores": os.cpu_count(), "kernel": platform.release(),
             "load before": bench.facts["load"], "load after": [round(load, 2) for load in os.getloadavg()],
             "postgres": bench.cluster.version, "data directory MB": bench.facts["data_bytes"] // 1_000_000}
    return facts | {tool.name: tool.version for tool in tools}


def document(bench, facts):
    cases = []
    for (variant, case), programs in bench.results.items():
        entry = {"variant": variant, "case": case, "programs": {}, "ratios": []}
        for name, samples in programs.items():
            entry["programs"][name] = samples.summary() | {
                "samples": {what: samples.values(what) for what in ("wall", "cpu", "peak_mib")}}
        for other, table in (("pgbackrest", LIMITS), ("codec-only", CODEC_LIMITS)):
            if other not in programs or "kedge" not in programs:
                continue
            for what, limit in zip(("wall", "cpu"), limits(table, case)):
                ratio = programs["kedge"].ratio(programs[other], what)
                if ratio:
                    entry["ratios"].append({"of": what, "against": other, "limit": limit} | ratio)
        cases.append(entry)
    return {"machine": facts, "cases": cases, "stored_bytes": bench.facts.get("stored_bytes", {}), "notes": bench.notes}


def milli(value):
    return f"{value * 1000:.1f}" if value < 0.1 else f"{value * 1000:.0f}"


def text(doc):
    lines = [", ".join(f"{key} {value}" for key, value in doc["machine"].items()), ""]
    lines.append(f"{'':42} {'wall ms':>8} {'least':>8} {'most':>8} {'p99':>8} {'CPU ms':>8} {'MiB':>6} {'runs':>5}")
    for case in doc["cases"]:
        lines.append(f"{case['case']} ({case['variant']})")
        for name, figures in case["programs"].items():
            wall = figures["wall"]
            shown = [milli(wall[key]) for key in ("median", "least", "most", "p99")] + [milli(figures["cpu"]["median"])]
            lines.append(f"  {name:40} " + " ".join(f"{cell:>8}" for cell in shown)
                         + f" {figures['peak_mib']['most']:6.0f} {figures['runs']:5}")
        for ratio in case["ratios"]:
            if ratio["against"] == "codec-only" and ratio["limit"] is None and ratio["of"] == "wall":
                continue
            held = "" if ratio["limit"] is None else (
                f"  at most {ratio['limit']:.2f}: {'reached' if ratio['median'] <= ratio['limit'] else 'NOT REACHED'}")
            lines.append(f"    {ratio['of']:4} against {ratio['against']:12} {ratio['median']:8.2f} "
                         f"({ratio['least']:.2f} to {ratio['most']:.2f}){held}")
    lines += ["", "bytes stored by a full backup"]
    lines += [f"  {name:40} {size / 1e6:8.0f} MB" for name, size in doc["stored_bytes"].items()]
    lines += memory(doc)
    return "\n".join(lines + doc["notes"])


def memory(doc):
    """The largest process of ours in each case that is above its limit."""
    lines = []
    for case in doc["cases"]:
        words = case["variant"].split()
        limit = MEMORY_FIXED_MIB + MEMORY_WORKER_MIB * int(words[-2])
        kedge = case["programs"].get("kedge")
        if kedge and kedge["peak_mib"]["most"] > limit and "with the server" not in case["case"]:
            lines.append(f"peak memory of kedge, {case['case']} ({case['variant']}): {kedge['peak_mib']['most']:.0f} MiB,"
                         f" at most {limit}: NOT REACHED")
    return lines or ["", "peak memory of kedge: within 64 MiB and 8 MiB a worker in every case"]


def show(doc, as_json):
    print(json.dumps(doc, indent=1) if as_json else text(doc))
