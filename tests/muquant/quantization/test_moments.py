"""Moments of inputs, beside those of the inputs themselves."""

import torch

from muquant.quantization.sums import MomentSums, VectorSums


def test_noise_is_as_if_it_had_been_added() -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 400, 5) @ torch.randn(2, 5, 5) + torch.tensor([1.0, 0, 0, 2, 0])).repeat(1, 500, 1)
    found = []
    for vectors in (x, x + (0.3 * x.square().mean((1, 2))).sqrt()[:, None, None] * torch.randn(x.shape)):
        sums = MomentSums("w", (6, 10))
        sums.add(VectorSums.of(vectors))
        found.append(sums.moments())
    expected, moments = found[1], found[0].with_noise(0.3)
    for name in ("mean", "second", "third", "fourth"):
        one, other = getattr(moments, name), getattr(expected, name)
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * float(other.abs().max()))
    assert torch.equal(found[0].with_noise(0.0).second, found[0].second)
