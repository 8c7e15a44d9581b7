"""The group of commands. A command's module is imported only when it runs: help and version need no torch."""

from importlib import import_module
from typing import Any

import click

from muquant_cli.streams import one_line

COMMANDS = {
    "demo": "Train, compress, export and verify a small model on handwritten digits.",
    "train": "Train a model and keep it in a run folder.",
    "compress": "Compress the weights of a model to few bits.",
    "export": "Write a compressed model as an ONNX file.",
    "verify": "Prove that an ONNX file computes what the compressed model computes.",
    "bench": "Attack models side by side, and tell how far the figures can be believed.",
    "inspect": "Show what is in a file, layer by layer.",
}
"""Command -> its line in the help. Each is a function of the same name in a module of the same name."""


class _LazyGroup(click.Group):
    def main(self, *arguments: Any, **options: Any) -> Any:
        with one_line():  # what help and wrong options print is printed here
            return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with one_line():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"muquant_cli.commands.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="muquant")
def main() -> None:
    """Compress neural networks to 3-bit weights that stock onnxruntime runs."""
