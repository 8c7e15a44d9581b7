"""What weights share: one table of each kind, and words of many weights at once, up to a size."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from muquant import MuLawSpec
from muquant_onnx import compress_onnx, decode_file

SIZES = (40, 130, 150, 33, 10)
"""Of layers: weights of less and of more than 2^14 codes, some of which do not fill their last run."""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products one behind the other."""
    rng = np.random.default_rng(0)
    pairs = list(itertools.pairwise(SIZES))
    weights = [
        numpy_helper.from_array(rng.normal(size=pair).astype(np.float32) / 8, f"w{place}")
        for place, pair in enumerate(pairs)
    ]
    nodes = [
        helper.make_node("MatMul", [f"x{place}", f"w{place}"], [f"x{place + 1}"])
        for place in range(len(pairs))
    ]
    ends = [
        helper.make_tensor_value_info(f"x{place}", TensorProto.FLOAT, ["n", SIZES[place]])
        for place in (0, len(pairs))
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    path = tmp_path_factory.mktemp("chain") / "float.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize(("together", "calls"), [(2**22, 2), (2500, 3), (1, 4)])
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_words_of_weights_at_once(
    bits: int, together: int, calls: int, chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muquant_onnx.lowering.decode.TOGETHER", together * bits / 3)
    path = tmp_path / "small.onnx"
    compress_onnx(
        chain, path, MuLawSpec(bits, 20.0), flat=True, observer="absmax", functions=True, check=False
    )
    called = [node.op_type for node in onnx.load(path).graph.node if node.domain]
    assert len([name for name in called if name.startswith("MuLawTables")]) == 2
    assert len([name for name in called if name.startswith("Words")]) == calls
    wanted = x = np.random.default_rng(1).normal(size=(3, SIZES[0])).astype(np.float32)
    for weight in decode_file(path).values():
        wanted = wanted @ weight
    (found,) = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x0": x})
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
