"""ONNX models with something changed, in ways that graphs of others and files of ours may differ."""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fuzzing import documents, messages, odd, raw

_KEY = "muquant"
_DATA = "model.data"
"""A file beside the model that external data may lie in."""


def model(content: bytes, random: Random) -> bytes:
    """Change a serialized model, at most as often as three times."""
    if not random.randrange(20):
        return raw.changed(content, random)
    proto = onnx.load_model_from_string(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_CHANGES)(proto, random)
    return bytes(proto.SerializeToString())


def metadata(proto: onnx.ModelProto, random: Random) -> None:
    """Change what the file says of itself."""
    for entry in proto.metadata_props:
        if entry.key == _KEY:
            entry.value = documents.text(entry.value, random).encode(errors="replace").decode()


def any_field(proto: onnx.ModelProto, random: Random) -> None:
    """Change any field of any message."""
    messages.change_field(proto, random)


def function_body(proto: onnx.ModelProto, random: Random) -> None:
    """Change a function that decodes."""
    if proto.functions:
        messages.change_field(random.choice(proto.functions), random)


def values(proto: onnx.ModelProto, random: Random) -> None:
    """Change numbers of a tensor: odd ones, others of their order, another type."""
    tensor = _tensor(proto, random)
    array = _array(tensor)
    if array is None or not array.size:
        return
    flat = array.reshape(-1).copy()
    what = random.randrange(6)
    with np.errstate(all="ignore"):
        if what == 0 and flat.dtype.kind == "f":
            flat[random.randrange(flat.size)] = random.choice(odd.FLOATS)
        elif what == 1:
            flat = flat[::-1].copy()
        elif what == 2:
            flat = flat * np.array(random.choice((-1, 0, 2))).astype(flat.dtype)
        elif what == 3 and flat.dtype.kind == "f":
            flat[:] = random.choice(odd.FLOATS)
        elif what == 4:
            flat[random.randrange(flat.size)] = flat[random.randrange(flat.size)]
        else:
            flat = flat.astype(random.choice(("float16", "float64", "float32", "int8", "int64", "uint8")))
    tensor.CopyFrom(numpy_helper.from_array(flat.reshape(array.shape), tensor.name))


def shape(proto: onnx.ModelProto, random: Random) -> None:
    """Let a tensor state another shape."""
    tensor = _tensor(proto, random)
    dims = list(tensor.dims)
    like = random.choice((dims[::-1], [*dims, 1], [int(np.prod(dims))]))
    whole = random.choice([each for each in odd.SHAPES if all(type(size) is int for size in each)])
    tensor.dims[:] = [min(size, 2**63 - 1) for size in random.choice((like, whole))]


def external(proto: onnx.ModelProto, random: Random) -> None:
    """Give a tensor entries of external data: beside values of its own, or instead of them."""
    tensor = _tensor(proto, random)
    places = (_DATA, _DATA, _DATA, "", "../secret", "/etc/hostname", "a\0b", "no", ".", "model.onnx", "link")
    entries = {
        "location": random.choice(places),
        "offset": random.choice(("0", "0", "0", "1", "-1", "4096", "x", "9" * 30)),
        "length": random.choice(
            (str(len(tensor.raw_data)), str(len(tensor.raw_data)), "0", "-1", "", "9" * 30)
        ),
    }
    del tensor.external_data[:]
    for key, entry in entries.items():
        tensor.external_data.add(key=key, value=entry)
    what = random.randrange(3)
    if what:
        tensor.data_location = TensorProto.EXTERNAL
    if what == 1:
        tensor.ClearField("raw_data")


def duplicate(proto: onnx.ModelProto, random: Random) -> None:
    """Let two tensors have one name, or a tensor be an input or a Constant's value."""
    tensor = _tensor(proto, random)
    what = random.randrange(4)
    if what == 0:
        copy = proto.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.raw_data = bytes(len(tensor.raw_data))
    elif what == 1:
        proto.graph.input.add().CopyFrom(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    elif what == 2:
        node = helper.make_node("Constant", [], [tensor.name], value=tensor)
        proto.graph.node.insert(0, node)
        proto.graph.initializer.remove(tensor)
    else:
        tensor.name = _tensor(proto, random).name


def rename(proto: onnx.ModelProto, random: Random) -> None:
    """Call a value otherwise, wherever it is."""
    old = random.choice(_values(proto) or ["x"])
    new = random.choice((*odd.TEXTS, *_values(proto))).encode(errors="replace").decode()
    for tensor in proto.graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for node in proto.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def inputs(proto: onnx.ModelProto, random: Random) -> None:
    """Let a node take other values, in another order, or fewer."""
    node = _node(proto, random)
    if node is None or not node.input:
        return
    at = random.randrange(len(node.input))
    what = random.randrange(4)
    if what == 0:
        node.input[at] = random.choice([*_values(proto), ""])
    elif what == 1:
        node.input[:] = list(node.input)[::-1]
    elif what == 2:
        del node.input[at]
    else:
        node.input.append(random.choice(_values(proto)))


def consumer(proto: onnx.ModelProto, random: Random) -> None:
    """Let a node that we never write use any value, one that decodes perhaps, or let it be an output."""
    name = random.choice(_values(proto) or ["x"])
    if not random.randrange(4):
        proto.graph.output.append(helper.make_empty_tensor_value_info(name))
        return
    operator = random.choice(("Identity", "Shape", "Abs", "Cast", "Neg", "Transpose", "Size", "Flatten"))
    more: dict[str, Any] = {"to": random.choice((1, 3, 6, 7, 10, 11))} if operator == "Cast" else {}
    result = f"extra{len(proto.graph.node)}"
    proto.graph.node.append(helper.make_node(operator, [name], [result], **more))
    proto.graph.output.append(helper.make_empty_tensor_value_info(result))


def between(proto: onnx.ModelProto, random: Random) -> None:
    """Put nodes that change nothing, or a branch, between a value and those that use it."""
    name = random.choice(_values(proto) or ["x"])
    length = random.choice((1, 1, 2, 1200))
    chain = [f"chain{len(proto.graph.node)}.{index}" for index in range(length)]
    if random.randrange(4):
        nodes = [
            helper.make_node("Identity", [before], [after])
            for before, after in zip([name, *chain[:-1]], chain, strict=True)
        ]
    else:
        chain = chain[:1]
        branches = [
            helper.make_graph(
                [helper.make_node("Identity", [name], [f"{chain[0]}.{which}"])],
                which,
                [],
                [helper.make_empty_tensor_value_info(f"{chain[0]}.{which}")],
            )
            for which in ("then", "else")
        ]
        condition = numpy_helper.from_array(np.array(bool(random.randrange(2))), f"{chain[0]}.if")
        proto.graph.initializer.append(condition)
        node = helper.make_node("If", [condition.name], chain)
        node.attribute.append(helper.make_attribute("then_branch", branches[0]))
        node.attribute.append(helper.make_attribute("else_branch", branches[1]))
        nodes = [node]
    first = next((at for at, node in enumerate(proto.graph.node) if name in node.input), None)
    if first is None:
        return
    for node in proto.graph.node:
        node.input[:] = [chain[-1] if each == name else each for each in node.input]
    all_nodes = [*proto.graph.node[:first], *nodes, *proto.graph.node[first:]]
    del proto.graph.node[:]
    proto.graph.node.extend(all_nodes)


def operator(proto: onnx.ModelProto, random: Random) -> None:
    """Let a node be another operator, of another domain."""
    node = _node(proto, random)
    if node is not None:
        others = [*(each.op_type for each in proto.graph.node), *(each.name for each in proto.functions)]
        node.op_type = random.choice((*others, "NoSuch", "Loop", "DequantizeLinear", "Gather"))
        node.domain = random.choice((node.domain, "", *(each.domain for each in proto.functions), "other"))


def versions(proto: onnx.ModelProto, random: Random) -> None:
    """State other versions of operators, or of the form."""
    if random.randrange(2) and proto.opset_import:
        random.choice(proto.opset_import).version = random.choice((1, 7, 13, 17, 18, 21, 23, 30, -1))
    else:
        proto.ir_version = random.choice((1, 3, 4, 8, 9, 10, 11, 12, 99))


_CHANGES: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    *(metadata, metadata, any_field, any_field, any_field, function_body, values, values, shape, external),
    *(duplicate, rename, inputs, consumer, between, operator, versions),
)


def _tensor(proto: onnx.ModelProto, random: Random) -> onnx.TensorProto:
    """One of the tensors, or a new one where there is none."""
    tensors: list[onnx.TensorProto] = list(proto.graph.initializer) or [proto.graph.initializer.add()]
    return random.choice(tensors)


def _node(proto: onnx.ModelProto, random: Random) -> onnx.NodeProto | None:
    return random.choice(proto.graph.node) if proto.graph.node else None


def _values(proto: onnx.ModelProto) -> list[str]:
    named = [tensor.name for tensor in proto.graph.initializer] + [each.name for each in proto.graph.input]
    return [*named, *(name for node in proto.graph.node for name in node.output if name)]


def _array(tensor: onnx.TensorProto) -> NDArray[Any] | None:
    if tensor.data_location == TensorProto.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except Exception:  # it was changed before
        return None
