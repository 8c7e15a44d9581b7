"""What takes seconds in every test of files and is no part of what most of them show."""

import importlib
from collections.abc import Collection
from dataclasses import replace

import onnx
import onnx_ir as ir
import pytest
from onnx import helper, parser

from muquant.compression.artifact import CompressedModel
from muquant.models.calls import Inputs
from muquant_onnx.from_torch.asked import Place
from muquant_onnx.verification.runners.child import measure
from muquant_onnx.verification.runners.runtime import PythonRuntime


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace the first model that a test exports; others, which differ in weights alone, have its graph."""
    module = importlib.import_module("muquant_onnx.from_torch.export")
    trace, traces = module.trace_placeholders, list[ir.Model]()

    def first(compressed: CompressedModel, inputs: Inputs, places: Collection[Place]) -> ir.Model:
        if not traces:
            traces.append(trace(compressed, inputs, places))
        return traces[0].clone()

    monkeypatch.setattr(module, "trace_placeholders", first)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `verify` run files in this process and measure nothing, which takes seconds and finds no fault."""
    module = importlib.import_module("muquant_onnx.verification.verify")
    graph = parser.parse_graph("g (float[1] x) => (float[1] y) { y = Identity (x) }")
    stand_in = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    monkeypatch.setattr(module, "export_float", lambda _, path, *__: onnx.save(stand_in, path))
    monkeypatch.setattr(
        PythonRuntime, "measure", lambda own, request: measure(own, replace(request, timed={}))
    )
