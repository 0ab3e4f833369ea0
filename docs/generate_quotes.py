"""Brings the files that documents quote up to date in them: the code block below `<!-- quote PATH -->`.

.venv/bin/python -m docs.generate_quotes            write them
.venv/bin/python -m docs.generate_quotes --check    write nothing; exit 1 where a document differs
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md")))

_QUOTE = re.compile(r"<!-- quote (\S+) -->\n```(\w*)\n.*?\n```\n", re.DOTALL)


def quoted_files(text: str) -> list[str]:
    """The files that a document quotes."""
    return [path for path, _ in _QUOTE.findall(text)]


def with_quotes(text: str) -> str:
    """The document with each quote as its file is now."""

    def block(found: re.Match[str]) -> str:
        path, language = found.groups()
        quoted = (ROOT / path).read_text(encoding="utf-8").rstrip("\n")
        return f"<!-- quote {path} -->\n```{language}\n{quoted}\n```\n"

    return _QUOTE.sub(block, text)


def main(arguments: list[str]) -> int:
    """The command. Returns the exit code."""
    differing = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        if text != (wanted := with_quotes(text)):
            differing += 1
            if arguments == ["--check"]:
                sys.stderr.write(f"{document.relative_to(ROOT)} differs: run `python -m docs.generate_quotes`\n")
            else:
                document.write_text(wanted, encoding="utf-8")
    return 1 if differing and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
