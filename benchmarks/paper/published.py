"""What the source states: tables 1 to 4 of its slides, as data."""

import json
from pathlib import Path

_TABLES = json.loads((Path(__file__).parent / "published.json").read_text())


def published(data: str, box: str, row: str, column: str) -> float | None:
    """An accuracy, 0..1; None where the source has none.

    Args:
        data: "mnist" or "cifar10".
        box: "white_box" or "black_box".
        row: such as "Adv.+mu (Q)".
        column: such as "FGSM (w)".
    """
    percent = _TABLES[data][box].get(row, {}).get(column)
    return None if percent is None else percent / 100
