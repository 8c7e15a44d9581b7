"""Tuning of graphs: what the copy learned is what onnxruntime computes; without a copy that is said."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from muquant import MuLawSpec
from muquant_onnx import compress_onnx, load_session

Array = NDArray[Any]
GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[n, 1, 6, 6] x) => (float[n, 5] y)
{
    z = Conv (x, kernel)
    norm = BatchNormalization (z, scale, shift, mean, variance)
    active = Relu (norm)
    flat = Flatten (active)
    product = MatMul (flat, w)
    same = Identity (b)
    shifted = Add (product, same)
    gate = Sigmoid (shifted)
    soft = Mul (shifted, gate)
    y = Gemm (soft, v, c)
}
"""
SHAPES = {
    "kernel": (8, 1, 3, 3),
    "scale": (8,),
    "shift": (8,),
    "mean": (8,),
    "variance": (8,),
    "w": (128, 32),
    "b": (32,),
    "v": (32, 5),
    "c": (5,),
}


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def samples(seed: int, count: int = 96) -> Array:
    """Of few dimensions, as pictures are."""
    return (numbers(seed, count, 6) @ numbers(99, 6, 36)).reshape(count, 1, 6, 6)


def write(path: Path, text: str = GRAPH) -> Path:
    model = onnx.parser.parse_model(text)
    for seed, (name, shape) in enumerate(SHAPES.items()):
        values = numbers(seed, *shape)
        if name in ("variance", "scale"):
            values = np.abs(values) + 0.5
        elif len(shape) > 1:
            values /= np.sqrt(values.size / max(shape[0] if name == "kernel" else shape[-1], 1))
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, path)
    return path


def answers(path: Path, x: Array) -> Array:
    found: Array = load_session(path).run(None, {"x": x})[0]
    return found


def sqnr(exact: Array, found: Array) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - found) ** 2).sum()))


def initializers(path: Path) -> dict[str, Array]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def test_the_file_answers_as_the_copy_learned_to(tmp_path: Path) -> None:
    source, x = write(tmp_path / "float.onnx"), samples(0)
    rounded, tuned = tmp_path / "rounded.onnx", tmp_path / "tuned.onnx"
    compress_onnx(source, rounded, MuLawSpec(2), calibration=x, flat=True, check=False)
    report = compress_onnx(source, tuned, MuLawSpec(2), calibration=x, flat=True, rounding="tuned")
    assert report.tuning is not None
    assert report.tuning.after < 0.9 * report.tuning.before
    assert [weight.rounding for weight in report.weights] == ["tuned"] * 3
    held_out = x[np.arange(len(x)) % 4 == 3]
    exact = answers(source, held_out)
    gained = sqnr(exact, answers(tuned, held_out)) - sqnr(exact, answers(rounded, held_out))
    assert gained > 0.3
    before, after = initializers(source), initializers(tuned)
    assert not np.allclose(before["b"], after["b"])
    assert not np.array_equal(before["scale"], after["scale"])
    np.testing.assert_array_equal(before["variance"], after["variance"])
    np.testing.assert_array_equal(before["mean"], after["mean"])


def test_without_corrections_only_weights_change(tmp_path: Path) -> None:
    source, tuned = write(tmp_path / "float.onnx"), tmp_path / "tuned.onnx"
    compress_onnx(
        source,
        tuned,
        MuLawSpec(2),
        calibration=samples(0),
        rounding="tuned",
        corrections=False,
        max_seconds=2,
        check=False,
    )
    before, after = initializers(source), initializers(tuned)
    for name in ("scale", "shift", "mean", "variance", "b", "c"):
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("Sigmoid (shifted)", "Hardmax (shifted)"), "Hardmax: no translation to torch"),
        (("Sigmoid (shifted)", "RandomUniformLike (shifted)"), "RandomUniformLike: no translation"),
    ],
)
def test_without_a_copy_the_rounding_stands_and_the_reason_is_told(
    change: tuple[str, str], reason: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "float.onnx", GRAPH.replace(*change))
    report = compress_onnx(
        source,
        tmp_path / "tuned.onnx",
        MuLawSpec(3),
        calibration=samples(0, 16),
        rounding="tuned",
        flat=True,
        check=False,
    )
    assert report.tuning is not None
    assert report.tuning.steps == 0
    assert reason in report.tuning.words
    assert "tuned" not in {weight.rounding for weight in report.weights}
    assert answers(tmp_path / "tuned.onnx", samples(1, 4)).shape == (4, 5)


def test_a_copy_that_answers_otherwise_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operators = __import__("muquant_onnx.torch_copy.registry", fromlist=["OPERATORS"]).OPERATORS
    exact = operators["Sigmoid"]
    monkeypatch.setitem(operators, "Sigmoid", lambda node, x: exact(node, x) * 1.001)
    report = compress_onnx(
        write(tmp_path / "float.onnx"),
        tmp_path / "tuned.onnx",
        MuLawSpec(3),
        calibration=samples(0, 16),
        rounding="tuned",
        flat=True,
        check=False,
    )
    assert report.tuning is not None
    assert "away from onnxruntime's" in report.tuning.words
