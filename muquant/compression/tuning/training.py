"""A training under way."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from muquant.compression.answers.distortion import distortion
from muquant.compression.tuning.latent import LatentWeight
from muquant.compression.tuning.loss import hidden_loss, output_loss
from muquant.compression.tuning.report import TuningReport
from muquant.compression.tuning.state import Progress, TuningState
from muquant.compression.tuning.subject import Rates, Subject, Tuned
from muquant.compression.tuning.watch import Watch
from muquant.models.calls import Inputs

EVERY = 25
"""Steps after which the held-out samples judge."""
OnStep = Callable[[int, int, float], None]
"""(step, steps, the last judgement over that of the start)."""
_WARM_UP = 10
"""Steps until the rates are whole."""
_MEASURED = 4
"""Batches that say how large the losses are at the start."""
_SMALLEST = 1e-2
"""Other parameters count as at least so large, as biases that are zero do."""
_TINY = 1e-12


class Training:
    """Of a subject; hooks are on its networks until it is closed."""

    def __init__(self, subject: Subject, rates: Rates, seed: int) -> None:
        self._hidden, self._generator = rates.hidden, torch.Generator().manual_seed(seed)
        self._latents = {path: LatentWeight(start, value) for path, (value, start) in subject.weights.items()}
        self._rest = {path: subject.module.get_parameter(path).detach().clone() for path in subject.rest}
        self._trained: list[tuple[Tensor, float]] = [
            *((latent.unit, rates.weights / math.sqrt(latent.inputs)) for latent in self._latents.values()),
            *((latent.log_scale, rates.scales) for latent in self._latents.values()),
            *((value, rates.rest * _size(value)) for value in self._rest.values()),
        ]
        self._trained = [(value, rate) for value, rate in self._trained if rate]
        self._optimizer = torch.optim.Adam(
            [{"params": [value.requires_grad_(True)]} for value, _ in self._trained]
        )
        for value, _ in self._trained:  # as Adam begins, so that a file can be read over it
            self._optimizer.state[value] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(value),
                "exp_avg_sq": torch.zeros_like(value),
            }
        self._starts = {path: start for path, (_, start) in subject.weights.items()}
        self._best = {
            **{f"codes.{path}": start.codes.clone() for path, start in self._starts.items()},
            **{f"step.{path}": start.step.clone() for path, start in self._starts.items()},
            **{f"rest.{path}": value.detach().clone() for path, value in self._rest.items()},
        }
        self._student, self._teacher = (
            Watch(module, subject.layers) for module in (subject.module, subject.reference)
        )

    def close(self) -> None:
        """Take the hooks off both networks."""
        self._student.close()
        self._teacher.close()

    def run(
        self,
        fit: Sequence[Inputs],
        held_out: Sequence[Inputs],
        steps: int,
        max_seconds: float,
        state: TuningState | None,
        on_step: OnStep | None,
    ) -> Tuned:
        """Train, and return the best."""
        before = self._judged(held_out)
        unit, hidden_unit = self._measured(fit[:_MEASURED])
        progress = Progress(0, before, 0, 0.0)
        if state is not None:
            progress = self._restored(state) or progress
        order, last = [int(place) for place in progress.order.split()], progress.best
        begin = time.monotonic() - progress.seconds
        while progress.step < steps:
            done = max(progress.step / steps, (time.monotonic() - begin) / max_seconds)
            if done >= 1:
                break
            self._set_rates(min((progress.step + 1) / _WARM_UP, (1 + math.cos(math.pi * done)) / 2))
            order = order or torch.randperm(len(fit), generator=self._generator).tolist()
            outputs, hidden = self._losses(fit[order.pop()])
            loss = _mean(own / one for own, one in zip(outputs, unit, strict=True))
            if not self._step(loss + self._hidden * hidden / hidden_unit):
                break
            progress.step += 1
            if progress.step % EVERY == 0 and progress.step < steps:
                last = self._judge(held_out, progress)
                progress.seconds, progress.order = time.monotonic() - begin, " ".join(map(str, order))
                if state is not None:
                    state.save(progress, self._kept())
            if on_step is not None:
                on_step(progress.step, steps, last / max(before, _TINY))
        self._judge(held_out, progress)
        best, seconds = self._best, time.monotonic() - begin
        return Tuned(
            {
                path: replace(start, codes=best[f"codes.{path}"], step=best[f"step.{path}"])
                for path, start in self._starts.items()
            },
            {path: best[f"rest.{path}"] for path in self._rest},
            TuningReport(before, progress.best, progress.best_step, progress.step, seconds),
        )

    def _values(self) -> dict[str, Tensor]:
        """What the network computes with."""
        return {**{path: latent() for path, latent in self._latents.items()}, **self._rest}

    def _losses(self, batch: Inputs) -> tuple[list[Tensor], Tensor]:
        """The loss of each output, and the mean of those of hidden states."""
        with torch.no_grad():
            exact = self._teacher(batch, {})
        found = self._student(batch, self._values())
        outputs = [
            output_loss(name, one, other)
            for (name, one), (_, other) in zip(exact.outputs, found.outputs, strict=True)
        ]
        hidden = [hidden_loss(exact.hidden[path], value) for path, value in found.hidden.items()]
        return outputs, _mean(hidden)

    @torch.no_grad()
    def _measured(self, batches: Sequence[Inputs]) -> tuple[list[Tensor], Tensor]:
        """The mean of each loss, at least a tiny one."""
        found = [self._losses(batch) for batch in batches]
        outputs = [_mean(each).clamp(min=_TINY) for each in zip(*(own for own, _ in found), strict=True)]
        return outputs, _mean(hidden for _, hidden in found).clamp(min=_TINY)

    @torch.no_grad()
    def _judged(self, batches: Sequence[Inputs]) -> float:
        """The mean distortion of the outputs."""
        values, figures = self._values(), list[float]()
        for batch in batches:
            exact, found = self._teacher(batch, {}), self._student(batch, values)
            pairs = zip(exact.outputs, found.outputs, strict=True)
            figures += [distortion(name, one, other) or 0.0 for (name, one), (_, other) in pairs]
        return math.fsum(figures) / max(len(figures), 1)

    @torch.no_grad()
    def _judge(self, batches: Sequence[Inputs], progress: Progress) -> float:
        """Judge, and keep what is the best so far."""
        found = self._judged(batches)
        if found < progress.best:
            progress.best, progress.best_step = found, progress.step
            for path, latent in self._latents.items():
                quantized = latent.quantized()
                self._best[f"codes.{path}"].copy_(quantized.codes)
                self._best[f"step.{path}"].copy_(quantized.step)
            for path, value in self._rest.items():
                self._best[f"rest.{path}"].copy_(value)
        return found

    def _set_rates(self, share: float) -> None:
        for group, (_, rate) in zip(self._optimizer.param_groups, self._trained, strict=True):
            group["lr"] = rate * share

    def _step(self, loss: Tensor) -> bool:
        """Take a step; whether the loss is a number."""
        if not loss.isfinite():
            return False
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return True

    def _kept(self) -> dict[str, Tensor]:
        """All that the training goes on from, by name: its own tensors, but for the random numbers."""
        kept = {f"best.{name}": value for name, value in self._best.items()}
        kept["generator"] = self._generator.get_state()
        for place, (value, _) in enumerate(self._trained):
            kept[f"trained.{place}"] = value
            for name, average in self._optimizer.state[value].items():
                kept[f"adam.{place}.{name}"] = average
        return kept

    def _restored(self, state: TuningState) -> Progress | None:
        kept = self._kept()
        progress = state.restore(kept)
        self._generator.set_state(kept["generator"])
        return progress


def _size(value: Tensor) -> float:
    return max(float(value.detach().square().mean().sqrt()), _SMALLEST) if value.numel() else _SMALLEST


def _mean(numbers: Iterable[Tensor]) -> Tensor:
    """The mean of numbers []; 0 of none."""
    own = list(numbers)
    return torch.stack(own).mean() if own else torch.zeros(())
