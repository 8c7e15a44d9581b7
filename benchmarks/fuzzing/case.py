"""A case: what a reader is given."""

from collections.abc import Callable
from pathlib import Path
from random import Random

Case = dict[str, bytes]
"""Path in a folder -> content. A path that ends in a slash is an empty folder."""

Mutation = Callable[[bytes, Random], bytes]
"""A file's content, changed."""


def write_case(case: Case, folder: Path) -> Path:
    """Write all files below a folder, and return it."""
    for name, content in case.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read_case(folder: Path) -> Case:
    """Return all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def change(case: Case, name: str, mutate: Mutation, random: Random) -> Case:
    """Return the case with one file changed, or once in a while none, or one of its others in its place."""
    draw = random.randrange(40)
    if draw == 0:
        return {key: content for key, content in case.items() if key != name}
    if draw == 1:
        return {**case, name: random.choice(list(case.values()))}
    return {**case, name: mutate(case[name], random)}
