"""Which images no attack can turn: bounds of a network's margins over whole balls."""

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from muquant.attacks.inputs import read_images
from muquant.attacks.norms import TOLERANCE, parse_epsilon
from muquant.base.errors import InputError
from muquant.base.progress import OnProgress
from muquant.base.registry import look_up
from muquant.certification.bounds import BOUNDS
from muquant.certification.operations import Range
from muquant.certification.trace import traced
from muquant.models.calls import evaluation_mode

BATCH_SIZE = 50


@dataclass(frozen=True, eq=False)
class Certificate:
    """What is proven of N images; tensors are on the CPU.

    Attributes:
        margins: float64 [N], a lower bound of the label's logit minus the largest other one over the whole
            ball, in exact arithmetic on the weights as they are.
        errors: float64 [N], by how much rounding to float32 may lower that margin, for sums in any order,
            with fused multiplication or without; of kernels that round activations to int8, of bfloat16 and
            of Winograd's convolutions nothing is said.
        correct: bool [N], whether the image itself is classified rightly.
    """

    margins: Tensor
    errors: Tensor
    correct: Tensor

    @property
    def certified(self) -> Tensor:
        """Bool [N], whether every image of the ball has the label's class, however it is computed."""
        return self.margins > self.errors

    @property
    def accuracy(self) -> float:
        """The fraction of the images that is certified, 0..1."""
        return int(self.certified.sum()) / len(self.certified)


def certify(
    module: nn.Module,
    images: Tensor | ArrayLike,
    labels: Tensor | ArrayLike,
    epsilon: float | str,
    *,
    bound: str = "crown-ibp",
    on_progress: OnProgress | None = None,
) -> Certificate:
    """Prove of images that no image near by is classified otherwise.

    The ball is that of attacks: Linf, cut by [0, 1], with the tolerance that they have. The weights are taken
    as they are, so that a compressed network is certified with its decoded weights, which its ONNX file
    decodes to the same bits.

    Args:
        module: a classifier of images in [0, 1], of convolutions, linear layers, BatchNorm, ReLU, pooling and
            sums. It is run in evaluation mode, and left as it was.
        images: [N, ...] in [0, 1].
        labels: integers [N].
        epsilon: radius, such as 0.3 or "8/255".
        bound: a name of `BOUNDS`; "crown-ibp" is tighter, "ibp" is quick.
        on_progress: called with images done and images in all after each batch.

    Raises:
        InputError: an argument cannot be used, or the network has an operation of which no bounds are known.
    """
    tightest = look_up("bound", bound, BOUNDS)
    radius = parse_epsilon(epsilon) + TOLERANCE
    images, labels = read_images(images, labels)
    if float(images.min()) < 0 or float(images.max()) > 1:
        raise InputError(
            f"images: expected values in [0, 1], found {float(images.min()):g} to {float(images.max()):g}"
        )
    parts = []
    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    with torch.no_grad(), evaluation_mode(module):
        for start in range(0, len(images), BATCH_SIZE):
            rows = slice(start, start + BATCH_SIZE)
            clean, wanted = images[rows].to(device, torch.float64), labels[rows].to(device)
            lower, upper = (clean - radius).clamp(min=0), (clean + radius).clamp(max=1)
            logits = traced(module, Range(lower, upper, torch.zeros_like(lower)))
            if int(wanted.max()) >= logits.shape[1]:
                raise InputError(
                    f"labels: expected 0 to {logits.shape[1] - 1}, the model's classes, found "
                    f"{int(wanted.max())}"
                )
            error = logits.range.error
            assert error is not None
            margins = tightest(logits, wanted) - error - error.gather(1, wanted[:, None])
            margins.scatter_(1, wanted[:, None], torch.inf)
            worst, place = margins.min(1)
            errors = error.gather(1, place[:, None])[:, 0] + error.gather(1, wanted[:, None])[:, 0]
            correct = module(images[rows].to(device)).argmax(1) == wanted
            parts.append([each.cpu() for each in (worst + errors, errors, correct)])
            if on_progress is not None:
                on_progress(min(start + BATCH_SIZE, len(images)), len(images))
    return Certificate(*(torch.cat(part) for part in zip(*parts, strict=True)))
