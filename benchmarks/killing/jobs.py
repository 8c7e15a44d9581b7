"""The commands that are killed, what they are given, and what their results say, bit for bit."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from fuzzing.seed_models import graph

import muquant_onnx.files.write
from muquant.base.tensor_files import read_tensors
from muquant_cli import main
from muquant_onnx import load_session

SMALL = 2048
"""Bytes above which tensors lie beside the model, where a job says so; else it would take 2 GB."""
_TIMES = ("seconds", "date", "created", "versions", "command", "queries_per_second")
"""Of results: what differs from run to run."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A command and what follows it.

    Attributes:
        command: that is killed.
        following: the next command; None for the same.
        outputs: files that must never be half-written; path -> what it says.
        external: whether tensors lie in a file beside the model.
        grows: whether outputs are written more than once on the way.
        before: makes what an earlier command has left; None where there was none.
    """

    command: Callable[[], object]
    outputs: Mapping[str, Callable[[Path], Any]]
    following: Callable[[], object] | None = None
    external: bool = False
    grows: bool = False
    before: Callable[[], object] | None = None

    def run(self, command: Callable[[], object]) -> object:
        """Do a command, with external data where the job says so."""
        if self.external:
            muquant_onnx.files.write.INLINE_LIMIT = SMALL
        return command()


def muquant(*arguments: object) -> Callable[[], int]:
    """A command line, as a function that returns its exit status."""

    def call() -> int:
        try:
            main([str(each) for each in arguments], standalone_mode=True)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call


def prepare(folder: Path) -> None:
    """Make what commands are given in `folder`, the current one: a run, an artifact, a graph, samples."""
    given = folder / "in"
    given.mkdir()
    (given / "graph.onnx").write_bytes(graph())
    np.savez(given / "samples.npz", ids=np.arange(64) % 16)
    for command in (
        ("train", *_TRAIN[:-2], "--epochs", 1, "-o", "in/run"),
        ("compress", "in/run", "-o", "in/model.mq"),
        ("export", "in/model.mq", "-o", "in/model.onnx"),
    ):
        if muquant(*command)():
            raise SystemExit(f"could not prepare: {command}")


def tensors(path: Path) -> Facts:
    """All of a safetensors file of ours but times."""
    schema = json.loads(_header(path)["__metadata__"]["muquant"])["schema"]
    file = read_tensors(path, schema)
    digests = {name: _digest(value) for name, value in file.tensors.items()}
    return {"manifest": timeless(file.manifest), "tensors": digests}


def model(path: Path) -> Facts:
    """An ONNX file and its external data, bit for bit, and that it loads."""
    load_session(path, threads=1)
    places = {
        entry.value
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [path, *(path.parent / place for place in sorted(places))]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def document(path: Path) -> Facts:
    """A JSON file but its times."""
    return {"document": timeless(json.loads(path.read_bytes()))}


def lines(path: Path) -> Facts:
    """A file with a JSON document in each line, but its times."""
    return {"lines": [timeless(json.loads(line)) for line in path.read_bytes().splitlines()]}


def attacks(path: Path) -> Facts:
    """A folder of finished attacks."""
    return {file.name: tensors(file) for file in sorted(path.glob("*.safetensors"))}


def text(path: Path) -> Facts:
    """A page: that it has an end."""
    return {"whole": path.read_text().rstrip().endswith("</html>")}


def entries(path: Path) -> Facts:
    """The entries of a serving cache: that they are whole."""
    found = {}
    for manifest in sorted(path.glob("*/manifest.json")):
        files = json.loads(manifest.read_bytes())["files"]
        found[manifest.parent.name] = sorted(files)
        for name, facts in files.items():
            if (manifest.parent / name).stat().st_size != facts["nbytes"]:
                raise ValueError(f"{manifest.parent / name} is cut short")
    return found


def timeless(found: Any) -> Any:
    """A JSON value without the times in it."""
    if isinstance(found, Mapping):
        return {key: timeless(each) for key, each in found.items() if not key.startswith(_TIMES)}
    if isinstance(found, list | tuple):
        return [timeless(each) for each in found]
    return found


def serve(policy: str) -> Callable[[], None]:
    """Open a file by a cache, run it, and leave the answer in a file."""

    def call() -> None:
        session = load_session("in/model.onnx", "accuracy-1", policy=policy, cache="out/cache", threads=1)
        images = np.linspace(0, 1, 2 * 64, dtype=np.float32).reshape(2, 1, 8, 8)
        (answer,) = session.run(None, {session.get_inputs()[0].name: images})
        Path("answer.bin").write_bytes(answer.tobytes())

    return call


def answer(path: Path) -> Facts:
    """What a session has answered."""
    return {"answer": hashlib.sha256(path.read_bytes()).hexdigest()}


def clear(folder: Path) -> None:
    """Remove what a command may have left from another try."""
    shutil.rmtree(folder, ignore_errors=True)


def _header(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


_TRAIN = (
    *("--data", "digits", "--model", "cnn4-small", "--batch-size", 256, "--augment", "none"),
    *("--device", "cpu", "--epochs", 4),
)
_RUN = {
    "out/run/config.json": document,
    "out/run/metrics.jsonl": lines,
    "out/run/checkpoint.safetensors": tensors,
    "out/run/model.safetensors": tensors,
}
_QAT = ("train", *_TRAIN, "--qat", "--average", 0.5, "-o", "out/run")
_ARTIFACT = ("compress", "in/run", "-o", "out/model.mq", "--calibration", "digits", "--samples", 64)
_GRAPH = ("compress", "in/graph.onnx", "-o", "out/model.onnx", "--calibration", "in/samples.npz")
_BENCH = (
    *("bench", "float=in/run", "in/model.mq", "--data", "digits", "--suite", "headline", "--limit", 20),
    *("--out", "out/report"),
)
_MODEL = {"out/model.onnx": model}
JOBS: dict[str, Job] = {
    "train": Job(
        muquant("train", *_TRAIN, "-o", "out/run"),
        _RUN,
        following=muquant("train", *_TRAIN, "-o", "out/run", "--resume"),
        grows=True,
    ),
    "train, quantized and averaged": Job(
        muquant(*_QAT), _RUN, following=muquant(*_QAT, "--resume"), grows=True
    ),
    "compress": Job(
        muquant(*_ARTIFACT), {"out/model.mq": tensors}, following=muquant(*_ARTIFACT, "--resume")
    ),
    "compress over an older one, begun anew": Job(
        muquant(*_ARTIFACT),
        {"out/model.mq": tensors},
        before=muquant("compress", "in/run", "-o", "out/model.mq", "--bits", 2),
    ),
    "compress a graph": Job(muquant(*_GRAPH), _MODEL, following=muquant(*_GRAPH, "--resume")),
    "compress a graph, external data, over an older one": Job(
        muquant(*_GRAPH),
        _MODEL,
        external=True,
        before=muquant("compress", "in/graph.onnx", "-o", "out/model.onnx", "--bits", 8),
    ),
    "export": Job(muquant("export", "in/model.mq", "-o", "out/model.onnx"), _MODEL),
    "export, external data, over an older one": Job(
        muquant("export", "in/model.mq", "-o", "out/model.onnx"),
        _MODEL,
        external=True,
        before=muquant("export", "in/model.mq", "-o", "out/model.onnx", "--policy", "int8"),
    ),
    "bench": Job(
        muquant(*_BENCH),
        {
            "out/report/report.json": document,
            "out/report/report.html": text,
            "out/report/attacks": attacks,
        },
        grows=True,
    ),
    "cache": Job(serve("float"), {"out/cache": entries, "answer.bin": answer}, grows=True),
    "cache, an entry for another policy there": Job(
        serve("int8"), {"out/cache": entries, "answer.bin": answer}, grows=True, before=serve("float")
    ),
}
"""By name."""
