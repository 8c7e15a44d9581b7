"""How long 100 million codes take to be packed, unpacked, and looked up, on one thread, at every width.

    python benchmarks/codec.py [--count 100000000] [--repeat 3]

Writes `results/codec.json`; the exit status is 1 where a target is missed.
"""

import argparse
import statistics
import sys
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
from provenance import write_results
from rich.console import Console
from rich.table import Table

from muquant.format.packing import look_up, pack, unpack

SEED, MOST_SECONDS = 0, 2.0
WIDTHS = range(2, 9)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000_000, help="codes")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    seconds = {
        bits: measure(rng.integers(0, 1 << bits, options.count, np.uint8), bits, options.repeat)
        for bits in WIDTHS
    }
    table = Table("bits", *next(iter(seconds.values())))
    for bits, row in seconds.items():
        table.add_row(str(bits), *(f"{value:.3f} s" for value in row.values()))
    Console().print(table)
    slowest = max(value for row in seconds.values() for value in row.values())
    met = slowest < MOST_SECONDS
    print(f"slowest: {slowest:.2f} s, wanted less than {MOST_SECONDS:g} s{'' if met else '  MISSED'}")
    targets = {"slowest": {"found": slowest, "wanted": MOST_SECONDS, "met": met}}
    document = {"count": options.count, "repeat": options.repeat, "seconds": seconds, "targets": targets}
    print(f"wrote {write_results('codec', SEED, document)}")
    return int(not met)


def measure(codes: Any, bits: int, repeat: int) -> dict[str, float]:
    """Median seconds of each direction."""
    packed = pack(codes, bits)
    levels = np.arange(1 << bits, dtype=np.int16).astype(np.int8)
    assert np.array_equal(unpack(packed, bits, len(codes)), codes)
    return {
        "pack": median(lambda: pack(codes, bits), repeat),
        "unpack": median(lambda: unpack(packed, bits, len(codes)), repeat),
        "look up": median(lambda: look_up(packed, bits, len(codes), levels), repeat),
    }


def median(work: Callable[[], Any], repeat: int) -> float:
    """Seconds of `work`."""
    return statistics.median(timeit.repeat(work, number=1, repeat=repeat))


if __name__ == "__main__":
    sys.exit(main())
