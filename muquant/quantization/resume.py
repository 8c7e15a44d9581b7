"""Weights that an interrupted job had finished, found again by all that their outcome depends on."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muquant.base.errors import InputError, naming
from muquant.base.files import make_folder
from muquant.base.tensor_files import read_tensors, write_tensors
from muquant.format.channels import Channels
from muquant.format.spec import MuLawSpec
from muquant.format.stored import read_weight, weight_entry, weight_tensors
from muquant.quantization.moments import InputMoments, Moments
from muquant.quantization.outcome import Outcome, OutputQuality
from muquant.quantization.rounding import ROUNDINGS

SCHEMA = "muquant.finished/1"
_WEIGHT = "weight"
"""Its name in its file."""
TUNING = "tuning-"
"""What the name of a file begins with that keeps a training of all weights together."""
_NAME = re.compile(f"({TUNING})?[0-9a-f]{{64}}")


class FinishedWeights:
    """A folder of finished weights, a file for each; and of a training that is under way, if there is one.

    A file's name is a digest of the float weight, of what was asked for and of what was known of the layer's
    inputs. So one that is found is the right one, whatever has changed since it was written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(not path.name.startswith(TUNING) for path in self._files())

    def clear(self) -> None:
        """Delete all files, and the folder where nothing else is in it."""
        for path in self._files():
            path.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("*.safetensors") if _NAME.fullmatch(path.stem)]

    def key(self, weight: Tensor, samples: InputMoments | None, **options: Any) -> str:
        """Return the name under which an outcome is kept.

        Args:
            weight: what is quantized.
            samples: what the layer's inputs are like.
            options: all else that matters, JSON values.
        """
        units = [part.unit for part in _parts(samples)]
        others = json.dumps([list(weight.shape), units, options], sort_keys=True)
        digest = hashlib.sha256(others.encode())
        for tensor in (weight, *_tensors(samples)):
            digest.update(tensor.detach().contiguous().numpy().data)
        return digest.hexdigest()

    def get(self, key: str, weight: Tensor, spec: MuLawSpec, channels: Channels) -> Outcome | None:
        """Return the outcome of that name, None where there is none.

        Args:
            key: its name.
            weight: that was quantized.
            spec: the format that was asked for.
            channels: of the weight.

        Raises:
            InputError: its file is damaged, or holds what cannot have come of that weight.
        """
        path = self.folder / f"{key}.safetensors"
        if not path.exists():
            return None
        file = read_tensors(path, SCHEMA)
        manifest, tensors = file.manifest, file.tensors
        with naming(str(path)):
            try:
                tensor = read_weight(_WEIGHT, tensors, manifest[_WEIGHT])
                output = manifest["output"]
                quality = None if output is None else OutputQuality(**_numbers(output))
                outcome = Outcome(tensor, str(manifest["rounding"]), quality, tensors.get("shift"))
                _check(outcome, weight, spec, channels)
                return outcome
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
                raise InputError(f"it is malformed ({error!r:.200}); delete it") from error

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome.

        Raises:
            InputError: it cannot be written.
        """
        make_folder(self.folder)
        tensor = outcome.tensor
        tensors = weight_tensors(_WEIGHT, tensor)
        if outcome.shift is not None:
            tensors["shift"] = outcome.shift
        manifest = {
            _WEIGHT: weight_entry(tensor),
            "rounding": outcome.rounding,
            "output": None if outcome.output is None else _words(asdict(outcome.output)),
        }
        write_tensors(self.folder / f"{key}.safetensors", SCHEMA, tensors, manifest)


def _check(outcome: Outcome, weight: Tensor, spec: MuLawSpec, channels: Channels) -> None:
    """Raise `ValueError` where an outcome is not one of `weight`."""
    tensor, quality, shift = outcome.tensor, outcome.output, outcome.shift
    if tensor.shape != tuple(weight.shape) or tensor.channels != channels:
        raise ValueError(f"a weight of shape {tensor.shape}, expected {tuple(weight.shape)}")
    asked = spec.with_mu(float(tensor.spec.mu)) if spec.mu == "auto" else spec
    if tensor.spec != asked:
        raise ValueError(f"a weight in the format {tensor.spec}, expected {asked}")
    if outcome.rounding not in ROUNDINGS:
        raise ValueError(f"rounding {outcome.rounding!r:.40}, expected one of {', '.join(ROUNDINGS)}")
    if quality is not None and any(math.isnan(ratio) for ratio in (quality.nearest, quality.taken)):
        raise ValueError("a ratio that is no number")
    if shift is not None:
        kind = shift.dtype, tuple(shift.shape)
        if kind != (torch.float32, (channels.count(tensor.shape),)) or not bool(shift.isfinite().all()):
            raise ValueError(f"a shift of {kind}, expected finite float32, one for each channel")


def _parts(samples: InputMoments | None) -> tuple[Moments, ...]:
    return () if samples is None else (samples.fit, samples.held_out)


def _tensors(samples: InputMoments | None) -> Iterable[Tensor]:
    for part in _parts(samples):
        yield from (part.mean, part.second, part.third, part.fourth)
        if part.drift is not None:
            drift = part.drift
            yield from (drift.mean, drift.cross, *(() if drift.second is None else (drift.second,)))


def _words(values: dict[str, float]) -> dict[str, str]:
    """Floats as text: JSON knows no infinity."""
    return {name: repr(value) for name, value in values.items()}


def _numbers(words: dict[str, str]) -> dict[str, float]:
    return {name: float(word) for name, word in words.items()}
