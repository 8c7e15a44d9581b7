"""What a method carries of each training image from one epoch to the next."""

import torch
from torch import Tensor

from muquant.base.processes import Processes
from muquant.base.seeds import generator_for
from muquant.data import Dataset

_STEPS = 127
"""Of int8, from 0 to 1: a quarter of the memory of float32, and finer than any step of an attack."""


class Carried:
    """A value from -1 to 1 for every value of every image, drawn uniformly at first.

    Every process has all of them, and the same ones.

    Args:
        images: that are trained on.
        seed: of the first values.
        processes: that share the run.

    Attributes:
        values: int8 like the images, in steps of 1/127.
    """

    def __init__(self, images: Dataset, seed: int, processes: Processes) -> None:
        shape, generator = (len(images), *images.input_shape), generator_for(seed, "carried")
        self.values = torch.randint(-_STEPS, _STEPS + 1, shape, dtype=torch.int8, generator=generator)
        self._processes = processes

    def of(self, indices: Tensor) -> Tensor:
        """Those of some images, float32 [N, C, H, W]."""
        return self.values[indices].float() / _STEPS

    def keep(self, indices: Tensor, own: Tensor) -> None:
        """Put others in place of those of a batch, of which every process gives its own part."""
        processes = self._processes
        parts = processes.gather({processes.rank: own.detach().cpu()}, processes.count)
        codes = (torch.cat(parts).float() * _STEPS).round().clamp(-_STEPS, _STEPS)
        self.values[indices] = codes.to(torch.int8)
