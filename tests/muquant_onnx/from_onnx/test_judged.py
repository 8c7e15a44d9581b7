"""What samples do for the whole graph, which is the judge."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from muquant import MuLawSpec
from muquant.compression.options import CompressionOptions
from muquant.compression.quantizer import NO_HELP
from muquant_onnx import compress_onnx, load_session
from muquant_onnx.from_onnx.check import SessionRun
from muquant_onnx.from_onnx.measure import ask_held_out


def network(path: Path, seed: int) -> Path:
    """Four layers, biases among them."""
    random = np.random.default_rng(seed)
    nodes, value, constants = [], "x", {}
    for place, pair in enumerate(pairwise([24, 24, 24, 24, 4])):
        constants[f"w{place}"] = random.normal(size=pair).astype(np.float32) / 3
        constants[f"b{place}"] = random.normal(size=pair[1]).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [value, f"w{place}", f"b{place}"], [f"h{place}"]))
        nodes.append(helper.make_node("Relu", [f"h{place}"], [value := f"y{place}"]))
    graph = helper.make_graph(
        nodes[:-1],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 24])],
        [helper.make_tensor_value_info("h3", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(each, name) for name, each in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("flat", [True, False])
def test_held_out_answers_are_never_worse_than_without_samples(flat: bool, tmp_path: Path) -> None:
    """Samples of which few are large: those to fit to say little of those held out."""
    helped = []
    for seed in range(6):
        source = network(tmp_path / "model.onnx", seed)
        random = np.random.default_rng(seed)
        samples = random.normal(size=(8, 24)) * np.exp(3 * random.random((8, 1)))
        samples = samples.astype(np.float32)
        spec = MuLawSpec(2 if flat else 3)
        found = compress_onnx(source, tmp_path / "a.onnx", spec, flat=flat, calibration=samples, check=False)
        widths = {f"={weight.name}": weight.bits for weight in found.weights}
        compress_onnx(source, tmp_path / "b.onnx", spec, overrides=widths, flat=True, check=False)
        exact = ask_held_out(source, CompressionOptions(calibration={"x": samples}))
        ours, plain = (
            exact.distortion(SessionRun(load_session(tmp_path / name))) for name in ("a.onnx", "b.onnx")
        )
        assert ours <= plain
        helped.append({weight.not_calibrated for weight in found.weights} != {NO_HELP})
        if not helped[-1]:  # biases as well
            assert ours == plain
    assert len({*helped}) == 2, helped


def test_what_did_not_help_is_said_and_the_rest_stays(tmp_path: Path) -> None:
    source = network(tmp_path / "model.onnx", 0)
    random = np.random.default_rng(0)
    samples = (random.normal(size=(8, 24)) * np.exp(3 * random.random((8, 1)))).astype(np.float32)
    found = [
        compress_onnx(source, tmp_path / f"{name}.onnx", MuLawSpec(2), flat=True, calibration=samples)
        for name in ("one", "two")
    ]
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert found[0].answers is not None
    assert found[0].answers.inputs == "held-out samples"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "one.onnx", "two.onnx"]
