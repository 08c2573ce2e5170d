"""What `package.sh` looks at: the archive, its binary, its property list. A line for each check; exit code 0 or 1."""

import gzip
import pathlib
import plistlib
import re
import subprocess
import sys
import tarfile

# All that the binary may load: on every Mac, and no path of the machine that built it.
LIBRARIES = {
    "/usr/lib/libSystem.B.dylib",
    "/usr/lib/libiconv.2.dylib",
    "/System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation",
    "/System/Library/Frameworks/Security.framework/Versions/A/Security",
}
PROGRAMS = {"gateway", "install.sh", "deploy.sh", "rollback.sh"}
FILES = PROGRAMS | {
    "common.sh", "jobs.sh", "com.ai.gateway.plist", "com.ai.gateway.newsyslog.conf", "ada2-images.env.example",
    "backends_config.example.yaml", "README.md", "GUIDE.md", "REFERENCE.md", "OPERATIONS.md", "THIRD-PARTY.txt", "gateway.8",
    "LICENSE-MIT", "LICENSE-APACHE", "CHANGELOG.md",
}
OLDEST_MACOS = (13, 0)
LARGEST = 40 << 20

failed = 0


def check(name, right, seen=""):
    global failed
    failed += not right
    print(f"{'ok  ' if right else 'FAIL'}  {name}{f': {seen}' if seen != '' else ''}")


def output(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def archive(path, directory):
    name = path.name.removesuffix(".tar.gz")
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        tar.extractall(directory, filter="data")
    root = directory / name
    check("the archive", 0 < path.stat().st_size < LARGEST, f"{path.name}, {path.stat().st_size} bytes")
    check("is one directory of its own name", all(one.name.split("/")[0] == name for one in members))
    found = {one.name.removeprefix(f"{name}/") for one in members if one.isfile()}
    check("holds what installs it, licences, notes and guides", FILES <= found, sorted(FILES - found) or len(found))
    check("no links, devices or other things", all(one.isfile() or one.isdir() for one in members))
    owners = {(one.uid, one.gid, one.uname, one.gname) for one in members}
    check("everything is root's", {(uid, gid) for uid, gid, _, _ in owners} == {(0, 0)}, owners)
    modes = {one.name.removeprefix(f"{name}/"): one.mode for one in members}
    wrong = {one: oct(mode) for one, mode in modes.items()
             if mode != (0o755 if one in PROGRAMS or one == name else 0o644)}
    check("programs can be started, the rest is data", not wrong, wrong or "")
    check("one date, none of the packing", len({one.mtime for one in members}) == 1
          and gzip_date(path) == 0, {one.mtime for one in members})
    names = [one.name for one in members]
    check("in order", names == sorted(names))
    return root


def gzip_date(path):
    with open(path, "rb") as file:
        head = file.read(10)
    with gzip.open(path):
        return int.from_bytes(head[4:8], "little")


def binary(path, architecture):
    kind = output("file", "-b", path).strip()
    check("the binary", re.match(rf"Mach-O 64-bit {architecture} executable", kind) is not None, kind)
    check("its size", path.stat().st_size < LARGEST, f"{path.stat().st_size} bytes")
    used = output("llvm-objdump", "--macho", "--dylibs-used", path).splitlines()[1:]
    libraries = {line.split(" (")[0].strip() for line in used if line.strip()}
    check("loads only what is on every Mac", libraries <= LIBRARIES, sorted(libraries))
    head = output("llvm-objdump", "--macho", "--private-headers", path)
    oldest = re.search(r"LC_BUILD_VERSION\n.*?platform (\w+).*?minos ([\d.]+)", head, re.S)
    number = tuple(map(int, oldest[2].split("."))) if oldest else ()
    check("for macOS 13 and newer", oldest is not None and oldest[1] in ("macos", "1") and number == OLDEST_MACOS,
          oldest and f"{oldest[1]} {oldest[2]}")
    signature = re.search(r"LC_CODE_SIGNATURE\n.*?datasize (\d+)", head, re.S)
    check("signed: Apple silicon starts nothing else", signature is not None and int(signature[1]) > 0,
          signature and f"{signature[1]} bytes")
    check("position-independent", "PIE" in head)


def property_list(path):
    job = plistlib.loads(path.read_bytes())
    # plistutil writes the other of the two forms that there are.
    other = path.with_suffix(".other")
    output("plistutil", "-i", path, "-o", other)
    check("plistutil and plistlib read the same in the property list", plistlib.loads(other.read_bytes()) == job)
    check("it starts the binary itself", job["ProgramArguments"] == ["/usr/local/bin/gateway", "serve"])
    check("its label is its name", f"{job['Label']}.plist" == path.name, job["Label"])
    check("and it runs under its own account", job["UserName"] == "_gateway")


def main():
    package, directory = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    root = archive(package, directory)
    binary(root / "gateway", "x86_64" if package.name.endswith("x86_64.tar.gz") else "arm64")
    property_list(root / "com.ai.gateway.plist")
    third = (root / "THIRD-PARTY.txt").read_text()
    check("the licences name ring's sources and the standard library",
          all(words in third for words in ("    ring ", "fiat-crypto", "BoringSSL", "The Rust Standard Library")))
    for script in sorted(root.glob("*.sh")):
        subprocess.run(["sh", "-n", script], check=True)
    print("all passed" if not failed else f"{failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
