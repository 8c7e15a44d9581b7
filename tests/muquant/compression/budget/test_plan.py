"""The plan as an object and as a file that was edited by someone."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import muquant
from muquant import InputError, Plan, read_plan
from muquant.compression.budget import Drop, WidthCurve, WidthPoint

POINTS = tuple(WidthPoint(bits, 100 * bits, 4.0**-bits) for bits in range(2, 9))
CURVES = (WidthCurve("a.weight", "answers", None, POINTS), WidthCurve("b.weight", "weight", 8, POINTS))
PLAN = Plan({"a.weight": 3, "b.weight": 8}, "all", 1200, 1.5, Drop(2, 150), CURVES)


def test_what_a_plan_says_of_itself() -> None:
    assert PLAN.nbytes == 300 + 800
    assert PLAN.noise == 4.0**-3 + 4.0**-8
    assert PLAN.overrides == {"=a.weight": 3, "=b.weight": 8}
    assert PLAN.drop is not None
    assert PLAN.drop.points == pytest.approx(4 / 3)
    assert [point.bits for point in CURVES[1].allowed] == [8]
    assert CURVES[0].fall(2) is None
    assert CURVES[0].fall(9) is None
    assert CURVES[0].fall(3) == pytest.approx((4.0**-2 - 4.0**-3) / 100)
    assert POINTS[0].sqnr == pytest.approx(12.0412)
    assert WidthPoint(8, 1, 0.0).sqnr is None


def test_a_file_is_the_plan_again_also_after_an_edit(tmp_path: Path) -> None:
    path = tmp_path / "a.plan.json"
    PLAN.save(path)
    assert read_plan(path) == PLAN
    document = json.loads(path.read_text())
    assert list(document)[:2] == ["schema", "bits"]
    document["bits"]["b.weight"] = 2
    path.write_text(json.dumps(document))
    found = read_plan(path)
    assert found.overrides == {"=a.weight": 3, "=b.weight": 2}
    assert found.nbytes == 300 + 200


def changed(*keys: Any, value: Any) -> Any:
    """The plan's document with one value replaced, or with `...` removed."""
    document = copy.deepcopy(json.loads(json.dumps(PLAN.to_dict())))
    part = document
    for key in keys[:-1]:
        part = part[key]
    if value is ...:
        del part[keys[-1]]
    else:
        part[keys[-1]] = value
    return document


def few_points() -> list[Any]:
    """The curves of which the first one ends at 3 bits."""
    curves: list[Any] = changed("schema", value="muquant.plan/1")["curves"]
    curves[0]["points"] = curves[0]["points"][:2]
    return curves


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "schema is None; expected 'muquant.plan/1'"),
        ("text", "schema is None"),
        (changed("schema", value="muquant.plan/2"), "schema is 'muquant.plan/2'"),
        (changed("schema", value=[]), r"schema is \[\]"),
        (changed("bits", value=...), "plan: expected the fields"),
        (changed("more", value=1), "plan: expected the fields"),
        (changed("bits", value=[3, 8]), "bits: expected the widths of a.weight, b.weight"),
        (changed("bits", "c.weight", value=3), "bits: expected the widths of a.weight, b.weight"),
        (changed("bits", "a.weight", value=...), "bits: expected the widths"),
        (changed("bits", "a.weight", value=1), "bits of a.weight: 1; expected a whole number from 2 to 8"),
        (changed("bits", "a.weight", value=9), "bits of a.weight: 9"),
        (
            {**changed("bits", "a.weight", value=8), "curves": few_points()},
            "bits of a.weight: 8; expected a width that its curve has a point of, 2, 3",
        ),
        (changed("bits", "a.weight", value=3.0), "bits of a.weight: 3.0"),
        (changed("bits", "a.weight", value=True), "bits of a.weight: True"),
        (changed("bits", "a.weight", value={}), "bits of a.weight: {}"),
        (changed("layers", value=3), "layers is 3; expected a text"),
        (changed("layers", value=["c.weight"]), "layers is .'c.weight',.; expected a text, or names"),
        (changed("layers", value=[["a.weight"]]), "expected a text, or names"),
        (changed("layers", value={"a.weight": 1}), "expected a text, or names"),
        (changed("max_bytes", value="1kB"), "max_bytes is '1kB'"),
        (changed("max_drop", value=-1), "max_drop is -1"),
        (changed("drop", value=3), "drop: expected the fields"),
        (changed("drop", "answers", value=0), "drop: 2 of 0 answers"),
        (changed("curves", value={}), "curves is {}; expected a list"),
        (changed("curves", value=[]), "bits: expected the widths"),
        (changed("curves", 0, value=None), "weight of a plan: expected the fields"),
        (changed("curves", 0, "name", value=1), "name is 1; expected a text"),
        (changed("curves", 0, "name", value="b.weight"), "bits: expected the widths"),
        (changed("curves", 0, "measured_on", value="input"), "measured_on is 'input'"),
        (changed("curves", 0, "pinned", value=12), "pinned is 12"),
        (changed("curves", 0, "points", value=None), "points is None; expected a list"),
        (changed("curves", 0, "points", 5, value=...), "points: expected one for each width"),
        (changed("curves", 0, "points", 0, "bits", value=3), "points: expected one for each width"),
        (changed("curves", 0, "points", 0, "bits", value="2"), "bits is '2'"),
        (changed("curves", 0, "points", 0, "nbytes", value=-1), "nbytes is -1"),
        (changed("curves", 0, "points", 0, "noise", value="loud"), "noise is 'loud'"),
    ],
)
def test_a_file_that_is_no_plan_is_one_line(document: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.plan.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 200_000, b"NaN", b"[1" + 400 * b"0" + b"]"],
    ids=["none", "{", "raw", "deep", "nan", "large"],
)
def test_a_file_that_is_no_json(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.plan.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a.plan.json is not a JSON document"):
        read_plan(tmp_path / "a.plan.json")
    with pytest.raises(InputError, match="cannot read"):
        read_plan(tmp_path / "b.plan.json")


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ("all", "all"),
        ("last:2", "last:2"),
        ("auto", ("a.weight", "b.weight")),
        ("(([a-z0-9.])+)+#", ("a.weight", "b.weight")),
        ("last:" + "9" * 10_000, ("a.weight", "b.weight")),
        (["b.weight", "a.weight"], ("b.weight", "a.weight")),
    ],
)
def test_no_expression_of_a_file_is_searched(layers: Any, found: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.plan.json"
    path.write_text(json.dumps(changed("layers", value=layers)))
    plan = read_plan(path)
    assert plan.layers == found
    plan.save(path)
    assert read_plan(path) == plan


def test_layers_by_their_names_are_those_of_the_expression() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
    by_name, by_expression = (
        muquant.compress(model, layers=layers, flat=True, synthetic=False).report
        for layers in (("2.weight", "0.weight"), "^[02]$")
    )
    assert [layer.name for layer in by_name] == ["0.weight", "2.weight"]
    assert by_name == by_expression
    with pytest.raises(InputError, match=r"layers: no weight is called 0; the weights are 0.weight"):
        muquant.compress(model, layers=["0"])
