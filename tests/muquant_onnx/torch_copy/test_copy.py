"""A graph as a module: constants that are trained, branches, what is let go, what is refused."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from muquant import InputError
from muquant_onnx.torch_copy import TorchCopy

Array = NDArray[Any]

TWO_LAYERS = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[n, 3] x) => (float[n, 2] y, int64[2] size)
<float[3, 4] w = {1, -2, 3, -4, 5, -6, 7, -8, 9, 10, -11, 12}, float[4] bias = {0.5, -1, 2, 3}>
{
    v = Constant <value = float[4, 2] {1, 2, 3, 4, 5, 6, 7, 8}> ()
    product = MatMul (x, w)
    shifted = Add (product, bias)
    active = Relu (shifted)
    y = MatMul (active, v)
    size = Shape (y)
}
"""


def graph(text: str) -> onnx.ModelProto:
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    return model


def value(model: ir.Model, name: str) -> ir.Value:
    """A constant."""
    outputs = (output for node in model.graph for output in node.outputs)
    return next(each for each in (*model.graph.initializers.values(), *outputs) if each.name == name)


def test_gradients_are_those_of_the_same_network_in_torch() -> None:
    model = ir.from_proto(graph(TWO_LAYERS))
    copy, names = TorchCopy(model), ("w", "bias", "v")
    own = [copy.get_parameter(copy.path(value(model, name))) for name in names]
    for parameter in own:
        parameter.requires_grad_(True)
    plain = [parameter.detach().clone().requires_grad_(True) for parameter in own]
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    copy(x=x)["y"].square().sum().backward()
    (functional.relu(x @ plain[0] + plain[1]) @ plain[2]).square().sum().backward()  # type: ignore[no-untyped-call]
    for one, other in zip(own, plain, strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad)


def test_other_values_can_be_put_in_the_place_of_constants() -> None:
    model = ir.from_proto(graph(TWO_LAYERS))
    copy, x = TorchCopy(model), torch.ones(2, 3)
    swapped = {copy.path(value(model, "w")): torch.zeros(3, 4)}
    found = torch.func.functional_call(copy, swapped, kwargs={"x": x})
    bias, v = (copy.get_parameter(copy.path(value(model, name))) for name in ("bias", "v"))
    torch.testing.assert_close(found["y"], (functional.relu(bias) @ v).expand(2, 2))
    assert found["size"].tolist() == [2, 2]


def test_the_output_of_a_layer_is_that_of_its_node() -> None:
    model = ir.from_proto(graph(TWO_LAYERS))
    copy, seen = TorchCopy(model), list[Tensor]()
    node = next(node for node in model.graph if node.op_type == "Relu")
    copy.get_submodule(copy.layer(node)).register_forward_hook(lambda *each: seen.append(each[-1]))
    x = torch.randn(4, 3)
    copy(x=x)
    w, bias = (copy.get_parameter(copy.path(value(model, name))) for name in ("w", "bias"))
    torch.testing.assert_close(seen, [functional.relu(x @ w + bias)])


BRANCHES = """
<ir_version: 10, opset_import: ["" : 18]>
g (bool c, float[2] x) => (float[2] y)
<float[2] w = {2, 3}>
{
    twice = Add (x, x)
    unused = Neg (twice)
    y = If (c) <
        then_branch = g1 () => (float[2] a) { half = Mul (twice, w)  a = Add (half, x) },
        else_branch = g2 () => (float[2] b) { k = Constant <value = float[2] {5, 7}> ()  b = Sub (twice, k) }
    >
}
"""


@pytest.mark.parametrize("taken", [True, False])
def test_branches_see_what_is_around_them(taken: bool) -> None:
    model, x = graph(BRANCHES), np.array([1, -2], np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"c": np.array(taken), "x": x})
    copy = TorchCopy(ir.from_proto(model))
    for _ in range(2):  # nothing is used up
        found = copy(c=torch.tensor(taken), x=torch.from_numpy(x))["y"]
        np.testing.assert_array_equal(found.numpy(), wanted)


def test_values_are_let_go_after_their_last_use() -> None:
    chain = "".join(f"h{place + 1} = Neg (h{place}) " for place in range(8))
    text = f'<ir_version: 10, opset_import: ["" : 18]> g (float[2] h0) => (float[2] h8) {{ {chain} }}'
    copy, alive = TorchCopy(ir.from_proto(graph(text))), list[int]()
    for operation in copy.body.operations:
        operation.register_forward_hook(lambda _, given, __: alive.append(len(given[0])))
    copy(h0=torch.ones(2))
    assert alive == [2, *[3] * 7]  # the input, what was read last and what was made of it


def test_all_operators_without_a_translation_are_named() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18, "own" : 1]>
    g (float[2] x) => (float[2] y) { a = RandomNormalLike (x) b = own.Thing (a) y = Det (b) }
    """
    with pytest.raises(InputError, match=r"^Det, RandomNormalLike, own\.Thing: no translation to torch$"):
        TorchCopy(ir.from_proto(graph(text)))


def test_a_constant_of_texts_is_refused() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[2] x) => (float[2] y, string t) { t = Constant <value_string = "a"> () y = Neg (x) }
    """
    with pytest.raises(InputError, match="no translation to torch"):
        TorchCopy(ir.from_proto(graph(text)))


def test_what_torch_does_not_run_is_named() -> None:
    copy = TorchCopy(ir.from_proto(graph(TWO_LAYERS)))
    with pytest.raises(InputError, match=r"MatMul .*does not run in torch"):
        copy(x=torch.ones(2, 5))


def test_double_and_half_become_float32() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float16[2] x) => (double[2] y)
    <double[2] w = {0.1, 0.2}> { wide = Cast <to = 11> (x) y = Mul (wide, w) }
    """
    found = TorchCopy(ir.from_proto(graph(text)))(x=torch.ones(2, dtype=torch.float16))["y"]
    torch.testing.assert_close(found.detach(), torch.tensor([0.1, 0.2]))
