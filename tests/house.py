#!/usr/bin/env python3
"""Measures the code: files, lines, functions, circles of imports, and the walks that ARCHITECTURE.md lists.

    python3 tests/house.py            from the repository's root; ends with 1 if a limit is broken

Tests are left out: `tests` modules and directories, and what follows `#[cfg(test)] mod tests`.
"""

import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = [ROOT / "gateway/src", ROOT / "ada2-sidecar/src", *sorted((ROOT / "shared").rglob("src"))]


def is_test(path):
    return any(part in ("tests", "tests.rs") for part in path.parts)


def before_tests(path):
    return re.split(r"#\[cfg\(test\)\]\s*(?:pub\(crate\) )?mod tests\b", path.read_text())[0]


def percentiles(numbers):
    ordered = sorted(numbers)
    return f"median {statistics.median(ordered):.0f}, p90 {ordered[int(len(ordered) * 0.9)]}, max {ordered[-1]}"


def functions(text):
    """Lengths in lines, by counting from `fn` to the brace that closes it at the same indentation."""
    lines = text.split("\n")
    for at, line in enumerate(lines):
        found = re.match(r"( *)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?(?:unsafe )?fn ", line)
        if not found:
            continue
        for end in range(at, len(lines)):
            if lines[end].endswith(";") and end == at:
                break
            if lines[end].startswith(found.group(1) + "}") or (end == at and line.rstrip().endswith("}")):
                yield end - at + 1
                break


def module(source, path):
    parts = path.relative_to(source).with_suffix("").parts
    return () if parts == ("lib",) else parts


def use_paths(tree, prefix=()):
    """Every path of a use tree."""
    tree = tree.strip()
    inner = re.fullmatch(r"((?:\w+::)*)\{(.*)\}", tree, re.S)
    if not inner:
        yield prefix + tuple(re.sub(r" as \w+", "", tree).split("::"))
        return
    prefix += tuple(part for part in inner.group(1).split("::") if part)
    depth, part = 0, ""
    for char in inner.group(2) + ",":
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if part.strip():
                yield from use_paths(part, prefix)
            part = ""
        else:
            part += char


def imports(text, own):
    text = re.sub(r"//[^\n]*", "", text)
    for found in re.finditer(r"use ((?:crate|super|self)(?:::super)*)::([^;]*);", text):
        base = found.group(1).split("::")
        start = () if base[0] == "crate" else own if base[0] == "self" else own[: len(own) - len(base)]
        yield from use_paths(found.group(2), start)
    for found in re.finditer(r"(?<![\w:])crate((?:::\w+)+)", re.sub(r"use [^;]*;", "", text)):
        yield tuple(found.group(1).split("::")[1:])


def circles(source):
    """Groups of files that import one another, arrows between a module and its own ancestors left out."""
    files = {module(source, path): path for path in source.rglob("*.rs") if not is_test(path)}
    edges = {own: set() for own in files}
    for own, path in files.items():
        for target in imports(before_tests(path), own):
            while target and target not in files:
                target = target[:-1]
            related = target == own[: len(target)] or own == target[: len(own)]
            if target and not related:
                edges[own].add(target)
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == node:
                    break
            if len(group) > 1:
                found.append(sorted("/".join(part) for part in group))

    sys.setrecursionlimit(10_000)
    for node in edges:
        if node not in index:
            visit(node)
    return found


def walks():
    """Each numbered walk of ARCHITECTURE.md: how many files, how many jumps back, and steps that are not there."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    for title, steps in re.findall(r"^#### (Walk: [^\n]*)\n((?:.|\n)*?)(?=^#|\Z)", page, re.M):
        files, back, missing = [], 0, []
        for file, function in re.findall(r"^\d+\. `([^`]+)`(?:[^`\n]*`([\w:]+)`)?", steps, re.M):
            path = ROOT / file
            if not path.exists() or function and not re.search(rf"fn {function.split('::')[-1]}\b", path.read_text()):
                missing.append(f"{file} {function}")
            if file in files and files[-1] != file:
                back += 1
            if file not in files:
                files.append(file)
        yield title, len(files), back, missing


# Most files that a request passes, by what the title of its walk ends with.
LONGEST_WALKS = {"image through the gateway": 13, "chat request through the gateway": 11, "image through the sidecar": 13, "/readyz of": 6}
LONGEST_FILE, LONGEST_FUNCTION = 350, 60


def main():
    files = [path for source in SOURCES for path in sorted(source.rglob("*.rs")) if not is_test(path)]
    texts = {path: before_tests(path) for path in files}
    lengths = {path: text.count("\n") for path, text in texts.items()}
    lines = [length for text in texts.values() for length in functions(text)]
    print(f"files      {len(files)}; lines before tests {sum(lengths.values())}; {percentiles(lengths.values())}")
    print(f"functions  {len(lines)}; {percentiles(lines)}")
    problems = []
    for source in SOURCES:
        found = sorted(circles(source), key=len, reverse=True)
        print(f"circles    {source.relative_to(ROOT)}: {len(found)}; largest {len(found[0]) if found else 0} files")
        problems += [f"circle of imports: {', '.join(group)}" for group in found]
    for title, count, back, missing in walks():
        print(f"{title}: {count} files, {back} jumps back")
        problems += [f"{title}: not there: {step}" for step in missing]
        most = [most for name, most in LONGEST_WALKS.items() if name in title]
        if back or any(count > number for number in most):
            problems.append(f"{title}: at most {most} files, no jump back")
    for path, length in lengths.items():
        if length > LONGEST_FILE:
            problems.append(f"{path.relative_to(ROOT)}: {length} lines, at most {LONGEST_FILE} before its tests")
        if any(length > LONGEST_FUNCTION for length in functions(texts[path])):
            problems.append(f"{path.relative_to(ROOT)}: a function of over {LONGEST_FUNCTION} lines")
    print("\n".join(problems) or "none too long, no circle, every walk as short as it should be")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
