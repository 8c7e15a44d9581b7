"""Without the packages of an extra: one line that says which to install, for every command and every public
name. Packages are hidden from a fresh process, as if they had never been installed."""

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from muquant.base.extras import EXTRAS

FILE = Path(__file__).parents[2] / "data" / "format_1" / "model.onnx"
ARTIFACT = FILE.with_suffix(".mq")
ALL = [module for modules in EXTRAS.values() for module in modules]
HIDE = """
import importlib, importlib.util, json, sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in HIDDEN else PathFinder.find_spec(name, path, target)

HIDDEN = set(json.loads(sys.argv[1]))
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""
COMMANDS = """
from muquant_cli import main
for arguments in json.loads(sys.argv[2]):
    try:
        main(arguments, prog_name="muquant", standalone_mode=False)
        status = 0
    except SystemExit as end:
        status = end.code
    print(f"{status}|", end="", file=sys.stderr)
"""
NAMES = """
from muquant.base.errors import InputError
found = {}
for package in ("muquant", "muquant_onnx"):
    for name in importlib.import_module(package).__all__:
        try:
            found[name] = getattr(sys.modules[package], name) and ""
        except InputError as error:
            assert isinstance(error, ModuleNotFoundError) and error.name in HIDDEN
            found[name] = str(error)
print(json.dumps(found))
"""
ROOMS = """
from muquant.base.errors import InputError
found = {}
for name in json.loads(sys.argv[2]):
    try:
        importlib.import_module(name)
    except InputError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def run(code: str, hidden: Collection[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    texts = [json.dumps(each) for each in (list(hidden), *arguments)]
    return subprocess.run([sys.executable, "-c", HIDE + code, *texts], capture_output=True, text=True)


def answers(code: str, hidden: Collection[str], *arguments: object) -> Any:
    done = run(code, hidden, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def said(hidden: Collection[str], *commands: list[str]) -> list[tuple[str, int]]:
    """What commands print on stderr, and their exit statuses."""
    done = run(COMMANDS, hidden, commands)
    assert done.returncode == 0, done.stderr
    *parts, rest = done.stderr.split("|")
    assert not rest
    return [(text, int(status)) for text, _, status in (part.rpartition("\n") for part in parts)]


def without(*extras: str) -> list[str]:
    """The modules that are missed; what serves files brings sympy along."""
    return [module for extra in extras for module in EXTRAS[extra] if module != "sympy" or "serve" in extras]


def asks_for(extra: str, text: str) -> bool:
    return text.endswith(f"which is not installed; run: pip install 'muquant[{extra}]'")


WANTS = {
    ("train", "--data", "digits", "--out", "run"): "torch",
    ("compress", "model.onnx", "-o", "small.onnx"): "torch",
    ("export", "model.mq", "-o", "model.onnx"): "torch",
    ("verify", "model.mq", "model.onnx"): "torch",
    ("bench", "model.onnx", "--data", "digits", "--out", "report"): "bench",
    ("demo",): "bench",
}


@pytest.mark.parametrize("extras", [("serve", "torch", "bench"), ("torch", "bench")], ids=str)
def test_every_command_asks_for_what_it_needs_in_one_line(extras: tuple[str, ...]) -> None:
    commands = [[*arguments] for arguments in WANTS]
    for (text, status), (arguments, extra) in zip(
        said(without(*extras), *commands), WANTS.items(), strict=True
    ):
        assert status == 2, (arguments, text)
        assert text.startswith("muquant: error: muquant")
        assert "\n" not in text
        assert asks_for(extra, text), (arguments, text)


def test_the_bare_command_knows_its_help_and_its_version_and_shows_files_with_what_serves_them() -> None:
    (_, help_status), (_, version_status), (shown, status) = said(
        ALL, ["--help"], ["--version"], ["inspect", str(FILE)]
    )
    assert (help_status, version_status, status) == (0, 0, 2)
    assert asks_for("serve", shown)
    serving = said(without("torch", "bench"), ["inspect", str(FILE)], ["inspect", str(ARTIFACT)])
    assert serving[0] == ("", 0)
    assert asks_for("torch", serving[1][0])


def test_every_public_name_is_there_or_asks_for_its_extra() -> None:
    bare, serving = answers(NAMES, ALL), answers(NAMES, without("torch", "bench"))
    assert {name for name, text in bare.items() if not text} == {"InputError"}
    served = {name for name, text in serving.items() if not text}
    assert served >= {
        "load_session",
        "decode_file",
        "logits_of",
        "running_operators",
        "RUNTIME_SETTINGS",
        "MuLawSpec",
    }
    assert not served & {"compress", "compress_onnx", "export_onnx", "load", "verify", "verify_onnx"}
    for name, text in bare.items() | serving.items():
        extra = "serve" if name in served else "torch"
        assert not text or asks_for(extra, text), (name, text)


def test_every_room_asks_for_its_extra() -> None:
    rooms = {"muquant.attacks": "torch", "muquant.training": "torch", "muquant.robustness": "bench"}
    rooms |= {"muquant.data": "torch", "muquant.models": "torch", "muquant.certification": "torch"}
    rooms |= {"muquant_integrations.torchao": "torch"}
    for name, text in answers(ROOMS, ALL, list(rooms)).items():
        assert asks_for(rooms.pop(name), text)
    assert not rooms


def test_files_are_served_without_any_other_extra() -> None:
    code = """
import numpy as np
import onnx
from muquant_onnx import decode_file, load_session
from muquant_onnx.serving.sessions import POLICIES
shape = [each.dim_value or 1 for each in onnx.load(sys.argv[2]).graph.input[0].type.tensor_type.shape.dim]
x = np.zeros(shape, np.float32)
answers = [
    session.run(None, {session.get_inputs()[0].name: x})[0].tolist()
    for session in (load_session(sys.argv[2], policy=policy) for policy in (None, *POLICIES))
]
print(json.dumps([len(decode_file(sys.argv[2])), answers]))
"""
    done = run(code.replace("sys.argv[2]", "json.loads(sys.argv[2])"), without("torch", "bench"), str(FILE))
    assert done.returncode == 0, done.stderr
    weights, found = json.loads(done.stdout)
    assert weights == 4
    for answer in found[1:]:
        assert answer[0] == pytest.approx(found[0][0], abs=0.05)


def test_what_others_import_and_look_for_stays_as_it_is() -> None:
    code = """
import muquant
try:
    import torch
except ModuleNotFoundError as error:
    print(json.dumps([type(error).__name__, str(error), importlib.util.find_spec("torch")]))
"""
    assert answers(code, ALL) == ["ModuleNotFoundError", "No module named 'torch'", None]


@pytest.mark.slow
def test_pictures_and_reports_ask_for_their_extra_before_anything_is_trained(tmp_path: Path) -> None:
    picture = ["inspect", str(ARTIFACT), "--plot", str(tmp_path / "weights.png")]
    learning = ["train", "--data", "digits", "--method", "feedback", "--out", str(tmp_path / "run")]
    demo = ["demo", "--out", str(tmp_path / "demo")]
    attack = ["bench", str(FILE), "--data", "digits", "--out", str(tmp_path / "report")]
    for text, status in said(without("bench"), picture, learning, demo, attack, ["inspect", str(ARTIFACT)])[
        :-1
    ]:
        assert status == 2, text
        assert asks_for("bench", text), text
    assert not list(tmp_path.iterdir())
