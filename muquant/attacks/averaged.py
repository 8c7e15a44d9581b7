"""A network that draws numbers, as what it answers on average: expectation over transformation (EOT)."""

import torch
from torch import Tensor, nn

from muquant.models.logits import classifier_logits


class Averaged(nn.Module):
    """The mean logits of several passes of a network.

    Whatever attacks or judges it follows and judges the mean, so that a gradient is that of the expectation
    (Athalye et al. 2018) and an example counts where it fools the network on average, not by a lucky draw.
    An attack tries many, and some means of few passes are lucky, too: accuracies are rather too low than too
    high.

    Args:
        module: a classifier that draws numbers, also in evaluation mode.
        passes: at least 1; 20 is AutoAttack's number.
    """

    def __init__(self, module: nn.Module, passes: int) -> None:
        super().__init__()
        self.module, self.passes = module, passes

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [N, classes] of inputs [N, ...]; each pass draws its own numbers."""
        answers = [classifier_logits(self.module(inputs), len(inputs)) for _ in range(self.passes)]
        return torch.stack(answers).mean(0)

    def extra_repr(self) -> str:
        """The number of passes, which tells attacks on another number apart."""
        return f"passes={self.passes}"
