"""Every attack on every kind of classifier: what it finds fools that, called as its users do."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from muquant.attacks import ATTACKS, PGD, AttackResult, CallableTarget, Target, TorchTarget
from muquant.base.errors import InputError

MEAN, STD = (0.4, 0.6), (0.2, 0.3)


def net() -> nn.Module:
    """A classifier of images [2, 4, 4] in [0, 1], of three classes."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    with torch.no_grad():
        module[1].weight.copy_(torch.randn(3, 32, generator=generator))  # type: ignore[operator]
        module[1].bias.copy_(-0.5 * module[1].weight.sum(1))  # type: ignore[operator]
    return module


IMAGES = torch.rand(8, 2, 4, 4, generator=torch.Generator().manual_seed(1))
LABELS = net()(IMAGES).argmax(1)
BINARY = (LABELS == 0).long()

OPTIONS: dict[str, dict[str, Any]] = {
    "fgsm": {"epsilon": 0.2},
    "uniform-noise": {"epsilon": 0.2},
    **{name: {"epsilon": 0.2, "steps": 4} for name in ("bim", "pgd", "mim", "apgd-ce", "apgd-t")},
    "fab-t": {"epsilon": 0.2, "steps": 8},
    "ddn": {"steps": 10},
    "cw": {"steps": 10, "searches": 2, "lr": 0.1, "c": 1.0},
    "square": {"epsilon": 0.2, "queries": 15},
    "hop-skip-jump": {"iterations": 1, "first_queries": 10},
    "random-search": {"epsilon": 0.2, "samples": 10},
    "transfer": {"surrogate": TorchTarget(net()), "method": PGD(epsilon=0.2, steps=4)},
    "normal-noise": {"sigma": 0.3},
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


class Output(nn.Module):
    """What `net` answers, in another form."""

    def __init__(
        self, form: Callable[[Tensor], Any], takes: Callable[[Tensor], Tensor] = lambda x: x
    ) -> None:
        super().__init__()
        self.net, self.form, self.takes = net(), form, takes

    def forward(self, inputs: Tensor) -> Any:
        return self.form(self.net(self.takes(inputs)))


@dataclass
class Answer:
    loss: Tensor | None
    aux: Tensor
    logits: Tensor


Named = namedtuple("Named", "aux logits")


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).reshape(1, 2, 1, 1) for values in (MEAN, STD))
    return images * std + mean


def single(logits: Tensor) -> Tensor:
    """A logit for class 0 of three, as a classifier of two has it."""
    return logits[:, 0] - logits[:, 1:].logsumexp(1)


@dataclass
class Kind:
    """A target, what it is given, and the classes that it itself says inputs [N, ...] have.

    Attributes:
        unit: the range of the inputs.
        same: whether it is `net` bit for bit.
    """

    target: Target
    says: Callable[[Tensor], Tensor]
    inputs: Any = IMAGES
    labels: Any = LABELS
    unit: float = 1.0
    same: bool = True


def of_logits(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda inputs: function(inputs).argmax(1)


def array(function: Callable[[Tensor], Any]) -> Callable[[Any], Any]:
    return lambda x: function(torch.from_numpy(x)).detach().numpy()


PLAIN = of_logits(net())
half, double = net().bfloat16(), net().double()
KINDS: dict[str, Kind] = {
    "tensor": Kind(TorchTarget(net()), PLAIN),
    "tuple": Kind(TorchTarget(Output(lambda z: (z, -z))), PLAIN),
    "dict": Kind(TorchTarget(Output(lambda z: {"loss": -z.sum(), "logits": z})), PLAIN),
    "dict of others": Kind(TorchTarget(Output(lambda z: {"classes": -z.argmax(1), "scores": z})), PLAIN),
    "dataclass": Kind(TorchTarget(Output(lambda z: Answer(None, -z, z))), PLAIN),
    "named tuple": Kind(TorchTarget(Output(lambda z: Named(-z, z))), PLAIN),
    "arrays": Kind(TorchTarget(net()), PLAIN, IMAGES.numpy(), LABELS.numpy().astype(np.int32)),
    "lists": Kind(TorchTarget(net()), PLAIN, IMAGES.tolist(), LABELS.tolist()),
    "DataParallel": Kind(TorchTarget(nn.DataParallel(net())), PLAIN),
    "double": Kind(TorchTarget(double), lambda x: double(x.double()).argmax(1), same=False),
    "bfloat16": Kind(TorchTarget(half), lambda x: half(x.bfloat16()).argmax(1), same=False),
    "0 to 255": Kind(
        TorchTarget(Output(lambda z: z, lambda x: x / 255), bounds=(0, 255)),
        of_logits(lambda x: net()(x / 255)),
        255 * IMAGES,
        unit=255,
        same=False,
    ),
    "bytes": Kind(
        TorchTarget(Output(lambda z: z, lambda x: x / 255), bounds=(0, 255)),
        of_logits(lambda x: net()(x / 255)),
        (255 * IMAGES).byte(),
        net()((255 * IMAGES).byte() / 255).argmax(1),
        unit=255,
        same=False,
    ),
    "normalised inside": Kind(
        TorchTarget(Output(lambda z: z, normalised), preprocessing=(MEAN, STD)),
        of_logits(net()),
        same=False,
    ),
    "one logit": Kind(
        TorchTarget(Output(single)), lambda x: (single(net()(x)) > 0).long(), labels=BINARY, same=False
    ),
    "one column": Kind(
        TorchTarget(Output(lambda z: single(z)[:, None])),
        lambda x: (single(net()(x)) > 0).long(),
        labels=BINARY.bool(),
        same=False,
    ),
}
FUNCTIONS: dict[str, Kind] = {
    "array": Kind(CallableTarget(array(net())), PLAIN),
    "list of arrays": Kind(CallableTarget(lambda x: [array(net())(x), x]), PLAIN),
    "dict of arrays": Kind(CallableTarget(lambda x: {"aux": x, "logits": array(net())(x)}), PLAIN),
    "rows": Kind(CallableTarget(lambda x: list(array(net())(x))), PLAIN),
    "numbers": Kind(CallableTarget(lambda x: array(net())(x).tolist()), PLAIN),
    "tensor": Kind(CallableTarget(lambda x: net()(torch.from_numpy(x))), PLAIN),
    "float16": Kind(
        CallableTarget(lambda x: array(net())(x).astype(np.float16)),
        lambda x: net()(x).half().argmax(1),
        same=False,
    ),
    "one logit": Kind(
        CallableTarget(array(Output(single))),
        lambda x: (single(net()(x)) > 0).long(),
        labels=BINARY,
        same=False,
    ),
    "-1 to 1": Kind(
        CallableTarget(array(lambda x: net()((x + 1) / 2)), bounds=(-1, 1)),
        of_logits(lambda x: net()((x + 1) / 2)),
        2 * IMAGES - 1,
        unit=2,
        same=False,
    ),
}


def run(name: str, kind: Kind) -> AttackResult:
    return ATTACKS[name](**OPTIONS[name]).attack(kind.target, kind.inputs, kind.labels, seed=3)


@cache
def plain(name: str) -> AttackResult:
    return run(name, KINDS["tensor"])


def check(name: str, kind: Kind) -> None:
    found = run(name, kind)
    inputs, labels = torch.as_tensor(kind.inputs).float(), torch.as_tensor(kind.labels).long()
    with torch.no_grad():
        clean, after = kind.says(inputs), kind.says(found.adversarial)
    assert torch.equal(found.attacked, clean == labels)
    assert found.adversarial.dtype == torch.float32
    assert bool((after != labels)[found.success].all())
    assert torch.equal(found.adversarial[~found.success], inputs[~found.success])
    moved = (found.adversarial - inputs).abs().flatten(1) / kind.unit
    torch.testing.assert_close(found.linf, moved.amax(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.l2, moved.norm(dim=1), atol=1e-5, rtol=0)
    if "epsilon" in OPTIONS[name]:
        assert float(found.linf.max()) <= 0.2 + 1e-6
    low, high = kind.target.space.low, kind.target.space.low + kind.target.space.width  # type: ignore[attr-defined]
    assert bool(((found.adversarial >= low) & (found.adversarial <= high)).all())
    if kind.same:
        reference = plain(name)
        assert torch.equal(found.adversarial, reference.adversarial)
        assert torch.equal(found.queries, reference.queries)
    elif name not in ("normal-noise", "uniform-noise", "random-search", "transfer"):  # which may find nothing
        assert bool(found.success.any())


@pytest.mark.parametrize("kind", KINDS)
@every_attack
def test_module(name: str, kind: str) -> None:
    check(name, KINDS[kind])


@pytest.mark.parametrize("kind", FUNCTIONS)
@every_attack
def test_function(name: str, kind: str) -> None:
    if ATTACKS[name].needs_gradients:
        with pytest.raises(InputError, match="needs gradients, which the target does not have"):
            run(name, FUNCTIONS[kind])
    else:
        check(name, FUNCTIONS[kind])


@every_attack
def test_nan_is_said_and_is_no_robustness(name: str) -> None:
    """A model that breaks down off the clean images."""

    def broken(logits: Tensor) -> Tensor:
        clean = net()(IMAGES)
        near = torch.stack([(clean - row).abs().amax(1).amin() < 1e-6 for row in logits])
        return torch.where(near[:, None], logits, torch.nan)

    with pytest.raises(InputError, match=r"expected finite logits, found NaN or infinity for [1-8] of"):
        run(name, Kind(TorchTarget(Output(broken)), PLAIN))


def test_epsilon_is_a_share_of_the_range_whatever_the_bounds_are() -> None:
    expected = plain("pgd")
    found = run("pgd", KINDS["0 to 255"])
    assert torch.equal(found.success, expected.success)
    torch.testing.assert_close(found.adversarial / 255, expected.adversarial, atol=1e-5, rtol=0)
    inside = run("pgd", KINDS["normalised inside"])
    torch.testing.assert_close(inside.adversarial, expected.adversarial, atol=1e-5, rtol=0)


def test_a_distributed_model_is_attacked_again_and_again(tmp_path: Any) -> None:
    init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        check("pgd", Kind(TorchTarget(DistributedDataParallel(net())), PLAIN))
    finally:
        destroy_process_group()
