"""`TrainingConfig`: everything that decides what a run computes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from muquant.base.errors import InputError
from muquant.base.registry import look_up
from muquant.base.values import check_fields, field_values
from muquant.training.augmentations import AUGMENTATIONS
from muquant.training.feedback.config import FeedbackConfig
from muquant.training.optimizers import OPTIMIZERS
from muquant.training.options.adversarial import AdversarialOptions
from muquant.training.options.ibp import IbpOptions
from muquant.training.options.qat import QatOptions
from muquant.training.schedules import SCHEDULES

PRECISIONS = ("float32", "bf16")
KEEP = ("last", "best")

METHOD_OPTIONS: dict[str, type[AdversarialOptions] | type[FeedbackConfig] | type[IbpOptions] | None] = {
    "standard": None,
    "adversarial": AdversarialOptions,
    "feedback": FeedbackConfig,
    "ibp": IbpOptions,
}
"""Training method -> its own options, which `TrainingConfig` has in the field of that name; None where it has
none. `METHODS` of `muquant.training.methods` has the methods themselves."""


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a run; two runs with equal settings, data and software end with equal weights on a CPU.

    Attributes:
        data: a name of `muquant.data.DATASETS`.
        model: a name of `muquant.models.MODELS`.
        method: a name of `METHOD_OPTIONS`.
        epochs: passes over the training part, 1 or more.
        batch_size: images a step, 1 or more. What is left over at the end of an epoch is not used in it.
        optimizer: a name of `OPTIMIZERS`.
        lr: the highest learning rate, above 0.
        weight_decay: 0 or more; on matrices and kernels alone.
        momentum: of "sgd", at least 0 and below 1.
        schedule: a name of `SCHEDULES`.
        warmup: the fraction of the steps in which the learning rate rises, at least 0 and below 1.
        label_smoothing: at least 0 and below 1.
        augment: a name of `AUGMENTATIONS`.
        cutmix: above 0: in every step one rectangle of each image is that of another image of the batch, and
            the loss counts both labels by their areas; the part that stays has a share drawn from
            Beta(cutmix, cutmix), 1 being usual (Yun et al., "CutMix", ICCV 2019). With averaged weights it
            helps adversarial training that goes on for long (Rebuffi et al., "Data Augmentation Can Improve
            Robustness", NeurIPS 2021). None mixes nothing.
        precision: "float32", or "bf16": autocast to bfloat16. On a CPU, bf16 is
            faster only where the processor computes in it (AVX512-BF16 or AMX): with AVX2 alone a step took
            13 times as long.
        seed: of weights, data order, augmentation and the held-out part; 0 or more.
        validation: the fraction of the training split that is held out to validate on, at least 0 and below
            1. The test split is only ever used once, after the last step.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        average: the fraction of the steps, at the end of the run, over which weights are averaged, above 0
            and below 1; validated and kept are the averaged ones. None keeps those of a single step.
        average_decay: what is left of a step's share in the average after each further step, above 0 and
            below 1, such as 0.999: an exponential average. None gives all of these steps the same share.
        keep: "last", the weights after the last step; or "best", those of the epoch after which the held-out
            robust accuracy was highest, or the held-out accuracy where the method measures no robustness.
        compile: run training steps through torch.compile, which needs a C++ compiler, takes a minute first
            and pays on GPUs.
        adversarial: options of the method of that name, completed by defaults; None for other methods.
        feedback: likewise.
        ibp: likewise.
        qat: options of quantization-aware training, completed by what the method needs; None trains in float.

    Raises:
        InputError: a value is of another type or out of range, a name is unknown, or two values contradict.
    """

    data: str = "mnist"
    model: str = "cnn4"
    method: str = "standard"
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: str = "one-cycle"
    warmup: float = 0.2
    label_smoothing: float = 0.0
    augment: str = "shift"
    cutmix: float | None = None
    precision: str = "float32"
    seed: int = 0
    validation: float = 0.1
    device: str = "auto"
    average: float | None = None
    average_decay: float | None = None
    keep: str = "last"
    compile: bool = False
    adversarial: AdversarialOptions | None = None
    feedback: FeedbackConfig | None = None
    ibp: IbpOptions | None = None
    qat: QatOptions | None = None

    def __post_init__(self) -> None:
        check_fields(self, _RANGES, "training option")
        look_up("method", self.method, METHOD_OPTIONS)
        look_up("optimizer", self.optimizer, OPTIMIZERS)
        look_up("schedule", self.schedule, SCHEDULES)
        look_up("augmentation", self.augment, AUGMENTATIONS)
        look_up("precision", self.precision, dict.fromkeys(PRECISIONS))
        look_up("weights to keep", self.keep, dict.fromkeys(KEEP))
        if self.average_decay is not None and self.average is None:
            raise InputError("training option average_decay: nothing is averaged; give average as well")
        if self.cutmix is not None and self.method == "ibp":
            raise InputError(
                "training option cutmix: certified training bounds the margins of one label; leave it out, "
                "or choose another method"
            )
        if self.keep == "best" and self.validation == 0:
            raise InputError("training option keep: best is judged on held-out images; give a validation")
        if self.qat is not None:
            object.__setattr__(self, "qat", self.qat.complete(self.method))
        for name, kind in METHOD_OPTIONS.items():
            if kind is None:
                continue
            given: AdversarialOptions | FeedbackConfig | IbpOptions | None = getattr(self, name)
            if name == self.method:
                object.__setattr__(self, name, (given or kind()).complete(self.data, self.epochs))
            elif given is not None:
                raise InputError(
                    f"options of {name} training with method {self.method}, which has none of them; leave "
                    f"them out, or choose method {name}"
                )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; `from_dict` turns them back."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # tuples become lists
        return document

    @classmethod
    def from_dict(cls, document: object) -> "TrainingConfig":
        """Read what `to_dict` wrote, from a source that is not trusted.

        Raises:
            InputError: a field is missing, unknown, of another type or out of range. What is None by default
                may be missing: runs from before there was such an option have none.
        """
        if isinstance(document, Mapping):
            document = {**{each.name: None for each in fields(cls) if each.default is None}, **document}
        values = field_values(cls, document, "training options")
        for name, kind in {**METHOD_OPTIONS, "qat": QatOptions}.items():
            if kind is not None and values[name] is not None:
                values[name] = kind.from_dict(values[name])
        return cls(**values)


_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 1e6),
    "batch_size": (1, 1e6),
    "lr": (1e-12, 1e3),
    "weight_decay": (0, 1e3),
    "momentum": (0, 1),
    "warmup": (0, 1),
    "label_smoothing": (0, 1),
    "cutmix": (1e-3, 1e3),
    "average": (1e-12, 1),
    "average_decay": (1e-12, 1),
    "seed": (0, 2**63),
    "validation": (0, 1),
}
