"""What is proven of a model beside what attacks found, and that the two agree."""

from torch import Tensor

from muquant.base.errors import InputError, naming
from muquant.base.progress import OnProgress
from muquant.certification import certify
from muquant.robustness.assessment import Assessment
from muquant.robustness.runner import Sample
from muquant.robustness.settings import Settings
from muquant.robustness.subject import Subject


def check_certifiable(subject: Subject, sample: Sample, settings: Settings, bound: str) -> None:
    """Refuse what has no bounds, before it is attacked for hours.

    Raises:
        InputError: the norm is not Linf, the bound is unknown, or there is a module of which none are known.
    """
    if settings.norm != "linf":
        raise InputError(
            f"certify: bounds are those of Linf balls, found the norm {settings.norm}; leave it out"
        )
    if subject.module is not None:
        certify(subject.module, sample.images[:1], sample.labels[:1], settings.epsilon, bound=bound)


def certified(
    subject: Subject, sample: Sample, settings: Settings, bound: str, on_progress: OnProgress
) -> Tensor:
    """Return whether each image is proven to keep its class in the headline ball, bool [N]."""
    assert subject.module is not None
    with naming(subject.name):
        return certify(
            subject.module,
            sample.images,
            sample.labels,
            settings.epsilon,
            bound=bound,
            on_progress=on_progress,
        ).certified


def check_against(proven: Tensor, assessment: Assessment, subject: Subject, sample: Sample) -> None:
    """Refuse a proof that an attack has refuted: one of both is wrong.

    Raises:
        InputError: an image is certified that the model sees wrongly, or that an attack fooled.
    """
    wrong = assessment.predicted != sample.labels
    refuted = (proven & (assessment.worst.success | wrong)).nonzero()
    if len(refuted):
        raise InputError(
            f"{subject.name}: image {int(refuted[0])} of the sample is certified, and fooled all the same: a "
            f"fault of muquant's bounds or of its attacks; please report it with the model"
        )
