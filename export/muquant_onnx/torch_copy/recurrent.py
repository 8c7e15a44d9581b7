"""LSTM, GRU and RNN, by torch's own, whose gates are in another order."""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from muquant_onnx.torch_copy.operator import Operator, refuse

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Which of ONNX's gates each of torch's is."""
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_RUN: dict[str, Any] = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}


def _recurrent(
    node: ir.Node,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    *states: Tensor | None,
) -> tuple[Tensor, ...]:
    """x [T, N, inputs], weights and biases [directions, gates * hidden, ...], states [directions, N, hidden]
    -> [T, directions, N, hidden] and the last states."""
    _check(node, x, lengths, states)
    kind, directions, hidden = node.op_type, len(weight), recurrence.shape[-1]
    turned = node.attributes.get_string("direction", "forward") == "reverse"
    x = x.flip(0) if turned else x
    own: list[Tensor] = []
    for place in range(directions):
        own += [_ordered(each[place], kind) for each in (weight, recurrence)]
        if bias is not None:
            own += [_ordered(each, kind) for each in bias[place].chunk(2)]
    start = [
        x.new_zeros(directions, x.shape[1], hidden) if each is None else each
        for each in (*states, None, None)[: 2 if kind == "LSTM" else 1]
    ]
    begin = start if kind == "LSTM" else start[0]
    y, *last = _RUN[kind](x, begin, own, bias is not None, 1, 0.0, False, directions == 2, False)
    y = y.reshape(*y.shape[:2], directions, hidden).transpose(1, 2)
    return (y.flip(0) if turned else y, *last)[: len(node.outputs)]


def _ordered(gates: Tensor, kind: str) -> Tensor:
    parts = gates.chunk(len(_GATES[kind]))
    return torch.cat([parts[place] for place in _GATES[kind]])


def _check(node: ir.Node, x: Tensor, lengths: Tensor | None, states: Sequence[Tensor | None]) -> None:
    attributes, kind = node.attributes, node.op_type
    directions = 2 if attributes.get_string("direction", "forward") == "bidirectional" else 1
    if list(attributes.get_strings("activations", _USUAL[kind] * directions)) != _USUAL[kind] * directions:
        raise refuse(node, "other activations than usual")
    switches = [attributes.get_int(name, 0) for name in ("input_forget", "layout")]
    if "clip" in attributes or any(switches):
        raise refuse(node, "clip, input_forget or another layout")
    if kind == "GRU" and not attributes.get_int("linear_before_reset", 0):
        raise refuse(node, "linear_before_reset 0")
    if len(states) > 2 and states[2] is not None:
        raise refuse(node, "peepholes")
    if lengths is not None and not bool((lengths == len(x)).all()):
        raise refuse(node, "sequences of several lengths")


OPERATORS: dict[str, Operator] = dict.fromkeys(_RUN, _recurrent)
