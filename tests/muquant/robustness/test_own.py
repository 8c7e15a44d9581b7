"""Suites of one's own, in a text and in a file."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from muquant.attacks import (
    APGDCE,
    ATTACKS,
    DDN,
    FABT,
    MIM,
    PGD,
    HopSkipJump,
    NormalNoise,
    Square,
    TorchTarget,
    Transfer,
    UniformNoise,
)
from muquant.base.errors import InputError
from muquant.data import Dataset
from muquant.robustness import (
    SUITES,
    BenchmarkSetup,
    Subject,
    SuiteAttack,
    benchmark,
    read_suite,
    settings_for,
)

MNIST = settings_for("mnist")


def test_attacks_with_settings() -> None:
    suite = read_suite(
        "apgd-ce:steps=50,restarts=3,square, pgd : loss = margin ,epsilon=8/255,random_start=false"
    )
    assert suite(MNIST, None) == [
        SuiteAttack("apgd-ce", APGDCE(epsilon=0.3, steps=50, restarts=3)),
        SuiteAttack("square", Square(epsilon=0.3)),
        SuiteAttack("pgd", PGD(epsilon="8/255", loss="margin", random_start=False)),
    ]


def test_what_is_not_set_is_as_in_the_other_suites() -> None:
    settings = settings_for("mnist", norm="l2")
    twin = TorchTarget(nn.Linear(2, 2))
    text = "apgd-t,ddn,cw,hop-skip-jump,normal-noise,uniform-noise,transfer,random-search,pgd:loss=margin"
    strict = {each.name: each for each in SUITES["strict"](settings, twin)}
    for each in read_suite(text)(settings, twin):
        twin_of = strict.get("pgd-margin" if each.name == "pgd" else each.name)
        assert twin_of is not None
        assert (each.bound, each.attack.threat) == (twin_of.bound, twin_of.attack.threat), each.name
    assert isinstance(strict["transfer"].attack, Transfer)
    assert strict["transfer"].attack == read_suite("transfer")(settings, twin)[0].attack
    assert read_suite("ddn:bound=1.5")(settings, None) == [SuiteAttack("ddn", DDN(), bound=1.5)]
    (fgsm,) = read_suite("transfer:method=mim,limit=7")(settings, twin)
    assert (fgsm.limit, fgsm.attack) == (7, Transfer(surrogate=twin, method=MIM(epsilon=2.0, norm="l2")))


def test_attacks_on_survivors_and_twice() -> None:
    suite = read_suite("apgd-ce,fab-t:after=apgd-ce,square:after=apgd-ce+fab-t,square:seed=1,name=again")
    assert suite(MNIST, None) == [
        SuiteAttack("apgd-ce", APGDCE(epsilon=0.3)),
        SuiteAttack("fab-t", FABT(epsilon=0.3), after=("apgd-ce",)),
        SuiteAttack("square", Square(epsilon=0.3), after=("apgd-ce", "fab-t")),
        SuiteAttack("again", Square(epsilon=0.3), seed=1),
    ]
    assert [each.name for each in read_suite("pgd,pgd:loss=dlr,pgd")(MNIST, None)] == [
        "pgd",
        "pgd-2",
        "pgd-3",
    ]


def test_a_suite_by_its_name() -> None:
    for name, suite in SUITES.items():
        assert read_suite(name) is suite


TOML = """
[[attacks]]
attack = "apgd-ce"
steps = 50

[[attacks]]
attack = "square"
name = "long"
queries = 5000
horizon = 10000
after = ["apgd-ce"]
"""


def test_a_file_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    entries = [
        {"attack": "apgd-ce", "steps": 50},
        {"attack": "square", "name": "long", "queries": 5000, "horizon": 10000, "after": ["apgd-ce"]},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"attacks": entries}))
    expected = read_suite("apgd-ce:steps=50,square:name=long,queries=5000,horizon=10000,after=apgd-ce")(
        MNIST, None
    )
    for name in ("a.toml", "a.json"):
        assert read_suite(str(tmp_path / name))(MNIST, None) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("apgd", "attack 'apgd' is unknown; expected one of fgsm, .* or, alone, a suite: seed, standard"),
        ("square,autoattack", "attack 'autoattack' is unknown; expected one of fgsm"),
        (
            "apgd-ce:step=3",
            "attack apgd-ce: setting 'step' is unknown; expected one of epsilon, norm, steps, .*seed",
        ),
        ("fgsm:steps=3", "attack fgsm: setting 'steps' is unknown; expected one of epsilon, norm, step_size"),
        ("apgd-ce:steps=x", "attack apgd-ce: steps: expected int, found 'x'"),
        ("apgd-ce:steps=1.5", "attack apgd-ce: steps: expected int, found 1.5"),
        ("apgd-ce:steps=true", "attack apgd-ce: steps: expected int, found True"),
        ("apgd-ce:steps=0", "attack apgd-ce: APGDCE.steps: expected at least 1, found 0"),
        ("pgd:loss=hinge", "attack pgd: loss 'hinge' is unknown; expected one of ce, margin, dlr"),
        ("pgd:norm=l3", "attack pgd: norm: expected 'linf' or 'l2' or 'l1', found 'l3'"),
        ("pgd:epsilon=none", "attack pgd: epsilon: expected float or str, found None"),
        ("pgd:epsilon=2", "attack pgd: epsilon: expected at most 1"),
        ("pgd:steps=1,steps=2", "pgd has steps twice; give it once"),
        ("pgd:steps", "expected attacks such as .apgd-ce:steps=50,restarts=3,square.*; found 'pgd:steps'"),
        ("pgd:", "expected attacks such as .*; found 'pgd:'"),
        ("steps=3", "attack 'steps=3' is unknown"),
        ("", "expected attacks such as .*; found ''"),
        ("pgd,,square", "expected attacks such as .*; found ''"),
        ("pgd:limit=0", "attack pgd: limit: expected 1 image or more, found 0"),
        ("pgd:seed=-1", "attack pgd: seed, bound: expected at least 0, found -1, None"),
        ("ddn:bound=nan", "attack ddn: seed, bound: expected at least 0, found 0, nan"),
        ("pgd,square:after=apgd-ce", "attack square: after: expected .* before it: pgd; found apgd-ce"),
        ("pgd:limit=3,square:after=pgd", "attack square: after: expected .* before it: none; found pgd"),
        ("pgd,square:after=pgd,limit=3", "attack square: limit, after: what runs on survivors runs on all"),
        ("pgd,square:name=pgd", "attack square: name: 'pgd' is another attack's"),
        ("transfer", "attack transfer: it needs a surrogate to transfer from"),
        ("transfer:steps=3", "attack transfer: setting 'steps' is unknown; expected one of method, name"),
    ],
)
def test_what_cannot_be_run_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_suite(text)(MNIST, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "is not a JSON document"),
        ("a.toml", "attacks = ", "is not a TOML document"),
        ("a.toml", b"\xff\xfe", "is not a TOML document"),
        ("a.json", "[]", 'expected "attacks", a list of one or more, and nothing else'),
        ("a.json", '{"attacks": []}', 'expected "attacks", a list of one or more'),
        ("a.toml", 'suite = "x"', 'expected "attacks", a list of one or more'),
        ("a.json", '{"attacks": ["pgd"]}', r"attacks\[0\]: expected an object with an .attack.*found 'pgd'"),
        ("a.json", '{"attacks": [{"attack": 3}]}', r"attacks\[0\]: expected an object with an .attack"),
        ("a.json", '{"attacks": [{"attack": "pgd", "steps": [3]}]}', r"steps: expected int, found \[3\]"),
        (
            "a.json",
            '{"attacks": [{"attack": "pgd", "after": [[1]]}]}',
            r"after: expected attacks .* found \[1\]",
        ),
        ("a.json", '{"attacks": [{"attack": "pgd", "name": 3}]}', "name: expected str, found 3"),
    ],
)
def test_a_file_is_refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_suite(str(tmp_path / name))(MNIST, None)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.toml"):
        read_suite(str(tmp_path / "nowhere.toml"))


@given(st.text(alphabet="pgdsquare-ct:=,+. 0123456789epslontrafi", max_size=40))
def test_any_text_is_a_suite_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        suite = read_suite(text)(MNIST, None)
        assert {type(each.attack) for each in suite} <= set(ATTACKS.values())


@pytest.mark.parametrize("kind", sorted(set(ATTACKS) - {"transfer"}))
def test_every_attack_can_be_listed(kind: str) -> None:
    (made,) = read_suite(kind)(MNIST, None)
    assert type(made.attack) is ATTACKS[kind]
    assert not isinstance(made.attack, NormalNoise) or made.attack.sigma == 0.3
    assert not isinstance(made.attack, UniformNoise) or made.attack.epsilon == MNIST.radius
    assert not isinstance(made.attack, HopSkipJump) or made.attack.epsilon == 0.3


@pytest.mark.slow
def test_a_weaker_chain_is_no_aa_standard(
    net: nn.Module, quarters: Dataset, setup: Callable[..., BenchmarkSetup]
) -> None:
    after = "after=apgd-ce", "after=apgd-ce+apgd-t", "after=apgd-ce+apgd-t+fab-t"
    chain = "apgd-ce,apgd-t:{},fab-t:{},square:{},queries=5001,horizon=10000".format(*after)
    made = setup(suite=chain, limit=30)
    (row,) = benchmark([Subject("net", net)], quarters, made)[0].models
    (known,) = benchmark([Subject("net", net)], quarters, replace(made, suite="autoattack"))[0].models
    assert row.aa_standard == known.aa_standard is not None
    (more,) = benchmark([Subject("net", net)], quarters, replace(made, suite=f"{chain},pgd"))[0].models
    assert more.aa_standard == known.aa_standard
    short: Any = replace(made, suite=chain.replace("apgd-ce,", "apgd-ce:steps=1,", 1))
    (row,) = benchmark([Subject("net", net)], quarters, short)[0].models
    assert row.aa_standard is None
    assert list(row.attacks) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert row.worst_case is not None
    assert torch.isfinite(torch.tensor(row.worst_case))
