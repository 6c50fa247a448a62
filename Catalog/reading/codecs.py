"""The codecs: one frame in, exactly the expected bytes out."""

import zlib

CODECS = ("none", "zstd", "lz4", "zlib")  # their numbers in a header


def decompress(codec, payload, length):
    """Exactly one frame of the codec, exactly `length` bytes; ValueError otherwise. Output is bounded by `length`."""
    if codec == 1:
        import zstandard

        if zstd_frame_length(payload) != len(payload) or zstandard.frame_content_size(payload) not in (-1, length):
            raise ValueError("not one zstd frame of that length")
        try:
            data = zstandard.ZstdDecompressor().decompress(payload, max_output_size=length)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
    elif codec == 2:
        import lz4.block

        try:
            data = lz4.block.decompress(payload, uncompressed_size=length)
        except lz4.block.LZ4BlockError as error:
            raise ValueError(str(error)) from None
    elif codec == 3:
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(payload, length + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if not stream.eof or stream.unused_data or stream.unconsumed_tail:
            raise ValueError("not one zlib stream")
    else:
        raise ValueError("the codec is none")
    if len(data) != length:
        raise ValueError("another length")
    return data


def zstd_frame_length(data):
    """Where the first zstd frame of `data` ends (RFC 8878, 3.1.1), which the module does not tell; or ValueError."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 6:
        raise ValueError("no zstd frame")
    single = data[4] >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[data[4] & 3] + (single, 2, 4, 8)[data[4] >> 6]
    while True:
        block = int.from_bytes(data[at : at + 3], "little")
        if at + 3 > len(data) or block >> 1 & 3 == 3:
            raise ValueError("no zstd block")
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block & 1:
            return at + (4 if data[4] & 4 else 0)
