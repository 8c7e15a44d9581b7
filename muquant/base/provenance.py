"""Where a figure comes from: command, versions, machine."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("muquant", "torch", "torchvision", "onnx", "onnxruntime", "onnx-ir", "numpy")


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """The command, the date, the versions that ran, and the machine, as JSON values.

    Args:
        command: the words of the command line.
    """
    return {
        "command": " ".join(command).strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
