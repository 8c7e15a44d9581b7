"""Adversarial attacks. One file for each family, one line in `ATTACKS` for each attack.

result = PGD(epsilon="8/255").attack(TorchTarget(model), images, labels, seed=0)
result.accuracy
"""

from muquant.attacks.apgd import APGDCE, APGDT
from muquant.attacks.base import Attack, AttackResult, BallAttack
from muquant.attacks.carlini_wagner import CarliniWagner
from muquant.attacks.ddn import DDN
from muquant.attacks.gradient import BIM, FGSM, MIM, PGD, GradientAttack
from muquant.attacks.hop_skip_jump import HopSkipJump
from muquant.attacks.losses import LOSSES
from muquant.attacks.noise import NormalNoise, UniformNoise
from muquant.attacks.norms import Norm, Threat, parse_epsilon
from muquant.attacks.random_search import RandomSearch
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
    "FGSM",
    "LOSSES",
    "MIM",
    "PGD",
    "Attack",
    "AttackResult",
    "BallAttack",
    "CallableTarget",
    "CarliniWagner",
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
