"""Images through sessions of any batch and any type of floats, against the matrix product in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from muquant import InputError
from muquant.attacks import HopSkipJump, Square
from muquant.robustness import Subject
from muquant_onnx import load_session, logits_of

WEIGHT = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
FLOAT, HALF, DOUBLE, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64
TYPES: dict[int, Any] = {FLOAT: np.float32, HALF: np.float16, DOUBLE: np.float64}


def session(
    path: Path,
    batch: int | str | None = "n",
    kind: int = FLOAT,
    weight: Any = WEIGHT,
    outputs: tuple[str, ...] = ("y",),
    other: bool = False,
) -> ort.InferenceSession:
    """A session of x [batch, 2, 4] -> y = flat(x) W, called "logits" too, and their classes."""
    values = {"W": weight.astype(TYPES[kind]), "flat": np.array([-1, 8])}
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "W"], ["y"]),
        helper.make_node("Neg", ["y"], ["negative"]),
        helper.make_node("Identity", ["y"], ["out.logits"]),
        helper.make_node("ArgMax", ["y"], ["classes"], axis=1, keepdims=0),
        helper.make_node("ReduceSum", ["y"], ["sum"], keepdims=0),
    ]
    types = {name: INT if name == "classes" else kind for name in outputs}
    inputs = ["x", "x2"] if other else ["x"]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, [batch, 2, 4]) for name in inputs],
        [helper.make_tensor_value_info(name, types[name], None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return load_session(path)


def images(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(count).random((count, 2, 4), np.float32)


@pytest.mark.parametrize("count", [1, 3, 8, 17])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("batch", ["n", None, 1, 8])
def test_any_number_of_images_in_any_batch(
    batch: int | str | None, kind: int, count: int, tmp_path: Path
) -> None:
    found = logits_of(session(tmp_path / "a.onnx", batch, kind))(images(count))
    assert found.dtype == np.float32
    assert found.shape == (count, 3)
    tolerance = 2e-2 if kind == HALF else 1e-5
    np.testing.assert_allclose(found, images(count).reshape(count, 8) @ WEIGHT, atol=tolerance)


@pytest.mark.parametrize(
    ("outputs", "sign"),
    [(("classes", "negative", "y"), -1), (("negative", "y", "out.logits"), 1), (("classes", "y"), 1)],
)
def test_logits_are_the_output_of_that_name_or_the_first_of_floats(
    outputs: tuple[str, ...], sign: int, tmp_path: Path
) -> None:
    found = logits_of(session(tmp_path / "a.onnx", outputs=outputs))(images(3))
    np.testing.assert_allclose(found, sign * images(3).reshape(3, 8) @ WEIGHT, atol=1e-5)


def test_what_is_no_classifier_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a model of one input, found 2"):
        logits_of(session(tmp_path / "a.onnx", other=True))
    with pytest.raises(InputError, match=r"found classes of tensor\(int64\)"):
        logits_of(session(tmp_path / "a.onnx", outputs=("classes",)))
    with pytest.raises(InputError, match=r"output sum: expected 8 rows for 8 images, found shape \[\]"):
        logits_of(session(tmp_path / "a.onnx", 8, outputs=("sum",)))(images(3))


@pytest.mark.parametrize("attack", [Square(epsilon=0.3, queries=20), HopSkipJump(iterations=1)], ids=repr)
@pytest.mark.parametrize("kind", [FLOAT, HALF])
@pytest.mark.parametrize("batch", ["n", 1, 8])
def test_files_of_every_kind_are_attacked(
    batch: int | str, kind: int, attack: Square | HopSkipJump, tmp_path: Path
) -> None:
    difference = (WEIGHT[:, :1] - WEIGHT[:, 1:2]) - (WEIGHT[:, :1] - WEIGHT[:, 1:2]).mean()
    one_logit = session(tmp_path / "a.onnx", batch, kind, difference)
    target = Subject("a", session=logits_of(one_logit)).onnx_target()
    assert target is not None
    inputs = images(30)
    says = logits_of(one_logit)
    labels = (says(inputs)[:, 0] > 0).astype(np.int64)
    found = attack.attack(target, inputs, labels)
    assert found.attacked.all()
    assert found.success.any()
    wrong = (says(found.adversarial.numpy())[:, 0] > 0) != labels
    np.testing.assert_array_equal(wrong, found.success)
