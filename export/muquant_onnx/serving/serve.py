"""A compressed file as the graph that a policy asks for, with finished weights and nothing to decode."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass

from muquant_onnx.format.names import label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.lower import Policy, check_policy, lower
from muquant_onnx.lowering.store import stand_in
from muquant_onnx.serving.arrays import initializer
from muquant_onnx.serving.decoders import Decoding, Root, UnknownFormError, decodings, roots
from muquant_onnx.serving.handing import Handed, hand_over
from muquant_onnx.serving.matmul_nbits import KernelWeight, kernel_weight
from muquant_onnx.serving.read import read_compressed
from muquant_onnx.serving.restore import restore
from muquant_onnx.serving.scan import scan_products
from muquant_onnx.serving.weights import Array, Decoded

_CONTRIB = "com.microsoft"


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
    if policy != file.policy:
        relower(file.model, file.weights, policy)
    return hand_over(file.model, finish(file.model, file.weights, policy, accuracy_level))


def count_kernels(path: str | os.PathLike[str], policy: str | None) -> int:
    """Return how many products of a file should run on onnxruntime's kernels of integer weights.

    Args:
        path: of a file that muquant wrote.
        policy: by which it is loaded; None where onnxruntime loads it as it is.
    """
    if policy in ("float", "packed"):
        return 0
    file = read_compressed(path)
    if policy is not None:  # as the file would be, had it been written with that policy
        lower(file.model, restore(file.model, file.weights), check_policy(policy), functions=True)
    matrices: list[ir.Value] = []
    for decoding in decodings(file.model.graph):
        with suppress(UnknownFormError):
            matrices += [root.value for root in roots(decoding.levels) if root.kind == "matrix"]
    return sum(len(matrix.consumers()) for matrix in matrices)


def relower(model: ir.Model, weights: Mapping[str, PackedWeight], policy: Policy) -> None:
    """Let `model` use its compressed weights as if it had been written with `policy`, in place."""
    lower(model, restore(model, weights), policy, functions=True)


def finish(
    model: ir.Model, weights: Mapping[str, PackedWeight], policy: Policy, accuracy_level: int
) -> dict[str, Array]:
    """Put finished weights in the place of what decodes them, in place.

    Args:
        model: that uses its weights by `policy`.
        weights: of the model, by name.
        policy, accuracy_level: see `served_file`.

    Returns:
        the values of the initializers that now stand for the weights, by name. The model refers to them as
        external data at a location of that name.
    """
    finisher = _Finisher(model, policy, accuracy_level)
    for decoding in list(decodings(model.graph)):
        with suppress(UnknownFormError):  # which onnxruntime decodes, as the file says
            for root in list(roots(decoding.levels)) if decoding.weight in weights else ():
                finisher.finish(decoding, root, weights[decoding.weight])
    RemoveUnusedNodesPass()(model)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    return finisher.arrays


def packed_file(path: str | os.PathLike[str]) -> Handed:
    """Read a file that muquant wrote, and let it decode its weights while it runs, matrices in blocks.

    Raises:
        InputError: the file cannot be read, or was not written by muquant.
    """
    file = read_compressed(path)
    values, arrays = restore(file.model, file.weights), dict[str, Array]()
    for value, (name, packed) in values.items():
        arrays |= scan_products(file.model, value, name, packed)
    RemoveUnusedNodesPass()(file.model)
    lower(file.model, values, "float", functions=True)
    return hand_over(file.model, arrays)


class _Finisher:
    """Puts finished weights into a graph."""

    def __init__(self, model: ir.Model, policy: Policy, accuracy_level: int) -> None:
        self.graph, self.policy, self.accuracy_level = model.graph, policy, accuracy_level
        self.arrays: dict[str, Array] = {}
        self.kernels: dict[tuple[str, str], KernelWeight] = {}
        model.graph.opset_imports.setdefault(_CONTRIB, 1)

    def finish(self, decoding: Decoding, root: Root, packed: PackedWeight) -> None:
        """Put what `root` computes from the levels in its place."""
        name, places = decoding.weight, decoding.places
        decoded = Decoded(packed.of_type(root.value.dtype or packed.dtype))
        if root.kind == "weight":
            stand_in(root.value, self.initializer(name, "served", decoded.weight))
        elif root.kind == "rows":
            root.consumer.replace_input_with(0, self.initializer(name, "served_levels", decoded.levels))
        elif self.policy == "float":
            matrix = self.initializer(name, "served_matrix", lambda: decoded.matrix(places=places))
            stand_in(root.value, matrix)
        else:
            self.use_kernel(name, root, lambda: kernel_weight(decoded, root.bits, places=places))

    def use_kernel(self, name: str, root: Root, make: Callable[[], KernelWeight]) -> None:
        """Let onnxruntime's kernel for integer weights do what products with `root` do."""
        kernel = f"kernel{root.bits}"
        if (name, kernel) not in self.kernels:
            self.kernels[name, kernel] = make()
        weight = self.kernels[name, kernel]
        attributes = {
            "K": weight.inputs,
            "N": weight.outputs,
            "bits": root.bits,
            "block_size": weight.block_size,
            "accuracy_level": self.accuracy_level,
        }
        codes = self.initializer(name, f"{kernel}_codes", lambda: weight.codes)
        scales = self.initializer(name, f"{kernel}_scales", lambda: weight.scales)
        for matmul in list(root.value.consumers()):
            output = matmul.outputs[0]
            product = ir.Value(name=label(str(output.name), "product"), type=output.type, shape=output.shape)
            inputs = [matmul.inputs[0], codes, scales]
            node = ir.node("MatMulNBits", inputs, attributes, domain=_CONTRIB, outputs=[product])
            self.graph.insert_before(matmul, node)
            stand_in(output, product)

    def initializer(self, name: str, part: str, make: Callable[[], Array]) -> ir.Value:
        """The initializer NAME.part, whose value is made once."""
        return initializer(self.graph, label(name, part), make, self.arrays)
