"""Options that several commands take."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from muquant.base.errors import InputError
from muquant_onnx.lowering.lower import Policy
from muquant_onnx.lowering.targets import TARGETS, choose_target

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what a file is for, as one argument: a `Target`."""

    @wraps(function)
    def with_target(*arguments: Any, target: str, policy: str | None, functions: bool, **others: Any) -> Any:
        return function(*arguments, target=choose_target(target, policy, functions or None), **others)

    for option in (
        click.option(
            "--functions",
            is_flag=True,
            help="Leave what decodes in functions of the file; not every runtime knows them.",
        ),
        click.option(
            "--policy",
            type=click.Choice(get_args(Policy)),
            help="Decode weights to float, keep them int8 or int4 where an operator can, or choose by "
            "layer.  [default: what the target likes best]",
        ),
        click.option(
            "--target",
            type=click.Choice(list(TARGETS)),
            default="onnxruntime",
            help="What the file is for. "
            + "; ".join(f"{name}: {target.description}" for name, target in TARGETS.items()),
        ),
    ):
        with_target = option(with_target)
    return with_target


policy_option = click.option(
    "--policy",
    type=click.Choice(get_args(Policy)),
    default="auto",
    help="Decode weights to float, keep them int8 or int4 where an operator can, or choose by layer.",
)
root_option = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data sets.  [default: MUQUANT_DATA]",
)
module_option = click.option(
    "--module",
    metavar="SOURCE",
    help="What a .mq file was compressed from, if not a run folder; a factory named here is run.",
)
card_option = click.option(
    "--card",
    is_flag=True,
    help="Write what was found into a model card beside the file, NAME.card.md; the rest of a card that is "
    "there stays.",
)
dynamic_option = click.option(
    "--dynamic",
    multiple=True,
    metavar="INPUT=AXIS,...",
    help="Axes of an input of the ONNX file that have to be dynamic, by names for their sizes, such as "
    "ids=batch,sequence; - keeps one as it is. Several times for several inputs; by default all that can be.",
)


def out_option(suffixes: str) -> Decorator:
    """Return the option that names the output file."""
    return click.option(
        "-o", "--out", required=True, type=click.Path(path_type=Path), help=f"File to write: {suffixes}."
    )


def parse_dynamic(texts: Sequence[str]) -> dict[str, list[str | int | None]] | None:
    """Read the values of `--dynamic` as what `export_onnx` takes; None where there is none."""
    shapes: dict[str, list[str | int | None]] = {}
    for text in texts:
        name, equals, axes = text.partition("=")
        if not name or not equals or name in shapes:
            raise InputError(
                f"--dynamic is {text!r}; expected INPUT=AXIS,..., once for each input, such as "
                "ids=batch,sequence"
            )
        sizes = (axis.strip() for axis in axes.split(","))
        shapes[name] = [
            int(size) if size.isdecimal() else None if size in ("", "-") else size for size in sizes
        ]
    return shapes or None
