"""Run notebooks, and store what they show in them.

    python docs/notebooks/execute.py [NOTEBOOK ...]

All in this folder where none is named. What they write is written into a temporary folder.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SECONDS = 300
"""That a cell may take."""


def main() -> None:
    """Run those that are named, or all."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        with TemporaryDirectory() as folder:
            notebook = executed(path, folder)
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
        print(path)


def executed(path: Path, folder: str) -> Any:
    """Return a notebook with new outputs; its files are written into `folder`.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(
        notebook,
        timeout=SECONDS,
        record_timing=False,
        resources={"metadata": {"path": folder}},
    ).execute()
    notebook.metadata.language_info = {"name": "python"}
    return notebook


if __name__ == "__main__":
    main()
