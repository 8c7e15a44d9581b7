"""What weights lose on the grid of a 4-bit kernel: their SQNR at 3 and 2 bits, on the int8 and the int4 grid.

Matrices of drawn weights, scale and mu searched for each grid, every weight at its nearest level.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from provenance import write_results
from rich.console import Console
from rich.table import Table

from muquant import MuLawSpec
from muquant.format.channels import ROWS
from muquant.format.spec import Grid, Levels
from muquant.quantization.quality import weight_sqnr
from muquant.quantization.quantize import quantize

SEED = 0
SHAPE = (512, 1024)
GRIDS: tuple[Grid, ...] = ("int8", "int4")
LEVELS: tuple[Levels, ...] = ("mid-rise", "mid-tread")
GRANULARITIES = ("channel", "group:64")
WIDTHS = (3, 2)
Draw = Callable[[np.random.Generator], NDArray[np.float64]]
DISTRIBUTIONS: dict[str, Draw] = {
    "Gaussian": lambda random: random.normal(size=SHAPE),
    "Laplace": lambda random: random.laplace(size=SHAPE),
    "Student-t 4": lambda random: random.standard_t(4, SHAPE),
    "uniform": lambda random: random.uniform(-1, 1, SHAPE),
}


def sqnr(weight: torch.Tensor, spec: MuLawSpec) -> tuple[float, float]:
    """The ratio in dB of a weight to its error, and the mu that was chosen."""
    found = quantize(weight, spec, ROWS, "search", "nearest").tensor
    ratio = weight_sqnr(weight, found)
    assert ratio is not None
    return ratio, float(found.spec.mu)


def rows(random: np.random.Generator) -> Iterator[dict[str, object]]:
    """Every distribution in every format, on both grids."""
    for name, draw in DISTRIBUTIONS.items():
        weight = torch.from_numpy(draw(random)).float()
        for bits in WIDTHS:
            for levels in LEVELS:
                for granularity in GRANULARITIES:
                    found = {
                        grid: sqnr(weight, MuLawSpec(bits, granularity=granularity, levels=levels, grid=grid))
                        for grid in GRIDS
                    }
                    yield {
                        "distribution": name,
                        "bits": bits,
                        "levels": levels,
                        "granularity": granularity,
                        "sqnr": {grid: ratio for grid, (ratio, _) in found.items()},
                        "mu": {grid: mu for grid, (_, mu) in found.items()},
                        "loss": found["int8"][0] - found["int4"][0],
                    }


def main() -> None:
    """Measure, print a table, write results/grid4.json."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    measured = list(rows(np.random.default_rng(SEED)))
    table = Table("weights", "bits", "levels", "steps", "int8, dB", "int4, dB", "loss, dB")
    for row in measured:
        ratios = row["sqnr"]
        assert isinstance(ratios, dict)
        figures = (*(ratios[grid] for grid in GRIDS), row["loss"])
        names = (row["distribution"], row["bits"], row["levels"], row["granularity"])
        table.add_row(*map(str, names), *(f"{figure:.2f}" for figure in figures))
    console = Console(width=110)
    console.print(table)
    console.print(write_results("grid4", SEED, {"count": SHAPE[0] * SHAPE[1], "rows": measured}))


if __name__ == "__main__":
    main()
