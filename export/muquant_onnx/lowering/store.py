"""One quantized weight inside an ONNX graph: its initializers, and the nodes that decode them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from muquant.format.steps import coded_steps
from muquant_onnx.format.decode_function import Tables
from muquant_onnx.format.names import Part, label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.decode import Lookup, SharedValues, initializer


@dataclass
class WeightStore:
    """The initializers of one quantized weight, made on demand, and the nodes that decode them.

    Attributes:
        graph: that the weight is in.
        name: of the weight.
        quantized: the weight.
        shared: what weights of the graph share.
        lookups: levels that the weights of the graph wait for, see `decode`.
        input_sums: (value, group size or 0) -> `sums` of it: weights of one graph share them.
        kernels: whether products are to be onnxruntime's own operator.
    """

    graph: ir.Graph
    name: str
    quantized: PackedWeight
    shared: SharedValues
    lookups: list[Lookup] = field(default_factory=list)
    input_sums: dict[tuple[ir.Value, int], ir.Value] = field(default_factory=dict)
    kernels: bool = False
    _initializers: dict[str, ir.Value] = field(default_factory=dict)
    _decoded: ir.Value | None = None
    _steps: ir.Value | None = None
    _counts: dict[str, int] = field(default_factory=dict)

    def count(self, part: str) -> int | None:
        """Return a number that makes `part` unique within this weight: None for the first, then 1, 2 ..."""
        number = self._counts.get(part, 0)
        self._counts[part] = number + 1
        return number or None

    def constant(
        self, part: str, content: NDArray[Any] | ir.TensorProtocol, number: int | None = None
    ) -> ir.Value:
        """Return the initializer NAME.part, or NAME.part.number."""
        name = label(self.name, part, number)
        if name not in self._initializers:
            tensor = ir.tensor(content, name=name) if isinstance(content, np.ndarray) else content
            self._initializers[name] = initializer(self.graph, name, tensor)
        return self._initializers[name]

    def node(
        self,
        op: str,
        inputs: list[ir.Value],
        part: str,
        dtype: ir.DataType,
        shape: Iterable[int | str | ir.SymbolicDim | None] | None,
        domain: str = "",
        **attributes: int | list[int] | ir.Graph,
    ) -> ir.Value:
        """Append a node with one output, both called NAME.part, of stated type and shape."""
        name = label(self.name, part, self.count(part))
        output = ir.Value(
            name=name, type=ir.TensorType(dtype), shape=shape if shape is None else ir.Shape(shape)
        )
        self.graph.append(ir.node(op, inputs, attributes, domain=domain, outputs=[output], name=name))
        return output

    def levels(self) -> ir.Value:
        """Decode to the levels k, in the weight's shape; each caller gets levels of its own."""
        return self._integers(Part.LEVELS, Tables.of(self.quantized.spec))

    def places(self) -> ir.Value:
        """Decode to the j of levels k = 2 j + 1, int8, in the weight's shape; each caller gets his own."""
        return self._integers(Part.PLACES, Tables.of(self.quantized.spec, places=True))

    def _integers(self, part: Part, tables: Tables) -> ir.Value:
        """Decode, to NAME.part.

        onnxruntime merges equal computations, and fuses no weight that two nodes share. So a decoder after
        the first is followed by a slice that cuts nothing, past the end by a number of its own: equal values,
        another computation.
        """
        shape, number = self.quantized.shape, self._counts.get(part, 0)
        integers = self.looked_up(part, tables, shape, Part.SHAPE)
        if number:
            start = self.constant("start", np.zeros(1, np.int64))
            end = self.constant("end", np.array([shape[0] + number]), number)
            integers = self.node("Slice", [integers, start, end], part.own, tables.dtype, shape)
        return integers

    def looked_up(self, part: str, tables: Tables, shape: tuple[int, ...], shape_part: str) -> ir.Value:
        """Return the value NAME.part, in a shape that is NAME.shape_part: what is looked up in tables."""
        name = label(self.name, part, self.count(part))
        value = ir.Value(name=name, type=ir.TensorType(tables.dtype), shape=ir.Shape(shape))
        packed = self.constant(Part.PACKED, self.quantized.packed)
        mu = self.constant(Part.MU, np.array([[self.quantized.spec.expansion_mu]]))
        wanted = self.constant(shape_part, np.array(shape, np.int64))
        self.lookups.append(Lookup(value, packed, mu, wanted, tables))
        return value

    def decoded(self) -> ir.Value:
        """Decode to the float32 weight, float32(k) * step, and round it to the type of its consumers; made
        once, shared by all float uses."""
        if self._decoded is None:
            shape, dtype = self.quantized.shape, self.quantized.dtype
            levels = self.node(
                "Cast", [self.levels()], "float_levels", ir.DataType.FLOAT, shape, to=ir.DataType.FLOAT
            )
            self._decoded = self.node(
                "Mul", [levels, self.wide_step()], Part.DECODED, ir.DataType.FLOAT, shape
            )
            if dtype != ir.DataType.FLOAT:
                self._decoded = self.node("Cast", [self._decoded], Part.ROUNDED, dtype, shape, to=dtype)
        return self._decoded

    def steps(self, step: NDArray[np.float32]) -> ir.Value:
        """The steps, laid out as they are given; made once, shared by all uses."""
        if self._steps is None:
            self._steps = self.float_or_coded(step, Part.STEP, Part.STEP_CODES)
        return self._steps

    def scale(self, step: NDArray[np.float32]) -> ir.Value:
        """The steps as a `DequantizeLinear` takes them; each caller gets a scale of its own."""
        return self.float_or_coded(step, Part.SCALE, Part.SCALE_CODES)

    def float_or_coded(self, step: NDArray[np.float32], part: Part, codes: Part) -> ir.Value:
        """The initializer NAME.part; where 8 bits hold it NAME.codes, decoded to NAME.part."""
        coded = coded_steps(step)
        if coded is None:
            return self.constant(part, step, self.count(part))
        given = self.constant(codes, coded.codes, self.count(codes))
        unit = self.constant(Part.STEP_UNIT, coded.unit)
        units = self.shared.steps_in_units(given)
        return self.node("Mul", [units, unit], part, ir.DataType.FLOAT, step.shape)

    def wide_step(self) -> ir.Value:
        """The steps in a shape that broadcasts against the weight."""
        step, channels, shape = self.quantized.step, self.quantized.channels, self.quantized.shape
        kind, blocked = self.quantized.spec.steps.kind, channels.blocked(shape)
        if kind == "tensor":
            return self.steps(step.reshape(()))
        if kind == "channel":
            wide = self.steps(step.reshape(channels.wide(shape)))
            if channels.groups == 1:
                return wide
            blocks = (*blocked[:2], *channels.wide(shape)[2:])
            wide = self.shaped("Expand", wide, "step_blocks", blocks)
            return self.shaped("Reshape", wide, "wide_step", (shape[0], *blocks[2:]))
        count, inputs = channels.count(shape), channels.inputs(shape)
        wide = self.node(
            "Gather",
            [self.steps(step), self.group_of_input(inputs)],
            "step_matrix",
            ir.DataType.FLOAT,
            (count, inputs),
            axis=1,
        )
        wide = self.shaped("Reshape", wide, "step_moved", channels.ordered(shape), "step_shape")
        back = channels.back(shape)
        if back != tuple(range(len(blocked))):
            wide = self.node("Transpose", [wide], "wide_step", ir.DataType.FLOAT, blocked, perm=list(back))
        return wide if channels.groups == 1 else self.shaped("Reshape", wide, "step_joined", shape)

    def shaped(
        self, op: str, value: ir.Value, part: str, shape: tuple[int, ...], shape_part: str | None = None
    ) -> ir.Value:
        """Append an Expand or Reshape to `shape`, a constant."""
        wanted = self.constant(shape_part or f"{part}_shape", np.array(shape, np.int64))
        return self.node(op, [value, wanted], part, value.dtype or ir.DataType.FLOAT, shape)

    def sums(self, x: ir.Value, rank: int | None) -> ir.Value:
        """The sums of `x` [..., inputs] over the inputs that share a step: [..., groups], or else [..., 1].

        With groups its `rank`, the number of its axes, must be known.
        """
        steps = self.quantized.spec.steps
        key = x, steps.group_size
        if key not in self.input_sums:
            last, grouped = self.constant("last_axis", np.array([-1])), x
            if steps.kind == "group":
                assert rank is not None
                groups = self.quantized.channels.inputs(self.quantized.shape) // steps.group_size
                kept = [0] * (rank - 1)  # Reshape's word for "as it is"
                content = np.array([*kept, groups, steps.group_size])
                shape = self.constant("grouped_shape", content, len(kept))
                grouped = self.node("Reshape", [x, shape], "grouped_inputs", ir.DataType.FLOAT, None)
            self.input_sums[key] = self.node(
                "ReduceSum",
                [grouped, last],
                "input_sums",
                ir.DataType.FLOAT,
                None,
                keepdims=int(steps.kind != "group"),
            )
        return self.input_sums[key]

    def group_of_input(self, inputs: int) -> ir.Value:
        """Index of the group that each input belongs to, int64 [inputs]."""
        bounds = [
            self.constant(part, np.array(number, np.int64))
            for part, number in (
                ("first_input", 0),
                ("inputs", inputs),
                ("next_input", 1),
                ("group_size", self.quantized.spec.steps.group_size),
            )
        ]
        place = self.node("Range", bounds[:3], "input", ir.DataType.INT64, (inputs,))
        return self.node("Div", [place, bounds[3]], "group", ir.DataType.INT64, (inputs,))


def stand_in(old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand for `old` everywhere, under the name of `old` where that is an output of the graph."""
    if old.is_graph_output():
        name = old.name
        old.name = label(str(name), "replaced")
        new.name = name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
