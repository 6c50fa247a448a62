"""Repositories that must be refused: a table of faults, each in an otherwise sound repository, with the expected error.

    python3 scenarios.py list
        prints the faults
    python3 scenarios.py write [--plain] [--only NAME] DIR
        writes a repository for each, DIR/NAME, with its key file DIR/NAME.key, and DIR/index.json; "sound" has no fault;
        --plain is cipher none

Every repository holds cluster "main", backup LABEL and the WAL files of `sample`. A fault in what is authenticated is
written with the right key, as an attacker who holds it could: what a reader refuses must not depend on the cipher.
"""

import argparse
import copy
import functools
import json
import os
import random
import shutil
import struct
import sys
import tempfile
import zlib

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from testing.writer import (  # noqa: E402
    DATA, DIRECTORY, EXTRA, FACTS, LINK, REGION, TABLE, DataKey, Entry, Frame, PackBuilder, Writer, json_bytes,
    key_slot, varint,
)

LABEL = "20261121T020000Z-full-7k3q"
OTHER_LABEL = "20261122T020000Z-full-aaaa"
SEGMENT = "000000010000000000000020"
TABLESPACES = [{"oid": 16400, "path": "/srv/fast disk", "inPlace": False},
               {"oid": 16500, "path": "pg_tblspc/16500", "inPlace": True}]
SCENARIOS = {}
PASSPHRASE = "passphrase"


@functools.cache
def some_bytes(count, seed):
    """Bytes that compress a little: text and noise."""
    source = random.Random(seed)
    return b"".join(b"%032x and the like " % source.getrandbits(128) for _ in range(count // 46 + 1))[:count]


def entries():
    """A small data directory with every kind of thing that one can hold."""
    relation = some_bytes(REGION + 300_000, 1) + bytes(2 * REGION) + some_bytes(70_001, 2)
    return [
        Entry(b"PG_VERSION", data=b"15\n"),
        Entry(b"backup_label", data=b"START WAL LOCATION: 0/2000028 (file 000000010000000000000020)\n"),
        Entry(b"base", DIRECTORY, mode=0o700),
        Entry(b"base-not", data=b"sorts after what lies below base/"),
        Entry(b"base/1", DIRECTORY, mode=0o750, mtime=-1),
        Entry(b"base/1/1259", data=relation, unchecked={1}, identity=(4711, -5)),
        Entry(b"base/1/1259_fsm", data=bytes(24576)),
        Entry(b"base/1/1260", data=b"", mode=0o640, mtime=1_000_000_007),
        Entry(b"base/1/1261", data=some_bytes(REGION, 3)),
        Entry("base/1/grüße".encode(), data=b"a name in UTF-8"),
        Entry(b"base/1/\xff\n\x01 odd", data=b"a name with any byte", mode=0o4755),
        Entry(b"global", DIRECTORY, mode=0o500, mtime=1_234_567_891_234_567_891),
        Entry(b"global/pg_control", data=some_bytes(8192, 4)),
        Entry(b"pg_tblspc", DIRECTORY),
        Entry(b"pg_tblspc/16400", LINK, target=b"/srv/fast disk", mode=0o777),
        Entry(b"pg_tblspc/16400/PG_15_202209061", DIRECTORY),
        Entry(b"pg_tblspc/16400/PG_15_202209061/5", DIRECTORY),
        Entry(b"pg_tblspc/16400/PG_15_202209061/5/16401", data=some_bytes(100_000, 5)),
        Entry(b"pg_tblspc/16500", DIRECTORY),
        Entry(b"pg_tblspc/16500/PG_15_202209061", DIRECTORY),
        Entry(b"pg_wal", DIRECTORY),
        Entry(b"pg_wal/archive_status", DIRECTORY),
        Entry(b"/etc/postgresql/15/main/pg_hba.conf", EXTRA, data=b"local all all peer\n", mode=0o640),
    ]


def sample(writer):
    """The sound repository that every fault is put into."""
    backup(writer)
    put_segment(writer)
    writer.put_wal("000000010000000000000022", some_bytes(writer.segment_size, 7), tag_in_name=True)
    writer.put_wal("000000010000000000000023.partial", some_bytes(writer.segment_size, 8))
    writer.put_wal("00000002.history", b"1\t0/2300000\tno recovery target specified\n")
    writer.put_wal(f"{SEGMENT}.00000028.backup", b"START WAL LOCATION: 0/2000028\n")


def put_segment(writer, **options):
    return writer.put_wal(SEGMENT, some_bytes(writer.segment_size, 6), **options)


def backup(writer, **options):
    return writer.put_backup(options.pop("label", LABEL), options.pop("entries", None) or entries(),
                             options.pop("tablespaces", TABLESPACES), **options)


# What reading all of a backup cannot tell, but only a restore: it compares entries with each other and with the record.
ONLY_A_RESTORE_CAN_TELL = {
    "commit-record-with-wrong-system", "commit-record-with-wrong-tablespace-missing", "entry-with-no-directory",
    "entry-with-below-a-file", "entry-with-below-a-link", "entry-with-below-a-link-like-a-tablespace",
    "entry-with-link-elsewhere", "entry-with-pg-wal-is-a-link", "entry-with-pg-wal-is-a-file",
    "entry-with-tablespace-map", "entry-with-tablespace-unknown", "entry-with-no-control-file",
    "entry-with-no-backup-label", "entry-with-checksum",
}


def scenario(code, text, command="restore", encrypted=None, codec="zstd"):
    """Registers a function that puts a fault into a sample; `command` must then fail with this code and text."""

    def register(function):
        SCENARIOS[function.__name__.replace("_", "-")] = (function, code, text, command, encrypted, codec)
        return function

    return register


def apply(function, value, writer):
    function(writer, value)


def variants(*rows):
    """Registers one scenario for each row (name, code, text, value). The function gets the value; its documentation is
    the command that must fail."""

    def register(function):
        for name, code, text, value in rows:
            fault = functools.partial(apply, function, value)
            whole_name = f"{function.__name__}-{name}".replace("_", "-")
            SCENARIOS[whole_name] = (fault, code, text, function.__doc__, None, "zstd")
        return function

    return register


def pack_file(writer, number=0):
    pack_id = writer.packs[number].id.hex()
    return f"main/pack/{pack_id[:2]}/{pack_id}"


def change(writer, name, edit):
    data = bytearray(writer.get(name))
    writer.put(name, bytes(edit(data) or data))


def flip(at):
    def edit(data):
        data[at] ^= 1

    return edit


# Damage to stored bytes.


@variants(
    ("magic", "damaged", "not a sealed object", flip(0)),
    ("header", "damaged", "its header does not have the checksum", flip(30)),
    ("frame-number", "damaged", "frame 0 is not where", None),
    ("payload", "damaged", "frame 0 is not what was written", flip(2000)),
    ("end", "damaged", "is not what was written", flip(-1)),
    ("cut-by-one", "damaged", "", lambda data: data[:-1]),
    ("cut-in-half", "damaged", "", lambda data: data[: len(data) // 2]),
    ("cut-in-header", "damaged", "not a sealed object", lambda data: data[:50]),
    ("cut-end-frame", "damaged", "", lambda data: data[:-64]),
    ("empty", "damaged", "not a sealed object", lambda data: b"\0"),
    ("longer", "damaged", "", lambda data: data + b"\0"),
    ("end-twice", "damaged", "", lambda data: data + data[-64:]),
)
def damaged_pack(writer, edit):
    """restore"""
    name = pack_file(writer)
    if edit is None:
        edit = flip(struct.unpack_from("<I", writer.get(name), 16)[0] + 8)
    change(writer, name, edit)


@variants(
    ("payload", "damaged", "is not what was written", flip(3000)),
    ("cut", "damaged", "", lambda data: data[:-1]),
    ("cut-end-frame", "damaged", "it is cut short", lambda data: data[:-64]),
    ("longer", "damaged", "its end does not agree", lambda data: data + b"\0"),
)
def damaged_segment(writer, edit):
    """wal"""
    change(writer, f"main/{writer.wal_name(SEGMENT)}", edit)


@scenario("damaged", "it is missing, and a backup refers to it")
def missing_pack(writer):
    os.unlink(writer.path(pack_file(writer)))


@scenario("not-found", "there is no object")
def missing_manifest(writer):
    os.unlink(writer.path(f"main/backup/{LABEL}/manifest"))


@scenario("damaged", "not a regular file", "wal")
def segment_is_a_fifo(writer):
    path = writer.path(f"main/{writer.wal_name(SEGMENT)}")
    os.unlink(path)
    os.mkfifo(path)


# Objects in the wrong place.


def swap(writer, one, two):
    first, second = writer.get(one), writer.get(two)
    writer.put(one, second)
    writer.put(two, first)


@scenario("damaged", "is not what was written")
def swapped_packs(writer):
    swap(writer, pack_file(writer, 0), pack_file(writer, 1))


@scenario("damaged", "is not what was written", "wal")
def swapped_segments(writer):
    other = "000000010000000000000021"
    writer.put_wal(other, some_bytes(writer.segment_size, 9))
    swap(writer, f"main/{writer.wal_name(SEGMENT)}", f"main/{writer.wal_name(other)}")


@scenario("damaged", "it is not the one that the commit record names")
def manifest_of_another_backup(writer):
    backup(writer, label=OTHER_LABEL)
    writer.put(f"main/backup/{LABEL}/manifest", writer.get(f"main/backup/{OTHER_LABEL}/manifest"))


@scenario("damaged", "is not what was written")
def commit_record_of_another_backup(writer):
    backup(writer, label=OTHER_LABEL)
    writer.put(f"main/catalog/backup/{LABEL}", writer.get(f"main/catalog/backup/{OTHER_LABEL}"))


@scenario("damaged", "it belongs to another backup")
def commit_record_names_another_backup(writer):
    backup(writer, edit_record=lambda record: record | {"label": OTHER_LABEL})


@scenario("damaged", "is not what was written", "wal")
def segment_of_another_cluster(writer):
    put_segment(writer, scope=os.urandom(16))


@scenario("damaged", "is not what was written", "list")
def registration_of_another_repository(writer):
    writer.put_registration(overrides={"scope": os.urandom(16)})


@scenario("damaged", "is of kind 6 where kind 5 belongs")
def commit_record_of_another_kind(writer):
    writer.put_record("commit-record", f"catalog/backup/{LABEL}", {"kedge": "commit-record"}, kind=6)


@scenario("damaged", "it belongs under another name", "list")
def registration_under_another_name(writer):
    writer.put_registration(system="1", systemIdentifier="2")


@scenario("damaged", "its registrations have different cluster ids", "list")
def registrations_of_two_clusters(writer):
    writer.put_registration(system="1", systemIdentifier="1", clusterID="0" * 32)


@scenario("damaged", "it is not encrypted, in a repository that is", "wal", encrypted=True)
def unencrypted_segment(writer):
    put_segment(writer, key=None)


@scenario("damaged", "it is not encrypted, in a repository that is", encrypted=True)
def unencrypted_commit_record(writer):
    writer.put_record("commit-record", f"catalog/backup/{LABEL}", {"kedge": "commit-record"}, key=None)


@scenario("damaged", "it is not encrypted, in a repository that is", "list", encrypted=True)
def unencrypted_registration(writer):
    writer.put_registration(overrides={"key": None})


@scenario("key-missing", "is encrypted", "wal", encrypted=False)
def encrypted_segment_in_a_plain_repository(writer):
    put_segment(writer, key=DataKey(os.urandom(16), os.urandom(32)))


@scenario("key-missing", "opens no slot of the key", "wal", encrypted=True)
def segment_with_an_unknown_key(writer):
    put_segment(writer, key=DataKey(os.urandom(16), os.urandom(32)))


@scenario("key-wrong", "is not the one that", "wal", encrypted=True)
def segment_with_another_key_of_that_id(writer):
    put_segment(writer, key=DataKey(writer.key.id, os.urandom(32)))


@scenario("damaged", "names a key but is not encrypted", "wal", encrypted=False)
def plain_segment_names_a_key(writer):
    put_segment(writer, header=set_bytes(24, b"\1"))


# Headers.


def set_bytes(at, data):
    def edit(header):
        header[at : at + len(data)] = data

    return edit


@variants(
    ("version", "format-unknown", "version 1", dict(header=set_bytes(8, b"\1\0"))),
    ("codec", "format-unknown", "codec 4", dict(header=set_bytes(11, b"\4"))),
    ("cipher", "format-unknown", "cipher 2", dict(header=set_bytes(12, b"\2"))),
    ("zeros", "format-unknown", "version 0", dict(header=set_bytes(15, b"\1"))),
    ("no-frame-size", "damaged", "frame size is impossible", dict(frame_size=0)),
    ("huge-frame-size", "damaged", "frame size is impossible", dict(frame_size=(16 << 20) + 1)),
    ("required-field", "format-unknown", "field 7 of its header is required", dict(fields=[(7, 1, b"x")])),
    ("kind", "format-unknown", "kind 12", dict(kind=12)),
    ("field-too-long", "damaged", "a field of its header is cut short",
     dict(fields=[(7, 0, b"12345")], header=set_bytes(92, struct.pack("<I", 6)))),
    ("field-cut", "damaged", "a field of its header is cut short",
     dict(fields=[(1, 0, bytes(8))], header=set_bytes(92, struct.pack("<I", 1)))),
    ("longest", "damaged", "its header has an impossible length", dict(forge=lambda h: h[:16] + b"\xff" * 4 + h[20:])),
    ("shortest", "damaged", "its header has an impossible length",
     dict(forge=lambda h: h[:16] + b"\x5b\0\0\0" + h[20:])),
)
def header(writer, options):
    """wal"""
    put_segment(writer, **options)


# Frames.


def one_frame(**changes):
    """A WAL file whose second data frame is wrong."""

    def frames(facts, pieces):
        wrong = Frame(**{"type": DATA, "raw": pieces[1].raw} | changes)
        return [Frame(FACTS, json_bytes(facts)), pieces[0], wrong, *pieces[2:]]

    return frames


def in_order(choose):
    return lambda facts, pieces: choose(Frame(FACTS, json_bytes(facts)), pieces)


@variants(
    ("longer-than-frame-size", "damaged", "frame 2 has an impossible length", one_frame(raw_length=REGION + 1)),
    ("raw-beyond-belief", "damaged", "frame 2 has an impossible length", one_frame(raw_length=0xFFFFFFFF)),
    ("stored-beyond-belief", "damaged", "frame 2 has an impossible length", one_frame(stored_length=0xFFFFFFFF)),
    ("stored-longer-than-raw", "damaged", "frame 2 has an impossible length", one_frame(raw=b"1234", payload=b"12345")),
    ("stored-longer-than-object", "damaged", "it is cut short",
     in_order(lambda f, p: [f, *p[:-1], Frame(DATA, p[-1].raw, raw_length=REGION, stored_length=REGION)])),
    ("number", "damaged", "frame 2 is not where it should be", one_frame(number=3)),
    ("zeros", "damaged", "frame 2 is not where it should be", one_frame(zeros=b"\0\0\1")),
    ("dropped", "damaged", "frame 3 is not where it should be",
     in_order(lambda f, p: [f, p[0], p[1], Frame(DATA, p[3].raw, 4)])),
    ("type", "damaged", "frame 2 is of a type that does not belong", one_frame(type=9)),
    ("table", "damaged", "frame 2 is of a type that does not belong", one_frame(type=TABLE)),
    ("facts-later", "damaged", "its facts are not in the first frame", in_order(lambda f, p: [p[0], f, *p[1:]])),
    ("facts-missing", "damaged", "its facts are not in the first frame", in_order(lambda f, p: p)),
    ("facts-twice", "damaged", "its facts are not in the first frame", in_order(lambda f, p: [f, f, *p])),
    ("does-not-decompress", "damaged", "frame 2 does not decompress", one_frame(payload=b"no frame of zstd")),
    ("decompresses-to-less", "damaged", "frame 2 does not decompress", one_frame(raw_length=REGION)),
    ("decompresses-to-more", "damaged", "frame 2 does not decompress", one_frame(raw_length=299_999)),
)
def frame(writer, frames):
    """wal"""
    put_segment(writer, frames=frames)


def codec_frames(compressed, raw_length=300_000):
    return one_frame(payload=compressed, raw_length=raw_length)


def zstd(data, **options):
    import zstandard

    return zstandard.ZstdCompressor(**options).compress(data)


def zstd_header_of(size):
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + b"\x01\0\0"


def add_codec_scenarios():
    def add(name, codec, payload):
        def function(writer):
            put_segment(writer, frames=codec_frames(payload()))

        SCENARIOS[f"codec-{name}"] = (function, "damaged", "frame 2 does not decompress", "wal", None, codec)

    data = some_bytes(300_000, 11)
    add("zstd-bytes-follow", "zstd", lambda: zstd(data) + b"\0")
    add("zstd-two-frames", "zstd", lambda: zstd(data[:100_000]) + zstd(data[100_000:]))
    add("zstd-bomb", "zstd", lambda: zstd(bytes(1 << 28)))
    add("zstd-bomb-of-unknown-size", "zstd", lambda: zstd(bytes(1 << 28), write_content_size=False))
    add("zstd-claims-an-exabyte", "zstd", lambda: zstd_header_of(1 << 60))
    add("zstd-cut", "zstd", lambda: zstd(data)[:-5])
    add("zlib-bytes-follow", "zlib", lambda: zlib.compress(data) + b"\0")
    add("zlib-bomb", "zlib", lambda: zlib.compress(bytes(1 << 27), 9))
    add("zlib-cut", "zlib", lambda: zlib.compress(data)[:-1])
    add("zlib-less", "zlib", lambda: zlib.compress(data[:-1]))
    add("lz4-less", "lz4", lambda: lz4_block(data[:-1]))
    add("lz4-more", "lz4", lambda: lz4_block(data + b"1234567890"))
    add("lz4-bytes-follow", "lz4", lambda: lz4_block(data) + b"\0")
    add("none-but-compressed", "none", lambda: zlib.compress(data))


def lz4_block(data):
    import lz4.block

    return lz4.block.compress(data, store_size=False)


add_codec_scenarios()


@variants(*[(name, "damaged", "frame 5" if name == "frames" else "its end", {name: value}) for name, value in
            [("frames", 4), ("data", 3), ("raw", 5), ("table", 92), ("length", 100)]])
def end_frame_of_segment(writer, numbers):
    """wal"""
    put_segment(writer, end=numbers)


@variants(*[(name, "damaged", "", {name: value}) for name, value in
            [("frames", 1), ("data", 0), ("raw", 5), ("table", 0), ("table-elsewhere", 93),
             ("table-beyond", 1 << 63), ("length", 100)]])
def end_frame_of_pack(writer, numbers):
    """restore"""
    backup(writer, pack_overrides={"end": {name.split("-")[0]: value for name, value in numbers.items()}})


# Tables of packs.


def big_varint(value):
    return varint(value)[:-1] + bytes([varint(value)[-1] | 0x80]) + b"\0"


@variants(
    ("format", "format-unknown", "its format is unknown", lambda raw: b"\2" + raw[1:]),
    ("count", "damaged", "another number of frames", lambda raw: b"\1\x7f" + raw[2:]),
    ("cut", "damaged", "it ends too early", lambda raw: raw[:-1]),
    ("longer", "damaged", "bytes follow its end", lambda raw: raw + b"\0"),
    ("varint-too-long", "damaged", "a number that is too long", lambda raw: raw[:1] + big_varint(raw[1]) + raw[2:]),
    ("varint-endless", "damaged", "more than ten bytes", lambda raw: raw[:1] + b"\xff" * 11),
    ("varint-of-70-bits", "damaged", "a number that is too long", lambda raw: raw[:1] + b"\xff" * 9 + b"\x7f"),
    ("empty", "damaged", "", lambda raw: b"\1\0"),
    ("lengths", "damaged", "impossible length", lambda raw: raw[:2] + varint(1 << 40) + varint(1 << 40) + raw[2:]),
    ("frame-longer", "damaged", "does not agree with the end frame",
     lambda raw: raw[:2] + varint(9) + varint(9) + b"\0" + after_frame(raw)),
    ("no-path", "damaged", "a source with an impossible path", lambda raw: raw[:2] + lengths_of(raw)[0] + b"\1\0"),
    ("sources-do-not-tile", "damaged", "its sources do not add up",
     lambda raw: raw[:2] + lengths_of(raw)[0] + b"\1\1x\0\1" + bytes(16) + after_frame(raw)),
    ("empty-source", "damaged", "a source with an impossible place",
     lambda raw: raw[:2] + lengths_of(raw)[0] + b"\2\1x\0\0" + bytes(16) + b"\1"),
    ("source-beyond-belief", "damaged", "a source with an impossible place",
     lambda raw: raw[:2] + lengths_of(raw)[0] + b"\1\1x" + varint((1 << 40) + 1) + b"\1" + bytes(16)),
)
def table_of_pack(writer, edit):
    """restore"""
    backup(writer, pack_overrides={"table": edit})


def read_varint(raw, at):
    end = at
    while raw[end] & 0x80:
        end += 1
    return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(raw[at : end + 1])), end + 1


def lengths_of(raw):
    """The bytes of the first frame's two lengths, and where they end."""
    end = read_varint(raw, read_varint(raw, 2)[1])[1]
    return raw[2:end], end


def after_frame(raw):
    """What follows the first frame in a table."""
    sources, at = read_varint(raw, lengths_of(raw)[1])
    for _ in range(sources):
        path, at = read_varint(raw, at)
        at = read_varint(raw, read_varint(raw, at + path)[1])[1] + 16
    return raw[at:]


@scenario("damaged", "is not the one that its table describes")
def table_with_wrong_places(writer):
    """The table takes a byte of stored length from one frame and gives it to the next: the sum is right."""
    original = PackBuilder.table

    def lie(self, stored):
        return original(self, [stored[0] - 1, stored[1] + 1, *stored[2:]] if len(stored) > 1 else stored)

    PackBuilder.table = lie
    try:
        backup(writer)
    finally:
        PackBuilder.table = original


# Records.


@variants(
    ("not-json", "damaged", "not valid JSON", b"{"),
    ("twice", "damaged", "a name occurs twice", b'{"kedge":"commit-record","label":"a","label":"b"}'),
    ("nan", "damaged", "NaN is no JSON", b'{"kedge":"commit-record","files":NaN}'),
    ("not-utf-8", "damaged", "not valid JSON", b'{"kedge":"commit-record","label":"\xff"}'),
    ("half-a-surrogate", "damaged", "not valid JSON", b'{"kedge":"commit-record","label":"\\ud800"}'),
    ("deep", "damaged", "not valid JSON", b"[" * 100_000),
    ("array", "damaged", "it is not a JSON object", b"[]"),
    ("of-another-kind", "damaged", "it is not a JSON object with", b'{"kedge":"intent"}'),
    ("empty", "damaged", 'its member "label" is missing', b'{"kedge":"commit-record"}'),
)
def commit_record(writer, data):
    """restore"""
    writer.put_record("commit-record", f"catalog/backup/{LABEL}", data)


@scenario("damaged", "longer than a record can be")
def commit_record_beyond_belief(writer):
    frames = [Frame(DATA, b" " * (16 << 20))] * 4 + [Frame(DATA, b" ")]
    writer.seal("commit-record", f"catalog/backup/{LABEL}", frames, codec="zlib", frame_size=16 << 20)


@variants(
    ("system", "damaged", "no registration has its system identifier", {"systemIdentifier": "1"}),
    ("packs", "damaged", "does not agree with the commit record", {"packs": []}),
    ("manifest-length", "damaged", "not the one that the commit record names",
     {"manifest": {"length": 5, "checksum": ""}}),
    ("manifest-checksum", "damaged", "not the one that the commit record names", {"manifest": "checksum"}),
    ("no-key-slots", "damaged", 'its member "keySlots" is missing', {"keySlots": None}),
    ("tablespace-missing", "unsafe-path", "a tablespace that its commit record does not have", {"tablespaces": []}),
    ("tablespace-oid", "damaged", 'its member "oid"', {"tablespaces": [{"oid": "1", "path": "/x", "inPlace": False}]}),
    ("tablespace-oid-true", "damaged", 'its member "oid"',
     {"tablespaces": [{"oid": True, "path": "/x", "inPlace": False}]}),
    ("tablespace-path", "damaged", "neither text nor hexadecimal",
     {"tablespaces": [{"oid": 16400, "path": 1, "inPlace": False}]}),
)
def commit_record_with_wrong(writer, changes):
    """restore"""

    def edit(record):
        if changes == {"manifest": "checksum"}:
            return record | {"manifest": record["manifest"] | {"checksum": "0" * 32}}
        return record | changes

    backup(writer, edit_record=edit)


# Keys and plain objects.


def replace_slots(writer, *slots):
    for slot in writer.slots:
        os.unlink(writer.path(f"key/{slot['key']}/{slot['slot']}"))
    writer.slots = []
    for slot in slots:
        writer.put_slot(slot)


@variants(
    ("label", "key-wrong", "does not open", dict(bind={"label": "other"})),
    ("sequence", "key-wrong", "does not open", dict(bind={"sequence": 2})),
    ("created-at", "key-wrong", "does not open", dict(bind={"createdAt": "2020-01-01T00:00:00Z"})),
    ("wrapped", "key-wrong", "does not open", dict(bind={"wrapped": "00" * 48})),
    ("repository", "damaged", "it belongs to another repository", dict(repository="0" * 32)),
    ("format", "format-unknown", 'its format is "1"', dict(format="1")),
    ("cipher", "format-unknown", "its derivation or cipher is unknown", dict(cipher="none")),
    ("control-characters", "damaged", "its sequence, label or time", dict(label="main\n2020")),
    ("derivation", "format-unknown", "its derivation or cipher is unknown",
     dict(bind={"derivation": {"name": "md5", "salt": "0" * 64}})),
    ("short", "damaged", 'its member "wrapped"', dict(bind={"wrapped": "00" * 47})),
)
def key_slot_with_wrong(writer, changes):
    """list"""
    if writer.key:
        replace_slots(writer, key_slot(writer.repository_id, writer.key, writer.secret, **changes))


for _name in [name for name in SCENARIOS if name.startswith("key-slot-with-wrong-")]:
    SCENARIOS[_name] = SCENARIOS[_name][:4] + (True, "zstd")


@variants(
    ("n-too-large", "damaged", "out of range (n 2097152", dict(n=1 << 21)),
    ("n-too-small", "damaged", "out of range (n 16384", dict(n=1 << 14)),
    ("n-no-power", "damaged", "out of range (n 40000", dict(n=40000)),
    ("r", "damaged", "r 16", dict(r=16)),
    ("p", "damaged", "p 2", dict(p=2)),
)
def scrypt_with_wrong(writer, changes):
    """list"""
    if writer.key:
        slot = key_slot(writer.repository_id, writer.key, PASSPHRASE)
        replace_slots(writer, slot | {"derivation": slot["derivation"] | changes})


for _name in [name for name in SCENARIOS if name.startswith("scrypt-with-wrong-")]:
    SCENARIOS[_name] = SCENARIOS[_name][:4] + (True, "zstd")


@scenario("damaged", "it belongs under another name", "list", encrypted=True)
def key_slot_under_another_name(writer):
    slot = writer.slots[0]
    replace_slots(writer)
    writer.put(f"key/{slot['key']}/{'0' * 16}", json_bytes(slot))


@variants(
    ("format", "format-unknown", 'its format is "1"', {"format": "1"}),
    ("id", "damaged", 'its member "id"', {"id": "../../etc/passwd"}),
    ("kind", "damaged", 'not a JSON object with "kedge":"repository"', {"kedge": "feature"}),
    ("size", "damaged", "longer than such an object can be", {"note": "x" * (64 << 10)}),
)
def kedge_json_with_wrong(writer, changes):
    """list"""
    writer.put("kedge.json", json_bytes(json.loads(writer.get("kedge.json")) | changes))


@scenario("feature-unknown", 'it needs the feature "time-travel"', "list")
def feature_needed_to_read(writer):
    writer.put("feature/time-travel", json_bytes({"kedge": "feature", "name": "time-travel", "neededTo": ["read"]}))


@scenario("damaged", "its WAL segment size is impossible", "list")
def registration_with_impossible_segments(writer):
    writer.put_registration(walSegmentSize=3)


# Manifests: the root.


def edit_first_part(**changes):
    def edit(root):
        root["parts"][0] |= changes

    return edit


@variants(
    ("label", "damaged", "does not agree with the commit record", lambda root: root | {"label": OTHER_LABEL}),
    ("region-size", "format-unknown", "its region size", lambda root: root | {"regionSize": 4096}),
    ("checksum", "format-unknown", "its region size or checksum", lambda root: root | {"checksum": "md5"}),
    ("packs-unsorted", "damaged", "its packs are not in order", lambda root: root | {"packs": root["packs"][::-1]}),
    ("packs-missing", "damaged", "", lambda root: root | {"packs": root["packs"][:1]}),
    ("live-bytes", "damaged", "its list of packs is not what its entries refer to",
     lambda root: root["packs"][0].update(liveBytes=1)),
    ("files", "damaged", "its number of files", lambda root: root | {"files": 0}),
    ("directories", "damaged", "its number of directories", lambda root: root | {"directories": 0}),
    ("links", "damaged", "its number of links", lambda root: root | {"links": 0}),
    ("bytes", "damaged", "its number of bytes", lambda root: root | {"bytes": 0}),
    ("part-missing", "damaged", "", lambda root: root | {"parts": root["parts"][:-1]}),
    ("parts-swapped", "damaged", "its parts are not in path order", lambda root: root | {"parts": root["parts"][::-1]}),
    ("part-twice", "damaged", "its parts are not in path order", lambda root: root | {"parts": root["parts"][:1] + root["parts"]}),
    ("part-first", "damaged", "does not begin with the path", edit_first_part(first="01")),
    ("part-entries", "damaged", "another number of entries", edit_first_part(entries=2)),
    ("part-checksum", "damaged", "does not have the checksum that the root says", edit_first_part(checksum="0" * 32)),
    ("part-pack", "damaged", "its length or its pack", edit_first_part(pack="0" * 32)),
    ("part-frame", "damaged", "refers to what", edit_first_part(frame=1 << 40)),
    ("part-offset", "damaged", "refers to what", edit_first_part(offset=1 << 30)),
    ("part-too-long", "damaged", "refers to what", edit_first_part(length=1 << 25)),
    ("part-beyond-belief", "damaged", "its length or its pack", edit_first_part(length=(64 << 20) + 1)),
    ("part-longer", "damaged", "", edit_first_part(length=5)),
)
def manifest_with_wrong(writer, edit):
    """restore"""
    backup(writer, edit_root=edit)


@variants(
    ("format", "format-unknown", "its format is unknown", lambda raw: b"\2" + raw[1:]),
    ("pack-list", "damaged", "a pack that the root does not list", lambda raw: raw[:2] + bytes(16) + raw[18:]),
    ("pack-list-beyond-belief", "damaged", "", lambda raw: raw[:1] + b"\xff" * 9 + b"\1" + raw[2:]),
    ("longer", "damaged", "bytes follow its end", lambda raw: raw + b"\0"),
    ("cut", "damaged", "it ends too early", lambda raw: raw[:-1]),
    ("varint", "damaged", "a number that is too long", lambda raw: raw[:1] + b"\x83\0" + raw[2:]),
    ("shared", "damaged", "it shares more with a path than that has", lambda raw: raw[:51] + b"\1" + raw[52:]),
)
def part_with_wrong(writer, edit):
    """restore"""
    backup(writer, edit_part=edit)


# Manifests: entries.


def with_entry(*added, at=None, without=()):
    """The sample's entries and some more; put where they belong, or at a place of one's own."""

    def edit(listed):
        listed = [entry for entry in listed if entry.path not in without]
        for entry in added:
            if entry.extents is None:
                entry.extents = [(len(entry.data), None)] if entry.data else []
        if at is not None:
            return listed[:at] + list(added) + listed[at:]
        return sorted(listed + list(added), key=lambda entry: entry.path.replace(b"/", b"\0"))

    return edit


def changed(path, **changes):
    def edit(listed):
        for entry in listed:
            if entry.path == path:
                for name, value in changes.items():
                    setattr(entry, name, value(entry) if callable(value) else value)

    return lambda listed: edit(listed) or listed


REL = b"base/1/1261"


@variants(
    ("parent", "unsafe-path", "is not a safe path", with_entry(Entry(b"../outside", data=b"x"))),
    ("parent-inside", "unsafe-path", "is not a safe path", with_entry(Entry(b"base/../../outside", data=b"x"))),
    ("parent-alone", "unsafe-path", "is not a safe path", with_entry(Entry(b"..", DIRECTORY))),
    ("absolute", "unsafe-path", "is not a safe path", with_entry(Entry(b"/tmp/outside", data=b"x"))),
    ("dot", "unsafe-path", "is not a safe path", with_entry(Entry(b"base/./x", data=b"x"))),
    ("empty-component", "unsafe-path", "is not a safe path", with_entry(Entry(b"base//x", data=b"x"))),
    ("slash-at-end", "unsafe-path", "is not a safe path", with_entry(Entry(b"base/x/", data=b"x"))),
    ("empty", "unsafe-path", "is not a safe path", with_entry(Entry(b"", data=b"x"), at=0)),
    ("zero-byte", "unsafe-path", "is not a safe path", with_entry(Entry(b"base/x\0y", data=b"x"))),
    ("extra-relative", "unsafe-path", "must be an absolute path", with_entry(Entry(b"etc", EXTRA, data=b"x"))),
    ("extra-parent", "unsafe-path", "is not a safe path", with_entry(Entry(b"/etc/../x", EXTRA, data=b"x"))),
    ("too-long", "unsafe-path", "a path of an impossible length", with_entry(Entry(b"x" * 4097, data=b"x"))),
    ("no-directory", "unsafe-path", "does not lie in a directory", with_entry(Entry(b"nowhere/x", data=b"x"))),
    ("below-a-file", "unsafe-path", "does not lie in a directory", with_entry(Entry(b"PG_VERSION/x", data=b"x"))),
    ("below-a-link", "unsafe-path", "is a link, but not that of a tablespace",
     with_entry(Entry(b"link", LINK, target=b"/tmp"), Entry(b"link/x", data=b"x"))),
    ("below-a-link-like-a-tablespace", "unsafe-path", "is a link, but not that of a tablespace",
     with_entry(Entry(b"pg_tblspc/016400", LINK, target=b"/tmp"), Entry(b"pg_tblspc/016400/x", data=b"x"))),
    ("link-elsewhere", "unsafe-path", "is a link, but not that of a tablespace",
     with_entry(Entry(b"base/link", LINK, target=b"/etc/passwd"))),
    ("no-control-file", "damaged", "it lacks global/pg_control", with_entry(without=(b"global/pg_control",))),
    ("no-backup-label", "damaged", "it lacks backup_label", with_entry(without=(b"backup_label",))),
    ("pg-wal-is-a-link", "unsafe-path", "cannot be what it is",
     with_entry(Entry(b"pg_wal", LINK, target=b"/tmp"), without=(b"pg_wal", b"pg_wal/archive_status"))),
    ("pg-wal-is-a-file", "unsafe-path", "cannot be what it is",
     with_entry(Entry(b"pg_wal", data=b"x"), without=(b"pg_wal", b"pg_wal/archive_status"))),
    ("tablespace-map", "unsafe-path", "cannot be what it is", with_entry(Entry(b"tablespace_map", data=b"x"))),
    ("twice", "damaged", "not in path order", with_entry(Entry(b"PG_VERSION", data=b"x"))),
    ("out-of-order", "damaged", "not in path order", with_entry(Entry(b"zzz", data=b"x"), at=0)),
    ("order-without-slash-rule", "damaged", "not in path order",
     lambda listed: sorted(listed, key=lambda entry: entry.path)),
    ("type", "damaged", "its type or mode is impossible", with_entry(Entry(b"x", 9))),
    ("type-zero", "damaged", "its type or mode is impossible", with_entry(Entry(b"x", 0))),
    ("mode", "damaged", "its type or mode is impossible", with_entry(Entry(b"x", DIRECTORY, mode=0o10000))),
    ("target-empty", "damaged", "its target has an impossible length", with_entry(Entry(b"x", LINK))),
    ("target-zero-byte", "damaged", "its target holds a zero byte", with_entry(Entry(b"x", LINK, target=b"a\0b"))),
    ("size-beyond-belief", "damaged", "its size or its flags",
     with_entry(Entry(b"x", size=(1 << 40) + 1, checksums=[], extents=[]))),
    ("flags", "damaged", "its size or its flags", changed(REL, flags=4)),
    ("checksum", "damaged", "does not have its checksum", changed(REL, checksums=[bytes(16)])),
    ("checksum-of-no-region", "damaged", "regions that do not exist",
     changed(b"base/1/1259", checksums=lambda entry: [bytes(16), None, None, None, bytes(16)])),
    ("extents-too-short", "damaged", "its extents do not tile it",
     changed(REL, extents=lambda entry: [(REGION - 1, *entry.extents[0][1:])])),
    ("extents-too-long", "damaged", "its extents do not tile it",
     changed(REL, extents=lambda entry: entry.extents + [(1, None)])),
    ("extents-none", "damaged", "its extents do not tile it", changed(REL, extents=[])),
    ("extent-empty", "damaged", "its extents do not tile it",
     changed(REL, extents=lambda entry: [(0, None), *entry.extents])),
    ("extent-of-no-pack", "damaged", "its extents do not tile it", changed(REL, extents=[(REGION, 3, 0, 0)])),
    ("extent-of-no-frame", "damaged", "refers to what", changed(REL, extents=[(REGION, 0, 1 << 50, 0)])),
    ("extent-of-no-offset", "damaged", "refers to what", changed(REL, extents=[(REGION, 0, 0, 1 << 50)])),
    ("extent-past-the-frame", "damaged", "refers to what", changed(REL, extents=[(REGION, 0, 0, REGION)])),
    ("extent-past-the-pack", "damaged", "refers to what",
     changed(REL, extents=lambda entry: [(REGION, 0, 1, 500_000)])),
    ("tablespace-unknown", "unsafe-path", "a tablespace that its commit record does not have",
     with_entry(Entry(b"pg_tblspc/16600", LINK, target=b"/tmp"))),
)
def entry_with(writer, edit):
    """restore"""
    backup(writer, edit_entries=edit)


# WAL files.


@variants(
    ("file", "damaged", "its facts do not describe", {"file": "000000010000000000000021"}),
    ("length", "damaged", "its facts do not describe", {"length": 1}),
    ("tag", "damaged", "its facts do not describe", {"tag": "0" * 32}),
    ("kind", "damaged", 'not a JSON object with "kedge":"wal-facts"', {"kedge": "facts"}),
)
def facts_with_wrong(writer, changes):
    """wal"""
    put_segment(writer, facts=changes)


@scenario("damaged", "it does not have the size of a segment", "wal")
def short_segment(writer):
    writer.put_wal(SEGMENT, some_bytes(writer.segment_size - 8192, 6))


@scenario("damaged", "its contents are not those that its name says", "wal")
def segment_under_the_tag_of_another(writer):
    name = put_segment(writer)
    os.unlink(writer.path(f"main/{name}"))
    facts = {"kedge": "wal-facts", "file": SEGMENT, "length": writer.segment_size,
             "tag": writer.tag(some_bytes(writer.segment_size, 6))}
    frames = [Frame(FACTS, json_bytes(facts)), Frame(DATA, some_bytes(writer.segment_size, 6))]
    writer.seal("wal", name + "-" + "0" * 32, frames)


@scenario("archive-conflict", "there is more than one WAL file", "wal")
def twin_segments(writer):
    writer.put_wal(SEGMENT, some_bytes(writer.segment_size, 10), tag_in_name=True)


@scenario("wal-gap", "is missing, though later ones of its timeline are there", "wal")
def gap_in_wal(writer):
    os.unlink(writer.path(f"main/{writer.wal_name(SEGMENT)}"))


class Samples:
    """Sound repositories, one for each cipher and codec, made once. Copies of them are what faults are put into; they
    share files with them, as a writer never changes a file in place."""

    def __init__(self):
        self._made = {}

    def copy(self, directory, encrypted, codec):
        """A writer of a copy at `directory`."""
        if (encrypted, codec) not in self._made:
            original = tempfile.TemporaryDirectory(prefix="kedge-sample.")
            writer = Writer(original.name, encrypted=encrypted, codec=codec)
            sample(writer)
            self._made[encrypted, codec] = (writer, original)
        writer = copy.copy(self._made[encrypted, codec][0])
        shutil.copytree(writer.root, directory, copy_function=os.link)
        writer.root, writer.slots = str(directory), list(writer.slots)
        return writer


def needs_passphrase(name):
    """Whether the fault lies in a slot that only a passphrase opens, and not a key file."""
    return name.startswith("scrypt-")


def write_all(directory, encrypted, wanted=None):
    """A repository for each scenario that there is for this cipher, and an index of them."""
    samples, index = Samples(), []
    os.makedirs(directory, exist_ok=True)
    rows = {"sound": (lambda writer: None, None, "", "restore", None, "zstd")} | SCENARIOS
    for name, (function, code, text, command, only, codec) in rows.items():
        if only not in (None, encrypted) or wanted not in (None, name):
            continue
        writer = samples.copy(os.path.join(directory, name), encrypted, codec)
        function(writer)
        if encrypted:
            with open(os.path.join(directory, f"{name}.key"), "w") as file:
                file.write(writer.secret.hex() + "\n")
        row = {"name": name, "code": code, "command": command, "onlyRestoring": name in ONLY_A_RESTORE_CAN_TELL}
        row["passphrase"] = PASSPHRASE if needs_passphrase(name) else None
        index.append(row)
    with open(os.path.join(directory, "index.json"), "wb") as file:
        file.write(json_bytes({"kedge": "scenarios", "label": LABEL, "segment": SEGMENT, "scenarios": index}))


def main(arguments):
    parser = argparse.ArgumentParser(description="Repositories that a reader must refuse.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the faults")
    command = commands.add_parser("write", help="write a repository for each fault, and a sound one")
    command.add_argument("--plain", action="store_true", help="cipher none")
    command.add_argument("--only", metavar="NAME")
    command.add_argument("directory", metavar="DIR")
    options = parser.parse_args(arguments)
    if options.command == "write":
        write_all(options.directory, not options.plain, options.only)
        return
    for name, (_, code, text, command, encrypted, _) in SCENARIOS.items():
        only = {None: "", True: " (sealed)", False: " (plain)"}[encrypted]
        print(f"{name}: {command}{only}: {code}: {text}")


if __name__ == "__main__":
    main(sys.argv[1:])
