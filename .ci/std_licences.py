"""Prints the copyright notices of the Rust standard library, which is linked into every program, as text: those that the
toolchain brings as a page. Notices that are the same are printed once."""

import html.parser
import pathlib
import re
import sys

FILE = "share/doc/rust/COPYRIGHT-library.html"
RULE = "-" * 80


class Text(html.parser.HTMLParser):
    """The page's headings and paragraphs; each `pre` is a notice of its own."""

    def __init__(self):
        super().__init__()
        self.parts, self.notice, self.skipped = [], None, 0

    def handle_starttag(self, tag, _):
        if tag in ("head", "style", "script"):
            self.skipped += 1
        elif tag == "pre":
            self.notice = []
        elif tag in ("h1", "h2", "h3", "h4", "p", "li", "div", "summary"):
            self.parts.append("\n")

    def handle_endtag(self, tag):
        if tag in ("head", "style", "script"):
            self.skipped -= 1
        elif tag == "pre":
            self.parts.append(("notice", "".join(self.notice).strip("\n")))
            self.notice = None

    def handle_data(self, data):
        if self.notice is not None:
            self.notice.append(data)
        elif not self.skipped:
            self.parts.append(data)


def readable(page):
    reader = Text()
    reader.feed(page)
    notices, lines = {}, []
    for part in reader.parts:
        if isinstance(part, tuple):
            number = notices.setdefault(part[1], len(notices) + 1)
            part = f"\n    [notice {number}]\n"
        lines.append(part)
    text = "\n".join(line.strip(" 📦") for line in "".join(lines).splitlines())
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return "\n\n".join([text] + [f"{RULE}\n[notice {number}]\n\n{notice}" for notice, number in notices.items()])


def main():
    page = pathlib.Path(sys.argv[1], FILE)
    print(RULE)
    if page.exists():
        print(readable(page.read_text()))
    else:
        print("The Rust standard library, under Apache-2.0 or MIT: https://www.rust-lang.org/policies/licenses")


if __name__ == "__main__":
    main()
