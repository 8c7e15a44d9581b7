"""Runs of the command line, and one small trained and compressed model for all of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from muquant_cli import main
from muquant_onnx.verification.runners.child import measure
from muquant_onnx.verification.runners.runtime import PythonRuntime

TRAINING = (
    "--data",
    "digits",
    "--model",
    "cnn4-small",
    "--epochs",
    8,
    "--augment",
    "none",
    "--lr",
    "5e-3",
)
"""Options of the run that all tests share."""


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `verify` run files in this process, for as short as it can."""
    monkeypatch.setattr(
        PythonRuntime, "measure", lambda own, request: measure(own, replace(request, seconds=0))
    )


def invoke(*arguments: object) -> Result:
    """Run `muquant` with these arguments; an exception that is not an exit fails the test."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def invoke_json(*arguments: object) -> Any:
    """Run with `--json`, expect success, and return the one document that stdout holds."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def fails(*arguments: object) -> str:
    """Run, expect exit status 2 and one line on stderr, and return that line."""
    result = invoke(*arguments)
    assert result.exit_code == 2, (result.exit_code, result.output)
    assert result.stderr.startswith("muquant: error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    return result.stderr


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    invoke_json("train", *TRAINING, "--out", folder)
    return folder


@pytest.fixture(scope="session")
def artifact(run: Path) -> Path:
    path = run.parent / "model.mq"
    invoke_json("compress", run, "-o", path)
    return path


@pytest.fixture(scope="session")
def exported(artifact: Path) -> Path:
    path = artifact.parent / "model.onnx"
    invoke_json("export", artifact, "-o", path)
    return path
