"""Proves that reader.py gives back what testing/writer.py wrote, with every codec and cipher, and that it refuses what
FORMAT.md tells readers to refuse: each row of scenarios.py, whose undamaged repository it reads first."""

import contextlib
import io
import os
import pathlib
import random
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

CATALOG = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CATALOG))
import reader  # noqa: E402
from reading import xxh3  # noqa: E402
from testing import scenarios  # noqa: E402
from testing.scenarios import LABEL, SEGMENT, entries, sample, some_bytes  # noqa: E402
from testing.writer import DIRECTORY, EXTRA, LINK, DataKey, Frame, Writer, key_slot  # noqa: E402


def run(*arguments):
    """(status, standard output, standard error) of the reader, in this process."""
    out, err = io.BytesIO(), io.StringIO()
    text = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(err):
        status = reader.main([str(argument) for argument in arguments])
    text.flush()
    return status, out.getvalue(), err.getvalue()


class ReaderTest(unittest.TestCase):
    def setUp(self):
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="kedge-reader."))
        self.addCleanup(self.remove)

    def remove(self):
        subprocess.run(["chmod", "-R", "u+rwx", self.scratch], check=True)  # for who is not root
        shutil.rmtree(self.scratch)

    def repository(self, **options):
        return self.use(Writer(self.scratch / "repository", **options))

    def use(self, writer):
        self.options = ["--repository", writer.root, "--cluster", "main"]
        if writer.key:
            (self.scratch / "key").write_text(writer.secret.hex() + "\n")
            self.options += ["--key-file", self.scratch / "key"]
        return writer

    def read(self, *arguments):
        return run(*self.options, *arguments)

    def restore(self, *more, label=LABEL):
        return self.read("restore", label, "--target", self.scratch / "data", "--tablespace",
                         f"16400={self.scratch}/space", *more)

    def wal(self, name=SEGMENT):
        return self.read("wal", name, self.scratch / "segment")

    def command(self, name):
        return {"restore": self.restore, "wal": self.wal, "list": lambda: self.read("list")}[name]()

    def forget(self):
        """Removes what commands wrote."""
        for name in ("data", "space", "segment"):
            command = f"chmod -R u+rwx {name} 2>/dev/null; rm -rf {name}"
            subprocess.run(command, shell=True, cwd=self.scratch, check=True)

    def assert_restored(self, expected):
        """The data directory holds exactly these entries, with their contents, modes and times."""
        root = os.fsencode(self.scratch / "data")
        found = {os.path.relpath(os.path.join(path, name), root) for top in (root, root + b"/pg_tblspc/16400")
                 for path, directories, files in os.walk(top) for name in directories + files}
        self.assertEqual(found, {entry.path for entry in expected if entry.type != EXTRA} | {b"tablespace_map"})
        for entry in expected:
            if entry.type == EXTRA:
                continue
            path = os.path.join(root, entry.path)
            status = os.lstat(path)
            if entry.type != LINK:
                self.assertEqual(stat.S_IMODE(status.st_mode), entry.mode, entry.path)
            self.assertEqual(status.st_mtime_ns, entry.mtime, entry.path)
            if entry.type == LINK:
                self.assertEqual(os.readlink(path), os.fsencode(self.scratch / "space"))
            elif entry.type != DIRECTORY:
                with open(path, "rb") as file:
                    self.assertEqual(file.read(), entry.data, entry.path)
        self.assertEqual(stat.S_IMODE(os.stat(root).st_mode), 0o750)
        self.assertEqual((self.scratch / "data/tablespace_map").read_text(), f"16400 {self.scratch}/space\n")


class RoundTrips(ReaderTest):
    def test_restores_every_codec_and_cipher_byte_for_byte(self):
        for encrypted in (True, False):
            for codec in ("zstd", "lz4", "zlib", "none"):
                with self.subTest(encrypted=encrypted, codec=codec):
                    shutil.rmtree(self.scratch / "repository", ignore_errors=True)
                    sample(self.repository(encrypted=encrypted, codec=codec))
                    status, _, err = self.restore()
                    self.assertEqual(status, 0, err)
                    self.assert_restored(entries())
                    self.assertIn("pg_hba.conf", err)
                    self.forget()
                    self.assertEqual(self.wal()[0], 0)
                    self.assertEqual((self.scratch / "segment").read_bytes(), some_bytes(1 << 20, 6))

    def test_restores_configuration_files_from_elsewhere_when_asked(self):
        sample(self.repository())
        status, _, err = self.restore("--extra", self.scratch / "extra")
        self.assertEqual((status, err), (0, ""))
        written = self.scratch / "extra/etc/postgresql/15/main/pg_hba.conf"
        self.assertEqual(written.read_bytes(), b"local all all peer\n")

    def test_the_python_hash_reads_what_the_library_reads(self):
        sample(self.repository(encrypted=False))
        library, xxh3._library = xxh3._library, None
        self.addCleanup(setattr, xxh3, "_library", library)
        self.assertEqual(self.restore()[0], 0)
        self.assert_restored(entries())
        self.assertEqual(self.wal()[0], 0)

    def test_a_passphrase_opens_a_repository(self):
        sample(self.repository(key_file=False, passphrase="correct horse"))
        (self.scratch / "passphrase").write_text("correct horse\n")
        self.options[-2:] = ["--passphrase-file", self.scratch / "passphrase"]
        self.assertEqual(self.restore()[0], 0)
        (self.scratch / "passphrase").write_text("wrong horse\n")
        status, _, err = self.read("list")
        self.assertEqual(status, 1)
        self.assertIn("code: key-wrong", err)

    def test_objects_of_an_older_key_are_opened_by_the_slot_in_the_commit_record(self):
        writer = self.repository()
        record = scenarios.backup(writer)
        older, newer = writer.slots[0], DataKey(os.urandom(16), os.urandom(32), 2)
        os.unlink(writer.path(f"key/{older['key']}/{older['slot']}"))
        writer.put_slot(key_slot(writer.repository_id, newer, writer.secret))
        writer.key = newer
        writer.put_registration()
        writer.put_record("commit-record", f"catalog/backup/{LABEL}", record)
        self.assertEqual(self.restore()[0], 0)
        self.assert_restored(entries())
        self.forget()
        writer.put_record("commit-record", f"catalog/backup/{LABEL}", record | {"keySlots": []})
        self.assertIn("code: key-missing", self.restore()[2])

    def test_unknown_optional_fields_and_unknown_members_are_ignored(self):
        writer = self.repository()
        sample(writer)
        fields = [(99, 0, b"later"), (98, 2, b"later"), (1, 1, b"kedge 9")]
        scenarios.put_segment(writer, fields=fields, facts={"later": {"x": [1]}})
        self.assertEqual(self.wal()[0], 0)

    def test_a_feature_that_only_writers_need_does_not_stop_a_reader(self):
        writer = self.repository()
        sample(writer)
        writer.put("feature/later", b'{"kedge":"feature","name":"later","neededTo":["write","expire"]}')
        self.assertEqual(self.wal()[0], 0)

    def test_unfinished_writes_are_not_seen(self):
        writer = self.repository()
        sample(writer)
        writer.put("main/catalog/backup/.kedge-tmp-1234", b"half")
        writer.put("main/system/.kedge-tmp-1234", b"half")
        status, out, err = self.read("list")
        self.assertEqual((status, err), (0, ""))
        self.assertNotIn(b"kedge-tmp", out)

    def test_frames_of_any_size_up_to_sixteen_mebibytes(self):
        writer = self.repository(codec="lz4")
        sample(writer)
        data = some_bytes(writer.segment_size, 6)
        for size in (1, 16 << 20):
            pieces = [data] if size > 1 else [bytes([byte]) for byte in data[:200]]
            name = f"{SEGMENT}.00000028.backup"
            writer.put_wal(name, b"".join(pieces), frame_size=max(size, 400), frames=lambda facts, _: [
                Frame(4, scenarios.json_bytes(facts)), *[Frame(1, piece) for piece in pieces]])
            self.assertEqual(self.wal(name)[0], 0)
            self.assertEqual((self.scratch / "segment").read_bytes(), b"".join(pieces))


class Commands(ReaderTest):
    def test_list_shows_backups_and_wal(self):
        writer = self.repository()
        sample(writer)
        status, out, err = self.read("list")
        self.assertEqual((status, err), (0, ""))
        lines = out.decode().splitlines()
        self.assertEqual(lines[0], f"cluster main (id {writer.cluster_id.hex()})")
        self.assertTrue(lines[1].startswith(f"backup {LABEL}, timeline 1, LSN 0/2000028 to 0/2000138, "), lines[1])
        self.assertEqual(lines[2], f"system {writer.system}: PostgreSQL 15")
        self.assertEqual(lines[3], "  timeline 1: WAL 000000010000000000000020 to 000000010000000000000022, "
                                   "2 segments, 1 missing")
        self.assertRegex(lines[4], r"^  timeline 1: 000000010000000000000023\.partial-[0-9a-f]{32}$")
        self.assertEqual(lines[5:], ["  000000010000000000000020.00000028.backup", "  00000002.history"])

    def test_list_reports_a_damaged_backup_and_goes_on(self):
        writer = self.repository()
        sample(writer)
        scenarios.change(writer, f"main/catalog/backup/{LABEL}", scenarios.flip(-1))
        status, out, _ = self.read("list")
        self.assertEqual(status, 3)
        self.assertIn(b"is damaged", out)
        self.assertIn(b"2 segments", out)

    def test_list_shows_no_control_characters(self):
        writer = self.repository()
        writer.put_backup(LABEL, entries(), [{"oid": 16400, "path": "/x\x1b[2J", "inPlace": False}])
        self.assertNotIn(b"\x1b", self.read("list")[1])

    def test_list_warns_of_a_cluster_under_another_name(self):
        writer = self.repository()
        sample(writer)
        os.rename(writer.path("main"), writer.path("other"))
        self.options[3] = "other"
        status, _, err = self.read("list")
        self.assertEqual((status, err), (0, 'reader: warning: cluster "other" was registered as "main"\n'))

    def test_cat_prints_records_packs_and_wal(self):
        writer = self.repository()
        sample(writer)
        self.assertIn(b'"stopLSN":"0/2000138"', self.read("cat", f"catalog/backup/{LABEL}")[1])
        self.assertIn(b'"regionSize":1048576', self.read("cat", f"backup/{LABEL}/manifest")[1])
        self.assertIn(b'"walSegmentSize"', self.read("cat", f"system/{writer.system}")[1])
        self.assertEqual(self.read("cat", writer.wal_name(SEGMENT))[1], some_bytes(1 << 20, 6))
        self.assertIn(b'"kedge":"wal-facts"', self.read("cat", "--facts", writer.wal_name(SEGMENT))[1])
        pack = writer.packs[1]
        self.assertEqual(self.read("cat", f"pack/{pack.id.hex()[:2]}/{pack.id.hex()}")[1], b"".join(pack.frames))
        self.assertIn(b'"kedge":"repository"', self.read("cat", "kedge.json")[1])
        for name in ("key/../../secret", "nothing", "../kedge.json", "pack/00/" + pack.id.hex()):
            self.assertEqual(self.read("cat", name)[0], 2, name)

    def test_wal_fetches_every_kind_of_file(self):
        writer = self.repository()
        sample(writer)
        for name, content in {
            SEGMENT: some_bytes(1 << 20, 6),
            "000000010000000000000022": some_bytes(1 << 20, 7),
            "000000010000000000000023.partial": some_bytes(1 << 20, 8),
            "00000002.history": b"1\t0/2300000\tno recovery target specified\n",
            f"{SEGMENT}.00000028.backup": b"START WAL LOCATION: 0/2000028\n",
        }.items():
            self.assertEqual(self.wal(name), (0, b"", ""))
            self.assertEqual((self.scratch / "segment").read_bytes(), content)
        self.assertEqual(sorted(os.listdir(self.scratch)), ["key", "repository", "segment"])

    def test_wal_says_1_only_for_proven_absence(self):
        writer = self.repository()
        sample(writer)
        for name in ("000000010000000000000024", "000000020000000000000020", "00000003.history"):
            status, _, err = self.wal(name)
            self.assertEqual((status, err.splitlines()[-1]), (1, "code: absent"))
        self.assertEqual(self.wal("000000010000000000000021")[0], 126)
        self.assertEqual(self.wal("nonsense")[0], 126)
        self.assertEqual(self.read("wal", "--system", "1", SEGMENT, self.scratch / "segment")[0], 126)
        self.assertEqual(self.read("wal", SEGMENT)[0], 126)
        self.assertEqual(self.read("wal", SEGMENT, self.scratch / "no/such/directory")[0], 126)
        (self.scratch / "key").write_text("no key")
        self.assertEqual(self.wal()[0], 126)
        (self.scratch / "key").write_text("00" * 32)
        self.assertEqual(self.wal()[0], 126)
        os.unlink(writer.path("kedge.json"))
        self.assertEqual(self.wal("000000010000000000000024")[0], 126)
        self.assertFalse((self.scratch / "segment").exists())

    def test_restore_needs_empty_directories_and_a_place_for_each_tablespace(self):
        sample(self.repository())
        target = ["restore", LABEL, "--target", self.scratch / "data"]
        space = self.scratch / "space"
        for arguments, code, text in [
            ([], "usage", 'tablespace 16400 of backup'),
            (["--tablespace", f"16400={space}", "--tablespace", f"1={space}2"], "usage", "has no tablespace 1"),
            (["--tablespace", "16400=relative"], "usage", "does not map one more tablespace"),
            (["--tablespace", f"16400={space}", "--tablespace", f"16400={space}2"], "usage", "does not map one more"),
            (["--tablespace", f"16400={self.scratch}/data/space"], "usage", "lie one in the other"),
            (["--tablespace", f"16400={self.scratch}"], "usage", "lie one in the other"),
        ]:
            status, _, err = self.read(*target, *arguments)
            self.assertEqual((status, err.splitlines()[-1]), (2, f"code: {code}"))
            self.assertIn(text, err)
        for name in ("data", "space"):
            (self.scratch / name).mkdir()
            (self.scratch / name / "file").touch()
            status, _, err = self.restore()
            self.assertEqual((status, err.splitlines()[-1]), (1, "code: not-empty"))
            self.assertEqual(os.listdir(self.scratch / name), ["file"])
            self.forget()
        self.assertEqual(self.read("restore", "no-label", "--target", self.scratch / "data")[0], 2)
        self.assertEqual(self.read("restore", scenarios.OTHER_LABEL, "--target", self.scratch / "data")[0], 1)
        self.assertFalse((self.scratch / "data").exists())

    def test_tablespace_map_is_escaped_as_postgresql_reads_it(self):
        sample(self.repository())
        place = f"{self.scratch}/a\\b\nc"
        target = self.scratch / "data"
        status, _, err = self.read("restore", LABEL, "--target", target, "--tablespace", f"16400={place}")
        self.assertEqual(status, 0, err)
        written = (self.scratch / "data/tablespace_map").read_text()
        self.assertEqual(written, f"16400 {self.scratch}/a\\\\b\\\nc\n")

    def test_memory_does_not_grow_with_what_is_restored(self):
        """192 MiB in packs of 96 MiB, and a file of 16 GiB of nothing, with 160 MiB of memory."""
        writer = self.repository(codec="none")
        block = random.Random(1).randbytes(1 << 20)
        files = [scenarios.Entry(b"f%d" % i, data=bytes([i]) + block[1:]) for i in range(192)]
        big = scenarios.Entry(b"zeros", data=b"", size=1 << 34, checksums=[None] * (1 << 14), extents=[(1 << 34, None)])
        needed = [entry for entry in entries() if entry.path in (b"backup_label", b"global", b"global/pg_control")]
        writer.put_backup(LABEL, files + needed + [big])
        command = [sys.executable, str(CATALOG / "reader.py"), *map(str, self.options), "restore", LABEL, "--target",
                   str(self.scratch / "data")]

        def limit():
            resource.setrlimit(resource.RLIMIT_DATA, (160 << 20, 160 << 20))

        done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(os.path.getsize(self.scratch / "data/zeros"), 1 << 34)
        self.assertEqual(len(os.listdir(self.scratch / "data")), 195)


class Refusals(ReaderTest):
    """One test for each scenario and cipher is added below."""


def add_refusals():
    for name, (function, code, text, command, only, codec) in scenarios.SCENARIOS.items():
        for encrypted in (True, False):
            if only in (None, encrypted):
                passphrase = scenarios.PASSPHRASE if scenarios.needs_passphrase(name) else None
                test = refusal(function, code, text, command, encrypted, codec, passphrase)
                suffix = "sealed" if encrypted else "plain"
                setattr(Refusals, f"test_{name.replace('-', '_')}_{suffix}", test)


class SoundSamples(scenarios.Samples):
    """Sound repositories that were read before anything went wrong with them."""

    def __init__(self):
        super().__init__()
        self._read = set()

    def prove(self, test, command, *what):
        if (command, *what) not in self._read:
            status, _, err = test.command(command)
            test.assertEqual(status, 0, f"the sound repository: {err}")
            test.forget()
            self._read.add((command, *what))


SAMPLES = SoundSamples()


def refusal(function, code, text, command, encrypted, codec, passphrase):
    def test(self):
        writer = self.use(SAMPLES.copy(self.scratch / "repository", encrypted, codec))
        SAMPLES.prove(self, command, encrypted, codec)
        function(writer)
        if passphrase:
            (self.scratch / "passphrase").write_text(passphrase + "\n")
            self.options[-2:] = ["--passphrase-file", self.scratch / "passphrase"]
        status, _, err = self.command(command)
        self.assertNotEqual(status, 0, "it was accepted")
        self.assertEqual([line for line in err.splitlines() if line.startswith("code: ")], [f"code: {code}"], err)
        self.assertIn(text, err)
        self.assertFalse((self.scratch / "segment").exists())
        self.assertFalse((self.scratch / "data/global/pg_control").exists())
        self.assertFalse((self.scratch / "outside").exists())
        if command == "wal":
            self.assertEqual(status, 126)
        elif code in ("damaged", "unsafe-path"):
            self.assertEqual(status, 3)

    return test


add_refusals()


class Hash(unittest.TestCase):
    def test_both_implementations_agree_at_every_border(self):
        if not xxh3._library:
            self.skipTest("libxxhash.so.0 is not there")
        source = random.Random(20261121)
        lengths = [*range(0, 260), 511, 512, 513, 1023, 1024, 1025, 1087, 1088, 1089, 2048, 2049, 5000, 70001]
        for length in lengths:
            for seed in (0, 1, (1 << 64) - 1, source.getrandbits(64)):
                data = source.randbytes(length)
                one, two = xxh3.NativeXXH3(seed), xxh3.PythonXXH3(seed)
                one.update(data)
                at = 0
                while at < length:
                    step = source.randint(1, 700)
                    two.update(data[at : at + step])
                    at += step
                self.assertEqual(one.digest(), two.digest(), (length, seed))

    def test_known_values(self):
        """From xxHash's own `xxhsum -H2` and its test vectors."""
        self.assertEqual(xxh3.PythonXXH3().digest().hex(), "99aa06d3014798d86001c324468d497f")


if __name__ == "__main__":
    unittest.main()
