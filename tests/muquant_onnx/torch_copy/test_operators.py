"""Each operator of the copy computes what onnxruntime computes."""

from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from muquant import InputError
from muquant_onnx.torch_copy import TorchCopy
from muquant_onnx.torch_copy.registry import OPERATORS

Array = NDArray[Any]
NEWEST = 21


class Case(NamedTuple):
    """A node: its operator, inputs (None where left out), attributes, outputs and opset."""

    op: str
    inputs: tuple[Array | None, ...]
    attributes: dict[str, Any]
    outputs: int
    opset: int


CASES: list[Case] = []


def case(op: str, *inputs: Array | None, outputs: int = 1, opset: int = NEWEST, **attributes: Any) -> None:
    """Add one to try."""
    CASES.append(Case(op, inputs, attributes, outputs, opset))


def floats(*shape: int) -> Array:
    """Normal numbers, others for each shape."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def whole(*values: int) -> Array:
    """Integers in one axis."""
    return np.array(values, np.int64)


def number(value: float, dtype: Any = np.float32) -> Array:
    """Without axes."""
    return np.array(value, dtype)


X, ROW, PICTURE = floats(3, 4), floats(4), floats(2, 4, 7, 6)
UNIT, POSITIVE = np.tanh(X), np.abs(X) + 0.1
BITS = np.array([[True, False], [True, True]])
COUNTS = np.array([[7, -8, 3], [-5, 2, 9]], np.int64)

ALIKE = """
Abs Asinh Atan Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu
Mish Neg Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Tan Tanh ThresholdedRelu
com.microsoft.Gelu com.microsoft.QuickGelu com.microsoft.FastGelu
"""
for name in ALIKE.split():
    case(name, X)
case("Reciprocal", POSITIVE)
case("Log", POSITIVE)
case("Sqrt", POSITIVE)
case("Acosh", POSITIVE + 1)
for name in ("Acos", "Asin", "Atanh"):
    case(name, UNIT)
BY_TWO = "Add Sub Mul Div Equal Greater GreaterOrEqual Less LessOrEqual PRelu"
for name in BY_TWO.split():
    case(name, X, ROW)
for name in ("And", "Or", "Xor"):
    case(name, BITS, ~BITS[0])
case("Not", BITS)
case("Div", COUNTS, whole(2, -3, 4))
case("Mod", COUNTS, whole(2, -3, 4))
case("Mod", COUNTS, whole(2, -3, 4), fmod=1)
case("Mod", X, ROW, fmod=1)
case("Pow", X, number(2))
case("Pow", X, floats(1, 1, 1) * 0 + 3)
case("Pow", POSITIVE, ROW)
for name in ("Max", "Min", "Mean", "Sum"):
    case(name, X, ROW, floats(1))
case("BitShift", np.array([1, 5], np.uint8), np.array([2, 1], np.uint8), direction="LEFT")
case("BitShift", np.array([9, 5], np.uint8), np.array([2, 1], np.uint8), direction="RIGHT")
for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
    case(name, COUNTS, COUNTS[::-1].copy())
case("BitwiseNot", COUNTS)
case("IsInf", np.array([np.inf, -np.inf, 1], np.float32), detect_negative=0)
case("IsInf", np.array([np.inf, -np.inf, 1], np.float32), detect_positive=0)
case("Clip", X, number(-0.5), number(0.5))
case("Clip", X, None, number(0.5))
case("Clip", X)
case("Cast", X * 3, to=int(onnx.TensorProto.INT32))
case("Cast", COUNTS, to=int(onnx.TensorProto.BOOL))
case("Cast", BITS, to=int(onnx.TensorProto.FLOAT))
case("CastLike", COUNTS, X)
case("Dropout", X)
case("Gelu", X, approximate="tanh")
case("Elu", X, alpha=0.5)
case("Swish", X, opset=24)
case("Where", BITS, floats(2, 2), floats(2))
case("com.microsoft.BiasGelu", X, ROW)
case("com.microsoft.FastGelu", X, ROW)

case("MatMul", floats(2, 3, 4), floats(4, 5))
case("MatMul", ROW, floats(4, 5))
case("Einsum", floats(2, 3, 4), floats(4, 5), equation="abc,cd->abd")
case("Gemm", X, floats(4, 5), floats(5), alpha=0.5, beta=2.0)
case("Gemm", X.T.copy(), floats(5, 4), transA=1, transB=1)
case("Conv", PICTURE, floats(6, 2, 3, 3), floats(6), group=2, pads=[1, 1, 1, 1], strides=[2, 2])
case("Conv", PICTURE, floats(6, 4, 3, 2), pads=[2, 0, 0, 1], dilations=[1, 2])
for how in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    case("Conv", PICTURE, floats(6, 4, 2, 3), auto_pad=how, strides=[2, 1])
case("Conv", floats(2, 4, 9), floats(5, 4, 3))
case("Conv", floats(1, 2, 4, 4, 4), floats(3, 2, 2, 2, 2))
case("ConvTranspose", PICTURE, floats(4, 3, 3, 3), floats(3), strides=[2, 3], pads=[1, 0, 2, 1])
case("ConvTranspose", PICTURE, floats(4, 3, 3, 2), group=2, dilations=[2, 1])
case("ConvTranspose", PICTURE, floats(4, 3, 3, 3), strides=[2, 2], output_padding=[1, 1])
case("ConvTranspose", PICTURE, floats(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
case("ConvTranspose", PICTURE, floats(4, 3, 3, 3), strides=[2, 2], output_shape=[14, 12])
case("ConvTranspose", PICTURE, floats(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
case("ConvTranspose", floats(2, 4, 9), floats(4, 5, 3), strides=[2])
case("com.microsoft.FusedConv", PICTURE, floats(6, 4, 1, 1), floats(6), activation="Relu")
case(
    "com.microsoft.FusedConv",
    PICTURE,
    floats(6, 4, 1, 1),
    floats(6),
    activation="HardSigmoid",
    activation_params=[0.2, 0.4],
)
case("com.microsoft.FusedConv", PICTURE, floats(4, 4, 1, 1), floats(4), PICTURE, activation="Relu")
CLIP: dict[str, Any] = {"activation": "Clip", "activation_params": [-0.5, 1.0]}
case("com.microsoft.FusedConv", PICTURE, floats(4, 4, 1, 1), floats(4), **CLIP)
case("com.microsoft.FusedGemm", X, floats(4, 5), floats(5), activation="LeakyRelu", activation_alpha=0.1)
case("com.microsoft.FusedMatMul", floats(2, 4, 3), floats(2, 5, 4), transA=1, transB=1, alpha=0.25)

case("MaxPool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
case("MaxPool", PICTURE, kernel_shape=[3, 2], pads=[0, 0, 2, 1])
case("MaxPool", PICTURE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
case("MaxPool", PICTURE, kernel_shape=[2, 2], dilations=[2, 2])
case("MaxPool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")
case("AveragePool", PICTURE, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
case("AveragePool", PICTURE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
case("AveragePool", PICTURE, kernel_shape=[3, 2], pads=[0, 1, 2, 0])
case("AveragePool", PICTURE, kernel_shape=[3, 2], pads=[0, 1, 2, 0], count_include_pad=1)
case("AveragePool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
case("GlobalAveragePool", PICTURE)
case("GlobalMaxPool", PICTURE)
SCALES = np.array([1, 1, 2, 1.5], np.float32)
for mode in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"):
    case("Resize", PICTURE, None, SCALES, mode="linear", coordinate_transformation_mode=mode)
    case("Resize", PICTURE, None, None, whole(2, 4, 3, 9), mode="linear", coordinate_transformation_mode=mode)
for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
    for mode in ("half_pixel", "asymmetric"):
        case(
            "Resize",
            PICTURE,
            None,
            SCALES,
            mode="nearest",
            nearest_mode=rounding,
            coordinate_transformation_mode=mode,
        )

case("Shape", PICTURE)
case("Shape", PICTURE, start=1, end=-1)
case("Size", PICTURE)
case("Reshape", PICTURE, whole(0, -1, 6))
case("Reshape", floats(0, 3), whole(3, 0), allowzero=1)
case("Flatten", PICTURE, axis=2)
case("Flatten", PICTURE, axis=0)
case("Squeeze", floats(1, 3, 1), whole(-1))
case("Squeeze", floats(1, 3, 1))
case("Unsqueeze", X, whole(0, -1))
case("Transpose", PICTURE, perm=[2, 0, 3, 1])
case("Transpose", PICTURE)
case("Concat", X, floats(2, 4), axis=0)
case("Concat", X, floats(3, 1), axis=-1)
case("Split", floats(7, 2), outputs=3, axis=0, num_outputs=3)
case("Split", floats(6, 2), whole(1, 5), outputs=2)
case("Slice", PICTURE, whole(1, -3), whole(2**62, -1), whole(1, -1))
case("Slice", PICTURE, whole(-1, 0), whole(-(2**62), 3), whole(2, 3), whole(-2, 2))
case("Slice", X, whole(2), whole(1))
case("Expand", floats(3, 1), whole(2, 1, 4))
case("Expand", floats(3, 4), whole(1))
case("Tile", X, whole(2, 3))
case("Pad", PICTURE, whole(0, 1, 2, 0, 0, 0, 1, 3), number(0.5))
case("Pad", PICTURE, whole(1, -1), None, whole(3))
for mode in ("reflect", "edge", "wrap"):
    case("Pad", PICTURE, whole(0, 1, 2, 0, 0, 0, 1, 3), mode=mode)
case("ConstantOfShape", whole(2, 3))
case("ConstantOfShape", whole(2), value=numpy_helper.from_array(whole(7)))
case("Range", number(1, np.int64), number(9, np.int64), number(3, np.int64))
case("Range", number(1), number(-2), number(-0.5))
for mode in ("DCR", "CRD"):
    case("DepthToSpace", PICTURE, blocksize=2, mode=mode)
case("SpaceToDepth", floats(2, 3, 4, 6), blocksize=2)

case("Gather", PICTURE, np.array([[0, -1], [2, 2]]), axis=2)
case("Gather", X, number(1, np.int64))
case("GatherElements", X, np.array([[0, -1, 2, 1]]), axis=0)
case("GatherND", PICTURE, np.array([[0, 1], [1, -1]]))
case("GatherND", PICTURE, np.array([[[0, 1]], [[2, -1]]]), batch_dims=1)
case("ScatterND", X, np.array([[0], [2]]), floats(2, 4))
case("ScatterND", X, np.array([[0], [0]]), floats(2, 4), reduction="add")
case("ScatterElements", X, np.array([[0, -1, 2, 1]]), floats(1, 4), axis=0)
case("ScatterElements", X, np.array([[0, 1, 2, 1]]), floats(1, 4), axis=0, reduction="add")
case("Trilu", X)
case("Trilu", X, number(-1, np.int64), upper=0)
case("NonZero", np.maximum(X, 0))
case("OneHot", whole(1, 0, -1), number(3, np.int64), floats(2))
case("OneHot", whole(1, 0, -1), number(3, np.int64), floats(2), axis=0)
case("TopK", X, whole(2), outputs=2)
case("TopK", X, whole(2), outputs=2, largest=0, axis=0)
FLAGS: tuple[dict[str, Any], ...] = ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1})
for flags in FLAGS:
    case("CumSum", X, number(1, np.int64), **flags)
case("ArgMax", X, axis=1, keepdims=0)
case("ArgMin", X)

for name in (name for name in OPERATORS if name.startswith("Reduce")):
    values = POSITIVE if "Log" in name else X
    case(name, values, whole(1))
    case(name, values, keepdims=0)
case("ReduceSum", COUNTS, whole(0, 1), keepdims=0)
case("ReduceMean", PICTURE, axes=[2, -1], opset=17)
case("ReduceMax", X, noop_with_empty_axes=1)

case("Softmax", X)
case("Softmax", PICTURE, axis=1)
case("LogSoftmax", X, axis=0)
case("BatchNormalization", PICTURE, ROW, floats(4) + 1, -ROW, np.abs(ROW) + 0.5, epsilon=1e-3)
case("InstanceNormalization", PICTURE, ROW, ROW + 1)
case("GroupNormalization", PICTURE, ROW, ROW + 1, num_groups=2)
case("GroupNormalization", PICTURE, floats(2), floats(2) + 1, num_groups=2, opset=18)
case("LayerNormalization", PICTURE, floats(6), floats(6) + 1)
case("LayerNormalization", PICTURE, floats(7, 6), axis=2)
case("RMSNormalization", PICTURE, floats(6), opset=23)
case("SimplifiedLayerNormalization", PICTURE, floats(6))
case("LpNormalization", X)
case("LpNormalization", X, p=1, axis=0)
case("LRN", PICTURE, size=3, alpha=0.3)
STATE = floats(2, 5, 6)
case("com.microsoft.SkipLayerNormalization", STATE, -STATE[::-1].copy(), floats(6), floats(6), floats(6))
case("com.microsoft.SkipSimplifiedLayerNormalization", STATE, STATE[::-1].copy(), floats(6), epsilon=1e-5)

for kind, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    states = 3 if kind == "LSTM" else 2
    for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        weights = floats(count, 5 * gates, 3), floats(count, 5 * gates, 5)
        bias = floats(count, 10 * gates)
        given: dict[str, Any] = {"hidden_size": 5, "direction": direction, "outputs": states, **more}
        case(kind, floats(4, 2, 3), *weights, bias, None, *[floats(count, 2, 5)] * (states - 1), **given)
    case(kind, floats(4, 2, 3), floats(1, 5 * gates, 3), floats(1, 5 * gates, 5), hidden_size=5, **more)


def model_of(each: Case) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A graph of one node, all its inputs fed."""
    feed = {f"x{place}": value for place, value in enumerate(each.inputs) if value is not None}
    domain, _, op = each.op.rpartition(".")
    node = helper.make_node(
        op,
        [f"x{place}" if value is not None else "" for place, value in enumerate(each.inputs)],
        [f"y{place}" for place in range(each.outputs)],
        domain=domain,
        **each.attributes,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in feed.items()
        ],
        [helper.make_empty_tensor_value_info(f"y{place}") for place in range(each.outputs)],
    )
    opsets = [helper.make_opsetid("", each.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feed


def run(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    """What onnxruntime computes."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, feed)
    return found


@pytest.mark.parametrize("each", CASES, ids=[f"{place}-{each.op}" for place, each in enumerate(CASES)])
def test_an_operator_computes_what_onnxruntime_computes(each: Case) -> None:
    model, feed = model_of(each)
    wanted = run(model, feed)
    copy = TorchCopy(ir.from_proto(model))
    found = copy(**{name: torch.from_numpy(value) for name, value in feed.items()})
    assert list(found) == [f"y{place}" for place in range(each.outputs)]
    for one, other in zip(wanted, found.values(), strict=True):
        assert other.shape == one.shape
        assert other.dtype == torch.from_numpy(one).dtype
        np.testing.assert_allclose(other.numpy(), one, rtol=1e-5, atol=2e-5)


def test_every_operator_is_tried() -> None:
    assert {each.op for each in CASES} == {*OPERATORS}


REFUSED = [
    Case("MaxPool", (PICTURE,), {"kernel_shape": [2, 2]}, 2, NEWEST),
    Case("AveragePool", (PICTURE,), {"kernel_shape": [2, 2], "dilations": [2, 2]}, 1, NEWEST),
    Case("Resize", (PICTURE, None, SCALES), {"mode": "cubic"}, 1, NEWEST),
    Case("Resize", (PICTURE, None, SCALES), {"mode": "linear", "antialias": 1}, 1, NEWEST),
    Case("ScatterND", (X, np.array([[0]]), floats(1, 4)), {"reduction": "mul"}, 1, NEWEST),
    Case("ScatterElements", (X, np.array([[0]]), floats(1, 1)), {"reduction": "max"}, 1, NEWEST),
    Case("ArgMax", (X,), {"select_last_index": 1}, 1, NEWEST),
    Case("LayerNormalization", (X, ROW), {}, 2, NEWEST),
    Case(
        "GRU",
        (floats(4, 2, 3), floats(1, 15, 3), floats(1, 15, 5)),
        {"hidden_size": 5},
        1,
        NEWEST,
    ),
    Case(
        "LSTM",
        (floats(4, 2, 3), floats(1, 20, 3), floats(1, 20, 5)),
        {"hidden_size": 5, "activations": ["Relu", "Tanh", "Tanh"]},
        1,
        NEWEST,
    ),
    Case(
        "LSTM",
        (floats(4, 2, 3), floats(1, 20, 3), floats(1, 20, 5), None, np.array([4, 2], np.int32)),
        {"hidden_size": 5},
        1,
        NEWEST,
    ),
]


@pytest.mark.parametrize("each", REFUSED, ids=[f"{place}-{each.op}" for place, each in enumerate(REFUSED)])
def test_a_setting_without_a_translation_is_named(each: Case) -> None:
    model, feed = model_of(each)
    copy = TorchCopy(ir.from_proto(model))
    with pytest.raises(InputError, match=f"{each.op} with .* has no translation to torch"):
        copy(**{name: torch.from_numpy(value) for name, value in feed.items()})
