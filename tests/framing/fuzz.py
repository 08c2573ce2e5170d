"""Mutations of the payloads: their pieces recombined, their bytes changed, their bytes cut into packets. The seed says which."""

import random

from payloads import CHUNKED, HIDDEN, PAYLOADS, PROBE, Payload, length
from payloads_lengths import SPELLINGS

BYTES = [
    b"\r", b"\n", b"\r\n", b"\n\r", b"\r\r\n", b"\0", b"\t", b" ", b":", b";", b",", b"0", b"1", b"f", b"x", b"_", b"-", b"+", b'"',
    b"\x0b", b"\x0c", b"\x7f", b"\x85", b"\xa0", b"\xff", b"#", b"?", b"%0d%0a",
]
LINES = [
    CHUNKED, length(0), length(5), length(len(HIDDEN)), b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Connection: Content-Length\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
    b"Host: b\r\n", b"X: a\r\n b\r\n", b"Trailer: X\r\n", b"TE: trailers\r\n",
    *(line + b"\r\n" for line in SPELLINGS.values()),
]


def insert(random, data):
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(BYTES) + data[at:]


def delete(random, data):
    at = random.randrange(len(data))
    return data[:at] + data[at + random.choice((1, 1, 1, 2, 5)) :]


def replace(random, data):
    at = random.randrange(len(data))
    return data[:at] + random.choice(BYTES) + data[at + 1 :]


def add_line(random, data):
    """Behind a line, of a head or of chunks."""
    ends = [at + 2 for at in range(len(data) - 1) if data[at : at + 2] == b"\r\n"]
    at = random.choice(ends) if ends else 0
    return data[:at] + random.choice(LINES) + data[at:]


def repeat_line(random, data):
    lines = data.splitlines(keepends=True)
    line = random.choice(lines)
    lines.insert(random.randrange(len(lines) + 1), line)
    return b"".join(lines)


def change_terminator(random, data):
    pieces = data.split(b"\r\n")
    if len(pieces) < 2:
        return data
    at = random.randrange(1, len(pieces))
    ending = random.choice((b"\n", b"\r", b"\n\r", b"\r\r\n", b"", b"\r\n\r\n"))
    return b"\r\n".join(pieces[:at]) + ending + b"\r\n".join(pieces[at:])


def change_number(random, data):
    digits = [at for at, byte in enumerate(data) if byte in b"0123456789abcdef"]
    if not digits:
        return data
    at = random.choice(digits)
    return data[:at] + random.choice((b"0", b"1", b"9", b"a", b"00", b"10", b"0x", b"")) + data[at + 1 :]


MUTATIONS = [
    insert, insert, delete, replace, add_line, add_line, repeat_line, change_terminator, change_terminator, change_number,
]


def mutations(seed, number):
    """So many payloads, each with the places where it is cut into packets."""
    generator, found = random.Random(seed), []
    for at in range(number):
        origin = generator.choice(PAYLOADS)
        data = origin.data.removesuffix(PROBE)[:20_000]
        if generator.random() < 0.2:
            data += generator.choice(PAYLOADS).data.removesuffix(PROBE)[:20_000]
        for _ in range(generator.choice((1, 1, 2, 3))):
            # In most cases what frames the first message, not the hidden one.
            edge = min(len(data), generator.choice((120, 300, len(data))))
            data = generator.choice(MUTATIONS)(generator, data[:edge] or b"\r\n") + data[edge:]
        data += PROBE
        cuts = sorted(generator.sample(range(1, len(data)), 3)) if generator.random() < 0.3 else []
        found.append((Payload("mutation", f"{at} of {origin.family}, {origin.name}", data, None, None), cuts))
    return found
