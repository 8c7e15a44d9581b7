"""Corruptions of the kinds of ImageNet-C and CIFAR-10-C (Hendrycks, Dietterich 2019), computed by a library.

They look for no worst case, and are reported apart from attacks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from muquant.attacks import Target
from muquant.base.errors import InputError, first_line
from muquant.base.processes import Processes
from muquant.base.seeds import derive_seed
from muquant.robustness.report import CorruptionReport
from muquant.robustness.runner import OnBatch, Sample
from muquant.robustness.statistics import mean_interval
from muquant.robustness.subject import batched_logits

SCORED = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The kinds by which ImageNet-C and CIFAR-10-C are scored; what "all" stands for."""

CORRUPTIONS = (*SCORED, "speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Those, and the further four that they keep for validation."""

SEVERITIES = (1, 2, 3, 4, 5)
LEAST_SIDE = 32
"""Pixels; the library computes nothing on smaller images."""

_DISTRIBUTION = "imagecorruptions-imaug"
_SEEDED = ("impulse_noise", "glass_blur")
"""What draws from a generator of its own; all others draw from numpy's."""

Key = TypeVar("Key")


def read_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds that a text lists: names of `CORRUPTIONS`, with commas, or "all" for `SCORED`.

    Raises:
        InputError: one is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    names = SCORED if names == ("all",) else names
    for name in names:
        if name not in CORRUPTIONS:
            raise InputError(
                f"corruption {name!r} is unknown; expected all, or some of {', '.join(CORRUPTIONS)}"
            )
    return names


def check_corruptible(sample: Sample) -> None:
    """Refuse what cannot be corrupted, before it is attacked for hours.

    Raises:
        InputError: the library is not installed, or the images are too small, or have no colours it knows.
    """
    _ = _library()
    shape = list(sample.images.shape[1:])
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < LEAST_SIDE:
        raise InputError(
            f"corruptions: expected images of 1 or 3 channels, {LEAST_SIDE} x {LEAST_SIDE} pixels or more, "
            f"found {shape}; leave them out for this data"
        )


def corrupted(images: Tensor, kind: str, severity: int, seed: int) -> Tensor:
    """Corrupt images; each by numbers of its own, whatever else is corrupted with it.

    Args:
        images: float32 [N, C, H, W] in [0, 1], C 1 or 3; taken as pixels of 8 bits, as the library does.
        kind: of `CORRUPTIONS`.
        severity: 1..5.
        seed: of all randomness.

    Returns:
        The same shape and range; of images of one channel the first of three.

    Raises:
        InputError: the library is not installed, or does not compute it.
    """
    corrupt = _library()
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    made = []
    for number, image in enumerate(pixels):
        own = derive_seed(seed, f"{kind} {severity}", number) % (1 << 32)
        options = {"seed": own} if kind in _SEEDED else {}
        with _numpy_seed(own):
            try:
                found = corrupt(image, severity=severity, corruption_name=kind, **options)
            except Exception as error:  # whatever it meets in numpy or OpenCV
                raise InputError(
                    f"imagecorruptions could not compute {kind}: {first_line(error)}; pip install -U "
                    f"{_DISTRIBUTION}"
                ) from error
        made.append(found[..., : images.shape[1]])
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float() / 255


def under_corruptions(
    targets: Mapping[Key, Target],
    sample: Sample,
    kinds: Sequence[str],
    seed: int,
    processes: Processes,
    on_batch: OnBatch,
) -> dict[Key, CorruptionReport]:
    """How accurate targets are on a sample under each kind at each severity; abstaining is not right.

    Args:
        targets: by what tells them apart.
        sample: the clean images.
        kinds: of `CORRUPTIONS`.
        seed: of all randomness.
        processes: that share the work.
        on_batch: called after each kind and severity of this process.
    """
    tried = list(product(kinds, SEVERITIES))
    mine: dict[int, dict[Key, Tensor]] = {}
    for number in range(processes.rank, len(tried), processes.count):
        kind, severity = tried[number]
        shown = corrupted(sample.images, kind, severity, seed)
        mine[number] = {key: _right(target, shown, sample) for key, target in targets.items()}
        on_batch("corruptions", number + 1, len(tried))
    parts = processes.gather(mine, len(tried))
    return {key: _report([part[key] for part in parts], kinds) for key in targets}


def _right(target: Target, images: Tensor, sample: Sample) -> Tensor:
    with target.ready(), torch.no_grad():
        return sample.goal(target).right(batched_logits(target, images))


def _report(right: Sequence[Tensor], kinds: Sequence[str]) -> CorruptionReport:
    """From which images are right under each kind at each severity, in their order, to the report."""
    table = torch.stack(list(right)).double().reshape(len(kinds), len(SEVERITIES), -1)
    by_image = table.mean((0, 1))
    return CorruptionReport(
        library=_name_and_version(),
        count=table.shape[2],
        mean=float(by_image.mean()),
        interval=mean_interval(by_image),
        accuracy={
            kind: tuple(float(value) for value in rows.mean(1))
            for kind, rows in zip(kinds, table, strict=True)
        },
    )


def _library() -> Callable[..., NDArray[Any]]:
    try:
        from imagecorruptions import corrupt  # optional, and it takes seconds
    except ImportError as error:
        raise InputError(
            f"corruptions need the package {_DISTRIBUTION} ({first_line(error)}); install it: pip install "
            "'muquant[corruptions]'"
        ) from error
    return corrupt  # type: ignore[no-any-return]


def _name_and_version() -> str:
    try:
        return f"{_DISTRIBUTION} {version(_DISTRIBUTION)}"
    except PackageNotFoundError:  # another distribution of the module
        return "imagecorruptions"


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, from which the library draws, and give it back as it was."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
