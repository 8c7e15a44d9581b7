"""What an attack spends its time on: no pass of the model is made twice, and convolutions lie well."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.attacks import (
    APGDCE,
    APGDT,
    BIM,
    DDN,
    FABT,
    FGSM,
    MIM,
    PGD,
    Attack,
    Square,
    TorchTarget,
    UniformNoise,
)
from muquant.attacks.problem import AttackProblem
from muquant.base.errors import InputError

Data = tuple[Tensor, Tensor]

TINY = 1e-6


@pytest.mark.parametrize(
    ("attack", "passes"),
    [
        (FGSM(epsilon=TINY), 2),  # the gradient at the clean image, and the verification
        (BIM(epsilon=TINY, steps=7), 8),
        (BIM(epsilon=TINY, steps=7, restarts=2), 16),  # the second one begins at the clean image again
        (MIM(epsilon=TINY, steps=7), 8),
        (PGD(epsilon=TINY, steps=7), 9),  # it begins elsewhere
        (APGDCE(epsilon=TINY, steps=7), 9),
        (APGDT(epsilon=TINY, steps=7, targets=2), 17),
        (FABT(epsilon=TINY, steps=7, targets=2), 28),  # a gradient and a look at each step, the first shared
        (DDN(epsilon=TINY, steps=7), 8),
        (Square(epsilon=TINY, queries=7), 8),
        (UniformNoise(epsilon=TINY), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Attack) else str(value),
)
def test_passes_of_an_image_that_withstands(
    attack: Attack, passes: int, net: nn.Module, data: Data, counting: Callable[[nn.Module], TorchTarget]
) -> None:
    target = counting(net)
    result = attack.attack(target, *data)
    assert not result.success.any()
    assert result.queries.tolist() == [passes] * 60
    assert target.count == 60 * passes  # type: ignore[attr-defined]


def test_gradient_at_the_clean_images_is_theirs(net: nn.Module, data: Data) -> None:
    """Some are misclassified, so that those attacked are not all that the first pass has seen."""
    images, labels = data[0], torch.where(torch.arange(60) % 3 == 0, (data[1] + 1) % 4, data[1])
    leaf = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(net(leaf), labels, reduction="sum")
    stepped = (images + 0.12 * torch.autograd.grad(loss, leaf)[0].sign()).clamp(0, 1)
    result = FGSM(epsilon=0.12).attack(TorchTarget(net), images, labels)
    assert 10 < int(result.success.sum()) < int(result.attacked.sum()) == 40
    torch.testing.assert_close(result.adversarial[result.success], stepped[result.success])


@dataclass(frozen=True, kw_only=True)
class Redirected(BIM):
    """Attacks another model than the one it is given."""

    other: TorchTarget

    def run(self, problem: AttackProblem) -> None:
        problem.target = self.other
        super().run(problem)


def test_first_pass_of_another_model_does_not_serve(
    net: nn.Module, data: Data, counting: Callable[[nn.Module], TorchTarget]
) -> None:
    one, other = counting(net), counting(net)
    Redirected(epsilon=TINY, steps=3, other=other).attack(one, *data)
    assert one.count == 60  # type: ignore[attr-defined]
    assert other.count == 4 * 60  # type: ignore[attr-defined]


def layout(module: nn.Module) -> list[tuple[int, tuple[int, ...]]]:
    return [(tensor.data_ptr(), tensor.stride()) for tensor in module.state_dict().values()]


class Watched(nn.Module):
    """Two convolutions; notes how its second kernel lies whenever it is asked, and then may fail."""

    def __init__(self) -> None:
        super().__init__()
        second = nn.Conv2d(4, 4, 3)
        self.kernel = second.weight
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), second, nn.Flatten(), nn.Linear(64, 4))
        self.register_buffer("levels", torch.rand(1, 3, 2, 2))
        self.seen: list[bool] = []
        self.fails = False

    def forward(self, inputs: Tensor) -> Tensor:
        if self.fails:
            raise RuntimeError
        self.seen.append(self.kernel.is_contiguous(memory_format=torch.channels_last))
        output: Tensor = self.layers(inputs)
        return output


@pytest.mark.parametrize("fails", [False, True])
def test_module_gets_the_tensors_back_that_it_had(fails: bool) -> None:
    module = Watched()
    before, values = layout(module), [tensor.clone() for tensor in module.state_dict().values()]
    images, labels = torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)
    module.fails = fails
    if fails:
        with pytest.raises(InputError, match=r"does not take images of shape \[1, 8, 8\]: RuntimeError"):
            PGD(epsilon=0.1).attack(TorchTarget(module), images, labels)
    else:
        PGD(epsilon=0.1).attack(TorchTarget(module), images, labels)
        assert module.seen
        assert all(module.seen)
    assert layout(module) == before
    assert all(map(torch.equal, module.state_dict().values(), values))


class Doubled(nn.Module):
    count = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.count += 1
        return 2 * weight


def test_parametrized_weight_is_computed_once_a_batch_and_never_stale() -> None:
    layer, doubled, inputs = nn.Linear(4, 3), Doubled(), torch.rand(20, 4)
    weight = layer.weight
    parametrize.register_parametrization(layer, "weight", doubled)
    labels = layer(inputs).argmax(1)
    before = doubled.count
    DDN(steps=5).attack(TorchTarget(layer), inputs, labels, batch_size=10)
    assert doubled.count == before + 2
    with torch.no_grad():
        weight.zero_()
    assert not layer.weight.any()
