"""A compressed file as the graph that a policy asks for, with finished weights and nothing to decode."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from muquant.base.errors import InputError, first_line, naming
from muquant_onnx.lowering.lower import Policy, check_policy, lower
from muquant_onnx.serving.decoders import UnknownFormError, decodings, roots, stored_kernels
from muquant_onnx.serving.finish import finish
from muquant_onnx.serving.handing import Handed, hand_over
from muquant_onnx.serving.read import ServedFile, read_compressed
from muquant_onnx.serving.restore import restore
from muquant_onnx.serving.scan import scan_products
from muquant_onnx.serving.weights import Array


def served_file(path: str | os.PathLike[str], policy: Policy, accuracy_level: int) -> Handed:
    """Read a file that muquant wrote, and let it use its weights as `policy` says.

    Args:
        path: of the file.
        policy: see `lower`; need not be the one that the file was written with.
        accuracy_level: of the kernels of integer weights: 4 rounds activations to int8, 1 does not.

    Raises:
        InputError: the file cannot be read, or was not written by muquant.
    """
    file = read_compressed(path)
    file.warn_of_doubts()
    proto, anew = file.proto, frozenset[str]()
    trusted = file.proof.trusted
    if policy != file.metadata["policy"]:
        with _standard_nodes(path):
            model, anew = _lowered_anew(file, policy)
            proto = ir.to_proto(model)

    def trusts(value: str, weight: str) -> bool:
        return weight in anew or value in trusted

    with naming(os.fspath(path)):
        kernels = policy != "float"
        arrays = finish(proto, file.weights, trusts, kernels=kernels, accuracy_level=accuracy_level)
    return hand_over(proto, arrays)


class Kernels(NamedTuple):
    """Products on onnxruntime's kernels of integer weights.

    Attributes:
        fused: that it makes such where it optimises graphs.
        stored: that are written as its own operator.
    """

    fused: int
    stored: int


def count_kernels(path: str | os.PathLike[str], policy: str | None) -> Kernels:
    """Return how many products of a file should run on onnxruntime's kernels of integer weights.

    Args:
        path: of a file that muquant wrote.
        policy: by which it is loaded; None where onnxruntime loads it as it is.
    """
    file = read_compressed(path)
    with _standard_nodes(path):
        if policy in ("float", "packed"):
            return Kernels(0, len(list(stored_kernels(file.graph().graph))))
        model = file.graph() if policy is None else _lowered_anew(file, check_policy(policy))[0]
        matrices: list[ir.Value] = []
        for decoding in decodings(model.graph):
            with suppress(UnknownFormError):
                matrices += [root.value for root in roots(decoding.levels) if root.kind == "matrix"]
        fused = sum(len(matrix.consumers()) for matrix in matrices)
        return Kernels(fused, len(list(stored_kernels(model.graph))))


@contextmanager
def _standard_nodes(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file whose nodes lack inputs, or have attributes of other types than those of ONNX.

    Raises:
        InputError: they do.
    """
    try:
        yield
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, ir.serde.SerdeError) as error:
        raise InputError(
            f"{os.fspath(path)} has nodes that are none of ONNX ({first_line(error)}); export it again, or "
            f"run it without a policy"
        ) from error


def _lowered_anew(file: ServedFile, policy: Policy) -> tuple[ir.Model, frozenset[str]]:
    """The model of a file as it would be, had it been written with `policy`, and the weights of which that
    holds: others are used as before."""
    model = file.graph()
    values = restore(model, file.weights, file.proof)
    lower(model, values, policy, functions=True)
    return model, frozenset(name for name, _ in values.values())


def packed_file(path: str | os.PathLike[str]) -> Handed:
    """Read a file that muquant wrote, and let it decode its weights while it runs, matrices in blocks.

    Raises:
        InputError: the file cannot be read, or was not written by muquant.
    """
    file = read_compressed(path)
    file.warn_of_doubts()
    with _standard_nodes(path):
        return _packed(file)


def _packed(file: ServedFile) -> Handed:
    model = file.graph()
    values, arrays = restore(model, file.weights, file.proof), dict[str, Array]()
    for value, (name, packed) in values.items():
        arrays |= scan_products(model, value, name, packed)
    RemoveUnusedNodesPass()(model)
    lower(model, values, "float", functions=True)
    for node in stored_kernels(model.graph):  # whose weights nothing else can use; here answers are exact
        node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)
    return hand_over(ir.to_proto(model), arrays)
