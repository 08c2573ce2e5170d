"""PNG files: made for uploads, and checked chunk by chunk."""

import hashlib
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def make(side, alpha):
    """A square of one colour."""
    row = b"\0" + bytes([90, 120, 200, alpha]) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * side)) + chunk(b"IEND", b"")


def fault(content):
    """What is wrong with a PNG; empty if nothing is."""
    if not content.startswith(SIGNATURE):
        return f"no PNG: {content[:16]!r}"
    at, pixels, kind = len(SIGNATURE), b"", b""
    while at < len(content):
        (length,), kind = struct.unpack_from(">I", content, at), content[at + 4 : at + 8]
        part = content[at + 8 : at + 8 + length]
        at += 12 + length
        if at > len(content):
            return "cut off"
        if struct.unpack_from(">I", content, at - 4)[0] != zlib.crc32(kind + part):
            return f"the checksum of {kind!r} is wrong"
        pixels += part if kind == b"IDAT" else b""
    try:
        zlib.decompress(pixels)
    except zlib.error as why:
        return f"its pixels: {why}"
    return "" if kind == b"IEND" else "no end"


def hash_of(content):
    """What the store's file names end with."""
    return hashlib.sha256(content).hexdigest()[:16]
