"""Counts instructions instead of seconds: the same commands under callgrind, which a busy machine does not disturb.

Counted is what runs in the programs and in all that they start, not what the kernel does for them: page faults, copies,
fsync. Valgrind's processor has AVX2, AES-NI and BMI2, and no AVX-512, VAES or SHA instructions: hashing with SHA-1, as
pgBackRest does, takes more instructions there than on most servers, and wide AES takes more in both."""

import glob
import json
import os
import re
import shutil

from running import Run, say
from tools import Variant

# One worker each: then the counts hardly differ from run to run.
VARIANTS = [Variant("lz4", True, 1), Variant("zstd", True, 1)]
SEGMENTS = 4


class Counter:
    """Runs programs under callgrind. `counts` maps (variant, case) to the instructions of each program."""

    def __init__(self, bench):
        self.bench, self.counts = bench, {}

    def count(self, variant, case, name, words, directory=None):
        logs = f"{self.bench.dir}/callgrind"
        os.makedirs(logs)
        words = ["/usr/bin/env", "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--trace-children=yes",
                 f"--log-file={logs}/%p", *words]
        Run(words, directory or self.bench.dir, self.bench.output)
        total = 0
        for path in glob.glob(f"{logs}/*"):
            with open(path, encoding="utf-8", errors="replace") as file:
                found = re.search(r"Collected : (\d+)", file.read())
            total += int(found[1]) if found else 0
        shutil.rmtree(logs)
        if not total:
            raise SystemExit(f"bench: callgrind counted nothing of {' '.join(map(str, words))}")
        self.counts.setdefault((variant.name, case), {})[name] = total


def measure(bench):
    counter = Counter(bench)
    paths = []
    bench.cluster.start()
    for variant in VARIANTS:
        say(f"{variant.name}: counting")
        tools = bench.tools(variant)
        cipher = "aes-256-gcm" if variant.is_encrypted else "none"
        codec = [variant.workers, f"{variant.codec}:1", cipher]
        for tool in tools:
            if variant is VARIANTS[0]:
                counter.count(variant, "start-up", tool.name,
                              [tool.path, "--version" if tool.name == "kedge" else "version"])
            tool.reset()
            bench.serve(tool, [other for other in tools if other is not tool])
            counter.count(variant, "full backup", tool.name, tool.backup_words(True))
        counter.count(variant, "full backup", "codec-only",
                      [f"{bench.dir}/codec-only", "tree", bench.cluster.data, *codec])
        bench.settle(tools)
        for tool in tools:
            counter.count(variant, "verify", tool.name, tool.verify_words())
        bench.serve_nobody()
        paths = paths or bench.make_segments(SEGMENTS)
        path, name = paths[-1], os.path.basename(paths[-1])
        fake = bench.fake_data_directory(paths, ready=False)
        for tool in tools:
            counter.count(variant, "archive-push, a segment", tool.name,
                          tool.words_at(fake, "archive-push", f"pg_wal/{name}"), fake)
            counter.count(variant, "archive-get, a segment", tool.name,
                          tool.words_at(fake, "archive-get", name, "pg_wal/RECOVERYXLOG"), fake)
            os.unlink(f"{fake}/pg_wal/RECOVERYXLOG")
        os.makedirs(f"{bench.dir}/codec.out", exist_ok=True)
        counter.count(variant, "archive-push, a segment", "codec-only",
                      [f"{bench.dir}/codec-only", "file", path, f"{bench.dir}/codec.out", *codec])
        for tool in tools:
            tool.remove()
        bench.cluster.forget_ready()
    bench.cluster.stop()
    return counter.counts


def show(counts, as_json):
    if as_json:
        print(json.dumps([{"variant": variant, "case": case, "instructions": programs}
                          for (variant, case), programs in counts.items()], indent=1))
        return
    print(f"{'millions of instructions':42} {'kedge':>9} {'pgbackrest':>11} {'codec-only':>11}   kedge against them")
    for (variant, case), programs in counts.items():
        cells = [f"{programs[name] / 1e6:.1f}" if name in programs else "" for name in
                 ("kedge", "pgbackrest", "codec-only")]
        ratios = [f"{programs['kedge'] / programs[name]:.2f} {name}" for name in ("pgbackrest", "codec-only")
                  if name in programs]
        print(f"{f'{case} ({variant})':42} {cells[0]:>9} {cells[1]:>11} {cells[2]:>11}   {', '.join(ratios)}")
