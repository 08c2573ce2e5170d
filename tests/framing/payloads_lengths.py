"""What works, and the two headers that frame a body: both at once, codings in disguise, lengths."""

from payloads import BODY, CHUNKED, END, HIDDEN, HIDDEN_PATH, ONE_CHUNK, PROBE, add, chunk, length, request

# What must work, so that a front that refuses everything fails.
PLAIN = "plain"
add(PLAIN, "GET", request(method=b"GET"), 2)
add(PLAIN, "POST with a length", request(length(len(BODY)), BODY), 2)
add(PLAIN, "POST, chunked", request(CHUNKED, ONE_CHUNK), 2)
add(PLAIN, "POST, many chunks", request(CHUNKED, b"".join(chunk(b"%d" % n) for n in range(30)) + END), 2)
add(PLAIN, "POST without a body", request(length(0)), 2)
add(PLAIN, "a body that looks like a request", request(length(len(HIDDEN)), HIDDEN), 2)
add(PLAIN, "a chunk that looks like a request", request(CHUNKED, chunk(HIDDEN) + END), 2)
add(PLAIN, "ten requests in one write", b"".join(request(length(len(BODY)), BODY) for _ in range(9)), 10)
add(PLAIN, "names in capitals", request(b"TRANSFER-ENCODING: CHUNKED\r\n", ONE_CHUNK), 2)
add(PLAIN, "close, then another", request(b"Connection: close\r\n", method=b"GET") + HIDDEN, 1)
for method in (b"PUT", b"PATCH", b"DELETE", b"OPTIONS"):
    add(PLAIN, f"{method.decode()} with a body", request(length(len(BODY)), BODY, method=method), 2)

# Two framings. Whichever wins, the connection must end.
BOTH = "both framings"
hidden_behind = END + HIDDEN
for name, tail in (("a whole request", HIDDEN), ("the head of one", b"GET " + HIDDEN_PATH + b" HTTP/1.1\r\nX: ")):
    body = END + tail
    add(BOTH, f"CL.TE, {name}", request(length(len(body)) + CHUNKED, body), 0, 1)
    add(BOTH, f"CL.TE, coding first, {name}", request(CHUNKED + length(len(body)), body), 0, 1)
add(BOTH, "TE.CL", request(length(4) + CHUNKED, chunk(HIDDEN) + END), 0, 1)
add(BOTH, "TE.CL, coding first", request(CHUNKED + length(4), chunk(HIDDEN) + END), 0, 1)
add(BOTH, "TE.0: no length at all", request(b"Transfer-Encoding: chunked\r\n", chunk(HIDDEN) + END, method=b"OPTIONS"), 2)
add(BOTH, "TE and a length of 0", request(CHUNKED + length(0), chunk(HIDDEN) + END), 0, 1)
add(BOTH, "TE and a length that is none", request(CHUNKED + length(b"x"), END), 0, 1)
add(BOTH, "a length of the chunked body", request(length(len(ONE_CHUNK)) + CHUNKED, ONE_CHUNK), 0, 1)
add(BOTH, "three lengths and a coding", request(length(5) * 3 + CHUNKED, hidden_behind), 0, 1)

# Codings that one parser takes for chunked and another does not, with a length for that other.
CODING = "obfuscated coding"
NAME = b"Transfer-Encoding"
SPELLINGS = {
    "x before": NAME + b": xchunked",
    "x behind": NAME + b": chunkedx",
    "cut short": NAME + b": chunk",
    "identity": NAME + b": identity",
    "empty": NAME + b":",
    "a comma": NAME + b": ,",
    "chunked, identity": NAME + b": chunked, identity",
    "identity, chunked": NAME + b": identity, chunked",
    "gzip, chunked": NAME + b": gzip, chunked",
    "chunked twice": NAME + b": chunked, chunked",
    "a comma behind": NAME + b": chunked,",
    "a comma before": NAME + b": , chunked",
    "two words": NAME + b": cow chunked",
    "quoted": NAME + b': "chunked"',
    "in apostrophes": NAME + b": 'chunked'",
    "a parameter": NAME + b": chunked;q=1",
    "a semicolon": NAME + b": chunked;",
    "two lines, x last": NAME + b": chunked\r\n" + NAME + b": x",
    "two lines, x first": NAME + b": x\r\n" + NAME + b": chunked",
    "two lines, identity last": NAME + b": chunked\r\n" + NAME + b": identity",
    "two lines, both chunked": NAME + b": chunked\r\n" + NAME + b": chunked",
    "space before the colon": NAME + b" : chunked",
    "tab before the colon": NAME + b"\t: chunked",
    "NUL before the colon": NAME + b"\0: chunked",
    "word before the colon": NAME + b" x: chunked",
    "no space": NAME + b":chunked",
    "a tab": NAME + b":\tchunked",
    "two spaces": NAME + b":  chunked",
    "space behind": NAME + b": chunked ",
    "tab behind": NAME + b": chunked\t",
    "vertical tab": NAME + b":\x0bchunked",
    "form feed": NAME + b":\x0cchunked",
    "vertical tab behind": NAME + b": chunked\x0b",
    "NUL behind": NAME + b": chunked\0",
    "NUL before": NAME + b": \0chunked",
    "FF": NAME + b":\xffchunked",
    "no-break space": NAME + b":\xa0chunked",
    "next line": NAME + b": chunked\x85",
    "soft hyphen": NAME + b": chunked\xad",
    "an accent": NAME + b": ch\x96nked",
    "a name with an accent": b"Transf\x82r-Encoding: chunked",
    "CR behind": NAME + b": chunked\r",
    "CR before": NAME + b":\rchunked",
    "folded": NAME + b":\r\n chunked",
    "folded with a tab": NAME + b":\r\n\tchunked",
    "folded twice": NAME + b":\r\n \r\n chunked",
    "folded behind": NAME + b": chunked\r\n x",
    "folded by LF": NAME + b":\n chunked",
    "space before the name": b" " + NAME + b": chunked",
    "tab before the name": b"\t" + NAME + b": chunked",
    "CR in the name": b"Transfer\r-Encoding: chunked",
    "space in the name": b"Transfer Encoding: chunked",
    "an underscore": b"Transfer_Encoding: chunked",
    "a backslash": b"Transfer\\Encoding: chunked",
    "percent": b"Transfer-%45ncoding: chunked",
    "behind a bare LF": b"X: x\n" + NAME + b": chunked",
    "behind a bare CR": b"X: x\r" + NAME + b": chunked",
    "behind CR LF CR": b"X: x\r\n\r" + NAME + b": chunked",
    "behind LF CR": b"X: x\n\r" + NAME + b": chunked",
    "behind NUL": b"X: x\0" + NAME + b": chunked",
    "in a folded line": b"X: x\r\n " + NAME + b": chunked",
    "named by Connection": b"Connection: Transfer-Encoding\r\n" + NAME + b": chunked",
    "Content-Encoding": b"Content-Encoding: chunked",
    "no colon": NAME + b" chunked",
}
# Those that mean chunked to everyone, and those that mean nothing: then the length counts.
CLEAR = {"no space", "a tab", "two spaces", "space behind", "tab behind", "named by Connection", "behind a bare LF",
         "a comma before", "a comma behind"}
WITHOUT = {"an underscore", "percent", "Content-Encoding"}
for name, line in SPELLINGS.items():
    seen = {"least": 0, "most": 1} if name in CLEAR else {"least": 2} if name in WITHOUT else {"least": 0}
    lines = line + b"\r\n"
    add(CODING, f"{name}: CL.TE", request(length(len(hidden_behind)) + lines, hidden_behind), **seen)
    if name in WITHOUT:
        seen = {"least": 1, "most": 2}  # The data of the chunk is a request, the last chunk is none.
    prefix = chunk(HIDDEN).partition(b"\r\n")[0] + b"\r\n"
    add(CODING, f"{name}: TE.CL", request(lines + length(len(prefix)), chunk(HIDDEN) + END), **seen)

# Lengths.
LENGTH = "lengths"
LENGTHS = {
    "a plus": b"+%d", "a minus": b"-%d", "hexadecimal": b"0x%x", "a list, different": b"0, %d", "an underscore": b"1_%d",
    "a space within": b"1 %d", "a dot": b"%d.0", "an exponent": b"%de0", "quoted": b'"%d"', "a letter behind": b"%dx",
    "vertical tab before": b"\x0b%d", "NUL behind": b"%d\0", "a semicolon": b"%d;", "a comma behind": b"%d,",
    "Arabic digits": "Content-Length: ٥".encode().partition(b": ")[2], "superscript": "²".encode(), "no-break space": b"\xa0%d",
    "FF behind": b"%d\xff", "CR behind": b"%d\r", "folded": b"\r\n %d",
}
for name, spelling in LENGTHS.items():
    value = spelling % len(HIDDEN) if b"%" in spelling else spelling
    add(LENGTH, name, request(length(value), HIDDEN))
add(LENGTH, "empty", request(length(b""), HIDDEN))
add(LENGTH, "-1", request(length(b"-1"), HIDDEN))
for name, value in {
    "2^31": 2**31, "2^32": 2**32, "2^32 and the true one": 2**32 + len(HIDDEN), "2^63": 2**63, "2^64": 2**64,
    "2^64 and the true one": 2**64 + len(HIDDEN), "a hundred digits": 10**100,
}.items():
    add(LENGTH, name, request(length(value), HIDDEN))
add(LENGTH, "leading zeros", request(length(b"000%d" % len(HIDDEN)), HIDDEN), 0, 2)
add(LENGTH, "two, different", request(length(0) + length(len(HIDDEN)), HIDDEN))
add(LENGTH, "two, different, the greater first", request(length(len(HIDDEN)) + length(0), HIDDEN))
add(LENGTH, "two, equal", request(length(len(HIDDEN)) * 2, HIDDEN), 0, 2)
add(LENGTH, "two, equal but for zeros", request(length(len(HIDDEN)) + length(b"0%d" % len(HIDDEN)), HIDDEN), 0, 2)
add(LENGTH, "a list, equal", request(length(b"%d, %d" % (len(HIDDEN), len(HIDDEN))), HIDDEN), 0, 2)
add(LENGTH, "space before the colon", request(b"Content-Length : %d\r\n" % len(HIDDEN), HIDDEN))
add(LENGTH, "space in the name", request(b"Content Length: %d\r\n" % len(HIDDEN), HIDDEN))
add(LENGTH, "an underscore in the name", request(b"Content_Length: %d\r\n" % len(HIDDEN), HIDDEN), 3)
add(LENGTH, "no colon", request(b"Content-Length %d\r\n" % len(HIDDEN), HIDDEN))
add(LENGTH, "behind a bare CR", request(b"X: x\rContent-Length: %d\r\n" % len(HIDDEN), HIDDEN))
add(LENGTH, "behind a bare LF", request(b"X: x\nContent-Length: %d\r\n" % len(HIDDEN), HIDDEN), 0, 2)
add(LENGTH, "behind NUL", request(b"X: x\0Content-Length: %d\r\n" % len(HIDDEN), HIDDEN))
add(LENGTH, "in a folded line", request(b"X: x\r\n Content-Length: %d\r\n" % len(HIDDEN), HIDDEN))
add(LENGTH, "named by Connection", request(b"Connection: Content-Length\r\n" + length(len(HIDDEN)), HIDDEN), 2)
add(LENGTH, "too short by one", request(length(len(BODY) - 1), BODY), 1, 2)
add(LENGTH, "longer than what comes", request(length(len(HIDDEN) + len(PROBE) + 9), HIDDEN))
add(LENGTH, "no length, a body all the same", request(b"", HIDDEN), 3)
