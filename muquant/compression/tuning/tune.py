"""The distillation: a compressed network, trained a little towards the float one."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from muquant.compression.calibration.batches import rows_of
from muquant.compression.tuning.state import TuningState
from muquant.compression.tuning.subject import Rates, Subject, Tuned
from muquant.compression.tuning.training import OnStep, Training
from muquant.models.calls import Inputs

STEPS = 300
"""Batches that are trained on."""


@torch.inference_mode(False)
@torch.enable_grad()
def tune(
    subject: Subject,
    fit: Sequence[Inputs],
    held_out: Sequence[Inputs],
    *,
    steps: int = STEPS,
    max_seconds: float | None = None,
    seed: int = 0,
    rates: Rates | None = None,
    folder: Path | None = None,
    on_step: OnStep | None = None,
) -> Tuned:
    """Train a compressed network towards the float one, on samples without labels.

    Codes are trained straight through the nearest level, and with them steps, biases and norms, by Adam under
    half a cosine. What is made small is the loss of the outputs plus that of hidden states, each in units of
    what it was at the start. Held-out samples judge the outputs now and then; what was best there is taken.

    Args:
        subject: the network.
        fit: batches to train on; at least one.
        held_out: batches that judge; at least one.
        steps: to take.
        max_seconds: no step is begun after so many; the rates fall accordingly. The last judgement is on top.
        seed: of the order of batches.
        rates: how fast; `Rates.of` so many samples by default.
        folder: where the training is kept from judgement to judgement, in a file that is named after all that
            it depends on; one that is there already goes on.
        on_step: called after each step.

    Raises:
        InputError: the file in `folder` is damaged, or cannot be written.
    """
    rates = rates or Rates.of(sum(map(rows_of, fit)))
    key = (steps, max_seconds, seed, rates)
    state = None if folder is None else TuningState.of(folder, subject, (*fit, *held_out), repr(key))
    frozen = [each for each in subject.module.parameters() if each.requires_grad]
    training = Training(subject, rates, seed)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it calls no modules that could be watched
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        return training.run(fit, held_out, steps, max_seconds or math.inf, state, on_step)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        training.close()
        for parameter in frozen:
            parameter.requires_grad_(True)
