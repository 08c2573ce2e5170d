"""The payloads: what is known to make two HTTP parsers disagree, each with a hidden request that must stay hidden.

`CASEID` stands for the number of the case, which has as many characters. A plain request for `/probe` follows each payload on
the same connection: it must get its own response or none.
"""

from dataclasses import dataclass

from fronts import TOKEN

HOST = b"Host: a\r\nAuthorization: Bearer " + TOKEN + b"\r\n"
FIRST, HIDDEN_PATH = b"/f/CASEID/first", b"/f/CASEID/hidden"
HIDDEN = b"GET " + HIDDEN_PATH + b" HTTP/1.1\r\n" + HOST + b"\r\n"
PROBE = b"GET /f/CASEID/probe HTTP/1.1\r\n" + HOST + b"\r\n"
END = b"0\r\n\r\n"
BODY = b"prompt=a+red+fox"


@dataclass
class Payload:
    family: str
    name: str
    data: bytes
    # How many requests, the probe among them, may reach the engine; refusing all is always safe.
    least: int
    most: int


def request(lines=b"", body=b"", method=b"POST", target=FIRST, version=b"HTTP/1.1", host=HOST):
    return method + b" " + target + b" " + version + b"\r\n" + host + lines + b"\r\n" + body


def length(number):
    return b"Content-Length: %s\r\n" % (number if isinstance(number, bytes) else b"%d" % number)


def chunk(data, size=None, ending=b"\r\n"):
    return (b"%x" % len(data) if size is None else size) + b"\r\n" + data + ending


CHUNKED = b"Transfer-Encoding: chunked\r\n"
ONE_CHUNK = chunk(BODY) + END
PAYLOADS = []


def add(family, name, data, least=0, most=None, probe=True):
    most = least if most is None else most
    PAYLOADS.append(Payload(family, name, data + (PROBE if probe else b""), least, most))
