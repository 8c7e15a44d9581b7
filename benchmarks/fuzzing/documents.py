"""JSON documents with something changed."""

import copy
import json
from random import Random
from typing import Any

from fuzzing import odd, raw

_DEEPEST = 6
"""Elements of a list that are looked at; the others are like them."""


def document(content: bytes, random: Random) -> bytes:
    """Change a JSON file: its values, its structure or its bytes."""
    if not random.randrange(12):
        return raw.changed(content, random)
    return encode(text(content.decode(), random))


def text(found: str, random: Random) -> str:
    """Change a JSON text; one that was changed beyond reading before stays as it is."""
    try:
        return dump(changed(json.loads(found), random))
    except (ValueError, RecursionError):
        return found


def lines(content: bytes, random: Random) -> bytes:
    """Change one line of a file with a JSON document in each."""
    found = content.splitlines() or [b"{}"]
    at = random.randrange(len(found))
    what = random.randrange(6)
    if what == 0:
        found.append(found[at])
    elif what == 1:
        del found[at]
    else:
        found[at] = document(found[at], random)
    return b"".join(line + b"\n" for line in found)


def changed(found: Any, random: Random) -> Any:
    """Return a JSON value with one to three places of it changed."""
    found = copy.deepcopy(found)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if not isinstance(found, dict | list) or not random.randrange(60):
            return odd.value(random)
        _change_one(found, random)
    return found


def dump(found: Any) -> str:
    """Write a JSON value, also numbers and pieces that `json` does not write."""
    if isinstance(found, odd.Literal):
        return str(found)
    if isinstance(found, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {dump(each)}" for key, each in found.items()) + "}"
    if isinstance(found, list | tuple):
        return "[" + ", ".join(map(dump, found)) + "]"
    return json.dumps(found)


def encode(text: str) -> bytes:
    """Encode text, half a pair of surrogates too."""
    return text.encode("utf-8", "surrogatepass")


def _places(found: Any) -> list[tuple[Any, Any]]:
    """All containers with their keys, depth first."""
    places: list[tuple[Any, Any]] = []
    keys = list(found) if isinstance(found, dict) else range(min(len(found), _DEEPEST))
    for key in keys:
        places.append((found, key))
        if isinstance(found[key], dict | list):
            places += _places(found[key])
    return places


def _change_one(found: Any, random: Random) -> None:
    places = _places(found)
    if not places:
        return
    parent, key = random.choice(places)
    what = random.randrange(8)
    if what < 2:
        parent[key] = odd.value(random)
    elif what < 4:
        parent[key] = odd.near(parent[key], random)
    elif what == 4:
        del parent[key]
    elif what == 5 and isinstance(parent, dict):
        parent[random.choice((*odd.TEXTS, *map(str, parent)))] = parent.pop(key)
    elif what == 6 and isinstance(parent, dict):
        parent[random.choice((*odd.TEXTS, *map(str, parent)))] = odd.value(random)
    else:
        other, place = random.choice(places)
        parent[key] = copy.deepcopy(other[place])
