"""What serving a file takes beside another, under onnxruntime alone, on one thread, in CPU seconds.

    python -m packaged.serving EMPTY FILE [POLICY TINY]

loads one file in this process, after a session of an empty graph, and prints what that took; with a policy by
`load_session`, which has opened a tiny file before: what is imported once does not count.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from meter import Meter
from runtime_probe import opener, stock

from packaged.commands import python

SECONDS, ROUNDS = 10.0, (2, 7)
"""For the loads of a pair of files, as far as the least rounds allow; the least and most rounds."""
ANSWERING, ANSWERS = 4.0, (3, 41)
"""The same for answers."""
_Thing = TypeVar("_Thing")
_Found = TypeVar("_Found")


def loads(source: Path, path: Path, empty: Path, by: tuple[str, Path] | None = None) -> dict[str, Any]:
    """Loads in pairs of processes: CPU seconds, and the peak of memory above that of an empty session.

    Args:
        source: the float file, opened by onnxruntime alone.
        path: ours.
        empty: a file of an empty graph.
        by: the policy by which `load_session` opens ours, and a tiny file of that kind; None where
            onnxruntime alone does.
    """

    def load(one: Path) -> Any:
        given = () if by is None or one == source else by
        return json.loads(python("packaged.serving", empty, one, *given))

    found = _pairs(load, (source, path), SECONDS, ROUNDS)
    return {
        "load_cpu_seconds": _beside([(a["cpu_seconds"], b["cpu_seconds"]) for a, b in found]),
        "load_peak_bytes": _beside([(a["peak_bytes"], b["peak_bytes"]) for a, b in found]),
    }


def answers(ways: tuple[Callable[[], Any], Callable[[], Any]]) -> dict[str, Any]:
    """Answers in turn, in this process."""

    def timed(way: Callable[[], Any]) -> float:
        begin = time.process_time()
        way()
        return time.process_time() - begin

    return _beside(_pairs(timed, ways, ANSWERING, ANSWERS))


def _pairs(
    measure: Callable[[_Thing], _Found], both: tuple[_Thing, _Thing], seconds: float, rounds: tuple[int, int]
) -> list[tuple[_Found, _Found]]:
    """Measurements of two things in turn, each first in every other round."""
    found: list[tuple[_Found, _Found]] = []
    begin = time.perf_counter()
    while len(found) < rounds[0] or (len(found) < rounds[1] and time.perf_counter() - begin < seconds):
        turned = len(found) % 2
        one, other = measure(both[turned]), measure(both[1 - turned])
        found.append((other, one) if turned else (one, other))
    return found


def _beside(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians of both, and median and quartiles of the ratio of the second to the first."""
    ratios = [other / one for one, other in pairs]
    return {
        "float": statistics.median(one for one, _ in pairs),
        "ours": statistics.median(other for _, other in pairs),
        "ratio": statistics.median(ratios),
        "quartiles": [float(each) for each in np.quantile(ratios, (0.25, 0.75))],
        "rounds": len(pairs),
    }


def main() -> None:
    """Load one file."""
    empty, path, *by = sys.argv[1:]
    kept, load = [stock(empty, 1)], opener(by[0] if by else None, None, 1)
    kept += map(load, by[1:])
    with Meter() as loading:
        begin = time.process_time()
        session = load(path)
        seconds = time.process_time() - begin
    del session, kept
    print(json.dumps({"cpu_seconds": seconds, "peak_bytes": loading.peak_bytes}))


if __name__ == "__main__":
    main()
