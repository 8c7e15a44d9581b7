"""Writing a report to a folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from muquant.base.files import make_folder, write_bytes, write_json
from muquant.robustness.rendering.markdown import to_markdown
from muquant.robustness.rendering.page import to_html
from muquant.robustness.report import Picture, Report


def write_report(
    report: Report, pictures: Sequence[Picture], folder: str | os.PathLike[str]
) -> tuple[Path, Path, Path]:
    """Write report.json, report.md and report.html, each whole or not at all.

    Args:
        report: what was measured.
        pictures: images under attack, shown on the page alone.
        folder: made where it is not there yet.

    Returns:
        The three paths, in this order.

    Raises:
        InputError: the folder cannot be made or written.
    """
    markdown, page = to_markdown(report), to_html(report, pictures)
    made = make_folder(folder)
    paths = made / "report.json", made / "report.md", made / "report.html"
    write_json(paths[0], report.to_dict())
    write_bytes(paths[1], markdown.encode())
    write_bytes(paths[2], page.encode())
    return paths
