"""What became of each image: a table as CSV, and the examples as .npz."""

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from muquant.attacks import Norm, Threat
from muquant.base.files import atomic_path, make_folder, write_bytes
from muquant.robustness.assessment import Assessment
from muquant.robustness.evidence import fooled_within
from muquant.robustness.report import ModelReport
from muquant.robustness.runner import Sample

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
COLUMNS = ("model", "runtime", "index", "label", "target class", "seen", "withstands", *NORMS, "fooled by")


@dataclass(frozen=True, eq=False)
class ImageResults:
    """What became of the images of a benchmark under one model.

    Attributes:
        model: its name.
        runtime: "torch" or "onnx".
        index: int64 [N], places of the images in the split.
        label: int64 [N].
        target_class: int64 [N], what attacks aimed at; None where any class but the label counted.
        seen: int64 [N], the classes of the clean images; the number of classes where the model abstains.
        withstands: bool [N], seen rightly, and not fooled inside the threat.
        distances: norm -> float32 [N], of the example; 0 where there is none.
        fooled_by: [N], the attacks of the suite whose examples fooled it inside the threat.
        clean: float32 [N, ...].
        adversarial: float32 [N, ...], the first example inside the threat; the clean image where none is.
        classes: how many there are.
    """

    model: str
    runtime: str
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    target_class: NDArray[np.int64] | None
    seen: NDArray[np.int64]
    withstands: NDArray[np.bool_]
    distances: dict[str, NDArray[np.float32]]
    fooled_by: list[tuple[str, ...]]
    clean: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    classes: int


def image_results(
    report: ModelReport, assessment: Assessment, sample: Sample, indices: Tensor, threat: Threat
) -> ImageResults:
    """What became of each image of a sample."""
    worst, count = assessment.worst, len(sample)
    fooled_by: list[tuple[str, ...]] = [()] * count
    for entry in assessment.entries:
        if entry.outcome is None or entry.suite_attack.attack.corruption:
            continue
        for row in fooled_within(entry.outcome.result, threat).nonzero()[:, 0].tolist():
            fooled_by[row] = (*fooled_by[row], entry.suite_attack.name)
    fooled = worst.success
    return ImageResults(
        report.name,
        report.runtime,
        indices.numpy(),
        sample.labels.numpy(),
        None if sample.target_classes is None else sample.target_classes.numpy(),
        assessment.predicted.numpy(),
        (worst.attacked & ~fooled).numpy(),
        {norm: (worst.distance(norm) * fooled).numpy() for norm in NORMS},
        fooled_by,
        sample.images.numpy(),
        worst.adversarial.numpy(),
        sample.classes,
    )


def write_images(results: list[ImageResults], folder: str | os.PathLike[str]) -> list[Path]:
    """Write images.csv, a row for each image and model, and examples-MODEL-RUNTIME.npz for each model.

    An .npz holds `clean`, `adversarial`, `label`, `index` and `withstands` of all images, the number of
    `classes`, and `target_class` where attacks aimed at one. `npz:FILE` reads its clean images as data.

    Args:
        results: of each model under each runtime.
        folder: made where it is not there yet.

    Returns:
        The paths.

    Raises:
        InputError: the folder cannot be made or written.
    """
    made = make_folder(folder)
    text = io.StringIO(newline="")
    csv.writer(text).writerows([COLUMNS, *(row for each in results for row in _rows(each))])
    paths = [made / "images.csv"]
    write_bytes(paths[0], text.getvalue().encode())
    for number, each in enumerate(results):
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", each.model)[:80]
        path = made / f"examples-{number}-{plain}-{each.runtime}.npz"
        aimed: dict[str, Any] = {} if each.target_class is None else {"target_class": each.target_class}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                clean=each.clean,
                adversarial=each.adversarial,
                label=each.label,
                index=each.index,
                withstands=each.withstands,
                classes=each.classes,
                **aimed,
            )
        paths.append(path)
    return paths


def _rows(each: ImageResults) -> Iterator[tuple[object, ...]]:
    for row in range(len(each.label)):
        aimed = "" if each.target_class is None else int(each.target_class[row])
        index, label, seen, withstands = (
            int(values[row]) for values in (each.index, each.label, each.seen, each.withstands)
        )
        distances = (f"{float(values[row]):.6g}" for values in each.distances.values())
        numbers = (index, label, aimed, seen, withstands)
        yield each.model, each.runtime, *numbers, *distances, " ".join(each.fooled_by[row])
