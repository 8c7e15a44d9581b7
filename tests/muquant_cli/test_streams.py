"""What the system says no to: one line on stderr, exit status 2, and never a traceback."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from .conftest import fails

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[1] / "data" / "format_1"
SHOW = ("inspect", FOLDER / "model.mq")


def muquant(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "muquant_cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, text=True, timeout=120, check=False, **pipes)


def line_of(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line of a process that ended as it should."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stderr.startswith("muquant: error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("arguments", [SHOW, ("--help",)])
def test_a_full_disk_below_stdout(arguments: Sequence[object]) -> None:
    with Path("/dev/full").open("w") as full:
        assert "No space left" in line_of(muquant(*arguments, stdout=full))


def test_nobody_reads_stdout() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        assert "Broken pipe" in line_of(muquant(*SHOW, stdout=pipe))


def closing(*streams: int) -> Callable[[], None]:
    def close() -> None:
        for stream in streams:
            os.close(stream)

    return close


def test_a_closed_stdout_is_said() -> None:
    assert "stdout is closed" in line_of(muquant(*SHOW, stdout=None, preexec_fn=closing(1)))


def test_no_file_takes_the_place_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    done = muquant("export", "none.mq", "-o", tmp_path / "out.onnx", preexec_fn=closing(0, 2))
    assert done.returncode == 2  # and nobody can be told
    assert done.stdout == done.stderr == ""


def test_a_stream_that_has_ascii_alone(tmp_path: Path) -> None:
    path = tmp_path / "größe.mq"
    path.write_bytes((FOLDER / "model.mq").read_bytes())
    done = muquant("inspect", path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "gr\\xf6\\xdfe.mq" in done.stdout
    assert done.stdout.isascii()


def limit(nbytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    train = ("train", "--data", "digits", "--model", "cnn4-small", "--epochs", 1, "-o", tmp_path / "run")
    assert "checkpoint.safetensors: File too large" in line_of(muquant(*train, preexec_fn=limit(2000)))
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".muquant")]


def test_no_folder_for_temporary_files() -> None:
    assert "TMPDIR" in line_of(muquant("inspect", FOLDER / "model.onnx", preexec_fn=limit(0)))


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mq")
    for arguments in (("inspect", path), ("compress", FOLDER / "graph.onnx", "-o", path[:-2] + "onnx")):
        line = fails(*arguments)
        assert "\\udcff" in line
        assert "not UTF-8" in line


SEVERAL = """
import json, sys
from muquant_cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        print(end.code)
"""


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.mq", "a.onnx", "a.npy", "a.safetensors", "plan.json"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "model.safetensors")
    graph, out = FOLDER / "graph.onnx", tmp_path / "out.onnx"
    calls: Sequence[Sequence[object]] = (
        ("inspect", tmp_path / "a.mq"),
        ("inspect", tmp_path / "a.onnx"),
        ("inspect", tmp_path / "run"),
        ("compress", tmp_path / "a.onnx", "-o", out),
        ("compress", graph, "-o", tmp_path / "a.onnx"),
        ("compress", graph, "-o", out, "--calibration", tmp_path / "a.npy"),
        ("compress", graph, "-o", out, "--plan", tmp_path / "plan.json"),
        ("compress", "torchvision:squeezenet1_1", "-o", out, "--state", tmp_path / "a.safetensors"),
    )
    texts = json.dumps([[*map(str, each)] for each in calls])
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, texts], text=True, capture_output=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["2"] * len(calls)
    lines = done.stderr.splitlines()
    assert len(lines) == len(calls), lines
    assert all("it is a pipe" in line for line in lines), lines
    assert not out.exists()


def test_an_output_is_tried_before_anything_is_read() -> None:
    for command in ("compress", "export"):
        assert "cannot write /proc/out.onnx" in fails(command, "nothing.mq", "-o", "/proc/out.onnx")
