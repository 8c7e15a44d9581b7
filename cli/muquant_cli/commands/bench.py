"""`muquant bench`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click

from muquant.attacks import Norm, TorchTarget
from muquant.attacks.inputs import InputSpace
from muquant.base.errors import InputError, naming
from muquant.base.files import check_writable, make_folder
from muquant.base.processes import join_processes
from muquant.certification import BOUNDS
from muquant.data import load_dataset
from muquant.robustness import SUITES, BenchmarkSetup, read_kinds, settings_for
from muquant.training import load_run
from muquant_cli.card import check_card, write_card
from muquant_cli.options.common import card_option, module_option, policy_option, root_option
from muquant_cli.output import FAILED, Output, command
from muquant_cli.sources.candidates import Candidate, read_candidates
from muquant_cli.steps.benchmark import of_benchmark, run_bench

_LIMIT = 1000
_FAIL_ON = {"never": (), "disqualifying": ("disqualifying",), "any": ("disqualifying", "advisory")}


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@click.option(
    "--data",
    required=True,
    help="Data set whose test images are attacked: digits, mnist, cifar10, folder:PATH, or npz:FILE, arrays "
    "images (uint8, or floats in [0, 1]), labels, and indices and classes if you like.",
)
@click.option("--suite", type=click.Choice(list(SUITES)), help="Which attacks.  [default: standard]")
@click.option(
    "--attacks",
    metavar="NAME[:KEY=VALUE,...],...|FILE",
    help="Attacks of your own choice instead of a suite, with settings, such as "
    "apgd-ce:steps=50,restarts=3,square; or a .json or .toml file of them.",
)
@click.option("--runtime", default="torch,onnx", metavar="torch,onnx", help="Where the models run.")
@click.option(
    "--limit",
    type=int,
    help=f"Images, drawn from the test split; 0 for all.  [default: {_LIMIT}, or all where there are fewer]",
)
@click.option("--epsilon", metavar="NUMBER", help='Radius, such as 0.3 or "8/255".  [default: by data set]')
@click.option("--norm", type=click.Choice(get_args(Norm)), help="Norm of epsilon.  [default: linf]")
@click.option(
    "--bounds", metavar="LOW,HIGH", help="What 0 and 1 are to factories and ONNX files.  [default: 0,1]"
)
@click.option("--mean", metavar="NUMBER[,...]", help="Subtracted after that, for each channel.  [default: 0]")
@click.option("--std", metavar="NUMBER[,...]", help="Divided by after that, for each channel.  [default: 1]")
@click.option("--surrogate", type=click.Path(path_type=Path), help="Run folder of a model to transfer from.")
@click.option(
    "--eot",
    type=click.IntRange(min=1),
    default=1,
    metavar="PASSES",
    help="Passes whose mean answer is attacked, for models that draw numbers.",
)
@click.option(
    "--certify",
    type=click.Choice(list(BOUNDS)),
    help="Prove, too, of how many images no attack can turn them.",
)
@click.option(
    "--target-class",
    default="",
    show_default="any but the label",
    metavar="N|random|least-likely|next",
    help="Aim all attacks at a class: N, or for each image a random one, the one with the smallest logit, or "
    "the one after its own. Only an image that is taken for it counts as fooled.",
)
@click.option(
    "--reject",
    is_flag=True,
    help="Models with one output more than there are classes abstain by the last one: not right for a clean "
    "image, not fooled for an adversarial one.",
)
@click.option(
    "--corruptions",
    metavar="all|NAME,...",
    help="State accuracy under noise, blur, weather and digital faults, too, of ImageNet-C's kinds at five "
    "severities, apart from attacks; needs muquant[corruptions].",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the draw and of all attacks.")
@click.option(
    "-o",
    "--out",
    default="report",
    type=click.Path(path_type=Path),
    help="Folder of the report; finished attacks are kept there, and an interrupted benchmark goes on.",
)
@click.option(
    "--examples", is_flag=True, help="Write images.csv, and an .npz of adversarial images for each model."
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
@card_option
@command
def bench(
    output: Output,
    models: tuple[str, ...],
    data: str,
    suite: str | None,
    attacks: str | None,
    runtime: str,
    limit: int | None,
    epsilon: str | None,
    norm: str | None,
    bounds: str | None,
    mean: str | None,
    std: str | None,
    surrogate: Path | None,
    eot: int,
    certify: str | None,
    target_class: str,
    reject: bool,
    corruptions: str | None,
    seed: int,
    out: Path,
    examples: bool,
    device: str,
    fail_on: str,
    download: bool,
    module: str | None,
    policy: str,
    root: Path | None,
    card: bool,
) -> None:
    """Attack MODELs side by side, and tell how far the figures can be believed.

    A MODEL is a SOURCE as for `compress`, a .mq or an .onnx file. PyTorch models are attacked white-box;
    their exported files run under onnxruntime beside them. An .onnx file of a .mq that is named too counts as
    that model's file. Under `torchrun --nproc-per-node N -m muquant_cli bench ...` the work is shared by N
    processes.
    """
    runtimes = _runtimes(runtime)
    preprocess = _preprocess(bounds, mean, std)
    settings = settings_for(data, epsilon, norm)  # type: ignore[arg-type]  # click's choices are the norms
    processes = join_processes(device)
    output.quiet(processes.rank > 0)
    dataset = load_dataset(data, "test", root=root, download=download)
    candidates = read_candidates(models, module)
    with naming("--surrogate"):
        twin = None if surrogate is None else TorchTarget(load_run(surrogate).to(processes.device))
    if suite and attacks:
        raise InputError("--suite and --attacks both say which attacks are run; give one")
    setup = BenchmarkSetup(
        attacks or suite or "standard",
        settings,
        limit or None,
        seed,
        twin,
        out / "attacks",
        processes,
        eot,
        certify or "",
        target_class,
        reject,
        () if corruptions is None else read_kinds(corruptions),
    )
    if limit is None:
        setup = replace(setup, limit=min(_LIMIT, len(setup.draw(dataset))))
    if processes.rank == 0:
        check_writable(make_folder(out) / "report.json")  # hours before it is written
        for candidate in candidates:
            check_card(_carded(candidate, out), card)
    report = run_bench(
        output, candidates, dataset, setup, out, runtimes, policy, preprocess, examples=examples
    )
    if processes.rank > 0:
        return
    document = report.to_dict()
    if card:
        document["card_paths"] = [
            write_card(output, _carded(each, out), {"bench": of_benchmark(report, each.name)})["card_path"]
            for each in candidates
        ]
    output.result(document)
    if any(flag.kind in _FAIL_ON[fail_on] for model in report.models for flag in model.flags):
        sys.exit(FAILED)


def _carded(candidate: Candidate, out: Path) -> Path:
    """Return the file beside which a model's card is: its own, or one in the folder of the report."""
    return candidate.path if candidate.path.suffix in (".mq", ".onnx") else out / f"{candidate.name}.onnx"


def _preprocess(bounds: str | None, mean: str | None, std: str | None) -> InputSpace | None:
    """Return what comes before models that do not say what they take; None where no option asks for it."""
    if bounds is None and mean is None and std is None:
        return None
    low_high = _numbers("--bounds", bounds or "0,1")
    if len(low_high) != 2:
        raise InputError(f"--bounds is {bounds!r}; expected two numbers, such as 0,255")
    normalise = (_numbers("--mean", mean or "0"), _numbers("--std", std or "1"))
    return InputSpace((low_high[0], low_high[1]), normalise)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} is {text!r}; expected numbers, such as 0.485,0.456,0.406") from None


def _runtimes(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not names or not set(names) <= {"torch", "onnx"}:
        raise InputError(f'--runtime is {text!r}; expected "torch", "onnx" or "torch,onnx"')
    return names
