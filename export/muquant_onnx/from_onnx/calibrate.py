"""Run a graph on samples under onnxruntime, and keep the moments of what its weights are multiplied by."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.compression.calibration import Samples, in_parts
from muquant.compression.calibration.batches import BATCH_SIZE
from muquant.compression.calibration.operators import Draw
from muquant.compression.calibration.padding import filled_positions
from muquant.quantization.moments import InputMoments, Moments
from muquant.quantization.outcome import Outcome
from muquant.quantization.sums import MomentSums, VectorSums
from muquant.quantization.threads import one_thread
from muquant_onnx.from_onnx.constants import of_constants
from muquant_onnx.from_onnx.feeds import Batch, Feeds
from muquant_onnx.from_onnx.find import FoundWeight
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.from_onnx.replay import Array, Replay
from muquant_onnx.from_onnx.watch import Seen, Watched, seen_weights, steps_of

MEMORY = 2**26
"""Bytes of outputs at a time, as far as samples may be run one by one."""


def graph_samples(
    source: Path,
    weights: Sequence[FoundWeight],
    samples: tuple[Samples, Samples] | None,
    done: Mapping[FoundWeight, Outcome] | None = None,
) -> Iterator[tuple[FoundWeight, InputMoments | None, str]]:
    """Yield `weights` with what is known of their layers' inputs, and else why that is not known.

    Args:
        source: the ONNX file in which `weights` were found.
        weights: of which to collect.
        samples: for the graph's inputs, by name or in order, to fit to and held out; None where
            nothing is known of any weight's inputs.
        done: what became of weights that were yielded. Layers are then told what the graph with
            these shows them, and how far that is from what the float one does.

    Raises:
        InputError: the samples do not fit the graph's inputs, or onnxruntime does not run it.
    """

    if samples is not None and done is not None:
        yield from _one_after_another(source, weights, samples, done)
    else:
        yield from _at_once(source, weights, samples)


def _at_once(
    source: Path, weights: Sequence[FoundWeight], samples: tuple[Samples, Samples] | None
) -> Iterator[tuple[FoundWeight, InputMoments | None, str]]:
    """Yield what the float graph shows."""

    def collect(part: list[FoundWeight], own: Samples, total: int) -> dict[FoundWeight, Moments | str]:
        known = _collect(source, [weight.name for weight in part], own, total, {})
        return {weight: known[weight.name] for weight in part}

    sizes = {weight: weight.channels.moments(weight.shape) for weight in weights}
    return in_parts(sizes, samples, collect)


def _one_after_another(
    source: Path,
    weights: Sequence[FoundWeight],
    samples: tuple[Samples, Samples],
    done: Mapping[FoundWeight, Outcome],
) -> Iterator[tuple[FoundWeight, InputMoments | None, str]]:
    """Yield what the graph shows with those that are done, and how far that is from the float one. Weights
    of branches, of loops, and those that are used in several places see the float graph alone."""
    model = read_graph(source).model
    seen, reasons = seen_weights(model, [weight.name for weight in weights], {})
    fixed = of_constants(model)
    in_line = {
        name: uses
        for name, uses in seen.items()
        if len({each.activation for each in uses}) == 1
        and uses[0].activation not in fixed
        and uses[0].use.node.graph is model.graph
    }
    rest = [weight for weight in weights if weight.name in seen and weight.name not in in_line]
    others = {weight: (known, why) for weight, known, why in _at_once(source, rest, samples)}
    if not in_line:
        yield from ((weight, *others.get(weight, (None, reasons.get(weight.name, "")))) for weight in weights)
        return
    watched = Watched.of(model, [each for uses in in_line.values() for each in uses])
    batches = [_sized(source, own, watched).batches for own in samples]
    del watched
    total = sum(own.count for own in samples)
    shares = [
        _Share(number, batch, total) for number, batch in enumerate(batch for own in batches for batch in own)
    ]
    replay, put = Replay(source, [batch for own in batches for batch in own]), set[FoundWeight]()
    groups: dict[object, list[FoundWeight]] = {}
    for weight in weights:
        uses = in_line.get(weight.name)
        groups.setdefault(uses[0].activation if uses else weight, []).append(weight)
    for place, (key, group) in enumerate(groups.items()):
        for weight in [weight for weight in done if weight not in put]:
            replay.put(weight.name, done[weight])
            put.add(weight)
        if isinstance(key, FoundWeight):
            yield key, *others.get(key, (None, reasons.get(key.name, "")))
            continue
        uses = [each for weight in group for each in in_line[weight.name]]
        shown = zip(shares, replay.to(str(uses[0].activation.name)), strict=True)
        try:
            fit = _sums(uses, islice(shown, len(batches[0])), judged=False)
            held_out = _sums(uses, shown, judged=True)
        except InputError:  # of what does not run in pieces, the float graph is asked
            rest = [weight for group in list(groups.values())[place:] for weight in group]
            yield from _at_once(source, rest, samples)
            return
        for weight in group:
            one, other = fit[weight.name], held_out[weight.name]
            if isinstance(one, str) or isinstance(other, str):
                yield weight, None, one if isinstance(one, str) else str(other)
            else:
                yield weight, InputMoments.of(one, other), ""


def _sums(
    uses: Sequence[Seen], shown: Iterable[tuple["_Share", tuple[Array, Array]]], *, judged: bool
) -> dict[str, Moments | str]:
    """Return the moments of what weights are multiplied by, all of them by the same; by name."""
    sums, reasons = {each.weight.name: each.sums for each in uses}, dict[str, str]()
    for share, (exact, changed) in shown:
        reasons |= share.add(sums, uses, changed, exact, judged=judged)
    for name, own in sums.items():
        if not own.count:
            reasons.setdefault(name, _NOT_REACHED)
    return {name: reasons[name] if name in reasons else own.moments() for name, own in sums.items()}


def _collect(
    source: Path, names: Sequence[str], samples: Samples, total: int, unseen: Mapping[str, str]
) -> dict[str, Moments | str]:
    """Return moments of what the named weights are multiplied by, and where these cannot be known why;
    `unseen` says of some that they cannot. There are `total` samples with others."""
    model = read_graph(source).model
    seen, reasons = seen_weights(model, names, unseen)
    sums = {name: uses[0].sums for name, uses in seen.items()}
    if seen:
        watched = Watched.of(model, [each for uses in seen.values() for each in uses])
        try:
            reasons |= _run(sums, watched, _sized(source, samples, watched), total)
        except InputError:
            if not watched.looped:
                raise
            looped = dict.fromkeys(watched.looped, _CHANGING)
            return _collect(source, names, samples, total, {**reasons, **looped})
    for name, own in sums.items():
        if not own.count:
            reasons.setdefault(name, _NOT_REACHED)
    return {name: reasons[name] if name in reasons else sums[name].moments() for name in names}


_CHANGING = "it is used in a loop that does not show what it is multiplied by: sizes change from step to step"
_NOT_REACHED = "the samples do not reach it"


def _sized(source: Path, samples: Samples, watched: Watched) -> Feeds:
    """Return samples in batches that keep what is shown small."""
    graph = read_graph(source).model.graph
    feeds = Feeds.of(graph, samples, source, 1)
    if len(feeds.batches) == 1:
        return feeds
    alone = replace(feeds, batches=feeds.batches[:1])
    nbytes = sum(output.nbytes for outputs in alone.answers(watched.session) for output in outputs)
    return Feeds.of(graph, samples, source, min(max(MEMORY // max(nbytes, 1), 1), BATCH_SIZE))


def _run(sums: Mapping[str, MomentSums], watched: Watched, feeds: Feeds, total: int) -> dict[str, str]:
    """Add what a graph shows to `sums`; return of which weights that cannot be done, and why."""
    reasons: dict[str, str] = {}
    for number, (batch, outputs) in enumerate(
        zip(feeds.batches, feeds.answers(watched.session), strict=True)
    ):
        share = _Share(number, batch, total)
        for (value, seen), output in zip(watched.shown, outputs, strict=True):
            for operand in steps_of(torch.from_numpy(output), value.loops):
                reasons |= share.add(sums, seen, operand.numpy())
    return reasons


class _Share:
    """What is taken of one batch, the same of both graphs.

    Args:
        seed: of its draws.
        batch: it.
        total: how many samples there are.
    """

    def __init__(self, seed: int, batch: Batch, total: int) -> None:
        self._seed, self._batch, self._share = seed, batch, batch.count / total
        numbers = {name: each for name, each in batch.feed.items() if each.dtype.kind in "biuf"}
        own = zip(numbers, batch.own(list(numbers.values())), strict=True)
        self._filled = filled_positions((name, torch.from_numpy(each)) for name, each in own)

    def add(
        self,
        sums: Mapping[str, MomentSums],
        uses: Sequence[Seen],
        operand: Array,
        exact: Array | None = None,
        *,
        judged: bool = True,
    ) -> dict[str, str]:
        """Add what weights are multiplied by to the sums of each, once for all that share it.

        Args:
            sums: by weight.
            uses: of weights, whose other operand is `operand`.
            operand: it, of any floating-point type.
            exact: the same in the float graph, where that differs.
            judged: see `VectorSums.of`.

        Returns:
            weights that show no vectors, and why.
        """
        parts: dict[tuple[Hashable, ...], VectorSums | None] = {}
        own = self._batch.own([operand, operand if exact is None else exact])
        both: list[Tensor | None] = [torch.from_numpy(np.asarray(each, np.float32)) for each in own]
        if exact is None or exact is operand or exact.shape != operand.shape:
            both[1] = None
        for each in uses:
            if each.how not in parts:
                with one_thread():
                    found, before = (None if x is None else each.vectors(x, self._draw()) for x in both)
                    parts[each.how] = None if found is None else VectorSums.of(found, before, judged=judged)
            part = parts[each.how]
            if part is not None:
                sums[each.weight.name].add(part)
        return {
            each.weight.name: f"{each.use.kind} shows no vectors that it is multiplied by"
            for each in uses
            if parts[each.how] is None
        }

    def _draw(self) -> Draw:
        return Draw(torch.Generator().manual_seed(self._seed), self._share, self._filled)
