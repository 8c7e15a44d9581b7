"""The report as data. `Report.to_dict` is the JSON document; REPORT.md documents every field."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

SCHEMA = "muquant.robustness/1"

Verdict = Literal["established", "not established", "not assessed"]


@dataclass(frozen=True)
class AttackReport:
    """One attack on one model.

    Attributes:
        source: "attack": run on this model; "replay": examples made on the PyTorch model were shown to it;
            "not available": it needs gradients, and there is no PyTorch model.
        corruption: it is no search for a worst case, and not part of it.
        parameters: the attack's name and all its parameters.
        count: images attacked.
        accuracy: 0..1, of those images; None where not available.
        interval: 95 % interval of the accuracy.
        norm: of the attack's threat.
        epsilon: radius of the attack's threat, or the L2 distance at which the accuracy is stated; None for
            any distance.
        median_l2: median over the attacked images of the L2 distance at which they were fooled, those that
            were not counting as infinitely far; None where it is infinite.
        median_linf: likewise in Linf.
        median_l1: likewise in L1.
        queries: forward passes of the model, of all images together.
        seconds: wall time.
        agreement: of a replay, the fraction of adversarial images that both runtimes give the same class;
            None where there is none.
        after: the attacks on whose survivors it was run; accuracy counts what these fooled, too.
    """

    source: Literal["attack", "replay", "not available"]
    corruption: bool
    parameters: Mapping[str, Any]
    count: int
    accuracy: float | None
    interval: tuple[float, float] | None
    norm: str
    epsilon: float | None
    median_l2: float | None
    median_linf: float | None
    median_l1: float | None
    queries: int
    seconds: float
    agreement: float | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class AccuracyCurve:
    """Accuracy against epsilon.

    Attributes:
        attack: in words.
        norm: of epsilon.
        count: images.
        epsilon: rising, from 0.
        accuracy: 0..1, for each epsilon.
    """

    attack: str
    norm: str
    count: int
    epsilon: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class CorruptionReport:
    """Accuracy under corruptions, which look for no worst case.

    Attributes:
        library: that computed them, with its version.
        count: images.
        mean: accuracy over all kinds and severities, 0..1.
        interval: its 95 % interval, by how the images differ.
        accuracy: kind -> 0..1 at severity 1 to 5.
    """

    library: str
    count: int
    mean: float
    interval: tuple[float, float]
    accuracy: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class CheckReport:
    """What a masking check found; `fired` where value exceeds threshold."""

    check: str
    kind: str
    fired: bool
    value: float
    threshold: float
    explanation: str


def all_proven(certified: float | None, worst_case: float | None) -> bool:
    """Whether attacks left something, and bounds prove all of it: they never prove more than what is left."""
    return bool(certified) and certified == worst_case


@dataclass(frozen=True)
class ModelReport:
    """One model under one runtime.

    Attributes:
        name: of the model.
        runtime: "torch" or "onnx".
        bits: of a compressed weight, on average; 32 for a float model; None where unknown.
        nbytes: of the deployed file; None where there is none.
        clean: accuracy on the clean images, 0..1.
        clean_interval: its 95 % interval.
        worst_case: fraction of the images that every attack left correctly classified, counting each example
            inside the headline threat whatever attack made it; None where no attack is available.
        worst_case_interval: its 95 % interval.
        aa_standard: fraction of the images that AutoAttack's standard version left; None where the suite does
            not hold it, or part of it was not available.
        aa_standard_interval: its 95 % interval.
        certified: fraction of the images that no attack can turn, as bounds prove: at most `worst_case`; None
            where nobody asked, and under "onnx", whose kernels bounds know nothing of.
        certified_interval: its 95 % interval.
        agreement: fraction of clean images that both runtimes give the same class; None under "torch".
        attacks: by name, in the order in which they ran.
        curves: accuracy against epsilon.
        checks: all masking checks that applied.
        verdict: "not established" where a disqualifying check fired, "not assessed" where white-box attacks
            were not available, or attacks aimed at classes; "established" otherwise, and where bounds prove
            of every image that attacks left that no other attack can turn it.
        seconds: wall time of all attacks and checks.
        abstained: fraction of the clean images on which the model abstains, which are not right then, as an
            adversarial one is not fooled; None where it cannot.
        corruptions: accuracy under corruptions, apart from attacks; None where nobody asked.
    """

    name: str
    runtime: Literal["torch", "onnx"]
    bits: float | None
    nbytes: int | None
    clean: float
    clean_interval: tuple[float, float]
    worst_case: float | None
    worst_case_interval: tuple[float, float] | None
    aa_standard: float | None
    aa_standard_interval: tuple[float, float] | None
    certified: float | None
    certified_interval: tuple[float, float] | None
    agreement: float | None
    attacks: Mapping[str, AttackReport]
    curves: tuple[AccuracyCurve, ...]
    checks: tuple[CheckReport, ...]
    verdict: Verdict
    seconds: float
    abstained: float | None = None
    corruptions: CorruptionReport | None = None

    @property
    def flags(self) -> tuple[CheckReport, ...]:
        """The checks that fired."""
        return tuple(check for check in self.checks if check.fired)


@dataclass(frozen=True)
class Report:
    """The outcome of a benchmark.

    Attributes:
        suite: its name.
        norm: of the headline threat.
        epsilon: of the headline threat.
        seed: of all attacks.
        processes: that shared the work.
        eot: passes over whose mean logits every model was attacked and judged.
        data: {name, split, count, indices, digest}: the sample; indices are places in the split.
        models: one for each model and runtime.
        provenance: {command, versions, date, ...}.
        target_class: what attacks aimed at, the number of a class or a name of `AIMS`, and nothing else
            counts as fooled; None where any class but the label does.
    """

    suite: str
    norm: str
    epsilon: float
    seed: int
    processes: int
    eot: int
    data: Mapping[str, Any]
    models: tuple[ModelReport, ...]
    provenance: Mapping[str, Any]
    target_class: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "schema": SCHEMA,
            **self.provenance,
            "suite": self.suite,
            "seed": self.seed,
            "processes": self.processes,
            "eot": self.eot,
            "threat": {"norm": self.norm, "epsilon": self.epsilon, "target_class": self.target_class},
            "data": dict(self.data),
            "models": [
                {**asdict(model), "flags": [asdict(flag) for flag in model.flags]} for model in self.models
            ],
        }


@dataclass(frozen=True, eq=False)
class Picture:
    """One image under attack, for the picture grid.

    Attributes:
        model: name of the model.
        attack: name of the attack.
        index: of the image in the split.
        label: class name of the true class.
        seen_clean: class name that the model sees in the clean image.
        seen: class name that it sees in the perturbed one.
        clean: float32 [C, H, W] in [0, 1].
        perturbed: likewise.
        l2: distance.
        linf: distance.
    """

    model: str
    attack: str
    index: int
    label: str
    seen_clean: str
    seen: str
    clean: Tensor
    perturbed: Tensor
    l2: float
    linf: float
