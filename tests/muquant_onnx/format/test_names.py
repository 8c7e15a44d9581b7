"""Names of parts are taken apart as they were put together, whatever a weight is called."""

import re

import pytest
from hypothesis import given, strategies as st

from muquant_onnx.format.names import Label, Part, label, owners, parse_label, weight_names

NAMES = st.one_of(
    st.text(min_size=1),
    st.lists(st.sampled_from([*Part, "0", "1", "fc", "\n", ""]), min_size=1).map(".".join).filter(bool),
)
"""Any text, and names that look like those of parts."""
NUMBERS = st.none() | st.integers(0, 10**6)


@given(NAMES, st.sampled_from(Part), NUMBERS)
def test_a_label_is_read_back(weight: str, part: Part, number: int | None) -> None:
    assert parse_label(label(weight, part, number)) == Label(weight, part, number)


@given(NAMES)
def test_what_reads_as_a_label_was_made_as_one(name: str) -> None:
    found = parse_label(name)
    assert found is None or label(*found) == name


@pytest.mark.parametrize(
    "name",
    [
        *(None, "", "fc", "packed", ".packed", "fc.unpacked", "fc.float_levels"),
        *("fc.packed.", "fc.packed.x", "fc.packed.01", "fc.packed.-1", "fc.packed.\u0661"),
    ],
)
def test_other_names_are_no_labels(name: str | None) -> None:
    assert parse_label(name) is None


def test_the_parts_are_those_of_files_that_there_are() -> None:
    """They may not change: FORMAT.md states them."""
    assert list(map(str, Part)) == [
        *("packed", "mu", "shape", "step", "step_codes", "step_unit", "scale", "scale_codes"),
        *("levels", "own_levels", "places", "own_places", "kernel_codes", "kernel_matrix"),
        *("decoded", "rounded", "dequantized", "dequantized_places"),
    ]
    assert label("a.b", Part.LEVELS) == "a.b.levels"
    assert label("a.b", Part.LEVELS.own, 2) == "a.b.own_levels.2"


@given(NAMES, st.text(), NUMBERS)
def test_a_weight_owns_its_parts(weight: str, part: str, number: int | None) -> None:
    assert weight in owners(label(weight, part, number))
    assert weight not in owners(weight)


@given(st.lists(NAMES, unique=True), st.lists(NAMES))
def test_weights_get_names_whose_parts_are_free(sources: list[str], others: list[str]) -> None:
    taken = [*sources, *others]
    names = weight_names(sources, taken)
    assert len(set(names)) == len(names) == len(sources)
    for name, source in zip(names, sources, strict=True):
        assert re.fullmatch(r"[\w.:/-]+", name)
        assert name == source or name not in taken
    parts = [label(name, part, number) for name in names for part in Part for number in (None, 0, 1)]
    assert len({*parts, *taken}) == len(parts) + len({*taken})
