"""A kept result is believed where it can be one, and only there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import DDN, FGSM, PGD, Attack, AttackResult, Goal, NormalNoise, Square, TorchTarget
from muquant.base.processes import Processes
from muquant.base.tensor_files import read_tensors
from muquant.data import Dataset
from muquant.robustness.kept import Witness
from muquant.robustness.runner import Runner, Sample
from muquant.robustness.store import SCHEMA, Store

Alter = Callable[[AttackResult, dict[str, int]], AttackResult]
ATTACK = PGD(epsilon=0.1, steps=3)


@pytest.fixture
def witness(net: nn.Module, quarters: Dataset) -> Witness:
    return Witness(TorchTarget(net), quarters.inputs(), Goal(quarters.labels))


@pytest.mark.parametrize(
    "attack",
    [
        ATTACK,
        FGSM(epsilon=0.12, norm="l2"),
        DDN(steps=20),
        Square(epsilon=0.12, queries=20),
        NormalNoise(sigma=0.5),
        FGSM(epsilon=0),
    ],
    ids=lambda attack: type(attack).__name__,
)
@pytest.mark.parametrize("count", [230, 101])
def test_what_an_attack_found_is_believed(witness: Witness, attack: Attack, count: int) -> None:
    found = attack.attack(witness.target, witness.images[:count], witness.goal.labels[:count])
    assert witness.why_not(found, attack, torch.arange(count)) == ""


def test_within_other_bounds_too(net: nn.Module, quarters: Dataset) -> None:
    target = TorchTarget(net, bounds=(0, 255), preprocessing=(0, 255))
    witness = Witness(target, quarters.inputs() * 255, Goal(quarters.labels))
    found = ATTACK.attack(target, witness.images, witness.goal.labels)
    assert 0 < int(found.success.sum()) < 230
    assert witness.why_not(found, ATTACK, torch.arange(230)) == ""
    assert "threat" in witness.why_not(found, PGD(epsilon=0.09, steps=3), torch.arange(230))


def with_value(tensor: Tensor, row: int, value: float) -> Tensor:
    changed = tensor.clone()
    changed[row] = value
    return changed


def pushed(result: AttackResult, row: int, by: float) -> AttackResult:
    """One example further away than is said."""
    adversarial = result.adversarial.clone()
    adversarial[row] = (result.adversarial[row] + by).clamp(0, 1)
    return replace(result, adversarial=adversarial)


def at(name: str, row: Literal["hit", "miss"], value: float) -> Alter:
    """Another value in one row, of an image that was fooled or of one that was not."""

    def alter(result: AttackResult, rows: dict[str, int]) -> AttackResult:
        changed: dict[str, Any] = {name: with_value(getattr(result, name), rows[row], value)}
        return replace(result, **changed)

    return alter


ALTERED: dict[str, tuple[Alter, str]] = {
    "l2 is NaN": (at("l2", "hit", torch.nan), "l2"),
    "linf is 0": (at("linf", "hit", 0), "linf"),
    "l2 of float64": (lambda result, _: replace(result, l2=result.l2.double()), "l2 is torch.float64"),
    "fewer": (lambda result, _: replace(result, success=result.success[:-1]), "success"),
    "another shape": (
        lambda result, _: replace(result, adversarial=result.adversarial.flatten(1)),
        "adversarial",
    ),
    "no success": (at("success", "hit", False), "did not succeed"),
    "no example": (at("success", "miss", True), "fool"),
    "not attacked": (at("attacked", "hit", False), "not attacked"),
    "not right": (at("attacked", "miss", False), "rightly"),
    "a pixel is NaN": (at("adversarial", "hit", torch.nan), "bounds"),
    "a pixel is 2": (at("adversarial", "hit", 2), "bounds"),
    "moved": (lambda result, rows: pushed(result, rows["hit"], 0.05), "distance"),
    "queries": (at("queries", "hit", -1), "queries"),
    "seconds": (lambda result, _: replace(result, seconds=-1.0), "seconds"),
}


@pytest.mark.parametrize(("alter", "reason"), ALTERED.values(), ids=list(ALTERED))
def test_what_no_attack_can_have_found_is_not_believed(
    net: nn.Module,
    quarters: Dataset,
    witness: Witness,
    tmp_path: Path,
    alter: Alter,
    reason: str,
) -> None:
    sample = Sample(quarters.inputs(), quarters.labels, 4)

    def runner() -> Runner:
        store, target = Store(tmp_path), TorchTarget(net)
        return Runner("net", target, "", sample, 0, store, Processes(), lambda *event: heard.append(event))

    heard: list[tuple[str, int, int]] = []
    found = runner().run("pgd", ATTACK)
    rows = {"hit": int(found.success.nonzero()[0]), "miss": int((~found.success).nonzero()[0])}
    altered = alter(found, rows)
    assert reason in witness.why_not(altered, ATTACK, torch.arange(230))

    (path,) = tmp_path.iterdir()
    key = read_tensors(path, SCHEMA).manifest["key"]
    Store(tmp_path).put("net pgd", key, altered)
    heard.clear()
    with pytest.warns(UserWarning, match="net pgd: the kept result"):
        again = runner().run("pgd", ATTACK)
    assert len(heard) == 3
    assert torch.equal(again.l2, found.l2)
    assert again.accuracy == found.accuracy
