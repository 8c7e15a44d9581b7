"""How fast 3-bit files load and answer, and how much memory they take, beside onnxruntime's own quantizers.

    python benchmarks/runtime_peers.py [--cnn4-run runs/mnist] [--wrn-run runs/cifar10]
        [--folder runs/encoder] [--only NAME ...] [--repeat 5] [--threads 1]

Five networks are timed, and one more, of 67 million weights, is only loaded. Each is written as a float file,
as ours (weights alone, all layers at 3 bits) and by onnxruntime's quantizers; `VARIANTS` of `runtime_files`
lists how these are served. Weights are random where no trained ones are named.

Loading and memory: a process of its own for each file, see `runtime_probe`; the order turns from round to
round. Memory is what it takes above an empty session, as it settles after 5 runs at batch 1. Latency: all
sessions in one process, in turns whose order turns too, each for some 10 ms of runs. Ratios are medians of
the ratios within a round. Outputs are compared with the float file's.

Writes `results/runtime_peers.json` and a picture beside it after each network; with `--only`, a run adds to
what one with the same options, versions and processor has measured, each with its commit. The exit status is
1 where a target is missed.
"""

import argparse
import logging
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from encoder import FOLDER
from provenance import RESULTS, commit, write_results
from rich.console import Console
from rich.table import Table
from runtime_bench import Bench, Series, ratio, spread
from runtime_files import (
    AUTO,
    CACHED,
    DECODED,
    FLOAT,
    INT4,
    INT8,
    KERNELS_INT4,
    KERNELS_INT8,
    NBITS4,
    NBITS4_LARGE,
    NBITS8,
    PACKED,
    PLAIN_AUTO,
    PLAIN_FLOAT,
    PLAIN_INT4,
    PLAIN_INT8,
    VARIANTS,
    Task,
)
from runtime_models import CNN4, ENCODER, LARGE, LINEAR, MLP, NETWORKS, SEED, WRN, Network
from runtime_plot import plot_runtime

from muquant.base.provenance import provenance
from muquant.base.reading import read_json

BATCHES = (1, 32)
LATENCY1, LATENCY32 = (f"latency_{batch}_ms" for batch in BATCHES)
SPREAD = (
    "load_seconds",
    "load_cpu_seconds",
    "load_peak_bytes",
    "loaded_bytes",
    "settled_bytes",
    "run_peak_bytes",
)
"""Measures that each round has."""
NOISE = 1.02
"""What "no slower" allows: medians of equal sessions differ by as much."""


@dataclass(frozen=True)
class Target:
    """A bound from above on a measure of a network.

    Attributes:
        network: of `NETWORKS`.
        measure: of `Series`.
        variants: the best one counts.
        over: the variant by which it is divided, or None.
        most: the bound.
        required: whether missing it fails the benchmark.
    """

    network: str
    measure: str
    variants: tuple[str, ...]
    over: str | None
    most: float
    required: bool = True

    @property
    def name(self) -> str:
        """What the table calls it."""
        over = "" if self.over is None else f" / {self.over}"
        return f"{'' if self.required else 'stretch: '}{self.measure}, {' or '.join(self.variants)}{over}"

    def judge(self, series: Series) -> dict[str, Any]:
        """What was wanted and found; None was found where a variant failed, which misses it."""
        found = min((self._value(series, name) for name in self.variants if name in series), default=None)
        met = found is not None and found <= self.most
        return {"found": found, "wanted": self.most, "met": met, "required": self.required}

    def _value(self, series: Series, name: str) -> float:
        values = series[name][self.measure]
        return ratio(values, series[self.over][self.measure] if self.over in series else [1.0] * len(values))


TARGETS = (
    Target(MLP, "bits_per_weight", (INT8,), None, 3.1),
    Target(ENCODER, "bits_per_weight", (INT8,), None, 3.25),
    Target(LARGE, "load_seconds", (INT8,), FLOAT, 1.5),
    Target(LARGE, "load_seconds", (INT8,), FLOAT, 1.0, required=False),
    Target(LARGE, "load_peak_bytes", (INT8,), FLOAT, 1.5),
    Target(LARGE, "load_peak_bytes", (INT8,), FLOAT, 0.6, required=False),
    *(
        Target(LARGE, measure, (variant,), FLOAT, most)
        for variant, bounds in (
            (PLAIN_INT8, (1.0, 1.25, 1.0)),
            (PLAIN_INT4, (1.0, 1.25, 1.0)),
            (PLAIN_FLOAT, (1.6, 3.0)),
        )
        for measure, most in zip(
            ("load_cpu_seconds", "load_peak_bytes", "settled_bytes"), bounds, strict=False
        )
    ),
    *(
        Target(LARGE, measure, (variant,), FLOAT, most, required=False)
        for variant in (KERNELS_INT8, KERNELS_INT4)
        for measure, most in (("load_cpu_seconds", 0.6), ("load_peak_bytes", 0.9))
    ),
    *(
        Target(LINEAR, measure, (variant,), FLOAT, most)
        for variant, first in ((PLAIN_INT8, 0.12), (PLAIN_INT4, 0.07))
        for measure, most in ((LATENCY1, first), (LATENCY32, 0.45))
    ),
    *(Target(network, LATENCY1, (PLAIN_AUTO,), FLOAT, 1.05) for network in (CNN4, WRN, ENCODER)),
    Target(LARGE, "load_seconds", (CACHED,), FLOAT, 0.3),
    Target(LARGE, "load_peak_bytes", (CACHED,), FLOAT, 0.6),
    Target(LARGE, "load_seconds", (DECODED,), FLOAT, 2.5),
    Target(LARGE, "settled_over_file", (PACKED,), None, 1.6),
    *(
        Target(network, LATENCY1, variants, over, most, over != NBITS4_LARGE)
        for network in (MLP, LINEAR)
        for variants, over, most in (
            ((INT8,), FLOAT, 1 / 5),
            ((INT8,), NBITS8, 1.15),
            ((INT8, INT4), NBITS4, 1.15),
            ((INT8, INT4), NBITS4_LARGE, 1.15),
        )
    ),
    *(Target(network, LATENCY1, (AUTO,), FLOAT, NOISE) for network in (CNN4, WRN)),
    Target(MLP, LATENCY32, (INT8,), FLOAT, NOISE),
    *(Target(network, LATENCY32, (AUTO,), FLOAT, NOISE) for network in (MLP, LINEAR, CNN4, WRN, ENCODER)),
)


def main() -> int:
    """Measure, print, write."""
    options = parse()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)  # the libraries' progress and advice
    conditions = measured_with(options)
    models = finished(options, conditions)
    for name in options.only:
        start = time.perf_counter()
        models[name] = measure(NETWORKS[name](options), name, options)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        models = {known: models[known] for known in NETWORKS if known in models}
        document = {"count": options.repeat, "measured_with": conditions, "models": models}
        path = write_results("runtime_peers", SEED, document, options.out)
        plot_runtime(models, path.with_suffix(".png"))
    for name, model in models.items():
        show(name, model)
    print(f"wrote {path}")
    judged = [target for model in models.values() for target in model["targets"].values()]
    return int(not all(target["met"] for target in judged if target["required"]))


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--repeat", type=int, default=5, help="rounds of loading")
    parser.add_argument("--threads", type=int, default=1, help="within an operator")
    parser.add_argument("--cnn4-run", type=Path, help="run folder of cnn4 on MNIST")
    parser.add_argument("--wrn-run", type=Path, help="run folder of wrn-16-2 on CIFAR-10")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the encoder")
    parser.add_argument("--steps", type=int, default=1600, help="of the encoder's training")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--scale", type=float, default=1.0, help=argparse.SUPPRESS)  # of the dense networks
    options = parser.parse_args()
    if options.repeat < 1 or options.threads < 1:
        parser.error("--repeat and --threads are at least 1")
    return options


def measured_with(options: argparse.Namespace) -> dict[str, Any]:
    """What runs must share for their figures to stand in one file."""
    known = provenance(())
    return {
        **{name: getattr(options, name) for name in ("repeat", "threads", "scale")},
        **{name: known[name] for name in ("versions", "processor")},
        "variants": list(VARIANTS),
    }


def finished(options: argparse.Namespace, conditions: dict[str, Any]) -> dict[str, Any]:
    """The networks that stay as they were measured before."""
    path = options.out / "runtime_peers.json"
    document = read_json(path) if path.exists() else {}
    same = document.get("measured_with") == conditions
    return {name: row for name, row in document["models"].items() if name not in options.only} if same else {}


def measure(network: Network, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All variants of a network."""
    with tempfile.TemporaryDirectory() as folder:
        task = Task(network, Path(folder, "files"))
        bench = Bench(task, options.threads, Path(folder))
        series = bench.load(options.repeat)
        about = {variant: bench.sizes(variant) | bench.quality(variant) for variant in series}
        for batch in BATCHES if network.timed else ():
            for variant, times in bench.latency(list(series), batch).items():
                series[variant][f"latency_{batch}_ms"] = times
    rows = {variant: row(series[variant], series[FLOAT]) | about[variant] for variant in series}
    for variant, values in series.items():
        size = about[variant]
        values["bits_per_weight"] = [size["bits_per_weight"]]
        values["settled_over_file"] = [settled / size["nbytes"] for settled in values["settled_bytes"]]
    return {
        "commit": commit(),
        "weights": task.weights,
        "trained": network.trained,
        "compared": network.compared,
        "variants": {
            variant: rows.get(variant, {"failed": bench.failed.get(variant)}) for variant in VARIANTS
        },
        "targets": {target.name: target.judge(series) for target in TARGETS if target.network == name},
    }


def row(values: dict[str, list[float]], reference: dict[str, list[float]]) -> dict[str, Any]:
    """The figures of a variant."""
    return {measure: spread(values[measure], reference[measure]) for measure in values}


def show(name: str, model: dict[str, Any]) -> None:
    """Print a network's table and targets."""
    print(f"\n{name}, {model['weights'] / 1e6:.2f} million weights{'' if model['trained'] else ', random'}")
    heads = ("MB", "bits", "load, s", "peak MB", "settled MB", "run peak MB", "batch 1, ms", "batch 32, ms")
    table = Table("variant", *heads, "SQNR, dB", "same answer")
    for variant, figures in model["variants"].items():
        table.add_row(variant, *([] if "failed" in figures else cells(figures)))
    Console(width=170).print(table)
    for variant, figures in model["variants"].items():
        if "failed" in figures:
            print(f"{variant}: {figures['failed']}")
    for text, found in model["targets"].items():
        value = "nothing" if found["found"] is None else f"{found['found']:.3f}"
        print(f"{text}: {value}, wanted at most {found['wanted']:g}{'' if found['met'] else '  MISSED'}")


def cells(figures: dict[str, Any]) -> list[str]:
    """A line of the table."""
    memory = (
        f"{figures[name]['median'] / 1e6:.1f}"
        for name in ("load_peak_bytes", "settled_bytes", "run_peak_bytes")
    )
    return [
        f"{figures['nbytes'] / 1e6:.2f}",
        f"{figures['bits_per_weight']:.2f}",
        shown(figures["load_seconds"]),
        *memory,
        *(shown(figures[name]) if name in figures else "" for name in (LATENCY1, LATENCY32)),
        "" if figures["output_sqnr"] is None else f"{figures['output_sqnr']:.1f}",
        f"{figures['same_answer']:.1%}",
    ]


def shown(figure: dict[str, Any]) -> str:
    """A median, and the distance of the quartiles."""
    low, high = figure["quartiles"]
    return f"{figure['median']:.3g} ± {(high - low) / 2:.1g}"


if __name__ == "__main__":
    sys.exit(main())
