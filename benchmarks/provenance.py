"""Where a figure comes from: every benchmark writes its results through this."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from muquant.base.files import write_json
from muquant.base.provenance import provenance

RESULTS = Path(__file__).parent / "results"


def write_results(name: str, seed: int, document: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write `document` with its provenance to `NAME.json` in a folder, and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    command = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    write_json(path, {**provenance(command), "commit": commit(), "seed": seed, **document})
    return path


def commit() -> str:
    """The commit that runs, and whether anything but results differs from it."""
    paths = ":(top)", ":(top,exclude)benchmarks/results"
    return _git("rev-parse", "HEAD") + (
        "+changes" if _git("status", "--porcelain", "-uno", "--", *paths) else ""
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
