"""The source's networks: in float, rounded as it rounds, and with its last layers mapped."""

from pathlib import Path

from paper.networks import Made, mapped_quantized, source_quantized
from paper.recipes import RECIPES

import muquant
from robust.entry import Entry, add, digest
from robust.ladder import AUTHOR

KEPT = Path(__file__).parent.parent / "models" / "paper-wrn-16-2"
"""The run folders, which `paper_tables.py` trained."""

ROWS = ("orig", "fl", "adv")
FORMS = {"rounded": source_quantized, "mapped": mapped_quantized}


def enter(folder: Path) -> list[tuple[Entry, Path]]:
    """Add the networks as entries.

    Args:
        folder: where .mq files are written.

    Returns:
        Entries, and where their networks are.
    """
    made, found = Made(RECIPES["wrn-16-2"], KEPT), []
    for run in ROWS:
        control = f"cifar10-source-{run}-32-float"
        entries: list[tuple[str, str, Path, muquant.CompressedModel | None]] = [
            (control, "float", KEPT / run, None)
        ]
        for weights, form in FORMS.items():
            name = f"cifar10-source-{run}-3-{weights}"
            entries.append((name, weights, folder / f"{name}.mq", form(made, run)))
        for name, weights, path, compressed in entries:
            if compressed is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                compressed.save(path)
            entry = Entry(
                name=name,
                data="folder:data/cifar10",
                norm="linf",
                epsilon=8 / 255,
                weights=weights,
                made_by="python benchmarks/leaderboard.py source",
                author=AUTHOR,
                control=None if name == control else control,
                sha256=digest(path),
            )
            add(entry, path, keep=compressed is not None)
            found.append((entry, path))
    return found
