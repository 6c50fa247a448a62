"""Sealed objects: header, frames, end frame (FORMAT.md, section 3)."""

import hashlib
import hmac
import os
import struct

from . import xxh3
from .codecs import CODECS, decompress
from .keys import aes_gcm_open, hkdf
from .values import Failure, clean, damage, unknown

MAGIC = b"\x89KEDGE\r\n"
DATA, TABLE, END, FACTS = 1, 2, 3, 4  # types of frames
MAX_FRAME = 16 << 20
END_LENGTH = 32
KINDS = range(1, 12)


class Sealed:
    """One sealed object, its header checked and its key derived. Frames are read one by one."""

    def __init__(self, repository, path, kind, scope, name):
        self.what, self._kind = f'object "{path}"', kind
        self._file = repository.open(path)
        try:
            self.size = os.fstat(self._file).st_size
            self._open(repository, scope, name)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        os.close(self._file)

    def bytes(self, offset, count):
        if offset + count > self.size:
            raise damage(self.what, "it is cut short")
        data = b""
        while len(data) < count:
            piece = os.pread(self._file, count - len(data), offset + len(data))
            if not piece:
                raise damage(self.what, "it is cut short")
            data += piece
        return data

    def _open(self, repository, scope, name):
        start = self.bytes(0, min(92, self.size))
        if start[:8] != MAGIC or len(start) < 92:
            raise damage(self.what, "it is not a sealed object")
        version, kind, self.codec, cipher, zeros, self.first, self.frame_size = struct.unpack("<HBBB3sII", start[8:24])
        if not 92 <= self.first <= 65536:
            raise damage(self.what, "its header has an impossible length")
        header = self.bytes(0, self.first)
        if crc32c(header[:-4]) != int.from_bytes(header[-4:], "little"):
            raise damage(self.what, "its header does not have the checksum that it should")
        if version != 0 or zeros != bytes(3) or kind not in KINDS or self.codec >= len(CODECS) or cipher > 1:
            found = f"version {version}, kind {kind}, codec {self.codec} or cipher {cipher}"
            raise unknown(self.what, f"{found} is unknown, or what should be zero is not")
        if kind != self._kind:
            raise damage(self.what, f"it is of kind {kind} where kind {self._kind} belongs")
        if not 1 <= self.frame_size <= MAX_FRAME:
            raise damage(self.what, "its frame size is impossible")
        self._check_fields(header[88:-4])
        key_id, salt, check = header[24:40], header[40:72], header[72:88]
        binding = b"kedge-object" + hashlib.sha256(header).digest() + scope + name.encode()
        if (cipher == 1) != repository.encrypted:
            if cipher == 1:
                raise Failure("key-missing", f"{self.what} is encrypted", "Give --key-file or --passphrase-file.")
            raise damage(self.what, "it is not encrypted, in a repository that is")
        self._prefix = self._subkey = None
        if cipher == 0:
            if key_id != bytes(16) or check != bytes(16):
                raise damage(self.what, "it names a key but is not encrypted")
            self._prefix = hashlib.sha256(binding).digest()
            return
        key = repository.key(key_id, self.what)
        if not hmac.compare_digest(hkdf(key, salt, b"kedge-check" + key_id, 16), check):
            raise Failure("key-wrong", f"key {key_id.hex()} is not the one that {self.what} was sealed with")
        self._subkey = hkdf(key, salt, binding)

    def _check_fields(self, data):
        at = 0
        while at < len(data):
            if at + 8 > len(data):
                raise damage(self.what, "a field of its header is cut short")
            tag, flags, length = struct.unpack_from("<HHI", data, at)
            at += 8 + length
            if at > len(data):
                raise damage(self.what, "a field of its header is cut short")
            if flags & 1 and tag != 1:
                raise unknown(self.what, f"field {tag} of its header is required and unknown")

    def frame(self, offset, number):
        """(type, raw bytes, offset of what follows) of the frame that begins there and must have this number."""
        stored, length, found, kind, zeros = struct.unpack("<IIIB3s", self.bytes(offset, 16))
        where = f"frame {number}"
        if found != number or zeros != bytes(3):
            raise damage(self.what, f"{where} is not where it should be")
        longest = END_LENGTH if kind == END else self.frame_size
        if stored > MAX_FRAME or length > longest or stored > length:
            raise damage(self.what, f"{where} has an impossible length")
        after = offset + 16 + stored + 16
        if after > self.size:
            raise damage(self.what, "it is cut short")
        body = self.bytes(offset + 16, stored + 16)
        additional = struct.pack("<BII", kind, number, length)
        if self._subkey:
            payload = aes_gcm_open(self._subkey, bytes(8) + struct.pack(">I", number), body, additional)
        else:
            payload = body[:stored]
            if xxh3.xxh3_128(self._prefix + additional + payload) != body[stored:]:
                payload = None
        if payload is None:
            raise damage(self.what, f"{where} is not what was written there")
        if stored < length:
            try:
                payload = decompress(self.codec, payload, length)
            except ValueError as error:
                raise damage(self.what, f"{where} does not decompress ({clean(error)})") from None
        return kind, payload, after

    def frames(self):
        """(type, raw bytes) of every frame but the last; fails unless the object is whole and in order."""
        offset, number, data_frames, raw_bytes, table = self.first, 0, 0, 0, 0
        while True:
            kind, raw, after = self.frame(offset, number)
            if (kind == FACTS) != (self._kind == 2 and number == 0):
                raise damage(self.what, "its facts are not in the first frame, where they belong")
            if kind == END:
                break
            if kind not in (DATA, TABLE, FACTS) or (kind == TABLE and self._kind != 3) or (kind == DATA and table):
                raise damage(self.what, f"frame {number} is of a type that does not belong there")
            if kind == DATA:
                data_frames, raw_bytes = data_frames + 1, raw_bytes + len(raw)
            elif kind == TABLE:
                table = table or offset
            yield kind, raw
            number, offset = number + 1, after
            if number == 1 << 32:
                raise damage(self.what, "it has too many frames")
        if after != self.size or offset != after - 64 or self.end_frame(raw) != (number, data_frames, raw_bytes, table):
            raise damage(self.what, "its end does not agree with what comes before it")
        if (table > 0) != (self._kind == 3):
            raise damage(self.what, "it has no table")

    def last_frame(self):
        """The numbers of the end frame, found at the end of the object."""
        offset = self.size - 64
        if offset < self.first:
            raise damage(self.what, "it is cut short")
        number = struct.unpack("<I", self.bytes(offset + 8, 4))[0]
        kind, raw, _ = self.frame(offset, number)
        numbers = self.end_frame(raw)
        if kind != END or numbers[0] != number:
            raise damage(self.what, "its last frame is not an end frame")
        return numbers

    def end_frame(self, raw):
        """(frames, data frames, raw bytes, offset of the table)"""
        if len(raw) != END_LENGTH or struct.unpack("<IIQQQ", raw)[4] != self.size:
            raise damage(self.what, "its end frame is not for an object of this length")
        return struct.unpack("<IIQQQ", raw)[:4]


def _crc32c_table():
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


_CRC32C = tuple(_crc32c_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
