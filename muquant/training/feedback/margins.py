"""`margins`: how far an image is from the decision boundary along given directions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from muquant.attacks.losses import margin
from muquant.attacks.norms import per_image
from muquant.attacks.problem import checked_logits
from muquant.attacks.target import TorchTarget
from muquant.base.errors import InputError
from muquant.training.feedback.brackets import Brackets

BATCH_SIZE = 256
"""Images at a time; 128 to 512 are fastest on a CPU."""

_SMALLEST_GAP = 1e-6  # of logits; a tie counts for the side on which argmax puts it


@dataclass(frozen=True, eq=False)
class Margins:
    """The smallest margins of N images; tensors are on the CPU.

    Attributes:
        values: float32 [N, keep], L2, ascending; 0 for a misclassified image, infinite where the label does
            not change up to the cap.
        rays: int64 [N, keep], the directions in which they were found. Of equal margins, the first ones.
        forwards: int64 [N], images that the model was shown.
    """

    values: Tensor
    rays: Tensor
    forwards: Tensor


def margins(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    directions: Tensor,
    *,
    keep: int | None = None,
    cap: float = 16.0,
    bisections: int = 12,
    batch_size: int = BATCH_SIZE,
) -> Margins:
    """Find the smallest t at which the label of clip(x + t d, 0, 1) changes, for each image and direction.

    A margin is the first multiple of cap / 2**bisections at which the label has changed. A direction is one
    ray: -d is not tried, as a random d is as likely as -d. Where only the smallest margins are asked for,
    most rays are evaluated once or twice, just far enough to know that they are not among them.

    Where a label changes to and fro along a ray, `Brackets` says what is found. The batch size has no
    influence but by the rounding of the model's outputs.

    Args:
        model: takes float32 [M, C, H, W] in [0, 1]; in evaluation mode meanwhile.
        images: float32 [N, C, H, W] in [0, 1].
        labels: int64 [N].
        directions: [N, D, C, H, W], of unit L2 norm.
        keep: how many of each image's smallest margins are wanted, 1..D; None means all.
        cap: the largest t, in L2.
        bisections: how often (0, cap] is halved.
        batch_size: images at a time.

    Raises:
        InputError: the shapes do not fit, `keep` is out of range, or the model's outputs cannot be used.
    """
    if images.shape[:1] != labels.shape or directions.shape != (
        *labels.shape,
        *directions.shape[1:2],
        *images.shape[1:],
    ):
        raise InputError(
            f"margins: expected images [N, ...], labels [N] and directions [N, D, ...], found "
            f"{list(images.shape)}, {list(labels.shape)} and {list(directions.shape)}; make them fit"
        )
    count = directions.shape[1]
    keep = count if keep is None else keep
    if not 1 <= keep <= count:
        raise InputError(f"margins: expected to keep 1 to {count}, the directions given, found {keep}")
    target = TorchTarget(model)
    device, unit_step = target.device, cap / 2**bisections
    images, labels, directions = images.to(device), labels.to(device), directions.to(device)
    forwards = torch.zeros_like(labels)

    def gap(rows: Tensor, rays: Tensor, steps: Tensor) -> Tensor:
        forwards.index_add_(0, rows, torch.ones_like(rows))
        starts = range(0, len(rows), batch_size)
        parts = [slice(start, start + batch_size) for start in starts]
        return torch.cat([gap_of_batch(rows[part], rays[part], steps[part]) for part in parts])

    def gap_of_batch(rows: Tensor, rays: Tensor, steps: Tensor) -> Tensor:
        distance = per_image(steps * unit_step, images)
        inputs = (images[rows] + distance * directions[rows, rays]).clamp_(0, 1)
        logits, label = checked_logits(target, inputs), labels[rows]
        size = margin(logits, label).abs().clamp(min=_SMALLEST_GAP)
        return torch.where(logits.argmax(1) == label, size, -size)

    with torch.no_grad(), target.ready():
        rows = torch.arange(len(labels), device=device)
        start = gap(rows, torch.zeros_like(rows), torch.zeros_like(rows))
        brackets = Brackets(gap, start, count, 2**bisections)
        brackets.find_nearest(keep)
    steps, rays = brackets.high.sort(dim=1, stable=True)
    steps, rays = steps[:, :keep], rays[:, :keep]
    values = torch.where(steps <= brackets.steps, steps * unit_step, torch.inf).float()
    return Margins(values.cpu(), rays.cpu(), forwards.cpu())
