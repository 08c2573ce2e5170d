"""Heads: lines, methods, targets, versions, expectations, upgrades."""

from payloads import BODY, CHUNKED, END, FIRST, HIDDEN, HOST, ONE_CHUNK, add, chunk, length, request

HEAD = "heads"
first_line = b"POST " + FIRST + b" HTTP/1.1\r\n"
for name, lines in {
    "obs-fold": b"X: a\r\n b\r\n", "obs-fold of a length": b"X: a\r\n Content-Length: 9\r\n", "no colon": b"X\r\n", "no name": b": x\r\n",
    "NUL": b"X: \0\r\n", "NUL in the name": b"X\0: x\r\n", "bare CR": b"X: a\rb\r\n", "CR at the end": b"X: a\r\r\n",
    "space before the colon": b"X : a\r\n", "DEL": b"X: \x7f\r\n", "bell": b"X: \x07\r\n", "a space as a name": b" : x\r\n",
    "a name in quotes": b'"X": x\r\n', "a name with an accent": "é: x\r\n".encode(), "a request line": HIDDEN[: HIDDEN.index(b"\r\n") + 2],
    "a bracket in the name": b"X(: x\r\n", "CR only": b"\r\r\n",
}.items():
    add(HEAD, name, request(lines + length(0), HIDDEN))
add(HEAD, "bytes beyond ASCII in a value", request(b"X: \xff\x80\xa0\r\n" + length(0)), 0, 2)
add(HEAD, "an underscore in a name", request(b"X_Y: 1\r\n" + length(0)), 2)
add(HEAD, "X_Forwarded_For", request(b"X_Forwarded_For: 1.2.3.4\r\n" + length(0)), 0, 2)
add(HEAD, "X-Forwarded-For", request(b"X-Forwarded-For: 1.2.3.4\r\n" + length(0)), 0, 2)
add(HEAD, "an empty value", request(b"X:\r\n" + length(0)), 2)
add(HEAD, "an empty line first", b"\r\n" + request(length(0)), 0, 2)
add(HEAD, "ten empty lines first", b"\r\n" * 10 + request(length(0)), 0, 2)
add(HEAD, "an empty line between two", request(length(len(BODY)), BODY) + b"\r\n" + HIDDEN, 1, 3)
add(HEAD, "an LF between two", request(length(len(BODY)), BODY) + b"\n" + HIDDEN, 1, 3)
add(HEAD, "a CR between two", request(length(len(BODY)), BODY) + b"\r" + HIDDEN, 1)
add(HEAD, "a space between two", request(length(len(BODY)), BODY) + b" " + HIDDEN, 1)
add(HEAD, "NUL between two", request(length(len(BODY)), BODY) + b"\0" + HIDDEN, 1)
add(HEAD, "all lines end in LF", request(length(len(BODY)), b"").replace(b"\r\n", b"\n") + BODY, 0, 2)
add(HEAD, "the empty line is LF", request(length(0))[:-2] + b"\n" + HIDDEN, 0, 3)
add(HEAD, "the empty line is LF, chunked", request(CHUNKED)[:-2] + b"\n" + chunk(HIDDEN) + END, 0, 2)
add(HEAD, "the empty line is CR", request(length(0))[:-2] + b"\r" + HIDDEN)
add(HEAD, "LF LF within a line", request(b"X: a\n\n" + HIDDEN), 0, 3)
add(HEAD, "a space before the first line", first_line + b" " + HOST + length(0) + b"\r\n" + HIDDEN)
add(HEAD, "two hosts", request(b"Host: b\r\n" + length(0), HIDDEN), 0, 2)
add(HEAD, "two equal hosts", request(b"Host: a\r\n" + length(0), HIDDEN), 0, 2)
add(HEAD, "no host", request(length(0), HIDDEN, host=HOST.partition(b"\r\n")[2]), 0, 2)
add(HEAD, "a host with a space", request(length(0), HIDDEN, host=HOST.replace(b": a", b": a b")), 0, 2)
add(HEAD, "a host with a path", request(length(0), HIDDEN, host=HOST.replace(b": a", b": a/b")), 0, 2)
add(HEAD, "an empty host", request(length(0), HIDDEN, host=HOST.replace(b": a", b":")), 0, 3)
add(HEAD, "Connection names Host", request(b"Connection: Host\r\n" + length(0)), 2)
add(HEAD, "Connection names all", request(b"Connection: close, Host, Content-Length, X\r\n" + length(len(BODY)), BODY), 1)
add(HEAD, "Connection: keep-alive, close", request(b"Connection: keep-alive, close\r\n" + length(0), HIDDEN), 1)
CONTRARY = b"Connection: close\r\nConnection: keep-alive\r\n"
add(HEAD, "Connection: close, Connection: keep-alive", request(CONTRARY + length(0), HIDDEN), 1)
add(HEAD, "99 lines more", request(b"X: 1\r\n" * 90 + length(0)), 2)
add(HEAD, "1000 lines", request(b"X: 1\r\n" * 1000 + length(0)), 0, 2)

TARGET = "methods and targets"
for name, method in {"GET": b"GET", "HEAD": b"HEAD", "TRACE": b"TRACE", "its own": b"GPOST"}.items():
    least = 2 if method in (b"GET", b"HEAD") else 0
    add(TARGET, f"{name} with a body", request(length(len(HIDDEN)), HIDDEN, method=method), least, 2)
    add(TARGET, f"{name}, chunked", request(CHUNKED, chunk(HIDDEN) + END, method=method), least, 2)
    add(TARGET, f"{name}, body never sent", request(length(2000), b"", method=method))
add(TARGET, "CONNECT", request(method=b"CONNECT", target=b"a:80") + HIDDEN, 0, 2)
add(TARGET, "CONNECT with a body", request(length(len(HIDDEN)), HIDDEN, method=b"CONNECT", target=b"a:80"), 0, 1)
add(TARGET, "CONNECT with a path", request(method=b"CONNECT") + HIDDEN, 0, 2)
for name, method in {"lower case": b"post", "a dash": b"M-SEARCH", "PRI": b"PRI", "one letter": b"P", "long": b"P" * 300}.items():
    add(TARGET, f"method: {name}", request(length(len(BODY)), BODY, method=method), 0, 2)
for name, method in {
    "a bracket": b"PO(ST", "NUL": b"PO\0ST", "a colon": b"POST:", "a space first": b" POST", "a tab first": b"\tPOST",
    "a byte beyond ASCII": b"P\xd6ST", "empty": b"",
}.items():
    add(TARGET, f"method: {name}", request(length(0), HIDDEN, method=method))
for name, target in {
    "encoded CR LF": FIRST + b"%0d%0aX:%20y", "encoded request": FIRST + b"%20HTTP/1.1%0d%0a%0d%0aGET%20/hidden", "encoded NUL": FIRST + b"%00",
    "two slashes": b"/" + FIRST, "dots": b"/f/CASEID/../first", "encoded dots": b"/f/CASEID/%2e%2e/first", "braces": FIRST + b"{a}",
    "a backslash": FIRST + b"\\a", "quotes": FIRST + b'"a"', "a pipe": FIRST + b"|a", "a half escape": FIRST + b"%a", "a colon": b"/f:80/CASEID",
    "a question mark twice": FIRST + b"?a?b", "an at sign": b"/f@b/CASEID", "absolute": b"http://a" + FIRST,
    "absolute, capitals": b"HTTP://A" + FIRST, "absolute, another host": b"http://b" + FIRST, "absolute, https": b"https://a" + FIRST,
    "absolute, user": b"http://u:p@a" + FIRST, "absolute, only a host": b"http://a", "absolute, a query": b"http://a?f=CASEID",
    "a fragment": FIRST + b"#a", "bytes beyond ASCII": FIRST + "/é".encode(), "no UTF-8": FIRST + b"\xff", "long": FIRST + b"a" * 5000,
    "a semicolon": FIRST + b";a=b", "absolute within": FIRST + b"?u=http://b/", "star": b"*",
}.items():
    add(TARGET, f"target: {name}", request(length(len(BODY)), BODY, target=target), 0, 2)
for name, target in {
    "a space": FIRST + b" x", "a tab": FIRST + b"\tx", "NUL": FIRST + b"\0", "CR": FIRST + b"\rx", "DEL": FIRST + b"\x7f", "no slash": b"first",
    "authority": b"a:80", "empty": b"", "another scheme": b"ftp://a" + FIRST, "two spaces first": b" " + FIRST, "a space behind": FIRST + b" ",
}.items():
    most = {"no slash": 2, "authority": 2, "another scheme": 3}.get(name, 0)
    add(TARGET, f"target: {name}", request(length(0), HIDDEN, target=target), 0, most)

VERSION = "versions"
for name, version in {
    "0.9": b"HTTP/0.9", "1.2": b"HTTP/1.2", "1.10": b"HTTP/1.10", "2.0": b"HTTP/2.0", "lower case": b"http/1.1", "no dot": b"HTTP/11",
    "a plus": b"HTTP/+1.1", "a space": b"HTTP/ 1.1", "a space behind": b"HTTP/1.1 ", "a letter behind": b"HTTP/1.1x", "1.01": b"HTTP/1.01",
    "another protocol": b"HTCPCP/1.1", "empty": b"",
}.items():
    add(VERSION, name, request(length(0), HIDDEN, version=version))
add(VERSION, "no version", b"GET " + FIRST + b"\r\n" + HIDDEN)
KEEP = b"Connection: keep-alive\r\n"
add(VERSION, "1.0", request(method=b"GET", version=b"HTTP/1.0") + HIDDEN, 1)
add(VERSION, "1.0, keep-alive", request(KEEP + length(len(HIDDEN)), HIDDEN, version=b"HTTP/1.0"), 1, 2)
add(VERSION, "1.0, chunked", request(CHUNKED, END + HIDDEN, version=b"HTTP/1.0"))
add(VERSION, "1.0, chunked, keep-alive", request(KEEP + CHUNKED, END + HIDDEN, version=b"HTTP/1.0"))
add(VERSION, "1.0, chunked and a length", request(KEEP + length(len(END + HIDDEN)) + CHUNKED, END + HIDDEN, version=b"HTTP/1.0"))
add(VERSION, "1.0, a body without a length", request(b"", HIDDEN, version=b"HTTP/1.0"), 1)
add(VERSION, "1.0, no host", request(method=b"GET", version=b"HTTP/1.0", host=HOST.partition(b"\r\n")[2]), 1, 1)

EARLY = "expectations and early responses"
for name, expect in {
    "": b"100-continue", " obfuscated by a letter": b"y 100-continue", " in capitals": b"100-CONTINUE", " quoted": b'"100-continue"',
    " with a space": b" 100-continue ", " 101": b"101-continue", " twice": b"100-continue, 100-continue", " with a tab": b"\t100-continue",
    " with a parameter": b"100-continue;a=b", " empty": b"", " beyond ASCII": b"100-continue\xa0",
}.items():
    line = b"Expect: " + expect + b"\r\n"
    for kind, target in (("", FIRST), (", early response", FIRST + b"/early")):
        lines = line + length(len(HIDDEN))
        add(EARLY, f"CL.0, Expect{name}{kind}", request(lines, HIDDEN, target=target), 0, 2)
        add(EARLY, f"0.CL, GET, Expect{name}{kind}", request(lines, HIDDEN, method=b"GET", target=target), 0, 2)
        add(EARLY, f"Expect{name}, chunked{kind}", request(line + CHUNKED, chunk(HIDDEN) + END, target=target), 0, 2)
add(EARLY, "Expect folded", request(b"Expect:\r\n 100-continue\r\n" + length(len(HIDDEN)), HIDDEN))
add(EARLY, "Expect twice, different", request(b"Expect: 100-continue\r\nExpect: x\r\n" + length(len(HIDDEN)), HIDDEN), 0, 2)
add(EARLY, "Expect without a body", request(b"Expect: 100-continue\r\n", method=b"GET"), 0, 2)
add(EARLY, "Expect in HTTP/1.0", request(b"Expect: 100-continue\r\n" + length(len(HIDDEN)), HIDDEN, version=b"HTTP/1.0"), 0, 1)
for method in (b"POST", b"GET", b"HEAD", b"OPTIONS"):
    name, target = method.decode(), FIRST + b"/early"
    add(EARLY, f"{name}, a body nobody reads", request(length(len(HIDDEN)), HIDDEN, method=method, target=target), 1, 2)
    add(EARLY, f"{name}, chunks nobody reads", request(CHUNKED, chunk(HIDDEN) + END, method=method, target=target), 1, 2)
    add(EARLY, f"{name}, a body that stops", request(length(9999), HIDDEN, method=method, target=target), 0, 1, probe=False)
    add(EARLY, f"{name}, chunks that break", request(CHUNKED, chunk(HIDDEN) + b"x" + HIDDEN, method=method, target=target), 0, 1)
add(EARLY, "a large body nobody reads", request(length(300_000), b"x" * 300_000, target=FIRST + b"/early"), 1, 2)

UPGRADE = "upgrades"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: "
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
add(UPGRADE, "h2c", request(H2C, method=b"GET") + HIDDEN, 1, 3)
add(UPGRADE, "h2c with a body", request(H2C + length(len(HIDDEN)), HIDDEN), 1, 2)
add(UPGRADE, "h2c, chunked", request(H2C + CHUNKED, ONE_CHUNK), 1, 2)
add(UPGRADE, "h2c not named by Connection", request(b"Upgrade: h2c\r\n", method=b"GET") + HIDDEN, 1, 3)
add(UPGRADE, "HTTP/2 by its preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN)
add(UPGRADE, "websocket, refused by the engine", request(WEBSOCKET + b"13\r\n", method=b"GET") + HIDDEN, 0, 3)
add(UPGRADE, "websocket, a wrong version", request(WEBSOCKET + b"777\r\n", method=b"GET") + HIDDEN, 0, 3)
add(UPGRADE, "websocket with a body", request(WEBSOCKET + b"13\r\n" + length(len(HIDDEN)), HIDDEN, method=b"GET"), 0, 2)
add(UPGRADE, "websocket, POST", request(WEBSOCKET + b"13\r\n" + length(len(BODY)), BODY), 0, 2)
add(UPGRADE, "websocket in HTTP/1.0", request(WEBSOCKET + b"13\r\n", method=b"GET", version=b"HTTP/1.0") + HIDDEN, 0, 1)
BOTH = WEBSOCKET.replace(b": websocket", b": websocket, h2c") + b"13\r\n"
add(UPGRADE, "websocket, h2c", request(BOTH, method=b"GET") + HIDDEN, 0, 3)
add(UPGRADE, "TLS/1.0", request(b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", method=b"GET") + HIDDEN, 1, 3)
