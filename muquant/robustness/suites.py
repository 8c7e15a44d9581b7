"""Suites: which attacks a benchmark runs, under which names. One function, one line in `SUITES`."""

from collections.abc import Callable
from dataclasses import dataclass

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
    CarliniWagner,
    HopSkipJump,
    Norm,
    NormalNoise,
    RandomSearch,
    Square,
    Target,
    Transfer,
    UniformNoise,
)
from muquant.base.errors import InputError
from muquant.robustness.settings import Settings


@dataclass(frozen=True)
class SuiteAttack:
    """One row of a report.

    Attributes:
        name: unique in the suite, such as "apgd-ce".
        attack: with its parameters.
        limit: it is run on the first so many images; None for all.
        bound: for attacks that look for the smallest distance, the L2 distance within which a success lowers
            the stated accuracy; None for any distance.
        after: the attacks of the suite whose survivors it is run on, the images that withstood all of them;
            its accuracy counts what these fooled, too. None of them has a limit. Empty for all images.
        seed: added to the benchmark's, so that an attack that draws numbers can be tried again.
    """

    name: str
    attack: Attack
    limit: int | None = None
    bound: float | None = None
    after: tuple[str, ...] = ()
    seed: int = 0


STANDARD_VERSION = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The attacks of AutoAttack's standard version (Croce, Hein 2020), each on the survivors of those before."""


Suite = Callable[[Settings, Target | None], list[SuiteAttack]]
"""(settings, surrogate, if there is one) -> its attacks, in the order in which they are run"""


def seed(settings: Settings, surrogate: Target | None) -> list[SuiteAttack]:
    """The columns of the paper's tables: white-box, then black-box by transfer from the surrogate."""
    if settings.norm != "linf":
        raise InputError(
            f"suite seed: expected the norm linf, the paper's, found {settings.norm}; use standard"
        )
    weak, medium, strong = settings.weak, settings.medium, settings.epsilon
    bound = settings.l2_bound
    cw = CarliniWagner()
    suite = [
        SuiteAttack("fgsm-weak", FGSM(epsilon=weak)),
        SuiteAttack("fgsm-strong", FGSM(epsilon=strong)),
        SuiteAttack("pgd", PGD(epsilon=strong, steps=settings.pgd_steps, step_size=settings.pgd_step_size)),
        SuiteAttack(
            "pgd-margin",
            PGD(epsilon=strong, steps=settings.pgd_steps, step_size=settings.pgd_step_size, loss="margin"),
        ),
        SuiteAttack("bim", BIM(epsilon=strong)),
        SuiteAttack("mim", MIM(epsilon=strong)),
        SuiteAttack("ddn", DDN(), bound=bound),
        SuiteAttack("cw", cw, limit=200, bound=bound),
    ]
    if surrogate is not None:
        suite += [
            SuiteAttack("transfer-fgsm-weak", Transfer(surrogate=surrogate, method=FGSM(epsilon=weak))),
            SuiteAttack("transfer-fgsm-medium", Transfer(surrogate=surrogate, method=FGSM(epsilon=medium))),
            SuiteAttack("transfer-fgsm-strong", Transfer(surrogate=surrogate, method=FGSM(epsilon=strong))),
            SuiteAttack("transfer-cw", Transfer(surrogate=surrogate, method=cw), limit=200),
        ]
    return [*suite, *_noises(settings)]


def standard(settings: Settings, surrogate: Target | None) -> list[SuiteAttack]:
    """APGD-CE, APGD-T, DDN, Square with 1,000 queries, noises; transfer where there is a surrogate."""
    epsilon, norm = settings.epsilon, settings.norm
    return [
        SuiteAttack("apgd-ce", APGDCE(epsilon=epsilon, norm=norm)),
        SuiteAttack("apgd-t", APGDT(epsilon=epsilon, norm=norm)),
        SuiteAttack("ddn", DDN(), bound=settings.l2_bound),
        SuiteAttack("square", Square(epsilon=epsilon, norm=norm)),
        *_transfers(settings, surrogate),
        *_noises(settings),
    ]


def headline(settings: Settings, surrogate: Target | None) -> list[SuiteAttack]:
    """AutoAttack's standard version and then more on what it left, for figures that are claimed.

    Ascents from diversified starts again and again, and two further seeds of Square: what these still find
    says how far the figure can be trusted.
    """
    epsilon, norm, suite = settings.epsilon, settings.norm, standard_version(settings.epsilon, settings.norm)
    square = suite[-1].attack
    for name, attack, number in (
        ("apgd-ce-odi", APGDCE(epsilon=epsilon, norm=norm, restarts=5, diversified=2), 0),
        ("apgd-t-odi", APGDT(epsilon=epsilon, norm=norm, restarts=2, diversified=2), 0),
        ("square-2", square, 1),
        ("square-3", square, 2),
    ):
        suite.append(SuiteAttack(name, attack, after=tuple(each.name for each in suite), seed=number))
    suite.append(SuiteAttack("ddn", DDN(), bound=settings.l2_bound))
    return [*suite, *_transfers(settings, surrogate), *_noises(settings)]


def autoattack(settings: Settings, surrogate: Target | None) -> list[SuiteAttack]:
    """AutoAttack's standard version, for figures that others quote; transfer where there is a surrogate."""
    return [
        *standard_version(settings.epsilon, settings.norm),
        *_transfers(settings, surrogate),
        *_noises(settings),
    ]


def strict(settings: Settings, surrogate: Target | None) -> list[SuiteAttack]:
    """`standard` with twice the steps and five times the queries, PGD, CW, HopSkipJump, random search.

    HopSkipJump knows no L1, and is left out there.
    """
    epsilon, norm = settings.epsilon, settings.norm
    by_labels = (
        []
        if norm == "l1"
        else [SuiteAttack("hop-skip-jump", HopSkipJump(epsilon=epsilon, norm=norm), limit=50)]
    )
    return [
        SuiteAttack("apgd-ce", APGDCE(epsilon=epsilon, norm=norm, steps=200)),
        SuiteAttack("apgd-t", APGDT(epsilon=epsilon, norm=norm, steps=200)),
        SuiteAttack("pgd-ce", PGD(epsilon=epsilon, norm=norm, steps=100, restarts=5)),
        SuiteAttack("pgd-margin", PGD(epsilon=epsilon, norm=norm, steps=100, restarts=5, loss="margin")),
        SuiteAttack("ddn", DDN(), bound=settings.l2_bound),
        SuiteAttack("cw", CarliniWagner(), limit=200, bound=settings.l2_bound),
        SuiteAttack("square", Square(epsilon=epsilon, norm=norm, queries=5000)),
        *by_labels,
        SuiteAttack("random-search", RandomSearch(epsilon=epsilon, norm=norm)),
        *_transfers(settings, surrogate),
        *_noises(settings),
    ]


def standard_version(epsilon: float | str, norm: Norm) -> list[SuiteAttack]:
    """The attacks of AutoAttack's standard version in a ball, with the numbers of its authors."""
    sparse = norm == "l1"
    attacks = (
        APGDCE(epsilon=epsilon, norm=norm, restarts=5 if sparse else 1),
        APGDT(epsilon=epsilon, norm=norm, targets=5 if sparse else 9),
        FABT(epsilon=epsilon, norm=norm),
        Square(epsilon=epsilon, norm=norm, queries=5001, horizon=10_000),  # a start and 5,000 windows
    )
    return [
        SuiteAttack(name, attack, after=STANDARD_VERSION[:place])
        for place, (name, attack) in enumerate(zip(STANDARD_VERSION, attacks, strict=True))
    ]


def _transfers(settings: Settings, surrogate: Target | None) -> list[SuiteAttack]:
    if surrogate is None:
        return []
    method = MIM(epsilon=settings.epsilon, norm=settings.norm)
    return [SuiteAttack("transfer", Transfer(surrogate=surrogate, method=method))]


def _noises(settings: Settings) -> list[SuiteAttack]:
    return [
        SuiteAttack("normal-noise", NormalNoise(sigma=settings.sigma)),
        SuiteAttack("uniform-noise", UniformNoise(epsilon=settings.radius)),
    ]


SUITES: dict[str, Suite] = {
    "seed": seed,
    "standard": standard,
    "headline": headline,
    "autoattack": autoattack,
    "strict": strict,
}
