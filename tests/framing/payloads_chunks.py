"""Chunks: their sizes, extensions and ends, and the trailers behind them."""

from payloads import BODY, CHUNKED, END, HIDDEN, add, chunk, length, request

# Chunk lines that parsers read differently. The hidden request is data to one of them, a request to the other.
CHUNK = "chunks"
SIZE = b"%x" % len(HIDDEN)
SIZES = {
    "0x": b"0x" + SIZE, "a plus": b"+" + SIZE, "a minus": b"-" + SIZE, "an underscore": SIZE[:1] + b"_" + SIZE[1:],
    "space before": b" " + SIZE, "tab before": b"\t" + SIZE, "a letter": SIZE + b"g", "NUL behind": SIZE + b"\0",
    "vertical tab behind": SIZE + b"\x0b", "empty": b"", "only an extension": b";a", "two sizes": SIZE + b" " + SIZE,
    "a comma": SIZE + b",", "FF": SIZE + b"\xff", "a dot": SIZE + b".0", "CR behind": SIZE + b"\r", "quoted": b'"' + SIZE + b'"',
    "17 digits": b"1" + b"0" * (16 - len(SIZE)) + SIZE, "2^64": b"1" + b"0" * 16, "17 digits f": b"f" * 17,
}
for name, size in SIZES.items():
    add(CHUNK, f"size: {name}", request(CHUNKED, chunk(HIDDEN, size) + END))
add(CHUNK, "size: leading zeros", request(CHUNKED, chunk(HIDDEN, b"0" * 20 + SIZE) + END), 0, 2)
add(CHUNK, "size: space behind", request(CHUNKED, chunk(HIDDEN, SIZE + b" ") + END), 0, 2)
add(CHUNK, "size: capitals", request(CHUNKED, chunk(b"x" * 171, b"AB") + END), 2)
for name, size in {"zeros": b"0000000000000000000", "an extension": b"0;x=y", "space behind": b"0 "}.items():
    add(CHUNK, f"last: {name}", request(CHUNKED, chunk(BODY) + size + b"\r\n\r\n"), 0, 2)
for name, last in {
    "-0": b"-0\r\n\r\n", "+0": b"+0\r\n\r\n", "0x0": b"0x0\r\n\r\n", "00x": b"00x\r\n\r\n", "LF": b"0\n\r\n", "LF LF": b"0\n\n",
    "CR CR": b"0\r\r", "LF CR": b"0\n\r", "CR": b"0\r\r\n",
}.items():
    add(CHUNK, f"last: {name}", request(CHUNKED, chunk(BODY) + last + HIDDEN))
add(CHUNK, "last: CR LF LF", request(CHUNKED, chunk(BODY) + b"0\r\n\n" + HIDDEN), 0, 1)
add(CHUNK, "last: without an empty line", request(CHUNKED, chunk(BODY) + b"0\r\n" + HIDDEN))

EXTENSION = "chunk extensions"
for name, extension in {
    "a name": b";a", "a value": b";a=b", "quoted": b';a="b c"', "two": b";a;b=c", "spaces": b" ; a = b", "empty": b";",
    "a semicolon in quotes": b';a="b;c"', "unclosed quotes": b';a="b', "NUL": b";\0a", "long": b";" + b"a" * 4000, "FF": b";\xff",
}.items():
    add(EXTENSION, name, request(CHUNKED, chunk(HIDDEN, SIZE + extension) + END), 0, 2)
add(EXTENSION, "32 KiB", request(CHUNKED, chunk(HIDDEN, SIZE + b";" + b"a" * 32768) + END), 0, 2)
# One parser ends the line at this terminator, the other takes what follows for the extension.
for name, terminator in {"LF": b"\n", "CR": b"\r", "LF CR": b"\n\r", "CR CR LF": b"\r\r\n", "FF": b"\x0c", "VT": b"\x0b"}.items():
    lowest = {"least": 0, "most": 2} if name in ("FF", "VT") else {"least": 0}
    two_ways = b"2;" + terminator + b"xx\r\n" + chunk(HIDDEN) + END
    add(EXTENSION, f"TERM.EXT with {name}", request(CHUNKED, two_ways))
    add(EXTENSION, f"TERM.EXT, {name} in the last", request(CHUNKED, b"0;" + terminator + b"\r\n" + HIDDEN))
    add(EXTENSION, f"EXT.TERM with {name}", request(CHUNKED, b"2;a" + terminator + b"\r\nxx\r\n" + END), **lowest)
    add(EXTENSION, f"a size ended by {name}", request(CHUNKED, SIZE + terminator + HIDDEN + b"\r\n" + END))
    add(EXTENSION, f"quoted {name}", request(CHUNKED, b'2;a="' + terminator + b'"\r\nxx\r\n' + END), **lowest)

# What ends the data of a chunk.
ENDING = "ends of chunks"
for name, ending in {
    "nothing": b"", "LF": b"\n", "CR": b"\r", "two letters": b"XY", "LF CR": b"\n\r", "LF LF": b"\n\n", "CR CR": b"\r\r",
    "three bytes": b"\r\n\n", "a letter and LF": b"X\n", "a space first": b" \r\n",
}.items():
    add(ENDING, name, request(CHUNKED, chunk(BODY, ending=ending) + END + HIDDEN))
    add(ENDING, f"{name}, hidden in the data", request(CHUNKED, chunk(HIDDEN, ending=ending) + END))
add(ENDING, "a byte more than the size", request(CHUNKED, chunk(BODY + b"x", b"%x" % len(BODY)) + END + HIDDEN))
add(ENDING, "a byte less than the size", request(CHUNKED, chunk(BODY, b"%x" % (len(BODY) + 1)) + END + HIDDEN))
add(ENDING, "SPILL: the next size eaten", request(CHUNKED, b"5\r\nAAAAA" + chunk(HIDDEN) + END))

TRAILER = "trailers"
for name, lines in {
    "one": b"X-Sum: 1\r\n", "Content-Length": length(len(HIDDEN)), "Transfer-Encoding": CHUNKED, "Host": b"Host: b\r\n",
    "X-Forwarded-For": b"X-Forwarded-For: 1.2.3.4\r\n", "Connection": b"Connection: close\r\n", "announced": b"X-Sum: 1\r\n",
}.items():
    head = CHUNKED + (b"Trailer: X-Sum\r\n" if name == "announced" else b"Trailer: %s\r\n" % lines.partition(b":")[0])
    add(TRAILER, name, request(head, chunk(BODY) + b"0\r\n" + lines + b"\r\n"), 0, 2)
    add(TRAILER, f"{name}, then another request", request(head, chunk(BODY) + b"0\r\n" + lines + b"\r\n" + HIDDEN), 0, 3)
for name, lines in {
    "no colon": b"X\r\n", "a request line": HIDDEN[:-2], "folded": b"X: 1\r\n 2\r\n", "CR": b"X: 1\r",
    "space before the colon": b"X : 1\r\n", "NUL": b"X: \0\r\n",
}.items():
    add(TRAILER, name, request(CHUNKED, chunk(BODY) + b"0\r\n" + lines + b"\r\n" + HIDDEN))
for name, lines in {"LF": b"X: 1\n", "LF LF": b"X: 1\n\n"}.items():
    add(TRAILER, name, request(CHUNKED, chunk(BODY) + b"0\r\n" + lines + b"\r\n" + HIDDEN), 0, 1)
add(TRAILER, "a thousand", request(CHUNKED, chunk(BODY) + b"0\r\n" + b"X: 1\r\n" * 1000 + b"\r\n"), 0, 2)
