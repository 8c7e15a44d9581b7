"""Unknown forms, and errors; tests of layers and graphs show that files compute the same by any policy."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import muquant as mq
from muquant import InputError
from muquant.format.channels import Channels
from muquant_onnx import export_float, export_onnx, load_session
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.serving.read import PlainWarning
from muquant_onnx.serving.weights import Decoded

pytestmark = pytest.mark.slow
X = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    path = tmp_path_factory.mktemp("serve") / "model.onnx"
    export_onnx(mq.compress(model), path, X, "float")
    return path.read_bytes()


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Path:
    """A copy, for a test to damage."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("policy", ["float", "int8", "auto", "packed"])
def test_a_weight_that_is_used_in_an_unknown_way_is_left_to_onnxruntime(file: Path, policy: str) -> None:
    model = onnx.load(file)
    levels = next(name for node in model.graph.node for name in node.output if name.endswith(".levels"))
    model.graph.node.append(helper.make_node("Abs", [levels], ["extra"]))
    model.graph.output.append(helper.make_tensor_value_info("extra", onnx.TensorProto.INT8, [32, 64]))
    wanted = load_session(file, "unoptimized").run(None, {"input": X.numpy()})[0]
    onnx.save(model, file)
    found, extra = load_session(file, "accuracy-1", policy=policy).run(None, {"input": X.numpy()})
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert extra.shape == (32, 64)
    assert extra.max() == 127


@pytest.mark.parametrize("plant", ["input", "part"])
def test_nodes_that_are_not_what_their_names_say_are_left_alone(plant: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(mq.compress(nn.Sequential(nn.Linear(64, 32), nn.ReLU())), path, X, "int8")
    model = onnx.load(path)
    (matrix,) = (node for node in model.graph.node if node.op_type == "DequantizeLinear")
    (product,) = (node for node in model.graph.node if matrix.output[0] in node.input)
    if plant == "input":
        product.input.pop()
    else:  # of which it is not said to what type
        matrix.output[0] = product.input[1] = "0.weight.rounded"
    onnx.save(model, path)
    if plant == "input":
        with pytest.raises(InputError, match=r"model.onnx.*not what its names say"):
            load_session(path, policy="int8")
        return
    with pytest.warns(PlainWarning, match=r"0\.weight\.rounded should be"):
        session = load_session(path, "accuracy-1", policy="int8")
    wanted = load_session(path, "unoptimized").run(None, {"input": X.numpy()})[0]
    found = session.run(None, {"input": X.numpy()})[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group:5"])
@pytest.mark.parametrize("shape", [(6, 7), (4, 3, 5), (0, 3), (4, 0), (8,)])
@pytest.mark.parametrize("bits", [2, 3, 7])
def test_weights_are_those_of_pytorch_bit_for_bit(
    bits: int, shape: tuple[int, ...], granularity: str
) -> None:
    from muquant.quantization.quantize import quantize

    torch.manual_seed(0)
    for axis in range(len(shape)):
        spec = mq.MuLawSpec(bits, mu=20.0, granularity=granularity)
        quantized = quantize(torch.randn(shape), spec, Channels((axis,)), "absmax", "nearest").tensor
        decoded = Decoded(PackedWeight.of(quantized))
        wanted = quantized.dequantize().numpy()
        found = decoded.weight()
        assert found.shape == wanted.shape
        assert found.tobytes() == wanted.tobytes()
        np.testing.assert_array_equal(decoded.levels(), quantized.levels().numpy())


def test_a_float_file_has_no_policies(tmp_path: Path) -> None:
    export_float(nn.Linear(64, 2), tmp_path / "float.onnx", X)
    with pytest.raises(InputError, match="without compressed weights"):
        load_session(tmp_path / "float.onnx", policy="int8")


def test_an_unknown_policy_is_named(file: Path) -> None:
    with pytest.raises(InputError, match=r"policy 'fast' is unknown; expected one of float, int8"):
        load_session(file, policy="fast")


def fewer_codes(model: onnx.ModelProto) -> None:
    _replace(model, "0.weight.packed", np.zeros(3, np.uint8))


def no_mu(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "0.weight.mu":
            tensor.name = "other"
    for node in model.graph.node:
        node.input[:] = ["other" if name == "0.weight.mu" else name for name in node.input]


def other_steps(model: onnx.ModelProto) -> None:
    _replace(model, "0.weight.step", np.ones((7, 1), np.float32))


def bad_mu(model: onnx.ModelProto) -> None:
    _replace(model, "0.weight.mu", np.array(-3.0))


def huge(model: onnx.ModelProto) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "muquant")
    block = json.loads(entry.value)
    block["weights"]["0.weight"]["shape"] = [2**40, 2**20]
    entry.value = json.dumps(block)


def _replace(model: onnx.ModelProto, name: str, content: np.ndarray) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(content, name))


@pytest.mark.parametrize("damage", [fewer_codes, no_mu, other_steps, bad_mu, huge])
@pytest.mark.parametrize("policy", ["float", "int8", "packed"])
def test_parts_that_do_not_fit_are_refused(
    file: Path, policy: str, damage: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.load(file)
    damage(model)
    onnx.save(model, file)
    with pytest.raises(InputError, match=r"0\.weight do not fit together"):
        load_session(file, policy=policy)


def test_external_data_outside_the_folder_is_refused(file: Path, tmp_path: Path) -> None:
    model = onnx.load(file)
    (tmp_path / "inner").mkdir()
    for tensor in model.graph.initializer:
        if tensor.name == "0.weight.packed":
            (tmp_path / "secret").write_bytes(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "inner" / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="outside the model's folder"):
        load_session(tmp_path / "inner" / "m.onnx", policy="float")
