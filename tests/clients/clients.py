"""The clients: what is installed for each of them, unmodified, and how its script is run."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
HOME = Path(os.environ["CLIENTS_DIR"])
NEWEST = bool(os.environ.get("NEWEST"))


@dataclass(frozen=True)
class Client:
    """One column of the table."""

    name: str
    script: str
    # As tested, the client itself first.
    packages: tuple
    # What NEWEST=1 installs.
    newest: tuple
    # A directory that clients share.
    directory: str
    # Node's major version, at least.
    node: int = 0
    # Handed to the script.
    variant: str = ""

    @property
    def home(self):
        return HOME / (self.directory + ("-newest" if NEWEST else ""))

    def lacks(self):
        """What is missing here to run it, or nothing."""
        if self.node and not shutil.which("npm"):
            return "Node and npm are not installed"
        if self.node and node_version() < self.node:
            return f"it needs Node {self.node} or newer"
        return None

    def install(self):
        """Once, and again when other versions are wanted."""
        wanted = self.newest if NEWEST else self.packages
        mark = self.home / "installed"
        if mark.exists() and mark.read_text() == "\n".join(wanted):
            return
        print(f"installing {', '.join(wanted)}", file=sys.stderr, flush=True)
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        if self.node:
            (self.home / "package.json").write_text('{"private": true, "type": "module"}\n')
            run("npm", "install", "--prefix", self.home, "--no-fund", "--no-audit", "--loglevel=error", *wanted)
        else:
            run(os.environ.get("PYTHON", "python3"), "-m", "venv", self.home)
            run(self.home / "bin/pip", "install", "-q", "--disable-pip-version-check", *wanted)
        mark.write_text("\n".join(wanted))

    def command(self):
        if not self.node:
            return [self.home / "bin/python", "-B", HERE / "python" / self.script]
        # Node looks for packages beside the script, wherever it is run from.
        for script in ("checks.mjs", self.script):
            shutil.copy(HERE / "node" / script, self.home)
        return ["node", self.home / self.script]

    def versions(self):
        """What is installed, for people."""
        names = [re.match(r"@?[^@=<>]+", package)[0] for package in self.packages]
        if self.variant:
            names = [name for name in names if name in ("ai", self.variant)]
        return ", ".join(f"{name} {self._version(name)}" for name in names)

    def _version(self, name):
        if self.node:
            return json.loads((self.home / "node_modules" / name / "package.json").read_text())["version"]
        code = f"from importlib.metadata import version; print(version({name!r}))"
        return run(self.home / "bin/python", "-c", code).strip()


def ai_sdk(version, openai, compatible, node):
    """One SDK, two providers, which share a directory."""
    packages = (f"ai@{version}", f"@ai-sdk/openai@{openai}", f"@ai-sdk/openai-compatible@{compatible}")
    newest = tuple(package.split(".")[0] for package in packages)  # Within the major version.
    major = version.split(".")[0]
    for provider in ("openai", "openai-compatible"):
        yield Client(f"ai-sdk-{major}-{provider}", "ai_sdk.mjs", packages, newest, f"ai-sdk-{major}", node,
                     f"@ai-sdk/{provider}")


CLIENTS = [
    Client("openai-python-3", "openai_python.py", ("openai==3.57.0",), ("openai",), "openai-python-3"),
    Client("openai-python-1", "openai_python.py", ("openai==1.109.1",), ("openai<2",), "openai-python-1"),
    Client("openai-node-6", "openai_node.mjs", ("openai@6.49.0",), ("openai@6",), "openai-node-6", node=20),
    Client("openai-node-7", "openai_node.mjs", ("openai@7.57.0",), ("openai@7",), "openai-node-7", node=22),
    *ai_sdk("6.0.326", "3.0.141", "2.0.92", node=20),
    *ai_sdk("7.0.173", "4.0.118", "3.0.92", node=22),
    Client("litellm", "litellm_client.py", ("litellm==1.110.2",), ("litellm",), "litellm"),
    Client("langchain", "langchain_client.py", ("langchain-community==0.4.2", "openai==3.57.0"),
           ("langchain-community", "openai"), "langchain"),
]


@cache
def node_version():
    return int(run("node", "--version").removeprefix("v").split(".")[0])


def run(*command):
    """Its standard output; what it complained of ends the program."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
