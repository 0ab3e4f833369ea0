"""What the tests of the documents need to know of Markdown."""

import re

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def spans(text: str) -> list[str]:
    """Inline code."""
    return _SPAN.findall(_FENCE.sub("", text))


def shell_lines(text: str) -> list[str]:
    """Lines of shell blocks, without comments."""
    blocks = [body for language, body in _FENCE.findall(text) if language == "sh"]
    return [line.split(" #", 1)[0].strip() for block in blocks for line in block.splitlines()]


def links(text: str) -> list[str]:
    """Where links and pictures lead, in this repository."""
    found = [first or second for first, second in _LINK.findall(_FENCE.sub("", text))]
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The names under which GitHub lets one link to headings."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}
