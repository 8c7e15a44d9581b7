"""Calibrated compression of graphs: what is reported of a layer's output is what onnxruntime makes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from muquant import InputError
from muquant_onnx import compress_onnx, load_session, plan_onnx

Array = NDArray[Any]
COUNT = 64
HELD_OUT = np.arange(COUNT) % 4 == 3


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def layer(
    op: str,
    weight: Array,
    sizes: list[int],
    before: list[Any] | None = None,
    bias: Array | None = None,
    left: bool = False,
    more: dict[str, Array] | None = None,
    **attributes: Any,
) -> Any:
    """x -> op -> y, the weight behind the nodes `before`, with a bias or behind MatMul an Add; the weight
    comes first if it is `left`."""
    operands = ["x", before[-1].output[0] if before else "w"][:: -1 if left else 1]
    nodes = [*(before or [])]
    if bias is None:
        nodes.append(helper.make_node(op, operands, ["y"], **attributes))
    elif op == "MatMul":
        nodes += [helper.make_node(op, operands, ["z"]), helper.make_node("Add", ["b", "z"], ["y"])]
    else:
        nodes.append(helper.make_node(op, [*operands, "b"], ["y"], **attributes))
    half = weight.dtype == np.float16 and not before
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n" if size < 0 else size for size in sizes])],
        [helper.make_tensor_value_info("y", kind, None)],
        [
            numpy_helper.from_array(weight, "w"),
            *([] if bias is None else [numpy_helper.from_array(bias, "b")]),
            *(numpy_helper.from_array(values, name) for name, values in (more or {}).items()),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


TURN = [helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0])]
WIDEN = [helper.make_node("Cast", ["w"], ["t"], to=TensorProto.FLOAT)]
GRAPHS: dict[str, tuple[Any, list[int]]] = {
    "MatMul": (layer("MatMul", numbers(0, 12, 9), [-1, 12]), [COUNT, 12]),
    "MatMul, rows within samples": (layer("MatMul", numbers(0, 12, 9), [-1, 5, 12]), [COUNT, 5, 12]),
    "MatMul, turned": (layer("MatMul", numbers(0, 9, 12), [-1, 12], TURN), [COUNT, 12]),
    "MatMul, half-precision weight": (
        layer("MatMul", numbers(0, 12, 9).astype(np.float16), [-1, 12], WIDEN),
        [COUNT, 12],
    ),
    "Gemm": (layer("Gemm", numbers(0, 12, 9), [-1, 12]), [COUNT, 12]),
    "Gemm, transB": (layer("Gemm", numbers(0, 9, 12), [-1, 12], transB=1), [COUNT, 12]),
    "Conv 1d": (
        layer("Conv", numbers(0, 6, 4, 3), [-1, 4, 11], pads=[2, 0], dilations=[2]),
        [COUNT, 4, 11],
    ),
    "Conv 2d": (
        layer("Conv", numbers(0, 6, 4, 3, 2), [-1, 4, 9, 8], pads=[0, 1, 2, 0], strides=[2, 1]),
        [COUNT, 4, 9, 8],
    ),
    "Conv, groups": (layer("Conv", numbers(0, 6, 2, 3, 3), [-1, 6, 7, 7], group=3), [COUNT, 6, 7, 7]),
    "Conv, depthwise": (layer("Conv", numbers(0, 4, 1, 3, 3), [-1, 4, 7, 7], group=4), [COUNT, 4, 7, 7]),
    "Conv, same upper": (
        layer("Conv", numbers(0, 6, 4, 4, 3), [-1, 4, 9, 8], auto_pad="SAME_UPPER", strides=[2, 2]),
        [COUNT, 4, 9, 8],
    ),
    "Conv, same lower": (
        layer("Conv", numbers(0, 6, 4, 4, 3), [-1, 4, 9, 8], auto_pad="SAME_LOWER", strides=[2, 3]),
        [COUNT, 4, 9, 8],
    ),
    "MatMul, bias": (layer("MatMul", numbers(0, 12, 9), [-1, 12], bias=numbers(2, 9)), [COUNT, 12]),
    "Gemm, bias": (layer("Gemm", numbers(0, 12, 9), [-1, 12], bias=numbers(2, 1, 9)), [COUNT, 12]),
    "Gemm, half a bias": (
        layer("Gemm", numbers(0, 12, 9), [-1, 12], bias=numbers(2, 9), beta=0.5),
        [COUNT, 12],
    ),
    "Conv, bias": (
        layer("Conv", numbers(0, 6, 2, 3, 3), [-1, 6, 7, 7], bias=numbers(2, 6), group=3),
        [COUNT, 6, 7, 7],
    ),
    "ConvTranspose 1d": (
        layer("ConvTranspose", numbers(0, 4, 6, 3), [-1, 4, 11], pads=[1, 0], strides=[2], dilations=[2]),
        [COUNT, 4, 11],
    ),
    "ConvTranspose 2d": (
        layer(
            "ConvTranspose",
            numbers(0, 4, 6, 3, 2),
            [-1, 4, 5, 6],
            strides=[2, 3],
            pads=[0, 1, 2, 0],
            output_padding=[1, 2],
        ),
        [COUNT, 4, 5, 6],
    ),
    "ConvTranspose, groups, bias": (
        layer(
            "ConvTranspose",
            numbers(0, 6, 2, 4),
            [-1, 6, 7],
            bias=numbers(2, 4),
            group=2,
            strides=[2],
            pads=[1, 1],
        ),
        [COUNT, 6, 7],
    ),
    "ConvTranspose, depthwise": (
        layer("ConvTranspose", numbers(0, 4, 2, 3, 3), [-1, 4, 5, 5], group=4),
        [COUNT, 4, 5, 5],
    ),
    "ConvTranspose, padded more than its kernel": (
        layer("ConvTranspose", numbers(0, 4, 6, 2), [-1, 4, 9], pads=[2, 3]),
        [COUNT, 4, 9],
    ),
    "ConvTranspose, same upper": (
        layer("ConvTranspose", numbers(0, 4, 6, 5, 3), [-1, 4, 6, 5], auto_pad="SAME_UPPER", strides=[2, 2]),
        [COUNT, 4, 6, 5],
    ),
    "ConvTranspose, same lower": (
        layer("ConvTranspose", numbers(0, 4, 6, 4, 4), [-1, 4, 6, 5], auto_pad="SAME_LOWER", strides=[1, 2]),
        [COUNT, 4, 6, 5],
    ),
    "ConvTranspose, output shape": (
        layer("ConvTranspose", numbers(0, 4, 6, 5), [-1, 4, 6], output_shape=[14], strides=[2]),
        [COUNT, 4, 6],
    ),
    "MatMul, stacked, vectors shared": (layer("MatMul", numbers(0, 3, 12, 9), [-1, 12]), [COUNT, 12]),
    "MatMul, stacked, vectors of each": (
        layer("MatMul", numbers(0, 3, 12, 9), [-1, 3, 5, 12]),
        [COUNT, 3, 5, 12],
    ),
    "MatMul, stacked twice, vectors of some": (
        layer("MatMul", numbers(0, 2, 3, 12, 9), [-1, 1, 3, 5, 12]),
        [COUNT, 1, 3, 5, 12],
    ),
    "MatMul, stacked behind a Transpose": (
        layer(
            "MatMul",
            numbers(0, 3, 9, 12),
            [-1, 3, 5, 12],
            [helper.make_node("Transpose", ["w"], ["t"], perm=[0, 2, 1])],
        ),
        [COUNT, 3, 5, 12],
    ),
    "MatMul, left-hand": (layer("MatMul", numbers(0, 9, 12), [-1, 12, 5], left=True), [COUNT, 12, 5]),
    "MatMul, left-hand of each": (
        layer("MatMul", numbers(0, 3, 9, 12), [-1, 3, 12, 5], left=True),
        [COUNT, 3, 12, 5],
    ),
    "MatMul behind a Reshape that turns inputs round": (
        layer(
            "MatMul",
            numbers(0, 3, 4, 9),
            [-1, 12],
            [
                helper.make_node("Transpose", ["w"], ["u"], perm=[1, 0, 2]),
                helper.make_node("Reshape", ["u", "s"], ["t"]),
            ],
            more={"s": np.array([12, 9])},
        ),
        [COUNT, 12],
    ),
    "Gemm of merged channels, bias": (
        layer(
            "Gemm",
            numbers(0, 3, 5, 12),
            [-1, 12],
            [helper.make_node("Reshape", ["w", "s"], ["t"])],
            bias=numbers(2, 15),
            transB=1,
            more={"s": np.array([15, 12])},
        ),
        [COUNT, 12],
    ),
    "Gemm, channels in another order": (
        layer(
            "Gemm",
            numbers(0, 3, 5, 12),
            [-1, 12],
            [
                helper.make_node("Transpose", ["w"], ["u"], perm=[1, 0, 2]),
                helper.make_node("Reshape", ["u", "s"], ["t"]),
            ],
            bias=numbers(2, 15),
            transB=1,
            more={"s": np.array([15, 12])},
        ),
        [COUNT, 12],
    ),
    "Conv, kernel first": (
        layer(
            "Conv",
            numbers(0, 3, 2, 4, 6),
            [-1, 4, 7, 7],
            [helper.make_node("Transpose", ["w"], ["t"], perm=[3, 2, 0, 1])],
            bias=numbers(2, 6),
        ),
        [COUNT, 4, 7, 7],
    ),
    "FusedMatMul": (
        layer("FusedMatMul", numbers(0, 9, 12), [-1, 12, 5], domain="com.microsoft", transA=1, transB=1),
        [COUNT, 12, 5],
    ),
    "Einsum": (
        layer("Einsum", numbers(0, 12, 3, 4), [-1, 5, 12], equation="bsd,dhe->bhse"),
        [COUNT, 5, 12],
    ),
    "Einsum, two axes summed, one shared": (
        layer("Einsum", numbers(0, 3, 9, 2, 6), [-1, 5, 3, 6, 2], equation="bshed,hode->bsho"),
        [COUNT, 5, 3, 6, 2],
    ),
    "Conv 3d": (layer("Conv", numbers(0, 4, 2, 2, 2, 2), [-1, 2, 4, 5, 4]), [COUNT, 2, 4, 5, 4]),
}


def samples(shape: list[int]) -> Array:
    """Values that hang together along the last axis, as those of real layers do."""
    return (numbers(1, *shape).cumsum(-1) + 5).astype(np.float32)


def run(path: Path, x: Array) -> Array:
    found: Array = load_session(path, "unoptimized").run(None, {"x": x})[0]
    return found.astype(np.float64)


def product(model: Any, y: Array) -> Array:
    """What the weight contributes to an output of the layer: all but the bias."""
    bias = [numpy_helper.to_array(each) for each in model.graph.initializer if each.name == "b"]
    if not bias:
        return y
    beta = next((each.f for each in model.graph.node[-1].attribute if each.name == "beta"), 1.0)
    return y - beta * bias[0].reshape(-1, *[1] * (y.ndim - 2 if y.ndim > 2 else 0))


UNCORRECTED = {"Gemm, half a bias", "Gemm, channels in another order"}
CORRECTED = {name for name in GRAPHS if name.startswith(("Gemm", "Conv"))} - UNCORRECTED | {"MatMul, bias"}


@pytest.fixture
def samples_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a layer gains is told, whether or not the answers to a few samples gain as much."""
    monkeypatch.setattr("muquant_onnx.from_onnx.compress._helped", lambda *_: True)


@pytest.mark.usefixtures("samples_help")
@pytest.mark.parametrize("name", GRAPHS)
def test_the_output_s_quality_is_that_of_the_output(name: str, tmp_path: Path) -> None:
    model, shape = GRAPHS[name]
    x = samples(shape)
    onnx.save(model, tmp_path / "model.onnx")
    ratios = []
    for rounding in ("nearest", "reconstructed"):
        report = compress_onnx(
            tmp_path / "model.onnx",
            tmp_path / f"{rounding}.onnx",
            rounding=rounding,
            calibration=torch.from_numpy(x),
            policy="float",
        )
        (weight,) = report.weights
        exact, found = (run(tmp_path / f"{each}.onnx", x[HELD_OUT]) for each in ("model", rounding))
        noise = np.square(found - exact).sum()
        ratio = 10 * np.log10(np.square(product(model, exact)).sum() / noise)
        assert weight.output_sqnr is not None
        assert weight.bias_corrected == (name in CORRECTED)
        np.testing.assert_allclose(weight.output_sqnr, ratio, rtol=1e-3)
        ratios.append(ratio)
    assert ratios[1] > ratios[0] + 0.2


@pytest.mark.parametrize("name", ["MatMul, bias", "Gemm, bias", "Conv, bias", "Conv 1d"])
def test_without_corrections_biases_stay(name: str, tmp_path: Path) -> None:
    model, shape = GRAPHS[name]
    onnx.save(model, tmp_path / "model.onnx")
    (weight,) = compress_onnx(
        tmp_path / "model.onnx",
        tmp_path / "small.onnx",
        calibration=torch.from_numpy(samples(shape)),
        corrections=False,
    ).weights
    assert not weight.bias_corrected
    old, new = (
        [numpy_helper.to_array(each) for each in graph.graph.initializer if each.name == "b"]
        for graph in (model, onnx.load(tmp_path / "small.onnx"))
    )
    assert len(old) == len(new)
    for one, other in zip(old, new, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("reason", ["shared", "seen", "computed"])
def test_a_bias_that_others_see_stays(reason: str, tmp_path: Path) -> None:
    """Of a product that something else uses, or whose bias is not constant, nothing may change."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if reason == "computed":
        nodes += [helper.make_node("Relu", ["b"], ["c"]), helper.make_node("Add", ["z", "c"], ["y"])]
    else:
        nodes += [helper.make_node("Add", ["z", "b"], ["y"])]
    if reason == "seen":
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    if reason == "shared":
        nodes += [helper.make_node("Mul", ["z", "b"], ["u"])]
        outputs.append(helper.make_tensor_value_info("u", TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        outputs,
        [numpy_helper.from_array(numbers(0, 12, 9), "w"), numpy_helper.from_array(numbers(2, 9), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "model.onnx")
    (weight,) = compress_onnx(
        tmp_path / "model.onnx", tmp_path / "small.onnx", calibration=torch.from_numpy(samples([COUNT, 12]))
    ).weights
    assert not weight.bias_corrected


def test_a_bias_that_two_layers_have_is_corrected_for_each(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Gemm", ["h", "v", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 12])],
        [
            numpy_helper.from_array(numbers(0, 12, 12), "w"),
            numpy_helper.from_array(numbers(1, 12, 12), "v"),
            numpy_helper.from_array(numbers(2, 12), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    report = compress_onnx(
        tmp_path / "model.onnx", tmp_path / "small.onnx", calibration=torch.from_numpy(samples([COUNT, 12]))
    )
    assert all(weight.bias_corrected for weight in report.weights)
    biases = [
        node.input[2] for node in onnx.load(tmp_path / "small.onnx").graph.node if node.op_type == "Gemm"
    ]
    assert len(set(biases)) == 2
    assert "b" not in {each.name for each in onnx.load(tmp_path / "small.onnx").graph.initializer}


def test_what_is_not_known_is_rounded_by_itself(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 5])],
        [numpy_helper.from_array(numbers(0, 30, 8), "table"), numpy_helper.from_array(numbers(1, 8, 5), "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        tmp_path / "model.onnx",
    )
    tokens = torch.randint(30, (COUNT, 4), generator=torch.Generator().manual_seed(0))
    table, weight = compress_onnx(
        tmp_path / "model.onnx", tmp_path / "small.onnx", calibration={"x": tokens}
    ).weights
    assert (table.rounding, table.output_sqnr) == ("balanced", None)
    assert table.not_calibrated == "its rows are looked up, and multiply nothing"
    assert weight.output_sqnr is not None
    assert weight.not_calibrated == ""
    bare = compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", synthetic=False).weights
    assert [each.not_calibrated for each in bare] == ["", ""]


def test_a_plan_measures_a_stacked_weight_by_its_output(tmp_path: Path) -> None:
    onnx.save(layer("MatMul", numbers(0, 3, 12, 9), [-1, 12]), tmp_path / "model.onnx")
    plan = plan_onnx(
        tmp_path / "model.onnx", max_bytes=400, calibration=torch.from_numpy(samples([COUNT, 12]))
    )
    assert [curve.measured_on for curve in plan.curves] == ["answers"]


def test_no_block_of_a_stack_is_fitted_to_another_s_vectors(tmp_path: Path) -> None:
    """Each expert sees one direction alone: with moments of its own its output is all but exact."""
    experts, x = numbers(0, 3, 12, 9), np.zeros((COUNT, 3, 5, 12), np.float32)
    for place in range(3):
        x[:, place] = numbers(5 + place, COUNT, 5, 1) * numbers(9 + place, 12)
    onnx.save(layer("MatMul", experts, [-1, 3, 5, 12]), tmp_path / "model.onnx")
    (weight,) = compress_onnx(
        tmp_path / "model.onnx", tmp_path / "small.onnx", calibration=torch.from_numpy(x)
    ).weights
    assert weight.output_sqnr is not None
    assert weight.output_sqnr > 40


@pytest.mark.parametrize("size", [12, 9, 7])
def test_a_weight_that_is_used_both_ways_is_rounded_by_itself(size: int, tmp_path: Path) -> None:
    model = layer("MatMul", numbers(0, 12, size), [-1, 12])
    model.graph.node.extend([*TURN, helper.make_node("MatMul", ["y", "t"], ["back"])])
    model.graph.output.append(helper.make_tensor_value_info("back", TensorProto.FLOAT, ["n", 12]))
    onnx.save(model, tmp_path / "model.onnx")
    (weight,) = compress_onnx(
        tmp_path / "model.onnx", tmp_path / "small.onnx", calibration=torch.from_numpy(samples([COUNT, 12]))
    ).weights
    assert (weight.rounding, weight.output_sqnr) == ("balanced", None)


@pytest.mark.usefixtures("samples_help")
def test_a_negative_batch_is_an_open_one(tmp_path: Path) -> None:
    model = layer("MatMul", numbers(0, 12, 9), [-1, 12])
    onnx.save(model, tmp_path / "open.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, tmp_path / "model.onnx")
    x = torch.from_numpy(samples([COUNT, 12]))
    weights = []
    for name in ("open", "model"):
        report = compress_onnx(tmp_path / f"{name}.onnx", tmp_path / f"{name}-small.onnx", calibration=x)
        plan = plan_onnx(tmp_path / f"{name}.onnx", max_drop=50, calibration=x)
        weights.append([(each.rounding, each.output_sqnr, plan.drop) for each in report.weights])
    assert weights[0] == weights[1]
    assert weights[1][0][1] is not None
    assert load_session(tmp_path / "model-small.onnx").get_inputs()[0].shape == [None, 12]


@pytest.mark.usefixtures("samples_help")
def test_a_graph_with_a_batch_of_its_own_is_run_by_it(tmp_path: Path) -> None:
    onnx.save(layer("MatMul", numbers(0, 12, 9), [5, 12]), tmp_path / "model.onnx")
    (weight,) = compress_onnx(
        tmp_path / "model.onnx", tmp_path / "small.onnx", calibration=torch.from_numpy(samples([COUNT, 12]))
    ).weights
    assert weight.output_sqnr is not None


X = torch.from_numpy(samples([COUNT, 12]))


@pytest.mark.parametrize(
    ("sizes", "calibration", "message"),
    [
        ([-1, 12], {"z": X}, "expected inputs x, found z"),
        ([-1, 12], {"x": X, "z": X}, "expected inputs x, found x, z; leave out what it does not take"),
        ([-1, 12], {"x": X.long()}, "input x is int64, expected float32; convert it"),
        ([-1, 12], {"x": X.double() * 1e300}, "input x is float64, expected float32, which does not hold"),
        ([-1, 12], {"x": X[:, :7]}, r"input x has the shape \[N, 7\], expected \[N, 12\]"),
        ([-1, 12], {"x": X[:, 0]}, r"input x has the shape \[N\], expected \[N, 12\]"),
        ([-1, 12], {"x": X[:3]}, "at least 4 samples, found 3"),
        (
            [-1, 12],
            {"x": torch.where(torch.arange(COUNT)[:, None] < 5, X, torch.inf)},
            "input x: .* sample 5;",
        ),
        ([-1, 3, 3, 12], [X] * 4, r"input x has the shape \[N, 12\], expected \[N, 3, 3, 12\]"),
    ],
)
def test_samples_that_do_not_fit(sizes: list[int], calibration: Any, message: str, tmp_path: Path) -> None:
    onnx.save(layer("MatMul", numbers(0, 12, 9), sizes), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=message):
        compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", calibration=calibration)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_weight_whose_inputs_the_graph_makes_not_finite_is_named(tmp_path: Path) -> None:
    model = layer("MatMul", numbers(0, 12, 9), [-1, 12])
    model.graph.node[0].input[0] = "root"
    model.graph.node.insert(0, helper.make_node("Sqrt", ["x"], ["root"]))
    onnx.save(model, tmp_path / "model.onnx")
    x = X.abs()
    compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", calibration=x)
    x[7] = -1
    with pytest.raises(
        InputError, match=r"^w: calibration: .* found NaN or infinity in 1 of 16 vectors; give"
    ):
        compress_onnx(tmp_path / "model.onnx", tmp_path / "other.onnx", calibration=x)
    assert not (tmp_path / "other.onnx").exists()


def test_padding_changes_no_code(tmp_path: Path) -> None:
    """Of [n, length, 12] beside a mask [n, length]; another input of that shape is no mask."""
    lengths = np.arange(COUNT) % 5 + 1
    mask = (np.arange(5) < lengths[:, None]).astype(np.int64)
    x = samples([COUNT, 5, 12])
    other = np.where(mask[..., None], x, 100 - x)
    found: dict[str, list[float | None]] = {}
    for name in ("attention_mask", "kinds"):
        model = layer("MatMul", numbers(0, 12, 9), [-1, 5, 12])
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["n", 5]))
        model.graph.node.append(helper.make_node("Identity", [name], ["m"]))
        model.graph.output.append(helper.make_tensor_value_info("m", TensorProto.INT64, ["n", 5]))
        onnx.save(model, tmp_path / "model.onnx")
        for values in (x, other):
            report = compress_onnx(
                tmp_path / "model.onnx",
                tmp_path / "small.onnx",
                calibration={"x": values, name: mask},
                flat=True,
            )
            found.setdefault(name, []).append(report.weights[0].output_sqnr)
    assert found["attention_mask"][0] == found["attention_mask"][1]
    assert found["kinds"][0] != found["kinds"][1]
