"""Guides as data: their blocks of commands, how each is marked, and what it should print."""

import dataclasses
import pathlib
import re

HOSTS = ("gpu-host", "mac", "client")
COMMANDS = ("sh", "console")
ANYTHING = "…"

_MARK = re.compile(r"<!-- (?:run: (?P<host>[a-z-]+)(?:, exit (?P<exit>\d+))?|not run: (?P<reason>\S.*)) -->")
_FENCE = re.compile(r"```(?P<language>[a-z]*)$")


@dataclasses.dataclass
class Block:
    """Commands as a reader pastes them. `host` is None for those that are not run; `reason` says why."""

    file: pathlib.Path
    line: int
    text: str
    host: str | None
    reason: str | None
    exit: int
    expected: str | None = None

    def __str__(self):
        return f"{self.file}:{self.line}"


def parse(file, text):
    """The blocks of a guide, and what is wrong with how they are marked."""
    blocks, faults = [], []
    lines = text.splitlines()
    above, last, number = "", None, 0
    while number < len(lines):
        line = lines[number]
        fence = _FENCE.match(line)
        if not fence:
            if line.strip():
                above, last = line.strip(), None
            number += 1
            continue
        end = next((at for at in range(number + 1, len(lines)) if lines[at] == "```"), None)
        if end is None:
            faults.append(f"{file}:{number + 1}: the block has no end")
            break
        body = "\n".join(lines[number + 1:end]) + "\n"
        if fence["language"] in COMMANDS:
            last = _block(file, number + 1, body, above, faults)
            if last:
                blocks.append(last)
        elif fence["language"] == "text" and last:
            last.expected, last = body, None
        else:
            last = None
        above, number = "", end + 1
    return blocks, faults


def _block(file, line, body, above, faults):
    mark = _MARK.fullmatch(above)
    where = f"{file}:{line}"
    if not mark:
        faults.append(f"{where}: unmarked commands; above them: <!-- run: {' | '.join(HOSTS)} --> or <!-- not run: REASON -->")
        return None
    if mark["host"] and mark["host"] not in HOSTS:
        faults.append(f"{where}: there is no host {mark['host']}; there are: {', '.join(HOSTS)}")
        return None
    # Nobody's shell on a Mac is told to allow comments: zsh takes what is behind a # for words, and an apostrophe in
    # it for the begin of a text.
    if mark["host"] in ("mac", "client") and re.search(r"^\s*#|\s#\s", body, re.MULTILINE):
        faults.append(f"{where}: a comment in commands for a Mac, whose shell does not know comments")
    return Block(file, line, body, mark["host"], mark["reason"], int(mark["exit"] or 0))


def fits(expected, printed):
    """Whether this was printed: `…` stands for anything in a line, alone in a line for any lines."""
    pattern = ""
    for line in expected.rstrip("\n").split("\n"):
        if line.strip() == ANYTHING:
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += r"[^\n]*".join(re.escape(part) for part in line.rstrip().split(ANYTHING)) + r"[ \t]*\n"
    return re.fullmatch(pattern, printed.rstrip("\n") + "\n") is not None
