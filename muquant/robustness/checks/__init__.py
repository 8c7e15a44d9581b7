"""Masking checks: named functions that find inflated figures. One line in `CHECKS` for each.

Each says when it fires, why, and who proposed it; README.md in the folder above, how its threshold was set.

comparisons.py   attacks that know or do less must not find more
curves.py        accuracy falls with epsilon, and ends at chance
gradients.py     gradients that vanish, a loss that still rises
outputs.py       outputs that are no logits, or change from call to call
planted.py       examples that are known to be there
measures.py      how figures are compared

Sources:
    Athalye, Carlini, Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018.
    Carlini et al., "On Evaluating Adversarial Robustness", 2019.
    Carlini, Wagner, "Towards Evaluating the Robustness of Neural Networks", S&P 2017.
    Croce, Hein, "Reliable Evaluation of Adversarial Robustness", ICML 2020: AutoAttack, and its flags.
    Gupta, Ajanthan, "Improved Gradient-Based Adversarial Attacks for Quantized Networks", AAAI 2022.
    Pintor et al., "Indicators of Attack Failure", NeurIPS 2022.
    Zimmermann et al., "Increasing Confidence in Adversarial Robustness Evaluations", NeurIPS 2022.
"""

from muquant.robustness.checks.comparisons import (
    black_box,
    more_effort,
    per_example,
    random_search,
    step_order,
    transfer,
)
from muquant.robustness.checks.curves import plateau, rises, unbounded, unbounded_l2
from muquant.robustness.checks.gradients import incomplete_optimisation, scale, zero_gradients
from muquant.robustness.checks.outputs import random_logits, softmax_output
from muquant.robustness.checks.planted import planted_missed
from muquant.robustness.evidence import Check

_ALL = (
    Check("scale", "disqualifying", scale),
    Check("zero-gradients", "disqualifying", zero_gradients),
    Check("random-logits", "disqualifying", random_logits),
    Check("softmax-output", "disqualifying", softmax_output),
    Check("step-order", "disqualifying", step_order),
    Check("unbounded", "disqualifying", unbounded),
    Check("unbounded-l2", "disqualifying", unbounded_l2),
    Check("planted-missed", "disqualifying", planted_missed),
    Check("black-box", "advisory", black_box),
    Check("per-example", "advisory", per_example),
    Check("transfer", "advisory", transfer),
    Check("random-search", "advisory", random_search),
    Check("more-effort", "advisory", more_effort),
    Check("incomplete-optimisation", "advisory", incomplete_optimisation),
    Check("accuracy-rises", "advisory", rises),
    Check("plateau", "advisory", plateau),
)

CHECKS: dict[str, Check] = {check.name: check for check in _ALL}
