"""Inputs that are made up, in the place of samples."""

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import psutil
import torch

from muquant.compression.calibration import read_samples
from muquant.compression.options import CompressionOptions
from muquant_onnx.from_onnx.check import SessionRun
from muquant_onnx.from_onnx.measure import MEMORY
from muquant_onnx.serving.sessions import load_session

_COUNT = 32
_FEWEST = 4


def with_synthetic(
    source: Path, graph: ir.Graph, nbytes: int, options: CompressionOptions
) -> CompressionOptions:
    """Return options with made-up inputs as samples, where there are none and they may stand for them (see
    `resemble`), and onnxruntime runs the graph on such.

    Args:
        source: the ONNX file.
        graph: that was read from it.
        nbytes: its size with external data.
        options: of its compression.
    """
    if not options.makes_up or MEMORY * nbytes > psutil.virtual_memory().available:
        return options
    try:
        made = SessionRun(load_session(source)).in_place_of_samples(graph, _COUNT)
        parts = [{name: torch.from_numpy(array) for name, array in feed.items()} for feed in made]
        samples = replace(read_samples(parts), made_up=True)
    except Exception:  # onnxruntime's errors have no common base; the check of the answers says what failed
        return options
    return replace(options, calibration=samples) if len(parts) >= _FEWEST else options
