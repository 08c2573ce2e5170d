"""Whether what a page names exists: files, anchors, subcommands and flags of both programs, settings, error codes."""

import functools
import pathlib
import re
import shlex
import subprocess

from hosts import ROOT

PROGRAMS = {"ada2-sidecar": "ada2-sidecar", "gateway": "gateway", "gateway-trial": "gateway"}
# Where a program's name stands for the program, and what may stand before it.
BESIDE = ("", ".", "/usr/bin", "/usr/local/bin", "./target/release")
BEFORE = re.compile(r"""sudo|-u|-H|env|exec|until|if|while|do|_?gateway|"?\$ACCOUNT"?|\w+=.*""")
SCRIPTS = ("install.sh", "deploy.sh", "rollback.sh")
# Settings of the old gateway that pages mention, and the variable that the example of the backends uses.
FOREIGN = {"UI_IMAGE_TTL_SEC", "UI_IMAGE_MAX_BYTES", "ADA2_HOST"}
# Paths of the engine that the example in CONTRIBUTING.md adds.
EXAMPLE = re.compile(r"[\w./-]+/acme\b[\w./-]*")
OURS = re.compile(r"\b(?:ADA2|GATEWAY|IMAGES|UI_IMAGE|HEALTH_CHECK|BACKEND)_[A-Z_]+[A-Z]\b")
DIRECTORIES = ("ada2-sidecar/", "gateway/", "launchd/", "systemd/", "tests/", ".ci/")


def faults(page, text, blocks, built):
    """What is wrong with the names of this page, each with its line where it has one."""
    spans = [(text.count("\n", 0, found.start()) + 1, found[1].replace("\\|", "|"))
             for found in re.finditer(r"(?<!`)`([^`\n]+)`(?!`)", text)]
    codes = [(block.line + number, line) for block in blocks for number, line in _lines(block.text)]
    found = list(_links(page, text))
    for line, code in spans + codes:
        found += [f"{page}:{line}: {fault}" for fault in _code(code, built)]
    for match in re.finditer(r"\b[45]\d\d `([a-z_]+)`", text):
        if f'"{match[1]}"' not in _source("shared/wire/src/openai/error.rs"):
            found.append(f"{page}:{text.count(chr(10), 0, match.start()) + 1}: there is no error code {match[1]}")
    return found


def _lines(text):
    """Commands, each in one line, with the number of its first."""
    begun, joined = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        joined += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        yield begun, joined
        begun, joined = number + 1, ""


def _code(code, built):
    code = EXAMPLE.sub("", code)
    for name in OURS.findall(code):
        known = _source("ada2-sidecar/src/config/keys.rs") + _source("gateway/src/config/keys.rs")
        known += _source("ada2-sidecar/src/cli.rs")
        if name not in FOREIGN and f'"{name}"' not in known:
            yield f"there is no setting {name}"
    yield from _settings(code)
    for path in re.findall(r"(?<![\w./*-])(?:\./)?([a-z0-9.-]+/[\w./-]+)", code):
        if path.startswith(DIRECTORIES) and not path.startswith("target/") and not (ROOT / path).exists():
            yield f"there is no file {path}"
    for example in re.findall(r"/usr/share/doc/ada2-sidecar/examples/([\w.-]+)", code):
        if not (ROOT / "systemd/examples" / example).exists():
            yield f"the package has no example {example}"
    for arguments in _commands(code):
        yield from _command(arguments, built)


def _settings(code):
    """Keys of the sidecar's and the backends' files, written as in them."""
    for key in re.findall(r"(?:^|[{,'] *)([a-z]+_[a-z_]+): (?!Some\()", code):
        known = _source("ada2-sidecar/src/config/keys.rs") + _source("gateway/backends_config.example.yaml")
        # Fields of requests and names of checks are written in the same way.
        known += _source("ada2-sidecar/REFERENCE.md") + _source("ada2-sidecar/GUIDE.md")
        if not any(written in known for written in (f'"{key}"', f"{key}:", f"`{key}`")) and key != "schema_version":
            yield f"there is no setting {key}"


def _commands(code):
    """Each simple command in it as a list of arguments."""
    for part in re.split(r"\|\||&&|[|;&\n]", re.sub(r"\s#\s.*", "", code)):
        try:
            arguments = shlex.split(part)
        except ValueError:
            arguments = part.split()
        # From the program on: what is before it are sudo, variables, and keywords of the shell.
        for at, word in enumerate(arguments):
            directory, _, name = word.rpartition("/")
            if name in SCRIPTS or (name in PROGRAMS and directory in BESIDE):
                if all(BEFORE.fullmatch(one) for one in arguments[:at]):
                    yield [name, *arguments[at + 1:]]
                break


def _command(arguments, built):
    name, rest = arguments[0], arguments[1:]
    if ">" in rest:
        rest = rest[:rest.index(">")]
    if name in SCRIPTS:
        script = _source(f"launchd/{name}")
        for at, word in enumerate(rest):
            verb = at == 0 and re.fullmatch(r"[a-z]+", word)
            known = re.search(rf"(^|[\s(]){re.escape(word)}(\)|\s|$)", script, re.MULTILINE)
            if (verb or re.fullmatch(r"--?[a-z-]+", word)) and not known:
                yield f"{name} does not know {word}"
        return
    subcommand = next((word for word in rest if re.fullmatch(r"[a-z][a-z-]+", word) and word in _subcommands(name, built)), "")
    # The help of a program does not list every subcommand (`man`).
    if not subcommand and rest and re.fullmatch(r"[a-z][a-z-]+", rest[0]) and _help(name, rest[0], built):
        subcommand = rest[0]
    if rest and re.fullmatch(r"[a-z][a-z-]+", rest[0]) and not subcommand:
        yield f"{PROGRAMS[name]} has no subcommand {rest[0]}"
    known = _help(name, subcommand, built) + (_help(name, "", built) if subcommand else "")
    for word in rest:
        flag = re.fullmatch(r"(--[a-z-]+)(=.*)?", word)
        if flag and not re.search(rf"{flag[1]}(?![a-z-])", known):
            yield f"{PROGRAMS[name]} {subcommand} has no flag {flag[1]}"


@functools.cache
def _help(name, subcommand, built):
    """Everything that its help says: the short one is for people in a hurry."""
    program = built / PROGRAMS[name]
    texts = []
    for flag in ("--help-all", "--help"):
        done = subprocess.run([program, *filter(None, [subcommand]), flag], capture_output=True, text=True, timeout=20)
        texts.append(done.stdout if done.returncode == 0 else "")
    return "".join(texts)


@functools.cache
def _subcommands(name, built):
    listed = re.findall(r"^  ([a-z][a-z-]+)(?:  |$)", _help(name, "", built), re.MULTILINE)
    return frozenset(listed)


@functools.cache
def _source(file):
    return (ROOT / file).read_text()


def _links(page, text):
    directory = (ROOT / page).parent
    for found in re.finditer(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = found[1].partition("#")
        line = text.count("\n", 0, found.start()) + 1
        if "://" in target:
            continue
        file = (directory / target) if target else (ROOT / page)
        if not file.exists():
            yield f"{page}:{line}: there is no {found[1]}"
        elif anchor and anchor not in _anchors(file):
            yield f"{page}:{line}: there is no heading for {found[1]}"


@functools.cache
def _anchors(file: pathlib.Path):
    """As GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
