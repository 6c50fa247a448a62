"""XXH3-128, streaming and seeded, for reader.py.

Two implementations with the same answers: the C library libxxhash (every Debian has it: apt needs it), reached through
ctypes, and one in plain Python (a few MB/s) for a machine that has nothing but Python. `new(seed)` picks the first that
is there. Digests are canonical: 16 bytes, big-endian, the high half first.
"""

import ctypes
import ctypes.util
import struct

_M32 = 0xFFFFFFFF
_M64 = 0xFFFFFFFFFFFFFFFF
_P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
_P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
_STRIPE, _BLOCK = 64, 1024  # 16 stripes a block: (192 - 64) / 8
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def new(seed=0):
    """A hasher with update(bytes) and digest()."""
    return NativeXXH3(seed) if _library else PythonXXH3(seed)


def xxh3_128(data, seed=0):
    """The digest of `data` in one call."""
    hasher = new(seed)
    hasher.update(data)
    return hasher.digest()


class _Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def _load():
    try:
        library = ctypes.CDLL("libxxhash.so.0")
        library.XXH3_createState.restype = ctypes.c_void_p
        library.XXH3_createState.argtypes = []
        library.XXH3_freeState.argtypes = [ctypes.c_void_p]
        library.XXH3_128bits_reset_withSeed.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        library.XXH3_128bits_update.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.XXH3_128bits_digest.restype = _Hash128
        library.XXH3_128bits_digest.argtypes = [ctypes.c_void_p]
        library.XXH_versionNumber.restype = ctypes.c_uint
    except (OSError, AttributeError):
        return None
    return library if library.XXH_versionNumber() >= 800 else None  # XXH3 is stable from 0.8.0 on


_library = _load()


class NativeXXH3:
    """XXH3-128 by libxxhash."""

    def __init__(self, seed=0):
        self._state = _library.XXH3_createState()
        if not self._state:
            raise MemoryError("no memory for a checksum")
        _library.XXH3_128bits_reset_withSeed(self._state, seed)

    def update(self, data):
        data = bytes(data)
        _library.XXH3_128bits_update(self._state, data, len(data))

    def digest(self):
        value = _library.XXH3_128bits_digest(self._state)
        return struct.pack(">QQ", value.high, value.low)

    def __del__(self):
        if getattr(self, "_state", None):
            _library.XXH3_freeState(self._state)


class PythonXXH3:
    """XXH3-128 after the published specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md)."""

    def __init__(self, seed=0):
        self._seed = seed
        self._secret = _seeded_secret(seed) if seed else _SECRET
        self._keys = struct.unpack("<24Q", self._secret)
        self._accumulators = [_P32[2], _P64[0], _P64[1], _P64[2], _P64[3], _P32[1], _P64[4], _P32[0]]
        self._buffer = bytearray()  # not yet consumed; never empty once anything was, as the last block is special
        self._before = b""  # the last stripe that was consumed
        self._length = 0

    def update(self, data):
        self._length += len(data)
        self._buffer += data
        position, buffer = 0, self._buffer
        while len(buffer) - position > _BLOCK:
            block = bytes(buffer[position : position + _BLOCK])
            _accumulate(self._accumulators, block, 16, self._keys)
            _scramble(self._accumulators, self._keys[16:])
            self._before = block[-_STRIPE:]
            position += _BLOCK
        del buffer[:position]

    def digest(self):
        if self._length <= 240:
            low, high = _short(bytes(self._buffer), self._seed)
        else:
            low, high = self._long()
        return struct.pack(">QQ", high, low)

    def _long(self):
        accumulators, rest = list(self._accumulators), bytes(self._buffer)
        _accumulate(accumulators, rest, (len(rest) - 1) // _STRIPE, self._keys)
        last = (self._before + rest)[-_STRIPE:]
        _accumulate(accumulators, last, 1, struct.unpack_from("<8Q", self._secret, 192 - 64 - 7))
        low = _merge(accumulators, self._secret, 11, self._length * _P64[0])
        high = _merge(accumulators, self._secret, 192 - 64 - 11, ~(self._length * _P64[1]))
        return low, high


def _u32(data, offset):
    return int.from_bytes(data[offset : offset + 4], "little")


def _u64(data, offset):
    return int.from_bytes(data[offset : offset + 8], "little")


def _swap(value, size):
    return int.from_bytes(value.to_bytes(size, "little"), "big")


def _multiply(a, b):
    product = (a & _M64) * (b & _M64)
    return product & _M64, product >> 64


def _fold(a, b):
    low, high = _multiply(a, b)
    return low ^ high


def _avalanche(h):
    h &= _M64
    h = ((h ^ h >> 37) * 0x165667919E3779F9) & _M64
    return h ^ h >> 32


def _avalanche64(h):  # that of the older XXH64
    h &= _M64
    h = ((h ^ h >> 33) * _P64[1]) & _M64
    h = ((h ^ h >> 29) * _P64[2]) & _M64
    return h ^ h >> 32


def _key(offset):
    return _u64(_SECRET, offset) ^ _u64(_SECRET, offset + 8)


def _short(data, seed):
    """Inputs of up to 240 bytes."""
    length = len(data)
    if length == 0:
        return _avalanche64(seed ^ _key(64)), _avalanche64(seed ^ _key(80))
    if length <= 3:
        return _up_to_3(data, length, seed)
    if length <= 8:
        return _up_to_8(data, length, seed)
    if length <= 16:
        return _up_to_16(data, length, seed)
    return _up_to_240(data, length, seed)


def _up_to_3(data, length, seed):
    low = data[0] << 16 | data[length >> 1] << 24 | data[-1] | length << 8
    high = _swap(low, 4)
    high = (high << 13 | high >> 19) & _M32
    low ^= (_u32(_SECRET, 0) ^ _u32(_SECRET, 4)) + seed
    high ^= ((_u32(_SECRET, 8) ^ _u32(_SECRET, 12)) - seed) & _M64
    return _avalanche64(low), _avalanche64(high)


def _up_to_8(data, length, seed):
    seed ^= _swap(seed & _M32, 4) << 32
    value = _u32(data, 0) | _u32(data, length - 4) << 32
    low, high = _multiply(value ^ ((_key(16) + seed) & _M64), _P64[0] + (length << 2))
    high = (high + (low << 1)) & _M64
    low ^= high >> 3
    low = ((low ^ low >> 35) * 0x9FB21C651E98DF25) & _M64
    return low ^ low >> 28, _avalanche(high)


def _up_to_16(data, length, seed):
    first, last = _u64(data, 0), _u64(data, length - 8)
    low, high = _multiply(first ^ last ^ ((_key(32) - seed) & _M64), _P64[0])
    low = (low + ((length - 1) << 54)) & _M64
    last ^= (_key(48) + seed) & _M64
    high = (high + last + (last & _M32) * (_P32[1] - 1)) & _M64
    low ^= _swap(high, 8)
    mixed_low, mixed_high = _multiply(low, _P64[1])
    return _avalanche(mixed_low), _avalanche(mixed_high + high * _P64[1])


def _mix_16(data, offset, key, seed):
    return _fold(
        _u64(data, offset) ^ ((_u64(_SECRET, key) + seed) & _M64),
        _u64(data, offset + 8) ^ ((_u64(_SECRET, key + 8) - seed) & _M64),
    )


def _mix_32(pair, data, one, two, key, seed):
    low = (pair[0] + _mix_16(data, one, key, seed)) & _M64
    high = (pair[1] + _mix_16(data, two, key + 16, seed)) & _M64
    low ^= (_u64(data, two) + _u64(data, two + 8)) & _M64
    high ^= (_u64(data, one) + _u64(data, one + 8)) & _M64
    return low, high


def _up_to_240(data, length, seed):
    pair = ((length * _P64[0]) & _M64, 0)
    if length <= 128:
        for i in range((length - 1) // 32, -1, -1):
            pair = _mix_32(pair, data, 16 * i, length - 16 * (i + 1), 32 * i, seed)
    else:
        for i in range(0, 128, 32):
            pair = _mix_32(pair, data, i, i + 16, i, seed)
        pair = (_avalanche(pair[0]), _avalanche(pair[1]))
        for i in range(128, length - 31, 32):
            pair = _mix_32(pair, data, i, i + 16, 3 + i - 128, seed)
        pair = _mix_32(pair, data, length - 16, length - 32, 136 - 17 - 16, -seed & _M64)
    low, high = pair
    mixed = low * _P64[0] + high * _P64[3] + (length - seed) * _P64[1]
    return _avalanche(low + high), -_avalanche(mixed) & _M64


def _seeded_secret(seed):
    words = struct.unpack("<24Q", _SECRET)
    return struct.pack("<24Q", *[(word - seed if i % 2 else word + seed) & _M64 for i, word in enumerate(words)])


def _accumulate(accumulators, data, stripes, keys):
    """Takes in `stripes` stripes of 64 bytes; the secret moves by 8 bytes a stripe."""
    words = struct.unpack_from(f"<{8 * stripes}Q", data)
    a0, a1, a2, a3, a4, a5, a6, a7 = accumulators
    for n in range(stripes):
        w0, w1, w2, w3, w4, w5, w6, w7 = words[8 * n : 8 * n + 8]
        k0, k1, k2, k3, k4, k5, k6, k7 = keys[n : n + 8]
        k0 ^= w0; k1 ^= w1; k2 ^= w2; k3 ^= w3; k4 ^= w4; k5 ^= w5; k6 ^= w6; k7 ^= w7  # noqa: E702
        a0 += w1 + (k0 & _M32) * (k0 >> 32)
        a1 += w0 + (k1 & _M32) * (k1 >> 32)
        a2 += w3 + (k2 & _M32) * (k2 >> 32)
        a3 += w2 + (k3 & _M32) * (k3 >> 32)
        a4 += w5 + (k4 & _M32) * (k4 >> 32)
        a5 += w4 + (k5 & _M32) * (k5 >> 32)
        a6 += w7 + (k6 & _M32) * (k6 >> 32)
        a7 += w6 + (k7 & _M32) * (k7 >> 32)
    accumulators[:] = [a & _M64 for a in (a0, a1, a2, a3, a4, a5, a6, a7)]


def _scramble(accumulators, keys):
    for i in range(8):
        value = accumulators[i]
        accumulators[i] = ((value ^ value >> 47 ^ keys[i]) * _P32[0]) & _M64


def _merge(accumulators, secret, offset, start):
    value = start
    for i in range(4):
        value += _fold(
            accumulators[2 * i] ^ _u64(secret, offset + 16 * i),
            accumulators[2 * i + 1] ^ _u64(secret, offset + 16 * i + 8),
        )
    return _avalanche(value)
