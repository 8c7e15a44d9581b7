"""Figures as people read them: sizes, and tables in Markdown."""

from collections.abc import Iterable, Sequence

_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


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
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
