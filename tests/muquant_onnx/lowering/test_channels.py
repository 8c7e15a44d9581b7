"""Weights whose channels are several axes, or groups of one: the same numbers wherever they are decoded."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

import muquant as mq
from muquant.compression.artifact import read_artifact
from muquant.format.channels import Channels
from muquant.format.tensor import QuantizedTensor
from muquant_onnx import decode_file, export_onnx, load_session, verify
from muquant_onnx.format.metadata import add_metadata
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.lower import forms_by_weight, lower

from ...muquant.conftest import reference_step
from ...muquant.format.test_rows import layouts


@settings(deadline=None, max_examples=40)
@given(
    layouts(),
    st.sampled_from(["tensor", "channel", "group:1", "group:3", "group:100"]),
    st.sampled_from([2, 3, 7]),
    st.integers(0, 2**32 - 1),
)
def test_every_reader_decodes_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    layout: tuple[tuple[int, ...], Channels],
    granularity: str,
    bits: int,
    seed: int,
) -> None:
    shape, channels = layout
    random = np.random.default_rng(seed)
    spec = mq.MuLawSpec(bits, 20.0, granularity=granularity)
    size = spec.steps.step_shape(channels.count(shape), channels.inputs(shape))
    step = random.uniform(1e-3, 1, size).astype(np.float32)
    codes = torch.from_numpy(random.integers(2**bits, size=shape).astype(np.uint8))
    quantized = QuantizedTensor(spec, codes, torch.from_numpy(step), channels)
    wide = reference_step(step, granularity, shape, *channels.axes, groups=channels.groups)
    expected = quantized.levels().numpy().astype(np.float32) * wide
    assert quantized.dequantize().numpy().tobytes() == expected.tobytes()

    folder = tmp_path_factory.mktemp("channels")
    path = folder / "model.onnx"
    _save(quantized, path)
    assert decode_file(path)["w"].tobytes() == expected.tobytes()
    zeros = np.zeros(shape, np.float32)
    sessions = [ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])]
    sessions += [load_session(path, policy=policy) for policy in ("auto", "packed")]
    for session in sessions:
        (found,) = session.run(None, {"x": zeros})
        np.testing.assert_array_equal(found, expected)


def _save(quantized: QuantizedTensor, path: Path) -> None:
    """Write a graph that adds the weight to its input."""
    shape = ir.Shape(quantized.shape)
    x, weight = (ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape) for name in "xw")
    node = ir.node("Add", [x, weight])
    (y,) = node.outputs
    y.name, y.type, y.shape = "y", x.type, shape
    model = ir.Model(ir.Graph([x], [y], nodes=[node], opset_imports={"": 17}, name="g"), ir_version=10)
    packed = PackedWeight.of(quantized)
    served = lower(model, {weight: ("w", packed)}, "float")
    add_metadata(model, {"w": packed}, "float", forms_by_weight(served))
    ir.save(model, path)


TRANSPOSED = {
    "1d": (nn.ConvTranspose1d(6, 9, 5, groups=3), (6, 11)),
    "2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 6)),
    "3d": (nn.ConvTranspose3d(4, 2, 2, groups=2, bias=False), (4, 3, 4, 5)),
    "depthwise": (nn.ConvTranspose2d(6, 6, 4, groups=6), (6, 5, 5)),
    "one output in a group": (nn.ConvTranspose1d(8, 4, 3, groups=4), (8, 6)),
}


@pytest.mark.parametrize("granularity", ["channel", "group:4"])
@pytest.mark.parametrize("kind", TRANSPOSED)
@pytest.mark.usefixtures("quick")
def test_transposed_convolutions_in_groups(kind: str, granularity: str, tmp_path: Path) -> None:
    """Each channel of the output has a scale of its own, and loses as much as alone."""
    layer, size = TRANSPOSED[kind]
    outputs, groups = layer.out_channels, layer.groups
    gains = torch.logspace(0, -4, outputs)
    blocks = gains.reshape(groups, 1, -1).expand(-1, layer.in_channels // groups, -1).flatten(0, 1)
    with torch.no_grad():
        torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
        layer.weight.mul_(blocks.reshape(*layer.weight.shape[:2], *[1] * (layer.weight.dim() - 2)))
    compressed = mq.compress(nn.Sequential(layer), mq.MuLawSpec(4, granularity=granularity))
    (tensor,) = compressed.tensors.values()
    assert len(tensor.step) == outputs
    x = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = (net(x).transpose(0, 1).flatten(1) for net in (layer, compressed.module))
        if layer.bias is not None:
            wanted, found = (values - layer.bias[:, None] for values in (wanted, found))
    ratio = 10 * (wanted.square().sum(1) / (wanted - found).square().sum(1)).log10()
    assert ratio.min() > 14
    path = tmp_path / "model.onnx"
    export_onnx(compressed, path, x)
    assert verify(compressed, path, x).passed
    compressed.save(tmp_path / "model.mq")
    (again,) = read_artifact(tmp_path / "model.mq").tensors.values()
    assert again.channels == tensor.channels
    assert torch.equal(again.dequantize(), tensor.dequantize())
