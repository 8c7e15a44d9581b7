"""`benchmark`: a suite of attacks and all masking checks on several models side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muquant.attacks import Target
from muquant.base.errors import InputError, naming
from muquant.base.processes import Processes
from muquant.base.seeds import generator_for
from muquant.data import Dataset
from muquant.robustness.aims import aimed, fixed_class
from muquant.robustness.assessment import Assessment, assess_session, assess_torch
from muquant.robustness.certified import certified, check_against, check_certifiable
from muquant.robustness.corruptions import check_corruptible, under_corruptions
from muquant.robustness.images import ImageResults, image_results
from muquant.robustness.own import read_suite
from muquant.robustness.progress import Meter, OnBenchmarkProgress, work
from muquant.robustness.report import CorruptionReport, ModelReport, Picture, Report
from muquant.robustness.runner import Runner, Sample
from muquant.robustness.settings import Settings
from muquant.robustness.store import Store
from muquant.robustness.subject import Subject
from muquant.robustness.suites import SuiteAttack
from muquant.robustness.summary import pictures, summarize


@dataclass(frozen=True, eq=False)
class BenchmarkSetup:
    """What is run, and how.

    Attributes:
        suite: a name of `SUITES`, or attacks by name with their settings, see `read_suite`.
        settings: the suite's numbers.
        limit: images, drawn from the data set without replacement; None for all.
        seed: of the draw and of all attacks.
        surrogate: a differentiable model of the same classes, for transfer attacks; None for none.
        folder: where finished attacks are kept, for a benchmark that is interrupted; None keeps nothing.
        processes: that share the work.
        eot: passes over whose mean logits a model that draws numbers is attacked and judged; 1 for models
            that draw none.
        certify: a name of `BOUNDS` by which images are proven to withstand any attack; "" proves nothing.
        target_class: what all attacks aim at, and nothing else counts as fooled: the number of a class, whose
            own images are not drawn, or a name of `AIMS`; "" where any class but the label counts.
        reject: models with one output more than there are classes abstain by the last one: that is not right
            for a clean image, and not fooled for an adversarial one.
        corruptions: of `CORRUPTIONS`, under which accuracy is stated, too, apart from attacks.

    Raises:
        InputError: `eot` is below 1.
    """

    suite: str
    settings: Settings
    limit: int | None = 1000
    seed: int = 0
    surrogate: Target | None = None
    folder: Path | None = None
    processes: Processes = field(default_factory=Processes)
    eot: int = 1
    certify: str = ""
    target_class: str = ""
    reject: bool = False
    corruptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.eot < 1:
            raise InputError(f"eot: expected 1 pass or more, found {self.eot}")

    def attacks(self) -> list[SuiteAttack]:
        """What the suite runs.

        Raises:
            InputError: there is no such suite or attack, or it cannot be run with these numbers.
        """
        return read_suite(self.suite)(self.settings, self.surrogate)

    def draw(self, dataset: Dataset) -> Tensor:
        """Places of the images in a data set, rising, int64 [limit].

        Raises:
            InputError: the data set has fewer images than the limit, or no such class to aim at.
        """
        aim = fixed_class(self.target_class, len(dataset.classes))
        places = torch.arange(len(dataset)) if aim is None else (dataset.labels != aim).nonzero()[:, 0]
        limit = len(places) if self.limit is None else self.limit
        if not 1 <= limit <= len(places):
            others = "" if aim is None else f" of other classes than {aim}"
            raise InputError(
                f"limit: expected 1 to {len(places)}, the images of {dataset.name} ({dataset.split})"
                f"{others}, found {limit}"
            )
        order = torch.randperm(len(places), generator=generator_for(self.seed, "sample"))
        return places[order[:limit]].sort().values


def benchmark(
    subjects: Sequence[Subject],
    dataset: Dataset,
    setup: BenchmarkSetup,
    *,
    provenance: Mapping[str, Any] | None = None,
    on_progress: OnBenchmarkProgress = lambda progress: None,
    on_images: Callable[[ImageResults], None] = lambda results: None,
) -> tuple[Report, list[Picture]]:
    """Attack every subject, in PyTorch and under onnxruntime, as far as it has either.

    Args:
        subjects: the models, with different names.
        dataset: from which the images are drawn.
        setup: what is run.
        provenance: what else the report should state, such as command and versions.
        on_progress: called after each batch of this process.
        on_images: called with what became of each image, once for each subject and runtime.

    Returns:
        The report, with one entry for each subject and runtime, and pictures of attacks.

    Raises:
        InputError: the suite is unknown, the data set is smaller than the limit, or a model does not take its
            images or has other classes.
    """
    suite, indices = setup.attacks(), setup.draw(dataset)
    drawn, places = Sample.of(dataset, indices), dataset.places(indices)
    subjects = [subject.averaged(setup.eot) for subject in subjects]
    if setup.reject:
        subjects = _abstaining(subjects, drawn)
    _check(subjects, drawn, setup)
    if setup.corruptions:
        check_corruptible(drawn)
    store = Store(setup.folder)
    meter = Meter(_work(subjects, suite, len(drawn)), on_progress)
    reports: list[ModelReport] = []
    shown: list[Picture] = []

    def take(found: Assessment, sample: Sample) -> None:
        on_images(image_results(reports[-1], found, sample, places, setup.settings.threat))

    corrupted = _under_corruptions(subjects, drawn, setup, meter)
    for subject in subjects:
        twin = verdict = None

        module, session = subject.torch_target(), subject.onnx_target()
        sample = _aimed(drawn, module or session, setup)

        def runner(
            runtime: str, target: Target, subject: Subject = subject, sample: Sample = sample
        ) -> Runner:
            digest, title = subject.digest(runtime), f"{subject.name} ({runtime})"
            return Runner(title, target, digest, sample, setup.seed, store, setup.processes, meter)

        if module is not None:
            proven = _proven(subject, sample, setup, meter)
            found = assess_torch(module.module, runner("torch", module), suite, setup.settings)
            if proven is not None:
                check_against(proven, found, subject, sample)
            reports.append(
                summarize(
                    subject, found, sample, proven=proven, corruptions=corrupted.get((subject.name, "torch"))
                )
            )
            verdict = reports[-1].verdict
            take(found, sample)
            shown += pictures(subject, found, sample, dataset.classes, places.tolist())
            twin = (module, found)
        if session is not None:
            found = assess_session(runner("onnx", session), suite, setup.settings, twin)
            reports.append(
                summarize(
                    subject,
                    found,
                    sample,
                    None if twin is None else twin[1],
                    verdict=verdict,
                    runtime="onnx",
                    corruptions=corrupted.get((subject.name, "onnx")),
                )
            )
            take(found, sample)

    report = Report(
        suite=setup.suite,
        norm=setup.settings.norm,
        epsilon=setup.settings.epsilon,
        seed=setup.seed,
        processes=setup.processes.count,
        eot=setup.eot,
        data={
            "name": dataset.name,
            "split": dataset.split,
            "count": len(drawn),
            "indices": places.tolist(),
            "digest": drawn.digest,
        },
        models=tuple(reports),
        provenance=provenance or {},
        target_class=setup.target_class or None,
    )
    return report, shown


def _work(
    subjects: Sequence[Subject], suite: Sequence[SuiteAttack], count: int
) -> Iterator[tuple[str, float]]:
    """Title and work of everything that is attacked; what is replayed costs nothing."""
    for subject in subjects:
        for runtime in subject.runtimes:
            for each in suite:
                if runtime == "torch" or not each.attack.needs_gradients:
                    yield f"{subject.name} ({runtime}) {each.name}", work(each, count)


def _proven(subject: Subject, sample: Sample, setup: BenchmarkSetup, meter: Meter) -> Tensor | None:
    """Which images of the sample are certified, where that is asked for: the first process finds out."""
    if not setup.certify:
        return None
    title, proven = f"{subject.name} {setup.certify}", None
    if setup.processes.rank == 0:
        proven = certified(subject, sample, setup.settings, setup.certify, partial(meter, title))
    return setup.processes.share(proven)


def _under_corruptions(
    subjects: Sequence[Subject], sample: Sample, setup: BenchmarkSetup, meter: Meter
) -> dict[tuple[str, str], CorruptionReport]:
    """Name and runtime -> how accurate each model is under the corruptions that were asked for."""
    if not setup.corruptions:
        return {}
    targets: dict[tuple[str, str], Target] = {}
    for subject in subjects:
        for runtime, target in (("torch", subject.torch_target()), ("onnx", subject.onnx_target())):
            if target is not None:
                targets[subject.name, runtime] = target
    return under_corruptions(targets, sample, setup.corruptions, setup.seed, setup.processes, meter)


def _aimed(sample: Sample, target: Target | None, setup: BenchmarkSetup) -> Sample:
    """The sample with the classes that attacks on a model aim at, the same in all processes."""
    if target is None or not setup.target_class:
        return sample
    first = setup.processes.rank == 0
    found = aimed(sample, setup.target_class, target, setup.seed).target_classes if first else None
    return replace(sample, target_classes=setup.processes.share(found))


def _abstaining(subjects: Sequence[Subject], sample: Sample) -> list[Subject]:
    """The same models; those with an output more than there are classes abstain by it."""
    counts = [subject.outputs(sample.images[:2]) for subject in subjects]
    more = sample.classes + 1
    if not any(more in found for found in counts):
        raise InputError(
            f"reject: expected a model with {more} outputs, the last of which abstains, found "
            f"{sorted({count for found in counts for count in found})}; leave it out"
        )
    return [replace(subject, abstains=more in found) for subject, found in zip(subjects, counts, strict=True)]


def _check(subjects: Sequence[Subject], sample: Sample, setup: BenchmarkSetup) -> None:
    """Refuse models that do not take the images, before the first of them is attacked for an hour."""
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        raise InputError(f"models: expected one or more with different names, found {names}; name them apart")
    for subject in subjects:
        with naming(subject.name):
            subject.check(sample.images[:2], sample.classes)
            if setup.certify:
                check_certifiable(subject, sample, setup.settings, setup.certify)
