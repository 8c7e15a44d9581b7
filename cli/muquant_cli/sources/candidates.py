"""From the MODEL arguments of `muquant bench` to what a benchmark attacks."""

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

import muquant
from muquant.base.errors import InputError
from muquant.base.files import make_folder
from muquant.base.processes import Processes
from muquant.base.reading import read_bytes
from muquant.models import Classifier
from muquant.robustness import Subject
from muquant.robustness.subject import LogitsFunction
from muquant_cli.sources import Source, read_source
from muquant_cli.sources.artifacts import open_artifact
from muquant_onnx import decode_file, export_float, export_onnx, load_session, logits_of


@dataclass(frozen=True, eq=False)
class Candidate:
    """One MODEL argument, read.

    Attributes:
        name: of the model in the report.
        path: where it was read from, or the text that named it.
        source: of the module; None for an ONNX file.
        compressed: the artifact that the module belongs to; None for a float model or a file.
        file: the ONNX file that is tried; None where there is none yet.
    """

    name: str
    path: Path
    source: Source | None = None
    compressed: muquant.CompressedModel | None = None
    file: Path | None = None


def read_candidates(models: Sequence[str], module: str | None = None) -> list[Candidate]:
    """Read `[NAME=]MODEL` arguments: sources, .mq and .onnx files; an ONNX file goes with its .mq.

    Args:
        models: the arguments.
        module: the source of the model of .mq files, where muquant does not build that itself.

    Raises:
        InputError: one cannot be read, or two have the same name.
    """
    candidates = [_read(text, module) for text in models]
    files = [candidate for candidate in candidates if candidate.source is None]
    others = [candidate for candidate in candidates if candidate.source is not None]
    for file in files:
        twin = next((other for other in others if other.file is None and _made_from(file.path, other)), None)
        if twin is None:
            others.append(file)
        else:
            others[others.index(twin)] = replace(twin, file=file.path)
    names = [candidate.name for candidate in others]
    if len(set(names)) < len(names):
        raise InputError(f"models: expected different names, found {names}; give NAME=MODEL")
    return others


def subjects(
    candidates: Sequence[Candidate],
    runtimes: Sequence[str],
    folder: Path,
    policy: str,
    processes: Processes,
    preprocess: nn.Module | None = None,
) -> list[Subject]:
    """Open the candidates under the runtimes; models without an ONNX file are exported into `folder`.

    Args:
        candidates: what was read.
        runtimes: "torch", "onnx" or both.
        folder: for the exported files.
        policy: of the export.
        processes: the first of which exports; PyTorch models run on the device of each.
        preprocess: images in [0, 1] -> what models take that do not say so themselves: factories' and ONNX
            files without one. None where they take images as they are.

    Raises:
        InputError: no model needs `preprocess`, a model cannot be exported or loaded, or there is nothing of
            it under these runtimes.
    """
    opened = []
    if preprocess is not None and all(_states_inputs(candidate) for candidate in candidates):
        raise InputError(
            "--bounds, --mean, --std: expected a factory or an ONNX file among the models, found those that "
            "state themselves what they take; leave these options out"
        )
    for candidate in candidates:
        file = candidate.file
        if "onnx" in runtimes and file is None:
            file = _export(candidate, folder, policy, processes)
        shown = file if "onnx" in runtimes else None
        opened.append(_subject(candidate, shown, runtimes, processes.device, preprocess))
    return opened


def _read(text: str, module: str | None) -> Candidate:
    given, equals, rest = text.partition("=")
    model = rest if equals else text
    path = Path(model)
    name = given if equals else _default_name(model)
    if not re.fullmatch(r"\w[\w .+-]{0,60}", name):
        raise InputError(f"model name {name!r}: expected letters, digits and . + - only; give NAME={model}")
    if path.suffix == ".mq":
        compressed, source = open_artifact(path, module)
        return Candidate(name, path, source, compressed)
    if path.suffix == ".onnx":
        return Candidate(name, path, file=path)
    return Candidate(name, path, read_source(model, others=("a .mq file", "an .onnx file")))


def _default_name(model: str) -> str:
    """Return the last part of a path or of another source, without what tells its kind."""
    return Path(model).resolve().name.removesuffix(".mq").removesuffix(".onnx").rpartition(":")[2]


def _made_from(file: Path, candidate: Candidate) -> bool:
    """Whether an ONNX file holds the weights of a candidate, bit for bit."""
    if candidate.compressed is None:
        return False
    try:
        weights = decode_file(file)
    except InputError:  # a float file, or another's
        return False
    tensors = candidate.compressed.tensors
    return set(weights) == set(tensors) and all(
        np.array_equal(weight, tensors[name].dequantize().numpy()) for name, weight in weights.items()
    )


def _states_inputs(candidate: Candidate) -> bool:
    """Whether it is known what the model takes: of all but factories and ONNX files alone."""
    source = candidate.source
    return source is not None and (source.preprocess is not None or isinstance(source.module, Classifier))


def _subject(
    candidate: Candidate,
    file: Path | None,
    runtimes: Sequence[str],
    device: torch.device,
    given: nn.Module | None,
) -> Subject:
    source = candidate.source
    given = None if _states_inputs(candidate) else given
    preprocess = given if source is None or source.preprocess is None else source.preprocess
    module = None
    if source is not None and "torch" in runtimes:
        module = replace(source, preprocess=preprocess).on_images
    if module is None and file is None:
        raise InputError(f"{candidate.path}: an ONNX file does not run in torch; add onnx to --runtime")
    bits: float | None = None
    if candidate.compressed is not None:
        widths = [
            (tensor.spec.bits, tensor.codes.numel()) for tensor in candidate.compressed.tensors.values()
        ]
        bits = sum(width * count for width, count in widths) / max(sum(count for _, count in widths), 1)
    elif source is not None:
        bits = 32.0
    places = (file, candidate.path, candidate.path / "model.safetensors")
    deployed = next((place for place in places if place is not None and place.is_file()), None)
    return Subject(
        name=candidate.name,
        module=None if module is None else module.to(device),
        session=None if file is None else _session(preprocess, file),
        bits=bits,
        nbytes=None if deployed is None else deployed.stat().st_size,
        file="" if file is None else _digest(file, given),
    )


def _digest(file: Path, given: nn.Module | None) -> str:
    """Return what names a file, what it is served by, and what options put before it."""
    parts = [hashlib.sha256(read_bytes(file)).hexdigest(), ort.__version__]
    return " ".join(parts if given is None else [*parts, repr(given)])


def _session(preprocess: nn.Module | None, file: Path) -> LogitsFunction:
    """Return the file as a function of images in [0, 1]."""
    run = logits_of(load_session(file, threads=torch.get_num_threads()))
    if preprocess is None:
        return run
    before = copy.deepcopy(preprocess).cpu()  # the module's own goes where attacks run

    def on_images(images: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            return run(before(torch.from_numpy(images)).numpy())

    return on_images


def _export(candidate: Candidate, folder: Path, policy: str, processes: Processes) -> Path:
    path = folder / f"{candidate.name}.onnx"
    if processes.rank == 0 and candidate.source is not None:
        make_folder(folder)
        example = candidate.source.require_example()
        if candidate.compressed is not None:
            export_onnx(candidate.compressed, path, example, policy)
        else:
            export_float(candidate.source.module, path, example)
    return processes.share(path)
