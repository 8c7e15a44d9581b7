"""The README tells the truth: its code runs, its commands exist, its figures are those that were measured."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import muquant
import muquant_onnx
from muquant_cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_examples_run(tmp_path: Path) -> None:
    code = "\n".join(blocks("python"))  # the second opens what the first writes
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


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
def test_the_figures_are_those_that_were_measured() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "figures.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
