"""The cases, in the order in which they need each other: backups, restores, WAL."""

import os
import random
import shutil
import sys

from cluster import Cluster
from running import MIB, Figures, Run, Samples, check_call, say, size_of, warm
from tools import Kedge, PgBackRest

SEGMENT_BYTES = 16 * MIB
DAMAGED_PERCENT = 1


class Bench:
    """One comparison. `results` maps (variant, case) to the samples of each program, by the program's name."""

    def __init__(self, options, sizes):
        self.options, self.sizes = options, sizes
        self.dir = options.directory
        self.output = f"{self.dir}/output"
        self.cluster = Cluster(self.dir, options.postgres, 54100)
        self.results, self.notes, self.facts = {}, [], {}

    # Measuring

    def samples(self, variant, case, program):
        return self.results.setdefault((variant.name, case), {}).setdefault(program, Samples())

    def alternate(self, variant, case, rounds, programs, before=None):
        """Runs the programs in turns, every other round backwards, so that a load that comes and goes meets all.

        `programs` are (name, function that returns a run); `before` is called ahead of each round."""
        say(f"{variant.name}: {case}, {rounds} round(s)")
        for number in range(rounds):
            if before:
                before(number)
            for name, program in programs if number % 2 == 0 else reversed(programs):
                os.sync()
                self.samples(variant, case, name).runs.append(program(number))

    def tools(self, variant):
        return [Kedge(self, variant, f"{self.dir}/kedge")] + (
            [PgBackRest(self, variant, self.options.pgbackrest)] if self.options.pgbackrest else [])

    # The archive_command: one script, which serves the tool that is at work and keeps a link for the other

    def install_archive_command(self):
        # pgBackRest wants to see its own name in the setting.
        path = f"{self.dir}/archive-with-kedge-or-pgbackrest"
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\n. "{self.dir}/archive.tool"\n')
        os.chmod(path, 0o755)
        with open(f"{self.cluster.data}/postgresql.conf", "a", encoding="utf-8") as file:
            file.write(f"archive_mode = on\narchive_command = '{path} \"%p\" %f'\nwal_keep_size = 40GB\n")

    def serve(self, tool, others):
        """From now on the server archives into `tool`'s repository, and the others are owed what it gets."""
        lines = ["set -e"]
        for other in others:
            os.makedirs(f"{other.base}.owed", exist_ok=True)
            lines.append(f'ln -f "$1" "{other.base}.owed/$2" 2>/dev/null || cp "$1" "{other.base}.owed/$2"')
        words = " ".join(f"'{word}'" for word in tool.archive_words()).replace("'%p'", '"$1"')
        lines.append(f"exec {words}")
        with open(f"{self.dir}/archive.tool.new", "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.rename(f"{self.dir}/archive.tool.new", f"{self.dir}/archive.tool")

    def serve_nobody(self):
        with open(f"{self.dir}/archive.tool", "w", encoding="utf-8") as file:
            file.write("exit 1\n")

    def settle(self, tools):
        """Waits until all WAL is archived, and gives each tool what it is owed."""
        name = self.cluster.sql("SELECT pg_walfile_name(pg_switch_wal())")
        self.cluster.wait_until_archived(name)
        for tool in tools:
            owed = f"{tool.base}.owed"
            for file in sorted(os.listdir(owed)) if os.path.isdir(owed) else []:
                # The archiver gives its files by their path within the data directory; so is it done here.
                tool.run("archive-push", f"{owed}/{file}", directory=self.cluster.data)
                os.unlink(f"{owed}/{file}")

    # Backups

    def full_backups(self, variant, tools, rounds, with_copy):
        """Each into an empty repository; the last ones stay."""
        def full(tool):
            def run(_):
                tool.reset()
                shutil.rmtree(f"{tool.base}.owed", ignore_errors=True)
                self.serve(tool, [other for other in tools if other is not tool])
                warm(self.cluster.data)
                return tool.backup(True)
            return run

        programs = [(tool.name, full(tool)) for tool in tools]
        programs.append(("codec-only", lambda _: self.codec_only_tree(variant)))
        if with_copy:
            programs.append(("cp -a, sync", lambda _: self.copy(self.cluster.data, f"{self.dir}/copy")))
        self.alternate(variant, "full backup", rounds, programs)
        for tool in tools:
            self.facts.setdefault("stored_bytes", {})[f"{variant.name}: {tool.name}"] = size_of(tool.repository)
        self.settle(tools)

    def delta_backups(self, variant, tools, rounds):
        def delta(tool):
            def run(_):
                self.serve(tool, [other for other in tools if other is not tool])
                warm(self.cluster.data)
                return tool.backup(False)
            return run

        programs = [(tool.name, delta(tool)) for tool in tools]
        self.alternate(variant, "delta, nothing changed", rounds, programs)
        number = 0
        for percent in (1, 5):
            def change(_, percent=percent):
                nonlocal number
                number += 1
                self.cluster.change_pages(percent, number)
            count = max(rounds, self.sizes.deltas // 2) if rounds > 1 else 1
            self.alternate(variant, f"delta, {percent} % of the pages changed", count, programs, before=change)
        self.settle(tools)

    def codec_only_tree(self, variant):
        warm(self.cluster.data)
        return Run([f"{self.dir}/codec-only", "tree", self.cluster.data, variant.workers, f"{variant.codec}:1",
                    "aes-256-gcm" if variant.is_encrypted else "none"], self.dir, self.output)

    def copy(self, source, target):
        warm(source)
        run = Run(["/bin/sh", "-c", 'cp -a "$1" "$2" && sync -f "$2"', "sh", source, target], self.dir, self.output)
        self.discard(target)
        return run

    # Restores

    def discard(self, tree):
        """Gives the room of a tree back, and keeps its files: ext4 passes over an inode that was freed minutes ago, one
        by one, and that would be most of what the next restore costs."""
        for folder, _, files in os.walk(tree):
            for name in files:
                if not os.path.islink(f"{folder}/{name}"):
                    os.truncate(f"{folder}/{name}", 0)
        os.makedirs(f"{self.dir}/discarded", exist_ok=True)
        os.rename(tree, f"{self.dir}/discarded/{len(os.listdir(f'{self.dir}/discarded'))}")

    def restores(self, variant, tools, rounds, case, damage=False, with_copy=False):
        target = f"{self.dir}/restored"

        def restore(tool):
            def run(_):
                warm(tool.repository)
                result = tool.restore(target)
                self.discard(target)
                return result
            return run

        programs = [(tool.name, restore(tool)) for tool in tools]
        if with_copy:
            programs.append(("cp -a, sync", lambda _: self.copy(self.cluster.data, f"{self.dir}/copy")))
        self.alternate(variant, case, rounds, programs)
        if not damage:
            return
        unable = [tool.name for tool in tools if not tool.can_repair]
        if unable:
            self.notes.append(f"delta restore with {DAMAGED_PERCENT} % damage: left out, {', '.join(unable)} has none yet")
            return

        def repair(tool):
            def run(number):
                self.damage(tool_target(tool), number)
                warm(tool.repository)
                warm(tool_target(tool))
                return tool.repair(tool_target(tool))
            return run

        def tool_target(tool):
            return f"{target}.{tool.name}"

        for tool in tools:
            tool.restore(tool_target(tool))
        self.alternate(variant, f"delta restore, {DAMAGED_PERCENT} % of the pages damaged", rounds,
                       [(tool.name, repair(tool)) for tool in tools])
        for tool in tools:
            self.discard(tool_target(tool))

    @staticmethod
    def damage(data, number):
        """Overwrites a share of all pages of larger files, evenly."""
        chance = random.Random(number)
        for folder, _, files in os.walk(f"{data}/base"):
            for name in files:
                path = os.path.join(folder, name)
                pages = os.path.getsize(path) // 8192
                if pages < 128:
                    continue
                with open(path, "r+b") as file:
                    for page in range(chance.randrange(100), pages, 100 // DAMAGED_PERCENT):
                        file.seek(page * 8192 + 100)
                        file.write(chance.randbytes(64))

    def verifies(self, variant, tools, rounds):
        def verify(tool):
            def run(_):
                warm(tool.repository)
                return tool.verify()
            return run

        self.alternate(variant, "verify", rounds, [(tool.name, verify(tool)) for tool in tools])

    # WAL

    def make_segments(self, count):
        """Real segments, which stay: the server archives them to nobody."""
        self.serve_nobody()
        return self.cluster.make_wal(count)

    def pushes(self, variant, tools, segments):
        say(f"{variant.name}: archive-push, {len(segments)} segments")
        os.makedirs(f"{self.dir}/codec.out", exist_ok=True)
        # One segment at a time: where nothing is ready, nobody works ahead.
        fake = self.fake_data_directory(segments, ready=False)
        cipher = "aes-256-gcm" if variant.is_encrypted else "none"
        for number, path in enumerate(segments):
            programs = [(tool.name, lambda tool=tool, path=path: Run(
                tool.words_at(fake, "archive-push", f"pg_wal/{os.path.basename(path)}"), fake, self.output))
                for tool in tools]
            programs.append(("codec-only", lambda path=path: Run(
                [f"{self.dir}/codec-only", "file", path, f"{self.dir}/codec.out", variant.workers,
                 f"{variant.codec}:1", cipher], self.dir, self.output)))
            with open(path, "rb") as file:
                file.read()
            for name, program in programs if number % 2 == 0 else reversed(programs):
                self.samples(variant, "archive-push, a segment", name).runs.append(program())

    def gets(self, variant, tools, segments):
        say(f"{variant.name}: archive-get, {len(segments)} segments")
        fake = self.fake_data_directory([])
        place = f"{fake}/pg_wal/RECOVERYXLOG"
        for number, path in enumerate(segments):
            name = os.path.basename(path)
            for tool in tools if number % 2 == 0 else reversed(tools):
                words = tool.words_at(fake, "archive-get", name, "pg_wal/RECOVERYXLOG")
                run = Run(words, fake, self.output)
                self.samples(variant, "archive-get, a segment", tool.name).runs.append(run)
                if number == 0:
                    check_call(["cmp", path, place])
                os.unlink(place)

    def fake_data_directory(self, segments, ready=True):
        """What the commands see of a data directory: pg_control and pg_wal with segments, ready to be archived or not."""
        fake = f"{self.dir}/fake"
        shutil.rmtree(fake, ignore_errors=True)
        os.makedirs(f"{fake}/pg_wal/archive_status")
        os.makedirs(f"{fake}/global")
        os.chmod(fake, 0o700)
        for name in ("PG_VERSION", "global/pg_control"):
            shutil.copy(f"{self.cluster.data}/{name}", f"{fake}/{name}")
        for path in segments:
            name = os.path.basename(path)
            os.link(path, f"{fake}/pg_wal/{name}")
            if not ready:
                continue
            with open(f"{fake}/pg_wal/archive_status/{name}.ready", "w", encoding="utf-8"):
                pass
        return fake

    def queues(self, variant, tools, rounds, segments):
        """Draining a queue into an empty repository as the archiver does, and fetching all of it as recovery does."""
        names = f"{self.dir}/names"
        with open(names, "w", encoding="utf-8") as file:
            file.write("\n".join(os.path.basename(path) for path in segments))
        program = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "archiver.py")]

        def drain(tool):
            def run(_):
                tool.reset()
                fake = self.fake_data_directory(segments)
                warm(f"{fake}/pg_wal")
                os.sync()
                words = tool.queue_words("archive-push", "%p", data=fake)
                return Figures(Run([*program, "drain", fake, *words], self.dir, self.output))
            return run

        def fetch(tool):
            def run(_):
                fake = self.fake_data_directory([])
                warm(tool.repository)
                words = tool.queue_words("archive-get", "%f", "%p", data=fake)
                return Figures(Run([*program, "fetch", fake, names, *words], self.dir, self.output))
            return run

        self.alternate(variant, f"drain of {len(segments)} segments", rounds, [(t.name, drain(t)) for t in tools])
        self.alternate(variant, f"archive-get of {len(segments)} segments", rounds, [(t.name, fetch(t)) for t in tools])

    def recoveries(self, variant, tools, segments):
        """Restores the newest backup and recovers to the end of the archive, with the real server."""
        target = Cluster(self.dir, self.options.postgres, self.cluster.port, "recovered")

        def recover(tool):
            def run(_):
                tool.restore(target.data, latest=True)
                warm(tool.repository)
                os.sync()
                result = target.recover(f"{self.dir}/recovery.log")
                self.discard(target.data)
                return result
            return run

        self.alternate(variant, f"recovery of {len(segments)} segments, with the server", 1,
                       [(tool.name, recover(tool)) for tool in tools])

    def start_up(self, variant, tools):
        self.alternate(variant, "start-up", 20, [
            (tool.name, lambda _, tool=tool: Run(
                [tool.path, "--version" if tool.name == "kedge" else "version"], self.dir, self.output))
            for tool in tools])
