"""Numbers that are looked up, written or sorted by place."""

import onnx_ir as ir
import torch
from torch import Tensor

from muquant_onnx.torch_copy.operator import Operator, refuse


def _from_front(places: Tensor, size: int) -> Tensor:
    places = places.long()
    return torch.where(places < 0, places + size, places)


def _gather(node: ir.Node, x: Tensor, places: Tensor) -> Tensor:
    axis = node.attributes.get_int("axis", 0) % x.dim()
    found = x.index_select(axis, _from_front(places, x.shape[axis]).reshape(-1))
    return found.reshape(x.shape[:axis] + places.shape + x.shape[axis + 1 :])


def _gather_elements(node: ir.Node, x: Tensor, places: Tensor) -> Tensor:
    axis = node.attributes.get_int("axis", 0)
    return x.gather(axis, _from_front(places, x.shape[axis]))


def _gather_nd(node: ir.Node, x: Tensor, places: Tensor) -> Tensor:
    shared = node.attributes.get_int("batch_dims", 0)
    ranks = places.dim() - 1
    before = [
        torch.arange(size).reshape([-1 if place == axis else 1 for place in range(ranks)])
        for axis, size in enumerate(places.shape[:shared])
    ]
    own = [_from_front(each, x.shape[shared + axis]) for axis, each in enumerate(places.unbind(-1))]
    return x[(*before, *own)]


def _scatter_nd(node: ir.Node, x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    how = node.attributes.get_string("reduction", "none")
    if how not in ("none", "add"):
        raise refuse(node, f"reduction {how}")
    own = tuple(_from_front(each, x.shape[axis]) for axis, each in enumerate(places.unbind(-1)))
    return x.index_put(own, values, accumulate=how == "add")


def _scatter_elements(node: ir.Node, x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    how, axis = node.attributes.get_string("reduction", "none"), node.attributes.get_int("axis", 0)
    places = _from_front(places, x.shape[axis])
    if how == "none":
        return x.scatter(axis, places, values)
    if how != "add":
        raise refuse(node, f"reduction {how}")
    return x.scatter_add(axis, places, values)


def _trilu(node: ir.Node, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    part = torch.triu if node.attributes.get_int("upper", 1) else torch.tril
    return part(x, 0 if diagonal is None else int(diagonal))


def _non_zero(_: ir.Node, x: Tensor) -> Tensor:
    return x.nonzero().T


def _one_hot(node: ir.Node, places: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    axis, size = node.attributes.get_int("axis", -1), int(depth)
    axis = axis % (places.dim() + 1)
    same = _from_front(places, size).unsqueeze(axis) == torch.arange(size).reshape(
        [-1 if place == axis else 1 for place in range(places.dim() + 1)]
    )
    return torch.where(same, values[1], values[0])


def _top_k(node: ir.Node, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    axis, largest = node.attributes.get_int("axis", -1), bool(node.attributes.get_int("largest", 1))
    values, places = x.topk(int(count), axis, largest, sorted=True)
    return values, places


def _cum_sum(node: ir.Node, x: Tensor, axis: Tensor) -> Tensor:
    along, back = int(axis), node.attributes.get_int("reverse", 0)
    x = x.flip(along) if back else x
    sums = x.cumsum(along, dtype=x.dtype)
    sums = sums - x if node.attributes.get_int("exclusive", 0) else sums
    return sums.flip(along) if back else sums


def _arg_max(node: ir.Node, x: Tensor) -> Tensor:
    if node.attributes.get_int("select_last_index", 0):
        raise refuse(node, "select_last_index")
    return x.argmax(node.attributes.get_int("axis", 0), bool(node.attributes.get_int("keepdims", 1)))


def _arg_min(node: ir.Node, x: Tensor) -> Tensor:
    return _arg_max(node, -x)


OPERATORS: dict[str, Operator] = {
    "ArgMax": _arg_max,
    "ArgMin": _arg_min,
    "CumSum": _cum_sum,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
    "Trilu": _trilu,
}
