"""Does the measuring for bench.sh, as the user that owns the servers.

Programs are started with posix_spawn and their CPU and peak memory come from wait4, so that nothing slows them down.
What is compared runs in turns (A B A B ...), so that a load that comes and goes meets both. Times on a machine that does
other things are worth little: CPU times and ratios are worth more, and the load is printed."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time

MIB = 1 << 20
PUSH_FACTOR = 1.5
MEMORY_FIXED_MIB, MEMORY_WORKER_MIB = 64, 8
SEGMENT_BYTES = 16 * MIB


def say(text):
    print(f"bench.py: {text}", file=sys.stderr, flush=True)


class Run:
    """One finished program: seconds by the clock and of CPU, peak memory, output."""

    def __init__(self, words, directory, output):
        # os.posix_spawn takes no directory for the child.
        os.chdir(directory)
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
        # Linux counts the spawning process up to exec as well, so this is never less than Python's own 15 MiB.
        self.peak_mib = usage.ru_maxrss / 1024
        with open(output, encoding="utf-8", errors="replace") as file:
            self.output = file.read()
        if status != 0:
            raise SystemExit(f"bench.py: {' '.join(words)} failed:\n{self.output}")


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median_parts(runs):
    """The median of each part that the runs printed."""
    lines = [json.loads(run.output) for run in runs]
    return {part: median([line[part] for line in lines]) for part in lines[0]}


class Bench:
    def __init__(self, options):
        self.options = options
        self.dir = options.directory
        self.bin = options.postgres
        self.output = os.path.join(self.dir, "output")
        self.port = 54100
        self.figures = []
        self.checks = []

    # Running things

    def run(self, *words, directory=None):
        return Run([str(word) for word in words], directory or self.dir, self.output)

    def kedge(self, configuration, *words, directory=None):
        return self.run(f"{self.dir}/kedge", "--config", configuration, *words, directory=directory)

    def pg(self, program, *words, **more):
        result = subprocess.run(
            [f"{self.bin}/{program}", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
        if result.returncode != 0:
            raise SystemExit(f"bench.py: {program} {' '.join(map(str, words))} failed:\n{result.stdout}")
        return result.stdout

    # Clusters

    def make_cluster(self, name):
        data = f"{self.dir}/{name}"
        self.pg("initdb", "-D", data, "-k", "-U", "postgres", "--locale=C.UTF-8", "-A", "trust", "--no-sync")
        with open(f"{data}/postgresql.conf", "a", encoding="utf-8") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.dir}'\nport = {self.port}\n"
                "shared_buffers = 512MB\nmax_wal_size = 40GB\ncheckpoint_timeout = 1h\nautovacuum = off\n"
                "maintenance_work_mem = 256MB\nmax_locks_per_transaction = 512\n")
        return data

    def start(self, data, *settings):
        words = " ".join(f"-c {setting}" for setting in settings)
        # pg_ctl's server inherits the output, and a pipe would never end: so the log is a file.
        subprocess.run(
            [f"{self.bin}/pg_ctl", "-D", data, "-l", f"{data}.log", "-w", "-s", "-t", "300", "-o", words, "start"],
            check=True, stdout=subprocess.DEVNULL)

    def stop(self, data):
        self.pg("pg_ctl", "-D", data, "-w", "-s", "-t", "300", "-m", "fast", "stop")

    def sql(self, text):
        return self.pg("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-p", self.port, "-U",
                       "postgres", "-d", "postgres", "-c", text).strip()

    def configure(self, name, data):
        """A configuration with an empty repository, sealed with a key file; returns its path."""
        path = f"{self.dir}/{name}.conf"
        os.makedirs(f"{self.dir}/{name}.work")
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f"[repository main]\ntype = local\npath = {self.dir}/{name}.repository\nencryption = aes-256-gcm\n"
                f"key-file = {self.dir}/{name}.key\ncompression = zstd:1\n\n"
                f"[cluster main]\npgdata = {data}\nhost = {self.dir}\nport = {self.port}\nuser = postgres\n"
                f"dbname = postgres\nbin-dir = {self.bin}\nrepositories = main\n"
                f"work-directory = {self.dir}/{name}.work\nprocess-max = {self.options.threads}\n")
        self.kedge(path, "init", "--generate-key", f"{self.dir}/{name}.key")
        return path

    # WAL

    def make_wal(self):
        """Real segments of two kinds. Returns the data directory and {kind: (paths, share of page images)}."""
        say("making WAL of two kinds")
        data = self.make_cluster("wal")
        self.start(data, "fsync=off", "wal_keep_size=4GB")
        self.pg("pgbench", "-h", self.dir, "-p", self.port, "-U", "postgres", "-i", "-q", "-s", "20", "postgres")
        self.sql("CREATE TABLE event (id bigint, at timestamptz, word text, amount double precision)")
        # Rows at random over 260 MB, each the first change of its page since the checkpoint.
        pages = "n := 1 + random() * 1999999; UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = n;"
        # The same hundred thousand rows again and again, new rows beside them.
        records = ("n := 1 + random() * 99999; UPDATE pgbench_accounts SET abalance = n WHERE aid = n;"
                   " INSERT INTO event VALUES (i, clock_timestamp(), md5(i::text), random());")
        self.sql("CHECKPOINT")
        kinds = {"page images": self.write_wal(data, pages, "pages")}
        self.sql("CHECKPOINT")
        self.sql("UPDATE pgbench_accounts SET abalance = 1 WHERE aid <= 101000")
        kinds["records"] = self.write_wal(data, records, "records")
        self.stop(data)
        return data, kinds

    def write_wal(self, data, statements, folder):
        loop = (f"DO $$ DECLARE n int; BEGIN FOR i IN 1..20000 LOOP {statements}"
                " IF i % 20 = 0 THEN COMMIT; END IF; END LOOP; END $$")
        # The rest of the present segment belongs to what went before.
        self.sql("SELECT pg_switch_wal()")
        self.sql("SELECT txid_current()")
        first = self.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
        wanted = self.options.segments * SEGMENT_BYTES
        start = self.sql("SELECT pg_current_wal_lsn()")
        while int(self.sql(f"SELECT (pg_current_wal_lsn() - '{start}')::bigint")) < wanted + 2 * SEGMENT_BYTES:
            self.sql(loop)
        names = sorted(name for name in os.listdir(f"{data}/pg_wal") if len(name) == 24 and name >= first)
        # The first may hold what was done before, the last may not be full.
        names = names[1:1 + self.options.segments]
        os.makedirs(f"{self.dir}/{folder}")
        paths = [shutil.copy(f"{data}/pg_wal/{name}", f"{self.dir}/{folder}/{name}") for name in names]
        return paths, self.page_image_share(paths)

    def page_image_share(self, paths):
        """Per cent of the WAL that is page images; nil where pg_waldump is not there."""
        stats = subprocess.run([f"{self.bin}/pg_waldump", "--stats", paths[0], paths[-1]], capture_output=True, text=True)
        for line in stats.stdout.splitlines():
            if line.startswith("Total"):
                percentages = [word.strip("[]%") for word in line.split() if word.startswith("[")]
                return float(percentages[1]) if len(percentages) > 1 else None
        return None

    # Start-up and archive-push

    def stored_objects(self, name):
        return [os.path.join(folder, file) for folder, _, files in os.walk(f"{self.dir}/{name}.repository")
                if "/wal/" in folder + "/" for file in files]

    def measure_push(self):
        data, kinds = self.make_wal()
        configuration = self.configure("push", data)
        os.makedirs(f"{self.dir}/codec.out")
        say(f"{self.options.rounds} rounds of start-up, archive-push and codec-only")
        runs = {"start-up": []} | {f"{what} {kind}": [] for what in ("push", "codec", "checks") for kind in kinds}
        for number in range(self.options.rounds + 1):
            samples = [("start-up", lambda: self.run(f"{self.dir}/kedge", "--version"))]
            for kind, (paths, _) in kinds.items():
                path = paths[number % len(paths)]
                samples.append((f"push {kind}", lambda path=path: self.kedge(
                    configuration, "archive-push", path, directory=data)))
                samples.append((f"codec {kind}", lambda path=path: self.run(
                    f"{self.dir}/codec-only", path, f"{self.dir}/codec.out", self.options.threads)))
                samples.append((f"checks {kind}", lambda path=path: self.run(f"{self.dir}/codec-only", path)))
            # Every other round backwards, so that neither always comes second.
            for name, sample in samples if number % 2 else reversed(samples):
                run = sample()
                if number > 0:  # the first round fills the page cache
                    runs[name].append(run)
                # The same file is pushed again later. Removing is what a disk remembers longest, so it is settled here.
                for path in self.stored_objects("push"):
                    os.unlink(path)
        os.sync()
        self.report_push(runs, kinds)

    def report_push(self, runs, kinds):
        self.figure("kedge --version", runs["start-up"])
        for kind, (_, share) in kinds.items():
            shown = kind if share is None else f"{kind} ({share:.0f} % page images)"
            push = self.figure(f"archive-push, {shown}", runs[f"push {kind}"])
            codec = self.figure("  codec-only", runs[f"codec {kind}"])
            parts = median_parts(runs[f"codec {kind}"])
            written = parts.pop("written_bytes")
            for part, value in parts.items():
                self.figures.append({"name": f"    {part.replace('_', ' ')}", "wall_ms": value / 1000})
            self.figures.append({"name": "    compressed to", "share": written / SEGMENT_BYTES})
            inside = sum(parts.values()) / 1000
            self.figures.append({"name": "    sum: codec and two fsyncs, without start-up", "wall_ms": inside})
            for part, value in median_parts(runs[f"checks {kind}"]).items():
                self.figures.append({"name": f"  checks on one core: {part}", "wall_ms": value / 1000})
            self.check(f"archive-push, {kind}: clock, against the sum", push["wall_ms"] / inside, PUSH_FACTOR, "x")
            self.check(f"archive-push, {kind}: clock, against codec-only", push["wall_ms"] / codec["wall_ms"], PUSH_FACTOR, "x")
            self.check(f"archive-push, {kind}: CPU, against codec-only", push["cpu_ms"] / codec["cpu_ms"], PUSH_FACTOR, "x")

    def figure(self, name, runs):
        walls, cpus = [run.wall * 1000 for run in runs], [run.cpu * 1000 for run in runs]
        figure = {"name": name, "wall_ms": median(walls), "p99_ms": percentile(walls, 0.99), "least_ms": min(walls),
                  "cpu_ms": median(cpus), "least_cpu_ms": min(cpus), "rounds": len(runs)}
        self.figures.append(figure)
        return figure

    def check(self, name, value, limit, unit):
        self.checks.append({"name": name, "value": value, "limit": limit, "unit": unit, "reached": value <= limit})

    # Backup and restore

    def measure_clusters(self):
        for name, title, fill in (
            ("big", f"{self.options.scale * 15 / 1000:.1f} GB", self.fill_big),
            ("wide", f"{self.options.relations:,} relations", self.fill_wide),
        ):
            say(f"making a cluster: {title}")
            data = self.make_cluster(name)
            # Without WAL, which is not what is measured here.
            self.start(data, "fsync=off", "wal_level=minimal", "max_wal_senders=0", "full_page_writes=off")
            fill()
            self.stop(data)
            configuration = self.configure(name, data)
            command = f"'{self.dir}/kedge --config {configuration} archive-push %p'"
            with open(f"{data}/postgresql.conf", "a", encoding="utf-8") as file:
                file.write(f"archive_mode = on\narchive_command = {command}\n")
            self.start(data)
            self.measure_cluster(title, name, configuration, data)
            shutil.rmtree(data)
            shutil.rmtree(f"{self.dir}/{name}.repository")

    def fill_big(self):
        self.pg("pgbench", "-h", self.dir, "-p", self.port, "-U", "postgres", "-i", "-q", "-s", self.options.scale, "postgres")

    def fill_wide(self):
        # A table with a primary key is two relations. Several sessions, because each remembers every table it has seen.
        tables, batch = self.options.relations // 2, 2500
        for start in range(0, tables, batch):
            end = min(start + batch, tables) - 1
            self.sql(
                f"DO $$ BEGIN FOR i IN {start}..{end} LOOP EXECUTE format('CREATE TABLE r%s (i int PRIMARY KEY)', i);"
                " EXECUTE format('INSERT INTO r%s VALUES (1)', i); IF i % 250 = 0 THEN COMMIT; END IF; END LOOP; END $$")

    def measure_cluster(self, title, name, configuration, data):
        size = sum(entry.stat(follow_symlinks=False).st_size for entry in walk(data))
        limit = MEMORY_FIXED_MIB + MEMORY_WORKER_MIB * self.options.threads
        say(f"backup of {size / 1e9:.2f} GB")
        backup = self.kedge(configuration, "backup", "--type", "full")
        self.stop(data)
        say("restore")
        restored = f"{self.dir}/restored"
        restore = self.kedge(configuration, "restore", "--pgdata", restored, "--target-immediate")
        shutil.rmtree(restored)
        for what, run in (("backup", backup), ("restore", restore)):
            self.figures.append({
                "name": f"{what}, {title}", "wall_ms": run.wall * 1000, "cpu_ms": run.cpu * 1000, "rounds": 1,
                "kernel_ms": run.kernel * 1000, "peak_mib": run.peak_mib, "mb_per_cpu_second": size / 1e6 / run.cpu})
            self.check(f"{what}, {title}: peak memory", run.peak_mib, limit, " MiB")

    # Output

    def print(self):
        machine = {"processor": processor(), "cores": os.cpu_count(), "kernel": platform.release(),
                   "load": [round(load, 2) for load in os.getloadavg()], "threads": self.options.threads,
                   "postgres": self.pg("postgres", "--version").strip(),
                   "kedge": self.run(f"{self.dir}/kedge", "--version").output.strip()}
        if self.options.json:
            print(json.dumps({"machine": machine, "figures": self.figures, "targets": self.checks}, indent=1))
            return
        print("\n" + ", ".join(f"{key} {value}" for key, value in machine.items()) + "\n")
        print(f"{'':52} {'median':>9} {'p99':>9} {'least':>9} {'CPU':>9}   ms")
        for figure in self.figures:
            cells = "".join(
                f" {figure[key]:9.2f}" if key in figure else " " * 10
                for key in ("wall_ms", "p99_ms", "least_ms", "cpu_ms"))
            more = f"  {figure['share'] * 100:.1f} %" if "share" in figure else ""
            if "peak_mib" in figure:
                more = (f"   {figure['kernel_ms'] / figure['cpu_ms'] * 100:.0f} % of it in the kernel, peak"
                        f" {figure['peak_mib']:.0f} MiB, {figure['mb_per_cpu_second']:.0f} MB per CPU second")
            print(f"{figure['name']:52}{cells}{more}".rstrip())
        print("\ntargets")
        for check in self.checks:
            print(f"{check['name']:60} {check['value']:7.2f}{check['unit']:4} at most {check['limit']:g}:"
                  f" {'reached' if check['reached'] else 'NOT REACHED'}")


def walk(folder):
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")


def main():
    parser = argparse.ArgumentParser(prog="bench.sh", description="Measures what kedge costs.")
    parser.add_argument("--quick", action="store_true", help="start-up and archive-push only")
    parser.add_argument("--clusters", action="store_true", help="backup and restore only")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=40, help="how often each program runs (default 40)")
    parser.add_argument("--threads", type=int, default=2, help="process-max of all programs (default 2)")
    parser.add_argument("--segments", type=int, default=8, help="WAL segments of each kind (default 8)")
    parser.add_argument("--scale", type=int, default=135, help="pgbench scale of the big cluster (default 135: 2 GB)")
    parser.add_argument("--relations", type=int, default=100_000, help="relations of the wide cluster")
    parser.add_argument("--directory", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--postgres", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # A server must not outlive an interrupted run: bench.sh stops it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bench = Bench(options)
    if not options.clusters:
        bench.measure_push()
    if not options.quick:
        bench.measure_clusters()
    bench.print()


main()
