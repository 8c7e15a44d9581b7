"""One table of all attacks, and the rules that the base keeps for each of them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from muquant.attacks import (
    APGDCE,
    APGDT,
    ATTACKS,
    BIM,
    DDN,
    FABT,
    FGSM,
    MIM,
    PGD,
    Attack,
    CallableTarget,
    CarliniWagner,
    HopSkipJump,
    Norm,
    NormalNoise,
    RandomSearch,
    Square,
    TorchTarget,
    Transfer,
    UniformNoise,
)

Data = tuple[Tensor, Tensor]
Table = dict[str, Attack]


def surrogate() -> TorchTarget:
    """Compares the brightness of the quarters."""
    linear = nn.Linear(64, 4)
    pixel = torch.arange(64)
    quarter = 2 * (pixel // 32) + pixel % 8 // 4
    with torch.no_grad():
        linear.weight.copy_((quarter == torch.arange(4)[:, None]).float())
        linear.bias.zero_()
    return TorchTarget(nn.Sequential(nn.Flatten(), linear))


TABLE: Table = {
    "fgsm-linf": FGSM(epsilon="32/255"),
    "fgsm-l2": FGSM(epsilon=1.0, norm="l2"),
    "bim-linf": BIM(epsilon=0.15),
    "bim-l2": BIM(epsilon=1.0, norm="l2", loss="margin"),
    "bim-linf-whole": BIM(epsilon=0.15, stop_early=False),
    "pgd-linf": PGD(epsilon=0.1, steps=10, restarts=2, loss="dlr"),
    "pgd-l2": PGD(epsilon=1.0, norm="l2", steps=10),
    "mim-linf": MIM(epsilon=0.15),
    "mim-l2": MIM(epsilon=1.0, norm="l2"),
    "apgd-ce-linf": APGDCE(epsilon=0.1, steps=20, restarts=2),
    "apgd-ce-linf-odi": APGDCE(epsilon=0.1, steps=20, diversified=2),
    "apgd-ce-l2": APGDCE(epsilon=1.0, norm="l2", steps=20),
    "apgd-t-linf": APGDT(epsilon=0.1, steps=10),
    "apgd-t-l2": APGDT(epsilon=1.0, norm="l2", steps=10),
    "pgd-l1": PGD(epsilon=5.0, norm="l1", steps=20),
    "apgd-ce-l1": APGDCE(epsilon=3.0, norm="l1", steps=20),
    "apgd-t-l1": APGDT(epsilon=3.0, norm="l1", steps=10),
    "fab-t-l1": FABT(epsilon=3.0, norm="l1", steps=20),
    "square-l1": Square(epsilon=6.0, norm="l1", queries=60),
    "random-search-l1": RandomSearch(epsilon=30.0, norm="l1", samples=20),
    "fab-t-linf": FABT(epsilon=0.1, steps=10),
    "fab-t-l2": FABT(epsilon=1.0, norm="l2", steps=10, restarts=2),
    "ddn-any": DDN(),
    "ddn-l2": DDN(epsilon=1.0, steps=40),
    "cw-any": CarliniWagner(searches=4, steps=40, lr=0.05, c=1.0),
    "cw-l2": CarliniWagner(searches=4, steps=40, lr=0.05, c=1.0, epsilon=1.0, kappa=0.1),
    "square-linf": Square(epsilon=0.15, queries=60),
    "square-l2": Square(epsilon=1.5, norm="l2", queries=60),
    "hop-skip-jump-linf": HopSkipJump(epsilon=0.3, norm="linf", iterations=3, first_queries=20),
    "hop-skip-jump-l2": HopSkipJump(epsilon=2.0, iterations=3, first_queries=20),
    "hop-skip-jump-any": HopSkipJump(iterations=3, first_queries=20),
    "random-search-linf": RandomSearch(epsilon=0.4, samples=20),
    "random-search-l2": RandomSearch(epsilon=3.0, norm="l2", samples=20),
    "transfer-linf": Transfer(surrogate=surrogate(), method=BIM(epsilon=0.15)),
    "transfer-l2": Transfer(surrogate=surrogate(), method=PGD(epsilon=1.0, norm="l2", steps=5)),
    "normal-noise": NormalNoise(sigma=0.5),
    "uniform-noise-linf": UniformNoise(epsilon=0.6),
    "uniform-noise-l2": UniformNoise(epsilon=6.0, norm="l2"),
}

all_attacks = pytest.mark.parametrize("attack", TABLE.values(), ids=TABLE)


def test_every_registered_attack_is_in_the_table() -> None:
    assert {type(attack) for attack in TABLE.values()} == set(ATTACKS.values())


@pytest.fixture
def flawed(data: Data) -> Data:
    """The data with every fifth label wrong: these images are misclassified from the start."""
    labels = data[1].clone()
    labels[::5] = (labels[::5] + 1) % 4
    return data[0], labels


@all_attacks
def test_result_keeps_the_rules(
    attack: Attack, net: nn.Module, flawed: Data, counting: Callable[[nn.Module], TorchTarget]
) -> None:
    images, labels = flawed
    before = images.clone(), labels.clone()
    target = counting(net)
    result = attack.attack(target, images, labels, batch_size=25)

    assert int(result.queries.sum()) == target.count  # type: ignore[attr-defined]
    assert result.queries[~result.attacked].tolist() == [1] * 12
    assert result.attacked.tolist() == [number % 5 != 0 for number in range(60)]
    assert int(result.success.sum()) > 0, "the setting tests nothing"
    assert not (result.success & ~result.attacked).any()

    adversarial = result.adversarial
    assert adversarial.dtype == torch.float32
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert torch.equal(adversarial[~result.success], images[~result.success])
    with torch.no_grad():
        logits = torch.cat([net(adversarial[rows : rows + 25]) for rows in (0, 25, 50)])
    fooled = logits.argmax(1) != labels
    assert torch.equal(fooled & result.attacked, result.success)
    assert result.accuracy == int((~fooled).sum()) / 60

    difference = (adversarial - images).double().flatten(1).numpy()
    orders: dict[Norm, float] = {"linf": np.inf, "l2": 2, "l1": 1}
    distance = {norm: np.linalg.norm(difference, ord=order, axis=1) for norm, order in orders.items()}
    for norm, expected in distance.items():
        np.testing.assert_allclose(result.distance(norm).numpy(), expected, rtol=2e-6, atol=1e-5)
    if attack.threat.radius is not None:
        assert distance[attack.threat.norm].max() <= attack.threat.radius + 1e-6

    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


@all_attacks
def test_batch_depends_on_seed_and_number_alone(attack: Attack, net: nn.Module, data: Data) -> None:
    images, labels = data[0][:30], data[1][:30]
    target, seen = TorchTarget(net), []
    torch.manual_seed(1)
    whole = attack.attack(
        target,
        images,
        labels,
        seed=3,
        batch_size=10,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    torch.manual_seed(2)
    alone = attack.attack_batch(target, images[20:], labels[20:], seed=3, number=2)
    assert torch.equal(whole.adversarial[20:], alone.adversarial)
    assert torch.equal(whole.queries[20:], alone.queries)
    assert torch.equal(whole.success[20:], alone.success)
    assert seen == [(10, 30), (20, 30), (30, 30)]


@pytest.mark.parametrize("name", ["pgd-linf", "square-linf", "square-l2", "apgd-ce-l2", "normal-noise"])
def test_seed_changes_what_is_drawn(name: str, net: nn.Module, data: Data) -> None:
    results = [TABLE[name].attack(TorchTarget(net), *data, seed=seed).adversarial for seed in (0, 1)]
    assert not torch.equal(*results)


@all_attacks
def test_target_without_gradients(attack: Attack, net: nn.Module, data: Data) -> None:
    def function(array: NDArray[np.float32]) -> NDArray[np.float32]:
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        with torch.no_grad():
            return np.asarray(module.logits(torch.from_numpy(array)).numpy())

    images, labels = data[0][:10], data[1][:10]
    target, module = CallableTarget(function), TorchTarget(net)
    if attack.needs_gradients:
        with pytest.raises(
            ValueError, match="needs gradients, which the target does not have; attack the Py"
        ):
            attack.attack(target, images, labels)
    else:
        with module.ready():  # for both, because rounding depends on the layout of kernels
            result = attack.attack(target, images, labels, seed=1)
        expected = attack.attack(module, images, labels, seed=1)
        assert torch.equal(result.adversarial, expected.adversarial)


@pytest.mark.parametrize("name", [name for name in TABLE if "transfer" not in name])  # its net has 4 classes
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_and_plain_vectors(name: str, classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(64, classes)
    with torch.no_grad():
        module.weight.copy_(torch.randn(classes, 64, generator=generator))
        module.bias.copy_(-module.weight.sum(1) / 2)
    inputs = 0.4 + 0.2 * torch.rand(20, 64, generator=generator)
    labels = module(inputs).argmax(1)
    result = TABLE[name].attack(TorchTarget(module), inputs, labels)
    assert result.adversarial.shape == inputs.shape
    assert result.success.any()


@all_attacks
def test_module_is_left_as_it_was(attack: Attack, net: nn.Module, data: Data) -> None:
    module = nn.Sequential(nn.Dropout(0.5), net).train()
    net.eval()
    attack.attack(TorchTarget(module), data[0][:5], data[1][:5])
    assert module.training
    assert module[0].training
    assert not net.training
    assert all(parameter.grad is None or not parameter.grad.isnan().any() for parameter in net.parameters())


def test_corruptions_are_marked() -> None:
    assert {name for name, kind in ATTACKS.items() if kind.corruption} == {"normal-noise", "uniform-noise"}


def test_batches_draw_different_numbers(net: nn.Module, data: Data) -> None:
    target, attack = TorchTarget(net), TABLE["uniform-noise-linf"]
    results = [attack.attack_batch(target, *data, number=number).adversarial for number in (0, 1)]
    assert not torch.equal(*results)
