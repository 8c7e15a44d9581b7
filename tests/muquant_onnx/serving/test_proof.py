"""Whatever is changed in a file, no policy answers otherwise than onnxruntime: it agrees, or is refused."""

import json
import random
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from onnx import TensorProto, helper, numpy_helper

import muquant as mq
from muquant import InputError
from muquant_onnx import compress_onnx, decode_file, load_session
from muquant_onnx.serving.read import PlainWarning, read_compressed, read_consistent
from muquant_onnx.serving.sessions import POLICIES, silent_run

FIRST = Path(__file__).parents[2] / "data" / "format_1"
Change = Callable[[onnx.ModelProto], object]


def graph() -> onnx.ModelProto:
    """An embedding, a MatMul, a Gemm of what is stored as [outputs, inputs] and a transposed convolution."""
    random_numbers = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray[Any, Any]:
        return random_numbers.standard_normal(shape).astype(np.float32)

    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "square"], ["mixed"]),
        helper.make_node("Gemm", ["mixed", "dense", "bias"], ["dense_out"], transB=1),
        helper.make_node("Relu", ["dense_out"], ["active"]),
        helper.make_node("Reshape", ["active", "picture"], ["pixels"]),
        helper.make_node("ConvTranspose", ["pixels", "kernel"], ["y"], group=2),
    ]
    stored = {
        "table": weight(20, 32),
        "square": weight(32, 32),
        "dense": weight(24, 32),
        "bias": weight(24),
        "kernel": weight(4, 3, 3),
        "picture": np.array([-1, 4, 6]),
    }
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6, 8])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


FORMATS = {
    "channel": (mq.MuLawSpec(3), {"policy": "int8"}),
    "float": (mq.MuLawSpec(5, levels="mid-tread", granularity="tensor"), {"policy": "float"}),
    "functions": (mq.MuLawSpec(3), {"policy": "int8", "functions": True}),
    "int4": (mq.MuLawSpec(3, grid="int4", granularity="group:16"), {"policy": "int4"}),
    "tread": (mq.MuLawSpec(4, grid="int4", levels="mid-tread"), {"policy": "int4"}),
    "wide": (mq.MuLawSpec(8, granularity="group:5"), {"policy": "auto"}),
    "mapped": (mq.MuLawSpec(3, mu=20.0, domain="mapped"), {"policy": "int8"}),
    "kernels": (mq.MuLawSpec(3), {"policy": "int8", "target": "onnxruntime-kernels"}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("proof")
    onnx.save(graph(), folder / "float.onnx")
    contents = {}
    for name, (spec, how) in FORMATS.items():
        compress_onnx(folder / "float.onnx", folder / name, spec, flat=True, check=False, **how)  # type: ignore[arg-type]
        contents[name] = (folder / name).read_bytes()
    return contents


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def plain(path: Path) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]] | None:
    """What onnxruntime alone answers, without a line of this project; None where it does not."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {"ids": np.arange(8)}
        return feed, session.run(None, feed, silent_run())
    except Exception:  # onnxruntime's errors have no common base
        return None


def check(path: Path, policies: tuple[str, ...] = tuple(POLICIES)) -> list[str]:
    """Compare every policy with onnxruntime alone; the policies that served the file."""
    found, answered = plain(path), []
    for policy in policies:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PlainWarning)
                session = load_session(path, "accuracy-1", policy=policy, threads=1)
        except InputError:
            continue
        answered.append(policy)
        if found is None:
            continue
        feed, wanted = found
        for one, other in zip(wanted, session.run(None, feed, silent_run()), strict=True):
            largest = np.abs(one[np.isfinite(one)]).max(initial=1e-6)
            tolerance = 0.03 if "MatMulNBits" in str(path.read_bytes()) else 1e-4  # rounds what it multiplies
            np.testing.assert_allclose(other, one, rtol=0, atol=tolerance * largest, err_msg=policy)
    return answered


def weight_entry(**fields: object) -> Change:
    def change(model: onnx.ModelProto) -> None:
        (entry,) = model.metadata_props
        block = json.loads(entry.value)
        block["weights"]["square"].update(fields)
        entry.value = json.dumps(block)

    return change


def tensor(name: str, make: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Change:
    def change(model: onnx.ModelProto) -> None:
        (found,) = (each for each in model.graph.initializer if each.name == name)
        found.CopyFrom(numpy_helper.from_array(make(numpy_helper.to_array(found)), name))

    return change


@pytest.mark.parametrize("name", FORMATS)
def test_all_that_is_written_is_known(name: str, files: dict[str, bytes], path: Path) -> None:
    path.write_bytes(files[name])
    file = read_consistent(path)
    assert set(file.weights) == {"table", "square", "dense", "kernel"}
    assert {value.partition(".")[0] for value in file.proof.trusted} >= set(file.weights) - {
        weight for weight, entry in file.metadata["weights"].items() if entry["served"] == []
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check(path) == list(POLICIES)


@pytest.mark.parametrize("name", ["graph.onnx", "model.onnx", "steps.onnx"])
def test_files_of_format_1_are_known(name: str) -> None:
    file = read_consistent(FIRST / name)
    assert {value.rpartition(".")[0] for value in file.proof.trusted} == set(file.weights)


CONTRADICTIONS: dict[str, tuple[Change, str]] = {
    "levels": (weight_entry(levels="mid-tread"), "square.levels should be.*mid-tread.*has.*mid-rise"),
    "grid": (weight_entry(grid="int16"), "square.levels should be.*int16.*has.*int8"),
    "axis": (weight_entry(channel_axis=0), "square.dequantized should be.*axes .0."),
    "granularity": (weight_entry(granularity="group:32"), "square.(scale|dequantized) should be"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_metadata_that_the_graph_contradicts_decodes_nothing(
    what: str, files: dict[str, bytes], path: Path
) -> None:
    """The matrix is square, and has as many steps by either axis: only the graph tells which."""
    change, message = CONTRADICTIONS[what]
    model = onnx.ModelProto.FromString(files["channel"])
    change(model)
    onnx.save(model, path)
    with pytest.raises(InputError, match=message) as caught:
        decode_file(path)
    assert str(path) in str(caught.value)
    assert check(path) == list(POLICIES)  # what is left to onnxruntime is right


def test_a_policy_says_what_it_leaves_to_onnxruntime(files: dict[str, bytes], path: Path) -> None:
    model = onnx.ModelProto.FromString(files["channel"])
    weight_entry(levels="mid-tread")(model)
    onnx.save(model, path)
    with pytest.warns(PlainWarning, match=r"square is left to onnxruntime.*mid-tread"):
        load_session(path, policy="float")


REFUSED: dict[str, tuple[Change, str]] = {
    "steps-nan": (tensor("square.scale", lambda step: step * np.float32(np.nan)), "square do not fit.*steps"),
    "steps-negative": (tensor("square.scale", lambda step: -step), "square do not fit.*steps"),
    "steps-infinite": (tensor("square.scale", lambda step: step + np.float32(np.inf)), "square do not fit"),
    "steps-that-overflow": (
        tensor("square.scale", lambda step: 0 * step + np.float32(1e38)),
        "square do not fit",
    ),
    "mu-negative": (tensor("square.mu", lambda mu: mu - 100), "square do not fit.*mu is"),
    "mu-large": (tensor("square.mu", lambda mu: mu + 1e6), "square do not fit.*mu is"),
    "mu-float": (tensor("square.mu", lambda mu: mu.astype(np.float32)), "square do not fit.*float32"),
    "codes-signed": (tensor("square.packed", lambda codes: codes.view(np.int8)), "square do not fit.*INT8"),
    "codes-short": (tensor("square.packed", lambda codes: codes[:-3]), "square do not fit"),
    "grid-auto": (weight_entry(grid="auto"), "square do not fit.*'auto'"),
    "twice": (
        lambda model: model.graph.initializer.append(
            numpy_helper.from_array(np.zeros(384, np.uint8), "square.packed")
        ),
        "two values of the name 'square.packed'",
    ),
    "an-input": (
        lambda model: model.graph.input.append(
            helper.make_tensor_value_info("square.packed", TensorProto.UINT8, [384])
        ),
        "square do not fit",
    ),
    "a-circle": (
        lambda model: model.graph.node[0].input.append(model.graph.node[-1].output[0]),
        "computed from itself",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_parts_out_of_range_are_refused(what: str, files: dict[str, bytes], path: Path) -> None:
    change, message = REFUSED[what]
    model = onnx.ModelProto.FromString(files["channel"])
    change(model)
    path.write_bytes(model.SerializeToString())
    for read in (decode_file, lambda path: load_session(path, policy="float")):
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def _in_a_branch(model: onnx.ModelProto) -> None:
    """The levels of a weight, used in a branch; and a name of ours within it."""
    inner = helper.make_graph(
        [
            helper.make_node("Cast", ["square.levels"], ["inner"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["inner"], ["square.decoded"], keepdims=0),
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("square.decoded", TensorProto.FLOAT, [])],
    )
    other = helper.make_graph(
        [helper.make_node("Constant", [], ["other_one"], value_float=1.0)],
        "other",
        [],
        [helper.make_tensor_value_info("other_one", TensorProto.FLOAT, [])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "chosen"))
    model.graph.node.append(
        helper.make_node("If", ["chosen"], ["branched"], then_branch=inner, else_branch=other)
    )
    model.graph.output.append(helper.make_tensor_value_info("branched", TensorProto.FLOAT, []))


def _output(name: str, dtype: int) -> Change:
    return lambda model: model.graph.output.append(helper.make_tensor_value_info(name, dtype, None))


def _foreign_user(op_type: str, name: str, dtype: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node(op_type, [name], ["foreign"]))
        _output("foreign", dtype)(model)

    return change


def _renamed(old: str, new: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return change


def _shuffled(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    random.Random(0).shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _other_body(model: onnx.ModelProto) -> None:
    (constant,) = (node for node in model.graph.node if node.output[0] == "companded_max")
    constant.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(125.0)))


def _rounded_oddly(model: onnx.ModelProto) -> None:
    """Casts that are named as roundings of a weight: to what none is rounded to, and without a type."""
    for number, to in enumerate((TensorProto.INT8, TensorProto.FLOAT16)):
        name = f"kernel.rounded.{number + 1}"
        model.graph.node.append(helper.make_node("Cast", ["kernel.decoded"], [name], to=to))
        _output(name, to)(model)


def _in_between(model: onnx.ModelProto) -> None:
    """A node that nobody wrote, between levels and what they are scaled by."""
    (matrix,) = (node for node in model.graph.node if node.output[0] == "square.dequantized")
    model.graph.node.append(helper.make_node("Neg", [matrix.input[0]], ["negative"]))
    matrix.input[0] = "negative"


def _other_scale(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.full(32, 0.5, np.float32), "square.scale.9"))
    (matrix,) = (node for node in model.graph.node if node.output[0] == "square.dequantized")
    matrix.input[1] = "square.scale.9"


def _zero_point(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.full(32, 3, np.int8), "points"))
    (matrix,) = (node for node in model.graph.node if node.output[0] == "square.dequantized")
    matrix.input.append("points")


FOREIGN: dict[str, Change] = {
    "levels-are-an-output": _output("square.levels", TensorProto.INT8),
    "matrix-is-an-output": _output("square.dequantized", TensorProto.FLOAT),
    "rows-are-an-output": _output("table.rows", TensorProto.FLOAT),
    "row-levels-are-an-output": _output("table.row_levels", TensorProto.INT8),
    "decoded-is-an-output": _output("kernel.decoded", TensorProto.FLOAT),
    "levels-have-a-foreign-user": _foreign_user("Abs", "square.levels", TensorProto.INT8),
    "matrix-has-a-foreign-user": _foreign_user("Neg", "square.dequantized", TensorProto.FLOAT),
    "row-levels-have-a-foreign-user": _foreign_user("Neg", "table.row_levels", TensorProto.INT8),
    "decoded-has-a-foreign-user": _foreign_user("Transpose", "kernel.decoded", TensorProto.FLOAT),
    "in-a-branch": _in_a_branch,
    "levels-renamed": _renamed("square.levels", "other"),
    "levels-named-decoded": _renamed("square.levels", "square.decoded"),
    "of-another-weight": _renamed("square.dequantized", "dense.dequantized.7"),
    "result-named-decoded": _renamed("mixed", "square.decoded"),
    "result-named-rounded": _renamed("active", "square.rounded"),
    "shuffled": _shuffled,
    "another-body": _other_body,
    "in-between": _in_between,
    "rounded-oddly": _rounded_oddly,
    "other-scale": _other_scale,
    "zero-point": _zero_point,
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_form_that_is_not_ours_is_served_plainly(what: str, files: dict[str, bytes], path: Path) -> None:
    model = onnx.ModelProto.FromString(files["channel"])
    FOREIGN[what](model)
    path.write_bytes(model.SerializeToString())
    assert plain(path) is not None
    assert check(path) == list(POLICIES)


@pytest.mark.parametrize(
    ("name", "domain"), [("Words3Codes", "muquant"), ("Reshape", ""), ("Gather", "ai.onnx")]
)
def test_what_calls_another_function_of_that_name_is_not_known(
    name: str, domain: str, files: dict[str, bytes], path: Path
) -> None:
    model = onnx.ModelProto.FromString(files["functions"])
    body = [helper.make_node("Neg", ["a"], ["b"])]
    model.functions.append(
        helper.make_function(domain, name, ["a"], ["b"], body, [helper.make_opsetid("", 21)])
    )
    path.write_bytes(model.SerializeToString())
    assert "square" in read_compressed(path).proof.doubts


def test_a_function_that_was_changed_is_not_known(files: dict[str, bytes], path: Path) -> None:
    model = onnx.ModelProto.FromString(files["functions"])
    (function,) = (function for function in model.functions if function.name == "MuLawTables3Codes")
    (constant,) = (node for node in function.node if node.output[0] == "companded_max")
    constant.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(125.0)))
    path.write_bytes(model.SerializeToString())
    assert plain(path) is not None
    assert check(path) == list(POLICIES)
    with pytest.raises(InputError, match="the graph and the metadata differ about table"):
        decode_file(path)


def _mutated(model: onnx.ModelProto, chosen: random.Random) -> None:
    """Change one thing of a file, whatever it is."""
    graph, kind = model.graph, chosen.choice(["entry", "tensor", "input", "name", "attribute", "swap"])
    if kind == "entry":
        (entry,) = model.metadata_props
        block = json.loads(entry.value)
        values: dict[str, list[object]] = {
            "levels": ["mid-rise", "mid-tread"],
            "grid": ["int4", "int8", "int16"],
            "granularity": ["tensor", "channel", "group:16", "group:32", "group:20"],
            "bits": [2, 3, 4, 5, 8],
            "channel_axis": [0, 1, [0, 1]],
            "shape": [[32, 32], [32, 20], [20, 32], [24, 32]],
        }
        field = chosen.choice(list(values))
        block["weights"][chosen.choice(list(block["weights"]))][field] = chosen.choice(values[field])
        entry.value = json.dumps(block)
    elif kind == "tensor":
        found = chosen.choice(graph.initializer)
        content = bytearray(numpy_helper.to_array(found).tobytes())
        content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        found.raw_data = bytes(content)
        for field in ("float_data", "int32_data", "int64_data", "double_data"):
            found.ClearField(field)
    elif kind == "input":
        node = chosen.choice([node for node in graph.node if node.input])
        names = [name for other in graph.node for name in other.output]
        names += [tensor.name for tensor in graph.initializer]
        node.input[chosen.randrange(len(node.input))] = chosen.choice(names)
    elif kind == "name":
        part = chosen.choice(["levels", "decoded", "dequantized", "rounded", "places", "step"])
        old = chosen.choice(graph.node).output[0]
        new = f"{chosen.choice(['square', 'dense', 'kernel', 'table'])}.{part}.{chosen.choice([3, 4])}"
        if old not in {output.name for output in graph.output}:
            _renamed(old, new)(model)
    elif kind == "attribute":
        attribute = chosen.choice([each for node in graph.node for each in node.attribute])
        attribute.i = chosen.choice([0, 1, -1, 3, 16, 32])
    else:
        one = chosen.choice(graph.initializer)
        other = chosen.choice([each for each in graph.initializer if each.data_type == one.data_type])
        one.name, other.name = other.name, one.name


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from([name for name in FORMATS if name != "kernels"]), seed=st.integers(0, 2**32))
def test_no_policy_disagrees_with_onnxruntime(
    name: str, seed: int, files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = onnx.ModelProto.FromString(files[name])
    _mutated(model, random.Random(seed))
    path = tmp_path_factory.mktemp("mutated") / "model.onnx"
    path.write_bytes(model.SerializeToString())
    check(path)
    with suppress(InputError):
        decode_file(path)
