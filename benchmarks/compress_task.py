"""What a peer of `compress_peers.py` gets, and what it gives back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from encoder import Encoder
from meter import Meter
from torch import Tensor, nn

from muquant_onnx import load_session

BATCH = 32
"""Calibration windows at a time, where a library takes batches."""

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A compressed encoder.

    Attributes:
        logits: int64 [n, length] -> float32 [n, length, 256].
        path: its file.
        bits: that a weight takes, with its share of steps and zero points. Codes count as the library packs
            them; where it keeps them in wider numbers, or only simulates them, at their own width.
    """

    logits: Logits
    path: Path
    bits: float


@dataclass(frozen=True)
class Task:
    """What a peer gets. It compresses inside `meter`; what comes before and after is not measured."""

    model: Encoder
    calibration: Tensor
    folder: Path
    meter: Meter

    @property
    def count(self) -> int:
        """The number of weights of dense layers, before they are compressed."""
        return sum(layer.weight.numel() for _, layer in linears(self.model))


@dataclass(frozen=True)
class Peer:
    """A way to compress.

    Attributes:
        run: does it.
        width: bits of a code.
        package: distribution that does it.
        modules: imported before the clock starts.
    """

    run: Callable[[Task], Outcome]
    width: int
    package: str
    modules: tuple[str, ...] = ()


def linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the dense layers and their names."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module


def in_torch(model: nn.Module, path: Path, bits: float) -> Outcome:
    """A module that computes with what it decodes; its file is its state, as `torch.save` writes it."""
    torch.save(model.state_dict(), path)
    return Outcome(model, path, bits)


def in_onnxruntime(path: Path, bits: float) -> Outcome:
    """A file as onnxruntime runs it."""
    session = load_session(path, threads=torch.get_num_threads())
    name = session.get_inputs()[0].name

    def logits(tokens: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: tokens.numpy()})[0])

    return Outcome(logits, path, bits)


def batches(calibration: Tensor) -> list[Tensor]:
    """The calibration in parts."""
    return list(torch.split(calibration, BATCH))
