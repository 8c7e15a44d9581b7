"""The decode functions on stock onnxruntime, over its whole domain: widths, levels, grids, mu, sizes."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import muquant as mq
from muquant.format.law import grid_levels
from muquant.format.packing import pack
from muquant_onnx import decode_file, export_onnx, load_session
from muquant_onnx.format.decode_function import DOMAIN, PAIRED_WIDTHS, Tables
from muquant_onnx.format.reference import codebook

MUS = (0.0, 1e-300, 1e-12, 1e-9, 1e-3, 0.3, 1.0, 2.5, 20.0, 255.0, 65536.0)
COUNTS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 1001)
TABLES = [
    Tables(bits, levels, grid)
    for bits in range(2, 9)
    for levels in ("mid-rise", "mid-tread")
    for grid in ("int4", "int8", "int16")
    if bits <= 4 or grid != "int4"
] + [Tables(bits, "mid-rise", "int4", places=True) for bits in (2, 3, 4)]
TABLES += [replace(tables, layout="pairs") for tables in TABLES if tables.bits in PAIRED_WIDTHS] + [
    replace(tables, layout="codes") for tables in TABLES
]


def _spec(tables: Tables, mu: float) -> mq.MuLawSpec:
    return mq.MuLawSpec(tables.bits, mu, levels=tables.levels, grid=tables.grid)  # type: ignore[arg-type]


def _wanted(tables: Tables, mu: float) -> NDArray[np.int16]:
    """What each code decodes to."""
    levels: NDArray[np.int16] = grid_levels(_spec(tables, mu)).numpy()
    if tables.places:
        assert set(levels) <= set(range(-15, 16, 2))
        return np.searchsorted(range(-15, 16, 2), levels).astype(np.int16) - 8
    return levels


@cache
def _session(tables: Tables) -> ort.InferenceSession:
    """A file that calls the functions on its inputs: nothing can be folded, mu least of all."""
    graph = helper.make_graph(
        [
            helper.make_node(tables.name, ["mu"], ["tables"], domain=DOMAIN),
            helper.make_node(tables.words.name, ["packed"], ["words"], domain=DOMAIN),
            helper.make_node("Gather", ["tables", "words"], ["found"], axis=1),
            helper.make_node("Reshape", ["found", "shape"], ["levels"]),
        ],
        "decode",
        [
            helper.make_tensor_value_info("packed", TensorProto.UINT8, ["bytes"]),
            helper.make_tensor_value_info("mu", TensorProto.DOUBLE, ["weights", 1]),
        ],
        [
            helper.make_tensor_value_info("levels", int(tables.dtype), ["weights", "codes"]),
            helper.make_tensor_value_info("tables", int(tables.dtype), ["weights", *tables.shape]),
            helper.make_tensor_value_info(
                "words", TensorProto.INT32, [None for _ in tables.words.shape(840)]
            ),
        ],
        [numpy_helper.from_array(np.array([0, -1]), "shape")],
    )
    model = helper.make_model(
        graph,
        functions=[onnx.parser.parse_function(each.text()) for each in (tables, tables.words)],
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _decode(tables: Tables, codes: NDArray[np.uint8], mu: float) -> NDArray[np.int16]:
    """What codes decode to with `mu`, the second of two weights that one call makes tables for."""
    packed = pack(codes, tables.bits)
    levels, made, words = _session(tables).run(None, {"packed": packed, "mu": np.array([[3.0], [mu]])})
    assert made.shape == (2, *tables.shape)
    assert words.shape == tables.words.shape(packed.size)
    assert levels.shape == (2, -(-codes.size // 8) * 8)
    assert levels.dtype == ("int16" if tables.grid == "int16" else "int8")
    return levels[1, : codes.size].astype(np.int16)  # type: ignore[no-any-return]


@pytest.mark.parametrize("tables", TABLES, ids=lambda tables: tables.name)
def test_every_code_decodes_to_its_level(tables: Tables) -> None:
    every = np.arange(2**tables.bits, dtype=np.uint8)
    for mu in MUS:
        said = f"mu = {mu!r}"
        np.testing.assert_array_equal(_decode(tables, every, mu), _wanted(tables, mu), err_msg=said)
        levels = grid_levels(_spec(tables, mu)).numpy()
        found = codebook(tables.bits, mu, tables.levels, tables.grid)
        np.testing.assert_array_equal(found, levels, err_msg=said)


@pytest.mark.parametrize("tables", TABLES, ids=lambda tables: tables.name)
def test_every_count_of_codes(tables: Tables) -> None:
    """Sizes that fill their last run and sizes that do not; the codes in every place of a run."""
    rng = np.random.default_rng(0)
    levels = _wanted(tables, 9.0)
    for count in COUNTS:
        codes = rng.integers(0, 2**tables.bits, count, dtype=np.uint8)
        np.testing.assert_array_equal(_decode(tables, codes, 9.0), levels[codes], err_msg=f"{count} codes")


@pytest.mark.parametrize("tables", TABLES, ids=lambda tables: tables.name)
def test_random_mu(tables: Tables) -> None:
    rng = np.random.default_rng(tables.bits)
    every = np.arange(2**tables.bits, dtype=np.uint8)
    for mu in 2.0 ** rng.uniform(-30, 16, 40):
        np.testing.assert_array_equal(_decode(tables, every, mu), _wanted(tables, mu), err_msg=f"mu = {mu!r}")


KERNELS = [
    replace(tables, kernel=8)
    for tables in TABLES
    if tables.layout != "codes" and tables.grid != "int16" and not tables.places
] + [
    replace(tables, kernel=4)
    for tables in TABLES
    if tables.layout != "codes" and tables.grid == "int4" and tables.places == (tables.levels == "mid-rise")
]


@pytest.mark.parametrize("tables", KERNELS, ids=lambda tables: tables.name)
def test_what_a_kernel_takes(tables: Tables) -> None:
    """Integers without a sign; of 4 bits two in a byte, the first in its low half."""
    codes = np.random.default_rng(0).integers(0, 2**tables.bits, 256, dtype=np.uint8)
    feed = {"packed": pack(codes, tables.bits), "mu": np.array([[3.0], [9.0]])}
    levels, made, _ = _session(tables).run(None, feed)
    assert levels.dtype == made.dtype == np.uint8
    assert made.shape == (2, *tables.shape)
    wanted = _wanted(replace(tables, kernel=0), 9.0)[codes] + (1 << tables.kernel - 1)
    if tables.kernel == 4:
        assert set(wanted) <= set(range(16))
        wanted = wanted[::2] + 16 * wanted[1::2]
    np.testing.assert_array_equal(levels[1], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float", "int8"])
def test_only_mu_of_a_file_changed(policy: str, tmp_path: Path) -> None:
    """The file computes F^-1 from its mu: with another mu it is the file of that mu."""
    torch.manual_seed(0)
    compressed = mq.compress(nn.Linear(32, 8, bias=False), mq.MuLawSpec(mu=20.0), observer="absmax")
    path, x = tmp_path / "model.onnx", torch.randn(4, 32)
    export_onnx(compressed, path, x, policy)
    for mu in (0.0, 1.5, 255.0):
        model = onnx.load(path)
        (tensor,) = [each for each in model.graph.initializer if each.name == "weight.mu"]
        tensor.CopyFrom(numpy_helper.from_array(np.array([[mu]]), "weight.mu"))
        onnx.save(model, tmp_path / "other.onnx")

        quantized = compressed.tensors["weight"]
        y = (2 * quantized.codes.numpy().astype(float) - 7) / 7
        k = np.round(127 * np.sign(y) * ((1 + mu) ** np.abs(y) - 1) / mu) if mu else np.round(126 * y)
        weight = k.astype(np.float32) * quantized.step.numpy()
        np.testing.assert_array_equal(decode_file(tmp_path / "other.onnx")["weight"], weight)
        session = load_session(tmp_path / "other.onnx", "accuracy-1")
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(found, x.numpy() @ weight.T, rtol=0, atol=1e-5 * np.abs(found).max())
