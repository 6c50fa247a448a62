"""Manifests: entries as a stream, each of them checked (FORMAT.md, section 5)."""

import array
import collections
import re

from . import xxh3
from .names import ID
from .repository import read_record
from .values import Cursor, Failure, clean, damage, member, members_of, unknown

FILE, DIRECTORY, LINK, EXTRA = 1, 2, 3, 4  # types of entries
REGION = 1 << 20
CONTROL_FILE = b"global/pg_control"
MAX_PART = 64 << 20
MAX_FILE = 1 << 40
MAX_EXTENTS = 1 << 21


class Entry:
    """One entry of a manifest. `extents` can be read once, before the next entry."""

    target, size, checksums, extents = b"", 0, b"", ()

    def checksum(self, region):
        """The checksum of a region, or None."""
        if self.present is None:
            return self.checksums[16 * region : 16 * region + 16]
        if not self.present[region >> 3] >> (region & 7) & 1:
            return None
        before = self.before[region >> 3] + bin(self.present[region >> 3] & ((1 << (region & 7)) - 1)).count("1")
        return self.checksums[16 * before : 16 * before + 16]


class Manifest:
    """The manifest of a backup, read as a stream of entries, each of them checked."""

    def __init__(self, repository, record, packs):
        self.label, self._packs = record["label"], packs
        self.what = f'the manifest of backup "{self.label}"'
        name = f"backup/{self.label}/manifest"
        expected = member(record, "manifest", dict, self.what)
        with repository.sealed(name) as sealed:
            hasher = xxh3.new()
            if sealed.size == expected.get("length"):
                for offset in range(0, sealed.size, REGION):
                    hasher.update(sealed.bytes(offset, min(REGION, sealed.size - offset)))
            if hasher.digest().hex() != expected.get("checksum"):
                raise damage(sealed.what, "it is not the one that the commit record names")
            self.root = root = read_record(sealed, "manifest")
        if root.get("label") != self.label or members_of(root, "packs", self.what) != record.get("packs"):
            raise damage(self.what, "it does not agree with the commit record")
        if (root.get("regionSize"), root.get("checksum")) != (REGION, "xxh3-128"):
            raise unknown(self.what, "its region size or checksum is unknown")
        ids = [member(pack, "id", str, self.what, ID) for pack in root["packs"]]
        if ids != sorted(set(ids)):
            raise damage(self.what, "its packs are not in order")
        self._pack_ids = set(ids)
        firsts = [member(part, "first", str, self.what, r"([0-9a-f]{2})*") for part in members_of(root, "parts", self.what)]
        places = [path_place(bytes.fromhex(first)) for first in firsts]
        if any(one >= two for one, two in zip(places, places[1:])):
            raise damage(self.what, "its parts are not in path order")

    def check(self):
        """Reads all of it, so that nothing is written for a manifest that has a fault anywhere."""
        counts, live, links = collections.Counter(), collections.Counter(), set()
        needed = {b"backup_label", CONTROL_FILE}
        for part in members_of(self.root, "parts", self.what):
            live[part.get("pack")] += part["length"] if isinstance(part.get("length"), int) else 0
        for entry in self.entries():
            counts[{DIRECTORY: "directories", LINK: "links"}.get(entry.type, "files")] += 1
            counts["bytes"] += entry.size
            for length, pack, frame, offset in entry.extents:
                if pack is not None:
                    self._packs.pack(pack).check_run(frame, offset, length, f'"{clean(entry.path)}" in {self.what}')
                    live[pack] += length
            if entry.type == LINK:
                links.add(tablespace_oid(entry.path))
            needed.discard(entry.path if entry.type == FILE else None)
        if needed:
            raise damage(self.what, f"it lacks {clean(min(needed))}")
        for name in ("files", "directories", "links", "bytes"):
            if self.root.get(name) != counts[name]:
                raise damage(self.what, f"its number of {name} is not that of its entries")
        if {pack["id"]: pack.get("liveBytes") for pack in self.root["packs"]} != dict(live):
            raise damage(self.what, "its list of packs is not what its entries refer to")
        return links

    def entries(self):
        order = PathOrder(self.what)
        for number, part in enumerate(members_of(self.root, "parts", self.what)):
            what = f"part {number} of {self.what}"
            for first, entry in enumerate(self._part(part, what)):
                if first == 0 and entry.path.hex() != part.get("first"):
                    raise damage(what, "it does not begin with the path that the root names")
                order.check(entry)
                yield entry
                collections.deque(entry.extents, maxlen=0)

    def _part(self, part, what):
        pack_id = member(part, "pack", str, what, ID)
        frame, offset, length = (member(part, name, int, what) for name in ("frame", "offset", "length"))
        if not 1 <= length <= MAX_PART or pack_id not in self._pack_ids:
            raise damage(what, "its length or its pack is impossible")
        self._packs.pack(pack_id).check_run(frame, offset, length, what)
        hasher = xxh3.new()

        def pieces():
            for piece in self._packs.stream(pack_id, frame, offset, length):
                hasher.update(piece)
                yield piece

        cursor = Cursor(pieces(), what)
        if cursor.take(1) != b"\x01":
            raise unknown(what, "its format is unknown")
        packs = []
        for _ in range(cursor.varint()):
            packs.append(cursor.take(16).hex())
            if packs[-1] not in self._pack_ids:
                raise damage(what, "it refers to a pack that the root does not list")
        count = cursor.varint()
        if count == 0 or count != part.get("entries"):
            raise damage(what, "it has another number of entries than the root says")
        path = b""
        for _ in range(count):
            entry = self._entry(cursor, path, packs)
            path = entry.path
            yield entry
        cursor.end()
        if hasher.digest().hex() != part.get("checksum"):
            raise damage(what, "it does not have the checksum that the root says")

    def _entry(self, cursor, previous, packs):
        entry = Entry()
        shared, rest = cursor.varint(), cursor.varint()
        if shared > len(previous):
            raise damage(cursor.what, "it shares more with a path than that has")
        if shared + rest > 4096:
            raise Failure("unsafe-path", f"{cursor.what} has a path of an impossible length")
        entry.path = previous[:shared] + cursor.take(rest)
        what = f'"{clean(entry.path)}" in {cursor.what}'
        entry.type, entry.mode, entry.mtime = cursor.take(1)[0], cursor.varint(), cursor.svarint()
        if entry.type not in (FILE, DIRECTORY, LINK, EXTRA) or entry.mode > 0o7777:
            raise damage(what, "its type or mode is impossible")
        if entry.type == LINK:
            length = cursor.varint()
            if not 1 <= length <= 4096:
                raise damage(what, "its target has an impossible length")
            entry.target = cursor.take(length)
            if b"\0" in entry.target:
                raise damage(what, "its target holds a zero byte")
        elif entry.type != DIRECTORY:
            self._file(cursor, entry, packs, what)
        return entry

    def _file(self, cursor, entry, packs, what):
        entry.size, flags = cursor.varint(), cursor.take(1)[0]
        if entry.size > MAX_FILE or flags > 3:
            raise damage(what, "its size or its flags are impossible")
        if flags & 1:
            cursor.varint(), cursor.svarint()
        regions = count = -(-entry.size // REGION)
        entry.present = None
        if not flags & 2:
            entry.present = cursor.take((regions + 7) // 8)
            entry.before, count = array.array("Q"), 0
            for byte in entry.present:
                entry.before.append(count)
                count += bin(byte).count("1")
            if regions % 8 and entry.present[-1] >> regions % 8:
                raise damage(what, "it has checksums of regions that do not exist")
        entry.checksums = cursor.take(16 * count)
        entry.extents = self._extents(cursor, entry.size, packs, what)

    def _extents(self, cursor, size, packs, what):
        """(length, pack or None for zero bytes, frame, offset) of each extent"""
        count = cursor.varint()
        if count > MAX_EXTENTS:
            raise damage(what, "it has more extents than a file can have")
        for _ in range(count):
            length, pack = cursor.varint(), cursor.varint()
            if not 1 <= length <= size or pack > len(packs):
                raise damage(what, "its extents do not tile it")
            size -= length
            yield (length, None, 0, 0) if pack == 0 else (length, packs[pack - 1], cursor.varint(), cursor.varint())
        if size:
            raise damage(what, "its extents do not tile it")


class PathOrder:
    """Entries come in path order, once each, below a directory that came before, and stay inside the data directory."""

    def __init__(self, what):
        self._what, self._previous, self._open = what, None, []

    def check(self, entry):
        path, what = entry.path, f'"{clean(entry.path)}" in {self._what}'
        place = path_place(path)
        names = path.split(b"/")
        if entry.type == EXTRA and names.pop(0) != b"":
            raise Failure("unsafe-path", f"{what} must be an absolute path")
        if b"\0" in path or any(name in (b"", b".", b"..") for name in names):
            raise Failure("unsafe-path", f"{what} is not a safe path")
        if self._previous is not None and place <= self._previous:
            raise damage(what, "it is not in path order, or there twice")
        self._previous = place
        if entry.type == EXTRA:
            return
        while self._open and not path.startswith(self._open[-1] + b"/"):
            self._open.pop()
        if path.rpartition(b"/")[0] != (self._open[-1] if self._open else b""):
            raise Failure("unsafe-path", f"{what} does not lie in a directory that comes before it")
        if (path == b"pg_wal" and entry.type != DIRECTORY) or path == b"tablespace_map":
            raise Failure("unsafe-path", f"{what} cannot be what it is")
        if entry.type == LINK and not tablespace_oid(path):
            raise Failure("unsafe-path", f"{what} is a link, but not that of a tablespace")
        if entry.type in (DIRECTORY, LINK):
            self._open.append(path)


def path_place(path):
    """What paths are ordered by: "/" is lower than any other byte."""
    return path.replace(b"/", b"\0")


def tablespace_oid(path):
    match = re.fullmatch(rb"pg_tblspc/([1-9][0-9]{0,9})", path)
    return int(match[1]) if match else None
