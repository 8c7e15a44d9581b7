"""Protobuf messages of any kind, one field changed."""

from collections.abc import Iterator
from random import Random
from typing import Any

from fuzzing import odd, raw

Message = Any
"""Of protobuf, which has no types for mypy."""


def change_field(message: Message, random: Random) -> None:
    """Change one field that is set, somewhere in a message: a value, or how often it is there."""
    places = [
        (each, field)
        for each in _messages(message)
        for field, _ in each.ListFields()
        if field.name not in ("raw_data",)  # which is most of a model's bytes, and changed elsewhere
    ]
    if not places:
        return
    owner, field = random.choice(places)
    if _repeated(field):
        _change_list(getattr(owner, field.name), field, random)
    elif field.type == field.TYPE_MESSAGE or not random.randrange(5):
        owner.ClearField(field.name)
    else:
        setattr(owner, field.name, _value(field, getattr(owner, field.name), random))


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, found in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in found if _repeated(field) else [found]:
                yield from _messages(inner)


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated)


def _change_list(values: Any, field: Any, random: Random) -> None:
    if not len(values):
        return
    at, other = random.randrange(len(values)), random.randrange(len(values))
    what = random.randrange(4)
    if what == 0:
        del values[at]
    elif field.type == field.TYPE_MESSAGE:
        taken = type(values[at])()
        taken.CopyFrom(values[at])
        if what == 1:
            values.add().CopyFrom(taken)
        else:
            values[at].CopyFrom(values[other])
            values[other].CopyFrom(taken)
    elif what == 1:
        values.append(values[at])
    elif what == 2:
        values[at], values[other] = values[other], values[at]
    else:
        values[at] = _value(field, values[at], random)


def _value(field: Any, found: Any, random: Random) -> Any:
    """Return another value that the field can have."""
    if field.type == field.TYPE_STRING:
        text = random.choice((odd.near(found, random), *odd.TEXTS))
        return text.encode(errors="replace").decode()
    if field.type == field.TYPE_BYTES:
        return raw.changed(found, random)
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        wide = random.choice((*odd.FLOATS, -found, 2 * found))
        return wide if field.type == field.TYPE_DOUBLE or abs(wide) < 3e38 else float("inf")
    if field.type == field.TYPE_ENUM:
        return random.choice([each.number for each in field.enum_type.values])
    wide = random.choice((odd.near(int(found), random), *odd.INTEGERS))
    bits = 31 if field.type == field.TYPE_INT32 else 63
    return max(-(2**bits), min(2**bits - 1, wide))
