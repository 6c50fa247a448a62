"""The cluster that is backed up: mixed data with data checksums, changes of a known share of its pages, and WAL."""

import os
import random
import signal
import subprocess
import time

from running import MIB, Run, check_call, say, size_of

SEED = 20261121


class Cluster:
    def __init__(self, directory, binaries, port, name="cluster"):
        self.dir, self.bin, self.port = directory, binaries, port
        self.data = f"{directory}/{name}"
        self.log = f"{directory}/{name}.log"

    # The server

    def make(self, megabytes, relations):
        check_call([f"{self.bin}/initdb", "-D", self.data, "-k", "-U", "postgres", "--locale=C.UTF-8", "-A", "trust",
                    "--no-sync"])
        with open(f"{self.data}/postgresql.conf", "a", encoding="utf-8") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.dir}'\nport = {self.port}\n"
                "shared_buffers = 512MB\nmax_wal_size = 40GB\ncheckpoint_timeout = 1h\nautovacuum = off\n"
                "maintenance_work_mem = 256MB\nmax_locks_per_transaction = 512\nbgwriter_lru_maxpages = 0\n")
        # With the WAL of any cluster that archives: what is loaded with wal_level = minimal has pages without an LSN, of which
        # no delta can tell that they are as they were. Little of it stays, since it is not what is measured here.
        self.start("fsync=off", "max_wal_size=256MB", "full_page_writes=off")
        self.fill(megabytes)
        if relations:
            self.fill_relations(relations)
        self.stop()

    def start(self, *settings):
        words = " ".join(f"-c {setting}" for setting in settings)
        # pg_ctl's server inherits the output, and a pipe would never end: so the log is a file.
        subprocess.run(
            [f"{self.bin}/pg_ctl", "-D", self.data, "-l", self.log, "-w", "-s", "-t", "300", "-o", words, "start"],
            check=True, stdout=subprocess.DEVNULL)

    def stop(self):
        check_call([f"{self.bin}/pg_ctl", "-D", self.data, "-w", "-s", "-t", "300", "-m", "fast", "stop"])

    def psql(self, *words, **more):
        return check_call([f"{self.bin}/psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-p",
                           self.port, "-U", "postgres", "-d", "postgres", *words], **more).strip()

    def sql(self, text):
        return self.psql("-c", text)

    def wait_until_archived(self, segment):
        for _ in range(600):
            if os.path.exists(f"{self.data}/pg_wal/archive_status/{segment}.done") and not self.ready():
                return
            time.sleep(0.1)
        raise SystemExit(f"bench: {segment} is not archived")

    @property
    def version(self):
        return check_call([f"{self.bin}/postgres", "--version"]).strip()

    # Data

    def fill(self, megabytes):
        """Two fifths pgbench, a fifth each of random bytes, JSON and text."""
        # Room in each page, so that a changed row stays in it: a share of rows is then the same share of pages.
        scale = max(1, round(megabytes * 0.4 / 16.5))
        check_call([f"{self.bin}/pgbench", "-h", self.dir, "-p", self.port, "-U", "postgres", "-i", "-q", "-F", "90", "-s",
                    scale, "postgres"])
        part = megabytes / 5
        self.copy("random (id int, content bytea)", self.random_rows(int(part * MIB / 6250)))
        self.sql(
            "CREATE TABLE document AS SELECT i AS id, jsonb_build_object('id', i, 'name', md5(i::text), 'at', now(),"
            " 'price', (i * 7919::bigint % 100000) / 100.0, 'tags', jsonb_build_array('red', i % 17, 'blue'), 'address',"
            " jsonb_build_object('street', 'Long Street ' || i % 997, 'city', 'City ' || i % 97, 'zip', i % 99999)) AS"
            f" body FROM generate_series(1, {int(part * MIB / 345)}) i; ALTER TABLE document ADD PRIMARY KEY (id)")
        self.copy("article (id int, words text)", self.text_rows(int(part * MIB / 1420)))
        self.sql("VACUUM (FREEZE, ANALYZE)")

    def copy(self, table, rows):
        self.sql(f"CREATE TABLE {table}")
        name = table.split()[0]
        words = [f"{self.bin}/psql", "-X", "-q", "-h", self.dir, "-p", str(self.port), "-U", "postgres", "-d", "postgres",
                 "-c", f"COPY {name} FROM STDIN"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as process:
            for row in rows:
                process.stdin.write(row)
            process.stdin.close()
        if process.returncode != 0:
            raise SystemExit(f"bench: could not fill {name}")

    @staticmethod
    def random_rows(count):
        for number in range(count):
            yield f"{number}\t\\\\x{os.urandom(6000).hex()}\n"

    @staticmethod
    def text_rows(count):
        chance = random.Random(SEED)
        letters = "etaoinshrdlucmfwypvbgkjqxz"
        weights = [1 / (index + 2) for index in range(len(letters))]
        words = ["".join(chance.choices(letters, weights, k=chance.randint(2, 10))) for _ in range(5000)]
        shares = [1 / (index + 3) for index in range(len(words))]
        for number in range(count):
            yield f"{number}\t{' '.join(chance.choices(words, shares, k=220))}\n"

    def fill_relations(self, relations):
        """Many small tables; one with a primary key is two relations."""
        tables, batch = relations // 2, 2500
        # Several sessions, because each remembers every table that it has seen.
        for start in range(0, tables, batch):
            end = min(start + batch, tables) - 1
            self.sql(
                f"DO $$ BEGIN FOR i IN {start}..{end} LOOP EXECUTE format('CREATE TABLE r%s (i int PRIMARY KEY)', i);"
                " EXECUTE format('INSERT INTO r%s VALUES (1)', i); IF i % 250 = 0 THEN COMMIT; END IF; END LOOP; END $$")

    def change_pages(self, percent, number):
        """Changes this share of all pages, spread evenly over the largest table, and flushes them."""
        page_count = int(self.sql("SELECT pg_relation_size('pgbench_accounts') / 8192"))
        rows = int(self.sql("SELECT max(aid) FROM pgbench_accounts"))
        changes = size_of(f"{self.data}/base") / 8192 * percent / 100
        step = max(1, int(page_count / changes)) * rows // page_count
        self.sql(f"UPDATE pgbench_accounts SET abalance = abalance + 1 FROM generate_series({1 + number * 13 % 50},"
                 f" {rows}, {step}) AS g WHERE aid = g")
        self.sql("CHECKPOINT")

    def make_wal(self, segments):
        """Fills this many segments with changes of all kinds, which wait to be archived. Returns their paths."""
        say(f"making {segments} WAL segments")
        self.sql("CREATE TABLE event (id bigserial, at timestamptz, word text, amount double precision)")
        loop = (
            "DO $$ DECLARE n int; top int := (SELECT max(aid) FROM pgbench_accounts); BEGIN FOR i IN 1..20000 LOOP"
            " n := 1 + random() * (top - 1); UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = n;"
            " UPDATE pgbench_accounts SET abalance = n WHERE aid = 1 + n % 5000;"
            " INSERT INTO event (at, word, amount) VALUES (clock_timestamp(), md5(i::text), random());"
            " IF i % 20 = 0 THEN COMMIT; END IF; END LOOP; END $$")
        for number in range(100 * segments):
            if len(self.ready()) >= segments:
                break
            self.sql(loop)
            if number % 8 == 7:
                self.sql("CHECKPOINT")
        return [f"{self.data}/pg_wal/{name}" for name in self.ready()[:segments]]

    def ready(self):
        """The segments that wait to be archived."""
        names = os.listdir(f"{self.data}/pg_wal/archive_status")
        return sorted(name.removesuffix(".ready") for name in names if name.endswith(".ready") and len(name) == 30)

    def forget_ready(self):
        """Nobody archives what waits now."""
        status = f"{self.data}/pg_wal/archive_status"
        for name in self.ready():
            os.rename(f"{status}/{name}.ready", f"{status}/{name}.done")

    # Recovery

    def recover(self, output):
        """Starts the server on a restored directory, waits until recovery is over, and stops it again.

        Returns the run: its seconds end with the recovery, its CPU is that of the server and all its commands."""
        words = [f"{self.bin}/postgres", "-D", self.data, "-c", "hot_standby=off", "-c", "archive_mode=off", "-c",
                 f"port={self.port + 1}"]
        start = time.monotonic()
        with open(output, "w", encoding="utf-8") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        while not self.is_ready():
            if process.poll() is not None:
                with open(output, encoding="utf-8") as log:
                    raise SystemExit(f"bench: recovery failed:\n{log.read()[-3000:]}")
            time.sleep(0.02)
        wall = time.monotonic() - start
        process.send_signal(signal.SIGINT)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        run = Run.__new__(Run)
        run.wall, run.cpu, run.kernel = wall, usage.ru_utime + usage.ru_stime, usage.ru_stime
        run.peak_mib, run.output = usage.ru_maxrss / 1024, ""
        return run

    def is_ready(self):
        """Line 8 of postmaster.pid says what pg_ctl waits for."""
        try:
            with open(f"{self.data}/postmaster.pid", encoding="utf-8") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"
