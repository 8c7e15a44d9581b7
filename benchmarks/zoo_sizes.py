"""How large networks that other people trained are, and how alike they answer: at several widths, beside
what else makes their files smaller.

The networks, inputs and tasks of `packaged`; samples and test inputs are drawn apart, 64 of each, as in
`zoo_answers.py`. Rows are written when they are done, and those that are there are not measured again.

    python benchmarks/zoo_sizes.py [--only NAME ...]
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from packaged.networks import NETWORKS, Feed
from packaged.packages import FOLDER, VARIABLE
from packaged.tasks import sqnr
from provenance import RESULTS, commit, write_results
from sizes_plot import plot_sizes
from zoo_answers import FILES, SAMPLES, SEED, TESTS, float_file, prepared

from muquant import MuLawSpec
from muquant_onnx import compress_onnx, load_session
from muquant_onnx.from_onnx.opset import raised

Make = Callable[[Path, Path, list[Feed]], None]
"""(float file, file to write, samples): writes it."""


def ours(bits: int) -> Make:
    """Samples, and one width for all but recurrent weights: `--flat`."""

    def make(source: Path, path: Path, samples: list[Feed]) -> None:
        compress_onnx(source, path, MuLawSpec(bits), flat=True, calibration=samples, check=False)

    return make


def plain(bits: int) -> Make:
    """Uniform levels up to the largest magnitude of a channel, each weight to the nearest: no samples."""

    def make(source: Path, path: Path, _: list[Feed]) -> None:
        spec = MuLawSpec(bits, mu=0.0)
        compress_onnx(source, path, spec, flat=True, observer="absmax", rounding="nearest", check=False)

    return make


def static_int8(source: Path, path: Path, samples: list[Feed]) -> None:
    """onnxruntime's static quantization of weights, per channel, and activations, as its manual has it.

    It writes what only opset 13 has, whatever the opset, so older files are raised as ours are.
    """
    library = importlib.import_module("onnxruntime.quantization")
    base = importlib.import_module("onnxruntime.quantization.calibrate").CalibrationDataReader
    shapes = importlib.import_module("onnxruntime.quantization.shape_inference")

    class Reader(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self.left = list(samples)

        def get_next(self) -> Feed | None:
            return self.left.pop() if self.left else None

    prepared = path.with_suffix(".prepared")
    with raised(source) as file:
        shapes.quant_pre_process(file.path, prepared, skip_symbolic_shape=True)
    library.quantize_static(prepared, path, Reader(), per_channel=True)
    prepared.unlink()


BITS = (2, 3, 4, 6)
WAYS: dict[str, Make] = {
    **{f"muquant, {bits} bits": ours(bits) for bits in BITS},
    **{f"plain rounding, {bits} bits": plain(bits) for bits in (*BITS, 8)},
    "onnxruntime, static int8": static_int8,
}
USUAL = ("rapidocr-recognition", "nudenet", "rapidocr-classification", "silero-vad")


def main() -> None:
    """Measure what is not there yet, write, and draw the picture."""
    options = parse()
    rows = prepared(options, "zoo_sizes")
    for name in options.only:
        row = rows.setdefault(name, {"float_nbytes": float_file(name).stat().st_size, "ways": {}})
        for way in [way for way in WAYS if way not in row["ways"]]:
            row["ways"][way] = measure(name, way)
            print(name, way, row["ways"][way], file=sys.stderr, flush=True)
            write_results(
                "zoo_sizes", SEED, {"samples": SAMPLES, "tests": TESTS, "networks": rows}, options.out
            )
    plot_sizes(rows, options.out / "zoo_sizes.png")


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), default=list(USUAL), metavar="NAME")
    parser.add_argument("--packages", type=Path, default=Path(os.environ.get(VARIABLE, FOLDER)))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def measure(name: str, way: str) -> dict[str, Any]:
    """Figures of a network made smaller one way, or why it cannot be."""
    network, source = NETWORKS[name], float_file(name)
    samples, tests = (
        [network.inputs(np.random.default_rng([SEED, part, place])) for place in range(count)]
        for part, count in ((2, SAMPLES), (1, TESTS))
    )
    path, begin, cpu = FILES / f"{source.stem}-{way}.onnx", time.perf_counter(), time.process_time()
    try:
        WAYS[way](source, path, samples)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        session = load_session(path)
    except Exception as error:  # of onnxruntime's quantizer or of its file
        return {"commit": commit(), "failed": " ".join((str(error) or repr(error)).split())}
    exact, found = (
        [network.answer(each, feed) for feed in tests] for each in (load_session(source), session)
    )
    return {
        "commit": commit(),
        "task": network.task(exact, found),
        "sqnr": sqnr(exact, found),
        "nbytes": path.stat().st_size,
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


if __name__ == "__main__":
    main()
