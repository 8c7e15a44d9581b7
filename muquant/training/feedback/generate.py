"""`generate`: the examples of one round of feedback learning (Song, Fallon, Li, AAAI 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from muquant.attacks.norms import per_image
from muquant.base.errors import InputError
from muquant.base.progress import OnProgress
from muquant.base.seeds import generator_for
from muquant.data import Dataset
from muquant.models.evaluation import logits
from muquant.training.feedback.config import FeedbackConfig
from muquant.training.feedback.directions import DIRECTIONS
from muquant.training.feedback.levels import class_levels
from muquant.training.feedback.margins import BATCH_SIZE, margins
from muquant.training.feedback.round import FeedbackRound

SAMPLES_AT_ONCE = 32
"""Their directions are in memory together: 20 MB on MNIST, 80 MB on CIFAR-10."""


def generate(
    model: nn.Module,
    dataset: Dataset,
    config: FeedbackConfig,
    seed: int,
    number: int,
    *,
    on_progress: OnProgress | None = None,
    batch_size: int = BATCH_SIZE,
) -> FeedbackRound:
    """Make examples beyond the decision boundary, most of them for the classes that are the least robust.

    Samples of each class are drawn at random from those that the model classifies correctly. The first of
    them tell how robust the class is, and so how many of them are seeds. In the directions in which a seed
    is closest to the boundary, examples are placed beyond it; they keep the seed's label. A class with fewer
    correctly classified images than are asked of it gives all of them.

    The same model, data, configuration, seed and number make the same round, whatever the batch size, but
    for the rounding of the model's outputs. On a CPU the model is fastest in the memory format channels_last.

    Args:
        model: takes float32 [M, C, H, W] in [0, 1]; in evaluation mode meanwhile.
        dataset: has the seed samples.
        config: the numbers.
        seed: of all randomness, together with `number`.
        number: of the round; another one draws other samples and directions.
        on_progress: called with samples searched and samples in all after every few of them; the latter falls
            once the levels of the classes are known.
        batch_size: images that the model is shown at a time.

    Raises:
        InputError: a class has no images, or the model's outputs cannot be used.
    """
    search = _Search(model, dataset, config, seed, number, batch_size)
    most = max(config.high_samples, config.medium_samples, config.low_samples, config.robustness_samples)
    drawn = [search.draw(label, most) for label in range(len(dataset.classes))]
    judged = [samples[: config.robustness_samples] for samples in drawn]
    found = search.run(torch.cat(judged), config.nearest, on_progress, 0, sum(map(len, drawn)))
    class_margins = _medians(judged, found)
    levels = class_levels(class_margins, config)
    chosen = [samples[: config.samples(level)] for samples, level in zip(drawn, levels, strict=True)]
    rest = torch.cat([samples[config.robustness_samples :] for samples in chosen])
    found |= search.run(rest, config.nearest, on_progress, len(found), len(found) + len(rest))
    sources = torch.cat(chosen)
    seeds = [found[index] for index in sources.tolist()]
    counts = torch.tensor([len(seed.margins) for seed in seeds], dtype=torch.int64)
    sources = sources.repeat_interleave(counts)
    return FeedbackRound(
        number=number,
        images=torch.cat([dataset.images[:0], *(seed.images for seed in seeds)]),
        labels=dataset.labels[sources],
        sources=sources,
        margins=torch.cat([torch.empty(0), *(seed.margins for seed in seeds)]),
        factors=torch.cat([torch.empty(0), *(seed.factors for seed in seeds)]),
        class_margins=class_margins,
        levels=levels,
        forwards=search.forwards,
    )


def measure_class_margins(
    model: nn.Module,
    dataset: Dataset,
    config: FeedbackConfig,
    seed: int,
    number: int,
    *,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """The `class_margins` of the round that `generate` would make, float32 [classes], and nothing else.

    Raises:
        InputError: as `generate`.
    """
    search = _Search(model, dataset, config, seed, number, batch_size)
    judged = [search.draw(label, config.robustness_samples) for label in range(len(dataset.classes))]
    return _medians(judged, search.run(torch.cat(judged), keep=1))


@dataclass(frozen=True, eq=False)
class _Seed:
    """A sample that was searched: its smallest margin, and an example for each usable one of the nearest."""

    smallest: float
    images: Tensor
    margins: Tensor
    factors: Tensor


@dataclass(eq=False)
class _Search:
    model: nn.Module
    dataset: Dataset
    config: FeedbackConfig
    seed: int
    number: int
    batch_size: int
    forwards: int = 0

    def draw(self, label: int, most: int) -> Tensor:
        """Up to `most` correctly classified images of a class, in random order: places in the data set."""
        members = (self.dataset.labels == label).nonzero()[:, 0]
        if not len(members):
            raise InputError(
                f"feedback learning on {self.dataset.name} ({self.dataset.split}): expected images of every "
                f"class, found none of {self.dataset.classes[label]!r}; add some, or remove the class"
            )
        order = torch.randperm(len(members), generator=self._generator("samples", label))
        right, count = [], 0
        for start in range(0, len(members), most):
            part = members[order[start : start + most]]
            predicted = logits(self.model, self.dataset.subset(part), batch_size=self.batch_size).argmax(1)
            right.append(part[predicted == label])
            self.forwards += len(part)
            count += len(right[-1])
            if count >= most:
                break
        return torch.cat(right)[:most]

    def run(
        self,
        samples: Tensor,
        keep: int,
        on_progress: OnProgress | None = None,
        done: int = 0,
        total: int = 0,
    ) -> dict[int, _Seed]:
        """Search the margins of samples; the progress begins at `done` of `total`."""
        kind = DIRECTIONS[self.config.direction_kind](self.dataset)
        found: dict[int, _Seed] = {}
        for start in range(0, len(samples), SAMPLES_AT_ONCE):
            part = samples[start : start + SAMPLES_AT_ONCE]
            generators = [self._generator("directions", index) for index in part.tolist()]
            images, labels = self.dataset.inputs(part), self.dataset.labels[part]
            directions = kind(images, labels, self.config.directions, generators)
            nearest = margins(
                self.model,
                images,
                labels,
                directions,
                keep=keep,
                cap=self.config.cap,
                bisections=self.config.bisections,
                batch_size=self.batch_size,
            )
            self.forwards += int(nearest.forwards.sum())
            for place, index in enumerate(part.tolist()):
                towards = directions[place, nearest.rays[place]]
                found[index] = self._place(images[place], nearest.values[place], towards, generators[place])
            if on_progress is not None:
                on_progress(done + len(found), total)
        return found

    def _place(self, image: Tensor, values: Tensor, directions: Tensor, generator: Generator) -> _Seed:
        """Examples of one sample, rounded to grey levels like the images of the data set."""
        spread = self.config.placed_to - self.config.placed_from
        factors = self.config.placed_from + spread * torch.rand(len(values), generator=generator)
        usable = (values > 0) & values.isfinite()
        distance = per_image((factors * values)[usable], directions)
        images = (image + distance * directions[usable]).clamp_(0, 1)
        levels = images.mul_(255).round_().to(torch.uint8)
        return _Seed(float(values[0]), levels, values[usable], factors[usable])

    def _generator(self, purpose: str, index: int) -> Generator:
        return generator_for(self.seed, f"feedback {purpose}, round {self.number}", index)


def _medians(judged: Sequence[Tensor], found: dict[int, _Seed]) -> Tensor:
    """For each class the median of its samples' smallest margins, the lower one of two; 0 without samples."""
    smallest = [torch.tensor([found[index].smallest for index in part.tolist()]) for part in judged]
    return torch.stack([values.median() if len(values) else torch.tensor(0.0) for values in smallest])
