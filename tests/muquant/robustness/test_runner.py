"""Running, keeping, replaying attacks."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import FGSM, PGD, AttackResult, NormalNoise, Square, Threat, TorchTarget
from muquant.base.processes import Processes
from muquant.data import Dataset
from muquant.models.fingerprint import fingerprint
from muquant.robustness.assessment import agreement, worst_case
from muquant.robustness.runner import Runner, Sample, replay
from muquant.robustness.store import Store

FIELDS = ("adversarial", "attacked", "success", "queries", "l2", "linf", "l1")


class Counting(TorchTarget):
    calls = 0

    def logits(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return super().logits(inputs)


@pytest.fixture
def sample(quarters: Dataset) -> Sample:
    return Sample(quarters.inputs(), quarters.labels, 4)


def make_runner(
    net: nn.Module, sample: Sample, folder: Path | None, seed: int = 0
) -> tuple[Runner, Counting]:
    target = Counting(net)
    heard: list[tuple[str, int, int]] = []
    runner = Runner(
        "net",
        target,
        fingerprint(net),
        sample,
        seed,
        Store(folder),
        Processes(),
        lambda *event: heard.append(event),
    )
    return runner, target


def assert_equal(one: AttackResult, other: AttackResult) -> None:
    for name in FIELDS:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)


def test_a_run_is_the_attack_itself(net: nn.Module, sample: Sample) -> None:
    attack = Square(epsilon=0.12, queries=20)
    runner, target = make_runner(net, sample, None, seed=3)
    result = runner.run("square", attack)
    assert_equal(result, attack.attack(target, sample.images, sample.labels, seed=3))
    calls = target.calls
    assert runner.run("again", attack) is result
    assert target.calls == calls


def test_a_finished_attack_is_not_run_again(net: nn.Module, sample: Sample, tmp_path: Path) -> None:
    attack = PGD(epsilon=0.1, steps=3)
    first, _ = make_runner(net, sample, tmp_path)
    result = first.run("pgd", attack)
    second, target = make_runner(net, sample, tmp_path)
    assert_equal(second.run("pgd", attack), result)
    assert second.run("pgd", attack).seconds == result.seconds
    assert target.calls <= 3 + 3  # of clean images, and of the examples: both are shown to the model once


@pytest.mark.parametrize("change", ["attack", "seed", "sample", "limit", "weights", "damage"])
def test_anything_else_is_run_anew(net: nn.Module, sample: Sample, tmp_path: Path, change: str) -> None:
    attack = PGD(epsilon=0.1, steps=3)
    make_runner(net, sample, tmp_path)[0].run("pgd", attack)
    seed, limit, module = 0, None, net
    if change == "attack":
        attack = PGD(epsilon=0.1, steps=4)
    elif change == "seed":
        seed = 1
    elif change == "sample":
        sample = Sample(sample.images.flip(0), sample.labels.flip(0), 4)
    elif change == "limit":
        limit = 100
    elif change == "weights":
        module = nn.Sequential(net, nn.Identity())
    else:
        (file,) = tmp_path.iterdir()
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(bytes(data))
    runner, target = make_runner(module, sample, tmp_path, seed)
    result = runner.run("pgd", attack, limit)
    assert target.calls > 0
    assert len(result.success) == (limit or 230)


def test_some_images_are_attacked_as_if_they_were_all(net: nn.Module, sample: Sample, tmp_path: Path) -> None:
    attack, among = Square(epsilon=0.2, queries=20), torch.arange(230) % 2 == 0
    runner, target = make_runner(net, sample, tmp_path)
    found = runner.run("square", attack, among=among, seed=5)
    alone = attack.attack(target, sample.images[among], sample.labels[among], seed=5)
    assert_equal(found.at(among.nonzero()[:, 0]), alone)
    assert 0 < int(found.success.sum()) < 115
    others = found.at((~among).nonzero()[:, 0])
    assert_equal(others, AttackResult.of_none(sample.images[~among]))
    assert runner.found() == [found]

    again, target = make_runner(net, sample, tmp_path)
    assert_equal(again.run("square", attack, among=among, seed=5), found)
    assert target.calls <= 3 + 1, "attacked again, and not only shown to the model"
    calls = target.calls
    nothing = again.run("square", attack, among=torch.zeros(230, dtype=torch.bool))
    assert_equal(nothing, AttackResult.of_none(sample.images))
    assert target.calls == calls


def test_a_killed_attack_leaves_nothing_behind(net: nn.Module, sample: Sample, tmp_path: Path) -> None:
    runner, target = make_runner(net, sample, tmp_path)

    def stop(name: str, done: int, total: int) -> None:
        assert (name, done, total) == ("net pgd", 100, 230)
        raise KeyboardInterrupt

    interrupted = Runner(runner.name, target, runner.digest, sample, 0, Store(tmp_path), Processes(), stop)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run("pgd", PGD(epsilon=0.1, steps=3))
    assert list(tmp_path.iterdir()) == []


def test_corruptions_are_no_worst_case(net: nn.Module, sample: Sample) -> None:
    runner, _ = make_runner(net, sample, None)
    runner.run("noise", NormalNoise(sigma=0.5))
    attacked = runner.run("fgsm", FGSM(epsilon=0.1))
    assert runner.found() == [attacked]


def test_replay_and_agreement(net: nn.Module, sample: Sample) -> None:
    made = FGSM(epsilon=0.12).attack(TorchTarget(net), sample.images, sample.labels)
    assert 0 < int(made.success.sum()) < 230
    same = replay(TorchTarget(net), made, sample)
    assert_equal(AttackResult(**{**vars(made), "queries": same.queries}), same)
    assert agreement(TorchTarget(net), TorchTarget(net), made) == 1

    class Stubborn(nn.Module):
        """Says what the label is, but for the class 0, which it takes for 1."""

        def forward(self, inputs: Tensor) -> Tensor:
            nearest = torch.cdist(inputs.flatten(1), sample.images.flatten(1), p=torch.inf).argmin(1)
            return nn.functional.one_hot(sample.labels[nearest].clamp(min=1), 4).float()

    shown = replay(TorchTarget(Stubborn()), made, sample)
    torch.testing.assert_close(shown.attacked, sample.labels > 0)
    assert not shown.success.any()
    assert shown.l2.tolist() == [0] * 230
    kept = made.success & (sample.labels > 0)
    with torch.no_grad():
        by_net = net(made.adversarial[made.success]).argmax(1)
    expected = (by_net == sample.labels[made.success].clamp(min=1)).float().mean()
    assert agreement(TorchTarget(net), TorchTarget(Stubborn()), made) == pytest.approx(float(expected))
    assert kept.any()


def test_the_worst_case_takes_any_example_inside_the_threat() -> None:
    images, labels = torch.zeros(4, 1, 1, 2), torch.zeros(4, dtype=torch.int64)

    def result(success: list[bool], linf: list[float]) -> AttackResult:
        count = len(success)
        distance = torch.tensor(linf) * torch.tensor(success)
        return AttackResult(
            images[:count] + distance.reshape(-1, 1, 1, 1),
            torch.ones(count, dtype=torch.bool),
            torch.tensor(success),
            torch.full((count,), 5),
            distance * 2**0.5,
            distance,
            distance * 2,
            0.0,
        )

    strong = result([True, True, False, False], [0.3, 0.1, 0, 0])
    limited = result([True, False], [0.05, 0])
    sample, predicted = Sample(images, labels, 2), torch.tensor([0, 0, 0, 1])
    worst = worst_case([strong, limited], predicted, sample, Threat("linf", 0.2))
    assert worst.success.tolist() == [True, True, False, False]
    assert worst.attacked.tolist() == [True, True, True, False]
    torch.testing.assert_close(worst.linf, torch.tensor([0.05, 0.1, 0, 0]))
    torch.testing.assert_close(worst.adversarial.amax((1, 2, 3)), worst.linf)
    assert worst.queries.tolist() == [10, 10, 5, 5]
    assert worst_case([strong], predicted, sample, Threat("l2", 0.15)).success.tolist() == [
        False,
        True,
        False,
        False,
    ]
