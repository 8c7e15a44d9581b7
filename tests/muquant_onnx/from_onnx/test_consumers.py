"""Operators that compute with weights, and those that a weight goes through before.

The compressed file computes what the float graph does with the decoded weights, and each channel has a scale.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from muquant.format.spec import MuLawSpec
from muquant_onnx import compress_onnx, decode_file, load_session

Array = NDArray[Any]
MS = "com.microsoft"


def node(op: str, inputs: str, output: str = "y", domain: str = "", **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, output.split(), domain=domain, **attributes)


@dataclass(frozen=True)
class Case:
    """A graph from x to y.

    Attributes:
        nodes: of the graph.
        weights: name -> shape, and the axes that are channels.
        x: shape of the input.
        more: other initializers.
        tokens: of x, where it is integers below this.
        dtype: of weights.
        opset: of the file.
    """

    nodes: list[onnx.NodeProto]
    weights: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    x: tuple[int, ...]
    more: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0
    dtype: Any = np.float32
    opset: int = 17

    def values(self) -> dict[str, Array]:
        """The weights; channels differ in size by up to a thousand."""
        random = np.random.default_rng(0)
        made = {}
        for name, (shape, axes) in self.weights.items():
            gains = 10 ** random.uniform(-3, 0, [n if axis in axes else 1 for axis, n in enumerate(shape)])
            made[name] = (random.standard_normal(shape) * gains).astype(self.dtype)
        return made

    def model(self, weights: Mapping[str, Array]) -> onnx.ModelProto:
        tensors = {**self.more, **weights}
        graph = helper.make_graph(
            self.nodes,
            "g",
            [
                helper.make_tensor_value_info(
                    "x", TensorProto.INT32 if self.tokens else TensorProto.FLOAT, self.x
                )
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(tensor), name) for name, tensor in tensors.items()],
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(MS, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def inputs(self) -> dict[str, Array]:
        random = np.random.default_rng(1)
        if self.tokens:
            return {"x": random.integers(0, self.tokens, self.x).astype(np.int32)}
        return {"x": random.standard_normal(self.x).astype(np.float32)}


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*shape: int) -> Array:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


LSTM = {"lw": ((1, 32, 6), (0, 1)), "lr": ((1, 32, 8), (0, 1))}
CONSUMERS = {
    "Einsum": Case([node("Einsum", "x w", equation="bi,io->bo")], {"w": ((6, 8), (1,))}, (4, 6)),
    "Einsum, implicit": Case([node("Einsum", "x w", equation="bi, io")], {"w": ((6, 8), (1,))}, (4, 6)),
    "Einsum, in groups": Case(
        [node("Einsum", "x w", equation="btgi,gih->btgh")], {"w": ((3, 8, 5), (0, 2))}, (2, 4, 3, 8)
    ),
    "Einsum, left-hand": Case([node("Einsum", "w x", equation="oi,bi->bo")], {"w": ((5, 8), (0,))}, (4, 8)),
    "Einsum, heads": Case(
        [node("Einsum", "x w", equation="...i,hid->...hd")], {"w": ((3, 8, 5), (0, 2))}, (2, 4, 8)
    ),
    "Einsum, sum of all": Case(
        [node("Einsum", "x w", "z", equation="ij,ij->"), node("Unsqueeze", "z a")],
        {"w": ((4, 8), (0,))},
        (4, 8),
        {"a": ints(0)},
    ),
    "LSTM": Case([node("LSTM", "x lw lr", "y", hidden_size=8)], LSTM, (3, 2, 6)),
    "LSTM, both ways": Case(
        [node("LSTM", "x lw lr lb", "y", hidden_size=8, direction="bidirectional")],
        {"lw": ((2, 32, 6), (0, 1)), "lr": ((2, 32, 8), (0, 1))},
        (3, 2, 6),
        {"lb": floats(2, 64)},
    ),
    "GRU": Case(
        [node("GRU", "x lw lr", "y", hidden_size=8, linear_before_reset=1)],
        {"lw": ((1, 24, 6), (0, 1)), "lr": ((1, 24, 8), (0, 1))},
        (3, 2, 6),
    ),
    "RNN": Case(
        [node("RNN", "x lw lr", "y", hidden_size=8)],
        {"lw": ((1, 8, 6), (0, 1)), "lr": ((1, 8, 8), (0, 1))},
        (3, 2, 6),
    ),
    "columns": Case([node("Gather", "w x", axis=1)], {"w": ((6, 9), (1,))}, (4,), tokens=9),
    "GatherND": Case(
        [node("Cast", "x", "i", to=TensorProto.INT64), node("GatherND", "w i")],
        {"w": ((9, 6), (0,))},
        (4, 1),
        tokens=9,
    ),
    "double": Case(
        [
            node("Cast", "x", "d", to=TensorProto.DOUBLE),
            node("MatMul", "d w", "p"),
            node("Cast", "p", to=TensorProto.FLOAT),
        ],
        {"w": ((8, 5), (1,))},
        (4, 8),
        dtype=np.float64,
    ),
    "double embedding": Case(
        [node("Gather", "w x", "p"), node("Cast", "p", to=TensorProto.FLOAT)],
        {"w": ((9, 6), (0,))},
        (4,),
        tokens=9,
        dtype=np.float64,
    ),
    "FusedMatMul": Case(
        [node("FusedMatMul", "x w", domain=MS, transB=1, alpha=0.5)], {"w": ((5, 8), (0,))}, (4, 8)
    ),
    "FusedMatMul, stacked": Case(
        [node("FusedMatMul", "x w", domain=MS)], {"w": ((3, 8, 5), (0, 2))}, (3, 4, 8)
    ),
    "FusedMatMul, left-hand": Case(
        [node("FusedMatMul", "w x", domain=MS, transA=1)], {"w": ((8, 5), (1,))}, (8, 4)
    ),
    "FusedGemm": Case(
        [node("FusedGemm", "x w b", domain=MS, transB=1, activation="Relu")],
        {"w": ((5, 8), (0,))},
        (4, 8),
        {"b": floats(5)},
    ),
    "FusedConv": Case(
        [node("FusedConv", "x w b", domain=MS, activation="Relu")],
        {"w": ((5, 8, 3, 3), (0,))},
        (2, 8, 6, 6),
        {"b": floats(5)},
    ),
    "Attention": Case(
        [node("Attention", "x w b", domain=MS, num_heads=2)],
        {"w": ((8, 24), (1,))},
        (2, 4, 8),
        {"b": floats(24)},
    ),
    "EmbedLayerNormalization": Case(
        [node("EmbedLayerNormalization", "x x a b c g h", "y m", domain=MS)],
        {"a": ((9, 8), (0,)), "b": ((7, 8), (0,)), "c": ((9, 8), (0,))},
        (2, 5),
        {"g": floats(8), "h": floats(8)},
        tokens=9,
    ),
    "MoE": Case(
        [node("MatMul", "x p", "r"), node("MoE", "x r a - b", domain=MS, k=2, activation_type="relu")],
        {"a": ((3, 16, 8), (0, 1)), "b": ((3, 8, 16), (0, 1))},
        (4, 8),
        {"p": np.full((8, 3), 0.1, np.float32)},
    ),
    "TransposeMatMul": Case(
        [node("TransposeMatMul", "x w", domain=MS, transB=1)], {"w": ((5, 8), (0,))}, (4, 8)
    ),
    "ConvTransposeWithDynamicPads": Case(
        [node("ConvTransposeWithDynamicPads", "x w p", domain=MS)],
        {"w": ((8, 5, 3, 3), (1,))},
        (1, 8, 6, 6),
        {"p": ints(0, 0, 0, 0)},
    ),
    "WordConvEmbedding": Case(
        [node("WordConvEmbedding", "x w b e", domain=MS)],
        {"w": ((8, 1, 3, 6), (0,)), "e": ((9, 6), (0,))},
        (3, 10),
        {"b": floats(8)},
        tokens=9,
    ),
    "DeformConv": Case(
        [node("DeformConv", "x w o", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        {"w": ((5, 8, 3, 3), (0,))},
        (1, 8, 6, 6),
        {"o": floats(1, 18, 6, 6)},
        opset=19,
    ),
}

MATRIX = {"w": ((8, 5), (1,))}
PACKED = {"w": ((8, 15), (1,))}
HALVES = [node("Slice", "w zero half first", "w0"), node("Slice", "w half end first", "w1")]
SLICED = {"zero": ints(0), "half": ints(16), "end": ints(2**62), "first": ints(0)}
VIEWS = {
    "Squeeze": Case(
        [node("Squeeze", "w a", "v"), node("MatMul", "x v")], {"w": ((1, 8, 5), (2,))}, (4, 8), {"a": ints(0)}
    ),
    "Squeeze of all ones": Case(
        [node("Squeeze", "w", "v"), node("MatMul", "x v")], {"w": ((1, 8, 1, 5), (3,))}, (4, 8)
    ),
    "Unsqueeze": Case(
        [node("Unsqueeze", "w a", "v"), node("Conv", "x v")],
        {"w": ((5, 8), (0,))},
        (2, 8, 6),
        {"a": ints(-1)},
    ),
    "Flatten": Case([node("Flatten", "w", "v"), node("MatMul", "v x")], {"w": ((5, 2, 4), (0,))}, (8, 4)),
    "Slice": Case(
        [node("Slice", "w s e a t", "v"), node("MatMul", "x v")],
        {"w": ((9, 10), (1,))},
        (4, 8),
        {"s": ints(-1, 0), "e": ints(-9, 9), "a": ints(0, -1), "t": ints(-1, 2)},
    ),
    "Split in three": Case(
        [
            node("Split", "w n", "q k v", axis=1),
            node("MatMul", "x q", "a"),
            node("MatMul", "x k", "b"),
            node("MatMul", "x v", "c"),
            node("Sum", "a b c"),
        ],
        PACKED,
        (4, 8),
        {"n": ints(5, 5, 5)},
    ),
    "Split without sizes": Case(
        [
            node("Split", "w", "q k", axis=1),
            node("MatMul", "x q", "a"),
            node("Relu", "k", "b"),
            node("MatMul", "x b", "c"),
            node("Concat", "a c", axis=1),
        ],
        {"w": ((8, 10), (1,))},
        (4, 8),
    ),
    "Concat of two": Case(
        [node("Concat", "w v", "u", axis=1), node("MatMul", "x u")],
        {"w": ((8, 5), (1,)), "v": ((8, 3), (1,))},
        (4, 8),
    ),
    "stack of two": Case(
        [
            node("Unsqueeze", "w a", "w1"),
            node("Unsqueeze", "v a", "v1"),
            node("Concat", "w1 v1", "u", axis=0),
            node("MatMul", "x u"),
        ],
        {"w": ((8, 5), (1,)), "v": ((8, 5), (1,))},
        (4, 8),
        {"a": ints(0)},
    ),
    "gates in another order": Case(
        [
            *HALVES,
            node("Concat", "w1 w0", "v", axis=0),
            node("Unsqueeze", "v first", "lw"),
            node("LSTM", "x lw lr", "y", hidden_size=8),
        ],
        {"w": ((32, 6), (0,)), "lr": ((1, 32, 8), (0, 1))},
        (3, 2, 6),
        SLICED,
    ),
    "Expand": Case(
        [node("Expand", "w s", "v"), node("MatMul", "x v")],
        {"w": ((1, 8, 5), (2,))},
        (3, 4, 8),
        {"s": ints(3, 1, 1)},
    ),
    "Mul by a number": Case(
        [node("Mul", "w s", "v"), node("MatMul", "x v")], MATRIX, (4, 8), {"s": np.float32(0.3)}
    ),
    "Mul by a row": Case([node("Mul", "s w", "v"), node("MatMul", "x v")], MATRIX, (4, 8), {"s": floats(5)}),
    "Mul by a column": Case(
        [node("Mul", "w s", "v"), node("MatMul", "x v")], MATRIX, (4, 8), {"s": floats(8, 1)}
    ),
    "Div": Case([node("Div", "w s", "v"), node("MatMul", "x v")], MATRIX, (4, 8), {"s": np.float32(3)}),
    "weight norm": Case(
        [
            node("ReduceL2", "w", "n", axes=[1], keepdims=1),
            node("Div", "w n", "d"),
            node("Mul", "d g", "v"),
            node("Gemm", "x v", transB=1),
        ],
        {"w": ((5, 8), (0,))},
        (4, 8),
        {"g": floats(5, 1)},
    ),
    "mask": Case(
        [node("Where", "m w o", "v"), node("MatMul", "x v")],
        MATRIX,
        (4, 8),
        {"m": np.tri(8, 5) > 0, "o": np.float32(0)},
    ),
    "mask of numbers": Case(
        [node("Mul", "w m", "v"), node("MatMul", "x v")],
        MATRIX,
        (4, 8),
        {"m": np.tri(8, 5, dtype=np.float32)},
    ),
    "Neg": Case([node("Neg", "w", "v"), node("MatMul", "x v")], MATRIX, (4, 8)),
    "an expert": Case(
        [node("Gather", "w e", "v"), node("MatMul", "x v")],
        {"w": ((3, 8, 5), (0, 2))},
        (4, 8),
        {"e": np.int64(1)},
    ),
    "chosen columns": Case(
        [node("Gather", "w e", "v", axis=1), node("MatMul", "x v")],
        {"w": ((8, 9), (1,))},
        (4, 8),
        {"e": ints(4, 0, 7)},
    ),
    "a shape of constants": Case(
        [node("Concat", "one two", "s", axis=0), node("Reshape", "w s", "v"), node("MatMul", "x v")],
        {"w": ((8, 2, 3), (1, 2))},
        (4, 8),
        {"one": ints(8), "two": ints(-1)},
    ),
    "heads": Case(
        [node("Reshape", "w s", "v"), node("Einsum", "x v", equation="bi,hid->bhd")],
        {"w": ((16, 5), (1,))},  # and two groups
        (4, 8),
        {"s": ints(2, 8, 5)},
    ),
    "flat": Case(
        [node("Reshape", "w s", "v"), node("Gemm", "x v", transB=1)],
        {"w": ((40,), ())},  # five groups
        (4, 8),
        {"s": ints(5, 8)},
    ),
    "a low-rank addition": Case(
        [node("MatMul", "a b", "d"), node("Add", "w d", "v"), node("MatMul", "x v")],
        {"w": ((8, 5), (1,)), "a": ((8, 2), (0,)), "b": ((2, 5), (1,))},
        (4, 8),
    ),
}


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes), name, [], [helper.make_tensor_value_info("r", TensorProto.FLOAT, (4, 16))]
    )


SHARED = [
    node("Gemm", "x w", "p", transB=1),
    node("ReduceMax", "p", "m", keepdims=0),
    node("Less", "m o", "c"),
]
BRANCHES = {
    "in both branches and outside": Case(
        [
            *SHARED,
            node(
                "If",
                "c",
                "q",
                then_branch=branch("t", node("Gemm", "x w", "r", transB=1)),
                else_branch=branch("e", node("Transpose", "w", "v", perm=[1, 0]), node("MatMul", "x v", "r")),
            ),
            node("Add", "p q"),
        ],
        {"w": ((16, 8), (0,))},
        (4, 8),
        {"o": np.float32(0)},
    ),
    "gates in a branch": Case(
        [
            *SHARED,
            node(
                "If",
                "c",
                "q",
                then_branch=branch("t", node("Identity", "p", "r")),
                else_branch=branch(
                    "e",
                    node("Unsqueeze", "x a", "u"),
                    node("LSTM", "u lw lr", "l", hidden_size=16),
                    node("Squeeze", "l b", "r"),
                ),
            ),
            node("Add", "p q"),
        ],
        {
            "w": ((16, 8), (0,)),
            "lw": ((1, 64, 8), (0, 1)),
            "lr": ((1, 64, 16), (0, 1)),
        },
        (4, 8),
        {"o": np.float32(0), "a": ints(0), "b": ints(0, 1)},
    ),
}
CASES = {**CONSUMERS, **VIEWS, **BRANCHES}


@pytest.mark.parametrize("policy", ["float", "auto"])
@pytest.mark.parametrize("name", CASES)
def test_the_file_computes_the_graph_with_the_decoded_weights(name: str, policy: str, tmp_path: Path) -> None:
    case = CASES[name]
    source, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    values, inputs = case.values(), case.inputs()
    onnx.save(case.model(values), source)
    report = compress_onnx(source, small, policy=policy)
    assert {found.source for found in report.weights} == set(case.weights)
    decoded = decode_file(small)
    entries = json.loads({entry.key: entry.value for entry in onnx.load(small).metadata_props}["muquant"])[
        "weights"
    ]
    for found in report.weights:
        shape, axes = case.weights[found.source]
        stated = entries[found.name]["channel_axis"]
        assert (tuple(stated) if isinstance(stated, list) else (stated,)) == one_less(axes, shape)
        noise = (values[found.source] - decoded[found.name]) ** 2
        others = tuple(axis for axis in range(len(shape)) if axis not in axes)
        assert (noise.sum(others) < 0.2 * (values[found.source] ** 2).sum(others) + 1e-30).all()
    patched = {found.source: decoded[found.name].astype(case.dtype) for found in report.weights}
    expected = session(case.model(patched).SerializeToString()).run(None, inputs)[0]
    for run in (
        session(small),
        session(small, ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
        session(small, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC),
        *(
            load_session(small, "accuracy-1", policy=each)
            for each in ("float", "int8", "int4", "auto", "packed")
        ),
    ):
        np.testing.assert_allclose(
            run.run(None, inputs)[0], expected, rtol=1e-4, atol=1e-5 * abs(expected).max()
        )


def one_less(axes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of size 1, where others are left."""
    return tuple(axis for axis in axes if shape[axis] > 1) or axes


def session(
    model: Path | bytes, level: Any = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    given = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("bits", "overrides", "expected", "noted"),
    [(3, {}, (8, 8), 2), (4, {"lr": 3}, (8, 3), 1), (3, {"^l": 4}, (4, 4), 0), (2, {"=lw": 2}, (2, 8), 1)],
)
def test_recurrent_weights_have_8_bits_where_no_override_says_otherwise(
    bits: int, overrides: dict[str, int], expected: tuple[int, int], noted: int, tmp_path: Path
) -> None:
    case = CONSUMERS["LSTM"]
    onnx.save(case.model(case.values()), tmp_path / "model.onnx")
    report = compress_onnx(
        tmp_path / "model.onnx",
        tmp_path / "small.onnx",
        MuLawSpec(bits=bits, grid="int8"),
        overrides=overrides,
    )
    assert tuple(found.bits for found in report.weights) == expected
    notes = [found.note for found in report.weights if found.note]
    assert (
        notes
        == ["8 bits, since its layer feeds an error back at every step; an override changes that"] * noted
    )
