"""What the tables have to show."""

from collections.abc import Iterator
from typing import Any

from paper.attacks import CLEAN, WHITE_BOX, WITH_EPSILON
from paper.published import published

BEST_PUBLISHED = "F.L.+mu (Q)"
"""The source's best row at 3 bits."""

COLLAPSE, MASKED, UNMASKED = 0.4, 0.05, 0.01
"""What Adv. (Q) loses in clean accuracy, at least; what F.L.+mu gains under PGD, at least, and in the worst
case, at most."""

LEAST_CLEAN = {
    "mnist": {"Orig., ours": 0.992, "F.L., ours": 0.990},
    "cifar10": {"Orig.": 0.90},
}
LEAST_WORST_CASE = {"mnist": {"Adv., ours, trained": 0.88}}
MOST_LOST = {"cifar10": {"Orig., ours": ("Orig.", 0.005)}}
"""Data set -> row -> what is asked of it."""


def targets(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked, what was found, and whether that is enough; for the rows that there are."""
    found = [*_asked(document), *_reproduced(document)]
    return [{"target": target, "found": value, "met": met} for target, value, met in found]


def _asked(document: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    data, rows = document["data"], document["rows"]
    for row, least in LEAST_CLEAN[data].items():
        if row in rows:
            share = accuracy(rows[row], CLEAN)
            yield f"{row}: clean at least {least:.1%}", f"{share:.2%}", share >= least
    for row, (other, most) in MOST_LOST.get(data, {}).items():
        if row in rows and other in rows:
            lost = accuracy(rows[other], CLEAN) - accuracy(rows[row], CLEAN)
            text = f"{row}: at most {100 * most:.1f} points of clean accuracy below {other}"
            yield text, f"{100 * lost:.2f}", lost <= most
    for row, least in LEAST_WORST_CASE.get(data, {}).items():
        if row in rows:
            share = rows[row]["worst_case"]
            yield f"{row}: worst case at least {least:.0%}", f"{share:.1%}", share >= least
            for column in WITH_EPSILON:
                best = published(data, "white_box", BEST_PUBLISHED, column)
                share = accuracy(rows[row], WHITE_BOX[column])
                assert best is not None
                text = f"{row}: {column} above the source's {BEST_PUBLISHED}, {best:.2%}"
                yield text, f"{share:.2%}", share > best


def _reproduced(document: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    rows = document["rows"]
    if "Adv." in rows and "Adv. (Q)" in rows:
        lost = accuracy(rows["Adv."], CLEAN) - accuracy(rows["Adv. (Q)"], CLEAN)
        text = f"reproduced: Adv. (Q) loses at least {100 * COLLAPSE:.0f} points of clean accuracy"
        yield text, f"{100 * lost:.1f}", lost >= COLLAPSE
    if "F.L." in rows and "F.L.+mu" in rows:
        plain, mapped = rows["F.L."], rows["F.L.+mu"]
        gain = accuracy(mapped, "pgd") - accuracy(plain, "pgd")
        text = f"reproduced: +mu gains F.L. at least {100 * MASKED:.0f} points under PGD on the cross-entropy"
        yield text, f"{100 * gain:.1f}", gain >= MASKED
        gain = mapped["worst_case"] - plain["worst_case"]
        text = f"unmasked: of which the worst case has at most {100 * UNMASKED:.0f}"
        yield text, f"{100 * gain:.1f}", gain <= UNMASKED


def accuracy(row: dict[str, Any], attack: str) -> float:
    """What an attack left of a row, 0..1."""
    share: float = row["attacks"][attack]["accuracy"]
    return share
