"""Proves that the schemas are valid themselves, accept what testing/writer.py writes, and refuse records that lack a
member or hold one of another type: each required member of each record is taken away in turn."""

import copy
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

CATALOG = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CATALOG))
from reading.repository import Repository  # noqa: E402
from testing import scenarios  # noqa: E402
from testing.writer import Writer, json_bytes, key_slot  # noqa: E402

try:
    import jsonschema
except ImportError:
    jsonschema = None

SCHEMAS = {path.name: json.loads(path.read_text()) for path in sorted((CATALOG / "v1/schema").glob("*.schema.json"))}


def validator(name):
    schema = SCHEMAS[f"{name}.schema.json"]
    resolver = jsonschema.RefResolver(schema["$id"], schema, store=SCHEMAS)
    return jsonschema.Draft202012Validator(schema, resolver=resolver)


@unittest.skipUnless(jsonschema, "python3-jsonschema is not installed")
class Schemas(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = pathlib.Path(tempfile.mkdtemp(prefix="kedge-schema."))
        writer = Writer(cls.root, passphrase="correct horse")
        scenarios.sample(writer)
        writer.put("feature/later", json_bytes({"kedge": "feature", "name": "later", "neededTo": ["write"]}))
        intent = {"kedge": "intent", "label": scenarios.LABEL, "type": "full", "parent": None, "timeline": 1,
                  "systemIdentifier": writer.system, "startLSN": "0/2000028", "startedAt": "2026-11-21T02:00:00Z",
                  "hostName": "db1", "processID": 4711, "createdBy": "kedge-test-writer 0"}
        writer.put_record("intent", f"catalog/intent/{scenarios.LABEL}", intent)
        condemned = {"kedge": "condemned", "label": scenarios.LABEL, "stage": "pending", "byHand": False,
                     "reason": "removed: no rule keeps it", "condemnedAt": "2026-11-21T02:00:00Z", "hostName": "db1",
                     "createdBy": "kedge-test-writer 0"}
        writer.put_record("condemned", f"catalog/condemned/{scenarios.LABEL}", condemned)
        writer.put_record("condemned", f"catalog/removing/{scenarios.LABEL}", {**condemned, "stage": "removing"})
        pin = {"kedge": "pin", "label": scenarios.LABEL, "pinnedAt": "2026-11-21T02:00:00Z", "hostName": "db1",
               "createdBy": "kedge-test-writer 0"}
        writer.put_record("pin", f"catalog/pin/{scenarios.LABEL}", pin)
        gap = {"kedge": "gap", "systemIdentifier": writer.system, "first": "0" * 7 + "1" + "0" * 15 + "2",
               "last": "0" * 7 + "1" + "0" * 15 + "3", "reason": "expired", "createdAt": "2026-11-21T02:00:00Z",
               "hostName": "db1", "createdBy": "kedge-test-writer 0"}
        gap_name = f"catalog/gap/{writer.system}/{gap['first']}-{gap['last']}"
        writer.put_record("gap", gap_name, gap)
        proof = {"kedge": "proof", "label": scenarios.LABEL, "level": "drilled", "result": "passed",
                 "repository": {"name": "main", "id": "0" * 32}, "manifest": {"length": 1, "checksum": "0" * 32},
                 "started": "2026-11-21T03:00:00Z", "finished": "2026-11-21T03:10:00Z", "hostName": "db1",
                 "createdBy": "kedge-test-writer 0", "serverVersion": "15.8",
                 "target": {"kind": "latest", "reachedTimeline": 1, "reachedLSN": "0/5000000"},
                 "covers": {"timeline": 1, "fromLSN": "0/2000028", "toLSN": "0/5000000", "toTime": None},
                 "checks": [{"name": "catalog", "result": "passed", "subject": "postgres", "milliseconds": 7}],
                 "phases": [{"name": "fetch", "milliseconds": 1, "bytes": 2}],
                 "objectives": {"rtoSeconds": 3600, "measuredSeconds": 600, "lagSeconds": 60},
                 "verifiedObjects": {"systemIdentifier": "7", "packs": [{"id": "1" * 32, "bytes": 3}],
                                     "partsPerMillion": 1000000, "wal": [{"timeline": 1, "first": 2, "last": 5}]}}
        proof_name = f"catalog/proof/{scenarios.LABEL}/20261121T031000Z-drilled-passed"
        writer.put_record("proof", proof_name, proof)
        lease = {"kedge": "lease", "operation": "backup", "holder": "0" * 32, "hostName": "db1", "processID": 4711,
                 "bootID": None, "startTicks": 7, "label": scenarios.LABEL, "takenAt": "2026-11-21T02:00:00Z",
                 "renewedAt": "2026-11-21T02:00:30Z", "renewals": 1, "expiresAfter": 300, "step": "copying files",
                 "doneBytes": 1, "totalBytes": 2, "createdBy": "kedge-test-writer 0"}
        writer.put_record("lease", "lease/backup", lease)
        repository = Repository(writer.root, "main", ("hkdf-sha-256", writer.secret))
        cls.records = [
            ("repository", json.loads(writer.get("kedge.json"))),
            ("feature", json.loads(writer.get("feature/later"))),
            *[("key-slot", slot) for slot in writer.slots],
            ("registration", repository.record(f"system/{writer.system}")),
            ("intent", repository.record(f"catalog/intent/{scenarios.LABEL}")),
            ("condemned", repository.record(f"catalog/condemned/{scenarios.LABEL}")),
            ("condemned", repository.record(f"catalog/removing/{scenarios.LABEL}")),
            ("gap", repository.record(gap_name)),
            ("pin", repository.record(f"catalog/pin/{scenarios.LABEL}")),
            ("proof", repository.record(proof_name)),
            ("lease", repository.record("lease/backup")),
            ("manifest", repository.record(f"backup/{scenarios.LABEL}/manifest")),
            ("commit-record", repository.record(f"catalog/backup/{scenarios.LABEL}")),
        ]
        for file in ("00000002.history", scenarios.SEGMENT):
            with repository.sealed(writer.wal_name(file)) as sealed:
                cls.records.append(("wal-facts", json.loads(next(sealed.frames())[1])))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.root)

    def test_every_schema_is_one_and_is_used(self):
        for name, schema in SCHEMAS.items():
            jsonschema.Draft202012Validator.check_schema(schema)
            self.assertEqual(schema["$id"], name)
        self.assertEqual({f"{name}.schema.json" for name, _ in self.records} | {"common.schema.json"}, set(SCHEMAS))

    def test_records_as_written_are_valid(self):
        for name, record in self.records:
            with self.subTest(name):
                validator(name).validate(record)
                validator(name).validate(record | {"ofTheFuture": 1})

    def test_a_missing_or_mistyped_member_is_refused(self):
        for name, record in self.records:
            for member in SCHEMAS[f"{name}.schema.json"]["required"]:
                with self.subTest(name, member=member):
                    without = {key: value for key, value in record.items() if key != member}
                    self.assertFalse(validator(name).is_valid(without))
                    self.assertFalse(validator(name).is_valid(record | {member: 1.5}))

    def test_what_lies_deeper_is_checked_too(self):
        records = dict(self.records)
        for name, edit in [
            ("commit-record", lambda record: record["tablespaces"][0].pop("oid")),
            ("commit-record", lambda record: record["packs"][0].update(id="x")),
            ("commit-record", lambda record: record["keySlots"][0].pop("wrapped")),
            ("commit-record", lambda record: record.update(startLSN="0/02000028")),
            ("commit-record", lambda record: record.update(startTime="2026-11-21 02:00:00")),
            ("manifest", lambda record: record["parts"][0].update(entries=0)),
            ("proof", lambda record: record["verifiedObjects"].update(partsPerMillion=0)),
            ("proof", lambda record: record["checks"][0].update(result="maybe")),
            ("proof", lambda record: record["covers"].pop("toLSN")),
            ("proof", lambda record: record["target"].update(kind="soon")),
            ("feature", lambda record: record["neededTo"].append("dance")),
            ("registration", lambda record: record.update(walSegmentSize=3)),
            ("wal-facts", lambda record: record.update(file="PG_VERSION")),
            ("wal-facts", lambda record: record.update(file="00000002.history")),
            ("wal-facts", lambda record: record["segment"].update(format=2)),
            ("wal-facts", lambda record: record["segment"]["lastCommit"].pop("time")),
            ("wal-facts", lambda record: record["segment"]["endedTransactions"].update(runs="0")),
        ]:
            record = copy.deepcopy(records[name])
            edit(record)
            self.assertFalse(validator(name).is_valid(record), (name, record))

    def test_the_writer_makes_every_member_of_a_segments_facts(self):
        described = SCHEMAS["wal-facts.schema.json"]["properties"]["segment"]["anyOf"][0]["properties"]
        self.assertEqual(set(dict(self.records)["wal-facts"]["segment"]), set(described))

    def test_a_slot_of_a_cheap_passphrase_is_refused(self):
        slot = key_slot(bytes(16), scenarios.DataKey(bytes(16), bytes(32)), "passphrase", n=1 << 14)
        self.assertFalse(validator("key-slot").is_valid(slot))


if __name__ == "__main__":
    unittest.main()
