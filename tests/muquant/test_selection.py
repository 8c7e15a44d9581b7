import pytest

from muquant import InputError, MuLawSpec
from muquant.selection import override_specs, pick

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
