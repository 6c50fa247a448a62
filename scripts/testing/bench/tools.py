"""The two tools that are compared, each behind the same few methods.

A variant says how a tool is set up: codec, cipher on or off, workers. Each variant has a repository of its own."""

import glob
import os
import re
import shutil

from running import Run


class Variant:
    def __init__(self, codec, is_encrypted, workers):
        self.codec, self.is_encrypted, self.workers = codec, is_encrypted, workers

    @property
    def name(self):
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return f"{self.codec}, {'AES' if self.is_encrypted else 'no AES'}, {workers}"

    @property
    def word(self):
        return f"{self.codec}-{'aes' if self.is_encrypted else 'plain'}-{self.workers}"


class Tool:
    """What both have in common."""

    def __init__(self, bench, variant, path):
        self.bench, self.variant, self.path = bench, variant, path
        self.base = f"{bench.dir}/{self.name}.{variant.word}"
        self.repository = f"{self.base}.repository"
        os.makedirs(self.base)

    def run(self, *words, directory=None, statuses=(0,)):
        return Run(self.words(*words), directory or self.bench.dir, self.bench.output, statuses)

    def backup(self, is_full):
        return Run(self.backup_words(is_full), self.bench.dir, self.bench.output)

    def verify(self):
        return Run(self.verify_words(), self.bench.dir, self.bench.output)

    def remove(self):
        for path in (self.repository, self.base):
            shutil.rmtree(path, ignore_errors=True)

    def archive_words(self):
        """The archive_command as words."""
        return self.words("archive-push", "%p")


class Kedge(Tool):
    name = "kedge"

    def reset(self):
        """An empty repository."""
        self.remove()
        os.makedirs(f"{self.base}/work")
        cluster, variant = self.bench.cluster, self.variant
        self.keys = [f"encryption = aes-256-gcm\nkey-file = {self.base}/main.key" if variant.is_encrypted
                     else "encryption = none"]
        self.write_configuration(cluster.data)
        generate = ["--generate-key", f"{self.base}/main.key"] if variant.is_encrypted else []
        self.run("init", *generate)

    def write_configuration(self, data):
        cluster, variant = self.bench.cluster, self.variant
        with open(f"{self.base}/kedge.conf", "w", encoding="utf-8") as file:
            file.write(
                f"[repository main]\ntype = local\npath = {self.repository}\ncompression = {variant.codec}:1\n"
                f"{self.keys[0]}\n\n[cluster main]\npgdata = {data}\nhost = {cluster.dir}\nport = {cluster.port}\n"
                f"user = postgres\ndbname = postgres\nbin-dir = {cluster.bin}\nrepositories = main\n"
                f"work-directory = {self.base}/work\nprocess-max = {variant.workers}\n")

    def words(self, command, *words):
        return [self.path, "--config", f"{self.base}/kedge.conf", command, *words]

    def words_at(self, _, command, *words):
        """A command that is started in a directory that stands for the data directory."""
        return self.words(command, *words)

    def queue_words(self, command, *words, data):
        """The same where many segments wait, with all that helps then."""
        return self.words_at(data, command, *words)

    def backup_words(self, is_full):
        return self.words("backup", "--type", "full" if is_full else "delta")

    def restore(self, target, latest=False):
        return self.run("restore", "--pgdata", target, *([] if latest else ["--target-immediate"]))

    @property
    def can_repair(self):
        text = " ".join(self.run("restore", "--help").output.split())
        return "--delta" in text and "not supported yet" not in text

    def repair(self, target):
        return self.run("restore", "--pgdata", target, "--delta", "--target-immediate")

    def verify_words(self):
        return self.words("verify", "--full")

    def pushed(self):
        """The WAL objects that it has."""
        return [path for path in glob.glob(f"{self.repository}/main/wal/**", recursive=True) if os.path.isfile(path)]

    @property
    def version(self):
        return self.run("--version").output.strip()


class PgBackRest(Tool):
    name = "pgbackrest"

    def reset(self):
        self.remove()
        cluster, variant = self.bench.cluster, self.variant
        for folder in ("", "/lock", "/spool", "/log"):
            os.makedirs(self.base + folder)
        os.makedirs(self.repository)
        lines = ["[global]", f"repo1-path={self.repository}", f"lock-path={self.base}/lock",
                 f"spool-path={self.base}/spool", f"log-path={self.base}/log", "log-level-file=off",
                 "log-level-console=warn", "start-fast=y", "expire-auto=n", "repo1-retention-full=9999999",
                 f"process-max={variant.workers}", "archive-get-queue-max=1GiB",
                 f"compress-type={'zst' if variant.codec == 'zstd' else variant.codec}", "compress-level=1"]
        if variant.is_encrypted:
            lines += ["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=zWaf6XtpjIVZC5444yXB-test"]
        if self.number >= (2, 39):
            lines.append("repo1-bundle=y")
        if self.number >= (2, 46):
            lines.append("repo1-block=y")
        lines += ["[main]", f"pg1-path={cluster.data}", f"pg1-socket-path={cluster.dir}", f"pg1-port={cluster.port}",
                  "pg1-user=postgres", "pg1-database=postgres"]
        with open(f"{self.base}/pgbackrest.conf", "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        self.run("stanza-create")

    def words(self, command, *words):
        return [self.path, f"--config={self.base}/pgbackrest.conf", "--stanza=main", command, *words]

    def words_at(self, data, command, *words):
        return self.words(f"--pg1-path={data}", command, *words)

    def queue_words(self, command, *words, data):
        return self.words("--archive-async", f"--pg1-path={data}", command, *words)

    def backup_words(self, is_full):
        return self.words(f"--type={'full' if is_full else 'incr'}", "backup")

    def restore(self, target, latest=False):
        os.makedirs(target, mode=0o700, exist_ok=True)
        return self.run(f"--pg1-path={target}", *([] if latest else ["--type=immediate"]), "--archive-mode=off", "restore")

    can_repair = True

    def repair(self, target):
        return self.run(f"--pg1-path={target}", "--delta", "--type=immediate", "--archive-mode=off", "restore")

    def verify_words(self):
        return self.words("verify")

    @property
    def version(self):
        return Run([self.path, "version"], self.bench.dir, self.bench.output).output.strip()

    @property
    def number(self):
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:2])
