"""A benchmark of robustness with a bar, its report and its tables."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from muquant.base.provenance import provenance
from muquant.data import Dataset
from muquant.robustness import (
    BenchmarkSetup,
    ImageResults,
    ModelReport,
    Report,
    benchmark,
    to_markdown,
    write_images,
    write_report,
)
from muquant.robustness.rendering import words
from muquant_cli.output import Output
from muquant_cli.sources.candidates import Candidate, subjects


def run_bench(
    output: Output,
    candidates: Sequence[Candidate],
    dataset: Dataset,
    setup: BenchmarkSetup,
    out: Path,
    runtimes: Sequence[str] = ("torch", "onnx"),
    policy: str = "auto",
    preprocess: nn.Module | None = None,
    *,
    examples: bool = False,
) -> Report:
    """Run a benchmark with a progress bar, write its report into `out`, and print its tables.

    With `examples` what became of each image is written, too.
    """
    images: list[ImageResults] = []
    _ = setup.attacks(), setup.draw(dataset)  # what cannot be run is refused before anything is exported
    tried = subjects(candidates, runtimes, out / "models", policy, setup.processes, preprocess)
    with output.progress(f"Attacking with {setup.suite}") as update:
        report, pictures = benchmark(
            tried,
            dataset,
            setup,
            provenance=provenance(["muquant", *sys.argv[1:]]),
            on_progress=lambda at: update(
                round(100 * at.share), 100, f"{at.what}: {at.done} of {at.total} images"
            ),
            on_images=images.append if examples else lambda results: None,
        )
    if setup.processes.rank == 0:
        paths = [*write_report(report, pictures, out), *(write_images(images, out) if examples else ())]
        _show(output, report)
        output.say(f"Wrote {', '.join(map(str, paths))}")
    return report


def of_benchmark(report: Report, model: str) -> Iterator[str]:
    """Yield the section of a card about one of the models: the report's own Markdown."""
    models = tuple(each for each in report.models if each.name == model)
    yield to_markdown(replace(report, models=models)).rstrip()


def _show(output: Output, report: Report) -> None:
    """Print the headline, the attacks and the flags."""
    count = report.data["count"]
    aim = f", aimed at {words.aim(report)}" if words.aim(report) else ""
    where = f"{report.norm} {report.epsilon:.4g}{aim}, {count} images of {report.data['name']}"
    standard, proven = words.has_standard(report), words.has_certified(report)
    header = (
        *("model", "runtime", "bits", "clean"),
        *["certified"] * proven,
        *["AA standard"] * standard,
        *("worst case", "95 % interval", "robustness"),
    )
    rows = [_headline(model, standard=standard, proven=proven) for model in report.models]
    output.table(f"Worst case over all attacks, {where}", header, rows)
    for line in words.efforts(report):
        output.say(f"AA standard of {line}")
    for line in filter(None, (words.aimed(report), *words.abstained(report))):
        output.say(line)
    names = list(dict.fromkeys(name for model in report.models for name in model.attacks))
    cells = [(name, *(_cell(model, name) for model in report.models)) for name in names]
    titles = [f"{model.name} ({model.runtime})" for model in report.models]
    output.table("Accuracy under each attack", ("attack", *titles), cells)
    for line in words.corrupted(report):
        output.say(f"Corruptions, which are no attacks: {line}")
    for model in report.models:
        for flag in model.flags:
            output.say(f"{flag.kind}: {model.name} ({model.runtime}): {flag.check}: {flag.explanation}")


def _headline(model: ModelReport, *, standard: bool, proven: bool) -> tuple[str, ...]:
    interval = model.worst_case_interval
    return (
        model.name,
        model.runtime,
        "-" if model.bits is None else f"{model.bits:.3g}",
        f"{model.clean:.2%}",
        *["-" if model.certified is None else f"{model.certified:.2%}"] * proven,
        *["-" if model.aa_standard is None else f"{model.aa_standard:.2%}"] * standard,
        "-" if model.worst_case is None else f"{model.worst_case:.2%}",
        "-" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}",
        model.verdict,
    )


def _cell(model: ModelReport, name: str) -> str:
    attack = model.attacks.get(name)
    if attack is None or attack.accuracy is None:
        return "not available"
    return f"{attack.accuracy:.2%}"
