"""What `names` finds, with a stand-in for the programs' help."""

import pathlib
import tempfile
import unittest

import names
from guides import parse

HELP = """#!/bin/sh
case "$*" in
    "verify --help") echo "Usage: gateway verify [OPTIONS]
      --generate  One image" ;;
    "man --help") echo "Usage: gateway man" ;;
    "--help-all") echo "Commands:
  serve   Serve
  verify  Check a running gateway
Options:
      --env-file <FILE>  Settings" ;;
    *) exit 2 ;;
esac
"""


class Names(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.built = pathlib.Path(directory.name)
        for program in ("gateway", "ada2-sidecar"):
            (self.built / program).write_text(HELP)
            (self.built / program).chmod(0o755)
        names._help.cache_clear()
        names._subcommands.cache_clear()

    def faults(self, text):
        return names.faults("gateway/README.md", text, parse("gateway/README.md", text)[0], self.built)

    def command(self, line):
        return self.faults(f"<!-- run: mac -->\n```sh\n{line}\n```\n")

    def test_existing_names_pass(self):
        for text in ("[a](README.md)", "[a](GUIDE.md#configuration)", "[a](https://example.org/x)", "`GATEWAY_PORT`",
                     "`max_inflight: 4`", "`tests/guides/run.sh`", "404 `not_found`", "`sudo gateway verify --generate`",
                     "`gateway verify --env-file x`", "`gateway man`", "`cd /var/lib/gateway && tar --exclude x`"):
            self.assertEqual(self.faults(text), [], text)
        for line in ("sudo gateway verify \\\n  --generate | tail", "FOO=1 gateway --env-file x > log", "sudo ./rollback.sh mock",
                     "pkill -x gateway --signal"):
            self.assertEqual(self.command(line), [], line)

    def test_what_does_not_exist_is_named(self):
        for text, fault in (
            ("[a](NOTHING.md)", "there is no NOTHING.md"),
            ("[a](README.md#no-such-heading)", "there is no heading for README.md#no-such-heading"),
            ("`GATEWAY_PROT`", "there is no setting GATEWAY_PROT"),
            ("`max_inflihgt: 4`", "there is no setting max_inflihgt"),
            ("`tests/guides/nothing.sh`", "there is no file tests/guides/nothing.sh"),
            ("404 `no_such_code`", "there is no error code no_such_code"),
            ("`gateway verfy`", "gateway has no subcommand verfy"),
            ("`/usr/share/doc/ada2-sidecar/examples/none.service`", "the package has no example none.service"),
        ):
            found = self.faults(text)
            self.assertTrue(len(found) == 1 and found[0].endswith(fault), (text, found))
        for line, fault in (
            ("sudo gateway verify --generat", "gateway verify has no flag --generat"),
            ("true && gateway verify \\\n  --x", "gateway verify has no flag --x"),
            ("sudo ./rollback.sh mokc", "rollback.sh does not know mokc"),
            ("sudo ./install.sh --replcae x", "install.sh does not know --replcae"),
        ):
            found = self.command(line)
            self.assertTrue(len(found) == 1 and found[0].endswith(fault), (line, found))


if __name__ == "__main__":
    unittest.main()
