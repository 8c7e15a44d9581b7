"""What every command shares: the `--json` switch, tables and progress."""

import functools
import json
import math
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
from rich.text import Text

from muquant.base.text import printable
from muquant_cli.streams import complain

FAILED = 1


class Output:
    """Where a command prints: tables on stdout, or with `--json` one document there, the rest on stderr.

    Whatever it is given is text: what is no printable character is escaped, and nothing is markup.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = _console(stderr=False)
        self.log = _console(stderr=True)

    def quiet(self, quiet: bool) -> None:
        """Print nothing from now on: one of several processes speaks for all."""
        self.console.quiet = self.log.quiet = quiet

    def say(self, text: str) -> None:
        """Print a line for people."""
        (self.log if self.as_json else self.console).print(_text(text))

    def remark(self, text: str) -> None:
        """Print a line for people on stderr."""
        self.log.print(_text(text))

    def complain(self, text: str) -> None:
        """Print on stderr what is wrong with a result."""
        complain(text)

    def table(self, title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table for people; the first column is never wrapped."""
        table = Table(
            title=_text(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
        )
        for index, column in enumerate(header):
            table.add_column(_text(column), no_wrap=not index, overflow="fold")
        for row in rows:
            table.add_row(*(_text(str(cell)) for cell in row))
        (self.log if self.as_json else self.console).print(table)

    def result(self, document: dict[str, Any]) -> None:
        """Print the machine's document, if it was asked for; a number that JSON has not is null in it."""
        if self.as_json:
            click.echo(json.dumps(_finite(document), allow_nan=False))

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
            task = bar.add_task(printable(description), total=None, note="")

            def update(done: int, total: int | None, note: str) -> None:
                bar.update(task, completed=done, total=total, note=printable(note))

            yield update


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`, and pass an `Output` first."""

    @click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document on stdout; logs go to stderr."
    )
    @functools.wraps(function)
    def wrapped(*args: Any, as_json: bool, **options: Any) -> None:
        function(Output(as_json), *args, **options)

    return wrapped


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the error to whoever ends the process; the base ends it here, without a word."""
        raise


def _console(stderr: bool) -> Console:
    console = _Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width; tables should not fold there
    return console


def _text(text: str) -> Text:
    return Text(printable(text))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
