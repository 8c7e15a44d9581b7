"""How fast attacks are, beside Foolbox, torchattacks and the Adversarial Robustness Toolbox.

    pip install --no-deps torchattacks==3.5.1     # its own requirement is an old version of requests
    MUQUANT_DATA=... python benchmarks/attack_peers.py

An ordinary and a robust network (trained where the folder has none, three minutes), the same images and
parameters, one thread. What is timed is what a user waits for: adversarial images, and which ones withstood.
Rounds are interleaved; the first one gives each peer batches of 100 and of all images, and the faster size is
kept. All libraries get the module in its best form, see `attack_nets`. A peer counts as equally strong where
it leaves at most one point more accuracy, or 5 % more median distance, than we do. Writes
`results/attack_peers.json`; times are processor seconds, which other programs disturb less than wall time.
"""

import argparse
import math
import statistics
import sys
import time
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from attack_libraries import DISTRIBUTIONS, LIBRARIES, Run
from attack_nets import FOLDER, SEED, Fixture, fixture
from provenance import write_results
from rich.console import Console
from rich.table import Table

EPSILON = {"ordinary": 0.2, "robust": 0.3}
IMAGES = {"fgsm": 500, "bim": 200, "pgd": 200, "mim": 200, "ddn": 200, "cw": 20, "apgd-ce": 100}
IMAGES |= {"apgd-t": 100, "square": 100}
BATCH = 100
WARM_UP = 4
"""Images that each library attacks before its time is taken."""

DISTANCE = ("ddn", "cw")
REQUIRED = {("ordinary", "pgd"): 1.5, ("robust", "pgd"): 1 / 1.1}
"""How many times as fast as the fastest peer; 1 unless said."""
SQUARE_AGAINST_ART = 5.0


@dataclass
class Side:
    """A library on one attack: what it took, and what it left.

    Attributes:
        run: the attack.
        batch: images at a time.
        cpu: processor seconds of each round.
        wall: wall seconds likewise.
        accuracy: percent of the images that withstood, in the last round.
        median_l2: of the images that are classified correctly, those that withstood as infinity; NaN for
            attacks in a ball.
    """

    run: Run
    batch: int
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    accuracy: float = torch.nan
    median_l2: float = torch.nan

    def measure(self, data: Fixture, count: int, *, distance: bool) -> None:
        """One round."""
        images, labels = data.images[:count], data.labels[:count]
        torch.manual_seed(SEED)
        wall, cpu = time.perf_counter(), time.process_time()
        adversarial, withstood = self.run(images, labels)
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        self.accuracy = 100 * float(withstood.double().mean())
        if distance:
            length = (adversarial - images).flatten(1).norm(dim=1).masked_fill(withstood, torch.inf)
            with torch.no_grad():
                self.median_l2 = float(length[data.model(images).argmax(1) == labels].median())

    @property
    def seconds(self) -> float:
        """The median of the processor seconds."""
        return statistics.median(self.cpu)

    def as_strong_as(self, other: "Side") -> bool:
        """Whether it leaves hardly more than the other."""
        close = not self.median_l2 > 1.05 * other.median_l2
        return close and self.accuracy <= other.accuracy + 1

    def document(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "batch_size": self.batch,
            "cpu_seconds": self.seconds,
            "cpu_seconds_range": [min(self.cpu), max(self.cpu)],
            "wall_seconds": statistics.median(self.wall),
            "accuracy_percent": self.accuracy,
            "median_l2": self.median_l2 if math.isfinite(self.median_l2) else None,
        }


def compare(name: str, net: str, data: Fixture, rounds: int) -> dict[str, Any]:
    """Time an attack in every library that has it."""
    count, candidates = min(IMAGES[name], len(data.labels)), dict[str, list[Side]]()
    for library, make in LIBRARIES.items():
        sizes = (BATCH,) if library == "muquant" else sorted({min(BATCH, count), count})
        runs = [(make(name, data.model, EPSILON[net], size), size) for size in sizes]
        candidates[library] = [Side(run, size) for run, size in runs if run is not None]
    sides: dict[str, Side] = {}
    for side in (side for among in candidates.values() for side in among):
        side.run(data.images[:WARM_UP], data.labels[:WARM_UP])
    for number in range(rounds):
        for library, among in candidates.items():
            for side in among if number == 0 else [sides[library]] if among else []:
                side.measure(data, count, distance=name in DISTANCE)
            if among and number == 0:
                sides[library] = min(among, key=lambda side: side.cpu[0])
    own = sides["muquant"]
    peers = {library: side for library, side in sides.items() if library != "muquant"}
    equal = {library: side for library, side in peers.items() if side.as_strong_as(own)}
    ratio = {library: side.seconds / own.seconds for library, side in peers.items()}
    fastest = min(equal, key=lambda library: ratio[library], default=None)
    required = REQUIRED.get((net, name), 1.0)
    met = fastest is None or ratio[fastest] >= required
    if name == "square":
        met = met and ratio["art"] >= SQUARE_AGAINST_ART
    return {
        "net": net,
        "attack": name,
        "count": count,
        "epsilon": None if name in DISTANCE else EPSILON[net],
        "libraries": {library: side.document() for library, side in sides.items()},
        "times_as_fast": ratio,
        "fastest_of_equal_strength": fastest,
        "required": required,
        "met": met,
    }


def main() -> int:
    """Measure, print a table, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=Path, default=FOLDER, help="folder of the trained networks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attacks", nargs="+", choices=list(IMAGES), default=list(IMAGES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what the libraries' own code raises is not ours to mend
    rows = []
    for net in EPSILON:
        data = fixture(net, options.nets, max(IMAGES.values()))
        for name in options.attacks:
            print(f"{net}: {name} on {IMAGES[name]} images", file=sys.stderr, flush=True)
            rows.append(compare(name, net, data, options.rounds))
    show(rows)
    document = {
        "count": options.rounds,
        "peers": {name: version(package) for name, package in DISTRIBUTIONS.items()},
        "square_against_art_required": SQUARE_AGAINST_ART,
        "rows": rows,
    }
    print(f"wrote {write_results('attack_peers', SEED, document)}")
    return int(not all(row["met"] for row in rows))


def show(rows: list[dict[str, Any]]) -> None:
    """Print seconds and accuracy, and how many times as long peers take."""
    table = Table("net", "attack", *LIBRARIES, "required")
    for row in rows:
        cells = []
        for library in LIBRARIES:
            side = row["libraries"].get(library)
            ratio = row["times_as_fast"].get(library)
            left = side and (
                f"L2 {side['median_l2']:.3f}" if side["median_l2"] else f"{side['accuracy_percent']:.1f}%"
            )
            times = f" x{ratio:.2f}" if ratio else ""
            cells.append(f"{side['cpu_seconds']:.2f} s{times}, {left}" if side else "")
        table.add_row(
            row["net"], row["attack"], *cells, f"{row['required']:.2f}{'' if row['met'] else ' MISSED'}"
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    sys.exit(main())
