"""What every command shares: the `--json` switch, errors in one line, tables and progress."""

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from muquant.base.errors import InputError

BAD_INPUT, FAILED = 2, 1


class Output:
    """Where a command prints: tables on stdout, or with `--json` one document there, the rest on stderr."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = _console(stderr=False)
        self.log = _console(stderr=True)

    def quiet(self, quiet: bool) -> None:
        """Print nothing from now on: one of several processes speaks for all."""
        self.console.quiet = self.log.quiet = quiet

    def say(self, text: str) -> None:
        """Print a line for people."""
        (self.log if self.as_json else self.console).print(text)

    def table(self, title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table for people; the first column is never wrapped."""
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        for index, column in enumerate(header):
            table.add_column(column, no_wrap=not index, overflow="fold")
        for row in rows:
            table.add_row(*map(str, row))
        (self.log if self.as_json else self.console).print(table)

    def result(self, document: dict[str, Any]) -> None:
        """Print the machine's document, if it was asked for."""
        if self.as_json:
            click.echo(json.dumps(document, allow_nan=False))

    @contextmanager
    def progress(self, description: str) -> Iterator[Callable[[int, int | None, str], None]]:
        """Show a bar on a terminal, nothing elsewhere; yields `update(done, total, note)`."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.log, disable=not self.log.is_terminal, transient=True) as bar:
            task = bar.add_task(description, total=None, note="")

            def update(done: int, total: int | None, note: str) -> None:
                bar.update(task, completed=done, total=total, note=note)

            yield update


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`, pass an `Output` first, and turn an `InputError` into one line and exit status 2."""

    @click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document on stdout; logs go to stderr."
    )
    @functools.wraps(function)
    def wrapped(*args: Any, as_json: bool, **options: Any) -> None:
        try:
            function(Output(as_json), *args, **options)
        except InputError as error:
            click.echo(f"muquant: error: {' '.join(str(error).split())}", err=True)
            sys.exit(BAD_INPUT)

    return wrapped


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False)  # names may have brackets
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width; tables should not fold there
    return console
