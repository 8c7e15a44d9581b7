"""`muquant compress` and `muquant export` at their defaults, as a user calls them, and what they say."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from packaged.packages import VARIABLE, folder

BENCHMARKS = Path(__file__).parent.parent


class RefusedError(Exception):
    """A command failed.

    Attributes:
        crashed: whether by a traceback, and not by a message.
    """

    def __init__(self, message: str, *, crashed: bool) -> None:
        super().__init__(message)
        self.crashed = crashed


def python(module: str, *arguments: str | Path) -> str:
    """Run a module in a process of its own, and return what it prints.

    Raises:
        RefusedError: it failed.
    """
    paths = (str(BENCHMARKS), os.environ.get("PYTHONPATH", ""))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        VARIABLE: str(folder().resolve()),
    }
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        crashed = any(line.startswith("Traceback ") for line in lines)
        starts = [number for number, line in enumerate(lines) if line.startswith("Error")]
        said = " ".join(lines[-1:] if crashed or not starts else lines[starts[-1] :])
        raise RefusedError(said or f"exit status {done.returncode}", crashed=crashed)
    return done.stdout


def compress(source: Path | str, example: Path, path: Path) -> dict[str, Any]:
    """Compress an ONNX file or a factory's module into the ONNX file `path`; returns what was done.

    Raises:
        RefusedError: a command failed.
    """
    begin = time.perf_counter()
    if isinstance(source, Path):
        said = json.loads(python("muquant_cli", "compress", source, "-o", path, "--json"))
    else:
        kept = path.with_suffix(".mq")
        said = json.loads(python("muquant_cli", "compress", source, "-o", kept, "--json"))
        python("muquant_cli", "export", kept, "--module", source, "-o", path, "--json")
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, **_parts(said, path.stat().st_size, example.stat().st_size)}


def _parts(said: dict[str, Any], nbytes: int, source_nbytes: int) -> dict[str, Any]:
    """What a compressed file is made of."""
    weights = said.get("weights", said.get("layers", []))
    left = said["left_alone"]
    of_bits: dict[str, int] = {}
    for weight in weights:
        name = f"{weight['bits']} bits"
        of_bits[name] = of_bits.get(name, 0) + weight["nbytes"]
    reasons: dict[str, int] = {}
    for one in left:
        reasons[one["reason"]] = reasons.get(one["reason"], 0) + one["nbytes"]
    total = said["weight_bytes"]
    return {
        "nbytes": nbytes,
        "source_nbytes": source_nbytes,
        "ratio": nbytes / source_nbytes,
        "raised_from": said.get("raised_from"),
        "weight_bytes": total,
        "parts": {**of_bits, "float": total["left_float"], "graph and scales": nbytes - total["after"]},
        "left_float_share": total["left_float"] / total["before"],
        "left_float_reasons": dict(sorted(reasons.items(), key=lambda each: -each[1])),
        "left_float_largest": sorted(left, key=lambda each: -each["nbytes"])[:3],
    }
