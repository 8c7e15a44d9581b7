"""The house, counted on imports drawn by hand."""

import networkx as nx
from structure import house

ARROWS = [
    ("p.top.a", "p.middle"),
    ("p.top.a", "p.top.b"),
    ("p.middle", "p.ground.x"),
    ("p.top.b", "p.ground.y"),
    ("p.ground.x", "p.ground.y"),
    ("p.top", "q.other"),
]


def test_rooms_arrows_and_floors_are_counted() -> None:
    imports = nx.DiGraph(ARROWS)
    imports.add_node("p.alone")
    found = house("p", imports)
    assert {name: found[name] for name in ("files", "rooms", "tied to nothing", "arrows", "floors")} == {
        "files": 7,
        "rooms": 3,
        "tied to nothing": 1,
        "arrows": 3,
        "floors": 3,
    }
    assert found["arrows by room"] == {"ground": [], "middle": ["ground"], "top": ["ground", "middle"]}
    assert not found["circles of rooms"]
    assert not found["circles of files"]


def test_circles_are_found_among_rooms_and_among_files() -> None:
    upwards = house("p", nx.DiGraph([*ARROWS, ("p.ground.y", "p.middle")]))
    assert upwards["circles of rooms"] == [["ground", "middle"]]
    assert upwards["circles of files"] == [["p.ground.x", "p.ground.y", "p.middle"]]
    within = house("p", nx.DiGraph([*ARROWS, ("p.ground.y", "p.ground.x")]))
    assert within["circles of rooms"] == []
    assert within["circles of files"] == [["p.ground.x", "p.ground.y"]]
