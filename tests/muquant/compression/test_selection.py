import pytest

from muquant import InputError, MuLawSpec
from muquant.compression.selection import override_specs, pick

LABELS = [("conv1", "stem"), ("conv2", "block/conv"), ("fc", "head")]


@pytest.mark.parametrize(
    ("layers", "picked"),
    [
        ("all", [0, 1, 2]),
        ("last:1", [2]),
        ("last:2", [1, 2]),
        ("last:7", [0, 1, 2]),
        ("conv", [0, 1]),
        ("^conv$|head", [2]),
        ("/", [1]),
        ("stem|fc", [0, 2]),
    ],
)
def test_things_are_picked_by_any_of_their_names(layers: str, picked: list[int]) -> None:
    assert pick(LABELS, layers, "layers") == picked


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("pool", "layers 'pool' matches no layer; the layers are conv1, conv2, fc"),
        ("last:", "layers 'last:': expected a count from 1"),
        ("last:" + "9" * 5000, "expected a count from 1"),
        ("last:-1", "layers 'last:-1': expected a count from 1"),
        ("(", r"layers '\(' is not a regular expression"),
    ],
)
def test_what_picks_nothing_is_refused(layers: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pick(LABELS, layers, "layers")


def test_overrides_come_in_their_order_with_the_width_or_format_they_name() -> None:
    spec, own = MuLawSpec(granularity="tensor"), MuLawSpec(8, 255.0)
    found = list(override_specs(LABELS, spec, {"conv": 5, "stem": own}))
    assert found == [([0, 1], MuLawSpec(5, granularity="tensor")), ([0], own)]


def test_a_width_that_the_grid_does_not_hold_takes_the_grid_of_its_own() -> None:
    spec = MuLawSpec(grid="int4")
    found = list(override_specs(LABELS, spec, {"conv": 4, "stem": 8}))
    assert [own for _, own in found] == [MuLawSpec(4, grid="int4"), MuLawSpec(8)]


def test_an_override_picks_a_weight_by_its_whole_name_alone() -> None:
    names = ["conv1.weight", "conv1.weight2", "stem"]
    found = list(override_specs(LABELS, MuLawSpec(), {"=conv1.weight": 5, "=stem": 4, "stem": 2}, names))
    assert [(places, own.bits) for places, own in found] == [([0], 5), ([2], 4), ([0], 2)]
    with pytest.raises(InputError, match="'=conv1': no weight is called conv1; the weights are conv1"):
        list(override_specs(LABELS, MuLawSpec(), {"=conv1": 5}, names))


def test_things_that_share_their_first_name_count_once() -> None:
    labels = [("a",), ("attention",), ("attention",), ("head",)]
    assert pick(labels, "last:2", "layers") == [1, 2, 3]
    with pytest.raises(InputError, match=r"the layers are a, attention, head$"):
        pick(labels, "x", "layers")
