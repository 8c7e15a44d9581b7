"""How far the outputs of a file are from what they should be, under each runtime, setting and policy."""

import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, parser
from safetensors.numpy import load_file, save_file

from muquant.base.errors import InputError
from muquant.base.files import beside, temporary_folder
from muquant.base.registry import look_up
from muquant_onnx.files.external import tensors_of
from muquant_onnx.files.parse import parse
from muquant_onnx.serving.serve import Kernels, count_kernels
from muquant_onnx.verification.costs import LoadCost
from muquant_onnx.verification.parity import (
    FLOAT_TOLERANCE,
    ROUNDED_TIE,
    Array,
    agreeing,
    difference,
    within,
)
from muquant_onnx.verification.runners import RUNTIMES
from muquant_onnx.verification.runners.runtime import Measured, Request, Runtime, Way

ALL = "all"
"""Names the runtimes that are installed."""
SECONDS = 0.5
"""Of runs for each latency."""

Feed = Mapping[str, Array]
"""Inputs by name."""


@dataclass(frozen=True)
class RuntimeRun:
    """A file under a runtime, in a process of its own that opened it once.

    Attributes:
        runtime: a name of `RUNTIMES`.
        version: of the runtime.
        failed: why it cannot run the file, in a line; "" where it can.
        cost: of loading and running; None where it cannot.
    """

    runtime: str
    version: str
    failed: str
    cost: LoadCost | None


@dataclass(frozen=True)
class RuntimeCheck(RuntimeRun):
    """How far a runtime's outputs are from what they should be under one setting and policy, and what runs.

    Attributes:
        setting: a name among the runtime's settings; for onnxruntime of `RUNTIME_SETTINGS`.
        policy: a name of `POLICIES` by which the file was loaded; None where it was as it is.
        difference: largest difference over largest value of an output, the worst output and batch; infinite
            where shapes differ, where only one side is finite, and where the file does not run.
        agreement: fraction of inputs with the same argmax of the first output, where that is [N, classes];
            else None. Classes whose values are within 1e-5 of each other, or within 0.02 of the largest
            where activations are rounded, are the same.
        operators: operator types that run, with their number; empty where the runtime does not tell.
        kernels: how many products should run on kernels of integer weights; None likewise.
        passed: that many do; within 1e-5 and agreement 1, or, where activations are rounded, a finite
            difference and agreement of at least 0.998, or within 0.05 where there are no classes.
    """

    setting: str
    policy: str | None
    difference: float
    agreement: float | None
    operators: dict[str, int]
    kernels: int | None
    passed: bool


@dataclass(frozen=True)
class RuntimeChecks:
    """A file under several runtimes.

    Attributes:
        runtimes: for each runtime, setting and policy.
        floats: the float file beside it, once for each runtime.
        missing: name of a runtime that is not installed -> what to install.
    """

    runtimes: tuple[RuntimeCheck, ...]
    floats: tuple[RuntimeRun, ...]
    missing: dict[str, str]


@dataclass(frozen=True)
class Answers:
    """What a file should answer.

    Attributes:
        feeds: inputs for each run.
        expected: all outputs for each of `feeds`; None for what is no array of numbers.
        timed: inputs whose latency is measured, by their number.
    """

    feeds: Sequence[Feed]
    expected: Sequence[Sequence[Array | None]]
    timed: Mapping[int, Feed]


def chosen_runtimes(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return which of `RUNTIMES` to run, and of those that are missing what to install.

    Args:
        names: of runtimes; or `ALL`.

    Raises:
        InputError: a name is unknown, or what was asked for by its name is not installed.
    """
    missing = {name: line for name, runtime in RUNTIMES.items() if (line := runtime.missing())}
    if ALL in names:
        return [name for name in RUNTIMES if name not in missing], missing
    for name in names:
        look_up("runtime", name, {**RUNTIMES, ALL: None})
        if name in missing:
            raise InputError(f"runtime {name}: {missing[name]}")
    return list(dict.fromkeys(names)), {}


def check_runtimes(
    path: str | os.PathLike[str],
    plain: str | os.PathLike[str],
    policies: Sequence[str],
    answers: Answers,
    names: Sequence[str],
) -> RuntimeChecks:
    """Run a file in every way that runtimes know, and the float file beside it; each once for each way.

    Args:
        path: of a file that muquant wrote.
        plain: of the float file.
        policies: names of `POLICIES` that mean anything for the file.
        answers: what it should answer.
        names: of runtimes, see `chosen_runtimes`.

    Raises:
        InputError: see `chosen_runtimes`.
    """
    path, plain = Path(path), Path(plain)
    chosen, missing = chosen_runtimes(names)
    promised = functools.cache(lambda policy: count_kernels(path, policy))
    checks, floats = list[RuntimeCheck](), list[RuntimeRun]()
    with temporary_folder() as folder:
        bench = _Bench(Path(folder), answers)
        for name in chosen:
            floats.append(bench.run(name, plain))
            checks += [bench.check(name, path, way, promised) for way in RUNTIMES[name].ways(policies)]
    return RuntimeChecks(tuple(checks), tuple(floats), missing)


class _Bench:
    """Inputs in files, for processes to run, and what comes out beside what should."""

    def __init__(self, folder: Path, answers: Answers) -> None:
        self.folder, self.answers = folder, answers
        self.external = functools.cache(_external_files)
        graph = parser.parse_graph("empty (float[1] x) => (float[1] y) { y = Identity (x) }")
        empty = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(empty, folder / "empty.onnx")
        self.feeds = [self._write(f"feed-{number}", feed) for number, feed in enumerate(answers.feeds)]
        self.timed = {count: self._write(f"timed-{count}", feed) for count, feed in answers.timed.items()}

    def _write(self, name: str, feed: Feed) -> str:
        file = self.folder / f"{name}.safetensors"
        save_file({key: np.array(value, order="C") for key, value in feed.items()}, file)
        return str(file)

    def check(
        self, name: str, path: Path, way: Way, promised: Callable[[str | None], Kernels]
    ) -> RuntimeCheck:
        """Run the file in one way, and compare all outputs."""
        runtime = RUNTIMES[name]
        with tempfile.TemporaryDirectory(dir=self.folder) as outputs:
            found = self._measure(runtime, path, way, self.feeds, outputs)
            failed = found.failed or self._unlike(found)
            kernels = runtime.kernels(way, promised)
            rounds = runtime.rounds(way, promised)
            off, agreement = (np.inf, None) if failed else self._compared(Path(outputs), rounds)
        as_promised = kernels is None or found.operators.get("MatMulNBits", 0) == kernels
        return RuntimeCheck(
            runtime=name,
            version=runtime.version(),
            failed=failed,
            cost=self._cost(path, found),
            setting=way.setting,
            policy=way.policy,
            difference=off,
            agreement=agreement,
            operators=dict(found.operators),
            kernels=kernels,
            passed=as_promised and within(off, agreement, rounds),
        )

    def run(self, name: str, path: Path) -> RuntimeRun:
        """Run a file as it is, and compare nothing."""
        runtime = RUNTIMES[name]
        with tempfile.TemporaryDirectory(dir=self.folder) as outputs:
            found = self._measure(runtime, path, Way(), self.feeds[:1], outputs)
        return RuntimeRun(name, runtime.version(), found.failed, self._cost(path, found))

    def _measure(
        self, runtime: Runtime, path: Path, way: Way, feeds: Sequence[str], outputs: str
    ) -> Measured:
        request = Request(
            path=str(path.absolute()),
            empty=str(self.folder / "empty.onnx"),
            way=way,
            timed=self.timed,
            feeds=feeds,
            outputs=outputs,
            external=self.external(path),
            seconds=SECONDS,
        )
        return runtime.measure(request)

    def _unlike(self, found: Measured) -> str:
        """Say that the file has another number of outputs than the model; "" where it has as many."""
        wanted = len(self.answers.expected[0])
        if found.outputs == wanted:
            return ""
        return f"it gives {found.outputs} outputs, the model {wanted}; name the file that was made from it"

    def _compared(self, outputs: Path, rounds: bool) -> tuple[float, float | None]:
        """Return difference and agreement, see `RuntimeCheck`."""
        off, same, total = 0.0, 0, 0
        for number, wanted in enumerate(self.answers.expected):
            arrays = load_file(outputs / f"{number}.safetensors")
            found = [arrays.get(str(place)) for place in range(len(wanted))]
            off = max(off, *map(difference, found, wanted))
            one, other = found[0], wanted[0]
            if one is not None and other is not None and other.ndim == 2 and other.shape[1] > 0:
                total += len(other)
                same += agreeing(one, other, ROUNDED_TIE if rounds else FLOAT_TOLERANCE)
        return off, same / total if total else None

    def _cost(self, path: Path, found: Measured) -> LoadCost | None:
        if found.failed:
            return None
        files = [path, *map(Path, self.external(path).values())]
        nbytes = sum(file.stat().st_size for file in files)
        memory = found.peak, found.loaded, found.settled
        return LoadCost(nbytes, found.seconds, *memory, dict(found.latency))


def _external_files(path: Path) -> dict[str, str]:
    """The files that hold tensors of a model, by the names that it has for them."""
    items = (item for tensor in tensors_of(parse(path)) for item in tensor.external_data)
    names = {item.value for item in items if item.key == "location"}
    files = {name: beside(path, name, f"{path}: its external data") for name in sorted(names)}
    return {name: str(file) for name, file in files.items() if file != path.resolve()}
