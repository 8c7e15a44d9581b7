"""Where a figure comes from: every benchmark writes its results through this."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from muquant.files import write_json

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("muquant", "torch", "torchvision", "onnx", "onnxruntime", "onnx-ir", "numpy")


def provenance(seed: int) -> dict[str, Any]:
    """Return the command, commit, versions, machine and seed of the running benchmark."""
    return {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip(),
        "commit": _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "-uno") else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "seed": seed,
    }


def write_results(name: str, seed: int, document: dict[str, Any]) -> Path:
    """Write `document` with its provenance to `results/NAME.json`, and return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(path, {**provenance(seed), **document})
    return path


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
