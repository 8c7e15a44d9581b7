"""Attacks on the mean answer of a network that draws numbers."""

import torch
from torch import Tensor, nn

from muquant.attacks import PGD, Averaged, TorchTarget

Data = tuple[Tensor, Tensor]


class Shaken(nn.Module):
    """The same net with its inputs shaken, so that the gradient of one pass says little."""

    def __init__(self, net: nn.Module, by: float) -> None:
        super().__init__()
        self.net, self.by = net, by

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(inputs + self.by * torch.randn(inputs.shape))}


def test_logits_and_gradient_are_means_over_the_draws(net: nn.Module, data: Data) -> None:
    inputs = data[0][:3].clone().requires_grad_()
    torch.manual_seed(7)
    mean = Averaged(Shaken(net, 0.1), 3)(inputs)
    (gradient,) = torch.autograd.grad(mean[:, 0].sum(), inputs)
    torch.manual_seed(7)
    alone = [net(inputs + 0.1 * torch.randn(inputs.shape)) for _ in range(3)]
    torch.testing.assert_close(mean, sum(alone) / 3)
    gradients = [torch.autograd.grad(each[:, 0].sum(), inputs)[0] for each in alone]
    torch.testing.assert_close(gradient, sum(gradients) / 3)


def test_fewer_examples_owe_it_to_a_lucky_draw(net: nn.Module, data: Data) -> None:
    torch.manual_seed(0)
    module, attack = Shaken(net, 0.2), PGD(epsilon=0.12)
    by_luck = {}
    for name, attacked in {"one pass": module, "mean of 30": Averaged(module, 30)}.items():
        found = attack.attack(TorchTarget(attacked), *data)
        with torch.no_grad():
            stands = Averaged(module, 1000)(found.adversarial).argmax(1) != data[1]
        assert int(found.success.sum()) > 10
        by_luck[name] = float((~stands)[found.success].float().mean())
    assert by_luck["mean of 30"] < 0.7 * by_luck["one pass"]
