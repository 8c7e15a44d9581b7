"""Files that onnxruntime runs and onnx's checker refuses are compressed like others."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from muquant import InputError, MuLawSpec
from muquant_onnx import compress_onnx, decode_file, load_session

FLOAT, CONTRIB = TensorProto.FLOAT, "com.microsoft"
Shape = tuple[int | str, ...] | None


def values(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node(op: str, inputs: str, output: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(
        op,
        ["" if name == "-" else name for name in inputs.split()],
        output.split(),
        domain=domain,
        **attributes,
    )


def model(
    *nodes: onnx.NodeProto,
    opset: int = 17,
    domains: tuple[str, ...] = (),
    x: Shape = (2, 3, 64),
    y: Shape = (2, 3, 64),
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> onnx.ModelProto:
    tensors: dict[str, NDArray[Any]] = {
        "w": values(64, 64) / 8,
        "v": values(64, 32, seed=1) / 8,
        "gain": values(64, seed=2),
        "shift": values(64, seed=3),
        "last": np.array([2, 2], np.int32),
        "length": np.array(3, np.int32),
    }
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, x)],
        [helper.make_tensor_value_info("y", FLOAT, y)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items() if name in used],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)


def without_type() -> onnx.ModelProto:
    proto = model(PRODUCT)
    proto.graph.output[0].ClearField("type")
    return proto


PRODUCT = node("MatMul", "x w", "y")
LAST = node("MatMul", "n w", "y")
BRANCH = helper.make_graph(
    [node("Relu", "n", "b")], "g", [], [helper.make_tensor_value_info("b", FLOAT, None)]
)
SQUARE = helper.make_function(
    "mine",
    "Square",
    ["a"],
    ["c"],
    [node("FastGelu", "a", "b", CONTRIB), node("Mul", "b b", "c")],
    [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)],
)
MODELS = {
    "an operator of onnxruntime in the standard domain": model(
        node("SimplifiedLayerNormalization", "x gain", "n", axis=-1, epsilon=1e-5, stash_type=1),
        LAST,
        opset=21,
    ),
    "a later opset's operator": model(
        node("LayerNormalization", "x gain shift", "n", axis=-1), LAST, opset=14
    ),
    "skipped norms": model(
        node("MatMul", "x w", "h"),
        node("SkipLayerNormalization", "h x gain shift", "n", CONTRIB),
        LAST,
        domains=(CONTRIB,),
    ),
    "attention": model(
        node("MatMul", "x w", "q"),
        node("MatMul", "x v", "k"),
        node(
            "GroupQueryAttention",
            "q k k - - last length",
            "n keys values",
            CONTRIB,
            num_heads=4,
            kv_num_heads=2,
        ),
        LAST,
        domains=(CONTRIB,),
    ),
    "a domain that is not imported": model(node("FastGelu", "x", "n", CONTRIB), LAST),
    "a function's own": model(
        node("Square", "x", "n", "mine"), LAST, domains=("mine", CONTRIB), functions=(SQUARE,)
    ),
    "an output without a shape": model(PRODUCT, y=None),
    "an output without a type": without_type(),
    "an input without a shape": model(PRODUCT, x=None),
    "a domain spelled out": model(node("Relu", "x", "n", "ai.onnx"), node("MatMul", "n w", "y", "ai.onnx")),
    "nodes out of order": model(LAST, node("Add", "h h", "n"), node("Relu", "x", "h")),
    "a branch before what it uses": model(
        node("Add", "b h", "y"),
        node("If", "yes", "b", then_branch=BRANCH, else_branch=BRANCH),
        node("Constant", "", "yes", value=numpy_helper.from_array(np.array(True))),
        node("MatMul", "x w", "h"),
        node("Relu", "h", "n"),
    ),
}


def run(path: Path) -> NDArray[Any]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output: NDArray[Any] = session.run(None, {"x": values(2, 3, 64, seed=4)})[0]
    return output


@pytest.mark.parametrize("name", MODELS)
def test_what_onnxruntime_runs_is_compressed(name: str, tmp_path: Path) -> None:
    source, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    source.write_bytes(MODELS[name].SerializeToString())
    exact = run(source)
    report = compress_onnx(source, small, MuLawSpec(8))
    stored = {each.name: numpy_helper.to_array(each) for each in MODELS[name].graph.initializer}
    decoded = decode_file(small)
    assert set(decoded) == {each.name for each in report.weights} == {"w", "v"} & set(stored)
    for weight, found in decoded.items():
        assert np.abs(found - stored[weight]).max() < 0.02 * np.abs(stored[weight]).max()
    limit = 0.02 * np.abs(exact).max()
    assert np.abs(run(small) - exact).max() < limit
    for policy in ("float", "packed"):
        output = load_session(small, policy=policy).run(None, {"x": values(2, 3, 64, seed=4)})[0]
        assert np.abs(output - exact).max() < limit


def test_what_the_float16_converter_of_onnxruntime_writes(tmp_path: Path) -> None:
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    half = float16.convert_float_to_float16(model(node("Relu", "x", "n"), LAST), keep_io_types=True)
    source = tmp_path / "model.onnx"
    source.write_bytes(half.SerializeToString())
    compress_onnx(source, tmp_path / "small.onnx", MuLawSpec(8))
    np.testing.assert_allclose(run(tmp_path / "small.onnx"), run(source), atol=0.05)


def test_with_samples_too(tmp_path: Path) -> None:
    proto = model(node("FastGelu", "x", "n", CONTRIB), LAST, x=("n", 3, 64), y=None)
    source = tmp_path / "model.onnx"
    source.write_bytes(proto.SerializeToString())
    report = compress_onnx(
        source, tmp_path / "small.onnx", calibration=torch.from_numpy(values(16, 3, 64, seed=5))
    )
    assert report.weights[0].output_sqnr is not None  # its inputs were seen


def test_what_neither_takes_is_refused_with_both_reasons(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(
        model(node("FastGelo", "x", "n", CONTRIB), LAST).SerializeToString()
    )
    with pytest.raises(InputError, match=r"'com.microsoft'; onnxruntime does not load it either: .*FastGelo"):
        compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx")
