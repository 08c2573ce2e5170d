"""Walks through guides: pastes each block that is marked to be run, in order, and compares what is printed.

    walk.py --check PROGRAMS              only what needs no hosts: marks, names, links
    walk.py PROGRAMS NVML DEB [--keep-going] [GUIDE…]
                                          on hosts made for each guide (run.sh calls it)
"""

import concurrent.futures
import pathlib
import sys
import tempfile
import time

import names
import worlds
from guides import fits, parse
from hosts import ROOT, GpuHost, Mac

# The pages that are walked through, each with what its hosts are like before. The rest of the pages is only checked.
WALKS = {
    "gateway/IMAGE_BACKEND_SETUP.md": worlds.setup,
    "gateway/MIGRATION.md": worlds.migration,
    "gateway/POLICY_ENFORCEMENT.md": worlds.installed,
    "gateway/OPERATIONS.md": worlds.installed,
}
CHECKED = (
    "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tests/README.md",
    "ada2-sidecar/README.md", "ada2-sidecar/GUIDE.md", "ada2-sidecar/REFERENCE.md",
    "ada2-sidecar/docs/haproxy.md", "ada2-sidecar/docs/kubernetes.md", "ada2-sidecar/docs/monitoring.md",
    "gateway/README.md", "gateway/GUIDE.md", "gateway/REFERENCE.md",
)


def read(page):
    return parse(pathlib.Path(page), (ROOT / page).read_text())


def check(programs):
    """Every block is marked, and what a page names exists."""
    faults = []
    for page in (*WALKS, *CHECKED):
        blocks, wrong = read(page)
        wrong += names.faults(page, (ROOT / page).read_text(), blocks, programs)
        run = sum(block.host is not None for block in blocks)
        walked = f"{run} of them run" if page in WALKS else "none of them run: names and links only"
        print(f"{'FAIL' if wrong else 'ok  '}  {page}: {len(blocks)} blocks, {walked}")
        faults += wrong
    for fault in faults:
        print(f"FAIL  {fault}")
    return not faults


def walk(page, programs, keep_going):
    """Whether every block did what the page says. Stops at the first that does not, since what follows builds on it, unless
    told to keep going."""
    right = True
    with tempfile.TemporaryDirectory(prefix="ada2-guides-", ignore_cleanup_errors=True) as directory:
        hosts, terminals = [], {}
        try:
            gpu_host = GpuHost(pathlib.Path(directory))
            hosts.append(gpu_host)
            mac = Mac(pathlib.Path(directory), gpu_host)
            hosts.append(mac)
            gpu_host.cards(programs.nvml)
            WALKS[page](gpu_host, mac, programs)
            for block in read(page)[0]:
                if block.host is None:
                    print(f"skip  {block}: {block.reason}", flush=True)
                    continue
                if block.host not in terminals:
                    terminals[block.host] = (gpu_host if block.host == "gpu-host" else mac).terminal()
                right = paste(block, terminals[block.host]) and right
                if not right and not keep_going:
                    break
            return right
        finally:
            for terminal in terminals.values():
                terminal.close()
            for host in reversed(hosts):
                host.stop()


def paste(block, terminal):
    begun = time.monotonic()
    status, printed, failed = terminal.paste(block.text)
    took = time.monotonic() - begun
    wrong = None
    if status != block.exit:
        wrong = f"ended with {status} instead of {block.exit}"
    elif failed and block.exit == 0:
        wrong = f"a command failed ({failed})"
    elif block.expected is not None and not fits(block.expected, printed):
        wrong = "printed something else"
    first = block.text.splitlines()[0]
    line = f"{'FAIL' if wrong else 'ok  '}  {block} {block.host} ({took:.1f} s): {first[:80]}"
    if wrong:
        line += f"\n      {wrong}\n--- pasted\n{block.text}--- printed\n{printed}"
        if block.expected is not None:
            line += f"--- expected\n{block.expected}"
        line += "---"
    print(line, flush=True)
    return not wrong


def main(arguments):
    if arguments[0] == "--check":
        return check(pathlib.Path(arguments[1]))
    keep_going = "--keep-going" in arguments
    built, nvml, deb, *pages = (argument for argument in arguments if argument != "--keep-going")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ada2-packages-") as directory:
        deb = pathlib.Path(deb) if deb else None
        programs = worlds.Programs(pathlib.Path(directory), pathlib.Path(built), pathlib.Path(nvml), deb)
        # All at once: they mostly wait.
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(WALKS)) as pool:
            right = list(pool.map(lambda page: walk(page, programs, keep_going), pages or WALKS))
    print(f"{len(right)} guides, {right.count(False)} failed; {time.monotonic() - begun:.0f} s")
    return all(right)


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1:]))
