"""What a file is for: each target is a set of choices that a runtime likes best."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from muquant.base.registry import look_up
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.lower import Policy, Served, check_policy, lower


@dataclass(frozen=True)
class Target:
    """How a file is written.

    Attributes:
        description: what it is for, in a line.
        policy: how weights are served, see `lower`.
        functions: whether what decodes stays in functions of the file, or is written out.
        pairs: whether words of large weights may stay in pairs of bytes, and be looked up from the end of a
            table; not every runtime knows negative indices.
        kernels: whether products are onnxruntime's own operator `MatMulNBits` where it takes them.
    """

    description: str
    policy: Policy = "auto"
    functions: bool = False
    pairs: bool = True
    kernels: bool = False


TARGETS: dict[str, Target] = {
    "onnxruntime": Target("stock onnxruntime: C++, C#, Java, Python, mobile, node"),
    "onnxruntime-kernels": Target(
        "onnxruntime alone, its own operators in the file: the least memory", kernels=True
    ),
    "web": Target("onnxruntime-web, whose kernels of integers are slow", policy="float", pairs=False),
    "openvino": Target("OpenVINO, and onnxruntime", policy="float", pairs=False),
    "portable": Target("whatever runs ONNX: the oldest operators that do", policy="float", pairs=False),
}

DEFAULT = TARGETS["onnxruntime"]


def choose_target(name: str, policy: str | None = None, functions: bool | None = None) -> Target:
    """Return a target, with what is said otherwise.

    Args:
        name: of `TARGETS`.
        policy: instead of its own.
        functions: instead of its own.

    Raises:
        InputError: a name is unknown.
    """
    target = look_up("target", name, TARGETS)
    if policy is not None:
        target = replace(target, policy=check_policy(policy))
    return target if functions is None else replace(target, functions=functions)


def lower_for(
    model: ir.Model, weights: Mapping[ir.Value, tuple[str, PackedWeight]], target: Target
) -> list[Served]:
    """`lower`, by the choices of a target."""
    return lower(
        model, weights, target.policy, functions=target.functions, pairs=target.pairs, kernels=target.kernels
    )
