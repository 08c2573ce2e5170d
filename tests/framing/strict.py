"""HTTP/1.1 as RFC 9112 has it: which requests, and which responses, a stream of bytes holds.

One reading and no other: what the RFC lets a server refuse or repair is repaired where one repair is possible, and named in
`lenient`; everything else ends the reading as `invalid`. A server may refuse more, and may never find another request.
"""

import re
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n")
CHUNK_LINE_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]+[ \t]*(?:;[^\r\n]*)?\r?)?")
ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://([^/?#]+)(.*)")
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=\-]*)(?::[0-9]*)?")


class Incomplete(Exception):
    """The bytes end in the middle of a message."""


class Invalid(Exception):
    """No message begins like this."""


@dataclass
class Message:
    method: bytes = b""
    target: bytes = b""
    version: int = 1
    status: int = 0
    fields: list = field(default_factory=list)
    body: bytes = b""
    # Why the engine must not see it, although its end is certain.
    refuse: str = ""
    # Whether no other message may follow it.
    last: bool = False

    def values(self, name):
        return [value for given, value in self.fields if given == name]

    def items(self, name):
        items = (item.strip(b" \t").lower() for value in self.values(name) for item in value.split(b","))
        return [item for item in items if item]


@dataclass
class Reading:
    messages: list = field(default_factory=list)
    # "complete", "incomplete", "invalid", or "closed": what follows is no message.
    end: str = "complete"
    why: str = ""
    # The message whose head is complete and whose body is not, or is invalid.
    partial: Message = None
    lenient: list = field(default_factory=list)


class Reader:
    def __init__(self, data):
        self.data, self.at, self.lenient = data, 0, []

    def line(self, bare_lf=True):
        """Up to the next line feed, without its terminator."""
        end = self.data.find(b"\n", self.at)
        line = self.data[self.at : end if end >= 0 else len(self.data)]
        if b"\r" in line[:-1]:
            raise Invalid("CR within a line")
        if end < 0:
            raise Incomplete
        if line.endswith(b"\r"):
            line = line[:-1]
        elif bare_lf:
            self.lenient.append("a bare LF")
        else:
            raise Invalid("a bare LF")
        self.at = end + 1
        return line

    def fields(self, bare_lf=True):
        found = []
        while line := self.line(bare_lf):
            match = FIELD.fullmatch(line)
            if not match:
                raise Invalid(f"a header line {line[:60]!r}")
            found.append((match[1].lower(), match[2]))
        return found

    def take(self, length, message):
        message.body += self.data[self.at : self.at + length]
        if len(self.data) - self.at < length:
            raise Incomplete
        self.at += length

    def chunks(self, message):
        while True:
            line = CHUNK_LINE.match(self.data, self.at)
            if not line:
                if CHUNK_LINE_BEGUN.fullmatch(self.data, self.at):
                    raise Incomplete
                raise Invalid(f"a chunk size {self.data[self.at : self.at + 20]!r}")
            self.at = line.end()
            size = int(line[1], 16)
            if size == 0:
                known = len(self.lenient)
                self.fields()
                # Where a line feed may or may not end the trailers, nothing behind them is certain.
                message.last |= len(self.lenient) > known
                return
            self.take(size, message)
            ending = self.data[self.at : self.at + 2]
            if not b"\r\n".startswith(ending):
                raise Invalid("a chunk that ends with another line terminator")
            if ending != b"\r\n":
                raise Incomplete
            self.at += 2


def length_of(message):
    """The number that all lengths agree on."""
    lengths = set()
    for item in (item for value in message.values(b"content-length") for item in value.split(b",")):
        item = item.strip(b" \t")
        if not re.fullmatch(rb"[0-9]+", item):
            raise Invalid(f"a length {item[:30]!r}")
        lengths.add(int(item))
    if len(lengths) > 1:
        raise Invalid("different lengths")
    return lengths.pop()


def check_host(message):
    """Finds the target in origin form, and who must not be served."""
    hosts = message.values(b"host")
    if len(hosts) > 1 or (message.version == 1 and not hosts):
        message.refuse = f"{len(hosts)} hosts"
    elif hosts and not HOST.fullmatch(hosts[0]):
        message.refuse = "a host that is none"
    absolute = ABSOLUTE.fullmatch(message.target)
    if message.method == b"CONNECT":
        message.refuse = "CONNECT"
    elif absolute:
        message.target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    elif not message.target.startswith(b"/") and message.target != b"*":
        message.refuse = "a target without a path"
    message.target = message.target.partition(b"#")[0]


def read_head(reader, message):
    """Returns the length of the body, None if it is chunked."""
    message.fields = reader.fields()
    check_host(message)
    options = message.items(b"connection")
    message.last = b"close" in options or (message.version == 0 and b"keep-alive" not in options)
    has_length = bool(message.values(b"content-length"))
    if not message.values(b"transfer-encoding"):
        return length_of(message) if has_length else 0
    if message.version == 0:
        raise Invalid("Transfer-Encoding in HTTP/1.0")
    if message.items(b"transfer-encoding") != [b"chunked"]:
        raise Invalid("a Transfer-Encoding that is not chunked alone")
    if has_length:
        reader.lenient.append("both Transfer-Encoding and Content-Length")
        message.last = True
    return None


def requests(data):
    reader, reading = Reader(data), Reading()
    reading.lenient = reader.lenient
    while reader.at < len(data):
        try:
            line = reader.line()
            if not line:
                reader.lenient.append("an empty line before a request")
                continue
            parts = REQUEST_LINE.fullmatch(line)
            if not parts:
                raise Invalid(f"a request line {line[:60]!r}")
            message = Message(method=parts[1], target=parts[2], version=int(parts[3]))
            length = read_head(reader, message)
            reading.partial = message
            reader.chunks(message) if length is None else reader.take(length, message)
        except (Incomplete, Invalid) as problem:
            reading.end, reading.why = type(problem).__name__.lower(), str(problem)
            return reading
        reading.partial = None
        reading.messages.append(message)
        if message.last:
            reading.end = "closed"
            return reading
    return reading


def responses(data, methods, closed):
    """Final responses to requests with these methods; `partial` is one that goes on."""
    reader, reading = Reader(data), Reading()
    while reader.at < len(data):
        try:
            parts = STATUS_LINE.fullmatch(reader.line(bare_lf=False))
            if not parts:
                raise Invalid("a status line")
            number = len(reading.messages)
            message = Message(method=methods[number] if number < len(methods) else b"", status=int(parts[1]))
            message.fields = reader.fields(bare_lf=False)
            if message.status < 200:
                continue
            reading.partial = message
            if message.method == b"HEAD" or message.status in (204, 304):
                pass
            elif message.values(b"transfer-encoding"):
                if message.items(b"transfer-encoding") != [b"chunked"] or message.values(b"content-length"):
                    raise Invalid("a framing of the response")
                reader.chunks(message)
            elif message.values(b"content-length"):
                reader.take(length_of(message), message)
            elif not closed:
                raise Incomplete
            else:
                reader.take(len(data) - reader.at, message)
        except (Incomplete, Invalid) as problem:
            reading.end, reading.why = type(problem).__name__.lower(), str(problem)
            return reading
        reading.partial = None
        reading.messages.append(message)
    return reading
