"""Equal digests mean that values are computed alike; names and the order of nodes mean nothing."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from muquant_onnx.format.expressions import Expressions, bodies, body, of_array

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[2] x) => (float[2] y) <float[2] c = {1.0, 2.0}> {
  k = Constant <value = float[2] {3.0, 4.0}> ()
  a = Add (x, c)
  b = Mul (a, k)
  y = ReduceSum <keepdims = 1> (b)
}"""


def digest(text: str, value: str = "y") -> bytes:
    graph = parser.parse_model(text).graph
    return Expressions(graph.node, {tensor.name: tensor for tensor in graph.initializer}, {}).of(value)


def test_names_and_order_mean_nothing() -> None:
    lines = TEXT.splitlines()
    lines[3:4], lines[4:5] = lines[4:5], lines[3:4]
    renamed = "\n".join(lines).replace("(a, k)", "(aa, kk)")
    renamed = renamed.replace("  a =", "  aa =").replace("  k =", "  kk =")
    assert digest(renamed) == digest(TEXT)
    stored = TEXT.replace("  k = Constant <value = float[2] {3.0, 4.0}> ()\n", "").replace(
        "= {1.0, 2.0}>", "= {1.0, 2.0}, float[2] k = {3.0, 4.0}>"
    )
    assert digest(stored) == digest(TEXT)  # a constant is one, whichever way it is written


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Add (x, c)", "Add (c, x)"),
        ("Add (x, c)", "Sub (x, c)"),
        ("Add (x, c)", "other.Add (x, c)"),
        ("{3.0, 4.0}", "{3.0, 4.5}"),
        ("{1.0, 2.0}", "{1.0, -2.0}"),
        ("float[2] {3.0, 4.0}", "double[2] {3.0, 4.0}"),
        ("float[2] {3.0, 4.0}", "float[2,1] {3.0, 4.0}"),
        ("keepdims = 1", "keepdims = 0"),
        ("<keepdims = 1> ", ""),
        ("Mul (a, k)", "Mul (a, x)"),
    ],
)
def test_whatever_is_computed_otherwise_differs(old: str, new: str) -> None:
    assert old in TEXT
    assert digest(TEXT.replace(old, new)) != digest(TEXT)


def test_what_is_not_the_same_twice_has_its_name() -> None:
    nodes = [helper.make_node("Split", ["x"], ["one", "two"], num_outputs=2)]
    branch = helper.make_graph([], "b", [], [])
    nodes += [
        helper.make_node("If", ["x"], [name], then_branch=branch, else_branch=branch) for name in ("p", "q")
    ]
    external = onnx.TensorProto(name="e", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    found = Expressions(nodes, {"e": external}, {})
    assert len({found.of(name) for name in ("x", "one", "two", "p", "q", "e", "f", "")}) == 8


def test_what_is_known_holds() -> None:
    graph = parser.parse_model(TEXT).graph
    known = Expressions(graph.node, {}, {}, {"a": of_array(np.zeros(2))})
    other = Expressions(graph.node, {"a": numpy_helper.from_array(np.zeros(2), "a")}, {})
    del other.producers["a"]
    assert known.of("y") == other.of("y")


def test_a_circle_ends() -> None:
    nodes = [helper.make_node("Add", ["b", "x"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    assert Expressions(nodes, {}, {}).of("a")


def function(text: str, opset: int = 21) -> onnx.FunctionProto:
    return parser.parse_function(f'<opset_import: ["" : {opset}], domain: "d"> {text}')


def test_functions_are_what_their_bodies_compute() -> None:
    one = function("f (a, b) => (y) { c = Add (a, b) y = Neg (c) }")
    same = function("g (p, q) => (z) { r = Add (p, q) z = Neg (r) }")
    turned = function("f (a, b) => (y) { c = Add (b, a) y = Neg (c) }")
    assert body(one, {}) == body(same, {}) != body(turned, {})
    assert body(function("f (a, b) => (y) { c = Add (a, b) y = Neg (c) }", 12), {}) is None
    assert bodies([one, turned])["d", "f", ""] is None  # which of them is called?
    assert bodies([one])["d", "f", ""] == body(one, {})


def test_a_call_is_none_of_the_operator_that_it_is_called_like() -> None:
    node = helper.make_node("Neg", ["x"], ["y"])
    plain = Expressions([node], {}, {}).of("y")
    assert Expressions([node], {}, {("", "Neg", ""): b"body"}).of("y") != plain
    assert Expressions([node], {}, {("", "Neg", ""): None}).of("y") != plain
