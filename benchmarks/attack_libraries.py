"""The same attacks in four libraries: each is a function that makes images and says which ones withstood."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from muquant.attacks import (
    APGDCE,
    APGDT,
    BIM,
    DDN,
    FGSM,
    MIM,
    PGD,
    Attack,
    CarliniWagner,
    Square,
    TorchTarget,
)

BIM_STEPS, PGD_STEPS, APGD_STEPS, APGDT_STEPS, DDN_STEPS, QUERIES = 10, 40, 100, 20, 100, 500
SEARCHES, CW_STEPS, CW_RATE, CW_FIRST = 5, 100, 0.1, 0.1
REACH = 2.5 / PGD_STEPS

Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images [N, ...], labels [N]) -> (adversarial images, bool [N]: classified correctly and not fooled)"""

Library = Callable[[str, nn.Module, float, int], Run | None]
"""(attack, model, Linf epsilon, batch size) -> its run; None where the library does not have it"""


def muquant(name: str, model: nn.Module, epsilon: float, batch: int) -> Run | None:
    """This project."""
    attack: Attack = {
        "fgsm": FGSM(epsilon=epsilon),
        "bim": BIM(epsilon=epsilon, steps=BIM_STEPS),
        "pgd": PGD(epsilon=epsilon, steps=PGD_STEPS, step_size=REACH * epsilon),
        "mim": MIM(epsilon=epsilon, steps=BIM_STEPS),
        "ddn": DDN(steps=DDN_STEPS),
        "cw": CarliniWagner(searches=SEARCHES, steps=CW_STEPS, lr=CW_RATE, c=CW_FIRST),
        "apgd-ce": APGDCE(epsilon=epsilon, steps=APGD_STEPS),
        "apgd-t": APGDT(epsilon=epsilon, steps=APGDT_STEPS),
        "square": Square(epsilon=epsilon, queries=QUERIES),
    }[name]

    def run(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        result = attack.attack(TorchTarget(model), images, labels, batch_size=batch)
        return result.adversarial, result.attacked & ~result.success

    return run


def foolbox(name: str, model: nn.Module, epsilon: float, batch: int) -> Run | None:
    """Foolbox, which returns the flags."""
    library = importlib.import_module("foolbox")
    attacks, target = library.attacks, library.PyTorchModel(model, bounds=(0, 1), device="cpu")
    makers: dict[str, Callable[[], Any]] = {
        "fgsm": lambda: attacks.LinfFastGradientAttack(),
        "bim": lambda: attacks.LinfBasicIterativeAttack(
            abs_stepsize=epsilon / BIM_STEPS, steps=BIM_STEPS, random_start=False
        ),
        "pgd": lambda: attacks.LinfProjectedGradientDescentAttack(
            abs_stepsize=REACH * epsilon, steps=PGD_STEPS, random_start=True
        ),
        "mim": lambda: attacks.LinfMomentumIterativeFastGradientMethod(
            abs_stepsize=epsilon / BIM_STEPS, steps=BIM_STEPS, momentum=1.0
        ),
        "ddn": lambda: attacks.DDNAttack(init_epsilon=1.0, steps=DDN_STEPS, gamma=0.05),
        "cw": lambda: attacks.L2CarliniWagnerAttack(
            binary_search_steps=SEARCHES, steps=CW_STEPS, stepsize=CW_RATE, initial_const=CW_FIRST
        ),
    }
    if name not in makers:
        return None
    attack, radius = makers[name](), None if name in ("ddn", "cw") else epsilon

    def one(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        _, adversarial, success = attack(target, images, labels, epsilons=radius)
        return adversarial, ~success

    return _in_batches(one, batch)


def torchattacks(name: str, model: nn.Module, epsilon: float, batch: int) -> Run | None:
    """Torchattacks, which returns images alone: what withstood is one more pass.

    Its CW has no search for c, so that it is another attack.
    """
    library = importlib.import_module("torchattacks")
    step = epsilon / BIM_STEPS
    makers: dict[str, Callable[[], Any]] = {
        "fgsm": lambda: library.FGSM(model, eps=epsilon),
        "bim": lambda: library.BIM(model, eps=epsilon, alpha=step, steps=BIM_STEPS),
        "pgd": lambda: library.PGD(model, eps=epsilon, alpha=REACH * epsilon, steps=PGD_STEPS),
        "mim": lambda: library.MIFGSM(model, eps=epsilon, alpha=step, steps=BIM_STEPS, decay=1.0),
        "apgd-ce": lambda: library.APGD(model, eps=epsilon, steps=APGD_STEPS),
        "apgd-t": lambda: library.APGDT(model, eps=epsilon, steps=APGDT_STEPS),
        "square": lambda: library.Square(model, eps=epsilon, n_queries=QUERIES - 1),  # besides the start
    }
    if name not in makers:
        return None
    attack = makers[name]()

    def one(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        adversarial = attack(images, labels)
        with torch.no_grad():
            return adversarial, model(adversarial).argmax(1) == labels

    return _in_batches(one, batch)


def art(name: str, model: nn.Module, epsilon: float, batch: int) -> Run | None:
    """The Adversarial Robustness Toolbox, which returns arrays: what withstood is one more pass."""
    attacks = importlib.import_module("art.attacks.evasion")
    estimators = importlib.import_module("art.estimators.classification")
    target = estimators.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu"
    )
    ball = {"eps": epsilon, "batch_size": batch, "verbose": False}
    step = epsilon / BIM_STEPS
    makers: dict[str, Callable[[], Any]] = {
        "fgsm": lambda: attacks.FastGradientMethod(target, eps=epsilon, batch_size=batch),
        "bim": lambda: attacks.BasicIterativeMethod(target, **ball, eps_step=step, max_iter=BIM_STEPS),
        "pgd": lambda: attacks.ProjectedGradientDescentPyTorch(
            target, **ball, eps_step=REACH * epsilon, max_iter=PGD_STEPS, num_random_init=1
        ),
        "mim": lambda: attacks.MomentumIterativeMethod(
            target, **ball, eps_step=step, max_iter=BIM_STEPS, decay=1.0
        ),
        "cw": lambda: attacks.CarliniL2Method(
            target,
            binary_search_steps=SEARCHES,
            max_iter=CW_STEPS,
            learning_rate=CW_RATE,
            initial_const=CW_FIRST,
            batch_size=batch,
            verbose=False,
        ),
        "apgd-ce": lambda: attacks.AutoProjectedGradientDescent(
            target,
            **ball,
            eps_step=2 * epsilon,
            max_iter=APGD_STEPS,
            nb_random_init=1,
            loss_type="cross_entropy",
        ),
        "square": lambda: attacks.SquareAttack(target, **ball, max_iter=QUERIES - 1),
    }
    if name not in makers:
        return None
    attack = makers[name]()

    def run(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        adversarial = attack.generate(images.numpy(), labels.numpy())
        classes = torch.from_numpy(target.predict(adversarial, batch_size=batch)).argmax(1)
        return torch.from_numpy(adversarial), classes == labels

    return run


def _in_batches(one: Run, batch: int) -> Run:
    def run(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        starts = range(0, len(images), batch)
        parts = [one(images[start : start + batch], labels[start : start + batch]) for start in starts]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    return run


LIBRARIES: dict[str, Library] = {
    "muquant": muquant,
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    "art": art,
}
DISTRIBUTIONS = {
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "art": "adversarial-robustness-toolbox",
}
