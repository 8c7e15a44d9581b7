"""What a model returns, as a flat list of tensors, such as an ONNX graph gives."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass

from torch import Tensor


def output_tensors(output: object) -> list[tuple[str, Tensor]]:
    """Return all tensors of a model's result with their names, in order.

    Fields of a mapping, a dataclass or a named tuple have names, such as "logits" or "hidden_states.0". A
    tensor and the elements of a plain tuple or list have none: theirs is empty. Whatever is no tensor, None
    for one, is left out.
    """
    named = isinstance(output, Mapping) or is_dataclass(output) or hasattr(output, "_fields")
    return [(path if named else "", tensor) for path, tensor in _walk(output, "")]


def _walk(value: object, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    for key, part in _parts(value):
        yield from _walk(part, f"{path}.{key}" if path else str(key))


def _parts(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        return value.items()
    if is_dataclass(value):
        return ((field.name, getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))  # a named tuple's
        return zip(names, value, strict=True)
    return ()
