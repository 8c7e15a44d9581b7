"""What is not imported until it is needed: commands start at once, and files are served without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from muquant_onnx.serving.sessions import POLICIES

FILE = Path(__file__).parent / "data" / "format_1" / "model.onnx"
pytestmark = pytest.mark.slow


def imported(*steps: str) -> list[set[str]]:
    """The packages that a fresh process has after each of these lines."""
    after = "\nprint('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    code = "import json, sys\n" + "".join(step + after for step in steps)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [set(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def test_a_file_is_opened_without_torch() -> None:
    policies = [None, *POLICIES]
    opens = [f"muquant_onnx.load_session({str(FILE)!r}, policy={policy!r})" for policy in policies]
    for policy, found in zip(
        policies, imported(*(f"import muquant_onnx; {each}" for each in opens)), strict=True
    ):
        assert "onnxruntime" in found
        assert "torch" not in found, policy


def test_help_and_version_are_there_at_once() -> None:
    start = "from muquant_cli import main"
    for found in imported(
        *(f"{start}; main([{o!r}], standalone_mode=False)" for o in ("--help", "--version"))
    ):
        assert "muquant_cli" in found
        assert not found & {"torch", "scipy", "sklearn", "onnx", "onnxruntime", "matplotlib", "pandas"}


def test_compression_needs_no_package_that_benchmarks_need() -> None:
    commands = (f"import muquant_cli.commands.{name}" for name in ("compress", "export", "verify", "train"))
    for found in imported(*commands):
        assert "torch" in found
        assert not found & {"jinja2", "matplotlib"}


def test_a_name_imports_what_it_needs_and_no_more() -> None:
    spec, compress, training = imported(
        "import muquant; muquant.MuLawSpec", "muquant.compress", "import muquant.training"
    )
    assert "muquant" in spec
    assert not spec & {"torch", "torchvision", "lightning_fabric", "matplotlib"}
    assert "torch" in compress
    assert not compress & {"torchvision", "lightning_fabric", "matplotlib"}
    assert not training & {"lightning_fabric", "matplotlib"}  # several processes, and pictures
