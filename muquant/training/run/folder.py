"""The run folder: its files, and the finished model in it."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from muquant.base.errors import InputError
from muquant.base.files import make_folder, write_bytes, write_json
from muquant.base.reading import read_json
from muquant.base.tensor_files import TensorFile, read_tensors, write_tensors
from muquant.models import Architecture, Classifier, build
from muquant.training.options.config import TrainingConfig
from muquant.training.progress import EpochMetrics
from muquant.training.run.quantized import prepare
from muquant.training.run.state import read_history

RUN_SCHEMA = "muquant.run/1"
MODEL_SCHEMA = "muquant.model/1"


def load_run(folder: str | os.PathLike[str]) -> Classifier:
    """The trained model of a finished run, on the CPU, in evaluation mode.

    After quantization-aware training it is the fake-quantized one; `muquant.compress` freezes it.

    Args:
        folder: the run folder, or the `model.safetensors` in it.

    Raises:
        InputError: there is no finished run, or its file is damaged, foreign or unlike its architecture.
    """
    file = _open_model(folder)
    run = _read(file)
    model = build(run.architecture)
    if run.config.qat is not None:
        prepare(model, run.config.qat)
    file.copy_into(model.state_dict())
    return model.eval()


def read_run(folder: str | os.PathLike[str]) -> "FinishedRun":
    """All about a finished run but its weights. The arguments and errors of `load_run`."""
    return _read(_open_model(folder))


@dataclass(frozen=True)
class FinishedRun:
    """The manifest of a finished run.

    Attributes:
        architecture: builds the model without its weights.
        config: what it was trained by.
        classes: the names of the classes, in the order of the logits.
        data: the digests of its two splits.
        init: SHA-256 of the model file that its weights began with; None where they were random.
        test_accuracy: 0..1, on the test split, in float32.
        history: one entry an epoch.
        kept_epoch: 1..epochs, the one after which the weights were taken.
    """

    architecture: Architecture
    config: TrainingConfig
    classes: tuple[str, ...]
    data: Mapping[str, Any]
    init: str | None
    test_accuracy: float
    history: tuple[EpochMetrics, ...]
    kept_epoch: int


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Self:
        """The folder `path`, or the one that holds the file `path`."""
        path = Path(path)
        return cls(path if path.is_dir() else path.parent)

    @property
    def config(self) -> Path:
        """What the run is: schema, configuration, data and versions."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One line of JSON for each finished epoch."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Where the run stands."""
        return self.path / "checkpoint.safetensors"

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.path / "model.safetensors"

    def check_free(self) -> None:
        """Refuse a folder in which a run has begun.

        Raises:
            InputError: one has.
        """
        for file in (self.config, self.checkpoint, self.model):
            if file.exists():
                raise InputError(
                    f"{self.path} already holds a run ({file.name}); resume it with --resume, or name "
                    f"another folder"
                )

    def begin(self, document: Mapping[str, Any]) -> None:
        """Make the folder and write its `config.json`, or compare with the one that is there.

        Args:
            document: with the keys "config", "data" and "init", and "teacher" where there is one, which have
                to be equal in a run that is resumed, and "versions", which is a record only.

        Raises:
            InputError: the folder's run has another configuration or other data, or its file is damaged.
        """
        if not self.config.exists():
            self.check_free()
            make_folder(self.path)
            write_json(self.config, {"schema": RUN_SCHEMA, **document})
            return
        for key in ("config", "data", "init", "teacher"):
            refuse_changes(key, f"the run in {self.path}", self.stored(key), document.get(key))

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Keep other processes from training the same run; the system frees it when this one ends, however.

        Raises:
            InputError: another process trains it.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{self.path}: another process is training this run; wait for it to end or stop it, or name "
                "another folder"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def stored(self, key: str) -> Any:
        """A value of `config.json`; None where it has no such key, or no run has begun.

        Raises:
            InputError: the file is damaged.
        """
        if not self.config.exists():
            return None
        stored = read_json(self.config)
        if not isinstance(stored, dict) or stored.get("schema") != RUN_SCHEMA:
            raise InputError(f"{self.config}: expected a file of kind {RUN_SCHEMA}; name a run folder")
        return stored.get(key)

    def origin(self) -> str | None:
        """The digest of what the run in the folder began with, for a resume that does not name it again.

        Raises:
            InputError: the run has no checkpoint yet, so that its first weights are still needed.
        """
        origin = self.stored("init")
        if origin is not None and not self.checkpoint.exists():
            raise InputError(
                f"{self.path}: the run has not come to its first checkpoint; resume it with the --init that "
                f"it was begun with"
            )
        return None if origin is None else str(origin)

    def write_metrics(self, history: Sequence[EpochMetrics]) -> None:
        """Write all of `metrics.jsonl`, so that no epoch is in it twice."""
        write_bytes(self.metrics, "".join(json.dumps(asdict(record)) + "\n" for record in history).encode())

    def finish(self, model: Classifier, run: FinishedRun) -> None:
        """Write the finished model."""
        manifest = {
            "architecture": run.architecture.to_dict(),
            "config": run.config.to_dict(),
            "classes": list(run.classes),
            "data": dict(run.data),
            "init": run.init,
            "test_accuracy": run.test_accuracy,
            "history": [asdict(record) for record in run.history],
            "kept_epoch": run.kept_epoch,
        }
        write_tensors(self.model, MODEL_SCHEMA, model.state_dict(), manifest)


def refuse_changes(key: str, where: str, stored: object, given: object) -> None:
    """Compare what a run was begun with and what it is resumed with.

    Args:
        key: of `config.json` or of a checkpoint. A "config" is read before it is compared: one from before
            there was some option has the value of it that changes nothing.
        where: it is stored, in words.
        stored: what it was begun with.
        given: what it is resumed with.

    Raises:
        InputError: they differ; the message names every field that does, with both values. Or a "config"
            cannot be read.
    """
    if key == "config" and stored is not None:
        stored = TrainingConfig.from_dict(stored).to_dict()
    before, now = _flat(stored), _flat(given)
    changes = [
        f"{key} was {before.get(key)!r} and is now {now.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if changes:
        raise InputError(
            f"{key} of {where} changed: {', '.join(changes)}; resume it with what it was begun with, or name "
            f"another folder"
        )


def _flat(document: object) -> dict[str, Any]:
    """A JSON document as its values by their path, such as "adversarial.epsilon"."""
    if not isinstance(document, Mapping):
        return {"it": document}
    flat: dict[str, Any] = {}
    for key, value in document.items():
        inner = _flat(value) if isinstance(value, Mapping) else {}
        flat.update({f"{key}.{name}": each for name, each in inner.items()} or {str(key): value})
    return flat


def _open_model(folder: str | os.PathLike[str]) -> TensorFile:
    path = Path(folder)
    if not path.is_dir():
        return read_tensors(path, MODEL_SCHEMA)
    run = RunFolder(path)
    if not run.model.exists():
        found = "one that is not finished, resume it with --resume" if run.config.exists() else "none"
        raise InputError(f"{path}: expected a finished run ({run.model.name}), found {found}")
    return read_tensors(run.model, MODEL_SCHEMA)


def _read(file: TensorFile) -> FinishedRun:
    manifest = file.manifest
    try:
        return FinishedRun(
            architecture=Architecture.from_dict(manifest["architecture"]),
            config=TrainingConfig.from_dict(manifest["config"]),
            classes=tuple(str(name) for name in manifest["classes"]),
            data=dict(manifest["data"]),
            init=manifest["init"],
            test_accuracy=float(manifest["test_accuracy"]),
            history=read_history(manifest["history"]),
            kept_epoch=int(manifest["kept_epoch"]),
        )
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file.path}: its manifest is damaged ({error!r}); take an unchanged file"
        ) from error
