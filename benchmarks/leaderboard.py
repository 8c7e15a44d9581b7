"""The leaderboard of networks that withstand attacks: `robust/README.md` is its page.

    python benchmarks/leaderboard.py add NAME MODEL --data mnist --weights trained --made-by "..." ...
    python benchmarks/leaderboard.py attack NAME [--model MODEL] [--count 1000] [--again]
    python benchmarks/leaderboard.py check
    python benchmarks/leaderboard.py ladder RECIPE [--seed 0] [--bits 3] [--weights trained] [--attack]
    python benchmarks/leaderboard.py ladder RECIPE --threat l2 2 [--attack]
    python benchmarks/leaderboard.py source [--rows fl] [--attack]
    python benchmarks/leaderboard.py page

`add` writes an entry, and keeps the .mq file. `attack` measures it, in PyTorch and as a deployed file; with
`--again` it compares what it finds with what the entry states, and the exit status is 1 where they differ.
`check` compares every kept file with its entry. `ladder` trains and rounds the networks of a recipe of ours;
with `--threat` it enters them once more, for another ball than that of their training. `source` enters the
source's networks, rounded and mapped as it does it, from the runs in `models/`. `page` writes
`results/leaderboard.json`, the table, and its plot. All but `page` can be interrupted: the next call goes on.
Data sets are found by MUQUANT_DATA.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import get_args

import figures
from provenance import RESULTS, write_results
from robust.attack import COUNT, SUITE, attack, attack_and_write, attack_new
from robust.entry import WEIGHTS, Entry, add, digest, names
from robust.ladder import RECIPES, WAYS, WIDTHS, climb
from robust.page import plot, summary
from robust.source import ROWS, enter

from muquant.attacks import Norm
from muquant.base.errors import InputError
from muquant.robustness import SUITES, settings_for
from muquant.training import OutOfTime


def main(words: list[str] | None = None) -> int:
    """Do one of the commands."""
    chosen = _parser().parse_args(words)
    try:
        status: int = chosen.function(chosen)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("add", help="add a network, not attacked yet")
    command.set_defaults(function=add_entry)
    command.add_argument("name")
    command.add_argument("model", type=Path, help="a .mq file")
    command.add_argument("--data", required=True, help="whose test images are attacked")
    command.add_argument("--weights", choices=list(WEIGHTS), required=True, help="what was done to them")
    command.add_argument("--made-by", required=True, help="the command, or a sentence")
    command.add_argument("--author", required=True)
    command.add_argument("--control", help="entry of the float network of the same recipe and epochs")
    command.add_argument("--norm", choices=get_args(Norm), default="linf")
    command.add_argument("--epsilon", help="such as 8/255; by default the usual one of the data set")

    command = commands.add_parser("attack", help="attack an entry")
    command.set_defaults(function=attack_entry)
    command.add_argument("name")
    command.add_argument("--model", type=Path, help="where it is, if not kept here")
    command.add_argument("--again", action="store_true", help="compare with what the entry states")
    _of_attacks(command)

    command = commands.add_parser("check", help="compare the kept files with their entries")
    command.set_defaults(function=check)

    command = commands.add_parser("ladder", help="train and round the networks of a recipe of ours")
    command.set_defaults(function=ladder)
    command.add_argument("recipe", choices=list(RECIPES))
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--runs", type=Path, default=Path("runs/robust"), help="folder of the runs")
    command.add_argument("--bits", type=int, nargs="+", choices=WIDTHS, default=WIDTHS, help="which widths")
    command.add_argument("--weights", nargs="+", choices=WAYS, default=WAYS, help="what is done to weights")
    command.add_argument("--max-seconds", type=float, default=math.inf, help="of each training")
    command.add_argument(
        "--threat", nargs=2, metavar=("NORM", "EPSILON"), help="enter them for another ball, such as l2 2"
    )
    command.add_argument("--attack", action="store_true", help="attack those that were not yet")
    _of_attacks(command)

    command = commands.add_parser("source", help="enter the source's networks, in its own forms")
    command.set_defaults(function=source)
    command.add_argument("--runs", type=Path, default=Path("runs/robust/source"), help="folder of .mq files")
    command.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="which networks")
    command.add_argument("--attack", action="store_true", help="attack those that were not yet")
    _of_attacks(command)

    commands.add_parser("page", help="write the table and its plot").set_defaults(function=page)
    return parser


def _of_attacks(command: argparse.ArgumentParser) -> None:
    command.add_argument("--count", type=int, default=COUNT, help="test images")
    command.add_argument("--suite", choices=list(SUITES), default=SUITE)
    command.add_argument(
        "--reports", type=Path, default=Path("runs/robust/reports"), help="folder of the reports"
    )


def add_entry(options: argparse.Namespace) -> int:
    """Add a network, not attacked yet."""
    settings = settings_for(options.data, options.epsilon, options.norm)
    entry = Entry(
        name=options.name,
        data=options.data,
        norm=settings.norm,
        epsilon=float(settings.epsilon),
        weights=options.weights,
        made_by=options.made_by,
        author=options.author,
        control=options.control,
        sha256=digest(options.model),
    )
    path = add(entry, options.model, keep=True)
    print(f"wrote {path}; next: python benchmarks/leaderboard.py attack {entry.name}")
    return 0


def attack_entry(options: argparse.Namespace) -> int:
    """Attack an entry, and write what is left; or compare it with what is stated."""
    entry = Entry.read(options.name)
    model = options.model or entry.file
    if not options.again:
        attack_and_write(entry, model, options.count, options.suite, options.reports)
        return 0
    if entry.figures is None:
        raise InputError(f"entry {entry.name}: it was not attacked yet; leave out --again")
    stated = entry.figures
    found = attack(entry, model, stated["count"], stated["suite"], options.reports / f"{entry.name}-again")
    same = True
    for runtime, figures_of in found["runtimes"].items():
        for key in ("clean", "aa_standard", "worst_case", "certified"):
            told = stated["runtimes"][runtime][key]
            same &= figures_of[key] == told
            print(f"{runtime} {key}: stated {told}, found {figures_of[key]}")
    return int(not same)


def check(options: argparse.Namespace) -> int:
    """Compare the kept files with their entries."""
    entries = [Entry.read(name) for name in names()]
    kept = [entry for entry in entries if entry.file.exists()]
    for entry in kept:
        entry.check(entry.file)
    print(f"{len(entries)} entries, {len(kept)} kept files, each the one that was attacked")
    return 0


def ladder(options: argparse.Namespace) -> int:
    """Train and round the networks of a recipe."""
    threat = None
    if options.threat is not None:
        norm, epsilon = options.threat
        threat = settings_for(RECIPES[options.recipe].config.data, epsilon, norm).threat
    try:
        made = climb(
            options.recipe,
            options.seed,
            options.runs,
            options.max_seconds,
            options.bits,
            options.weights,
            threat,
        )
    except OutOfTime as stopped:
        print(f"{stopped}; the same command goes on")
        return 1
    _attack_new(made, options)
    return 0


def source(options: argparse.Namespace) -> int:
    """Enter the source's networks."""
    _attack_new(enter(options.runs, options.rows), options)
    return 0


def _attack_new(made: list[tuple[Entry, Path]], options: argparse.Namespace) -> None:
    if options.attack:
        attack_new(made, options.count, options.suite, options.reports)


def page(options: argparse.Namespace) -> int:
    """Write the table and its plot."""
    document = summary([entry for entry in map(Entry.read, names()) if entry.figures is not None])
    print(f"wrote {write_results('leaderboard', 0, document)}")
    plot(document, RESULTS / "leaderboard.png")
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
