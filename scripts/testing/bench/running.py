"""Runs programs and measures them: seconds by the clock, CPU of the program and all its children, peak memory."""

import ctypes
import json
import os
import subprocess
import sys
import time

MIB = 1 << 20


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Run:
    """One finished program and what it cost.

    Started with posix_spawn and waited for with wait4, which counts every child that the program itself waited for."""

    def __init__(self, words, directory, output, statuses=(0,)):
        words = [str(word) for word in words]
        os.chdir(directory)  # os.posix_spawn takes no directory for the child
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        start = time.monotonic()
        pid = os.posix_spawn(words[0], words, os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        self.wall = time.monotonic() - start
        self.cpu = usage.ru_utime + usage.ru_stime
        self.kernel = usage.ru_stime
        # Of the largest process. Linux counts the spawning process up to exec as well: never less than Python's own.
        self.peak_mib = usage.ru_maxrss / 1024
        with open(output, encoding="utf-8", errors="replace") as file:
            self.output = file.read()
        self.status = os.waitstatus_to_exitcode(status)
        if self.status not in statuses:
            raise SystemExit(f"bench: {' '.join(words)} ended with status {self.status}:\n{self.output}")


class Figures:
    """What a run cost that was measured elsewhere, from a line of JSON."""

    def __init__(self, run):
        line = json.loads(run.output.strip().splitlines()[-1])
        self.wall, self.cpu, self.kernel = line["wall"], line["cpu"], line["kernel"]
        self.peak_mib, self.output = line["peak_mib"], run.output


class Samples:
    """What one program did in one case: the runs in the order in which they were made."""

    def __init__(self):
        self.runs = []

    def values(self, what):
        return [getattr(run, what) for run in self.runs]

    def summary(self):
        result = {"runs": len(self.runs)}
        for what in ("wall", "cpu", "kernel", "peak_mib"):
            values = self.values(what)
            result[what] = {"median": median(values), "least": min(values), "most": max(values)}
        result["wall"]["p99"] = percentile(self.values("wall"), 0.99)
        return result

    def ratio(self, other, what):
        """Ours through theirs: the ratio of the medians, and the spread of the ratios of runs that were neighbours."""
        if not median(other.values(what)):
            return None
        pairs = [mine / his for mine, his in zip(self.values(what), other.values(what)) if his > 0]
        return {"median": median(self.values(what)) / median(other.values(what)), "least": min(pairs),
                "most": max(pairs)}


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def check_call(words, **more):
    result = subprocess.run(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    if result.returncode != 0:
        raise SystemExit(f"bench: {' '.join(map(str, words))} failed:\n{result.stdout}")
    return result.stdout


def files_below(folder):
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry


def size_of(folder):
    return sum(entry.stat(follow_symlinks=False).st_size for entry in files_below(folder))


def warm(folder):
    """Reads every file, so that all programs find the same page cache."""
    buffer = bytearray(4 * MIB)
    for entry in files_below(folder):
        try:
            with open(entry.path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        except FileNotFoundError:
            pass


def become_subreaper():
    """Children that outlive their parent come to this process, so that their CPU is counted when they end."""
    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
