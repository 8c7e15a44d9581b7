"""Which attacks the suites hold, and how they differ."""

import pytest
import torch
from torch import nn

from muquant.attacks import ATTACKS, FGSM, Square, Threat, TorchTarget, Transfer
from muquant.base.errors import InputError
from muquant.models.fingerprint import fingerprint
from muquant.robustness import SUITES, settings_for
from muquant.robustness.runner import describe
from muquant.robustness.suites import STANDARD_VERSION


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_names_of_its_own_and_known_attacks(name: str) -> None:
    surrogate = TorchTarget(nn.Linear(2, 2))
    for twin in (None, surrogate):
        suite = SUITES[name](settings_for("mnist"), twin)
        assert len({each.name for each in suite}) == len(suite)
        assert {type(each.attack) for each in suite} <= set(ATTACKS.values())
        assert any(isinstance(each.attack, Transfer) for each in suite) == (twin is not None)
        assert sum(each.attack.corruption for each in suite) == 2


def test_the_paper_suite_has_the_columns_of_its_tables() -> None:
    suite = {each.name: each for each in SUITES["seed"](settings_for("mnist"), TorchTarget(nn.Linear(2, 2)))}
    described = {name: describe(each.attack) for name, each in suite.items()}
    assert [described[f"fgsm-{size}"]["epsilon"] for size in ("weak", "strong")] == [0.1, 0.3]
    assert {described["pgd"][key] for key in ("steps", "step_size", "epsilon")} == {40, 0.01, 0.3}
    assert [described[name]["steps"] for name in ("bim", "mim", "cw")] == [10, 10, 1000]
    assert [described["cw"][key] for key in ("searches", "lr", "c", "kappa")] == [9, 0.01, 1e-3, 0]
    assert (suite["cw"].limit, suite["cw"].bound) == (200, 2.0)
    black_box = [described[f"transfer-{name}"]["method"]["name"] for name in ("fgsm-medium", "cw")]
    assert black_box == ["fgsm", "cw"]
    assert described["normal-noise"]["sigma"] == 0.3
    with pytest.raises(InputError, match="linf"):
        SUITES["seed"](settings_for("mnist", norm="l2"), None)


def test_strict_is_at_least_standard() -> None:
    settings = settings_for("mnist")
    standard = {each.name: describe(each.attack) for each in SUITES["standard"](settings, None)}
    strict = {each.name: describe(each.attack) for each in SUITES["strict"](settings, None)}
    assert set(standard) < set(strict)
    assert standard["square"]["queries"] == 1000
    assert strict["square"]["queries"] == 5000
    for name in ("apgd-ce", "apgd-t"):
        assert strict[name]["steps"] == 2 * standard[name]["steps"] == 200


def test_a_model_in_an_attack_is_described_by_its_weights() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    (first, again, second) = (
        describe(SUITES["standard"](settings_for("mnist"), TorchTarget(module))[4].attack)
        for module in (one, one, other)
    )
    assert first == again != second
    with torch.no_grad():
        one.weight[0, 0] += 1
    assert describe(SUITES["standard"](settings_for("mnist"), TorchTarget(one))[4].attack) != first


def test_the_suites_differ_by_what_they_are_for() -> None:
    attacks = {
        name: {each.name: describe(each.attack) for each in suite(settings_for("mnist"), None)}
        for name, suite in SUITES.items()
    }
    queries = {name: attacks[name]["square"]["queries"] for name in ("standard", "autoattack", "strict")}
    assert queries == {"standard": 1000, "autoattack": 5001, "strict": 5000}
    assert attacks["headline"].items() >= attacks["autoattack"].items()
    assert attacks["strict"]["apgd-t"]["steps"] == 2 * attacks["headline"]["apgd-t"]["steps"] == 200
    assert {"hop-skip-jump", "cw", "random-search"} <= set(attacks["strict"])


def test_every_attack_of_a_chain_follows_all_before_it() -> None:
    """AutoAttack's standard version as its authors define it, and for the headline more on what it left."""
    settings = settings_for("mnist")
    standard, headline = (
        [each for each in SUITES[name](settings, None) if each.after or each.name == "apgd-ce"]
        for name in ("autoattack", "headline")
    )
    assert [each.name for each in standard] == list(STANDARD_VERSION)
    assert headline[:4] == standard
    for place, each in enumerate(headline):
        assert each.after == tuple(before.name for before in headline[:place])
        assert each.limit is None
    again = [each for each in headline if isinstance(each.attack, Square)]
    assert [each.seed for each in again] == [0, 1, 2]
    assert len({each.attack for each in again}) == 1
    described = [describe(each.attack) for each in standard]
    assert [each["steps"] for each in described[:3]] == [100, 100, 100]
    assert [each["targets"] for each in described[1:3]] == [9, 9]
    assert [each["restarts"] for each in described[:3]] == [1, 1, 1]
    assert {described[3][key] for key in ("queries", "horizon", "area")} == {5001, 10_000, 0.8}


@pytest.mark.parametrize("name", [name for name in SUITES if name != "seed"])
def test_in_l1_suites_are_of_attacks_that_know_it(name: str) -> None:
    suite = {each.name: each for each in SUITES[name](settings_for("cifar10", norm="l1"), None)}
    assert suite["square"].attack.threat == Threat("l1", 12.0)
    assert "hop-skip-jump" not in suite
    if name in ("autoattack", "headline"):  # restarts and classes of AutoAttack's code
        described = {name: describe(each.attack) for name, each in suite.items()}
        assert (described["apgd-ce"]["restarts"], described["apgd-t"]["targets"]) == (5, 5)
        assert described["fab-t"]["targets"] == 9


def test_a_surrogate_is_described_with_what_comes_before_it() -> None:
    module, method = nn.Linear(2, 2), FGSM(epsilon=0.1)
    targets = [TorchTarget(module), TorchTarget(module, bounds=(0, 255)), TorchTarget(module, bounds=(0, 9))]
    described = [describe(Transfer(surrogate=target, method=method))["surrogate"] for target in targets]
    assert described[0] == fingerprint(module)
    assert len(set(described)) == 3
