"""Kedge and pgBackRest side by side: bench.sh starts this as the user that owns the servers.

Both work on the same cluster in the same minutes and in turns, each with the same codec, level, number of workers and
with encryption on or off. Medians count; a ratio comes with the spread of the ratios of neighbouring runs."""

import argparse
import os
import shutil
import signal
import sys

import instructions
import report
from cases import Bench
from running import say, size_of
from tools import Variant

MAIN = Variant("lz4", True, 2)
# Less is measured of these.
OTHERS = [Variant("zstd", True, 2), Variant("lz4", False, 2), Variant("zstd", False, 2), Variant("lz4", True, 1),
          Variant("zstd", True, 1)]


class Sizes:
    """How much is done."""

    def __init__(self, options):
        quick, smoke = options.quick, options.smoke
        smoke = smoke or options.instructions
        self.megabytes = options.size or (60 if smoke else 700 if quick else 2000)
        self.rounds = options.rounds or (1 if smoke else 3 if quick else 5)
        self.other_rounds = 1 if smoke else 0 if quick else max(1, self.rounds - 2)
        self.segments = options.segments or (4 if smoke else 48 if quick else 200)
        self.other_segments = min(self.segments, 40)
        self.deltas = 2 if smoke else 6 if quick else 10


def measure(bench, variant, rounds, segments, everything):
    """All that is measured of one variant. Returns the tools."""
    tools = bench.tools(variant)
    bench.cluster.start()
    bench.full_backups(variant, tools, rounds, with_copy=everything)
    bench.restores(variant, tools, rounds, "full restore", with_copy=everything)
    if everything:
        bench.delta_backups(variant, tools, rounds)
        bench.restores(variant, tools, rounds, "restore of a full backup and deltas", damage=True)
    bench.verifies(variant, tools, rounds)
    if everything:
        bench.segments = bench.make_segments(segments)
    else:
        for tool in tools:
            tool.reset()
    paths = bench.segments[:segments]
    bench.pushes(variant, tools, paths)
    bench.gets(variant, tools, paths)
    if everything and bench.options.recovery:
        bench.recoveries(variant, tools, paths)
    bench.cluster.forget_ready()
    bench.queues(variant, tools, min(rounds, 3), paths)
    bench.cluster.stop()
    for tool in tools:
        tool.remove()
        shutil.rmtree(f"{tool.base}.owed", ignore_errors=True)
    return tools


def main():
    parser = argparse.ArgumentParser(prog="bench.sh", description="Holds kedge against pgBackRest on the same cluster.")
    parser.add_argument("--quick", action="store_true", help="less of everything: under five minutes on two cores")
    parser.add_argument("--smoke", action="store_true", help="hardly anything: only shows that this program works")
    parser.add_argument("--instructions", action="store_true",
                        help="count instructions with callgrind, of little data, instead of measuring time")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with every sample")
    parser.add_argument("--size", type=int, help="MB of data (default 2000)")
    parser.add_argument("--rounds", type=int, help="how often each program runs (default 5)")
    parser.add_argument("--segments", type=int, help="WAL segments (default 200)")
    parser.add_argument("--relations", type=int, default=0, help="add this many small relations to the cluster")
    parser.add_argument("--pgbackrest", metavar="PATH", help="this pgBackRest instead of the installed one; none: without")
    parser.add_argument("--no-recovery", dest="recovery", action="store_false", help="leave out recovery by the server")
    parser.add_argument("--directory", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--postgres", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # A server must not outlive an interrupted run: bench.sh stops it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.pgbackrest == "none":
        options.pgbackrest = None
    sizes = Sizes(options)
    bench = Bench(options, sizes)
    bench.facts["load"] = [round(load, 2) for load in os.getloadavg()]
    say(f"making a cluster of {sizes.megabytes} MB")
    bench.cluster.make(sizes.megabytes, options.relations)
    bench.facts["data_bytes"] = size_of(f"{bench.cluster.data}/base")
    bench.install_archive_command()
    if options.instructions:
        instructions.show(instructions.measure(bench), options.json)
        return
    tools = measure(bench, MAIN, sizes.rounds, sizes.segments, True)
    bench.start_up(MAIN, tools)
    if sizes.other_rounds:
        for variant in OTHERS:
            measure(bench, variant, sizes.other_rounds, sizes.other_segments, False)
    report.show(report.document(bench, report.machine(bench, tools)), options.json)


main()
