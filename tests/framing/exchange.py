"""One client that sends bytes and collects responses, and the verdict on what came of it."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import strict

# For bytes that no response announced, after all that were due have come.
GRACE = 0.04
# For a response to a request that is not complete.
QUIET = 0.3
LONGEST = 10


@dataclass
class Outcome:
    """What the client got."""

    received: bytes = b""
    closed: bool = False
    # By a reset.
    reset: bool = False
    answers: strict.Reading = field(default_factory=strict.Reading)
    # What the engine saw of this client.
    seen: list = field(default_factory=list)

    def statuses(self):
        return [answer.status for answer in self.answers.messages]


def announces_close(answer):
    return b"close" in answer.items(b"connection")


def patience(reading, outcome):
    """How long to wait for further bytes; None if as long as it takes."""
    answers = outcome.answers
    if answers.end == "incomplete" and (answers.partial or outcome.received):
        return None
    if answers.messages and announces_close(answers.messages[-1]):
        return GRACE
    if len(answers.messages) < len(reading.messages):
        return None
    return {"complete": GRACE, "incomplete": QUIET}.get(reading.end)


async def converse(front, address, pieces, reading):
    """Sends the pieces from this address, and reads until all responses are there, or the connection ends."""
    outcome = Outcome()
    methods = [message.method for message in reading.messages]
    methods += [reading.partial.method] if reading.partial else []
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=front.tls, local_addr=(address, 0))
    end = time.monotonic() + LONGEST
    try:
        with contextlib.suppress(OSError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if len(pieces) > 1:
                    await asyncio.sleep(0.002)
        while not outcome.closed and time.monotonic() < end:
            wait = patience(reading, outcome)
            try:
                piece = await asyncio.wait_for(reader.read(65536), min(wait or LONGEST, end - time.monotonic()))
            except TimeoutError:
                break
            except OSError:
                piece, outcome.reset = b"", True
            outcome.closed = not piece
            outcome.received += piece
            outcome.answers = strict.responses(outcome.received, methods, outcome.closed)
            if outcome.answers.end == "invalid":
                break
    finally:
        writer.transport.abort()
    return outcome


def without_empty_query(target):
    """ASGI does not tell `/a?` from `/a`."""
    return target[:-1] if target.find(b"?") == len(target) - 1 else target


def same(seen, message):
    """Whether the engine saw this request; of a body that it did not read to its end, the beginning."""
    if (seen.method, without_empty_query(seen.target)) != (message.method, without_empty_query(message.target)):
        return False
    return message.body == seen.body if seen.complete else message.body.startswith(seen.body)


def judge_engine(reading, outcome):
    """The engine saw requests that were sent, in their order, no other and none twice."""
    due = reading.messages + ([reading.partial] if reading.partial else [])
    at = 0
    for seen in outcome.seen:
        while at < len(due) and not same(seen, due[at]):
            at += 1
        if at == len(due):
            yield f"the engine saw what was not sent: {seen.method} {seen.target} with {seen.body[:80]}"
            return
        if due[at].refuse:
            yield f"the engine saw a request that has {due[at].refuse}"
        if due[at] is reading.partial and seen.complete:
            yield "the engine saw an incomplete request as a complete one"
        at += 1


def judge_answers(reading, outcome):
    """A response for each request, in their order, then nothing; or a refusal as the last."""
    due, answers = reading.messages, outcome.answers
    if answers.end == "invalid":
        yield f"the client got what is no response: {answers.why}"
    by_number = {b"%d" % seen.number: seen for seen in outcome.seen}
    echoed = set()
    for at, answer in enumerate(answers.messages):
        expected = due[at] if at < len(due) else reading.partial if at == len(due) else None
        number = answer.values(b"x-seen")
        if number:
            seen = by_number.get(number[0])
            if not seen or not expected or not same(seen, expected):
                yield f"response {at + 1} is that to another request"
            echoed.add(number[0])
        elif answer.status < 400:
            yield f"response {at + 1} comes from nobody: {answer.status}"
        elif not expected and (at > len(due) or reading.end == "complete" or reading.end == "closed" and not reading.lenient):
            yield f"response {at + 1} answers no request"
    for number, seen in by_number.items():
        # A client that still sends when the connection is closed may lose responses to the reset, as TCP has it.
        if seen.complete and number not in echoed and not outcome.reset:
            yield f"no response to what the engine saw: {seen.method} {seen.target}"
    last = answers.messages[-1] if answers.messages else None
    ended = outcome.closed or (last and announces_close(last))
    if reading.end in ("invalid", "closed") and len(answers.messages) >= len(due) and not ended:
        yield "the connection stays open behind what ends it"
    if reading.end == "complete" and len(answers.messages) < len(due) and not ended:
        yield f"{len(answers.messages)} responses to {len(due)} requests, and the connection stays open"


def judge(reading, outcome):
    return [*judge_engine(reading, outcome), *judge_answers(reading, outcome)]


def judge_connection(connection):
    """What a program of ours wrote to the engine: strict HTTP, every request marked with its client, and seen as it is."""
    reading = strict.requests(bytes(connection.received))
    if reading.end not in ("complete", "incomplete") or reading.lenient:
        yield f"not strict HTTP towards the engine: {reading.why or reading.lenient}: {bytes(connection.received[:300])}"
        return
    messages = reading.messages + ([reading.partial] if reading.partial else [])
    marked = [bool(message.values(b"x-forwarded-for")) for message in messages]
    if any(marked) and not all(marked):
        yield f"a request that nobody forwarded: {bytes(connection.received[:300])}"
    if len(connection.seen) > len(messages) or not all(map(same, connection.seen, messages)):
        yield f"the engine's parser understood something else: {connection.seen} of {bytes(connection.received[:300])}"


def label(outcome, problems):
    """A cell of the table."""
    seen = sum(1 for seen in outcome.seen if seen.complete is not False)
    refused = [str(status) for status in outcome.statuses() if status >= 400]
    parts = [f"{seen} seen"] if seen else []
    if len(outcome.seen) > seen:
        parts.append(f"{len(outcome.seen) - seen} cut off")
    parts += refused or ([] if outcome.statuses() else ["closed" if outcome.closed else "waits"])
    return ("**desync** " if problems else "") + ", ".join(parts)
