"""Where a figure comes from: command, versions, machine."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from muquant.base.processor import processor_name

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
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
