"""The house as imports draw it: its rooms, the arrows between them, its floors, and circles.

    python benchmarks/structure.py [--check]

A room is what lies directly in a package, a folder or a file; an arrow, that a file of one room imports from
another. The floors are the longest way down. Imports inside functions and for type checking count like all;
nothing is run. Exit status 1 where rooms, or files, import each other in a circle. Writes
`results/structure.json`, or with `--check` nothing.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import grimp
import networkx as nx
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = map(
    str, (ROOT, ROOT / "export", ROOT / "cli", ROOT / "integrations")
)  # this checkout, whichever one is installed

from provenance import write_results  # noqa: E402  # imports muquant

PACKAGES = ("muquant", "muquant_onnx", "muquant_cli", "muquant_integrations")


def main() -> int:
    """Read, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    imports = read_imports()
    houses = {package: house(package, imports) for package in PACKAGES}
    circles = [
        (package, kind, circle)
        for package, found in houses.items()
        for kind in ("circles of rooms", "circles of files")
        for circle in found[kind]
    ]
    columns = ("files", "rooms", "arrows", "floors")
    table = Table("package", *columns, "circles")
    for package, found in houses.items():
        count = sum(package == other for other, _, _ in circles)
        table.add_row(package, *(str(found[column]) for column in columns), str(count))
    Console().print(table)
    for package, kind, circle in circles:
        print(f"{package}, {kind}: {', '.join(circle)}")
    if not check:
        print(write_results("structure", 0, houses))
    return 1 if circles else 0


def read_imports() -> "nx.DiGraph[str]":
    """Module -> the modules that it imports from, of all packages."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports: nx.DiGraph[str] = nx.DiGraph()
    imports.add_nodes_from(graph.modules)
    for name in graph.modules:
        imports.add_edges_from((name, other) for other in graph.find_modules_directly_imported_by(name))
    return imports


def house(package: str, imports: "nx.DiGraph[str]") -> dict[str, Any]:
    """The rooms of a package and what ties them, as JSON values.

    Args:
        package: its name.
        imports: see `read_imports`.
    """
    own = imports.subgraph(name for name in imports if name.startswith(f"{package}."))
    rooms: nx.DiGraph[str] = nx.DiGraph()
    rooms.add_nodes_from(map(_room, own))
    rooms.add_edges_from((_room(a), _room(b)) for a, b in own.edges if _room(a) != _room(b))
    tied = sorted(room for room in rooms if rooms.degree(room))
    return {
        "files": own.number_of_nodes(),
        "rooms": len(tied),
        "tied to nothing": rooms.number_of_nodes() - len(tied),
        "arrows": rooms.number_of_edges(),
        "floors": nx.dag_longest_path_length(nx.condensation(rooms)) + 1,
        "circles of rooms": _circles(rooms),
        "circles of files": _circles(own),
        "arrows by room": {room: sorted(rooms.successors(room)) for room in tied},
    }


def _room(module: str) -> str:
    return module.split(".")[1]


def _circles(graph: "nx.DiGraph[str]") -> list[list[str]]:
    return sorted(sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1)


if __name__ == "__main__":
    sys.exit(main())
