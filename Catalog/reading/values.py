"""What everything else is read with: errors, numbers, JSON. Nothing here believes a length before the bytes are there.
"""

import json
import re
import sys


class Failure(Exception):
    """What stopped the command: a stable word, a message that names the object, and what to do next."""

    def __init__(self, code, message, hint=None):
        super().__init__(message)
        self.code, self.hint = code, hint


def damage(what, why):
    return Failure("damaged", f"{what} is damaged: {why}", "Restore from another backup or another copy.")


def unknown(what, why):
    return Failure("format-unknown", f"cannot read {what}: {why}", "Use a reader that is newer than the repository.")


def clean(text):
    """Text from a repository as it may be shown on a terminal."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))


def warn(text):
    print(f"reader: warning: {text}", file=sys.stderr)


class Cursor:
    """Bytes that arrive in pieces, taken in order; no length is believed before the bytes are there."""

    def __init__(self, pieces, what):
        self.what, self._pieces, self._data, self._at = what, iter(pieces), b"", 0

    def take(self, count):
        while len(self._data) - self._at < count:
            piece = next(self._pieces, None)
            if piece is None:
                raise damage(self.what, "it ends too early")
            self._data, self._at = self._data[self._at :] + piece, 0
        self._at += count
        return self._data[self._at - count : self._at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise damage(self.what, "it holds a number of more than ten bytes")
        if value >= 1 << 64 or (byte == 0 and shift):
            raise damage(self.what, "it holds a number that is too long")
        return value

    def svarint(self):
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def end(self):
        if self._at < len(self._data) or next(self._pieces, None) is not None:
            raise damage(self.what, "bytes follow its end")


def parse_json(data, what, kedge):
    """A JSON object whose member `kedge` says what it is; no duplicate names, no NaN."""

    def members(pairs):
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a name occurs twice in one object")
        return dict(pairs)

    def refuse(text):
        raise ValueError(f"{text} is no JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=members, parse_constant=refuse)
        if b"\\u" in data:  # half a surrogate pair is no text
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise damage(what, f"it is not valid JSON ({clean(error)})") from None
    if not isinstance(value, dict) or value.get("kedge") != kedge:
        raise damage(what, f'it is not a JSON object with "kedge":"{kedge}"')
    return value


def member(record, name, kind, what, pattern=None):
    """A member that must be there and be of this type; whole numbers are from 0 to 2^63 - 1."""
    value = record.get(name)
    fits = isinstance(value, kind) and not (kind is int and (isinstance(value, bool) or not 0 <= value < 1 << 63))
    if not fits or (pattern and not re.fullmatch(pattern, value)):
        raise damage(what, f'its member "{name}" is missing or not what it must be')
    return value


def members_of(record, name, what):
    """An array of objects."""
    values = member(record, name, list, what)
    if not all(isinstance(value, dict) for value in values):
        raise damage(what, f'its member "{name}" is not an array of objects')
    return values


def path_of(value, what):
    """A path in a record: text, or {"hex": …} where its bytes are not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, dict):
        return bytes.fromhex(member(value, "hex", str, what, r"([0-9a-f]{2})*"))
    raise damage(what, "it holds a path that is neither text nor hexadecimal")
