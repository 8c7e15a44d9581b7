"""What this version would write for a weight, part by part: made by what writes files, told by digests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from muquant.format.channels import Channels
from muquant.format.spec import MuLawSpec
from muquant_onnx.format.decode_function import Tables
from muquant_onnx.format.expressions import Digest, Expressions, digest
from muquant_onnx.format.first_functions import FIRST_FUNCTIONS
from muquant_onnx.format.names import Part, label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.decode import SharedValues
from muquant_onnx.lowering.forms import serve
from muquant_onnx.lowering.kernels import INT4, INT8, NotServedError
from muquant_onnx.lowering.store import WeightStore
from muquant_onnx.serving.lookups import Integers, Shape

Form = Literal["decoded", "int8", "int4", "kernel8", "kernel4", "rows"]
"""The weight, its matrix by each integer form, what a kernel in the file takes, rows that a Gather takes."""

_NAME, _GIVEN = "weight", "given"


class Steps(NamedTuple):
    """Steps of a weight as a part of it lays them out.

    Attributes:
        part: `Part.STEP` or `Part.SCALE`.
        shape: that they have.
    """

    part: Part
    shape: Shape

    def digest(self, weight: str) -> Digest:
        """What stands for a value that is this of a weight."""
        return digest("steps", weight, str(self.part), self.shape)


class Key(NamedTuple):
    """All that the nodes of a weight depend on."""

    spec: MuLawSpec
    shape: Shape
    channels: Channels
    dtype: ir.DataType
    opset: int

    @classmethod
    def of(cls, packed: PackedWeight, opset: int) -> "Key":
        """Return that of a weight in a graph of `opset`."""
        return cls(packed.spec.with_mu(0.0), packed.shape, packed.channels, packed.dtype, opset)


@dataclass(frozen=True, eq=False)
class Template:
    """Nodes behind the integers and steps of a weight.

    Attributes:
        outputs: what they make.
        attributes: of the product, of a kernel in the file.
    """

    nodes: list[onnx.NodeProto]
    constants: Mapping[str, onnx.TensorProto]
    leaves: Mapping[str, Integers | Steps]
    outputs: list[str]
    attributes: Mapping[str, int]

    def digests(self, weight: str, given: Digest = b"") -> list[Digest]:
        """What the outputs are for a weight of this name; `given` is what goes in beside the weight."""
        known = {name: leaf.digest(weight) for name, leaf in self.leaves.items()}
        expressions = Expressions(self.nodes, self.constants, {}, {**known, _GIVEN: given})
        return [expressions.of(name) for name in self.outputs]


@lru_cache(1024)
def template(form: Form, key: Key) -> Template | None:
    """Return what is written for a weight in a form; None where it would not be."""
    step = np.zeros(key.spec.steps.step_shape(key.channels.count(key.shape), key.channels.inputs(key.shape)))
    graph = ir.Graph([], [], nodes=[], opset_imports={"": key.opset}, name="template")
    packed = PackedWeight(
        key.spec,
        key.shape,
        ir.tensor(np.zeros(0, np.uint8)),
        step.astype(np.float32),
        key.channels,
        key.dtype,
    )
    store = _Store(graph, _NAME, packed, SharedValues(graph), kernels=form.startswith("kernel"))
    try:
        values, attributes = _write(form, store)
    except NotServedError:
        return None
    constants = {name: _tensor(value) for name, value in graph.initializers.items()}
    outputs = [str(value.name) for value in values]
    return Template([ir.to_proto(node) for node in graph], constants, store.leaves, outputs, attributes)


def _tensor(value: ir.Value) -> onnx.TensorProto:
    assert value.const_value is not None
    return ir.to_proto(value.const_value)


def _write(form: Form, store: "_Store") -> tuple[list[ir.Value], dict[str, int]]:
    """Write a form; the values that it makes, and the attributes of a kernel."""
    given = ir.Value(name=_GIVEN, type=ir.TensorType(ir.DataType.FLOAT))
    if form == "decoded":
        return [store.decoded()], {}
    if form == "rows":
        weight = ir.Value(name=_NAME, type=ir.TensorType(ir.DataType.FLOAT))
        gather = ir.node("Gather", [weight, given], {"axis": 0})
        store.graph.append(gather)
        serve("int8", store, gather, 0, pays=False)
        (rows,) = (node.outputs[0] for node in store.graph if node.outputs[0].name == label(_NAME, "rows"))
        return [rows], {}
    kernel, turned = INT4 if form.endswith("4") else INT8, store.quantized.channels.axis == 0
    kernel.check(store, [2], transpose=turned, pays=False)
    if not store.kernels:
        matrix, _ = kernel.matrix(store, given, 2, transpose=turned)
        return [matrix], {}
    product, _ = kernel.product(store, given, 2, transpose=turned, shape=None)
    node = product.producer()
    assert node is not None
    if node.op_type != "MatMulNBits":
        raise NotServedError("no block of the operator divides its inputs")
    names = ("K", "N", "bits", "block_size")
    inputs = [value for value in node.inputs[1:] if value is not None]
    return inputs, {name: node.attributes.get_int(name, 0) for name in names}


def decoded_steps(codes: Digest, unit: Digest) -> tuple[Digest, Digest]:
    """What a value may be that decodes steps from 8 bits: written out, or by the function of format 1."""
    nodes, constants = _steps_nodes()
    written = Expressions(nodes, constants, {}, {_NAME: codes, _GIVEN: unit}).of(nodes[-1].output[0])
    called = digest("node", bytes.fromhex(FIRST_FUNCTIONS["StepDecode8"]), codes, unit)
    return written, digest(called, 0)


@lru_cache(1)
def _steps_nodes() -> tuple[list[onnx.NodeProto], Mapping[str, onnx.TensorProto]]:
    """The nodes that decode steps, the last one last, and their constants."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="steps")
    codes, unit = (ir.Value(name=name) for name in (_NAME, _GIVEN))
    shared = SharedValues(graph)
    shared.node("Mul", [shared.steps_in_units(codes), unit], Part.STEP)
    constants = {name: _tensor(value) for name, value in graph.initializers.items()}
    return [ir.to_proto(node) for node in graph], constants


@dataclass
class _Store(WeightStore):
    """Writes what is behind the integers and the steps of a weight, which are leaves."""

    leaves: dict[str, Integers | Steps] = field(default_factory=dict)

    def looked_up(self, part: str, tables: Tables, shape: tuple[int, ...], shape_part: str) -> ir.Value:
        return self._leaf(part, tables.dtype, Integers(tables, shape))

    def float_or_coded(self, step: NDArray[np.float32], part: Part, codes: Part) -> ir.Value:
        return self._leaf(part, ir.DataType.FLOAT, Steps(part, step.shape))

    def _leaf(self, part: str, dtype: ir.DataType, leaf: Integers | Steps) -> ir.Value:
        name = label(self.name, part, self.count(part))
        self.leaves[name] = leaf
        return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(leaf.shape))
