"""Text as people read it: names from files, sizes, and what is Markdown."""

import re
from collections.abc import Iterable, Sequence

_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def printable(text: str) -> str:
    """Return `text` in one line, with an escape such as "\\x1b" for whatever is no printable character.

    Names come from files that anybody may have written. Line breaks, control sequences of terminals, marks
    that turn the direction of writing and halves of characters stay what they are in a name: text.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def byte_size(nbytes: int) -> str:
    """A number of bytes, such as "1.25 MB", "12.30 kB" or "900 B"."""
    for unit, size in _UNITS:
        if abs(nbytes) >= size:
            return f"{nbytes / size:.2f} {unit}"
    return f"{nbytes} B"


def markdown_table(header: Sequence[str], alignment: str, rows: Iterable[Sequence[str]]) -> str:
    """A table of GitHub's Markdown, without a line break at its end; bars in its cells are escaped.

    Args:
        header: of the columns.
        alignment: "l" or "r" for each column.
        rows: the cells of each, as Markdown.
    """
    rules = [{"l": "---", "r": "---:"}[side] for side in alignment]
    return "\n".join(_line(cells) for cells in (header, rules, *rows))


def _line(cells: Sequence[str]) -> str:
    escaped = (printable(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def code(text: str) -> str:
    """A code span with `text` as it is, but on one line: nothing in it is markup, and nobody is mentioned."""
    line = " ".join(text.split()) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def escape(text: str) -> str:
    """A sentence on one line in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>#&~@!])", r"\\\1", " ".join(text.split()))
