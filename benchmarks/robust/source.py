"""The source's networks: in float, rounded as it rounds, and with its last layers mapped."""

from collections.abc import Collection
from pathlib import Path

from paper.networks import Made, mapped_quantized, source_quantized
from paper.recipes import RECIPES

from muquant.base.files import make_folder
from robust.entry import Entry, Family
from robust.ladder import AUTHOR, KEPT

ROWS = ("orig", "fl", "adv")
"""Its networks: plain, by feedback learning, by adversarial training."""
FORMS = {"rounded": source_quantized, "mapped": mapped_quantized}


def enter(folder: Path, rows: Collection[str] = ROWS) -> list[tuple[Entry, Path]]:
    """Add the networks as entries.

    Args:
        folder: where .mq files are written.
        rows: those of `ROWS` that are wanted.

    Returns:
        Entries, and where their networks are.
    """
    made, found = Made(RECIPES["wrn-16-2"], KEPT), []
    make_folder(folder)
    for run in rows:
        family = Family(
            data="folder:data/cifar10",
            norm="linf",
            epsilon=8 / 255,
            made_by="python benchmarks/leaderboard.py source",
            author=AUTHOR,
            control=f"cifar10-source-{run}-32-float",
        )
        family.enter(family.control, "float", KEPT / run, keep=False)
        for weights, form in FORMS.items():
            name = f"cifar10-source-{run}-3-{weights}"
            path = folder / f"{name}.mq"
            form(made, run).save(path)
            family.enter(name, weights, path, keep=True)
        found += family.made
    return found
