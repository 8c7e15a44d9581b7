"""Running attacks on one model: batches shared over processes, finished ones kept."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from muquant.attacks import ATTACKS, Attack, AttackResult, Goal, Target, TorchTarget
from muquant.attacks.base import BATCH_SIZE
from muquant.attacks.target import abstains
from muquant.base.processes import Processes
from muquant.data import Dataset
from muquant.models.fingerprint import fingerprint
from muquant.robustness.kept import Witness
from muquant.robustness.store import Store
from muquant.robustness.subject import batched_logits

OnBatch = Callable[[str, int, int], None]
"""(what runs, images done, images in all), after each batch of this process"""


@dataclass(frozen=True, eq=False)
class Sample:
    """The images of a benchmark.

    Attributes:
        images: float32 [N, C, H, W] in [0, 1].
        labels: int64 [N].
        classes: how many there are.
        target_classes: int64 [N], what the images should be taken for; None where any class but the label
            will do.
    """

    images: Tensor
    labels: Tensor
    classes: int
    target_classes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, dataset: Dataset, rows: Tensor) -> "Sample":
        """The images of a data set at these places, int64 [N]."""
        return cls(dataset.inputs(rows), dataset.labels[rows], len(dataset.classes))

    def at(self, rows: Tensor) -> "Sample":
        """Some of the images, int64 [n]."""
        aimed = self.target_classes
        return Sample(
            self.images[rows], self.labels[rows], self.classes, None if aimed is None else aimed[rows]
        )

    def goal(self, target: Target) -> Goal:
        """What attacks on a target want of the images."""
        return Goal(self.labels, self.target_classes, abstains(target))

    def first(self, limit: int | None) -> "Sample":
        """The first so many images, all where `limit` is None."""
        return self if limit is None else self.at(torch.arange(min(limit, len(self))))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of pixels and labels, and of the classes that are aimed at."""
        sha = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        sha.update(self.images.contiguous().numpy().data)
        sha.update(self.labels.contiguous().numpy().data)
        if self.target_classes is not None:
            sha.update(self.target_classes.contiguous().numpy().data)
        return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class Runner:
    """Attacks one target; what it has done before is taken from the store.

    Attributes:
        name: of the target, for progress and file names.
        target: what is attacked.
        digest: names the target in the store: other weights, other digest.
        sample: the images.
        seed: of all attacks.
        store: of finished attacks.
        processes: that share the batches.
        on_batch: called after each batch.
        done: key -> the result of each attack so far.
    """

    name: str
    target: Target
    digest: str
    sample: Sample
    seed: int
    store: Store
    processes: Processes
    on_batch: OnBatch
    done: dict[str, tuple[Attack, AttackResult]] = field(default_factory=dict)

    def run(
        self,
        name: str,
        attack: Attack,
        limit: int | None = None,
        *,
        among: Tensor | None = None,
        seed: int = 0,
    ) -> AttackResult:
        """Attack the first `limit` images of the sample; every process gets the whole result.

        Args:
            name: of the attack, for progress and file names.
            attack: with its parameters.
            limit: None for all images.
            among: bool [limit], the images that are attacked; the others are left alone, as if they were not
                there. None for all.
            seed: added to the runner's.

        Raises:
            InputError: the target, the sample or the attack's parameters do not go together.
        """
        whole, title = self.sample.first(limit), f"{self.name} {name}"
        rows = torch.arange(len(whole)) if among is None else among.nonzero()[:, 0]
        if not len(rows):
            return AttackResult.of_none(whole.images)
        sample = whole if among is None else whole.at(rows)
        key = {
            "target": self.digest,
            "attack": describe(attack),
            "sample": sample.digest,
            "seed": self.seed + seed,
            "batch_size": BATCH_SIZE,
            **({"abstains": True} if abstains(self.target) else {}),
        }
        identity, first = json.dumps({**key, "rows": rows.tolist()}, sort_keys=True), self.processes.rank == 0
        if identity in self.done:
            return self.done[identity][1]
        result = self.processes.share(self._kept(title, key, attack, rows) if first else None)
        if result is None:
            result = self._attack(title, attack, sample, self.seed + seed)
            if first:
                self.store.put(title, key, result)
        self.done[identity] = attack, result.among(whole.images, rows)
        return self.done[identity][1]

    def found(self) -> list[AttackResult]:
        """What the attacks found that look for a worst case: all but corruptions."""
        return [result for attack, result in self.done.values() if not attack.corruption]

    def _kept(self, title: str, key: dict[str, Any], attack: Attack, rows: Tensor) -> AttackResult | None:
        kept = self.store.get(title, key)
        reason = "" if kept is None else self._witness.why_not(kept, attack, rows)
        if reason:
            warnings.warn(f"{title}: the kept result is not used, and made again: {reason}", stacklevel=3)
        return None if reason else kept

    @cached_property
    def _witness(self) -> Witness:
        return Witness(self.target, self.sample.images, self.sample.goal(self.target))

    def _attack(self, title: str, attack: Attack, sample: Sample, seed: int) -> AttackResult:
        total = -(-len(sample) // BATCH_SIZE)
        mine: dict[int, AttackResult] = {}
        for number in range(self.processes.rank, total, self.processes.count):
            rows = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
            part = sample.at(torch.arange(len(sample))[rows])
            mine[number] = attack.attack_batch(
                self.target,
                part.images,
                part.labels,
                target_classes=part.target_classes,
                seed=seed,
                number=number,
            )
            self.on_batch(title, min(rows.stop, len(sample)), len(sample))
        parts = self.processes.gather(mine, total)
        count = self.processes.count
        wall = max(sum(part.seconds for part in parts[rank::count]) for rank in range(count))
        return replace(AttackResult.join(parts), seconds=wall)


def describe(attack: Attack) -> dict[str, Any]:
    """An attack with all its parameters as JSON values; models in it by their fingerprint."""
    name = next((name for name, kind in ATTACKS.items() if kind is type(attack)), type(attack).__name__)
    names = [field.name for field in fields(attack)]  # type: ignore[arg-type]  # every attack is a dataclass
    return {"name": name, **{name: _value(getattr(attack, name)) for name in names}}


def _value(value: object) -> Any:
    if isinstance(value, Attack):
        return describe(value)
    if isinstance(value, TorchTarget):
        digest, space = fingerprint(value.module), value.space
        return f"{digest} {space!r}" if space.bounded or space.normalised else digest
    return value


def replay(target: Target, made: AttackResult, sample: Sample) -> AttackResult:
    """Show adversarial images that were made on another model to `target`.

    Args:
        target: who sees them.
        made: the result on the other model, of all images of `sample`.
        sample: the clean images.

    Returns:
        What it would be had the attack been one on `target`: `attacked` by its own clean predictions,
        `success` where it is fooled by the same image; two queries for each image.
    """
    begin = time.perf_counter()
    with target.ready(), torch.no_grad():
        clean, shown = (batched_logits(target, images) for images in (sample.images, made.adversarial))
    goal = sample.goal(target)
    attacked = goal.right(clean)
    success = attacked & goal.fooled(shown)
    keep = success.float()
    return AttackResult(
        made.adversarial,
        attacked,
        success,
        torch.full_like(sample.labels, 2),
        made.l2 * keep,
        made.linf * keep,
        made.l1 * keep,
        time.perf_counter() - begin,
    )


def predictions(target: Target, images: Tensor) -> Tensor:
    """The classes that a target sees in images [N, ...], int64 [N] on the CPU.

    Where it abstains, that is the number of its last output, which is no class.

    Raises:
        InputError: its output is no logits, or not finite.
    """
    return batched_logits(target, images).argmax(1)
