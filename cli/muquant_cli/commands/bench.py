"""`muquant bench`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from muquant.attacks import TorchTarget
from muquant.base.devices import find_device
from muquant.base.errors import InputError, naming
from muquant.base.provenance import provenance
from muquant.data import Dataset, load_dataset
from muquant.robustness import (
    SUITES,
    BenchmarkSetup,
    ModelReport,
    Report,
    benchmark,
    join_processes,
    settings_for,
    write_report,
)
from muquant.training import load_run
from muquant_cli.options.common import module_option, policy_option, root_option
from muquant_cli.output import FAILED, Output, command
from muquant_cli.sources.candidates import Candidate, read_candidates, subjects

_LIMIT = 1000
_FAIL_ON = {"never": (), "disqualifying": ("disqualifying",), "any": ("disqualifying", "advisory")}


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@click.option("--data", required=True, help="Data set whose test images are attacked.")
@click.option("--suite", type=click.Choice(list(SUITES)), default="standard", help="Which attacks.")
@click.option("--runtime", default="torch,onnx", metavar="torch,onnx", help="Where the models run.")
@click.option(
    "--limit",
    type=int,
    help=f"Images, drawn from the test split; 0 for all.  [default: {_LIMIT}, or all where there are fewer]",
)
@click.option("--epsilon", metavar="NUMBER", help='Radius, such as 0.3 or "8/255".  [default: by data set]')
@click.option("--norm", type=click.Choice(["linf", "l2"]), help="Norm of epsilon.  [default: linf]")
@click.option("--surrogate", type=click.Path(path_type=Path), help="Run folder of a model to transfer from.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the draw and of all attacks.")
@click.option(
    "-o",
    "--out",
    default="report",
    type=click.Path(path_type=Path),
    help="Folder of the report; finished attacks are kept there, and an interrupted benchmark goes on.",
)
@click.option("--device", default="auto", help="auto, cpu or cuda.")
@click.option(
    "--fail-on",
    type=click.Choice(list(_FAIL_ON)),
    default="never",
    help="Which flags make the exit status 1.",
)
@click.option("--download", is_flag=True, help="Fetch the data set where it is missing.")
@module_option
@policy_option
@root_option
@command
def bench(
    output: Output,
    models: tuple[str, ...],
    data: str,
    suite: str,
    runtime: str,
    limit: int | None,
    epsilon: str | None,
    norm: str | None,
    surrogate: Path | None,
    seed: int,
    out: Path,
    device: str,
    fail_on: str,
    download: bool,
    module: str | None,
    policy: str,
    root: Path | None,
) -> None:
    """Attack MODELs side by side, and tell how far the figures can be believed.

    A MODEL is a SOURCE as for `compress`, a .mq or an .onnx file. PyTorch models are attacked white-box;
    their exported files run under onnxruntime beside them. An .onnx file of a .mq that is named too counts as
    that model's file. Under `torchrun --nproc-per-node N -m muquant_cli bench ...` the work is shared by N
    processes.
    """
    runtimes = _runtimes(runtime)
    settings = settings_for(data, epsilon, norm)  # type: ignore[arg-type]  # click's choices are the norms
    place = find_device(device)
    dataset = load_dataset(data, "test", root=root, download=download)
    candidates = read_candidates(models, module)
    processes = join_processes(place)
    output.quiet(processes.rank > 0)
    with naming("--surrogate"):
        twin = None if surrogate is None else TorchTarget(load_run(surrogate).to(place))
    count = min(_LIMIT, len(dataset)) if limit is None else limit or None
    setup = BenchmarkSetup(suite, settings, count, seed, twin, out / "attacks", processes)
    report = run_bench(output, candidates, dataset, setup, out, runtimes, policy, place)
    if processes.rank > 0:
        return
    output.result(report.to_dict())
    if any(flag.kind in _FAIL_ON[fail_on] for model in report.models for flag in model.flags):
        sys.exit(FAILED)


def run_bench(
    output: Output,
    candidates: Sequence[Candidate],
    dataset: Dataset,
    setup: BenchmarkSetup,
    out: Path,
    runtimes: Sequence[str] = ("torch", "onnx"),
    policy: str = "auto",
    device: torch.device | None = None,
) -> Report:
    """Run a benchmark with a progress bar, write its report into `out`, and print its tables."""
    _ = setup.attacks(), setup.draw(dataset)  # what cannot be run is refused before anything is exported
    device = device or find_device("cpu")
    tried = subjects(candidates, runtimes, out / "models", policy, device, setup.processes)
    with output.progress(f"Attacking with suite {setup.suite}") as update:
        report, pictures = benchmark(
            tried,
            dataset,
            setup,
            provenance=provenance(["muquant", *sys.argv[1:]]),
            on_progress=lambda at: update(
                round(100 * at.share), 100, f"{at.what}: {at.done} of {at.total} images"
            ),
        )
    if setup.processes.rank == 0:
        paths = write_report(report, pictures, out)
        _show(output, report)
        output.say(f"Wrote {', '.join(map(str, paths))}")
    return report


def _runtimes(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not names or not set(names) <= {"torch", "onnx"}:
        raise InputError(f'--runtime is {text!r}; expected "torch", "onnx" or "torch,onnx"')
    return names


def _show(output: Output, report: Report) -> None:
    """Print the headline, the attacks and the flags."""
    count = report.data["count"]
    where = f"{report.norm} {report.epsilon:.4g}, {count} images of {report.data['name']}"
    header = ("model", "runtime", "bits", "clean", "worst case", "95 % interval", "robustness")
    output.table(
        f"Worst case over all attacks, {where}", header, [_headline(model) for model in report.models]
    )
    names = list(dict.fromkeys(name for model in report.models for name in model.attacks))
    rows = [(name, *(_cell(model, name) for model in report.models)) for name in names]
    titles = [f"{model.name} ({model.runtime})" for model in report.models]
    output.table("Accuracy under each attack", ("attack", *titles), rows)
    for model in report.models:
        for flag in model.flags:
            output.say(f"{flag.kind}: {model.name} ({model.runtime}): {flag.check}: {flag.explanation}")


def _headline(model: ModelReport) -> tuple[str, ...]:
    interval = model.worst_case_interval
    return (
        model.name,
        model.runtime,
        "-" if model.bits is None else f"{model.bits:.3g}",
        f"{model.clean:.2%}",
        "-" if model.worst_case is None else f"{model.worst_case:.2%}",
        "-" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}",
        model.verdict,
    )


def _cell(model: ModelReport, name: str) -> str:
    attack = model.attacks.get(name)
    if attack is None or attack.accuracy is None:
        return "not available"
    return f"{attack.accuracy:.2%}"
