"""Writes repositories in Kedge's format, for tests only: sound ones, and any fault that a test asks for.

Written from FORMAT.md, and shares no code with the reader but the hash function, so that a misreading of that page
shows as a disagreement. Nothing here is durable or quick. Every builder takes overrides, so that a fault sits in a
repository that is otherwise authentic: made by somebody who holds the keys.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import struct
import sys
import zlib

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from reading.xxh3 import xxh3_128  # noqa: E402

REGION = 1 << 20
DATA, TABLE, END, FACTS = 1, 2, 3, 4
FILE, DIRECTORY, LINK, EXTRA = 1, 2, 3, 4
CODECS = {"none": 0, "zstd": 1, "lz4": 2, "zlib": 3}
KINDS = {"registration": 1, "wal": 2, "pack": 3, "manifest": 4, "commit-record": 5, "intent": 6,
         "condemned": 7, "proof": 8, "pin": 9, "lease": 10, "gap": 11}
CREATED_BY = "kedge-test-writer 0"
MOMENT = "2026-11-21T02:00:00Z"


# Primitives.


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def svarint(value):
    return varint(value * 2 if value >= 0 else -value * 2 - 1)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def hkdf(ikm, salt, info, length=32):
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length, salt, info).derive(ikm)


def aes_gcm(key, nonce, data, additional):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).encrypt(nonce, data, additional)


def compress(codec, raw):
    if codec == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=1).compress(raw)
    if codec == "lz4":
        import lz4.block

        return lz4.block.compress(raw, store_size=False)
    return zlib.compress(raw, 1) if codec == "zlib" else raw


def json_bytes(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


# Keys.


@dataclasses.dataclass
class DataKey:
    id: bytes
    secret: bytes
    sequence: int = 1


def key_slot(repository_id, key, secret, salt=None, n=1 << 15, bind=None, **overrides):
    """A slot for a key file's 32 bytes (bytes) or a passphrase (str). `bind` changes it once it is wrapped."""
    salt, nonce, slot = salt or os.urandom(32), os.urandom(12), os.urandom(8).hex()
    derivation = {"name": "hkdf-sha-256", "salt": salt.hex()}
    if isinstance(secret, str):
        derivation = {"name": "scrypt", "salt": salt.hex(), "n": n, "r": 8, "p": 1}
        wrapping = hashlib.scrypt(secret.encode(), salt=salt, n=n, r=8, p=1, maxmem=1 << 30, dklen=32)
    else:
        wrapping = hkdf(secret, salt, b"kedge-key-slot")
    value = {"kedge": "key-slot", "format": "0-draft", "repository": repository_id.hex(), "key": key.id.hex()}
    value |= {"sequence": key.sequence, "slot": slot, "label": "main", "createdAt": MOMENT, "derivation": derivation}
    value |= {"cipher": "aes-256-gcm", "nonce": nonce.hex()} | overrides
    bound = [value["repository"], value["key"], value["sequence"], value["slot"], value["label"], value["createdAt"]]
    bound += [derivation["name"], derivation["salt"]] + [derivation[p] for p in "nrp" if p in derivation]
    additional = "\n".join(["kedge-key-slot", *map(str, bound)]).encode()
    value["wrapped"] = aes_gcm(wrapping, nonce, key.secret, additional).hex()
    return value | (bind or {})


# Sealed objects.


@dataclasses.dataclass
class Frame:
    """A frame, and what to write into its header or payload instead of the truth."""

    type: int
    raw: bytes
    number: int = None  # as written into the header; the cipher uses it too
    raw_length: int = None
    stored_length: int = None
    payload: bytes = None  # before encryption
    zeros: bytes = bytes(3)


def seal(kind, scope, name, frames, key=None, codec="zstd", frame_size=REGION, fields=None, header=None, end=None,
         forge=None):
    """A sealed object's bytes. `header` changes the header's bytes before its checksum, `forge` after; `end` overrides
    numbers of the end frame by name."""
    salt = os.urandom(32)
    fields = [(1, 0, CREATED_BY.encode())] if fields is None else fields
    tail = b"".join(struct.pack("<HHI", tag, flags, len(data)) + data for tag, flags, data in fields)
    length = 88 + len(tail) + 4
    start = bytearray(b"\x89KEDGE\r\n")
    start += struct.pack("<HBBB3xII", 0, kind, CODECS[codec], 1 if key else 0, length, frame_size)
    start += key.id if key else bytes(16)
    start += salt
    start += hkdf(key.secret, salt, b"kedge-check" + key.id, 16) if key else bytes(16)
    start += tail
    if header:
        header(start)
    head = bytes(start) + struct.pack("<I", crc32c(bytes(start)))
    if forge:
        head = forge(head)
    binding = b"kedge-object" + hashlib.sha256(head).digest() + scope + name.encode()
    out, table = bytearray(head), 0
    for number, frame in enumerate(frames):
        if frame.type == TABLE:
            table = table or len(out)
        out += seal_frame(frame, number, binding, key, salt, codec)
    data = [len(frame.raw) for frame in frames if frame.type == DATA]
    numbers = {"frames": len(frames), "data": len(data), "raw": sum(data), "table": table, "length": len(out) + 64}
    numbers |= end or {}
    last = Frame(END, struct.pack("<IIQQQ", *numbers.values()))
    return bytes(out + seal_frame(last, numbers["frames"], binding, key, salt, "none"))


def seal_frame(frame, number, binding, key, salt, codec):
    number = number if frame.number is None else frame.number
    payload = frame.payload
    if payload is None:
        payload = compress(codec, frame.raw)
        if len(payload) >= len(frame.raw):
            payload = frame.raw
    length = len(frame.raw) if frame.raw_length is None else frame.raw_length
    additional = struct.pack("<BII", frame.type, number, length)
    if key:
        sealed = aes_gcm(hkdf(key.secret, salt, binding), bytes(8) + struct.pack(">I", number), payload, additional)
    else:
        sealed = payload + xxh3_128(hashlib.sha256(binding).digest() + additional + payload)
    stored = len(payload) if frame.stored_length is None else frame.stored_length
    return struct.pack("<IIIB", stored, length, number, frame.type) + frame.zeros + sealed


# Packs.


class PackBuilder:
    """Raw bytes in, (frame, offset) of them out; a frame closes when it is full."""

    def __init__(self, frame_size=REGION):
        self.id, self.frames, self._frame_size, self._sources = os.urandom(16), [], frame_size, []

    def add(self, data, path=None, file_offset=0):
        """Where the run of the stream begins that holds `data`; sources are recorded for files."""
        place = None
        while True:
            if not self.frames or len(self.frames[-1]) == self._frame_size:
                self.frames.append(bytearray())
                self._sources.append([])
            place = place or (len(self.frames) - 1, len(self.frames[-1]))
            piece = data[: self._frame_size - len(self.frames[-1])]
            self.frames[-1] += piece
            if path is not None and piece:
                self._sources[-1].append((path, file_offset, piece))
            data, file_offset = data[len(piece) :], file_offset + len(piece)
            if not data:
                return place

    def next_frame(self):
        """What follows begins a new frame: frames of files and of manifest parts are not mixed."""
        self.frames.append(bytearray())
        self._sources.append([])

    def table(self, stored):
        out, before = b"\x01" + varint(len(self.frames)), None
        for raw, sources, length in zip(self.frames, self._sources, stored):
            out += varint(length) + varint(len(raw)) + varint(len(sources))
            for path, offset, data in sources:
                out += (b"\0" if path == before else varint(len(path)) + path) + varint(offset) + varint(len(data))
                out += xxh3_128(data)
                before = path
        return out

    def seal(self, scope, key, codec, table=None, data_frames=None, **overrides):
        frames = data_frames or [Frame(DATA, bytes(raw)) for raw in self.frames if raw]
        if not data_frames:
            kept = [i for i, raw in enumerate(self.frames) if raw]
            self.frames, self._sources = [self.frames[i] for i in kept], [self._sources[i] for i in kept]
        name = f"pack/{self.id.hex()[:2]}/{self.id.hex()}"
        stored = [min(len(compress(codec, frame.raw)), len(frame.raw)) for frame in frames]
        raw = table(self.table(stored)) if table else self.table(stored)
        frames = frames + [Frame(TABLE, raw[i : i + REGION]) for i in range(0, len(raw), REGION)]
        return name, seal(KINDS["pack"], scope, name, frames, key, codec, **overrides)


# Manifest entries.


@dataclasses.dataclass
class Entry:
    """An entry of a manifest. `extents`: (length, None) or (length, pack index, frame, offset), once data is packed."""

    path: bytes
    type: int = FILE
    data: bytes = b""
    mode: int = 0o600
    mtime: int = 1_795_000_000_123_456_789
    target: bytes = b""
    identity: tuple = None
    unchecked: set = dataclasses.field(default_factory=set)  # regions without a checksum
    size: int = None
    checksums: list = None
    flags: int = 0
    extents: list = None

    def encode(self, before):
        shared = len(os.path.commonprefix([before, self.path]))
        out = varint(shared) + varint(len(self.path) - shared) + self.path[shared:]
        out += bytes([self.type]) + varint(self.mode) + svarint(self.mtime)
        if self.type == LINK:
            return out + varint(len(self.target)) + self.target
        return out + self.encode_file() if self.type in (FILE, EXTRA) else out

    def encode_file(self):
        size = len(self.data) if self.size is None else self.size
        checksums = self.checksums
        if checksums is None:
            regions = range(0, len(self.data), REGION)
            checksums = [xxh3_128(self.data[i : i + REGION]) for i in regions]
            checksums = [None if i in self.unchecked else checksum for i, checksum in enumerate(checksums)]
        complete = all(checksum is not None for checksum in checksums)
        out = varint(size) + bytes([self.flags | (1 if self.identity else 0) | (2 if complete else 0)])
        if self.identity:
            out += varint(self.identity[0]) + svarint(self.identity[1])
        if not complete:
            bits = sum(1 << i for i, checksum in enumerate(checksums) if checksum is not None)
            out += bits.to_bytes((len(checksums) + 7) // 8, "little")
        out += b"".join(checksum for checksum in checksums if checksum is not None)
        out += varint(len(self.extents))
        for length, *place in self.extents:
            place = [0] if place == [None] else [place[0] + 1, *place[1:]]
            out += varint(length) + b"".join(map(varint, place))
        return out


def segment_facts(file, segment_size):
    """Made-up facts of a segment, with every member that there can be."""
    start = int(file[8:16], 16) << 32 | int(file[16:24], 16) * segment_size

    def lsn(offset):
        return f"{start + offset >> 32:X}/{start + offset & 0xFFFFFFFF:X}"

    end = {"lsn": lsn(400), "time": MOMENT, "xid": 735}
    facts = {"format": 1, "timeline": int(file[:8], 16), "partial": file.endswith(".partial"), "startLSN": lsn(0),
             "pageTimelines": [1, 1], "records": 7, "firstRecordLSN": lsn(40), "lastRecordLSN": lsn(800)}
    facts |= {"endLSN": lsn(1000), "continued": {"remaining": 3, "bytes": "010203"}, "overwritesPrevious": True,
              "unfinished": {"lsn": lsn(1000), "length": 99, "bytes": "00ff"}, "remaining": 97,
              "endsWithSwitch": True, "walkEnded": {"lsn": lsn(900), "reason": "the CRC of the record does not fit"}}
    facts |= {"commits": 2, "aborts": 1, "firstCommit": end, "lastCommit": end, "firstTransactionEnd": end,
              "lastTransactionEnd": end, "earliestTime": MOMENT, "latestTime": MOMENT,
              "endedTransactions": {"count": 3, "oldest": 735, "newest": 738, "runs": "00010100"}}
    facts |= {"restorePoints": [{"lsn": lsn(600), "time": MOMENT, "name": {"hex": "ff"}}], "restorePointsOmitted": 1,
              "tablespaces": [{"lsn": lsn(700), "oid": 16400, "path": "/srv/new"}], "tablespacesOmitted": 1}
    return facts | {"checkpoints": 1, "minimalWAL": True,
                    "lastCheckpoint": {"lsn": lsn(800), "redo": lsn(40), "timeline": 1, "shutdown": False,
                                       "time": MOMENT},
                    "lastEndOfRecovery": {"lsn": lsn(40), "time": MOMENT, "timeline": 2, "previousTimeline": 1}}


def path_key(path):
    return path.replace(b"/", b"\0")


# Repositories.


class Writer:
    """One repository with one cluster."""

    def __init__(self, root, encrypted=True, codec="zstd", key_file=True, passphrase=None, cluster="main"):
        self.root, self.cluster, self.codec = str(root), cluster, codec
        self.repository_id, self.cluster_id = os.urandom(16), os.urandom(16)
        self.system, self.segment_size = "7301234567890123456", 1 << 20
        self.secret, self.passphrase = os.urandom(32), passphrase
        self.key = DataKey(os.urandom(16), os.urandom(32)) if encrypted else None
        self.slots = []
        if encrypted:
            secrets = ([self.secret] if key_file else []) + ([passphrase] if passphrase else [])
            for secret in secrets:
                self.put_slot(key_slot(self.repository_id, self.key, secret))
        self.put("kedge.json", json_bytes({"kedge": "repository", "format": "0-draft", "id": self.repository_id.hex(),
                                           "createdAt": MOMENT, "createdBy": CREATED_BY}))
        self.put_registration()

    def path(self, name):
        return os.path.join(self.root, *name.split("/"))

    def put(self, name, data):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # never in place: copies of a repository share files
        with open(path, "xb") as file:
            file.write(data)

    def get(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def put_slot(self, slot):
        self.slots.append(slot)
        self.put(f"key/{slot['key']}/{slot['slot']}", json_bytes(slot))

    def seal(self, kind, name, frames, /, **overrides):
        """Puts a sealed object; its name below the cluster is what it is bound to unless overridden."""
        scope = self.repository_id if kind == "registration" else self.cluster_id
        options = {"key": self.key, "codec": self.codec} | overrides
        scope, bound = options.pop("scope", scope), options.pop("name", name)
        number = options.pop("kind", KINDS[kind])
        self.put(f"{self.cluster}/{name}", seal(number, scope, bound, frames, **options))

    def put_record(self, kind, name, record, **overrides):
        self.seal(kind, name, [Frame(DATA, record if isinstance(record, bytes) else json_bytes(record))], **overrides)

    def registration(self):
        return {"kedge": "registration", "clusterID": self.cluster_id.hex(), "name": self.cluster,
                "systemIdentifier": self.system, "postgresVersion": 15, "catalogVersion": 202209061,
                "walSegmentSize": self.segment_size, "blockSize": 8192, "walBlockSize": 8192,
                "relationSegmentBlocks": 131072, "createdAt": MOMENT, "createdBy": CREATED_BY}

    def put_registration(self, system=None, **changes):
        overrides = changes.pop("overrides", {})
        self.put_record("registration", f"system/{system or self.system}", self.registration() | changes, **overrides)

    # WAL.

    def tag(self, data):
        return xxh3_128(data, int.from_bytes(self.cluster_id[8:], "big")).hex()

    def wal_name(self, file, tag=None):
        if file.endswith((".history", ".backup")):
            return f"wal/{self.system}/history/{file}"
        return f"wal/{self.system}/{file[:8]}/{file[8:16]}/{file}" + (f"-{tag}" if tag else "")

    def put_wal(self, file, data, tag_in_name=False, facts=None, frames=None, **overrides):
        value = {"kedge": "wal-facts", "file": file, "length": len(data), "tag": self.tag(data), "archivedAt": MOMENT,
                 "hostName": "db1"}
        if len(file) == 24 or file.endswith(".partial"):
            value["segment"] = segment_facts(file, self.segment_size)
        value |= facts or {}
        pieces = [Frame(DATA, data[i : i + 300_000]) for i in range(0, len(data), 300_000)]
        frames = frames(value, pieces) if frames else [Frame(FACTS, json_bytes(value)), *pieces]
        name = self.wal_name(file, self.tag(data) if tag_in_name or file.endswith(".partial") else None)
        self.seal("wal", name, frames, **overrides)
        return name

    # Backups.

    def put_backup(self, label, entries, tablespaces=(), parts_of=4, edit_entries=None, edit_part=None, edit_root=None,
                   edit_record=None, edit_manifest=None, pack_overrides=None, extra_slots=()):
        """A backup of these entries. Files go to two packs in turn, parts to a third. Each "edit" gets what was made
        and returns (or changes) it before it is written."""
        packs = [PackBuilder(), PackBuilder(frame_size=200_000), PackBuilder()]
        live = dict.fromkeys(range(3), 0)
        entries = sorted(entries, key=lambda entry: path_key(entry.path))
        for number, entry in enumerate(entry for entry in entries if entry.type in (FILE, EXTRA)):
            if entry.extents is None:
                entry.extents = list(self._pack(entry, packs, number, live))
        entries = edit_entries(entries) if edit_entries else entries
        parts = [entries[i : i + parts_of] for i in range(0, len(entries), parts_of)]
        places = [self._part(part, packs, live, edit_part) for part in parts]
        for pack in packs:
            name, data = pack.seal(self.cluster_id, self.key, self.codec, **(pack_overrides or {}))
            self.put(f"{self.cluster}/{name}", data)
        self.packs = packs
        files = [entry for entry in entries if entry.type in (FILE, EXTRA)]
        size = sum(len(entry.data) if entry.size is None else entry.size for entry in files)
        listed = sorted(({"id": pack.id.hex(), "liveBytes": live[i]} for i, pack in enumerate(packs) if live[i]),
                        key=lambda pack: pack["id"])
        root = {"kedge": "manifest", "label": label, "regionSize": REGION, "checksum": "xxh3-128", "files": len(files),
                "directories": sum(entry.type == DIRECTORY for entry in entries),
                "links": sum(entry.type == LINK for entry in entries), "bytes": size, "parts": places, "packs": listed}
        root = (edit_root(root) or root) if edit_root else root
        name = f"backup/{label}/manifest"
        self.put_record("manifest", name, root, **(edit_manifest or {}))
        stored = self.get(f"{self.cluster}/{name}")
        record = self.commit_record(label, root, stored, tablespaces, extra_slots)
        record = (edit_record(record) or record) if edit_record else record
        self.put_record("commit-record", f"catalog/backup/{label}", record)
        return record

    def _pack(self, entry, packs, number, live):
        """Extents of a file: its all-zero 8 KiB blocks are not stored."""
        data, at = entry.data, 0
        while at < len(data):
            zero = not any(data[at : at + 8192])
            end = at + 8192
            while end < len(data) and (not any(data[end : end + 8192])) == zero:
                end += 8192
            end = min(end, len(data))
            if zero:
                yield (end - at, None)
            else:
                pack = number % 2
                yield (end - at, pack, *packs[pack].add(data[at:end], entry.path, at))
                live[pack] += end - at
            at = end

    def _part(self, entries, packs, live, edit):
        raw = b"\x01" + varint(len(packs)) + b"".join(pack.id for pack in packs) + varint(len(entries))
        before = b""
        for entry in entries:
            raw += entry.encode(before)
            before = entry.path
        raw = (edit(raw) or raw) if edit else raw
        frame, offset = packs[2].add(raw)
        live[2] += len(raw)
        return {"first": entries[0].path.hex(), "entries": len(entries), "pack": packs[2].id.hex(), "frame": frame,
                "offset": offset, "length": len(raw), "checksum": xxh3_128(raw).hex()}

    def commit_record(self, label, root, manifest, tablespaces, extra_slots):
        return {"kedge": "commit-record", "label": label, "type": label.split("-")[1], "parent": None,
                "clusterName": self.cluster, "systemIdentifier": self.system, "postgresVersion": 15,
                "serverVersion": "15.14 (Debian 15.14-0+deb12u1)", "timeline": 1, "startLSN": "0/2000028",
                "stopLSN": "0/2000138", "checkpointLSN": "0/2000060", "startTime": MOMENT,
                "stopTime": "2026-11-21T02:00:01.500000Z", "walFrom": "000000010000000000000020",
                "walTo": "000000010000000000000020", "history": [], "snapshot": "735:735:",
                "afterStopTime": "2026-11-21T02:00:02Z", "afterStopLSN": "0/3000000", "fromStandby": False,
                "dataChecksums": True, "blockSize": 8192, "walSegmentSize": self.segment_size,
                "relationSegmentBlocks": 131072, "tablespaces": list(tablespaces),
                "dataDirectory": "/var/lib/postgresql/15/main", "dataDirectoryMode": 0o750,
                "walDirectory": "/srv/wal", "configurationFiles": [],
                "databaseBytes": root.get("bytes"), "storedBytes": 1, "deltaBytes": root.get("bytes"),
                "files": root.get("files"), "packs": root.get("packs"),
                "manifest": {"length": len(manifest), "checksum": xxh3_128(manifest).hex()}, "damagedPages": [],
                "damagedPageCount": 0, "walSuspect": [], "fallbacks": [], "keySlots": self.slots + list(extra_slots),
                "hostName": "db1", "createdBy": CREATED_BY, "durations": {"copy": 1500}}
