"""Values that a reader may not expect."""

from random import Random
from typing import Any

INTEGERS = (
    *(0, -1, 1, 2, 3, 5, 64, 255, 65536),
    *(2**31 - 1, 2**31, 2**32, 2**40, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400),
)
FLOATS = (float("nan"), float("inf"), -float("inf"), 0.5, -0.0, 5e-324, 1e-30, 1e39, 1e308, -1e308)
TEXTS = (
    *("", " ", "x" * 5000, "9" * 5000, "a\nb\rc", "\0", "\u202eabc", "\ud800", "\x1b]0;title\x07\x1b[2J"),
    *("[/red]", "[red]x", "[link=http://x]y[/link]", "<script>alert(1)</script>", "{{ 7 * 7 }}", "|"),
    *("../secret", "/etc/passwd", "/dev/zero", "con", "none", "nan", "inf", "1e400", "\u0663"),
    *("tensor", "channel", "group:1", "group:0", "group:2147483647", "group:\u0663", "auto"),
    *("mid-rise", "mid-tread", "int4", "int8", "int16", "mapped", "decoded", "float", "packed"),
    *("all", "last:1", "last:0", "(", "(a+)+$", ".*", "=weight", "state.", "codes.", "step."),
    *("cnn4", "cnn4-small", "wrn-16-1", "wrn-1000-1", "digits", "folder:/", "standard", "adversarial"),
)
SHAPES: tuple[list[Any], ...] = (
    *([], [0], [1], [-1], [0, 2**62], [2**62, 0], [2**40, 2**20], [2**63, 1], [2**31, 2]),
    *([1] * 70, [0] * 100, [1.5, 2], ["a"], [True, True], [[1]], [None]),
)


class Literal(str):
    """A piece of JSON as it is to be written."""

    __slots__ = ()


def value(random: Random) -> Any:
    """Return any JSON value."""
    draw = random.randrange(10)
    if draw < 3:
        return random.choice(INTEGERS)
    if draw < 5:
        return random.choice(FLOATS)
    if draw < 7:
        return random.choice(TEXTS)
    if draw == 7:
        return random.choice(([], {}, None, True, False, [[]], [1, 2], {"a": 1}, "x"))
    if draw == 8:
        return list(random.choice(SHAPES))
    depth = random.choice((50, 900, 5000, 100_000))
    return Literal("[" * depth + "]" * depth)


def near(found: Any, random: Random) -> Any:
    """Return a value of the same kind that is only a little off."""
    if isinstance(found, bool):
        return not found
    if isinstance(found, int):
        return found + random.choice((-1, 1, 7, -7, 64, -found, found))
    if isinstance(found, float):
        return found * random.choice((-1.0, 2.0, 0.0, 1e30, 1e-30))
    if isinstance(found, str):
        return random.choice((found + "x", found[:-1], found.upper(), random.choice(TEXTS) + found))
    if isinstance(found, list) and found:
        at = random.randrange(len(found))
        return random.choice((found[:at], found + found[at:], found[::-1], [*found, value(random)]))
    return value(random)
