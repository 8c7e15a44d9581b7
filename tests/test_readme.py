"""The README tells the truth: its code runs, its commands exist, its figures are those that were measured."""

import re
import shlex
import sys
from pathlib import Path

import click
import pytest

import muquant
import muquant_onnx
from muquant_cli import main
from muquant_onnx.verification.runners.child import measure
from muquant_onnx.verification.runners.runtime import PythonRuntime

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PythonRuntime, "measure", measure)  # in this process; many would take half a minute
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks("python")), {})  # noqa: S102  # the second opens what the first writes
    assert capsys.readouterr().out == "True\n"


def test_every_name_of_the_examples_is_public() -> None:
    names = set(re.findall(r"\bmq\.(\w+)", README))
    assert names
    assert names <= set(muquant.__all__) | {"mq"}
    for imported in re.findall(r"from muquant_onnx import (.*)", README):
        assert set(imported.split(", ")) <= set(muquant_onnx.__all__)
    for module in (muquant, muquant_onnx):
        assert all(hasattr(module, name) for name in module.__all__)


def test_every_command_of_the_examples_parses() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if "bin/muquant" in line]
    assert len(lines) > 5
    context = click.Context(main)
    for line in lines:
        _, name, *arguments = shlex.split(line, comments=True)
        command = main.get_command(context, name)
        assert command is not None
        command.make_context(name, arguments)  # raises for an unknown option or a missing argument


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs the benchmarks of a checkout")
def test_the_figures_are_those_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import figures

    monkeypatch.setattr(sys, "argv", ["figures.py", "--check"])
    figures.main()  # an exit fails the test
