from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from muquant import InputError
from muquant.data import Dataset
from muquant.training.feedback import FeedbackConfig, FeedbackRound, generate
from muquant.training.feedback.pictures import plot_class_margins, plot_examples

if TYPE_CHECKING:
    from tests.muquant.training.feedback.conftest import Linear

pytestmark = pytest.mark.slow
MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
MARGINS = {"standard": torch.tensor([1.0, 2.0, torch.inf]), "round 1": torch.tensor([1.5, torch.inf, 3.0])}


@pytest.fixture
def made(linear: "Linear", grey: Dataset) -> FeedbackRound:
    config = FeedbackConfig(
        directions=20,
        nearest=3,
        cap=0.5,
        high_samples=1,
        medium_samples=1,
        low_samples=1,
        robustness_samples=1,
    )
    whole = generate(linear, grey, config, 0, 1)
    some = whole.labels < 2  # of two classes: drawing all takes a second
    names = ("images", "labels", "sources", "margins", "factors")
    return replace(whole, **{name: getattr(whole, name)[some] for name in names})


@pytest.mark.parametrize("suffix", MAGIC)
def test_pictures_are_written_in_the_format_of_their_names(
    suffix: str, made: FeedbackRound, grey: Dataset, tmp_path: Path
) -> None:
    examples, margins = tmp_path / f"examples{suffix}", tmp_path / f"margins{suffix}"
    plot_examples(made, grey, examples)
    plot_class_margins(MARGINS, ("a", "b", "a long name"), 16.0, margins)
    assert examples.read_bytes().startswith(MAGIC[suffix])
    assert margins.read_bytes().startswith(MAGIC[suffix])
    assert {each.name for each in tmp_path.iterdir()} == {examples.name, margins.name}


def test_examples_are_labelled_with_class_factor_and_margin(
    made: FeedbackRound, grey: Dataset, tmp_path: Path
) -> None:
    plot_examples(made, grey, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    for label in set(made.labels.tolist()):
        first = int((made.labels == label).nonzero()[0])
        assert f"<!-- class {grey.classes[label]} -->" in text
        assert f"<!-- {made.factors[first]:.2f} x {made.margins[first]:.1f} -->" in text


def test_the_seed_with_the_most_examples_is_drawn(made: FeedbackRound, grey: Dataset, tmp_path: Path) -> None:
    seed = int(made.sources[0])
    other = next(
        place for place, label in enumerate(grey.labels.tolist()) if label == made.labels[0] and place != seed
    )
    count = int((made.sources == seed).sum())
    assert count == 3
    sources = torch.tensor([other, seed, seed])
    names = ("images", "labels", "margins", "factors")
    factors = torch.tensor([1.55, 1.65, 1.75])
    mixed = replace(
        made, sources=sources, **{name: getattr(made, name)[:3] for name in names} | {"factors": factors}
    )
    plot_examples(mixed, grey, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert [f"<!-- {factor:.2f} x" in text for factor in factors.tolist()] == [False, True, True]


def test_class_margins_are_labelled_and_missing_ones_are_drawn_at_the_cap(tmp_path: Path) -> None:
    plot_class_margins(MARGINS, ("a", "b", "c"), 16.0, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert all(f"<!-- {name} -->" in text for name in ("standard", "round 1", "a", "b", "c"))


def test_colour_images_are_drawn(made: FeedbackRound, grey: Dataset, tmp_path: Path) -> None:
    def colour(images: torch.Tensor) -> torch.Tensor:
        return images.repeat(1, 3, 1, 1)

    plot_examples(
        replace(made, images=colour(made.images)),
        replace(grey, images=colour(grey.images)),
        tmp_path / "a.png",
    )


def test_what_cannot_be_drawn_is_named(made: FeedbackRound, grey: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jpeg: expected a name that ends in \.pdf, \.png, \.svg"):
        plot_examples(made, grey, tmp_path / "a.jpeg")
    with pytest.raises(InputError, match=r"a\.jpeg: expected a name that ends in"):
        plot_class_margins(MARGINS, ("a", "b", "c"), 16.0, tmp_path / "a.jpeg")
    with pytest.raises(InputError, match=r"a margin for each of 2 classes, found \[3\] for 'standard'"):
        plot_class_margins(MARGINS, ("a", "b"), 16.0, tmp_path / "a.png")
    with pytest.raises(InputError, match="made from other data"):
        plot_examples(made, grey.subset(torch.arange(3)), tmp_path / "a.png")
    empty = replace(made, **{name: getattr(made, name)[:0] for name in ("images", "labels", "sources")})
    with pytest.raises(InputError, match="expected a round with examples, found none"):
        plot_examples(empty, grey, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
