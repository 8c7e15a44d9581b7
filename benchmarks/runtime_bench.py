"""Measure the variants of a network: loading, memory, latency, and how near outputs are to the float file."""

import json
import math
import os
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, save_model
from runtime_files import FLOAT, VARIANTS, Task, write_files
from runtime_models import SEED, tiny
from runtime_probe import opener

TURN, RUNS, ROUNDS = 0.01, (1, 200), (5, 41)
"""Seconds that a session runs in its turn; the least and most runs in it; the least and most rounds."""
SECONDS = 15.0
"""To time the sessions of a network at a batch size, as far as the least rounds allow."""
PROBE = Path(__file__).with_name("runtime_probe.py")

Series = dict[str, dict[str, list[float]]]
"""Variant -> measure -> a value for each round."""


class Bench:
    """The files of a network, and what they are measured with.

    Attributes:
        failed: variant -> why there are no figures.
    """

    def __init__(self, task: Task, threads: int, folder: Path) -> None:
        self.task, self.threads, self.folder = task, threads, folder
        missing = write_files(task)
        self.failed = {name: missing[how.file] for name, how in VARIANTS.items() if how.file in missing}
        self.tiny = Task(tiny(), folder / "tiny")
        write_files(self.tiny, {how.file for how in VARIANTS.values() if how.policy is not None})
        self.inputs = task.network.samples(task.network.compared, SEED).numpy()
        np.save(folder / "inputs.npy", self.inputs)
        write_identity(folder / "empty.onnx")

    def load(self, rounds: int) -> Series:
        """Load every variant, each time in a process of its own."""
        for name, how in VARIANTS.items():
            if how.cached and name not in self.failed:
                self.probe(name, keep=False)  # fills the cache
        series: Series = {}
        for number in range(rounds):
            for name in turned([name for name in VARIANTS if name not in self.failed], number):
                for measure, value in (self.probe(name, keep=number == 0) or {}).items():
                    series.setdefault(name, {}).setdefault(measure, []).append(value)
        return {name: series[name] for name in VARIANTS if name in series and name not in self.failed}

    def probe(self, name: str, *, keep: bool) -> dict[str, float] | None:
        """Load a variant once, and keep its outputs where asked; None if that fails."""
        how, request = VARIANTS[name], self.folder / "request.json"
        outputs = str(self.outputs(name)) if keep else None
        paths = {
            "path": self.task.path(how.file),
            "tiny": self.tiny.path(how.file),
            "cache": self.cache(name),
        }
        paths |= {"empty": self.folder / "empty.onnx", "inputs": self.folder / "inputs.npy"}
        document = {key: None if path is None else str(path) for key, path in paths.items()}
        document |= {"policy": how.policy, "threads": self.threads, "outputs": outputs}  # type: ignore[dict-item]
        request.write_text(json.dumps(document))
        command = [sys.executable, "-W", "ignore", str(PROBE), str(request)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
            return found
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        self.failed[name] = lines[-1][:300] if lines else f"status {done.returncode}"
        return None

    def latency(self, names: list[str], batch: int) -> dict[str, list[float]]:
        """Milliseconds of an answer at a batch size, for each round."""
        inputs = self.inputs[:batch]
        sessions = {name: self.open(name) for name in names}
        runs = {}
        for name, session in sessions.items():
            cold = seconds(session, inputs, 1)  # warms up
            runs[name] = (
                1 if cold > 10 * TURN else within(math.ceil(TURN / seconds(session, inputs, 1)), RUNS)
            )
        times: dict[str, list[float]] = {name: [] for name in names}
        begin, rounds = time.perf_counter(), ROUNDS[1]
        for number in range(ROUNDS[1]):
            for name in turned(names, number):
                times[name].append(1e3 * seconds(sessions[name], inputs, runs[name]))
            if number == 0:
                rounds = within(int(SECONDS / (time.perf_counter() - begin)), ROUNDS)
            if number + 1 >= rounds:
                break
        return times

    def open(self, name: str) -> ort.InferenceSession:
        """Open a variant in this process."""
        how, cache = VARIANTS[name], self.cache(name)
        load = opener(how.policy, None if cache is None else str(cache), self.threads)
        return load(str(self.task.path(how.file)))

    def cache(self, name: str) -> Path | None:
        """The folder that a variant is kept in, if it is."""
        return self.folder / "cache" if VARIANTS[name].cached else None

    def outputs(self, name: str) -> Path:
        """The file of a variant's outputs."""
        return self.folder / f"{name}.npy"

    def quality(self, name: str) -> dict[str, Any]:
        """Outputs beside the float file's: signal over noise in dB (None where equal), and same answers."""
        wanted, found = (np.load(self.outputs(one)).astype(np.float64) for one in (FLOAT, name))
        noise = ((wanted - found) ** 2).sum()
        return {
            "output_sqnr": float(10 * np.log10((wanted**2).sum() / noise)) if noise else None,
            "same_answer": float((wanted.argmax(-1) == found.argmax(-1)).mean()),
        }

    def sizes(self, name: str) -> dict[str, Any]:
        """Bytes of the file, and of what is cached besides."""
        nbytes, cache = self.task.path(VARIANTS[name].file).stat().st_size, self.cache(name)
        kept = {} if cache is None else {"cache_nbytes": sum(one.stat().st_size for one in files(cache))}
        return {"nbytes": nbytes, "bits_per_weight": 8 * nbytes / self.task.weights, **kept}


def files(folder: Path) -> Iterator[Path]:
    """The files in a folder, however deep."""
    return (path for path in folder.rglob("*") if path.is_file())


def write_identity(path: Path) -> None:
    """Write a graph that does nothing."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", values[:1], values[1:])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def seconds(session: ort.InferenceSession, inputs: NDArray[Any], runs: int) -> float:
    """Seconds of a run, the mean of several."""
    feed = {session.get_inputs()[0].name: inputs}
    return timeit.timeit(lambda: session.run(None, feed), number=runs) / runs


def turned(names: list[str], number: int) -> list[str]:
    """The names in the order of a round: each is first in its turn."""
    place = number % len(names)
    return names[place:] + names[:place]


def within(value: int, bounds: tuple[int, int]) -> int:
    """The nearest number within the bounds."""
    return max(bounds[0], min(value, bounds[1]))


def ratio(values: list[float], others: list[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def spread(values: list[float], reference: list[float]) -> dict[str, Any]:
    """Median and quartiles, and how many times the reference that is."""
    low, high = np.quantile(values, (0.25, 0.75))
    over = {"over_float": ratio(values, reference)} if all(reference) else {}
    return {"median": statistics.median(values), "quartiles": [float(low), float(high)], **over}
