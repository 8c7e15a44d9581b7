"""What is carried of each image: where it is kept, and by how much it is rounded."""

import torch

from muquant.base.processes import Processes
from muquant.data import load_dataset
from muquant.training.run.carried import Carried


def test_what_is_kept_is_had_again_for_the_same_images_alone() -> None:
    images = load_dataset("tiny", "train")
    carried, twin = (Carried(images, 3, Processes()) for _ in range(2))
    assert torch.equal(carried.values, twin.values)
    assert not torch.equal(carried.values, Carried(images, 4, Processes()).values)
    first = carried.of(torch.arange(len(images)))
    assert first.shape == images.inputs().shape
    assert -1 <= float(first.min()) < -0.98
    assert 0.98 < float(first.max()) <= 1
    assert abs(float(first.mean())) < 0.02
    indices = torch.tensor([7, 2, 41])
    new = 2 * torch.rand(3, *images.input_shape) - 1
    new[0, 0, 0] = 1 + 1e-6  # attacks round
    carried.keep(indices, new)
    assert float((carried.of(indices) - new).abs().max()) <= 0.5 / 127 + 2e-6
    others = torch.ones(len(images), dtype=torch.bool)
    others[indices] = False
    assert torch.equal(carried.values[others], twin.values[others])
