"""From the MODEL arguments of `muquant bench` to what a benchmark attacks."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

import muquant
from muquant.errors import InputError
from muquant.files import make_folder
from muquant.robustness import Processes, Subject
from muquant.training import load_run
from muquant_cli.options import input_shape
from muquant_onnx import decode_file, export_float, export_onnx, load_session, logits_of


@dataclass(frozen=True, eq=False)
class Candidate:
    """One MODEL argument, read.

    Attributes:
        name: of the model in the report.
        path: where it was read from.
        module: None for an ONNX file.
        compressed: the artifact that the module belongs to; None for a float model or a file.
        file: the ONNX file that is tried; None where there is none yet.
        input_shape: of one image; empty for an ONNX file.
    """

    name: str
    path: Path
    module: nn.Module | None = None
    compressed: muquant.CompressedModel | None = None
    file: Path | None = None
    input_shape: tuple[int, ...] = ()


def read_candidates(models: Sequence[str]) -> list[Candidate]:
    """Read `[NAME=]PATH` arguments: run folders, .mq and .onnx files; an ONNX file goes with its .mq.

    Raises:
        InputError: one cannot be read, or two have the same name.
    """
    candidates = [_read(text) for text in models]
    files = [candidate for candidate in candidates if candidate.module is None]
    others = [candidate for candidate in candidates if candidate.module is not None]
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
    device: torch.device,
    processes: Processes,
) -> list[Subject]:
    """Open the candidates under the runtimes; models without an ONNX file are exported into `folder`.

    Args:
        candidates: what was read.
        runtimes: "torch", "onnx" or both.
        folder: for the exported files.
        policy: of the export.
        device: on which PyTorch models run.
        processes: the first of which exports.

    Raises:
        InputError: a model cannot be exported or loaded, or there is nothing of it under these runtimes.
    """
    opened = []
    for candidate in candidates:
        file = candidate.file
        if "onnx" in runtimes and file is None:
            file = _export(candidate, folder, policy, processes)
        opened.append(_subject(candidate, file if "onnx" in runtimes else None, runtimes, device))
    return opened


def _read(text: str) -> Candidate:
    given, equals, rest = text.partition("=")
    path = Path(rest if equals else text)
    name = given if equals else path.resolve().name.removesuffix(".mq").removesuffix(".onnx")
    if not re.fullmatch(r"\w[\w .+-]{0,60}", name):
        raise InputError(f"model name {name!r}: expected letters, digits and . + - only; give NAME={path}")
    if path.is_dir():
        model = load_run(path)
        return Candidate(name, path, model, input_shape=model.architecture.input_shape)
    if path.suffix == ".mq":
        compressed = muquant.load(path)
        shape = input_shape(compressed, path)
        return Candidate(name, path, compressed.module, compressed, input_shape=shape)
    if path.suffix == ".onnx":
        return Candidate(name, path, file=path)
    raise InputError(f"cannot tell what {path} is; expected a run folder, or a .mq or .onnx file")


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


def _subject(
    candidate: Candidate, file: Path | None, runtimes: Sequence[str], device: torch.device
) -> Subject:
    module = candidate.module if "torch" in runtimes else None
    if module is None and file is None:
        raise InputError(f"{candidate.path}: an ONNX file does not run in torch; add onnx to --runtime")
    bits: float | None = None
    if candidate.compressed is not None:
        widths = [
            (tensor.spec.bits, tensor.codes.numel()) for tensor in candidate.compressed.tensors.values()
        ]
        bits = sum(width * count for width, count in widths) / max(sum(count for _, count in widths), 1)
    elif candidate.module is not None:
        bits = 32.0
    deployed = file or (candidate.path if candidate.path.is_file() else candidate.path / "model.safetensors")
    return Subject(
        name=candidate.name,
        module=None if module is None else module.to(device),
        session=None if file is None else logits_of(load_session(file, threads=torch.get_num_threads())),
        bits=bits,
        nbytes=deployed.stat().st_size,
        file="" if file is None else f"{hashlib.sha256(file.read_bytes()).hexdigest()} {ort.__version__}",
    )


def _export(candidate: Candidate, folder: Path, policy: str, processes: Processes) -> Path:
    path = folder / f"{candidate.name}.onnx"
    if processes.rank == 0:
        make_folder(folder)
        example = torch.zeros(2, *candidate.input_shape)
        if candidate.compressed is not None:
            export_onnx(candidate.compressed, path, example, policy)
        elif candidate.module is not None:
            export_float(candidate.module, path, example)
    return processes.share(path)
