"""Packs: their tables, and runs of their streams (FORMAT.md, section 5)."""

import array
import collections

from .sealed import DATA, TABLE
from .values import Cursor, Failure, damage, unknown

KEPT_BYTES = 64 << 20  # decoded frames that are kept, as neighbouring files share them
OPEN_PACKS = 64
MAX_TABLE = 32 << 20
MAX_FRAMES = 1 << 20
MAX_FILE = 1 << 40


class Pack:
    """A pack's table: where each data frame lies."""

    def __init__(self, repository, pack_id):
        self._sealed = repository.sealed(f"pack/{pack_id[:2]}/{pack_id}")
        try:
            self._read_table()
        except BaseException:
            self.close()
            raise

    def close(self):
        self._sealed.close()

    def _read_table(self):
        sealed = self._sealed
        frames, data_frames, raw_bytes, table = sealed.last_frame()
        self.what, self.frames = sealed.what, data_frames
        if not sealed.first <= table < sealed.size - 64 or data_frames >= frames or data_frames > MAX_FRAMES:
            raise damage(sealed.what, "its end frame does not say where its table is")
        cursor = Cursor(self._table(table, data_frames, frames), f"the table of {sealed.what}")
        if cursor.take(1) != b"\x01":
            raise unknown(cursor.what, "its format is unknown")
        if cursor.varint() != data_frames:
            raise damage(cursor.what, "it has another number of frames")
        self.offsets, self.starts, self._lengths = array.array("Q", [sealed.first]), array.array("Q", [0]), None
        for number in range(data_frames):
            stored, length = cursor.varint(), cursor.varint()
            if not stored <= length <= sealed.frame_size:
                raise damage(cursor.what, f"frame {number} has an impossible length")
            self.offsets.append(min(self.offsets[-1] + 16 + stored + 16, sealed.size))
            self.starts.append(self.starts[-1] + length)
            self._skip_sources(cursor, length, number == 0)
        cursor.end()
        if self.offsets[-1] != table or self.starts[-1] != raw_bytes:
            raise damage(cursor.what, "it does not agree with the end frame")

    def _table(self, offset, number, end):
        total = 0
        for number in range(number, end):
            kind, raw, offset = self._sealed.frame(offset, number)
            if kind != TABLE:
                raise damage(self.what, f"frame {number} is not part of its table")
            total += len(raw)
            if total > MAX_TABLE:
                raise damage(self.what, "its table is longer than a table can be")
            yield raw
        if offset != self._sealed.size - 64:
            raise damage(self.what, "its table does not reach up to its end frame")

    def _skip_sources(self, cursor, length, first):
        sources = cursor.varint()
        covered, self._named = 0, False if first else self._named
        for _ in range(sources):
            path = cursor.varint()
            if path > 4096 or (path == 0 and not self._named):
                raise damage(cursor.what, "it has a source with an impossible path")
            self._named = True
            cursor.take(path)
            offset, piece = cursor.varint(), cursor.varint()
            if offset > MAX_FILE or not 1 <= piece <= length:
                raise damage(cursor.what, "it has a source with an impossible place")
            covered += piece
            cursor.take(16)
        if sources and covered != length:
            raise damage(cursor.what, "its sources do not add up to their frame")

    def check_run(self, frame, offset, length, what):
        """Fails unless a run of the pack's stream begins there and is that long."""
        inside = frame < self.frames and offset < self.starts[frame + 1] - self.starts[frame]
        if not inside or self.starts[frame] + offset + length > self.starts[-1]:
            raise damage(what, f"it refers to what {self.what} does not hold")

    def data(self, number):
        kind, raw, after = self._sealed.frame(self.offsets[number], number)
        length = self.starts[number + 1] - self.starts[number]
        if kind != DATA or after != self.offsets[number + 1] or len(raw) != length:
            raise damage(self.what, f"frame {number} is not the one that its table describes")
        return raw


class Packs:
    """The packs of one cluster: a few are open, a few frames are kept."""

    def __init__(self, repository):
        self._repository, self._open, self._frames = repository, collections.OrderedDict(), collections.OrderedDict()
        self._kept = 0

    def pack(self, pack_id):
        if pack_id not in self._open:
            try:
                self._open[pack_id] = Pack(self._repository, pack_id)
            except Failure as problem:
                if problem.code != "not-found":
                    raise
                raise damage(f'pack "{pack_id}"', "it is missing, and a backup refers to it") from None
            if len(self._open) > OPEN_PACKS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(pack_id)
        return self._open[pack_id]

    def close(self):
        while self._open:
            self._open.popitem()[1].close()

    def stream(self, pack_id, frame, offset, length):
        """`length` bytes of a pack's stream, from `offset` of `frame` on, in pieces."""
        while length:
            if (pack_id, frame) not in self._frames:
                self._frames[pack_id, frame] = self.pack(pack_id).data(frame)
                self._kept += len(self._frames[pack_id, frame])
                while self._kept > KEPT_BYTES:
                    self._kept -= len(self._frames.popitem(last=False)[1])
            self._frames.move_to_end((pack_id, frame))
            piece = self._frames[pack_id, frame][offset : offset + length]
            yield piece
            length, frame, offset = length - len(piece), frame + 1, 0
