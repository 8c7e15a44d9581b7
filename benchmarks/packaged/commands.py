"""`muquant compress` and `muquant export` at their defaults, as a user calls them, and what they say."""

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
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
        said = lines[-1] if lines else f"exit status {done.returncode}"
        for path in (each for each in arguments if isinstance(each, Path)):
            said = said.replace(f"{path.parent}/", "")
        raise RefusedError(said, crashed=any(line.startswith("Traceback ") for line in lines))
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
    left, total = said["left_alone"], said["weight_bytes"]
    parts: Counter[str] = Counter()
    for weight in said.get("weights", said.get("layers", [])):
        before = weight.get("source_nbytes", weight.get("float_nbytes"))
        parts[f"{weight['bits']} of {8 * before // math.prod(weight['shape'])} bits"] += weight["nbytes"]
    reasons: Counter[str] = Counter()
    for one in left:
        reasons[one["reason"]] += one["nbytes"]
    graph = max(0, min(source_nbytes - total["before"], nbytes - total["after"]))
    parts |= {"float": total["left_float"], "graph as it was": graph}
    return {
        "nbytes": nbytes,
        "source_nbytes": source_nbytes,
        "ratio": nbytes / source_nbytes,
        "raised_from": said.get("raised_from"),
        "weight_bytes": total,
        "parts": {**parts, "decoding": nbytes - parts.total()},
        "left_float_share": total["left_float"] / total["before"],
        "left_float_reasons": dict(reasons.most_common()),
        "left_float_largest": sorted(left, key=lambda each: -each["nbytes"])[:3],
        "checked": said.get("answers"),
    }
