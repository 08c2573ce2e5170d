"""The parser's own tests: `python3 -m unittest` in this directory."""

import unittest

from guides import fits, parse


def blocks(text):
    return parse("guide.md", text)


class Marks(unittest.TestCase):
    def test_a_marked_block_is_found_with_its_place_and_output(self):
        found, faults = blocks("Text\n\n<!-- run: mac -->\n```sh\nls\ncd /\n```\n\n```text\n…\n```\n")
        self.assertEqual(faults, [])
        self.assertEqual([(b.line, b.host, b.text, b.exit, b.expected) for b in found],
                         [(4, "mac", "ls\ncd /\n", 0, "…\n")])

    def test_an_exit_code_may_be_expected(self):
        found, _ = blocks("<!-- run: client, exit 22 -->\n```sh\ncurl -f x\n```\n")
        self.assertEqual((found[0].host, found[0].exit), ("client", 22))

    def test_a_block_that_is_not_run_has_a_reason(self):
        found, faults = blocks("<!-- not run: needs a card -->\n```sh\nreboot\n```\n")
        self.assertEqual((found[0].host, found[0].reason, faults), (None, "needs a card", []))
        for mark in ("<!-- not run: -->", "<!-- not run -->"):
            self.assertEqual(len(blocks(f"{mark}\n```sh\nreboot\n```\n")[1]), 1, mark)

    def test_an_unmarked_block_is_a_fault(self):
        for text in ("```sh\nls\n```\n", "<!-- run: mac -->\ntext\n```sh\nls\n```\n", "<!-- run: moon -->\n```sh\nls\n```\n"):
            found, faults = blocks(text)
            self.assertEqual((found, len(faults)), ([], 1), text)

    def test_a_mark_is_for_one_block(self):
        found, faults = blocks("<!-- run: mac -->\n```sh\na\n```\n```sh\nb\n```\n")
        self.assertEqual((len(found), len(faults)), (1, 1))

    def test_other_languages_need_no_mark(self):
        self.assertEqual(blocks("```yaml\na: 1\n```\n\n```\nx\n```\n"), ([], []))

    def test_text_belongs_to_the_block_right_before_it(self):
        found, _ = blocks("<!-- run: mac -->\n```sh\na\n```\n\nwords\n\n```text\nb\n```\n")
        self.assertIsNone(found[0].expected)

    def test_a_block_without_end_is_a_fault(self):
        self.assertEqual(len(blocks("<!-- run: mac -->\n```sh\na\n")[1]), 1)

    def test_a_comment_is_a_fault_on_a_mac_only(self):
        for host, count in (("mac", 1), ("client", 1), ("gpu-host", 0)):
            self.assertEqual(len(blocks(f"<!-- run: {host} -->\n```sh\nls   # who's there\n```\n")[1]), count)
        self.assertEqual(blocks("<!-- run: mac -->\n```sh\ncurl 'x/#make'\n```\n")[1], [])


class Outputs(unittest.TestCase):
    def test_wildcards(self):
        for expected, printed, right in (
            ("a\n", "a\n", True),
            ("a\n", "a  \n\n", True),
            ("a\n", "ab\n", False),
            ("a\n", "a\nb\n", False),
            ("a…c\n", "abbbc\n", True),
            ("a…c\n", "ab\nc\n", False),
            ("…\nb\n", "a\nb\n", True),
            ("…\nb\n", "b\n", True),
            ("a\n…\nd\n", "a\nb\nc\nd\n", True),
            ("a\n…\nd\n", "a\nb\nc\n", False),
            ("200 (ok)\n", "200 (ok)\n", True),
        ):
            self.assertEqual(fits(expected, printed), right, (expected, printed))


if __name__ == "__main__":
    unittest.main()
