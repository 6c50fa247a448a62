"""What PostgreSQL's archiver and its recovery do with their commands, without the server; run as a program of its own.

    archiver.py drain PGDATA WORD...     archives every segment that has a .ready file, one after the other, as
                                         pgarch.c does: the command, then .ready becomes .done
    archiver.py fetch PGDATA NAMES WORD...  fetches the segments that the file NAMES lists, as recovery does: each into
                                         pg_wal/RECOVERYXLOG, which the next one replaces

In the words %p and %f are replaced. Prints one line of JSON. CPU counts everything that was started, also what went on
in the background (it is waited for), but not this program itself."""

import json
import os
import resource
import sys
import time

from running import become_subreaper


def command(words, path, name):
    words = [word.replace("%p", path).replace("%f", name) for word in words]
    pid = os.posix_spawn(words[0], words, os.environ)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(words)} ended with status {os.waitstatus_to_exitcode(status)}")


def drain(words):
    status = "pg_wal/archive_status"
    for ready in sorted(name for name in os.listdir(status) if name.endswith(".ready")):
        name = ready.removesuffix(".ready")
        command(words, f"pg_wal/{name}", name)
        os.rename(f"{status}/{ready}", f"{status}/{name}.done")


def fetch(names, words):
    with open(names, encoding="utf-8") as file:
        for name in file.read().split():
            if os.path.exists("pg_wal/RECOVERYXLOG"):
                os.unlink("pg_wal/RECOVERYXLOG")
            command(words, "pg_wal/RECOVERYXLOG", name)
            if os.stat("pg_wal/RECOVERYXLOG").st_size == 0:
                raise SystemExit(f"{name} is empty")


def main():
    what, pgdata, *words = sys.argv[1:]
    become_subreaper()
    os.chdir(pgdata)
    start = time.monotonic()
    if what == "drain":
        drain(words)
    else:
        # Who fetches ahead works as long as the server runs that this file names.
        with open("postmaster.pid", "w", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n{pgdata}\n{int(time.time())}\n5432\n\n\n\nstarting\n")
        fetch(words[0], words[1:])
    wall = time.monotonic() - start
    if what == "fetch":
        os.unlink("postmaster.pid")
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "kernel": usage.ru_stime,
                      "peak_mib": usage.ru_maxrss / 1024}))


main()
