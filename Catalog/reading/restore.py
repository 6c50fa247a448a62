"""Writes a data directory."""

import os
import re

from . import xxh3
from .manifest import CONTROL_FILE, DIRECTORY, EXTRA, LINK, REGION, tablespace_oid
from .values import Failure, clean, damage, member, members_of, path_of, warn


def plan_tablespaces(record, links, options):
    """OID -> directory, for each tablespace that is a link."""
    what, mapping, needed = f'backup "{options.label}"', {}, {}
    for text in options.tablespace:
        match = re.fullmatch(r"([1-9][0-9]*)=(/.*)", text, re.DOTALL)
        if not match or int(match[1]) in mapping:
            raise Failure("usage", f'"{clean(text)}" does not map one more tablespace: OID=ABSOLUTE-DIRECTORY')
        mapping[int(match[1])] = os.fsencode(os.path.normpath(match[2]))
    for space in members_of(record, "tablespaces", what):
        if not member(space, "inPlace", bool, what):
            needed[member(space, "oid", int, what)] = path_of(space.get("path"), what)
    if not links <= set(needed):
        raise Failure("unsafe-path", f"{what} has a link of a tablespace that its commit record does not have")
    for oid in set(mapping) - set(needed):
        raise Failure("usage", f"{what} has no tablespace {oid}")
    for oid, path in sorted(needed.items()):
        if oid not in mapping:
            raise Failure("usage", f'tablespace {oid} of {what}, then at "{clean(path)}", is not mapped',
                          f"Give --tablespace {oid}=DIR; live tablespaces are never touched unasked.")
    places = [os.fsencode(os.path.abspath(options.target)), *mapping.values()]
    for i, one in enumerate(places):
        for two in places[i + 1 :]:
            if (one + b"/").startswith(two + b"/") or (two + b"/").startswith(one + b"/"):
                raise Failure("usage", f'"{clean(one)}" and "{clean(two)}" lie one in the other')
    return mapping


def data_directory_mode(record, options):
    """Its permission bits; None where the record of before they were kept does not say them."""
    if record.get("dataDirectoryMode") is None:
        return None
    what = f'backup "{options.label}"'
    mode = member(record, "dataDirectoryMode", int, what)
    if mode > 0o7777:
        raise damage(what, 'its member "dataDirectoryMode" is impossible')
    return mode


def require_empty(directory):
    try:
        if os.listdir(directory):
            raise Failure("not-empty", f'directory "{clean(directory)}" is not empty')
    except FileNotFoundError:
        pass


class Restore:
    """Writes a data directory. Its manifest was checked as a whole; each entry is checked again as it is read again."""

    def __init__(self, manifest, packs, target, spaces, extra, mode):
        self._manifest, self._packs, self._target, self._spaces = manifest, packs, target, spaces
        self._extra = os.fsencode(os.path.abspath(extra)) if extra else None
        self._open, self._late, self._control, self._mode = [], [], None, mode

    def run(self):
        for entry in self._manifest.entries():
            if entry.type == EXTRA:
                self._write_extra(entry)
                continue
            while self._open and not entry.path.startswith(self._open[-1].path + b"/"):
                self._close_directory(self._open.pop())
            path = os.path.join(self._target, entry.path)
            if entry.type == DIRECTORY:
                os.mkdir(path, 0o700)
                self._open.append(entry)
                if entry.path == b"base" and self._mode is None:
                    self._mode = entry.mode
            elif entry.type == LINK:
                os.symlink(self._spaces[tablespace_oid(entry.path)], path)
                set_time(path, entry)
            elif entry.path == CONTROL_FILE:
                entry.extents = list(entry.extents)
                self._control = entry
            else:
                self._write(path, entry)
        while self._open:
            self._close_directory(self._open.pop())
        self._write_tablespace_map()
        # What the server starts on: no writing for the group, nothing for others.
        os.chmod(self._target, (self._mode or 0) & 0o750 | 0o700)
        os.sync()  # all else is durable before the file without which nothing starts
        self._write(os.path.join(self._target, CONTROL_FILE), self._control)
        for entry in self._late:
            self._finish(os.path.join(self._target, entry.path), entry)
        os.sync()

    def _close_directory(self, entry):
        if entry.path == os.path.dirname(CONTROL_FILE):
            self._late.append(entry)  # its time changes once more
        else:
            self._finish(os.path.join(self._target, entry.path), entry)

    def _finish(self, path, entry):
        os.chmod(path, entry.mode)
        set_time(path, entry)

    def _write_extra(self, entry):
        if not self._extra:
            warn(f'"{clean(entry.path)}" lay outside the data directory and is not restored (--extra DIR does it)')
            return
        path = self._extra + entry.path
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        self._write(path, entry)

    def _write(self, path, entry):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as output:
            at, hasher = 0, xxh3.new()
            for piece in self._pieces(entry):
                checksum = entry.checksum(at // REGION)
                if isinstance(piece, int):
                    output.seek(piece, os.SEEK_CUR)
                    if checksum:
                        hasher.update(bytes(piece))
                    at += piece
                else:
                    output.write(piece)
                    hasher.update(piece)
                    at += len(piece)
                if at % REGION == 0 or at == entry.size:
                    if checksum and hasher.digest() != checksum:
                        what = f'"{clean(entry.path)}" of backup "{self._manifest.label}"'
                        raise damage(what, f"the region that ends at byte {at} does not have its checksum")
                    hasher = xxh3.new()
            output.truncate(entry.size)
            os.fchmod(output.fileno(), entry.mode)
        set_time(path, entry)

    def _pieces(self, entry):
        """The file's bytes, or numbers of zero bytes, in pieces that do not cross a region's border."""
        at = 0
        for length, pack, frame, offset in entry.extents:
            for piece in self._packs.stream(pack, frame, offset, length) if pack else [length]:
                size, used = piece if isinstance(piece, int) else len(piece), 0
                while used < size:
                    step = min(size - used, REGION - at % REGION)
                    yield step if isinstance(piece, int) else piece[used : used + step]
                    used, at = used + step, at + step

    def _write_tablespace_map(self):
        lines = b""
        for oid, path in sorted(self._spaces.items()):
            for byte in (b"\\", b"\n", b"\r"):  # as PostgreSQL's do_pg_backup_start escapes them
                path = path.replace(byte, b"\\" + byte)
            lines += b"%d %s\n" % (oid, path)
        if lines:
            path = os.path.join(self._target, b"tablespace_map")
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as output:
                output.write(lines)


def set_time(path, entry):
    try:
        os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
    except (OverflowError, OSError) as error:
        raise Failure("input-output", f'could not set the time of "{clean(entry.path)}" to {entry.mtime}: {error}') from None
