"""How fast and how good the search for scale and mu is.

Speed: 25 million Gaussian weights on one thread, median over interleaved repetitions; beside it onnxruntime's
    HQQ weight quantizer in the same rounds, on a smaller matrix. Quality: squared error against brute force
    over a grid of mu and scale.
"""

import argparse
import logging
import statistics
import timeit
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, MatMulNBitsQuantizer
from provenance import write_results
from rich.console import Console
from rich.table import Table

from muquant import MuLawSpec, SearchObserver
from muquant.format.channels import ROWS
from muquant.format.law import grid_levels
from muquant.quantization.rounding import nearest

SEED = 0
MUS = [0.0, *np.geomspace(0.05, 300, 60).tolist()]
RATIOS = np.linspace(0.03, 1.15, 400)


def search(weight: torch.Tensor, granularity: str) -> Callable[[], object]:
    """Return a run of the search over `weight`."""
    return lambda: SearchObserver(MuLawSpec(granularity=granularity))(weight)


def hqq(weight: torch.Tensor) -> Callable[[], object]:
    """Return a run of onnxruntime's HQQ, 4 bits in blocks of 64, over `weight` as that of a MatMul."""
    size, out = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, out])],
        [numpy_helper.from_array(weight.numpy(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def run() -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        config = HQQWeightOnlyQuantConfig(block_size=64, bits=4)
        MatMulNBitsQuantizer(copy, algo_config=config).process()

    return run


def brute_force(weights: NDArray[np.float64], bits: int) -> float:
    """The least squared error of one row over a grid of mu and scale, by prefix sums."""
    ordered = np.sort(weights)
    sums = np.concatenate(([0], np.cumsum(ordered)))
    best = np.inf
    for mu in MUS:
        spec = MuLawSpec(bits, mu)
        levels = grid_levels(spec).double().numpy() / spec.grid_max
        values = np.abs(weights).max() * RATIOS[:, None] * levels
        cuts = np.pad(np.searchsorted(ordered, (values[:, 1:] + values[:, :-1]) / 2), ((0, 0), (1, 1)))
        cuts[:, -1] = len(ordered)
        saved = 2 * values * np.diff(sums[cuts]) - values**2 * np.diff(cuts)
        best = min(best, float((ordered**2).sum() - saved.sum(1).max()))
    return best


def error_ratio(name: str, bits: int, count: int) -> float:
    """Squared error of the search over that of brute force, for one row of `count` weights."""
    random = np.random.default_rng(SEED)
    draws = {
        "gaussian": lambda: random.normal(size=count),
        "laplace": lambda: random.laplace(size=count),
        "uniform": lambda: random.uniform(-1, 1, count),
        "student-t 3": lambda: random.standard_t(3, count),
    }
    weight = torch.from_numpy(draws[name]()).float()[None]
    spec = MuLawSpec(bits)
    observer = SearchObserver(spec)
    observer(weight)
    scale, mu = observer.calculate_qparams()
    decoded = nearest(weight, scale, spec.with_mu(float(mu)), ROWS).dequantize()
    error = float((decoded.double() - weight.double()).square().sum())
    return error / brute_force(weight[0].double().numpy(), bits)


def main() -> None:
    """Measure, print a table, write results/observers.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=5000, help="rows and columns of our matrix")
    parser.add_argument("--hqq-size", type=int, default=1024, help="rows and columns of HQQ's matrix")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # inside onnxruntime
    torch.manual_seed(SEED)
    ours = torch.randn(options.size, options.size)
    theirs = torch.randn(options.hqq_size, options.hqq_size)
    runs = {
        "search, channel, 3 bits": (ours, search(ours, "channel")),
        "search, group:64, 3 bits": (ours, search(ours, "group:64")),
        "onnxruntime HQQ, block 64, 4 bits": (theirs, hqq(theirs)),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repetitions):
        for name, (_, run) in runs.items():
            times[name].append(timeit.timeit(run, number=1))
    speed = {
        name: {
            "weights": weight.numel(),
            "seconds": statistics.median(times[name]),
            "fastest": min(times[name]),
            "weights_per_second": weight.numel() / statistics.median(times[name]),
        }
        for name, (weight, _) in runs.items()
    }
    ratios = {
        name: {str(bits): error_ratio(name, bits, 4096) for bits in (2, 3, 4, 6)}
        for name in ("gaussian", "laplace", "uniform", "student-t 3")
    }
    console = Console()
    table = Table("one thread", "weights", "seconds", "weights per second")
    for name, row in speed.items():
        table.add_row(
            name, f"{row['weights']:,}", f"{row['seconds']:.2f}", f"{row['weights_per_second']:,.0f}"
        )
    console.print(table)
    table = Table("squared error / brute force", *(f"{bits} bits" for bits in (2, 3, 4, 6)))
    for name, by_bits in ratios.items():
        table.add_row(name, *(f"{ratio:.4f}" for ratio in by_bits.values()))
    console.print(table)
    document = {
        "count": options.repetitions,
        "speed": speed,
        "error_ratio": {"weights": 4096, "ratios": ratios},
    }
    console.print(write_results("observers", SEED, document))


if __name__ == "__main__":
    main()
