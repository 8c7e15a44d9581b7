"""Where compressed weights are in a traced graph: what stands for each, and those that stayed constants."""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.compression.artifact import CompressedModel
from muquant.compression.layers import weight_owners
from muquant.compression.left import LeftFloat
from muquant_onnx.format.decode_function import DOMAIN

Array = NDArray[Any]

_PLACEHOLDER = "Weight"


def place(module: nn.Module, compressed: CompressedModel) -> None:
    """Put placeholders on the compressed weights of `module`, a copy of the compressed one: each is traced as
    a node `muquant.Weight <name = ...> ()`."""
    names = {name: tensor.channels for name, tensor in compressed.tensors.items()}
    names |= {alias: names[name] for alias, name in compressed.aliases.items()}
    for owner in weight_owners(module, names):
        name = compressed.aliases.get(owner.name, owner.name)
        if name in compressed.tensors:
            placeholder = _Placeholder(name, tuple(owner.value.shape))
            parametrize.register_parametrization(owner.module, owner.attribute, placeholder, unsafe=True)


def find_placed(
    model: ir.Model, compressed: CompressedModel
) -> tuple[dict[ir.Value, str], tuple[LeftFloat, ...]]:
    """Return what stands for weights in `model` with their names, and the weights that are in it as floats.

    A module may reach its weight by another way than its attribute, such as a list; the tracer then keeps a
    constant. One that is the weight, or the weight transposed, gets a placeholder here, in place.
    """
    graph = model.graph
    placed = {
        node.outputs[0]: node.attributes["name"].as_string()
        for node in graph
        if node.domain == DOMAIN and node.op_type == _PLACEHOLDER
    }
    left = []
    for name in compressed.tensors.keys() - set(placed.values()):
        weight = compressed.tensors[name].dequantize().numpy()
        for constant in [each for each in graph.initializers.values() if each.const_value is not None]:
            assert constant.const_value is not None
            if constant.const_value.size != weight.size:
                continue
            held = constant.const_value.numpy()
            if np.array_equal(held, weight) or (weight.ndim == 2 and np.array_equal(held, weight.T)):
                placed[_replaced(model, constant, name, weight)] = name
            elif np.array_equal(np.sort(held, axis=None), np.sort(weight, axis=None)):
                reason = "the module reaches it by another way than its attribute"
                left.append(LeftFloat(name, weight.shape, weight.nbytes, reason))
    return placed, tuple(left)


def _replaced(model: ir.Model, constant: ir.Value, name: str, weight: Array) -> ir.Value:
    """Put a placeholder in the place of a constant, in place."""
    graph = model.graph
    placeholder = ir.node(_PLACEHOLDER, [], {"name": name}, domain=DOMAIN)
    value = placeholder.outputs[0]
    value.name, value.shape, value.type = f"{constant.name}.weight", ir.Shape(weight.shape), constant.type
    nodes, result = [placeholder], value
    if constant.shape != value.shape or not np.array_equal(_held(constant), weight):
        nodes.append(ir.node("Transpose", [value], {"perm": [1, 0]}))
        result = nodes[-1].outputs[0]
        result.name, result.shape, result.type = f"{constant.name}.turned", constant.shape, constant.type
    graph.insert_before(graph[0], nodes)
    ir.convenience.replace_all_uses_with(constant, result)
    del graph.initializers[str(constant.name)]
    return value


def _held(constant: ir.Value) -> Array:
    assert constant.const_value is not None
    return constant.const_value.numpy()


class _Placeholder(nn.Module):
    """Stands for a weight while the model is traced: a symbolic operator that carries its name."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.name, self.shape = name, shape

    def forward(self, _: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{_PLACEHOLDER}",
            (),
            {"name": self.name},
            dtype=torch.float32,
            shape=self.shape,
            version=1,
        )
