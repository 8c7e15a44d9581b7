"""export/FORMAT.md: a reader written from the document alone, and the document against the implementation."""

import json
import math
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import muquant as mq
from muquant.format.channels import Channels
from muquant.format.steps import CodedSteps
from muquant.format.tensor import QuantizedTensor
from muquant_onnx import export_onnx
from muquant_onnx.format.decode_function import Tables, Words
from muquant_onnx.format.metadata import WeightEntry
from muquant_onnx.format.reference import decode, decode_steps

DOCUMENT = (Path(__file__).parents[3] / "export" / "FORMAT.md").read_text()


def _block(opening: str) -> str:
    (block,) = re.findall(rf"^```{opening}\n(.*?)\n```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    return str(block)


GOLDEN: list[dict[str, Any]] = json.loads(_block("json golden"))


def _read(entry: dict[str, Any], packed: bytes, mu: float, steps: list[list[float]]) -> list[Any]:
    """Decode with numpy and json only, one weight at a time, as FORMAT.md says it: k, and float32 weights."""
    bits, shape, axes = entry["bits"], entry["shape"], entry["channel_axis"]
    axes, cut = axes if isinstance(axes, list) else [axes], entry.get("channel_groups", 1)
    n = 2**bits - 1 if entry["levels"] == "mid-rise" else 2 ** (bits - 1) - 1
    odd = (entry["grid"], entry["levels"]) == ("int4", "mid-rise")
    largest = 15 if odd else {"int4": 7, "int8": 127, "int16": 32767}[entry["grid"]]
    multiples = [m for m in range(n, largest + 1, n) if m % 2 or not odd]
    grid_max = multiples[-1] if mu == 0 and multiples else largest
    stream = int.from_bytes(packed, "little")
    ks, weights = [], []
    for j, place in enumerate(np.ndindex(*shape)):
        code = stream >> (bits * j) & (2**bits - 1)
        if entry["levels"] == "mid-rise":
            y = (2 * code - n) / n
        else:
            y = 0.0 if code == 2**bits - 1 else (code - n) / n
        expanded = y if mu == 0 else math.copysign(math.expm1(abs(y) * math.log1p(mu)) / mu, y)
        k = round(grid_max * expanded)  # Python rounds halves to even
        if odd:
            k = int(math.copysign(2 * math.floor(abs(grid_max * expanded) / 2) + 1, y))
        blocked, run = list(zip(place, shape, strict=True)), shape[0] // cut
        if cut > 1:
            blocked[:1] = [(place[0] // run, cut), (place[0] % run, run)]
        own = [0, *(axis + 1 for axis in axes)] if cut > 1 else axes
        channel = column = 0
        for i, (at, size) in enumerate(blocked):
            if i in own:
                channel = channel * size + at
            else:
                column = column * size + at
        kind, _, size = entry["granularity"].partition(":")
        row = steps[0 if kind == "tensor" else channel]
        step = row[column // int(size) if kind == "group" else 0]
        ks.append(k)
        weights.append(np.float32(k) * np.float32(step))
    return [ks, np.array(weights, np.float32)]


def _bits(weights: NDArray[np.float32]) -> str:
    return " ".join(f"{word:08x}" for word in weights.reshape(-1).view(np.uint32))


@pytest.mark.parametrize("entry", GOLDEN, ids=lambda entry: entry["name"])
def test_golden_vectors_by_the_document(entry: dict[str, Any]) -> None:
    packed = bytes.fromhex(entry["packed"])
    assert len(packed) == -(-len(entry["codes"]) // 8) * entry["bits"]
    k, weights = _read(entry, packed, entry["mu"], entry["step"])
    assert k == entry["k"]
    assert _bits(weights) == entry["weight_bits"]
    np.testing.assert_array_equal(np.array(entry["weights"], np.float32), weights)


@pytest.mark.parametrize("entry", GOLDEN, ids=lambda entry: entry["name"])
def test_golden_vectors_by_the_implementation(entry: dict[str, Any]) -> None:
    spec = mq.MuLawSpec(
        entry["bits"],
        entry["mu"],
        granularity=entry["granularity"],
        levels=entry["levels"],
        grid=entry["grid"],
    )
    codes = torch.tensor(entry["codes"], dtype=torch.uint8).reshape(entry["shape"])
    step = torch.tensor(entry["step"], dtype=torch.float32)
    quantized = QuantizedTensor(spec, codes, step, Channels.from_entry(entry))
    assert quantized.packed().tobytes().hex() == entry["packed"]
    assert quantized.levels().reshape(-1).tolist() == entry["k"]
    assert _bits(quantized.dequantize().numpy()) == entry["weight_bits"]

    packed = np.frombuffer(bytes.fromhex(entry["packed"]), np.uint8)
    assert (
        _bits(decode(packed, entry["mu"], step.numpy(), cast("WeightEntry", entry))) == entry["weight_bits"]
    )


STEPS: list[dict[str, Any]] = json.loads(_block("json steps"))


def _step(code: int, unit: float) -> np.float32:
    """A step from its 8 bits, as FORMAT.md says it."""
    k = code if code < 16 else (16 + code % 16) * 2 ** (code // 16 - 1)
    return np.float32(k) * np.float32(unit)


@pytest.mark.parametrize("entry", STEPS, ids=lambda entry: entry["name"])
def test_golden_steps(entry: dict[str, Any]) -> None:
    codes, unit = np.array(entry["codes"], np.uint8), np.array(entry["unit"], np.float32)
    by_document = np.array([_step(code, entry["unit"]) for code in entry["codes"]])
    assert (by_document / unit).tolist() == entry["k"]
    for steps in (by_document, decode_steps(codes, unit), CodedSteps(codes, unit).decoded()):
        assert steps.dtype == np.float32
        assert _bits(steps) == entry["step_bits"]


def test_the_functions_text() -> None:
    assert _block("onnx tables") == Tables(3, "mid-rise", "int8").text()
    assert _block("onnx words") == Words(3).text()


@pytest.mark.parametrize(
    ("tables", "name"),
    [
        (Tables(3, "mid-rise", "int8"), "MuLawTables3"),
        (Tables(3, "mid-tread", "int8"), "MuLawTables3MidTread"),
        (Tables(8, "mid-rise", "int16"), "MuLawTables8Int16"),
        (Tables(3, "mid-rise", "int4"), "MuLawTables3Int4"),
        (Tables(3, "mid-rise", "int4", places=True), "MuLawTables3Int4Places"),
        (Tables(3, "mid-rise", "int8", layout="pairs"), "MuLawTables3Pairs"),
        (Tables(8, "mid-tread", "int16"), "MuLawTables8MidTreadInt16"),
    ],
)
def test_the_functions_names(tables: Tables, name: str) -> None:
    assert tables.name == name == tables.function().name
    assert name in DOCUMENT or name == "MuLawTables8MidTreadInt16"  # the document's rule, not its examples


@pytest.mark.slow
@pytest.mark.usefixtures("traced_once")
def test_a_file_by_the_document(tmp_path: Path) -> None:
    """Names, shapes and metadata are those of the document; its reader finds PyTorch's weights."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.ConvTranspose1d(4, 6, 5, groups=2), nn.Linear(32, 8))
    example, coded = json.loads(_block("json")), set()
    for spec in (
        mq.MuLawSpec(3, 20.0),
        mq.MuLawSpec(3, 255.0, domain="mapped"),
        mq.MuLawSpec(5, 20.0, granularity="tensor", levels="mid-tread"),
        mq.MuLawSpec(8, 20.0, granularity="group:16"),
        mq.MuLawSpec(4, 20.0, granularity="group:16"),
        mq.MuLawSpec(3, 5.0, grid="int4"),
        mq.MuLawSpec(3, 5.0, granularity="tensor", levels="mid-tread", grid="int4"),
        mq.MuLawSpec(2, 0.0, granularity="group:16", grid="int4"),
        mq.MuLawSpec(3, 5.0, granularity="group:2"),
    ):
        compressed = mq.compress(module, spec, observer="absmax")
        for policy in ("float", "int8", "int4"):
            case = f"{spec}, {policy}"
            export_onnx(compressed, tmp_path / "model.onnx", torch.randn(2, 4, 28), policy)
            model = onnx.load(tmp_path / "model.onnx")
            metadata = json.loads({entry.key: entry.value for entry in model.metadata_props}["muquant"])
            assert set(metadata) == set(example), case
            assert metadata["format"] == example["format"], case
            parts = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
            assert set(metadata["weights"]) == {"0.weight", "1.weight"}, case
            for name, entry in metadata["weights"].items():
                groups = {"channel_groups"} if name == "0.weight" else set()
                assert set(entry) == set(example["weights"]["fc.weight"]) | groups, case
                assert parts[f"{name}.shape"].tolist() == entry["shape"], case
                if f"{name}.step_unit" in parts:
                    unit = float(parts[f"{name}.step_unit"])
                    for part in ("step", "scale"):
                        if (codes := parts.get(f"{name}.{part}_codes")) is not None:
                            decoded = [_step(code, unit) for code in codes.reshape(-1).tolist()]
                            parts[f"{name}.{part}"] = np.array(decoded).reshape(codes.shape)
                coded.add(f"{name}.step_unit" in parts)
                steps = parts[f"{name}.step"] if f"{name}.step" in parts else parts[f"{name}.scale"].T
                channels = {"0.weight": 2 * 6 // 2, "1.weight": 8}[name]
                steps = steps.reshape(channels if steps.size > 1 else 1, -1)
                packed, mu = parts[f"{name}.packed"].tobytes(), parts[f"{name}.mu"].item()
                _, weights = _read(entry, packed, mu, steps.tolist())
                wanted = compressed.module.get_parameter(name).detach().numpy()
                assert _bits(weights) == _bits(wanted), case
    assert coded == {False, True}
