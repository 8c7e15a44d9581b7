"""From what was found to what is reported."""

from typing import Literal

import torch

from muquant.attacks import AttackResult
from muquant.robustness.assessment import Assessment, Entry
from muquant.robustness.report import (
    AttackReport,
    CheckReport,
    CorruptionReport,
    ModelReport,
    Picture,
    Verdict,
    all_proven,
)
from muquant.robustness.runner import Sample, describe
from muquant.robustness.statistics import median, wilson
from muquant.robustness.subject import Subject
from muquant.robustness.suites import standard_version
from muquant.robustness.sweep import curves

PICTURES = 2
"""Pictures of each attack on each model."""


def summarize(
    subject: Subject,
    assessment: Assessment,
    sample: Sample,
    twin: Assessment | None = None,
    proven: torch.Tensor | None = None,
    *,
    verdict: Verdict | None = None,
    runtime: Literal["torch", "onnx"] = "torch",
    corruptions: CorruptionReport | None = None,
) -> ModelReport:
    """The report on one model under one runtime.

    Args:
        subject: the model.
        assessment: what was found on it.
        sample: the images.
        twin: what was found in PyTorch, for a report under onnxruntime.
        proven: which images are certified, bool [N]; None where nobody asked.
        verdict: that on the PyTorch model, for a report under onnxruntime.
        runtime: where it was tried.
        corruptions: how accurate it is under these; None where nobody asked.
    """
    correct = assessment.predicted == sample.labels
    abstained = assessment.predicted == sample.classes
    survived = correct & ~assessment.worst.success
    available = [
        entry for entry in assessment.entries if entry.outcome and not entry.suite_attack.attack.corruption
    ]
    standard = _standard_version(assessment) if sample.target_classes is None else None
    checks = tuple(
        CheckReport(
            check.name, check.kind, finding.fired, finding.value, finding.threshold, finding.explanation
        )
        for check, finding in assessment.findings
    )
    worst_case = float(survived.double().mean()) if available else None
    certified = None if proven is None else float(proven.double().mean())
    return ModelReport(
        name=subject.name,
        runtime=runtime,
        bits=subject.bits,
        nbytes=subject.nbytes,
        clean=float(correct.double().mean()),
        clean_interval=wilson(int(correct.sum()), len(sample)),
        worst_case=worst_case,
        worst_case_interval=wilson(int(survived.sum()), len(sample)) if available else None,
        aa_standard=None if standard is None else standard.accuracy,
        aa_standard_interval=None if standard is None else standard.interval,
        certified=certified,
        certified_interval=None if proven is None else wilson(int(proven.sum()), len(sample)),
        agreement=None if twin is None else float((twin.predicted == assessment.predicted).double().mean()),
        attacks={entry.suite_attack.name: report_attack(entry) for entry in assessment.entries},
        curves=() if assessment.evidence is None else curves(assessment.evidence),
        checks=checks,
        verdict=verdict or _verdict(assessment, all_proven(certified, worst_case)),
        seconds=assessment.seconds,
        abstained=float(abstained.double().mean()) if subject.abstains else None,
        corruptions=corruptions,
    )


def report_attack(entry: Entry) -> AttackReport:
    """The report on one attack."""
    suite_attack, threat = entry.suite_attack, entry.suite_attack.attack.threat
    radius = threat.radius if suite_attack.bound is None else suite_attack.bound
    if entry.outcome is None:
        return AttackReport(
            "not available",
            False,
            describe(suite_attack.attack),
            0,
            None,
            None,
            threat.norm,
            radius,
            None,
            None,
            None,
            0,
            0.0,
            after=suite_attack.after,
        )
    result, withstood = entry.outcome.result, entry.outcome.withstood
    return AttackReport(
        source="replay" if entry.replayed else "attack",
        corruption=suite_attack.attack.corruption,
        parameters=describe(suite_attack.attack),
        count=len(withstood),
        accuracy=float(withstood.double().mean()),
        interval=wilson(int(withstood.sum()), len(withstood)),
        norm=threat.norm,
        epsilon=radius,
        median_l2=_median_distance(result, result.l2),
        median_linf=_median_distance(result, result.linf),
        median_l1=_median_distance(result, result.l1),
        queries=int(result.queries.sum()),
        seconds=result.seconds,
        agreement=entry.agreement,
        after=suite_attack.after,
    )


def _standard_version(assessment: Assessment) -> AttackReport | None:
    """The last attack of AutoAttack's standard version, where all of it was run as its authors do."""
    threat = assessment.threat
    assert threat.radius is not None
    wanted = standard_version(threat.radius, threat.norm)
    found = [entry for entry in assessment.entries if entry.outcome is not None]
    chain = [entry for entry in found if entry.suite_attack in wanted]
    return report_attack(chain[-1]) if len(chain) == len(wanted) else None


def _median_distance(result: AttackResult, distance: torch.Tensor) -> float | None:
    return median(torch.where(result.success, distance, torch.inf)[result.attacked])


def _verdict(assessment: Assessment, established: bool) -> Verdict:
    if established:
        return "established"
    if assessment.evidence is None:
        return "not assessed"
    fired = any(check.kind == "disqualifying" and finding.fired for check, finding in assessment.findings)
    return "not established" if fired else "established"


def pictures(
    subject: Subject, assessment: Assessment, sample: Sample, names: tuple[str, ...], indices: list[int]
) -> list[Picture]:
    """The first images that each attack fooled, for a model in PyTorch.

    Args:
        subject: the model.
        assessment: what was found on it.
        sample: the images.
        names: of the classes.
        indices: of the sample's images in the split.
    """
    target = subject.torch_target()
    assert target is not None
    found = []
    for entry in assessment.entries:
        if entry.outcome is None:
            continue
        result = entry.outcome.result
        rows = result.success.nonzero()[:PICTURES, 0]
        if not len(rows):
            continue
        with target.ready(), torch.no_grad():
            seen = target.logits(result.adversarial[rows].to(target.device)).argmax(1)
        for row, label in zip(rows.tolist(), seen.tolist(), strict=True):
            found.append(
                Picture(
                    model=subject.name,
                    attack=entry.suite_attack.name,
                    index=indices[row],
                    label=names[int(sample.labels[row])],
                    seen_clean=names[int(assessment.predicted[row])],
                    seen=names[label],
                    clean=sample.images[row],
                    perturbed=result.adversarial[row],
                    l2=float(result.l2[row]),
                    linf=float(result.linf[row]),
                )
            )
    return found
