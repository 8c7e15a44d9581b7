"""Training under way in a file, from which an interrupted one goes on."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from muquant.base.errors import naming
from muquant.base.tensor_files import read_tensors, write_tensors
from muquant.base.values import check_fields, field_values
from muquant.compression.tuning.subject import Subject
from muquant.models.calls import Inputs
from muquant.quantization.resume import TUNING

SCHEMA = "muquant.tuning/1"


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: that was taken last.
        best: mean distortion at the best judgement so far.
        best_step: when that was.
        seconds: that it took.
        order: places of the batches that are left of this round, the next one last, with spaces between.
    """

    step: int
    best: float
    best_step: int
    seconds: float
    order: str = ""


class TuningState:
    """A file with all that a training goes on from: whole, or not there.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, folder: Path, subject: Subject, batches: Iterable[Inputs], settings: str) -> Self:
        """Name it after all that a training depends on.

        Args:
            folder: of the file.
            subject: what is tuned.
            batches: that it sees.
            settings: all else.
        """
        digest = hashlib.sha256(settings.encode())
        for path, (value, start) in subject.weights.items():
            digest.update(f"{path} {start.spec} {start.channels}".encode())
            _add(digest, value, start.codes, start.step)
        for path in subject.rest:
            digest.update(path.encode())
            _add(digest, subject.module.get_parameter(path))
        for batch in batches:
            digest.update(f"{batch.names} {batch.shapes}".encode())
            _add(digest, *batch.tensors)
        return cls(folder / f"{TUNING}{digest.hexdigest()}.safetensors")

    def save(self, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
        """Write it.

        Raises:
            InputError: it cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(self.path, SCHEMA, tensors, {"progress": asdict(progress)})

    def restore(self, tensors: Mapping[str, Tensor]) -> Progress | None:
        """Copy what was written over `tensors`, and return how far it was; None where there is no file.

        Raises:
            InputError: the file is damaged, or of another training.
        """
        if not self.path.exists():
            return None
        file = read_tensors(self.path, SCHEMA)
        with naming(f"{self.path} (delete it to begin anew)"):
            progress = Progress(**field_values(Progress, file.manifest.get("progress"), "progress"))
            check_fields(progress, {"step": (0, float("inf"))}, "progress")
            file.copy_into(tensors)
        return progress


def _add(digest: Any, *tensors: Tensor) -> None:
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().numpy().data)
