"""Reads every byte of a repository and holds it against FORMAT.md and the schemas, for tests of what kedge writes.

    check_repository.py --repository DIR --cluster NAME [--key-file FILE | --passphrase-file FILE]

Beyond what a restore checks: every object is whole, every record fits its schema, every source in a pack's table has the
checksum that the table says, frames of manifest parts have no sources, and nothing lies in the repository that does not
belong there. Prints what it counted; the first fault ends it with status 1. Needs python3-jsonschema.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import sys

import jsonschema

CATALOG = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CATALOG))
from reading.keys import read_secret  # noqa: E402
from reading.names import KINDS  # noqa: E402
from reading.repository import Repository  # noqa: E402
from reading.sealed import DATA, FACTS, TABLE  # noqa: E402
from reading.values import Cursor, parse_json  # noqa: E402
from reading.xxh3 import xxh3_128  # noqa: E402

SCHEMAS = {path.name: json.loads(path.read_text()) for path in (CATALOG / "v1/schema").glob("*.schema.json")}
PLAIN = {r"kedge\.json": "repository", r"feature/[A-Za-z0-9._-]+": "feature", r"key/[0-9a-f]{32}/[0-9a-f]{16}": "key-slot"}


def validate(record, name, where):
    schema = SCHEMAS[f"{name}.schema.json"]
    resolver = jsonschema.RefResolver(schema["$id"], schema, store=SCHEMAS)
    for error in jsonschema.Draft202012Validator(schema, resolver=resolver).iter_errors(record):
        raise SystemExit(f"{where} does not fit {name}.schema.json: {error.json_path}: {error.message}")


def check_pack(sealed, counts):
    """Holds the table against the frames. The frames' checksums are kept, not their bytes."""
    frames, table = [], []
    for kind, raw in sealed.frames():
        (frames if kind == DATA else table).append(raw)
        counts["frames"] += 1
    cursor = Cursor(table, sealed.what)
    assert cursor.take(1) == b"\x01" and cursor.varint() == len(frames), sealed.what
    path = None
    for raw in frames:
        cursor.varint()
        assert cursor.varint() == len(raw), sealed.what
        at = 0
        for _ in range(cursor.varint()):
            length = cursor.varint()
            path = cursor.take(length) if length else path
            assert path, sealed.what
            cursor.varint()
            size = cursor.varint()
            if cursor.take(16) != xxh3_128(raw[at : at + size]):
                raise SystemExit(f"{sealed.what}: a source of {path!r} does not have its checksum")
            at += size
            counts["sources"] += 1
        assert at in (0, len(raw)), sealed.what
    cursor.end()


def check_sealed(repository, name, counts):
    kind, kedge = next(((kind, kedge) for kind, kedge, pattern in KINDS if re.fullmatch(pattern, name)), (None, None))
    if kind is None:
        raise SystemExit(f'"{name}" does not belong in a repository')
    counts[kedge or {2: "wal", 3: "pack"}[kind]] += 1
    with repository.sealed(name) as sealed:
        if kind == 3:
            check_pack(sealed, counts)
        elif kind == 2:
            for frame_type, raw in sealed.frames():
                if frame_type == FACTS:
                    validate(parse_json(raw, name, "wal-facts"), "wal-facts", name)
                assert frame_type != TABLE
        else:
            validate(repository.record(name), kedge, name)


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--repository", required=True)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--key-file")
    parser.add_argument("--passphrase-file")
    options = parser.parse_args(arguments)
    repository = Repository(options.repository, options.cluster, read_secret(options))
    counts = collections.Counter()
    for directory, _, files in sorted(os.walk(options.repository)):
        for file in files:
            name = os.path.relpath(os.path.join(directory, file), options.repository)
            if name.startswith(f"{options.cluster}/"):
                check_sealed(repository, name[len(options.cluster) + 1 :], counts)
                continue
            schema = next((schema for pattern, schema in PLAIN.items() if re.fullmatch(pattern, name)), None)
            if schema is None:
                raise SystemExit(f'"{name}" does not belong in a repository')
            validate(json.loads(repository.plain_bytes(name)), schema, name)
            counts[schema] += 1
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))


if __name__ == "__main__":
    main(sys.argv[1:])
