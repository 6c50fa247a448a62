#!/usr/bin/env python3
"""Reads a Kedge repository without Kedge: lists it, prints objects, restores backups, fetches WAL files.

Written from FORMAT.md alone, so it is both an escape hatch and a proof of that page. Invariants:
1. Nothing is used before it is checked; what FORMAT.md does not allow is refused, naming the object.
2. Memory is bounded by a few frames (16 MiB at most, each) and one record, never by the size of a pack or file.
3. A restore reads the whole manifest before it writes the first byte, follows no link that it did not make itself, and
   writes global/pg_control last, so that what was left half done cannot be started.

Needs Python 3.9, `cryptography` for sealed repositories, `zstandard` and `lz4` for those codecs.
"""

import argparse
import os
import re
import sys

from reading import xxh3
from reading.keys import read_secret
from reading.manifest import Manifest
from reading.names import COMPONENT, SEGMENT, TAG
from reading.packs import Packs
from reading.repository import Repository
from reading.restore import Restore, data_directory_mode, plan_tablespaces, require_empty
from reading.sealed import DATA, FACTS
from reading.values import Failure, clean, damage, members_of, parse_json, warn


def list_repository(repository, _):
    print(f"cluster {repository.cluster} (id {repository.cluster_id.hex()})")
    bad = 0
    for label in repository.names(f"{repository.cluster}/catalog/backup"):
        try:
            record = repository.commit_record(label)
        except Failure as problem:
            print(f"backup {label}: {problem}")
            bad = 3
            continue
        fields = [f"backup {label}", f"timeline {record.get('timeline')}"]
        fields += [f"LSN {record.get('startLSN')} to {record.get('stopLSN')}"]
        fields += [f"{record.get('startTime')} to {record.get('stopTime')}"]
        fields += [f"WAL {record.get('walFrom')} to {record.get('walTo')}"]
        fields += [f"{record.get('files')} files of {record.get('databaseBytes')} bytes"]
        fields += [f"tablespace {t.get('oid')}={t.get('path')}" for t in members_of(record, "tablespaces", label)]
        print(clean(", ".join(fields)))
    for system, registration in repository.registrations.items():
        print(f"system {system}: PostgreSQL {clean(registration.get('postgresVersion'))}")
        list_wal(repository, system, registration["walSegmentSize"])
    return bad


def list_wal(repository, system, segment_size):
    below = f"{repository.cluster}/wal/{system}"
    for timeline in repository.names(below):
        if not re.fullmatch(r"[0-9A-F]{8}", timeline):
            continue
        found, missing, first, last, partial = 0, 0, None, None, []
        for name in segments(repository, f"{below}/{timeline}"):
            if ".partial" in name:
                partial.append(name)
                continue
            number = int(name[8:16], 16) * ((1 << 32) // segment_size) + int(name[16:24], 16)
            if number == last:
                warn(f'WAL file "{name[:24]}" is there more than once')
                continue
            missing += number - last - 1 if found else 0
            found, first, last, last_name = found + 1, first or name[:24], number, name[:24]
        if found:
            print(f"  timeline {int(timeline, 16)}: WAL {first} to {last_name}, {found} segments, {missing} missing")
        for name in partial:
            print(f"  timeline {int(timeline, 16)}: {name}")
    for name in repository.names(f"{below}/history"):
        print(f"  {name}")


def segments(repository, directory):
    for log in repository.names(directory):
        for name in repository.names(f"{directory}/{log}"):
            if re.fullmatch(rf"{SEGMENT}(\.partial-{TAG}|-{TAG})?", name) and name[8:16] == log:
                yield name
            else:
                warn(f'"{directory}/{log}/{name}" does not belong in a repository')


def cat(repository, options):
    name = options.object
    if re.match(r"kedge\.json$|feature/|key/", name):
        if not all(COMPONENT.fullmatch(part) for part in name.split("/")):
            raise Failure("usage", f'"{clean(name)}" is not the name of an object')
        sys.stdout.buffer.write(repository.plain_bytes(name))
        return
    with repository.sealed(name) as sealed:
        for kind, raw in sealed.frames():
            if (kind == FACTS) if options.facts else (kind == DATA):
                sys.stdout.buffer.write(raw)
    sys.stdout.flush()


def fetch_wal(repository, options):
    """One WAL file; a Failure "absent" only when it is certain that there is none and none that follows it."""
    name, places = options.file, []
    match = re.fullmatch(rf"({SEGMENT})(\.partial)?|[0-9A-F]{{8}}\.history|{SEGMENT}\.[0-9A-F]{{8}}\.backup", name)
    if not match:
        raise Failure("usage", f'"{clean(name)}" is not the name of a WAL file')
    systems = [options.system] if options.system else repository.registrations
    if not set(systems) <= set(repository.registrations):
        raise Failure("usage", f'cluster "{repository.cluster}" has no system "{clean(options.system)}"')
    for system in systems:
        directory = f"wal/{system}/" + (f"{name[:8]}/{name[8:16]}" if match[1] else "history")
        for found in repository.names(f"{repository.cluster}/{directory}"):
            if re.fullmatch(re.escape(name) + (f"-{TAG}" if match[2] else f"(-{TAG})?"), found):
                places.append((system, f"{directory}/{found}"))
    if not places:
        later = match[1] and not match[2] and any(
            other[:24] > name
            for system in systems
            for other in segments(repository, f"{repository.cluster}/wal/{system}/{name[:8]}")
        )
        if later:
            raise Failure("wal-gap", f'WAL file "{name}" is missing, though later ones of its timeline are there')
        raise Failure("absent", f'there is no WAL file "{name}"')
    if len(places) > 1:
        raise Failure("archive-conflict", f'there is more than one WAL file "{name}": {", ".join(p for _, p in places)}',
                      "Give --system if they are of different systems; look at each with cat otherwise.")
    write_wal(repository, places[0][0], places[0][1], name, options.target)


def write_wal(repository, system, place, name, target):
    temporary = f"{target}.kedge-tmp-{os.getpid()}"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(file, "wb") as output, repository.sealed(place) as sealed:
            hasher, length, facts = xxh3.new(int.from_bytes(repository.cluster_id[8:], "big")), 0, {}
            for kind, raw in sealed.frames():
                if kind == FACTS:
                    facts = parse_json(raw, sealed.what, "wal-facts")
                    continue
                hasher.update(raw)
                length += len(raw)
                output.write(raw)
            tag, named = hasher.digest().hex(), re.search(rf"-({TAG})$", place)
            if (facts.get("file"), facts.get("length"), facts.get("tag")) != (name, length, tag):
                raise damage(sealed.what, "its facts do not describe its contents")
            if named and named[1] != tag:
                raise damage(sealed.what, "its contents are not those that its name says")
            if len(name) == 24 and length != repository.registrations[system]["walSegmentSize"]:
                raise damage(sealed.what, "it does not have the size of a segment")
            output.flush()
            os.fsync(output.fileno())
        os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def restore(repository, options):
    record = repository.commit_record(options.label)
    packs = Packs(repository)
    try:
        manifest = Manifest(repository, record, packs)
        links = manifest.check()
        spaces, mode = plan_tablespaces(record, links, options), data_directory_mode(record, options)
        target = os.fsencode(os.path.abspath(options.target))
        for directory in [target, *spaces.values()]:
            require_empty(directory)
        for directory in [target, *spaces.values()]:
            os.makedirs(directory, 0o700, exist_ok=True)
        Restore(manifest, packs, target, spaces, options.extra, mode).run()
    finally:
        packs.close()


def parse(arguments):
    parser = argparse.ArgumentParser(prog="reader.py", description="Reads a Kedge repository without Kedge.")
    parser.add_argument("--repository", required=True, metavar="DIR")
    parser.add_argument("--cluster", required=True, metavar="NAME")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--key-file", metavar="FILE")
    secret.add_argument("--passphrase-file", metavar="FILE", help="without a secret, only plain objects are accepted")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="backups and WAL")
    command.set_defaults(run=list_repository)
    command = commands.add_parser("cat", help="one object, opened")
    command.add_argument("object", metavar="OBJECT", help="its name below the cluster")
    command.add_argument("--facts", action="store_true", help="the facts of a WAL file instead of its bytes")
    command.set_defaults(run=cat)
    command = commands.add_parser("restore", help="write a backup's data directory")
    command.add_argument("label", metavar="LABEL")
    command.add_argument("--target", required=True, metavar="DIR", help="absent or empty")
    command.add_argument("--tablespace", action="append", default=[], metavar="OID=DIR")
    command.add_argument("--extra", metavar="DIR", help="also write configuration files from elsewhere, below DIR")
    command.set_defaults(run=restore)
    command = commands.add_parser("wal", help="fetch one WAL file; usable as restore_command")
    command.add_argument("file", metavar="FILE")
    command.add_argument("target", metavar="TARGET")
    command.add_argument("--system", metavar="IDENTIFIER")
    command.set_defaults(run=fetch_wal)
    return parser.parse_args(arguments)


def main(arguments):
    """The exit status: 0, 1 failed, 2 usage, 3 damage. PostgreSQL takes 1 to 125 from a restore_command for the end of
    the WAL, so `wal` says 1 only if there is no such file, and 126 for all else."""
    run, status, absent = None, 1, False
    try:
        options = parse(arguments)
        run = options.run
        repository = Repository(options.repository, options.cluster, read_secret(options))
        return run(repository, options) or 0
    except SystemExit as end:
        return 126 if end.code and "wal" in arguments else end.code
    except Failure as problem:
        print(f"reader: error: {problem}", file=sys.stderr)
        if problem.hint:
            print(f"hint: {problem.hint}", file=sys.stderr)
        print(f"code: {problem.code}", file=sys.stderr)
        status = {"damaged": 3, "unsafe-path": 3, "usage": 2, "absent": 1}.get(problem.code, 1)
        absent = problem.code == "absent"
    except Exception as problem:
        print(f"reader: error: {type(problem).__name__}: {clean(problem)}", file=sys.stderr)
    return 126 if run is fetch_wal and not absent else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
