"""Options of the number format, and of how it is chosen."""

import re
from collections.abc import Callable
from typing import Any, Literal, get_args

import click

from muquant.base.errors import InputError
from muquant.compression.options import TUNED
from muquant.format.spec import Domain, Grid, Levels
from muquant.quantization.observers import OBSERVERS
from muquant.quantization.rounding import ROUNDINGS


def format_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the number format and of how it is chosen."""
    for option in reversed(
        (
            click.option(
                "--bits",
                default="3",
                metavar="N[,REGEX=N...]",
                help="Bits of a code, 2 to 8, on average: weights whose errors matter more to the answers "
                "have more; then widths of the layers whose name a REGEX is found in.",
            ),
            click.option(
                "--flat", is_flag=True, help="Give all layers the width of --bits, whatever they matter."
            ),
            click.option(
                "--mu", default="auto", metavar="NUMBER|auto", help="Companding parameter; 0: uniform levels."
            ),
            click.option(
                "--domain",
                type=click.Choice(get_args(Domain)),
                default="decoded",
                help="Decode the weights, or deploy them mapped by the law.",
            ),
            click.option(
                "--granularity",
                default="channel",
                metavar="tensor|channel|group:G",
                help="Which weights share a scale.",
            ),
            click.option(
                "--step-bits",
                type=click.Choice(["8", "32"]),
                default="8",
                help="Of each step where a weight has many; 32: all stay float32.",
            ),
            click.option(
                "--levels",
                type=click.Choice(get_args(Levels)),
                default="mid-rise",
                help="Levels without, or with, an exact zero.",
            ),
            click.option(
                "--grid",
                type=click.Choice(get_args(Grid)),
                default="auto",
                help="Integers on which levels lie; int4: those of a 4-bit kernel, for at most 4 bits. auto: "
                "int8, above 6 bits int16.",
            ),
            click.option(
                "--layers",
                default="all",
                metavar="all|last:K|REGEX|auto",
                help="Which layers to compress; auto: each as narrow as keeps ||dW||_2 at most 1.",
            ),
            click.option(
                "--rounding",
                type=click.Choice([*ROUNDINGS, TUNED]),
                help="How codes are chosen, each weight by the best up to this one; tuned: then trained all "
                "together towards the float network.  [default: balanced, or reconstructed with samples]",
            ),
            click.option(
                "--max-seconds",
                type=click.FloatRange(min=0, min_open=True),
                help="How long the training of --rounding tuned may take at most.",
            ),
            click.option(
                "--observer",
                type=click.Choice(list(OBSERVERS)),
                default="search",
                help="How scale and mu are chosen.",
            ),
        )
    ):
        function = option(function)
    return function


def parse_bits(text: str) -> tuple[int, dict[str, int]]:
    """Read the value of `--bits`: the width, and other widths of some layers; a REGEX may hold commas."""
    match = re.fullmatch(r"(\d+)(,.+=\d+)?", text)
    if match is None:
        raise InputError(
            f'--bits is {text!r}; expected a width, then REGEX=WIDTH, such as "3,conv1=8,fc.*=4"'
        )
    others = re.findall(r",(.+?)=(\d+)(?=,|$)", match[2] or "")
    return int(match[1]), {layers: int(bits) for layers, bits in others}


def parse_mu(text: str) -> float | Literal["auto"]:
    """Read the value of `--mu`."""
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise InputError(f'--mu is {text!r}; expected a number from 0 up, or "auto"') from None
