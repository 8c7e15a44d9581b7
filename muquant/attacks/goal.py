"""What an attack wants of each image, and when it has it: one meaning of "fooled" for all that judge."""

from dataclasses import dataclass

import torch
from torch import Tensor

from muquant.attacks.losses import Loss, dlr, margin, targeted_dlr


@dataclass(frozen=True, eq=False)
class Goal:
    """What N images are, and what they are to be taken for.

    An image is fooled where the model answers another class than its label; where classes are aimed at, only
    where it answers that class. A model that abstains is right about no image by that, and fooled by none.

    Attributes:
        labels: int64 [N].
        target_classes: int64 [N], other classes than the labels; None where any other class will do.
        abstains: whether the model's last output is no class, but says that it does not answer.
    """

    labels: Tensor
    target_classes: Tensor | None = None
    abstains: bool = False

    def at(self, rows: Tensor) -> "Goal":
        """That of some of the images, int64 [M]."""
        aimed = self.target_classes
        return Goal(self.labels[rows], None if aimed is None else aimed[rows], self.abstains)

    @property
    def unaimed(self) -> "Goal":
        """The same without a class that is aimed at."""
        return Goal(self.labels, None, self.abstains)

    def to(self, device: torch.device) -> "Goal":
        """The same on a device."""
        aimed = self.target_classes
        return Goal(self.labels.to(device), None if aimed is None else aimed.to(device), self.abstains)

    def right(self, outputs: Tensor) -> Tensor:
        """Whether the model answers the labels, bool [N], by its outputs [N, classes], or one more."""
        return outputs.argmax(1) == self.labels

    def fooled(self, outputs: Tensor) -> Tensor:
        """Whether the images are fooled, bool [N], by the model's outputs [N, classes], or one more."""
        return self.reached(self.logits(outputs))

    def logits(self, outputs: Tensor) -> Tensor:
        """Logits [N, classes] by which attacks go: the label's is that of abstaining where this is higher.

        So whatever raises another class above the label's has to get it above abstaining, too.
        """
        if not self.abstains:
            return outputs
        classes, chosen = outputs[:, :-1], self.labels[:, None]
        return classes.scatter(1, chosen, torch.maximum(classes.gather(1, chosen), outputs[:, -1:]))

    def reached(self, logits: Tensor, confidence: float = 0.0) -> Tensor:
        """Whether `logits` are those of fooled images, by a confidence, bool [N]."""
        seen = logits.argmax(1)
        aimed = self.target_classes
        there = seen != self.labels if aimed is None else seen == aimed
        return there & (self.objective(margin, logits) >= confidence) if confidence else there

    def objective(self, loss: Loss, logits: Tensor) -> Tensor:
        """What an attack raises, [N]: the loss of the labels, or less that of the classes aimed at.

        Less the DLR of a class that is not among the first three has no way up; the targeted DLR has.
        """
        aimed = self.target_classes
        if aimed is None:
            return loss(logits, self.labels)
        return targeted_dlr(logits, self.labels, aimed) if loss is dlr else -loss(logits, aimed)
