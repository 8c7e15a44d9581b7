"""Adversarial attacks. One file for each family, one line in `ATTACKS` for each attack.

result = PGD(epsilon="8/255").attack(TorchTarget(model), images, labels, seed=0)
result.accuracy

What all share:
base.py             `Attack`: batches, seeds, verification of every example
result.py           `AttackResult`: what became of each image
goal.py             what counts as fooled: another class, or the one aimed at; abstaining
problem.py          `AttackProblem`: one batch under attack, through which every pass goes
averaged.py         a network that draws numbers, by its mean answers
inputs.py           what attacks are given; inputs with other bounds, or normalised ones
target.py           `Target`: what is attacked, a module or a function
norms.py            epsilons, distances, balls
losses.py           what an attack raises

With gradients:
gradient.py         FGSM, BIM, PGD, MIM
apgd.py             Auto-PGD
apgd_l1.py          its ascent in L1
fab.py              FAB-T, from the boundary back to the image
ddn.py              DDN, the smallest L2 distance in few steps
carlini_wagner.py   Carlini and Wagner's, in many

Without:
square.py           Square, by logits
hop_skip_jump.py    HopSkipJump, by labels
random_search.py    points of the ball without any aim
transfer.py         examples made on another model
noise.py            corruptions, which look for no worst case
"""

from muquant.attacks.apgd import APGDCE, APGDT
from muquant.attacks.averaged import Averaged
from muquant.attacks.base import Attack, BallAttack
from muquant.attacks.carlini_wagner import CarliniWagner
from muquant.attacks.ddn import DDN
from muquant.attacks.fab import FABT
from muquant.attacks.goal import Goal
from muquant.attacks.gradient import BIM, FGSM, MIM, PGD, GradientAttack
from muquant.attacks.hop_skip_jump import HopSkipJump
from muquant.attacks.losses import LOSSES
from muquant.attacks.noise import NormalNoise, UniformNoise
from muquant.attacks.norms import Norm, Threat, parse_epsilon
from muquant.attacks.random_search import RandomSearch
from muquant.attacks.result import AttackResult
from muquant.attacks.square import Square
from muquant.attacks.target import CallableTarget, Target, TorchTarget
from muquant.attacks.transfer import Transfer

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "bim": BIM,
    "pgd": PGD,
    "mim": MIM,
    "apgd-ce": APGDCE,
    "apgd-t": APGDT,
    "fab-t": FABT,
    "ddn": DDN,
    "cw": CarliniWagner,
    "square": Square,
    "hop-skip-jump": HopSkipJump,
    "random-search": RandomSearch,
    "transfer": Transfer,
    "normal-noise": NormalNoise,
    "uniform-noise": UniformNoise,
}

__all__ = [
    "APGDCE",
    "APGDT",
    "ATTACKS",
    "BIM",
    "DDN",
    "FABT",
    "FGSM",
    "LOSSES",
    "MIM",
    "PGD",
    "Attack",
    "AttackResult",
    "Averaged",
    "BallAttack",
    "CallableTarget",
    "CarliniWagner",
    "Goal",
    "GradientAttack",
    "HopSkipJump",
    "Norm",
    "NormalNoise",
    "RandomSearch",
    "Square",
    "Target",
    "Threat",
    "TorchTarget",
    "Transfer",
    "UniformNoise",
    "parse_epsilon",
]
