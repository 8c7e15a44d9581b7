"""Replace float weights in an ONNX graph by packed codes and the nodes that decode them.

The graph may come from anywhere: a weight is any `ir.Value`, and each of its uses gets the cheapest form that
its consumer and the policy allow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from muquant.base.errors import InputError
from muquant_onnx.format.decode_function import DOMAIN, DOMAIN_VERSION, Tables, Words
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.decode import Lookup, SharedValues, decode
from muquant_onnx.lowering.forms import serve
from muquant_onnx.lowering.kernels import CONTRIB, NotServedError
from muquant_onnx.lowering.store import WeightStore, stand_in

Policy = Literal["auto", "float", "int8", "int4"]

_FORMS: dict[Policy, tuple[str, ...]] = {
    "auto": ("int4", "int8"),
    "float": (),
    "int8": ("int8",),
    "int4": ("int4", "int8"),
}
"""Policy -> the integer forms that it tries, the first that fits to be taken; float fits always."""


@dataclass(frozen=True)
class Served:
    """How one use of a weight is served.

    Attributes:
        weight: name of the weight.
        consumer: operator that uses it.
        form: "float" (decoded to float32), "int8" (decoded to int8 levels that the consumer keeps) or "int4"
            (to 4-bit integers that it keeps).
        reason: why a policy that prefers another form was not followed, or "".
    """

    weight: str
    consumer: str
    form: str
    reason: str = ""


def check_policy(policy: str) -> Policy:
    """Return `policy` if there is one of that name."""
    if policy not in get_args(Policy):
        raise InputError(f"policy {policy!r} is unknown; expected one of {', '.join(get_args(Policy))}")
    return policy  # type: ignore[return-value]


def lower(
    model: ir.Model,
    weights: Mapping[ir.Value, tuple[str, PackedWeight]],
    policy: Policy,
    *,
    functions: bool = False,
    pairs: bool = True,
    kernels: bool = False,
) -> list[Served]:
    """Serve every use of `weights` from packed codes, in place, and add what decodes them.

    Args:
        model: of opset 13 or later, uses the weights; what produced them is left for the caller to remove.
        weights: value -> name and quantized weight; values of one name share one set of codes.
        policy: "float" decodes to float32; "int8" keeps int8 levels wherever an int8 form fits; "int4" keeps
            4-bit integers where those fit, on the grid of that name, and else does as "int8"; "auto" keeps
            the smallest that fit where they also pay.
        functions: leave what decodes in functions of the model, instead of writing it out.
        pairs: look words of large weights up in pairs of bytes, see `Words`.
        kernels: let products be `MatMulNBits`, an operator that onnxruntime alone has, where it takes them.
    """
    graph = model.graph
    shared, lookups = SharedValues(graph), list[Lookup]()
    stores: dict[str, WeightStore] = {}
    input_sums: dict[tuple[ir.Value, int], ir.Value] = {}
    served = []
    for value, (name, quantized) in weights.items():
        store = stores.setdefault(
            name, WeightStore(graph, name, quantized, shared, lookups, input_sums, kernels)
        )
        floats: list[tuple[ir.Node, int]] = []
        for consumer, index in list(value.uses()):
            form, reason = _serve(store, consumer, index, policy)
            if form == "float":
                floats.append((consumer, index))
            served.append(Served(name, consumer.op_type, form, reason))
        for consumer, index in floats:
            consumer.replace_input_with(index, store.decoded())
        if value.is_graph_output():
            served.append(Served(name, "output", "float", "" if policy == "float" else "it is an output"))
            shape = quantized.shape
            stand_in(value, store.node("Identity", [store.decoded()], "output", quantized.dtype, shape))
    add_functions(model, decode(shared, lookups, pairs=pairs))
    for value in [
        value
        for value in graph.initializers.values()
        if not (value.uses() or value.is_graph_output() or value.is_graph_input())
    ]:
        assert value.name is not None
        del graph.initializers[value.name]  # biases that a form has replaced
    if any(node.domain == CONTRIB for node in graph):
        graph.opset_imports.setdefault(CONTRIB, 1)
    if not functions:
        InlinePass(lambda function: function.domain == DOMAIN)(model)
        graph.opset_imports.pop(DOMAIN)
    graph.sort()
    return served


def add_functions(model: ir.Model, decoders: Iterable[Tables | Words]) -> None:
    """Define functions in a model, of its opset."""
    for decoder in decoders:
        function = decoder.function(model.graph.opset_imports[""])
        model.functions[function.identifier()] = function
    model.graph.opset_imports[DOMAIN] = DOMAIN_VERSION


def forms_by_weight(served: Iterable[Served]) -> dict[str, set[str]]:
    """Return the forms in which each weight that is used is served, by name."""
    forms: dict[str, set[str]] = {}
    for use in served:
        forms.setdefault(use.weight, set()).add(use.form)
    return forms


def _serve(store: WeightStore, consumer: ir.Node, index: int, policy: Policy) -> tuple[str, str]:
    """Serve one use of a weight by the first integer form of the policy that fits.

    Returns:
        The form, "float" where none fits and the use is as it was; and why none before it fitted.
    """
    forms = _FORMS[policy]
    if policy == "auto" and store.quantized.spec.grid_name != "int4":
        forms = ("int8",)  # nobody asked for 4 bits
    reasons: dict[str, None] = {}
    for form in forms:
        try:
            if consumer.graph is not store.graph:
                raise NotServedError("it is used inside a branch or a loop")
            serve(form, store, consumer, index, pays=policy == "auto")
        except NotServedError as why:
            reasons[str(why)] = None
        else:
            return form, "; ".join(reasons)
    return "float", "; ".join(reasons)
