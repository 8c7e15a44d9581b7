"""The examples in Python, Node and C++ read the digits that onnxruntime reads, and fail in a line."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from muquant_onnx.serving.sessions import POLICIES

ROOT = Path(__file__).parent.parent.parent
FILES = "3bit.onnx", "3bit-web.onnx", "float32.onnx"


def read(networks: Path, file: str) -> str:
    """What an example should print of `digits.pgm`: the digits, as a float session reads them."""
    pixels = np.asarray(Image.open(networks / "digits.pgm"))
    images = pixels.reshape(10, 1, pixels.shape[1], pixels.shape[1]).astype(np.float32) / np.float32(255)
    session = ort.InferenceSession(networks / file)
    logits = session.run(None, {session.get_inputs()[0].name: images})[0]
    return " ".join(map(str, logits.argmax(1)))


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def fails(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert not done.stdout
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    return done.stderr


def without(modules: str, script: Path) -> tuple[str, ...]:
    """A command that runs `script` as Python does, where `modules` cannot be imported."""
    blocked = f"import runpy, sys; sys.modules.update(dict.fromkeys({modules!r}.split()))"
    start = f"sys.argv[:] = sys.argv[1:]; sys.path[0] = {str(script.parent)!r}"
    return (
        sys.executable,
        "-c",
        f"{blocked}; {start}; runpy.run_path(sys.argv[0], None, '__main__')",
        str(script),
    )


def check(output: str, networks: Path, file: str) -> None:
    first, second = output.splitlines()
    size = (networks / file).stat().st_size
    assert first.replace(",", "").startswith(f"{file}: {size} bytes")
    assert re.fullmatch(rf"10 digits in [\d.]+ ms: {read(networks, file)}", second)


@pytest.mark.slow
def test_the_networks_tell_digits_apart(examples: Path) -> None:
    networks = examples / "networks"
    for file in FILES:
        assert sum(map(str.__eq__, read(networks, file).split(), "0123456789")) >= 7
    described = json.loads((networks / "networks.json").read_text())
    assert [each["bytes"] for each in described["networks"]] == [
        (networks / file).stat().st_size for file in FILES[1:]
    ]
    assert all(each["accuracy"] > 0.7 for each in described["networks"])


@pytest.mark.slow
def test_plain_python(examples: Path, tmp_path: Path) -> None:
    command = without("muquant muquant_onnx torch onnx", examples / "python/plain.py")
    for file in FILES:
        check(run(*command, examples / "networks" / file), examples / "networks", file)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes((examples / "networks/3bit.onnx").read_bytes()[:9000])
    for path in (cut, tmp_path / "none.onnx"):
        assert path.name in fails(*command, path)


@pytest.mark.slow
def test_load_session(examples: Path, tmp_path: Path) -> None:
    command = without("torch", examples / "python/load.py")
    lines = run(*command).splitlines()
    assert [line.split(":")[0] for line in lines] == list(POLICIES)
    expected = read(examples / "networks", "3bit.onnx").split()
    for policy, line in zip(POLICIES, lines, strict=True):
        others = sum(map(str.__ne__, line.split("ms: ")[1].split(), expected))
        assert others <= policy.startswith("int")  # integer kernels round, which may turn one near tie
    cut = tmp_path / "cut.onnx"
    cut.write_bytes((examples / "networks/3bit.onnx").read_bytes()[:9000])
    for path in (cut, tmp_path / "none.onnx", examples / "networks/float32.onnx"):
        assert path.name in fails(*command, path)


@pytest.mark.slow
def test_node(examples: Path, tmp_path: Path, packages: Callable[[Path], Path]) -> None:
    script = examples / "node/run.mjs"
    assert "onnxruntime-node" in fails("node", script)  # nothing is installed there yet
    (examples / "node/node_modules").symlink_to(packages(ROOT / "examples/node"))
    for file in FILES:
        check(run("node", script, examples / "networks" / file), examples / "networks", file)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes((examples / "networks/3bit.onnx").read_bytes()[:9000])
    for path in (cut, tmp_path / "none.onnx"):
        assert path.name in fails("node", script, path)


@pytest.mark.slow
def test_cpp(examples: Path, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("needs cmake and a C++ compiler")
    root = f"-DONNXRUNTIME_ROOT={os.environ.get('ONNXRUNTIME_ROOT', '')}"
    configure = ["cmake", "-B", str(tmp_path), "-S", str(ROOT / "examples/cpp"), root]
    done = subprocess.run(configure, capture_output=True, text=True, timeout=120)
    if done.returncode:
        assert "CMAKE_CXX_COMPILER" in done.stderr or "-DONNXRUNTIME_ROOT=FOLDER" in done.stderr
        pytest.skip("needs a C++ compiler, and onnxruntime's headers and library in ONNXRUNTIME_ROOT")
    run("cmake", "--build", tmp_path)
    networks = examples / "networks"
    for file in FILES:
        check(run(tmp_path / "digits", networks / file, networks / "digits.pgm"), networks, file)
    for path in (tmp_path / "none.onnx", networks / "networks.json"):
        assert path.name in fails(tmp_path / "digits", path, networks / "digits.pgm")
        assert path.name in fails(tmp_path / "digits", networks / "3bit.onnx", path)


@pytest.mark.parametrize("folder", ["examples/node", "examples/web", "tests/examples/browser"])
def test_packages_are_pinned_and_name_no_registry(folder: str) -> None:
    wanted = json.loads((ROOT / folder / "package.json").read_text())
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())["packages"]
    assert lock[""]["dependencies"] == wanted["dependencies"]
    for name, version in wanted["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all("resolved" not in package and "integrity" in package for name, package in lock.items() if name)
