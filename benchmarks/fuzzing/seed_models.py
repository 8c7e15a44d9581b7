"""ONNX files that mutations begin with: of others, and of ours."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import muquant
from fuzzing.case import Case, made
from muquant_onnx import compress_onnx, load_session, plan_onnx

QUICK: dict[str, Any] = {"mu": 50.0}
"""Of specs: what is not searched takes no time."""
FORMAT_1 = Path(__file__).parents[2] / "tests" / "data" / "format_1"
WRITTEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "float": ({"bits": 3}, {"policy": "float"}),
    "int8": ({"bits": 5, "granularity": "tensor"}, {"policy": "int8"}),
    "int4": ({"bits": 3, "grid": "int4", "granularity": "group:16"}, {"policy": "int4"}),
    "tread": ({"bits": 4, "grid": "int4", "levels": "mid-tread"}, {"policy": "int4", "functions": True}),
    "kernels": ({"bits": 3}, {"target": "onnxruntime-kernels"}),
    "web": ({"bits": 8}, {"target": "web"}),
}
"""Files of ours: name -> fields of the spec, options of `compress_onnx`."""


@cache
def graph() -> bytes:
    """A float model of others: an embedding, dense layers and a convolution, 1,316 weights."""
    draw = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((0.1 * draw.standard_normal(shape)).astype(np.float32), name)

    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "dense"], ["product"], name="dense"),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "last", "last.bias"], ["y"], transB=1, name="last"),
        helper.make_node("Reshape", ["hidden", "sizes"], ["picture"]),
        helper.make_node("Conv", ["picture", "kernel"], ["z"], kernel_shape=[3, 3], name="kernel"),
    ]
    tensors = [
        *(weight("table", 16, 16), weight("dense", 16, 32), weight("bias", 32)),
        *(weight("last", 8, 32), weight("last.bias", 8), weight("kernel", 4, 1, 3, 3)),
        numpy_helper.from_array(np.array([-1, 1, 4, 8]), "sizes"),
    ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8]),
        helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4, 2, 6]),
    ]
    body = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@cache
def nested() -> bytes:
    """Another: a recurrent layer, a function of the model's own, a branch with weights in it, 896 weights."""
    draw = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((0.2 * draw.standard_normal(shape)).astype(np.float32), name)

    def branch(name: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Constant", [], [f"{name}.w"], value=weight(f"{name}.w", 16, 8)),
            helper.make_node("MatMul", ["dense", f"{name}.w"], [f"{name}.y"]),
        ]
        return helper.make_graph(nodes, name, [], [helper.make_empty_tensor_value_info(f"{name}.y")])

    body = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("Tanh", ["c"], ["d"])]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Dense", ["a", "b"], ["d"], body, opsets[:1])
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["states"], hidden_size=8),
        helper.make_node("Squeeze", ["states", "axis"], ["steps"]),
        helper.make_node("Dense", ["steps", "wide"], ["dense"], domain="own"),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch("then"), else_branch=branch("else")),
    ]
    tensors = [
        *(weight("w", 1, 32, 8), weight("r", 1, 32, 8), weight("wide", 8, 16)),
        *(numpy_helper.from_array(np.array([1]), "axis"), numpy_helper.from_array(np.array(True), "yes")),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["S", 1, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["S", 1, 8])]
    graph = helper.make_graph(nodes, "nested", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def outside(content: bytes) -> Case:
    """The same model with its tensors in a file beside it."""

    def save(folder: Path) -> None:
        proto = onnx.load_model_from_string(content)
        onnx.save(
            proto, folder / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=0
        )

    return made(save)


@cache
def graphs() -> list[Case]:
    """Models of others, whole and with external data."""
    data = {"model.data": bytes(4096)}  # what a tensor may be made to refer to
    return [*({"model.onnx": each, **data} for each in (graph(), nested())), outside(graph())]


@cache
def written() -> list[Case]:
    """What we make of `graph` in all forms."""
    return [compressed(graph(), *how) for how in WRITTEN.values()]


def compressed(source: bytes, fields: dict[str, Any], options: dict[str, Any]) -> Case:
    """A file of ours made of a model of others."""

    def write(folder: Path) -> None:
        spec = muquant.MuLawSpec(**QUICK, **fields)
        given = onnx.load_model_from_string(source)
        compress_onnx(given, folder / "model.onnx", spec, rounding="nearest", check=False, **options)

    return made(write)


@cache
def served() -> list[Case]:
    """Those, one of `nested`, files of format 1, and one with external data; beside them a file that others
    may refer to."""
    earlier = [{"model.onnx": (FORMAT_1 / f"{name}.onnx").read_bytes()} for name in ("model", "graph")]
    data = {"model.data": bytes(4096)}
    whole = (*written(), compressed(nested(), *WRITTEN["int8"]), *earlier)
    return [*({**case, **data} for case in whole), outside(written()[0]["model.onnx"])]


@cache
def plan() -> Case:
    """A plan beside the model that it is for."""

    def make(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(graph())
        plan_onnx(folder / "model.onnx", max_bytes=800).save(folder / "plan.json")

    return made(make)


@cache
def cached() -> Case:
    """A compressed file and a cache with its optimised model."""
    case = {"model.onnx": written()[0]["model.onnx"]}

    def fill(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(case["model.onnx"])
        load_session(folder / "model.onnx", "accuracy-1", policy="float", cache=folder / "cache", threads=1)

    return made(fill)
